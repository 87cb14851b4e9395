//! What counts as bad: the definitions on which the bets are placed.

use serde::{Deserialize, Serialize};

use super::{ArmCounts, Lag};

/// A kind of badness. Each turns the counts of an arm into one number of bad events, some of them
/// weighted by how bad they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Definition {
    /// Failed by the early age.
    EarlyErrors,
    /// Failed by the late age, hung requests included.
    LateErrors,
    /// Refused with a 4xx that is not a failure.
    Refused,
    /// Slower than the baseline's p75.
    SlowP75,
    /// Slower than the baseline's p90.
    SlowP90,
    /// Slower than the baseline's p95.
    SlowP95,
    /// Slower than the baseline's p99.
    SlowP99,
    /// Slower than the baseline's p99.9.
    SlowP999,
    /// Slower than p75, weighted by how far out: for shifts of the whole distribution.
    Graded,
    /// The same with more weight on the tail.
    GradedTail,
}

/// The groups of definitions that are final at the same time and share one wealth.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BankName {
    /// Early errors.
    Errors,
    /// Slow p75 to p99, and graded.
    Slow,
    /// Slow p99.9 and late errors.
    Tail,
    /// Refusals.
    Refused,
}

impl BankName {
    /// All banks.
    pub const ALL: [Self; 4] = [Self::Errors, Self::Slow, Self::Tail, Self::Refused];

    /// When its counts are final.
    #[must_use]
    pub const fn lag(self) -> Lag {
        match self {
            Self::Errors | Self::Refused => Lag::Early,
            Self::Slow => Lag::Slow,
            Self::Tail => Lag::Tail,
        }
    }
}

impl Definition {
    /// All definitions.
    pub const ALL: [Self; 10] = [
        Self::EarlyErrors,
        Self::LateErrors,
        Self::Refused,
        Self::SlowP75,
        Self::SlowP90,
        Self::SlowP95,
        Self::SlowP99,
        Self::SlowP999,
        Self::Graded,
        Self::GradedTail,
    ];

    /// The bank that it belongs to.
    #[must_use]
    pub const fn bank(self) -> BankName {
        match self {
            Self::EarlyErrors => BankName::Errors,
            Self::LateErrors | Self::SlowP999 => BankName::Tail,
            Self::Refused => BankName::Refused,
            Self::SlowP75
            | Self::SlowP90
            | Self::SlowP95
            | Self::SlowP99
            | Self::Graded
            | Self::GradedTail => BankName::Slow,
        }
    }

    /// How a person would say it of a canary: "the canary …".
    #[must_use]
    pub const fn phrase(self) -> &'static str {
        match self {
            Self::EarlyErrors => "fails more often",
            Self::LateErrors => "fails or hangs more often",
            Self::Refused => "refuses more requests (4xx)",
            Self::SlowP75 => "is slower than p75 more often",
            Self::SlowP90 => "is slower than p90 more often",
            Self::SlowP95 => "is slower than p95 more often",
            Self::SlowP99 => "is slower than p99 more often",
            Self::SlowP999 => "is slower than p99.9 more often",
            Self::Graded => "is slower overall",
            Self::GradedTail => "is slower in the tail",
        }
    }
}

/// The weights that graded definitions give to an event, by which [`PSI`] index.
pub(super) const PSI: [f64; 5] = [1.0, 2.0, 3.0, 4.0, 7.0];

/// Bad events of one arm under one definition: counts by weight.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Bins {
    /// How many of the entries are used.
    pub(super) len: usize,
    /// Index into [`PSI`] and count.
    pub(super) entries: [(usize, f64); 4],
}

impl Bins {
    pub(super) fn one(count: u64) -> Self {
        let mut bins = Self { len: 1, ..Self::default() };
        bins.entries[0] = (0, count as f64);
        bins
    }

    /// Events between the edges p75, p90, p95, p99 and beyond. What lies beyond p99.9 is not
    /// told apart: its deadline has not passed when this is counted.
    fn graded(counts: &ArmCounts, weights: [usize; 4]) -> Self {
        let slow = counts.graded;
        let between = |i: usize| slow[i].saturating_sub(slow[i + 1]) as f64;
        let counted = [between(0), between(1), between(2), slow[3] as f64];
        let mut bins = Self { len: 4, ..Self::default() };
        for (entry, (psi, count)) in bins.entries.iter_mut().zip(weights.into_iter().zip(counted)) {
            *entry = (psi, count);
        }
        bins
    }

    pub(super) fn used(&self) -> &[(usize, f64)] {
        &self.entries[..self.len]
    }
}

impl Definition {
    /// The bad events of an arm.
    pub(super) fn bins(self, counts: &ArmCounts) -> Bins {
        match self {
            Self::Graded => Bins::graded(counts, [0, 1, 1, 2]),
            Self::GradedTail => Bins::graded(counts, [0, 1, 2, 4]),
            Self::EarlyErrors
            | Self::LateErrors
            | Self::Refused
            | Self::SlowP75
            | Self::SlowP90
            | Self::SlowP95
            | Self::SlowP99
            | Self::SlowP999 => Bins::one(self.bad_events(counts)),
        }
    }

    /// How many events are bad, however bad.
    #[must_use]
    pub const fn bad_events(self, counts: &ArmCounts) -> u64 {
        match self {
            Self::EarlyErrors => counts.errors[0],
            Self::LateErrors => counts.errors[1],
            Self::Refused => counts.refused,
            Self::SlowP75 => counts.slow[0],
            Self::SlowP90 => counts.slow[1],
            Self::SlowP95 => counts.slow[2],
            Self::SlowP99 => counts.slow[3],
            Self::SlowP999 => counts.slow[4],
            Self::Graded | Self::GradedTail => counts.graded[0],
        }
    }

    /// Whether it is about latency: then the tolerance is in the deadlines and in warm-up.
    pub(super) const fn is_slowness(self) -> bool {
        !matches!(self, Self::EarlyErrors | Self::LateErrors | Self::Refused)
    }
}
