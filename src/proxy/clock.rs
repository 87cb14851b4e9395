//! The worker's sense of time: moments as durations since the process started.

use std::time::Duration;

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

/// Microseconds of a duration, saturating at about 71 minutes.
pub(super) fn micros(duration: Duration) -> u32 {
    u32::try_from(duration.as_micros()).unwrap_or(u32::MAX)
}
