//! Builds the snapshot out of what the control thread holds. It only copies and adds: quantiles
//! are computed beforehand, a few at a time.

use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, SystemTime},
};

use super::{
    ConfigView, EndpointsView, RolloutStatus, RouteCounts, Snapshot, Status,
    groups::Groups,
    layout::{Cell, Layout},
    objectives::Objectives,
    placebo::Placebos,
    sessions::Sessions,
    shares::Shares,
    snapshot::{CanaryView, DurationView, RecorderLabels, RecorderView, WeightView},
    status::{ArmStatus, RouteStatus},
    steering::{At, Counted, Rollout, Steering},
    workers::Workers,
};
use crate::{
    measure::{
        DURATION_BOUNDS_US, EndpointState, Ledger, RecorderKey, Totals, UpstreamConnections,
    },
    routing::{ArmIndex, BUCKETS, CohortId, CohortPolicy, LiveTable, ServiceId, Upstream},
};

/// Up to this many recorders are all shown; of more only those that were used, and `default`.
const ALL_SHOWN: usize = 4096;

/// Counts at the beginning of a rollout, by service and canary.
pub(super) type Beginnings = HashMap<[Arc<str>; 2], HashMap<RecorderKey, Totals>>;

/// What a snapshot is made of.
pub(super) struct View<'a> {
    pub(super) table: Arc<LiveTable>,
    pub(super) steering: &'a Steering,
    pub(super) ledger: &'a Ledger,
    pub(super) layout: &'a Layout,
    pub(super) groups: &'a Groups,
    pub(super) shares: &'a Shares,
    pub(super) objectives: &'a Objectives,
    pub(super) placebos: &'a Placebos,
    pub(super) sessions: &'a Sessions,
    pub(super) workers: &'a Workers,
    pub(super) beginnings: &'a Beginnings,
    /// Counts of rollouts that began in a process before this one.
    pub(super) carried: &'a Counted,
    pub(super) config: &'a ConfigView,
    pub(super) lateness: Duration,
}

