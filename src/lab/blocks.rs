//! Rollouts drawn block by block, where that is exact: a coin per request, counts drawn from
//! their distributions, the real judge on top. No requests are played; users, hangs and requests
//! in flight over a change of weights need the request-level simulation.

mod bounds;
mod by_request;
mod draw;
mod laws;
mod traffic;

use std::sync::atomic::{AtomicUsize, Ordering};

pub use bounds::{block_floor_requests, exact_interval, two_sample_requests};
pub use draw::{Dice, normal_tail};
pub use traffic::{Kind, Latency, Pause, Rates, Traffic};

use by_request::ByRequest;
use laws::Laws;
use traffic::Drawing;

use crate::judge::{
    ALL_RUNGS, ArmCounts, Block, Calibration, Definition, Ending, Judge, JudgeConfig, Lag, Placebo,
    Pods, Stratum, TrialStratum, Trials,
};

/// How the canary's weight moves.
#[derive(Clone, Debug, PartialEq)]
pub enum Weights {
    /// Not at all.
    Fixed(f64),
    /// By schedule: from each second on, that weight. The first begins at 0.
    Ladder(Vec<(u32, f64)>),
    /// Between two weights, every so many seconds.
    Flapping {
        /// The two weights.
        between: [f64; 2],
        /// Seconds between changes.
        every: u32,
    },
    /// With the evidence: the second weight while the odds against the canary are at least 3 : 1.
    Reacting {
        /// The two weights.
        between: [f64; 2],
    },
}

/// How the number of requests moves.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Load {
    /// Mean requests per second.
    pub rps: f64,
    /// Amplitude of a sine of ten minutes, as a share of the mean.
    pub swing: f64,
    /// From half of the time on, that many times the requests.
    pub step: f64,
}

impl Load {
    /// The same at all times.
    #[must_use]
    pub const fn constant(rps: f64) -> Self {
        Self { rps, swing: 0.0, step: 1.0 }
    }

    fn at(&self, second: u32, seconds: u32) -> f64 {
        let phase = std::f64::consts::TAU * f64::from(second) / 600.0;
        let step = if second * 2 >= seconds { self.step } else { 1.0 };
        self.rps * (1.0 + self.swing * phase.sin()) * step
    }
}

/// Proxies that tell each other their counts of each second; what arrives late is left out for
/// both arms. The load of a setting is that of one of them; weather and pods are common to all.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Shards {
    /// How many.
    pub count: u32,
    /// Share of the messages that are lost.
    pub lost: f64,
}

impl Shards {
    /// One proxy, which loses nothing.
    pub const ONE: Self = Self { count: 1, lost: 0.0 };
}

/// A rollout to play.
#[derive(Clone, Debug, PartialEq)]
pub struct Setting {
    /// Simulated seconds.
    pub seconds: u32,
    /// Requests.
    pub load: Load,
    /// What is bad, and by how much more of the canary.
    pub traffic: Traffic,
    /// The proxies.
    pub shards: Shards,
    /// The canary's weight.
    pub weights: Weights,
    /// The pods, and whether the judge knows them.
    pub pods: Option<Pods>,
    /// Whether the judge is told the number of pods.
    pub pods_known: bool,
    /// Stalls of single pods.
    pub pause: Option<Pause>,
    /// The judge; blocks of a rollback are as long as it says from the start.
    pub judge: JudgeConfig,
    /// Whether a promotion is asked for; the run then ends with it.
    pub promotion: bool,
}

/// What became of a rollout.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Outcome {
    /// Second in which it was rolled back.
    pub rolled_back: Option<u32>,
    /// Second in which the evidence of rollback blocks reached 20 : 1.
    pub reached_twenty: Option<u32>,
    /// Second in which caution began, on blocks of one second or on rollback blocks.
    pub cautioned: Option<u32>,
    /// Second in which its stage was proved.
    pub promoted: Option<u32>,
    /// Canary requests until the end.
    pub canary_requests: u64,
    /// Bad canary responses (failed, or slower than p99) beyond the baseline's share.
    pub excess_bad: f64,
}

