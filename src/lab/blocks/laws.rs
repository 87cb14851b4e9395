//! Counts of a second whose law does not change: how many requests of each arm come between each
//! two edges, drawn from tables that all rollouts of a setting share.
//!
//! Requests are a Poisson number of which each falls where it falls, whatever the others do: so
//! the numbers by arm and between edges are independent Poisson numbers themselves.

use super::{Dice, Kind, Rates, Setting, Weights};
use crate::judge::EDGES;

/// Tables at most: a ladder of many weights draws without them.
const MOST: usize = 64;

/// A law on whole numbers, drawn with a single random number by the alias method (Walker, ACM
/// TOMS 1977; set up as by Vose, IEEE TSE 1991).
#[derive(Clone, Debug)]
pub(super) struct Law {
    first: u64,
    /// By place: the part of it, of 2^64, that stands for itself, and the place that the rest
    /// stands for.
    places: Vec<(u64, u32)>,
}

impl Law {
    /// Poisson with a mean, but for what is less likely than 1e-18.
    pub(super) fn poisson(mean: f64) -> Self {
        const LEAST: f64 = 1e-18;
        let mode = mean.floor();
        let mut below = Vec::new();
        let (mut k, mut chance) = (mode, 1.0);
        while k > 0.0 && chance > LEAST {
            chance *= k / mean;
            k -= 1.0;
            below.push(chance);
        }
        let first = k as u64;
        let mut chances: Vec<f64> = below.into_iter().rev().collect();
        let (mut k, mut chance) = (mode, 1.0);
        while chance > LEAST {
            chances.push(chance);
            k += 1.0;
            chance *= mean / k;
        }
        Self { first, places: alias(&chances) }
    }

    pub(super) fn draw(&self, dice: &mut Dice) -> u64 {
        let wide = u128::from(dice.bits()) * self.places.len() as u128;
        let (place, rest) = ((wide >> 64) as usize, wide as u64);
        let (own, other) = self.places[place];
        self.first + if rest < own { place as u64 } else { u64::from(other) }
    }
}

fn alias(chances: &[f64]) -> Vec<(u64, u32)> {
    let scale = chances.len() as f64 / chances.iter().sum::<f64>();
    let mut left: Vec<f64> = chances.iter().map(|chance| chance * scale).collect();
    let mut places: Vec<(u64, u32)> = (0..left.len()).map(|i| (u64::MAX, i as u32)).collect();
    let (mut small, mut large): (Vec<usize>, Vec<usize>) =
        (0..left.len()).partition(|i| left[*i] < 1.0);
    while let (Some(low), Some(high)) = (small.pop(), large.last().copied()) {
        places[low] = ((left[low] * 2.0_f64.powi(64)) as u64, high as u32);
        left[high] -= 1.0 - left[low];
        if left[high] < 1.0 {
            large.pop();
            small.push(high);
        }
    }
    places
}

/// The numbers of an arm's requests between the edges, fastest first; none where none can come.
#[derive(Clone, Debug)]
pub(super) struct Bands([Option<Law>; EDGES + 1]);

impl Bands {
    fn new(mean: f64, rates: &Rates) -> Self {
        let mut above = 1.0;
        let mut band = |share: f64| {
            let of_band = mean * (above - share);
            above = share;
            (of_band > 0.0).then(|| Law::poisson(of_band))
        };
        let slow: [Option<Law>; EDGES] = rates.slow.map(&mut band);
        let beyond = band(0.0);
        let mut slow = slow.into_iter();
        Self(std::array::from_fn(|_| slow.next().unwrap_or_else(|| beyond.clone())))
    }

    pub(super) fn draw(&self, dice: &mut Dice) -> [u64; EDGES + 1] {
        self.0.each_ref().map(|law| law.as_ref().map_or(0, |law| law.draw(dice)))
    }
}

/// What the bands of both arms depend on, in a setting.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Conditions {
    pub(super) rps: f64,
    pub(super) weight: f64,
    pub(super) effect: f64,
}

/// The bands of both arms, where the conditions of a setting are few.
#[derive(Clone, Debug, Default)]
pub(super) struct Laws(Vec<(Conditions, [Bands; 2])>);

impl Laws {
    pub(super) fn new(setting: &Setting) -> Self {
        let noisy = matches!(&setting.traffic.before, Kind::Latency(l) if l.load_noise > 0.0);
        if noisy || setting.load.swing != 0.0 {
            return Self::default();
        }
        let weights: Vec<f64> = match &setting.weights {
            Weights::Fixed(weight) => vec![*weight],
            Weights::Ladder(steps) => steps.iter().map(|(_, weight)| *weight).collect(),
            Weights::Flapping { between, .. } | Weights::Reacting { between } => between.to_vec(),
        };
        let mut all: Vec<Conditions> = Vec::new();
        for weight in weights {
            for second in [0, setting.seconds] {
                for effect in [setting.traffic.effect(0), setting.traffic.effect(u32::MAX)] {
                    let rps = setting.load.at(second, setting.seconds);
                    let conditions = Conditions { rps, weight, effect };
                    if !all.contains(&conditions) {
                        all.push(conditions);
                    }
                }
            }
        }
        if all.len() * 2 * (EDGES + 1) > MOST {
            return Self::default();
        }
        let bands = |conditions: Conditions| {
            let Conditions { rps, weight, effect } = conditions;
            let [baseline, canary] = setting.traffic.rates(effect, 0.0);
            let means = [rps * (1.0 - weight), rps * weight];
            (conditions, [Bands::new(means[0], &baseline), Bands::new(means[1], &canary)])
        };
        Self(all.into_iter().map(bands).collect())
    }

