//! A decision: one line of the journal. It carries the whole state that the rollout is in
//! afterwards, so that the last line about a version is all that a restart needs.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::{Action, Change, Phase, Rollout};

/// Something that changed a rollout.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
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
    /// The number of the decision that this rollout began with.
    pub run: u64,
    /// Time since the rollout began, in milliseconds; stands still while no process runs.
    pub at_ms: u64,
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
    /// What was known of the canary at that moment; nothing before it is judged.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub evidence: Option<Told>,
    /// The hash of the configuration in force.
    pub config: Arc<str>,
    /// The whole state afterwards.
    pub life: Rollout,
}

/// What is known of a canary, in numbers for people.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Told {
    /// Odds against the canary, "x : 1", up to 1e12.
    pub odds: f64,
    /// Odds at which it is rolled back.
    pub needs: f64,
    /// What the judge says, in one sentence.
    pub sentence: String,
    /// Requests of the canary that were judged, and of the baseline, since the rollout began.
    pub requests: [u64; 2],
    /// Bad canary responses beyond the baseline's share, as far as they are beyond doubt.
    pub excess_bad: f64,
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
    /// A person opened a gate.
    Approve,
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
    /// The next stage was entered.
    Advance,
    /// The last proof was given.
    Complete,
    /// The evidence asked for caution.
    Caution,
    /// Sticky users raised suspicion.
    Suspect,
    /// The breaker took weight away.
    Trip,
    /// Both arms became bad after a raise, which was taken back.
    Guard,
    /// The breaker gave some of it back.
    Recover,
    /// Caution or suspicion is over.
    Return,
    /// The canary has warmed up.
    WarmUp,
    /// Rolled back on evidence, or on a limit of the plan.
    Rollback,
    /// The evidence of one cohort alone: rolled back for that one.
    RollbackCohort,
    /// A person hurts the canary's answers, to see that it is found.
    Drill,
    /// A drill is over.
    EndDrill,
}

impl DecisionKind {
    /// All kinds, in the order of their counters.
    pub const ALL: [Self; 24] = [
        Self::Start,
        Self::SetWeight,
        Self::Pause,
        Self::Resume,
        Self::Promote,
        Self::Approve,
        Self::Abort,
        Self::Retry,
        Self::Release,
        Self::Reload,
        Self::Withdraw,
        Self::Advance,
        Self::Complete,
        Self::Caution,
        Self::Suspect,
        Self::Trip,
        Self::Guard,
        Self::Recover,
        Self::Return,
        Self::WarmUp,
        Self::Rollback,
        Self::RollbackCohort,
        Self::Drill,
        Self::EndDrill,
    ];

    /// Whether a rollout begins with it, or begins again.
    #[must_use]
    pub const fn begins(self) -> bool {
        matches!(self, Self::Start | Self::Retry | Self::Release)
    }

    /// Whether it comes of what was seen, and so comes again when the same is seen again.
    #[must_use]
    pub const fn is_judged(self) -> bool {
        matches!(
            self,
            Self::Advance
                | Self::Complete
                | Self::Caution
                | Self::Suspect
                | Self::Trip
                | Self::Guard
                | Self::Recover
                | Self::Return
                | Self::WarmUp
                | Self::Rollback
                | Self::RollbackCohort
        )
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
            Self::Approve => "approve",
            Self::Abort => "abort",
            Self::Retry => "retry",
            Self::Release => "release",
            Self::Reload => "reload",
            Self::Withdraw => "withdraw",
            Self::Advance => "advance",
            Self::Complete => "complete",
            Self::Caution => "caution",
            Self::Suspect => "suspect",
            Self::Trip => "trip",
            Self::Guard => "guard",
            Self::Recover => "recover",
            Self::Return => "return",
            Self::WarmUp => "warm_up",
            Self::Rollback => "rollback",
            Self::RollbackCohort => "rollback_cohort",
            Self::Drill => "drill",
            Self::EndDrill => "end_drill",
        }
    }
}

impl From<Change> for DecisionKind {
    fn from(change: Change) -> Self {
        match change {
            Change::RolledBack(_) => Self::Rollback,
            Change::CohortOut => Self::RollbackCohort,
            Change::Tripped => Self::Trip,
            Change::Guarded => Self::Guard,
            Change::Recovered => Self::Recover,
            Change::Cautioned => Self::Caution,
            Change::Suspected => Self::Suspect,
            Change::Returned => Self::Return,
            Change::WarmedUp => Self::WarmUp,
            Change::Entered => Self::Advance,
            Change::Promoted => Self::Complete,
        }
    }
}

impl From<&Action> for DecisionKind {
    fn from(action: &Action) -> Self {
        match action {
            Action::SetWeight(_) => Self::SetWeight,
            Action::Pause => Self::Pause,
            Action::Resume => Self::Resume,
            Action::Promote { .. } => Self::Promote,
            Action::Approve => Self::Approve,
            Action::Abort => Self::Abort,
            Action::Retry => Self::Retry,
            Action::Release { .. } => Self::Release,
            Action::Drill(_) => Self::Drill,
            Action::EndDrill => Self::EndDrill,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_stands_at_its_counter() {
        for (place, kind) in DecisionKind::ALL.into_iter().enumerate() {
            assert_eq!(kind as usize, place);
        }
    }
}
