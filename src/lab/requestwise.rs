//! Plays a scenario request by request: each goes through the proxy's own assignment, its events
//! through the proxy's own ledger, blocks and judge, and the weight through its own step.
//!
//! A run begins with a lead of baseline traffic, as a live rollout does: thresholds come from it.

mod events;
mod weights;

use std::time::Duration;

use super::{
    record::Record,
    rivals::{Stopped, Watchers},
    scenario::{Flaw, Rate, Scenario, Weighting},
    traffic::{End, Population, Request, Requests},
};
use crate::{
    judge::{BreakerState, Level, Pods},
    measure::{Cut, Epoch, Judging, Ledger, RecorderId, Tick},
    rollout::{Evidence, Rollout, Source, Split, Subject, Yardstick},
};
use events::{Arms, Events};
use weights::{Due, Schedule};

/// Ticks per second.
const SECOND: u32 = 10;

/// Baseline traffic before a run starts: as many seconds at least and at most, and the requests
/// that are wanted in between.
const LEAD_SECONDS: std::ops::RangeInclusive<f64> = 60.0..=600.0;
const LEAD_REQUESTS: f64 = 12_000.0;

/// Where scenarios are played.
#[derive(Debug)]
pub struct Laboratory<'a> {
    scenario: &'a Scenario,
    population: Population,
    rivals: bool,
    lead: u32,
}

impl<'a> Laboratory<'a> {
    /// A laboratory for a scenario; with rivals they see the same requests.
    #[must_use]
    pub fn new(scenario: &'a Scenario, rivals: bool) -> Self {
        let population = Population::new(scenario);
        Self { scenario, population, rivals, lead: lead(scenario) }
    }

    /// Plays one run.
    #[must_use]
    pub fn play(&self, run: u32) -> Record {
        let by_plan = matches!(self.scenario.weighting, Weighting::Plan(_));
        if !self.rivals || !by_plan {
            return self.judged(self.scenario, run, self.rivals);
        }
        // A plan takes its weight back where rivals would go on: they get a fixed weight.
        let fixed = Scenario { weighting: weights::fixed(self.scenario), ..self.scenario.clone() };
        let mut record = self.judged(self.scenario, run, false);
        record.rivals = self.judged(&fixed, run, true).rivals;
        record
    }

    fn judged(&self, scenario: &Scenario, run: u32, rivals: bool) -> Record {
        let mut playing = Run::new(scenario, &self.population, run, self.lead);
        playing.rivals = rivals.then(|| Watchers::new(scenario));
        let ticks = (scenario.duration.as_secs_f64() * f64::from(SECOND)).round() as u32;
        for _ in 0..self.lead + ticks {
            playing.tick();
            if playing.is_over() {
                break;
            }
        }
        playing.record()
    }
}

/// How many ticks of baseline traffic come first.
fn lead(scenario: &Scenario) -> u32 {
    let rate = match &scenario.rate {
        Rate::Steps(steps) => steps[0].1,
        Rate::Wave { mean, .. } => *mean,
    };
    let seconds = (LEAD_REQUESTS / rate.max(0.1)).clamp(*LEAD_SECONDS.start(), *LEAD_SECONDS.end());
    seconds.ceil() as u32 * SECOND
}

/// One run.
struct Run<'a> {
    scenario: &'a Scenario,
    requests: Requests<'a>,
    arms: Arms,
    events: Events,
    ledger: Ledger,
    yardstick: Yardstick,
    evidence: Evidence,
    schedule: Schedule<'a>,
    rollout: Option<Rollout>,
    weight_bp: u16,
    epoch: Epoch,
    /// The tick from which on the weights in force are as they are.
    weight_since: u32,
    tick: u32,
    lead: u32,
    /// Ticks of a rollback block.
    block: u32,
    arriving: Vec<Request>,
    slow_us: u32,
    seen: Seen,
    record: Record,
    rivals: Option<Watchers>,
}

/// What was seen of each arm since the start: baseline, canary.
#[derive(Clone, Copy, Debug, Default)]
struct Seen {
    started: [u64; 2],
    bad: [u64; 2],
}

