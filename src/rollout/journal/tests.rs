//! What survives: whole lines, in order, and nothing that was torn.

use super::*;
use crate::rollout::Rollout;
use crate::rollout::{DecisionKind, Phase};

fn decision(seq: u64, weight_bp: u16) -> Decision {
    Decision {
        seq,
        time: "2026-01-01T00:00:00Z".into(),
        action: DecisionKind::SetWeight,
        service: "shop".into(),
        canary: "v2".into(),
        version: "1".into(),
        configured: "1".into(),
        phase: Phase::Paused,
        stage: 1,
        from_bp: 0,
        weight_bp,
        actor: "a person".into(),
        reason: "a \"reason\"\nof two lines".into(),
        run: 1,
        at_ms: 0,
        evidence: None,
        life: Rollout::unborn(),
        config: "hash".into(),
    }
}

/// Appends decisions and waits until they are on disk.
fn write(state_dir: &Path, decisions: &[Decision]) {
    let (wake, woken) = crossbeam_channel::bounded(16);
    let (journal, thread) = open(state_dir).unwrap().write(wake).unwrap();
    for decision in decisions {
        journal.append(decision.clone()).unwrap();
    }
    while journal.durable() < decisions.last().unwrap().seq {
        woken.recv().unwrap();
    }
    assert!(journal.is_writable());
    drop(journal);
    thread.join().unwrap();
}

fn file(state_dir: &Path) -> PathBuf {
    state_dir.join("journal/000001.jsonl")
}

fn weights(state_dir: &Path) -> Vec<u16> {
    open(state_dir).unwrap().decisions.iter().map(|decision| decision.weight_bp).collect()
}

#[test]
fn what_was_acknowledged_is_read_again() {
    let state_dir = tempfile::tempdir().unwrap();
    let path = state_dir.path().join("made/if/missing");
    write(&path, &[decision(1, 100), decision(2, 200)]);
    write(&path, &[decision(3, 300)]);
    assert_eq!(open(&path).unwrap().decisions[1], decision(2, 200));
    assert_eq!(weights(&path), [100, 200, 300]);
}

#[test]
fn a_torn_last_line_is_cut_at_every_byte() {
    let state_dir = tempfile::tempdir().unwrap();
    write(state_dir.path(), &[decision(1, 100), decision(2, 200)]);
    let whole = fs::read(file(state_dir.path())).unwrap();
    let first = whole.iter().position(|byte| *byte == b'\n').unwrap() + 1;
    for length in first..whole.len() {
        fs::write(file(state_dir.path()), &whole[..length]).unwrap();
        assert_eq!(weights(state_dir.path()), [100], "{length} bytes");
        assert_eq!(fs::metadata(file(state_dir.path())).unwrap().len(), first as u64);
    }
    write(state_dir.path(), &[decision(2, 250)]);
    assert_eq!(weights(state_dir.path()), [100, 250]);
}

#[test]
fn a_broken_line_in_the_middle_is_an_error_with_its_place() {
    let state_dir = tempfile::tempdir().unwrap();
    write(state_dir.path(), &[decision(1, 100)]);
    let mut text = b"{}\n".to_vec();
    text.extend(fs::read(file(state_dir.path())).unwrap());
    fs::write(file(state_dir.path()), text).unwrap();
    let error = open(state_dir.path()).unwrap_err();
    assert!(matches!(error, StartError::Journal { line: 1, .. }), "{error}");
}

#[test]
fn two_processes_do_not_share_a_state_directory() {
    let state_dir = tempfile::tempdir().unwrap();
    let held = open(state_dir.path()).unwrap();
    assert!(matches!(open(state_dir.path()), Err(StartError::Locked(_))));
    drop(held);
    assert!(open(state_dir.path()).is_ok());
}
