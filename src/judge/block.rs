//! What the judge is fed: closed blocks as plain numbers, already split by arm and by stratum.
//!
//! Nothing here knows how requests are counted; the counting code decides which requests belong
//! to a block and when its counts are final.

use serde::{Deserialize, Serialize};

/// Quantiles of the baseline whose bucket edges are deadlines for "slow", fastest first.
pub const QUANTILES: [f64; EDGES] = [0.75, 0.9, 0.95, 0.99, 0.999];

/// Number of deadlines.
pub const EDGES: usize = 5;

/// Length of a tick in seconds; block lengths are whole ticks.
pub const TICK_SECONDS: f64 = 0.1;

/// Which counts of a stretch of time are final. A stretch is handed over once per lag, each time
/// with the counts that are final by then; counts of other lags are ignored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Lag {
    /// At the early error age (p90): early errors and refusals.
    Early,
    /// At the p99 deadline: slow p75 to p99.
    Slow,
    /// At the p99.9 deadline: slow p99.9 and late errors.
    Tail,
}

impl Lag {
    /// All lags, shortest first.
    pub const ALL: [Self; 3] = [Self::Early, Self::Slow, Self::Tail];
}

/// Counts of one arm in one stratum of one block. Any numbers are legal.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ArmCounts {
    /// Requests assigned to the arm.
    pub started: u64,
    /// Failed by the early age (p90 deadline), and by the late age (p99.9 deadline).
    pub errors: [u64; 2],
    /// Refused (4xx that the route does not count as failures) by the early age.
    pub refused: u64,
    /// Not finished by the deadline of each of [`QUANTILES`]; zeros in both arms where a deadline
    /// is not armed.
    pub slow: [u64; EDGES],
    /// Of the requests counted as slow at the lowest edge: how many were slow at each edge. With
    /// a coin per request this is `slow`; for sticky users the first event counts for the
    /// lowest edge, and its depth is kept here.
    pub graded: [u64; EDGES],
}

impl ArmCounts {
    /// Counts of requests with a coin each: graded events are the slow ones.
    #[must_use]
    pub const fn of_requests(
        started: u64,
        errors: [u64; 2],
        refused: u64,
        slow: [u64; EDGES],
    ) -> Self {
        Self { started, errors, refused, slow, graded: slow }
    }

    /// Adds the counts of another part of the same block; stays at the largest number rather than
    /// wrap around.
    pub fn merge(&mut self, other: &Self) {
        self.started = self.started.saturating_add(other.started);
        self.refused = self.refused.saturating_add(other.refused);
        for (sum, more) in self.errors.iter_mut().zip(other.errors) {
            *sum = sum.saturating_add(more);
        }
        for (sum, more) in self.slow.iter_mut().zip(other.slow) {
            *sum = sum.saturating_add(more);
        }
        for (sum, more) in self.graded.iter_mut().zip(other.graded) {
            *sum = sum.saturating_add(more);
        }
    }
}

/// How the requests or units of a stratum came to their arm.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub enum Coin {
    /// A coin per request, of unknown share: the realised one of this stratum in this block is
    /// taken. Only for splits that are not ours; it costs power where pods are known.
    Request,
    /// A coin per request that falls on the canary with this probability, `w / (w + w_b)` of the
    /// epoch, whatever fell before.
    Drawn {
        /// That probability; strata with 0 or 1 are left out.
        share: f64,
    },
    /// A coin per unit (user, session): the probability, given the past, that a bad event of this
    /// stratum is the canary's. A unit's hash is uniform in the interval that its counted events
    /// have left of it, so that is the part of the interval below `w / (w + w_b)`, and an event
    /// whose side is known is not counted (Fisher randomisation, carried through changes of
    /// weights). One stratum with the share of the epoch carries `started` and the events of
    /// units never counted before; units known to lie in a narrower interval form strata of their
    /// own that carry bad counts only.
    Unit {
        /// That probability; strata with 0 or 1 are left out.
        share: f64,
    },
}

/// Requests that were assigned under the same weights.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Stratum {
    /// Names the vector of weights (a cohort's cap makes one of its own) within the epoch.
    pub weights: u32,
    /// How its requests came to their arm.
    pub coin: Coin,
    /// The canary's counts.
    pub canary: ArmCounts,
    /// The baseline's counts.
    pub baseline: ArmCounts,
}

