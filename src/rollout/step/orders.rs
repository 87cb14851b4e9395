//! What people order: every order is a pure change of the state, or a sentence saying why not.

use std::time::Duration;

use super::{ALL_BP, End, Rollout, Seen, Wait, Why, fits};
use crate::rollout::Plan;

/// Why an order is not carried out: a sentence for a person.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Forbidden(pub &'static str);

const ROLLED_BACK: Forbidden = Forbidden("this version was rolled back: `retry` it first");
const NO_ROOM: Forbidden =
    Forbidden("the weights of the other canaries leave no room: lower them first");

impl Rollout {
    /// Sets the weight and, where there is a plan, pauses there.
    ///
    /// # Errors
    /// On a version that was rolled back, and where the other canaries leave no room.
    pub fn set_weight(
        &mut self,
        weight_bp: u16,
        pauses: bool,
        seen: &Seen,
    ) -> Result<(), Forbidden> {
        self.alive()?;
        if weight_bp > 0 && weight_bp.saturating_add(seen.others_bp) > ALL_BP {
            return Err(NO_ROOM);
        }
        if weight_bp > self.weight_bp {
            self.overrule(seen);
        }
        self.base_bp = weight_bp.min(ALL_BP);
        self.end = None;
        self.paused = pauses;
        self.entered = seen.now;
        self.weight_bp = self.allowed_bp(seen.now);
        Ok(())
    }

    /// Holds the weight where it is.
    ///
    /// # Errors
    /// On a version that was rolled back or has everything, and where it is paused already.
    pub fn pause(&mut self) -> Result<(), Forbidden> {
        self.alive()?;
        if self.is_over() {
            return Err(Forbidden("the rollout is over: the canary was promoted"));
        }
        if self.paused {
            return Err(Forbidden("the rollout is paused already"));
        }
        self.paused = true;
        Ok(())
    }

    /// Goes on, at the last stage whose weight is not above the one in force; below the first
    /// stage at that one.
    ///
    /// # Errors
    /// Where nothing is paused, and where the first stage no longer fits.
    pub fn resume(&mut self, plan: &Plan, seen: &Seen) -> Result<(), Forbidden> {
        self.alive()?;
        if !self.paused {
            return Err(Forbidden("nothing is paused"));
        }
        let stage = plan.stages.iter().rposition(|stage| stage.weight_bp <= self.base_bp);
        let stage = stage.unwrap_or(0);
        if stage + 1 == self.stage && self.base_bp == plan.stages[stage].weight_bp {
            // The same stage goes on: its time and its proof count.
            self.paused = false;
            return Ok(());
        }
        let weight_bp = self.base_bp.max(plan.stages[stage].weight_bp);
        if !fits(weight_bp, seen.others_bp) {
            return Err(NO_ROOM);
        }
        self.paused = false;
        self.enter(stage + 1, weight_bp, seen.now);
        self.weight_bp = self.allowed_bp(seen.now);
        Ok(())
    }

    /// Goes to the next stage, gate or not.
    ///
    /// # Errors
    /// On a version that was rolled back, after the last stage, and where there is no room.
    pub fn promote(&mut self, plan: &Plan, seen: &Seen) -> Result<(), Forbidden> {
        self.alive()?;
        let Some(next) = plan.stages.get(self.stage) else {
            return Err(Forbidden("the last stage is in force already"));
        };
        self.raise_to(self.stage + 1, next.weight_bp, seen)
    }

    /// Goes to 100 %.
    ///
    /// # Errors
    /// On a version that was rolled back, and where there is no room.
    pub fn promote_fully(&mut self, plan: Option<&Plan>, seen: &Seen) -> Result<(), Forbidden> {
        self.alive()?;
        self.raise_to(plan.map_or(0, |plan| plan.stages.len()), ALL_BP, seen)
    }

    /// Passes the gate that it waits at, or the next one.
    ///
    /// # Errors
    /// Where no gate stands before the next stage.
    pub fn approve(&mut self, plan: &Plan) -> Result<(), Forbidden> {
        self.alive()?;
        if !plan.stages.get(self.stage).is_some_and(|next| next.gate) {
            return Err(Forbidden("no gate stands before the next stage"));
        }
        self.approved = true;
        Ok(())
    }

    /// Rolls back.
    pub fn abort(&mut self) {
        self.end = Some(End::RolledBack(Why::Person));
        self.weight_bp = 0;
    }

    /// Starts a rolled-back version again at its first stage, at time 0, with a new judge.
    ///
    /// # Errors
    /// Where it was not rolled back.
    pub fn retry(
        &self,
        plan: &Plan,
        warmup: Option<Duration>,
        others_bp: u16,
    ) -> Result<Self, Forbidden> {
        self.may_retry()?;
        Ok(Self::start(plan, warmup, others_bp))
    }

    /// Whether it was rolled back, so that it may start again.
    ///
    /// # Errors
    /// Where it was not rolled back.
    pub fn may_retry(&self) -> Result<(), Forbidden> {
        let rolled_back = self.is_rolled_back();
        rolled_back.then_some(()).ok_or(Forbidden("this version was not rolled back"))
    }

    /// Follows a plan that was edited: a stage that became lower applies at once, one that became
    /// higher is an operator's raise, except where the weight was lowered or there is no room.
    pub fn follow(&mut self, before: &Plan, plan: &Plan, seen: &Seen) {
        let Some(stage) = self.stage_of(plan) else { return };
        if self.stage_of(before).is_some_and(|before| before.weight_bp == stage.weight_bp) {
            return;
        }
        let lower = stage.weight_bp < self.base_bp;
        let fits = fits(stage.weight_bp, seen.others_bp);
        let may_rise = !self.is_cautious() && self.end.is_none() && fits;
        if !self.is_rolled_back() && !self.paused && (lower || may_rise) {
            self.stage = self.stage.min(plan.stages.len());
            self.base_bp = stage.weight_bp;
            if lower && self.is_promoted() {
                self.end = None;
            }
            self.weight_bp = self.allowed_bp(seen.now);
        }
    }

    fn raise_to(&mut self, stage: usize, weight_bp: u16, seen: &Seen) -> Result<(), Forbidden> {
        if !fits(weight_bp, seen.others_bp) {
            return Err(NO_ROOM);
        }
        self.overrule(seen);
        self.paused = false;
        self.wait = Wait::Time;
        self.enter(stage, weight_bp, seen.now);
        self.weight_bp = self.allowed_bp(seen.now);
        Ok(())
    }

    /// A person raises the weight against whatever lowered it; the breaker stays in force.
    fn overrule(&mut self, seen: &Seen) {
        self.caution = false;
        self.suspected_until = None;
        self.guard = None;
        self.overruled_ln = Some(seen.verdict.rollback_ln.max(seen.verdict.caution_ln));
    }

    fn alive(&self) -> Result<(), Forbidden> {
        if self.is_rolled_back() { Err(ROLLED_BACK) } else { Ok(()) }
    }
}
