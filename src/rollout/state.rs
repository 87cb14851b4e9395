//! The state of one canary's rollout, and the pure step from one state to the next: what a person
//! asks for, or what a new plan means, as numbers. It knows no clock and moves nothing itself.

use std::sync::Arc;

use super::{Action, Decision, DecisionKind, Phase, Plan};
use crate::routing::BUCKETS;

/// All of a service's canaries leave this much to the baseline, unless one of them has everything.
const MOST_TOGETHER_BP: u16 = 9_500;
const ALL_BP: u16 = BUCKETS as u16;

/// Where a rollout is.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct State {
    /// The version that is being rolled out.
    pub(super) version: Arc<str>,
    /// The version that the configuration names.
    pub(super) configured: Arc<str>,
    pub(super) plan: Option<Arc<Plan>>,
    /// From 0; meaningless without a plan.
    pub(super) stage: usize,
    pub(super) weight_bp: u16,
    pub(super) standing: Standing,
    pub(super) paused: bool,
    /// Who or what put it here, and why.
    pub(super) reason: String,
}

/// What has been settled about a version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Standing {
    /// Nothing yet.
    Open,
    /// Its stage does not fit beside the other canaries.
    WaitsForRoom,
    /// It got everything.
    Promoted,
    /// It was taken back.
    RolledBack,
}

/// A state to go to, and what it is called in the journal.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Step {
    pub(super) kind: DecisionKind,
    pub(super) state: State,
}

impl State {
    /// A version of which nothing is in force yet.
    pub(super) fn blank(version: Arc<str>, plan: Option<Arc<Plan>>) -> Self {
        Self {
            configured: Arc::clone(&version),
            version,
            plan,
            stage: 0,
            weight_bp: 0,
            standing: Standing::Open,
            paused: false,
            reason: "the version is new".into(),
        }
    }

    /// The state that a version begins in, beside others that hold `others_bp`.
    pub(super) fn begin(
        version: Arc<str>,
        configured: Arc<str>,
        plan: Option<Arc<Plan>>,
        others_bp: u16,
    ) -> Self {
        let first_bp = plan.as_ref().map_or(0, |plan| plan.stages[0].weight_bp);
        let standing = Standing::WaitsForRoom;
        let mut state = Self { configured, standing, ..Self::blank(version, plan) };
        if fits(first_bp, others_bp) {
            state.weight_bp = first_bp;
            state.standing = Standing::Open;
            state.settle();
        }
        state
    }

    /// The state that a decision left, with the plan of now. Never a higher weight than that.
    pub(super) fn resume(decision: &Decision, plan: Option<Arc<Plan>>, room_bp: u16) -> Self {
        let stages = plan.as_ref().map_or(0, |plan| plan.stages.len());
        let standing = match decision.phase {
            Phase::RolledBack => Standing::RolledBack,
            Phase::Promoted => Standing::Promoted,
            Phase::Idle
            | Phase::Paused
            | Phase::Gated
            | Phase::Caution
            | Phase::Holding
            | Phase::Progressing
                if decision.weight_bp == 0 && decision.action.begins() =>
            {
                Standing::WaitsForRoom
            }
            Phase::Idle
            | Phase::Paused
            | Phase::Gated
            | Phase::Caution
            | Phase::Holding
            | Phase::Progressing => Standing::Open,
        };
        Self {
            version: Arc::clone(&decision.version),
            configured: Arc::clone(&decision.configured),
            plan,
            stage: decision.stage.saturating_sub(1).min(stages.saturating_sub(1)),
            weight_bp: decision.weight_bp.min(room_bp),
            standing,
            paused: decision.phase == Phase::Paused,
            reason: decision.reason.clone(),
        }
    }

    /// The first phase that applies.
    pub(super) fn phase(&self) -> Phase {
        match (&self.plan, self.standing) {
            (None, Standing::Open | Standing::WaitsForRoom | Standing::Promoted) => Phase::Idle,
            (_, Standing::RolledBack) => Phase::RolledBack,
            (_, Standing::Promoted) => Phase::Promoted,
            (_, Standing::Open | Standing::WaitsForRoom) if self.paused => Phase::Paused,
            (_, Standing::Open | Standing::WaitsForRoom) => Phase::Holding,
        }
    }

