//! Effect sizes for people: how much slower, how many more errors, with bounds that hold at any
//! time.

use serde::{Deserialize, Serialize};

use super::{
    Ending, Rungs, SHIFT_COUNT, SHIFTS, Trials, bets,
    promotion::{NonInferiority, assigned, tally, tally_of},
    thinning::{Tally, Thinning},
    wealth::Wealth,
};

/// Index of the shift 1.0: the baseline's own deadline.
const UNSHIFTED: usize = 4;

/// Additional failures, as shares of requests, of the ladder for errors.
const EXCESSES: [f64; 6] = [0.0, 0.001, 0.003, 0.01, 0.03, 0.1];

/// Bounds hold with at least this probability on both sides together, at all times.
pub const CONFIDENCE: f64 = 0.99;

/// Memory of the point estimate in seconds.
const RECENT: f64 = 300.0;

/// What the canary does to one quantity.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Size {
    /// The estimate over the last minutes; `None` without enough requests.
    pub estimate: Option<f64>,
    /// Proved to have been at least this, at some time in the rollout.
    pub at_least: Option<f64>,
    /// Proved to be at most this; not given where the effect has changed meanwhile.
    pub at_most: Option<f64>,
}

/// Effect sizes since the rollout began.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Effect {
    /// The canary's latency over the baseline's, at p90 and at p99: 1.31 is 31 % slower.
    pub latency: [Size; 2],
    /// The canary's failures less the baseline's, as a share of requests.
    pub errors: Size,
}

/// One rung: evidence that the effect is more, and that it is less.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Rung {
    more: Wealth,
    less: NonInferiority,
    more_peak: f64,
    less_peak: f64,
}

impl Rung {
    fn new() -> Self {
        Self {
            more: Wealth::new(&[1.0 / bets::STAKES.len() as f64; bets::STAKES.len()]),
            less: NonInferiority::new(),
            more_peak: 0.0,
            less_peak: 0.0,
        }
    }

    fn update(&mut self, thinning: &mut Thinning, tolerance: f64, tally: impl Fn(usize) -> Tally) {
        let (x, at_most) = thinning.observe_both(tolerance, tally);
        let even = [1.0 / bets::STAKES.len() as f64; bets::STAKES.len()];
        self.more.update(&even, &bets::STAKES.map(|stake| stake.mul_add(x, 1.0)), 0.0);
        self.less.update(at_most, thinning.pod_share());
        self.more_peak = self.more_peak.max(self.more.ln());
        self.less_peak = self.less_peak.max(self.less.ln());
    }
}

/// The ladders.
///
/// For each shift of the canary's deadline against the baseline's the same bets are run in both
/// directions; the hypotheses are nested, so the largest rejected shift bounds the effect from
/// below and the smallest rejected one from above without a correction for their number
/// (confidence sequences by inverting tests: Waudby-Smith, Ramdas, arXiv 2010.09686).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Ladders {
    latency: Vec<[Rung; 2]>,
    errors: Vec<Rung>,
    recent: Recent,
}

/// Decayed counts for the point estimates.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
struct Recent {
    canary: f64,
    baseline: f64,
    canary_failed: f64,
    baseline_failed: f64,
    canary_slower: [[f64; SHIFT_COUNT]; 2],
    baseline_slower: [f64; 2],
    /// The shifts that are counted.
    rungs: Rungs,
}

impl Ladders {
    pub(super) fn new() -> Self {
        Self {
            latency: SHIFTS.iter().map(|_| [Rung::new(), Rung::new()]).collect(),
            errors: EXCESSES.iter().map(|_| Rung::new()).collect(),
            recent: Recent::default(),
        }
    }

    pub(super) fn add(&mut self, trials: &Trials<'_>, thinning: &mut Thinning) {
        if trials.ending == Ending::Reacted {
            return;
        }
        self.recent.add(trials);
        if !thinning.prepare(assigned(trials.strata), trials.pods, 1.0) {
            return;
        }
        for (shift, rungs) in self.latency.iter_mut().enumerate() {
            let counted = |quantile: usize| trials.rungs[quantile] & 1 << shift != 0;
            for (quantile, rung) in rungs.iter_mut().enumerate().filter(|(q, _)| counted(*q)) {
                rung.update(thinning, 0.0, |i| {
                    let stratum = &trials.strata[i];
                    let baseline = stratum.baseline.shifted[quantile][UNSHIFTED];
                    let canary = stratum.canary.shifted[quantile][shift];
                    tally_of(canary, baseline, stratum.baseline.started)
                });
            }
        }
        for (rung, excess) in self.errors.iter_mut().zip(EXCESSES) {
            rung.update(thinning, excess, |i| tally(&trials.strata[i], |c| c.failed));
        }
    }

