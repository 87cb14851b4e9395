//! One connection to an upstream: how it is made, driven, lent to a request and given back.

use std::{cell::Cell, rc::Rc, time::Duration};

use bytes::Bytes;
use hyper::{
    Request, Response,
    body::Incoming,
    client::conn::http1::{self, SendRequest},
};
use hyper_util::rt::TokioIo;
use tokio::{
    net::{TcpStream, UnixStream},
    sync::oneshot,
    task::{JoinHandle, spawn_local},
    time::timeout,
};

use super::{
    ConnectError, Site,
    endpoint::{EndpointPool, Place},
};
use crate::{
    proxy::{body::RequestBody, stream::Socket},
    routing::{Endpoint, Protocol, Upstream},
};

/// How long a failed request waits for the reset that proves that it was never taken.
const RESET_PATIENCE: Duration = Duration::from_millis(30);

/// An open connection.
#[derive(Debug)]
pub(super) struct Connection {
    sender: SendRequest<RequestBody>,
    task: JoinHandle<()>,
    /// Whether a request is on it, so that somebody asks what is left of it.
    busy: Rc<Cell<bool>>,
    remains: oneshot::Receiver<Switched>,
}

/// What is left of a connection on which HTTP has ended. Its place is taken until this is dropped.
#[derive(Debug)]
pub(in crate::proxy) struct Switched {
    pub(in crate::proxy) socket: Socket,
    /// What was read of the other protocol already.
    pub(in crate::proxy) first: Bytes,
    _place: Place,
}

/// A connection whose upstream has agreed to switch.
#[derive(Debug)]
pub(in crate::proxy) struct Switching(Connection);

impl Switching {
    /// The connection without HTTP; `None` if it broke in that moment.
    pub(in crate::proxy) async fn switched(mut self) -> Option<Switched> {
        (&mut self.0.remains).await.ok()
    }
}

impl Connection {
    /// Opens a connection; `place` is kept for as long as it is open.
    pub(super) async fn open(
        spec: &Upstream,
        site: &Site,
        place: Place,
    ) -> Result<Self, ConnectError> {
        let socket = timeout(spec.connect_timeout, dial(spec, site))
            .await
            .map_err(|_| ConnectError::Timeout)??;
        let (sender, connection) = http1::Builder::new().handshake(TokioIo::new(socket)).await?;
        let (left, remains) = oneshot::channel();
        let busy = Rc::new(Cell::new(false));
        let task = spawn_local(drive(connection, place, Rc::clone(&busy), left));
        Ok(Self { sender, task, busy, remains })
    }

    /// Whether a request may be sent on it now.
    pub(super) fn is_ready(&self) -> bool {
        self.sender.is_ready()
    }

    pub(super) fn is_closed(&self) -> bool {
        self.sender.is_closed()
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        // A connection that still writes a body would otherwise live for as long as that body.
        if !self.busy.get() || !self.sender.is_closed() {
            self.task.abort();
        }
    }
}

/// A connection lent to one request. Dropping it closes the connection.
#[derive(Debug)]
pub(in crate::proxy) struct Lease {
    connection: Connection,
    pool: Rc<EndpointPool>,
    /// Whether the upstream may have closed the connection while it was idle.
    pub(in crate::proxy) may_be_stale: bool,
    /// How long the request waited for it, if at all.
    pub(in crate::proxy) waited: Option<Duration>,
}

/// Why a request got no answer.
#[derive(Debug)]
pub(in crate::proxy) enum SendError {
    /// Nothing of it was sent; here it is back.
    Unsent(Box<Request<RequestBody>>),
    /// It was sent, but the upstream had closed the connection before it arrived.
    NeverTaken,
    /// The upstream may have taken it.
    Failed(hyper::Error),
}

impl Lease {
    pub(super) fn new(
        connection: Connection,
        pool: Rc<EndpointPool>,
        may_be_stale: bool,
        waited: Option<Duration>,
    ) -> Self {
        Self { connection, pool, may_be_stale, waited }
    }

    /// Sends a request and waits for the head of its answer.
    pub(in crate::proxy) async fn send(
        &mut self,
        request: Request<RequestBody>,
    ) -> Result<Response<Incoming>, SendError> {
        self.connection.busy.set(true);
        let mut failure = match self.connection.sender.try_send_request(request).await {
            Ok(response) => return Ok(response),
            Err(failure) => failure,
        };
        if let Some(request) = failure.take_message() {
            return Err(SendError::Unsent(Box::new(request)));
        }
        if self.may_be_stale
            && let Ok(Switched { socket, .. }) = (&mut self.connection.remains).await
            && socket.was_closed_before(RESET_PATIENCE).await
        {
            return Err(SendError::NeverTaken);
        }
        Err(SendError::Failed(failure.into_error()))
    }

    /// The upstream has agreed to another protocol: what is left is no pool's any more.
    pub(in crate::proxy) fn into_switching(self) -> Switching {
        Switching(self.connection)
    }

    /// Gives the connection back, ready for the next request.
    pub(in crate::proxy) fn give_back(self) {
        let Self { connection, pool, .. } = self;
        connection.busy.set(false);
        pool.put_back(connection);
    }
}

async fn dial(spec: &Upstream, site: &Site) -> Result<Socket, ConnectError> {
    if spec.tls.is_some() {
        return Err(ConnectError::NotInForce("TLS"));
    }
    if spec.protocol == Protocol::H2 {
        return Err(ConnectError::NotInForce("HTTP/2"));
    }
    match (&site.endpoint, site.address) {
        (Endpoint::Address(addr), _) => tcp(TcpStream::connect(addr).await?),
        (Endpoint::Name(..), Some(addr)) => tcp(TcpStream::connect(addr).await?),
        (Endpoint::Name(..), None) => Err(ConnectError::NoAddress),
        (Endpoint::Unix(path), _) => Ok(Socket::Unix(UnixStream::connect(path).await?)),
    }
}

fn tcp(stream: TcpStream) -> Result<Socket, ConnectError> {
    stream.set_nodelay(true)?;
    Ok(Socket::Tcp(stream))
}

/// Drives a connection until HTTP ends on it, then hands over what is left.
async fn drive(
    mut connection: http1::Connection<TokioIo<Socket>, RequestBody>,
    place: Place,
    busy: Rc<Cell<bool>>,
    left: oneshot::Sender<Switched>,
) {
    // Errors of the connection reach the request through its own future.
    let _ = std::future::poll_fn(|cx| connection.poll_without_shutdown(cx)).await;
    if busy.get() {
        let parts = connection.into_parts();
        let socket = parts.io.into_inner();
        // The request may be gone.
        let _ = left.send(Switched { socket, first: parts.read_buf, _place: place });
    }
}
