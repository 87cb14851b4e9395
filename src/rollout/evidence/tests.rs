//! From events to what the judge says, by small stories.

use super::*;
use crate::{
    judge::{self, BreakerState, JudgeConfig},
    measure::{Batch, Event, Head, Judging, Kind, OVERHEAD_BUCKETS, Outcome, RecorderId},
};

const FAST_US: u32 = 10_000;
const SLOW_US: u32 = 200_000;

/// One service with one canary at a weight, without a route's worth of configuration.
struct Scene {
    ledger: Ledger,
    yardstick: Yardstick,
    evidence: Evidence,
    inputs: Vec<Input>,
    tick: u32,
    epoch: Epoch,
}

fn split(canary_bp: u16) -> Vec<Split> {
    vec![Split { canary_bp, baseline_bp: 10_000 - canary_bp }]
}

/// One request in fifty, without a pattern.
fn is_slow(number: u32) -> bool {
    (number.wrapping_mul(0x9e37_79b1) >> 8).is_multiple_of(50)
}

impl Scene {
    fn new(canary_bp: u16) -> Self {
        let mut ledger = Ledger::new(1);
        let keys = [0, 1].map(|id| {
            let key = ledger.register(Judging::FirstByte, None);
            ledger.bind(RecorderId(id), key);
            key
        });
        let judge = JudgeConfig { block_ticks: 10, ..JudgeConfig::default() };
        let sources = vec![Source::plain(keys[0], false), Source::plain(keys[1], true)];
        let subject = Subject::plain(judge, Duration::from_secs(10), sources);
        let epoch = Epoch::new(0);
        let yardstick = Yardstick::new([&subject]);
        let evidence = Evidence::new(subject, Tick(0), epoch, split(canary_bp));
        Self { ledger, yardstick, evidence, tick: 0, epoch, inputs: Vec::new() }
    }

    /// A tick in which these requests arrive and end: arm, unit, outcome, latency.
    fn tick(&mut self, requests: impl IntoIterator<Item = (u32, u64, Outcome, u32)>) {
        let mut events = Vec::new();
        for (arm, unit, outcome, latency_us) in requests {
            let end = Kind::Ended { outcome, head: Head::Untold };
            for kind in [Kind::Assigned, end] {
                let mut event = Event::new(kind, self.epoch, false);
                event.recorder = RecorderId(arm);
                event.arrival = Tick(self.tick);
                event.unit = unit;
                if kind != Kind::Assigned {
                    (event.age_us, event.first_byte_us) = (latency_us, latency_us);
                }
                events.push(event);
            }
            if unit > 0 {
                let arm = Arm { stratum: 0, is_canary: arm == 1 };
                self.evidence.assigned(unit, Tick(self.tick), arm);
            }
        }
        let tick = Tick(self.tick);
        let batch = Batch {
            worker: 0,
            through: tick.end(),
            events,
            overflowed: false,
            overhead: [0; OVERHEAD_BUCKETS],
            overhead_sum_us: 0,
            report: None,
        };
        self.ledger.apply(&batch, tick);
        self.ledger.observe(tick.end());
        self.yardstick.refresh(&mut self.ledger, tick);
        let before = self.inputs.len();
        self.evidence.gather(&mut self.ledger, &self.yardstick, tick, &mut self.inputs);
        for input in &self.inputs[before..] {
            self.evidence.take(input);
        }
        self.tick += 1;
    }

    /// Healthy traffic without keys: 38 requests of the baseline and two of the canary a tick, one
    /// in fifty slow.
    fn healthy(&mut self, ticks: u32) {
        for tick in 0..ticks {
            self.tick((0..40).map(|place: u32| {
                let slow = is_slow(tick * 40 + place);
                (u32::from(place < 2), 0, Outcome::Ok, if slow { SLOW_US } else { FAST_US })
            }));
        }
    }

    fn seen(&mut self) -> Seen {
        let now = Tick(self.tick).end();
        self.evidence.seen(now, 0, None)
    }

    fn evidence_ln(&mut self) -> f64 {
        self.seen().verdict.rollback_peak_ln
    }
}

#[test]
fn nothing_is_slow_before_the_baseline_is_known() {
    let mut scene = Scene::new(500);
    for _ in 0..20 {
        let canary = (0..2).map(|_| (1, 0, Outcome::Ok, SLOW_US));
        scene.tick((0..20).map(|_| (0, 0, Outcome::Ok, FAST_US)).chain(canary));
    }
    assert!(scene.evidence_ln() <= 0.1);
}

