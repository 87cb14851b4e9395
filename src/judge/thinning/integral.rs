//! The expectation of a ratio over the thinning, as an integral of the generating function.

use crate::judge::{
    definition::{Bins, PSI},
    quadrature::{NODES, Node},
};

/// Up to this expected number of kept events, times the part of it that is integrated, the
/// quadrature is exact.
pub(super) const SHARPEST: f64 = 40.0;

/// The parts of the interval, counted from one downwards, that are integrated: for few events all
/// of it, for many the end where something is left of the integrand.
pub(super) const REACHES: [f64; 2] = [1.0, 0.25];

/// The expected number of kept events up to which each reach serves.
pub(super) const SERVES: [f64; 2] = [SHARPEST / REACHES[0], SHARPEST / REACHES[1]];

/// The points of an integral.
#[derive(Clone, Copy, Debug)]
pub(super) struct Points {
    pub(super) u: [f64; NODES],
    /// ln(1 - u).
    ln_t: [f64; NODES],
    /// 1 - (1 - u)^psi by psi.
    lost: [[f64; NODES]; PSI.len()],
}

impl Points {
    /// The nodes of the interval from 0 to `reach`.
    pub(super) fn new(nodes: &[Node; NODES], reach: f64) -> Self {
        let u = nodes.map(|node| node.at * reach);
        let lost = PSI.map(|psi| u.map(|u| lost(u, psi)));
        Self { u, ln_t: u.map(|u| (-u).ln_1p()), lost }
    }
}

/// 1 - (1 - u)^psi for a whole psi, exact for the smallest u, and below one.
fn lost(u: f64, psi: f64) -> f64 {
    let t = 1.0 - u;
    let (mut sum, mut power) = (0.0, 1.0);
    for _ in 0..psi as u32 {
        sum += power;
        power *= t;
    }
    (u * sum).min(1.0 - f64::EPSILON)
}

/// The thinning of one arm.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Kept {
    /// An event is kept with this probability.
    pub(super) keep: f64,
    /// ln of the probability that it is not.
    ln_lost: f64,
    pub(super) bins: Bins,
    /// By reach and psi; kept while `keep` stays.
    rows: [[Row; PSI.len()]; REACHES.len()],
    filled: [[bool; PSI.len()]; REACHES.len()],
}

/// Of one event of one weight: ln(1 - keep * (1 - t^psi)), and what it adds to the slope,
/// psi * keep * t^(psi - 1) / (1 - keep * (1 - t^psi)).
#[derive(Clone, Copy, Debug, Default)]
struct Row {
    ln: [f64; NODES],
    slope: [f64; NODES],
}

impl Row {
    fn new(psi: usize, keep: f64, points: &Points) -> Self {
        let lost = &points.lost[psi];
        let mut row = Self::default();
        for (slope, (lost, u)) in row.slope.iter_mut().zip(lost.iter().zip(points.u)) {
            *slope = PSI[psi] * keep * (1.0 - lost) / ((1.0 - keep * lost) * (1.0 - u));
        }
        for (ln, (lost, ln_t)) in row.ln.iter_mut().zip(lost.iter().zip(points.ln_t)) {
            *ln = if keep == 1.0 { PSI[psi] * ln_t } else { (-keep * lost).ln_1p() };
        }
        row
    }
}

impl Kept {
    pub(super) fn set_keep(&mut self, keep: f64) {
        if self.keep != keep {
            self.keep = keep;
            self.ln_lost = (1.0 - keep).max(0.0).ln();
            self.filled = Default::default();
        }
    }

    pub(super) fn expected(&self) -> f64 {
        self.bins.used().iter().map(|&(psi, count)| self.keep * count * PSI[psi]).sum()
    }

    pub(super) fn ln_nothing(&self) -> f64 {
        self.bins.used().iter().map(|&(_, count)| ln_power(self.ln_lost, count)).sum()
    }
}

impl Kept {
    pub(super) fn fill(&mut self, span: usize, points: &Points) {
        for i in 0..self.bins.used().len() {
            let (psi, count) = self.bins.used()[i];
            if count > 0.0 && !self.filled[span][psi] {
                self.rows[span][psi] = Row::new(psi, self.keep, points);
                self.filled[span][psi] = true;
            }
        }
    }

    /// Adds the logarithms of this arm's events, and of the canary's the slopes.
    pub(super) fn add(
        &self,
        points: &Points,
        span: Option<usize>,
        ln_all: &mut [f64; NODES],
        mut slope: Option<&mut [f64; NODES]>,
    ) {
        for &(psi, count) in self.bins.used() {
            if count == 0.0 {
                continue;
            }
            let fresh;
            let row = if let Some(span) = span {
                &self.rows[span][psi]
            } else {
                fresh = Row::new(psi, self.keep, points);
                &fresh
            };
            for (sum, ln) in ln_all.iter_mut().zip(&row.ln) {
                *sum += count * ln;
            }
            if let Some(slope) = slope.as_deref_mut() {
                for (sum, slope) in slope.iter_mut().zip(&row.slope) {
                    *sum += count * slope;
                }
            }
        }
    }
}

/// ln(base^count) by ln(base), with 0^0 = 1.
fn ln_power(base_ln: f64, count: f64) -> f64 {
    if count == 0.0 { 0.0 } else { (count * base_ln).max(-1e9) }
}
