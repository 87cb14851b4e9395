//! Recall: a rollout told again from the journal's records, one after the other. A restart goes on
//! where it ends; a replay looks whether every decision comes out the same.

use std::{collections::HashMap, sync::Arc, time::Duration};

use super::{
    Change, Decision, DecisionKind, Evidence, EvidenceSnapshot, LiveRollout, Plan, Record,
    Recorded, Rollout as Life, RouteCounts, Seen, StepInput, journal, record::Beginning,
};

/// A rollout as far as it was told.
#[derive(Debug)]
pub struct Recall {
    run: u64,
    at_ms: u64,
    beginning: Beginning,
    evidence: Evidence,
    life: Life,
    /// A raise that was decided and is not in force yet.
    pending: Option<Life>,
    /// What the last step comes to, until it is known what was made of it.
    expected: Option<(Change, Life)>,
    counts: Vec<RouteCounts>,
}

/// How a decision of the journal compares with what comes of its records.
#[derive(Clone, Debug, PartialEq)]
pub enum Replayed {
    /// It comes out the same.
    Same,
    /// A person or the configuration made it: nothing to compare.
    Given,
    /// It comes out differently: what comes out instead.
    Differs(String),
}

impl Recall {
    /// A rollout that begins: with the decision that it began with.
    #[must_use]
    pub fn begin(run: u64, beginning: Beginning, life: Life) -> Self {
        let Beginning { from, epoch, ref splits, .. } = beginning;
        let evidence = Evidence::new(beginning.subject(), from, epoch, splits.clone());
        Self {
            run,
            at_ms: 0,
            beginning,
            evidence,
            life,
            pending: None,
            expected: None,
            counts: Vec::new(),
        }
    }

    /// A rollout of a snapshot.
    #[must_use]
    pub fn resume(live: LiveRollout) -> Self {
        let LiveRollout { run, at_ms, beginning, life, pending, evidence, counts } = live;
        let evidence = Evidence::recall(beginning.subject(), evidence);
        Self { run, at_ms, beginning, evidence, life, pending, expected: None, counts }
    }

    /// The number of the decision that it began with.
    #[must_use]
    pub const fn run(&self) -> u64 {
        self.run
    }

    /// Time since it began.
    #[must_use]
    pub const fn time(&self) -> Duration {
        Duration::from_millis(self.at_ms)
    }

    /// What its evidence is made of.
    #[must_use]
    pub const fn beginning(&self) -> &Beginning {
        &self.beginning
    }

    /// The evidence so far.
    #[must_use]
    pub const fn evidence(&self) -> &Evidence {
        &self.evidence
    }

    /// The life so far. What lowered the weight and was not written down any more is in it; a
    /// raise that was decided is, as the journal says so.
    #[must_use]
    pub fn life(&self) -> &Life {
        self.pending.as_ref().unwrap_or(&self.life)
    }

    /// What counted as slow, by route.
    fn slow(&self) -> Vec<RouteDeadlines> {
        let names = self.beginning.routes.iter().map(|(name, _)| name.clone());
        names.zip(self.evidence.deadlines_us().iter().cloned()).collect()
    }

    /// Where another process goes on.
    pub(super) fn recalled(mut self) -> Recalled {
        let before = self.life().clone();
        let again = self.expected.take().filter(|(_, life)| life.weight_bp() <= before.weight_bp());
        Recalled {
            life: before,
            again,
            time: self.time(),
            slow: self.slow(),
            evidence: self.evidence.snapshot(),
            counts: self.counts,
        }
    }

    /// It is told something. An error says which lowering came out that the journal does not
    /// have; a restart is content with it, for then it is decided again.
    ///
    /// # Errors
    /// A lowering that comes out of the records, and was not decided.
    pub fn tell(&mut self, record: &Record) -> Result<(), String> {
        let unheard = self.take_expected();
        self.at_ms = self.at_ms.max(record.at_ms);
        match &record.what {
            Recorded::Begin(beginning) => self.beginning = (**beginning).clone(),
            Recorded::Plan(plan) => self.beginning.plan.clone_from(plan),
            Recorded::Input(input) => self.evidence.take(input),
            Recorded::Step(step) => self.step(step),
            Recorded::Counts(counts) => self.counts.clone_from(counts),
            Recorded::InForce(_) => {
                if let Some(life) = self.pending.take() {
                    self.life = life;
                }
            }
        }
        unheard.map_or(Ok(()), Err)
    }

    /// A decision about it, and whether it comes out the same.
    pub fn decide(&mut self, decision: &Decision) -> Replayed {
        self.at_ms = self.at_ms.max(decision.at_ms);
        let expected = self.expected.take();
        let replayed = match &expected {
            _ if !decision.action.is_judged() => Replayed::Given,
            None => Replayed::Differs("nothing comes of what was seen".to_owned()),
            Some((change, life)) => compare(*change, life, decision),
        };
        if decision.life.weight_bp() > self.life.weight_bp() {
            self.pending = Some(decision.life.clone());
        } else {
            self.pending = None;
            self.life = decision.life.clone();
        }
        replayed
    }

