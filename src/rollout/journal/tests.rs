//! What survives: whole lines, in order, and nothing that was torn; and what a disk may do.

mod broken;
mod disk;
mod files;

use std::{
    fs,
    path::{Path, PathBuf},
    thread::JoinHandle,
};

use crossbeam_channel::Receiver;

use super::*;
use crate::rollout::{DecisionKind, Phase, Rollout, StartError, journal::open::Found};

type TestJournal = Journal<String, Vec<u64>>;
type TestFound = Found<String, Vec<u64>>;

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

/// A journal that is being written.
struct Written {
    journal: TestJournal,
    thread: JoinHandle<()>,
    woken: Receiver<Message>,
}

impl Written {
    fn to(state_dir: &Path) -> Self {
        let (wake, woken) = crossbeam_channel::bounded(16);
        let (journal, thread) = found(state_dir).write(wake).unwrap();
        Self { journal, thread, woken }
    }

    fn decide(&mut self, seq: u64, weight_bp: u16) {
        self.journal.append(decision(seq, weight_bp)).unwrap();
    }

    /// Decides, and waits until it is on disk.
    fn decided(&mut self, seq: u64, weight_bp: u16) {
        self.decide(seq, weight_bp);
        self.wait_for(seq);
    }

    fn wait_for(&self, seq: u64) {
        while self.journal.durable() < seq {
            self.woken.recv().unwrap();
        }
    }

    fn end(self) {
        drop(self.journal);
        self.thread.join().unwrap();
    }
}

fn found(state_dir: &Path) -> TestFound {
    open(state_dir, JournalSettings::default()).unwrap()
}

/// Appends decisions and waits until they are on disk.
fn write(state_dir: &Path, decisions: &[(u64, u16)]) {
    let mut written = Written::to(state_dir);
    for (seq, weight_bp) in decisions {
        written.decided(*seq, *weight_bp);
    }
    assert!(written.journal.is_writable());
    written.end();
}

fn file(state_dir: &Path) -> PathBuf {
    state_dir.join("journal/000001.jsonl")
}

fn weights(state_dir: &Path) -> Vec<u16> {
    found(state_dir).decisions.iter().map(|decision| decision.weight_bp).collect()
}

/// Looks again and again until something is the case.
fn eventually(what: &str, mut is: impl FnMut() -> bool) {
    let until = Instant::now() + Duration::from_secs(20);
    while !is() {
        assert!(Instant::now() < until, "{what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

#[test]
fn what_was_acknowledged_is_read_again() {
    let state_dir = tempfile::tempdir().unwrap();
    let path = state_dir.path().join("made/if/missing");
    write(&path, &[(1, 100), (2, 200)]);
    write(&path, &[(3, 300)]);
    assert_eq!(found(&path).decisions[1], decision(2, 200));
    assert_eq!(weights(&path), [100, 200, 300]);
}

#[test]
fn a_restart_finds_the_last_snapshot_and_what_follows_it() {
    let state_dir = tempfile::tempdir().unwrap();
    let mut written = Written::to(state_dir.path());
    assert!(written.journal.wants_snapshot(), "the first is wanted at once");
    written.journal.append_snapshot(vec![1]).unwrap();
    assert!(!written.journal.wants_snapshot());
    written.journal.append_block("before".into()).unwrap();
    written.decide(1, 100);
    written.journal.append_snapshot(vec![1, 2]).unwrap();
    written.journal.append_block("after".into()).unwrap();
    written.decided(2, 200);
    written.end();
    let found = found(state_dir.path());
    assert_eq!(found.snapshot, Some(vec![1, 2]));
    let after = [Record::Block("after".into()), Record::Decision(Box::new(decision(2, 200)))];
    assert_eq!(found.records, after);
    assert_eq!(found.decisions.len(), 2);
}

#[test]
fn lines_of_before_there_were_kinds_are_read_and_continued() {
    let state_dir = tempfile::tempdir().unwrap();
    fs::create_dir_all(state_dir.path().join("journal")).unwrap();
    let line = |seq| serde_json::to_string(&decision(seq, 100)).unwrap() + "\n";
    fs::write(file(state_dir.path()), line(1) + &line(2)).unwrap();
    write(state_dir.path(), &[(3, 300)]);
    assert_eq!(weights(state_dir.path()), [100, 100, 300]);
    let text = fs::read_to_string(file(state_dir.path())).unwrap();
    fs::write(file(state_dir.path()), text.replacen("\"weight_bp\":100", "\"weight_bp\":900", 1))
        .unwrap();
    let error = open::<String, Vec<u64>>(state_dir.path(), JournalSettings::default());
    assert!(matches!(error, Err(StartError::Journal { line: 3, .. })), "they are chained too");
}

#[test]
fn a_state_of_another_version_is_left_out() {
    let state_dir = tempfile::tempdir().unwrap();
    let mut written = Written::to(state_dir.path());
    written.decide(1, 100);
    written.journal.append_snapshot(vec![1]).unwrap();
    written.journal.append_block("counts".into()).unwrap();
    written.decided(2, 200);
    written.end();
    let found = open::<u64, String>(state_dir.path(), JournalSettings::default()).unwrap();
    assert_eq!(found.snapshot, None);
    assert_eq!(found.records, [Record::Gap, Record::Decision(Box::new(decision(2, 200)))]);
    assert_eq!(found.decisions.len(), 2, "the weights are known all the same");
}

#[test]
fn two_processes_do_not_share_a_state_directory() {
    let state_dir = tempfile::tempdir().unwrap();
    let held = found(state_dir.path());
    let other = || open::<String, Vec<u64>>(state_dir.path(), JournalSettings::default());
    assert!(matches!(other(), Err(StartError::Locked(_))));
    drop(held);
    let written = Written::to(state_dir.path());
    assert!(matches!(other(), Err(StartError::Locked(_))), "whoever writes holds it");
    written.end();
    assert!(other().is_ok());
}

#[test]
fn a_journal_can_be_read_while_it_is_written() {
    let state_dir = tempfile::tempdir().unwrap();
    let mut written = Written::to(state_dir.path());
    written.journal.append_snapshot(vec![7]).unwrap();
    written.decided(1, 100);
    let mut seen = Vec::new();
    let chain = read_journal(state_dir.path(), |place, line| {
        seen.push((place.line, matches!(line, Line::Decision(_))));
    });
    assert_eq!(chain.unwrap().hash().len(), 64);
    assert_eq!(seen, [(1, false), (2, true)]);
    written.end();
}
