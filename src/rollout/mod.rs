//! The control plane: the thread that counts events, asks the judge, moves the weights and keeps
//! the journal. The only writer of the live table.

mod asking;
mod control;
mod decision;
mod evidence;
mod groups;
mod handle;
mod headcount;
mod headroom;
mod hearing;
mod history;
mod journal;
mod layout;
mod objectives;
mod placebo;
mod plan;
mod recall;
mod record;
mod replay;
mod report;
mod running;
mod sessions;
mod shares;
mod snapshot;
mod state;
mod status;
mod steering;
mod step;
mod view;
mod workers;

#[cfg(test)]
mod recording;
#[cfg(test)]
mod testing;

pub use asking::Drill;
pub use decision::{Decision, DecisionKind, Told};
pub use evidence::{
    Arm as EvidenceArm, Armed, EndedTicks, Evidence, EvidenceSnapshot, FedBlock,
    Input as EvidenceInput, JudgedRoute, Newcomers, Part, Source, Split, Subject, Tellers,
    Yardstick,
};
pub use handle::{Action, Command, Handle, NewConfig, Refused};
pub use history::{Wanted, history};
pub use journal::{Chain, JournalCounts, Line, Place, ReadError, read_journal};
pub use objectives::ObjectiveView;
pub use placebo::PlaceboMemory;
pub use plan::{
    CanaryPlan, Fallback, Inconclusive, JournalSettings, JudgeSettings, Margin, Plan, Risk,
    ServicePlan, SessionPolicy, Settings, Slo, Stage, Tolerance,
};
pub use recall::{Recall, Replayed};
pub use record::{Beginning, LiveRollout, Memory, Record, Recorded, RouteCounts, StepInput};
pub use replay::{Outcome, Replay};
pub use report::{NoReport, Report, ReportForm};
pub use running::{Running, Start, StartError, WorkerLink, start};
pub use snapshot::{
    CanaryView, ConfigView, DurationView, PlaceboView, RecorderLabels, RecorderView, Snapshot,
    WeightView,
};
pub use status::{ArmStatus, Phase, RolloutStatus, RouteStatus, Status, Verdict};
pub use step::{Change, Forbidden, Obstacle, Rollout, Seen, Standing, Step, Wait, Why};
pub use workers::EndpointsView;
