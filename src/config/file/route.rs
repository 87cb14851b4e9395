//! Routes as written.

use schemars::JsonSchema;
use serde::Deserialize;

use super::matching::Match;
use crate::config::{
    given::{Given, Many, Named},
    values::{Count, Flag, Percent, Text, Time},
};

/// Whether and how often requests are repeated.
#[derive(Deserialize, JsonSchema)]
#[serde(rename = "\0shape")]
#[schemars(rename = "Retry", untagged)]
pub(in crate::config) enum Retry {
    /// Once, or never.
    #[serde(rename = "scalar")]
    Flag(Flag),
    /// So often.
    #[serde(rename = "map")]
    Attempts(Attempts),
}

/// How often requests are repeated.
#[derive(Default, Deserialize, JsonSchema)]
#[serde(default)]
#[schemars(deny_unknown_fields)]
pub(in crate::config) struct Attempts {
    /// At most so many times. Default: 1.
    pub(in crate::config) attempts: Given<Count>,
}

/// What leads a request to a service.
#[derive(Default, Deserialize, JsonSchema)]
#[serde(default)]
#[schemars(deny_unknown_fields)]
pub(in crate::config) struct Route {
    /// Its name in metrics and status. Default: its service's, numbered from the second on.
    pub(in crate::config) name: Given<Text>,
    /// Which requests take it. Default: all.
    #[serde(rename = "match")]
    pub(in crate::config) matching: Given<Match>,
    /// The service it leads to.
    pub(in crate::config) service: Given<Text>,
    /// After this long without an answer a request is hung. Default: 10s.
    pub(in crate::config) timeout: Given<Time>,
    /// What is judged; both are recorded. Default: first_byte.
    pub(in crate::config) latency: Given<Latency>,
    /// Which answers count as failures: `5xx`, `429`, `500-504`. gRPC's UNKNOWN, DEADLINE_EXCEEDED,
    /// INTERNAL, UNAVAILABLE and DATA_LOSS always do. Default: [5xx].
    pub(in crate::config) failed_when: Given<Many<Text>>,
    /// Whether an idempotent request that fails on a canary before the first byte of its answer is
    /// replayed on the baseline, within a budget. The canary is charged all the same. Default:
    /// false.
    pub(in crate::config) rescue: Given<Flag>,
    /// Whether an idempotent request without a body, whose endpoint broke off before its answer, is
    /// repeated on another endpoint of its arm, within a budget: `true`, or `{ attempts: 2 }`. The
    /// arm is charged with the failure all the same. Default: false.
    pub(in crate::config) retry: Given<Retry>,
    /// Other protocols that a request may switch to: `none`, or which. Default: WebSocket.
    pub(in crate::config) upgrades: Given<Upgrades>,
    /// Objectives.
    pub(in crate::config) slo: Given<Slo>,
    /// Changes of host and path before forwarding.
    pub(in crate::config) rewrite: Given<Rewrite>,
    /// Changes to the request's header.
    pub(in crate::config) request_headers: Given<HeaderOps>,
    /// Changes to the response's header.
    pub(in crate::config) response_headers: Given<HeaderOps>,
}

/// Which latency is judged.
#[derive(Clone, Copy, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(in crate::config) enum Latency {
    /// Until the first byte of the answer.
    FirstByte,
    /// Until the last byte; includes the client's download speed.
    Total,
}

/// Other protocols that a request may switch to, by HTTP/1.1's `Upgrade`.
#[derive(Deserialize, JsonSchema)]
#[serde(rename = "\0shape")]
#[schemars(rename = "Upgrades", untagged)]
pub(in crate::config) enum Upgrades {
    /// `none`
    #[serde(rename = "scalar")]
    Word(UpgradesWord),
    /// `{ protocols: [websocket] }`
    #[serde(rename = "map")]
    These(TheseUpgrades),
}

/// No other protocol.
#[derive(Clone, Copy, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(in crate::config) enum UpgradesWord {
    /// What asks for another protocol is answered without it.
    None,
}

/// These protocols.
#[derive(Default, Deserialize, JsonSchema)]
#[serde(default)]
#[schemars(deny_unknown_fields)]
pub(in crate::config) struct TheseUpgrades {
    /// Their names. Default: [websocket].
    pub(in crate::config) protocols: Given<Many<Text>>,
    /// Without a byte in either direction for this long, it is over. Default: 1h.
    pub(in crate::config) idle_timeout: Given<Time>,
}

/// Absolute objectives.
#[derive(Default, Deserialize, JsonSchema)]
#[serde(default)]
#[schemars(deny_unknown_fields)]
pub(in crate::config) struct Slo {
    /// Limits by quantile: `{ p99: 250ms }`.
    pub(in crate::config) latency: Given<Named<Time>>,
    /// The most failures.
    pub(in crate::config) errors: Given<Percent>,
    /// Over which time. Default: 1h.
    pub(in crate::config) window: Given<Time>,
}

/// Changes of the request's target before forwarding.
#[derive(Default, Deserialize, JsonSchema)]
#[serde(default)]
#[schemars(deny_unknown_fields)]
pub(in crate::config) struct Rewrite {
    /// The host that the upstream sees. Default: the client's.
    pub(in crate::config) host: Given<Text>,
    /// What replaces the matched `path_prefix`, or `{ from, to }`.
    pub(in crate::config) path_prefix: Given<PrefixRewrite>,
}

/// What replaces a prefix of the path.
#[derive(Deserialize, JsonSchema)]
#[serde(rename = "\0shape")]
#[schemars(rename = "PrefixRewrite", untagged)]
pub(in crate::config) enum PrefixRewrite {
    /// Replaces the matched `path_prefix`.
    #[serde(rename = "scalar")]
    To(Text),
    /// Replaces this one.
    #[serde(rename = "map")]
    FromTo(FromTo),
}

/// One prefix in place of another.
#[derive(Default, Deserialize, JsonSchema)]
#[serde(default)]
#[schemars(deny_unknown_fields)]
pub(in crate::config) struct FromTo {
    /// What is replaced, on a segment border.
    pub(in crate::config) from: Given<Text>,
    /// By what.
    pub(in crate::config) to: Given<Text>,
}

/// Changes to a header: `remove` first, then `set`, then `add`.
#[derive(Default, Deserialize, JsonSchema)]
#[serde(default)]
#[schemars(deny_unknown_fields)]
pub(in crate::config) struct HeaderOps {
    /// Replaces all fields of these names.
    pub(in crate::config) set: Given<Named<Text>>,
    /// Adds fields to those of these names.
    pub(in crate::config) add: Given<Named<Text>>,
    /// Takes fields of these names away.
    pub(in crate::config) remove: Given<Many<Text>>,
}
