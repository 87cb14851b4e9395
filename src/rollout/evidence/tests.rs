//! From events to what the judge says, by small stories.

use super::*;
use crate::{
    judge::{self, BreakerState, JudgeConfig, Scope},
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
        Self::with(canary_bp, |_| {})
    }

    /// One whose subject is changed first.
    fn with(canary_bp: u16, change: impl FnOnce(&mut Subject)) -> Self {
        let mut ledger = Ledger::new(1);
        let keys = [0, 1].map(|id| {
            let key = ledger.register(Judging::FirstByte, None);
            ledger.bind(RecorderId(id), key);
            key
        });
        let judge = JudgeConfig { block_ticks: 10, ..JudgeConfig::default() };
        let sources = vec![Source::plain(keys[0], false), Source::plain(keys[1], true)];
        let mut subject = Subject::plain(judge, Duration::from_secs(10), sources);
        change(&mut subject);
        let epoch = Epoch::new(0);
        let yardstick = Yardstick::new([&subject]);
        let evidence = Evidence::new(subject, Tick(0), epoch, split(canary_bp));
        Self { ledger, yardstick, evidence, tick: 0, epoch, inputs: Vec::new() }
    }

    /// A tick in which these requests arrive and end: arm, unit, outcome, latency.
    fn tick(&mut self, requests: impl IntoIterator<Item = (u32, u64, Outcome, u32)>) {
        self.tick_refusing(requests, |_, _| false);
    }

    /// The same; `refused` is told the arm and the unit.
    fn tick_refusing(
        &mut self,
        requests: impl IntoIterator<Item = (u32, u64, Outcome, u32)>,
        refused: impl Fn(u32, u64) -> bool,
    ) {
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
                    event = if refused(arm, unit) { event.of_refused() } else { event };
                }
                events.push(event);
            }
            if unit > 0 {
                let arm = Arm { stratum: 0, is_canary: arm == 1 };
                self.evidence.assigned(unit, Tick(self.tick), self.epoch, arm);
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
    for _ in 0..5 {
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

/// A canary whose requests are slow in one of three, for a minute.
fn cold(scene: &mut Scene, ticks: u32) {
    for tick in 0..ticks {
        scene.tick((0..40_u32).map(|place| {
            let number = tick * 40 + place;
            let canary = place < 4;
            let slow = is_slow(number) || (canary && number.is_multiple_of(23));
            (u32::from(canary), 0, Outcome::Ok, if slow { SLOW_US } else { FAST_US })
        }));
    }
}

#[test]
fn a_canary_that_warms_up_may_be_slower_for_a_while() {
    let warmup = Some(Duration::from_secs(60));
    let mut warming = Scene::with(1_000, |subject| subject.warmup = warmup);
    let mut plain = Scene::new(1_000);
    for scene in [&mut warming, &mut plain] {
        // Nothing of this is the canary's: its time has not begun.
        for tick in 0..1200 {
            let slow = |place: u32| if is_slow(tick * 40 + place) { SLOW_US } else { FAST_US };
            scene.tick((0..40).map(|place| (0, 0, Outcome::Ok, slow(place))));
        }
        cold(scene, 500);
    }
    assert!(plain.evidence_ln() > 3.0, "{}", plain.evidence_ln());
    assert!(warming.evidence_ln() < 1.0, "{}", warming.evidence_ln());
    let before = warming.evidence_ln();
    cold(&mut warming, 1200);
    assert!(warming.evidence_ln() > before + 3.0, "the time is over");
}

#[test]
fn a_canary_that_warms_up_may_not_fail_more() {
    let mut scene = Scene::with(500, |it| it.warmup = Some(Duration::from_secs(600)));
    scene.healthy(600);
    for _ in 0..600 {
        let canary = (0..2).map(|place| (1, 0, [Outcome::Ok, Outcome::Failed][place], FAST_US));
        scene.tick((0..38).map(|_| (0, 0, Outcome::Ok, FAST_US)).chain(canary));
    }
    assert_eq!(scene.seen().verdict.level, judge::Level::Rollback);
}

/// Everyone comes once in a while; the arm is what the hash says under a weight.
fn users(scene: &mut Scene, ticks: u32, weight_bp: u16) {
    for tick in 0..ticks {
        scene.tick((0..40_u32).map(|place| {
            let user = u64::from(tick * 40 + place) % 30_000 + 1;
            let unit = user.wrapping_mul(0x9e37_79b9_7f4a_7c15);
            let canary = crate::routing::bucket(unit) < weight_bp;
            (u32::from(canary), unit, Outcome::Ok, FAST_US)
        }));
    }
}

#[test]
fn users_on_the_wrong_arm_are_noticed() {
    let mut scene = Scene::new(2_000);
    users(&mut scene, 1500, 2_000);
    assert!(!scene.evidence.judge().share_check().fired());
    let mut scene = Scene::new(2_000);
    users(&mut scene, 1500, 4_000);
    assert!(scene.evidence.judge().share_check().fired());
}

#[test]
fn users_who_told_all_are_counted() {
    let mut scene = Scene::new(500);
    assert_eq!(scene.evidence.tellers(), None);
    users(&mut scene, 700, 500);
    let fresh = scene.evidence.tellers().unwrap();
    assert_eq!((fresh.users, fresh.open), (28_000, 28_000));
    for tick in 0..100_u64 {
        let slow = (0..30).map(|place| {
            let unit = (tick % 5 * 30 + place + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
            (u32::from(crate::routing::bucket(unit) < 500), unit, Outcome::Ok, SLOW_US)
        });
        scene.tick(slow);
    }
    for _ in 0..50 {
        scene.tick([]);
    }
    let spent = scene.evidence.tellers().unwrap();
    assert_eq!((spent.users, spent.users - spent.open), (28_000, 150));
    assert!(spent.open_canary < fresh.open_canary && !spent.are_too_few());
    assert!(spent.sentence().starts_with("users that can still tell: 27850 of 28000"));
}

#[test]
fn traffic_from_before_the_rollout_makes_the_thresholds() {
    let mut scene = Scene::new(0);
    for tick in 0..300 {
        let slow = |place: u32| if is_slow(tick * 40 + place) { SLOW_US } else { FAST_US };
        scene.tick((0..40).map(|place| (0, 0, Outcome::Ok, slow(place))));
    }
    let subject = scene.evidence.subject().clone();
    scene.yardstick = Yardstick::new([&subject]);
    scene.epoch = scene.epoch.next();
    let from = Tick(scene.tick + 1);
    scene.evidence = Evidence::new(subject, from, scene.epoch, split(1_000));
    scene.inputs.clear();
    cold(&mut scene, 30);
    let armed = |input: &Input| matches!(input, Input::Block(FedBlock { armed: Armed::All, .. }));
    assert!(scene.inputs.iter().filter(|input| armed(input)).count() >= 4);
}

#[test]
fn canaries_of_one_service_share_the_deadlines_of_its_baseline() {
    let mut scene = Scene::new(500);
    scene.healthy(300);
    let first = scene.evidence.subject().clone();
    let tolerant = Subject {
        tolerate: crate::rollout::Tolerance { latency: 1.0, ..first.tolerate },
        ..first.clone()
    };
    let failed_by = |scene: &mut Scene, subjects: &[&Subject]| {
        scene.yardstick.measure(subjects.iter().copied());
        scene.yardstick.refresh(&mut scene.ledger, Tick(scene.tick));
        let of = |subject| {
            *scene.yardstick.of_canary(subject, 0).unwrap().failed_by_us().last().unwrap()
        };
        let canaries: Vec<u32> = subjects.iter().map(|subject| of(subject)).collect();
        let baseline = first.sources[0].key;
        let slots = scene.ledger.slots(baseline).unwrap();
        (slots.deadlines_at(Tick(scene.tick + 1)).failed_by_us()[1], canaries)
    };
    let (alone, _) = failed_by(&mut scene, &[&first]);
    let (together, canaries) = failed_by(&mut scene, &[&first, &tolerant]);
    assert!(together > alone, "{together} {alone}");
    assert_eq!(canaries, [together; 2]);
}

#[test]
fn each_route_has_its_own_measure_of_slow() {
    let mut ledger = Ledger::new(1);
    let keys: Vec<_> = (0..4)
        .map(|id| {
            let key = ledger.register(Judging::FirstByte, None);
            ledger.bind(RecorderId(id), key);
            key
        })
        .collect();
    let source =
        |place: usize, is_canary, route| Source { route, ..Source::plain(keys[place], is_canary) };
    let route = |name: &str, seconds| JudgedRoute {
        name: name.into(),
        timeout: Duration::from_secs(seconds),
    };
    let subject = Subject {
        routes: vec![route("cart", 10), route("report", 1)],
        ..Subject::plain(
            JudgeConfig::default(),
            Duration::from_secs(10),
            vec![source(0, false, 0), source(1, true, 0), source(2, false, 1), source(3, true, 1)],
        )
    };
    let mut scene = Scene::new(500);
    scene.ledger = ledger;
    scene.yardstick = Yardstick::new([&subject]);
    scene.evidence = Evidence::new(subject.clone(), Tick(0), scene.epoch, split(500));
    for _ in 0..200 {
        scene.tick((0..20).map(|place| {
            if place < 10 { (0, 0, Outcome::Ok, FAST_US) } else { (2, 0, Outcome::Ok, 5 * SLOW_US) }
        }));
    }
    let p75 = |route| scene.yardstick.of_canary(&subject, route).unwrap().of(0).unwrap();
    assert!(p75(0) < 2 * FAST_US && p75(1) > 4 * SLOW_US, "{} {}", p75(0), p75(1));
    assert!(p75(1) <= 1_000_000, "its timeout");
}

#[test]
fn short_blocks_are_whole_ticks() {
    assert_eq!(JudgeConfig::ticks_of(Duration::from_millis(250)), 3);
    let mut scene = Scene::with(500, |it| it.judge.block_ticks = 3);
    scene.healthy(300);
    let is_long = |input: &Input| matches!(input, Input::Block(fed) if fed.block.last.0 - fed.block.first.0 >= 3);
    assert!(!scene.inputs.iter().any(is_long) && scene.inputs.len() > 400);
    for _ in 0..60 {
        let canary = (0..2).map(|_| (1, 0, Outcome::Failed, FAST_US));
        scene.tick((0..38).map(|_| (0, 0, Outcome::Ok, FAST_US)).chain(canary));
    }
    assert_eq!(scene.seen().verdict.level, judge::Level::Rollback);
}

/// Two routes and two cohorts: recorder `4 * route + 2 * cohort + arm`.
fn shop() -> Scene {
    let mut ledger = Ledger::new(1);
    let mut sources = Vec::new();
    for id in 0..8 {
        let key = ledger.register(Judging::FirstByte, None);
        ledger.bind(RecorderId(id), key);
        let [route, cohort] = [id / 4, id / 2 % 2].map(|place| place as u16);
        sources.push(Source { route, cohort, ..Source::plain(key, id % 2 == 1) });
    }
    let route = |name: &str| JudgedRoute { name: name.into(), timeout: Duration::from_secs(10) };
    let judge = JudgeConfig { block_ticks: 10, ..JudgeConfig::default() };
    let subject = Subject {
        routes: vec![route("cart"), route("checkout")],
        cohorts: vec!["default".into(), "ios-eu".into()],
        ..Subject::plain(judge, Duration::from_secs(10), sources)
    };
    let mut scene = Scene::new(2_000);
    scene.ledger = ledger;
    scene.yardstick = Yardstick::new([&subject]);
    let subject = subject.with_components(&scene.ledger);
    scene.evidence = Evidence::new(subject, Tick(0), scene.epoch, split(2_000));
    scene
}

/// Traffic of the shop: half of the requests each way, a fifth to the canary; `bad` says which
/// of the canary's fail.
fn visits(scene: &mut Scene, ticks: u32, bad: impl Fn(u32, u32, u32) -> bool) {
    for _ in 0..ticks {
        let tick = scene.tick;
        scene.tick((0..80_u32).map(|place| {
            let number = tick * 80 + place;
            let (part, canary) = (place % 4, u32::from(place / 4 % 5 == 0));
            let (route, cohort) = (part / 2, part % 2);
            let failed = canary == 1 && bad(route, cohort, number / 4);
            let outcome = if failed { Outcome::Failed } else { Outcome::Ok };
            let slow = if is_slow(number) { SLOW_US } else { FAST_US };
            (4 * route + 2 * cohort + canary, 0, outcome, slow)
        }));
    }
}

#[test]
fn the_part_of_the_traffic_that_fails_is_named() {
    let mut scene = shop();
    visits(&mut scene, 100, |_, _, _| false);
    visits(&mut scene, 300, |route, cohort, number| {
        route == 1 && cohort == 1 && number.is_multiple_of(3)
    });
    assert_eq!(scene.seen().verdict.level, judge::Level::Rollback);
    let judge = scene.evidence.judge();
    assert_eq!(judge.components().len(), 5);
    let name = |scope| judge.stands_out(scope).map(|component| component.name.clone());
    assert_eq!(name(Scope::Route).as_deref(), Some("checkout"));
    assert_eq!(name(Scope::Cohort).as_deref(), Some("ios-eu"));
    let reason = judge.reason();
    assert!(reason.contains("route checkout") && reason.contains("cohort ios-eu"), "{reason}");
}

#[test]
fn where_all_parts_fail_none_is_named() {
    let mut scene = shop();
    visits(&mut scene, 100, |_, _, _| false);
    visits(&mut scene, 300, |_, _, number| number.is_multiple_of(9));
    let judge = scene.evidence.judge();
    assert_eq!(judge.verdict().level, judge::Level::Rollback);
    assert_eq!((judge.stands_out(Scope::Route), judge.stands_out(Scope::Cohort)), (None, None));
}

#[test]
fn a_cohort_can_be_taken_away_alone() {
    let mut scene = shop();
    visits(&mut scene, 600, |_, _, _| false);
    let mut condemned = Vec::new();
    for _ in 0..400 {
        visits(&mut scene, 1, |_, cohort, number| cohort == 1 && number.is_multiple_of(31));
        let judge = scene.evidence.judge();
        condemned = judge.condemned_cohorts().map(str::to_owned).collect();
        if !condemned.is_empty() {
            break;
        }
    }
    assert_eq!(condemned, ["ios-eu"], "{}", scene.evidence_ln());
    let input = scene.evidence.set_aside(&"ios-eu".into()).unwrap();
    scene.inputs.push(input);
    assert!(scene.evidence.set_aside(&"ios-eu".into()).is_none());
    assert_ne!(scene.seen().verdict.level, judge::Level::Rollback);
    // What it did is on its way still, and says nothing of the rest.
    visits(&mut scene, 20, |_, cohort, _| cohort == 1);
    scene.epoch = scene.epoch.next();
    let at = Tick(scene.tick);
    scene.inputs.push(scene.evidence.reweigh(scene.epoch, at, split(2_000), Cut::Forced));
    visits(&mut scene, 600, |_, _, _| false);
    assert_ne!(scene.seen().verdict.level, judge::Level::Rollback);
    // The rest is judged on, and whoever repeats it agrees.
    visits(&mut scene, 300, |route, _, number| route == 0 && number.is_multiple_of(4));
    assert_eq!(scene.seen().verdict.level, judge::Level::Rollback);
    let subject = scene.evidence.subject().clone();
    let mut again = Evidence::new(subject, Tick(0), Epoch::new(0), split(2_000));
    scene.inputs.iter().for_each(|input| again.take(&reread(input)));
    assert_eq!(written(&again), written(&scene.evidence));
}

#[test]
fn a_route_that_comes_later_gets_evidence_of_its_own() {
    let mut scene = shop();
    visits(&mut scene, 50, |_, _, _| false);
    let mut subject = scene.evidence.subject().clone();
    let keys = [8, 9].map(|id| {
        let key = scene.ledger.register(Judging::FirstByte, None);
        scene.ledger.bind(RecorderId(id), key);
        key
    });
    let timeout = Duration::from_secs(10);
    subject.routes.push(JudgedRoute { name: "wishes".into(), timeout });
    let of =
        |is_canary| Source { route: 2, ..Source::plain(keys[usize::from(is_canary)], is_canary) };
    subject.sources.extend([of(false), of(true)]);
    scene.yardstick.measure([&subject]);
    scene.evidence.reshape(subject);
    for _ in 0..600 {
        let wish = |place: u32| {
            let canary = u32::from(place.is_multiple_of(5));
            let outcome = if canary == 1 { Outcome::Failed } else { Outcome::Ok };
            (8 + canary, 0, outcome, FAST_US)
        };
        scene.tick((0..10).map(wish));
    }
    let name = scene.evidence.judge().stands_out(Scope::Route).map(|it| it.name.clone());
    assert_eq!(name.as_deref(), Some("wishes"));
}

#[test]
fn a_canary_that_refuses_more_is_found() {
    for unit in [0, 1_000] {
        let mut scene = Scene::new(500);
        scene.healthy(100);
        for tick in 0..600 {
            let unit = |place: u64| if unit > 0 { unit + tick * 40 + place } else { 0 };
            let requests =
                (0..40).map(|place| (u32::from(place < 2), unit(place), Outcome::Ok, FAST_US));
            scene.tick_refusing(requests, |arm, unit| arm == 1 && (tick + unit) % 2 == 0);
        }
        let seen = scene.seen();
        assert_eq!(seen.verdict.level, judge::Level::Rollback);
        assert_eq!(seen.verdict.lead.unwrap().definition, judge::Definition::Refused);
        assert!(seen.excess_bad < 1.0, "a refusal is no failure");
    }
}

#[test]
fn how_much_slower_a_canary_is_is_told() {
    let mut scene = Scene::new(2_000);
    for tick in 0..3_000_u32 {
        scene.tick((0..40).map(|place: u32| {
            // Latencies spread evenly over their logarithm, from 10 ms to 160 ms.
            let part =
                f64::from((tick * 40 + place).wrapping_mul(0x9e37_79b1) >> 8) / f64::from(1 << 24);
            let canary = place < 8;
            let factor = if canary && tick > 600 { 1.7 } else { 1.0 };
            (u32::from(canary), 0, Outcome::Ok, (10_000.0 * 16.0_f64.powf(part) * factor) as u32)
        }));
    }
    let p99 = scene.evidence.judge().effect().latency[1];
    assert_eq!(p99.at_least, Some(1.5), "{p99:?}");
    assert!(p99.estimate.is_some_and(|it| (1.5..2.0).contains(&it)), "{p99:?}");
    let reason = scene.evidence.judge().reason();
    assert!(reason.contains("p99 slower by") && reason.contains("at least 50 %"), "{reason}");
}
