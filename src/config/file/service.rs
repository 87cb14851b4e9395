//! Services and canaries as written.

use schemars::JsonSchema;
use serde::Deserialize;

use super::{
    matching::KeySource,
    plan::Rollout,
    route::{HeaderOps, Slo},
    upstream::UpstreamOrName,
};
use crate::config::{
    given::{Given, Many, Named},
    values::{Flag, Percent, Text, Time},
};

/// One baseline and any number of canaries. All routes of a service share its weights.
#[derive(Default, Deserialize, JsonSchema)]
#[serde(default)]
#[schemars(deny_unknown_fields)]
pub(in crate::config) struct Service {
    /// Where requests go that no canary takes.
    pub(in crate::config) baseline: Given<UpstreamOrName>,
    /// The canaries, by name, in order.
    pub(in crate::config) canaries: Given<Named<Canary>>,
    /// Makes the assignment stick to a key: the first one present. Left out, or none present: a
    /// coin per request.
    pub(in crate::config) assign_by: Given<Many<KeySource>>,
    /// Keys the hash; the same on every replica. Default: the service's name.
    pub(in crate::config) salt: Given<Text>,
    /// What happens to sessions when weight is taken away: `move` at once, or `{ drain: 5m }`.
    /// Default: move.
    pub(in crate::config) sessions_on_rollback: Given<Sessions>,
    /// Lets trusted clients choose their arm.
    #[serde(rename = "override")]
    pub(in crate::config) override_by: Given<Override>,
    /// What holds for single cohorts, by their names; `default` is everyone else.
    pub(in crate::config) cohorts: Given<Named<ServiceCohort>>,
    /// The name of a plan, or a plan in place. Default: the plan that `risk` picks.
    pub(in crate::config) rollout: Given<RolloutOrName>,
    /// Picks a plan where none is named. low: 5/25/100 %; medium: 1/5/25/50/95/100 %; high:
    /// 0.1/1/5/10/25 (gate)/50/95/100 %, proving a margin of 10 %. Default: medium.
    pub(in crate::config) risk: Given<Risk>,
    /// Whether answers carry the arm's name as `x-haldane-arm`. Default: false.
    pub(in crate::config) arm_header: Given<Flag>,
}

/// A canary.
#[derive(Default, Deserialize, JsonSchema)]
#[serde(default)]
#[schemars(deny_unknown_fields)]
pub(in crate::config) struct Canary {
    /// Where its requests go.
    pub(in crate::config) upstream: Given<UpstreamOrName>,
    /// A new version starts a new rollout; a version that was rolled back is remembered. Default: a
    /// hash of the canary's definition.
    pub(in crate::config) version: Given<Text>,
    /// Changes to the header of its requests: a feature toggle without a deployment. What any arm
    /// sets is taken away from the client's request first.
    pub(in crate::config) request_headers: Given<HeaderOps>,
    /// A plan of its own: a name or in place. Default: the service's.
    pub(in crate::config) rollout: Given<RolloutOrName>,
}

/// The name of a plan, or a plan in place.
#[derive(Deserialize, JsonSchema)]
#[serde(rename = "\0shape")]
#[schemars(rename = "RolloutOrName", untagged)]
pub(in crate::config) enum RolloutOrName {
    /// A name out of `rollouts`.
    #[serde(rename = "scalar")]
    Name(Text),
    /// A plan in place.
    #[serde(rename = "map")]
    InPlace(Box<Rollout>),
}

/// How risky a change is.
#[derive(Clone, Copy, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(in crate::config) enum Risk {
    /// 5/25/100 %.
    Low,
    /// 1/5/25/50/95/100 %.
    Medium,
    /// 0.1/1/5/10/25 (gate)/50/95/100 %.
    High,
}

/// What happens to sessions when weight is taken away.
#[derive(Deserialize, JsonSchema)]
#[serde(rename = "\0shape")]
#[schemars(rename = "Sessions", untagged)]
pub(in crate::config) enum Sessions {
    /// `move`
    #[serde(rename = "scalar")]
    Word(SessionsWord),
    /// `{ drain: 5m }`
    #[serde(rename = "map")]
    Drain(Drain),
}

/// They move.
#[derive(Clone, Copy, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(in crate::config) enum SessionsWord {
    /// They move at once.
    Move,
}

/// They may end where they are.
#[derive(Default, Deserialize, JsonSchema)]
#[serde(default)]
#[schemars(deny_unknown_fields, rename = "DrainSessions")]
pub(in crate::config) struct Drain {
    /// For this long keyed requests stay where they were.
    pub(in crate::config) drain: Given<Time>,
}

/// A header by which trusted clients choose their arm.
#[derive(Default, Deserialize, JsonSchema)]
#[serde(default)]
#[schemars(deny_unknown_fields)]
pub(in crate::config) struct Override {
    /// The header field; its value is an arm's name or `never`.
    pub(in crate::config) header: Given<Text>,
    /// The client addresses or networks that are believed.
    pub(in crate::config) from: Given<Many<Text>>,
}

/// What holds for one cohort.
#[derive(Default, Deserialize, JsonSchema)]
#[serde(default)]
#[schemars(deny_unknown_fields)]
pub(in crate::config) struct ServiceCohort {
    /// All of it goes to this arm, outside the evidence.
    pub(in crate::config) pin: Given<Text>,
    /// A canary gets at most this much of it.
    pub(in crate::config) max_weight: Given<Percent>,
    /// Objectives of its own.
    pub(in crate::config) slo: Given<Slo>,
}