    fn step(&mut self, step: &StepInput) {
        let now = self.time();
        let seen = step.seen(self.evidence.seen(now, step.others_bp, step.obstacle));
        let plan = self.beginning.plan.clone();
        match course(&self.life, plan.as_deref(), self.pending.as_ref(), &seen) {
            Course::Stays(life) => self.life = life,
            Course::Waits => {}
            Course::Turns(change, life, _) => self.expected = Some((change, life)),
        }
    }

    /// What was expected and did not come: a raise may have found no disk, a lowering is in force
    /// all the same.
    fn take_expected(&mut self) -> Option<String> {
        let (change, life) = self.expected.take()?;
        if life.weight_bp() > self.life.weight_bp() {
            return None;
        }
        let kind = DecisionKind::from(change).label();
        let unheard = format!("`{kind}` at {} ms is not in the journal", self.at_ms);
        self.pending = None;
        self.life = life;
        Some(unheard)
    }
}

/// What is known of a rollout of a process before this one.
#[derive(Debug)]
pub(super) struct Recalled {
    /// As the journal has it.
    pub(super) life: Life,
    /// What was in force already and is not in the journal: it is decided again.
    pub(super) again: Option<(Change, Life)>,
    pub(super) time: Duration,
    pub(super) evidence: EvidenceSnapshot,
    pub(super) slow: Vec<RouteDeadlines>,
    pub(super) counts: Vec<RouteCounts>,
}

/// A route, and its baseline's deadlines in microseconds.
pub(super) type RouteDeadlines = (Arc<str>, Vec<u32>);

/// What is known of all rollouts of the process before, by run.
#[derive(Debug, Default)]
pub(super) struct Recollection {
    /// Those whose records were read.
    pub(super) told: HashMap<u64, Recalled>,
    /// The requests of those that had ended before.
    pub(super) ended: HashMap<u64, Vec<RouteCounts>>,
}

/// Tells all rollouts again.
pub(super) fn recall_all(
    live: Vec<LiveRollout>,
    ended: Vec<(u64, Vec<RouteCounts>)>,
    records: Vec<journal::Record<Record>>,
) -> Recollection {
    let mut recalls: HashMap<u64, Recall> =
        live.into_iter().map(|live| (live.run, Recall::resume(live))).collect();
    let mut begun: HashMap<u64, Life> = HashMap::new();
    for record in records {
        match record {
            // What came before it says nothing of what is missing.
            journal::Record::Gap => recalls.clear(),
            journal::Record::Decision(decision) => {
                if decision.action.begins() {
                    begun.insert(decision.run, decision.life.clone());
                }
                if let Some(recall) = recalls.get_mut(&decision.run) {
                    recall.decide(&decision);
                }
            }
            journal::Record::Block(record) => {
                if let Some(recall) = recalls.get_mut(&record.run) {
                    if let Err(unheard) = recall.tell(&record) {
                        tracing::warn!(%unheard, run = record.run, "journal: decided once more");
                    }
                } else if let Recorded::Begin(beginning) = record.what
                    && let Some(life) = begun.remove(&record.run)
                {
                    recalls.insert(record.run, Recall::begin(record.run, *beginning, life));
                }
            }
        }
    }
    let told = recalls.into_iter().map(|(run, recall)| (run, recall.recalled())).collect();
    Recollection { told, ended: ended.into_iter().collect() }
}

/// What comes of a step.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Course {
    /// No decision.
    Stays(Life),
    /// No decision, and a raise is on its way that nothing is to change.
    Waits,
    /// A decision, and whether the proof begins anew with it.
    Turns(Change, Life, bool),
}

/// One step of a rollout, of which a raise may be on its way to the disk.
pub(super) fn course(
    life: &Life,
    plan: Option<&Plan>,
    pending: Option<&Life>,
    seen: &Seen,
) -> Course {
    let Some(plan) = plan else { return Course::Waits };
    let step = life.step(plan, seen);
    match step.change {
        None if pending.is_some() => Course::Waits,
        None => Course::Stays(step.rollout),
        Some(_) if pending.is_some() && step.rollout.weight_bp() > life.weight_bp() => {
            Course::Waits
        }
        Some(change) => Course::Turns(change, step.rollout, step.fresh_proof),
    }
}

fn compare(change: Change, life: &Life, decision: &Decision) -> Replayed {
    let kind = DecisionKind::from(change);
    if kind != decision.action {
        return Replayed::Differs(format!("`{}`", kind.label()));
    }
    if life.weight_bp() != decision.weight_bp {
        return Replayed::Differs(format!("a weight of {} %", f64::from(life.weight_bp()) / 100.0));
    }
    if *life != decision.life {
        return Replayed::Differs("another state behind the same weight".to_owned());
    }
    Replayed::Same
}
