//! Steering: the rollouts of all services, and the one order in which a change of theirs comes to
//! be in force. A raise is sent to the journal and applied when it is on disk; a lowering is
//! applied, then sent. Nothing that waits blocks a lowering.

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
    time::{Duration, SystemTime},
};

use tokio::{sync::oneshot, time::Instant};

use super::{
    CanaryPlan, Command, Decision, DecisionKind, Refused, RolloutStatus, ServicePlan, Snapshot,
    journal::Journal,
    state::{State, Step},
};
use crate::routing::BUCKETS;

/// A raise that a person asked for waits for the disk for this long.
const PATIENCE: Duration = Duration::from_secs(5);

/// Lowerings that wait for the journal to take them at most; the oldest are dropped, because
/// every decision carries the whole state.
const UNSENT: usize = 1024;

/// Who decides when nobody asked.
const OURSELVES: &str = "haldane";

/// Waits for a command to be in force.
pub(super) type Answer = oneshot::Sender<Result<RolloutStatus, Refused>>;

/// A moment, for decisions and for the clock on the wall.
#[derive(Clone, Copy, Debug)]
pub(super) struct Moment {
    pub(super) now: Instant,
    pub(super) wall: SystemTime,
}

/// Names a rollout: the service's place and the canary's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct At {
    pub(super) service: usize,
    pub(super) canary: usize,
}

/// One canary's rollout.
#[derive(Debug)]
pub(super) struct Rollout {
    pub(super) service: Arc<str>,
    pub(super) canary: Arc<str>,
    pub(super) state: State,
    pub(super) since: SystemTime,
    /// By [`DecisionKind::ALL`].
    pub(super) decisions: [u64; DecisionKind::ALL.len()],
    pending: Option<Pending>,
}

/// A raise on its way to the disk.
#[derive(Debug)]
struct Pending {
    seq: u64,
    step: Step,
    until: Option<Instant>,
    answer: Option<Answer>,
}

/// What came of a round of steering, for the control thread to carry out.
#[derive(Debug, Default)]
pub(super) struct Changes {
    /// Some weight changed.
    pub(super) weights: bool,
    /// Rollouts that began (again): their versions and counts begin with them.
    pub(super) begun: Vec<At>,
    /// Commands that are in force now.
    pub(super) answers: Vec<(At, Answer)>,
}

impl Changes {
    pub(super) fn is_empty(&self) -> bool {
        !self.weights && self.begun.is_empty() && self.answers.is_empty()
    }
}

/// All rollouts.
#[derive(Debug)]
pub(super) struct Steering {
    services: Vec<Arc<str>>,
    /// By service, then canary.
    rollouts: Vec<Vec<Rollout>>,
    journal: Journal,
    /// The last decision by service, canary and version.
    known: HashMap<[Arc<str>; 3], Arc<Decision>>,
    /// The last decision by service and canary.
    latest: HashMap<[Arc<str>; 2], Arc<Decision>>,
    last_seq: u64,
    unsent: VecDeque<Decision>,
    recent: VecDeque<Arc<Decision>>,
    config_hash: Arc<str>,
    changes: Changes,
}

impl Steering {
    /// Nothing is rolled out yet; the decisions are those of the journal.
    pub(super) fn new(journal: Journal, decisions: Vec<Decision>) -> Self {
        let mut steering = Self {
            services: Vec::new(),
            rollouts: Vec::new(),
            journal,
            known: HashMap::new(),
            latest: HashMap::new(),
            last_seq: 0,
            unsent: VecDeque::new(),
            recent: VecDeque::new(),
            config_hash: "".into(),
            changes: Changes::default(),
        };
        for decision in decisions {
            steering.remember(Arc::new(decision));
        }
        steering
    }

    /// The rollouts of one service, in the order of its canaries.
    pub(super) fn of(&self, service: usize) -> &[Rollout] {
        self.rollouts.get(service).map_or(&[], Vec::as_slice)
    }

