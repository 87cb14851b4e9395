//! The sample-ratio alarm: is the canary given the share of the requests that it should be given?

use serde::{Deserialize, Serialize};

use super::wealth::ln_mean;

/// Shifts of the canary's log odds that are bet on, both ways.
const SHIFTS: [f64; 5] = [0.02, 0.05, 0.15, 0.5, 1.5];

/// Odds at which it fires.
const ALARM: f64 = 1000.0;

/// Tests the assignment itself. It fires on a bug in routing or tagging, never on a bad canary.
///
/// A mixture of likelihood ratios of the binomial counts against the design share, over shifts of
/// the log odds so that it survives changes of weight: the construction of Lindon, Malek
/// (NeurIPS 2022, arXiv 2011.03567) with a grid in place of the Dirichlet.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ShareCheck {
    ln: [[f64; 2]; SHIFTS.len()],
    fired: bool,
}

impl ShareCheck {
    /// Counts assigned under the design share `omega = w / (w + w_b)`: requests of coin strata, or
    /// units of a fixed hash sample in sticky strata, each unit once.
    pub fn add(&mut self, omega: f64, canary: u64, baseline: u64) {
        if !(omega > 0.0 && omega < 1.0) {
            return;
        }
        let odds_ln = (omega / (1.0 - omega)).ln();
        for (pair, shift) in self.ln.iter_mut().zip(SHIFTS) {
            for (ln, shift) in pair.iter_mut().zip([shift, -shift]) {
                let other = odds_ln + shift;
                // ln of the shares under the shifted odds, over those of the design.
                let canary_ln = -(-other).exp().ln_1p() - omega.ln();
                let baseline_ln = -other.exp().ln_1p() - (1.0 - omega).ln();
                let gain = canary as f64 * canary_ln + baseline as f64 * baseline_ln;
                *ln = (*ln + gain).clamp(-1e15, 1e15);
            }
        }
        self.fired |= self.ln() >= ALARM.ln();
    }

    /// ln of the evidence that the assignment is wrong.
    #[must_use]
    pub fn ln(&self) -> f64 {
        let mut mixture = f64::MIN;
        for (i, ln) in self.ln.iter().flatten().enumerate() {
            mixture = ln_mean(1.0 / (i as f64 + 1.0), *ln, mixture);
        }
        mixture
    }

    /// Whether it has fired. It stays fired: nothing counted since can be trusted.
    #[must_use]
    pub const fn fired(&self) -> bool {
        self.fired
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_of_six_instead_of_five_percent_is_noticed() {
        let mut check = ShareCheck::default();
        for _ in 0..120 {
            check.add(0.05, 30, 470);
        }
        assert!(check.fired());
    }

    #[test]
    fn exact_shares_under_changing_weights_are_not() {
        let mut check = ShareCheck::default();
        for _ in 0..1000 {
            check.add(0.05, 25, 475);
            check.add(0.5, 250, 250);
        }
        assert!(!check.fired() && check.ln() < 0.0);
    }

    #[test]
    fn the_expected_factor_is_one() {
        // All outcomes of ten requests at a share of .3, one step.
        let mut sum = 0.0;
        for canary in 0..=10_u64 {
            let mut check = ShareCheck::default();
            check.add(0.3, canary, 10 - canary);
            let ways = (0..canary).fold(1.0, |w, i| w * (10 - i) as f64 / (i + 1) as f64);
            let chance = ways * 0.3_f64.powi(canary as i32) * 0.7_f64.powi(10 - canary as i32);
            sum += chance * check.ln().exp();
        }
        assert!((sum - 1.0).abs() < 1e-9, "{sum}");
    }

    #[test]
    fn any_counts_and_shares_are_survived() {
        let mut check = ShareCheck::default();
        for omega in [0.0, 1e-300, 1.0, f64::NAN, 0.5] {
            check.add(omega, u64::MAX, 0);
            check.add(omega, 0, u64::MAX);
            assert!(check.ln().is_finite());
        }
    }
}
