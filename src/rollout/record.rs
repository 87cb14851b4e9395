//! What the journal records of a rollout besides its decisions: how it began, what its evidence
//! was fed, and what a step went by beyond the evidence. With the decisions that is all that a
//! replay needs. Units appear as keyed hashes only, never as what a client sent.

use std::{sync::Arc, time::Duration};

use serde::{Deserialize, Serialize};

use super::{
    Decision, Evidence, EvidenceInput, EvidenceSnapshot, Obstacle, Plan, Rollout, Seen, Standing,
};

/// One thing that happened to a rollout.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct BlockRecord {
    /// The number of the decision that the rollout began with.
    pub run: u64,
    /// Time since it began, in milliseconds.
    pub at_ms: u64,
    /// What happened.
    #[serde(rename = "is")]
    pub what: Recorded,
}

/// What happened.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Recorded {
    /// It is judged from now on: at its beginning, or anew after a restart that could not go on
    /// with the evidence of before.
    Begin(Box<RolloutRecord>),
    /// Another plan is in force; `None`: none.
    Plan(Option<Arc<Plan>>),
    /// Its life was put there by neither a step nor a decision: a restart under less room, a
    /// reload that left the weight as it was.
    Life(Box<Rollout>),
    /// What its evidence was fed.
    Input(EvidenceInput),
    /// A step was taken.
    Step(Circumstances),
}

/// Everything about one rollout, at its beginning and in snapshots.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct RolloutRecord {
    /// The number of the decision that it began with.
    pub run: u64,
    /// The service.
    pub service: Arc<str>,
    /// The canary.
    pub canary: Arc<str>,
    /// The version that is being rolled out.
    pub version: Arc<str>,
    /// Its plan; `None`: only people move the weight.
    pub plan: Option<Arc<Plan>>,
    /// Where it is.
    pub life: Rollout,
    /// A raise on its way to the disk: the number of its decision, and where that leads.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pending: Option<(u64, Rollout)>,
    /// Time since it began.
    pub at: Duration,
    /// What its evidence has come to.
    pub evidence: EvidenceSnapshot,
}

/// The whole control state, as snapshots have it.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct StateRecord {
    /// The rollouts that are being judged.
    pub rollouts: Vec<RolloutRecord>,
    /// The last decision about every version that is known: with it older files can be deleted.
    pub known: Vec<Decision>,
}

/// What a step goes by beyond the evidence.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Circumstances {
    /// As in [`Seen::now`].
    pub now: Duration,
    /// As in [`Seen::others_bp`].
    #[serde(default, skip_serializing_if = "is_default")]
    pub others_bp: u16,
    /// As in [`Seen::objectives`].
    #[serde(default, skip_serializing_if = "is_default")]
    pub objectives: Standing,
    /// As in [`Seen::obstacle`].
    #[serde(default, skip_serializing_if = "is_default")]
    pub obstacle: Option<Obstacle>,
    /// As in [`Seen::block_ends`].
    #[serde(default, skip_serializing_if = "is_default")]
    pub block_ends: bool,
    /// Whether a raise is on its way to the disk.
    #[serde(default, skip_serializing_if = "is_default")]
    pub is_pending: bool,
    /// Whether a raise cannot be proposed: another one waits, or the journal takes none.
    #[serde(default, skip_serializing_if = "is_default")]
    pub no_raise: bool,
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

impl Circumstances {
    /// Those of what was seen.
    #[must_use]
    pub const fn of(seen: &Seen) -> Self {
        Self {
            now: seen.now,
            others_bp: seen.others_bp,
            objectives: seen.objectives,
            obstacle: seen.obstacle,
            block_ends: seen.block_ends,
            is_pending: false,
            no_raise: false,
        }
    }

    /// What is seen under them of some evidence. Suspicion is told once, as in
    /// [`Evidence::seen`].
    pub fn seen(&self, evidence: &mut Evidence) -> Seen {
        Seen {
            objectives: self.objectives,
            block_ends: self.block_ends,
            ..evidence.seen(self.now, self.others_bp, self.obstacle)
        }
    }
}