impl<'a> Run<'a> {
    fn new(scenario: &'a Scenario, population: &'a Population, run: u32, lead: u32) -> Self {
        let mut ledger = Ledger::new(1);
        let keys = [0, 1].map(|id| {
            let key = ledger.register(Judging::FirstByte, None);
            ledger.bind(RecorderId(id), key);
            key
        });
        let known = scenario.pods.filter(|pods| pods.known);
        let pods = known.filter(|_| scenario.flaw != Some(Flaw::NoThinning));
        let subject = Subject {
            tolerate: scenario.judge.tolerate,
            promote_within: scenario.judge.promote_within,
            pods: pods.map(|pods| Pods { canary: pods.canary, baseline: pods.baseline }),
            ..Subject::plain(
                scenario.judge_config(),
                scenario.timeout,
                vec![Source::plain(keys[0], false), Source::plain(keys[1], true)],
            )
        };
        let epoch = Epoch::new(0);
        Self {
            scenario,
            requests: Requests::new(scenario, population, run, lead),
            arms: Arms::new(scenario, run),
            events: Events::new(scenario),
            ledger,
            yardstick: Yardstick::new([&subject]),
            evidence: Evidence::new(subject, Tick(0), epoch, vec![split(0)]),
            schedule: Schedule::new(&scenario.weighting),
            rollout: None,
            weight_bp: 0,
            epoch,
            weight_since: 0,
            tick: 0,
            lead,
            block: scenario.judge_config().block_ticks,
            arriving: Vec::new(),
            slow_us: (scenario.baseline.p99() * 1e6) as u32,
            seen: Seen::default(),
            record: Record::default(),
            rivals: None,
        }
    }

    fn tick(&mut self) {
        if self.tick == self.lead {
            self.start();
        }
        let (arms, epoch, tick) = (&self.arms, self.epoch, Tick(self.tick));
        self.requests.next_tick(&mut self.arriving, |user, coin| arms.is_canary(user, coin));
        for request in &self.arriving {
            self.events.arrive(request, self.arms.unit(request.user), tick, epoch);
        }
        if self.tick >= self.lead {
            self.look_on();
        }
        let batch = self.events.batch(tick, epoch);
        if self.scenario.users.is_some() {
            for (unit, arm) in events::assigned(&batch) {
                self.evidence.assigned(unit, tick, epoch, arm);
            }
        }
        self.ledger.apply(&batch, tick);
        self.ledger.observe(tick.end());
        self.events.give_back(batch);
        if self.scenario.flaw == Some(Flaw::SkipWithoutCanary) {
            let has_canary = |block: &crate::measure::Block| {
                block.cells.iter().any(|cell| cell.arm == 1 && cell.started > 0)
            };
            self.evidence.tick_with(&mut self.ledger, &mut self.yardstick, tick, has_canary);
        } else {
            self.evidence.tick(&mut self.ledger, &mut self.yardstick, tick);
        }
        self.tick += 1;
        if self.tick.is_multiple_of(SECOND) {
            self.ledger.retire();
        }
        if self.tick > self.lead {
            self.judge();
        }
    }

    /// The rollout begins: its first weight is in force with the next request.
    fn start(&mut self) {
        let weight_bp = match &self.scenario.weighting {
            Weighting::Plan(plan) => {
                let rollout = Rollout::start(plan, None, 0);
                let weight_bp = rollout.weight_bp();
                self.rollout = Some(rollout);
                weight_bp
            }
            Weighting::Fixed(_)
            | Weighting::Steps(_)
            | Weighting::Flap { .. }
            | Weighting::React { .. } => self.schedule.first(),
        };
        self.put(weight_bp, Cut::Scheduled);
    }

    /// Counts what is true of the requests, whatever the judge sees of them.
    fn look_on(&mut self) {
        for request in &self.arriving {
            let arm = usize::from(request.canary);
            let bad = request.end != End::Ok || request.latency_us > self.slow_us;
            self.seen.started[arm] += 1;
            self.seen.bad[arm] += u64::from(bad);
            if let Some(rivals) = &mut self.rivals {
                rivals.see(request);
            }
        }
        let since = self.tick - self.lead + 1;
        if let Some(rivals) = &mut self.rivals
            && since.is_multiple_of(SECOND)
        {
            rivals.second(since / SECOND);
        }
    }

