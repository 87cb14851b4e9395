//! The control plane: the thread that counts events, asks the judge, moves the weights and keeps
//! the journal. The only writer of the live table.

mod plan;

pub use plan::{
    CanaryPlan, Fallback, Inconclusive, JournalSettings, JudgeSettings, Margin, Plan, Risk,
    ServicePlan, SessionPolicy, Settings, Slo, Stage, Tolerance,
};
