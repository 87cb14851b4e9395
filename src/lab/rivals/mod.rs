//! The incumbents, by their published rules, on the traffic that Haldane judges: Flagger, Argo
//! Rollouts and Kayenta, each looking at one-minute metrics as Prometheus would give them.
//!
//! Kind to them where a choice is open: histograms as fine as Prometheus allows (native, schema
//! 3), a limit set from the true p99, no failed scrape, no delay of their own.

mod kayenta;
mod minute;
mod watchers;

pub use minute::{ArmMinute, Minute};
pub use watchers::{RIVALS, Rival};

use minute::Minutes;

use super::traffic::Request;
use crate::lab::scenario::Scenario;

/// All rivals on one run.
#[derive(Debug)]
pub struct Watchers {
    minutes: Minutes,
    watchers: Vec<(watchers::Watcher, Option<Stopped>)>,
    canary_requests: u64,
    /// Bad responses of the canary beyond the baseline's share, so far.
    excess_bad: f64,
}

/// What a rival had let happen when it rolled back.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Stopped {
    /// Seconds after the start of the run.
    pub at: f64,
    /// Canary requests until then.
    pub canary_requests: u64,
    /// Bad canary responses beyond the baseline's share until then.
    pub excess_bad: f64,
}

impl Watchers {
    /// Fresh rivals, with limits as fit the scenario's baseline.
    #[must_use]
    pub fn new(scenario: &Scenario) -> Self {
        let watchers = RIVALS.iter().map(|rival| (rival.watch(scenario), None)).collect();
        Self { minutes: Minutes::new(scenario), watchers, canary_requests: 0, excess_bad: 0.0 }
    }

    /// Takes in a request, at its arrival.
    pub fn see(&mut self, request: &Request) {
        self.minutes.see(request);
    }

    /// Takes notice of the time, in whole seconds after the start of the run; at the end of each
    /// minute the rivals look.
    pub fn second(&mut self, second: u32) {
        if second == 0 || !second.is_multiple_of(60) {
            return;
        }
        let Minute { baseline, canary } = self.minutes.take();
        self.canary_requests += canary.started;
        self.excess_bad += canary.bad as f64 - baseline.bad_share() * canary.started as f64;
        let minute = Minute { baseline, canary };
        for (watcher, stopped) in &mut self.watchers {
            if stopped.is_none() && watcher.look(&minute) {
                *stopped = Some(Stopped {
                    at: f64::from(second),
                    canary_requests: self.canary_requests,
                    excess_bad: self.excess_bad,
                });
            }
        }
    }

    /// When each of [`RIVALS`] rolled back, if it did.
    pub fn stopped(&self) -> impl Iterator<Item = Option<Stopped>> + '_ {
        self.watchers.iter().map(|(_, stopped)| *stopped)
    }

    /// Whether all of them have rolled back.
    #[must_use]
    pub fn all_stopped(&self) -> bool {
        self.stopped().all(|stopped| stopped.is_some())
    }
}
