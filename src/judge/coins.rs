//! Interval coins: what a sticky unit's hash can still tell. A pure function; the table of units
//! lives with the counting code.

use serde::{Deserialize, Serialize};

/// The interval `[low, high)` in which the hash of a unit is known to lie for one definition,
/// because of the bad events of it that were counted before. A hash below the share of the epoch
/// assigns the unit to the canary.
///
/// Under the null, the hash of a unit is uniform until it is first counted, and after a count
/// uniform in what the count left (Fisher randomisation inference, carried through a change of
/// weights). So an event that cannot change what is known carries no coin and does not count, and
/// a weight change gives back a coin to the units whose interval it cuts.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Interval {
    low: f64,
    high: f64,
}

impl Default for Interval {
    fn default() -> Self {
        Self { low: 0.0, high: 1.0 }
    }
}

impl Interval {
    /// An interval with these ends, as they were stored.
    #[must_use]
    pub const fn new(low: f64, high: f64) -> Self {
        Self { low, high }
    }

    /// The lower end.
    #[must_use]
    pub const fn low(&self) -> f64 {
        self.low
    }

    /// The upper end.
    #[must_use]
    pub const fn high(&self) -> f64 {
        self.high
    }

    /// The probability, given the past, that a bad event of this unit is the canary's when the
    /// canary's share `omega = w / (w + w_b)`; `None` if the event does not count.
    #[must_use]
    pub fn share(&self, omega: f64) -> Option<f64> {
        (self.low < omega && omega < self.high)
            .then(|| (omega - self.low) / (self.high - self.low))
            .filter(|share| *share > 0.0 && *share < 1.0)
    }

    /// What is known after a counted event; unchanged by an event that does not count.
    #[must_use]
    pub fn after(self, omega: f64, was_canary: bool) -> Self {
        if self.share(omega).is_none() {
            return self;
        }
        if was_canary { Self { high: omega, ..self } } else { Self { low: omega, ..self } }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_coin_is_spent_once_per_weight() {
        let fresh = Interval::default();
        assert_eq!(fresh.share(0.05), Some(0.05));
        let spent = fresh.after(0.05, false);
        assert_eq!(spent.share(0.05), None);
        assert_eq!(spent.share(0.01), None);
    }

    #[test]
    fn a_weight_change_gives_a_coin_back_to_those_it_may_move() {
        let known_canary = Interval::default().after(0.05, true);
        assert!((known_canary.share(0.01).unwrap() - 0.2).abs() < 1e-12);
        let known_baseline = Interval::default().after(0.05, false);
        assert!((known_baseline.share(0.25).unwrap() - 0.2 / 0.95).abs() < 1e-12);
    }

    #[test]
    fn shares_are_the_conditional_probabilities_of_a_uniform_hash() {
        // Over all hashes and any path of weights, the sum of (was canary - share) is zero.
        let path = [0.05, 0.25, 0.1, 0.15, 0.01, 0.5, 0.02];
        let steps = 10_000;
        let mut surplus = [0.0; 7];
        for i in 0..steps {
            let hash = (f64::from(i) + 0.5) / f64::from(steps);
            let mut interval = Interval::default();
            for (slot, omega) in surplus.iter_mut().zip(path) {
                let canary = hash < omega;
                if let Some(share) = interval.share(omega) {
                    *slot += f64::from(u8::from(canary)) - share;
                }
                interval = interval.after(omega, canary);
            }
        }
        for sum in surplus {
            assert!(sum.abs() < 1e-6, "{sum}");
        }
    }

    #[test]
    fn degenerate_weights_never_count() {
        for omega in [0.0, 1.0, -1.0, 2.0, f64::NAN] {
            assert_eq!(Interval::default().share(omega), None);
            assert_eq!(Interval::default().after(omega, true), Interval::default());
        }
    }
}
