//! What one endpoint does that the others do not, and what comes of it.

use std::time::Duration;

use super::*;
use crate::measure::{Epoch, Head};

/// Requests of a tick and endpoint.
const RATE: usize = 10;

fn placebo(endpoints: usize) -> Placebo {
    let mut placebo = Placebo {
        service: "shop".into(),
        memory: PlaceboMemory::default(),
        upstream: "pods".into(),
        numbers: (0..endpoints).map(EndpointNumber::of).collect(),
        picked: None,
        baseline: Vec::new(),
        thresholds: None,
        weights_bp: Vec::new(),
        ticks: Vec::new(),
        from: 0,
        alarms: 0,
    };
    placebo.pick(20_000);
    placebo
}

/// Seconds of traffic; `fails` says by endpoint, tick and number which requests do.
fn play(placebo: &mut Placebo, seconds: u32, fails: impl Fn(usize, u32, usize) -> bool) {
    let from = placebo.from;
    let recorder = Recorder { place: 0, of_canary: false, judged: Judged::FirstByte };
    for tick in from..from + seconds * SECOND as u32 {
        for endpoint in 0..placebo.numbers.len() {
            for number in 0..RATE {
                let failed = fails(endpoint, tick, number);
                let outcome = if failed { Outcome::Failed } else { Outcome::Ok };
                let kind = Kind::Ended { outcome, head: Head::Untold };
                let mut event = Event::new(kind, Epoch::new(0), false)
                    .with_endpoint(EndpointNumber::of(endpoint));
                event.arrival = Tick(tick);
                placebo.count(&event, outcome, recorder);
            }
        }
        placebo.feed(Tick(tick + 1));
    }
}

fn usual(endpoint: usize, tick: u32, number: usize) -> bool {
    (tick as usize * 31 + endpoint * 17 + number).is_multiple_of(101)
}

#[test]
fn pods_that_are_alike_keep_the_blocks_as_they_are() {
    let mut placebo = placebo(4);
    play(&mut placebo, 900, usual);
    assert_eq!(placebo.memory.calibration.block_ticks(), 50);
    assert!(!placebo.memory.calibration.alarm());
    assert!(placebo.view().evidence.iter().all(|(_, odds)| *odds < 20.0), "{:?}", placebo.view());
}

#[test]
fn a_pod_that_is_always_worse_is_an_alarm_that_is_counted_once() {
    let mut placebo = placebo(4);
    let place = place_of_day("shop", 20_000, 4);
    play(&mut placebo, 900, |endpoint, tick, number| {
        usual(endpoint, tick, number) || (endpoint == place && number == 0)
    });
    let view = placebo.view();
    assert!((view.alarm, view.alarms) == (true, 1) && view.block_seconds > 5, "{view:?}");
}

#[test]
fn what_was_found_is_remembered_for_a_day_and_over_a_restart() {
    let mut before = placebo(4);
    let place = place_of_day("shop", 20_000, 4);
    play(&mut before, 900, |endpoint, _, number| endpoint == place && number == 0);
    let needed = before.memory.calibration.block_ticks();
    let written = serde_json::to_string(&before.memory).unwrap();
    let mut after = placebo(4);
    after.memory = serde_json::from_str(&written).unwrap();
    after.pick(20_000);
    assert!(after.memory.calibration.alarm());
    after.pick(20_001);
    assert!(!after.memory.calibration.alarm());
    assert_eq!(after.memory.calibration.block_ticks(), needed);
    after.pick(20_002);
    assert_eq!(after.memory.calibration.block_ticks(), 50);
}

#[test]
fn each_day_picks_some_endpoint_and_over_time_all_of_them() {
    let picked: std::collections::BTreeSet<usize> =
        (20_000..20_060).map(|day| place_of_day("shop", day, 5)).collect();
    assert_eq!(picked.len(), 5);
    assert_eq!(place_of_day("shop", 20_000, 5), place_of_day("shop", 20_000, 5));
    let at = |seconds| day(SystemTime::UNIX_EPOCH + Duration::from_secs(seconds));
    assert_eq!((at(86_399), at(86_400)), (0, 1));
}

#[test]
fn without_two_endpoints_nothing_is_picked() {
    assert_eq!((placebo(0).picked, placebo(1).picked), (None, None));
    let mut single = placebo(1);
    play(&mut single, 60, usual);
    assert_eq!(single.memory.calibration.block_ticks(), 50);
}

#[test]
fn the_one_that_was_picked_stays_picked_while_others_come_and_go() {
    let mut placebo = placebo(4);
    let place = place_of_day("shop", 20_000, 4);
    play(&mut placebo, 900, |endpoint, _, number| endpoint == place && number == 0);
    assert!(placebo.memory.calibration.alarm());
    let picked = placebo.picked;
    placebo.numbers.push(EndpointNumber::of(9));
    placebo.numbers.remove((place + 1) % 4);
    placebo.pick(20_000);
    assert!(placebo.picked == picked && placebo.memory.calibration.alarm());
    placebo.numbers.retain(|number| Some(*number) != picked);
    placebo.pick(20_000);
    assert!(placebo.picked.is_some() && placebo.picked != picked);
    assert!(!placebo.memory.calibration.alarm());
}
