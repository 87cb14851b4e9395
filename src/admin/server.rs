//! Serves the admin address on a thread and a runtime of its own: whatever is asked here, the
//! workers do not notice.
//!
//! Knows connections, limits and timeouts; what is answered stands in `api`.

use std::{
    convert::Infallible,
    io,
    net::{SocketAddr, TcpListener},
    sync::Arc,
    thread::JoinHandle,
    time::Duration,
};

use axum::{Router, body::Body, response::IntoResponse};
use http::{Request, Response, StatusCode};
use hyper::{body::Incoming, server::conn::http1};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    net::TcpStream,
    sync::{Semaphore, watch},
    time::timeout,
};
use tower::ServiceExt;

use super::problem::Problem;

/// Most open connections; more wait in the kernel's queue.
const CONNECTIONS: usize = 256;
/// Longest time for a header, and longest idle time of a kept-alive connection.
const HEADER_TIMEOUT: Duration = Duration::from_secs(15);
/// Longest time from a request's header to its answer's.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);
/// Longest time for answers that are under way at the end.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(2);
/// After this long without a sign from a peer that owes one, its connection is closed.
#[cfg(target_os = "linux")]
const PEER_TIMEOUT: Duration = Duration::from_secs(30);
/// Pause after the system refused a connection, so that a lack of descriptors is not a busy loop.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Binds the admin address.
///
/// # Errors
/// When the system refuses the address.
pub fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let listener = TcpListener::bind(address)?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

/// Serves `router` on a thread of its own until `shutdown` is over.
///
/// # Errors
/// When the thread or its runtime cannot be made.
pub(super) fn spawn(
    listener: TcpListener,
    router: Router,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> io::Result<JoinHandle<()>> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let listener = {
        let _inside = runtime.enter();
        tokio::net::TcpListener::from_std(listener)?
    };
    std::thread::Builder::new()
        .name("admin".to_owned())
        .spawn(move || runtime.block_on(serve(listener, router, shutdown)))
}

async fn serve(
    listener: tokio::net::TcpListener,
    router: Router,
    shutdown: impl Future<Output = ()>,
) {
    let permits = Arc::new(Semaphore::new(CONNECTIONS));
    let (stop, stopped) = watch::channel(false);
    let mut shutdown = std::pin::pin!(shutdown);
    loop {
        let accept = async {
            let permit = permits.clone().acquire_owned().await.expect("never closed");
            (permit, listener.accept().await)
        };
        let (permit, accepted) = tokio::select! {
            accepted = accept => accepted,
            () = &mut shutdown => break,
        };
        match accepted {
            Ok((stream, peer)) => {
                let connection = connection(stream, peer, router.clone(), stopped.clone());
                tokio::spawn(async move {
                    connection.await;
                    drop(permit);
                });
            }
            Err(error) => {
                tracing::warn!(%error, "the admin address cannot accept a connection");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
    stop.send_replace(true);
    let all = u32::try_from(CONNECTIONS).expect("a small constant");
    if timeout(DRAIN_TIMEOUT, permits.acquire_many(all)).await.is_err() {
        tracing::info!("admin connections were still open at the end");
    }
}

async fn connection(
    stream: TcpStream,
    peer: SocketAddr,
    router: Router,
    mut stopped: watch::Receiver<bool>,
) {
    if let Err(error) = set_options(&stream) {
        tracing::debug!(%error, %peer, "socket options of an admin connection");
    }
    let service = hyper::service::service_fn(move |request| answer(router.clone(), request, peer));
    let mut connection = std::pin::pin!(
        http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEADER_TIMEOUT)
            .serve_connection(TokioIo::new(stream), service)
    );
    let result = tokio::select! {
        result = connection.as_mut() => result,
        _ = stopped.changed() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = result {
        tracing::debug!(%error, %peer, "an admin connection broke");
    }
}

fn set_options(stream: &TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    #[cfg(target_os = "linux")]
    socket2::SockRef::from(stream).set_tcp_user_timeout(Some(PEER_TIMEOUT))?;
    Ok(())
}

/// Who sent a request; among its extensions.
#[derive(Clone, Copy, Debug)]
pub(super) struct Peer(pub(super) SocketAddr);

async fn answer(
    router: Router,
    request: Request<Incoming>,
    peer: SocketAddr,
) -> Result<Response<Body>, Infallible> {
    let mut request = request.map(Body::new);
    request.extensions_mut().insert(Peer(peer));
    let answer = timeout(ANSWER_TIMEOUT, router.oneshot(request)).await;
    Ok(match answer {
        Ok(Ok(response)) => response,
        Ok(Err(never)) => match never {},
        Err(_) => Problem::new(StatusCode::SERVICE_UNAVAILABLE, "This took longer than 30 s.")
            .into_response(),
    })
}
