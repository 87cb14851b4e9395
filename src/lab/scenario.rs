//! A scenario: what traffic is made of, what is wrong with the canary, and how its weight moves.
//!
//! Plain data. Reading it from a file is the command line's business; playing it is the engines'.

use std::time::Duration;

use crate::{
    judge::{Definition, JudgeConfig},
    rollout::{JudgeSettings, Plan},
};

/// A scenario, complete: every key has its value or its default. Probabilities and shares are
/// shares of 1, weights are in buckets of 0.01 %.
#[derive(Clone, Debug, PartialEq)]
pub struct Scenario {
    /// What all randomness is made of.
    pub seed: u64,
    /// Number of independent rollouts.
    pub runs: u32,
    /// Simulated time per run.
    pub duration: Duration,
    /// Requests per second over time.
    pub rate: Rate,
    /// Repeated bursts of traffic.
    pub burst: Option<Burst>,
    /// After this long without an answer a request is hung.
    pub timeout: Duration,
    /// How the baseline answers.
    pub baseline: Behaviour,
    /// Requests of both arms that stay in flight for long.
    pub slow: Option<LongRequests>,
    /// What is different about the canary.
    pub canary: Change,
    /// Standard deviation of the common log-load, which makes all requests slower or faster
    /// alike: AR(1) with 0.98 per second.
    pub load_noise: f64,
    /// The pods behind both arms.
    pub pods: Option<Pods>,
    /// How often clients repeat what failed or hung at most, each time as a request of its own.
    pub retries: u32,
    /// Sticky users; none: a coin per request.
    pub users: Option<Users>,
    /// How the canary's weight moves.
    pub weighting: Weighting,
    /// The judge's settings.
    pub judge: JudgeSettings,
    /// Kinds of badness that are counted as evidence; empty: all.
    pub definitions: Vec<Definition>,
    /// A fault put into the accounting, to see the test of the test fail.
    pub flaw: Option<Flaw>,
    /// What must come out.
    pub expect: Expect,
}

/// Requests per second over time.
#[derive(Clone, Debug, PartialEq)]
pub enum Rate {
    /// Steps: each rate holds from its moment on. The first moment is 0.
    Steps(Vec<(Duration, f64)>),
    /// A sine wave around its mean.
    Wave {
        /// Mean requests per second.
        mean: f64,
        /// Amplitude as a share of the mean, 0 to 1.
        swing: f64,
        /// Period.
        every: Duration,
    },
}

/// Traffic times `factor` for `length`, every `every`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Burst {
    /// From one burst's beginning to the next one's; the first begins after this long.
    pub every: Duration,
    /// How long a burst lasts.
    pub length: Duration,
    /// By what the rate is multiplied.
    pub factor: f64,
}

/// Log-normal latency and an error rate.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Behaviour {
    /// Median latency.
    pub median: Duration,
    /// Standard deviation of the logarithm of the latency.
    pub sigma: f64,
    /// Share of requests that fail.
    pub errors: f64,
}

/// A share of requests whose latency is uniform between two bounds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LongRequests {
    /// That share.
    pub share: f64,
    /// The bounds.
    pub between: [Duration; 2],
}

/// What is different about the canary from `after` on.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Change {
    /// Every request takes this many times as long.
    pub latency_factor: f64,
    /// Only a share of requests is slower.
    pub tail: Option<Tail>,
    /// Share of requests that fail; as the baseline's where left out.
    pub errors: Option<f64>,
    /// Share of requests that are never answered.
    pub hang: f64,
    /// The part of all this that the baseline suffers too, as through a database that both use.
    pub spill: f64,
    /// When it begins.
    pub after: Duration,
    /// How long it takes to grow from nothing to its full size, linearly.
    pub ramp: Duration,
}

impl Default for Change {
    fn default() -> Self {
        Self {
            latency_factor: 1.0,
            tail: None,
            errors: None,
            hang: 0.0,
            spill: 0.0,
            after: Duration::ZERO,
            ramp: Duration::ZERO,
        }
    }
}

/// A share of the canary's requests that is slower.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Tail {
    /// That share.
    pub share: f64,
    /// How much slower.
    pub slower: Slower,
}

/// How much slower a request of the tail is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Slower {
    /// This many times as long.
    Factor(f64),
    /// Exactly this long, for shifting requests between two quantiles.
    Latency(Duration),
}

/// The pods behind the arms.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Pods {
    /// Of the baseline.
    pub baseline: u32,
    /// Of the canary.
    pub canary: u32,
    /// Stalls of single pods.
    pub pause: Option<Pause>,
    /// Whether the judge knows the numbers.
    pub known: bool,
}

/// Stalls of a pod, on average one every `every`: what arrives during a stall waits for its end.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Pause {
    /// Mean time between the stalls of one pod.
    pub every: Duration,
    /// How long one lasts.
    pub length: Duration,
}

