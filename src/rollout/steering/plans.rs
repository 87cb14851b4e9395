//! Plans come into force: rollouts go on under the plan of now or where the journal left them, and
//! new versions begin.

use std::{collections::HashMap, sync::Arc};

use super::{At, Moment, OURSELVES, Past, Rollout, Steering, reason, reply};
use crate::{
    rollout::{
        CanaryPlan, Decision, DecisionKind, Refused, ServicePlan,
        recall::Recalled,
        state::{State, Turn},
    },
    routing::BUCKETS,
};

impl Steering {
    /// Puts plans in force: rollouts go on under the plan of now, new versions begin.
    pub(in crate::rollout) fn plan(
        &mut self,
        services: &[ServicePlan],
        config_hash: Arc<str>,
        moment: Moment,
    ) {
        self.config_hash = config_hash;
        self.changes.weights = true;
        self.services = services.iter().map(|plans| plans.service.clone()).collect();
        let new = self.carry_over(services, moment);
        let plan_of = |at: At| &services[at.service].canaries[at.canary];
        let (known, unknown): (Vec<At>, Vec<At>) =
            new.iter().partition(|at| self.in_journal(**at, plan_of(**at)).is_some());
        self.changes.begun.extend(new);
        for at in known {
            let room_bp = (BUCKETS as u16).saturating_sub(self.others_bp(at));
            if let Some(decision) = self.in_journal(at, plan_of(at)).cloned() {
                let plan = plan_of(at);
                let mut state = State::resume(&decision, plan.plan.clone(), plan.warmup, room_bp);
                state.configured = plan.version.clone();
                self.rollouts[at.service][at.canary].go_on(&decision, state, moment);
                self.recall(at, room_bp, moment);
            }
        }
        for at in self.places() {
            let seen = self.seen(at, moment);
            let state = &mut self.rollouts[at.service][at.canary].state;
            state.warmup = plan_of(at).warmup;
            let turn = if unknown.contains(&at) {
                let state = state.begin(seen.others_bp);
                Some(Turn { kind: DecisionKind::Start, state, fresh_proof: true })
            } else {
                state.replan(plan_of(at).plan.clone(), &seen)
            };
            let proposed = turn.map(|turn| self.propose(at, turn, OURSELVES, moment, None));
            if let Some(Err(refused)) = proposed {
                tracing::warn!(%refused, service = %self.at(at).service, "the weight stays lower");
            }
        }
    }

    /// Goes on where a process before this one ended. What it had lowered without being able to
    /// say so is decided again.
    fn recall(&mut self, at: At, room_bp: u16, moment: Moment) {
        let rollout = &mut self.rollouts[at.service][at.canary];
        let Some(recalled) = self.recalled.told.remove(&rollout.run) else {
            if let Some(counts) = self.recalled.ended.remove(&rollout.run) {
                self.pasts.insert(rollout.run, Past { evidence: None, counts });
            }
            return;
        };
        let Recalled { life, again, time, evidence, slow, counts } = recalled;
        rollout.clock.before = rollout.clock.before.max(time);
        rollout.state.life = life;
        rollout.state.life.lower_to(room_bp);
        let evidence = Some((evidence, slow));
        self.pasts.insert(rollout.run, Past { evidence, counts });
        if let Some((change, life)) = again {
            let mut state = State { life, ..rollout.state.clone() };
            state.reason = reason(change, &state, "decided again after a restart");
            let turn = Turn { kind: change.into(), state, fresh_proof: false };
            // A lowering is never refused.
            let _ = self.propose(at, turn, OURSELVES, moment, None);
        }
    }

    /// The evidence of rollouts that go on, by run.
    pub(in crate::rollout) fn take_pasts(&mut self) -> HashMap<u64, Past> {
        std::mem::take(&mut self.pasts)
    }

    /// Takes over the rollouts whose configured version stays; the others stand at 0. Returns
    /// those others.
    fn carry_over(&mut self, services: &[ServicePlan], moment: Moment) -> Vec<At> {
        let mut before: HashMap<[Arc<str>; 2], Rollout> = std::mem::take(&mut self.rollouts)
            .into_iter()
            .flatten()
            .map(|rollout| ([rollout.service.clone(), rollout.canary.clone()], rollout))
            .collect();
        let mut new = Vec::new();
        for (service, plans) in services.iter().enumerate() {
            self.rollouts.push(Vec::with_capacity(plans.canaries.len()));
            for (canary, plan) in plans.canaries.iter().enumerate() {
                let names = [plans.service.clone(), plan.canary.clone()];
                let stays = |rollout: &Rollout| rollout.state.configured == plan.version;
                let rollout = match before.remove(&names) {
                    Some(mut rollout) if stays(&rollout) => {
                        if let Some(pending) = &mut rollout.pending {
                            pending.turn.state.plan.clone_from(&plan.plan);
                        }
                        rollout
                    }
                    replaced => {
                        new.push(At { service, canary });
                        before.extend(replaced.map(|rollout| (names.clone(), rollout)));
                        let version = plan.version.clone();
                        let state = State::blank(version, plan.plan.clone(), plan.warmup);
                        Rollout::new(names, state, moment)
                    }
                };
                self.rollouts[service].push(rollout);
            }
        }
        let gone = before.into_values().filter_map(|rollout| rollout.pending?.answer);
        let reason = "the configuration does not name this version any more";
        gone.for_each(|answer| reply(answer, Err(Refused::Forbidden(reason.into()))));
        new
    }

    /// What the journal last said about the version that a plan names, or that was released
    /// under it.
    fn in_journal(&self, at: At, plan: &CanaryPlan) -> Option<&Arc<Decision>> {
        let rollout = self.at(at);
        let [service, canary] = [&rollout.service, &rollout.canary].map(Arc::clone);
        let latest = self.latest.get(&[service.clone(), canary.clone()]);
        let released = latest.filter(|last| last.configured == plan.version);
        let version = released.map_or(&plan.version, |last| &last.version).clone();
        self.known.get(&[service, canary, version])
    }
}
