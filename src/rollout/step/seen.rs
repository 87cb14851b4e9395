//! What a step goes by: the evidence, and everything beside it. Nothing here decides anything.

use std::{sync::Arc, time::Duration};

use serde::{Deserialize, Serialize};

use crate::judge::{BreakerState, Level, Proof, Proofs, Verdict};

/// What a step is decided by.
#[derive(Clone, Debug, PartialEq)]
pub struct Seen {
    /// Time since the rollout began. Never goes back.
    pub now: Duration,
    /// The evidence against the canary.
    pub verdict: Verdict,
    /// A cohort whose evidence passed the threshold while no other cohort shows anything, if there
    /// is one: see [`Judge::condemned_cohorts`](crate::judge::Judge::condemned_cohorts).
    pub condemned: Option<Arc<str>>,
    /// The proofs of the stage.
    pub proofs: Proofs,
    /// What the breaker asks for.
    pub breaker: BreakerState,
    /// Whether suspicion among sticky users was raised since the last step.
    pub suspected: bool,
    /// Canary requests in the evidence since the stage was entered.
    pub canary_requests: u64,
    /// Bad canary responses beyond the baseline's share since the rollout began, as far as they
    /// are beyond doubt (a lower bound).
    pub excess_bad: f64,
    /// The weights of the service's other canaries together, in buckets of 0.01 %.
    pub others_bp: u16,
    /// How the canary stands by the absolute limits of its routes and cohorts.
    pub objectives: Standing,
    /// What keeps every rollout of the service from going on.
    pub obstacle: Option<Obstacle>,
    /// Whether a block of arrivals ends at this moment. Weights are raised only then: a block
    /// that is cut because of what was seen in it is biased.
    pub block_ends: bool,
}

impl Seen {
    /// Nothing was seen: for or against the canary.
    #[must_use]
    pub const fn nothing(now: Duration, others_bp: u16) -> Self {
        Self {
            now,
            verdict: Verdict {
                level: Level::Holding,
                rollback_ln: 0.0,
                rollback_peak_ln: 0.0,
                caution_ln: 0.0,
                caution_peak_ln: 0.0,
                threshold_ln: f64::MAX,
                lead: None,
            },
            condemned: None,
            proofs: Proofs {
                proved: false,
                undoubted: true,
                weakest: Proof::Errors,
                weakest_ln: 0.0,
                threshold_ln: f64::MAX,
                seconds: 0.0,
                canary_trials: 0,
            },
            breaker: BreakerState::Closed,
            suspected: false,
            canary_requests: 0,
            excess_bad: 0.0,
            others_bp,
            objectives: Standing::Kept,
            obstacle: None,
            block_ends: true,
        }
    }
}

/// How a canary stands by absolute limits, from good to bad.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(rename_all = "snake_case")]
pub enum Standing {
    /// Both arms keep them, as far as is known.
    #[default]
    Kept,
    /// The baseline alone breaches one.
    BaselineBreaches,
    /// Both arms breach one.
    BothBreach,
    /// The canary alone breaches one.
    Breaches,
    /// The canary alone burns its budget ten times as fast as allowed.
    Severe,
}

/// What keeps a rollout from going on by itself, beyond its own evidence.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Obstacle {
    /// No request came for a while.
    NoTraffic,
    /// The placebo shows that blocks are too short.
    Placebo,
    /// Too few users of the canary can still tell the arms apart.
    TooFewUsers,
    /// The realised shares do not fit the weights.
    ShareCheck,
    /// The journal cannot be written.
    Journal,
    /// The control thread is late.
    Late,
    /// The baseline breaches an objective too: something beyond the canary is wrong.
    Environment,
    /// The canary breaches an objective.
    Objective,
    /// The baseline recovered when the canary's weight was lowered.
    Interference,
}
