//! A scenario for the engine that draws whole blocks, where that is exact: a coin per request,
//! nothing in flight over a change of weights, nothing that only single requests show.

use std::time::Duration;

use super::{
    blocks::{self, Kind, Latency, Load, Setting, Shards, Stage, Traffic, Weights},
    record::Record,
    rivals::Stopped,
    scenario::{Flaw, Rate, Scenario, Slower, Weighting},
};
use crate::judge;

/// The setting of the block-level engine; `None` where the scenario needs single requests.
#[must_use]
pub fn setting(scenario: &Scenario) -> Option<Setting> {
    let by_request_only = scenario.users.is_some()
        || scenario.slow.is_some()
        || scenario.burst.is_some()
        || scenario.canary.hang > 0.0
        || scenario.canary.spill > 0.0
        || scenario.retries > 0
        || !matches!(scenario.flaw, None | Some(Flaw::NoThinning))
        || scenario.judge_config().block_ticks < 10
        || meets_the_timeout(scenario);
    if by_request_only {
        return None;
    }
    let pods = scenario.pods;
    Some(Setting {
        seconds: whole_seconds(scenario.duration)?,
        load: load(scenario)?,
        traffic: Traffic {
            before: Kind::Latency(latency(scenario)?),
            onset: whole_seconds(scenario.canary.after)?,
            ramp: whole_seconds(scenario.canary.ramp)?,
        },
        shards: Shards::ONE,
        weights: weights(scenario)?,
        pods: pods.map(|pods| judge::Pods { canary: pods.canary, baseline: pods.baseline }),
        pods_known: pods.is_some_and(|pods| pods.known) && scenario.flaw.is_none(),
        pause: pods.and_then(|pods| pods.pause).map(|pause| blocks::Pause {
            every: pause.every.as_secs_f64(),
            length: pause.length.as_secs_f64(),
        }),
        judge: scenario.judge_config(),
        promotion: false,
    })
}

/// How long the placebo has been running when a rollout begins.
const PLACEBO: Duration = Duration::from_secs(3600);

/// How long a placebo runs beforehand to find the length of blocks; `None` where the scenario
/// sets the length, or no endpoint of the baseline can be told apart to be one.
#[must_use]
pub fn placebo(scenario: &Scenario) -> Option<Duration> {
    let told_apart = scenario.pods.is_some_and(|pods| pods.known && pods.baseline >= 2);
    (scenario.judge.block.is_none() && told_apart && scenario.flaw.is_none()).then_some(PLACEBO)
}

/// Plays one run, its length of blocks found by a placebo if there is one.
#[must_use]
pub fn play(stage: &Stage<'_>, placebo: Option<Duration>, seed: u64, run: u32) -> Record {
    let run = u64::from(run);
    let outcome = match placebo {
        Some(before) => stage.play_calibrated(before.as_secs() as u32, seed, run),
        None => stage.play(seed, run),
    };
    let seconds = |second: Option<u32>| second.map(f64::from);
    Record {
        rolled_back: seconds(outcome.rolled_back).map(|at| Stopped {
            at,
            canary_requests: outcome.canary_requests,
            excess_bad: outcome.excess_bad,
        }),
        cautioned: seconds(outcome.cautioned),
        promoted: seconds(outcome.promoted),
        opened: None,
        rivals: Vec::new(),
    }
}

fn whole_seconds(duration: Duration) -> Option<u32> {
    (duration.subsec_nanos() == 0).then(|| u32::try_from(duration.as_secs()).ok()).flatten()
}

/// Whether latencies come near the timeout: six standard deviations of the slowest requests.
fn meets_the_timeout(scenario: &Scenario) -> bool {
    let tail = match scenario.canary.tail.map(|tail| tail.slower) {
        Some(Slower::Factor(factor)) => factor.max(1.0),
        Some(Slower::Latency(_)) | None => 1.0,
    };
    let slowest = scenario.baseline.median.as_secs_f64()
        * (6.0 * (scenario.baseline.sigma.powi(2) + scenario.load_noise.powi(2)).sqrt()).exp()
        * scenario.canary.latency_factor.max(1.0)
        * tail;
    slowest >= scenario.timeout.as_secs_f64()
}

fn load(scenario: &Scenario) -> Option<Load> {
    match &scenario.rate {
        Rate::Steps(steps) => match steps.as_slice() {
            [(_, rps)] => Some(Load::constant(*rps)),
            [(_, rps), (at, then)] if *at * 2 == scenario.duration => {
                Some(Load { step: then / rps, ..Load::constant(*rps) })
            }
            _ => None,
        },
        Rate::Wave { mean, swing, every } if *every == Duration::from_secs(600) => {
            Some(Load { swing: *swing, ..Load::constant(*mean) })
        }
        Rate::Wave { .. } => None,
    }
}

