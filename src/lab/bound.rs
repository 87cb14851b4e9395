//! The information bound of a scenario: how many canary requests no judge can do without.

use super::{
    blocks::normal_tail,
    scenario::{Scenario, Slower},
    traffic::Arm,
};

/// Cells of the numerical integral over the logarithm of the latency, and how many standard
/// deviations it spans to each side.
const CELLS: usize = 4000;
const SPAN: f64 = 12.0;

/// `ln(1/alpha)` over the information of one canary request against a known baseline: no test of
/// level alpha and power one needs fewer on average (Wald 1945). `None` where the bound is not
/// known: nothing changes, it changes slowly or for
/// the baseline too, failures are repeated, or one request can give it away.
#[must_use]
pub fn wald_canary_requests(scenario: &Scenario) -> Option<f64> {
    if !scenario.changes() || !scenario.canary.ramp.is_zero() || scenario.slow.is_some() {
        return None;
    }
    if scenario.canary.spill > 0.0 || scenario.retries > 0 {
        return None;
    }
    let canary = Arm::canary(scenario, scenario.onset());
    let baseline = Arm::baseline(scenario);
    let failing = |arm: &Arm| arm.hang + (1.0 - arm.hang) * arm.errors;
    let (bad, usual) = (failing(&canary), failing(&baseline));
    let information =
        divergence(bad, usual)? + (1.0 - bad) * latency_information(scenario, &canary)?;
    (information > 0.0).then(|| -scenario.judge.false_rollback.ln() / information)
}

/// The Kullback-Leibler divergence of two coins; `None` if it is infinite.
fn divergence(p: f64, q: f64) -> Option<f64> {
    let part = |p: f64, q: f64| match (p > 0.0, q > 0.0) {
        (false, _) => Some(0.0),
        (true, false) => None,
        (true, true) => Some(p * (p / q).ln()),
    };
    Some(part(p, q)? + part(1.0 - p, 1.0 - q)?)
}

/// The divergence of the canary's latency from the baseline's, by cells of its logarithm in
/// standard deviations.
fn latency_information(scenario: &Scenario, canary: &Arm) -> Option<f64> {
    let sigma = scenario.baseline.sigma;
    if sigma <= 0.0 {
        return None;
    }
    let shift = canary.latency_factor.ln() / sigma;
    let (share, far) = match canary.tail {
        (share, Slower::Factor(factor)) => (share, shift + factor.ln() / sigma),
        // All requests of the tail take the same time: a single one would do.
        (share, Slower::Latency(_)) if share > 0.0 => return None,
        (_, Slower::Latency(_)) => (0.0, shift),
    };
    let above = |z: f64| (1.0 - share) * normal_tail(z - shift) + share * normal_tail(z - far);
    let width = (2.0 * SPAN + far.max(shift)) / CELLS as f64;
    let mut information = 0.0;
    for cell in 0..CELLS {
        let from = -SPAN + cell as f64 * width;
        let of_canary = above(from) - above(from + width);
        let of_baseline = normal_tail(from) - normal_tail(from + width);
        if of_canary > 1e-12 && of_baseline > 0.0 {
            information += of_canary * (of_canary / of_baseline).ln();
        }
    }
    Some(information.max(0.0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lab::scenario::{Change, Tail};

    fn bound(canary: Change) -> Option<f64> {
        wald_canary_requests(&Scenario { canary, ..Scenario::default() })
    }

    #[test]
    fn errors_have_the_bound_of_the_tables() {
        let canary = Change { errors: Some(0.01), ..Change::default() };
        assert_eq!(bound(canary).map(f64::round), Some(491.0));
    }

    #[test]
    fn a_shift_of_a_log_normal_has_its_closed_form() {
        let canary = Change { latency_factor: 1.5, ..Change::default() };
        let closed = 1000.0_f64.ln() / ((1.5_f64.ln() / 0.6).powi(2) / 2.0) / 0.999;
        assert!((bound(canary).unwrap() / closed - 1.0).abs() < 0.02);
    }

    #[test]
    fn what_is_not_known_is_not_made_up() {
        assert_eq!(bound(Change::default()), None);
        assert_eq!(bound(Change { hang: 0.1, ..Change::default() }).map(f64::round), Some(19.0));
        let tail = Some(Tail { share: 0.01, slower: Slower::Factor(5.0) });
        assert!(bound(Change { tail, ..Change::default() }).is_some());
    }
}
