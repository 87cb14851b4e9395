//! The journal: an append-only record of what was counted and decided, written by a thread of its
//! own, so that a slow or dead disk never holds up the control thread.
//!
//! It is a series of files of JSON lines. Decisions are chained by hash, durable, and
//! acknowledged by number; blocks are only written. What blocks and snapshots contain is a matter
//! of whoever writes them.

mod disk;
mod line;
mod open;
mod read;
mod shelf;
#[cfg(test)]
mod tests;
mod writer;

pub use line::Line;
pub use read::{Chain, Place, ReadError, read_journal};

pub(super) use open::{Found, Record, open};

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use crossbeam_channel::{Sender, TrySendError};
use tokio::time::Instant;

use super::{Decision, JournalSettings, handle::Message};
use writer::Queue;

/// Entries that wait for the disk at most, and how many of them may be blocks: decisions find
/// room when blocks no longer do.
const QUEUE: usize = 4096;
const QUEUED_BLOCKS: usize = QUEUE / 4 * 3;

/// A write that takes longer is a stall.
const STALL: Duration = Duration::from_secs(1);

/// The longest time between two snapshots.
const SNAPSHOTS_EVERY: Duration = Duration::from_secs(600);

/// The control thread's end of the journal. Nothing here waits.
#[derive(Debug)]
pub(super) struct Journal<B = (), S = ()> {
    queue: Sender<Entry<B, S>>,
    shared: Arc<Shared>,
    /// Blocks that were lost since the last entry that was taken.
    gap: u64,
    lost_blocks: u64,
    /// Whether blocks were lost since the last snapshot.
    gaping: bool,
    /// Number of snapshots handed over, and when the last one was.
    snapshots: u64,
    last_snapshot: Option<Instant>,
}

/// What is handed to the journal's thread.
#[derive(Debug)]
struct Entry<B, S> {
    /// Blocks that are missing before it.
    gap: u64,
    item: Item<B, S>,
}

#[derive(Debug)]
enum Item<B, S> {
    Block(B),
    Decision(Box<Decision>),
    Snapshot(Box<S>),
}

/// The queue is full: the disk does not keep up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the journal takes nothing more right now")]
pub(super) struct Full;

/// What the journal did since the start of the process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct JournalCounts {
    /// Bytes written.
    pub bytes: u64,
    /// Blocks that found no room in the queue.
    pub lost_blocks: u64,
    /// Writes that took longer than a second.
    pub stalls: u64,
    /// Attempts to write that failed.
    pub failures: u64,
}

/// What both ends of the queue know.
#[derive(Debug)]
struct Shared {
    started: Instant,
    /// The number of the last decision on disk.
    durable: AtomicU64,
    writable: AtomicBool,
    stopping: AtomicBool,
    wants_snapshot: AtomicBool,
    /// Number of snapshots on disk.
    snapshots: AtomicU64,
    /// Since when a write is under way, in milliseconds after the start and one more; 0: none is.
    busy_since: AtomicU64,
    bytes: AtomicU64,
    stalls: AtomicU64,
    failures: AtomicU64,
    settings: Mutex<Option<JournalSettings>>,
}

impl<B, S> Journal<B, S> {
    fn new(durable: u64) -> (Self, Queue<B, S>) {
        let (queue, entries) = crossbeam_channel::bounded(QUEUE);
        let shared = Arc::new(Shared::new(durable));
        let journal = Self {
            queue,
            shared: Arc::clone(&shared),
            gap: 0,
            lost_blocks: 0,
            gaping: false,
            snapshots: 0,
            last_snapshot: None,
        };
        (journal, Queue { entries, shared })
    }

    /// Hands a block over to be written. One that finds no room is lost, and a gap is noted.
    pub(super) fn append_block(&mut self, block: B) -> Result<(), Full> {
        let taken = self.queue.len() < QUEUED_BLOCKS && self.send(Item::Block(block)).is_ok();
        if !taken {
            self.gap += 1;
            self.lost_blocks += 1;
            self.gaping = true;
            return Err(Full);
        }
        Ok(())
    }

