//! How a judge is set up: which components it watches, its error probabilities and tolerances.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::Definition;

/// What a component is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Scope {
    /// Everything of the service together.
    Service,
    /// One route.
    Route,
    /// One cohort.
    Cohort,
}

/// A part of the traffic with evidence of its own.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Component {
    /// What it is.
    pub scope: Scope,
    /// Its name, for sentences.
    pub name: String,
    /// Its share of the baseline's traffic at the start of the rollout, 0 to 1. Only the ratio to
    /// the others of its scope matters.
    pub share: f64,
}

impl Component {
    /// The whole service.
    #[must_use]
    pub fn service(name: &str) -> Self {
        Self { scope: Scope::Service, name: name.to_owned(), share: 1.0 }
    }
}

/// The longest block: an hour.
pub(super) const MAX_BLOCK_TICKS: u32 = 36_000;

/// The settings of one rollout's judge. Probabilities are shares of 1.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct JudgeConfig {
    /// The parts of the traffic that are watched, the service first. With one route and one
    /// cohort give the service alone.
    pub components: Vec<Component>,
    /// Which kinds of badness are counted as evidence.
    pub definitions: Vec<Definition>,
    /// Probability of a false rollback over the whole rollout.
    pub false_rollback: f64,
    /// Probability of a false promotion, per stage.
    pub false_promotion: f64,
    /// Additional failures that do not count as drift, as a share of requests.
    pub tolerate_errors: f64,
    /// Additional refusals (4xx) that do not count as drift, as a share of requests.
    pub tolerate_refused: f64,
    /// Additional failures that a promotion must exclude, as a share of requests.
    pub margin_errors: f64,
    /// Relative slowdown that a promotion must exclude; used for planning only, since the margin
    /// is in the counts.
    pub margin_latency: f64,
    /// Whether an objective's quantile must be proved too (the third of `beyond_margin`).
    pub prove_objective: bool,
    /// Length in ticks of 100 ms of the first rollback block; later ones by
    /// [`Judge::set_block_ticks`](super::Judge::set_block_ticks).
    pub block_ticks: u32,
    /// Memory of the change detector in seconds: bets that lost are given new money at a rate of
    /// one over this and the time judged.
    pub memory_seconds: f64,
}

impl Default for JudgeConfig {
    fn default() -> Self {
        Self {
            components: vec![Component::service("service")],
            definitions: Definition::ALL.to_vec(),
            false_rollback: 0.001,
            false_promotion: 0.05,
            tolerate_errors: 0.001,
            tolerate_refused: 0.005,
            margin_errors: 0.005,
            margin_latency: 0.25,
            prove_objective: false,
            block_ticks: 50,
            memory_seconds: 1500.0,
        }
    }
}

impl JudgeConfig {
    /// The length of the first rollback block in seconds.
    #[must_use]
    pub fn block_seconds(&self) -> f64 {
        f64::from(self.block_ticks) * super::TICK_SECONDS
    }

    /// A block's length in whole ticks: rounded up, at least one.
    #[must_use]
    pub fn ticks_of(block: Duration) -> u32 {
        u32::try_from(block.as_millis().div_ceil(100)).unwrap_or(u32::MAX).clamp(1, MAX_BLOCK_TICKS)
    }

    /// The same with every number in its range.
    #[must_use]
    pub(super) fn within_ranges(mut self) -> Self {
        let into = |value: f64, low: f64, high: f64, other: f64| {
            if value.is_finite() { value.clamp(low, high) } else { other }
        };
        let default = Self::default();
        let alpha = |value: f64, other: f64| into(value, 1e-9, 0.5, other);
        self.false_rollback = alpha(self.false_rollback, default.false_rollback);
        self.false_promotion = alpha(self.false_promotion, default.false_promotion);
        self.tolerate_errors = into(self.tolerate_errors, 0.0, 0.5, default.tolerate_errors);
        self.tolerate_refused = into(self.tolerate_refused, 0.0, 0.5, default.tolerate_refused);
        self.margin_errors = into(self.margin_errors, 0.0, 0.5, default.margin_errors);
        self.margin_latency = into(self.margin_latency, 0.0, 10.0, default.margin_latency);
        self.memory_seconds = into(self.memory_seconds, 1.0, 1e9, default.memory_seconds);
        self.block_ticks = self.block_ticks.clamp(1, MAX_BLOCK_TICKS);
        if self.components.is_empty() {
            self.components = default.components;
        }
        self
    }
}
