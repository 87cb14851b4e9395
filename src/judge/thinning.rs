//! Matched thinning: the share of the bad events that is the canary's, after the arm with more
//! traffic per pod was thinned down to the other's, as an observation with mean at most zero.

use super::{
    Coin, Pods,
    definition::{Bins, PSI},
    quadrature::{NODES, Node, nodes},
};

/// Most strata of one block; what exceeds is left out.
pub const MAX_STRATA: usize = 32;

/// Expected number of kept events above which only the end of the integral that matters is taken.
const SHARPEST: f64 = 24.0;

/// What is subtracted for the error of the quadrature.
const QUADRATURE_ERROR: f64 = 1e-9;

/// What is known of a stratum before its bad events are looked at.
#[derive(Clone, Copy, Debug)]
pub(super) struct Assigned {
    pub(super) coin: Coin,
    /// Requests of the canary, of the baseline.
    pub(super) canary: u64,
    pub(super) baseline: u64,
}

/// Bad events of a stratum under one definition, and the good requests of its baseline.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Tally {
    pub(super) canary: Bins,
    pub(super) baseline: Bins,
    pub(super) good_baseline: f64,
}

/// How one stratum is thinned, and what it holds under the definition at hand.
#[derive(Clone, Copy, Debug, Default)]
struct Thinned {
    /// Index of the stratum in the block.
    index: usize,
    sticky: bool,
    canary: Kept,
    baseline: Kept,
    /// Good baseline requests, and the probability that one makes a virtual event.
    good: f64,
    virtual_share: f64,
}

/// The thinning of one arm.
#[derive(Clone, Copy, Debug, Default)]
struct Kept {
    /// An event is kept with this probability.
    keep: f64,
    bins: Bins,
    /// ln(1 - keep * (1 - (1 - u)^psi)) by psi, at the nodes.
    logs: [[f64; NODES]; PSI.len()],
}

impl Kept {
    fn expected(&self) -> f64 {
        self.bins.used().iter().map(|&(psi, count)| self.keep * count * PSI[psi]).sum()
    }

    fn ln_nothing(&self) -> f64 {
        self.bins.used().iter().map(|&(_, count)| ln_power(1.0 - self.keep, count)).sum()
    }
}

/// One point of the integral: where, and 1 - (1 - u)^psi by psi.
struct Point {
    node: Option<usize>,
    u: f64,
    lost: [f64; PSI.len()],
}

/// The thinning of the block at hand. Made once; preparing a block allocates nothing.
///
/// Every bad event of a stratum is the canary's with probability pi given the past (the coin).
/// Keeping canary events with probability a = min(1, 1/rho)/r0 and baseline events with b =
/// min(1, rho), rho the odds of pi over the odds of the pod share pi*, makes every kept event the
/// canary's with probability pi*, and pods exchangeable in the size and the frequency of their
/// bursts. An absolute tolerance dl turns good baseline requests into virtual events with
/// probability b*dl. With K' and L' the kept events of the canary and of the baseline, the
/// observation is
///
/// ```text
/// x = E[ K'/(K'+L'), or pi* if nothing is kept ] / pi* - 1,
/// E[K'/(K'+L'); K'>0] = integral over t in (0,1) of d/ds E[ s^K' t^L' ] at s = t
/// ```
///
/// where the expectation is over the thinning alone: a conditional expectation of a randomised
/// e-value given the data is an e-value (Vovk, Wang, arXiv 1912.06116); the share as an
/// observation to bet on is that of Waudby-Smith, Ramdas (JRSSB 2024, arXiv 2010.09686), the
/// exchangeability argument Fisher's; moments of ratios by integrating the generating function:
/// Chao, Strawderman (JASA 1972).
#[derive(Clone, Debug)]
pub(super) struct Thinning {
    nodes: [Node; NODES],
    /// 1 - (1 - u)^psi by psi, at the nodes.
    lost: [[f64; PSI.len()]; NODES],
    strata: Vec<Thinned>,
    pod_share: f64,
    /// Nothing is thinned: the closed form applies.
    plain: bool,
    has_logs: bool,
}

