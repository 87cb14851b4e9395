//! The guard of the baseline: takes a raise back after which both arms became bad, and finds out
//! at the lower weight whether it was the canary.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{COOL_DOWN, Change, Rollout, Seen, Standing};
use crate::rollout::Plan;

/// What both arms suffer within this time of a raise may come of it.
const RAISE_SHOWS_WITHIN: Duration = Duration::from_secs(600);

/// The guard against a canary that hurts the baseline, by a database that they share or the like:
/// no comparison of the two can see that.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Guard {
    /// The weight before the raise.
    pub(super) weight_bp: u16,
    since: Duration,
    found: Found,
}

/// What the guard found out at the lower weight.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Found {
    /// Nothing yet.
    Watching,
    /// The objectives were kept again: it was the canary.
    Interference,
    /// They were not: it was something else. The guard is over for this stage.
    Environment,
}

impl Rollout {
    /// Where both arms breach an objective soon after a raise, the raise is taken back; where they
    /// breach it at the lower weight too, it was not the canary.
    pub(super) fn guard_the_baseline(&mut self, plan: &Plan, seen: &Seen) -> Option<Change> {
        let both = seen.objectives == Standing::BothBreach;
        let stays = |guard: &Guard| seen.now.saturating_sub(guard.since) < COOL_DOWN;
        match &mut self.guard {
            None => {
                let raised = seen.now.saturating_sub(self.entered) < RAISE_SHOWS_WITHIN;
                let weight_bp = plan.stages.get(self.stage.checked_sub(2)?)?.weight_bp;
                let guards = both && raised && weight_bp < self.base_bp;
                let guard = Guard { weight_bp, since: seen.now, found: Found::Watching };
                self.guard = guards.then_some(guard);
                guards.then_some(Change::Guarded)
            }
            Some(guard) if guard.found != Found::Watching || stays(guard) => None,
            Some(guard) if both => {
                guard.found = Found::Environment;
                Some(Change::Returned)
            }
            Some(guard) => {
                guard.found = Found::Interference;
                None
            }
        }
    }

    /// Whether the baseline recovered when the canary's weight was lowered.
    pub(super) fn interferes(&self) -> bool {
        self.guard.is_some_and(|guard| guard.found == Found::Interference)
    }

    /// The guard, as long as it holds the weight.
    pub(super) fn guard_in_force(&self) -> Option<Guard> {
        self.guard.filter(|guard| guard.found != Found::Environment)
    }
}
