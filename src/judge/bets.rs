//! The sizes of the bets and what is placed on each at the start.

use super::Definition;

/// Shares of the wealth that a bet stakes. Small stakes suit rare events and slight harm, large
/// ones many events or severe harm; a mixture costs the logarithm of the place of the best.
pub(super) const STAKES: [f64; 5] = [0.02, 0.07, 0.2, 0.5, 0.95];

/// What is kept as cash.
const CASH: f64 = 0.25;

/// Relative places of the stakes.
fn tilt(definition: Definition) -> [f64; STAKES.len()] {
    if definition.is_slowness() { [1.0, 1.0, 1.0, 1.0, 1.0] } else { [1.0, 1.0, 1.0, 1.2, 1.6] }
}

/// Cash first, then the stakes of each definition in turn; sums to one.
pub(super) fn prior(definitions: &[Definition]) -> Vec<f64> {
    let mut prior = vec![CASH];
    let each = (1.0 - CASH) / definitions.len().max(1) as f64;
    for definition in definitions {
        let tilt = tilt(*definition);
        let sum: f64 = tilt.iter().sum();
        prior.extend(tilt.iter().map(|share| each * share / sum));
    }
    if definitions.is_empty() {
        prior[0] = 1.0;
    }
    prior
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_placed_twice() {
        for definitions in [&Definition::ALL[..], &Definition::ALL[..1], &[]] {
            let sum: f64 = prior(definitions).iter().sum();
            assert!((sum - 1.0).abs() < 1e-12);
        }
    }
}