#[test]
fn a_canary_that_becomes_slow_is_found() {
    let mut scene = Scene::new(500);
    scene.healthy(1200);
    assert!(scene.evidence_ln() < 3.0);
    for _ in 0..300 {
        let canary = (0..2).map(|_| (1, 0, Outcome::Ok, 2 * SLOW_US));
        scene.tick((0..38).map(|_| (0, 0, Outcome::Ok, FAST_US)).chain(canary));
    }
    let seen = scene.seen();
    assert_eq!(seen.verdict.level, judge::Level::Rollback);
    assert!(seen.excess_bad > 300.0, "{}", seen.excess_bad);
}

#[test]
fn one_user_is_one_coin_however_often_it_fails() {
    let mut scene = Scene::new(500);
    let everyone = |tick: u32| {
        (0..40).map(move |place| {
            let unit = u64::from((tick * 40 + place) % 1000) + 10;
            (u32::from(unit % 20 == 0), unit, Outcome::Ok, FAST_US)
        })
    };
    for tick in 0..1200 {
        scene.tick(everyone(tick));
    }
    let before = scene.evidence_ln();
    for tick in 0..600 {
        let angry = (0..3).map(|_| (1, 20, Outcome::Failed, FAST_US));
        scene.tick(everyone(tick).chain(angry));
    }
    // One event that falls on 5 % multiplies a bet by 20 at most.
    assert!(scene.evidence_ln() - before < 20.0_f64.ln());
    for tick in 0..100 {
        let unit = |place| 20 * (u64::from(tick * 3 + place) + 2);
        let many = (0..3).map(|place| (1, unit(place), Outcome::Failed, FAST_US));
        scene.tick(everyone(tick).chain(many));
    }
    assert_eq!(scene.seen().verdict.level, judge::Level::Rollback);
}

#[test]
fn a_user_is_one_trial_of_a_stage() {
    let mut scene = Scene::new(5_000);
    let users = |tick: u32| {
        (0..40).map(move |place| {
            let unit = u64::from((tick * 40 + place) % 800) + 1;
            (u32::from(unit % 2 == 0), unit, Outcome::Ok, FAST_US)
        })
    };
    for tick in 0..1200 {
        scene.tick(users(tick));
    }
    let at = Tick(scene.tick);
    scene.epoch = scene.epoch.next();
    scene.evidence.reweigh(scene.epoch, at, split(5_000), Cut::Scheduled);
    for tick in 0..600 {
        scene.tick(users(tick));
    }
    let seen = scene.seen();
    assert_eq!(seen.proofs.canary_trials, 400);
    assert!(seen.canary_requests > 10_000, "{}", seen.canary_requests);
}

#[test]
fn a_change_of_weight_keeps_each_request_under_its_own() {
    let mut scene = Scene::new(500);
    scene.healthy(1200);
    // From 5 % to half: what was fair before would be damning now, and the other way round.
    for weight_bp in [5_000, 500, 5_000] {
        scene.epoch = scene.epoch.next();
        let at = Tick(scene.tick);
        let input = scene.evidence.reweigh(scene.epoch, at, split(weight_bp), Cut::Scheduled);
        scene.inputs.push(input);
        for tick in 0..200_u32 {
            scene.tick((0..40).map(|place: u32| {
                let canary = place < if weight_bp == 500 { 2 } else { 20 };
                let slow = is_slow(tick * 40 + place);
                (u32::from(canary), 0, Outcome::Ok, if slow { SLOW_US } else { FAST_US })
            }));
        }
    }
    assert!(scene.evidence_ln() < 3.0_f64.ln(), "{}", scene.evidence_ln());
}

#[test]
fn an_outage_trips_the_breaker() {
    let mut scene = Scene::new(500);
    scene.healthy(100);
    for _ in 0..10 {
        let canary = (0..2).map(|_| (1, 0, Outcome::Failed, 1_000));
        scene.tick((0..38).map(|_| (0, 0, Outcome::Ok, FAST_US)).chain(canary));
    }
    assert_eq!(scene.seen().breaker, BreakerState::Reduced);
    for _ in 0..10 {
        let canary = (0..2).map(|_| (1, 0, Outcome::Failed, 1_000));
        scene.tick((0..38).map(|_| (0, 0, Outcome::Ok, FAST_US)).chain(canary));
    }
    assert_eq!(scene.seen().breaker, BreakerState::Open);
}

