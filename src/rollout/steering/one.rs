//! One canary's rollout as steering holds it: its state, its clock, what was said of it last, and
//! the raise that may be on its way.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use tokio::time::Instant;

use super::{Answer, Moment};
use crate::rollout::{
    Decision, DecisionKind, Phase, Seen, Told, Verdict,
    state::{State, Turn},
};

/// One canary's rollout.
#[derive(Debug)]
pub(in crate::rollout) struct Rollout {
    pub(in crate::rollout) service: Arc<str>,
    pub(in crate::rollout) canary: Arc<str>,
    pub(in crate::rollout) state: State,
    pub(in crate::rollout) since: SystemTime,
    /// By [`DecisionKind::ALL`].
    pub(in crate::rollout) decisions: [u64; DecisionKind::ALL.len()],
    /// The number of the decision that it began with; 0 before there is one.
    pub(in crate::rollout) run: u64,
    /// What the judge said last.
    pub(in crate::rollout) said: Said,
    /// Whether a person gave it its weight: that is in force at once, whatever the baseline
    /// carries.
    pub(in crate::rollout) by_hand: bool,
    pub(super) clock: Clock,
    /// What the last step went by, for what people order meanwhile.
    pub(super) seen: Seen,
    pub(super) pending: Option<Pending>,
}

/// What the judge says of a canary.
#[derive(Clone, Debug, PartialEq)]
pub(in crate::rollout) struct Said {
    pub(in crate::rollout) verdict: Verdict,
    pub(in crate::rollout) told: Told,
}

impl Default for Said {
    fn default() -> Self {
        let sentence = "no request was judged yet".into();
        let told = Told { odds: 1.0, needs: 1000.0, sentence, requests: [0; 2], excess_bad: 0.0 };
        Self { verdict: Verdict::Holding, told }
    }
}

/// The time of a rollout: it stands still while no process runs.
#[derive(Clone, Copy, Debug)]
pub(super) struct Clock {
    pub(super) before: Duration,
    since: Instant,
}

impl Clock {
    /// In whole milliseconds, as the journal has it.
    pub(super) fn at(self, moment: Moment) -> Duration {
        let now = self.before + moment.now.saturating_duration_since(self.since);
        Duration::from_millis(now.as_millis() as u64)
    }
}

/// A raise on its way to the disk.
#[derive(Debug)]
pub(super) struct Pending {
    pub(super) seq: u64,
    pub(super) turn: Turn,
    pub(super) until: Option<Instant>,
    /// When connections were asked for ahead of it.
    pub(super) asked: Option<Instant>,
    pub(super) answer: Option<Answer>,
}

impl Rollout {
    pub(super) fn new([service, canary]: [Arc<str>; 2], state: State, moment: Moment) -> Self {
        Self {
            service,
            canary,
            state,
            since: moment.wall,
            decisions: [0; DecisionKind::ALL.len()],
            run: 0,
            said: Said::default(),
            by_hand: false,
            clock: Clock { before: Duration::ZERO, since: moment.now },
            seen: Seen::nothing(Duration::ZERO, 0),
            pending: None,
        }
    }

    /// The names of its service and canary.
    pub(in crate::rollout) fn names(&self) -> [Arc<str>; 2] {
        [self.service.clone(), self.canary.clone()]
    }

    /// It begins, or begins again: nothing was seen of it.
    pub(super) fn begin(&mut self, seq: u64, moment: Moment) {
        self.run = seq;
        self.said = Said::default();
        self.clock = Clock { before: Duration::ZERO, since: moment.now };
        self.seen = Seen::nothing(Duration::ZERO, 0);
    }

    /// Goes on where a decision left it.
    pub(super) fn go_on(&mut self, decision: &Decision, state: State, moment: Moment) {
        self.state = state;
        self.run = decision.run;
        self.clock = Clock { before: Duration::from_millis(decision.at_ms), since: moment.now };
        if let Some(told) = &decision.evidence {
            self.said.told.clone_from(told);
        }
        if decision.phase == Phase::RolledBack {
            self.said.verdict = Verdict::Rollback;
        }
    }

    /// Whether it began in a process before this one, so that it has been judged already.
    pub(in crate::rollout) fn is_under_way(&self) -> bool {
        !self.clock.before.is_zero()
    }

    /// The weight that it has, is about to have, or comes back to.
    pub(super) fn held_bp(&self) -> u16 {
        let pending = self.pending.as_ref();
        let pending_bp = pending.map_or(0, |pending| pending.turn.state.life.claims_bp());
        self.state.life.claims_bp().max(pending_bp)
    }
}
