//! The upstreams of a worker: one pool per upstream, with the choice of an endpoint.
//!
//! A request leases a connection and gives it back when both its bodies are complete; anything
//! else closes it. Nothing here decides whether a request may be sent again; it only says whether
//! the upstream can have taken it.

mod answer;
mod balance;
mod chosen;
mod connection;
mod endpoint;
mod error;
mod h1;
mod h2;
mod member;
mod roster;
mod tls;
mod to;
mod wire;

use std::{
    cell::{Cell, RefCell},
    rc::{Rc, Weak},
    sync::Arc,
    time::Duration,
};

use fastrand::Rng;

pub(super) use self::{
    answer::AnswerBody,
    chosen::Chosen,
    connection::{BrokenOff, Lease, SendError},
    error::ConnectError,
    h1::{Switched, Switching},
    roster::{Health, Roster, Rosters, Site},
    to::{Lost, To},
};
use self::{
    endpoint::EndpointPool,
    member::{Member, Signals},
    roster::Seat,
};
use super::{clock::Clock, deadline::Deadlines, lookout::Hints, rescue::Repeats};
use crate::{
    measure::{EndpointStanding, EndpointState, Retries, UpstreamEndpoints},
    routing::{Balancing, Eject, Upstream},
};

/// Most requests of one worker that wait for room at the endpoints of one upstream.
const MAX_WAITING: usize = 1024;

/// The connections of one worker to one upstream.
#[derive(Debug)]
pub(super) struct Pool {
    spec: Arc<Upstream>,
    grounds: Grounds,
    signals: Rc<Signals>,
    roster: RefCell<Arc<Roster>>,
    endpoints: RefCell<Vec<Rc<EndpointPool>>>,
    /// Those that get requests.
    ready: RefCell<Vec<Rc<EndpointPool>>>,
    /// Those that get none any more, as long as something is under way there.
    leaving: RefCell<Vec<Weak<EndpointPool>>>,
    /// Whether no endpoint is fit, so that all get requests.
    panics: Cell<bool>,
    several: Cell<bool>,
    turn: Cell<usize>,
    coins: RefCell<Rng>,
    /// Requests that were repeated on another endpoint.
    pub(super) repeats: Rc<Repeats>,
}

/// What all pools of a worker stand on.
#[derive(Clone, Debug)]
pub(super) struct Grounds {
    pub(super) clock: Clock,
    pub(super) deadlines: Rc<Deadlines>,
    /// Takes the names of upstreams whose endpoints should be looked up at once.
    pub(super) hints: Hints,
}

/// Why no endpoint was picked.
enum Unpicked {
    /// There is none.
    Nobody,
    /// All have as many requests as they may have.
    Full,
}

/// How many connections a pool has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct PoolCounts {
    pub(super) idle: u32,
    pub(super) in_use: u32,
    pub(super) connecting: u32,
}

impl Pool {
    /// A pool to these endpoints. What `before` had of them stays, unless connections are made in
    /// another way now.
    pub(super) fn new(
        spec: &Arc<Upstream>,
        roster: Arc<Roster>,
        before: Option<&Self>,
        grounds: Grounds,
    ) -> Self {
        let repeats = before.map_or_else(Rc::default, |before| Rc::clone(&before.repeats));
        let before = before.filter(|before| spec.connects_like(&before.spec));
        let signals = before.map_or_else(Rc::default, |before| Rc::clone(&before.signals));
        let kept = before.map(|before| before.endpoints.borrow().clone()).unwrap_or_default();
        let leaving = before.map(|before| before.leaving.borrow().clone()).unwrap_or_default();
        let pool = Self {
            spec: Arc::clone(spec),
            grounds,
            signals,
            roster: RefCell::default(),
            endpoints: RefCell::default(),
            ready: RefCell::default(),
            leaving: RefCell::new(leaving),
            panics: Cell::new(false),
            several: Cell::new(false),
            turn: Cell::new(fastrand::usize(..1 << 16)),
            coins: RefCell::new(Rng::new()),
            repeats,
        };
        pool.signals.eject.set(spec.balancing.eject);
        pool.seat(roster, &kept);
        pool
    }

