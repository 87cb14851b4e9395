//! One minute of metrics per arm, as a Prometheus would scrape them.

use crate::lab::{
    scenario::Scenario,
    traffic::{End, Request},
};

/// Buckets per doubling: those of a native histogram of schema 3, each 9 % wide.
const PER_DOUBLING: f64 = 8.0;

/// Number of buckets: from 1 µs to about an hour.
const BUCKETS: usize = 256;

/// Both arms in one minute.
#[derive(Clone, Debug, Default)]
pub struct Minute {
    /// The baseline.
    pub baseline: ArmMinute,
    /// The canary.
    pub canary: ArmMinute,
}

/// One arm in one minute.
#[derive(Clone, Debug)]
pub struct ArmMinute {
    /// Requests.
    pub started: u64,
    /// Those that failed or hung.
    pub failed: u64,
    /// Those that failed, hung, or were slower than the baseline's p99.
    pub bad: u64,
    buckets: [u32; BUCKETS],
}

impl Default for ArmMinute {
    fn default() -> Self {
        Self { started: 0, failed: 0, bad: 0, buckets: [0; BUCKETS] }
    }
}

impl ArmMinute {
    fn count(&mut self, request: &Request, slow_us: u32) {
        let failed = request.end != End::Ok;
        self.started += 1;
        self.failed += u64::from(failed);
        self.bad += u64::from(failed || request.latency_us > slow_us);
        let place = f64::from(request.latency_us.max(1)).log2() * PER_DOUBLING;
        self.buckets[(place.ceil() as usize).min(BUCKETS - 1)] += 1;
    }

    /// The 99th percentile in seconds by `histogram_quantile`: exponential interpolation within
    /// the bucket, as Prometheus does for native histograms. `None` without requests.
    #[must_use]
    pub fn p99(&self) -> Option<f64> {
        let rank = 0.99 * self.started as f64;
        let mut below = 0.0;
        for (place, count) in self.buckets.iter().enumerate() {
            let count = f64::from(*count);
            if count > 0.0 && below + count >= rank {
                let within = (rank - below) / count;
                let exponent = (place as f64 - 1.0 + within) / PER_DOUBLING;
                return Some(exponent.exp2() * 1e-6);
            }
            below += count;
        }
        None
    }

    /// The share of requests that failed or hung; `None` without requests.
    #[must_use]
    pub fn error_share(&self) -> Option<f64> {
        (self.started > 0).then(|| self.failed as f64 / self.started as f64)
    }

    /// The share of bad requests; 0 without requests.
    #[must_use]
    pub fn bad_share(&self) -> f64 {
        if self.started == 0 { 0.0 } else { self.bad as f64 / self.started as f64 }
    }
}

/// The minute that is being filled.
#[derive(Debug)]
pub(super) struct Minutes {
    slow_us: u32,
    current: Minute,
}

impl Minutes {
    pub(super) fn new(scenario: &Scenario) -> Self {
        Self { slow_us: (scenario.baseline.p99() * 1e6) as u32, current: Minute::default() }
    }

    pub(super) fn see(&mut self, request: &Request) {
        let minute = &mut self.current;
        let arm = if request.canary { &mut minute.canary } else { &mut minute.baseline };
        arm.count(request, self.slow_us);
    }

    pub(super) fn take(&mut self) -> Minute {
        std::mem::take(&mut self.current)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filled(latencies_us: impl IntoIterator<Item = u32>) -> ArmMinute {
        let mut arm = ArmMinute::default();
        for latency_us in latencies_us {
            let request =
                Request { user: 0, canary: false, arrival_us: 0, end: End::Ok, latency_us };
            arm.count(&request, 1_000_000);
        }
        arm
    }

    #[test]
    fn the_quantile_is_as_near_as_the_buckets_allow() {
        let arm = filled((1..=10_000).map(|i| i * 100));
        let p99 = arm.p99().unwrap();
        assert!((p99 / 0.99 - 1.0).abs() < 0.045, "{p99}");
    }

    #[test]
    fn nobody_asked_means_no_value() {
        assert_eq!(filled([]).p99(), None);
        assert_eq!(filled([]).error_share(), None);
        assert!(filled([7]).p99().is_some());
    }
}
