//! Hearings: for every rollout that is judged, what its evidence is made of and how it stands.
//! Moves no weight: that is the step's to do.

use std::{collections::HashMap, sync::Arc, time::Duration};

use super::{
    Beginning, Evidence, EvidenceArm, EvidenceInput, EvidenceSnapshot, JudgedRoute, Obstacle, Plan,
    Recorded, Seen, Source, Split, Subject, Tellers, Told, Verdict, Yardstick,
    layout::Cell,
    steering::{Rollout, Said},
};
use crate::{
    judge::{BreakerState, Component, Level, Pods},
    measure::{Batch, Cut, Epoch, Kind, Ledger, RecorderId, Tick},
    routing::{ArmIndex, BUCKETS, RouteTable, Service},
};

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

/// What one hearing is about.
pub(super) struct About<'a> {
    pub(super) ledger: &'a Ledger,
    pub(super) routes: &'a RouteTable,
    pub(super) cells: &'a [Cell],
    /// Index of the service, and of the canary among its canaries.
    pub(super) service: usize,
    pub(super) canary: usize,
    /// All of the service, by canary.
    pub(super) rollouts: &'a [Rollout],
    pub(super) rollout: &'a Rollout,
    pub(super) plan: &'a Plan,
}

/// What the canaries' weights become in the cohorts of a stratum.
#[derive(Clone, Debug, Default, PartialEq)]
struct Weighing {
    /// The canaries that these cohorts do not get.
    out: Vec<usize>,
    cap: Option<u16>,
}

/// The recorders whose requests are drawn.
struct Members<'a> {
    sources: Vec<(&'a Cell, Source)>,
    strata: Vec<Weighing>,
    cohorts: Vec<Arc<str>>,
}

/// Where the ledger and the table stand.
#[derive(Clone, Copy)]
pub(super) struct Now {
    pub(super) tick: Tick,
    pub(super) epoch: Epoch,
}

