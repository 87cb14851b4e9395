//! Records: what the journal holds beside decisions. With them evidence survives the process, and
//! anybody can judge again what was judged.

use std::{sync::Arc, time::Duration};

use serde::{Deserialize, Serialize};

use super::{
    Decision, EvidenceInput, EvidenceSnapshot, JudgedRoute, Obstacle, PlaceboMemory, Plan, Rollout,
    Seen, Split, Standing, Subject, Tolerance, plan::Margin,
};
use crate::{
    judge::{JudgeConfig, Pods},
    measure::{Epoch, Tick},
};

/// One thing that a rollout was told, in the order in which it was told.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// The number of the decision that the rollout began with.
    #[serde(rename = "r")]
    pub run: u64,
    /// Time since the rollout began, in milliseconds.
    #[serde(rename = "t")]
    pub at_ms: u64,
    /// What it was told.
    #[serde(flatten)]
    pub what: Recorded,
}

/// What a rollout is told.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Recorded {
    /// It began, or goes on with other settings: its evidence is made of this.
    Begin(Box<Beginning>),
    /// The plan was edited.
    Plan(Option<Arc<Plan>>),
    /// Its evidence was fed.
    #[serde(rename = "i")]
    Input(EvidenceInput),
    /// It took a step.
    #[serde(rename = "s")]
    Step(StepInput),
    /// A raise that had waited for the disk is in force: the decision of this number.
    InForce(u64),
    /// Requests since it began; nothing is computed from it.
    #[serde(rename = "c")]
    Counts(Vec<RouteCounts>),
}

/// Requests of a rollout on one route since it began: all, and those that failed or hung.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RouteCounts {
    /// The route.
    #[serde(rename = "r")]
    pub route: Arc<str>,
    /// Of the baseline.
    #[serde(rename = "b")]
    pub baseline: [u64; 2],
    /// Of the canary.
    #[serde(rename = "c")]
    pub canary: [u64; 2],
}

/// What the evidence of a rollout is made of.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Beginning {
    /// The service.
    pub service: Arc<str>,
    /// The canary.
    pub canary: Arc<str>,
    /// Its version.
    pub version: Arc<str>,
    /// The plan in force.
    pub plan: Option<Arc<Plan>>,
    /// The judge's settings.
    pub judge: JudgeConfig,
    /// What does not count as drift.
    pub tolerate: Tolerance,
    /// The margin that a promotion must prove.
    pub promote_within: Margin,
    /// Pods taking traffic, where they are known.
    pub pods: Option<Pods>,
    /// How long the canary warms up.
    pub warmup: Option<Duration>,
    /// Whether the units of a process before are lost.
    pub units_lost: bool,
    /// Routes and their timeouts.
    pub routes: Vec<(Arc<str>, Duration)>,
    /// Cohorts.
    pub cohorts: Vec<Arc<str>>,
    /// The first tick that is judged.
    pub from: Tick,
    /// The epoch of the first weights.
    pub epoch: Epoch,
    /// These weights, by stratum.
    pub splits: Vec<Split>,
}

/// What a step went by, beyond the evidence.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct StepInput {
    /// As in [`Seen::others_bp`].
    #[serde(rename = "o", default, skip_serializing_if = "is_default")]
    pub others_bp: u16,
    /// As in [`Seen::objectives`].
    #[serde(rename = "g", default, skip_serializing_if = "is_default")]
    pub objectives: Standing,
    /// As in [`Seen::obstacle`].
    #[serde(rename = "x", default, skip_serializing_if = "is_default")]
    pub obstacle: Option<Obstacle>,
    /// As in [`Seen::block_ends`].
    #[serde(rename = "e", default, skip_serializing_if = "is_default")]
    pub block_ends: bool,
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

/// The whole state of the control plane, at the head of every file of the journal.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Memory {
    /// The last decision about every version that is known.
    pub decisions: Vec<Decision>,
    /// The rollouts that are judged.
    pub live: Vec<LiveRollout>,
    /// Of those that are not judged any more: the number of the decision that each began with, and
    /// its requests.
    #[serde(default)]
    pub ended: Vec<(u64, Vec<RouteCounts>)>,
    /// What the placebos know, by service.
    #[serde(default)]
    pub placebos: Vec<(Arc<str>, PlaceboMemory)>,
}

/// A rollout that is judged.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct LiveRollout {
    /// The number of the decision that it began with.
    pub run: u64,
    /// Time since it began, in milliseconds.
    pub at_ms: u64,
    /// What its evidence is made of.
    pub beginning: Beginning,
    /// Its life so far.
    pub life: Rollout,
    /// A raise that waits for the disk.
    pub pending: Option<Rollout>,
    /// Its evidence so far.
    pub evidence: EvidenceSnapshot,
    /// Its requests so far.
    #[serde(default)]
    pub counts: Vec<RouteCounts>,
}

impl Beginning {
    /// The subject of this evidence, without recorders.
    #[must_use]
    pub fn subject(&self) -> Subject {
        let route = |(name, timeout): &(Arc<str>, Duration)| JudgedRoute {
            name: Arc::clone(name),
            timeout: *timeout,
        };
        Subject {
            judge: self.judge.clone(),
            tolerate: self.tolerate,
            promote_within: self.promote_within,
            pods: self.pods,
            warmup: self.warmup,
            units_lost: self.units_lost,
            routes: self.routes.iter().map(route).collect(),
            cohorts: self.cohorts.clone(),
            sources: Vec::new(),
        }
    }
}

impl StepInput {
    /// What of `seen` is not in the evidence.
    #[must_use]
    pub const fn of(seen: &Seen) -> Self {
        Self {
            others_bp: seen.others_bp,
            objectives: seen.objectives,
            obstacle: seen.obstacle,
            block_ends: seen.block_ends,
        }
    }

    /// The same on top of what the evidence says.
    #[must_use]
    pub fn seen(&self, evidence: Seen) -> Seen {
        Seen {
            others_bp: self.others_bp,
            objectives: self.objectives,
            obstacle: self.obstacle,
            block_ends: self.block_ends,
            ..evidence
        }
    }
}
