//! What one worker knows of an endpoint: how many requests it has there, how long answers take,
//! and whether it is passed over.

use std::{
    cell::{Cell, RefCell},
    rc::Rc,
    time::Duration,
};

use tokio::sync::Notify;

use super::{
    balance::{Candidate, Latency},
    roster::{Health, Seat, Site},
};
use crate::{
    measure::{EndpointNumber, EndpointState},
    routing::Eject,
};

/// A request that failed took at least this long, as far as the choice of an endpoint goes: fast
/// failures attract no requests.
const FAILURE: Duration = Duration::from_secs(1);

/// The least part of a full share.
const LEAST_SHARE: f64 = 0.1;

/// An ejection is at most so many times as long as the first one.
const MOST_TIMES: u32 = 30;

/// What the endpoints of a pool tell the pool.
#[derive(Debug, Default)]
pub(super) struct Signals {
    /// Which endpoints are to be passed over has to be found anew.
    pub(super) stale: Cell<bool>,
    /// One request less is in flight, or an endpoint more is there.
    pub(super) room: Notify,
    /// So many wait for it.
    pub(super) waiting: Cell<usize>,
    /// When endpoints are ejected.
    pub(super) eject: Cell<Option<Eject>>,
}

impl Signals {
    /// One more waits for room, until what is returned is dropped.
    pub(super) fn queue(&self) -> Queued<'_> {
        self.waiting.set(self.waiting.get() + 1);
        Queued(self)
    }
}

/// One that waits for room.
pub(super) struct Queued<'a>(&'a Signals);

impl Drop for Queued<'_> {
    fn drop(&mut self) {
        self.0.waiting.set(self.0.waiting.get() - 1);
    }
}

/// One endpoint of a pool.
#[derive(Debug)]
pub(super) struct Member {
    pub(super) site: Site,
    pub(super) signals: Rc<Signals>,
    number: Cell<EndpointNumber>,
    health: Cell<Health>,
    /// So many pools have it: two for as long as requests from before a reload last.
    pools: Cell<usize>,
    /// It is no endpoint any more; what is under way may end.
    retired: Cell<bool>,
    in_flight: Cell<u32>,
    /// Those of them without the first byte of an answer.
    waiting: Cell<u32>,
    latency: RefCell<Latency>,
    /// No connection could be made, and none was since.
    unreachable: Cell<bool>,
    /// Failures in a row.
    failures: Cell<u32>,
    ejected_until: Cell<Option<Duration>>,
    /// How often in a row it was ejected, and when the last ejection ended.
    ejections: Cell<u32>,
    returned: Cell<Duration>,
    /// When it became an endpoint, or well again.
    fresh_since: Cell<Option<Duration>>,
}

impl Member {
    /// `fresh_since` says since when its share grows, if at all.
    pub(super) fn new(seat: &Seat, signals: &Rc<Signals>, fresh_since: Option<Duration>) -> Self {
        Self {
            site: seat.site.clone(),
            signals: Rc::clone(signals),
            number: Cell::new(seat.number),
            health: Cell::new(seat.health),
            pools: Cell::new(0),
            retired: Cell::new(false),
            in_flight: Cell::new(0),
            waiting: Cell::new(0),
            latency: RefCell::default(),
            unreachable: Cell::new(false),
            failures: Cell::new(0),
            ejected_until: Cell::new(None),
            ejections: Cell::new(0),
            returned: Cell::new(Duration::ZERO),
            fresh_since: Cell::new(fresh_since),
        }
    }

    pub(super) fn number(&self) -> EndpointNumber {
        self.number.get()
    }

    /// Follows its seat in the roster.
    pub(super) fn follow(&self, seat: &Seat, now: Duration) {
        self.number.set(seat.number);
        if self.health.replace(seat.health) == Health::Unwell && seat.health == Health::Well {
            self.fresh_since.set(Some(now));
        }
    }

    /// One more pool has it.
    pub(super) fn join(&self) {
        self.pools.set(self.pools.get() + 1);
    }

    /// One pool less has it; whether it was the last one.
    pub(super) fn leave(&self) -> bool {
        self.pools.set(self.pools.get() - 1);
        self.retired.set(self.pools.get() == 0);
        self.retired.get()
    }

    pub(super) fn is_retired(&self) -> bool {
        self.retired.get()
    }

    pub(super) fn in_flight(&self) -> u32 {
        self.in_flight.get()
    }