/// A stage for rollouts of one setting, with what they have in common.
#[derive(Debug)]
pub struct Stage<'a> {
    setting: &'a Setting,
    laws: Laws,
}

impl<'a> Stage<'a> {
    /// A stage for a setting.
    #[must_use]
    pub fn new(setting: &'a Setting) -> Self {
        Self { setting, laws: Laws::new(setting) }
    }

    /// Plays one rollout. The same seed and run give the same outcome.
    #[must_use]
    pub fn play(&self, seed: u64, run: u64) -> Outcome {
        self.play_from(Dice::new(seed, run), None)
    }

    /// Plays one rollout whose block length is calibrated by a placebo, which has been running
    /// for `before` seconds when the rollout begins. The setting needs pods, two of the baseline
    /// at least.
    #[must_use]
    pub fn play_calibrated(&self, before: u32, seed: u64, run: u64) -> Outcome {
        let mut dice = Dice::new(seed, run);
        let mut calibration = Calibration::default();
        let mut drawn = Drawing::new(self.setting, &self.laws, true, &mut dice);
        for second in 0..before {
            calibrate(&mut calibration, self.setting, &drawn.second(second, 0.0, &mut dice));
        }
        self.play_from(dice, Some(calibration))
    }

    /// Plays one rollout judged request by request, as if every request were a coin of its own:
    /// what is tempting, and wrong where pods are disturbed.
    #[must_use]
    pub fn play_by_request(&self, definition: Definition, seed: u64, run: u64) -> Outcome {
        let mut dice = Dice::new(seed, run);
        let mut drawn = Drawing::new(self.setting, &self.laws, false, &mut dice);
        let mut evidence = ByRequest::default();
        let mut outcome = Outcome::default();
        for second in 0..self.setting.seconds {
            let weight = self.setting.scheduled(second).unwrap_or(0.0);
            let counts = drawn.second(second, weight, &mut dice);
            outcome.count(&counts.stratum);
            let Stratum { canary, baseline, .. } = &counts.stratum;
            let bad = [canary, baseline].map(|arm| definition.bad_events(arm));
            if evidence.add(bad, weight) >= -self.setting.judge.false_rollback.ln() {
                outcome.rolled_back = Some(second + 1);
                break;
            }
        }
        outcome
    }

    fn play_from(&self, mut dice: Dice, mut calibration: Option<Calibration>) -> Outcome {
        let setting = self.setting;
        let mut judge = Judge::new(setting.judge.clone());
        let mut drawn = Drawing::new(setting, &self.laws, calibration.is_some(), &mut dice);
        let mut outcome = Outcome::default();
        let mut weight = setting.weight_at(0, 0.0);
        for second in 0..setting.seconds {
            let counts = drawn.second(second, weight, &mut dice);
            outcome.count(&counts.stratum);
            if let Some(calibration) = &mut calibration {
                calibrate(calibration, setting, &counts);
                judge.set_block_ticks(calibration.block_ticks());
            }
            let next = setting.scheduled(second + 1);
            let ending =
                if next.is_some_and(|w| w != weight) { Ending::Scheduled } else { Ending::Open };
            let verdict = tell(&mut judge, setting, &counts, ending);
            outcome.note(second + 1, &verdict);
            if setting.promotion {
                judge.trials(&Trials {
                    ticks: 10,
                    strata: &[counts.trials],
                    pods: setting.known_pods(),
                    rungs: ALL_RUNGS,
                    ending: Ending::Open,
                });
                if judge.promotion().proved {
                    outcome.promoted = Some(second + 1);
                }
            }
            if outcome.rolled_back.is_some() || outcome.promoted.is_some() {
                break;
            }
            let after = setting.weight_at(second + 1, verdict.rollback_ln.max(verdict.caution_ln));
            if after != weight && ending == Ending::Open {
                drop_open_blocks(&mut judge);
            }
            weight = after;
        }
        outcome
    }
}

