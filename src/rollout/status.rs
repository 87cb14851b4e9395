//! What a person is told about rollouts: the document of `GET /api/v1/status`, ready to be
//! serialised. It holds numbers that are already computed; nothing here looks anything up.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// All rollouts, one per service and canary, in the order of the configuration.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// The rollouts.
    pub rollouts: Vec<RolloutStatus>,
}

/// One canary's rollout.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RolloutStatus {
    /// The service.
    pub service: Arc<str>,
    /// The canary.
    pub canary: Arc<str>,
    /// The version that is being rolled out.
    pub version: Arc<str>,
    /// Where the rollout is.
    pub phase: Phase,
    /// The stage, from 1; 0 without a plan.
    pub stage: usize,
    /// Number of stages; 0 without a plan.
    pub stages: usize,
    /// The weight in force outside capped cohorts, as a share of 1.
    pub weight: f64,
    /// The canary's share of the assigned requests of the last 60 s, pins and overrides left out;
    /// `None` without any.
    pub weight_actual: Option<f64>,
    /// What the judge says.
    pub verdict: Verdict,
    /// Odds against the canary, "x : 1", up to 1e12.
    pub evidence: f64,
    /// One sentence for a person.
    pub reason: String,
    /// Since when the rollout is in this phase with this weight, RFC 3339.
    pub since: String,
    /// What was counted, by route of the service.
    pub routes: Vec<RouteStatus>,
}

/// One route of a service.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RouteStatus {
    /// The route.
    pub route: Arc<str>,
    /// The baseline and this canary.
    pub arms: Vec<ArmStatus>,
}

/// One arm on one route. Counts are those since the rollout began, quantiles those of the last
/// 60 s (`None` without samples) of the latency that the route is judged by.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ArmStatus {
    /// `baseline`, or the canary.
    pub arm: Arc<str>,
    /// Requests assigned.
    pub requests: u64,
    /// Requests that failed or hung.
    pub errors: u64,
    /// Median in milliseconds.
    pub p50_ms: Option<f64>,
    /// 95th percentile in milliseconds.
    pub p95_ms: Option<f64>,
    /// 99th percentile in milliseconds.
    pub p99_ms: Option<f64>,
    /// 99.9th percentile in milliseconds.
    pub p999_ms: Option<f64>,
}

/// Where a rollout is; where several apply, the first of this list is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// No canary or no plan.
    Idle,
    /// Its weight was taken away for good; a new version or `retry` starts again.
    RolledBack,
    /// It has all of the traffic, or its last stage is proved.
    Promoted,
    /// A person holds it.
    Paused,
    /// A person is asked before the next stage.
    Gated,
    /// The judge took weight away, not for good.
    Caution,
    /// It cannot go on by itself.
    Holding,
    /// It goes on when its stage is over.
    Progressing,
}

impl Phase {
    /// All phases, the first that applies first.
    pub const ALL: [Self; 8] = [
        Self::Idle,
        Self::RolledBack,
        Self::Promoted,
        Self::Paused,
        Self::Gated,
        Self::Caution,
        Self::Holding,
        Self::Progressing,
    ];

    /// The word for this phase in metrics, status and journal.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Idle => "idle",
            Self::RolledBack => "rolled_back",
            Self::Promoted => "promoted",
            Self::Paused => "paused",
            Self::Gated => "gated",
            Self::Caution => "caution",
            Self::Holding => "holding",
            Self::Progressing => "progressing",
        }
    }
}

/// What the judge says of a canary.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// Proved to be no worse than the margin.
    Healthy,
    /// Not enough evidence yet.
    Holding,
    /// Some evidence against it.
    Caution,
    /// Enough evidence against it.
    Rollback,
}

impl Verdict {
    /// The word for this verdict in status and journal.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Healthy => "healthy",
            Self::Holding => "holding",
            Self::Caution => "caution",
            Self::Rollback => "rollback",
        }
    }
}