impl About<'_> {
    fn service(&self) -> &Service {
        &self.routes.services()[self.service]
    }

    /// Its recorders whose requests are drawn, and the strata.
    fn sources(&self) -> Members<'_> {
        let mut strata = vec![Weighing::default()];
        let mut cohorts: Vec<Arc<str>> = Vec::new();
        let routes: Vec<usize> = self.route_places();
        let mine = |arm: ArmIndex| arm.0 == 0 || usize::from(arm.0) == self.canary + 1;
        let drawn = self.cells.iter().filter(|cell| {
            cell.service == self.service && mine(cell.arm) && cell.policy.pin.is_none()
        });
        let drawn: Vec<(&Cell, Weighing)> = drawn.map(|cell| (cell, self.weighing(cell))).collect();
        // What is behind another weight keeps its number when a cohort is taken out.
        for all_in in [true, false] {
            for (_, weighing) in drawn.iter().filter(|(_, it)| it.out.is_empty() == all_in) {
                place_of(&mut strata, weighing);
            }
        }
        let mut sources = Vec::new();
        for (cell, weighing) in drawn {
            let source = Source {
                key: cell.key,
                is_canary: cell.arm.0 > 0,
                stratum: place_of(&mut strata, &weighing),
                route: routes.iter().position(|route| *route == cell.route).unwrap_or(0) as u16,
                cohort: place_of(&mut cohorts, &cell.labels.cohort),
            };
            sources.push((cell, source));
        }
        Members { sources, strata, cohorts }
    }

    fn weighing(&self, cell: &Cell) -> Weighing {
        let rollouts = self.rollouts.iter().enumerate();
        let cohort = &cell.labels.cohort;
        let out = rollouts.filter(|(_, it)| it.state.life.cohorts_out().contains(cohort));
        Weighing { out: out.map(|(canary, _)| canary).collect(), cap: cell.policy.max_weight_bp }
    }

    /// The cohorts that other canaries of the service are not in any more.
    fn others_out(&self) -> Vec<(usize, Arc<str>)> {
        let others = self.rollouts.iter().enumerate().filter(|(place, _)| *place != self.canary);
        let out = others.flat_map(|(place, rollout)| {
            rollout.state.life.cohorts_out().iter().map(move |cohort| (place, cohort.clone()))
        });
        out.collect()
    }

    fn route_places(&self) -> Vec<usize> {
        let routes = self.routes.routes().enumerate();
        let mine = routes.filter(|(_, route)| route.service.0 as usize == self.service);
        mine.map(|(place, _)| place).collect()
    }

    fn subject(&self, sources: &[(&Cell, Source)], cohorts: Vec<Arc<str>>) -> Subject {
        let routes = self.routes.routes().filter(|route| route.service.0 as usize == self.service);
        let judge = &self.plan.judge;
        // What has no slots of its own counts in those of another.
        let spilled = |(cell, source): &(&Cell, Source)| Source { key: cell.other, ..*source };
        let mut others: Vec<Source> = sources.iter().map(spilled).collect();
        // The strata of cohorts that are out come last.
        others.sort_unstable_by_key(|source| (source.key, source.stratum));
        others.dedup_by_key(|source| source.key);
        Subject {
            judge: judge.config(vec![Component::service(&self.service().name)]),
            tolerate: judge.tolerate,
            promote_within: judge.promote_within,
            pods: self.pods(),
            warmup: self.rollout.state.warmup,
            units_lost: false,
            routes: routes
                .map(|route| JudgedRoute { name: route.name.clone(), timeout: route.timeout })
                .collect(),
            cohorts,
            sources: sources.iter().map(|(_, source)| *source).chain(others).collect(),
        }
    }

    fn beginning(&self, subject: &Subject, now: Now, splits: &[Split]) -> Beginning {
        Beginning {
            service: self.rollout.service.clone(),
            canary: self.rollout.canary.clone(),
            version: self.rollout.state.version.clone(),
            plan: self.rollout.state.plan.clone(),
            judge: subject.judge.clone(),
            tolerate: subject.tolerate,
            promote_within: subject.promote_within,
            pods: subject.pods,
            warmup: subject.warmup,
            units_lost: subject.units_lost,
            routes: subject.routes.iter().map(|it| (it.name.clone(), it.timeout)).collect(),
            cohorts: subject.cohorts.clone(),
            from: now.tick,
            epoch: now.epoch,
            splits: splits.to_vec(),
        }
    }

    /// The pods of both arms, where they can be counted: by `replicas`, or because there is more
    /// than one endpoint. One endpoint alone may hide any number.
    fn pods(&self) -> Option<Pods> {
        let count = |arm: usize| {
            let upstream = self.routes.upstream(self.service().arms[arm].upstream);
            let endpoints = upstream.endpoints.len() as u32;
            upstream.replicas.or((endpoints > 1).then_some(endpoints))
        };
        Some(Pods { baseline: count(0)?, canary: count(self.canary + 1)? })
    }
}

fn place_of<T: Clone + PartialEq>(known: &mut Vec<T>, one: &T) -> u16 {
    let place = known.iter().position(|other| other == one).unwrap_or_else(|| {
        known.push(one.clone());
        known.len() - 1
    });
    place as u16
}

impl Hearings {
    /// A rollout begins to be judged, under these weights of all canaries; or goes on where the
    /// evidence of a process before it ended.
    pub(super) fn begin(
        &mut self,
        about: &About<'_>,
        past: Option<EvidenceSnapshot>,
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
            Some(past) => {
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
            self.yards.entry(service).or_default().measure(subjects);
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
        if let Some(input) = self.evidence.set_pods(about.pods()) {
            self.note(input);
        }
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

/// The weights of a canary and of the baseline by stratum.
fn splits(strata: &[Weighing], weights_bp: &[u16], canary: usize) -> Vec<Split> {
    let split = |stratum: &Weighing| {
        let weigh = |(place, weight_bp): (usize, &u16)| match stratum.cap {
            _ if stratum.out.contains(&place) => 0,
            Some(cap) => cap.min(*weight_bp),
            None => *weight_bp,
        };
        let all: u16 = weights_bp.iter().enumerate().map(weigh).sum();
        Split {
            canary_bp: weights_bp.get(canary).map_or(0, |weight_bp| weigh((canary, weight_bp))),
            baseline_bp: (BUCKETS as u16).saturating_sub(all),
        }
    };
    strata.iter().map(split).collect()
}
