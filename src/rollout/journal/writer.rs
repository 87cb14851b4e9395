//! The journal's thread: takes entries in order, writes them, and says how far it got. It waits
//! for the disk so that nobody else has to.

use std::{
    fs::File,
    io,
    sync::{Arc, atomic::Ordering},
    thread,
    time::{Duration, SystemTime},
};

use crossbeam_channel::{Receiver, Sender};
use serde::Serialize;
use tokio::time::Instant;

use super::{
    Entry, Item, Message, STALL, Shared,
    disk::{Disk, Spot},
    line,
    open::Ground,
    shelf::Shelf,
};

/// After a failed write the journal waits for this long before the next attempt.
const PAUSE: Duration = Duration::from_millis(250);

/// Bytes that go to the disk at once, about.
const BATCH_BYTES: usize = 1 << 20;

/// The thread's end of the queue.
pub(super) struct Queue<B, S> {
    pub(super) entries: Receiver<Entry<B, S>>,
    pub(super) shared: Arc<Shared>,
}

pub(super) struct Writer<B, S, D> {
    disk: D,
    shelf: Shelf,
    queue: Queue<B, S>,
    wake: Sender<Message>,
    /// The hash of the last decision, and its number.
    hash: String,
    seq: u64,
    _lock: File,
}

/// What goes to the disk together.
#[derive(Debug, Default)]
struct Batch {
    lines: Vec<u8>,
    decided: bool,
}

impl<B: Serialize, S: Serialize, D: Disk> Writer<B, S, D> {
    pub(super) fn new(disk: D, ground: Ground, queue: Queue<B, S>, wake: Sender<Message>) -> Self {
        Self {
            disk,
            shelf: ground.shelf,
            queue,
            wake,
            hash: ground.chain.hash().to_owned(),
            seq: ground.chain.seq,
            _lock: ground.lock,
        }
    }

    /// Writes until the control thread lets go of its end.
    pub(super) fn run(mut self) {
        let mut held_over = None;
        while let Some(entry) = held_over.take().or_else(|| self.queue.entries.recv().ok()) {
            let written = match entry {
                Entry { gap, item: Item::Snapshot(snapshot) } => self.snapshot(gap, &snapshot),
                entry => {
                    let (batch, next) = self.gather(entry);
                    held_over = next;
                    self.append(&batch)
                }
            };
            if !written {
                tracing::error!("journal: the last decisions are not on disk");
                return;
            }
        }
    }

    /// Takes what waits, up to a snapshot: that goes alone, after everything before it is durable.
    fn gather(&mut self, first: Entry<B, S>) -> (Batch, Option<Entry<B, S>>) {
        let mut batch = Batch::default();
        let before = self.seq;
        let mut next = Some(first);
        while let Some(entry) = next.take() {
            if matches!(entry.item, Item::Snapshot(_)) || batch.lines.len() > BATCH_BYTES {
                return (batch, Some(entry));
            }
            self.put(entry, before, &mut batch);
            next = self.queue.entries.try_recv().ok();
        }
        (batch, None)
    }

    fn put(&mut self, entry: Entry<B, S>, before: u64, batch: &mut Batch) {
        let lines = &mut batch.lines;
        if entry.gap > 0 {
            line::gap(lines, entry.gap);
        }
        let put = match entry.item {
            Item::Block(block) => line::block(lines, &block),
            Item::Decision(decision) => {
                batch.decided = true;
                let written = line::decision(lines, &decision, before + 1, &self.hash);
                written.map(|hash| (self.hash, self.seq) = (hash, decision.seq))
            }
            Item::Snapshot(_) => Ok(()),
        };
        if let Err(error) = put {
            tracing::error!(%error, "journal: something cannot be written down");
            line::gap(lines, 1);
        }
    }

    fn append(&mut self, batch: &Batch) -> bool {
        let path = self.shelf.path.clone();
        let spot = Spot { path: &path, length: self.shelf.length, new: self.shelf.length == 0 };
        if !self.persist(spot, &batch.lines, batch.decided) {
            return false;
        }
        self.shelf.length += batch.lines.len() as u64;
        if self.shelf.is_full(SystemTime::now()) {
            self.queue.shared.wants_snapshot.store(true, Ordering::Relaxed);
        }
        if batch.decided {
            self.queue.shared.durable.store(self.seq, Ordering::Release);
            // A full inbox wakes the control thread anyway.
            let _ = self.wake.try_send(Message::Durable);
        }
        true
    }

    /// Writes a snapshot; where the file is full it begins the next one.
    fn snapshot(&mut self, gap: u64, snapshot: &S) -> bool {
        let now = SystemTime::now();
        let at = humantime::format_rfc3339_millis(now).to_string();
        let mut lines = Vec::new();
        if gap > 0 {
            line::gap(&mut lines, gap);
        }
        match line::snapshot(snapshot, &at, self.seq, &self.hash) {
            Ok(line) => lines.extend(line),
            Err(error) => tracing::error!(%error, "journal: the state cannot be written down"),
        }
        let turns = self.shelf.is_full(now);
        let path = if turns { self.shelf.next_path() } else { self.shelf.path.clone() };
        let length = if turns { 0 } else { self.shelf.length };
        if !self.persist(Spot { path: &path, length, new: length == 0 }, &lines, true) {
            return false;
        }
        if turns {
            self.shelf.turn(lines.len() as u64, now);
        } else {
            self.shelf.length += lines.len() as u64;
        }
        self.queue.shared.snapshots.fetch_add(1, Ordering::Release);
        self.prune(now);
        true
    }

    /// Deletes what is not kept any longer.
    fn prune(&mut self, now: SystemTime) {
        if let Some(settings) = self.queue.shared.take_settings() {
            self.shelf.set(settings);
        }
        while let Some(path) = self.shelf.take_stale(now) {
            match self.disk.remove(&path) {
                Ok(()) => tracing::info!(path = %path.display(), "journal: old file deleted"),
                Err(error) => {
                    tracing::warn!(%error, path = %path.display(), "journal: an old file stays");
                }
            }
        }
    }

    /// Tries until the lines are written; gives up when nobody waits for it any more.
    fn persist(&mut self, spot: Spot<'_>, lines: &[u8], sync: bool) -> bool {
        loop {
            match self.attempt(spot, lines, sync) {
                Ok(()) => {
                    let shared = &self.queue.shared;
                    shared.bytes.fetch_add(lines.len() as u64, Ordering::Relaxed);
                    if !shared.writable.swap(true, Ordering::Relaxed) {
                        tracing::info!("journal: writing again");
                    }
                    return true;
                }
                Err(error) => self.failed(&error),
            }
            if self.queue.shared.stopping.load(Ordering::Relaxed) {
                return false;
            }
            thread::sleep(PAUSE);
        }
    }

    fn attempt(&mut self, spot: Spot<'_>, lines: &[u8], sync: bool) -> io::Result<()> {
        let began = Instant::now();
        self.queue.shared.set_busy(Some(began));
        let result = self.disk.write(spot, lines, sync);
        self.queue.shared.set_busy(None);
        if began.elapsed() > STALL {
            self.queue.shared.stalls.fetch_add(1, Ordering::Relaxed);
        }
        result
    }

    fn failed(&self, error: &io::Error) {
        let shared = &self.queue.shared;
        shared.failures.fetch_add(1, Ordering::Relaxed);
        // What was written before, and not synced, may be gone with it.
        shared.wants_snapshot.store(true, Ordering::Relaxed);
        if shared.writable.swap(false, Ordering::Relaxed) {
            tracing::error!(%error, "journal: cannot write");
        }
    }
}
