//! The yardstick of one service: the deadlines of its baseline, from the baseline's own past, and
//! those that they make for a canary. All canaries of a service are held against the same one.
//!
//! It sets the baseline's deadlines; each canary's evidence sets its own.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use serde::{Deserialize, Serialize};

use super::{
    super::{Tolerance, plan::Margin},
    Subject,
};
use crate::{
    judge::{Rungs, SHIFTS},
    measure::{Deadlines, Ledger, Past, QUANTILES, RecorderKey, Thresholds, Tick},
};

/// Places of the deadlines of promotion, at p90 and p99, behind those of [`QUANTILES`].
pub(super) const MARGIN: [usize; 2] = [QUANTILES.len(), QUANTILES.len() + 1];

/// The shifts of p99 that are counted, as places in the judge's list: 1, 1.1, 1.5, 2 and 3.
pub(super) const SHIFTED: [usize; 5] = [4, 5, 7, 8, 9];

/// The judge's mask of them.
pub(super) const RUNGS: Rungs = {
    let mut mask = 0;
    let mut place = 0;
    while place < SHIFTED.len() {
        mask |= 1 << SHIFTED[place];
        place += 1;
    }
    [0, mask]
};

/// Their places among the deadlines, behind the margins.
pub(super) fn shifts() -> impl Iterator<Item = usize> {
    ALL - SHIFTED.len()..ALL
}

/// Number of all deadlines: quantiles, margins, shifts.
const ALL: usize = QUANTILES.len() + MARGIN.len() + SHIFTED.len();

/// Places of p90, p99 and p99.9 in [`QUANTILES`].
const P90: usize = 1;
const P99: usize = 3;
const LAST: usize = QUANTILES.len() - 1;

/// Until the baseline is known, failures are counted up to this age and nothing is slow.
const UNKNOWN: Duration = Duration::from_secs(1);

/// How often the thresholds are looked at, in ticks: adding up a minute of histograms is dear.
const LOOK: u32 = 50;

/// As long as nothing is known, it is asked every second.
const SECOND: u32 = 10;

/// Sets that are remembered: slots live for less than a minute.
const MOST_SETS: usize = 64;

/// Which deadlines mean something.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Armed {
    /// Too few requests yet: failures alone are judged.
    #[default]
    #[serde(rename = "0")]
    Nothing,
    /// All but the last quantile.
    #[serde(rename = "4")]
    ButLast,
    /// All of them.
    #[serde(rename = "5")]
    All,
}

/// The deadlines in force and those of the last minute.
#[derive(Debug, Default)]
pub struct Yardstick {
    baseline: Vec<(RecorderKey, u16)>,
    tolerate: Vec<Tolerance>,
    routes: Vec<Yard>,
    in_force: Option<(Tick, Thresholds)>,
    sets: VecDeque<(Tick, Armed)>,
    /// Counts the sets, so that a canary notices a new one.
    generation: u64,
    /// Whether recorders, routes or tolerances are other ones than those of the last set.
    changed: bool,
}

/// The measures of one route.
#[derive(Clone, Copy, Debug)]
struct Yard {
    timeout_us: u32,
    /// The route's own or the service's.
    thresholds: Option<Thresholds>,
    /// Ages up to which failures count on both arms, long enough for the most tolerant canary.
    failed_by_us: [u32; 2],
}