    pub(super) fn spec(&self) -> &Arc<Upstream> {
        &self.spec
    }

    /// Follows another roster: new endpoints take part, those that went away get no more requests.
    pub(super) fn follow(&self, roster: &Arc<Roster>) {
        if !Arc::ptr_eq(&self.roster.borrow(), roster) && roster.is_of(&self.spec) {
            let before = self.endpoints.take();
            self.seat(Arc::clone(roster), &before);
            before.iter().for_each(|endpoint| endpoint.leave());
        }
    }

    /// Takes over a roster. Who was there `before` stays as it is.
    fn seat(&self, roster: Arc<Roster>, before: &[Rc<EndpointPool>]) {
        let now = self.now();
        // The first ones are as old as each other.
        let fresh_since = (!before.is_empty()).then_some(now);
        let endpoint = |seat: &Seat| {
            let known = before.iter().find(|it| it.member().site == seat.site);
            let endpoint = known.map_or_else(
                || {
                    let member = Member::new(seat, &self.signals, fresh_since);
                    EndpointPool::new(&self.spec, member, &self.grounds)
                },
                Rc::clone,
            );
            endpoint.member().follow(seat, now);
            endpoint.member().join();
            endpoint
        };
        let endpoints: Vec<_> = roster.seats.iter().map(endpoint).collect();
        let mut leaving = self.leaving.borrow_mut();
        leaving.retain(|endpoint| endpoint.strong_count() > 0);
        let gone = before.iter().filter(|endpoint| !has(&endpoints, endpoint));
        leaving.extend(gone.map(Rc::downgrade));
        drop(leaving);
        self.endpoints.replace(endpoints);
        self.roster.replace(roster);
        self.sort_out();
    }

    fn now(&self) -> Duration {
        self.grounds.clock.now()
    }

    /// A connection that is ready for a request; a new one if `fresh`.
    pub(super) async fn lease(&self, fresh: bool) -> Result<Lease, ConnectError> {
        self.choose(&[]).await?.lease(fresh).await
    }

    fn endpoint_at(&self, site: &Site) -> Option<Rc<EndpointPool>> {
        let endpoints = self.endpoints.borrow();
        endpoints.iter().find(|endpoint| endpoint.member().site == *site).cloned()
    }

    async fn choose(&self, tried: &[Rc<EndpointPool>]) -> Result<Chosen, ConnectError> {
        loop {
            if self.signals.stale.get() {
                self.sort_out();
            }
            let none = match self.pick(tried) {
                Ok(chosen) => return Ok(chosen),
                Err(none) => none,
            };
            match none {
                Unpicked::Nobody if self.roster.borrow().unresolved => {}
                Unpicked::Nobody if self.spec.endpoints.is_empty() => {
                    return Err(ConnectError::NoEndpoint);
                }
                Unpicked::Nobody => {
                    self.grounds.hints.give(&self.spec.name);
                    return Err(ConnectError::NoAddress);
                }
                Unpicked::Full => {}
            }
            self.wait_for_room().await?;
        }
    }

    async fn wait_for_room(&self) -> Result<(), ConnectError> {
        if self.signals.waiting.get() >= MAX_WAITING {
            return Err(ConnectError::Overloaded);
        }
        let _queued = self.signals.queue();
        self.signals.room.notified().await;
        Ok(())
    }

    fn pick(&self, tried: &[Rc<EndpointPool>]) -> Result<Chosen, Unpicked> {
        let ready = self.ready.borrow();
        let limit = self.spec.balancing.max_requests;
        if tried.is_empty() && limit.is_none() {
            return match ready.as_slice() {
                [] => Err(Unpicked::Nobody),
                [only] => Ok(self.chosen(only)),
                several => Ok(self.chosen(self.one_of(several))),
            };
        }
        let untried = |all: &[Rc<EndpointPool>]| -> Vec<_> {
            all.iter().filter(|endpoint| !has(tried, endpoint)).cloned().collect()
        };
        let mut open = untried(&ready);
        if open.is_empty() {
            open = untried(&self.endpoints.borrow());
        }
        if open.is_empty() {
            return Err(Unpicked::Nobody);
        }
        if let Some(limit) = limit {
            open.retain(|endpoint| endpoint.member().in_flight() < limit);
        }
        if open.is_empty() { Err(Unpicked::Full) } else { Ok(self.chosen(self.one_of(&open))) }
    }