/// Users who keep their arm.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Users {
    /// How many.
    pub count: u32,
    /// Exponent of the Zipf law of their activity; 0: all alike.
    pub zipf: f64,
}

/// How the canary's weight moves.
#[derive(Clone, Debug, PartialEq)]
pub enum Weighting {
    /// Never: detection only.
    Fixed(u16),
    /// At given moments, whatever is seen. The first moment is 0.
    Steps(Vec<(Duration, u16)>),
    /// To and fro between two weights.
    Flap {
        /// The weights.
        between: [u16; 2],
        /// Time at each.
        every: Duration,
    },
    /// With the evidence: the second weight while the odds against the canary are at least 3 : 1.
    React {
        /// The weights.
        between: [u16; 2],
    },
    /// By the rollout's own step.
    Plan(Plan),
}

/// Faults of an accounting that must make the judge fail. They change what the laboratory hands
/// over to the counting code; the counting code itself has no such switch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flaw {
    /// Requests are counted when they end, under the weights in force then.
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

/// What must come out of a scenario; what is left out is not checked.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Expect {
    /// The probability of a rollback is at most this: the exact lower bound (97.5 %) of the
    /// observed share does not exceed it.
    pub rollbacks_at_most: Option<f64>,
    /// The same for the evidence ever reaching the level of caution.
    pub cautions_at_most: Option<f64>,
    /// The same for promotions.
    pub promotions_at_most: Option<f64>,
    /// At least this share of the runs rolls back.
    pub rollbacks_at_least: Option<f64>,
    /// Mean time from the onset to the rollback is at most this.
    pub rollback_within: Option<Duration>,
    /// Mean time from the onset to caution is at most this.
    pub caution_within: Option<Duration>,
    /// At least this share of the runs is promoted.
    pub promotions_at_least: Option<f64>,
    /// Mean time from the onset until the breaker takes all weight is at most this.
    pub opened_within: Option<Duration>,
    /// Mean canary requests until the rollback are at most 2.3 times the two-sample bound plus
    /// 1.15 times the block floor. Only where one error rate is compared at a fixed weight.
    pub bound: bool,
    /// One of the `..._at_most` must be broken: a test of the test.
    pub must_fail: bool,
}

fn name_of(definition: Definition) -> String {
    serde_json::to_value(definition)
        .ok()
        .and_then(|name| name.as_str().map(str::to_owned))
        .unwrap_or_default()
}

impl Behaviour {
    /// The 99th percentile of the latency in seconds, without load.
    #[must_use]
    pub fn p99(&self) -> f64 {
        const NORMAL_P99: f64 = 2.326_347_874_040_841;
        self.median.as_secs_f64() * (self.sigma * NORMAL_P99).exp()
    }
}

impl Scenario {
    /// The kind of badness with this name.
    #[must_use]
    pub fn definition(name: &str) -> Option<Definition> {
        Definition::ALL.into_iter().find(|definition| name_of(*definition) == name)
    }

    /// The names of all kinds of badness.
    #[must_use]
    pub fn definition_names() -> Vec<String> {
        Definition::ALL.into_iter().map(name_of).collect()
    }

    /// The moment from which the canary is different, in seconds.
    #[must_use]
    pub fn onset(&self) -> f64 {
        self.canary.after.as_secs_f64()
    }

    /// The judge of a rollout in this scenario. `block: auto` begins with 5 s; where counts are
    /// drawn by block and pods are known, a placebo then finds the length.
    #[must_use]
    pub fn judge_config(&self) -> JudgeConfig {
        let config = self.judge.config(JudgeConfig::default().components);
        if self.definitions.is_empty() {
            return config;
        }
        JudgeConfig { definitions: self.definitions.clone(), ..config }
    }

    /// Whether the canary is ever different from the baseline.
    #[must_use]
    pub fn changes(&self) -> bool {
        let Change { latency_factor, tail, errors, hang, .. } = self.canary;
        let factor_matters = (latency_factor - 1.0).abs() > f64::EPSILON;
        factor_matters
            || tail.is_some()
            || errors.is_some_and(|errors| errors > self.baseline.errors)
            || hang > 0.0
    }
}

impl Default for Scenario {
    /// Identical versions: 30 minutes at 500 requests a second and 5 %, a coin per request.
    fn default() -> Self {
        Self {
            seed: 1,
            runs: 200,
            duration: Duration::from_secs(1800),
            rate: Rate::Steps(vec![(Duration::ZERO, 500.0)]),
            burst: None,
            timeout: Duration::from_secs(10),
            baseline: Behaviour { median: Duration::from_millis(20), sigma: 0.6, errors: 0.001 },
            slow: None,
            canary: Change::default(),
            load_noise: 0.0,
            pods: None,
            retries: 0,
            users: None,
            weighting: Weighting::Fixed(500),
            judge: JudgeSettings::default(),
            definitions: Vec::new(),
            flaw: None,
            expect: Expect::default(),
        }
    }
}
