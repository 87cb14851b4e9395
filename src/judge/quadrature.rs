//! Gauss-Legendre quadrature on [0, 1], for expectations of ratios.
//!
//! Integrands are exponentials at all nodes at once, so these are here too, in a form that the
//! compiler can compute side by side.

use std::sync::LazyLock;

/// Number of nodes. Twenty integrate exp(-40 u), the sharpest integrand that is asked for, to
/// better than 1e-8.
pub(super) const NODES: usize = 20;

/// One node: where, and how much it weighs.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Node {
    pub(super) at: f64,
    pub(super) weight: f64,
}

/// The nodes of the rule: they never change, and computing them takes longer than a judgement.
pub(super) fn nodes() -> &'static [Node; NODES] {
    static RULE: LazyLock<[Node; NODES]> = LazyLock::new(rule);
    &RULE
}

/// e to each power, to a relative error below 1e-15, for powers from -708 to 708; beyond that as
/// at these. By Taylor's series of degree 13 on what is left of a power of two (Cody, Waite,
/// Software Manual for the Elementary Functions, 1980, chapter 6).
pub(super) fn exp_all(powers: &[f64; NODES]) -> [f64; NODES] {
    let mut all = [0.0; NODES];
    for (all, power) in all.iter_mut().zip(powers) {
        *all = exp(*power);
    }
    all
}

#[inline(always)]
fn exp(power: f64) -> f64 {
    // ln 2 in two parts: the first times any exponent is exact.
    const LN_2_HIGH: f64 = 6.931_471_803_691_238e-1;
    const LN_2_LOW: f64 = 1.908_214_929_270_587_7e-10;
    // Adding it rounds to a whole number, which then stands in the lowest bits.
    const ROUNDER: f64 = 6_755_399_441_055_744.0;
    const INVERSE_FACTORIALS: [f64; 14] = inverse_factorials();
    let power = power.clamp(-708.0, 708.0);
    let rounded = power * std::f64::consts::LOG2_E + ROUNDER;
    let exponent = rounded - ROUNDER;
    let rest = (power - exponent * LN_2_HIGH) - exponent * LN_2_LOW;
    // Even and odd terms by themselves, so that neither waits for the other.
    let square = rest * rest;
    let (pairs, _) = INVERSE_FACTORIALS.as_chunks::<2>();
    let [even, odd] =
        [0, 1].map(|side| pairs.iter().rev().fold(0.0, |sum, pair| sum * square + pair[side]));
    (even + rest * odd) * f64::from_bits(rounded.to_bits().wrapping_add(1023) << 52)
}

const fn inverse_factorials() -> [f64; 14] {
    let mut all = [1.0; 14];
    let mut k = 1;
    while k < all.len() {
        all[k] = all[k - 1] / k as f64;
        k += 1;
    }
    all
}

/// The nodes of the rule, by Newton's method on the Legendre polynomial from Chebyshev starts
/// (Golub, Welsch 1969, section 1 for the rule itself).
fn rule() -> [Node; NODES] {
    let mut nodes = [Node::default(); NODES];
    let n = NODES as f64;
    for (i, node) in nodes.iter_mut().enumerate() {
        let mut x = (std::f64::consts::PI * (i as f64 + 0.75) / (n + 0.5)).cos();
        let mut slope = 1.0;
        for _ in 0..50 {
            let (value, derivative) = legendre(x);
            slope = derivative;
            x -= value / derivative;
        }
        *node = Node { at: (1.0 - x) / 2.0, weight: 1.0 / ((1.0 - x * x) * slope * slope) };
    }
    nodes
}

/// The Legendre polynomial of degree [`NODES`] at `x`, and its derivative.
fn legendre(x: f64) -> (f64, f64) {
    let (mut before, mut value) = (1.0, x);
    for k in 2..=NODES {
        let k = k as f64;
        let next = ((2.0 * k - 1.0) * x * value - (k - 1.0) * before) / k;
        (before, value) = (value, next);
    }
    (value, NODES as f64 * (x * value - before) / (x * x - 1.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn integral(f: impl Fn(f64) -> f64) -> f64 {
        nodes().iter().map(|node| node.weight * f(node.at)).sum()
    }

    #[test]
    fn exponentials_are_those_of_the_library() {
        for place in -709_000..=709_000 {
            let power = f64::from(place) * 1e-3;
            let [got, ..] = exp_all(&[power; NODES]);
            let wanted = power.clamp(-708.0, 708.0).exp();
            assert!((got / wanted - 1.0).abs() < 1e-15, "{power}: {got} {wanted}");
        }
        assert_eq!(exp_all(&[0.0; NODES]), [1.0; NODES]);
    }

    #[test]
    fn polynomials_up_to_degree_thirty_nine_are_exact() {
        for degree in 0..40 {
            let got = integral(|u| u.powi(degree));
            assert!((got - 1.0 / f64::from(degree + 1)).abs() < 1e-14, "{degree}: {got}");
        }
    }

    #[test]
    fn the_sharpest_exponential_is_nearly_exact() {
        let got = integral(|u| (-40.0 * u).exp());
        assert!((got - (1.0 - (-40.0_f64).exp()) / 40.0).abs() < 1e-8, "{got}");
    }
}
