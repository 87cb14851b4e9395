//! What the breaker is fed: requests that ended since the last tick, put together to one input a
//! second while nothing can trip it.

use super::{EndedTicks, Subject};
use crate::measure::{Ledger, Totals};

/// Ticks that are put together at most, unless none of them saw a request.
const TOGETHER: usize = 10;

/// Ticks that the breaker looks back.
const WINDOW: u32 = 20;

/// Counts what ended.
#[derive(Debug, Default)]
pub(super) struct Ends {
    /// Of baseline and canary, as of the last tick; `None` before the first.
    totals: Option<[Totals; 2]>,
    held: EndedTicks,
    /// Ticks since a canary request failed.
    sound: u32,
    canary_came: bool,
}

impl Ends {
    /// Other recorders count from now on.
    pub(super) fn recount(&mut self) {
        self.totals = None;
    }

    /// Whether the canary was given a request in the last tick.
    pub(super) const fn canary_came(&self) -> bool {
        self.canary_came
    }

    /// One tick is over. `closed` says that the breaker is; what is held back then cannot move
    /// it, because no canary request failed as far as it looks back.
    pub(super) fn tick(
        &mut self,
        subject: &Subject,
        ledger: &Ledger,
        closed: bool,
    ) -> Option<EndedTicks> {
        let now = totals(subject, ledger);
        let before = self.totals.replace(now)?;
        self.canary_came = now[1].started > before[1].started;
        // What is in flight is left out: it is no failure yet.
        let [baseline, canary] = [0, 1].map(|arm: usize| {
            let since = now[arm].since(&before[arm]);
            [since.all_ended(), since.errors()]
        });
        let tick = [canary[0], canary[1], baseline[0], baseline[1]];
        if tick == [0; 4] && self.held.ticks.is_empty() {
            self.held.idle = self.held.idle.saturating_add(1);
        } else {
            self.held.ticks.push(tick);
        }
        self.sound = if canary[1] > 0 { 0 } else { self.sound.saturating_add(1) };
        let harmless = closed && self.sound >= WINDOW;
        let wait = harmless && self.held.ticks.len() < TOGETHER;
        (!wait).then(|| std::mem::take(&mut self.held))
    }
}

fn totals(subject: &Subject, ledger: &Ledger) -> [Totals; 2] {
    [false, true].map(|is_canary| {
        let mut sum = Totals::default();
        for source in subject.of_arm(is_canary) {
            sum.add(&ledger.totals(source.key));
        }
        sum
    })
}
