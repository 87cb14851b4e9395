//! The rollout step: a pure state machine from what was seen to the canary's weight.
//!
//! It reads no clock and knows no traffic: the live control thread and the simulator call the same
//! function. What is lowered here is in force at once; whoever calls sees to it that a raise is on
//! disk first, by keeping the state of before until then.

mod guard;
mod orders;
mod outcome;
mod seen;
mod sentence;
#[cfg(test)]
mod tests;

use std::{sync::Arc, time::Duration};

use serde::{Deserialize, Serialize};

use super::{Fallback, Phase, Plan, Stage};
use crate::judge::{BreakerState, Level};

pub use orders::Forbidden;
pub use outcome::{Change, Wait, Why};
pub use seen::{Obstacle, Seen, Standing};

use guard::Guard;

/// Weight that caution leaves, in buckets of 0.01 %.
const CAUTION_BP: u16 = 500;

/// Weight that a tripped breaker and a warm-up leave.
const ONE_PERCENT_BP: u16 = 100;

/// All weight, and the part of it that canaries may share.
const ALL_BP: u16 = 10_000;
const ROOM_BP: u16 = 9_500;

/// From this weight on a stage needs a proof unless the plan says otherwise.
const PROOF_FROM_BP: u16 = 500;

/// Canary requests without which no stage is left.
const LEAST_REQUESTS: u64 = 500;

/// How long suspicion among sticky users keeps the weight at a fifth.
const SUSPICION: Duration = Duration::from_secs(300);

/// Odds below which caution may end, how long they must stay there, and how often it may end by
/// itself in one rollout.
const CALM: f64 = 2.0;
const COOL_DOWN: Duration = Duration::from_secs(300);
const MOST_RETURNS: u8 = 2;

/// A canary that the breaker took everything from so often is taken back.
const MOST_OUTAGES: u8 = 3;

/// By how much the evidence must grow to lower a weight that a person set against it.
const OVERRULE: f64 = 5.0;

/// How a rollout ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum End {
    RolledBack(Why),
    Promoted,
}

/// Where a rollout is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Rollout {
    /// From 1; 0 before the first stage.
    stage: usize,
    entered: Duration,
    /// The weight that the plan or a person gave, before anything lowers it.
    base_bp: u16,
    /// The weight in force.
    weight_bp: u16,
    end: Option<End>,
    paused: bool,
    approved: bool,
    caution: bool,
    /// How often caution ended by itself.
    returns: u8,
    calm_since: Duration,
    /// Evidence (ln) against which a person raised the weight.
    overruled_ln: Option<f64>,
    suspected_until: Option<Duration>,
    breaker: BreakerState,
    /// How often the breaker took everything.
    #[serde(default)]
    outages: u8,
    /// A raise that was taken back because both arms became bad after it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    guard: Option<Guard>,
    warm_until: Duration,
    wait: Wait,
    /// Cohorts that were taken away from the canary for good.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    cohorts_out: Vec<Arc<str>>,
}

/// The rollout after a step.
#[derive(Clone, Debug, PartialEq)]
pub struct Step {
    /// Where it is now.
    pub rollout: Rollout,
    /// What changed; `None` if nothing did.
    pub change: Option<Change>,
    /// Whether the proof of the stage starts anew ([`Judge::enter_stage`]).
    ///
    /// [`Judge::enter_stage`]: crate::judge::Judge::enter_stage
    pub fresh_proof: bool,
}

impl Rollout {
    /// A rollout that begins now, at time 0: its first stage is in force unless a gate or the
    /// other canaries stand before it. While it warms up its weight is at most 1 %.
    #[must_use]
    pub fn start(plan: &Plan, warmup: Option<Duration>, others_bp: u16) -> Self {
        let mut rollout = Self { warm_until: warmup.unwrap_or_default(), ..Self::unborn() };
        rollout.wait =
            rollout.try_enter(plan, Duration::ZERO, others_bp).err().unwrap_or(Wait::Time);
        if plan.manual && rollout.stage > 0 {
            rollout.wait = Wait::Manual;
        }
        rollout.weight_bp = rollout.allowed_bp(Duration::ZERO);
        rollout
    }

    /// A rollout without a stage and without weight: what only people move.
    #[must_use]
    pub(super) const fn unborn() -> Self {
        Self {
            stage: 0,
            entered: Duration::ZERO,
            base_bp: 0,
            weight_bp: 0,
            end: None,
            paused: false,
            approved: false,
            caution: false,
            returns: 0,
            calm_since: Duration::ZERO,
            overruled_ln: None,
            suspected_until: None,
            breaker: BreakerState::Closed,
            outages: 0,
            guard: None,
            warm_until: Duration::ZERO,
            wait: Wait::Time,
            cohorts_out: Vec::new(),
        }
    }