impl Yardstick {
    /// A yardstick for canaries of one service, which has not measured anything.
    #[must_use]
    pub fn new<'s>(subjects: impl IntoIterator<Item = &'s Subject>) -> Self {
        let mut yardstick = Self::default();
        yardstick.measure(subjects);
        yardstick
    }

    /// From the next [`Yardstick::refresh`] on these canaries are measured, all of one service:
    /// call it when canaries, routes or recorders came or went.
    pub fn measure<'s>(&mut self, subjects: impl IntoIterator<Item = &'s Subject>) {
        let mut tolerate = Vec::new();
        let mut first = None;
        for subject in subjects {
            if !tolerate.contains(&subject.tolerate) {
                tolerate.push(subject.tolerate);
            }
            first.get_or_insert(subject);
        }
        let Some(subject) = first else { return };
        let baseline: Vec<_> = subject.of_arm(false).map(|it| (it.key, it.route)).collect();
        let timeouts: Vec<u32> = subject.routes.iter().map(|route| micros(route.timeout)).collect();
        let same = timeouts.iter().eq(self.routes.iter().map(|yard| &yard.timeout_us));
        let as_before = same
            && baseline == self.baseline
            && tolerate.iter().all(|one| self.tolerate.contains(one))
            && tolerate.len() == self.tolerate.len();
        if as_before {
            return;
        }
        (self.baseline, self.tolerate) = (baseline, tolerate);
        let known = self.in_force.map(|(_, thresholds)| thresholds);
        let yard = |timeout_us: u32| Yard {
            timeout_us,
            thresholds: known,
            failed_by_us: [timeout_us.min(micros(UNKNOWN)); 2],
        };
        self.routes = timeouts.into_iter().map(yard).collect();
        self.changed = true;
    }

    /// Begins with the deadlines that a process before this one had for the routes of `subject`,
    /// so that it need not wait for a thousand requests of its own. What was measured here stands.
    pub fn recall(&mut self, subject: &Subject, past: &[(Arc<str>, Vec<u32>)]) {
        if self.in_force.is_some() {
            return;
        }
        let of_route = |name: &str| {
            let (_, deadlines_us) = past.iter().find(|(known, _)| **known == *name)?;
            Thresholds::recall(deadlines_us)
        };
        let known: Vec<_> = subject.routes.iter().map(|route| of_route(&route.name)).collect();
        // The service's own are not written down; they are replaced within a minute anyway.
        let least = known.iter().flatten().min_by_key(|it| it.baseline_us().len()).copied();
        let Some(service) = least else { return };
        for (yard, known) in self.routes.iter_mut().zip(known) {
            yard.thresholds = Some(known.unwrap_or(service));
        }
        self.in_force = Some((Tick(0), service));
        self.changed = true;
    }

    /// One tick is over: sets the baseline's deadlines from the next one on where others are due.
    /// Call it before the evidence of each canary gathers.
    pub fn refresh(&mut self, ledger: &mut Ledger, now: Tick) {
        let look = if self.in_force.is_some() { LOOK } else { SECOND };
        if self.baseline.is_empty() || !(self.changed || now.0.is_multiple_of(look)) {
            return;
        }
        let by_route = self.past(ledger, now);
        let mut service = Past::new(Vec::new(), now);
        by_route.iter().for_each(|past| service.merge(past));
        let is_due = self.changed
            || match &self.in_force {
                Some((since, thresholds)) => {
                    service.outdates(thresholds, *since)
                        || (armed(thresholds) == Armed::ButLast
                            && service.thresholds().is_some_and(|it| armed(&it) == Armed::All))
                }
                None => true,
            };
        if !is_due {
            return;
        }
        let Some(thresholds) = service.thresholds() else {
            if self.changed {
                self.put(ledger, now, self.in_force.map_or(Armed::Nothing, |(_, it)| armed(&it)));
            }
            return;
        };
        for (yard, past) in self.routes.iter_mut().zip(&by_route) {
            let own = past.thresholds().map(|own| own.with_last_of(&thresholds));
            yard.thresholds = Some(own.unwrap_or(thresholds));
        }
        self.in_force = Some((now, thresholds));
        self.put(ledger, now, armed(&thresholds));
    }

    /// The past of the baseline by route.
    fn past<'l>(&self, ledger: &'l Ledger, now: Tick) -> Vec<Past<'l>> {
        let mut by_route = vec![Past::new(Vec::new(), now); self.routes.len()];
        for (key, route) in &self.baseline {
            if let (Some(past), Some(latencies)) =
                (by_route.get_mut(usize::from(*route)), ledger.latencies(*key))
            {
                past.add(latencies.window());
            }
        }
        by_route
    }

    fn put(&mut self, ledger: &mut Ledger, now: Tick, armed: Armed) {
        let from = Tick(now.0 + 1);
        for yard in &mut self.routes {
            yard.settle(&self.tolerate);
        }
        for (key, route) in &self.baseline {
            if let Some(yard) = self.routes.get(usize::from(*route)) {
                ledger.set_deadlines(*key, from, yard.of_baseline());
            }
        }
        self.changed = false;
        self.generation += 1;
        self.sets.push_back((from, armed));
        if self.sets.len() > MOST_SETS {
            self.sets.pop_front();
        }
    }

    /// The number of the set in force, from 1.
    pub(super) const fn generation(&self) -> u64 {
        self.generation
    }

    /// Which deadlines meant something at a tick.
    pub(super) fn armed_at(&self, tick: Tick) -> Armed {
        let set = self.sets.iter().rfind(|(from, _)| *from <= tick);
        set.map_or(Armed::Nothing, |(_, armed)| *armed)
    }

    /// The deadlines of a canary on a route.
    pub(super) fn of_canary(&self, subject: &Subject, route: u16) -> Option<Deadlines> {
        let yard = self.routes.get(usize::from(route))?;
        Some(yard.of_canary(&subject.tolerate, &subject.promote_within))
    }

    /// The baseline's deadlines by route in microseconds.
    pub(super) fn edges_us(&self) -> Vec<Vec<u32>> {
        let edges = |yard: &Yard| {
            yard.thresholds.map_or_else(Vec::new, |thresholds| thresholds.baseline_us().to_vec())
        };
        self.routes.iter().map(edges).collect()
    }
}

