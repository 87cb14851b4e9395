//! HTTP/2 to an upstream: one connection that many requests share, each on a stream of its own.
//!
//! Nothing here chooses among connections; `endpoint` does.

mod download;
mod exchange;
mod pulse;
mod upload;

use std::{
    cell::{Cell, RefCell},
    convert::Infallible,
    future::poll_fn,
    pin::{Pin, pin},
    rc::Rc,
    task::{Context, Poll, Waker},
    time::Duration,
};

use bytes::Bytes;
use h2::client::{Builder, SendRequest};
use tokio::{
    sync::oneshot,
    task::{AbortHandle, spawn_local},
    time::timeout,
};

pub(in crate::proxy) use self::download::Download;
use self::pulse::{Beat, Pulse};
use super::{
    ConnectError,
    endpoint::{EndpointPool, Place},
    wire::{Tally, Wire},
};
use crate::{proxy::turns::Turns, routing::Http2};

/// What one stream may hold of an answer that its client is slow to take. The connection's window
/// has room for this of every stream: a slow client never holds up the others.
const STREAM_WINDOW: u32 = 512 * 1024;

/// The most that flow control can express (RFC 9113, section 6.9.1).
const LARGEST_WINDOW: u64 = (1 << 31) - 1;

/// Most bytes of one stream that wait to be written.
const SEND_BUFFER: usize = 256 * 1024;

/// Most bytes of the header of an answer.
const HEADER_LIST: u32 = 256 * 1024;

/// So many streams that we reset are remembered for a second: what the peer sent before it knew is
/// then no error of its own. Clients may go away in crowds.
const RESETS_REMEMBERED: usize = 4096;

/// A connection that is let go has this long to say so and to end.
const FAREWELL: Duration = Duration::from_secs(2);

/// An open connection.
#[derive(Debug)]
pub(super) struct Connection {
    sender: RefCell<SendRequest<Bytes>>,
    https: bool,
    tally: Rc<Tally>,
    /// Streams lent.
    streams: Cell<u32>,
    /// The most that are lent, whatever the peer would allow.
    most: u32,
    idle_since: Cell<Duration>,
    pulse: RefCell<Pulse>,
    task: AbortHandle,
    /// Dropped with the connection: then its task has [`FAREWELL`].
    _held: oneshot::Sender<Infallible>,
}

impl Connection {
    /// Opens a connection, which is open when the peer has said how many streams it takes.
    /// `place` is kept until its end.
    pub(super) async fn open(
        wire: Wire,
        place: Place,
        settings: &Http2,
    ) -> Result<Rc<Self>, ConnectError> {
        let (https, tally) = (wire.is_tls(), Rc::clone(wire.tally()));
        let window = u64::from(STREAM_WINDOW) * u64::from(settings.streams.max(1));
        let (sender, mut connection) = Builder::new()
            .initial_max_send_streams(0)
            .initial_window_size(STREAM_WINDOW)
            .initial_connection_window_size(window.min(LARGEST_WINDOW) as u32)
            .max_send_buffer_size(SEND_BUFFER)
            .max_header_list_size(HEADER_LIST)
            .max_concurrent_reset_streams(RESETS_REMEMBERED)
            .enable_push(false)
            .handshake(Turns::new(wire))
            .await
            .map_err(ConnectError::Http2)?;
        let pings = connection.ping_pong();
        poll_fn(|cx| {
            let ended = Pin::new(&mut connection).poll(cx);
            match ended {
                _ if sender.current_max_send_streams() > 0 => Poll::Ready(Ok(())),
                Poll::Pending => Poll::Pending,
                Poll::Ready(Ok(())) => Poll::Ready(Err(ConnectError::NotHttp2)),
                Poll::Ready(Err(error)) => Poll::Ready(Err(ConnectError::Http2(error))),
            }
        })
        .await?;
        let (held, let_go) = oneshot::channel::<Infallible>();
        let task = spawn_local(async move {
            let _place = place;
            let mut connection = pin!(connection);
            tokio::select! {
                biased;
                // Errors of the connection reach the requests through their own streams.
                _ = &mut connection => return,
                _ = let_go => {}
            }
            let _ = timeout(FAREWELL, connection).await;
        });
        Ok(Rc::new(Self {
            sender: RefCell::new(sender),
            https,
            pulse: RefCell::new(Pulse::new(settings, pings, &tally)),
            tally,
            streams: Cell::new(0),
            most: settings.streams,
            idle_since: Cell::new(Duration::ZERO),
            task: task.abort_handle(),
            _held: held,
        }))
    }

    /// Whether the peer takes new streams: it has not said goodbye, and is there.
    pub(super) fn is_open(&self) -> bool {
        let mut cx = Context::from_waker(Waker::noop());
        // Nothing is ever pending on this handle: streams are opened by clones of it.
        !matches!(self.sender.borrow_mut().poll_ready(&mut cx), Poll::Ready(Err(_)))
    }

    /// Streams lent.
    pub(super) fn streams(&self) -> u32 {
        self.streams.get()
    }

    /// How many more streams may be lent now.
    pub(super) fn room(&self) -> u32 {
        let allowed = self.sender.borrow().current_max_send_streams();
        let most = self.most.min(u32::try_from(allowed).unwrap_or(u32::MAX));
        most.saturating_sub(self.streams.get())
    }

    /// Since when no stream is lent; none if some are.
    pub(super) fn idle_since(&self) -> Option<Duration> {
        (self.streams.get() == 0).then(|| self.idle_since.get())
    }

    pub(super) fn note_idle(&self, now: Duration) {
        self.idle_since.set(now);
    }

    /// Lends a stream.
    pub(super) fn lend(self: &Rc<Self>, pool: &Rc<EndpointPool>) -> Stream {
        self.streams.set(self.streams.get() + 1);
        Stream { connection: Rc::clone(self), pool: Rc::clone(pool) }
    }

    /// Looks whether the peer is still there, and ends the connection if it is not. To be called
    /// about once a second.
    pub(super) fn feel_pulse(&self, now: Duration) {
        match self.pulse.borrow_mut().feel(now, self.streams.get() > 0, &self.tally) {
            Beat::Alive => {}
            Beat::Dead => {
                tracing::debug!("a connection to an upstream does not answer pings");
                self.task.abort();
            }
        }
    }
}

/// A stream lent to one request. Dropping it makes room for another one.
#[derive(Debug)]
pub(super) struct Stream {
    connection: Rc<Connection>,
    pool: Rc<EndpointPool>,
}

impl Drop for Stream {
    fn drop(&mut self) {
        let left = self.connection.streams.get() - 1;
        self.connection.streams.set(left);
        self.pool.stream_ended(&self.connection);
    }
}
