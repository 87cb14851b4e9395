//! Excess: how many bad responses the canary gave beyond the baseline's share, as far as that is
//! beyond doubt.

use serde::{Deserialize, Serialize};

use super::pairs;
use crate::measure::{Block, Cell};

/// Standard deviations that are taken off: a cap on harm may not be reached by chance.
const SIGMAS: f64 = 3.0;

/// Counts since the rollout began.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub(super) struct Excess {
    slow: Pair,
    failed: Pair,
}

#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
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
    fn add(&mut self, block: &Block, bad: impl Fn(&Cell) -> u64) {
        for pair in pairs(block) {
            let sum = |cells: &[&Cell], count: &dyn Fn(&Cell) -> u64| {
                cells.iter().map(|cell| count(cell)).sum::<u64>() as f64
            };
            let [baseline_started, canary_started] =
                pair.arms.each_ref().map(|cells| sum(cells, &|cell| cell.started));
            let [baseline_bad, canary_bad] = pair.arms.each_ref().map(|cells| sum(cells, &bad));
            if baseline_started == 0.0 {
                continue;
            }
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
