//! A decision: one line of the journal. It carries the whole state that the rollout is in
//! afterwards, so that the last line about a version is all that a restart needs.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::Phase;

/// Something that changed a rollout.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Decision {
    /// Counts from 1 over the life of the state directory.
    pub seq: u64,
    /// When, RFC 3339.
    pub time: String,
    /// What happened.
    pub action: DecisionKind,
    /// The service.
    pub service: Arc<str>,
    /// The canary.
    pub canary: Arc<str>,
    /// The version that is being rolled out.
    pub version: Arc<str>,
    /// The version that the configuration named at that time; a `release` holds until it changes.
    pub configured: Arc<str>,
    /// The phase afterwards.
    pub phase: Phase,
    /// The stage afterwards, from 1; 0 without a plan.
    pub stage: usize,
    /// The weight before, in buckets of 0.01 %.
    pub from_bp: u16,
    /// The weight afterwards, in buckets of 0.01 %.
    pub weight_bp: u16,
    /// Who did it: a person, or `haldane`.
    pub actor: String,
    /// Why.
    pub reason: String,
    /// The hash of the configuration in force.
    pub config: Arc<str>,
}

/// What a decision did.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DecisionKind {
    /// A version was seen for the first time.
    Start,
    /// A person set the weight.
    SetWeight,
    /// A person paused.
    Pause,
    /// A person ended the pause.
    Resume,
    /// A person went on to a stage.
    Promote,
    /// A person rolled back.
    Abort,
    /// A person started a rolled-back version again.
    Retry,
    /// A person said that the version changed.
    Release,
    /// The configuration changed the weight of the stage.
    Reload,
    /// A raise that did not reach the disk in time was taken back.
    Withdraw,
}

impl DecisionKind {
    /// All kinds, in the order of their counters.
    pub const ALL: [Self; 10] = [
        Self::Start,
        Self::SetWeight,
        Self::Pause,
        Self::Resume,
        Self::Promote,
        Self::Abort,
        Self::Retry,
        Self::Release,
        Self::Reload,
        Self::Withdraw,
    ];

    /// Whether a rollout begins with it, or begins again.
    #[must_use]
    pub const fn begins(self) -> bool {
        matches!(self, Self::Start | Self::Retry | Self::Release)
    }

    /// The word for this kind in metrics and journal.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Start => "start",
            Self::SetWeight => "set_weight",
            Self::Pause => "pause",
            Self::Resume => "resume",
            Self::Promote => "promote",
            Self::Abort => "abort",
            Self::Retry => "retry",
            Self::Release => "release",
            Self::Reload => "reload",
            Self::Withdraw => "withdraw",
        }
    }
}
