//! Tables, plans and links for the tests of the control plane.

use std::{path::Path, sync::Arc, time::Duration};

use tokio::time::Instant;

use super::*;
use crate::{
    measure::{Batch, Event, OVERHEAD_BUCKETS},
    routing::{
        Arm, CohortPolicy, Condition, Endpoint, HeaderOps, RouteTable, Salt, Service, ServiceId,
        TableParts, Upstream, UpstreamId, fixtures::route,
    },
};

/// One service `shop` with routes, cohorts and canaries by name; each canary with its version and
/// the weights of its stages, none for no plan.
#[derive(Clone, Debug)]
pub(super) struct World {
    pub(super) routes: Vec<&'static str>,
    pub(super) cohorts: Vec<&'static str>,
    pub(super) canaries: Vec<(&'static str, &'static str, Vec<u16>)>,
    pub(super) manual: bool,
    /// Endpoints of the one upstream.
    pub(super) endpoints: u16,
}

impl World {
    /// One route, no cohorts, canary `v2` of version 1.
    pub(super) fn new(stages: &[u16]) -> Self {
        Self {
            routes: vec!["cart"],
            cohorts: Vec::new(),
            canaries: vec![("v2", "1", stages.to_vec())],
            manual: true,
            endpoints: 0,
        }
    }

    pub(super) fn table(&self) -> RouteTable {
        let arm = |name: &str, version: &str| Arm {
            name: name.into(),
            version: version.into(),
            upstream: UpstreamId(0),
            request_headers: HeaderOps::default(),
        };
        let canaries = self.canaries.iter().map(|(name, version, _)| arm(name, version));
        let service = Service {
            name: "shop".into(),
            arms: std::iter::once(arm("baseline", "")).chain(canaries).collect(),
            assign_by: Vec::new(),
            salt: Salt(1, 2),
            override_by: None,
            cohorts: vec![CohortPolicy::default(); self.cohorts.len() + 1],
            arm_header: false,
            toggles: Vec::new(),
        };
        self.table_of(vec![service])
    }

    pub(super) fn table_of(&self, services: Vec<Service>) -> RouteTable {
        let upstream = Arc::new(Upstream {
            endpoints: (1..=self.endpoints)
                .map(|port| Endpoint::Address(([127, 0, 0, 1], port).into()))
                .collect(),
            ..Upstream::bare("somewhere")
        });
        let all = || Condition::All(Vec::new());
        RouteTable::new(TableParts {
            routes: self.routes.iter().map(|name| (all(), route(name))).collect(),
            cohorts: self.cohorts.iter().map(|name| (Arc::from(*name), all())).collect(),
            services,
            upstreams: vec![upstream],
            facts: Default::default(),
        })
    }

    fn settings(&self, state_dir: &Path) -> Settings {
        let canary = |(name, version, stages): &(&str, &str, Vec<u16>)| CanaryPlan {
            canary: (*name).into(),
            version: (*version).into(),
            plan: plan(stages, self.manual),
            warmup: None,
        };
        let service = ServicePlan {
            service: "shop".into(),
            canaries: self.canaries.iter().map(canary).collect(),
            sessions_on_rollback: SessionPolicy::Move,
            cohort_slos: Vec::new(),
        };
        Settings {
            state_dir: state_dir.to_owned(),
            journal: JournalSettings::default(),
            services: vec![service],
            route_slos: Vec::new(),
        }
    }

    pub(super) fn config(&self, state_dir: &Path) -> NewConfig {
        NewConfig {
            routes: self.table(),
            settings: self.settings(state_dir),
            config_hash: format!("{self:?}"),
        }
    }

    /// Starts the control plane for one worker.
    pub(super) fn start(&self, state_dir: &Path) -> Result<Running, StartError> {
        let NewConfig { routes, settings, config_hash } = self.config(state_dir);
        start(Start { settings, routes, config_hash, workers: 1, started: Instant::now() })
    }
}

/// A plan of these weights; none of none.
pub(super) fn plan(weights_bp: &[u16], manual: bool) -> Option<Arc<Plan>> {
    let stage = |weight_bp| Stage { weight_bp, at_least: Duration::ZERO, gate: false, prove: None };
    (!weights_bp.is_empty()).then(|| {
        Arc::new(Plan {
            name: "test".into(),
            stages: weights_bp.iter().copied().map(stage).collect(),
            judge: JudgeSettings::default(),
            inconclusive_after: Inconclusive::default(),
            manual,
        })
    })
}

/// A command to the only canary.
pub(super) fn command(action: Action) -> Command {
    Command {
        service: "shop".into(),
        canary: None,
        action,
        reason: "because".into(),
        actor: "a test".into(),
    }
}

/// A batch of the only worker.
pub(super) fn batch(through: Duration, events: Vec<Event>) -> Batch {
    Batch {
        worker: 0,
        through,
        events,
        overflowed: false,
        overhead: [0; OVERHEAD_BUCKETS],
        overhead_sum_us: 0,
        report: None,
    }
}

/// The weights in force in the table.
pub(super) fn weights(running: &Running) -> Vec<u16> {
    running.table.load().dials.of(ServiceId(0)).weights_bp().to_vec()
}
