//! The connections of one worker to one endpoint: idle ones, last in first out, shared ones, the
//! least used first, those that are opened ahead of traffic, and the queue where there is no room
//! for more.

use std::{
    cell::{Cell, RefCell},
    rc::Rc,
    sync::Arc,
    time::Duration,
};

use tokio::{sync::Notify, task::spawn_local};

use super::{
    ConnectError, Grounds, PoolCounts,
    connection::{Lease, Opened},
    h1, h2,
    member::Member,
    tls::TlsClient,
};
use crate::{
    proxy::{clock::Clock, deadline::Deadlines},
    routing::{Protocol, Upstream},
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
    /// None: it is spoken to in the clear.
    tls: Option<TlsClient>,
    idle: RefCell<Vec<Idle>>,
    /// Connections that requests share.
    shared: RefCell<Vec<Rc<h2::Connection>>>,
    /// Whether its connections are shared, once one of them has told.
    shares: Cell<Option<bool>>,
    /// Attempts to connect that failed, and why the last one did.
    failures: Cell<u64>,
    failure: RefCell<Option<Rc<ConnectError>>>,
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
    connection: h1::Connection,
    since: Duration,
}

impl EndpointPool {
    /// No connections yet to a member of an upstream.
    pub(super) fn new(spec: &Arc<Upstream>, member: Member, grounds: &Grounds) -> Rc<Self> {
        let clock = grounds.clock;
        let tls = TlsClient::new(spec, &member.site.endpoint, clock);
        let shares = match spec.protocol {
            Protocol::H2 => Some(true),
            Protocol::Auto if tls.is_some() => None,
            Protocol::Auto | Protocol::Http1 => Some(false),
        };
        Rc::new(Self {
            member,
            spec: Arc::clone(spec),
            clock,
            deadlines: Rc::clone(&grounds.deadlines),
            tls,
            idle: RefCell::default(),
            shared: RefCell::default(),
            shares: Cell::new(shares),
            failures: Cell::new(0),
            failure: RefCell::default(),
            open: Cell::new(0),
            connecting: Cell::new(0),
            waiting: Cell::new(0),
            closed_at: Cell::new(None),
            warming: Warming::default(),
            room: Notify::new(),
        })
    }

    pub(super) fn counts(&self) -> PoolCounts {
        let unused = self.shared.borrow().iter().filter(|it| it.streams() == 0).count();
        let idle = u32::try_from(self.idle.borrow().len() + unused).unwrap_or(u32::MAX);
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

    /// One pool less has it. After the last one it is no endpoint any more: idle connections close,
    /// those in use when their requests are over, and who waits for one goes elsewhere.
    pub(super) fn leave(&self) {
        if self.member.leave() {
            self.idle.borrow_mut().clear();
            self.drop_unused();
            self.room.notify_waiters();
        }
    }

    fn drop_unused(&self) {
        let mut shared = self.shared.borrow_mut();
        let (used, unused): (Vec<_>, Vec<_>) =
            shared.drain(..).partition(|connection| connection.streams() > 0);
        *shared = used;
        drop(shared);
        // Whose places become free here.
        drop(unused);
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
            if !fresh && let Some(lease) = self.lend_open(asked) {
                return Ok(lease);
            }
            let now = self.clock.now();
            let asked = asked.get_or_insert(now);
            if self.may_connect() {
                // Few requests come here: the others should not carry its state.
                return match Box::pin(self.connect()).await? {
                    Opened::Http1(connection) => Ok(self.lend(connection, None, Some(*asked))),
                    Opened::Http2(connection) => Ok(self.share(&connection, Some(*asked))),
                };
            }
            if fresh && self.open.get() >= self.spec.max_connections {
                if let Some(idle) = self.pop() {
                    drop(idle);
                    continue;
                }
                if let Some(lease) = self.lend_open(Some(*asked)) {
                    return Ok(lease);
                }
            }
            self.wait_for_room().await?;
        }
    }

    /// A connection that no other request shares, for one that may switch protocols on it.
    pub(in crate::proxy) async fn lease_alone(self: &Rc<Self>) -> Result<Lease, ConnectError> {
        if self.shares.get() == Some(false) {
            return self.lease(false).await;
        }
        let asked = self.clock.now();
        while self.open.get() >= self.spec.max_connections {
            self.wait_for_room().await?;
        }
        if self.member.is_retired() {
            return Err(ConnectError::Retired);
        }
        let place = Place::take(self);
        let _connecting = Counted::up(self, |pool| &pool.connecting);
        let tls = self.tls.as_ref();
        let connection = Opened::open_http1(&self.spec, &self.member.site, tls, place).await?;
        Ok(self.lend(connection, None, Some(asked)))
    }

    /// Lends what is open and has room.
    fn lend_open(self: &Rc<Self>, asked: Option<Duration>) -> Option<Lease> {
        if let Some(idle) = self.pop() {
            return Some(self.lend(idle.connection, Some(idle.since), asked));
        }
        let mut shared = self.shared.borrow_mut();
        // What the peer has said goodbye to stays for as long as requests are on it.
        shared.retain(|connection| connection.streams() > 0 || connection.is_open());
        let with_room = shared.iter().filter(|it| it.room() > 0 && it.is_open());
        let connection = Rc::clone(with_room.min_by_key(|connection| connection.streams())?);
        drop(shared);
        Some(self.share(&connection, asked))
    }

