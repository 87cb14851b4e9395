//! The latencies of one recorder: over its life, and over a window that slides.
//!
//! Decisions never rest on the buckets' edges: deadlines are counted exactly, in slots.

use hdrhistogram::{Counter, Histogram};

use super::{Judging, Tick};

/// Upper bounds of the duration buckets in microseconds, for metrics.
pub const DURATION_BOUNDS_US: [u64; 16] = [
    500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 75_000, 100_000, 250_000, 500_000, 1_000_000,
    2_500_000, 5_000_000, 10_000_000, 30_000_000,
];

/// The largest latency that a histogram tells apart; larger ones count as this.
const MAX_US: u32 = 3_600_000_000;
/// Two significant digits: a bucket is at most 1 % wide.
const DIGITS: u8 = 2;

/// A histogram of microseconds with two significant digits, from 1 µs to 1 h, that grows with
/// what it is given.
pub(super) fn histogram<C: Counter>() -> Histogram<C> {
    Histogram::new(DIGITS).expect("two digits are within 0 to 5")
}

fn record<C: Counter>(histogram: &mut Histogram<C>, latency_us: u32) {
    histogram.record(u64::from(latency_us.min(MAX_US))).expect("a histogram made by `new` grows");
}

fn with<C: Counter>(mut sum: Histogram<C>, more: &Histogram<C>) -> Histogram<C> {
    sum.add(more).expect("a histogram made by `new` grows");
    sum
}

/// The times of one request that is over, in microseconds.
#[derive(Clone, Copy, Debug)]
pub(super) struct Times {
    pub(super) first_byte_us: u32,
    pub(super) total_us: u32,
    pub(super) wait_us: u32,
}

/// All latencies of one recorder.
#[derive(Debug)]
pub struct Latencies {
    /// Of requests whose answer came as a whole: both times are the same.
    whole: Histogram<u64>,
    first_byte: Histogram<u64>,
    total: Histogram<u64>,
    wait: Histogram<u64>,
    judged: Window,
}

/// Requests by their time to the last byte, for metrics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Durations {
    /// In the buckets of [`DURATION_BOUNDS_US`] and beyond, each on its own.
    pub buckets: [u64; DURATION_BOUNDS_US.len() + 1],
    /// Sum of the times in microseconds.
    pub sum_us: u64,
}

impl Durations {
    #[inline]
    pub(super) fn over(&mut self, total_us: u32) {
        let total_us = u64::from(total_us);
        let beyond = |bound: &u64| u32::from(total_us > *bound);
        let bucket = DURATION_BOUNDS_US.iter().map(beyond).sum::<u32>() as usize;
        self.buckets[bucket] += 1;
        self.sum_us += total_us;
    }
}

impl Latencies {
    pub(super) fn new() -> Self {
        Self {
            whole: histogram(),
            first_byte: histogram(),
            total: histogram(),
            wait: histogram(),
            judged: Window::new(),
        }
    }

    pub(super) fn over(&mut self, times: Times) {
        if times.first_byte_us == times.total_us {
            record(&mut self.whole, times.total_us);
        } else {
            record(&mut self.first_byte, times.first_byte_us);
            record(&mut self.total, times.total_us);
        }
        if times.wait_us > 0 {
            record(&mut self.wait, times.wait_us);
        }
    }

    pub(super) fn judged(&mut self, latency_us: u32, now: Tick) {
        self.judged.record(latency_us, now);
    }

    /// Time to the first byte, since the start of the process.
    #[must_use]
    pub fn first_byte(&self) -> Histogram<u64> {
        with(self.whole.clone(), &self.first_byte)
    }

    /// Time to the last byte, since the start of the process.
    #[must_use]
    pub fn total(&self) -> Histogram<u64> {
        with(self.whole.clone(), &self.total)
    }

    /// Requests since the start of the process, and those of them whose latency was beyond a
    /// limit, to the precision of the histogram.
    #[must_use]
    pub fn beyond(&self, judging: Judging, limit_us: u32) -> (u64, u64) {
        let apart = match judging {
            Judging::FirstByte => &self.first_byte,
            Judging::Total => &self.total,
        };
        let limit = u64::from(limit_us) + 1;
        let count = |histogram: &Histogram<u64>| {
            (histogram.len(), histogram.count_between(limit, u64::from(u32::MAX)))
        };
        let (whole, apart) = (count(&self.whole), count(apart));
        (whole.0 + apart.0, whole.1 + apart.1)
    }

    /// Waiting for a connection, since the start of the process; requests that did not wait are
    /// not in it.
    #[must_use]
    pub const fn wait(&self) -> &Histogram<u64> {
        &self.wait
    }

    /// The latency that is judged, of late.
    #[must_use]
    pub const fn window(&self) -> &Window {
        &self.judged
    }
}

/// Latencies of the last minute and of the last five, in slices that are dropped as a whole.
#[derive(Debug)]
pub struct Window {
    /// Slices of [`Window::FINE`] ticks, by number modulo their count.
    fine: [Slice; Window::FINE_SLICES],
    /// What left the fine slices, in slices of [`Window::COARSE`] ticks.
    coarse: [Slice; Window::COARSE_SLICES],
}

#[derive(Debug)]
struct Slice {
    /// The number of the slice of time that is held.
    number: u32,
    counts: Histogram<u32>,
}

impl Slice {
    fn empty() -> Self {
        Self { number: u32::MAX, counts: histogram() }
    }

