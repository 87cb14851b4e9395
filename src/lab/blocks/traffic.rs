//! What the two arms answer like: probabilities of being bad, and counts drawn from them.

use super::{
    Counts, Dice, Setting, Shards,
    laws::{Bands, Conditions, Gap, Laws},
    normal_tail,
};
use crate::judge::{ArmCounts, Coin, EDGES, QUANTILES, Stratum, TrialCounts, TrialStratum};

/// Probabilities of an arm's requests to be bad.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Rates {
    /// Slow at each edge of the judge, not rising.
    pub slow: [f64; EDGES],
    /// Failed.
    pub errors: f64,
    /// Refused.
    pub refused: f64,
    /// Beyond the margin of promotion at p90, p99 and the objective's quantile.
    pub beyond_margin: [f64; 3],
}

/// Log-normal latencies, and how the canary's differ.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Latency {
    /// Standard deviation of the logarithm.
    pub sigma: f64,
    /// The canary is slower by this factor.
    pub factor: f64,
    /// This share of the canary's requests is slower by `tail_factor` on top.
    pub tail_share: f64,
    /// See `tail_share`.
    pub tail_factor: f64,
    /// Relative slowdown that the canary's deadlines tolerate.
    pub tolerance: f64,
    /// Relative slowdown of the margin of promotion.
    pub margin: f64,
    /// Failures of the baseline and of the canary.
    pub errors: [f64; 2],
    /// Standard deviation of a common log-load that slows both arms (AR(1), a second at .98).
    pub load_noise: f64,
}

/// What the arms answer like.
#[derive(Clone, Debug, PartialEq)]
pub struct Traffic {
    /// The baseline and, before the onset, the canary.
    pub before: Kind,
    /// The canary's regression begins in this second,
    pub onset: u32,
    /// and grows linearly over so many seconds.
    pub ramp: u32,
}

/// How badness is given.
#[derive(Clone, Debug, PartialEq)]
pub enum Kind {
    /// As probabilities of the baseline and of the canary.
    Rates(Box<[Rates; 2]>),
    /// As latencies.
    Latency(Latency),
}

/// Stalls of single pods, GC-like: requests that arrive meanwhile are slow at every edge.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Pause {
    /// Mean seconds between two stalls of a pod.
    pub every: f64,
    /// Seconds of a stall.
    pub length: f64,
}

impl Latency {
    /// The usual: sigma .6, 5 % tolerance, .1 % errors, and a canary that does not differ.
    #[must_use]
    pub const fn usual() -> Self {
        Self {
            sigma: 0.6,
            factor: 1.0,
            tail_share: 0.0,
            tail_factor: 1.0,
            tolerance: 0.05,
            margin: 0.25,
            errors: [0.001, 0.001],
            load_noise: 0.0,
        }
    }

    /// Rates of the baseline (0) or the canary (1) under a common log-load; `effect` is the part
    /// of the regression that is in force.
    fn rates(&self, arm: usize, load_ln: f64, effect: f64) -> Rates {
        let canary = arm == 1;
        let slower_ln = load_ln + if canary { self.factor.ln() * effect } else { 0.0 };
        let tail = if canary { self.tail_share * effect } else { 0.0 };
        let exceeds = |quantile: f64, shift: f64| {
            let deadline = self.sigma * quantile_of(quantile) + shift.ln();
            let plain = normal_tail((deadline - slower_ln) / self.sigma);
            if tail == 0.0 {
                return plain;
            }
            let far = (deadline - slower_ln - self.tail_factor.ln()) / self.sigma;
            (1.0 - tail) * plain + tail * normal_tail(far)
        };
        let tolerated = if canary { 1.0 + self.tolerance } else { 1.0 };
        let margin = if canary { 1.0 + self.margin } else { 1.0 };
        Rates {
            slow: QUANTILES.map(|q| exceeds(q, tolerated)),
            errors: self.errors[0]
                + if canary { (self.errors[1] - self.errors[0]) * effect } else { 0.0 },
            refused: 0.0,
            beyond_margin: [0.9, 0.99, 0.99].map(|q| exceeds(q, margin)),
        }
    }
}

