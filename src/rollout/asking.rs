//! Asking: what the control thread wants of the workers beyond assigning requests, out of where
//! the rollouts stand. Pools are warmed before weight moves, an open breaker is probed, a drill
//! hurts its canary, sessions may end where they are.

use std::{collections::HashMap, sync::Arc, time::Duration};

use tokio::time::Instant;

use super::{
    SessionPolicy,
    steering::{At, Moment, Steering},
    workers::Workers,
};
use crate::routing::{
    ArmIndex, Asks, CohortId, Harm, Hurt, LiveTable, Probe, ServiceId, UpstreamId, Warm,
};

/// Most connections that are opened ahead to one upstream.
const MOST: u32 = 256;

/// After connections were asked for, weight waits so long before it moves: the workers look every
/// 100 ms.
pub(super) const WARMING: Duration = Duration::from_millis(300);

/// A drill that was asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Drill {
    /// The cohort that it is confined to.
    pub cohort: Option<String>,
    /// The share of the canary's answers, in steps of 0.01 %.
    pub share_bp: u16,
    /// What is done to them.
    pub harm: Harm,
    /// For how long at most.
    pub period: Duration,
}

/// A drill that is going on.
#[derive(Debug)]
struct Drilling {
    names: [Arc<str>; 2],
    cohort: Option<Arc<str>>,
    share_bp: u16,
    harm: Harm,
    until: Instant,
}

/// What goes on beside the rollouts.
#[derive(Debug, Default)]
pub(super) struct Asking {
    drills: Vec<Drilling>,
    /// By service: until when its sessions may end where they are.
    drains: HashMap<Arc<str>, Instant>,
}

impl Asking {
    /// A drill begins; it takes the place of the one before.
    pub(super) fn drill(&mut self, names: [Arc<str>; 2], drill: &Drill, moment: Moment) {
        self.end_drill(&names);
        self.drills.push(Drilling {
            names,
            cohort: drill.cohort.as_deref().map(Arc::from),
            share_bp: drill.share_bp,
            harm: drill.harm,
            until: moment.now + drill.period,
        });
    }

    /// A drill is over.
    pub(super) fn end_drill(&mut self, names: &[Arc<str>; 2]) {
        self.drills.retain(|drill| drill.names != *names);
    }

    /// A canary was rolled back: sessions end as the service says.
    pub(super) fn drain(&mut self, service: &Arc<str>, policy: SessionPolicy, moment: Moment) {
        if let SessionPolicy::Drain(period) = policy {
            self.drains.insert(service.clone(), moment.now + period);
        }
    }

    /// Sessions of a service end now.
    pub(super) fn end_drain(&mut self, service: &Arc<str>) {
        self.drains.remove(service);
    }

    /// Whether keyed requests of a service keep the arms of before.
    pub(super) fn is_draining(&self, service: &str) -> bool {
        self.drains.contains_key(service)
    }

    /// Forgets what is over; whether a drain was.
    pub(super) fn expire(&mut self, moment: Moment) -> bool {
        self.drills.retain(|drill| moment.now < drill.until);
        let before = self.drains.len();
        self.drains.retain(|_, until| moment.now < *until);
        self.drains.len() < before
    }

    /// What is asked now.
    pub(super) fn asks(&self, table: &LiveTable, steering: &Steering, workers: &Workers) -> Asks {
        let arm = |at: At| ArmIndex(at.canary as u8 + 1);
        let service = |at: At| ServiceId(at.service as u32);
        let probes = steering
            .all()
            .filter(|(_, rollout)| rollout.state.life.wants_probes())
            .map(|(at, _)| Probe { service: service(at), arm: arm(at) });
        let hurts = self.drills.iter().filter_map(|drill| {
            let (at, _) = steering.named(&drill.names)?;
            let cohort = match &drill.cohort {
                Some(name) => Some(cohort(table, name)?),
                None => None,
            };
            let (share_bp, what) = (drill.share_bp, drill.harm);
            Some(Hurt { service: service(at), arm: arm(at), cohort, share_bp, what })
        });
        Asks {
            warm: warm(table, steering, workers),
            probes: probes.collect(),
            hurts: hurts.collect(),
        }
    }
}

/// A cohort of a table by its name.
pub(super) fn cohort(table: &LiveTable, name: &str) -> Option<CohortId> {
    let cohorts = (0..table.routes.cohort_count()).map(|place| CohortId(place as u16));
    cohorts.into_iter().find(|cohort| table.routes.cohort_name(*cohort) == name)
}

/// Connections for canaries that are about to get more: as many as the baseline has for its share.
fn warm(table: &LiveTable, steering: &Steering, workers: &Workers) -> Vec<Warm> {
    if steering.raises().next().is_none() {
        return Vec::new();
    }
    let open = workers.upstreams();
    let connections = |upstream: UpstreamId| {
        let name = &table.routes.upstream(upstream).name;
        let counts = open.iter().find(|it| it.upstream == *name);
        counts.map_or(0, |it| it.idle + it.in_use)
    };
    let mut warm: Vec<Warm> = Vec::new();
    for (at, raised_bp) in steering.raises() {
        let service = &table.routes.services()[at.service];
        let (baseline, canary) = (service.arms[0].upstream, service.arms[at.canary + 1].upstream);
        let dial = table.dials.of(ServiceId(at.service as u32));
        let baseline_bp = dial.weight_bp(CohortId(0), ArmIndex(0)).max(1);
        let share = f64::from(raised_bp) / f64::from(baseline_bp);
        let wanted = (f64::from(connections(baseline)) * share).ceil() as u32;
        let least = table.routes.upstream(canary).warmup.map_or(0, |warmup| warmup.connections);
        let wanted = wanted.max(least).min(MOST);
        if wanted > connections(canary) && warm.iter().all(|known| known.upstream != canary) {
            warm.push(Warm { upstream: canary, connections: wanted });
        }
    }
    warm
}
