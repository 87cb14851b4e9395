//! Accepting: from a listening socket to a served connection.
//!
//! What a client says before its first request is `arrive`'s. A worker that has clearly more
//! connections than the others leaves accepting to them for a moment.

use std::{
    cell::RefCell,
    future::poll_fn,
    io,
    net::{IpAddr, Ipv4Addr},
    pin::{Pin, pin},
    rc::Rc,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::Poll,
    time::Duration,
};

use bytes::Bytes;
use http::HeaderValue;
use hyper::{
    server::conn::{http1, http2},
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{task::spawn_local, time::sleep};

use super::{
    arrive::{Arrived, arrive},
    close::close,
    connection::{ConnectionState, Signal},
    handle::{Client, handle},
    headers,
    listen::{Accepting, Listener, ListenerPlace},
    stream::{ClientStream, Socket},
    tunnel::Tunnel,
    turns::Turns,
    worker::Worker,
};
use crate::{measure::ShedReason, shutdown};

/// How long accepting rests when the process has no file descriptors left.
const EXHAUSTED: Duration = Duration::from_millis(50);

/// How long a worker with many connections leaves accepting to the others.
const POLITE: Duration = Duration::from_millis(1);

/// The codec's own limit of header fields.
const DEFAULT_FIELDS: usize = 100;

/// HTTP/2: flow-control windows of a stream and a connection, and keep-alive pings.
const H2_STREAM_WINDOW: u32 = 256 * 1024;
const H2_CONNECTION_WINDOW: u32 = 1024 * 1024;
const H2_PING_EVERY: Duration = Duration::from_secs(30);
const H2_PING_TIMEOUT: Duration = Duration::from_secs(20);

/// Open connections by worker, for an even share.
#[derive(Debug)]
pub(super) struct Balance(Vec<AtomicUsize>);

impl Balance {
    pub(super) fn new(workers: usize) -> Arc<Self> {
        Arc::new(Self((0..workers).map(|_| AtomicUsize::new(0)).collect()))
    }

    fn publish(&self, worker: &Worker) {
        self.0[worker.place.index].store(worker.connections.open(), Ordering::Relaxed);
    }

    /// Whether a worker has clearly more than its share: more than the worker with the fewest by
    /// over an eighth.
    fn overloaded(&self, worker: &Worker) -> bool {
        let own = worker.connections.open();
        let fewest = self.0.iter().map(|open| open.load(Ordering::Relaxed)).min().unwrap_or(own);
        own.saturating_sub(fewest) * 8 > own
    }
}

/// Accepts connections until the shutdown begins or the listener is taken away.
pub(super) async fn accept(
    worker: Rc<Worker>,
    listener: Listener,
    balance: Arc<Balance>,
    mut shutdown: shutdown::Watcher,
) {
    let socket = match listener.accepting() {
        Ok(socket) => socket,
        Err(error) => {
            tracing::error!(listener = %listener.settings.name, %error, "cannot accept");
            return;
        }
    };
    let mut ended = pin!(shutdown.wait());
    loop {
        let accepted = tokio::select! {
            biased;
            _ = &mut ended => return,
            accepted = next(&worker, &listener, &socket, &balance) => accepted,
        };
        match accepted {
            Ok((socket, peer, place)) => {
                spawn_local(serve(Rc::clone(&worker), listener.clone(), socket, peer, place));
            }
            Err(error) => pause(&worker, &listener, &error).await,
        }
    }
}

/// The next connection, once there is a place for it and the other workers had their chance.
async fn next(
    worker: &Worker,
    listener: &Listener,
    socket: &Accepting,
    balance: &Balance,
) -> io::Result<(Socket, IpAddr, ListenerPlace)> {
    let place = loop {
        if let Some(place) = listener.take_place() {
            break place;
        }
        sleep(EXHAUSTED).await;
    };
    balance.publish(worker);
    if balance.overloaded(worker) {
        sleep(POLITE).await;
    }
    match socket {
        Accepting::Tcp(tcp) => {
            let (stream, peer) = tcp.accept().await?;
            stream.set_nodelay(true)?;
            Ok((Socket::Tcp(stream), peer.ip().to_canonical(), place))
        }
        Accepting::Unix(unix) => {
            let (stream, _) = unix.accept().await?;
            // A Unix socket's peer is on this machine.
            Ok((Socket::Unix(stream), Ipv4Addr::LOCALHOST.into(), place))
        }
    }
}

/// Rests after an error: without descriptors the next attempt would fail as well.
async fn pause(worker: &Worker, listener: &Listener, error: &io::Error) {
    let aborted = matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::InvalidInput
    );
    if !aborted {
        tracing::warn!(listener = %listener.settings.name, %error, "accepting is paused");
        worker.accept_pauses.set(worker.accept_pauses.get() + 1);
        sleep(EXHAUSTED).await;
    }
}

