//! A rollout that is recorded as the control thread records one, with made-up counts: for the
//! tests of replays and reports.

use std::{path::Path, sync::Arc, time::Duration};

use super::{
    Armed, Beginning, Decision, DecisionKind, Evidence, EvidenceInput, FedBlock, JournalSettings,
    LiveRollout, Memory, Phase, Plan, Record, Recorded, Rollout, Seen, Split, Standing, StepInput,
    Told,
    journal::{Journal, open},
};
use crate::{
    judge::{Component, JudgeConfig},
    measure::{Bad, Block, Cell, Cut, Epoch, Tick},
};

/// What one arm does in a second, by shares of its requests.
#[derive(Clone, Copy, Debug)]
pub(super) struct Behaviour {
    pub(super) failed: f64,
    /// By how much more of them are slow than of a baseline that is as always.
    pub(super) slow: f64,
}

/// As always.
pub(super) const USUAL: Behaviour = Behaviour { failed: 0.001, slow: 1.0 };

/// Requests of both arms together in a second.
const RATE: f64 = 1000.0;

/// The shares of requests that exceed the deadlines.
const SHARES: [f64; 5] = [0.25, 0.1, 0.05, 0.01, 0.001];

/// A rollout and its journal.
pub(super) struct Recording {
    pub(super) journal: Journal<Record, Memory>,
    thread: std::thread::JoinHandle<()>,
    _messages: crossbeam_channel::Receiver<super::handle::Message>,
    beginning: Beginning,
    pub(super) life: Rollout,
    pub(super) evidence: Evidence,
    run: u64,
    seq: u64,
    second: u32,
    epoch: Epoch,
    /// What is left of fractions of requests.
    rest: f64,
}

fn split(canary_bp: u16) -> Vec<Split> {
    vec![Split { canary_bp, baseline_bp: 10_000 - canary_bp }]
}

impl Recording {
    /// Begins under a plan.
    pub(super) fn begin(state_dir: &Path, plan: Arc<Plan>) -> Self {
        let (wake, messages) = crossbeam_channel::bounded(16);
        let found = open(state_dir, JournalSettings::default()).unwrap();
        let seq = found.decisions.last().map_or(0, |last: &Decision| last.seq);
        let (journal, thread) = found.write(wake).unwrap();
        let life = Rollout::start(&plan, None, 0);
        let judge = JudgeConfig {
            components: vec![Component::service("shop")],
            block_ticks: 10,
            ..JudgeConfig::default()
        };
        let epoch = Epoch::new(0);
        let beginning = Beginning {
            service: "shop".into(),
            canary: "v2".into(),
            version: "2.3.1".into(),
            judge,
            tolerate: plan.judge.tolerate,
            promote_within: plan.judge.promote_within,
            plan: Some(plan),
            pods: None,
            warmup: None,
            units_lost: false,
            routes: vec![("cart".into(), Duration::from_secs(10))],
            cohorts: vec!["default".into()],
            from: Tick(0),
            epoch,
            splits: split(life.weight_bp()),
        };
        let evidence = Evidence::new(beginning.subject(), Tick(0), epoch, beginning.splits.clone());
        let run = seq + 1;
        let mut recording = Self {
            journal,
            thread,
            _messages: messages,
            beginning,
            life: Rollout::unborn(),
            evidence,
            run,
            seq,
            second: 0,
            epoch,
            rest: 0.0,
        };
        recording.decide(DecisionKind::Start, "haldane", "a new version", &life);
        recording.life = life;
        recording.write(Recorded::Begin(Box::new(recording.beginning.clone())));
        recording
    }

    fn now(&self) -> Duration {
        Duration::from_secs(u64::from(self.second))
    }

    /// Writes down what happened.
    pub(super) fn write(&mut self, what: Recorded) {
        let at_ms = self.now().as_millis() as u64;
        self.journal.append_block(Record { run: self.run, at_ms, what }).unwrap();
    }

    /// Decides, and puts it in force as if the disk were fast.
    pub(super) fn decide(
        &mut self,
        action: DecisionKind,
        actor: &str,
        reason: &str,
        life: &Rollout,
    ) {
        self.seq += 1;
        let verdict = self.evidence.judge().verdict();
        let began = Duration::from_secs(1_780_000_000) + self.now();
        let decision = Decision {
            seq: self.seq,
            time: humantime::format_rfc3339_millis(std::time::UNIX_EPOCH + began).to_string(),
            action,
            service: "shop".into(),
            canary: "v2".into(),
            version: "2.3.1".into(),
            configured: "2.3.1".into(),
            run: self.run,
            at_ms: self.now().as_millis() as u64,
            phase: life.phase(),
            stage: life.stage(),
            from_bp: self.life.weight_bp(),
            weight_bp: life.weight_bp(),
            actor: actor.into(),
            reason: reason.into(),
            evidence: Some(Told {
                odds: verdict.odds(),
                needs: verdict.threshold_ln.exp(),
                sentence: self.evidence.judge().reason(),
                requests: [0; 2],
                excess_bad: 0.0,
            }),
            config: "hash".into(),
            life: life.clone(),
        };
        self.journal.append(decision).unwrap();
        while self.journal.durable() < self.seq {
            std::thread::yield_now();
        }
        if life.weight_bp() > self.life.weight_bp() {
            self.write(Recorded::InForce(self.seq));
        }
    }

