//! Steering: the rollouts of all services, and the one order in which a change of theirs comes to
//! be in force. A raise is sent to the journal and applied when it is on disk; a lowering is
//! applied, then sent. Nothing that waits blocks a lowering.

mod one;
mod plans;

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
    time::{Duration, SystemTime},
};

use tokio::{sync::oneshot, time::Instant};

use super::{
    Action, Change, Command, Decision, DecisionKind, EvidenceSnapshot, JournalCounts,
    JournalSettings, LiveRollout, Memory, Record, Recorded, Refused, RolloutStatus, RouteCounts,
    Seen, Snapshot, StepInput, Why,
    asking::WARMING,
    hearing::Hearings,
    journal,
    placebo::Placebos,
    recall::{Course, Recollection, RouteDeadlines, course},
    state::{State, Turn},
};

pub(super) use one::{Rollout, Said};

use one::Pending;

/// A raise that a person asked for waits for the disk for this long.
const PATIENCE: Duration = Duration::from_secs(5);

/// Lowerings that wait for the journal to take them at most; the oldest are dropped, because
/// every decision carries the whole state.
const UNSENT: usize = 1024;

/// Who decides when nobody asked.
const OURSELVES: &str = "haldane";

/// The journal of the control plane.
pub(super) type Journal = journal::Journal<Record, Memory>;

/// Requests of rollouts since they began, by service and canary.
pub(super) type Counted = HashMap<[Arc<str>; 2], Vec<RouteCounts>>;

/// What the journal is told beside rollouts and hearings.
#[derive(Clone, Copy, Debug)]
pub(super) struct Known<'a> {
    pub(super) counted: &'a Counted,
    pub(super) placebos: &'a Placebos,
}

/// What goes on of a rollout of a process before this one.
#[derive(Debug)]
pub(super) struct Past {
    /// The evidence and what counted as slow, by route; `None` where it was not judged any more.
    pub(super) evidence: Option<(EvidenceSnapshot, Vec<RouteDeadlines>)>,
    pub(super) counts: Vec<RouteCounts>,
}

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

/// What came of a round of steering, for the control thread to carry out.
#[derive(Debug, Default)]
pub(super) struct Changes {
    /// Some weight changed.
    pub(super) weights: bool,
    /// Rollouts that began (again): their versions, counts and evidence begin with them.
    pub(super) begun: Vec<At>,
    /// Rollouts whose proof begins anew.
    pub(super) fresh_proofs: Vec<At>,
    /// Rollouts whose weight was lowered because of what was seen.
    pub(super) forced: Vec<At>,
    /// Those of them that were rolled back.
    pub(super) rolled_back: Vec<At>,
    /// Commands that are in force now.
    pub(super) answers: Vec<(At, Answer)>,
}

