//! Calibration of the block length: how long single pods are disturbed here, found without a
//! canary.

use serde::{Deserialize, Serialize};

use super::{
    ArmCounts, BankName, Block, Coin, Definition, Ending, JudgeConfig, Lag, Pods, Stratum,
    TICK_SECONDS, bank::Bank, evidence::Workbench, gather::Gathering,
};

/// Candidate block lengths in seconds.
pub const BLOCK_SECONDS: [u32; 4] = [1, 5, 20, 60];

/// Odds at which a length is too short, and at which promotion stops.
const TOO_SHORT: f64 = 20.0;
const ALARM: f64 = 1000.0;

/// Seconds after which the placebo starts anew by itself. Another endpoint is picked once a day,
/// so that is only for those who do not.
const TWO_DAYS: f64 = 2.0 * 86_400.0;

/// Autocorrelation above which blocks are too short, and the memories in blocks over which it is
/// taken: a fresh and a long window, and both must exceed it.
const CORRELATED: f64 = 0.1;
const MEMORIES: [f64; 2] = [60.0, 600.0];

/// A second of baseline traffic seen as if one of its endpoints were a canary.
#[derive(Clone, Copy, Debug)]
pub struct Placebo<'a> {
    /// Length in ticks of 100 ms.
    pub ticks: u32,
    /// The endpoint picked for today.
    pub picked: &'a ArmCounts,
    /// All other endpoints of the baseline together.
    pub others: &'a ArmCounts,
    /// One, and the number of the others.
    pub pods: Pods,
}

/// One candidate length: the placebo's evidence at it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Candidate {
    seconds: u32,
    gathered: Gathering,
    banks: Vec<Bank>,
    /// Whether yesterday's placebo found it too short.
    failed_yesterday: bool,
    series: Autocorrelation,
}

/// The calibration of one service. It runs all the time, with a rollout or without.
///
/// A disturbance of single pods longer than a block breaks the exchangeability that the evidence
/// rests on. The placebo (a baseline endpoint labelled as canary) shows whether that happens; the
/// length certified is one step above the shortest that has stayed quiet. It is a calibration, not
/// a theorem: it decides the lengths of blocks to come, never of those seen.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Calibration {
    candidates: Vec<Candidate>,
    config: JudgeConfig,
    seconds: f64,
    #[serde(skip, default = "Workbench::new")]
    bench: Workbench,
}

impl Default for Calibration {
    fn default() -> Self {
        let candidate = |seconds| Candidate {
            seconds,
            gathered: Gathering::new(Lag::Slow),
            banks: banks(),
            failed_yesterday: false,
            series: Autocorrelation::default(),
        };
        Self {
            candidates: BLOCK_SECONDS.into_iter().map(candidate).collect(),
            config: JudgeConfig { tolerate_errors: 0.0, ..JudgeConfig::default() },
            seconds: 0.0,
            bench: Workbench::new(),
        }
    }
}

fn banks() -> Vec<Bank> {
    [BankName::Errors, BankName::Slow]
        .into_iter()
        .filter_map(|name| Bank::new(name, &Definition::ALL))
        .collect()
}

impl Calibration {
    /// Takes in a second of placebo counts, final at [`Lag::Slow`].
    pub fn placebo(&mut self, placebo: &Placebo<'_>) {
        self.seconds += f64::from(placebo.ticks) * TICK_SECONDS;
        if self.seconds >= TWO_DAYS {
            self.restart();
        }
        let strata = [Stratum {
            weights: 0,
            coin: Coin::Request,
            canary: *placebo.picked,
            baseline: *placebo.others,
        }];
        let block = Block {
            component: 0,
            lag: Lag::Slow,
            ticks: placebo.ticks,
            strata: &strata,
            pods: Some(placebo.pods),
            warming: false,
            ending: Ending::Open,
        };
        for candidate in &mut self.candidates {
            if candidate.gathered.add(&block, candidate.seconds * 10) {
                for bank in &mut candidate.banks {
                    self.bench.bet(&candidate.gathered.block(0), bank, &self.config);
                }
                candidate.gathered.clear();
            }
        }
    }

    /// Takes in a second of the canary against the baseline where endpoints cannot be told apart:
    /// then only the autocorrelation of the shares calibrates.
    pub fn shares(&mut self, ticks: u32, canary: &ArmCounts, baseline: &ArmCounts) {
        for candidate in &mut self.candidates {
            candidate.series.add(ticks, candidate.seconds * 10, canary, baseline);
        }
    }

    /// The weights changed, and the shares with them: their series begin anew. What they showed
    /// holds until there is enough to tell again.
    pub fn reweighed(&mut self) {
        for candidate in &mut self.candidates {
            candidate.series.restart();
        }
    }

    /// Another endpoint is picked, or a day has passed: the placebo starts anew, and what it
    /// found is remembered until the next restart.
    pub fn restart(&mut self) {
        self.seconds = 0.0;
        for candidate in &mut self.candidates {
            candidate.failed_yesterday = candidate.too_short();
            candidate.banks = banks();
            candidate.gathered.clear();
        }
    }

    /// The certified block length in ticks: one step above the shortest quiet one.
    #[must_use]
    pub fn block_ticks(&self) -> u32 {
        self.certified_seconds() * 10
    }

    fn certified_seconds(&self) -> u32 {
        let quiet =
            |c: &Candidate| !c.too_short() && !c.failed_yesterday && !c.series.is_correlated();
        let shortest = self.candidates.iter().position(quiet);
        let certified = shortest.map_or(usize::MAX, |i| i + 1).min(self.candidates.len() - 1);
        self.candidates[certified].seconds
    }

