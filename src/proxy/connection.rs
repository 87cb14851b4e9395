//! The state of a client connection, and the watch over all of a worker's connections.
//!
//! Time limits need no timer per message: a connection notes since when it has been idle or reading
//! a head, and once a second the worker looks through the list.

use std::{
    cell::{Cell, RefCell},
    rc::Rc,
    task::{Context, Poll, Waker},
    time::Duration,
};

use super::{clock::Clock, settings::Limits, tunnel::Tunnel};

/// What a connection waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// For the first byte of the next request.
    Idle,
    /// For the rest of a head.
    Head,
    /// For a request in flight.
    Busy,
}

/// What the watch tells a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Signal {
    /// Finish what is in flight and close.
    Close,
    /// The head did not come in time.
    HeadTimeout,
}

/// The state of one connection.
#[derive(Debug)]
pub(super) struct ConnectionState {
    clock: Clock,
    phase: Cell<Phase>,
    since: Cell<Duration>,
    in_flight: Cell<u32>,
    /// Whether the peer has closed its side.
    ended: Cell<bool>,
    /// What the connection becomes when the answer that is being written is out.
    tunnel: RefCell<Option<Box<Tunnel>>>,
    signal: Cell<Option<Signal>>,
    waker: RefCell<Option<Waker>>,
}

impl ConnectionState {
    pub(super) fn new(clock: Clock) -> Rc<Self> {
        Rc::new(Self {
            clock,
            phase: Cell::new(Phase::Head),
            since: Cell::new(clock.now()),
            in_flight: Cell::new(0),
            ended: Cell::new(false),
            tunnel: RefCell::new(None),
            signal: Cell::new(None),
            waker: RefCell::new(None),
        })
    }

    /// Bytes came from the client; none: it closed its side.
    pub(super) fn bytes_read(&self, count: usize) {
        if count == 0 {
            self.ended.set(true);
        } else if self.phase.get() == Phase::Idle {
            self.enter(Phase::Head);
        }
    }

    pub(super) fn peer_ended(&self) -> bool {
        self.ended.get()
    }

    /// The answer that is being written is the last one: then the connection is a tunnel.
    pub(super) fn switch(&self, tunnel: Tunnel) {
        self.tunnel.replace(Some(Box::new(tunnel)));
    }

    /// What the connection has become.
    pub(super) fn switched(&self) -> Option<Box<Tunnel>> {
        self.tunnel.take()
    }

    /// What comes before requests is over: the time for the first head begins.
    pub(super) fn head_begins(&self) {
        self.enter(Phase::Head);
    }

    /// A request begins; it is in flight until the guard is dropped.
    pub(super) fn request(self: &Rc<Self>) -> InFlight {
        self.in_flight.set(self.in_flight.get() + 1);
        self.phase.set(Phase::Busy);
        InFlight(Rc::clone(self))
    }

    fn enter(&self, phase: Phase) {
        self.phase.set(phase);
        self.since.set(self.clock.now());
    }

    fn tell(&self, signal: Signal) {
        if self.signal.get().is_none() {
            self.signal.set(Some(signal));
            if let Some(waker) = self.waker.borrow_mut().take() {
                waker.wake();
            }
        }
    }

    /// Ready when the watch has something to say; says it once.
    pub(super) fn poll_signal(&self, cx: &Context<'_>) -> Poll<Signal> {
        if let Some(signal) = self.signal.take() {
            return Poll::Ready(signal);
        }
        let mut waker = self.waker.borrow_mut();
        match &mut *waker {
            Some(waker) => waker.clone_from(cx.waker()),
            none => *none = Some(cx.waker().clone()),
        }
        Poll::Pending
    }
}

/// A request in flight on a connection.
#[derive(Debug)]
pub(super) struct InFlight(Rc<ConnectionState>);

impl Drop for InFlight {
    fn drop(&mut self) {
        let left = self.0.in_flight.get() - 1;
        self.0.in_flight.set(left);
        if left == 0 {
            self.0.enter(Phase::Idle);
        }
    }
}

