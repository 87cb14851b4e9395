//! Files: when the next one begins, what is deleted, and what is never deleted.

use std::time::SystemTime;

use super::*;
use crate::rollout::journal::shelf::Shelf;

const SMALL: JournalSettings =
    JournalSettings { keep: Duration::from_secs(30 * 24 * 3600), max_size: 1 << 20 };

fn numbers(state_dir: &Path) -> Vec<u64> {
    let files = read::files(&state_dir.join("journal")).unwrap();
    files.iter().map(|path| read::number(path).unwrap()).collect()
}

/// Writes blocks, with decisions and with snapshots whenever one is wanted.
fn fill(state_dir: &Path, settings: JournalSettings, blocks: u64) -> u64 {
    let (wake, woken) = crossbeam_channel::bounded(16);
    let found = open::<String, Vec<u64>>(state_dir, settings).unwrap();
    let (journal, thread) = found.write(wake).unwrap();
    let mut written = Written { journal, thread, woken };
    for number in 1..=blocks {
        if written.journal.wants_snapshot() {
            written.journal.append_snapshot(vec![number]).unwrap();
        }
        written.journal.append_block("x".repeat(4096)).unwrap();
        written.decided(number, number as u16);
    }
    let bytes = written.journal.counts().bytes;
    written.end();
    bytes
}

#[test]
fn old_files_are_deleted_and_the_last_state_never() {
    let state_dir = tempfile::tempdir().unwrap();
    let bytes = fill(state_dir.path(), SMALL, 600);
    assert!(bytes > 2 << 20, "{bytes}");
    let numbers = numbers(state_dir.path());
    assert!(numbers[0] > 1 && numbers.len() > 8, "{numbers:?}");
    let size = |path: &PathBuf| fs::metadata(path).unwrap().len();
    let files = read::files(&state_dir.path().join("journal")).unwrap();
    let kept: u64 = files.iter().map(size).sum();
    assert!(kept <= SMALL.max_size + (128 << 10), "{kept}");
    for path in &files {
        let text = fs::read_to_string(path).unwrap();
        assert!(text.starts_with("{\"snapshot\":"), "every file begins with a snapshot");
    }
    let found = found(state_dir.path());
    assert_eq!(found.decisions.last().unwrap().seq, 600);
    let first = found.snapshot.unwrap()[0];
    let decided = found.records.iter().filter_map(|record| match record {
        Record::Decision(decision) => Some(decision.seq),
        Record::Block(_) => None,
        Record::Gap => panic!("nothing is missing"),
    });
    assert_eq!(decided.collect::<Vec<_>>(), (first..=600).collect::<Vec<_>>());
}

#[test]
fn nothing_is_deleted_before_the_next_snapshot_is_on_disk() {
    let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000);
    let mut shelf = Shelf::new("somewhere".into(), &[], 0, SMALL);
    assert!(!shelf.is_full(now));
    shelf.length = SMALL.max_size * 2;
    assert!(shelf.is_full(now), "a snapshot begins the next file");
    assert_eq!(shelf.take_stale(now), None, "the file in use stays, however large");
    shelf.turn(100, now);
    assert_eq!(shelf.take_stale(now), Some("somewhere/000001.jsonl".into()));
    assert_eq!(shelf.take_stale(now), None);
    assert_eq!(shelf.path, PathBuf::from("somewhere/000002.jsonl"));
}

#[test]
fn files_are_kept_for_as_long_as_was_asked() {
    let day = |days: u64| SystemTime::UNIX_EPOCH + Duration::from_secs(days * 24 * 3600);
    let mut shelf = Shelf::new("somewhere".into(), &[], 0, SMALL);
    shelf.turn(10, day(1));
    shelf.length = 10;
    assert!(!shelf.is_full(day(2)) && shelf.is_full(day(4)), "an old file is full too");
    shelf.turn(10, day(4));
    assert_eq!(shelf.take_stale(day(31)), None);
    assert_eq!(shelf.take_stale(day(32)), Some("somewhere/000001.jsonl".into()));
    assert_eq!(shelf.take_stale(day(32)), None);
    shelf.set(JournalSettings { keep: Duration::from_secs(3600), ..SMALL });
    assert_eq!(shelf.take_stale(day(32)), Some("somewhere/000002.jsonl".into()));
}

#[test]
fn a_file_that_was_begun_and_left_empty_is_gone_on_with() {
    let state_dir = tempfile::tempdir().unwrap();
    write(state_dir.path(), &[(1, 100)]);
    fs::write(state_dir.path().join("journal/000002.jsonl"), "{\"snapshot\":[1],\"a").unwrap();
    write(state_dir.path(), &[(2, 200)]);
    assert_eq!(weights(state_dir.path()), [100, 200]);
    assert_eq!(numbers(state_dir.path()), [1, 2]);
}
