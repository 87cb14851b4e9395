//! A disk that is full, broken, read-only or slow: nothing waits for it, nothing is torn, and
//! afterwards everything goes on.

use std::io;

use super::*;
use crate::rollout::journal::disk::{Disk, Files, Spot};

/// What the disk does to a write.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Fault {
    /// Part of it gets there.
    Full,
    /// Nothing gets there.
    ReadOnly,
    /// All of it gets there, but is not durable.
    NotDurable,
    /// It takes until the fault is over.
    Stall,
}

/// A disk with a fault that a test puts in and takes away.
#[derive(Clone, Default)]
struct Faulty {
    fault: Arc<Mutex<Option<Fault>>>,
    files: Arc<Mutex<Files>>,
}

impl Faulty {
    fn set(&self, fault: Option<Fault>) {
        *self.fault.lock().unwrap() = fault;
    }

    fn fault(&self) -> Option<Fault> {
        *self.fault.lock().unwrap()
    }
}

impl Disk for Faulty {
    fn write(&mut self, spot: Spot<'_>, lines: &[u8], sync: bool) -> io::Result<()> {
        let mut files = self.files.lock().unwrap();
        match self.fault() {
            None => files.write(spot, lines, sync),
            Some(Fault::Full) => {
                files.write(spot, &lines[..lines.len() / 2], sync)?;
                *files = Files::default();
                Err(io::ErrorKind::StorageFull.into())
            }
            Some(Fault::ReadOnly) => Err(io::ErrorKind::ReadOnlyFilesystem.into()),
            Some(Fault::NotDurable) => {
                files.write(spot, lines, false)?;
                *files = Files::default();
                Err(io::Error::from_raw_os_error(5))
            }
            Some(Fault::Stall) => {
                while self.fault() == Some(Fault::Stall) {
                    std::thread::yield_now();
                }
                files.write(spot, lines, sync)
            }
        }
    }

    fn remove(&mut self, path: &Path) -> io::Result<()> {
        self.files.lock().unwrap().remove(path)
    }
}

fn on(disk: &Faulty, state_dir: &Path) -> Written {
    let (wake, woken) = crossbeam_channel::bounded(16);
    let (journal, thread) = found(state_dir).write_to(disk.clone(), wake).unwrap();
    Written { journal, thread, woken }
}

fn check(fault: Fault) {
    let state_dir = tempfile::tempdir().unwrap();
    let disk = Faulty::default();
    let mut written = on(&disk, state_dir.path());
    written.journal.append_snapshot(vec![1]).unwrap();
    written.decided(1, 100);
    eventually("nothing is wanted", || {
        written.journal.is_writable() && !written.journal.wants_snapshot()
    });
    disk.set(Some(fault));
    written.decide(2, 200);
    eventually("the fault is seen", || !written.journal.is_writable());
    written.journal.append_block("counts".into()).unwrap();
    written.decide(3, 300);
    assert_eq!(written.journal.durable(), 1, "{fault:?}");
    disk.set(None);
    written.wait_for(3);
    eventually("it is writable again", || written.journal.is_writable());
    assert!(written.journal.counts().failures + written.journal.counts().stalls > 0);
    written.end();
    let found = found(state_dir.path());
    let decided: Vec<u64> = found.decisions.iter().map(|decision| decision.seq).collect();
    assert_eq!(decided, [1, 2, 3], "{fault:?}");
    assert!(!found.records.contains(&Record::Gap), "nothing was torn or lost");
}

#[test]
fn a_full_disk_is_waited_for() {
    check(Fault::Full);
}

#[test]
fn a_read_only_disk_is_waited_for() {
    check(Fault::ReadOnly);
}

#[test]
fn what_could_not_be_made_durable_is_written_again() {
    check(Fault::NotDurable);
}

#[test]
fn a_write_that_takes_long_is_seen_while_it_lasts() {
    check(Fault::Stall);
}

#[test]
fn what_a_crash_on_a_full_disk_leaves_is_cut() {
    let state_dir = tempfile::tempdir().unwrap();
    let disk = Faulty::default();
    let mut written = on(&disk, state_dir.path());
    written.decided(1, 100);
    disk.set(Some(Fault::Full));
    written.decide(2, 200);
    eventually("the fault is seen", || !written.journal.is_writable());
    // A disk that refuses is not waited for.
    written.end();
    assert_eq!(weights(state_dir.path()), [100]);
}

#[test]
fn a_failure_asks_for_a_snapshot_because_what_was_not_synced_may_be_gone() {
    let state_dir = tempfile::tempdir().unwrap();
    let disk = Faulty::default();
    let mut written = on(&disk, state_dir.path());
    written.journal.append_snapshot(vec![1]).unwrap();
    written.decided(1, 100);
    eventually("no snapshot is wanted", || !written.journal.wants_snapshot());
    disk.set(Some(Fault::NotDurable));
    written.decide(2, 200);
    eventually("a snapshot is wanted", || written.journal.wants_snapshot());
    disk.set(None);
    written.wait_for(2);
    written.end();
}

