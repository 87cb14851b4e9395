//! What surrounds the requests of a run: the rate, the common load, and how different the canary
//! is at a moment.

use rand_distr::{Distribution, StandardNormal};

use super::{Random, Stream, random};
use crate::lab::scenario::{Rate, Scenario, Slower};

/// How much of the common log-load is left after a second.
const LOAD_MEMORY: f64 = 0.98;

/// Conditions during one tick of 100 ms.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Conditions {
    /// Requests expected per second.
    pub rate: f64,
    /// Factor on every latency of both arms.
    pub load: f64,
    /// How the baseline and the canary behave.
    pub arms: [Arm; 2],
}

/// How an arm answers at a moment, beside the latency that both arms share.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Arm {
    /// Factor on every latency.
    pub latency_factor: f64,
    /// Share of requests that fail.
    pub errors: f64,
    /// Share of requests that are never answered.
    pub hang: f64,
    /// Share of requests that are slower, and how.
    pub tail: (f64, Slower),
}

impl Arm {
    /// The baseline.
    #[must_use]
    pub fn baseline(scenario: &Scenario) -> Self {
        Self {
            latency_factor: 1.0,
            errors: scenario.baseline.errors,
            hang: 0.0,
            tail: (0.0, Slower::Factor(1.0)),
        }
    }

    /// The canary, a moment in seconds after the start of the run.
    #[must_use]
    pub fn canary(scenario: &Scenario, at: f64) -> Self {
        Self::changed(scenario, at, 1.0)
    }

    /// An arm that suffers a part of what is wrong with the canary.
    fn changed(scenario: &Scenario, at: f64, part: f64) -> Self {
        let baseline = Self::baseline(scenario);
        let change = &scenario.canary;
        let since = at - change.after.as_secs_f64();
        if since < 0.0 || part == 0.0 {
            return baseline;
        }
        let ramp = change.ramp.as_secs_f64();
        let grown = part * if ramp > 0.0 { (since / ramp).min(1.0) } else { 1.0 };
        let errors = change.errors.unwrap_or(baseline.errors);
        let (share, slower) =
            change.tail.map_or(baseline.tail, |tail| (tail.share * grown, tail.slower));
        Self {
            latency_factor: 1.0 + (change.latency_factor - 1.0) * grown,
            errors: baseline.errors + (errors - baseline.errors) * grown,
            hang: change.hang * grown,
            tail: (share, slower),
        }
    }
}

/// The conditions of a run, tick by tick.
#[derive(Debug)]
pub struct Weather<'a> {
    scenario: &'a Scenario,
    random: Random,
    log_load: f64,
    tick: u32,
    lead: u32,
}

impl<'a> Weather<'a> {
    /// The weather of one run, which begins `lead` ticks before its start: until then the rate is
    /// that of the start.
    #[must_use]
    pub fn new(scenario: &'a Scenario, run: u32, lead: u32) -> Self {
        let mut random = random(scenario.seed, run, Stream::Weather);
        let start: f64 = StandardNormal.sample(&mut random);
        Self { scenario, random, log_load: start * scenario.load_noise, tick: 0, lead }
    }

    /// The conditions of the next tick.
    pub fn next_tick(&mut self) -> Conditions {
        let at = (f64::from(self.tick) - f64::from(self.lead)) * 0.1;
        if self.scenario.load_noise > 0.0 && self.tick > 0 && self.tick.is_multiple_of(10) {
            let fresh: f64 = StandardNormal.sample(&mut self.random);
            let spread = self.scenario.load_noise * (1.0 - LOAD_MEMORY * LOAD_MEMORY).sqrt();
            self.log_load = LOAD_MEMORY * self.log_load + spread * fresh;
        }
        self.tick += 1;
        Conditions {
            rate: rate_at(self.scenario, at.max(0.0)),
            load: self.log_load.exp(),
            arms: [self.scenario.canary.spill, 1.0]
                .map(|part| Arm::changed(self.scenario, at, part)),
        }
    }
}

