//! The connections of one worker to one endpoint: idle ones, last in first out, those that are
//! opened ahead of traffic, and the queue where there is no room for more.

use std::{
    cell::{Cell, RefCell},
    rc::Rc,
    sync::Arc,
    time::Duration,
};

use tokio::{sync::Notify, task::spawn_local};

use super::{
    ConnectError, Grounds, PoolCounts,
    connection::{Connection, Lease},
    member::Member,
};
use crate::{
    proxy::{clock::Clock, deadline::Deadlines},
    routing::Upstream,
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

/// The connections of one worker to one endpoint.
#[derive(Debug)]
pub(in crate::proxy) struct EndpointPool {
    member: Member,
    spec: Arc<Upstream>,
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
    /// No connections yet to a member of an upstream.
    pub(super) fn new(spec: &Arc<Upstream>, member: Member, grounds: &Grounds) -> Rc<Self> {
        Rc::new(Self {
            member,
            spec: Arc::clone(spec),
            clock: grounds.clock,
            deadlines: Rc::clone(&grounds.deadlines),
            idle: RefCell::default(),
            open: Cell::new(0),
            connecting: Cell::new(0),
            waiting: Cell::new(0),
            closed_at: Cell::new(None),
            warming: Warming::default(),
            room: Notify::new(),
        })
    }

    pub(super) fn counts(&self) -> PoolCounts {
        let idle = u32::try_from(self.idle.borrow().len()).unwrap_or(u32::MAX);
        let connecting = u32::try_from(self.connecting.get()).unwrap_or(u32::MAX);
        let in_use = self.open.get().saturating_sub(idle).saturating_sub(connecting);
        PoolCounts { idle, in_use, connecting }
    }

    /// How it stands among the endpoints of its upstream.
    pub(super) fn member(&self) -> &Member {
        &self.member
    }

    pub(super) fn now(&self) -> Duration {
        self.clock.now()
    }

    /// It is no endpoint any more: idle connections close, those in use when their request is over,
    /// and who waits for one goes elsewhere.
    pub(super) fn retire(&self) {
        self.member.retire();
        self.idle.borrow_mut().clear();
        self.room.notify_waiters();
    }

    /// A connection that is ready for a request; a new one if `fresh`.
    pub(in crate::proxy) async fn lease(
        self: &Rc<Self>,
        fresh: bool,
    ) -> Result<Lease, ConnectError> {
        let mut asked = None;
        loop {
            if self.member.is_retired() {
                return Err(ConnectError::Retired);
            }
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
        let waited = asked.map(|asked| self.clock.now().saturating_sub(asked));
        Lease::new(connection, Rc::clone(self), may_be_stale, waited)
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
            if entry.connection.is_ready() {
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

    pub(super) fn put_back(&self, connection: Connection) {
        let mut idle = self.idle.borrow_mut();
        if idle.len() < self.spec.idle_connections as usize && !self.member.is_retired() {
            idle.push(Idle { connection, since: self.deadlines.coarse_now() });
        }
        drop(idle);
        self.room.notify_one();
    }

    async fn connect(self: &Rc<Self>) -> Result<Connection, ConnectError> {
        let place = Place::take(self);
        let _connecting = Counted::up(self, |pool| &pool.connecting);
        let connection = Connection::open(&self.spec, &self.member.site, place).await?;
        if self.member.reached(true, self.clock.now()) {
            let (upstream, endpoint) = (&self.spec.name, &self.member.site);
            tracing::info!(%upstream, %endpoint, "it can be reached again");
        }
        Ok(connection)
    }

    pub(super) fn maintain(&self) {
        let now = self.deadlines.coarse_now();
        let mut idle = self.idle.borrow_mut();
        let mut spare = self.open.get().saturating_sub(self.warming.wanted.get());
        idle.retain(|entry| {
            let keep = !entry.connection.is_closed()
                && (spare == 0 || now.saturating_sub(entry.since) < self.spec.idle_timeout);
            spare -= u32::from(!keep && spare > 0);
            keep
        });
    }

    /// Opens connections until `wanted` are open. What could not be kept idle is not wanted.
    pub(super) fn open_ahead(self: &Rc<Self>, wanted: u32) {
        let wanted = wanted.min(self.spec.max_connections).min(self.spec.idle_connections);
        self.warming.wanted.set(wanted);
        let missing = wanted.saturating_sub(self.open.get());
        if missing == 0 || self.deadlines.coarse_now() < self.warming.not_before.get() {
            return;
        }
        let room = MAX_WARMING.saturating_sub(self.warming.underway.get() as u32);
        for _ in 0..missing.min(room) {
            self.open_one_ahead();
        }
    }

    /// Tries whether a connection can be made, now and then.
    pub(super) fn try_again(self: &Rc<Self>) {
        let now = self.deadlines.coarse_now();
        if self.warming.underway.get() > 0 || now < self.warming.not_before.get() {
            return;
        }
        self.open_one_ahead();
    }

    fn open_one_ahead(self: &Rc<Self>) {
        let pool = Rc::clone(self);
        let underway = Counted::up(self, |pool| &pool.warming.underway);
        spawn_local(async move {
            let opened = pool.connect().await;
            drop(underway);
            pool.opened_ahead(opened);
        });
    }

    /// Failures in a row to open ahead.
    #[cfg(test)]
    pub(super) fn failures_ahead(&self) -> u32 {
        self.warming.failures.get()
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

/// One of the `max_connections` places, freed when the connection ends.
#[derive(Debug)]
pub(super) struct Place(Rc<EndpointPool>);

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
