//! The snapshot: all that status, metrics and the dashboard show, published once a second and
//! after every command. Readers take an `Arc` and never meet the control thread.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use super::{Decision, DecisionKind, EndpointsView, JournalCounts, ObjectiveView, Phase, Status};
use crate::measure::{
    Counters, DURATION_BOUNDS_US, OVERHEAD_BUCKETS, Rescues, Retries, ShedReason, Totals,
    UpstreamConnections,
};

/// What is known at one moment. Counters run since the start of the process.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// When it was taken.
    pub at: SystemTime,
    /// The status document.
    pub status: Arc<Status>,
    /// What was counted, by route, cohort and arm. A large grid shows what has been used, and
    /// its `default` column.
    pub recorders: Vec<RecorderView>,
    /// Durations of requests by route and arm, from arrival to the last byte.
    pub durations: Vec<DurationView>,
    /// Time that requests spent in the proxy itself, by `measure::overhead_bucket`.
    pub overhead: [u64; OVERHEAD_BUCKETS],
    /// Sum of the overhead in microseconds.
    pub overhead_sum_us: u64,
    /// Weights in force: `default` and the cohorts that the service names.
    pub weights: Vec<WeightView>,
    /// One per canary.
    pub canaries: Vec<CanaryView>,
    /// Objectives by arm, and how fast their budgets burn.
    pub objectives: Vec<ObjectiveView>,
    /// Placebos by service, of those that have a canary.
    pub placebos: Vec<PlaceboView>,
    /// Users that were on a canary and came back to the baseline, by service.
    pub sessions_moved: Vec<(Arc<str>, u64)>,
    /// Connections to upstreams, summed over the workers.
    pub upstreams: Vec<UpstreamConnections>,
    /// How the endpoints of upstreams stand.
    pub endpoints: Vec<EndpointsView>,
    /// Requests and connections refused by the proxy, by [`ShedReason::index`].
    pub shed: [u64; ShedReason::ALL.len()],
    /// Rescues by service, of those that have a route with `rescue`.
    pub rescues: Vec<Rescues>,
    /// Repeated requests by upstream, of those that a route with `retry` has led to.
    pub retries: Vec<Retries>,
    /// How often a worker paused accepting.
    pub accept_pauses: u64,
    /// Connections of clients that are open.
    pub open_connections: u64,
    /// How late the control thread woke up at worst within the last second.
    pub control_lateness: Duration,
    /// What could not be counted.
    pub counters: Counters,
    /// The configuration in force.
    pub config: ConfigView,
    /// Whether the journal takes writes.
    pub journal_writable: bool,
    /// What the journal did since the start of the process.
    pub journal: JournalCounts,
    /// The last decisions, oldest first; at most [`Snapshot::RECENT`].
    pub recent: Vec<Arc<Decision>>,
}

impl Snapshot {
    /// How many of the last decisions a snapshot carries.
    pub const RECENT: usize = 100;
    /// Upper bounds of [`DurationView::buckets`] in microseconds; the last bucket has none.
    pub const DURATION_BOUNDS_US: [u64; DURATION_BOUNDS_US.len()] = DURATION_BOUNDS_US;
}

/// The names of one recorder.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct RecorderLabels {
    /// The service.
    pub service: Arc<str>,
    /// The route.
    pub route: Arc<str>,
    /// The cohort, `default` or `other` among them.
    pub cohort: Arc<str>,
    /// `baseline`, or the canary.
    pub arm: Arc<str>,
    /// The canary's version; empty for the baseline.
    pub version: Arc<str>,
}

/// What one recorder counted. Over the versions of a canary there are several with the same
/// other names: metrics add them up.
#[derive(Clone, Debug)]
pub struct RecorderView {
    /// Its names.
    pub labels: Arc<RecorderLabels>,
    /// Its counts.
    pub totals: Totals,
}

/// Durations on one route and arm.
#[derive(Clone, Debug)]
pub struct DurationView {
    /// The route.
    pub route: Arc<str>,
    /// `baseline`, or the canary.
    pub arm: Arc<str>,
    /// Requests per bucket (not cumulative) of [`Snapshot::DURATION_BOUNDS_US`], and beyond.
    pub buckets: [u64; DURATION_BOUNDS_US.len() + 1],
    /// Sum of the durations in microseconds.
    pub sum_us: u64,
}

/// The weight of a canary in a cohort.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WeightView {
    /// The service.
    pub service: Arc<str>,
    /// The canary.
    pub canary: Arc<str>,
    /// The cohort.
    pub cohort: Arc<str>,
    /// The weight in force, caps included, in buckets of 0.01 %.
    pub weight_bp: u16,
}

/// A canary as metrics show it.
#[derive(Clone, Debug, PartialEq)]
pub struct CanaryView {
    /// The service.
    pub service: Arc<str>,
    /// The canary.
    pub canary: Arc<str>,
    /// Its phase.
    pub phase: Phase,
    /// Its share of the assigned requests of the last 60 s; `None` without any.
    pub weight_actual: Option<f64>,
    /// Odds against it.
    pub evidence: f64,
    /// Decisions since the start of the process, in the order of [`DecisionKind::ALL`].
    pub decisions: [u64; DecisionKind::ALL.len()],
}

/// The placebo of a service: one endpoint of the baseline against the others.
#[derive(Clone, Debug, PartialEq)]
pub struct PlaceboView {
    /// The service.
    pub service: Arc<str>,
    /// By length of blocks in seconds: the largest odds against an endpoint that is no canary.
    pub evidence: Vec<(u32, f64)>,
    /// The length of blocks in seconds that is needed.
    pub block_seconds: u32,
    /// Whether even blocks of that length mislead: promotion stops.
    pub alarm: bool,
    /// How often that began, since the start of the process.
    pub alarms: u64,
}

/// The configuration in force.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigView {
    /// Its hash.
    pub hash: Arc<str>,
    /// Whether the last reload was put in force.
    pub last_reload_successful: bool,
    /// When a configuration was last put in force; the start counts.
    pub last_success: SystemTime,
    /// Why the last reload was not put in force.
    pub last_error: Option<Arc<str>>,
}
