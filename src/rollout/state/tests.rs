//! What people may ask for in which state, and what comes of it.

use std::time::Duration;

use super::*;
use crate::rollout::{Inconclusive, JudgeSettings, Stage};

fn plan(weights_bp: &[u16]) -> Option<Arc<Plan>> {
    let stage = |weight_bp| Stage { weight_bp, at_least: Duration::ZERO, gate: false, prove: None };
    Some(Arc::new(Plan {
        name: "test".into(),
        stages: weights_bp.iter().copied().map(stage).collect(),
        judge: JudgeSettings::default(),
        inconclusive_after: Inconclusive::default(),
        manual: false,
    }))
}

fn begun() -> State {
    State::begin("1".into(), "1".into(), plan(&[100, 500, 10_000]), 0)
}

#[expect(clippy::needless_pass_by_value, reason = "calls read better")]
fn after(state: &State, action: Action) -> State {
    state.act(&action, 0).unwrap().state
}

/// The phase, the stage for people, and the weight.
fn check(state: &State, phase: Phase, stage: usize, weight_bp: u16) {
    assert_eq!((state.phase(), state.stage_of().0, state.weight_bp), (phase, stage, weight_bp));
}

#[test]
fn a_rollout_begins_at_its_first_stage() {
    check(&begun(), Phase::Holding, 1, 100);
}

#[test]
fn a_weight_set_by_hand_pauses_until_resume() {
    let set = after(&begun(), Action::SetWeight(700));
    check(&set, Phase::Paused, 1, 700);
    check(&after(&set, Action::Resume), Phase::Holding, 2, 700);
}

#[test]
fn a_rolled_back_version_must_be_retried_first() {
    let aborted = after(&begun(), Action::Abort);
    check(&aborted, Phase::RolledBack, 1, 0);
    let others = [Action::SetWeight(1), Action::Pause, Action::Promote { full: true }];
    for action in others.into_iter().chain([Action::Resume, Action::Approve, Action::Abort]) {
        assert!(aborted.act(&action, 0).is_err(), "{action:?}");
    }
    check(&after(&aborted, Action::Retry), Phase::Holding, 1, 100);
}

#[test]
fn promotion_by_hand_goes_stage_by_stage_or_all_the_way() {
    let second = after(&begun(), Action::Promote { full: false });
    check(&second, Phase::Holding, 2, 500);
    let last = after(&second, Action::Promote { full: false });
    check(&last, Phase::Promoted, 3, 10_000);
    assert!(last.act(&Action::Promote { full: false }, 0).is_err());
    check(&after(&begun(), Action::Promote { full: true }), Phase::Promoted, 3, 10_000);
}

#[test]
fn another_version_begins_again() {
    let released = after(&after(&begun(), Action::Abort), Action::Release { version: "2".into() });
    check(&released, Phase::Holding, 1, 100);
    assert_eq!((&*released.version, &*released.configured), ("2", "1"));
    assert!(begun().act(&Action::Release { version: "1".into() }, 0).is_err());
}

#[test]
fn several_canaries_must_fit_together() {
    assert!(begun().act(&Action::SetWeight(7000), 3000).is_ok());
    assert!(begun().act(&Action::SetWeight(7001), 3000).is_err());
    assert!(begun().act(&Action::Promote { full: true }, 1).is_err());
    assert!(begun().act(&Action::Promote { full: false }, 9000).is_ok());
    assert!(begun().act(&Action::Promote { full: false }, 9001).is_err());
    let waiting = State::begin("1".into(), "1".into(), plan(&[600]), 9000);
    check(&waiting, Phase::Holding, 1, 0);
    assert_eq!(waiting.find_room(9000), None);
    check(&waiting.find_room(8900).unwrap().state, Phase::Holding, 1, 600);
}

#[test]
fn an_edited_stage_takes_the_weight_along_unless_it_is_held() {
    let mut state = begun();
    assert_eq!(state.replan(plan(&[100, 900]), 0), None, "another stage was edited");
    assert_eq!(state.replan(plan(&[50, 900]), 0).unwrap().state.weight_bp, 50);
    assert_eq!(state.replan(plan(&[200, 900]), 0).unwrap().state.weight_bp, 200);
    let mut paused = after(&begun(), Action::Pause);
    assert_eq!(paused.replan(plan(&[50]), 0), None);
    let mut aborted = after(&begun(), Action::Abort);
    assert_eq!(aborted.replan(plan(&[5000]), 0), None);
}

#[test]
fn without_a_plan_only_people_move_the_weight() {
    let state = State::begin("1".into(), "1".into(), None, 0);
    check(&state, Phase::Idle, 0, 0);
    check(&after(&state, Action::SetWeight(300)), Phase::Idle, 0, 300);
    assert!(state.act(&Action::Pause, 0).is_err());
    check(&after(&state, Action::Abort), Phase::RolledBack, 0, 0);
}
