//! Probes: once a second the first worker tries the arms that the control thread asks about.
//!
//! Where the service has a route with `rescue`, the next idempotent request of such a route that
//! would have gone to the baseline goes to the arm instead, outside the evidence, and is rescued by
//! the baseline if the arm fails. Where none comes within the second, or none may be rescued, the
//! probe is the upstream's health check, or else a connection.

use std::{
    cell::{Cell, RefCell},
    rc::Rc,
    time::Duration,
};

use tokio::{task::spawn_local, time::timeout};

use super::{
    check,
    upstream::Pool,
    worker::{View, Worker},
};
use crate::{
    measure::Probed,
    routing::{ArmIndex, Assignment, Probe, Route},
};

/// A connection that takes longer is no sign of health.
const CONNECT_PATIENCE: Duration = Duration::from_secs(1);

/// A real request that is a probe waits for at most this long, and for at most half of its
/// timeout: the other half is the rescue's.
const REQUEST_PATIENCE: Duration = Duration::from_secs(2);

/// Most results that wait for the control thread.
const MAX_NEWS: usize = 256;

/// What the worker was asked to try, and what came of it.
#[derive(Debug, Default)]
pub(super) struct Probes {
    /// Whether the next request may have to be one.
    wanted: Cell<bool>,
    /// Arms that wait for a request.
    tickets: RefCell<Vec<Probe>>,
    news: RefCell<Vec<Probed>>,
}

impl Probes {
    /// Whether an arm waits for a request.
    pub(super) fn wanted(&self) -> bool {
        self.wanted.get()
    }

    /// The arm that a request of this route becomes the probe of.
    pub(super) fn divert(&self, route: &Route, assignment: &Assignment) -> Option<ArmIndex> {
        if !route.rescue || assignment.excluded || assignment.arm != ArmIndex(0) {
            return None;
        }
        let mut tickets = self.tickets.borrow_mut();
        let place = tickets.iter().position(|ticket| ticket.service == route.service)?;
        let ticket = tickets.swap_remove(place);
        self.wanted.set(!tickets.is_empty());
        Some(ticket.arm)
    }

    /// Notes how an arm did.
    pub(super) fn tell(&self, view: &View, probe: Probe, ok: bool) {
        let service = view.table.routes.service(probe.service);
        let mut news = self.news.borrow_mut();
        if let Some(arm) = service.arms.get(usize::from(probe.arm.0))
            && news.len() < MAX_NEWS
        {
            news.push(Probed { service: service.name.clone(), arm: arm.name.clone(), ok });
        }
    }

    pub(super) fn has_news(&self) -> bool {
        !self.news.borrow().is_empty()
    }

    pub(super) fn take_news(&self) -> Vec<Probed> {
        self.news.take()
    }

    /// Puts back results that could not be handed over, in front of what has come since.
    pub(super) fn put_back(&self, mut earlier: Vec<Probed>) {
        let mut news = self.news.borrow_mut();
        earlier.append(&mut news);
        earlier.truncate(MAX_NEWS);
        *news = earlier;
    }

    /// Forgets who waits for a request.
    pub(super) fn forget(&self) {
        self.tickets.borrow_mut().clear();
        self.wanted.set(false);
    }

    /// Another second begins.
    pub(super) fn second(worker: &Rc<Worker>) {
        let view = worker.view();
        let asked = &view.table.asks.probes;
        let probes = &worker.probes;
        let unused = probes.tickets.take();
        let mut tickets = Vec::new();
        for probe in asked {
            let by_request = view.rescuer(probe.service).is_some();
            if by_request {
                tickets.push(*probe);
            }
            if !by_request || unused.contains(probe) {
                spawn_local(try_once(Rc::clone(worker), Rc::clone(&view), *probe));
            }
        }
        probes.wanted.set(!tickets.is_empty());
        probes.tickets.replace(tickets);
    }
}

/// How long a real request waits for the arm that it tries.
pub(super) fn patience(route: &Route) -> Duration {
    REQUEST_PATIENCE.min(route.timeout / 2)
}

/// Tries an arm by a request of our own, or by a connection.
async fn try_once(worker: Rc<Worker>, view: Rc<View>, probe: Probe) {
    let service = view.table.routes.service(probe.service);
    let Some(arm) = service.arms.get(usize::from(probe.arm.0)) else { return };
    let pool = view.pool(arm.upstream);
    let ok = match &pool.spec().health {
        Some(health) => check::is_well(&worker, pool, None, health).await,
        None => connects(pool).await,
    };
    worker.probes.tell(&view, probe, ok);
}

/// Whether the upstream accepts a connection, which is then kept.
async fn connects(pool: &Pool) -> bool {
    match timeout(CONNECT_PATIENCE, pool.lease(true)).await {
        Ok(Ok(lease)) => {
            lease.give_back();
            true
        }
        Ok(Err(_)) | Err(_) => false,
    }
}
