//! What was recorded comes out the same, and what was changed does not.

use std::{fs, path::Path, sync::Arc};

use super::*;
use crate::rollout::{
    DecisionKind, Phase, Plan, read_journal,
    recording::{Behaviour, Recording, USUAL},
    testing,
};

const BAD: Behaviour = Behaviour { failed: 0.05, slow: 3.0 };

fn plan() -> Arc<Plan> {
    testing::plan(&[500, 2_500, 5_000, 10_000], false).unwrap()
}

fn replayed(state_dir: &Path) -> Outcome {
    let mut replay = Replay::default();
    read_journal(state_dir, |place, line| replay.take(place, &line)).unwrap();
    replay.outcome
}

/// Replaces something in the journal, and leaves the chain of decisions as it is.
fn replace(state_dir: &Path, from: &str, to: &str) {
    let file = state_dir.join("journal/000001.jsonl");
    let text = fs::read_to_string(&file).unwrap();
    assert!(text.contains(from), "{from}");
    fs::write(file, text.replace(from, to)).unwrap();
}

#[test]
fn a_recorded_rollout_comes_out_the_same() {
    let state_dir = tempfile::tempdir().unwrap();
    let mut recording = Recording::begin(state_dir.path(), plan());
    recording.until(Phase::Promoted, USUAL, USUAL);
    recording.end();
    let outcome = replayed(state_dir.path());
    assert!(outcome.is_same(), "{outcome:?}");
    assert_eq!(outcome.same, 3, "three stages were entered");
    assert!(outcome.steps > 50 && outcome.inputs > 4 * outcome.steps);
}

#[test]
fn a_rollback_comes_out_the_same_after_a_snapshot_and_a_person() {
    let state_dir = tempfile::tempdir().unwrap();
    let mut recording = Recording::begin(state_dir.path(), plan());
    recording.seconds(60, USUAL, USUAL);
    recording.snapshot();
    let seen = recording.seen();
    let mut life = recording.life.clone();
    life.set_weight(1_000, true, &seen).unwrap();
    recording.decide(DecisionKind::SetWeight, "a person", "to look closer", &life);
    recording.put(life);
    recording.until(Phase::RolledBack, USUAL, BAD);
    recording.end();
    let outcome = replayed(state_dir.path());
    assert!(outcome.is_same() && outcome.same >= 1, "{outcome:?}");
    // The last file alone is enough.
    let file = state_dir.path().join("journal/000001.jsonl");
    let text = fs::read_to_string(&file).unwrap();
    let from = text.find("{\"snapshot\"").unwrap();
    fs::write(&file, &text[from..]).unwrap();
    let rest = replayed(state_dir.path());
    assert!(rest.is_same() && rest.steps < outcome.steps, "{rest:?}");
}

#[test]
fn counts_that_were_changed_afterwards_change_the_decision() {
    let state_dir = tempfile::tempdir().unwrap();
    let mut recording = Recording::begin(state_dir.path(), plan());
    recording.seconds(30, USUAL, USUAL);
    recording.until(Phase::RolledBack, USUAL, BAD);
    recording.end();
    assert!(replayed(state_dir.path()).is_same());
    replace(state_dir.path(), "\"a\":1,\"n\":50,\"x\":[3]", "\"a\":1,\"n\":50,\"x\":[0]");
    let outcome = replayed(state_dir.path());
    assert!(outcome.different > 0, "{outcome:?}");
    assert!(outcome.differences[0].contains("000001.jsonl, line "), "{outcome:?}");
}

#[test]
fn a_decision_that_nothing_asks_for_is_found_and_one_that_is_missing_too() {
    let state_dir = tempfile::tempdir().unwrap();
    let mut recording = Recording::begin(state_dir.path(), plan());
    recording.seconds(30, USUAL, USUAL);
    let mut life = recording.life.clone();
    life.abort();
    recording.decide(DecisionKind::Rollback, "haldane", "no reason at all", &life);
    recording.end();
    let outcome = replayed(state_dir.path());
    assert_eq!(outcome.different, 1, "{outcome:?}");
    assert!(outcome.differences[0].contains("nothing comes of what was seen"), "{outcome:?}");

    let mut replay = Replay::default();
    let other = tempfile::tempdir().unwrap();
    let mut recording = Recording::begin(other.path(), plan());
    recording.until(Phase::RolledBack, USUAL, BAD);
    recording.seconds(2, USUAL, BAD);
    recording.end();
    read_journal(other.path(), |place, line| {
        let is_rollback =
            matches!(&line, Line::Decision(it) if it.action == DecisionKind::Rollback);
        if !is_rollback {
            replay.take(place, &line);
        }
    })
    .unwrap();
    assert!(replay.outcome.different > 0, "{:?}", replay.outcome);
    assert!(replay.outcome.differences[0].contains("is not in the journal"));
}

#[test]
fn where_blocks_are_missing_decisions_are_untold_until_the_next_snapshot() {
    let state_dir = tempfile::tempdir().unwrap();
    let mut recording = Recording::begin(state_dir.path(), plan());
    recording.until(Phase::RolledBack, USUAL, BAD);
    recording.end();
    assert!(replayed(state_dir.path()).is_same());
    let file = state_dir.path().join("journal/000001.jsonl");
    let text = fs::read_to_string(&file).unwrap();
    let second = text.match_indices("{\"block\"").nth(20).unwrap().0;
    fs::write(&file, format!("{}{{\"gap\":3}}\n{}", &text[..second], &text[second..])).unwrap();
    let outcome = replayed(state_dir.path());
    assert!(outcome.different == 0 && outcome.untold > 0, "{outcome:?}");
    assert!(!outcome.is_same());
}
