//! The plan of a rollout, as compiled from the configuration: stages, gates, the judge's settings.

use std::{path::PathBuf, sync::Arc, time::Duration};

use serde::{Deserialize, Serialize};

use crate::judge::{Component, JudgeConfig};

/// What the control plane needs from the configuration.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Where the journal lives.
    pub state_dir: PathBuf,
    /// How much of the journal is kept.
    pub journal: JournalSettings,
    /// Plans by service, in the order of the services of the route table.
    pub services: Vec<ServicePlan>,
    /// Objectives by route, in the order of the routes of the route table.
    pub route_slos: Vec<Slo>,
}

/// How much of the journal is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct JournalSettings {
    /// For how long.
    pub keep: Duration,
    /// Up to how many bytes.
    pub max_size: u64,
}

impl Default for JournalSettings {
    fn default() -> Self {
        Self { keep: Duration::from_secs(30 * 24 * 3600), max_size: 1 << 30 }
    }
}

/// The plans of one service.
#[derive(Clone, Debug)]
pub struct ServicePlan {
    /// The service's name.
    pub service: Arc<str>,
    /// The canaries, in the order of the service's arms 1, 2, …
    pub canaries: Vec<CanaryPlan>,
    /// What happens to sessions when weight is taken away.
    pub sessions_on_rollback: SessionPolicy,
    /// Objectives by cohort name.
    pub cohort_slos: Vec<(Arc<str>, Slo)>,
}

/// The plan of one canary.
#[derive(Clone, Debug)]
pub struct CanaryPlan {
    /// The canary's name.
    pub canary: Arc<str>,
    /// Its version as configured, or a hash of its definition.
    pub version: Arc<str>,
    /// Its stages; none: only people move it.
    pub plan: Option<Arc<Plan>>,
    /// How long its upstream warms up, at 1 % or less and under a wider tolerance.
    pub warmup: Option<Duration>,
}

/// A list of stages and how they are judged.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Plan {
    /// `standard`, the name it was given, or `risk: medium` and so on.
    pub name: Arc<str>,
    /// At least one.
    pub stages: Vec<Stage>,
    /// The judge's settings.
    pub judge: JudgeSettings,
    /// What to do when a stage neither proves nor fails.
    pub inconclusive_after: Inconclusive,
    /// Measure and judge, never move the weight.
    pub manual: bool,
}

/// A step of a plan.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stage {
    /// The canary's weight in buckets of 0.01 %.
    pub weight_bp: u16,
    /// The least time at this stage.
    pub at_least: Duration,
    /// Whether a person is asked before this stage is entered.
    pub gate: bool,
    /// Whether the stage needs a proof; `None`: from 5 % on.
    pub prove: Option<bool>,
}

/// The judge's settings. Probabilities are shares of 1.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct JudgeSettings {
    /// Alpha over the whole rollout.
    pub false_rollback: f64,
    /// Alpha of each stage's promotion.
    pub false_promotion: f64,
    /// What does not count as drift.
    pub tolerate: Tolerance,
    /// The margin a promotion must prove.
    pub promote_within: Margin,
    /// A fixed block length; `None`: calibrated, starting at 5 s.
    pub block: Option<Duration>,
    /// Most excess bad canary responses per rollout.
    pub max_bad_responses: u64,
}

impl Default for JudgeSettings {
    fn default() -> Self {
        Self {
            false_rollback: 0.001,
            false_promotion: 0.05,
            tolerate: Tolerance {
                latency: 0.05,
                latency_floor: Duration::from_micros(100),
                errors: 0.001,
            },
            promote_within: Margin { latency: 0.25, errors: 0.005 },
            block: None,
            max_bad_responses: 1000,
        }
    }
}

impl JudgeSettings {
    /// The set-up of a judge that watches these parts of the traffic, the service first.
    #[must_use]
    pub fn config(&self, components: Vec<Component>) -> JudgeConfig {
        let default = JudgeConfig::default();
        JudgeConfig {
            components,
            false_rollback: self.false_rollback,
            false_promotion: self.false_promotion,
            tolerate_errors: self.tolerate.errors,
            margin_errors: self.promote_within.errors,
            margin_latency: self.promote_within.latency,
            block_ticks: self.block.map_or(default.block_ticks, JudgeConfig::ticks_of),
            ..default
        }
    }
}

/// What does not count as drift.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Tolerance {
    /// Relative slowdown, as a share of 1.
    pub latency: f64,
    /// Least absolute slowdown.
    pub latency_floor: Duration,
    /// Additional failures, as a share of requests.
    pub errors: f64,
}

/// The margin of non-inferiority that a promotion proves.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Margin {
    /// Relative slowdown, as a share of 1.
    pub latency: f64,
    /// Additional failures, as a share of requests.
    pub errors: f64,
}

/// What happens when a stage is still undecided after a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Inconclusive {
    /// That time.
    pub period: Duration,
    /// What then.
    pub then: Fallback,
}

impl Default for Inconclusive {
    fn default() -> Self {
        Self { period: Duration::from_secs(4 * 3600), then: Fallback::Hold }
    }
}

/// The configured outcome of an undecided stage.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Fallback {
    /// Stay and say so.
    Hold,
    /// Go on to the next stage.
    Advance,
    /// Roll back.
    Rollback,
}

/// How risky a change is; picks the plan where none is named.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Risk {
    /// 5/25/100 %.
    Low,
    /// 1/5/25/50/95/100 %.
    #[default]
    Medium,
    /// 0.1/1/5/10/25 (gate)/50/95/100 %, `promote_within` 10 %.
    High,
}

/// What happens to sessions when weight is taken away from their arm.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SessionPolicy {
    /// They move at once.
    #[default]
    Move,
    /// Keyed requests keep the table of before for this long.
    Drain(Duration),
}

/// Absolute objectives. Empty: none.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Slo {
    /// Quantile (as a share of 1) and its limit.
    pub latency: Vec<(f64, Duration)>,
    /// Most failures, as a share of requests.
    pub errors: Option<f64>,
    /// Over which time; the default is one hour.
    pub window: Option<Duration>,
}
