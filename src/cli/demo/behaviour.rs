//! How the demo's upstreams behave, and how one of them goes wrong.

use std::{f64::consts::TAU, time::Duration};

use clap::ValueEnum;

/// What happens to the canary.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Regress {
    /// Every answer takes half as long again
    Latency,
    /// One answer in ten is a 500
    Errors,
    /// One answer in twenty takes eight times as long
    Tail,
    /// Nothing
    None,
}

impl Regress {
    /// What an onlooker is told when it begins.
    pub(super) const fn story(self) -> &'static str {
        match self {
            Self::Latency => "from here on every answer of the canary takes half as long again",
            Self::Errors => "from here on one answer in ten of the canary is a 500",
            Self::Tail => "from here on one answer in twenty of the canary takes 8 times as long",
            Self::None => "nothing happens to the canary",
        }
    }
}

/// How long answers take and how many fail.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Behaviour {
    latency_factor: f64,
    tail_share: f64,
    tail_factor: f64,
    errors: f64,
}

/// Median of a healthy answer, in seconds.
const MEDIAN: f64 = 0.012;
/// Standard deviation of the logarithm of a healthy answer's time.
const SIGMA: f64 = 0.35;

impl Behaviour {
    /// As it should be: log-normal times, no failures.
    pub(super) const HEALTHY: Self =
        Self { latency_factor: 1.0, tail_share: 0.0, tail_factor: 1.0, errors: 0.0 };

    /// With this regression in force.
    pub(super) const fn with(regress: Regress) -> Self {
        match regress {
            Regress::Latency => Self { latency_factor: 1.5, ..Self::HEALTHY },
            Regress::Errors => Self { errors: 0.1, ..Self::HEALTHY },
            Regress::Tail => Self { tail_share: 0.05, tail_factor: 8.0, ..Self::HEALTHY },
            Regress::None => Self::HEALTHY,
        }
    }

    /// The time that one answer takes, and whether it fails.
    pub(super) fn draw(&self, random: &mut fastrand::Rng) -> (Duration, bool) {
        // Box and Muller; 1 - u keeps the logarithm away from 0.
        let normal = (-2.0 * (1.0 - random.f64()).ln()).sqrt() * (TAU * random.f64()).cos();
        let tail = if random.f64() < self.tail_share { self.tail_factor } else { 1.0 };
        let seconds = MEDIAN * (SIGMA * normal).exp() * self.latency_factor * tail;
        (Duration::from_secs_f64(seconds), random.f64() < self.errors)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn draw_many(behaviour: Behaviour) -> (Vec<Duration>, usize) {
        let mut random = fastrand::Rng::with_seed(7);
        let drawn: Vec<_> = (0..10_000).map(|_| behaviour.draw(&mut random)).collect();
        let failed = drawn.iter().filter(|(_, failed)| *failed).count();
        let mut times: Vec<_> = drawn.into_iter().map(|(time, _)| time).collect();
        times.sort();
        (times, failed)
    }

    #[test]
    fn a_healthy_upstream_has_the_stated_median_and_never_fails() {
        let (times, failed) = draw_many(Behaviour::HEALTHY);
        let median = times[times.len() / 2].as_secs_f64();
        assert!((median / MEDIAN - 1.0).abs() < 0.02, "{median}");
        assert_eq!(failed, 0);
    }

    #[test]
    fn every_regression_shows_where_it_should() {
        let (healthy, _) = draw_many(Behaviour::HEALTHY);
        let rise = |times: &[Duration], place: usize| {
            times[place].as_secs_f64() / healthy[place].as_secs_f64()
        };
        let (slow, _) = draw_many(Behaviour::with(Regress::Latency));
        assert!((rise(&slow, 5_000) - 1.5).abs() < 0.01);
        let (tail, _) = draw_many(Behaviour::with(Regress::Tail));
        assert!(rise(&tail, 5_000) < 1.1 && rise(&tail, 9_900) > 2.0);
        let (_, failed) = draw_many(Behaviour::with(Regress::Errors));
        assert!((900..1_100).contains(&failed), "{failed}");
    }
}
