//! What comes of a step: what changed and why, or why nothing does.

use serde::{Deserialize, Serialize};

use super::Obstacle;

/// Why a rollout does not go on by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Wait {
    /// The stage takes at least as long as the plan says.
    Time,
    /// Too few canary requests.
    Requests,
    /// The evidence against the canary is above 3 : 1.
    Doubt,
    /// The stage is not proved yet.
    Proof,
    /// A person is asked before the next stage.
    Gate,
    /// The other canaries leave no room for the next stage's weight.
    Room,
    /// The stage stayed undecided for as long as the plan allows.
    Inconclusive,
    /// Only people move the weight.
    Manual,
    /// Nothing of its own.
    Obstacle(Obstacle),
    /// There is no further stage.
    Nothing,
}

/// What a step changed. The first that applies, where several do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Change {
    /// Rolled back for good.
    RolledBack(Why),
    /// One cohort was taken away from the canary for good.
    CohortOut,
    /// The breaker took the weight down to 1 %, or all of it.
    Tripped,
    /// Both arms became bad after a raise, and it was taken back.
    Guarded,
    /// The breaker gave some of it back.
    Recovered,
    /// The evidence asks for caution.
    Cautioned,
    /// Sticky users raised suspicion.
    Suspected,
    /// Suspicion or caution is over.
    Returned,
    /// The canary has warmed up.
    WarmedUp,
    /// A stage was entered.
    Entered,
    /// Fully promoted.
    Promoted,
}

/// Why a rollout was rolled back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Why {
    /// The evidence passed its threshold.
    Evidence,
    /// As many bad responses as a rollout may cost.
    BadResponses,
    /// The breaker took all of its traffic again and again.
    Outages,
    /// The canary alone burnt an error budget ten times as fast as it may.
    Objective,
    /// Undecided for too long, and the plan says so.
    Inconclusive,
    /// A person said so.
    Person,
}