    pub(super) fn effect(&self) -> Effect {
        let latency = [0, 1].map(|quantile| {
            let rungs = self.latency.iter().map(|pair| &pair[quantile]);
            let (at_least, at_most) = bounds(SHIFTS.into_iter().zip(rungs));
            Size { estimate: self.recent.latency(quantile), at_least, at_most }
        });
        let (at_least, at_most) = bounds(EXCESSES.into_iter().zip(&self.errors));
        Effect { latency, errors: Size { estimate: self.recent.errors(), at_least, at_most } }
    }
}

/// The largest value shown to be exceeded, and the smallest shown not to be reached.
fn bounds<'a>(ladder: impl Iterator<Item = (f64, &'a Rung)> + Clone) -> (Option<f64>, Option<f64>) {
    let threshold_ln = (2.0 / (1.0 - CONFIDENCE)).ln();
    let more = ladder.clone().filter(|(_, rung)| rung.more_peak >= threshold_ln);
    let at_least = more.map(|(value, _)| value).last();
    let mut less = ladder.filter(|(_, rung)| rung.less_peak >= threshold_ln);
    let at_most = less.next().map(|(value, _)| value);
    let changed = at_least.zip(at_most).is_some_and(|(least, most)| least >= most);
    (at_least, if changed { None } else { at_most })
}

impl Recent {
    fn add(&mut self, trials: &Trials<'_>) {
        let keep = (-f64::from(trials.ticks) * super::TICK_SECONDS / RECENT).exp();
        let fade = |sum: &mut f64, more: u64| *sum = *sum * keep + more as f64;
        let total = |count: &dyn Fn(&super::TrialStratum) -> u64| {
            trials.strata.iter().map(count).fold(0_u64, u64::saturating_add)
        };
        self.rungs = trials.rungs;
        fade(&mut self.canary, total(&|s| s.canary.started));
        fade(&mut self.baseline, total(&|s| s.baseline.started));
        fade(&mut self.canary_failed, total(&|s| s.canary.failed));
        fade(&mut self.baseline_failed, total(&|s| s.baseline.failed));
        for quantile in 0..2 {
            for shift in 0..SHIFT_COUNT {
                let slower = &mut self.canary_slower[quantile][shift];
                fade(slower, total(&|s| s.canary.shifted[quantile][shift]));
            }
            let slower = &mut self.baseline_slower[quantile];
            fade(slower, total(&|s| s.baseline.shifted[quantile][UNSHIFTED]));
        }
    }

    /// The shift at which the canary is beyond its deadline as often as the baseline beyond its
    /// own, between the rungs by the logarithm of both.
    fn latency(&self, quantile: usize) -> Option<f64> {
        let counted = || (0..SHIFT_COUNT).filter(|shift| self.rungs[quantile] & 1 << shift != 0);
        let first = counted().next()?;
        if self.baseline_slower[quantile] < 10.0 || self.canary_slower[quantile][first] < 10.0 {
            return None;
        }
        let wanted = self.baseline_slower[quantile] / self.baseline;
        let share = |shift: usize| {
            (self.canary_slower[quantile][shift].max(0.5) / self.canary.max(1.0)).ln()
        };
        if share(first) < wanted.ln() {
            return Some(SHIFTS[first]);
        }
        let mut before = first;
        let after = counted().skip(1).find(|shift| {
            let found = share(*shift) <= wanted.ln();
            before = if found { before } else { *shift };
            found
        });
        let Some(after) = after else {
            return Some(SHIFTS[before]);
        };
        let (high, low) = (share(before), share(after));
        let part = if high > low { (high - wanted.ln()) / (high - low) } else { 0.5 };
        let (from, to) = (SHIFTS[before].ln(), SHIFTS[after].ln());
        Some((from + part * (to - from)).exp())
    }

    fn errors(&self) -> Option<f64> {
        (self.canary >= 10.0 && self.baseline >= 10.0)
            .then(|| self.canary_failed / self.canary - self.baseline_failed / self.baseline)
    }
}