    /// Hands a decision over to be written; gives it back where the queue is full.
    pub(super) fn append(&mut self, decision: Decision) -> Result<(), Box<Decision>> {
        self.send(Item::Decision(Box::new(decision))).map_err(|item| match item {
            Item::Decision(decision) => decision,
            Item::Block(_) | Item::Snapshot(_) => unreachable!("it is what was sent"),
        })
    }

    /// Hands the whole state over to be written.
    pub(super) fn append_snapshot(&mut self, snapshot: S) -> Result<(), Full> {
        self.send(Item::Snapshot(Box::new(snapshot))).map_err(|_| Full)?;
        self.shared.wants_snapshot.store(false, Ordering::Relaxed);
        self.snapshots += 1;
        self.last_snapshot = Some(Instant::now());
        self.gaping = false;
        Ok(())
    }

    fn send(&mut self, item: Item<B, S>) -> Result<(), Item<B, S>> {
        self.queue.try_send(Entry { gap: self.gap, item }).map_err(|error| match error {
            TrySendError::Full(entry) | TrySendError::Disconnected(entry) => entry.item,
        })?;
        self.gap = 0;
        Ok(())
    }

    /// Whether a decision would be taken now. Only one thread appends, so it still is then.
    pub(super) fn has_room(&self) -> bool {
        !self.queue.is_full()
    }

    /// Whether a snapshot should be handed over: none was yet, the last one is old, blocks were
    /// lost after it, or the file is full and the next one begins with it.
    pub(super) fn wants_snapshot(&self) -> bool {
        let under_way = self.snapshots > self.shared.snapshots.load(Ordering::Acquire);
        let due = self.last_snapshot.is_none_or(|last| last.elapsed() >= SNAPSHOTS_EVERY)
            || self.gaping
            || self.shared.wants_snapshot.load(Ordering::Relaxed);
        due && !under_way && self.has_room()
    }

    /// The number of the last decision on disk.
    pub(super) fn durable(&self) -> u64 {
        self.shared.durable.load(Ordering::Acquire)
    }

    /// Whether the last write succeeded, and none has been under way for more than a second.
    pub(super) fn is_writable(&self) -> bool {
        self.shared.writable.load(Ordering::Relaxed) && !self.shared.is_stalled()
    }

    /// What was done since the start of the process.
    pub(super) fn counts(&self) -> JournalCounts {
        JournalCounts {
            bytes: self.shared.bytes.load(Ordering::Relaxed),
            lost_blocks: self.lost_blocks,
            stalls: self.shared.stalls.load(Ordering::Relaxed),
            failures: self.shared.failures.load(Ordering::Relaxed),
        }
    }

    /// How much is kept from the next snapshot on.
    pub(super) fn keep(&self, settings: JournalSettings) {
        *self.shared.lock_settings() = Some(settings);
    }
}

impl<B, S> Drop for Journal<B, S> {
    /// What waits is written once more; a disk that refuses is not waited for.
    fn drop(&mut self) {
        self.shared.stopping.store(true, Ordering::Relaxed);
    }
}

impl Shared {
    fn new(durable: u64) -> Self {
        Self {
            started: Instant::now(),
            durable: AtomicU64::new(durable),
            writable: AtomicBool::new(true),
            stopping: AtomicBool::new(false),
            wants_snapshot: AtomicBool::new(false),
            snapshots: AtomicU64::new(0),
            busy_since: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
            stalls: AtomicU64::new(0),
            failures: AtomicU64::new(0),
            settings: Mutex::new(None),
        }
    }

    fn set_busy(&self, since: Option<Instant>) {
        let millis = |since: Instant| (since - self.started).as_millis() as u64 + 1;
        self.busy_since.store(since.map_or(0, millis), Ordering::Relaxed);
    }

    fn is_stalled(&self) -> bool {
        match self.busy_since.load(Ordering::Relaxed) {
            0 => false,
            since => self.started.elapsed() > Duration::from_millis(since - 1) + STALL,
        }
    }

    fn take_settings(&self) -> Option<JournalSettings> {
        self.lock_settings().take()
    }

    /// Never held for longer than a copy.
    fn lock_settings(&self) -> std::sync::MutexGuard<'_, Option<JournalSettings>> {
        self.settings.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}
