//! The deterministic breaker: takes weight from a canary that plainly fails, long before the
//! evidence is in. No statistics; the bets confirm or not.

use serde::{Deserialize, Serialize};

/// Ticks of the sliding window: two seconds.
const WINDOW: usize = 20;

/// Fewest failures that trip it.
const LEAST_FAILURES: u64 = 8;

/// Share of failures that trips it, and how many times the baseline's share it must be.
const TRIP_SHARE: f64 = 0.2;
const TRIP_RATIO: f64 = 5.0;

/// Share of failures that takes all weight.
const OPEN_SHARE: f64 = 0.8;

/// Failures after the reduction that take the rest: the same test once more, on requests that came
/// under 1 %.
const LEAST_AT_ONE_PERCENT: u64 = 4;

/// Probes that must succeed in a row.
const PROBES: u8 = 3;

/// Quiet ticks after which a reduced breaker lets go: half a minute.
const QUIET_TICKS: u32 = 300;

/// Requests that ended (or were found hung) in one tick, of the whole service.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BreakerTick {
    /// Of the canary.
    pub canary: Ended,
    /// Of the baseline.
    pub baseline: Ended,
}

/// Requests that ended in one tick on one arm.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ended {
    /// All of them, hung ones past the late error age included.
    pub all: u64,
    /// Those that failed, hung ones included, slow ones not.
    pub failed: u64,
}

impl Ended {
    fn share(&self) -> f64 {
        if self.all == 0 { 0.0 } else { self.failed as f64 / self.all as f64 }
    }

    fn plus(self, other: Self) -> Self {
        Self {
            all: self.all.saturating_add(other.all),
            failed: self.failed.saturating_add(other.failed),
        }
    }
}

/// What the breaker asks for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BreakerState {
    /// Nothing.
    #[default]
    Closed,
    /// At most 1 % of weight.
    Reduced,
    /// No weight; one probe a second until three in a row succeed.
    Open,
}

/// The breaker of one canary.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Breaker {
    window: [BreakerTick; WINDOW],
    next: usize,
    state: BreakerState,
    succeeded: u8,
    quiet: u32,
    /// What ended since the weight was reduced.
    #[serde(default)]
    since: BreakerTick,
}

impl Breaker {
    /// What it asks for now.
    #[must_use]
    pub const fn state(&self) -> BreakerState {
        self.state
    }

    /// One tick of ended requests.
    pub fn tick(&mut self, tick: BreakerTick) -> BreakerState {
        self.window[self.next] = tick;
        self.next = (self.next + 1) % WINDOW;
        let asked = self.judge_window();
        self.quiet = if asked == BreakerState::Closed { self.quiet.saturating_add(1) } else { 0 };
        let goes_on_failing = self.state == BreakerState::Reduced && {
            self.since.canary = self.since.canary.plus(tick.canary);
            self.since.baseline = self.since.baseline.plus(tick.baseline);
            self.since.canary.failed >= LEAST_AT_ONE_PERCENT
                && self.since.canary.share() >= limit(&self.since)
        };
        let asked = if goes_on_failing { BreakerState::Open } else { asked };
        let before = self.state;
        self.state = match (self.state, asked) {
            (BreakerState::Open, _) | (_, BreakerState::Open) => BreakerState::Open,
            (_, BreakerState::Reduced) => BreakerState::Reduced,
            (BreakerState::Reduced, BreakerState::Closed) if self.quiet < QUIET_TICKS => {
                BreakerState::Reduced
            }
            (_, BreakerState::Closed) => BreakerState::Closed,
        };
        if self.state != before {
            self.since = BreakerTick::default();
        }
        if self.state == BreakerState::Open && asked == BreakerState::Open {
            self.succeeded = 0;
        }
        self.state
    }

    /// The outcome of a probe of an open breaker.
    pub fn probe(&mut self, succeeded: bool) -> BreakerState {
        if self.state == BreakerState::Open {
            self.succeeded = if succeeded { self.succeeded + 1 } else { 0 };
            if self.succeeded >= PROBES {
                *self = Self { state: BreakerState::Reduced, ..Self::default() };
            }
        }
        self.state
    }

    fn judge_window(&self) -> BreakerState {
        let mut sum = BreakerTick::default();
        for tick in &self.window {
            sum.canary = sum.canary.plus(tick.canary);
            sum.baseline = sum.baseline.plus(tick.baseline);
        }
        let share = sum.canary.share();
        if sum.canary.failed < LEAST_FAILURES || share < limit(&sum) {
            BreakerState::Closed
        } else if share >= OPEN_SHARE {
            BreakerState::Open
        } else {
            BreakerState::Reduced
        }
    }
}

/// The share of failures that trips it.
fn limit(sum: &BreakerTick) -> f64 {
    TRIP_SHARE.max(TRIP_RATIO * sum.baseline.share())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tick(canary: (u64, u64), baseline: (u64, u64)) -> BreakerTick {
        let ended = |(all, failed)| Ended { all, failed };
        BreakerTick { canary: ended(canary), baseline: ended(baseline) }
    }

    fn play(ticks: u32, tick: BreakerTick) -> (Breaker, Option<u32>) {
        let mut breaker = Breaker::default();
        let mut first = None;
        for i in 1..=ticks {
            if breaker.tick(tick) != BreakerState::Closed && first.is_none() {
                first = Some(i);
            }
        }
        (breaker, first)
    }

    #[test]
    fn refused_connections_take_all_weight_within_a_second() {
        let (breaker, first) = play(20, tick((2, 2), (38, 0)));
        assert_eq!(breaker.state(), BreakerState::Open);
        assert!(first.unwrap() <= 10);
    }

    #[test]
    fn a_third_of_failures_leaves_one_percent_and_then_nothing() {
        let (mut breaker, first) = play(9, tick((3, 1), (57, 0)));
        assert_eq!((breaker.state(), first), (BreakerState::Reduced, Some(8)));
        for _ in 0..2 {
            assert_eq!(breaker.tick(tick((3, 1), (57, 0))), BreakerState::Reduced);
        }
        assert_eq!(breaker.tick(tick((3, 1), (57, 0))), BreakerState::Open);
    }

    #[test]
    fn what_hits_both_arms_does_not_trip_it() {
        assert_eq!(play(100, tick((20, 10), (380, 190))).1, None);
    }

    #[test]
    fn three_probes_in_a_row_end_an_outage() {
        let (mut breaker, _) = play(20, tick((2, 2), (38, 0)));
        breaker.probe(true);
        breaker.probe(true);
        assert_eq!(breaker.probe(false), BreakerState::Open);
        breaker.probe(true);
        breaker.probe(true);
        assert_eq!(breaker.probe(true), BreakerState::Reduced);
    }

    #[test]
    fn it_is_not_latched() {
        let (mut breaker, _) = play(9, tick((3, 1), (57, 0)));
        for _ in 0..400 {
            breaker.tick(tick((3, 0), (57, 0)));
        }
        assert_eq!(breaker.state(), BreakerState::Closed);
    }

    #[test]
    fn any_counts_are_survived() {
        let huge = (u64::MAX, u64::MAX);
        play(50, tick(huge, (0, u64::MAX)));
        play(50, tick((0, u64::MAX), huge));
    }
}