impl Changes {
    pub(super) fn is_empty(&self) -> bool {
        !self.weights
            && self.begun.is_empty()
            && self.fresh_proofs.is_empty()
            && self.answers.is_empty()
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
    /// By run: what the journal knows of rollouts of a process before.
    recalled: Recollection,
    /// By run: the evidence of those that go on.
    pasts: HashMap<u64, Past>,
}

impl Steering {
    /// Nothing is rolled out yet; the decisions are those of the journal.
    pub(super) fn new(
        journal: Journal,
        decisions: impl IntoIterator<Item = Decision>,
        recalled: Recollection,
    ) -> Self {
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
            recalled,
            pasts: HashMap::new(),
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

    /// The rollout of a service and a canary.
    pub(super) fn named(&self, names: &[Arc<str>; 2]) -> Option<(At, &Rollout)> {
        self.all().find(|(_, rollout)| rollout.names() == *names)
    }

    /// The last decisions, oldest first.
    pub(super) fn recent(&self) -> impl Iterator<Item = &Arc<Decision>> {
        self.recent.iter()
    }

    /// What the journal did since the start of the process.
    pub(super) fn journal_counts(&self) -> JournalCounts {
        self.journal.counts()
    }

    /// How much the journal keeps from now on.
    pub(super) fn keep(&self, settings: JournalSettings) {
        self.journal.keep(settings);
    }

    /// Whether the journal takes writes.
    pub(super) fn is_writable(&self) -> bool {
        self.journal.is_writable()
    }

    /// The raises that are on their way, and to which weights.
    pub(super) fn raises(&self) -> impl Iterator<Item = (At, u16)> {
        self.all().filter_map(|(at, rollout)| {
            let pending = rollout.pending.as_ref()?;
            Some((at, pending.turn.state.weight_bp()))
        })
    }

    /// Connections were asked for ahead of the raises that are on their way.
    pub(super) fn asked(&mut self, moment: Moment) {
        let rollouts = self.rollouts.iter_mut().flatten();
        for pending in rollouts.filter_map(|rollout| rollout.pending.as_mut()) {
            pending.asked.get_or_insert(moment.now);
        }
    }

    /// The number of the last raise that waits for the disk.
    pub(super) fn last_pending(&self) -> Option<u64> {
        self.all().filter_map(|(_, rollout)| Some(rollout.pending.as_ref()?.seq)).max()
    }

    /// Whether a raise up to this number still waits.
    pub(super) fn is_pending(&self, seq: u64) -> bool {
        self.all().any(|(_, one)| one.pending.as_ref().is_some_and(|pending| pending.seq <= seq))
    }

    /// Carries out what a person asked for, or puts it on its way.
    pub(super) fn command(&mut self, command: &Command, answer: Answer, moment: Moment) {
        let turn = self.find(command).and_then(|at| {
            let acted = self.at(at).state.act(&command.action, &self.seen(at, moment));
            let mut turn = acted.map_err(Refused::Forbidden)?;
            turn.state.reason.clone_from(&command.reason);
            Ok((at, turn))
        });
        match turn {
            Ok((at, turn)) => {
                let actor = &command.actor;
                if let Err((refused, answer)) = self.propose_for(at, turn, actor, moment, answer) {
                    reply(answer, Err(refused));
                }
            }
            Err(refused) => reply(answer, Err(refused)),
        }
    }

    fn propose_for(
        &mut self,
        at: At,
        turn: Turn,
        actor: &str,
        moment: Moment,
        answer: Answer,
    ) -> Result<(), (Refused, Answer)> {
        if turn.state.weight_bp() > self.at(at).state.weight_bp() && !self.can_raise() {
            return Err((Refused::Journal, answer));
        }
        // What is refused from here on was refused by a queue that just had room.
        if let Err(refused) = self.propose(at, turn, actor, moment, Some(answer)) {
            tracing::error!(%refused, "a change was taken back");
        }
        Ok(())
    }

    /// Gives a raise up that another change comes before.
    fn overtake(&mut self, at: At) {
        let overtaken = "another change of this rollout came in between";
        if let Some(pending) = self.rollouts[at.service][at.canary].pending.take()
            && let Some(before) = pending.answer
        {
            reply(before, Err(Refused::Forbidden(overtaken.into())));
        }
    }

    /// Whether the journal would take a raise, behind everything that was decided before.
    fn can_raise(&self) -> bool {
        self.unsent.is_empty() && self.journal.has_room()
    }

    /// Goes one step on by what was seen. What lowers the weight is in force at once.
    pub(super) fn judge(&mut self, at: At, seen: Seen, said: Said, moment: Moment) {
        let rollout = &mut self.rollouts[at.service][at.canary];
        rollout.seen = seen;
        rollout.said = said;
        let pending = rollout.pending.as_ref().map(|pending| &pending.turn.state.life);
        let course =
            course(&rollout.state.life, rollout.state.plan.as_deref(), pending, &rollout.seen);
        self.record(at, Recorded::Step(StepInput::of(&self.at(at).seen)), moment);
        let (change, life, fresh_proof) = match course {
            Course::Waits => return,
            Course::Stays(life) => {
                self.rollouts[at.service][at.canary].state.life = life;
                return;
            }
            Course::Turns(_, life, _)
                if life.weight_bp() > self.at(at).state.weight_bp() && !self.can_raise() =>
            {
                return;
            }
            Course::Turns(change, life, fresh_proof) => (change, life, fresh_proof),
        };
        let rollout = self.at(at);
        let mut state = State { life, ..rollout.state.clone() };
        state.reason = reason(change, &state, &rollout.said.told.sentence);
        let turn = Turn { kind: change.into(), state, fresh_proof };
        // The queue has room; where it is lost the next step tries again.
        let _ = self.propose(at, turn, OURSELVES, moment, None);
    }

    /// What the judge says of a rollout, before its first step.
    pub(super) fn note(&mut self, names: &[Arc<str>; 2], said: Said) {
        let mut rollouts = self.rollouts.iter_mut().flatten();
        if let Some(rollout) = rollouts.find(|rollout| rollout.names() == *names) {
            rollout.said = said;
        }
    }

    /// Tells the journal what a rollout was told. What finds no room is counted there: evidence
    /// goes on without it, and only a restart loses something.
    pub(super) fn record(&mut self, at: At, what: Recorded, moment: Moment) {
        let rollout = &self.rollouts[at.service][at.canary];
        let at_ms = rollout.clock.at(moment).as_millis() as u64;
        let _ = self.journal.append_block(Record { run: rollout.run, at_ms, what });
    }

    /// Whether the journal wants to be told everything.
    pub(super) fn wants_snapshot(&self) -> bool {
        self.unsent.is_empty() && self.journal.wants_snapshot()
    }

    /// Tells the journal everything, so that it can begin anew from here.
    pub(super) fn remember_all(&mut self, hearings: &Hearings, known: Known<'_>, moment: Moment) {
        let live = hearings.all().filter_map(|(names, hearing)| {
            let rollout = self.named(names)?.1;
            let (beginning, evidence) = hearing.state();
            let pending = rollout.pending.as_ref().map(|it| it.turn.state.life.clone());
            Some(LiveRollout {
                run: rollout.run,
                at_ms: rollout.clock.at(moment).as_millis() as u64,
                beginning: beginning.clone(),
                life: rollout.state.life.clone(),
                pending,
                evidence: evidence.snapshot(),
                counts: known.counted.get(names).cloned().unwrap_or_default(),
            })
        });
        let live = live.collect();
        let ended = self.rollouts.iter().flatten().filter_map(|rollout| {
            let names = rollout.names();
            let judged = hearings.all().any(|(of, _)| *of == names);
            (!judged).then(|| Some((rollout.run, known.counted.get(&names)?.clone())))?
        });
        let ended = ended.collect();
        let mut decisions: Vec<Decision> =
            self.known.values().map(|decision| Decision::clone(decision)).collect();
        decisions.sort_unstable_by_key(|decision| decision.seq);
        // It had room just now; otherwise it is asked for again.
        let _ = self.journal.append_snapshot(Memory {
            decisions,
            live,
            ended,
            placebos: known.placebos.memory(),
        });
    }

    /// What the last step went by, at this moment.
    fn seen(&self, at: At, moment: Moment) -> Seen {
        let rollout = self.at(at);
        let others_bp = self.others_bp(at);
        Seen { now: rollout.clock.at(moment), others_bp, ..rollout.seen.clone() }
    }

    /// Time since a rollout began.
    pub(super) fn time_of(&self, at: At, moment: Moment) -> Duration {
        self.at(at).clock.at(moment)
    }

    fn propose(
        &mut self,
        at: At,
        turn: Turn,
        actor: &str,
        moment: Moment,
        answer: Option<Answer>,
    ) -> Result<(), Refused> {
        let raises = turn.state.weight_bp() > self.at(at).state.weight_bp();
        if raises {
            if !self.can_raise() {
                return Err(Refused::Journal);
            }
            self.overtake(at);
            let decision = self.decision(at, &turn, actor, moment);
            let seq = decision.seq;
            if self.journal.append(decision).is_err() {
                return Err(Refused::Journal);
            }
            let until = answer.is_some().then(|| moment.now + PATIENCE);
            let rollout = &mut self.rollouts[at.service][at.canary];
            rollout.pending = Some(Pending { seq, turn, until, asked: None, answer });
        } else {
            self.overtake(at);
            let decision = self.decision(at, &turn, actor, moment);
            self.enter(at, turn, decision.seq, moment);
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
                continue;
            };
            let warm = pending.asked.is_none_or(|asked| moment.now >= asked + WARMING);
            if pending.seq <= durable && !warm {
                self.rollouts[at.service][at.canary].pending = Some(pending);
            } else if pending.seq <= durable {
                self.enter(at, pending.turn, pending.seq, moment);
                self.record(at, Recorded::InForce(pending.seq), moment);
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

    /// Says in the journal that a raise which may be on its way did not come into force.
    fn withdraw(&mut self, at: At, moment: Moment) {
        let state = self.at(at).state.clone();
        let turn = Turn { kind: DecisionKind::Withdraw, state, fresh_proof: false };
        let decision = self.decision(at, &turn, OURSELVES, moment);
        self.enter(at, turn, decision.seq, moment);
        self.send_later(decision);
    }

    fn enter(&mut self, at: At, turn: Turn, seq: u64, moment: Moment) {
        let rollout = &mut self.rollouts[at.service][at.canary];
        let (from_bp, weight_bp) = (rollout.state.weight_bp(), turn.state.weight_bp());
        tracing::info!(
            service = %rollout.service, canary = %rollout.canary, version = %turn.state.version,
            action = turn.kind.label(), from_bp, weight_bp, reason = %turn.state.reason, "rollout"
        );
        let others_out = turn.state.life.cohorts_out() != rollout.state.life.cohorts_out();
        self.changes.weights |= weight_bp != from_bp || others_out;
        if weight_bp < from_bp || turn.kind == DecisionKind::RollbackCohort {
            self.changes.forced.push(at);
        }
        if turn.state.life.is_rolled_back() && !rollout.state.life.is_rolled_back() {
            self.changes.rolled_back.push(at);
        }
        if turn.kind.begins() {
            self.changes.begun.push(at);
            rollout.begin(seq, moment);
        } else if turn.fresh_proof {
            self.changes.fresh_proofs.push(at);
        }
        rollout.by_hand = !turn.kind.is_judged();
        rollout.state = turn.state;
        rollout.since = moment.wall;
        rollout.decisions[turn.kind as usize] += 1;
    }

    fn decision(&mut self, at: At, turn: &Turn, actor: &str, moment: Moment) -> Decision {
        self.last_seq += 1;
        let rollout = &self.rollouts[at.service][at.canary];
        let begins = turn.kind.begins();
        let at_ms = if begins { 0 } else { rollout.clock.at(moment).as_millis() as u64 };
        let decision = Decision {
            seq: self.last_seq,
            time: humantime::format_rfc3339_millis(moment.wall).to_string(),
            action: turn.kind,
            service: rollout.service.clone(),
            canary: rollout.canary.clone(),
            version: turn.state.version.clone(),
            configured: turn.state.configured.clone(),
            run: if begins { self.last_seq } else { rollout.run },
            at_ms,
            phase: turn.state.phase(),
            stage: turn.state.stage_of().0,
            from_bp: rollout.state.weight_bp(),
            weight_bp: turn.state.weight_bp(),
            actor: actor.to_owned(),
            reason: turn.state.reason.clone(),
            evidence: (!begins).then(|| rollout.said.told.clone()),
            config: self.config_hash.clone(),
            life: turn.state.life.clone(),
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
    pub(super) fn others_bp(&self, at: At) -> u16 {
        let others =
            self.of(at.service).iter().enumerate().filter(|(index, _)| *index != at.canary);
        others.map(|(_, rollout)| rollout.held_bp()).fold(0, u16::saturating_add)
    }

    /// Where all rollouts are.
    pub(super) fn places(&self) -> Vec<At> {
        self.all().map(|(at, _)| at).collect()
    }

    /// Whether the state of a rollout allows an action now.
    pub(super) fn allows(&self, at: At, action: &Action, moment: Moment) -> bool {
        self.at(at).state.act(action, &self.seen(at, moment)).is_ok()
    }

    /// The rollout that a command is about.
    pub(super) fn find(&self, command: &Command) -> Result<At, Refused> {
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

/// Why haldane changed something, for the journal.
fn reason(change: Change, state: &State, said: &str) -> String {
    match change {
        Change::RolledBack(Why::Evidence)
        | Change::Cautioned
        | Change::Entered
        | Change::Returned
        | Change::Promoted => said.to_owned(),
        Change::RolledBack(why) => format!("{}; {said}", why.sentence()),
        Change::CohortOut => {
            let cohort = state.life.cohorts_out().last().map_or("", |cohort| &**cohort);
            format!("cohort {cohort} alone: its evidence passed the threshold; {said}")
        }
        Change::Tripped => format!("the breaker: most recent canary requests failed; {said}"),
        Change::Guarded => {
            format!("both arms breach an objective since the weight was raised; {said}")
        }
        Change::Recovered => format!("the breaker: canary requests succeed again; {said}"),
        Change::Suspected => {
            format!("users who keep their arm see the canary getting worse; {said}")
        }
        Change::WarmedUp => "the canary has warmed up".to_owned(),
    }
}

/// Answers a command; who does not wait for it any more misses nothing.
pub(super) fn reply(answer: Answer, result: Result<RolloutStatus, Refused>) {
    let _ = answer.send(result);
}