/// Serves one connection to its end.
async fn serve(
    worker: Rc<Worker>,
    listener: Listener,
    socket: Socket,
    peer: IpAddr,
    place: ListenerPlace,
) {
    let state = ConnectionState::new(worker.clock);
    let watched = worker.connections.watch(&state, &listener.settings.limits);
    let arrived = arrive(&worker, &listener, socket, peer, &state).await;
    let Some(Arrived { socket, first, h2, peer, identity }) = arrived else {
        return;
    };
    let Ok(peer_text) = HeaderValue::from_str(&peer.to_string()) else {
        return;
    };
    let settings = Arc::clone(&listener.settings);
    // Held for as long as the connection lives, it would keep the socket listening.
    drop(listener);
    let client = Rc::new(Client {
        worker: Rc::clone(&worker),
        state: Rc::clone(&state),
        peer,
        peer_text,
        peer_trusted: headers::is_trusted(peer, &settings.trusted_proxies),
        identity,
        settings,
    });
    let socket = Rc::new(RefCell::new(socket));
    let stream = ClientStream::new(Rc::clone(&socket), first, state);
    let ended = if h2 {
        serve_h2(&client, stream).await;
        Ended::Done
    } else {
        serve_h1(&client, stream).await
    };
    if let Some(socket) = Rc::into_inner(socket) {
        match ended {
            Ended::Switched(tunnel, early) => tunnel.run(socket.into_inner(), early).await,
            Ended::Done => close(&client, socket.into_inner(), false).await,
            Ended::Late => close(&client, socket.into_inner(), true).await,
        }
    }
    drop((watched, place));
}

/// How HTTP ended on a connection.
enum Ended {
    /// With the last answer.
    Done,
    /// A head came too late.
    Late,
    /// Another protocol is spoken now; the client has sent so much of it already.
    Switched(Box<Tunnel>, Bytes),
}

/// Serves HTTP/1 until the connection's end.
async fn serve_h1(client: &Rc<Client>, stream: ClientStream) -> Ended {
    let limits = &client.settings.limits;
    let mut builder = http1::Builder::new();
    builder
        .auto_date_header(false)
        .header_read_timeout(None)
        .max_header_size(limits.header_bytes as usize)
        .max_buf_size((limits.header_bytes as usize).max(8192) + 64 * 1024);
    if usize::from(limits.header_fields) != DEFAULT_FIELDS {
        // Setting it at all moves the fields of every head to the heap.
        builder.max_headers(usize::from(limits.header_fields));
    }
    let service = service_fn(|request| handle(Rc::clone(client), request));
    let mut connection = builder.serve_connection(TokioIo::new(stream), service);
    let ended = poll_fn(|cx| {
        let mut connection = Pin::new(&mut connection);
        match client.state.poll_signal(cx) {
            Poll::Ready(Signal::Close) => connection.as_mut().graceful_shutdown(),
            Poll::Ready(Signal::HeadTimeout) => return Poll::Ready(None),
            Poll::Pending => {}
        }
        connection.poll(cx).map(Some)
    })
    .await;
    match ended {
        None => return Ended::Late,
        Some(Err(error)) => {
            note(client, &error);
            return Ended::Done;
        }
        Some(Ok(())) => {}
    }
    let Some(tunnel) = client.state.switched() else { return Ended::Done };
    let parts = connection.into_parts();
    let early = [parts.read_buf, parts.io.into_inner().unread()].concat();
    Ended::Switched(tunnel, early.into())
}

/// Counts what the codec refused.
fn note(client: &Client, error: &hyper::Error) {
    if error.is_parse_too_large() {
        client.worker.shed(ShedReason::HeaderTooLarge);
    } else if error.is_parse() {
        client.worker.shed(ShedReason::BadRequest);
    }
    tracing::debug!(peer = %client.peer, %error, "connection ended");
}

/// Spawns the streams of an HTTP/2 connection on its own worker.
#[derive(Clone, Copy, Debug)]
struct LocalExecutor;

impl<F> hyper::rt::Executor<F> for LocalExecutor
where
    F: Future<Output = ()> + 'static,
{
    fn execute(&self, future: F) {
        // Its end says nothing, and it ends with the runtime.
        drop(spawn_local(future));
    }
}

/// Serves HTTP/2 until the connection's end.
async fn serve_h2(client: &Rc<Client>, stream: ClientStream) {
    let limits = &client.settings.limits;
    let mut builder = http2::Builder::new(LocalExecutor);
    builder
        .timer(TokioTimer::new())
        .auto_date_header(false)
        .max_concurrent_streams(limits.h2_streams)
        .enable_connect_protocol()
        .max_header_list_size(limits.header_bytes)
        .initial_stream_window_size(H2_STREAM_WINDOW)
        .initial_connection_window_size(H2_CONNECTION_WINDOW)
        .keep_alive_interval(H2_PING_EVERY)
        .keep_alive_timeout(H2_PING_TIMEOUT);
    let service = service_fn(|request| handle(Rc::clone(client), request));
    let mut connection = pin!(builder.serve_connection(TokioIo::new(Turns::new(stream)), service));
    let ended = poll_fn(|cx| {
        if client.state.poll_signal(cx).is_ready() {
            connection.as_mut().graceful_shutdown();
        }
        connection.as_mut().poll(cx)
    })
    .await;
    if let Err(error) = &ended {
        note(client, error);
    }
}
