//! The latencies of one recorder: over its life, and over a window that slides.
//!
//! Decisions never rest on the buckets' edges: deadlines are counted exactly, in slots.

use hdrhistogram::{Counter, Histogram};

use super::Tick;

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
    first_byte: Histogram<u64>,
    total: Histogram<u64>,
    wait: Histogram<u64>,
    judged: Window,
    durations: [u64; DURATION_BOUNDS_US.len() + 1],
    duration_sum_us: u64,
}

impl Latencies {
    pub(super) fn new() -> Self {
        Self {
            first_byte: histogram(),
            total: histogram(),
            wait: histogram(),
            judged: Window::new(),
            durations: [0; DURATION_BOUNDS_US.len() + 1],
            duration_sum_us: 0,
        }
    }

    pub(super) fn over(&mut self, times: Times) {
        record(&mut self.first_byte, times.first_byte_us);
        record(&mut self.total, times.total_us);
        record(&mut self.wait, times.wait_us);
        let total_us = u64::from(times.total_us);
        let bucket = DURATION_BOUNDS_US.iter().filter(|bound| total_us > **bound).count();
        self.durations[bucket] += 1;
        self.duration_sum_us += total_us;
    }

    pub(super) fn judged(&mut self, latency_us: u32, now: Tick) {
        self.judged.record(latency_us, now);
    }

    /// Time to the first byte, since the start of the process.
    #[must_use]
    pub const fn first_byte(&self) -> &Histogram<u64> {
        &self.first_byte
    }

    /// Time to the last byte, since the start of the process.
    #[must_use]
    pub const fn total(&self) -> &Histogram<u64> {
        &self.total
    }

    /// Waiting for a connection, since the start of the process.
    #[must_use]
    pub const fn wait(&self) -> &Histogram<u64> {
        &self.wait
    }

    /// Requests by time to the last byte, in the buckets of [`DURATION_BOUNDS_US`] and beyond.
    #[must_use]
    pub const fn durations(&self) -> &[u64; DURATION_BOUNDS_US.len() + 1] {
        &self.durations
    }

    /// Sum of the times to the last byte, in microseconds.
    #[must_use]
    pub const fn duration_sum_us(&self) -> u64 {
        self.duration_sum_us
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
    /// Slices of [`Window::COARSE`] ticks.
    coarse: [Slice; Window::COARSE_SLICES],
}

#[derive(Debug)]
struct Slice {
    /// The number of the slice of time that is held.
    number: u32,
    counts: Histogram<u32>,
}

impl Slice {
    fn at(&mut self, number: u32) -> &mut Histogram<u32> {
        if self.number != number {
            self.number = number;
            self.counts.reset();
        }
        &mut self.counts
    }
}

impl Window {
    /// 15 s.
    const FINE: u32 = 150;
    const FINE_SLICES: usize = 5;
    /// 75 s.
    const COARSE: u32 = 750;
    const COARSE_SLICES: usize = 5;

    fn new() -> Self {
        let slice = || Slice { number: u32::MAX, counts: histogram() };
        Self { fine: std::array::from_fn(|_| slice()), coarse: std::array::from_fn(|_| slice()) }
    }

    fn record(&mut self, latency_us: u32, now: Tick) {
        let number = now.0 / Self::FINE;
        record(self.fine[number as usize % Self::FINE_SLICES].at(number), latency_us);
        let number = now.0 / Self::COARSE;
        record(self.coarse[number as usize % Self::COARSE_SLICES].at(number), latency_us);
    }

    /// Adds the last 60 to 75 s before `now` to `sum`.
    pub fn add_minute(&self, now: Tick, sum: &mut Histogram<u32>) {
        add(&self.fine, now.0 / Self::FINE, sum);
    }

    /// Adds the last 300 to 375 s before `now` to `sum`.
    pub fn add_five_minutes(&self, now: Tick, sum: &mut Histogram<u32>) {
        add(&self.coarse, now.0 / Self::COARSE, sum);
    }
}

fn add(slices: &[Slice], current: u32, sum: &mut Histogram<u32>) {
    for slice in slices {
        let held = slice.number <= current && current - slice.number < slices.len() as u32;
        if held && !slice.counts.is_empty() {
            sum.add(&slice.counts).expect("a histogram made by `new` grows");
        }
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
        for latency_us in [0, 1, 500, 501, MAX_US, u32::MAX] {
            let times = Times { first_byte_us: latency_us, total_us: latency_us, wait_us: 0 };
            latencies.over(times);
        }
        assert_eq!(latencies.total().len(), 6);
        assert_eq!(latencies.durations()[..2], [3, 1]);
        assert_eq!(latencies.durations()[16], 2);
    }
}