    /// Seconds in which the arms behave like this.
    pub(super) fn seconds(&mut self, seconds: u32, baseline: Behaviour, canary: Behaviour) {
        for _ in 0..seconds {
            self.feed(baseline, canary);
            self.second += 1;
            self.step();
        }
    }

    /// Until the rollout is where it should get to, for ten minutes at most.
    pub(super) fn until(&mut self, phase: Phase, baseline: Behaviour, canary: Behaviour) {
        for _ in 0..600 {
            if self.life.phase() == phase {
                return;
            }
            self.seconds(1, baseline, canary);
        }
        panic!("still {:?} after {:?}", self.life.phase(), self.now());
    }

    fn feed(&mut self, baseline: Behaviour, canary: Behaviour) {
        let share = f64::from(self.life.weight_bp()) / 10_000.0;
        self.rest += RATE * share;
        let of_canary = self.rest.floor();
        self.rest -= of_canary;
        let first = Tick(self.second * 10);
        let last = Tick(first.0 + 9);
        for (bank, slow) in [&[] as &[usize], &[0, 1, 2, 3], &[4], &[1, 3]].iter().enumerate() {
            let cells = [(0, baseline, RATE - of_canary), (1, canary, of_canary)];
            let cells = cells.map(|(arm, behaviour, started)| {
                // For a proof the canary has later deadlines: those of the margin.
                let share_of = if bank == 3 && arm == 1 { 0.4 } else { 1.0 };
                let bad = |share: f64| {
                    // Fractions even out over the seconds.
                    let before = f64::from(self.second) * started * share;
                    let count = (before + started * share).floor() - before.floor();
                    Bad { count: count as u64, units: Vec::new() }
                };
                Cell {
                    arm,
                    started: started as u64,
                    slow: slow
                        .iter()
                        .map(|at| bad(SHARES[*at] * behaviour.slow * share_of))
                        .collect(),
                    failed: vec![bad(behaviour.failed)],
                    ..Cell::default()
                }
            });
            let cells = cells.into_iter().filter(|cell| cell.started > 0).collect();
            let block = Block { bank, epoch: self.epoch, first, last, void: false, cells };
            let fed = FedBlock { block, armed: Armed::All, warming: false };
            self.input(EvidenceInput::Block(fed));
        }
    }

    fn input(&mut self, input: EvidenceInput) {
        self.evidence.take(&input);
        self.write(Recorded::Input(input));
    }

    /// What a step goes by.
    pub(super) fn seen(&mut self) -> Seen {
        let seen = self.evidence.seen(self.now(), 0, None);
        Seen { objectives: Standing::Kept, block_ends: true, ..seen }
    }

    fn step(&mut self) {
        let seen = self.seen();
        self.write(Recorded::Step(StepInput::of(&seen)));
        let plan = self.beginning.plan.clone().unwrap();
        let step = self.life.step(&plan, &seen);
        if let Some(change) = step.change {
            let reason = self.evidence.judge().reason();
            self.decide(change.into(), "haldane", &reason, &step.rollout);
        }
        self.put(step.rollout);
    }

    /// Puts a life in force.
    pub(super) fn put(&mut self, life: Rollout) {
        let before_bp = self.life.weight_bp();
        let weight_bp = life.weight_bp();
        self.life = life;
        if weight_bp != before_bp {
            self.epoch = self.epoch.next();
            let at = Tick(self.second * 10);
            let cut = if weight_bp < before_bp { Cut::Forced } else { Cut::Scheduled };
            let input = self.evidence.reweigh(self.epoch, at, split(weight_bp), cut);
            self.write(Recorded::Input(input));
        }
    }

    /// Writes a snapshot.
    pub(super) fn snapshot(&mut self) {
        let live = LiveRollout {
            run: self.run,
            at_ms: self.now().as_millis() as u64,
            beginning: self.beginning.clone(),
            life: self.life.clone(),
            pending: None,
            evidence: self.evidence.snapshot(),
            counts: Vec::new(),
        };
        self.journal
            .append_snapshot(Memory {
                ended: Vec::new(),
                decisions: Vec::new(),
                live: vec![live],
                placebos: Vec::new(),
            })
            .unwrap();
    }

    /// Ends the process, when everything is on disk.
    pub(super) fn end(self) {
        drop(self.journal);
        self.thread.join().unwrap();
    }
}
