//! The state of one canary's rollout: the version, the plan it follows, and its life so far; and
//! the pure turn from one state to the next, by a person or by what was seen. It knows no clock
//! and moves nothing itself.

use std::{sync::Arc, time::Duration};

use super::{Action, Decision, DecisionKind, Forbidden, Phase, Plan, Seen, step::Rollout as Life};

/// Where a rollout is.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct State {
    /// The version that is being rolled out.
    pub(super) version: Arc<str>,
    /// The version that the configuration names.
    pub(super) configured: Arc<str>,
    /// `None`: only people move the weight.
    pub(super) plan: Option<Arc<Plan>>,
    /// How long the canary warms up, where its upstream says so.
    pub(super) warmup: Option<Duration>,
    /// Stage, weight, and all that a step goes by.
    pub(super) life: Life,
    /// Why it is as it is: the reason of the last decision.
    pub(super) reason: String,
}

/// A state to go to, and what it is called in the journal.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Turn {
    pub(super) kind: DecisionKind,
    pub(super) state: State,
    /// Whether the proof of the stage starts anew.
    pub(super) fresh_proof: bool,
}

impl State {
    /// A version of which nothing is in force yet.
    pub(super) fn blank(
        version: Arc<str>,
        plan: Option<Arc<Plan>>,
        warmup: Option<Duration>,
    ) -> Self {
        let configured = Arc::clone(&version);
        let reason = "the version is new".into();
        Self { version, configured, plan, warmup, life: Life::unborn(), reason }
    }

    /// The state that the version begins in, beside others that hold `others_bp`.
    pub(super) fn begin(&self, others_bp: u16) -> Self {
        let life = match &self.plan {
            Some(plan) => Life::start(plan, self.warmup, others_bp),
            None => Life::unborn(),
        };
        Self { life, ..self.clone() }
    }

    /// The state that a decision left, under the plan of now. Never a higher weight than that.
    pub(super) fn resume(
        decision: &Decision,
        plan: Option<Arc<Plan>>,
        warmup: Option<Duration>,
        room_bp: u16,
    ) -> Self {
        let mut life = decision.life.clone();
        life.lower_to(room_bp);
        Self {
            version: Arc::clone(&decision.version),
            configured: Arc::clone(&decision.configured),
            plan,
            warmup,
            life,
            reason: decision.reason.clone(),
        }
    }

    /// The weight in force, in buckets of 0.01 %.
    pub(super) const fn weight_bp(&self) -> u16 {
        self.life.weight_bp()
    }

    /// The first phase that applies.
    pub(super) fn phase(&self) -> Phase {
        match &self.plan {
            None if !self.life.is_rolled_back() => Phase::Idle,
            Some(_) | None => self.life.phase(),
        }
    }

    /// What it is doing, in one sentence for a person; `said` is what the judge says.
    pub(super) fn sentence(&self, said: &str) -> String {
        let percent = f64::from(self.weight_bp()) / 100.0;
        match (self.phase(), &self.plan) {
            (Phase::Idle, _) | (_, None) => {
                format!("No plan: only people move the weight, which is {percent} %.")
            }
            (Phase::RolledBack, _) => format!("Rolled back: {}.", self.reason),
            (Phase::Promoted, _) if self.life.is_over() => {
                "Promoted: the canary has all of the traffic.".into()
            }
            (Phase::Paused, Some(plan)) => {
                format!("{} ({}); {said}.", capital(&self.life.sentence(plan)), self.reason)
            }
            (_, Some(plan)) => format!("{}; {said}.", capital(&self.life.sentence(plan))),
        }
    }

    /// The stage for people, from 1 (0 before the first), and their number; 0 and 0 without a
    /// plan.
    pub(super) fn stage_of(&self) -> (usize, usize) {
        let stages = |plan: &Arc<Plan>| (self.life.stage(), plan.stages.len());
        self.plan.as_ref().map_or((0, 0), stages)
    }

    /// Whether requests are evidence: there is a plan, or a weight set by hand, and it is not
    /// over.
    pub(super) fn is_judged(&self) -> bool {
        !self.life.is_over() && (self.plan.is_some() || self.weight_bp() > 0)
    }

    /// What a person asks for.
    ///
    /// # Errors
    /// A sentence that says which state forbids it.
    pub(super) fn act(&self, action: &Action, seen: &Seen) -> Result<Turn, String> {
        let sentence = |Forbidden(sentence): Forbidden| {
            sentence.replace("this version", &format!("version {}", self.version))
        };
        let mut state = self.clone();
        let acted = match (action, &self.plan) {
            (Action::Release { version }, _) => return self.release(version, seen.others_bp),
            (Action::Drill(_), _) if !self.is_judged() || self.weight_bp() == 0 => {
                Err(Forbidden("a drill needs a canary that has weight and is judged"))
            }
            (Action::Drill(_) | Action::EndDrill, _) => Ok(()),
            (Action::Retry, _) => {
                state = self.begin(seen.others_bp);
                self.life.may_retry()
            }
            (Action::Abort, _) if self.life.is_rolled_back() => {
                Err(Forbidden("this version was rolled back already"))
            }
            (Action::Abort, _) => {
                state.life.abort();
                Ok(())
            }
            (Action::SetWeight(weight_bp), plan) => {
                state.life.set_weight(*weight_bp, plan.is_some(), seen)
            }
            (Action::Promote { full: true }, plan) => {
                state.life.promote_fully(plan.as_deref(), seen)
            }
            (_, None) => Err(Forbidden("there is no plan: only `set-weight` moves this canary")),
            (Action::Pause, Some(_)) => state.life.pause(),
            (Action::Resume, Some(plan)) => state.life.resume(plan, seen),
            (Action::Promote { full: false }, Some(plan)) => state.life.promote(plan, seen),
            (Action::Approve, Some(plan)) => state.life.approve(plan),
        };
        acted.map_err(sentence)?;
        let fresh_proof = state.life.stage() != self.life.stage();
        Ok(Turn { kind: action.into(), state, fresh_proof })
    }

    fn release(&self, version: &str, others_bp: u16) -> Result<Turn, String> {
        if version.is_empty() || *version == *self.version {
            return Err(format!("version {} is what is being rolled out", self.version));
        }
        let state = Self { version: version.into(), ..self.clone() }.begin(others_bp);
        Ok(Turn { kind: DecisionKind::Release, state, fresh_proof: true })
    }

    /// The same rollout under an edited plan: a stage edited downwards or upwards takes its
    /// weight along; `None` where the weight stays.
    pub(super) fn replan(&mut self, plan: Option<Arc<Plan>>, seen: &Seen) -> Option<Turn> {
        let before = std::mem::replace(&mut self.plan, plan)?;
        let mut state = self.clone();
        state.life.follow(&before, self.plan.as_deref()?, seen);
        if state.weight_bp() == self.weight_bp() {
            self.life = state.life;
            return None;
        }
        state.reason = "the stage was edited".into();
        Some(Turn { kind: DecisionKind::Reload, state, fresh_proof: true })
    }
}

fn capital(sentence: &str) -> String {
    let mut letters = sentence.chars();
    letters.next().map_or_else(String::new, |first| first.to_uppercase().chain(letters).collect())
}

#[cfg(test)]
mod tests;
