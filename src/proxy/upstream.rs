//! Upstream connections: one pool per upstream on every worker, last in first out.
//!
//! A request leases a connection and gives it back when both its bodies are complete; anything
//! else closes it. Nothing here decides whether a request may be sent again; it only says whether
//! the upstream can have taken it.

use std::{
    cell::{Cell, RefCell},
    io,
    rc::Rc,
    sync::Arc,
    time::Duration,
};

use hyper::{
    Request, Response,
    body::Incoming,
    client::conn::http1::{self, SendRequest},
};
use hyper_util::rt::TokioIo;
use tokio::{
    net::{TcpStream, UnixStream, lookup_host},
    sync::{Notify, oneshot},
    task::{JoinHandle, spawn_local},
    time::timeout,
};

use super::{body::RequestBody, clock::Clock, deadline::Deadlines, stream::Socket};
use crate::{
    measure::EndpointNumber,
    routing::{Endpoint, Protocol, Upstream},
};

/// Most requests that wait for a connection to one endpoint on one worker.
const MAX_WAITING: usize = 1024;

/// A connection that was put back within this tick is not expected to be closed by the upstream,
/// unless the upstream was seen to close an idle connection within this time.
const SUSPICION: Duration = Duration::from_secs(60);

/// Most connections to one endpoint that are on their way to being open ahead of traffic.
const MAX_WARMING: u32 = 16;

/// After a connection that could not be opened ahead, the next attempt waits for this long, and
/// twice as long after every further failure, up to 2^6 times.
const BACKOFF: Duration = Duration::from_millis(200);
const BACKOFF_DOUBLINGS: u32 = 6;

/// How long a failed request waits for the reset that proves that it was never taken.
const RESET_PATIENCE: Duration = Duration::from_millis(30);