impl Yard {
    /// Fixes the ages of failure. Both arms of every canary are looked at when the longest of the
    /// canaries' deadlines has passed.
    fn settle(&mut self, tolerate: &[Tolerance]) {
        let Some(thresholds) = self.thresholds else { return };
        let longest = |place: usize| {
            let ages = tolerate.iter().map(|tolerate| canary_us(&thresholds, tolerate)[place]);
            ages.max().unwrap_or(thresholds.baseline_us()[P99])
        };
        self.failed_by_us = [P90, LAST].map(|place| longest(place).min(self.timeout_us));
    }

    fn of_baseline(&self) -> Deadlines {
        let Some(thresholds) = &self.thresholds else { return self.unknown() };
        let mut edges = full(thresholds.baseline_us().to_vec());
        let aborted_early_us = edges[0];
        edges.extend([edges[P90], edges[P99]]);
        // Of the baseline only the shift of one is looked at.
        edges.extend([edges[P99]; SHIFTED.len()]);
        self.deadlines(edges, aborted_early_us)
    }

    fn of_canary(&self, tolerate: &Tolerance, margin: &Margin) -> Deadlines {
        let Some(thresholds) = &self.thresholds else { return self.unknown() };
        let mut edges = canary_us(thresholds, tolerate);
        let aborted_early_us = edges[0];
        let beyond = thresholds.canary_us(margin.latency, micros(tolerate.latency_floor));
        edges.extend([beyond[P90], beyond[P99]]);
        let shift = |place: usize| thresholds.canary_us(SHIFTS[place] - 1.0, 0)[P99];
        edges.extend(SHIFTED.map(shift));
        self.deadlines(edges, aborted_early_us)
    }

    fn unknown(&self) -> Deadlines {
        let every = [self.failed_by_us[0]; ALL];
        Deadlines::new(&every, self.failed_by_us, 0)
    }

    fn deadlines(&self, edges: Vec<u32>, aborted_early_us: u32) -> Deadlines {
        let capped: Vec<u32> = edges.into_iter().map(|us| us.min(self.timeout_us)).collect();
        Deadlines::new(&capped, self.failed_by_us, aborted_early_us)
    }
}

fn armed(thresholds: &Thresholds) -> Armed {
    let all = thresholds.baseline_us().len() == QUANTILES.len();
    if all { Armed::All } else { Armed::ButLast }
}

/// A canary's deadlines by [`QUANTILES`].
fn canary_us(thresholds: &Thresholds, tolerate: &Tolerance) -> Vec<u32> {
    full(thresholds.canary_us(tolerate.latency, micros(tolerate.latency_floor)))
}

/// With a stand-in for the last quantile where there is none: what it counts is not looked at.
fn full(mut edges: Vec<u32>) -> Vec<u32> {
    edges.resize(QUANTILES.len(), edges[P99]);
    edges
}

fn micros(duration: Duration) -> u32 {
    u32::try_from(duration.as_micros()).unwrap_or(u32::MAX)
}
