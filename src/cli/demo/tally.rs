//! Counts what the clients saw: per second for the table, over the last five seconds for its
//! quantiles, before and after the regression for the summary.

use std::collections::VecDeque;

use hdrhistogram::Histogram;

use super::load::{Sample, ServedBy};

/// Seconds that the quantiles of a line reach back.
pub(super) const WINDOW_SECONDS: usize = 5;

/// What was seen of one arm over some time.
#[derive(Clone, Debug)]
pub(super) struct ArmTally {
    /// Answers.
    pub(super) requests: u64,
    /// Answers that were failures.
    pub(super) failed: u64,
    latency_us: Histogram<u64>,
}

impl ArmTally {
    fn new() -> Self {
        let latency_us = Histogram::new_with_bounds(1, 60_000_000, 2).expect("constant bounds");
        Self { requests: 0, failed: 0, latency_us }
    }

    fn record(&mut self, sample: &Sample) {
        self.requests += 1;
        self.failed += u64::from(sample.failed);
        let micros = u64::try_from(sample.latency.as_micros()).unwrap_or(u64::MAX);
        self.latency_us.saturating_record(micros);
    }

    fn add(&mut self, other: &Self) {
        self.requests += other.requests;
        self.failed += other.failed;
        self.latency_us.add(&other.latency_us).expect("the same bounds");
    }

    /// A quantile in milliseconds; `None` without requests.
    pub(super) fn quantile_ms(&self, quantile: f64) -> Option<f64> {
        (self.requests > 0).then(|| self.latency_us.value_at_quantile(quantile) as f64 / 1000.0)
    }

    /// The share of failures; `None` without requests.
    pub(super) fn failed_share(&self) -> Option<f64> {
        (self.requests > 0).then(|| self.failed as f64 / self.requests as f64)
    }
}

/// What was seen of both arms over some time.
#[derive(Clone, Debug)]
pub(super) struct Tally {
    /// The baseline.
    pub(super) baseline: ArmTally,
    /// The canary.
    pub(super) canary: ArmTally,
    /// Requests without an answer of an upstream.
    pub(super) unserved: u64,
}

impl Tally {
    pub(super) fn new() -> Self {
        Self { baseline: ArmTally::new(), canary: ArmTally::new(), unserved: 0 }
    }

    fn record(&mut self, sample: &Sample) {
        match sample.served_by {
            Some(ServedBy::Baseline) => self.baseline.record(sample),
            Some(ServedBy::Canary) => self.canary.record(sample),
            None => self.unserved += 1,
        }
    }

    /// Adds another one.
    pub(super) fn add(&mut self, other: &Self) {
        self.baseline.add(&other.baseline);
        self.canary.add(&other.canary);
        self.unserved += other.unserved;
    }

    /// Requests of both arms.
    pub(super) const fn served(&self) -> u64 {
        self.baseline.requests + self.canary.requests
    }

    /// The canary's share of what was served; `None` without requests.
    pub(super) fn share(&self) -> Option<f64> {
        (self.served() > 0).then(|| self.canary.requests as f64 / self.served() as f64)
    }
}

/// The last seconds, newest last.
#[derive(Debug)]
pub(super) struct Window {
    seconds: VecDeque<Tally>,
}

impl Window {
    pub(super) fn new() -> Self {
        Self { seconds: VecDeque::from([Tally::new()]) }
    }

    /// Counts into the second under way.
    pub(super) fn record(&mut self, sample: &Sample) {
        self.seconds.back_mut().expect("never empty").record(sample);
    }

    /// The second that just ended, and the whole window; begins a new second.
    pub(super) fn turn(&mut self) -> (Tally, Tally) {
        let second = self.seconds.back().expect("never empty").clone();
        let mut window = Tally::new();
        for one in &self.seconds {
            window.add(one);
        }
        if self.seconds.len() == WINDOW_SECONDS {
            self.seconds.pop_front();
        }
        self.seconds.push_back(Tally::new());
        (second, window)
    }
}

/// The whole run, before and after the regression began.
#[derive(Debug)]
pub(super) struct Run {
    /// Requests due before it.
    pub(super) before: Tally,
    /// Requests due after it.
    pub(super) after: Tally,
    /// Sum over all answered requests of the canary's weight at that time.
    expected: f64,
    /// Sum of weight × (1 − weight).
    variance: f64,
}

/// The two-sided 99.99 % quantile of the normal distribution.
const Z: f64 = 3.8906;

impl Run {
    pub(super) fn new() -> Self {
        Self { before: Tally::new(), after: Tally::new(), expected: 0.0, variance: 0.0 }
    }

    /// Counts a request that was due when the canary's weight was `weight`.
    pub(super) fn record(&mut self, sample: &Sample, regressed: bool, weight: f64) {
        let tally = if regressed { &mut self.after } else { &mut self.before };
        tally.record(sample);
        if sample.served_by.is_some() {
            self.expected += weight;
            self.variance += weight * (1.0 - weight);
        }
    }

    /// Before and after together.
    pub(super) fn whole(&self) -> Tally {
        let mut whole = self.before.clone();
        whole.add(&self.after);
        whole
    }

    /// Where the canary's share should be found 9,999 times in 10,000, by the normal approximation
    /// with a continuity correction.
    pub(super) fn expected_share(&self) -> (f64, f64) {
        let served = self.whole().served().max(1) as f64;
        let half = Z * self.variance.sqrt() + 0.5;
        (((self.expected - half) / served).max(0.0), ((self.expected + half) / served).min(1.0))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::Instant;

    use super::*;

    fn sample(served_by: Option<ServedBy>, latency_ms: u64) -> Sample {
        let latency = Duration::from_millis(latency_ms);
        Sample { due: Instant::now(), served_by, latency, failed: served_by.is_none() }
    }

    #[test]
    fn a_line_shows_its_own_second_and_the_quantiles_of_five() {
        let mut window = Window::new();
        for second in 1..=7_u64 {
            window.record(&sample(Some(ServedBy::Canary), second * 10));
            let (one, all) = window.turn();
            assert_eq!(one.canary.requests, 1);
            assert_eq!(all.canary.requests, second.min(5));
        }
        let (one, all) = window.turn();
        assert_eq!((one.canary.requests, all.canary.requests), (0, 4));
        assert_eq!(one.canary.quantile_ms(0.5), None);
        let p50 = all.canary.quantile_ms(0.5).unwrap();
        assert!((49.0..52.0).contains(&p50), "{p50}");
    }

    #[test]
    fn the_expected_share_follows_the_weight() {
        let mut run = Run::new();
        for number in 0..1_000 {
            let weight = if number < 500 { 0.1 } else { 0.3 };
            let arm = if number % 5 == 0 { ServedBy::Canary } else { ServedBy::Baseline };
            run.record(&sample(Some(arm), 1), number >= 500, weight);
        }
        let (low, high) = run.expected_share();
        assert!(low > 0.14 && low < 0.16, "{low}");
        assert!(high > 0.24 && high < 0.26, "{high}");
        assert_eq!(run.whole().share(), Some(0.2));
    }

    #[test]
    fn what_nobody_served_is_no_arms_request() {
        let mut run = Run::new();
        run.record(&sample(None, 1), false, 0.1);
        assert_eq!((run.whole().served(), run.whole().unserved), (0, 1));
        assert_eq!(run.whole().share(), None);
    }
}