    fn one_of<'a>(&self, several: &'a [Rc<EndpointPool>]) -> &'a Rc<EndpointPool> {
        let Balancing { policy, slow_start, .. } = self.spec.balancing;
        let turn = self.turn.get();
        self.turn.set(turn.wrapping_add(1));
        // Estimates fade over seconds: the time of the last tick will do.
        let now = self.grounds.deadlines.coarse_now();
        let coin = self.coins.borrow_mut().u64(..);
        let candidate = |place: usize| several[place].member().candidate(now, slow_start);
        &several[balance::choose(policy, several.len(), candidate, turn, coin)]
    }

    fn chosen(&self, endpoint: &Rc<EndpointPool>) -> Chosen {
        Chosen::new(endpoint, self.several.get())
    }

    /// Whether there is only one endpoint.
    pub(super) fn is_single(&self) -> bool {
        !self.several.get()
    }

    fn has_other(&self, tried: &[Rc<EndpointPool>]) -> bool {
        self.endpoints.borrow().iter().any(|endpoint| !has(tried, endpoint))
    }

    fn could_not_reach(&self, endpoint: &EndpointPool, error: &ConnectError) {
        let member = endpoint.member();
        if self.several.get() && member.reached(false, self.now()) {
            let (upstream, endpoint) = (&self.spec.name, &member.site);
            tracing::info!(%upstream, %endpoint, %error, "passed over: it cannot be reached");
        }
        if member.site.address.is_some() {
            self.grounds.hints.give(&self.spec.name);
        }
    }

    /// Finds which endpoints are to get requests.
    fn sort_out(&self) {
        self.signals.stale.set(false);
        let endpoints = self.endpoints.borrow();
        self.several.set(endpoints.len() > 1);
        if let Some(eject) = &self.spec.balancing.eject {
            self.eject(eject, &endpoints);
        }
        let in_state = |state| -> Vec<_> {
            let all = endpoints.iter().filter(|it| it.member().state() == state);
            all.cloned().collect()
        };
        // The next best where there is none better.
        let fit = [EndpointState::Ready, EndpointState::Untested, EndpointState::Ejected];
        let fit = fit.into_iter().map(in_state).find(|found| !found.is_empty());
        let panics = fit.is_none() && !endpoints.is_empty();
        if self.panics.replace(panics) != panics {
            let upstream = &self.spec.name;
            if panics {
                tracing::warn!(%upstream, "no endpoint is fit: all of them get requests");
            } else {
                tracing::info!(%upstream, "endpoints are fit again");
            }
        }
        self.ready.replace(fit.unwrap_or_else(|| endpoints.clone()));
        self.signals.room.notify_waiters();
    }

    /// Passes over what fails, as far as enough others are left.
    fn eject(&self, eject: &Eject, endpoints: &[Rc<EndpointPool>]) {
        let members = || endpoints.iter().map(|endpoint| endpoint.member());
        let most = ((endpoints.len() as f64 * eject.at_most) as usize)
            .max(1)
            .min(endpoints.len().saturating_sub(1));
        let mut room = most.saturating_sub(members().filter(|it| it.is_ejected()).count());
        for member in members().filter(|member| member.deserves_ejection(eject)) {
            let Some(left) = room.checked_sub(1) else { return };
            room = left;
            let period = member.eject(eject, self.now());
            let (upstream, endpoint) = (&self.spec.name, &member.site);
            tracing::info!(%upstream, %endpoint, ?period, "ejected: it fails");
        }
    }

    /// Another tick has passed: ejections end, and what could not be reached is tried again.
    pub(super) fn tick(&self) {
        if !self.several.get() {
            return;
        }
        let now = self.grounds.deadlines.coarse_now();
        for endpoint in self.endpoints.borrow().iter() {
            if endpoint.member().readmit(now) {
                self.signals.stale.set(true);
            }
            if endpoint.member().is_unreachable() {
                endpoint.try_again();
            }
        }
        if self.signals.stale.get() {
            self.sort_out();
        }
    }

    pub(super) fn counts(&self) -> PoolCounts {
        let endpoints = self.endpoints.borrow();
        let leaving = self.leaving.borrow();
        let leaving = leaving.iter().filter_map(Weak::upgrade);
        endpoints.iter().cloned().chain(leaving).fold(PoolCounts::default(), |sum, endpoint| {
            let counts = endpoint.counts();
            PoolCounts {
                idle: sum.idle + counts.idle,
                in_use: sum.in_use + counts.in_use,
                connecting: sum.connecting + counts.connecting,
            }
        })
    }

    /// How the endpoints stand on this worker.
    pub(super) fn report(&self) -> UpstreamEndpoints {
        let standing = |endpoint: &Rc<EndpointPool>| {
            let member = endpoint.member();
            EndpointStanding { number: member.number(), state: member.state() }
        };
        let mut endpoints: Vec<_> = self.endpoints.borrow().iter().map(standing).collect();
        let leaving = self.leaving.borrow();
        let leaving = leaving.iter().filter_map(Weak::upgrade);
        let busy = leaving.filter(|it| it.member().in_flight() > 0);
        let state = EndpointState::Draining;
        endpoints.extend(busy.map(|it| EndpointStanding { state, ..standing(&it) }));
        let ready = self.ready.borrow();
        let roster = self.roster.borrow();
        let sites = ready.iter().map(|endpoint| &endpoint.member().site);
        UpstreamEndpoints {
            upstream: Arc::clone(&self.spec.name),
            endpoints,
            taking: ready.iter().map(|endpoint| endpoint.member().number()).collect(),
            pods: roster.pods(&self.spec, sites),
            panics: self.panics.get(),
        }
    }

    /// What came of the requests that were repeated on another endpoint.
    pub(super) fn retries(&self) -> Retries {
        Retries { upstream: Arc::clone(&self.spec.name), counts: self.repeats.counts() }
    }

    /// Opens connections until `asked` are open, or as many as warm-up wants. `first` is the
    /// endpoint that gets one more than others where they cannot be even.
    pub(super) fn open_ahead(&self, asked: u32, first: usize) {
        let endpoints = self.endpoints.borrow();
        let count = endpoints.len().max(1);
        let always = self.spec.warmup.map_or(0, |warmup| warmup.connections);
        for (index, endpoint) in endpoints.iter().enumerate() {
            let place = (index + count - first % count) % count;
            let share = asked / count as u32 + u32::from(place < asked as usize % count);
            endpoint.open_ahead(always.max(share));
        }
    }

    /// Closes what has been idle for too long.
    pub(super) fn maintain(&self) {
        for endpoint in self.endpoints.borrow().iter() {
            endpoint.maintain();
        }
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.endpoints.borrow().iter().for_each(|endpoint| endpoint.leave());
    }
}

fn has(tried: &[Rc<EndpointPool>], endpoint: &Rc<EndpointPool>) -> bool {
    tried.iter().any(|tried| Rc::ptr_eq(tried, endpoint))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::{
        task::LocalSet,
        time::{Instant, advance},
    };

    use super::*;
    use crate::{
        proxy::{lookout, resolver::Resolver},
        routing::Endpoint,
    };

    fn pool_to(endpoint: Endpoint) -> (Pool, Clock, Rc<Deadlines>) {
        let spec = Arc::new(Upstream {
            endpoints: vec![endpoint],
            max_connections: 100,
            idle_connections: 100,
            ..Upstream::bare("one")
        });
        let clock = Clock::new(Instant::now());
        let deadlines = Rc::new(Deadlines::new(clock));
        let hints = lookout::post(Resolver::system()).1.hints;
        let grounds = Grounds { clock, deadlines: Rc::clone(&deadlines), hints };
        let roster = Arc::new(Roster::of(&spec, None, Duration::ZERO));
        (Pool::new(&spec, roster, None, grounds), clock, deadlines)
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
                let failures = pool.endpoints.borrow()[0].failures_ahead();
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
