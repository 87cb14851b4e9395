//! Replay: takes a journal line by line, feeds the recorded inputs to the evidence again, takes
//! the recorded steps again, and holds what comes out against the decisions that were written.
//!
//! Pure: it reads no file and decides nothing that is put in force.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use serde::Serialize;

use super::{
    BlockRecord, Circumstances, Decision, DecisionKind, Evidence, EvidenceInput, Line, Place, Plan,
    Recorded, Rollout, RolloutRecord, StateRecord, Subject,
};
use crate::judge::{Judge, JudgeConfig};

/// Differences that are listed; more are only counted.
const LISTED: usize = 100;

/// A journal, as far as it was taken.
#[derive(Debug, Default)]
pub struct Replay {
    courses: BTreeMap<u64, Course>,
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
    /// blocks before them are missing.
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

/// One rollout on its way through the journal.
#[derive(Debug)]
pub struct Course {
    /// Its names, as they were recorded.
    pub names: [Arc<str>; 3],
    plan: Option<Arc<Plan>>,
    life: Rollout,
    pending: Option<(u64, Rollout)>,
    evidence: Evidence,
    at: Duration,
    expected: Option<Expected>,
    /// Something is missing since the last snapshot: the evidence is not what it was.
    is_lost: bool,
}

/// A decision that must follow.
#[derive(Debug)]
struct Expected {
    place: Place,
    kind: DecisionKind,
    life: Rollout,
}

impl Course {
    fn new(record: RolloutRecord) -> Self {
        // The recorders are those of a process that is gone: nothing is gathered here.
        let subject = Subject::plain(JudgeConfig::default(), Duration::ZERO, Vec::new());
        Self {
            names: [record.service, record.canary, record.version],
            plan: record.plan,
            life: record.life,
            pending: record.pending,
            evidence: Evidence::recall(subject, record.evidence),
            at: record.at,
            expected: None,
            is_lost: false,
        }
    }

    /// Where it is.
    #[must_use]
    pub const fn life(&self) -> &Rollout {
        &self.life
    }

    /// Its plan.
    #[must_use]
    pub fn plan(&self) -> Option<&Plan> {
        self.plan.as_deref()
    }

    /// The judge.
    #[must_use]
    pub const fn judge(&self) -> &Judge {
        self.evidence.judge()
    }

    /// Bad canary responses beyond the baseline's share, as far as they are beyond doubt.
    #[must_use]
    pub fn excess_bad(&self) -> f64 {
        self.evidence.excess_bad()
    }

    /// Time since it began.
    #[must_use]
    pub const fn at(&self) -> Duration {
        self.at
    }

    /// Whether what it knows is what was known then.
    #[must_use]
    pub const fn is_known(&self) -> bool {
        !self.is_lost
    }

    fn input(&mut self, input: &EvidenceInput) {
        if matches!(input, EvidenceInput::Resumed { .. }) {
            // The process before ended; what it had decided last may not have reached the disk.
            self.expected = None;
        }
        self.evidence.take(input);
    }

    fn step(&mut self, place: &Place, circumstances: &Circumstances) {
        if !circumstances.is_pending
            && let Some((_, life)) = self.pending.take()
        {
            self.life = life;
        }
        let seen = circumstances.seen(&mut self.evidence);
        self.at = seen.now;
        let Some(plan) = &self.plan else { return };
        let step = self.life.step(plan, &seen);
        let Some(change) = step.change else {
            if self.pending.is_none() {
                self.life = step.rollout;
            }
            return;
        };
        let raises = step.rollout.weight_bp() > self.life.weight_bp();
        if !(raises && circumstances.no_raise) {
            let (kind, life) = (change.into(), step.rollout);
            self.expected = Some(Expected { place: place.clone(), kind, life });
        }
    }

    /// What a decision left. A raise is only on its way: a step says when it is in force.
    fn follow(&mut self, decision: &Decision) {
        if decision.weight_bp > self.life.weight_bp() {
            self.pending = Some((decision.seq, decision.life.clone()));
        } else {
            self.pending = None;
            self.life = decision.life.clone();
        }
    }
}

impl Replay {
    /// What came of it so far.
    #[must_use]
    pub const fn outcome(&self) -> &Outcome {
        &self.outcome
    }

