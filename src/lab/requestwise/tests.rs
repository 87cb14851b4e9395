//! Single runs, from outside.

use std::time::Duration;

use super::*;
use crate::lab::scenario::{Behaviour, Change, Users};

fn play(scenario: &Scenario) -> Record {
    Laboratory::new(scenario, false).play(0)
}

fn short() -> Scenario {
    let judge = crate::rollout::JudgeSettings {
        block: Some(Duration::from_secs(1)),
        ..crate::rollout::JudgeSettings::default()
    };
    Scenario { duration: Duration::from_secs(120), judge, ..Scenario::default() }
}

#[test]
fn the_same_run_is_the_same() {
    let canary = Change { latency_factor: 2.0, ..Change::default() };
    let scenario = Scenario { canary, ..short() };
    let record = play(&scenario);
    assert_eq!(record, play(&scenario));
    let stopped = record.rolled_back.unwrap();
    assert!(stopped.at < 30.0, "{record:?}");
    assert!(stopped.canary_requests as f64 > stopped.at * 15.0, "{record:?}");
}

#[test]
fn identical_versions_are_left_alone() {
    for run in 0..3 {
        assert_eq!(Laboratory::new(&short(), false).play(run).rolled_back, None);
    }
}

#[test]
fn failures_are_found() {
    let canary = Change { errors: Some(0.05), ..Change::default() };
    let record = play(&Scenario { canary, ..short() });
    assert!(record.rolled_back.is_some_and(|stopped| stopped.at < 40.0), "{record:?}");
}

#[test]
fn requests_that_hang_are_found_before_they_time_out() {
    let canary = Change { hang: 0.2, ..Change::default() };
    let record = play(&Scenario { canary, timeout: Duration::from_secs(30), ..short() });
    assert!(record.rolled_back.is_some_and(|stopped| stopped.at < 20.0), "{record:?}");
}

#[test]
fn sticky_users_tell_bad_from_good() {
    let users = Some(Users { count: 5000, zipf: 1.1 });
    let canary = Change { latency_factor: 3.0, ..Change::default() };
    let record = play(&Scenario { users, canary, ..short() });
    assert!(record.rolled_back.is_some_and(|stopped| stopped.at < 60.0), "{record:?}");
    let good = Scenario { users, ..short() };
    assert_eq!(play(&good).rolled_back, None);
}

#[test]
fn an_outage_trips_the_breaker_within_two_seconds() {
    let canary = Change { errors: Some(1.0), after: Duration::from_secs(30), ..Change::default() };
    let rate = Rate::Steps(vec![(Duration::ZERO, 400.0)]);
    let record = play(&Scenario { canary, rate, ..short() });
    assert!(record.opened.is_some_and(|at| (30.0..=32.0).contains(&at)), "{record:?}");
}

#[test]
fn a_plan_promotes_the_good_and_takes_back_the_bad() {
    let stage = |weight_bp| crate::rollout::Stage {
        weight_bp,
        at_least: Duration::from_secs(20),
        gate: false,
        prove: None,
    };
    let plan = crate::rollout::Plan {
        name: "short".into(),
        stages: vec![stage(500), stage(2_500), stage(10_000)],
        judge: short().judge,
        inconclusive_after: crate::rollout::Inconclusive::default(),
        manual: false,
    };
    let baseline = Behaviour { errors: 0.0, ..Scenario::default().baseline };
    let good = Scenario {
        weighting: Weighting::Plan(plan),
        duration: Duration::from_secs(1800),
        baseline,
        ..short()
    };
    let record = play(&good);
    assert!(record.promoted.is_some() && record.rolled_back.is_none(), "{record:?}");
    let canary = Change { latency_factor: 2.0, ..Change::default() };
    let record = play(&Scenario { canary, ..good });
    assert!(record.rolled_back.is_some() && record.promoted.is_none(), "{record:?}");
}

#[test]
fn rivals_look_at_the_same_requests() {
    let canary = Change { latency_factor: 4.0, ..Change::default() };
    let duration = Duration::from_secs(420);
    let record = Laboratory::new(&Scenario { canary, duration, ..short() }, true).play(0);
    let at: Vec<_> = record.rivals.iter().map(|rival| rival.map(|stopped| stopped.at)).collect();
    assert_eq!(at[..4], [Some(360.0), Some(360.0), Some(60.0), Some(60.0)]);
    assert!(record.rolled_back.is_some_and(|stopped| stopped.at < 20.0));
}
