//! Matched thinning: the share of the bad events that is the canary's, after the arm with more
//! traffic per pod was thinned down to the other's, as an observation with mean at most zero.

mod integral;

use super::{
    Coin, Pods,
    definition::{Bins, PSI},
    quadrature::{NODES, Node, exp_all, nodes},
};
use integral::{Kept, Points, REACHES, SERVES, SHARPEST};

/// Most strata of one block; what exceeds is left out.
pub const MAX_STRATA: usize = 32;

/// Bound on the error of the quadrature and on what lies beyond its reach, taken to the safe
/// side.
const QUADRATURE_ERROR: f64 = 2e-8;
const BEYOND_REACH: f64 = 5e-5;

/// ln of what is nothing beside the smallest number.
const CERTAIN: f64 = -1000.0;

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
    nodes: &'static [Node; NODES],
    /// The points by reach.
    spans: [Points; REACHES.len()],
    /// Room for the strata of a block; the first `used` are those of the block at hand.
    room: Vec<Thinned>,
    used: usize,
    pod_share: f64,
    /// Nothing is thinned: the closed form applies.
    plain: bool,
    /// Every coin falls whatever the others did.
    independent: bool,
}

impl Thinning {
    pub(super) fn new() -> Self {
        let nodes = nodes();
        Self {
            nodes,
            spans: REACHES.map(|reach| Points::new(nodes, reach)),
            room: Vec::with_capacity(MAX_STRATA),
            used: 0,
            pod_share: 0.0,
            plain: true,
            independent: true,
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
        self.used = 0;
        self.plain = true;
        self.independent = true;
        let strata = strata.take(MAX_STRATA);
        let known = known_share(pods);
        // Alone and without pods to match, a stratum is not thinned, and its realised share,
        // which varies less than the drawn one, is as good.
        let alone = known.is_none() && strata.clone().nth(1).is_none();
        let share = |stratum: &Assigned| if alone { stratum.realised() } else { stratum.share() };
        let Some(pod_share) = known.or_else(|| pooled_share(strata.clone(), share)) else {
            return false;
        };
        self.pod_share = pod_share;
        for (index, stratum) in strata.enumerate() {
            let Some(share) = share(&stratum) else { continue };
            let rho = share / (1.0 - share) * ((1.0 - pod_share) / pod_share);
            let rho = if (rho - 1.0).abs() < 1e-9 { 1.0 } else { rho };
            if self.used == self.room.len() {
                self.room.push(Thinned::default());
            }
            let thinned = &mut self.room[self.used];
            self.used += 1;
            thinned.index = index;
            thinned.sticky = matches!(stratum.coin, Coin::Unit { .. });
            thinned.canary.set_keep((1.0 / rho).min(1.0) / tolerated.max(1.0));
            thinned.baseline.set_keep(rho.min(1.0));
            self.plain &= thinned.canary.keep == 1.0 && thinned.baseline.keep == 1.0;
            self.independent &= !matches!(stratum.coin, Coin::Request);
        }
        self.used > 0
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
        let tolerance = self.load(tolerance, tally);
        let (canary, baseline) = self.expected();
        if canary == 0.0 || (self.plain && tolerance == 0.0) {
            return self.closed_form(canary, baseline);
        }
        let dependent = !self.plain && !self.independent;
        if dependent || canary + baseline > SERVES[1] {
            // Jensen's bound. With the realised share the coins of a block depend on each other,
            // and only the bound, concave in the canary's events, stands; with many events it is
            // all but exact.
            let thinnest = self.thinnest_canary();
            return canary / (canary + baseline + thinnest) / self.pod_share - 1.0;
        }
        self.exact(canary + baseline, -QUADRATURE_ERROR)
    }

    /// The same from below and from above: the second has a conditional mean of at least 0 while
    /// the canary is no better.
    pub(super) fn observe_both(
        &mut self,
        tolerance: f64,
        tally: impl Fn(usize) -> Tally,
    ) -> (f64, f64) {
        let x = self.observe(tolerance, tally);
        let (canary, baseline) = self.expected();
        if canary == 0.0 || (self.plain && tolerance <= 0.0) {
            return (x, x);
        }
        let used = &self.room[..self.used];
        if self.independent || used.iter().all(|t| t.canary.keep == 1.0) {
            let few = canary + baseline <= SERVES[0];
            let error = QUADRATURE_ERROR + if few { 0.0 } else { BEYOND_REACH };
            return (x, self.exact(canary + baseline, error));
        }
        let certain = used.iter().filter(|t| t.baseline.keep == 1.0);
        let baseline: f64 = certain.map(|t| t.baseline.expected()).sum();
        (x, self.observation_of(canary / (canary + baseline)))
    }

    /// Loads the counts of all strata; returns the tolerance in its range.
    fn load(&mut self, tolerance: f64, tally: impl Fn(usize) -> Tally) -> f64 {
        let tolerance = tolerance.clamp(0.0, 0.5);
        for thinned in &mut self.room[..self.used] {
            thinned.load(&tally(thinned.index), tolerance);
        }
        tolerance
    }

    /// Expected kept events of the canary and of the baseline, virtual ones with the latter.
    fn expected(&self) -> (f64, f64) {
        let used = &self.room[..self.used];
        let canary = used.iter().map(|t| t.canary.expected()).sum();
        let virtual_events = |t: &Thinned| t.good * t.virtual_share;
        let baseline = used.iter().map(|t| t.baseline.expected() + virtual_events(t)).sum();
        (canary, baseline)
    }

    fn exact(&mut self, expected: f64, error: f64) -> f64 {
        let share = self.integrate(expected) + error;
        self.observation_of(share)
    }

    /// x from E[K'/(K'+L'); K' > 0].
    fn observation_of(&self, share: f64) -> f64 {
        let nothing = self.ln_nothing();
        // Most often something is kept for certain, and the exponential of that is slow.
        let nothing = if nothing < CERTAIN { 0.0 } else { nothing.exp() };
        (share.clamp(0.0, 1.0) / self.pod_share + nothing - 1.0)
            .clamp(-1.0, 1.0 / self.pod_share - 1.0)
    }

    fn closed_form(&self, kept_canary: f64, kept_baseline: f64) -> f64 {
        if kept_canary == 0.0 {
            if kept_baseline == 0.0 {
                return 0.0;
            }
            let nothing = self.ln_nothing();
            return if nothing < CERTAIN { -1.0 } else { nothing.exp_m1() };
        }
        kept_canary / (kept_canary + kept_baseline) / self.pod_share - 1.0
    }

    /// What the thinning of the canary itself may cost: (1 - the smallest a) * the largest psi.
    fn thinnest_canary(&self) -> f64 {
        let lost = |t: &Thinned| {
            let heaviest =
                t.canary.bins.used().iter().map(|(psi, _)| PSI[*psi]).fold(1.0, f64::max);
            (1.0 - t.canary.keep) * heaviest
        };
        self.room[..self.used].iter().map(lost).fold(0.0, f64::max)
    }

    /// ln P(no event is kept).
    fn ln_nothing(&self) -> f64 {
        let ln_nothing = |t: &Thinned| {
            let ln_virtual = t.good * (-t.virtual_share).ln_1p();
            t.canary.ln_nothing() + t.baseline.ln_nothing() + ln_virtual
        };
        self.room[..self.used].iter().map(ln_nothing).sum()
    }

    /// E[K'/(K'+L'); K' > 0], where `expected` is the weighted number of kept events. Left out
    /// is what lies beyond the reach: positive, and for equal weights below exp(-10).
    fn integrate(&mut self, expected: f64) -> f64 {
        let Some(span) = SERVES.iter().position(|most| expected <= *most) else {
            return self.sum(&Points::new(self.nodes, SHARPEST / expected), None)
                * (SHARPEST / expected);
        };
        let Self { spans, room, used, .. } = self;
        for thinned in &mut room[..*used] {
            thinned.canary.fill(span, &spans[span]);
            thinned.baseline.fill(span, &spans[span]);
        }
        self.sum(&self.spans[span], Some(span)) * REACHES[span]
    }

    fn sum(&self, points: &Points, span: Option<usize>) -> f64 {
        let (mut ln_all, mut slope) = ([0.0; NODES], [0.0; NODES]);
        for thinned in &self.room[..self.used] {
            thinned.canary.add(points, span, &mut ln_all, Some(&mut slope));
            thinned.baseline.add(points, span, &mut ln_all, None);
            if thinned.virtual_share > 0.0 && thinned.good > 0.0 {
                for (ln, u) in ln_all.iter_mut().zip(points.u) {
                    *ln += thinned.good * ln_without(thinned.virtual_share * u);
                }
            }
        }
        let all = exp_all(&ln_all);
        // In four parts that do not wait for each other.
        let mut parts = [0.0; 4];
        for (i, node) in self.nodes.iter().enumerate() {
            parts[i % 4] += node.weight * slope[i] * all[i];
        }
        (parts[0] + parts[1]) + (parts[2] + parts[3])
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
    fn share(&self) -> Option<f64> {
        match self.coin {
            Coin::Request => self.realised(),
            Coin::Drawn { share } | Coin::Unit { share } => inside(share),
        }
    }

    /// The canary's share of the requests of this block, where each had a coin.
    fn realised(&self) -> Option<f64> {
        match self.coin {
            Coin::Request | Coin::Drawn { .. } => {
                inside(self.canary as f64 / (self.canary as f64 + self.baseline as f64))
            }
            Coin::Unit { share } => inside(share),
        }
    }
}

fn inside(share: f64) -> Option<f64> {
    (share > 0.0 && share < 1.0).then_some(share)
}

/// pi*, the share of a disturbance that would be the canary's if the versions were equal: its
/// share of the pods.
fn known_share(pods: Option<Pods>) -> Option<f64> {
    match pods {
        Some(Pods { canary: canary @ 1.., baseline: baseline @ 1.. }) => {
            Some(f64::from(canary) / (f64::from(canary) + f64::from(baseline)))
        }
        Some(_) | None => None,
    }
}

/// pi* where the pods are unknown: the canary's share of the requests. The share of a sticky
/// stratum enters by design, because its realised share depends on the coins of heavy users.
fn pooled_share(
    strata: impl Iterator<Item = Assigned>,
    share: impl Fn(&Assigned) -> Option<f64>,
) -> Option<f64> {
    let (mut canary, mut all) = (0.0, 0.0);
    for stratum in strata {
        let Some(share) = share(&stratum) else { continue };
        let started = stratum.canary as f64 + stratum.baseline as f64;
        canary += share * started;
        all += started;
    }
    inside(canary / all)
}

/// ln(1 - y). The series for small y, which is most of them, is six times as fast; its error times
/// the number of events that an integral may hold is below 1e-9.
fn ln_without(y: f64) -> f64 {
    if y < 0.006 {
        -y * (1.0 + y * (0.5 + y * (1.0 / 3.0 + y * (0.25 + y * 0.2))))
    } else {
        (-y).ln_1p()
    }
}

#[cfg(test)]
mod tests;