    /// Whether it is one of the last `count` slices.
    const fn is_recent(&self, current: u32, count: u32) -> bool {
        self.number <= current && current - self.number < count
    }

    fn add_to(&self, sum: &mut Histogram<u32>) {
        if !self.counts.is_empty() {
            sum.add(&self.counts).expect("a histogram made by `new` grows");
        }
    }
}

impl Window {
    /// 15 s.
    const FINE: u32 = 150;
    const FINE_SLICES: usize = 5;
    /// 75 s.
    const COARSE: u32 = 750;
    const COARSE_SLICES: usize = 5;

    pub(super) fn new() -> Self {
        Self {
            fine: std::array::from_fn(|_| Slice::empty()),
            coarse: std::array::from_fn(|_| Slice::empty()),
        }
    }

    #[inline]
    pub(super) fn record(&mut self, latency_us: u32, now: Tick) {
        let number = now.0 / Self::FINE;
        let place = number as usize % Self::FINE_SLICES;
        if self.fine[place].number != number {
            self.turn(place, number);
        }
        record(&mut self.fine[place].counts, latency_us);
    }

    /// Moves a fine slice that is over to its coarse one, and begins it anew.
    fn turn(&mut self, place: usize, number: u32) {
        let fine = &mut self.fine[place];
        if !fine.counts.is_empty() {
            let over = fine.number / (Self::COARSE / Self::FINE);
            let coarse = &mut self.coarse[over as usize % Self::COARSE_SLICES];
            if coarse.number == u32::MAX || coarse.number < over {
                coarse.number = over;
                coarse.counts.reset();
            }
            // After an idle time a slice may be older than what is held already.
            if coarse.number == over {
                fine.add_to(&mut coarse.counts);
            }
            fine.counts.reset();
        }
        fine.number = number;
    }

    /// Adds the last 60 to 75 s before `now` to `sum`.
    pub fn add_minute(&self, now: Tick, sum: &mut Histogram<u32>) {
        let recent = |slice: &&Slice| slice.is_recent(now.0 / Self::FINE, Self::FINE_SLICES as u32);
        self.fine.iter().filter(recent).for_each(|slice| slice.add_to(sum));
    }

    /// Of the last 60 to 75 s before `now`: how many lie within an edge of the histograms'
    /// buckets, and how many there are.
    #[must_use]
    pub fn minute_within(&self, now: Tick, edge_us: u32) -> (u64, u64) {
        let recent = |slice: &&Slice| slice.is_recent(now.0 / Self::FINE, Self::FINE_SLICES as u32);
        self.fine.iter().filter(recent).fold((0, 0), |(within, all), slice| {
            let counts = &slice.counts;
            (within + counts.count_between(0, u64::from(edge_us)), all + counts.len())
        })
    }

    /// Adds the last 300 to 375 s before `now` to `sum`.
    pub fn add_five_minutes(&self, now: Tick, sum: &mut Histogram<u32>) {
        let coarse = now.0 / Self::COARSE;
        let slices = Self::COARSE_SLICES as u32;
        let per_coarse = Self::COARSE / Self::FINE;
        let begin = (coarse + 1).saturating_sub(slices) * per_coarse;
        let recent = |slice: &&Slice| (begin..=now.0 / Self::FINE).contains(&slice.number);
        self.fine.iter().filter(recent).for_each(|slice| slice.add_to(sum));
        let recent = |slice: &&Slice| slice.is_recent(coarse, slices);
        self.coarse.iter().filter(recent).for_each(|slice| slice.add_to(sum));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn minute(window: &Window, now: u32) -> u64 {
        let mut sum = histogram();
        window.add_minute(Tick(now), &mut sum);
        sum.len()
    }

    #[test]
    fn the_window_holds_a_minute_and_forgets() {
        let mut window = Window::new();
        for tick in 0..1000 {
            window.record(tick, Tick(tick));
        }
        assert_eq!(minute(&window, 999), 700, "ticks 300 to 999");
        assert_eq!(minute(&window, 999 + 600), 100, "ticks 900 to 999");
        assert_eq!(minute(&window, 999 + 800), 0);
        let mut sum = histogram();
        window.add_five_minutes(Tick(999), &mut sum);
        assert_eq!(sum.len(), 1000);
        sum.reset();
        window.add_five_minutes(Tick(4000), &mut sum);
        assert_eq!(sum.len(), 250, "ticks 750 to 999");
    }

    #[test]
    fn an_idle_hour_leaves_nothing_behind() {
        let mut window = Window::new();
        window.record(1, Tick(0));
        assert_eq!(minute(&window, 36_000), 0);
        window.record(1, Tick(36_000));
        assert_eq!(minute(&window, 36_000), 1);
    }

    #[test]
    fn every_latency_fits() {
        let mut latencies = Latencies::new();
        let mut durations = Durations::default();
        for latency_us in [0, 1, 500, 501, MAX_US, u32::MAX] {
            let times = Times { first_byte_us: latency_us, total_us: latency_us, wait_us: 0 };
            latencies.over(times);
            durations.over(latency_us);
        }
        latencies.over(Times { first_byte_us: 7, total_us: 20_000, wait_us: 5 });
        assert_eq!((latencies.total().len(), latencies.first_byte().len()), (7, 7));
        assert_eq!(latencies.wait().len(), 1);
        assert_eq!(durations.buckets[..2], [3, 1]);
        assert_eq!(durations.buckets[16], 2);
    }
}
