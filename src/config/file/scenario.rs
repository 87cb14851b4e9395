//! Scenarios of the simulator as written: a file of their own kind.

use schemars::JsonSchema;
use serde::Deserialize;

use super::{Judge, RolloutOrName};
use crate::config::{
    given::{Given, Many},
    values::{Count, Flag, Number, Percent, Text, Time},
};

/// A scenario: made-up traffic, what is wrong with the canary, and how its weight moves.
#[derive(Default, Deserialize, JsonSchema)]
#[serde(default)]
#[schemars(deny_unknown_fields, title = "Haldane scenario")]
pub(in crate::config) struct Scenario {
    /// What all randomness is made of. Default: 1.
    pub(in crate::config) seed: Given<Count>,
    /// Number of independent rollouts. Default: 200.
    pub(in crate::config) runs: Given<Count>,
    /// Simulated time per run; it ends early at rollback or full promotion. Default: 30m.
    pub(in crate::config) duration: Given<Time>,
    /// Requests per second: a number, a schedule, or a wave. Default: 500.
    pub(in crate::config) rps: Given<Rps>,
    /// Repeated bursts of traffic.
    pub(in crate::config) burst: Given<Burst>,
    /// After it a request is hung. Default: 10s.
    pub(in crate::config) timeout: Given<Time>,
    /// How the baseline answers, and the canary too where it is not different.
    pub(in crate::config) baseline: Given<Behaviour>,
    /// Requests of both arms that stay in flight for long.
    pub(in crate::config) slow: Given<LongRequests>,
    /// What is different about the canary.
    pub(in crate::config) canary: Given<Change>,
    /// Standard deviation of a common log-load, both arms alike. Default: 0.
    pub(in crate::config) load_noise: Given<Number>,
    /// The pods behind the arms. Default: unknown.
    pub(in crate::config) pods: Given<Pods>,
    /// How often clients repeat what failed or hung at most. Default: 0.
    pub(in crate::config) retries: Given<Count>,
    /// Sticky users. Default: a coin per request.
    pub(in crate::config) users: Given<Users>,
    /// A fixed weight, or a schedule of weights; detection only. Default: 5%.
    pub(in crate::config) weight: Given<WeightOrSteps>,
    /// A whole plan in place, or the plan of a risk: low, medium, high.
    pub(in crate::config) rollout: Given<RolloutOrName>,
    /// Makes the weight jump to and fro, instead of a fixed one.
    pub(in crate::config) flap: Given<Flap>,
    /// Makes the weight follow the evidence, instead of a fixed one.
    pub(in crate::config) react: Given<React>,
    /// The judge's settings, as in a plan.
    pub(in crate::config) judge: Given<Judge>,
    /// The only kinds of badness that are counted as evidence: early_errors, late_errors, refused,
    /// slow_p75, slow_p90, slow_p95, slow_p99, slow_p999, graded, graded_tail. Default: all.
    pub(in crate::config) definitions: Given<Many<Text>>,
    /// A fault put into the accounting: a test of the test.
    pub(in crate::config) flaw: Given<Flaw>,
    /// What must come out.
    pub(in crate::config) expect: Given<Expect>,
}

/// Requests per second.
#[derive(Deserialize, JsonSchema)]
#[serde(rename = "\0shape")]
#[schemars(rename = "Rps", untagged)]
pub(in crate::config) enum Rps {
    /// `500`
    #[serde(rename = "scalar")]
    Constant(Number),
    /// `[{ at: 0s, rps: 200 }, { at: 5m, rps: 800 }]`
    #[serde(rename = "list")]
    Steps(Many<RateStep>),
    /// `{ mean: 500, swing: 90%, every: 10m }`
    #[serde(rename = "map")]
    Wave(Wave),
}

/// A rate from a moment on.
#[derive(Default, Deserialize, JsonSchema)]
#[serde(default)]
#[schemars(deny_unknown_fields)]
pub(in crate::config) struct RateStep {
    /// That moment.
    pub(in crate::config) at: Given<Time>,
    /// Requests per second.
    pub(in crate::config) rps: Given<Number>,
}