impl Thinning {
    pub(super) fn new() -> Self {
        let nodes = nodes();
        Self {
            nodes,
            lost: nodes.map(|node| lost(node.at)),
            strata: Vec::with_capacity(MAX_STRATA),
            pod_share: 0.0,
            plain: true,
            has_logs: false,
        }
    }

    /// Looks at a block: `tolerated` is r0, the ratio of bad probabilities that is not held
    /// against the canary. Returns whether the block can tell anything.
    pub(super) fn prepare(
        &mut self,
        strata: impl Iterator<Item = Assigned> + Clone,
        pods: Option<Pods>,
        tolerated: f64,
    ) -> bool {
        self.strata.clear();
        self.has_logs = false;
        self.plain = true;
        let strata = strata.take(MAX_STRATA);
        let Some(pod_share) = pod_share(strata.clone(), pods) else {
            return false;
        };
        self.pod_share = pod_share;
        for (index, stratum) in strata.enumerate() {
            let Some(share) = stratum.share() else { continue };
            let rho = share / (1.0 - share) * ((1.0 - pod_share) / pod_share);
            let rho = if (rho - 1.0).abs() < 1e-9 { 1.0 } else { rho };
            let sticky = matches!(stratum.coin, Coin::Unit { .. });
            let mut thinned = Thinned { index, sticky, ..Thinned::default() };
            thinned.canary.keep = (1.0 / rho).min(1.0) / tolerated.max(1.0);
            thinned.baseline.keep = rho.min(1.0);
            self.plain &= thinned.canary.keep == 1.0 && thinned.baseline.keep == 1.0;
            self.strata.push(thinned);
        }
        !self.strata.is_empty()
    }

    /// pi* of the prepared block.
    pub(super) const fn pod_share(&self) -> f64 {
        self.pod_share
    }

    /// The observation x of one definition in the prepared block: at least -1, at most
    /// 1/pi* - 1, with conditional mean at most 0 while the canary is no worse than tolerated.
    /// `tolerance` is dl, additional bad probability that is not held against the canary;
    /// `tally` gives the counts of a stratum by its index.
    pub(super) fn observe(&mut self, tolerance: f64, tally: impl Fn(usize) -> Tally) -> f64 {
        let tolerance = tolerance.clamp(0.0, 0.5);
        for thinned in &mut self.strata {
            thinned.load(&tally(thinned.index), tolerance);
        }
        let kept_canary: f64 = self.strata.iter().map(|t| t.canary.expected()).sum();
        let kept_baseline: f64 =
            self.strata.iter().map(|t| t.baseline.expected() + t.good * t.virtual_share).sum();
        if kept_canary == 0.0 || (self.plain && tolerance == 0.0) {
            return self.closed_form(kept_canary, kept_baseline);
        }
        let ln_nothing = self.ln_nothing();
        let share = self.integrate(kept_canary + kept_baseline) - QUADRATURE_ERROR;
        (share.clamp(0.0, 1.0) / self.pod_share + ln_nothing.exp() - 1.0)
            .clamp(-1.0, 1.0 / self.pod_share - 1.0)
    }

    fn closed_form(&self, kept_canary: f64, kept_baseline: f64) -> f64 {
        if kept_canary == 0.0 {
            return if kept_baseline == 0.0 { 0.0 } else { self.ln_nothing().exp_m1() };
        }
        kept_canary / (kept_canary + kept_baseline) / self.pod_share - 1.0
    }

    /// ln P(no event is kept).
    fn ln_nothing(&self) -> f64 {
        let ln_nothing = |t: &Thinned| {
            let ln_virtual = t.good * (-t.virtual_share).ln_1p();
            t.canary.ln_nothing() + t.baseline.ln_nothing() + ln_virtual
        };
        self.strata.iter().map(ln_nothing).sum()
    }

    /// E[K'/(K'+L'); K' > 0], where `expected` is the weighted number of kept events.
    fn integrate(&mut self, expected: f64) -> f64 {
        let reach = SHARPEST / expected;
        if reach < 1.0 {
            // What lies beyond is positive and below exp(-SHARPEST): left out, on the safe side.
            let at = |node: &Node| {
                let u = node.at * reach;
                node.weight * self.integrand(&Point { node: None, u, lost: lost(u) })
            };
            return self.nodes.iter().map(at).sum::<f64>() * reach;
        }
        if !self.has_logs {
            self.fill_logs();
        }
        let at = |(i, node): (usize, &Node)| {
            node.weight * self.integrand(&Point { node: Some(i), u: node.at, lost: self.lost[i] })
        };
        self.nodes.iter().enumerate().map(at).sum()
    }