    /// Whether even blocks of the certified length mislead here: promotion must stop.
    #[must_use]
    pub fn alarm(&self) -> bool {
        let certified = self.certified_seconds();
        let mut usable = self.candidates.iter().filter(|c| c.seconds >= certified);
        usable.any(|c| c.peak_ln() >= ALARM.ln())
    }

    /// ln of the placebo's peak evidence at each of [`BLOCK_SECONDS`].
    pub fn peaks_ln(&self) -> impl Iterator<Item = (u32, f64)> + '_ {
        self.candidates.iter().map(|c| (c.seconds, c.peak_ln()))
    }
}

impl Candidate {
    /// Two banks share the odds.
    fn peak_ln(&self) -> f64 {
        self.banks.iter().map(|bank| bank.peak_ln() - 2.0_f64.ln()).fold(f64::MIN, f64::max)
    }

    fn too_short(&self) -> bool {
        self.peak_ln() >= TOO_SHORT.ln()
    }
}

/// Lag-1 autocorrelation of demeaned block shares of slow requests.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
struct Autocorrelation {
    ticks: u32,
    canary: u64,
    all: u64,
    before: Option<f64>,
    blocks: u64,
    windows: [Moments; 2],
    /// Whether the series before this one was correlated.
    was_correlated: bool,
}

/// Decayed moments of a series.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
struct Moments {
    mean: f64,
    variance: f64,
    product: f64,
}

impl Autocorrelation {
    fn add(&mut self, ticks: u32, length: u32, canary: &ArmCounts, baseline: &ArmCounts) {
        self.ticks = self.ticks.saturating_add(ticks);
        self.canary = self.canary.saturating_add(canary.slow[1]);
        self.all = self.all.saturating_add(canary.slow[1]).saturating_add(baseline.slow[1]);
        if self.ticks < length {
            return;
        }
        if self.all > 0 {
            self.observe(self.canary as f64 / self.all as f64);
        }
        (self.ticks, self.canary, self.all) = (0, 0, 0);
    }

    fn observe(&mut self, share: f64) {
        self.blocks += 1;
        for (window, memory) in self.windows.iter_mut().zip(MEMORIES) {
            let step = (1.0 / self.blocks as f64).max(1.0 / memory);
            window.mean += step * (share - window.mean);
            let from_mean = share - window.mean;
            window.variance += step * (from_mean * from_mean - window.variance);
            if let Some(before) = self.before {
                window.product += step * (from_mean * (before - window.mean) - window.product);
            }
        }
        self.before = Some(share);
    }

    fn restart(&mut self) {
        *self = Self { was_correlated: self.is_correlated(), ..Self::default() };
    }

    fn is_correlated(&self) -> bool {
        if (self.blocks as f64) < 2.0 * MEMORIES[0] {
            return self.was_correlated;
        }
        self.windows.iter().all(|w| w.product > CORRELATED * w.variance)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(started: u64, slow: u64) -> ArmCounts {
        ArmCounts::of_requests(started, [0, 0], 0, [slow, slow, slow / 2, slow / 5, 0])
    }

    fn play(seconds: u64, slow: impl Fn(u64) -> (u64, u64)) -> Calibration {
        let mut calibration = Calibration::default();
        for second in 0..seconds {
            let (picked, others) = slow(second);
            calibration.placebo(&Placebo {
                ticks: 10,
                picked: &counts(50, picked),
                others: &counts(450, others),
                pods: Pods { canary: 1, baseline: 9 },
            });
        }
        calibration
    }

    #[test]
    fn quiet_pods_certify_the_start() {
        let calibration = play(1200, |second| (3 + second % 4, 50 - second % 3));
        assert_eq!(calibration.block_ticks(), 50);
        assert!(!calibration.alarm());
    }

    #[test]
    fn pauses_of_a_few_seconds_ask_for_longer_blocks() {
        // Each of ten pods pauses for four seconds in turn.
        let calibration = play(3600, |second| match second / 8 % 10 {
            _ if second % 8 >= 4 => (1, 9),
            0 => (40, 9),
            _ => (1, 49),
        });
        assert!(
            calibration.block_ticks() >= 200,
            "{:?}",
            calibration.peaks_ln().collect::<Vec<_>>()
        );
    }

    #[test]
    fn a_bad_endpoint_in_the_baseline_is_an_alarm() {
        assert!(play(3600, |_| (40, 45)).alarm());
    }

    #[test]
    fn a_restart_remembers_what_was_found_for_a_day() {
        let mut calibration = play(3600, |_| (40, 45));
        let before = calibration.block_ticks();
        calibration.restart();
        assert_eq!(calibration.block_ticks(), before);
        calibration.restart();
        assert_eq!(calibration.block_ticks(), 50);
    }

    #[test]
    fn correlated_shares_ask_for_longer_blocks_where_endpoints_are_unknown() {
        let mut calibration = Calibration::default();
        for second in 0..7200_u64 {
            let slow = if second / 3 % 7 == 0 { 20 } else { 2 };
            calibration.shares(10, &counts(50, slow), &counts(450, 45));
        }
        assert!(calibration.block_ticks() > 50);
    }

    #[test]
    fn what_shares_showed_outlives_a_change_of_weights() {
        let mut calibration = Calibration::default();
        for second in 0..7200_u64 {
            let slow = if second / 3 % 7 == 0 { 20 } else { 2 };
            calibration.shares(10, &counts(50, slow), &counts(450, 45));
        }
        let before = calibration.block_ticks();
        calibration.reweighed();
        calibration.reweighed();
        assert_eq!(calibration.block_ticks(), before);
        for second in 0..7200_u64 {
            let slow = 4 + second * 7919 % 13 % 3;
            calibration.shares(10, &counts(250, slow), &counts(250, 25));
        }
        assert_eq!(calibration.block_ticks(), 50);
    }
}