/// The standard normal's quantile, by bisection.
fn quantile_of(share: f64) -> f64 {
    match share {
        0.75 => 0.674_489_750_196_081_7,
        0.9 => 1.281_551_565_544_600_4,
        0.95 => 1.644_853_626_951_472_2,
        0.99 => 2.326_347_874_040_840_8,
        0.999 => 3.090_232_306_167_813,
        other => {
            let (mut low, mut high) = (-9.0, 9.0);
            for _ in 0..80 {
                let middle = (low + high) / 2.0;
                if normal_tail(middle) > 1.0 - other { low = middle } else { high = middle }
            }
            low
        }
    }
}

impl Traffic {
    /// A canary that does not differ.
    #[must_use]
    pub const fn same() -> Self {
        Self::of(Latency::usual())
    }

    /// These latencies from the start.
    #[must_use]
    pub const fn of(latency: Latency) -> Self {
        Self { before: Kind::Latency(latency), onset: 0, ramp: 0 }
    }

    /// One definition alone: slow at p99's edge with probability `p`, and `ratio` times that of
    /// the canary.
    #[must_use]
    pub fn exceedance(p: f64, ratio: f64) -> Self {
        let rates = |p: f64| Rates { slow: [p, p, p, p, 0.0], ..Rates::default() };
        Self { before: Kind::Rates(Box::new([rates(p), rates(p * ratio)])), onset: 0, ramp: 0 }
    }

    /// The rates of both arms, with a part of the regression, under a common log-load.
    pub(super) fn rates(&self, effect: f64, load_ln: f64) -> [Rates; 2] {
        match &self.before {
            Kind::Rates(rates) => {
                let [baseline, canary] = rates.as_ref();
                [*baseline, Rates::between(baseline, canary, effect)]
            }
            Kind::Latency(latency) => [0, 1].map(|arm| latency.rates(arm, load_ln, effect)),
        }
    }

    /// The part of the regression in force.
    pub(super) fn effect(&self, second: u32) -> f64 {
        if second < self.onset {
            0.0
        } else if self.ramp == 0 {
            1.0
        } else {
            (f64::from(second - self.onset) / f64::from(self.ramp)).min(1.0)
        }
    }
}

impl Rates {
    fn between(before: &Self, after: &Self, effect: f64) -> Self {
        if effect == 1.0 {
            return *after;
        }
        let mix = |a: f64, b: f64| a + (b - a) * effect;
        let mut rates = *before;
        for (rate, other) in rates.slow.iter_mut().zip(after.slow) {
            *rate = mix(*rate, other);
        }
        rates.errors = mix(rates.errors, after.errors);
        rates.refused = mix(rates.refused, after.refused);
        for (rate, other) in rates.beyond_margin.iter_mut().zip(after.beyond_margin) {
            *rate = mix(*rate, other);
        }
        rates
    }
}

/// The state of a run's traffic.
pub(super) struct Drawing<'a> {
    setting: &'a Setting,
    laws: &'a Laws,
    load_ln: f64,
    /// Rates that do not change, kept.
    steady: Option<(f64, [Rates; 2])>,
    /// Per group of pods, when the stalls began that go on, counted from the start of this second.
    stalls: [Vec<f64>; GROUPS],
    /// Failures and refusals of both arms.
    gaps: [[Gap; 2]; 2],
    /// Whether one pod of the baseline is counted apart.
    placebo: bool,
}

/// Groups of pods: the baseline's (but for the placebo), the canary's, and the placebo.
const GROUPS: usize = 3;
const BASELINE: usize = 0;
const CANARY: usize = 1;
const PLACEBO: usize = 2;

impl<'a> Drawing<'a> {
    pub(super) fn new(
        setting: &'a Setting,
        laws: &'a Laws,
        placebo: bool,
        dice: &mut Dice,
    ) -> Self {
        let noise = match &setting.traffic.before {
            Kind::Latency(latency) => latency.load_noise,
            Kind::Rates(_) => 0.0,
        };
        let load_ln = if noise > 0.0 { noise * dice.normal() } else { 0.0 };
        Self {
            setting,
            laws,
            load_ln,
            steady: None,
            stalls: Default::default(),
            gaps: Default::default(),
            placebo,
        }
    }

