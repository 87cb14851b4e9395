//! Replay: takes a journal line by line, tells every rollout again what it was told, and holds
//! what comes out against the decisions that were written.
//!
//! Pure: it reads no file and decides nothing that is put in force.

use std::collections::{BTreeMap, HashMap};

use serde::Serialize;

use super::{Decision, Line, Memory, Place, Recall, Record, Recorded, Replayed, Rollout};

/// Differences that are listed; more are only counted.
const LISTED: usize = 100;

/// A journal, as far as it was taken.
#[derive(Debug, Default)]
pub struct Replay {
    /// Rollouts of which everything is known, by the decision that they began with.
    recalls: BTreeMap<u64, Recall>,
    /// Where rollouts began that are not judged yet.
    begun: HashMap<u64, Rollout>,
    outcome: Outcome,
}

/// What a replay came to.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Outcome {
    /// Decisions that were read.
    pub decisions: u64,
    /// Those of them that came of what was seen, and came out the same.
    pub same: u64,
    /// Decisions that came out different, or not at all, or were not written.
    pub different: u64,
    /// Decisions that came of what was seen, of which the journal does not tell what it was:
    /// records before them are missing.
    pub untold: u64,
    /// Inputs that were fed.
    pub inputs: u64,
    /// Steps that were taken.
    pub steps: u64,
    /// What was different, as sentences; the first hundred.
    pub differences: Vec<String>,
}

impl Outcome {
    /// Whether every decision came out the same.
    #[must_use]
    pub const fn is_same(&self) -> bool {
        self.different == 0 && self.untold == 0
    }
}

impl Replay {
    /// What came of it so far.
    #[must_use]
    pub const fn outcome(&self) -> &Outcome {
        &self.outcome
    }

    /// The rollout that began with a decision, as far as it was told; `None` where something of
    /// it is missing.
    #[must_use]
    pub fn recall(&self, run: u64) -> Option<&Recall> {
        self.recalls.get(&run)
    }

    /// Takes a line. Blocks and snapshots of another version of the program count as missing.
    pub fn take(&mut self, place: &Place, line: &Line<'_>) {
        match line {
            Line::Block(raw) => match serde_json::from_str(raw.get()) {
                Ok(record) => self.record(place, &record),
                Err(_) => self.lose(),
            },
            Line::Decision(decision) => self.decision(place, decision),
            Line::Snapshot(raw) => match serde_json::from_str(raw.get()) {
                Ok(memory) => self.memory(memory),
                Err(_) => self.lose(),
            },
            Line::Gap(_) | Line::Damaged => self.lose(),
        }
    }

    /// Takes what a rollout was told.
    pub fn record(&mut self, place: &Place, record: &Record) {
        match &record.what {
            Recorded::Input(_) => self.outcome.inputs += 1,
            Recorded::Step(_) => self.outcome.steps += 1,
            Recorded::Begin(_) | Recorded::Plan(_) | Recorded::InForce(_) | Recorded::Counts(_) => {
            }
        }
        if let Some(recall) = self.recalls.get_mut(&record.run) {
            if let Err(sentence) = recall.tell(record) {
                self.differs(place, &sentence);
            }
        } else if let Recorded::Begin(beginning) = &record.what
            && let Some(life) = self.begun.remove(&record.run)
        {
            let recall = Recall::begin(record.run, (**beginning).clone(), life);
            self.recalls.insert(record.run, recall);
        }
    }

    /// Takes a decision.
    pub fn decision(&mut self, place: &Place, decision: &Decision) {
        self.outcome.decisions += 1;
        if decision.action.begins() {
            self.begun.insert(decision.run, decision.life.clone());
        }
        let Some(recall) = self.recalls.get_mut(&decision.run) else {
            self.outcome.untold += u64::from(decision.action.is_judged());
            return;
        };
        match recall.decide(decision) {
            Replayed::Same => self.outcome.same += 1,
            Replayed::Given => {}
            Replayed::Differs(comes) => {
                let (seq, action) = (decision.seq, decision.action.label());
                let percent = f64::from(decision.weight_bp) / 100.0;
                let what = format!("decision {seq} is `{action}` at {percent} %, but {comes}");
                self.differs(place, &what);
            }
        }
    }

    fn memory(&mut self, memory: Memory) {
        let recalls = memory.live.into_iter().map(|live| (live.run, Recall::resume(live)));
        self.recalls = recalls.collect();
    }

    /// Something is missing: what follows cannot be compared until everything is told anew.
    fn lose(&mut self) {
        self.recalls.clear();
    }

    fn differs(&mut self, place: &Place, what: &str) {
        self.outcome.different += 1;
        if self.outcome.differences.len() < LISTED {
            let Place { path, line } = place;
            self.outcome.differences.push(format!("{}, line {line}: {what}", path.display()));
        }
    }
}

#[cfg(test)]
mod tests;