/// Requests per second at a moment, bursts included.
#[must_use]
pub fn rate_at(scenario: &Scenario, at: f64) -> f64 {
    let rate = match &scenario.rate {
        Rate::Steps(steps) => {
            let current = steps.partition_point(|(from, _)| from.as_secs_f64() <= at);
            steps[current.max(1) - 1].1
        }
        Rate::Wave { mean, swing, every } => {
            let phase = std::f64::consts::TAU * at / every.as_secs_f64();
            mean * (1.0 + swing * phase.sin())
        }
    };
    match scenario.burst {
        Some(burst) => {
            let every = burst.every.as_secs_f64();
            let bursting = at >= every && at % every < burst.length.as_secs_f64();
            if bursting { rate * burst.factor } else { rate }
        }
        None => rate,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::lab::scenario::{Burst, Change};

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn a_schedule_holds_each_rate_from_its_moment_on() {
        let scenario = Scenario {
            rate: Rate::Steps(vec![(seconds(0), 200.0), (seconds(300), 800.0)]),
            ..Scenario::default()
        };
        assert_eq!(rate_at(&scenario, 0.0), 200.0);
        assert_eq!(rate_at(&scenario, 299.9), 200.0);
        assert_eq!(rate_at(&scenario, 300.0), 800.0);
    }

    #[test]
    fn bursts_multiply_the_rate_while_they_last() {
        let burst = Burst { every: seconds(60), length: seconds(5), factor: 3.0 };
        let scenario = Scenario { burst: Some(burst), ..Scenario::default() };
        assert_eq!(rate_at(&scenario, 1.0), 500.0);
        assert_eq!(rate_at(&scenario, 60.0), 1500.0);
        assert_eq!(rate_at(&scenario, 64.9), 1500.0);
        assert_eq!(rate_at(&scenario, 65.0), 500.0);
    }

    #[test]
    fn a_ramp_grows_linearly_from_the_onset() {
        let canary = Change {
            latency_factor: 2.0,
            errors: Some(0.101),
            after: seconds(100),
            ramp: seconds(50),
            ..Change::default()
        };
        let scenario = Scenario { canary, ..Scenario::default() };
        assert_eq!(Arm::canary(&scenario, 99.9), Arm::baseline(&scenario));
        let half = Arm::canary(&scenario, 125.0);
        assert!((half.latency_factor - 1.5).abs() < 1e-9);
        assert!((half.errors - 0.051).abs() < 1e-9);
        assert!((Arm::canary(&scenario, 500.0).latency_factor - 2.0).abs() < 1e-9);
    }

    #[test]
    fn what_spills_over_hits_the_baseline_in_part() {
        let canary = Change { errors: Some(0.201), spill: 0.5, ..Change::default() };
        let scenario = Scenario { canary, ..Scenario::default() };
        let conditions = Weather::new(&scenario, 0, 1).next_tick();
        assert_eq!(conditions.arms, [Arm::baseline(&scenario); 2], "before the start");
        let [baseline, canary] = Weather::new(&scenario, 0, 0).next_tick().arms;
        assert!((baseline.errors - 0.101).abs() < 1e-9);
        assert!((canary.errors - 0.201).abs() < 1e-9);
    }

    #[test]
    fn the_load_has_the_spread_that_was_asked_for() {
        let scenario = Scenario { load_noise: 0.2, ..Scenario::default() };
        let mut sum = 0.0;
        let runs = 400;
        for run in 0..runs {
            let mut weather = Weather::new(&scenario, run, 0);
            let mut last = 1.0;
            for _ in 0..600 {
                last = weather.next_tick().load;
            }
            sum += last.ln().powi(2);
        }
        let spread = (sum / f64::from(runs)).sqrt();
        assert!((0.17..0.23).contains(&spread), "{spread}");
    }
}