#[test]
fn lost_blocks_leave_a_gap_and_a_snapshot_heals_it() {
    let state_dir = tempfile::tempdir().unwrap();
    let disk = Faulty::default();
    let mut written = on(&disk, state_dir.path());
    written.journal.append_snapshot(vec![1]).unwrap();
    written.decided(1, 100);
    disk.set(Some(Fault::ReadOnly));
    written.journal.append_block("held".into()).unwrap();
    // From now on the writer takes nothing more.
    eventually("the fault is seen", || !written.journal.is_writable());
    let mut taken = 0;
    while written.journal.append_block(format!("{taken}")).is_ok() {
        taken += 1;
    }
    assert_eq!(written.journal.append_block("lost".into()), Err(Full));
    assert!(taken >= QUEUED_BLOCKS && written.journal.has_room(), "decisions find room");
    eventually("a snapshot is wanted", || written.journal.wants_snapshot());
    written.journal.append_snapshot(vec![2]).unwrap();
    assert!(!written.journal.wants_snapshot(), "one is on its way");
    written.decide(2, 200);
    disk.set(None);
    written.wait_for(2);
    assert_eq!(written.journal.counts().lost_blocks, 2);
    assert!(!written.journal.wants_snapshot());
    written.end();
    let mut kinds = Vec::new();
    let visit = |_: &Place, line: Line<'_>| match line {
        Line::Block(_) => {}
        Line::Gap(lost) => kinds.push(format!("gap {lost}")),
        Line::Snapshot(state) => kinds.push(format!("snapshot {state}")),
        Line::Decision(decision) => kinds.push(format!("decision {}", decision.seq)),
        Line::Damaged => kinds.push("damaged".into()),
    };
    read_journal(state_dir.path(), visit).unwrap();
    let expected = ["snapshot [1]", "decision 1", "gap 2", "snapshot [2]", "decision 2"];
    assert_eq!(kinds, expected);
    let found = found(state_dir.path());
    assert_eq!(found.snapshot, Some(vec![2]));
    assert_eq!(found.records, [Record::Decision(Box::new(decision(2, 200)))]);
}

#[test]
fn decisions_are_given_back_when_even_their_room_is_taken() {
    let state_dir = tempfile::tempdir().unwrap();
    let disk = Faulty::default();
    let mut written = on(&disk, state_dir.path());
    disk.set(Some(Fault::ReadOnly));
    let mut seq = 0;
    loop {
        seq += 1;
        if let Err(refused) = written.journal.append(decision(seq, 1)) {
            assert_eq!(refused.seq, seq);
            break;
        }
    }
    assert!(!written.journal.has_room() && !written.journal.wants_snapshot());
    disk.set(None);
    written.wait_for(seq - 1);
    written.end();
    assert_eq!(found(state_dir.path()).decisions.len() as u64, seq - 1);
}

#[test]
fn a_deleted_file_is_noticed() {
    let state_dir = tempfile::tempdir().unwrap();
    let mut written = Written::to(state_dir.path());
    written.decided(1, 100);
    fs::remove_file(file(state_dir.path())).unwrap();
    written.decide(2, 200);
    eventually("it is noticed", || !written.journal.is_writable());
    assert_eq!(written.journal.durable(), 1);
    written.end();
}

#[cfg(target_os = "linux")]
#[test]
fn descriptors_do_not_leak_while_a_disk_fails() {
    let state_dir = tempfile::tempdir().unwrap();
    let open_in = |directory: &Path| {
        let all = fs::read_dir("/proc/self/fd").unwrap();
        let target = |entry: io::Result<fs::DirEntry>| fs::read_link(entry.ok()?.path()).ok();
        all.filter_map(target).filter(|path| path.starts_with(directory)).count()
    };
    let mut files = Files::default();
    let path = state_dir.path().join("000001.jsonl");
    let spot = |length| Spot { path: &path, length, new: length == 0 };
    files.write(spot(0), b"line\n", true).unwrap();
    assert_eq!(open_in(state_dir.path()), 1);
    fs::remove_file(&path).unwrap();
    for _ in 0..100 {
        assert!(files.write(spot(5), b"line\n", true).is_err(), "it is gone");
    }
    assert_eq!(open_in(state_dir.path()), 0);
    files.write(spot(0), b"again\n", true).unwrap();
    assert_eq!(fs::read(&path).unwrap(), b"again\n");
    assert_eq!(open_in(state_dir.path()), 1);
}
