//! One HTTP/1 connection to an upstream: driven, lent to one request at a time.

use std::{cell::Cell, mem, rc::Rc, time::Duration};

use bytes::Bytes;
use hyper::{
    Request, Response,
    body::Incoming,
    client::conn::http1::{self, SendRequest},
};
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    sync::oneshot,
    task::{JoinHandle, spawn_local},
};

use super::{
    connection::{BrokenOff, SendError},
    endpoint::Place,
    wire::Wire,
};
use crate::proxy::body::RequestBody;

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
    wire: Wire,
    /// What was read of the other protocol already.
    first: Bytes,
    _place: Place,
}

impl Switched {
    /// What the upstream has said already in the other protocol.
    pub(in crate::proxy) fn first(&mut self) -> Bytes {
        mem::take(&mut self.first)
    }

    /// The bytes that follow, and those to it.
    pub(in crate::proxy) fn stream(&mut self) -> impl AsyncRead + AsyncWrite {
        &mut self.wire
    }
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
    pub(super) async fn open(wire: Wire, place: Place) -> hyper::Result<Self> {
        let (sender, connection) = http1::Builder::new().handshake(TokioIo::new(wire)).await?;
        let (left, remains) = oneshot::channel();
        let busy = Rc::new(Cell::new(false));
        let task = spawn_local(drive(connection, place, Rc::clone(&busy), left));
        Ok(Self { sender, task, busy, remains })
    }

    /// The upstream has agreed to another protocol: no other request is for this connection.
    pub(super) fn into_switching(self) -> Switching {
        Switching(self)
    }

    /// Whether a request may be sent on it now.
    pub(super) fn is_ready(&self) -> bool {
        self.sender.is_ready()
    }

    pub(super) fn is_closed(&self) -> bool {
        self.sender.is_closed()
    }

    /// Notes that the request on it is over.
    pub(super) fn rest(&self) {
        self.busy.set(false);
    }

    /// Sends a request and waits for the head of its answer. `may_be_stale`: whether the upstream
    /// may have closed the connection while it was idle.
    pub(super) async fn send(
        &mut self,
        request: Request<RequestBody>,
        may_be_stale: bool,
    ) -> Result<Response<Incoming>, SendError> {
        self.busy.set(true);
        let mut failure = match self.sender.try_send_request(request).await {
            Ok(response) => return Ok(response),
            Err(failure) => failure,
        };
        if let Some(request) = failure.take_message() {
            return Err(SendError::Unsent(Box::new(request)));
        }
        if may_be_stale
            && let Ok(Switched { wire, .. }) = (&mut self.remains).await
            && Box::pin(wire.socket().was_closed_before(RESET_PATIENCE)).await
        {
            return Err(SendError::NeverTaken);
        }
        Err(SendError::Failed(BrokenOff::Http1(failure.into_error())))
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

/// Drives a connection until HTTP ends on it, then hands over what is left.
async fn drive(
    mut connection: http1::Connection<TokioIo<Wire>, RequestBody>,
    place: Place,
    busy: Rc<Cell<bool>>,
    left: oneshot::Sender<Switched>,
) {
    // Errors of the connection reach the request through its own future.
    let _ = std::future::poll_fn(|cx| connection.poll_without_shutdown(cx)).await;
    if busy.get() {
        let parts = connection.into_parts();
        let wire = parts.io.into_inner();
        // The request may be gone.
        let _ = left.send(Switched { wire, first: parts.read_buf, _place: place });
    }
}