    /// Lends a stream to a request that had to ask twice or to connect since `asked`.
    fn share(self: &Rc<Self>, connection: &Rc<h2::Connection>, asked: Option<Duration>) -> Lease {
        let waited = asked.map(|asked| self.clock.now().saturating_sub(asked));
        Lease::stream(connection.lend(self), waited)
    }

    /// A stream of a shared connection is free.
    pub(super) fn stream_ended(&self, connection: &h2::Connection) {
        if connection.streams() == 0 {
            connection.note_idle(self.deadlines.coarse_now());
            if self.member.is_retired() {
                self.drop_unused();
            }
        }
        self.room.notify_one();
    }

    /// Whether there is room for another connection, and those on their way are not enough for
    /// the requests that wait: where connections are shared, or may turn out to be, one of them
    /// serves many.
    fn may_connect(&self) -> bool {
        if self.open.get() >= self.spec.max_connections {
            return false;
        }
        let serves = match self.shares.get() {
            Some(false) => return true,
            Some(true) | None => self.spec.h2.streams as usize,
        };
        let connecting = self.connecting.get();
        connecting == 0 || self.waiting.get() >= connecting.saturating_mul(serves)
    }

    /// Lends a connection that was idle since `idle_since` (none: new) to a request that had to
    /// ask twice or to connect since `asked`.
    fn lend(
        self: &Rc<Self>,
        connection: h1::Connection,
        idle_since: Option<Duration>,
        asked: Option<Duration>,
    ) -> Lease {
        let may_be_stale = idle_since.is_some_and(|since| self.may_be_stale(since));
        let waited = asked.map(|asked| self.clock.now().saturating_sub(asked));
        Lease::connection(connection, Rc::clone(self), may_be_stale, waited)
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
        let failures = self.failures.get();
        let _queued = Counted::up(self, |pool| &pool.waiting);
        self.room.notified().await;
        // Those who waited for the first connection share its failure as they would have shared it.
        let alone = self.open.get() as usize == self.connecting.get();
        match &*self.failure.borrow() {
            Some(error) if alone && self.failures.get() != failures => {
                Err(ConnectError::Joined(Rc::clone(error)))
            }
            Some(_) | None => Ok(()),
        }
    }

    /// Takes back a connection, or takes one that was opened ahead.
    pub(super) fn put_back(&self, connection: h1::Connection) {
        let mut idle = self.idle.borrow_mut();
        if idle.len() < self.spec.idle_connections as usize && !self.member.is_retired() {
            idle.push(Idle { connection, since: self.deadlines.coarse_now() });
        }
        drop(idle);
        self.room.notify_one();
    }

    /// Opens a connection; one that is shared is in the pool at once.
    async fn connect(self: &Rc<Self>) -> Result<Opened, ConnectError> {
        let place = Place::take(self);
        let connecting = Counted::up(self, |pool| &pool.connecting);
        let opened = Opened::open(&self.spec, &self.member.site, self.tls.as_ref(), place).await;
        drop(connecting);
        match &opened {
            Ok(Opened::Http1(_)) => {
                if self.shares.replace(Some(false)) != Some(false) {
                    // Whoever waited to share needs a connection of its own.
                    self.room.notify_waiters();
                }
            }
            Ok(Opened::Http2(connection)) => {
                self.shares.set(Some(true));
                connection.note_idle(self.deadlines.coarse_now());
                self.shared.borrow_mut().push(Rc::clone(connection));
                let waiting = u32::try_from(self.waiting.get()).unwrap_or(u32::MAX);
                (0..waiting.min(connection.room())).for_each(|_| self.room.notify_one());
            }
            Err(_) => {}
        }
        if opened.is_ok() && self.member.reached(true, self.clock.now()) {
            let (upstream, endpoint) = (&self.spec.name, &self.member.site);
            tracing::info!(%upstream, %endpoint, "it can be reached again");
        }
        opened.map_err(|error| self.cannot_connect(error))
    }

    /// Tells a failure to those who wait for the same connection.
    fn cannot_connect(&self, error: ConnectError) -> ConnectError {
        if self.waiting.get() == 0 || self.shares.get() == Some(false) {
            return error;
        }
        let error = Rc::new(error);
        self.failures.set(self.failures.get() + 1);
        self.failure.replace(Some(Rc::clone(&error)));
        self.room.notify_waiters();
        ConnectError::Joined(error)
    }

    pub(super) fn maintain(&self) {
        let now = self.deadlines.coarse_now();
        let mut spare = self.open.get().saturating_sub(self.warming.wanted.get());
        self.shared.borrow_mut().retain(|connection| {
            connection.feel_pulse(now);
            let keep = connection.idle_since().is_none_or(|since| {
                let rested = now.saturating_sub(since);
                connection.is_open() && (spare == 0 || rested < self.spec.idle_timeout)
            });
            spare -= u32::from(!keep && spare > 0);
            keep
        });
        let mut idle = self.idle.borrow_mut();
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
    fn opened_ahead(&self, opened: Result<Opened, ConnectError>) {
        let warming = &self.warming;
        match opened {
            Ok(opened) => {
                warming.failures.set(0);
                match opened {
                    Opened::Http1(connection) => self.put_back(connection),
                    Opened::Http2(_) => self.room.notify_one(),
                }
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