    pub(super) fn second(&mut self, second: u32, weight: f64, dice: &mut Dice) -> Counts {
        let rps = self.setting.load.at(second, self.setting.seconds);
        let effect = self.setting.traffic.effect(second);
        let conditions = Conditions { rps, weight, effect };
        if self.setting.shards != Shards::ONE {
            return self.of_shards(conditions, dice);
        }
        match self.laws.of(conditions).filter(|_| !self.placebo) {
            Some(bands) => self.tabled(bands, conditions, dice),
            None => self.directly(conditions, dice),
        }
    }

    fn tabled(&mut self, bands: &[Bands; 2], conditions: Conditions, dice: &mut Dice) -> Counts {
        let rates = self.rates(conditions.effect, dice);
        let coin = Coin::Drawn { share: conditions.weight };
        let [(baseline, baseline_trials), (canary, canary_trials)] = [(BASELINE, 0), (CANARY, 1)]
            .map(|(group, arm)| {
                let stalled = self.stalled(group, dice);
                let mut between = bands[arm].draw(dice);
                let started = between.iter().sum();
                let mut hit = 0;
                if stalled > 0.0 {
                    for count in &mut between {
                        let waiting = dice.binomial(*count, stalled);
                        *count -= waiting;
                        hit += waiting;
                    }
                }
                let free = started - hit;
                let [errors, refused] = &mut self.gaps[arm];
                let requests = Requests {
                    started,
                    hit,
                    failed: errors.among(free, rates[arm].errors, dice),
                    refused: refused.among(free, rates[arm].refused, dice),
                    slow: beyond(&between),
                };
                requests.counts(&rates[arm], self.setting.promotion, dice)
            });
        Counts {
            stratum: Stratum { weights: 0, coin, canary, baseline },
            trials: TrialStratum { coin, canary: canary_trials, baseline: baseline_trials },
            placebo: None,
        }
    }

    /// The counts that shards tell each other, joined.
    fn of_shards(&mut self, conditions: Conditions, dice: &mut Dice) -> Counts {
        let Conditions { rps, weight, effect } = conditions;
        let rates = self.rates(effect, dice);
        let stalled = [BASELINE, CANARY].map(|group| self.stalled(group, dice));
        let mut joined = [ArmCounts::default(); 2];
        let Shards { count, lost } = self.setting.shards;
        for _ in 0..count {
            if dice.uniform() < lost {
                continue;
            }
            let all = dice.poisson(rps);
            let canary = dice.binomial(all, weight);
            for (i, started) in [all - canary, canary].into_iter().enumerate() {
                joined[i].merge(&arm(started, &rates[i], stalled[i], false, dice).0);
            }
        }
        let [baseline, canary] = joined;
        let coin = Coin::Drawn { share: weight };
        let nothing = TrialCounts::default();
        Counts {
            stratum: Stratum { weights: 0, coin, canary, baseline },
            trials: TrialStratum { coin, canary: nothing, baseline: nothing },
            placebo: None,
        }
    }

    fn directly(&mut self, conditions: Conditions, dice: &mut Dice) -> Counts {
        let Conditions { rps, weight, effect } = conditions;
        let [baseline, canary] = self.rates(effect, dice);
        let all = dice.poisson(rps);
        let canary_started = dice.binomial(all, weight);
        let promotion = self.setting.promotion;
        let stalled = self.stalled(CANARY, dice);
        let (canary, canary_trials) = arm(canary_started, &canary, stalled, promotion, dice);
        let picked = self.placebo.then(|| {
            let started = dice.binomial(all - canary_started, self.setting.share_of_one());
            let stalled = self.stalled(PLACEBO, dice);
            arm(started, &baseline, stalled, false, dice).0
        });
        let stalled = self.stalled(BASELINE, dice);
        let others = all - canary_started - picked.map_or(0, |counts| counts.started);
        let (others, baseline_trials) = arm(others, &baseline, stalled, promotion, dice);
        let mut baseline = others;
        if let Some(picked) = &picked {
            baseline.merge(picked);
        }
        let coin = Coin::Drawn { share: weight };
        Counts {
            stratum: Stratum { weights: 0, coin, canary, baseline },
            trials: TrialStratum { coin, canary: canary_trials, baseline: baseline_trials },
            placebo: picked.map(|picked| (picked, others)),
        }
    }