/// Users who are slow now and then, through a change of weight, a stage, a probe and failures.
fn eventful() -> Scene {
    let mut scene = Scene::new(500);
    let second_story = |scene: &mut Scene, ticks: u32, weight: u64| {
        for tick in 0..ticks {
            scene.tick((0..40_u32).map(|place| {
                let number = tick * 40 + place;
                let unit = if place < 30 { u64::from(number % 997) + 1 } else { 0 };
                let canary = if unit > 0 { unit % 100 < weight } else { place < 32 };
                let slow = is_slow(number) || (canary && is_slow(number + 7));
                let outcome =
                    if is_slow(number + 3) && canary { Outcome::Failed } else { Outcome::Ok };
                (u32::from(canary), unit, outcome, if slow { SLOW_US } else { FAST_US })
            }));
        }
    };
    second_story(&mut scene, 400, 5);
    for (weight_bp, cut) in [(2_500, Cut::Scheduled), (500, Cut::Forced)] {
        scene.epoch = scene.epoch.next();
        let at = Tick(scene.tick);
        let input = scene.evidence.reweigh(scene.epoch, at, split(weight_bp), cut);
        scene.inputs.push(input);
        second_story(&mut scene, 300, u64::from(weight_bp / 100));
    }
    let input = scene.evidence.enter_stage(Tick(scene.tick));
    scene.inputs.push(input);
    scene.inputs.extend(scene.evidence.set_block_ticks(20));
    second_story(&mut scene, 123, 5);
    scene
}

fn written(evidence: &Evidence) -> String {
    serde_json::to_string(evidence.state()).unwrap()
}

/// An input as it comes back from the journal.
fn reread(input: &Input) -> Input {
    let text = serde_json::to_string(input).unwrap();
    let read = serde_json::from_str(&text).unwrap();
    assert_eq!(*input, read, "{text}");
    read
}

#[test]
fn the_same_inputs_make_the_same_evidence() {
    let mut scene = eventful();
    let subject = scene.evidence.subject().clone();
    let mut again = Evidence::new(subject.clone(), Tick(0), Epoch::new(0), split(500));
    let mut middle = None;
    for (place, input) in scene.inputs.iter().enumerate() {
        again.take(&reread(input));
        if place == scene.inputs.len() / 2 {
            middle = Some(written(&again));
        }
    }
    assert_eq!(written(&again), written(&scene.evidence));
    // From the middle on, out of what was written there.
    let snapshot = serde_json::from_str(&middle.unwrap()).unwrap();
    let mut halfway = Evidence::recall(subject, snapshot);
    scene.inputs[scene.inputs.len() / 2 + 1..].iter().for_each(|input| halfway.take(input));
    assert_eq!(halfway.judge().snapshot(), scene.evidence.judge().snapshot());
    let now = Tick(scene.tick).end();
    assert_eq!(halfway.seen(now, 0, None), scene.evidence.seen(now, 0, None));
    assert_eq!(written(&halfway), written(&scene.evidence));
    assert!(
        scene.evidence.units().len() > 50 && scene.evidence.judge().verdict().rollback_ln > 0.0
    );
}

#[test]
fn evidence_outlives_its_process() {
    let mut scene = eventful();
    let before = scene.seen();
    let mut after = Scene::new(500);
    let subject = after.evidence.subject().clone();
    let epoch = Epoch::new(0);
    let snapshot = scene.evidence.snapshot();
    let (evidence, input) =
        Evidence::restore(subject.clone(), snapshot, Tick(0), epoch, split(500));
    after.evidence = evidence;
    let now = after.seen();
    assert_eq!(now.verdict.rollback_peak_ln, before.verdict.rollback_peak_ln);
    assert_eq!((now.proofs, now.canary_requests), (before.proofs, before.canary_requests));
    assert_eq!(after.evidence.units().len(), scene.evidence.units().len());
    after.healthy(600);
    assert!(after.seen().proofs.canary_trials > before.proofs.canary_trials);
    assert!(after.evidence_ln() >= before.verdict.rollback_peak_ln);
    // And whoever reads both processes' inputs comes to the same.
    let mut again = Evidence::new(subject, Tick(0), epoch, split(500));
    let inputs = scene.inputs.iter().chain([&input]).chain(&after.inputs);
    inputs.for_each(|input| again.take(input));
    assert_eq!(again.judge().snapshot(), after.evidence.judge().snapshot());
}

#[test]
fn half_of_the_probability_is_left_where_the_units_were_lost() {
    let scene = Scene::new(500);
    let whole = scene.evidence.judge().verdict().threshold_ln;
    let subject = Subject { units_lost: true, ..scene.evidence.subject().clone() };
    let evidence = Evidence::new(subject, Tick(0), Epoch::new(0), split(500));
    assert!((evidence.judge().verdict().threshold_ln - whole - 2.0_f64.ln()).abs() < 1e-12);
}
