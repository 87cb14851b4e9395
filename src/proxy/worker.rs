//! A worker: one thread, one runtime, its own pools, its own buffer of events.
//!
//! It shares nothing with the other workers on the request path: the table is read through a cached
//! pointer, and what it has seen goes to the control thread once a tick.

use std::{
    cell::{Cell, RefCell},
    rc::Rc,
    sync::Arc,
    time::Duration,
};

use arc_swap::{ArcSwap, Cache};
use crossbeam_channel::{Receiver, Sender, TrySendError};
use tokio::time::{Instant, MissedTickBehavior, interval};

use super::{
    clock::Clock, connection::Connections, deadline::Deadlines, observe::EventBuffer,
    upstream::Pool,
};
use crate::{
    measure::{Batch, Event, ShedReason, Tick, UpstreamConnections, WorkerReport},
    routing::{LiveTable, UpstreamId},
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
}

impl View {
    pub(super) fn pool(&self, id: UpstreamId) -> &Rc<Pool> {
        &self.pools[id.0 as usize]
    }
}

/// What all parts of a worker share.
#[derive(Debug)]
pub(super) struct Worker {
    pub(super) index: usize,
    pub(super) clock: Clock,
    pub(super) events: Rc<EventBuffer>,
    pub(super) deadlines: Rc<Deadlines>,
    pub(super) connections: Rc<Connections>,
    pub(super) draining: Cell<bool>,
    pub(super) accept_pauses: Cell<u64>,
    table: RefCell<Cache<Arc<ArcSwap<LiveTable>>, Arc<LiveTable>>>,
    view: RefCell<Rc<View>>,
    coins: RefCell<fastrand::Rng>,
    shed: RefCell<[u64; ShedReason::ALL.len()]>,
    link: Link,
}

impl Worker {
    pub(super) fn new(
        index: usize,
        started: Instant,
        table: &Arc<ArcSwap<LiveTable>>,
        link: Link,
    ) -> Rc<Self> {
        let clock = Clock::new(started);
        let current = table.load_full();
        let deadlines = Rc::new(Deadlines::new(clock));
        let pools = pools(&current, None, clock, &deadlines);
        let view = Rc::new(View { pools, table: current });
        Rc::new(Self {
            index,
            clock,
            events: Rc::new(EventBuffer::new(clock)),
            deadlines,
            connections: Rc::default(),
            draining: Cell::new(false),
            accept_pauses: Cell::new(0),
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
            let pools = if Arc::ptr_eq(&table.routes, &view.table.routes) {
                Rc::clone(&view.pools)
            } else {
                pools(table, Some(&view.pools), self.clock, &self.deadlines)
            };
            *view = Rc::new(View { table: Arc::clone(table), pools });
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

    /// Lets time pass: deadlines fire, events are handed over, connections are looked after.
    pub(super) async fn tick(self: Rc<Self>) {
        let mut ticks = interval(Tick::LENGTH);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
        for count in 0_u64.. {
            ticks.tick().await;
            let now = self.clock.now();
            self.deadlines.advance(now);
            let second = count % 10 == 0;
            if second {
                self.connections.look_through(now);
                let view = self.view();
                view.pools.iter().for_each(|pool| pool.maintain());
            }
            self.hand_over(second);
        }
    }

    /// Sends what was seen; what the control thread cannot take yet stays for the next tick.
    pub(super) fn hand_over(&self, with_report: bool) {
        let empty = self.link.empties.try_recv().unwrap_or_default();
        let held = self.events.take(empty);
        let batch = Batch {
            worker: self.index,
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
            Err(TrySendError::Full(batch)) => self.events.put_back(batch),
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
            shed: *self.shed.borrow(),
            accept_pauses: self.accept_pauses.get(),
            open_connections: u32::try_from(self.connections.open()).unwrap_or(u32::MAX),
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
    old: Option<&[Rc<Pool>]>,
    clock: Clock,
    deadlines: &Rc<Deadlines>,
) -> Rc<[Rc<Pool>]> {
    let kept: std::collections::HashMap<&str, &Rc<Pool>> =
        old.unwrap_or_default().iter().map(|pool| (&*pool.spec().name, pool)).collect();
    table
        .routes
        .upstreams()
        .iter()
        .map(|spec| match kept.get(&*spec.name) {
            Some(pool) if pool.spec() == spec => Rc::clone(pool),
            Some(_) | None => Rc::new(Pool::new(spec, clock, deadlines)),
        })
        .collect()
}