impl View<'_> {
    pub(super) fn snapshot(&self, at: SystemTime) -> Snapshot {
        let rollouts = self.steering.all();
        let status = Status { rollouts: rollouts.map(|(at, it)| self.rollout(at, it)).collect() };
        Snapshot {
            at,
            status: Arc::new(status),
            recorders: self.recorders(),
            durations: self.durations(),
            overhead: self.workers.overhead,
            overhead_sum_us: self.workers.overhead_sum_us,
            weights: self.weights(),
            canaries: self.steering.all().map(|(_, rollout)| self.canary(rollout)).collect(),
            objectives: self.objectives.views(),
            placebos: self.placebos.views(),
            sessions_moved: self.sessions.moved(),
            upstreams: self.upstreams(),
            endpoints: self.endpoints(),
            shed: self.workers.shed(),
            rescues: self.workers.rescues(),
            retries: self.workers.retries(),
            accept_pauses: self.workers.accept_pauses(),
            open_connections: self.workers.open_connections(),
            control_lateness: self.lateness,
            counters: *self.ledger.counters(),
            config: self.config.clone(),
            journal_writable: self.steering.is_writable(),
            journal: self.steering.journal_counts(),
            recent: self.steering.recent().cloned().collect(),
        }
    }

    /// One rollout as status shows it.
    pub(super) fn rollout(&self, at: At, rollout: &Rollout) -> RolloutStatus {
        let state = &rollout.state;
        let (stage, stages) = state.stage_of();
        RolloutStatus {
            service: rollout.service.clone(),
            canary: rollout.canary.clone(),
            version: state.version.clone(),
            phase: state.phase(),
            stage,
            stages,
            weight: share(self.weight_bp(at)),
            weight_actual: self.shares.of(&rollout.service, &rollout.canary),
            verdict: rollout.said.verdict,
            evidence: rollout.said.told.odds,
            reason: state.sentence(&rollout.said.told.sentence),
            since: humantime::format_rfc3339_millis(rollout.since).to_string(),
            routes: self.routes(at, rollout),
        }
    }

    /// The weight in force: on its way down it is still above the state's.
    fn weight_bp(&self, at: At) -> u16 {
        let dial = self.table.dials.of(ServiceId(at.service as u32));
        dial.weights_bp().get(at.canary).copied().unwrap_or(0)
    }

    fn routes(&self, at: At, rollout: &Rollout) -> Vec<RouteStatus> {
        let none = HashMap::new();
        let names = rollout.names();
        let carried = self.carried.get(&names);
        let began = self.beginnings.get(&names).unwrap_or(&none);
        let mut routes: Vec<RouteStatus> = Vec::new();
        let shown = |arm| arm == 0 || arm == at.canary + 1;
        for group in self.groups.of(at.service).filter(|group| shown(group.arm)) {
            let mut arm = group.status(self.ledger, began);
            let before = carried.into_iter().flatten().find(|it| it.route == group.route_name);
            if let Some(before) = before {
                let [requests, errors] =
                    if group.arm == 0 { before.baseline } else { before.canary };
                arm.requests += requests;
                arm.errors += errors;
            }
            match routes.last_mut().filter(|last| last.route == group.route_name) {
                Some(route) => route.arms.push(arm),
                None => {
                    routes.push(RouteStatus { route: group.route_name.clone(), arms: vec![arm] });
                }
            }
        }
        routes
    }

    /// Requests of a rollout since it began.
    pub(super) fn counts(&self, at: At) -> Vec<RouteCounts> {
        let routes = self.routes(at, self.steering.at(at)).into_iter();
        let counts = routes.map(|route| {
            let of = |arm: usize| {
                let arm: Option<&ArmStatus> = route.arms.get(arm);
                arm.map_or([0; 2], |arm| [arm.requests, arm.errors])
            };
            RouteCounts { baseline: of(0), canary: of(1), route: route.route.clone() }
        });
        counts.collect()
    }

    fn canary(&self, rollout: &Rollout) -> CanaryView {
        CanaryView {
            service: rollout.service.clone(),
            canary: rollout.canary.clone(),
            phase: rollout.state.phase(),
            weight_actual: self.shares.of(&rollout.service, &rollout.canary),
            evidence: rollout.said.told.odds,
            decisions: rollout.decisions,
        }
    }

    /// The recorders of the table in force, and those of before that counted something.
    fn recorders(&self) -> Vec<RecorderView> {
        let current = self.layout.current();
        let all = current.len() <= ALL_SHOWN;
        let shown = |cell: &&Cell| {
            all || &*cell.labels.cohort == "default" || self.ledger.is_used(cell.key)
        };
        let view = |labels: &Arc<RecorderLabels>, key| RecorderView {
            labels: Arc::clone(labels),
            totals: self.ledger.totals(key),
        };
        let mut views: Vec<RecorderView> =
            current.iter().filter(shown).map(|cell| view(&cell.labels, cell.key)).collect();
        let past = self.layout.past().filter(|(_, key)| self.ledger.is_used(*key));
        views.extend(past.map(|(labels, key)| view(labels, key)));
        views
    }

    fn durations(&self) -> Vec<DurationView> {
        let mut views = Vec::new();
        let mut places = HashMap::new();
        let current = self.layout.current().iter().map(|cell| (&cell.labels, cell.key));
        for (labels, key) in current.chain(self.layout.past()) {
            let names = (&labels.route, &labels.arm);
            let place = *places.entry(names).or_insert_with(|| {
                views.push(DurationView {
                    route: labels.route.clone(),
                    arm: labels.arm.clone(),
                    buckets: [0; DURATION_BOUNDS_US.len() + 1],
                    sum_us: 0,
                });
                views.len() - 1
            });
            let (view, durations) = (&mut views[place], self.ledger.durations(key));
            for (sum, count) in view.buckets.iter_mut().zip(durations.buckets) {
                *sum += count;
            }
            view.sum_us += durations.sum_us;
        }
        views
    }

    fn weights(&self) -> Vec<WeightView> {
        let mut views = Vec::new();
        for (at, rollout) in self.steering.all() {
            let routes = &self.table.routes;
            let id = ServiceId(at.service as u32);
            let policies = &routes.service(id).cohorts;
            let dial = self.table.dials.of(id);
            let arm = ArmIndex(at.canary as u8 + 1);
            let named = (0..routes.cohort_count()).filter(|cohort| {
                *cohort == 0
                    || dial.zeros().contains(&(CohortId(*cohort as u16), arm))
                    || policies.get(*cohort).is_some_and(|it| *it != CohortPolicy::default())
            });
            views.extend(named.map(|cohort| {
                let cohort = CohortId(cohort as u16);
                WeightView {
                    service: rollout.service.clone(),
                    canary: rollout.canary.clone(),
                    cohort: routes.cohort_name(cohort).into(),
                    weight_bp: dial.weight_bp(cohort, arm),
                }
            }));
        }
        views
    }

    /// The endpoints of every upstream of the table.
    fn endpoints(&self) -> Vec<EndpointsView> {
        let all = self.workers.endpoints();
        let view = |upstream: &Arc<Upstream>| {
            let known = all.binary_search_by(|view| view.upstream.cmp(&upstream.name));
            known.map(|place| all[place].clone()).unwrap_or_else(|_| EndpointsView {
                upstream: Arc::clone(&upstream.name),
                states: [0; EndpointState::ALL.len()],
                panics: false,
            })
        };
        self.table.routes.upstreams().iter().map(view).collect()
    }

    /// Every upstream of the table, connected or not, and those that still have connections.
    fn upstreams(&self) -> Vec<UpstreamConnections> {
        let mut views = self.workers.upstreams();
        for upstream in self.table.routes.upstreams() {
            if !views.iter().any(|view| view.upstream == upstream.name) {
                views.push(UpstreamConnections {
                    upstream: upstream.name.clone(),
                    idle: 0,
                    in_use: 0,
                    connecting: 0,
                });
            }
        }
        views
    }
}

/// A weight as a share of 1.
fn share(weight_bp: u16) -> f64 {
    f64::from(weight_bp) / BUCKETS as f64
}