    pub(super) fn of(&self, conditions: Conditions) -> Option<&[Bands; 2]> {
        self.0.iter().find(|(known, _)| *known == conditions).map(|(_, bands)| bands)
    }
}

/// Rare events among trials that go on from second to second: what is left of the gap before the
/// next one carries over, for a gap has no memory.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Gap {
    rate: f64,
    left: u64,
}

/// Events expected up to which counting gaps is faster than drawing their number.
const RARE: f64 = 2.0;

impl Gap {
    /// The number of events among `trials`: binomial.
    pub(super) fn among(&mut self, mut trials: u64, rate: f64, dice: &mut Dice) -> u64 {
        if rate <= 0.0 {
            return 0;
        }
        if trials as f64 * rate > RARE || rate > 0.5 {
            return dice.binomial(trials, rate);
        }
        if self.rate != rate {
            *self = Self { rate, left: Self::drawn(rate, dice) };
        }
        let mut events = 0;
        while self.left < trials {
            trials -= self.left + 1;
            events += 1;
            self.left = Self::drawn(rate, dice);
        }
        self.left -= trials;
        events
    }

    /// Trials before the next event: geometric.
    fn drawn(rate: f64, dice: &mut Dice) -> u64 {
        (dice.uniform().ln() / (-rate).ln_1p()) as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lab::blocks::{Latency, Traffic};

    const DRAWS: u32 = 200_000;

    /// Pearson's statistic of draws against another way to draw the same, over the classes that
    /// hold enough; and the classes.
    fn distance(mut a: impl FnMut() -> u64, mut b: impl FnMut() -> u64) -> (f64, f64) {
        let mut seen = std::collections::BTreeMap::<u64, [f64; 2]>::new();
        for _ in 0..DRAWS {
            seen.entry(a()).or_default()[0] += 1.0;
            seen.entry(b()).or_default()[1] += 1.0;
        }
        let enough = seen.values().filter(|[a, b]| a + b >= 20.0);
        enough.fold((0.0, 0.0), |(sum, classes), [a, b]| {
            (sum + (a - b).powi(2) / (a + b), classes + 1.0)
        })
    }

    fn check(what: &str, a: impl FnMut() -> u64, b: impl FnMut() -> u64) {
        let (statistic, classes) = distance(a, b);
        let most = classes + 4.5 * (2.0 * classes).sqrt() + 8.0;
        assert!(statistic < most, "{what}: {statistic} over {classes} classes");
    }

    #[test]
    fn tables_give_poisson_numbers() {
        for mean in [0.05, 0.9, 3.0, 26.0, 356.0] {
            let law = Law::poisson(mean);
            let (mut one, mut other) = (Dice::new(5, 0), Dice::new(6, 0));
            check(&format!("{mean}"), || law.draw(&mut one), || other.poisson(mean));
        }
    }

    #[test]
    fn gaps_give_binomial_numbers_whatever_the_trials() {
        for (trials, rate) in [([25, 31], 0.001), ([475, 3], 0.001), ([3, 0], 0.2)] {
            for of in [0, 1] {
                let (mut one, mut other) = (Dice::new(7, 0), Dice::new(8, 0));
                let (mut gap, mut second) = (Gap::default(), 0);
                let mut next = || {
                    second += 1;
                    gap.among(trials[second % 2], rate, &mut one)
                };
                let gaps = || [next(), next()][of];
                let direct = || other.binomial(trials[1 - of], rate);
                check(&format!("{trials:?} {rate}"), gaps, direct);
            }
        }
    }

    #[test]
    fn bands_add_up_to_the_rates() {
        let latency = Latency { factor: 1.3, errors: [0.01, 0.02], ..Latency::usual() };
        let setting = Setting { traffic: Traffic::of(latency), ..Setting::plain() };
        let laws = Laws::new(&setting);
        let effect = setting.traffic.effect(0);
        let bands = laws.of(Conditions { rps: 500.0, weight: 0.05, effect }).unwrap();
        let rates = setting.traffic.rates(effect, 0.0);
        let mut dice = Dice::new(9, 0);
        for (arm, mean) in [(0, 475.0), (1, 25.0)] {
            let mut sums = [0.0; EDGES + 1];
            for _ in 0..DRAWS {
                let drawn = bands[arm].draw(&mut dice);
                for (sum, count) in sums.iter_mut().zip(drawn) {
                    *sum += count as f64 / f64::from(DRAWS);
                }
            }
            for edge in 0..EDGES {
                let slow: f64 = sums[edge + 1..].iter().sum();
                let wanted = mean * rates[arm].slow[edge];
                let error = 5.0 * (wanted / f64::from(DRAWS)).sqrt();
                assert!((slow - wanted).abs() < error, "{arm} {edge}: {slow} {wanted}");
            }
            let all: f64 = sums.iter().sum();
            assert!((all - mean).abs() < 5.0 * (mean / f64::from(DRAWS)).sqrt(), "{all}");
        }
    }
}