    /// The weight in force, in buckets of 0.01 %.
    #[must_use]
    pub const fn weight_bp(&self) -> u16 {
        self.weight_bp
    }

    /// The weight that it has, or comes back to when what lowered it is over: no other canary may
    /// take that room.
    #[must_use]
    pub(super) fn claims_bp(&self) -> u16 {
        if self.is_rolled_back() { 0 } else { self.weight_bp.max(self.base_bp) }
    }

    /// Takes weight away that there is no room for.
    pub(super) fn lower_to(&mut self, most_bp: u16) {
        self.base_bp = self.base_bp.min(most_bp);
        self.weight_bp = self.weight_bp.min(most_bp);
    }

    /// Cohorts that do not get the canary any more, whatever its weight.
    #[must_use]
    pub fn cohorts_out(&self) -> &[Arc<str>] {
        &self.cohorts_out
    }

    /// The stage, from 1; 0 before the first.
    #[must_use]
    pub const fn stage(&self) -> usize {
        self.stage
    }

    /// Why it does not go on right now.
    #[must_use]
    pub const fn wait(&self) -> Wait {
        self.wait
    }

    /// Whether the canary is still warming up at a moment.
    #[must_use]
    pub fn is_warming(&self, now: Duration) -> bool {
        now < self.warm_until
    }

    /// Whether most canary requests fail, so that its traffic leaves at once whatever the baseline
    /// can carry.
    #[must_use]
    pub(super) fn fails_outright(&self) -> bool {
        self.breaker == BreakerState::Open
    }

    /// Whether an open breaker wants a probe a second.
    #[must_use]
    pub fn wants_probes(&self) -> bool {
        self.breaker == BreakerState::Open && self.end.is_none()
    }