fn calibrate(calibration: &mut Calibration, setting: &Setting, counts: &Counts) {
    if let (Some((picked, others)), Some(pods)) = (&counts.placebo, setting.pods) {
        let pods = Pods { canary: 1, baseline: pods.baseline - 1 };
        calibration.placebo(&Placebo { ticks: 10, picked, others, pods });
    }
}

/// Plays many rollouts on as many threads, in the order of their numbers.
#[must_use]
pub fn play_many(setting: &Setting, seed: u64, runs: usize, threads: usize) -> Vec<Outcome> {
    let stage = Stage::new(setting);
    many(runs, threads, |run| stage.play(seed, run))
}

/// The outcomes of `play` for the numbers below `runs`, on as many threads, in their order.
#[must_use]
pub fn many(runs: usize, threads: usize, play: impl Fn(u64) -> Outcome + Sync) -> Vec<Outcome> {
    let next = AtomicUsize::new(0);
    let mut outcomes = vec![Outcome::default(); runs];
    let work = || {
        let mut mine = Vec::new();
        loop {
            let run = next.fetch_add(1, Ordering::Relaxed);
            if run >= runs {
                return mine;
            }
            mine.push((run, play(run as u64)));
        }
    };
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..threads.max(1)).map(|_| scope.spawn(work)).collect();
        for worker in workers {
            let Ok(mine) = worker.join() else {
                panic!("a simulation thread panicked");
            };
            for (run, outcome) in mine {
                outcomes[run] = outcome;
            }
        }
    });
    outcomes
}

impl Setting {
    /// A quiet baseline for scenarios to change: nothing differs, 30 minutes, 500 requests a
    /// second at 5 %, a log-normal latency of 20 ms.
    #[must_use]
    pub fn plain() -> Self {
        Self {
            seconds: 1800,
            load: Load::constant(500.0),
            traffic: Traffic::same(),
            shards: Shards::ONE,
            weights: Weights::Fixed(0.05),
            pods: None,
            pods_known: false,
            pause: None,
            judge: JudgeConfig { block_ticks: 10, ..JudgeConfig::default() },
            promotion: false,
        }
    }

    /// The share of the baseline's traffic that one of its pods takes.
    fn share_of_one(&self) -> f64 {
        self.pods.map_or(1.0, |pods| 1.0 / f64::from(pods.baseline.max(1)))
    }

    fn known_pods(&self) -> Option<Pods> {
        self.pods.filter(|_| self.pods_known)
    }

    /// The weight by plan; `None` where it depends on the evidence.
    fn scheduled(&self, second: u32) -> Option<f64> {
        match &self.weights {
            Weights::Fixed(weight) => Some(*weight),
            Weights::Ladder(steps) => {
                steps.iter().rev().find(|(from, _)| *from <= second).map(|(_, weight)| *weight)
            }
            Weights::Flapping { between, every } => {
                Some(between[(second / every.max(&1)) as usize % 2])
            }
            Weights::Reacting { .. } => None,
        }
    }

    fn weight_at(&self, second: u32, evidence_ln: f64) -> f64 {
        match &self.weights {
            Weights::Reacting { between } => between[usize::from(evidence_ln >= 3.0_f64.ln())],
            Weights::Fixed(_) | Weights::Ladder(_) | Weights::Flapping { .. } => {
                self.scheduled(second).unwrap_or(0.0)
            }
        }
    }
}

/// The counts of a second.
struct Counts {
    stratum: Stratum,
    trials: TrialStratum,
    /// One pod of the baseline, and its others.
    placebo: Option<(ArmCounts, ArmCounts)>,
}

