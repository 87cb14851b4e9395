//! Thresholds: what counts as slow, taken from past latencies of the baseline. The edges of its
//! histogram's buckets, so that requests on both sides are told apart by exact deadlines.

use hdrhistogram::Histogram;

use super::{Tick, Window, latency::histogram};

/// The quantiles whose latencies become thresholds.
pub const QUANTILES: [f64; 5] = [0.75, 0.90, 0.95, 0.99, 0.999];

/// Fewer requests than this say nothing about a route: its service's thresholds are used.
pub const ENOUGH: u64 = 1_000;

/// From this many requests on the last quantile is used too.
pub const ENOUGH_FOR_LAST: u64 = 10_000;

/// Thresholds are looked up anew after this time, in ticks.
const REFRESH: u32 = 600;

/// Place of the 99th percentile in [`QUANTILES`].
const P99: usize = 3;

/// What lies within this share beyond the 99th percentile still fits to it.
const P99_FITS: std::ops::RangeInclusive<f64> = 0.003..=0.03;

/// The baseline's latencies of the last minute where these are many, else of the last five.
#[derive(Debug)]
pub struct Past {
    minute: Histogram<u32>,
    five_minutes: Histogram<u32>,
}

impl Default for Past {
    fn default() -> Self {
        Self { minute: histogram(), five_minutes: histogram() }
    }
}

impl Past {
    /// Adds a recorder of the baseline.
    pub fn add(&mut self, window: &Window, now: Tick) {
        window.add_minute(now, &mut self.minute);
        window.add_five_minutes(now, &mut self.five_minutes);
    }

    /// Adds all of another one.
    pub fn merge(&mut self, other: &Self) {
        let sums = [&mut self.minute, &mut self.five_minutes];
        for (sum, more) in sums.into_iter().zip([&other.minute, &other.five_minutes]) {
            sum.add(more).expect("a histogram made by `new` grows");
        }
    }

    /// The thresholds; `None` where there were too few requests.
    #[must_use]
    pub fn thresholds(&self) -> Option<Thresholds> {
        let minute = self.minute.len() >= ENOUGH_FOR_LAST;
        Thresholds::of(if minute { &self.minute } else { &self.five_minutes })
    }

    /// Whether thresholds that are in force since `since` are to be replaced.
    #[must_use]
    pub fn outdates(&self, thresholds: &Thresholds, since: Tick, now: Tick) -> bool {
        let aged = now.0.saturating_sub(since.0) >= REFRESH;
        aged || (self.minute.len() >= ENOUGH
            && !P99_FITS.contains(&share_beyond(&self.minute, thresholds.edges_us[P99])))
    }
}

/// The share of latencies beyond an edge.
fn share_beyond(past: &Histogram<u32>, edge_us: u32) -> f64 {
    1.0 - past.count_between(0, u64::from(edge_us)) as f64 / past.len() as f64
}

/// What counts as slow on one route.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Thresholds {
    edges_us: [u32; QUANTILES.len()],
    last_armed: bool,
}

impl Thresholds {
    fn of(past: &Histogram<u32>) -> Option<Self> {
        (past.len() >= ENOUGH).then(|| Self {
            edges_us: QUANTILES.map(|quantile| edge(past, past.value_at_quantile(quantile))),
            last_armed: past.len() >= ENOUGH_FOR_LAST,
        })
    }

    /// The baseline's deadlines by [`QUANTILES`], in microseconds; without the last one where
    /// there were too few requests for it.
    #[must_use]
    pub fn baseline_us(&self) -> &[u32] {
        &self.edges_us[..self.edges_us.len() - usize::from(!self.last_armed)]
    }

    /// The same with the last one of `service` where there were too few requests for its own.
    #[must_use]
    pub fn with_last_of(mut self, service: &Self) -> Self {
        if !self.last_armed && service.last_armed {
            let last = QUANTILES.len() - 1;
            self.edges_us[last] = service.edges_us[last].max(self.edges_us[P99]);
            self.last_armed = true;
        }
        self
    }

    /// A canary's deadlines: the next edge from `(1 + relative) * deadline` on, at least
    /// `floor_us` more.
    #[must_use]
    pub fn canary_us(&self, relative: f64, floor_us: u32) -> Vec<u32> {
        let edges = histogram::<u32>();
        let tolerant = |edge_us: &u32| {
            let wider = (f64::from(*edge_us) * relative).ceil().max(f64::from(floor_us));
            edge(&edges, u64::from(*edge_us) + wider as u64)
        };
        self.baseline_us().iter().map(tolerant).collect()
    }
}

/// The upper edge of the bucket that holds a latency.
fn edge(histogram: &Histogram<u32>, latency_us: u64) -> u32 {
    u32::try_from(histogram.highest_equivalent(latency_us)).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn past(latencies_us: impl IntoIterator<Item = u32>) -> Past {
        let mut past = Past::default();
        for latency_us in latencies_us {
            past.minute.record(u64::from(latency_us)).unwrap();
            past.five_minutes.record(u64::from(latency_us)).unwrap();
        }
        past
    }

    #[test]
    fn too_few_requests_make_no_thresholds() {
        assert_eq!(past(0..999).thresholds(), None);
        assert_eq!(past(0..1000).thresholds().unwrap().baseline_us().len(), 4);
        assert_eq!(past(0..10_000).thresholds().unwrap().baseline_us().len(), 5);
    }

    #[test]
    fn thresholds_go_when_they_are_old_or_do_not_fit() {
        let before = past((0..2000).map(|index| 1000 + index));
        let thresholds = before.thresholds().unwrap();
        assert!(!before.outdates(&thresholds, Tick(0), Tick(599)));
        assert!(before.outdates(&thresholds, Tick(0), Tick(600)));
        let slower = past((0..2000).map(|index| 1100 + index));
        assert!(slower.outdates(&thresholds, Tick(0), Tick(1)), "5 % beyond the 99th percentile");
        let faster = past((0..2000).map(|index| 500 + index));
        assert!(faster.outdates(&thresholds, Tick(0), Tick(1)), "none beyond it");
        let idle = past(0..10);
        assert!(!idle.outdates(&thresholds, Tick(0), Tick(1)));
    }

    proptest! {
        #[test]
        fn edges_hold_their_quantiles_and_tolerances(
            latencies in prop::collection::vec(1_u32..5_000_000, 1000..1200),
            relative in 0.0..0.3,
            floor_us in 0_u32..1000,
        ) {
            let thresholds = past(latencies.iter().copied()).thresholds().unwrap();
            let canary = thresholds.canary_us(relative, floor_us);
            for (index, edge_us) in thresholds.baseline_us().iter().enumerate() {
                let beyond = latencies.iter().filter(|latency| *latency > edge_us).count();
                let share = beyond as f64 / latencies.len() as f64;
                prop_assert!(share <= 1.0 - QUANTILES[index] + 1e-9);
                let wanted = f64::from(*edge_us) * (1.0 + relative);
                prop_assert!(f64::from(canary[index]) >= wanted);
                prop_assert!(canary[index] >= edge_us + floor_us);
                prop_assert!(f64::from(canary[index]) <= (wanted + f64::from(floor_us)) * 1.02 + 2.0);
            }
        }
    }
}
