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
/// Adding histograms up is dear, so it is done only for thresholds that are due.
#[derive(Clone, Debug)]
pub struct Past<'a> {
    windows: Vec<&'a Window>,
    now: Tick,
}

impl<'a> Past<'a> {
    /// The past of the baseline's recorders, seen from `now`.
    #[must_use]
    pub fn new(windows: Vec<&'a Window>, now: Tick) -> Self {
        Self { windows, now }
    }

    /// Adds all of another one.
    pub fn merge(&mut self, other: &Self) {
        self.windows.extend_from_slice(&other.windows);
    }

    /// Adds a recorder.
    pub fn add(&mut self, window: &'a Window) {
        self.windows.push(window);
    }

    /// The thresholds; `None` where there were too few requests.
    #[must_use]
    pub fn thresholds(&self) -> Option<Thresholds> {
        let mut past = histogram();
        self.windows.iter().for_each(|window| window.add_minute(self.now, &mut past));
        if past.len() < ENOUGH_FOR_LAST {
            past.reset();
            self.windows.iter().for_each(|window| window.add_five_minutes(self.now, &mut past));
        }
        Thresholds::of(&past)
    }

    /// Whether thresholds that are in force since `since` are to be replaced.
    #[must_use]
    pub fn outdates(&self, thresholds: &Thresholds, since: Tick) -> bool {
        if self.now.0.saturating_sub(since.0) >= REFRESH {
            return true;
        }
        let edge_us = thresholds.edges_us[P99];
        let counts = self.windows.iter().map(|window| window.minute_within(self.now, edge_us));
        let (within, all) = counts.fold((0, 0), |sum, more| (sum.0 + more.0, sum.1 + more.1));
        all >= ENOUGH && !P99_FITS.contains(&(1.0 - within as f64 / all as f64))
    }
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

    /// Thresholds as [`Thresholds::baseline_us`] gave them in another process; `None` where these
    /// are none.
    #[must_use]
    pub fn recall(baseline_us: &[u32]) -> Option<Self> {
        let mut edges_us = [*baseline_us.last()?; QUANTILES.len()];
        let missing = edges_us.len().checked_sub(baseline_us.len())?;
        edges_us[..baseline_us.len()].copy_from_slice(baseline_us);
        (missing <= 1 && edges_us.is_sorted())
            .then_some(Self { edges_us, last_armed: missing == 0 })
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

    fn window(latencies_us: impl IntoIterator<Item = u32>) -> Window {
        let mut window = Window::new();
        latencies_us.into_iter().for_each(|latency_us| window.record(latency_us, Tick(0)));
        window
    }

    fn thresholds(latencies_us: impl IntoIterator<Item = u32>) -> Option<Thresholds> {
        Past::new(vec![&window(latencies_us)], Tick(0)).thresholds()
    }

    #[test]
    fn too_few_requests_make_no_thresholds() {
        assert_eq!(thresholds(0..999), None);
        assert_eq!(thresholds(0..1000).unwrap().baseline_us().len(), 4);
        assert_eq!(thresholds(0..10_000).unwrap().baseline_us().len(), 5);
    }

    #[test]
    fn thresholds_are_recalled_as_they_were_and_nonsense_is_not() {
        for count in [1000, 10_000] {
            let before = thresholds(0..count).unwrap();
            let again = Thresholds::recall(before.baseline_us()).unwrap();
            assert_eq!(again.baseline_us(), before.baseline_us());
        }
        for nonsense in [&[][..], &[1, 2, 3], &[4, 3, 2, 1], &[1, 2, 3, 4, 5, 6]] {
            assert_eq!(Thresholds::recall(nonsense), None);
        }
    }

    #[test]
    fn thresholds_go_when_they_are_old_or_do_not_fit() {
        let before = window((0..2000).map(|index| 1000 + index));
        let thresholds = Past::new(vec![&before], Tick(0)).thresholds().unwrap();
        let outdates = |window: &Window, now| {
            Past::new(vec![window], Tick(now)).outdates(&thresholds, Tick(0))
        };
        assert!(!outdates(&before, 599));
        assert!(outdates(&before, 600));
        let slower = window((0..2000).map(|index| 1100 + index));
        assert!(outdates(&slower, 1), "5 % beyond the 99th percentile");
        let faster = window((0..2000).map(|index| 500 + index));
        assert!(outdates(&faster, 1), "none beyond it");
        assert!(!outdates(&window(0..10), 1), "idle");
    }

    proptest! {
        #[test]
        fn edges_hold_their_quantiles_and_tolerances(
            latencies in prop::collection::vec(1_u32..5_000_000, 1000..1200),
            relative in 0.0..0.3,
            floor_us in 0_u32..1000,
        ) {
            let thresholds = thresholds(latencies.iter().copied()).unwrap();
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
