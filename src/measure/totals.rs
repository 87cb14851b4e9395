//! Totals: how many requests came to an arm and how they ended, excluded ones among them.

use super::Outcome;

/// Counts of one recorder since the start of the process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Requests assigned; always the sum of all that ended and of [`Totals::in_flight`].
    pub started: u64,
    /// Of these, those outside the evidence: forced, pinned.
    pub excluded: u64,
    ended: [u64; Outcome::ALL.len()],
}

impl Totals {
    /// Notes the end of a request.
    pub(super) fn end(&mut self, outcome: Outcome) {
        self.ended[outcome as usize] += 1;
    }

    /// Requests that ended so.
    #[must_use]
    pub const fn ended(&self, outcome: Outcome) -> u64 {
        self.ended[outcome as usize]
    }

    /// Requests that did not end yet. Exact unless a worker had to drop events.
    #[must_use]
    pub fn in_flight(&self) -> u64 {
        self.started.saturating_sub(self.ended.iter().sum())
    }

    /// Requests that ended, one way or another.
    #[must_use]
    pub fn all_ended(&self) -> u64 {
        self.ended.iter().sum()
    }

    /// Requests that failed or hung.
    #[must_use]
    pub const fn errors(&self) -> u64 {
        self.ended(Outcome::Failed) + self.ended(Outcome::Hung)
    }

    /// Adds the counts of another recorder.
    pub fn add(&mut self, other: &Self) {
        self.started += other.started;
        self.excluded += other.excluded;
        for (mine, others) in self.ended.iter_mut().zip(other.ended) {
            *mine += others;
        }
    }

    /// What came since `earlier`.
    #[must_use]
    pub fn since(&self, earlier: &Self) -> Self {
        let mut ended = self.ended;
        for (now, before) in ended.iter_mut().zip(earlier.ended) {
            *now = now.saturating_sub(before);
        }
        Self {
            started: self.started.saturating_sub(earlier.started),
            excluded: self.excluded.saturating_sub(earlier.excluded),
            ended,
        }
    }
}