    /// One sentence for a person.
    pub(super) fn sentence(&self) -> String {
        let percent = percent(self.weight_bp);
        match self.phase() {
            Phase::Idle => format!("No plan: only people move the weight, which is {percent}."),
            Phase::RolledBack => format!("Rolled back: {}.", self.reason),
            Phase::Promoted => "The canary has all of the traffic.".into(),
            Phase::Paused => format!("Paused at {percent}: {}.", self.reason),
            Phase::Holding if self.standing == Standing::WaitsForRoom => {
                "The first stage waits for room beside the other canaries.".into()
            }
            Phase::Holding if self.plan.as_ref().is_some_and(|plan| plan.manual) => {
                format!("Only people move the weight of this rollout, which is {percent}.")
            }
            Phase::Holding | Phase::Gated | Phase::Caution | Phase::Progressing => format!(
                "Requests are counted and not yet judged: the weight stays at {percent} until a \
                 person moves it."
            ),
        }
    }

    /// The stage for people, from 1, and their number; 0 and 0 without a plan.
    pub(super) fn stage_of(&self) -> (usize, usize) {
        self.plan.as_ref().map_or((0, 0), |plan| (self.stage + 1, plan.stages.len()))
    }

    /// What a person asks for, beside other canaries that hold `others_bp`.
    ///
    /// # Errors
    /// A sentence that says which state forbids it.
    pub(super) fn act(&self, action: &Action, others_bp: u16) -> Result<Step, String> {
        let rolled_back = self.standing == Standing::RolledBack;
        match action {
            Action::SetWeight(_) | Action::Promote { .. } if rolled_back => {
                Err(format!("version {} was rolled back: `retry` it first", self.version))
            }
            Action::Pause | Action::Resume | Action::Approve | Action::Abort if rolled_back => {
                Err(format!("version {} was rolled back", self.version))
            }
            Action::SetWeight(weight_bp) => self.set_weight(*weight_bp, others_bp),
            Action::Pause => self.pause(),
            Action::Resume => self.resume_by_hand(),
            Action::Promote { full } => self.promote(*full, others_bp),
            Action::Approve => Err("no gate is waiting for an approval".into()),
            Action::Abort => Ok(self.abort()),
            Action::Retry => self.retry(others_bp),
            Action::Release { version } => self.release(version, others_bp),
        }
    }

    fn set_weight(&self, weight_bp: u16, others_bp: u16) -> Result<Step, String> {
        let room_bp = ALL_BP.saturating_sub(others_bp);
        if weight_bp > room_bp {
            return Err(format!(
                "the other canaries hold {}: at most {} is left",
                percent(others_bp),
                percent(room_bp)
            ));
        }
        let mut state = self.clone();
        state.weight_bp = weight_bp;
        state.standing = Standing::Open;
        state.paused = self.plan.is_some();
        Ok(Step { kind: DecisionKind::SetWeight, state })
    }

    fn pause(&self) -> Result<Step, String> {
        match self.phase() {
            Phase::Idle => Err("there is no plan to pause".into()),
            Phase::Promoted => Err("the rollout is over: the canary was promoted".into()),
            Phase::Paused => Err("the rollout is paused already".into()),
            Phase::RolledBack
            | Phase::Gated
            | Phase::Caution
            | Phase::Holding
            | Phase::Progressing => {
                let state = Self { paused: true, ..self.clone() };
                Ok(Step { kind: DecisionKind::Pause, state })
            }
        }
    }

    /// Goes on from the last stage that the weight has reached.
    fn resume_by_hand(&self) -> Result<Step, String> {
        let Some(plan) = self.plan.as_ref().filter(|_| self.paused) else {
            return Err("the rollout is not paused".into());
        };
        let reached = plan.stages.iter().rposition(|stage| stage.weight_bp <= self.weight_bp);
        let mut state = Self { paused: false, stage: reached.unwrap_or(0), ..self.clone() };
        state.settle();
        Ok(Step { kind: DecisionKind::Resume, state })
    }