    fn rates(&mut self, effect: f64, dice: &mut Dice) -> [Rates; 2] {
        let noise = match &self.setting.traffic.before {
            Kind::Latency(latency) => latency.load_noise,
            Kind::Rates(_) => 0.0,
        };
        if noise > 0.0 {
            let step = noise * (1.0 - 0.98_f64 * 0.98).sqrt();
            self.load_ln = 0.98 * self.load_ln + step * dice.normal();
        } else if let Some((same, rates)) = self.steady
            && same == effect
        {
            return rates;
        }
        let rates = self.setting.traffic.rates(effect, self.load_ln);
        self.steady = Some((effect, rates));
        rates
    }

    /// The share of a group's traffic of this second that meets a stalled pod.
    fn stalled(&mut self, group: usize, dice: &mut Dice) -> f64 {
        let (Some(pause), Some(pods)) = (self.setting.pause, self.setting.pods) else {
            return 0.0;
        };
        let apart = u32::from(self.placebo);
        let pods = f64::from([pods.baseline - apart, pods.canary, apart][group]);
        for _ in 0..dice.poisson(pods / pause.every) {
            self.stalls[group].push(dice.uniform());
        }
        let mut stalled = 0.0;
        for begin in &mut self.stalls[group] {
            stalled += (*begin + pause.length).min(1.0) - begin.max(0.0);
            *begin -= 1.0;
        }
        self.stalls[group].retain(|begin| begin + pause.length > 0.0);
        (stalled / pods).min(1.0)
    }
}

/// The requests of an arm in a second.
struct Requests {
    started: u64,
    /// Of these, those that met a stalled pod: slow at every edge, and nothing else.
    hit: u64,
    /// Of the others, failed and refused ones, and those beyond each edge.
    failed: u64,
    refused: u64,
    slow: [u64; EDGES],
}

impl Requests {
    /// Counts of an arm, and the same requests as trials.
    fn counts(&self, rates: &Rates, promotion: bool, dice: &mut Dice) -> (ArmCounts, TrialCounts) {
        let Self { started, hit, failed, refused, slow } = *self;
        let slow = slow.map(|count| count + hit);
        let counts = ArmCounts::of_requests(started, [failed, failed], refused, slow);
        if !promotion {
            return (counts, TrialCounts::default());
        }
        // The proofs are judged apart, each by its own distribution; nothing depends on their
        // joint one.
        let beyond_margin =
            rates.beyond_margin.map(|rate| dice.binomial(started - hit, rate) + hit);
        let trials = TrialCounts { started, failed, beyond_margin, ..TrialCounts::default() };
        (counts, trials)
    }
}

/// Counts beyond the edges from those between them.
fn beyond(between: &[u64; EDGES + 1]) -> [u64; EDGES] {
    let mut beyond = [0; EDGES];
    let mut sum = 0;
    for (count, above) in beyond.iter_mut().zip(&between[1..]).rev() {
        sum += above;
        *count = sum;
    }
    beyond
}

/// An arm's counts, drawn one after the other.
fn arm(
    started: u64,
    rates: &Rates,
    stalled: f64,
    promotion: bool,
    dice: &mut Dice,
) -> (ArmCounts, TrialCounts) {
    let hit = dice.binomial(started, stalled);
    let free = started - hit;
    let requests = Requests {
        started,
        hit,
        failed: dice.binomial(free, rates.errors),
        refused: dice.binomial(free, rates.refused),
        slow: nested(free, &rates.slow, dice),
    };
    requests.counts(rates, promotion, dice)
}

/// Counts beyond edges of falling probability, each among those beyond the one before.
fn nested<const N: usize>(started: u64, rates: &[f64; N], dice: &mut Dice) -> [u64; N] {
    let mut counts = [0; N];
    let (mut among, mut share) = (started, 1.0);
    for (count, rate) in counts.iter_mut().zip(rates) {
        *count = if share > 0.0 { dice.binomial(among, (rate / share).min(1.0)) } else { 0 };
        (among, share) = (*count, *rate);
    }
    counts
}
