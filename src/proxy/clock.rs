//! The worker's sense of time: moments as durations since the process started.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::time::Instant;

/// Counts from the start of the process, the same on every worker.
#[derive(Clone, Copy, Debug)]
pub(super) struct Clock(Instant);

impl Clock {
    pub(super) fn new(started: Instant) -> Self {
        Self(started)
    }

    /// Time since the process started.
    pub(super) fn now(&self) -> Duration {
        self.0.elapsed()
    }
}

/// Seconds since 1970, for what was signed elsewhere; 0 before.
pub(super) fn unix_seconds() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// Microseconds of a duration, saturating at about 71 minutes.
pub(super) fn micros(duration: Duration) -> u32 {
    u32::try_from(duration.as_micros()).unwrap_or(u32::MAX)
}
