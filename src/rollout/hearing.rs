//! Hearings: for every rollout that is judged, what its evidence is made of and how it stands.
//! Moves no weight: that is the step's to do.

mod about;

use std::{collections::HashMap, sync::Arc, time::Duration};

use super::{
    Beginning, Evidence, EvidenceArm, EvidenceInput, EvidenceSnapshot, Obstacle, Recorded, Seen,
    Source, Split, Subject, Tellers, Told, Verdict, Yardstick, recall::RouteDeadlines,
    steering::Said,
};
use crate::{
    judge::{BreakerState, Level, Pods},
    measure::{Batch, Cut, Epoch, Kind, Ledger, RecorderId, Tick},
};

pub(super) use about::{About, Now};

use about::{Members, Weighing, splits};

/// The names of a service and a canary.
type Names = [Arc<str>; 2];

/// Without a request for so many ticks a rollout says that it waits for traffic.
const QUIET: u32 = 300;

/// With so many requests of no user in a stage, a canary can be judged without users.
const FEW_USERLESS: u64 = 500;

/// The hearings, by service and canary.
#[derive(Debug, Default)]
pub(super) struct Hearings {
    all: HashMap<Names, Hearing>,
    /// By service: all canaries of one are held against the same yardstick.
    yards: HashMap<Arc<str>, Yardstick>,
    /// By recorder id: the hearings that its requests belong to.
    keyed: HashMap<RecorderId, Vec<(Names, EvidenceArm)>>,
    /// By service: the deadlines of a process before this one, until the yardstick is made.
    past_deadlines: HashMap<Arc<str>, Vec<RouteDeadlines>>,
}

/// The evidence against one canary.
#[derive(Debug)]
pub(super) struct Hearing {
    evidence: Evidence,
    beginning: Beginning,
    /// What the journal is still to be told.
    notes: Vec<Recorded>,
    inputs: Vec<EvidenceInput>,
    strata: Vec<Weighing>,
    splits: Vec<Split>,
    weights_bp: Vec<u16>,
    others_out: Vec<(usize, Arc<str>)>,
    /// Users who can still tell, where users keep their arm; and the canary's requests of the
    /// stage that belong to no user.
    tellers: Option<Tellers>,
    userless: u64,
    epoch: Epoch,
    sources: Vec<Source>,
    /// The tick from which on the weights are as they are.
    since: Tick,
    /// Requests so far, and when the last of them was seen.
    requests: u64,
    heard_at: Tick,
    breaker: BreakerState,
}

impl Hearings {
    /// A rollout begins to be judged, under these weights of all canaries; or goes on where the
    /// evidence of a process before it ended.
    pub(super) fn begin(
        &mut self,
        about: &About<'_>,
        past: Option<(EvidenceSnapshot, Vec<RouteDeadlines>)>,
        weights_bp: &[u16],
        now: Now,
    ) {
        let Members { sources, strata, cohorts } = about.sources();
        let splits = splits(&strata, weights_bp, about.canary);
        let mut subject = about.subject(&sources, cohorts).with_components(about.ledger);
        // A rollout that was under way, and whose records are lost.
        subject.units_lost = past.is_none() && about.rollout.is_under_way();
        let beginning = about.beginning(&subject, now, &splits);
        let mut notes = vec![Recorded::Begin(Box::new(beginning.clone()))];
        let evidence = match past {
            Some((past, slow)) => {
                self.past_deadlines.insert(about.rollout.service.clone(), slow);
                let mut evidence = Evidence::recall(subject, past);
                // The process before may have ended between the decision and this.
                let out = about.rollout.state.life.cohorts_out();
                let aside = out.iter().filter_map(|cohort| evidence.set_aside(cohort));
                notes.extend(aside.map(Recorded::Input));
                notes.push(Recorded::Input(evidence.resume(now.tick, now.epoch, splits.clone())));
                evidence
            }
            None => Evidence::new(subject, now.tick, now.epoch, splits.clone()),
        };
        let hearing = Hearing {
            evidence,
            beginning,
            notes,
            inputs: Vec::new(),
            strata,
            splits,
            weights_bp: weights_bp.to_vec(),
            others_out: about.others_out(),
            tellers: None,
            userless: 0,
            epoch: now.epoch,
            sources: sources.iter().map(|(_, source)| *source).collect(),
            since: now.tick,
            requests: 0,
            heard_at: now.tick,
            breaker: BreakerState::Closed,
        };
        self.all.insert(about.rollout.names(), hearing);
    }

