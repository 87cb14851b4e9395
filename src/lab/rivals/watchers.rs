//! Flagger and Argo Rollouts: a limit, checked once a minute. Kayenta: see its own file.

use super::{Minute, kayenta::Kayenta};
use crate::lab::scenario::Scenario;

/// Least share of requests that must succeed, for those who check a fixed limit: Flagger's
/// tutorials and Argo's both use 99 %.
const LEAST_SUCCESS: f64 = 0.99;

/// Failed checks after which Flagger rolls back.
const FLAGGER_THRESHOLD: u32 = 5;

/// A rival and how it is set up.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rival {
    /// Its name in the output.
    pub name: &'static str,
    /// How it is set up, for people.
    pub about: &'static str,
    rule: Rule,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Rule {
    /// The limit of p99 as a multiple of the baseline's true p99.
    Flagger {
        limit: f64,
    },
    Argo {
        limit: f64,
    },
    Kayenta,
}

/// The rivals, in the order of the output.
pub const RIVALS: [Rival; 5] = [
    Rival {
        name: "flagger",
        about: "60 s checks, threshold 5, p99 limit 1.25 x the baseline's",
        rule: Rule::Flagger { limit: 1.25 },
    },
    Rival {
        name: "flagger_wide",
        about: "60 s checks, threshold 5, p99 limit 1.5 x the baseline's",
        rule: Rule::Flagger { limit: 1.5 },
    },
    Rival {
        name: "argo",
        about: "60 s checks, failureLimit 0, p99 limit 1.25 x the baseline's",
        rule: Rule::Argo { limit: 1.25 },
    },
    Rival {
        name: "argo_wide",
        about: "60 s checks, failureLimit 0, p99 limit 1.5 x the baseline's",
        rule: Rule::Argo { limit: 1.5 },
    },
    Rival {
        name: "kayenta",
        about: "Mann-Whitney on one-minute p99 and error rate, confidence .98, tolerance .25",
        rule: Rule::Kayenta,
    },
];

impl Rival {
    pub(super) fn watch(&self, scenario: &Scenario) -> Watcher {
        let limit = |limit| limit * scenario.baseline.p99();
        match self.rule {
            Rule::Flagger { limit: factor } => {
                Watcher::Flagger { limit: limit(factor), failed_checks: 0 }
            }
            Rule::Argo { limit: factor } => Watcher::Argo { limit: limit(factor) },
            Rule::Kayenta => Watcher::Kayenta(Kayenta::default()),
        }
    }
}

/// A rival on one run.
#[derive(Debug)]
pub(super) enum Watcher {
    /// `pkg/controller/scheduler.go`: failed checks add up and are never forgiven; the rollback
    /// comes at the tick after the one that reached the threshold. A query without values fails.
    Flagger { limit: f64, failed_checks: u32 },
    /// `analysis_types.go`: with the default `failureLimit` of 0 one failed measurement aborts.
    Argo { limit: f64 },
    /// `NetflixACAJudge`, asked every minute.
    Kayenta(Kayenta),
}

impl Watcher {
    /// Looks at the last minute; true when it rolls back.
    pub(super) fn look(&mut self, minute: &Minute) -> bool {
        match self {
            Self::Flagger { limit, failed_checks } => {
                if *failed_checks >= FLAGGER_THRESHOLD {
                    return true;
                }
                *failed_checks += u32::from(!passes(minute, *limit));
                false
            }
            // Argo takes an empty result for an error, of which the default allows four in a row.
            Self::Argo { limit } => minute.canary.started > 0 && !passes(minute, *limit),
            Self::Kayenta(kayenta) => kayenta.look(minute),
        }
    }
}

fn passes(minute: &Minute, limit: f64) -> bool {
    let canary = &minute.canary;
    match (canary.p99(), canary.error_share()) {
        (Some(p99), Some(errors)) => p99 <= limit && errors <= 1.0 - LEAST_SUCCESS,
        (None, _) | (_, None) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lab::{
        rivals::{Stopped, Watchers},
        traffic::{End, Request},
    };

    /// What each rival did when the canary's p99 was so many times the baseline's, in each
    /// minute.
    fn play(factors: &[Option<f64>]) -> Vec<Option<Stopped>> {
        let scenario = Scenario::default();
        let mut watchers = Watchers::new(&scenario);
        let p99_us = scenario.baseline.p99() * 1e6;
        for (minute, factor) in factors.iter().enumerate() {
            for (canary, factor) in [(false, Some(1.0)), (true, *factor)] {
                let Some(factor) = factor else { continue };
                for _ in 0..100 {
                    let latency_us = (p99_us * factor) as u32;
                    let end = End::Ok;
                    watchers.see(&Request { user: 0, canary, arrival_us: 0, end, latency_us });
                }
            }
            watchers.second(minute as u32 * 60 + 60);
        }
        watchers.stopped().collect()
    }

    fn at(stopped: Option<Stopped>) -> Option<f64> {
        stopped.map(|stopped| stopped.at)
    }

    #[test]
    fn flagger_needs_six_minutes() {
        assert_eq!(at(play(&[Some(2.0); 10])[0]), Some(360.0));
        assert_eq!(at(play(&[Some(2.0); 5])[0]), None);
    }

    #[test]
    fn flagger_forgets_no_failure() {
        let mut minutes = Vec::new();
        for _ in 0..5 {
            minutes.extend([Some(2.0), Some(1.0), Some(1.0)]);
        }
        assert_eq!(at(play(&minutes)[0]), Some(14.0 * 60.0));
    }

    #[test]
    fn flagger_takes_no_values_for_a_failure_and_argo_does_not() {
        let stopped = play(&[None; 10]);
        assert_eq!((at(stopped[0]), at(stopped[2])), (Some(360.0), None));
    }

    #[test]
    fn argo_aborts_at_the_first_failure() {
        let stopped = play(&[Some(1.0), Some(1.4), Some(1.0)]);
        assert_eq!((at(stopped[2]), at(stopped[3])), (Some(120.0), None));
    }

    #[test]
    fn kayenta_sees_a_plain_difference_after_five_points() {
        let factors: Vec<_> = (0..10).map(|minute| Some(2.0 + f64::from(minute) * 0.1)).collect();
        let stopped = play(&factors);
        assert_eq!(at(stopped[4]), Some(300.0));
    }
}