/// A sine wave of requests.
#[derive(Default, Deserialize, JsonSchema)]
#[serde(default)]
#[schemars(deny_unknown_fields)]
pub(in crate::config) struct Wave {
    /// Mean requests per second.
    pub(in crate::config) mean: Given<Number>,
    /// Amplitude, of the mean. Default: 90%.
    pub(in crate::config) swing: Given<Percent>,
    /// Period. Default: 10m.
    pub(in crate::config) every: Given<Time>,
}

/// Traffic times a factor, again and again.
#[derive(Default, Deserialize, JsonSchema)]
#[serde(default)]
#[schemars(deny_unknown_fields)]
pub(in crate::config) struct Burst {
    /// From one burst to the next.
    pub(in crate::config) every: Given<Time>,
    /// How long one lasts.
    #[serde(rename = "for")]
    pub(in crate::config) length: Given<Time>,
    /// By what the rate is multiplied.
    pub(in crate::config) factor: Given<Number>,
}

/// Log-normal latency and errors.
#[derive(Default, Deserialize, JsonSchema)]
#[serde(default)]
#[schemars(deny_unknown_fields)]
pub(in crate::config) struct Behaviour {
    /// Median latency. Default: 20ms.
    pub(in crate::config) median: Given<Time>,
    /// Standard deviation of the logarithm of the latency. Default: 0.6.
    pub(in crate::config) sigma: Given<Number>,
    /// Share of requests that fail. Default: 0.1%.
    pub(in crate::config) errors: Given<Percent>,
}

/// Requests that stay in flight for long.
#[derive(Default, Deserialize, JsonSchema)]
#[serde(default)]
#[schemars(deny_unknown_fields)]
pub(in crate::config) struct LongRequests {
    /// Their share.
    pub(in crate::config) share: Given<Percent>,
    /// Shortest and longest latency.
    pub(in crate::config) between: Given<Many<Time>>,
}

/// What is different about the canary.
#[derive(Default, Deserialize, JsonSchema)]
#[serde(default)]
#[schemars(deny_unknown_fields)]
pub(in crate::config) struct Change {
    /// Every request takes so many times as long. Default: 1.
    pub(in crate::config) latency_factor: Given<Number>,
    /// Only a share of requests is slower.
    pub(in crate::config) tail: Given<Tail>,
    /// Share of requests that fail. Default: the baseline's.
    pub(in crate::config) errors: Given<Percent>,
    /// Share of requests that are never answered. Default: 0%.
    pub(in crate::config) hang: Given<Percent>,
    /// The part of all this that the baseline suffers too. Default: 0%.
    pub(in crate::config) spill: Given<Percent>,
    /// When it begins. Default: 0s.
    pub(in crate::config) after: Given<Time>,
    /// It grows linearly over this long. Default: 0s, at once.
    pub(in crate::config) ramp: Given<Time>,
}

/// A slower share of the canary's requests.
#[derive(Default, Deserialize, JsonSchema)]
#[serde(default)]
#[schemars(deny_unknown_fields)]
pub(in crate::config) struct Tail {
    /// That share.
    pub(in crate::config) share: Given<Percent>,
    /// They take so many times as long.
    pub(in crate::config) factor: Given<Number>,
    /// Or they take exactly this long.
    pub(in crate::config) latency: Given<Time>,
}

/// The pods behind the arms.
#[derive(Default, Deserialize, JsonSchema)]
#[serde(default)]
#[schemars(deny_unknown_fields)]
pub(in crate::config) struct Pods {
    /// Of the baseline.
    pub(in crate::config) baseline: Given<Count>,
    /// Of the canary.
    pub(in crate::config) canary: Given<Count>,
    /// Stalls of single pods.
    pub(in crate::config) pause: Given<Pause>,
    /// Whether the judge knows the numbers. Default: true.
    pub(in crate::config) known: Given<Flag>,
}