    /// Ends the hearings that are not to go on, and learns which recorders belong to the others.
    pub(super) fn retain<'a>(&mut self, goes_on: impl Fn(&Names) -> Option<About<'a>>) {
        self.keyed.clear();
        self.all.retain(|names, hearing| {
            let Some(about) = goes_on(names) else { return false };
            hearing.follow(&about);
            for (cell, source) in about.sources().sources {
                let arm = EvidenceArm { stratum: source.stratum, is_canary: source.is_canary };
                self.keyed.entry(cell.id).or_default().push((names.clone(), arm));
            }
            true
        });
        let mut subjects: HashMap<Arc<str>, Vec<&Subject>> = HashMap::new();
        for ([service, _], hearing) in &self.all {
            subjects.entry(service.clone()).or_default().push(hearing.evidence.subject());
        }
        self.yards.retain(|service, _| subjects.contains_key(service));
        for (service, subjects) in subjects {
            let past = self.past_deadlines.remove(&service);
            let yard = self.yards.entry(service).or_default();
            yard.measure(subjects.iter().copied());
            if let (Some(past), Some(subject)) = (past, subjects.first()) {
                yard.recall(subject, &past);
            }
        }
    }

    /// One tick is over: deadlines are set where they are due.
    pub(super) fn measure(&mut self, ledger: &mut Ledger, tick: Tick) {
        self.yards.values_mut().for_each(|yard| yard.refresh(ledger, tick));
    }

    /// One tick is over for one hearing: what has become final is judged.
    pub(super) fn listen(
        &mut self,
        names: &Names,
        ledger: &mut Ledger,
        tick: Tick,
    ) -> Option<&mut Hearing> {
        let (hearing, yard) = (self.all.get_mut(names)?, self.yards.get(&names[0])?);
        hearing.listen(ledger, yard, tick);
        Some(hearing)
    }

    /// All hearings, for the journal.
    pub(super) fn all(&self) -> impl Iterator<Item = (&Names, &Hearing)> {
        self.all.iter()
    }

    /// The hearing of a rollout.
    pub(super) fn of(&mut self, names: &Names) -> Option<&mut Hearing> {
        self.all.get_mut(names)
    }

    /// Takes notice of the keyed requests of a batch, for the trials of promotions, and of how
    /// arms did that were tried.
    pub(super) fn notice(&mut self, batch: &Batch) {
        for probed in batch.report.iter().flat_map(|report| &report.probes) {
            let names = [probed.service.clone(), probed.arm.clone()];
            if let Some(hearing) = self.all.get_mut(&names) {
                hearing.probe(probed.ok);
            }
        }
        if self.keyed.is_empty() {
            return;
        }
        for event in &batch.events {
            if event.excluded() || !matches!(event.kind(), Kind::Assigned) {
                continue;
            }
            for (names, arm) in self.keyed.get(&event.recorder).into_iter().flatten() {
                if let Some(hearing) = self.all.get_mut(names) {
                    if event.unit == 0 {
                        hearing.userless += u64::from(arm.is_canary);
                        continue;
                    }
                    hearing.evidence.assigned(event.unit, event.arrival, event.epoch(), *arm);
                }
            }
        }
    }

    /// Other weights are in force from now on, or another table with the same weights; whether
    /// they are others.
    pub(super) fn reweigh(
        &mut self,
        names: &Names,
        weights_bp: &[u16],
        canary: usize,
        now: Now,
        cut: Cut,
    ) -> bool {
        let Some(hearing) = self.all.get_mut(names) else { return false };
        if now.epoch == hearing.epoch {
            return false;
        }
        hearing.epoch = now.epoch;
        let splits = splits(&hearing.strata, weights_bp, canary);
        let others_changed = weights_bp.iter().zip(&hearing.weights_bp).enumerate();
        let others_changed = others_changed
            .filter(|(place, _)| *place != canary)
            .any(|(_, (now, before))| now != before);
        hearing.weights_bp = weights_bp.to_vec();
        if others_changed {
            let input = hearing.evidence.others_changed();
            hearing.note(input);
        }
        let others = splits != hearing.splits;
        let input = if others {
            hearing.splits.clone_from(&splits);
            hearing.since = now.tick;
            hearing.userless = 0;
            hearing.evidence.reweigh(now.epoch, now.tick, splits, cut)
        } else {
            hearing.evidence.same_weights(now.epoch)
        };
        hearing.note(input);
        others
    }
}

impl Hearing {
    fn note(&mut self, input: EvidenceInput) {
        self.notes.push(Recorded::Input(input));
    }

    /// What the journal is to be told, in order.
    pub(super) fn notes(&mut self) -> Vec<Recorded> {
        std::mem::take(&mut self.notes)
    }

    /// What it is made of, and what it has come to.
    pub(super) const fn state(&self) -> (&Beginning, &Evidence) {
        (&self.beginning, &self.evidence)
    }

    fn listen(&mut self, ledger: &mut Ledger, yard: &Yardstick, tick: Tick) {
        let mut inputs = std::mem::take(&mut self.inputs);
        self.evidence.gather(ledger, yard, tick, &mut inputs);
        for input in inputs.drain(..) {
            self.evidence.take(&input);
            self.note(input);
        }
        self.inputs = inputs;
        if tick.0.is_multiple_of(10) {
            self.tellers = self.evidence.tellers();
            let requests = self.sources.iter().map(|it| ledger.totals(it.key).started).sum();
            if requests != self.requests {
                (self.requests, self.heard_at) = (requests, tick);
            }
        }
    }

