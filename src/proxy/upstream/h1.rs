//! One HTTP/1 connection to an upstream: driven, lent to one request at a time.

use std::{cell::Cell, rc::Rc, time::Duration};

use hyper::{
    Request, Response,
    body::Incoming,
    client::conn::http1::{self, SendRequest},
};
use hyper_util::rt::TokioIo;
use tokio::{
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
    /// Whether a request is on it, so that its end needs a verdict.
    busy: Rc<Cell<bool>>,
    never_taken: oneshot::Receiver<bool>,
}

impl Connection {
    /// Opens a connection; `place` is kept for as long as it is open.
    pub(super) async fn open(wire: Wire, place: Place) -> hyper::Result<Self> {
        let (sender, connection) = http1::Builder::new().handshake(TokioIo::new(wire)).await?;
        let (verdict, never_taken) = oneshot::channel();
        let busy = Rc::new(Cell::new(false));
        let task = spawn_local(drive(connection, place, Rc::clone(&busy), verdict));
        Ok(Self { sender, task, busy, never_taken })
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
        if may_be_stale && (&mut self.never_taken).await == Ok(true) {
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

/// Drives a connection until its end, then says whether its last request was never taken.
async fn drive(
    mut connection: http1::Connection<TokioIo<Wire>, RequestBody>,
    place: Place,
    busy: Rc<Cell<bool>>,
    verdict: oneshot::Sender<bool>,
) {
    // Errors of the connection reach the request through its own future.
    let _ = std::future::poll_fn(|cx| connection.poll_without_shutdown(cx)).await;
    drop(place);
    let wire = connection.into_parts().io.into_inner();
    let never_taken = busy.get() && wire.socket().was_closed_before(RESET_PATIENCE).await;
    // Nobody waits for the verdict on an idle connection.
    let _ = verdict.send(never_taken);
}
