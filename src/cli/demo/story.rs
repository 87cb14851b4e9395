//! The story of the demo: what haldane decided, and when.

use std::{sync::Arc, time::Duration};

use crate::rollout::{Decision, Snapshot};

/// What was decided so far.
#[derive(Debug, Default)]
pub(super) struct Story {
    /// Each with the time since the demo began.
    pub(super) decisions: Vec<(Duration, Arc<Decision>)>,
}

impl Story {
    /// Takes notice of what was decided since the last time; returns that.
    pub(super) fn follow(&mut self, snapshot: &Snapshot, at: Duration) -> Vec<Arc<Decision>> {
        let known = self.decisions.last().map_or(0, |(_, last)| last.seq);
        let new = snapshot.recent.iter().filter(|decision| decision.seq > known);
        let new: Vec<Arc<Decision>> = new.cloned().collect();
        self.decisions.extend(new.iter().map(|decision| (at, Arc::clone(decision))));
        new
    }
}