/// Why no connection could be had.
#[derive(Debug, thiserror::Error)]
pub(super) enum ConnectError {
    #[error("connecting to the upstream failed: {0}")]
    Io(#[from] io::Error),
    #[error("the upstream did not accept the connection in time")]
    Timeout,
    #[error("the name of the upstream has no address")]
    NoAddress,
    #[error("the handshake with the upstream failed: {0}")]
    Handshake(#[from] hyper::Error),
    #[error("{0} towards upstreams is not in force in this version")]
    NotInForce(&'static str),
    #[error("too many requests wait for a connection to this upstream")]
    Overloaded,
    #[error("the upstream has no endpoints")]
    NoEndpoint,
}

/// The connections of one worker to one upstream.
#[derive(Debug)]
pub(super) struct Pool {
    spec: Arc<Upstream>,
    endpoints: Vec<Rc<EndpointPool>>,
    turn: Cell<usize>,
}

/// How many connections a pool has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct PoolCounts {
    pub(super) idle: u32,
    pub(super) in_use: u32,
    pub(super) connecting: u32,
}

impl Pool {
    pub(super) fn new(spec: &Arc<Upstream>, clock: Clock, deadlines: &Rc<Deadlines>) -> Self {
        let endpoints = spec
            .endpoints
            .iter()
            .enumerate()
            .map(|(place, endpoint)| {
                Rc::new(EndpointPool {
                    number: EndpointNumber::of(place),
                    spec: Arc::clone(spec),
                    endpoint: endpoint.clone(),
                    clock,
                    deadlines: Rc::clone(deadlines),
                    idle: RefCell::default(),
                    open: Cell::new(0),
                    connecting: Cell::new(0),
                    waiting: Cell::new(0),
                    closed_at: Cell::new(None),
                    warming: Warming::default(),
                    room: Notify::new(),
                })
            })
            .collect();
        Self { spec: Arc::clone(spec), endpoints, turn: Cell::new(0) }
    }

    pub(super) fn spec(&self) -> &Arc<Upstream> {
        &self.spec
    }

    pub(super) fn counts(&self) -> PoolCounts {
        self.endpoints.iter().fold(PoolCounts::default(), |sum, endpoint| {
            let counts = endpoint.counts();
            PoolCounts {
                idle: sum.idle + counts.idle,
                in_use: sum.in_use + counts.in_use,
                connecting: sum.connecting + counts.connecting,
            }
        })
    }

    /// A connection that is ready for a request; a new one if `fresh`.
    pub(super) async fn lease(&self, fresh: bool) -> Result<Lease, ConnectError> {
        self.pick().ok_or(ConnectError::NoEndpoint)?.lease(fresh).await
    }

    /// The endpoint with the fewest requests, in turn among equals.
    pub(super) fn pick(&self) -> Option<&Rc<EndpointPool>> {
        if let [only] = self.endpoints.as_slice() {
            return Some(only);
        }
        let count = self.endpoints.len();
        let turn = self.turn.get();
        self.turn.set(turn.wrapping_add(1));
        (0..count)
            .map(|offset| &self.endpoints[(turn.wrapping_add(offset)) % count])
            .min_by_key(|endpoint| endpoint.load())
    }

    /// Opens connections until `asked` are open, or as many as warm-up wants. `first` is the
    /// endpoint that gets one more than others where they cannot be even.
    pub(super) fn open_ahead(&self, asked: u32, first: usize) {
        let count = self.endpoints.len().max(1);
        let always = self.spec.warmup.map_or(0, |warmup| warmup.connections);
        for (index, endpoint) in self.endpoints.iter().enumerate() {
            let place = (index + count - first % count) % count;
            let share = asked / count as u32 + u32::from(place < asked as usize % count);
            endpoint.open_ahead(always.max(share));
        }
    }

    /// Closes what has been idle for too long.
    pub(super) fn maintain(&self) {
        for endpoint in &self.endpoints {
            endpoint.maintain();
        }
    }
}

/// The connections of one worker to one endpoint.
#[derive(Debug)]
pub(super) struct EndpointPool {
    number: EndpointNumber,
    spec: Arc<Upstream>,
    endpoint: Endpoint,
    clock: Clock,
    deadlines: Rc<Deadlines>,
    idle: RefCell<Vec<Idle>>,
    /// Connections that are open or being opened.
    open: Cell<u32>,
    connecting: Cell<usize>,
    waiting: Cell<usize>,
    /// When the upstream was last seen to have closed an idle connection.
    closed_at: Cell<Option<Duration>>,
    warming: Warming,
    /// Passed on to the next in line when its waiter gives up.
    room: Notify,
}

/// Connections that are opened ahead of traffic.
#[derive(Debug, Default)]
struct Warming {
    /// So many are to be open.
    wanted: Cell<u32>,
    /// So many are on their way.
    underway: Cell<usize>,
    /// Failures in a row.
    failures: Cell<u32>,
    /// No attempt before this moment.
    not_before: Cell<Duration>,
}

#[derive(Debug)]
struct Idle {
    connection: Connection,
    since: Duration,
}

impl EndpointPool {
    fn counts(&self) -> PoolCounts {
        let idle = u32::try_from(self.idle.borrow().len()).unwrap_or(u32::MAX);
        let connecting = u32::try_from(self.connecting.get()).unwrap_or(u32::MAX);
        let in_use = self.open.get().saturating_sub(idle).saturating_sub(connecting);
        PoolCounts { idle, in_use, connecting }
    }

    fn load(&self) -> usize {
        let counts = self.counts();
        (counts.in_use + counts.connecting) as usize + self.waiting.get()
    }

    /// Which of its upstream's endpoints it is.
    pub(super) fn number(&self) -> EndpointNumber {
        self.number
    }

    /// A connection that is ready for a request; a new one if `fresh`.
    pub(super) async fn lease(self: &Rc<Self>, fresh: bool) -> Result<Lease, ConnectError> {
        let mut asked = None;
        loop {
            if !fresh && let Some(idle) = self.pop() {
                let reused = Some(idle.since);
                return Ok(self.lend(idle.connection, reused, asked));
            }
            let now = self.clock.now();
            let asked = asked.get_or_insert(now);
            if self.open.get() < self.spec.max_connections {
                let connection = self.connect().await?;
                return Ok(self.lend(connection, None, Some(*asked)));
            }
            if fresh && let Some(idle) = self.pop() {
                drop(idle);
                continue;
            }
            self.wait_for_room().await?;
        }
    }

    /// Lends a connection that was idle since `idle_since` (none: new) to a request that had to
    /// ask twice or to connect since `asked`.
    fn lend(
        self: &Rc<Self>,
        connection: Connection,
        idle_since: Option<Duration>,
        asked: Option<Duration>,
    ) -> Lease {
        let may_be_stale = idle_since.is_some_and(|since| self.may_be_stale(since));
        Lease {
            connection,
            pool: Rc::clone(self),
            may_be_stale,
            waited: asked.map(|asked| self.clock.now().saturating_sub(asked)),
        }
    }

    /// Whether the upstream may have closed a connection that was put back at `since`, so that a
    /// request on it should be kept for sending it again.
    fn may_be_stale(&self, since: Duration) -> bool {
        self.closed_at.get().is_some_and(|at| since.saturating_sub(at) < SUSPICION)
            || self.deadlines.coarse_now() > since
    }

    fn pop(&self) -> Option<Idle> {
        let mut idle = self.idle.borrow_mut();
        while let Some(entry) = idle.pop() {
            if entry.connection.sender.is_ready() {
                return Some(entry);
            }
            self.closed_at.set(Some(self.deadlines.coarse_now()));
        }
        None
    }

    async fn wait_for_room(self: &Rc<Self>) -> Result<(), ConnectError> {
        if self.waiting.get() >= MAX_WAITING {
            return Err(ConnectError::Overloaded);
        }
        let _queued = Counted::up(self, |pool| &pool.waiting);
        self.room.notified().await;
        Ok(())
    }

    fn put_back(&self, connection: Connection) {
        let mut idle = self.idle.borrow_mut();
        if idle.len() < self.spec.idle_connections as usize {
            idle.push(Idle { connection, since: self.deadlines.coarse_now() });
        }
        drop(idle);
        self.room.notify_one();
    }

    async fn connect(self: &Rc<Self>) -> Result<Connection, ConnectError> {
        let place = Place::take(self);
        let connecting = Counted::up(self, |pool| &pool.connecting);
        let socket = timeout(self.spec.connect_timeout, self.dial())
            .await
            .map_err(|_| ConnectError::Timeout)??;
        let (sender, connection) = http1::Builder::new().handshake(TokioIo::new(socket)).await?;
        drop(connecting);
        let (verdict, never_taken) = oneshot::channel();
        let busy = Rc::new(Cell::new(false));
        let task = spawn_local(drive(connection, place, Rc::clone(&busy), verdict));
        Ok(Connection { sender, task, busy, never_taken })
    }

    async fn dial(&self) -> Result<Socket, ConnectError> {
        if self.spec.tls.is_some() {
            return Err(ConnectError::NotInForce("TLS"));
        }
        if self.spec.protocol == Protocol::H2 {
            return Err(ConnectError::NotInForce("HTTP/2"));
        }
        match &self.endpoint {
            Endpoint::Address(addr) => tcp(TcpStream::connect(addr).await?),
            Endpoint::Name(name, port) => {
                let mut last = ConnectError::NoAddress;
                for addr in lookup_host((&**name, *port)).await? {
                    match TcpStream::connect(addr).await {
                        Ok(stream) => return tcp(stream),
                        Err(error) => last = error.into(),
                    }
                }
                Err(last)
            }
            Endpoint::Unix(path) => Ok(Socket::Unix(UnixStream::connect(path).await?)),
        }
    }

    fn maintain(&self) {
        let now = self.deadlines.coarse_now();
        let mut idle = self.idle.borrow_mut();
        let mut spare = self.open.get().saturating_sub(self.warming.wanted.get());
        idle.retain(|entry| {
            let keep = !entry.connection.sender.is_closed()
                && (spare == 0 || now.saturating_sub(entry.since) < self.spec.idle_timeout);
            spare -= u32::from(!keep && spare > 0);
            keep
        });
    }

    /// Opens connections until `wanted` are open. What could not be kept idle is not wanted.
    fn open_ahead(self: &Rc<Self>, wanted: u32) {
        let wanted = wanted.min(self.spec.max_connections).min(self.spec.idle_connections);
        self.warming.wanted.set(wanted);
        let missing = wanted.saturating_sub(self.open.get());
        if missing == 0 || self.deadlines.coarse_now() < self.warming.not_before.get() {
            return;
        }
        let room = MAX_WARMING.saturating_sub(self.warming.underway.get() as u32);
        for _ in 0..missing.min(room) {
            let pool = Rc::clone(self);
            let underway = Counted::up(self, |pool| &pool.warming.underway);
            spawn_local(async move {
                let opened = pool.connect().await;
                drop(underway);
                pool.opened_ahead(opened);
            });
        }
    }

    /// A failure to open ahead is no failure of a request: it only puts off the next attempt.
    fn opened_ahead(&self, opened: Result<Connection, ConnectError>) {
        let warming = &self.warming;
        match opened {
            Ok(connection) => {
                warming.failures.set(0);
                self.put_back(connection);
            }
            Err(error) => {
                let now = self.deadlines.coarse_now();
                if now >= warming.not_before.get() {
                    let failures = warming.failures.get();
                    warming.failures.set(failures + 1);
                    let pause = BACKOFF * 2_u32.pow(failures.min(BACKOFF_DOUBLINGS));
                    warming.not_before.set(now + pause);
                    tracing::debug!(upstream = %self.spec.name, %error, "cannot open ahead");
                }
            }
        }
    }
}

fn tcp(stream: TcpStream) -> Result<Socket, ConnectError> {
    stream.set_nodelay(true)?;
    Ok(Socket::Tcp(stream))
}

/// Drives a connection until its end, then says whether its last request was never taken.
async fn drive(
    mut connection: http1::Connection<TokioIo<Socket>, RequestBody>,
    place: Place,
    busy: Rc<Cell<bool>>,
    verdict: oneshot::Sender<bool>,
) {
    // Errors of the connection reach the request through its own future.
    let _ = std::future::poll_fn(|cx| connection.poll_without_shutdown(cx)).await;
    drop(place);
    let socket = connection.into_parts().io.into_inner();
    let never_taken = busy.get() && socket.was_closed_before(RESET_PATIENCE).await;
    // Nobody waits for the verdict on an idle connection.
    let _ = verdict.send(never_taken);
}

/// One of the `max_connections` places, freed when the connection ends.
#[derive(Debug)]
struct Place(Rc<EndpointPool>);

impl Place {
    fn take(pool: &Rc<EndpointPool>) -> Self {
        pool.open.set(pool.open.get() + 1);
        Self(Rc::clone(pool))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.open.set(self.0.open.get() - 1);
        self.0.room.notify_one();
    }
}

/// Counts one up for as long as it lives.
struct Counted {
    pool: Rc<EndpointPool>,
    counter: fn(&EndpointPool) -> &Cell<usize>,
}

impl Counted {
    fn up(pool: &Rc<EndpointPool>, counter: fn(&EndpointPool) -> &Cell<usize>) -> Self {
        counter(pool).set(counter(pool).get() + 1);
        Self { pool: Rc::clone(pool), counter }
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        let counter = (self.counter)(&self.pool);
        counter.set(counter.get() - 1);
    }
}

#[derive(Debug)]
struct Connection {
    sender: SendRequest<RequestBody>,
    task: JoinHandle<()>,
    /// Whether a request is on it, so that its end needs a verdict.
    busy: Rc<Cell<bool>>,
    never_taken: oneshot::Receiver<bool>,
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
pub(super) struct Lease {
    connection: Connection,
    pool: Rc<EndpointPool>,
    /// Whether the upstream may have closed the connection while it was idle.
    pub(super) may_be_stale: bool,
    /// How long the request waited for it, if at all.
    pub(super) waited: Option<Duration>,
}

/// Why a request got no answer.
#[derive(Debug)]
pub(super) enum SendError {
    /// Nothing of it was sent; here it is back.
    Unsent(Box<Request<RequestBody>>),
    /// It was sent, but the upstream had closed the connection before it arrived.
    NeverTaken,
    /// The upstream may have taken it.
    Failed(hyper::Error),
}

impl Lease {
    /// Sends a request and waits for the head of its answer.
    pub(super) async fn send(
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
        if self.may_be_stale && (&mut self.connection.never_taken).await == Ok(true) {
            return Err(SendError::NeverTaken);
        }
        Err(SendError::Failed(failure.into_error()))
    }

    /// Gives the connection back, ready for the next request.
    pub(super) fn give_back(self) {
        let Self { connection, pool, .. } = self;
        connection.busy.set(false);
        pool.put_back(connection);
    }
}

#[cfg(test)]
mod tests {
    use tokio::{
        task::LocalSet,
        time::{Instant, advance},
    };

    use super::*;

    fn pool_to(endpoint: Endpoint) -> (Pool, Clock, Rc<Deadlines>) {
        let spec = Arc::new(Upstream {
            name: "one".into(),
            endpoints: vec![endpoint],
            protocol: Protocol::Auto,
            replicas: None,
            tls: None,
            warmup: None,
            health: None,
            max_connections: 100,
            idle_connections: 100,
            idle_timeout: Duration::from_secs(3),
            connect_timeout: Duration::from_secs(3),
        });
        let clock = Clock::new(Instant::now());
        let deadlines = Rc::new(Deadlines::new(clock));
        (Pool::new(&spec, clock, &deadlines), clock, deadlines)
    }

    #[tokio::test(start_paused = true)]
    async fn what_cannot_be_opened_ahead_is_tried_less_and_less_often() {
        let nowhere = Endpoint::Unix("/nonexistent/haldane.sock".into());
        let (pool, clock, deadlines) = pool_to(nowhere);
        let tasks = LocalSet::new();
        let attempts = tasks.run_until(async {
            let mut last = 0;
            let mut attempts = Vec::new();
            for _ in 0..600 {
                deadlines.advance(clock.now());
                pool.open_ahead(4, 0);
                advance(Duration::from_millis(100)).await;
                for _ in 0..16 {
                    tokio::task::yield_now().await;
                }
                let failures = pool.endpoints[0].warming.failures.get();
                if failures > last {
                    attempts.push(clock.now().as_millis() / 100);
                    last = failures;
                }
            }
            attempts
        });
        let attempts = attempts.await;
        assert!((7..=12).contains(&attempts.len()), "{attempts:?}");
        let pauses: Vec<u128> = attempts.windows(2).map(|it| it[1] - it[0]).collect();
        assert!(pauses.is_sorted() && pauses.last() >= Some(&128), "{pauses:?}");
        assert_eq!(pool.counts(), PoolCounts::default());
    }
}
