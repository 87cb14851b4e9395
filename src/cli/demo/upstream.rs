//! The demo's upstream: answers every request after a while, and says which arm it is.

use std::{convert::Infallible, time::Duration};

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use tokio::{
    net::TcpListener,
    time::{Instant, sleep},
};

use super::behaviour::{Behaviour, Regress};

/// Says which arm answered; written by the upstream itself, so that the client's counts do not
/// depend on what the proxy says.
pub(super) const ARM: HeaderName = HeaderName::from_static("x-demo-arm");

/// One upstream.
#[derive(Clone, Debug)]
pub(super) struct Upstream {
    /// Which arm it says it is.
    pub(super) arm: HeaderValue,
    /// What happens to it.
    pub(super) regress: Regress,
    /// From when on.
    pub(super) onset: Instant,
}

/// Pause after the system refused a connection.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

impl Upstream {
    /// Serves for ever.
    pub(super) async fn serve(self, listener: TcpListener) {
        loop {
            match listener.accept().await {
                Ok((stream, _)) => {
                    let upstream = self.clone();
                    let service = service_fn(move |request| {
                        let upstream = upstream.clone();
                        async move { Ok::<_, Infallible>(upstream.answer(request).await) }
                    });
                    let connection =
                        http1::Builder::new().serve_connection(TokioIo::new(stream), service);
                    tokio::spawn(async move {
                        if let Err(error) = connection.await {
                            tracing::debug!(%error, "a connection to a demo upstream broke");
                        }
                    });
                }
                Err(error) => {
                    tracing::warn!(%error, "a demo upstream cannot accept a connection");
                    sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    async fn answer(&self, _request: Request<Incoming>) -> Response<Full<Bytes>> {
        let behaviour = if Instant::now() < self.onset {
            Behaviour::HEALTHY
        } else {
            Behaviour::with(self.regress)
        };
        let (time, failed) = behaviour.draw(&mut fastrand::Rng::new());
        sleep(time).await;
        let mut response = Response::new(Full::new(Bytes::from_static(b"hello\n")));
        response.headers_mut().insert(ARM, self.arm.clone());
        if failed {
            *response.status_mut() = StatusCode::INTERNAL_SERVER_ERROR;
        }
        response
    }
}