fn latency(scenario: &Scenario) -> Option<Latency> {
    let (baseline, canary) = (&scenario.baseline, &scenario.canary);
    let (tail_share, tail_factor) = match canary.tail.map(|tail| (tail.share, tail.slower)) {
        None => (0.0, 1.0),
        Some((share, Slower::Factor(factor))) => (share, factor),
        Some((_, Slower::Latency(_))) => return None,
    };
    let tolerate = &scenario.judge.tolerate;
    // The floor of the tolerance matters below this latency only; p75 is the lowest deadline.
    let floor_up_to = tolerate.latency_floor.as_secs_f64() / tolerate.latency.max(1e-9);
    if floor_up_to > baseline.median.as_secs_f64() {
        return None;
    }
    Some(Latency {
        sigma: baseline.sigma,
        factor: canary.latency_factor,
        tail_share,
        tail_factor,
        tolerance: tolerate.latency,
        margin: scenario.judge.promote_within.latency,
        errors: [baseline.errors, canary.errors.unwrap_or(baseline.errors)],
        load_noise: scenario.load_noise,
    })
}

fn weights(scenario: &Scenario) -> Option<Weights> {
    let share = |weight_bp: u16| f64::from(weight_bp) / 10_000.0;
    match &scenario.weighting {
        Weighting::Fixed(weight_bp) => Some(Weights::Fixed(share(*weight_bp))),
        Weighting::Steps(steps) => {
            let step = |(at, bp): &(Duration, u16)| Some((whole_seconds(*at)?, share(*bp)));
            Some(Weights::Ladder(steps.iter().map(step).collect::<Option<_>>()?))
        }
        Weighting::Flap { between, every } => {
            Some(Weights::Flapping { between: between.map(share), every: whole_seconds(*every)? })
        }
        Weighting::React { between } => Some(Weights::Reacting { between: between.map(share) }),
        Weighting::Plan(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lab::scenario::{Change, Pause, Pods, Tail, Users};

    #[test]
    fn coins_and_plain_latencies_are_drawn_by_block() {
        let setting = setting(&Scenario::default()).unwrap();
        assert_eq!(setting.seconds, 1800);
        assert_eq!(setting.load, Load::constant(500.0));
    }

    #[test]
    fn what_needs_single_requests_is_not() {
        let hang = Change { hang: 0.01, ..Change::default() };
        let tail = Tail { share: 0.01, slower: Slower::Latency(Duration::from_millis(90)) };
        let exact = Change { tail: Some(tail), ..Change::default() };
        for scenario in [
            Scenario { users: Some(Users { count: 5, zipf: 1.0 }), ..Scenario::default() },
            Scenario { canary: hang, ..Scenario::default() },
            Scenario { canary: exact, ..Scenario::default() },
            Scenario { timeout: Duration::from_millis(300), ..Scenario::default() },
            Scenario { flaw: Some(Flaw::NoEpochTag), ..Scenario::default() },
        ] {
            assert_eq!(setting(&scenario), None);
        }
    }

    #[test]
    fn a_placebo_finds_the_length_of_blocks_where_none_is_set() {
        let every = Duration::from_secs(300);
        let pause = Some(Pause { every, length: Duration::from_secs(15) });
        let pods = Some(Pods { baseline: 10, canary: 1, pause, known: true });
        let auto = Scenario { pods, weighting: Weighting::Fixed(1000), ..Scenario::default() };
        assert_eq!(auto.judge.block, None);
        let mut short = auto.clone();
        short.judge.block = Some(Duration::from_secs(1));
        let rolled_back = |scenario: &Scenario| {
            let setting = setting(scenario).unwrap();
            let stage = Stage::new(&setting);
            let play = |run| play(&stage, placebo(scenario), 1, run);
            (0..6).filter(|run| play(*run).rolled_back.is_some()).count()
        };
        assert_eq!(placebo(&short), None);
        assert_eq!(rolled_back(&auto), 0);
        assert!(rolled_back(&short) >= 3);
    }

    #[test]
    fn the_same_run_is_the_same() {
        let scenario = Scenario {
            canary: Change { latency_factor: 2.0, ..Change::default() },
            ..Scenario::default()
        };
        let setting = setting(&scenario).unwrap();
        let stage = Stage::new(&setting);
        let record = play(&stage, None, 7, 3);
        assert!(record.rolled_back.is_some_and(|stopped| stopped.at < 120.0), "{record:?}");
        assert_eq!(record, play(&stage, None, 7, 3));
    }
}
