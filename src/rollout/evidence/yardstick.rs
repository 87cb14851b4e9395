//! The yardstick: deadlines of both arms, from past latencies of the baseline.

use std::{collections::VecDeque, time::Duration};

use super::Subject;
use crate::measure::{Deadlines, Latencies, Ledger, Past, QUANTILES, Thresholds, Tick};

/// Places of the deadlines of promotion, at p90 and p99, behind those of [`QUANTILES`].
pub(super) const MARGIN: [usize; 2] = [QUANTILES.len(), QUANTILES.len() + 1];

/// Places of p90 and p99 in [`QUANTILES`].
const P90: usize = 1;
const P99: usize = 3;

/// Until the baseline is known, failures are counted up to this age and nothing is slow.
const UNKNOWN: Duration = Duration::from_secs(1);

/// How often the thresholds are looked at, in ticks: adding up a minute of histograms is dear.
const LOOK: u32 = 50;

/// Sets that are remembered: slots live for less than a minute.
const MOST_SETS: usize = 64;

/// Which deadlines mean something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Armed {
    /// Too few requests yet: failures alone are judged.
    Nothing,
    /// All but the last quantile.
    ButLast,
    /// All of them.
    All,
}

/// The deadlines in force and those of the last minute.
#[derive(Debug, Default)]
pub(super) struct Yardstick {
    in_force: Option<(Tick, Thresholds)>,
    sets: VecDeque<(Tick, Armed)>,
}

impl Yardstick {
    /// Sets deadlines from the next tick on, if others are due; whether it did.
    pub(super) fn refresh(&mut self, subject: &Subject, ledger: &mut Ledger, now: Tick) -> bool {
        if self.sets.is_empty() {
            let timeout_us = micros(subject.timeout.min(UNKNOWN));
            let every = [timeout_us; QUANTILES.len() + MARGIN.len()];
            let deadlines = Deadlines::new(&every, [timeout_us; 2], 0);
            self.put(subject, ledger, now, [deadlines; 2], Armed::Nothing);
            return true;
        }
        if !now.0.is_multiple_of(LOOK) {
            return false;
        }
        let latencies = subject.baseline.iter().filter_map(|(key, _)| ledger.latencies(*key));
        let past = Past::new(latencies.map(Latencies::window).collect(), now);
        if let Some((since, thresholds)) = &self.in_force
            && !past.outdates(thresholds, *since)
        {
            return false;
        }
        let Some(thresholds) = past.thresholds() else { return false };
        let (deadlines, armed) = deadlines(subject, &thresholds);
        self.put(subject, ledger, now, deadlines, armed);
        self.in_force = Some((now, thresholds));
        true
    }

    /// Which deadlines meant something at a tick.
    pub(super) fn armed_at(&self, tick: Tick) -> Armed {
        let set = self.sets.iter().rfind(|(from, _)| *from <= tick);
        set.map_or(Armed::Nothing, |(_, armed)| *armed)
    }

    fn put(
        &mut self,
        subject: &Subject,
        ledger: &mut Ledger,
        now: Tick,
        [baseline, canary]: [Deadlines; 2],
        armed: Armed,
    ) {
        let from = Tick(now.0 + 1);
        for (key, _) in &subject.baseline {
            ledger.set_deadlines(*key, from, baseline);
        }
        for (key, _) in &subject.canary {
            ledger.set_deadlines(*key, from, canary);
        }
        self.sets.push_back((from, armed));
        if self.sets.len() > MOST_SETS {
            self.sets.pop_front();
        }
    }
}

/// The deadlines of baseline and canary. Both arms count failures up to the same ages, and are
/// looked at when the canary's longer deadline has passed.
fn deadlines(subject: &Subject, thresholds: &Thresholds) -> ([Deadlines; 2], Armed) {
    let timeout_us = micros(subject.timeout);
    let tolerate = &subject.tolerate;
    let floor_us = micros(tolerate.latency_floor);
    let mut baseline: Vec<u32> = thresholds.baseline_us().to_vec();
    let mut canary = thresholds.canary_us(tolerate.latency, floor_us);
    let margin = thresholds.canary_us(subject.promote_within.latency, floor_us);
    let armed = if baseline.len() == QUANTILES.len() { Armed::All } else { Armed::ButLast };
    // A stand-in: what it counts is not looked at.
    baseline.resize(QUANTILES.len(), baseline[P99]);
    canary.resize(QUANTILES.len(), canary[P99]);
    let failed_by_us = [canary[P90], canary[QUANTILES.len() - 1]].map(|us| us.min(timeout_us));
    let aborted_early_us = [baseline[0], canary[0]];
    baseline.extend([baseline[P90], baseline[P99]]);
    canary.extend([margin[P90], margin[P99]]);
    let arms = [(baseline, aborted_early_us[0]), (canary, aborted_early_us[1])];
    let deadlines = arms.map(|(list, early_us)| {
        let capped: Vec<u32> = list.into_iter().map(|us| us.min(timeout_us)).collect();
        Deadlines::new(&capped, failed_by_us, early_us)
    });
    (deadlines, armed)
}

fn micros(duration: Duration) -> u32 {
    u32::try_from(duration.as_micros()).unwrap_or(u32::MAX)
}
