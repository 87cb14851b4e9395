//! What a rollout is doing, in one sentence for a person.

use super::{End, Obstacle, Rollout, Wait, Why};
use crate::{judge::BreakerState, rollout::Plan};

impl Rollout {
    /// What it is doing and why, without the evidence: that is the judge's to say
    /// ([`Judge::reason`](crate::judge::Judge::reason)).
    #[must_use]
    pub fn sentence(&self, plan: &Plan) -> String {
        let mut sentence = self.doing(plan);
        if !self.cohorts_out.is_empty() && !self.is_rolled_back() {
            sentence += &format!("; rolled back for cohort {}", self.cohorts_out.join(", "));
        }
        sentence
    }

    fn doing(&self, plan: &Plan) -> String {
        let at = percent(self.weight_bp);
        match self.end {
            Some(End::RolledBack(why)) => return format!("rolled back: {}", why.sentence()),
            Some(End::Promoted) if self.is_over() => return "promoted: all traffic".to_owned(),
            Some(End::Promoted) => return format!("promoted: stays at {at}, judged on"),
            None => {}
        }
        if self.paused {
            return format!("paused at {at} by a person{}", self.lowered());
        }
        if plan.manual {
            return format!("at {at}: only people move the weight");
        }
        if self.is_cautious() {
            return format!("at {at}{}", self.lowered());
        }
        let stage = format!("stage {} of {} at {at}", self.stage, plan.stages.len());
        match self.next_weight(plan) {
            Some(next) => format!("{stage}, next {next}: {}", waiting(self.wait)),
            None => format!("{stage}, the last: {}", waiting(self.wait)),
        }
    }

    fn lowered(&self) -> &'static str {
        match self.breaker {
            BreakerState::Open => ", lowered by the breaker: most canary requests fail; probing",
            BreakerState::Reduced => ", lowered by the breaker: many canary requests fail",
            BreakerState::Closed if self.caution => ", lowered by caution until the evidence calms",
            BreakerState::Closed if self.suspected_until.is_some() => {
                ", lowered to a fifth for 5 min: the canary's own users see it getting worse"
            }
            BreakerState::Closed if self.guard_in_force().is_some() => {
                ", lowered because both arms became bad after the raise"
            }
            BreakerState::Closed => "",
        }
    }

    fn next_weight(&self, plan: &Plan) -> Option<String> {
        plan.stages.get(self.stage).map(|stage| percent(stage.weight_bp))
    }
}

/// A weight as people write it: `5 %`, `0.1 %`.
fn percent(weight_bp: u16) -> String {
    format!("{} %", f64::from(weight_bp) / 100.0)
}

impl Why {
    /// In a few words, for a person.
    #[must_use]
    pub const fn sentence(self) -> &'static str {
        match self {
            Self::Evidence => "the evidence against the canary passed its threshold",
            Self::BadResponses => "it cost as many bad responses as a rollout may",
            Self::Outages => "most of its requests failed whenever it got some",
            Self::Objective => "it burnt an error budget ten times as fast as it may",
            Self::Inconclusive => "undecided for longer than the plan allows",
            Self::Person => "by a person",
        }
    }
}

const fn waiting(wait: Wait) -> &'static str {
    match wait {
        Wait::Time => "the stage lasts at least as long as the plan says",
        Wait::Requests => "waits for canary requests",
        Wait::Doubt => "waits until the evidence against the canary is below 3 : 1",
        Wait::Proof => "waits for the proof that the canary is no worse than the margin",
        Wait::Gate => "waits for a person's approval",
        Wait::Room => "waits for room: the other canaries have too much weight",
        Wait::Inconclusive => "undecided for longer than the plan allows",
        Wait::Manual => "only people move the weight",
        Wait::Nothing => "nothing left to do",
        Wait::Obstacle(Obstacle::NoTraffic) => "waits for traffic",
        Wait::Obstacle(Obstacle::Placebo) => {
            "holds: baseline pods differ among themselves, so differences prove nothing (placebo)"
        }
        Wait::Obstacle(Obstacle::TooFewUsers) => {
            "holds: too few users of the canary can still tell the arms apart"
        }
        Wait::Obstacle(Obstacle::ShareCheck) => {
            "holds: the arms' shares of the requests do not fit the weights"
        }
        Wait::Obstacle(Obstacle::Environment) => {
            "frozen: the baseline breaches an objective too, so it is the environment"
        }
        Wait::Obstacle(Obstacle::Objective) => "halts: the canary breaches an objective",
        Wait::Obstacle(Obstacle::Interference) => {
            "holds: the baseline recovered at the lower weight, so the canary seems to hurt it; a \
             person is needed"
        }
        Wait::Obstacle(Obstacle::Journal) => "holds: the journal cannot be written",
        Wait::Obstacle(Obstacle::Late) => "holds: the control thread is late",
    }
}