    /// Follows another table, or what the canaries' cohorts are by now: other recorders, pods,
    /// plans. Comes before the weights that go with it.
    pub(super) fn follow(&mut self, about: &About<'_>) {
        let Members { sources, strata, cohorts } = about.sources();
        for cohort in about.rollout.state.life.cohorts_out() {
            if let Some(input) = self.evidence.set_aside(cohort) {
                self.note(input);
            }
        }
        let others_out = about.others_out();
        if others_out != self.others_out {
            self.others_out = others_out;
            let input = self.evidence.others_changed();
            self.note(input);
        }
        if self.beginning.plan != about.rollout.state.plan {
            self.beginning.plan.clone_from(&about.rollout.state.plan);
            self.notes.push(Recorded::Plan(self.beginning.plan.clone()));
        }
        self.count_pods(about.pods());
        let keys: Vec<Source> = sources.iter().map(|(_, source)| *source).collect();
        if keys == self.sources {
            return;
        }
        let subject = Subject {
            units_lost: self.evidence.subject().units_lost,
            ..about.subject(&sources, cohorts)
        };
        let now = Now { tick: self.beginning.from, epoch: self.beginning.epoch };
        self.beginning = about.beginning(&subject, now, &self.beginning.splits);
        self.notes.push(Recorded::Begin(Box::new(self.beginning.clone())));
        let input = self.evidence.reshape(subject);
        input.into_iter().for_each(|input| self.note(input));
        (self.sources, self.strata) = (keys, strata);
    }

    /// So many pods get requests from now on.
    pub(super) fn count_pods(&mut self, pods: Option<Pods>) {
        if let Some(input) = self.evidence.set_pods(pods) {
            self.note(input);
        }
    }

    /// The outcome of a probe of an open breaker.
    pub(super) fn probe(&mut self, ok: bool) {
        let input = self.evidence.probe(ok);
        self.note(input);
    }

    /// The length of blocks that is needed here; where the plan leaves it open, the next ones have
    /// it.
    pub(super) fn calibrate(&mut self, ticks: u32) {
        let fixed = self.beginning.plan.as_ref().is_some_and(|plan| plan.judge.block.is_some());
        if !fixed && let Some(input) = self.evidence.set_block_ticks(ticks) {
            self.note(input);
        }
    }

    /// The proof of the stage begins anew, under the same weights.
    pub(super) fn enter_stage(&mut self, tick: Tick) {
        self.userless = 0;
        let input = self.evidence.enter_stage(tick);
        self.note(input);
    }

    /// Whether a step is due at a tick: once a second, where blocks end, and as soon as the
    /// breaker or the evidence asks for one.
    pub(super) fn is_due(&mut self, tick: Tick) -> bool {
        let breaker = self.evidence.judge().breaker();
        let tripped = std::mem::replace(&mut self.breaker, breaker) != breaker;
        tripped || self.evidence.has_news() || tick.0.is_multiple_of(10) || self.block_ends(tick)
    }

    /// What a step goes by.
    pub(super) fn seen(
        &mut self,
        now: Duration,
        others_bp: u16,
        obstacle: Option<Obstacle>,
        tick: Tick,
    ) -> Seen {
        let shares = self.evidence.judge().share_check().fired();
        let quiet = tick.0.saturating_sub(self.heard_at.0) >= QUIET;
        let few = self.by_users().is_some_and(Tellers::are_too_few);
        let own = shares
            .then_some(Obstacle::ShareCheck)
            .or(quiet.then_some(Obstacle::NoTraffic))
            .or(few.then_some(Obstacle::TooFewUsers));
        let block_ends = self.block_ends(tick);
        Seen { block_ends, ..self.evidence.seen(now, others_bp, obstacle.or(own)) }
    }

    /// What a person is told.
    pub(super) fn said(&self) -> Said {
        let judge = self.evidence.judge();
        let verdict = judge.verdict();
        Said {
            verdict: match verdict.level {
                Level::Healthy => Verdict::Healthy,
                Level::Holding => Verdict::Holding,
                Level::Caution => Verdict::Caution,
                Level::Rollback => Verdict::Rollback,
            },
            told: Told {
                odds: verdict.odds(),
                needs: verdict.threshold_ln.exp(),
                sentence: self.sentence(),
                requests: self.evidence.requests(),
                excess_bad: self.evidence.excess_bad(),
            },
        }
    }

    fn sentence(&self) -> String {
        let judge = self.evidence.judge();
        let mut sentence = judge.reason();
        if let Some(tellers) = self.by_users() {
            sentence += &format!("; {}", tellers.sentence());
        }
        let block_ticks = judge.block_ticks();
        if block_ticks > self.evidence.subject().judge.block_ticks {
            let seconds = block_ticks / 10;
            sentence += &format!(
                "; judged in blocks of {seconds} s, because single pods differ for seconds here"
            );
        }
        sentence
    }

    /// The users who can still tell, where the canary's requests are theirs: requests that throw
    /// a coin each need nobody.
    fn by_users(&self) -> Option<&Tellers> {
        self.tellers.as_ref().filter(|_| self.userless < FEW_USERLESS)
    }

    fn block_ends(&self, tick: Tick) -> bool {
        let block = self.evidence.judge().block_ticks().max(1);
        tick.0.saturating_sub(self.since.0).is_multiple_of(block)
    }
}