/// Endpoints that take traffic, per arm.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pods {
    /// Of the canary.
    pub canary: u32,
    /// Of the baseline.
    pub baseline: u32,
}

/// What happened at the end of a stretch of time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Ending {
    /// Nothing: the next stretch has the same weights and thresholds, and may join this one.
    #[default]
    Open,
    /// A scheduled change of weights or thresholds: the block ends here and counts.
    Scheduled,
    /// Weights were changed because of what was seen (caution, breaker, cap, guard): the block
    /// that this stretch belongs to is dropped. Judging a cut that its content chose is biased.
    Reacted,
}

/// A stretch of time of one component (the service, a route, a cohort) at one lag. The live
/// system hands over stretches of one second, shorter where weights changed; the judge joins
/// them to blocks of the certified length.
#[derive(Clone, Copy, Debug)]
pub struct Block<'a> {
    /// Index of the component, in the order of the configuration.
    pub component: usize,
    /// Which counts are final.
    pub lag: Lag,
    /// Length in ticks of 100 ms.
    pub ticks: u32,
    /// At most [`MAX_STRATA`](super::MAX_STRATA) are used; what exceeds is left out and counted.
    pub strata: &'a [Stratum],
    /// Pods taking traffic; `None` where they are unknown.
    pub pods: Option<Pods>,
    /// Whether the canary is warming up: five times the slow requests are then tolerated.
    pub warming: bool,
    /// What happened at its end.
    pub ending: Ending,
}

/// Shifts of the ladder of effect sizes: the canary's deadline over the baseline's.
pub const SHIFTS: [f64; SHIFT_COUNT] = [0.5, 0.67, 0.8, 0.9, 1.0, 1.1, 1.25, 1.5, 2.0, 3.0, 5.0];

/// Number of shifts.
pub const SHIFT_COUNT: usize = 11;

/// Which of [`SHIFTS`] were counted, a bit each, for p90 and p99. Where any is, 1.0 is.
pub type Rungs = [u16; 2];

/// All of them.
pub const ALL_RUNGS: Rungs = [(1 << SHIFT_COUNT) - 1; 2];

/// Quantiles of the baseline at which a promotion is proved (the third is that of the objective,
/// where one is set).
pub const PROOF_QUANTILES: [f64; 2] = [0.9, 0.99];

/// Trials of one arm in one stratum of one block: every request of a coin stratum; in sticky
/// strata the first request of each unit in this stage, good or bad, and nothing else of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TrialCounts {
    /// Trials.
    pub started: u64,
    /// Failed by the late age.
    pub failed: u64,
    /// Slower than p90, p99 and the quantile of the objective; the canary's deadlines are those
    /// of the baseline times one plus the margin of promotion.
    pub beyond_margin: [u64; 3],
    /// For p90 and p99: slower than the baseline's deadline times each of [`SHIFTS`]. Only the
    /// shift 1.0 is read of the baseline.
    pub shifted: [[u64; SHIFT_COUNT]; 2],
}

/// Trials of one stratum: those made under the same weights. Each has a coin of its own, that of
/// its request or of its unit.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct TrialStratum {
    /// [`Coin::Drawn`] wherever the split is ours, for units too.
    pub coin: Coin,
    /// The canary's trials.
    pub canary: TrialCounts,
    /// The baseline's trials.
    pub baseline: TrialCounts,
}

/// A second (or less, where weights changed) of trials of the whole service, final at
/// [`Lag::Tail`].
#[derive(Clone, Copy, Debug)]
pub struct Trials<'a> {
    /// Length in ticks of 100 ms.
    pub ticks: u32,
    /// At most [`MAX_STRATA`](super::MAX_STRATA) are used.
    pub strata: &'a [TrialStratum],
    /// Pods taking traffic; `None` where they are unknown.
    pub pods: Option<Pods>,
    /// The shifts that `shifted` holds counts of; the others are not looked at.
    pub rungs: Rungs,
    /// What happened at its end: [`Ending::Reacted`] drops it.
    pub ending: Ending,
}
