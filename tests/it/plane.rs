//! A data plane without a control thread: the test stores the table and reads the batches.

use std::{net::SocketAddr, path::Path, sync::Arc};

use arc_swap::ArcSwap;
use crossbeam_channel::Receiver;
use haldane::{
    config,
    measure::{Batch, Epoch, Event, Outcome, RecorderId, WorkerReport},
    proxy::{Inputs, Link, Listen, Listener, ListenerSettings, Proxy, Resolver},
    routing::{Asks, Dials, LiveTable, RecorderGrid, RouteTable, ServiceDial},
    shutdown,
};
use tokio::time::Instant;

use crate::harness::{eventually, no_environment};

/// A running data plane. Arm `a` of the only service counts under recorder `a`.
pub(crate) struct Plane {
    pub(crate) addr: SocketAddr,
    live: Arc<ArcSwap<LiveTable>>,
    batches: Receiver<Batch>,
    /// What was read of the batches.
    pub(crate) events: Vec<Event>,
    pub(crate) reports: Vec<WorkerReport>,
    trigger: Option<shutdown::Trigger>,
}

impl Plane {
    /// Starts a data plane with these services and routes, the canary at this weight, and nothing
    /// asked.
    pub(crate) fn start(yaml: &str, weight_bp: u16, workers: usize) -> Self {
        Self::resolving(yaml, weight_bp, workers, Resolver::system())
    }

    /// The same with names as this resolver knows them.
    pub(crate) fn resolving(
        yaml: &str,
        weight_bp: u16,
        workers: usize,
        resolver: Resolver,
    ) -> Self {
        let routes = compile(yaml);
        let table = LiveTable {
            dials: dials(&routes, weight_bp),
            routes: Arc::new(routes),
            epoch: Epoch::new(1),
            asks: Arc::default(),
        };
        let live = Arc::new(ArcSwap::from_pointee(table));
        let (sender, batches) = crossbeam_channel::unbounded();
        let (_spare, empties) = crossbeam_channel::bounded(0);
        let address = Listen::Tcp(([127, 0, 0, 1], 0).into());
        let settings = ListenerSettings::plain("edge", address);
        let listener = Listener::bind(&Arc::new(settings)).unwrap();
        let addr = listener.local_addr().unwrap();
        let (trigger, watcher) = shutdown::channel();
        let links = vec![Link { batches: sender, empties }; workers];
        let table = Arc::clone(&live);
        let inputs = Inputs { started: Instant::now(), table, links, shutdown: watcher, resolver };
        // The threads end by themselves after the shutdown.
        drop(Proxy::start(vec![listener], inputs).unwrap());
        let (events, reports) = (Vec::new(), Vec::new());
        Self { addr, live, batches, events, reports, trigger: Some(trigger) }
    }

    pub(crate) fn routes(&self) -> Arc<RouteTable> {
        Arc::clone(&self.live.load().routes)
    }

    /// Puts other services and routes in force, as a reload does.
    pub(crate) fn reload(&self, yaml: &str, weight_bp: u16) {
        let (table, routes) = (LiveTable::clone(&self.live.load()), compile(yaml));
        let (dials, epoch) = (dials(&routes, weight_bp), table.epoch.next());
        self.live.store(Arc::new(LiveTable { routes: Arc::new(routes), dials, epoch, ..table }));
    }

    /// Puts this in force beside everything as it is.
    pub(crate) fn ask(&self, asks: Asks) {
        let table = LiveTable { asks: Arc::new(asks), ..LiveTable::clone(&self.live.load()) };
        self.live.store(Arc::new(table));
    }

    /// Puts this weight in force.
    pub(crate) fn weigh(&self, weight_bp: u16) {
        let table = LiveTable::clone(&self.live.load());
        let (dials, epoch) = (dials(&table.routes, weight_bp), table.epoch.next());
        self.live.store(Arc::new(LiveTable { dials, epoch, ..table }));
    }

    /// Reads what the workers have sent.
    pub(crate) fn read(&mut self) {
        for batch in self.batches.try_iter() {
            self.events.extend(batch.events);
            self.reports.extend(batch.report.map(|report| *report));
        }
    }

    /// Reads until `check` gives something.
    pub(crate) async fn until<T>(
        &mut self,
        what: &str,
        mut check: impl FnMut(&Self) -> Option<T>,
    ) -> T {
        eventually(what, async || {
            self.read();
            check(self)
        })
        .await
    }

    /// How requests of an arm ended that are (or are not) evidence.
    pub(crate) fn ended(&self, arm: u32, excluded: bool) -> Vec<Outcome> {
        let of_arm = self.events.iter().filter(|event| event.recorder == RecorderId(arm));
        let kinds = of_arm.filter(|event| event.excluded() == excluded).map(Event::kind);
        kinds
            .filter_map(|kind| match kind {
                haldane::measure::Kind::Ended { outcome, .. } => Some(outcome),
                haldane::measure::Kind::Assigned | haldane::measure::Kind::Answered { .. } => None,
            })
            .collect()
    }
}

impl Drop for Plane {
    fn drop(&mut self) {
        if let Some(trigger) = self.trigger.take() {
            trigger.begin(std::time::Duration::ZERO);
        }
    }
}

fn compile(yaml: &str) -> RouteTable {
    let yaml = format!("version: 1\nlisteners: [{{ address: \"127.0.0.1:0\" }}]\n{yaml}");
    let compiled = config::compile_text(&yaml, Path::new("haldane.yaml"), &no_environment).unwrap();
    let mut routes = compiled.routes;
    for route in routes.routes_mut() {
        route.recorders =
            RecorderGrid { base: RecorderId(0), arms: 2, columns: Arc::from([0]), other: 0 };
    }
    routes
}

fn dials(routes: &RouteTable, weight_bp: u16) -> Arc<Dials> {
    let dial = |service| Arc::new(ServiceDial::new(service, &[weight_bp]));
    Arc::new(Dials::new(routes.services().iter().map(dial).collect()))
}