    /// Whether the canary has all of the traffic, so that nothing is left to be judged.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.is_rolled_back() || (self.end == Some(End::Promoted) && self.base_bp == ALL_BP)
    }

    /// Whether it was rolled back.
    #[must_use]
    pub const fn is_rolled_back(&self) -> bool {
        matches!(self.end, Some(End::RolledBack(_)))
    }

    /// Whether it was promoted.
    #[must_use]
    pub fn is_promoted(&self) -> bool {
        self.end == Some(End::Promoted)
    }

    /// Whether the weight is lowered, not for good.
    #[must_use]
    pub fn is_cautious(&self) -> bool {
        self.caution
            || self.suspected_until.is_some()
            || self.guard_in_force().is_some()
            || self.breaker != BreakerState::Closed
    }

    /// Where the rollout is, in one word: the first that applies.
    #[must_use]
    pub fn phase(&self) -> Phase {
        match self.end {
            Some(End::RolledBack(_)) => return Phase::RolledBack,
            Some(End::Promoted) => return Phase::Promoted,
            None => {}
        }
        if self.paused {
            return Phase::Paused;
        }
        match self.wait {
            Wait::Gate => Phase::Gated,
            _ if self.is_cautious() => Phase::Caution,
            Wait::Room | Wait::Inconclusive | Wait::Manual | Wait::Obstacle(_) => Phase::Holding,
            Wait::Time | Wait::Requests | Wait::Doubt | Wait::Proof | Wait::Nothing => {
                Phase::Progressing
            }
        }
    }

    /// One step: lowers what must be lowered, then goes on if it may.
    #[must_use]
    pub fn step(&self, plan: &Plan, seen: &Seen) -> Step {
        let mut next = self.clone();
        if self.is_over() {
            return Step { rollout: next, change: None, fresh_proof: false };
        }
        if plan.manual {
            let entered =
                self.wait == Wait::Room && next.try_enter(plan, seen.now, seen.others_bp).is_ok();
            if entered {
                next.wait = Wait::Manual;
                next.weight_bp = next.allowed_bp(seen.now);
            }
            let change = entered.then_some(Change::Entered);
            return Step { rollout: next, change, fresh_proof: entered };
        }
        let why = next.must_roll_back(plan, seen);
        let cohort = seen.condemned.as_ref().filter(|it| !self.cohorts_out.contains(it));
        if let (Some(Why::Evidence), Some(cohort)) = (why, cohort) {
            next.cohorts_out.push(Arc::clone(cohort));
            let change = Some(Change::CohortOut);
            return Step { rollout: next, change, fresh_proof: false };
        }
        if let Some(why) = why {
            next.end = Some(End::RolledBack(why));
            next.weight_bp = 0;
            let change = Some(Change::RolledBack(why));
            return Step { rollout: next, change, fresh_proof: false };
        }
        let lowered = next.lower(seen).or_else(|| next.guard_the_baseline(plan, seen));
        let moved = match lowered {
            None if !next.paused => next.go_on(plan, seen),
            Some(_) | None => None,
        };
        next.weight_bp = next.allowed_bp(seen.now);
        let warm = (next.weight_bp > self.weight_bp).then_some(Change::WarmedUp);
        let fresh_proof = next.caution != self.caution || next.stage != self.stage;
        Step { rollout: next, change: lowered.or(moved).or(warm), fresh_proof }
    }

    fn must_roll_back(&self, plan: &Plan, seen: &Seen) -> Option<Why> {
        let undecided = || {
            !self.paused
                && self.end.is_none()
                && plan.inconclusive_after.then == Fallback::Rollback
                && self.is_undecided(plan, seen)
        };
        if seen.verdict.level == Level::Rollback {
            Some(Why::Evidence)
        } else if seen.excess_bad >= plan.judge.max_bad_responses as f64 {
            Some(Why::BadResponses)
        } else if self.outages >= MOST_OUTAGES {
            Some(Why::Outages)
        } else if seen.objectives == Standing::Severe {
            Some(Why::Objective)
        } else {
            undecided().then_some(Why::Inconclusive)
        }
    }

    /// Breaker, caution and suspicion: begins and ends what lowers the weight.
    fn lower(&mut self, seen: &Seen) -> Option<Change> {
        let evidence_ln = seen.verdict.rollback_ln.max(seen.verdict.caution_ln);
        if evidence_ln > CALM.ln() || seen.breaker != BreakerState::Closed {
            self.calm_since = seen.now;
        }
        let breaker_before = std::mem::replace(&mut self.breaker, seen.breaker);
        let tripped = severity(seen.breaker) > severity(breaker_before);
        self.outages += u8::from(tripped && seen.breaker == BreakerState::Open);
        let recovered = severity(seen.breaker) < severity(breaker_before);
        // What the breaker saw is confirmed or cleared at the weight of caution.
        let cautioned = (self.evidence_asks(seen, evidence_ln) || tripped) && !self.caution;
        self.caution |= cautioned;
        let suspected = seen.suspected && self.suspected_until.is_none();
        if seen.suspected {
            self.suspected_until = Some(seen.now + SUSPICION);
        }
        let trusted_again =
            seen.block_ends && self.suspected_until.is_some_and(|until| seen.now >= until);
        if trusted_again {
            self.suspected_until = None;
        }
        let returned = !cautioned && self.caution && seen.block_ends && self.may_return(seen);
        if returned {
            self.caution = false;
            self.returns += 1;
            self.entered = seen.now;
        }
        match () {
            () if tripped => Some(Change::Tripped),
            () if cautioned => Some(Change::Cautioned),
            () if suspected => Some(Change::Suspected),
            () if recovered => Some(Change::Recovered),
            () if returned || trusted_again => Some(Change::Returned),
            () => None,
        }
    }

    fn evidence_asks(&self, seen: &Seen, evidence_ln: f64) -> bool {
        let overruled = self.overruled_ln.is_some_and(|ln| evidence_ln < ln + OVERRULE.ln());
        seen.verdict.level >= Level::Caution && !overruled
    }

    /// Whether caution is over: calm for long enough, twice as long each time, and proved at the
    /// lower weight unless that is the stage's own.
    fn may_return(&self, seen: &Seen) -> bool {
        let cool_down = COOL_DOWN * 2_u32.pow(u32::from(self.returns));
        let calm = seen.verdict.level < Level::Caution
            && seen.now.saturating_sub(self.calm_since) >= cool_down;
        let proved = self.base_bp <= CAUTION_BP || seen.proofs.proved;
        self.returns < MOST_RETURNS && calm && proved && seen.proofs.undoubted
    }

    /// The next stage, if this one is over.
    fn go_on(&mut self, plan: &Plan, seen: &Seen) -> Option<Change> {
        let entered = match self.blocked(plan, seen) {
            Some(wait) => Err(wait),
            None if !seen.block_ends => return None,
            None => self.try_enter(plan, seen.now, seen.others_bp),
        };
        match entered {
            Ok(()) => {
                self.wait = Wait::Time;
                Some(if self.end.is_some() { Change::Promoted } else { Change::Entered })
            }
            Err(wait) => {
                let proved_last = wait == Wait::Nothing && self.end.is_none();
                self.wait = wait;
                self.end = self.end.or(proved_last.then_some(End::Promoted));
                proved_last.then_some(Change::Promoted)
            }
        }
    }

    /// What keeps the stage from being over.
    fn blocked(&self, plan: &Plan, seen: &Seen) -> Option<Wait> {
        match seen.obstacle {
            // What was configured for a stage that stays undecided holds for a quiet one too.
            Some(Obstacle::NoTraffic) => {
                return self.unless_advanced(Wait::Obstacle(Obstacle::NoTraffic), plan, seen);
            }
            // Users come one after the other: that counts once the stage has lasted.
            Some(Obstacle::TooFewUsers) | None => {}
            Some(obstacle) => return Some(Wait::Obstacle(obstacle)),
        }
        let obstacle = match seen.objectives {
            _ if self.interferes() => Some(Obstacle::Interference),
            Standing::Kept => None,
            Standing::BaselineBreaches | Standing::BothBreach => Some(Obstacle::Environment),
            Standing::Breaches | Standing::Severe => Some(Obstacle::Objective),
        };
        if let Some(obstacle) = obstacle {
            return Some(Wait::Obstacle(obstacle));
        }
        if self.is_cautious() || !seen.proofs.undoubted {
            return Some(self.or_inconclusive(Wait::Doubt, plan, seen));
        }
        let stage = self.stage_of(plan)?;
        let at_least_until = (self.entered + stage.at_least).max(self.warm_until);
        if seen.now < at_least_until {
            return Some(Wait::Time);
        }
        if let Some(Obstacle::TooFewUsers) = seen.obstacle {
            let wait = Wait::Obstacle(Obstacle::TooFewUsers);
            return self.unless_advanced(wait, plan, seen);
        }
        if seen.canary_requests < LEAST_REQUESTS {
            return self.unless_advanced(Wait::Requests, plan, seen);
        }
        let wants_proof = stage.prove.unwrap_or(self.base_bp >= PROOF_FROM_BP);
        if wants_proof && !seen.proofs.proved {
            return self.unless_advanced(Wait::Proof, plan, seen);
        }
        None
    }

    fn unless_advanced(&self, wait: Wait, plan: &Plan, seen: &Seen) -> Option<Wait> {
        let advance = plan.inconclusive_after.then == Fallback::Advance;
        let advanced = advance && self.is_undecided(plan, seen);
        (!advanced).then(|| self.or_inconclusive(wait, plan, seen))
    }

    fn or_inconclusive(&self, wait: Wait, plan: &Plan, seen: &Seen) -> Wait {
        if self.is_undecided(plan, seen) { Wait::Inconclusive } else { wait }
    }

    /// Whether the stage has gone undecided for as long as the plan allows.
    fn is_undecided(&self, plan: &Plan, seen: &Seen) -> bool {
        let decided = matches!(self.wait, Wait::Gate | Wait::Room | Wait::Nothing);
        let period = plan.inconclusive_after.period;
        !decided && seen.now.saturating_sub(self.entered) >= period
    }

    fn stage_of<'p>(&self, plan: &'p Plan) -> Option<&'p Stage> {
        // A plan may have become shorter while its last stage was in force.
        plan.stages.get(self.stage.checked_sub(1)?.min(plan.stages.len() - 1))
    }

    /// Enters the stage after this one.
    fn try_enter(&mut self, plan: &Plan, now: Duration, others_bp: u16) -> Result<(), Wait> {
        let Some(next) = plan.stages.get(self.stage) else { return Err(Wait::Nothing) };
        if next.gate && !self.approved {
            return Err(Wait::Gate);
        }
        if !fits(next.weight_bp, others_bp) {
            return Err(Wait::Room);
        }
        self.enter(self.stage + 1, next.weight_bp, now);
        Ok(())
    }

    fn enter(&mut self, stage: usize, weight_bp: u16, now: Duration) {
        self.stage = stage;
        self.base_bp = weight_bp;
        self.entered = now;
        self.approved = false;
        self.guard = None;
        self.end = (weight_bp == ALL_BP).then_some(End::Promoted);
    }

    /// The weight after everything that lowers it.
    fn allowed_bp(&self, now: Duration) -> u16 {
        if self.is_rolled_back() {
            return 0;
        }
        let breaker_bp = match self.breaker {
            BreakerState::Closed => ALL_BP,
            BreakerState::Reduced => ONE_PERCENT_BP,
            BreakerState::Open => 0,
        };
        let mut allowed_bp = self.base_bp.min(breaker_bp);
        if self.caution {
            allowed_bp = allowed_bp.min(CAUTION_BP);
        }
        if self.suspected_until.is_some() && self.base_bp > 0 {
            allowed_bp = allowed_bp.min((self.base_bp / 5).max(1));
        }
        if let Some(guard) = self.guard_in_force() {
            allowed_bp = allowed_bp.min(guard.weight_bp);
        }
        if self.is_warming(now) {
            allowed_bp = allowed_bp.min(ONE_PERCENT_BP);
        }
        allowed_bp
    }
}

/// Whether a weight fits beside those of the other canaries.
const fn fits(weight_bp: u16, others_bp: u16) -> bool {
    if weight_bp == ALL_BP {
        others_bp == 0
    } else {
        weight_bp.saturating_add(others_bp) <= ROOM_BP
    }
}

const fn severity(breaker: BreakerState) -> u8 {
    match breaker {
        BreakerState::Closed => 0,
        BreakerState::Reduced => 1,
        BreakerState::Open => 2,
    }
}