    fn promote(&self, full: bool, others_bp: u16) -> Result<Step, String> {
        let mut state = self.clone();
        if full {
            state.weight_bp = ALL_BP;
            state.stage = self.stage_of().1.saturating_sub(1);
        } else {
            let Some(plan) = &self.plan else {
                return Err("there is no plan, and so no next stage: set the weight".into());
            };
            let next = plan.stages.iter().position(|stage| stage.weight_bp > self.weight_bp);
            let Some(next) = next else { return Err("the last stage is in force already".into()) };
            state.stage = next;
            state.weight_bp = plan.stages[next].weight_bp;
        }
        if !fits(state.weight_bp, others_bp) {
            return Err(format!(
                "{} does not fit beside the other canaries, which hold {}",
                percent(state.weight_bp),
                percent(others_bp)
            ));
        }
        state.standing = Standing::Open;
        state.paused &= !full;
        state.settle();
        Ok(Step { kind: DecisionKind::Promote, state })
    }

    fn abort(&self) -> Step {
        let mut state = self.clone();
        state.weight_bp = 0;
        state.standing = Standing::RolledBack;
        state.paused = false;
        Step { kind: DecisionKind::Abort, state }
    }

    fn retry(&self, others_bp: u16) -> Result<Step, String> {
        if self.standing != Standing::RolledBack {
            return Err(format!("version {} was not rolled back", self.version));
        }
        let version = Arc::clone(&self.version);
        let state =
            Self::begin(version, Arc::clone(&self.configured), self.plan.clone(), others_bp);
        Ok(Step { kind: DecisionKind::Retry, state })
    }

    fn release(&self, version: &str, others_bp: u16) -> Result<Step, String> {
        if version.is_empty() || *version == *self.version {
            return Err(format!("version {} is what is being rolled out", self.version));
        }
        let configured = Arc::clone(&self.configured);
        let state = Self::begin(version.into(), configured, self.plan.clone(), others_bp);
        Ok(Step { kind: DecisionKind::Release, state })
    }

    /// The same rollout under an edited plan: a stage edited downwards or upwards takes its
    /// weight along; `None` where the weight stays.
    pub(super) fn replan(&mut self, plan: Option<Arc<Plan>>, others_bp: u16) -> Option<Step> {
        let weight_of = |plan: &Option<Arc<Plan>>, stage: usize| {
            let plan = plan.as_ref()?;
            Some(plan.stages[stage.min(plan.stages.len() - 1)].weight_bp)
        };
        let before = weight_of(&self.plan, self.stage);
        let after = weight_of(&plan, self.stage);
        let last = plan.as_ref().map_or(0, |plan| plan.stages.len() - 1);
        self.plan = plan;
        self.stage = self.stage.min(last);
        let moved = self.standing == Standing::Open && !self.paused && before != after;
        let weight_bp = after.filter(|after| moved && *after != self.weight_bp)?;
        if weight_bp > self.weight_bp && !fits(weight_bp, others_bp) {
            return None;
        }
        let mut state = self.clone();
        state.weight_bp = weight_bp;
        state.settle();
        state.reason = "the stage was edited".into();
        Some(Step { kind: DecisionKind::Reload, state })
    }

    /// Starts at last, if there is room now.
    pub(super) fn find_room(&self, others_bp: u16) -> Option<Step> {
        if self.standing != Standing::WaitsForRoom || self.paused {
            return None;
        }
        let version = Arc::clone(&self.version);
        let state =
            Self::begin(version, Arc::clone(&self.configured), self.plan.clone(), others_bp);
        (state.standing != Standing::WaitsForRoom)
            .then_some(Step { kind: DecisionKind::Start, state })
    }

    /// Entering 100 % by a plan is the promotion.
    fn settle(&mut self) {
        if self.weight_bp == ALL_BP && !self.paused {
            self.standing = Standing::Promoted;
        }
    }
}

/// Whether a stage may be entered beside other canaries.
fn fits(weight_bp: u16, others_bp: u16) -> bool {
    others_bp == 0 || weight_bp.saturating_add(others_bp) <= MOST_TOGETHER_BP
}

/// A weight for people.
fn percent(weight_bp: u16) -> String {
    format!("{}%", f64::from(weight_bp) / 100.0)
}

#[cfg(test)]
mod tests;