    fn integrand(&self, point: &Point) -> f64 {
        let (mut ln_all, mut slope) = (0.0, 0.0);
        for thinned in &self.strata {
            for &(psi, count) in thinned.canary.bins.used() {
                if count > 0.0 {
                    let (keep, lost) = (thinned.canary.keep, point.lost[psi]);
                    ln_all += count * thinned.canary.ln_kept(psi, point);
                    slope += count * PSI[psi] * keep * (1.0 - lost) / (1.0 - keep * lost);
                }
            }
            for &(psi, count) in thinned.baseline.bins.used() {
                if count > 0.0 {
                    ln_all += count * thinned.baseline.ln_kept(psi, point);
                }
            }
            if thinned.virtual_share > 0.0 {
                ln_all += thinned.good * (-thinned.virtual_share * point.u).ln_1p();
            }
        }
        slope / (1.0 - point.u) * ln_all.exp()
    }

    fn fill_logs(&mut self) {
        for thinned in &mut self.strata {
            for arm in [&mut thinned.canary, &mut thinned.baseline] {
                for (i, lost) in self.lost.iter().enumerate() {
                    for (logs, lost) in arm.logs.iter_mut().zip(lost) {
                        logs[i] = (-arm.keep * lost).ln_1p();
                    }
                }
            }
        }
        self.has_logs = true;
    }
}

impl Kept {
    fn ln_kept(&self, psi: usize, point: &Point) -> f64 {
        match point.node {
            Some(node) => self.logs[psi][node],
            None => (-self.keep * point.lost[psi]).ln_1p(),
        }
    }
}

impl Thinned {
    fn load(&mut self, tally: &Tally, tolerance: f64) {
        self.canary.bins = tally.canary;
        self.baseline.bins = tally.baseline;
        self.good = tally.good_baseline;
        // In sticky strata good requests of units counted before are among the good ones, and
        // those may have a larger share than the stratum's own: all are kept, on the safe side.
        let keep = if self.sticky { 1.0 } else { self.baseline.keep };
        self.virtual_share = tolerance * keep;
    }
}

impl Assigned {
    /// The probability that a bad event of the stratum is the canary's, given the past.
    pub(super) fn share(&self) -> Option<f64> {
        let share = match self.coin {
            Coin::Request => {
                let canary = self.canary as f64;
                canary / (canary + self.baseline as f64)
            }
            Coin::Unit { share } => share,
        };
        (share > 0.0 && share < 1.0).then_some(share)
    }
}

/// 1 - (1 - u)^psi by psi, exact for the smallest u.
fn lost(u: f64) -> [f64; PSI.len()] {
    PSI.map(|psi| -(psi * (-u).ln_1p()).exp_m1())
}

/// pi*, the share of a disturbance that would be the canary's if the versions were equal: its
/// share of the pods; where these are unknown its share of the requests. The share of a sticky
/// stratum enters by design, because its realised share depends on the coins of heavy users.
fn pod_share(strata: impl Iterator<Item = Assigned>, pods: Option<Pods>) -> Option<f64> {
    if let Some(Pods { canary: canary @ 1.., baseline: baseline @ 1.. }) = pods {
        return Some(f64::from(canary) / (f64::from(canary) + f64::from(baseline)));
    }
    let (mut canary, mut all) = (0.0, 0.0);
    for stratum in strata {
        let Some(share) = stratum.share() else { continue };
        let started = stratum.canary as f64 + stratum.baseline as f64;
        canary += share * started;
        all += started;
    }
    let share = canary / all;
    (share > 0.0 && share < 1.0).then_some(share)
}

/// ln(base^count), with 0^0 = 1.
fn ln_power(base: f64, count: f64) -> f64 {
    if count == 0.0 { 0.0 } else { (count * base.max(0.0).ln()).max(-1e9) }
}