/// Stalls of a pod: what arrives meanwhile waits for the end.
#[derive(Default, Deserialize, JsonSchema)]
#[serde(default)]
#[schemars(deny_unknown_fields)]
pub(in crate::config) struct Pause {
    /// Mean time between the stalls of one pod.
    pub(in crate::config) every: Given<Time>,
    /// How long one lasts.
    #[serde(rename = "for")]
    pub(in crate::config) length: Given<Time>,
}

/// Users who keep their arm.
#[derive(Default, Deserialize, JsonSchema)]
#[serde(default)]
#[schemars(deny_unknown_fields)]
pub(in crate::config) struct Users {
    /// How many.
    pub(in crate::config) count: Given<Count>,
    /// Exponent of the Zipf law of their activity. Default: 1.1.
    pub(in crate::config) zipf: Given<Number>,
}

/// A weight, or weights at given moments.
#[derive(Deserialize, JsonSchema)]
#[serde(rename = "\0shape")]
#[schemars(rename = "WeightOrSteps", untagged)]
pub(in crate::config) enum WeightOrSteps {
    /// `5%`
    #[serde(rename = "scalar")]
    Fixed(Percent),
    /// `[{ at: 0s, weight: 1% }, { at: 10m, weight: 5% }]`
    #[serde(rename = "list")]
    Steps(Many<WeightStep>),
}

/// A weight from a moment on.
#[derive(Default, Deserialize, JsonSchema)]
#[serde(default)]
#[schemars(deny_unknown_fields)]
pub(in crate::config) struct WeightStep {
    /// That moment.
    pub(in crate::config) at: Given<Time>,
    /// The weight.
    pub(in crate::config) weight: Given<Percent>,
}

/// A weight that jumps.
#[derive(Default, Deserialize, JsonSchema)]
#[serde(default)]
#[schemars(deny_unknown_fields)]
pub(in crate::config) struct Flap {
    /// The two weights.
    pub(in crate::config) between: Given<Many<Percent>>,
    /// Time at each.
    pub(in crate::config) every: Given<Time>,
}

/// A weight that follows the evidence: the second one from odds of 3 : 1 on.
#[derive(Default, Deserialize, JsonSchema)]
#[serde(default)]
#[schemars(deny_unknown_fields)]
pub(in crate::config) struct React {
    /// The two weights.
    pub(in crate::config) between: Given<Many<Percent>>,
}

/// A fault of the accounting.
#[derive(Clone, Copy, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(in crate::config) enum Flaw {
    /// Requests count under the weights in force when they end.
    NoEpochTag,
    /// The judge is not told about the pods.
    NoThinning,
    /// Blocks without a canary request are left out.
    SkipWithoutCanary,
    /// Every worker removes repeated users for itself.
    DedupePerWorker,
    /// Every request counts as a user of its own.
    NoDedupe,
}

/// What must come out; `--check` fails where it does not. What is left out is not checked.
#[derive(Default, Deserialize, JsonSchema)]
#[serde(default)]
#[schemars(deny_unknown_fields)]
pub(in crate::config) struct Expect {
    /// The exact 97.5 % lower bound of the share of rollbacks does not exceed this.
    pub(in crate::config) rollbacks_at_most: Given<Percent>,
    /// The same for caution.
    pub(in crate::config) cautions_at_most: Given<Percent>,
    /// The same for promotions.
    pub(in crate::config) promotions_at_most: Given<Percent>,
    /// At least this share of the runs is rolled back.
    pub(in crate::config) rollbacks_at_least: Given<Percent>,
    /// At least this share of the runs is promoted.
    pub(in crate::config) promotions_at_least: Given<Percent>,
    /// Mean time from the onset to the rollback.
    pub(in crate::config) rollback_within: Given<Time>,
    /// Mean time from the onset to caution.
    pub(in crate::config) caution_within: Given<Time>,
    /// Mean time from the onset until the breaker takes all weight.
    pub(in crate::config) opened_within: Given<Time>,
    /// Mean canary requests are at most 2.3 times the two-sample bound plus 1.15 times the block
    /// floor. Default: false.
    pub(in crate::config) bound: Given<Flag>,
    /// One of the `..._at_most` must be broken. Default: false.
    pub(in crate::config) must_fail: Given<Flag>,
}
