//! Kayenta's NetflixACAJudge: a Mann-Whitney test on the points of two time series, every minute
//! on all points so far.
//!
//! `MannWhitney.scala` follows R's `wilcox.test` with `conf.int = TRUE`: the normal approximation
//! with corrections for ties, and bounds for the shift where the statistic crosses its quantiles.

use super::Minute;

/// Two-sided confidence of the test, in its standard configuration.
const NORMAL_QUANTILE: f64 = 2.326_347_874_040_841;

/// The bound of the shift must exceed this share of the estimated shift.
const TOLERANCE: f64 = 0.25;

/// Points below which it is not asked: fewer cannot reach its confidence.
const LEAST_POINTS: usize = 5;

/// The judge's memory of one run.
#[derive(Debug, Default)]
pub(super) struct Kayenta {
    latency: Series,
    errors: Series,
}

#[derive(Debug, Default)]
struct Series {
    control: Vec<f64>,
    experiment: Vec<f64>,
}

impl Kayenta {
    /// Adds a minute to both metrics; true when either is found to be too high.
    pub(super) fn look(&mut self, minute: &Minute) -> bool {
        let Minute { baseline, canary } = minute;
        self.latency.push(baseline.p99().map(to_ms), canary.p99().map(to_ms));
        self.errors.push(baseline.error_share(), canary.error_share());
        self.latency.is_high() || self.errors.is_high()
    }
}

fn to_ms(seconds: f64) -> f64 {
    seconds * 1e3
}

impl Series {
    /// A minute without a value is left out (NaN strategy: remove).
    fn push(&mut self, control: Option<f64>, experiment: Option<f64>) {
        self.control.extend(control);
        self.experiment.extend(experiment);
    }

    /// `MannWhitneyClassifier.classify` with direction "increase": the lower bound of the shift
    /// exceeds the tolerated share of its estimate.
    fn is_high(&self) -> bool {
        let (control, experiment) = (&self.control, &self.experiment);
        if control.len().min(experiment.len()) < LEAST_POINTS {
            return false;
        }
        let first = control[0];
        if control.iter().chain(experiment).all(|value| *value == first) {
            return false;
        }
        let lower = self.shift(NORMAL_QUANTILE);
        let estimate = self.shift(0.0);
        lower > TOLERANCE * estimate.abs()
    }

    /// The shift of the experiment at which the standardised statistic falls to `quantile`.
    fn shift(&self, quantile: f64) -> f64 {
        let (control_least, control_most) = range(&self.control);
        let (least, most) = range(&self.experiment);
        let (mut low, mut high) = (least - control_most, most - control_least);
        for _ in 0..60 {
            let middle = (low + high) / 2.0;
            if self.statistic(middle) > quantile { low = middle } else { high = middle }
        }
        (low + high) / 2.0
    }

    /// The standardised Mann-Whitney statistic of the experiment less `shift` against the
    /// control, by ranks: its normal approximation with the variance corrected for ties.
    fn statistic(&self, shift: f64) -> f64 {
        let (n, m) = (self.experiment.len() as f64, self.control.len() as f64);
        let shifted = self.experiment.iter().map(|value| (value - shift, true));
        let mut all: Vec<(f64, bool)> =
            shifted.chain(self.control.iter().map(|value| (*value, false))).collect();
        all.sort_by(|left, right| left.0.total_cmp(&right.0));
        let (mut rank_sum, mut ties, mut start) = (0.0, 0.0, 0);
        while start < all.len() {
            let same = all[start..].iter().take_while(|point| point.0 == all[start].0).count();
            let rank = start as f64 + (same as f64 + 1.0) / 2.0;
            let hits = all[start..start + same].iter().filter(|point| point.1).count();
            rank_sum += rank * hits as f64;
            let tied = same as f64;
            ties += tied * tied * tied - tied;
            start += same;
        }
        let total = n + m;
        let centred = rank_sum - n * (n + 1.0) / 2.0 - n * m / 2.0;
        let variance = n * m / 12.0 * (total + 1.0 - ties / (total * (total - 1.0)));
        if variance > 0.0 { centred / variance.sqrt() } else { 0.0 }
    }
}

fn range(values: &[f64]) -> (f64, f64) {
    let fold = |start: f64, pick: fn(f64, f64) -> f64| values.iter().copied().fold(start, pick);
    (fold(f64::INFINITY, f64::min), fold(f64::NEG_INFINITY, f64::max))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn series(control: &[f64], experiment: &[f64]) -> Series {
        Series { control: control.to_vec(), experiment: experiment.to_vec() }
    }

    #[test]
    fn four_points_are_too_few_and_five_suffice() {
        let four = series(&[1.0, 2.0, 3.0, 4.0], &[11.0, 12.0, 13.0, 14.0]);
        assert!(!four.is_high());
        let five = series(&[1.0, 2.0, 3.0, 4.0, 5.0], &[11.0, 12.0, 13.0, 14.0, 15.0]);
        assert!(five.is_high());
    }

    #[test]
    fn the_estimate_is_the_median_difference() {
        let series = series(&[1.0, 2.0, 3.0, 4.0, 5.0], &[11.0, 12.0, 13.0, 14.0, 15.0]);
        assert!((series.shift(0.0) - 10.0).abs() < 1.0);
    }

    #[test]
    fn interleaved_points_and_equal_points_pass() {
        let control: Vec<f64> = (0..30).map(|i| f64::from(i) * 2.0).collect();
        let experiment: Vec<f64> = (0..30).map(|i| f64::from(i) * 2.0 + 1.0).collect();
        assert!(!series(&control, &experiment).is_high());
        assert!(!series(&[0.0; 10], &[0.0; 10]).is_high());
    }
}
