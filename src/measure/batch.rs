//! What a worker hands over to the control thread every tick: its events, and how far it has come.

use std::time::Duration;

use super::{Event, WorkerReport};

/// Number of buckets of the proxy-overhead histogram: powers of two of microseconds, from below
/// 1 µs to 2^22 µs (about 4 s) and more.
pub const OVERHEAD_BUCKETS: usize = 24;

/// The bucket of an overhead: bucket 0 holds less than 1 µs, bucket i less than 2^i µs, the last
/// one everything above.
#[must_use]
pub fn overhead_bucket(overhead_us: u32) -> usize {
    (u32::BITS - overhead_us.leading_zeros()).min(OVERHEAD_BUCKETS as u32 - 1) as usize
}

/// The events of one worker since its last batch.
#[derive(Debug)]
pub struct Batch {
    /// Which worker, from 0.
    pub worker: usize,
    /// The worker's watermark: every event up to this moment (since the start of the process) is
    /// in this batch or an earlier one.
    pub through: Duration,
    /// In the order in which they happened on this worker.
    pub events: Vec<Event>,
    /// Whether the worker dropped events since the last batch because its buffer was full.
    pub overflowed: bool,
    /// Time that requests spent in the proxy itself, by [`overhead_bucket`].
    pub overhead: [u32; OVERHEAD_BUCKETS],
    /// Sum of the overhead in microseconds.
    pub overhead_sum_us: u64,
    /// How the worker's connections stand; sent with the first batch of every second, and with a
    /// batch that tells how a probe went.
    pub report: Option<Box<WorkerReport>>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_of_overhead_are_powers_of_two() {
        assert_eq!(overhead_bucket(0), 0);
        assert_eq!(overhead_bucket(1), 1);
        assert_eq!(overhead_bucket(3), 2);
        assert_eq!(overhead_bucket(4), 3);
        assert_eq!(overhead_bucket(u32::MAX), OVERHEAD_BUCKETS - 1);
    }
}