    /// Notes what the judge says, and moves the weight.
    fn judge(&mut self) {
        if self.record.rolled_back.is_some() {
            return;
        }
        let at = f64::from(self.tick - self.lead) / f64::from(SECOND);
        let now = Duration::from_millis(u64::from(self.tick - self.lead) * 100);
        let seen = self.evidence.seen(now, 0, None);
        let block_ends = (self.tick - self.weight_since).is_multiple_of(self.block);
        let verdict = seen.verdict;
        if seen.suspected || verdict.level >= Level::Caution {
            self.record.cautioned.get_or_insert(at);
        }
        if seen.breaker == BreakerState::Open {
            self.record.opened.get_or_insert(at);
        }
        let before = self.weight_bp;
        match &self.scenario.weighting {
            Weighting::Plan(plan) => {
                let Some(rollout) = &self.rollout else { return };
                let step = rollout.step(plan, &crate::rollout::Seen { block_ends, ..seen });
                let weight_bp = step.rollout.weight_bp();
                if weight_bp != before {
                    let cut = if weight_bp < before { Cut::Forced } else { Cut::Scheduled };
                    self.put(weight_bp, cut);
                }
                if step.fresh_proof && weight_bp == before {
                    self.evidence.enter_stage(Tick(self.tick));
                }
                if step.rollout.is_rolled_back() {
                    self.roll_back(at);
                } else if step.rollout.is_promoted() {
                    self.record.promoted.get_or_insert(at);
                }
                if step.rollout.is_cautious() {
                    self.record.cautioned.get_or_insert(at);
                }
                self.rollout = Some(step.rollout);
            }
            Weighting::Fixed(_)
            | Weighting::Steps(_)
            | Weighting::Flap { .. }
            | Weighting::React { .. } => {
                if verdict.level == Level::Rollback {
                    self.roll_back(at);
                    return;
                }
                let evidence_ln = verdict.rollback_ln.max(verdict.caution_ln);
                match self.schedule.due(self.tick - self.lead, evidence_ln) {
                    Due::Scheduled(weight_bp) if weight_bp != before => {
                        self.put(weight_bp, Cut::Scheduled);
                    }
                    Due::Seen(weight_bp) if weight_bp != before => {
                        self.put(weight_bp, Cut::Forced);
                    }
                    Due::Scheduled(_) | Due::Seen(_) => {}
                }
            }
        }
    }

    /// Puts a weight in force from this tick on.
    fn put(&mut self, weight_bp: u16, cut: Cut) {
        self.weight_bp = weight_bp;
        self.epoch = self.epoch.next();
        self.weight_since = self.tick;
        self.arms.dial(weight_bp);
        self.evidence.reweigh(self.epoch, Tick(self.tick), vec![split(weight_bp)], cut);
    }

    fn roll_back(&mut self, at: f64) {
        let Seen { started, bad } = self.seen;
        let usual = if started[0] > 0 { bad[0] as f64 / started[0] as f64 } else { 0.0 };
        self.record.rolled_back = Some(Stopped {
            at,
            canary_requests: started[1],
            excess_bad: bad[1] as f64 - usual * started[1] as f64,
        });
    }

    fn is_over(&self) -> bool {
        let judged = self.record.rolled_back.is_some()
            || self.rollout.as_ref().is_some_and(Rollout::is_over);
        judged && self.rivals.as_ref().is_none_or(Watchers::all_stopped)
    }

    fn record(self) -> Record {
        let rivals = self.rivals.map_or_else(Vec::new, |rivals| rivals.stopped().collect());
        Record { rivals, ..self.record }
    }
}

const fn split(weight_bp: u16) -> Split {
    Split { canary_bp: weight_bp, baseline_bp: 10_000 - weight_bp }
}

#[cfg(test)]
mod tests;