    /// How it stands here.
    pub(super) fn state(&self) -> EndpointState {
        if self.retired.get() {
            EndpointState::Draining
        } else if self.health.get() == Health::Unwell {
            EndpointState::Unhealthy
        } else if self.unreachable.get() {
            EndpointState::Unreachable
        } else if self.ejected_until.get().is_some() {
            EndpointState::Ejected
        } else if self.health.get() == Health::Untested {
            EndpointState::Untested
        } else {
            EndpointState::Ready
        }
    }

    /// What a choice knows of it.
    pub(super) fn candidate(&self, now: Duration, slow_start: Option<Duration>) -> Candidate {
        let asked = self.waiting.get() > 0;
        Candidate {
            in_flight: self.in_flight.get(),
            latency_us: self.latency.borrow().estimate_us(asked, now),
            share: slow_start.map_or(1.0, |whole| self.share(now, whole)),
        }
    }

    fn share(&self, now: Duration, whole: Duration) -> f64 {
        let Some(since) = self.fresh_since.get() else { return 1.0 };
        let share = now.saturating_sub(since).as_secs_f64() / whole.as_secs_f64();
        if share >= 1.0 {
            self.fresh_since.set(None);
        }
        share.clamp(LEAST_SHARE, 1.0)
    }

    /// A request is on its way to it.
    pub(super) fn begin(&self) {
        self.in_flight.set(self.in_flight.get() + 1);
        self.waiting.set(self.waiting.get() + 1);
    }

    /// The request does not wait for a first byte any more.
    pub(super) fn waited(&self) {
        self.waiting.set(self.waiting.get() - 1);
    }

    /// The request is over.
    pub(super) fn end(&self) {
        self.in_flight.set(self.in_flight.get() - 1);
        if self.signals.waiting.get() > 0 {
            self.signals.room.notify_one();
        }
    }

    /// The first byte came after this long.
    pub(super) fn answered(&self, latency: Duration, now: Duration) {
        self.latency.borrow_mut().measured(latency, now);
    }

    /// Nobody waits any longer for a first byte that has not come for so long.
    pub(super) fn given_up(&self, latency: Duration, now: Duration) {
        let mut known = self.latency.borrow_mut();
        if known.estimate_us(true, now).is_none_or(|us| us < latency.as_secs_f64() * 1e6) {
            known.measured(latency, now);
        }
    }

    /// A request ended badly before its first byte.
    pub(super) fn broke_off(&self, latency: Duration, now: Duration) {
        self.latency.borrow_mut().measured(latency.max(FAILURE), now);
    }

    /// A request went well, or it failed and that is the endpoint's doing.
    pub(super) fn judged(&self, failed: bool) {
        if !failed {
            self.failures.set(0);
            return;
        }
        let failures = self.failures.get().saturating_add(1);
        self.failures.set(failures);
        if self.signals.eject.get().is_some_and(|eject| failures >= eject.failures) {
            self.signals.stale.set(true);
        }
    }

    /// Whether it has failed so often that it is to be passed over.
    pub(super) fn deserves_ejection(&self, eject: &Eject) -> bool {
        self.ejected_until.get().is_none() && self.failures.get() >= eject.failures
    }

    /// Passes it over, longer than the last time if that is not long ago; returns for how long.
    pub(super) fn eject(&self, eject: &Eject, now: Duration) -> Duration {
        let before = eject.period * self.ejections.get();
        let again = now.saturating_sub(self.returned.get()) <= before;
        let times = if again { (self.ejections.get() + 1).min(MOST_TIMES) } else { 1 };
        self.ejections.set(times);
        self.failures.set(0);
        self.ejected_until.set(Some(now + eject.period * times));
        eject.period * times
    }

    pub(super) fn is_ejected(&self) -> bool {
        self.ejected_until.get().is_some()
    }

    /// Ends an ejection whose time is over; whether there was one.
    pub(super) fn readmit(&self, now: Duration) -> bool {
        let over = self.ejected_until.get().is_some_and(|until| until <= now);
        if over {
            self.ejected_until.set(None);
            self.failures.set(0);
            self.returned.set(now);
            self.fresh_since.set(Some(now));
        }
        over
    }

    pub(super) fn is_unreachable(&self) -> bool {
        self.unreachable.get()
    }

    /// Whether a connection can be made has been seen; whether that is news.
    pub(super) fn reached(&self, reached: bool, now: Duration) -> bool {
        let news = self.unreachable.replace(!reached) == reached;
        if news {
            self.signals.stale.set(true);
            if reached {
                self.fresh_since.set(Some(now));
            }
        }
        news
    }
}
