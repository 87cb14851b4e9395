//! How far the workers have come, and which ticks must not be used because one of them fell behind
//! or dropped events.

use std::{collections::VecDeque, time::Duration};

use super::{MAX_DEADLINE_US, Tick, WAIT_CREDIT_US};

/// A worker that is further behind than this is not waited for.
pub(super) const LATE: Duration = Duration::from_secs(1);

/// An event changes slots that are at most this much older.
const HORIZON: Duration =
    Duration::from_micros(MAX_DEADLINE_US as u64 + WAIT_CREDIT_US as u64 + 100_000);

/// For how long void ticks are remembered; longer than any block waits for its last slot.
const REMEMBERED: Duration = Duration::from_secs(300);

#[derive(Debug)]
pub(super) struct Progress {
    workers: Vec<Worker>,
    watermark: Duration,
    /// First and last tick of each range, in the order of their ends.
    voids: VecDeque<(Tick, Tick)>,
}

#[derive(Clone, Debug, Default)]
struct Worker {
    through: Duration,
    late: bool,
}

impl Progress {
    pub(super) fn new(workers: usize) -> Self {
        let workers = vec![Worker::default(); workers];
        Self { workers, watermark: Duration::ZERO, voids: VecDeque::new() }
    }

    /// Notes how far a worker has come. Events that it dropped on the way void what they may have
    /// touched.
    pub(super) fn advance(&mut self, worker: usize, through: Duration, overflowed: bool) {
        let Some(worker) = self.workers.get_mut(worker) else { return };
        let before = worker.through;
        worker.through = worker.through.max(through);
        if overflowed {
            self.void(Tick::at(before.saturating_sub(HORIZON)), Tick::at(through));
        }
    }

    /// The moment up to which all is known, workers that are late left out; what these may still
    /// touch is void. Returns how many became late.
    pub(super) fn update(&mut self, now: Duration) -> u64 {
        let mut became_late = 0;
        let mut watermark = None::<Duration>;
        let mut voids = Vec::new();
        for worker in &mut self.workers {
            let late = now.saturating_sub(worker.through) > LATE;
            became_late += u64::from(late && !worker.late);
            worker.late = late;
            if late {
                let begin = worker.through.saturating_sub(HORIZON);
                voids.push((Tick::at(begin), Tick::at(now)));
            } else {
                watermark =
                    Some(watermark.map_or(worker.through, |least| least.min(worker.through)));
            }
        }
        for (first, last) in voids {
            self.void(first, last);
        }
        self.watermark = self.watermark.max(watermark.unwrap_or_default());
        let forgotten = Tick::at(self.watermark.saturating_sub(REMEMBERED));
        while self.voids.front().is_some_and(|(_, last)| *last < forgotten) {
            self.voids.pop_front();
        }
        became_late
    }

    #[cfg(test)]
    pub(super) fn slowest(&self) -> Duration {
        self.workers.iter().map(|worker| worker.through).min().unwrap_or_default()
    }

    pub(super) const fn watermark(&self) -> Duration {
        self.watermark
    }

    pub(super) fn void(&mut self, mut first: Tick, mut last: Tick) {
        while let Some((begin, end)) = self.voids.back().copied().filter(|(_, end)| *end >= first) {
            first = first.min(begin);
            last = last.max(end);
            self.voids.pop_back();
        }
        self.voids.push_back((first, last));
    }

    pub(super) fn is_void(&self, tick: Tick) -> bool {
        self.voids.iter().any(|(first, last)| (*first..=*last).contains(&tick))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn the_watermark_is_that_of_the_slowest_worker() {
        let mut progress = Progress::new(2);
        progress.advance(0, ms(500), false);
        progress.advance(1, ms(300), false);
        assert_eq!(progress.update(ms(600)), 0);
        assert_eq!(progress.watermark(), ms(300));
    }

    #[test]
    fn a_late_worker_is_not_waited_for_and_voids_what_it_may_touch() {
        let mut progress = Progress::new(2);
        progress.advance(0, ms(60_000), false);
        progress.advance(1, ms(58_000), false);
        assert_eq!(progress.update(ms(60_000)), 1);
        assert_eq!(progress.watermark(), ms(60_000));
        assert!(progress.is_void(Tick::at(ms(60_000))));
        assert!(progress.is_void(Tick::at(ms(58_000 - 30_000))));
        assert!(!progress.is_void(Tick::at(ms(58_000 - 31_000))));
        progress.advance(0, ms(61_000), false);
        progress.advance(1, ms(61_000), false);
        assert_eq!(progress.update(ms(61_000)), 0);
        assert!(!progress.is_void(Tick::at(ms(60_500))));
    }

    #[test]
    fn dropped_events_void_what_they_may_have_touched() {
        let mut progress = Progress::new(1);
        progress.advance(0, ms(100_000), false);
        progress.advance(0, ms(100_100), true);
        assert!(progress.is_void(Tick::at(ms(70_000))));
        assert!(!progress.is_void(Tick::at(ms(100_200))));
    }
}