/// All connections of one worker.
#[derive(Debug, Default)]
pub(super) struct Connections {
    entries: RefCell<Vec<Option<Entry>>>,
    free: RefCell<Vec<usize>>,
    open: Cell<usize>,
}

#[derive(Debug)]
struct Entry {
    state: Rc<ConnectionState>,
    header_timeout: Duration,
    idle_timeout: Duration,
}

impl Connections {
    /// Adds a connection; it is watched until the guard is dropped.
    pub(super) fn watch(self: &Rc<Self>, state: &Rc<ConnectionState>, limits: &Limits) -> Watched {
        let entry = Some(Entry {
            state: Rc::clone(state),
            header_timeout: limits.header_timeout,
            idle_timeout: limits.idle_timeout,
        });
        let mut entries = self.entries.borrow_mut();
        let key = self.free.borrow_mut().pop().unwrap_or_else(|| {
            entries.push(None);
            entries.len() - 1
        });
        entries[key] = entry;
        self.open.set(self.open.get() + 1);
        Watched { list: Rc::clone(self), key }
    }

    pub(super) fn open(&self) -> usize {
        self.open.get()
    }

    /// Looks for connections that have waited for too long.
    pub(super) fn look_through(&self, now: Duration) {
        for entry in self.entries.borrow().iter().flatten() {
            let waited = now.saturating_sub(entry.state.since.get());
            match entry.state.phase.get() {
                Phase::Idle if waited >= entry.idle_timeout => entry.state.tell(Signal::Close),
                Phase::Head if waited >= entry.header_timeout => {
                    entry.state.tell(Signal::HeadTimeout);
                }
                Phase::Idle | Phase::Head | Phase::Busy => {}
            }
        }
    }

    /// Asks every connection to finish what is in flight and close.
    pub(super) fn close_all(&self) {
        for entry in self.entries.borrow().iter().flatten() {
            entry.state.tell(Signal::Close);
        }
    }
}

/// A watched connection.
#[derive(Debug)]
pub(super) struct Watched {
    list: Rc<Connections>,
    key: usize,
}

impl Drop for Watched {
    fn drop(&mut self) {
        self.list.entries.borrow_mut()[self.key] = None;
        self.list.free.borrow_mut().push(self.key);
        self.list.open.set(self.list.open.get() - 1);
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use tokio::time::{Instant, advance};

    use super::*;

    async fn signal(state: &ConnectionState) -> Option<Signal> {
        poll_fn(|cx| {
            Poll::Ready(match state.poll_signal(cx) {
                Poll::Ready(signal) => Some(signal),
                Poll::Pending => None,
            })
        })
        .await
    }

    #[tokio::test(start_paused = true)]
    async fn a_head_has_ten_seconds_and_a_request_in_flight_has_no_limit_here() {
        let clock = Clock::new(Instant::now());
        let list = Rc::new(Connections::default());
        let state = ConnectionState::new(clock);
        let _watched = list.watch(&state, &Limits::default());
        let request = state.request();
        advance(Duration::from_secs(3_000)).await;
        list.look_through(clock.now());
        assert_eq!(signal(&state).await, None);
        drop(request);
        advance(Duration::from_secs(20)).await;
        state.bytes_read(1);
        advance(Duration::from_secs(9)).await;
        list.look_through(clock.now());
        assert_eq!(signal(&state).await, None);
        advance(Duration::from_secs(1)).await;
        list.look_through(clock.now());
        assert_eq!(signal(&state).await, Some(Signal::HeadTimeout));
    }

    #[tokio::test(start_paused = true)]
    async fn an_idle_connection_is_asked_to_close() {
        let clock = Clock::new(Instant::now());
        let list = Rc::new(Connections::default());
        let state = ConnectionState::new(clock);
        let watched = list.watch(&state, &Limits::default());
        drop(state.request());
        advance(Limits::default().idle_timeout).await;
        list.look_through(clock.now());
        assert_eq!(signal(&state).await, Some(Signal::Close));
        drop(watched);
        assert_eq!(list.open(), 0);
    }
}