    pub(super) fn at(&self, at: At) -> &Rollout {
        &self.rollouts[at.service][at.canary]
    }

    /// All rollouts.
    pub(super) fn all(&self) -> impl Iterator<Item = (At, &Rollout)> {
        self.rollouts.iter().enumerate().flat_map(|(service, canaries)| {
            let at = move |canary| At { service, canary };
            canaries.iter().enumerate().map(move |(canary, rollout)| (at(canary), rollout))
        })
    }

    /// The last decisions, oldest first.
    pub(super) fn recent(&self) -> impl Iterator<Item = &Arc<Decision>> {
        self.recent.iter()
    }

    /// Whether the journal takes writes.
    pub(super) fn is_writable(&self) -> bool {
        self.journal.is_writable()
    }

    /// The number of the last raise that waits for the disk.
    pub(super) fn last_pending(&self) -> Option<u64> {
        self.all().filter_map(|(_, rollout)| Some(rollout.pending.as_ref()?.seq)).max()
    }

    /// Whether a raise up to this number still waits.
    pub(super) fn is_pending(&self, seq: u64) -> bool {
        self.all().any(|(_, one)| one.pending.as_ref().is_some_and(|pending| pending.seq <= seq))
    }

    /// Puts plans in force: rollouts go on under the plan of now, new versions begin.
    pub(super) fn plan(&mut self, services: &[ServicePlan], config_hash: Arc<str>, moment: Moment) {
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
                let mut state = State::resume(&decision, plan.plan.clone(), room_bp);
                state.configured = plan.version.clone();
                self.rollouts[at.service][at.canary].state = state;
            }
        }
        for at in self.places() {
            let others_bp = self.others_bp(at);
            let plan = plan_of(at).plan.clone();
            let state = &mut self.rollouts[at.service][at.canary].state;
            let step = if unknown.contains(&at) {
                let (version, configured) = (state.version.clone(), state.configured.clone());
                let state = State::begin(version, configured, plan, others_bp);
                Some(Step { kind: DecisionKind::Start, state })
            } else {
                state.replan(plan, others_bp)
            };
            let proposed = step.map(|step| self.propose(at, step, OURSELVES, moment, None));
            if let Some(Err(refused)) = proposed {
                tracing::warn!(%refused, service = %self.at(at).service, "the weight stays lower");
            }
        }
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
                            pending.step.state.replan(plan.plan.clone(), 0);
                        }
                        rollout
                    }
                    replaced => {
                        new.push(At { service, canary });
                        before.extend(replaced.map(|rollout| (names.clone(), rollout)));
                        let version = plan.version.clone();
                        let state = State::blank(version, plan.plan.clone());
                        Rollout::new(names, state, moment.wall)
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

    /// Carries out what a person asked for, or puts it on its way.
    pub(super) fn command(&mut self, command: &Command, answer: Answer, moment: Moment) {
        let step = self.find(command).and_then(|at| {
            let others_bp = self.others_bp(at);
            let acted = self.at(at).state.act(&command.action, others_bp);
            let mut step = acted.map_err(Refused::Forbidden)?;
            step.state.reason.clone_from(&command.reason);
            Ok((at, step))
        });
        match step {
            Ok((at, step)) => {
                let actor = &command.actor;
                if let Err((refused, answer)) = self.propose_for(at, step, actor, moment, answer) {
                    reply(answer, Err(refused));
                }
            }
            Err(refused) => reply(answer, Err(refused)),
        }
    }

    fn propose_for(
        &mut self,
        at: At,
        step: Step,
        actor: &str,
        moment: Moment,
        answer: Answer,
    ) -> Result<(), (Refused, Answer)> {
        if step.state.weight_bp > self.at(at).state.weight_bp && !self.can_raise() {
            return Err((Refused::Journal, answer));
        }
        let overtaken = "another change of this rollout came in between";
        if let Some(pending) = self.rollouts[at.service][at.canary].pending.take()
            && let Some(before) = pending.answer
        {
            reply(before, Err(Refused::Forbidden(overtaken.into())));
        }
        // What is refused from here on was refused by a queue that just had room.
        if let Err(refused) = self.propose(at, step, actor, moment, Some(answer)) {
            tracing::error!(%refused, "a change was taken back");
        }
        Ok(())
    }

    /// Whether the journal would take a raise, behind everything that was decided before.
    fn can_raise(&self) -> bool {
        self.unsent.is_empty() && self.journal.has_room()
    }

    fn propose(
        &mut self,
        at: At,
        step: Step,
        actor: &str,
        moment: Moment,
        answer: Option<Answer>,
    ) -> Result<(), Refused> {
        let raises = step.state.weight_bp > self.at(at).state.weight_bp;
        let decision = self.decision(at, &step, actor, moment);
        let seq = decision.seq;
        if raises {
            if !self.unsent.is_empty() || self.journal.append(decision).is_err() {
                return Err(Refused::Journal);
            }
            let until = answer.is_some().then(|| moment.now + PATIENCE);
            let rollout = &mut self.rollouts[at.service][at.canary];
            rollout.pending = Some(Pending { seq, step, until, answer });
        } else {
            self.rollouts[at.service][at.canary].pending = None;
            self.enter(at, step, moment);
            self.send_later(decision);
            self.changes.answers.extend(answer.map(|answer| (at, answer)));
        }
        Ok(())
    }

    /// What the disk, the clock and the other canaries allow by now.
    pub(super) fn tick(&mut self, moment: Moment) {
        while let Some(decision) = self.unsent.pop_front() {
            if let Err(decision) = self.journal.append(decision) {
                self.unsent.push_front(*decision);
                break;
            }
        }
        let durable = self.journal.durable();
        for at in self.places() {
            let Some(pending) = self.rollouts[at.service][at.canary].pending.take() else {
                self.find_room(at, moment);
                continue;
            };
            if pending.seq <= durable {
                self.enter(at, pending.step, moment);
                self.changes.answers.extend(pending.answer.map(|answer| (at, answer)));
            } else if pending.until.is_some_and(|until| until <= moment.now) {
                self.withdraw(at, moment);
                pending.answer.into_iter().for_each(|it| reply(it, Err(Refused::Journal)));
            } else {
                self.rollouts[at.service][at.canary].pending = Some(pending);
            }
        }
    }

    /// What changed since this was asked last.
    pub(super) fn take_changes(&mut self) -> Changes {
        std::mem::take(&mut self.changes)
    }

    fn find_room(&mut self, at: At, moment: Moment) {
        let step = self.at(at).state.find_room(self.others_bp(at));
        if let Some(step) = step.filter(|_| self.can_raise()) {
            // The queue has room; where it is lost the next tick tries again.
            let _ = self.propose(at, step, OURSELVES, moment, None);
        }
    }

    /// Says in the journal that a raise which may be on its way did not come into force.
    fn withdraw(&mut self, at: At, moment: Moment) {
        let state = self.at(at).state.clone();
        let step = Step { kind: DecisionKind::Withdraw, state };
        let decision = self.decision(at, &step, OURSELVES, moment);
        self.enter(at, step, moment);
        self.send_later(decision);
    }

    fn enter(&mut self, at: At, step: Step, moment: Moment) {
        let rollout = &mut self.rollouts[at.service][at.canary];
        let weight_bp = step.state.weight_bp;
        tracing::info!(
            service = %rollout.service, canary = %rollout.canary, version = %step.state.version,
            action = step.kind.label(), from_bp = rollout.state.weight_bp, weight_bp,
            reason = %step.state.reason, "rollout"
        );
        self.changes.weights |= weight_bp != rollout.state.weight_bp;
        if step.kind.begins() {
            self.changes.begun.push(at);
        }
        rollout.state = step.state;
        rollout.since = moment.wall;
        rollout.decisions[step.kind as usize] += 1;
    }

    fn decision(&mut self, at: At, step: &Step, actor: &str, moment: Moment) -> Decision {
        self.last_seq += 1;
        let rollout = &self.rollouts[at.service][at.canary];
        let decision = Decision {
            seq: self.last_seq,
            time: humantime::format_rfc3339_millis(moment.wall).to_string(),
            action: step.kind,
            service: rollout.service.clone(),
            canary: rollout.canary.clone(),
            version: step.state.version.clone(),
            configured: step.state.configured.clone(),
            phase: step.state.phase(),
            stage: step.state.stage_of().0,
            from_bp: rollout.state.weight_bp,
            weight_bp: step.state.weight_bp,
            actor: actor.to_owned(),
            reason: step.state.reason.clone(),
            config: self.config_hash.clone(),
        };
        self.remember(Arc::new(decision.clone()));
        decision
    }

    fn remember(&mut self, decision: Arc<Decision>) {
        let [service, canary, version] =
            [&decision.service, &decision.canary, &decision.version].map(Arc::clone);
        self.last_seq = self.last_seq.max(decision.seq);
        self.latest.insert([service.clone(), canary.clone()], Arc::clone(&decision));
        self.known.insert([service, canary, version], Arc::clone(&decision));
        self.recent.push_back(decision);
        if self.recent.len() > Snapshot::RECENT {
            self.recent.pop_front();
        }
    }

    fn send_later(&mut self, decision: Decision) {
        self.unsent.push_back(decision);
        if self.unsent.len() > UNSENT {
            self.unsent.pop_front();
        }
        while let Some(decision) = self.unsent.pop_front() {
            if let Err(decision) = self.journal.append(decision) {
                self.unsent.push_front(*decision);
                return;
            }
        }
    }

    /// What the other canaries of a service hold, or are about to.
    fn others_bp(&self, at: At) -> u16 {
        let others =
            self.of(at.service).iter().enumerate().filter(|(index, _)| *index != at.canary);
        others.map(|(_, rollout)| rollout.held_bp()).fold(0, u16::saturating_add)
    }

    fn places(&self) -> Vec<At> {
        self.all().map(|(at, _)| at).collect()
    }

    fn find(&self, command: &Command) -> Result<At, Refused> {
        let unknown = || Refused::UnknownService(command.service.clone());
        let mut services = self.services.iter();
        let service = services.position(|it| **it == *command.service).ok_or_else(unknown)?;
        let canaries = &self.rollouts[service];
        let names = || canaries.iter().map(|it| &*it.canary).collect::<Vec<_>>().join(", ");
        let canary = match &command.canary {
            None if canaries.len() == 1 => Some(0),
            None => None,
            Some(name) => canaries.iter().position(|it| *it.canary == **name),
        };
        let canary = canary.ok_or_else(|| {
            Refused::UnknownCanary(match &command.canary {
                _ if canaries.is_empty() => format!("{} has no canary", command.service),
                None => format!("{} has several canaries, name one: {}", command.service, names()),
                Some(name) => {
                    format!("{} has no canary {name:?}, but {}", command.service, names())
                }
            })
        })?;
        Ok(At { service, canary })
    }
}

impl Rollout {
    fn new([service, canary]: [Arc<str>; 2], state: State, since: SystemTime) -> Self {
        let decisions = [0; DecisionKind::ALL.len()];
        Self { service, canary, state, since, decisions, pending: None }
    }

    /// The weight that it has, or is about to have.
    fn held_bp(&self) -> u16 {
        let pending_bp = self.pending.as_ref().map_or(0, |pending| pending.step.state.weight_bp);
        self.state.weight_bp.max(pending_bp)
    }
}

/// Answers a command; who does not wait for it any more misses nothing.
pub(super) fn reply(answer: Answer, result: Result<RolloutStatus, Refused>) {
    let _ = answer.send(result);
}
