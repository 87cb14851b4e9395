//! Whether what should happen in the demo happened: pure checks over the counted run.

use std::time::Duration;

use super::{behaviour::Regress, story::Story, table::percent, tally::Run};
use crate::rollout::{Decision, Phase};

/// Fewer canary requests than this after the onset say nothing about a regression.
const ENOUGH: u64 = 100;
/// The same for a regression of the tail, of which 100 requests may hold too little.
const ENOUGH_FOR_TAIL: u64 = 200;

/// One thing that should be so.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Check {
    /// Whether it is.
    pub(super) passed: bool,
    /// What, with the numbers.
    pub(super) text: String,
}

/// All checks of a run; `counted` is what the proxy counted as assigned.
pub(super) fn checks(run: &Run, regress: Regress, counted: u64) -> Vec<Check> {
    let whole = run.whole();
    let (low, high) = run.expected_share();
    let sent = whole.served() + whole.unserved;
    let baseline_failed = whole.baseline.failed + whole.unserved;
    let mut checks = vec![
        Check {
            passed: whole.baseline.requests > 0 && whole.canary.requests > 0,
            text: format!(
                "both arms answered: baseline {}, canary {}",
                whole.baseline.requests, whole.canary.requests
            ),
        },
        Check {
            passed: whole.share().is_some_and(|share| (low..=high).contains(&share)),
            text: format!(
                "the canary's share is {}; by its weight and chance alone it is between {} and {} \
                 (99.99 %)",
                percent(whole.share()),
                percent(Some(low)),
                percent(Some(high))
            ),
        },
        Check {
            passed: counted == sent,
            text: format!("the proxy counted {counted} requests, the clients sent {sent}"),
        },
        Check {
            passed: baseline_failed == 0,
            text: format!("failed outside the canary: {baseline_failed}"),
        },
    ];
    checks.extend(regression(run, regress));
    checks
}

/// With less time than this after the onset nothing can be expected of a verdict, and with less
/// than this in all nothing of the plan.
const TIME_TO_JUDGE: Duration = Duration::from_secs(20);
const TIME_TO_CLIMB: Duration = Duration::from_secs(45);

/// Whether haldane decided what it should: took a bad canary back after it became bad, and let a
/// good one climb.
pub(super) fn decided(
    story: &Story,
    regress: Regress,
    onset: Duration,
    time: Duration,
) -> Option<Check> {
    let rolled_back = story.decisions.iter().find(|(_, it)| it.phase == Phase::RolledBack);
    let by_hand = |it: &Decision| !it.action.is_judged() && !it.action.begins();
    if story.decisions.iter().any(|(_, decision)| by_hand(decision)) {
        // Somebody took part: what comes of that is theirs.
        return None;
    }
    if regress == Regress::None {
        let highest = story.decisions.iter().map(|(_, it)| it.weight_bp).max().unwrap_or(0);
        let first = story.decisions.first().map_or(0, |(_, it)| it.weight_bp);
        return Some(Check {
            passed: rolled_back.is_none() && (highest > first || time < TIME_TO_CLIMB),
            text: match rolled_back {
                Some((at, _)) => format!("a healthy canary was rolled back at {} s", at.as_secs()),
                None => {
                    format!("a healthy canary reached {}", percent(Some(f64::from(highest) / 1e4)))
                }
            },
        });
    }
    let enough = time.saturating_sub(onset) >= TIME_TO_JUDGE;
    match rolled_back {
        Some((at, _)) => Some(Check {
            passed: *at >= onset,
            text: format!(
                "rolled back {:.0} s after the regression began",
                at.as_secs_f64() - onset.as_secs_f64()
            ),
        }),
        None => enough.then(|| Check {
            passed: false,
            text: format!(
                "never rolled back, {} s after the regression began",
                (time - onset).as_secs()
            ),
        }),
    }
}

fn regression(run: &Run, regress: Regress) -> Option<Check> {
    let (before, after) = (&run.before.canary, &run.after.canary);
    if regress == Regress::None {
        let failed = before.failed + after.failed;
        return Some(Check {
            passed: failed == 0,
            text: format!("failed in the canary: {failed}"),
        });
    }
    let enough = if regress == Regress::Tail { ENOUGH_FOR_TAIL } else { ENOUGH };
    if before.requests < ENOUGH || after.requests < enough {
        return None;
    }
    match regress {
        Regress::Latency => {
            let (was, is) = (before.quantile_ms(0.5)?, after.quantile_ms(0.5)?);
            Some(Check {
                passed: is > was * 1.2,
                text: format!("the canary's median went from {was:.1} ms to {is:.1} ms"),
            })
        }
        Regress::Errors => Some(Check {
            passed: before.failed == 0 && after.failed > 0,
            text: format!("failed in the canary: {} before, {} after", before.failed, after.failed),
        }),
        Regress::Tail => {
            let (was, is) = (before.quantile_ms(0.99)?, after.quantile_ms(0.99)?);
            Some(Check {
                passed: is > was * 1.2,
                text: format!("the canary's p99 went from {was:.1} ms to {is:.1} ms"),
            })
        }
        Regress::None => None,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::Instant;

    use super::*;
    use crate::cli::demo::load::{Sample, ServedBy};

    /// A run of 2,000 requests at 20 %, every fifth of them at the canary, with these latencies.
    fn run(canary_ms: [u64; 2], failed: bool) -> Run {
        let mut run = Run::new();
        for number in 0..2_000_u64 {
            let regressed = number >= 1_000;
            let canary = number % 5 == 0;
            let served_by = if canary { ServedBy::Canary } else { ServedBy::Baseline };
            let latency_ms = if canary { canary_ms[usize::from(regressed)] } else { 10 };
            let sample = Sample {
                due: Instant::now(),
                served_by: Some(served_by),
                latency: Duration::from_millis(latency_ms),
                failed: failed && canary && regressed,
            };
            run.record(&sample, regressed, 0.2);
        }
        run
    }

    fn passes(run: &Run, regress: Regress, counted: u64) -> bool {
        checks(run, regress, counted).iter().all(|check| check.passed)
    }

    #[test]
    fn a_run_as_planned_passes() {
        assert!(passes(&run([10, 10], false), Regress::None, 2_000));
        assert!(passes(&run([10, 15], false), Regress::Latency, 2_000));
        assert!(passes(&run([10, 80], false), Regress::Tail, 2_000));
        assert!(passes(&run([10, 10], true), Regress::Errors, 2_000));
    }

    #[test]
    fn a_regression_that_does_not_show_fails_the_demo() {
        assert!(!passes(&run([10, 10], false), Regress::Latency, 2_000));
        assert!(!passes(&run([10, 10], false), Regress::Errors, 2_000));
        assert!(!passes(&run([10, 10], true), Regress::None, 2_000));
    }

    #[test]
    fn a_miscount_fails_the_demo() {
        assert!(!passes(&run([10, 10], false), Regress::None, 1_999));
    }

    #[test]
    fn a_wrong_split_fails_the_demo() {
        let mut run = run([10, 10], false);
        for _ in 0..200 {
            let sample = Sample {
                due: Instant::now(),
                served_by: Some(ServedBy::Canary),
                latency: Duration::from_millis(10),
                failed: false,
            };
            run.record(&sample, true, 0.2);
        }
        assert!(!passes(&run, Regress::None, 2_200));
    }
}