    /// The rollout that began with a decision.
    #[must_use]
    pub fn course(&self, run: u64) -> Option<&Course> {
        self.courses.get(&run)
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
                Ok(state) => self.snapshot(state),
                Err(_) => self.lose(),
            },
            Line::Gap(_) | Line::Damaged => self.lose(),
        }
    }

    /// Takes what happened to a rollout.
    pub fn record(&mut self, place: &Place, record: &BlockRecord) {
        if let Recorded::Begin(begun) = &record.what {
            self.courses.insert(record.run, Course::new((**begun).clone()));
            return;
        }
        let Some(course) = self.courses.get_mut(&record.run) else { return };
        course.at = Duration::from_millis(record.at_ms);
        match &record.what {
            Recorded::Begin(_) => {}
            Recorded::Plan(plan) => course.plan.clone_from(plan),
            Recorded::Life(life) => {
                course.life = (**life).clone();
                (course.pending, course.expected) = (None, None);
            }
            Recorded::Input(input) => {
                course.input(input);
                self.outcome.inputs += 1;
            }
            Recorded::Step(circumstances) => {
                let missed = course.expected.take().filter(|_| !course.is_lost);
                let missed = missed.map(|expected| missing(course, &expected));
                course.step(place, circumstances);
                self.outcome.steps += 1;
                missed.into_iter().for_each(|sentence| self.differs(sentence));
            }
        }
    }

    /// Takes a decision.
    pub fn decision(&mut self, place: &Place, decision: &Decision) {
        self.outcome.decisions += 1;
        let course = self.courses.get_mut(&decision.run);
        if decision.action.is_judged() {
            match course.as_ref().filter(|course| course.is_known()) {
                None => self.outcome.untold += 1,
                Some(course) => match difference(course, decision) {
                    None => self.outcome.same += 1,
                    Some(difference) => {
                        let Place { path, line } = place;
                        let sentence = format!("{}, line {line}: {difference}", path.display());
                        self.differs(sentence);
                    }
                },
            }
        }
        if let Some(course) = self.courses.get_mut(&decision.run) {
            course.expected = None;
            course.follow(decision);
        }
    }

    fn snapshot(&mut self, state: StateRecord) {
        let known = state.rollouts.into_iter().map(|record| {
            let expected = self.courses.remove(&record.run).and_then(|course| course.expected);
            (record.run, Course { expected, ..Course::new(record) })
        });
        self.courses = known.collect();
    }

    fn lose(&mut self) {
        self.courses.values_mut().for_each(|course| course.is_lost = true);
    }

    fn differs(&mut self, sentence: String) {
        self.outcome.different += 1;
        if self.outcome.differences.len() < LISTED {
            self.outcome.differences.push(sentence);
        }
    }
}

/// What is different about a decision, if anything is.
fn difference(course: &Course, decision: &Decision) -> Option<String> {
    let seq = decision.seq;
    let Some(expected) = &course.expected else {
        return Some(format!(
            "decision {seq} is {} at {} bp, and what was seen asks for nothing",
            decision.action.label(),
            decision.weight_bp
        ));
    };
    let weight_bp = expected.life.weight_bp();
    if (expected.kind, weight_bp) != (decision.action, decision.weight_bp) {
        return Some(format!(
            "decision {seq} is {} at {} bp, and what was seen asks for {} at {weight_bp} bp",
            decision.action.label(),
            decision.weight_bp,
            expected.kind.label(),
        ));
    }
    if expected.life != decision.life {
        return Some(format!(
            "decision {seq} leaves another state than what was seen: {:?} in place of {:?}",
            decision.life, expected.life
        ));
    }
    let odds = course.judge().verdict().odds();
    let told = decision.evidence.as_ref().map_or(odds, |told| told.odds);
    (told != odds).then(|| {
        format!("decision {seq} was made at odds of {told} : 1, which come out as {odds} : 1")
    })
}

fn missing(course: &Course, expected: &Expected) -> String {
    let Place { path, line } = &expected.place;
    let [service, canary, version] = &course.names;
    format!(
        "{}, line {line}: what was seen asks for {} of {service}/{canary} {version} at {} bp, and \
         that was not decided",
        path.display(),
        expected.kind.label(),
        expected.life.weight_bp()
    )
}

#[cfg(test)]
mod tests;
