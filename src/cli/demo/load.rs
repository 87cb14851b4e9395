//! The demo's clients: open loop, so a slow answer does not keep the next request from being sent,
//! and every latency counts from the moment at which its request was due. That corrects for
//! coordinated omission.

use std::{
    io,
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderValue, Request, header};
use http_body_util::{BodyExt, Empty};
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use tokio::{
    net::TcpStream,
    sync::{Semaphore, mpsc},
    time::{Instant, sleep_until, timeout},
};

use super::upstream::ARM;

/// Most requests under way at once; what is due beyond that is not sent and counts as failed.
const IN_FLIGHT: usize = 4096;
/// After this long without an answer a request has failed.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(15);

/// What the clients do.
#[derive(Clone, Debug)]
pub(super) struct Load {
    /// Where they send.
    pub(super) target: SocketAddr,
    /// The `Host` they send.
    pub(super) host: HeaderValue,
    /// Requests per second on average; the gaps are exponential.
    pub(super) rate: f64,
    /// When they stop; `None`: never.
    pub(super) until: Option<Instant>,
}

/// One request as its client saw it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sample {
    /// When it was due.
    pub(super) due: Instant,
    /// Who answered; `None` without an answer that says so.
    pub(super) served_by: Option<ServedBy>,
    /// From the moment at which it was due to the last byte of its answer.
    pub(super) latency: Duration,
    /// Whether it failed: a 5xx, or no answer at all.
    pub(super) failed: bool,
}

/// Who answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ServedBy {
    /// The baseline.
    Baseline,
    /// Any canary.
    Canary,
}

/// Sends until it is over, and gives a sample for every request that was due.
pub(super) async fn run(load: Load, samples: mpsc::Sender<Sample>) {
    let permits = Arc::new(Semaphore::new(IN_FLIGHT));
    let pool = Arc::new(Pool { target: load.target, idle: Mutex::default() });
    let mut random = fastrand::Rng::new();
    let mut due = Instant::now();
    loop {
        due += Duration::from_secs_f64(-(1.0 - random.f64()).ln() / load.rate);
        if load.until.is_some_and(|until| due >= until) || samples.is_closed() {
            return;
        }
        sleep_until(due).await;
        let (pool, samples) = (pool.clone(), samples.clone());
        // Every request comes from a user of its own, so that the split is that of a coin.
        let request = request(&load.host, random.u64(..));
        let permit = permits.clone().try_acquire_owned();
        tokio::spawn(async move {
            let answer = match permit {
                Ok(_) => timeout(ANSWER_TIMEOUT, pool.exchange(request)).await.ok(),
                Err(_) => None,
            };
            let (served_by, failed) = match answer {
                Some(Ok(answer)) => answer,
                Some(Err(error)) => {
                    tracing::debug!(%error, "a demo request failed");
                    (None, true)
                }
                None => (None, true),
            };
            let sample = Sample { due, served_by, latency: due.elapsed(), failed };
            // A closed channel means that nobody counts any more.
            let _ = samples.send(sample).await;
            drop(permit);
        });
    }
}

type Sender = SendRequest<Empty<Bytes>>;

struct Pool {
    target: SocketAddr,
    idle: Mutex<Vec<Sender>>,
}

impl Pool {
    async fn exchange(
        &self,
        request: Request<Empty<Bytes>>,
    ) -> Result<(Option<ServedBy>, bool), io::Error> {
        let (mut sender, response) = match self.take() {
            Some(mut sender) => match sender.try_send_request(request).await {
                Ok(response) => (sender, response),
                // Closed in the moment of use: what was not sent goes to a new connection.
                Err(mut error) => match error.take_message() {
                    Some(request) => self.send_anew(request).await?,
                    None => return Err(io::Error::other(error.into_error())),
                },
            },
            None => self.send_anew(request).await?,
        };
        let served_by = response
            .headers()
            .get(ARM)
            .map(|arm| if arm == "baseline" { ServedBy::Baseline } else { ServedBy::Canary });
        let failed = response.status().is_server_error();
        response.into_body().collect().await.map_err(io::Error::other)?;
        if sender.ready().await.is_ok() {
            self.idle.lock().unwrap_or_else(std::sync::PoisonError::into_inner).push(sender);
        }
        Ok((served_by, failed))
    }

    fn take(&self) -> Option<Sender> {
        let mut idle = self.idle.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        std::iter::from_fn(|| idle.pop()).find(|sender| sender.is_ready())
    }

    async fn send_anew(
        &self,
        request: Request<Empty<Bytes>>,
    ) -> io::Result<(Sender, http::Response<hyper::body::Incoming>)> {
        let stream = TcpStream::connect(self.target).await?;
        stream.set_nodelay(true)?;
        let (mut sender, connection) =
            http1::handshake(TokioIo::new(stream)).await.map_err(io::Error::other)?;
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "a demo connection broke");
            }
        });
        let response = sender.send_request(request).await.map_err(io::Error::other)?;
        Ok((sender, response))
    }
}

fn request(host: &HeaderValue, user: u64) -> Request<Empty<Bytes>> {
    let mut request = Request::new(Empty::new());
    *request.uri_mut() = http::Uri::from_static("/");
    let headers = request.headers_mut();
    headers.insert(header::HOST, host.clone());
    let cookie = HeaderValue::try_from(format!("uid={user:016x}")).expect("hexadecimal digits");
    headers.insert(header::COOKIE, cookie);
    request
}