fn tell(
    judge: &mut Judge,
    setting: &Setting,
    counts: &Counts,
    ending: Ending,
) -> crate::judge::Verdict {
    let mut verdict = judge.verdict();
    for lag in Lag::ALL {
        verdict = judge.block(&Block {
            component: 0,
            lag,
            ticks: 10,
            strata: &[counts.stratum],
            pods: setting.known_pods(),
            warming: false,
            ending,
        });
    }
    verdict
}

/// A change that the evidence caused: what is gathered of a longer block is dropped.
fn drop_open_blocks(judge: &mut Judge) {
    for lag in Lag::ALL {
        judge.block(&Block {
            component: 0,
            lag,
            ticks: 0,
            strata: &[],
            pods: None,
            warming: false,
            ending: Ending::Reacted,
        });
    }
}

impl Outcome {
    fn count(&mut self, stratum: &Stratum) {
        let bad = |arm: &ArmCounts| (arm.errors[1] + arm.slow[3]) as f64;
        let (canary, baseline) = (&stratum.canary, &stratum.baseline);
        self.canary_requests += canary.started;
        if baseline.started > 0 {
            let usual = bad(baseline) / baseline.started as f64;
            self.excess_bad += bad(canary) - usual * canary.started as f64;
        }
    }

    fn note(&mut self, second: u32, verdict: &crate::judge::Verdict) {
        if verdict.rollback_peak_ln >= verdict.threshold_ln {
            self.rolled_back.get_or_insert(second);
        }
        if verdict.rollback_peak_ln >= 20.0_f64.ln() {
            self.reached_twenty.get_or_insert(second);
        }
        if verdict.caution_peak_ln.max(verdict.rollback_peak_ln) >= 20.0_f64.ln() {
            self.cautioned.get_or_insert(second);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn twice_as_slow() -> Setting {
        let latency = Latency { factor: 2.0, ..Latency::usual() };
        Setting { traffic: Traffic::of(latency), ..Setting::plain() }
    }

    #[test]
    fn the_same_seed_gives_the_same_outcomes_on_any_number_of_threads() {
        let setting = Setting { seconds: 120, ..Setting::plain() };
        let one = play_many(&setting, 3, 8, 1);
        assert_eq!(one, play_many(&setting, 3, 8, 3));
        assert_ne!(one, play_many(&setting, 4, 8, 1));
    }

    #[test]
    fn a_canary_twice_as_slow_is_found_within_ten_seconds() {
        let outcomes = play_many(&twice_as_slow(), 1, 20, 2);
        let mean = outcomes.iter().map(|o| f64::from(o.rolled_back.unwrap())).sum::<f64>() / 20.0;
        assert!(mean <= 10.0, "{mean}");
    }

    #[test]
    fn an_equal_canary_is_left_alone_and_proved() {
        let setting = Setting {
            weights: Weights::Fixed(0.5),
            load: Load::constant(1000.0),
            promotion: true,
            seconds: 300,
            ..Setting::plain()
        };
        for outcome in play_many(&setting, 1, 10, 2) {
            assert_eq!(outcome.rolled_back, None);
            assert!(outcome.promoted.is_some());
        }
    }

    #[test]
    fn stalls_longer_than_a_block_mislead_unless_blocks_are_calibrated() {
        let setting = Setting {
            weights: Weights::Fixed(0.1),
            pods: Some(Pods { canary: 1, baseline: 10 }),
            pods_known: true,
            pause: Some(Pause { every: 300.0, length: 15.0 }),
            seconds: 900,
            ..Setting::plain()
        };
        let rolled_back = |outcomes: &[Outcome]| {
            outcomes.iter().filter(|outcome| outcome.rolled_back.is_some()).count()
        };
        assert!(rolled_back(&play_many(&setting, 1, 8, 2)) >= 4);
        let calibrated = {
            let stage = Stage::new(&setting);
            many(8, 2, |run| stage.play_calibrated(1800, 1, run))
        };
        assert_eq!(rolled_back(&calibrated), 0);
    }
}
