//! A worker: one thread, one runtime, its own pools, its own buffer of events.
//!
//! It shares nothing with the other workers on the request path: the table is read through a cached
//! pointer, and what it has seen goes to the control thread once a tick.

use std::{
    cell::{Cell, RefCell},
    collections::BTreeSet,
    rc::Rc,
    sync::Arc,
    time::Duration,
};

use arc_swap::{ArcSwap, Cache};
use crossbeam_channel::{Receiver, Sender, TrySendError};
use tokio::{
    sync::watch,
    time::{Instant, MissedTickBehavior, interval},
};

use super::{
    clock::Clock,
    connection::Connections,
    deadline::Deadlines,
    lookout::{Lookout, Outlook},
    observe::EventBuffer,
    probe::Probes,
    rescue::{self, Rescuer},
    upstream::{Grounds, Pool, Roster, Rosters},
};
use crate::{
    measure::{Batch, Event, ShedReason, Tick, UpstreamConnections, WorkerReport},
    routing::{LiveTable, ServiceId, Upstream, UpstreamId, VerifiedTokens},
};

/// The worker's end of the channels to the control thread.
#[derive(Clone, Debug)]
pub struct Link {
    /// Takes batches; bounded.
    pub batches: Sender<Batch>,
    /// Gives back emptied buffers.
    pub empties: Receiver<Vec<Event>>,
}

/// The table as this worker sees it, with its pools.
#[derive(Debug)]
pub(super) struct View {
    pub(super) table: Arc<LiveTable>,
    pools: Rc<[Rc<Pool>]>,
    /// By service; `None` where no route asks for rescue.
    rescuers: Rc<[Option<Rc<Rescuer>>]>,
}

impl View {
    pub(super) fn pools(&self) -> impl Iterator<Item = &Rc<Pool>> {
        self.pools.iter()
    }

    pub(super) fn pool(&self, id: UpstreamId) -> &Rc<Pool> {
        &self.pools[id.0 as usize]
    }

    /// The upstreams that routes with `retry` lead to.
    fn retried(&self) -> impl Iterator<Item = &Rc<Pool>> {
        let routes = self.table.routes.routes().filter(|route| route.retries > 0);
        let arms = routes.flat_map(|route| &self.table.routes.service(route.service).arms);
        let upstreams: BTreeSet<UpstreamId> = arms.map(|arm| arm.upstream).collect();
        upstreams.into_iter().map(|upstream| self.pool(upstream))
    }

    /// The rescuer of a service that has a route with `rescue`.
    pub(super) fn rescuer(&self, id: ServiceId) -> Option<&Rc<Rescuer>> {
        self.rescuers.get(id.0 as usize)?.as_ref()
    }
}

/// Which of how many workers.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place {
    /// From 0.
    pub(super) index: usize,
    /// At least 1.
    pub(super) workers: usize,
}

/// What all parts of a worker share.
#[derive(Debug)]
pub(super) struct Worker {
    pub(super) place: Place,
    pub(super) clock: Clock,
    pub(super) events: Rc<EventBuffer>,
    pub(super) deadlines: Rc<Deadlines>,
    pub(super) connections: Rc<Connections>,
    pub(super) draining: Cell<bool>,
    pub(super) accept_pauses: Cell<u64>,
    pub(super) probes: Probes,
    pub(super) verified_tokens: VerifiedTokens,
    rosters: watch::Receiver<Arc<Rosters>>,
    grounds: Grounds,
    table: RefCell<Cache<Arc<ArcSwap<LiveTable>>, Arc<LiveTable>>>,
    view: RefCell<Rc<View>>,
    coins: RefCell<fastrand::Rng>,
    shed: RefCell<[u64; ShedReason::ALL.len()]>,
    link: Link,
}

impl Worker {
    pub(super) fn new(
        place: Place,
        started: Instant,
        table: &Arc<ArcSwap<LiveTable>>,
        link: Link,
        outlook: Outlook,
    ) -> Rc<Self> {
        let clock = Clock::new(started);
        let current = table.load_full();
        let deadlines = Rc::new(Deadlines::new(clock));
        let Outlook { rosters, hints } = outlook;
        let grounds = Grounds { clock, deadlines: Rc::clone(&deadlines), hints };
        let pools = pools(&current, &[], &rosters.borrow(), &grounds);
        let rescuers = rescue::rescuers(&current, &[]);
        let view = Rc::new(View { pools, rescuers, table: current });
        Rc::new(Self {
            place,
            clock,
            events: Rc::new(EventBuffer::new(clock)),
            deadlines,
            connections: Rc::default(),
            draining: Cell::new(false),
            accept_pauses: Cell::new(0),
            probes: Probes::default(),
            verified_tokens: VerifiedTokens::default(),
            rosters,
            grounds,
            table: RefCell::new(Cache::new(Arc::clone(table))),
            view: RefCell::new(view),
            coins: RefCell::new(fastrand::Rng::new()),
            shed: RefCell::default(),
            link,
        })
    }

    /// The table in force. Pools of upstreams that did not change live on.
    pub(super) fn view(&self) -> Rc<View> {
        let mut cache = self.table.borrow_mut();
        let table = cache.load();
        let mut view = self.view.borrow_mut();
        if !Arc::ptr_eq(table, &view.table) {
            let (pools, rescuers) = if Arc::ptr_eq(&table.routes, &view.table.routes) {
                (Rc::clone(&view.pools), Rc::clone(&view.rescuers))
            } else {
                // Services may have other ids now.
                self.probes.forget();
                let pools = pools(table, &view.pools, &self.rosters.borrow(), &self.grounds);
                (pools, rescue::rescuers(table, &view.rescuers))
            };
            *view = Rc::new(View { table: Arc::clone(table), pools, rescuers });
        }
        Rc::clone(&view)
    }

