//! Plans as written.

use schemars::JsonSchema;
use serde::Deserialize;

use crate::config::{
    given::{Given, Many},
    values::{Block, Count, Flag, Percent, Time},
};

/// A plan: its stages and how they are judged.
#[derive(Default, Deserialize, JsonSchema)]
#[serde(default)]
#[schemars(deny_unknown_fields)]
pub(in crate::config) struct Rollout {
    /// The stages, each heavier than the one before.
    pub(in crate::config) stages: Given<Many<StageOrWeight>>,
    /// The judge's settings.
    pub(in crate::config) judge: Given<Judge>,
    /// What happens when a stage neither proves nor fails.
    pub(in crate::config) inconclusive_after: Given<Inconclusive>,
    /// Measure and judge, never move the weight. Default: false.
    pub(in crate::config) manual: Given<Flag>,
}

/// A stage, or its weight alone.
#[derive(Deserialize, JsonSchema)]
#[serde(rename = "\0shape")]
#[schemars(rename = "StageOrWeight", untagged)]
pub(in crate::config) enum StageOrWeight {
    /// `5%`
    #[serde(rename = "scalar")]
    Weight(Percent),
    /// `{ weight: 5%, at_least: 5m }`
    #[serde(rename = "map")]
    Stage(Stage),
}

/// A step of the plan.
#[derive(Default, Deserialize, JsonSchema)]
#[serde(default)]
#[schemars(deny_unknown_fields)]
pub(in crate::config) struct Stage {
    /// The canary's share of the traffic.
    pub(in crate::config) weight: Given<Percent>,
    /// The least time at this stage. Default: 2m below 5 %, 5m from there on, 10m from 95 % on.
    pub(in crate::config) at_least: Given<Time>,
    /// `approval`: a person is asked before this stage is entered.
    pub(in crate::config) gate: Given<Gate>,
    /// Whether the stage needs a proof before the next. Default: from 5 % on.
    pub(in crate::config) prove: Given<Flag>,
}

/// What stands before a stage.
#[derive(Clone, Copy, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(in crate::config) enum Gate {
    /// A person is asked.
    Approval,
}

/// The judge's settings.
#[derive(Default, Deserialize, JsonSchema)]
#[serde(default)]
#[schemars(deny_unknown_fields)]
pub(in crate::config) struct Judge {
    /// The chance that a canary like its baseline is ever rolled back. Default: 0.1%.
    pub(in crate::config) false_rollback: Given<Percent>,
    /// The chance, at each stage, that a canary beyond the margin passes. Default: 5%.
    pub(in crate::config) false_promotion: Given<Percent>,
    /// What does not count as drift.
    pub(in crate::config) tolerate: Given<Tolerance>,
    /// The margin that a promotion must prove.
    pub(in crate::config) promote_within: Given<Margin>,
    /// The length of a block: `auto` starts at 5s and is calibrated, a duration is kept.
    /// Default: auto.
    pub(in crate::config) block: Given<Block>,
    /// Hard cap on excess bad answers of the canary per rollout. Default: 1000.
    pub(in crate::config) max_bad_responses: Given<Count>,
}

/// What does not count as drift.
#[derive(Default, Deserialize, JsonSchema)]
#[serde(default)]
#[schemars(deny_unknown_fields)]
pub(in crate::config) struct Tolerance {
    /// Relative slowdown. Default: 5%.
    pub(in crate::config) latency: Given<Percent>,
    /// Least absolute slowdown. Default: 0.1ms.
    pub(in crate::config) latency_floor: Given<Time>,
    /// Additional failures, of all requests. Default: 0.1%.
    pub(in crate::config) errors: Given<Percent>,
}

/// The margin that a promotion must prove.
#[derive(Default, Deserialize, JsonSchema)]
#[serde(default)]
#[schemars(deny_unknown_fields)]
pub(in crate::config) struct Margin {
    /// Relative slowdown. Default: 25%, 10% where `risk` is high.
    pub(in crate::config) latency: Given<Percent>,
    /// Additional failures, of all requests. Default: 0.5%.
    pub(in crate::config) errors: Given<Percent>,
}

/// What happens when a stage stays undecided.
#[derive(Default, Deserialize, JsonSchema)]
#[serde(default)]
#[schemars(deny_unknown_fields)]
pub(in crate::config) struct Inconclusive {
    /// After this long. Default: 4h.
    pub(in crate::config) period: Given<Time>,
    /// What then. Default: hold.
    pub(in crate::config) then: Given<Fallback>,
}

/// The outcome of an undecided stage.
#[derive(Clone, Copy, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(in crate::config) enum Fallback {
    /// Stay and say so.
    Hold,
    /// Go on to the next stage.
    Advance,
    /// Roll back.
    Rollback,
}
