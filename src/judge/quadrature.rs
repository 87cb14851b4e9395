//! Gauss-Legendre quadrature on [0, 1], for expectations of ratios.

/// Number of nodes. Twenty integrate exp(-40 u), the sharpest integrand that is asked for, to
/// better than 1e-8.
pub(super) const NODES: usize = 20;

/// One node: where, and how much it weighs.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Node {
    pub(super) at: f64,
    pub(super) weight: f64,
}

/// The nodes of the rule, by Newton's method on the Legendre polynomial from Chebyshev starts
/// (Golub, Welsch 1969, section 1 for the rule itself).
pub(super) fn nodes() -> [Node; NODES] {
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
