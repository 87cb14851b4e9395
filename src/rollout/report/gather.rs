//! Gathers what a report needs from the lines of a journal: one canary of a service at a time,
//! and of each the last rollout.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use super::{
    super::{Decision, EvidenceInput, Line, Place, Recall, Record, Recorded, Replay},
    Judged, Report,
    series::Series,
};

/// What was read so far.
pub(super) struct Gathering {
    service: String,
    replay: Replay,
    /// By canary.
    canaries: BTreeMap<Arc<str>, Gathered>,
}

/// The last rollout of one canary.
#[derive(Default)]
struct Gathered {
    run: u64,
    decisions: Vec<Decision>,
    series: Series,
    deadlines_us: Vec<Vec<u32>>,
    at_ms: u64,
    earlier: usize,
    is_torn: bool,
}

impl Gathering {
    pub(super) fn new(service: &str) -> Self {
        let (replay, canaries) = (Replay::default(), BTreeMap::new());
        Self { service: service.to_owned(), replay, canaries }
    }

    pub(super) fn take(&mut self, place: &Place, line: Line<'_>) {
        match line {
            Line::Decision(decision) => {
                self.replay.decision(place, &decision);
                if *decision.service == *self.service {
                    let gathered = self.canaries.entry(Arc::clone(&decision.canary)).or_default();
                    gathered.decide(*decision);
                }
            }
            Line::Block(raw) => match serde_json::from_str::<Record>(raw.get()) {
                Ok(record) => self.record(place, &record),
                Err(_) => self.lose(place, &line),
            },
            Line::Snapshot(_) => self.replay.take(place, &line),
            Line::Gap(_) | Line::Damaged => self.lose(place, &line),
        }
    }

    fn lose(&mut self, place: &Place, line: &Line<'_>) {
        self.replay.take(place, line);
        self.canaries.values_mut().for_each(|gathered| gathered.is_torn = true);
    }

    fn record(&mut self, place: &Place, record: &Record) {
        self.replay.record(place, record);
        let mut gathered = self.canaries.values_mut();
        let Some(gathered) = gathered.find(|gathered| gathered.run == record.run) else { return };
        gathered.at_ms = gathered.at_ms.max(record.at_ms);
        match &record.what {
            Recorded::Input(input) => {
                gathered.series.add(record.at_ms, input);
                if let EvidenceInput::Deadlines { by_route, .. } = input {
                    gathered.deadlines_us.clone_from(by_route);
                }
            }
            Recorded::Step(_) => {
                if let Some(recall) = self.replay.recall(record.run) {
                    let judge = recall.evidence().judge();
                    let verdict = judge.verdict();
                    let odds_ln = verdict.rollback_ln.max(verdict.caution_ln);
                    let proof_ln = judge.promotion().weakest_ln;
                    gathered.series.note(record.at_ms, odds_ln, proof_ln);
                }
            }
            Recorded::Begin(_) | Recorded::Plan(_) | Recorded::InForce(_) | Recorded::Counts(_) => {
            }
        }
    }

    /// The report on a canary; the only one where none is named.
    pub(super) fn report(mut self, canary: Option<&str>) -> Result<Report, String> {
        let service = &self.service;
        let names = self.canaries.keys().map(|name| &**name).collect::<Vec<_>>().join(", ");
        let canary = match canary {
            _ if names.is_empty() => Err(format!("the journal has no rollout of {service}")),
            None if self.canaries.len() > 1 => {
                Err(format!("{service} has several canaries, name one: {names}"))
            }
            None => Ok(names.clone()),
            Some(canary) if self.canaries.contains_key(canary) => Ok(canary.to_owned()),
            Some(canary) => {
                Err(format!("the journal has no rollout of {service}/{canary}, but of {names}"))
            }
        }?;
        let gathered = self.canaries.remove(&*canary).unwrap_or_default();
        Ok(gathered.report(self.replay.recall(gathered.run)))
    }
}

impl Gathered {
    fn decide(&mut self, decision: Decision) {
        if decision.run != self.run && !self.decisions.is_empty() {
            *self = Self { earlier: self.earlier + 1, ..Self::default() };
        }
        self.run = decision.run;
        self.at_ms = self.at_ms.max(decision.at_ms);
        self.decisions.push(decision);
    }

    fn report(&self, recall: Option<&Recall>) -> Report {
        let last = self.decisions.last().expect("a rollout is known by its decisions");
        let at = recall.map_or(Duration::ZERO, Recall::time);
        Report {
            service: Arc::clone(&last.service),
            canary: Arc::clone(&last.canary),
            version: Arc::clone(&last.version),
            plan: recall.and_then(|recall| recall.beginning().plan.clone()),
            phase: last.phase,
            lasted: Duration::from_millis(self.at_ms).max(at),
            series: self.series.clone(),
            judged: recall.map(|recall| self.judged(recall)),
            decisions: self.decisions.clone(),
            upstreams: None,
            earlier: self.earlier,
            is_torn: self.is_torn,
        }
    }

    fn judged(&self, recall: &Recall) -> Judged {
        let judge = recall.evidence().judge();
        let verdict = judge.verdict();
        let lead = verdict.lead.map(|lead| {
            let part = judge.components().get(lead.component);
            let part = part.map_or("the canary", |part| &part.name);
            format!("{part} {}", lead.definition.phrase())
        });
        let told = self.decisions.iter().rev().find_map(|decision| decision.evidence.as_ref());
        let told = told.map_or(0.0, |told| told.excess_bad);
        Judged {
            odds: [verdict.odds(), verdict.threshold_ln.exp()],
            sentence: judge.reason(),
            lead,
            effect: judge.effect(),
            excess_bad: recall.evidence().excess_bad().max(told),
            deadlines_us: self.deadlines_us.clone(),
        }
    }
}
