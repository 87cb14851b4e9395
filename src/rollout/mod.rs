//! The control plane: the thread that counts events, asks the judge, moves the weights and keeps
//! the journal. The only writer of the live table.

mod control;
mod decision;
mod evidence;
mod groups;
mod handle;
mod headroom;
mod hearing;
mod journal;
mod layout;
mod objectives;
mod plan;
mod recall;
mod record;
mod running;
mod shares;
mod snapshot;
mod state;
mod status;
mod steering;
mod step;
mod view;
mod workers;

#[cfg(test)]
mod testing;

pub use decision::{Decision, DecisionKind, Told};
pub use evidence::{
    Arm as EvidenceArm, Armed, EndedTicks, Evidence, EvidenceSnapshot, FedBlock,
    Input as EvidenceInput, JudgedRoute, Newcomers, Source, Split, Subject, Tellers, Yardstick,
};
pub use handle::{Action, Command, Handle, NewConfig, Refused};
pub use journal::{Chain, JournalCounts, Line, Place, ReadError, read_journal};
pub use objectives::ObjectiveView;
pub use plan::{
    CanaryPlan, Fallback, Inconclusive, JournalSettings, JudgeSettings, Margin, Plan, Risk,
    ServicePlan, SessionPolicy, Settings, Slo, Stage, Tolerance,
};
pub use recall::{Recall, Replayed};
pub use record::{Beginning, LiveRollout, Memory, Record, Recorded, StepInput};
pub use running::{Running, Start, StartError, WorkerLink, start};
pub use snapshot::{
    CanaryView, ConfigView, DurationView, RecorderLabels, RecorderView, Snapshot, WeightView,
};
pub use status::{ArmStatus, Phase, RolloutStatus, RouteStatus, Status, Verdict};
pub use step::{Change, Forbidden, Obstacle, Rollout, Seen, Standing, Step, Wait, Why};
