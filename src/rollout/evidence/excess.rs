//! Excess: how many bad responses the canary gave beyond the baseline's share, as far as that is
//! beyond doubt.

use crate::measure::Block;

/// Standard deviations that are taken off: a cap on harm may not be reached by chance.
const SIGMAS: f64 = 3.0;

/// Counts since the rollout began.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Excess {
    slow: Pair,
    failed: Pair,
}

#[derive(Clone, Copy, Debug, Default)]
struct Pair {
    /// Bad requests of the canary, and those expected at the baseline's rate.
    bad: f64,
    expected: f64,
    /// Variance of their difference, if both are Poisson in every stretch.
    variance: f64,
}

impl Excess {
    /// Adds requests slower than p99.
    pub(super) fn add_slow(&mut self, block: &Block) {
        self.slow.add(block, |cell| cell.slow.get(3).map_or(0, |bad| bad.count));
    }

    /// Adds failures by the late age.
    pub(super) fn add_failed(&mut self, block: &Block) {
        self.failed.add(block, |cell| cell.failed.first().map_or(0, |bad| bad.count));
    }

    /// The least that the canary cost.
    pub(super) fn at_least(&self) -> f64 {
        self.slow.at_least() + self.failed.at_least()
    }
}

impl Pair {
    fn add(&mut self, block: &Block, bad: impl Fn(&crate::measure::Cell) -> u64) {
        let mut sums = [[0.0; 2]; 2];
        for cell in &block.cells {
            let [started, sum] = &mut sums[usize::from(cell.arm.min(1))];
            *started += cell.started as f64;
            *sum += bad(cell) as f64;
        }
        let [[baseline_started, baseline_bad], [canary_started, canary_bad]] = sums;
        if baseline_started > 0.0 {
            let ratio = canary_started / baseline_started;
            self.bad += canary_bad;
            self.expected += ratio * baseline_bad;
            self.variance += canary_bad + ratio * ratio * baseline_bad;
        }
    }

    fn at_least(&self) -> f64 {
        (self.bad - self.expected - SIGMAS * self.variance.sqrt()).max(0.0)
    }
}