    /// 64 fresh random bits.
    pub(super) fn coin(&self) -> u64 {
        self.coins.borrow_mut().u64(..)
    }

    /// Counts a refusal.
    pub(super) fn shed(&self, reason: ShedReason) {
        self.shed.borrow_mut()[reason.index()] += 1;
    }

    /// Follows what the lookout says of endpoints.
    pub(super) async fn follow_rosters(self: Rc<Self>) {
        let mut rosters = self.rosters.clone();
        // The lookout ends with the process.
        while rosters.changed().await.is_ok() {
            let now = Arc::clone(&rosters.borrow_and_update());
            for pool in self.view().pools() {
                if let Some(roster) = now.get(&pool.spec().name) {
                    pool.follow(roster);
                }
            }
        }
    }

    /// Lets time pass: deadlines fire, events are handed over, connections and endpoints are looked
    /// after.
    pub(super) async fn tick(self: Rc<Self>, lookout: Option<Rc<Lookout>>) {
        let mut ticks = interval(Tick::LENGTH);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
        for count in 0_u64.. {
            ticks.tick().await;
            let now = self.clock.now();
            self.deadlines.advance(now);
            let second = count % 10 == 0;
            self.view().pools().for_each(|pool| pool.tick());
            if second {
                self.connections.look_through(now);
                self.view().pools().for_each(|pool| pool.maintain());
            }
            if let Some(lookout) = &lookout {
                lookout.tick();
            }
            if !self.draining.get() {
                self.open_ahead();
                if second && self.place.index == 0 {
                    Probes::second(&self);
                }
            }
            self.hand_over(second || self.probes.has_news());
        }
    }

    /// Opens this worker's share of the connections that are asked for ahead of traffic.
    fn open_ahead(&self) {
        let view = self.view();
        let warm = &view.table.asks.warm;
        let Place { index, workers } = self.place;
        for (id, pool) in view.pools.iter().enumerate() {
            let asked = warm.iter().find(|warm| warm.upstream.0 as usize == id);
            let whole = asked.map_or(0, |warm| warm.connections as usize);
            let share = whole / workers + usize::from(index < whole % workers);
            pool.open_ahead(share as u32, index);
        }
    }

    /// Sends what was seen; what the control thread cannot take yet stays for the next tick.
    pub(super) fn hand_over(&self, with_report: bool) {
        let empty = self.link.empties.try_recv().unwrap_or_default();
        let held = self.events.take(empty);
        let batch = Batch {
            worker: self.place.index,
            through: self.clock.now(),
            events: held.events,
            overflowed: held.overflowed,
            overhead: held.overhead,
            overhead_sum_us: held.overhead_sum_us,
            report: with_report.then(|| Box::new(self.report())),
        };
        match self.link.batches.try_send(batch) {
            // Without a control thread the process is ending; nobody counts any more.
            Ok(()) | Err(TrySendError::Disconnected(_)) => {}
            Err(TrySendError::Full(mut batch)) => {
                if let Some(report) = batch.report.take() {
                    self.probes.put_back(report.probes);
                }
                self.events.put_back(batch);
            }
        }
    }

    fn report(&self) -> WorkerReport {
        let view = self.view.borrow();
        WorkerReport {
            upstreams: view
                .pools
                .iter()
                .map(|pool| {
                    let counts = pool.counts();
                    UpstreamConnections {
                        upstream: Arc::clone(&pool.spec().name),
                        idle: counts.idle,
                        in_use: counts.in_use,
                        connecting: counts.connecting,
                    }
                })
                .collect(),
            endpoints: view.pools.iter().map(|pool| pool.report()).collect(),
            shed: *self.shed.borrow(),
            accept_pauses: self.accept_pauses.get(),
            open_connections: u32::try_from(self.connections.open()).unwrap_or(u32::MAX),
            rescues: view.rescuers.iter().flatten().map(|rescuer| rescuer.report()).collect(),
            retries: view.retried().map(|pool| pool.retries()).collect(),
            probes: self.probes.take_news(),
        }
    }

    /// Waits until no connection is open, at most for `drain`.
    pub(super) async fn drained(&self, drain: Duration) {
        let end = self.clock.now() + drain;
        let mut checks = interval(Duration::from_millis(10));
        while self.connections.open() > 0 && self.clock.now() < end {
            checks.tick().await;
            self.connections.close_all();
        }
    }
}

fn pools(
    table: &LiveTable,
    old: &[Rc<Pool>],
    rosters: &Rosters,
    grounds: &Grounds,
) -> Rc<[Rc<Pool>]> {
    let kept: std::collections::HashMap<&str, &Rc<Pool>> =
        old.iter().map(|pool| (&*pool.spec().name, pool)).collect();
    let pool = |spec: &Arc<Upstream>| match kept.get(&*spec.name) {
        Some(pool) if pool.spec() == spec => Rc::clone(pool),
        before => {
            let before = before.map(|pool| &***pool);
            let known = rosters.get(&spec.name).map(|roster| &**roster);
            let roster = Roster::of(spec, known, grounds.clock.now());
            Rc::new(Pool::new(spec, Arc::new(roster), before, grounds.clone()))
        }
    };
    table.routes.upstreams().iter().map(pool).collect()
}
