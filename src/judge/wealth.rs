//! The wealth of a gambler who spreads it over bets and cash.

use serde::{Deserialize, Serialize};

/// Wealth spread over a list of bets. The first place is cash.
///
/// Each block multiplies the wealth by the mean of the factors of the bets, weighted by what lies
/// on them: a non-negative supermartingale while every bet's factor has conditional mean at most
/// one, so that it ever exceeds 1/alpha with probability at most alpha (Ville 1939). Handing a
/// share of all wealth back to the prior before each block keeps that property and follows a
/// change (fixed share: Herbster, Warmuth, Machine Learning 1998).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Wealth {
    /// What lies on each bet, as a share of the wealth; sums to one.
    places: Vec<f64>,
    /// ln of the wealth.
    ln: f64,
}

impl Wealth {
    pub(super) fn new(prior: &[f64]) -> Self {
        Self { places: prior.to_vec(), ln: 0.0 }
    }

    /// Whether another gambler on the same bets has the same on each of them.
    pub(super) fn is_at(&self, other: &Self) -> bool {
        // Without a way out in the middle, so that many are compared at once.
        let differ = |(a, b): (&f64, &f64)| u64::from(a.to_bits() != b.to_bits());
        self.ln == other.ln && self.places.iter().zip(&other.places).map(differ).sum::<u64>() == 0
    }

    /// A block on which every bet's factor is one.
    pub(super) fn share(&mut self, prior: &[f64], shared: f64) {
        for (place, prior) in self.places.iter_mut().zip(prior) {
            *place = (1.0 - shared) * *place + shared * prior;
        }
    }

    /// Takes over the wealth of another gambler on the same bets.
    pub(super) fn copy_from(&mut self, other: &Self) {
        self.places.copy_from_slice(&other.places);
        self.ln = other.ln;
    }

    /// Starts anew.
    pub(super) fn reset(&mut self, prior: &[f64]) {
        self.places.copy_from_slice(prior);
        self.ln = 0.0;
    }

    pub(super) const fn ln(&self) -> f64 {
        self.ln
    }

    pub(super) fn places(&self) -> &[f64] {
        &self.places
    }

    /// One block. `factors` are those of the bets, each at least 0 and finite, cash's being one;
    /// `shared` is the share handed back to `prior` first.
    pub(super) fn update(&mut self, prior: &[f64], factors: &[f64], shared: f64) {
        for ((place, prior), factor) in self.places.iter_mut().zip(prior).zip(factors) {
            *place = ((1.0 - shared) * *place + shared * prior) * factor;
        }
        let sum = sum(&self.places);
        if !(sum > 0.0 && sum < f64::INFINITY) {
            // Everything lost: unreachable while bets stake less than all, but a wealth that is
            // not a number would never recover.
            self.reset(prior);
            self.ln = f64::MIN_POSITIVE.ln();
            return;
        }
        let scale = 1.0 / sum;
        for place in &mut self.places {
            *place *= scale;
        }
        self.ln = (self.ln + sum.ln()).clamp(-1e15, 1e15);
    }
}

/// The sum, in four parts that do not wait for each other.
fn sum(places: &[f64]) -> f64 {
    let (fours, rest) = places.as_chunks::<4>();
    let mut parts = [0.0; 4];
    for four in fours {
        for (part, place) in parts.iter_mut().zip(four) {
            *part += place;
        }
    }
    (parts[0] + parts[1]) + (parts[2] + parts[3]) + rest.iter().sum::<f64>()
}

/// ln(share * e^a + (1 - share) * e^b).
pub(super) fn ln_mean(share: f64, a: f64, b: f64) -> f64 {
    if a >= b {
        a + (share + (1.0 - share) * (b - a).exp()).ln()
    } else {
        b + (share * (a - b).exp() + (1.0 - share)).ln()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wealth_is_the_weighted_mean_of_the_products() {
        let prior = [0.5, 0.25, 0.25];
        let mut wealth = Wealth::new(&prior);
        wealth.update(&prior, &[1.0, 2.0, 0.5], 0.0);
        wealth.update(&prior, &[1.0, 3.0, 0.1], 0.0);
        assert!((wealth.ln().exp() - (0.5 + 0.25 * 6.0 + 0.25 * 0.05)).abs() < 1e-12);
    }

    #[test]
    fn sharing_creates_no_wealth() {
        let prior = [0.2, 0.8];
        let mut wealth = Wealth::new(&prior);
        for _ in 0..100 {
            wealth.update(&prior, &[1.0, 1.0], 0.1);
        }
        assert!(wealth.ln().abs() < 1e-12);
    }

    #[test]
    fn a_lost_bet_is_given_new_money_by_sharing() {
        let prior = [0.2, 0.8];
        let run = |shared: f64| {
            let mut wealth = Wealth::new(&prior);
            for _ in 0..200 {
                wealth.update(&prior, &[1.0, 0.5], shared);
            }
            for _ in 0..40 {
                wealth.update(&prior, &[1.0, 1.5], shared);
            }
            wealth.ln()
        };
        assert!(run(0.001) > 6.0 && run(0.0) < 0.0);
    }

    #[test]
    fn means_of_logarithms_are_stable() {
        assert!((ln_mean(0.5, 1000.0, -1000.0) - (1000.0 - 2.0_f64.ln())).abs() < 1e-9);
        assert!((ln_mean(0.25, 0.0, 0.0)).abs() < 1e-12);
    }
}
