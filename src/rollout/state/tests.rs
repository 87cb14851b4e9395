//! What people may ask for in which state, and what comes of it.

use std::time::Duration;

use super::*;
use crate::rollout::{Change, testing::plan};

fn begun() -> State {
    fresh(&[100, 500, 10_000])
}

fn fresh(stages: &[u16]) -> State {
    State::blank("1".into(), plan(stages, false), None).begin(0)
}

fn beside(others_bp: u16) -> Seen {
    Seen::nothing(Duration::from_secs(60), others_bp)
}

#[expect(clippy::needless_pass_by_value, reason = "calls read better")]
fn after(state: &State, action: Action) -> State {
    state.act(&action, &beside(0)).unwrap().state
}

/// The phase, the stage for people, and the weight.
#[track_caller]
fn check(state: &State, phase: Phase, stage: usize, weight_bp: u16) {
    assert_eq!((state.phase(), state.stage_of().0, state.weight_bp()), (phase, stage, weight_bp));
}

#[test]
fn a_rollout_begins_at_its_first_stage() {
    check(&begun(), Phase::Progressing, 1, 100);
}

#[test]
fn a_weight_set_by_hand_pauses_until_resume() {
    let set = after(&begun(), Action::SetWeight(700));
    check(&set, Phase::Paused, 1, 700);
    check(&after(&set, Action::Resume), Phase::Progressing, 2, 700);
}

#[test]
fn a_rolled_back_version_must_be_retried_first() {
    let aborted = after(&begun(), Action::Abort);
    check(&aborted, Phase::RolledBack, 1, 0);
    let others = [Action::SetWeight(1), Action::Pause, Action::Promote { full: true }];
    for action in others.into_iter().chain([Action::Resume, Action::Approve, Action::Abort]) {
        let refused = aborted.act(&action, &beside(0)).unwrap_err();
        assert!(refused.contains("version 1 was rolled back"), "{action:?}: {refused}");
    }
    check(&after(&aborted, Action::Retry), Phase::Progressing, 1, 100);
}

#[test]
fn promotion_by_hand_goes_stage_by_stage_or_all_the_way() {
    let second = after(&begun(), Action::Promote { full: false });
    check(&second, Phase::Progressing, 2, 500);
    let last = after(&second, Action::Promote { full: false });
    check(&last, Phase::Promoted, 3, 10_000);
    assert!(last.act(&Action::Promote { full: false }, &beside(0)).is_err());
    check(&after(&begun(), Action::Promote { full: true }), Phase::Promoted, 3, 10_000);
}

#[test]
fn another_version_begins_again() {
    let released = after(&after(&begun(), Action::Abort), Action::Release { version: "2".into() });
    check(&released, Phase::Progressing, 1, 100);
    assert_eq!((&*released.version, &*released.configured), ("2", "1"));
    assert!(begun().act(&Action::Release { version: "1".into() }, &beside(0)).is_err());
}

#[test]
fn several_canaries_must_fit_together() {
    assert!(begun().act(&Action::SetWeight(7000), &beside(3000)).is_ok());
    assert!(begun().act(&Action::SetWeight(7001), &beside(3000)).is_err());
    assert!(begun().act(&Action::Promote { full: true }, &beside(1)).is_err());
    assert!(begun().act(&Action::Promote { full: false }, &beside(9000)).is_ok());
    assert!(begun().act(&Action::Promote { full: false }, &beside(9001)).is_err());
    let waiting = State::blank("1".into(), plan(&[600], true), None).begin(9000);
    check(&waiting, Phase::Holding, 0, 0);
    let plan = waiting.plan.as_deref().unwrap();
    let step = |others_bp| waiting.life.step(plan, &beside(others_bp));
    assert_eq!(step(9000).change, None);
    let entered = step(8900);
    assert_eq!((entered.rollout.weight_bp(), entered.change), (600, Some(Change::Entered)));
}

#[test]
fn an_edited_stage_takes_the_weight_along_unless_it_is_held() {
    let replan = |state: &mut State, stages: &[u16]| {
        state.replan(plan(stages, false), &beside(0)).map(|turn| turn.state.weight_bp())
    };
    let mut state = begun();
    assert_eq!(replan(&mut state, &[100, 900]), None, "another stage was edited");
    assert_eq!(replan(&mut state, &[50, 900]), Some(50));
    assert_eq!(replan(&mut state, &[200, 900]), Some(200));
    let mut paused = after(&begun(), Action::Pause);
    assert_eq!(replan(&mut paused, &[50]), None);
    let mut aborted = after(&begun(), Action::Abort);
    assert_eq!(replan(&mut aborted, &[5000]), None);
    let mut by_hand = after(&after(&begun(), Action::SetWeight(700)), Action::Resume);
    assert_eq!(replan(&mut by_hand, &[100, 500, 10_000]), None, "nothing was edited");
}

#[test]
fn without_a_plan_only_people_move_the_weight() {
    let state = State::blank("1".into(), None, None).begin(0);
    check(&state, Phase::Idle, 0, 0);
    check(&after(&state, Action::SetWeight(300)), Phase::Idle, 0, 300);
    assert!(state.act(&Action::Pause, &beside(0)).is_err());
    check(&after(&state, Action::Abort), Phase::RolledBack, 0, 0);
}
