//! The journal: an append-only file of decisions, written by a thread of its own, so that a slow
//! or dead disk never holds up the control thread. What is durable is acknowledged by number.
//!
//! One file so far: it is read as a series, and never rotated.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Seek, SeekFrom, Write},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use crossbeam_channel::{Receiver, Sender, TrySendError};

use super::{Decision, StartError, handle::Message};

/// Decisions that wait for the disk at most.
const QUEUE: usize = 1024;

/// After a failed write the journal waits for this long before the next attempt.
const PAUSE: Duration = Duration::from_millis(250);

/// The control thread's end of the journal.
#[derive(Debug)]
pub(super) struct Journal {
    queue: Sender<Decision>,
    progress: Arc<Progress>,
}

#[derive(Debug)]
struct Progress {
    /// The number of the last decision on disk.
    durable: AtomicU64,
    writable: AtomicBool,
    stopping: AtomicBool,
}

/// What was found on disk.
#[derive(Debug)]
pub(super) struct Found {
    /// All decisions, in order.
    pub(super) decisions: Vec<Decision>,
    file: File,
    length: u64,
    /// Held for as long as the process lives.
    lock: File,
}

/// Takes the lock, reads what is there, and cuts a torn last line.
pub(super) fn open(state_dir: &Path) -> Result<Found, StartError> {
    let failed = |path: &Path| {
        let path = path.to_owned();
        move |source| StartError::StateDir { path, source }
    };
    let directory = state_dir.join("journal");
    fs::create_dir_all(&directory).map_err(failed(&directory))?;
    let lock_path = state_dir.join("lock");
    let lock = OpenOptions::new().create(true).truncate(false).write(true).open(&lock_path);
    let lock = lock.map_err(failed(&lock_path))?;
    match lock.try_lock() {
        Ok(()) => {}
        Err(fs::TryLockError::WouldBlock) => return Err(StartError::Locked(state_dir.to_owned())),
        Err(fs::TryLockError::Error(source)) => return Err(failed(&lock_path)(source)),
    }
    let paths = files(&directory).map_err(failed(&directory))?;
    let last = paths.last().cloned().unwrap_or_else(|| directory.join("000001.jsonl"));
    let mut decisions = Vec::new();
    let mut length = 0;
    for path in &paths {
        let text = fs::read(path).map_err(failed(path))?;
        length = read(path, &text, *path == last, &mut decisions)?;
    }
    let mut options = OpenOptions::new();
    let file =
        options.create(true).truncate(false).write(true).open(&last).map_err(failed(&last))?;
    file.set_len(length).map_err(failed(&last))?;
    // The name of a new file is durable when its directory is.
    File::open(&directory).and_then(|it| it.sync_all()).map_err(failed(&directory))?;
    Ok(Found { decisions, file, length, lock })
}

fn files(directory: &Path) -> io::Result<Vec<PathBuf>> {
    let mut paths = Vec::new();
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "jsonl") {
            paths.push(path);
        }
    }
    paths.sort();
    Ok(paths)
}

/// Reads the lines of one file; returns the length of what is good. Only the end of the last file
/// may be torn: nothing after it was acknowledged.
fn read(path: &Path, text: &[u8], last: bool, all: &mut Vec<Decision>) -> Result<u64, StartError> {
    let mut good = 0;
    for (number, line) in text.split_inclusive(|byte| *byte == b'\n').enumerate() {
        let ends = good + line.len();
        let torn = last && ends == text.len();
        match (line.last(), serde_json::from_slice(line)) {
            (Some(b'\n'), Ok(decision)) => all.push(decision),
            _ if torn => {
                tracing::warn!(path = %path.display(), line = number + 1, "journal: torn line cut");
                break;
            }
            (_, parsed) => {
                let problem =
                    parsed.err().map_or("no end of line".into(), |error| error.to_string());
                return Err(StartError::Journal {
                    path: path.to_owned(),
                    line: number + 1,
                    problem,
                });
            }
        }
        good = ends;
    }
    Ok(good as u64)
}

impl Found {
    /// Starts the thread that writes. `wake` is told whenever more is on disk.
    pub(super) fn write(self, wake: Sender<Message>) -> io::Result<(Journal, JoinHandle<()>)> {
        let (queue, decisions) = crossbeam_channel::bounded(QUEUE);
        let durable = self.decisions.last().map_or(0, |last| last.seq);
        let progress = Arc::new(Progress {
            durable: AtomicU64::new(durable),
            writable: AtomicBool::new(true),
            stopping: AtomicBool::new(false),
        });
        let writer = Writer {
            file: self.file,
            length: self.length,
            decisions,
            progress: Arc::clone(&progress),
            wake,
            _lock: self.lock,
        };
        let thread = thread::Builder::new().name("journal".into()).spawn(|| writer.run())?;
        Ok((Journal { queue, progress }, thread))
    }
}

impl Journal {
    /// Hands a decision over to be written; gives it back where the queue is full.
    pub(super) fn append(&self, decision: Decision) -> Result<(), Box<Decision>> {
        self.queue.try_send(decision).map_err(|error| match error {
            TrySendError::Full(decision) | TrySendError::Disconnected(decision) => {
                Box::new(decision)
            }
        })
    }

    /// Whether a decision would be taken now. Only one thread appends, so it still is then.
    pub(super) fn has_room(&self) -> bool {
        !self.queue.is_full()
    }

    /// The number of the last decision on disk.
    pub(super) fn durable(&self) -> u64 {
        self.progress.durable.load(Ordering::Acquire)
    }

    /// Whether the last write succeeded.
    pub(super) fn is_writable(&self) -> bool {
        self.progress.writable.load(Ordering::Relaxed)
    }
}

impl Drop for Journal {
    /// What waits is written once more; a disk that refuses is not waited for.
    fn drop(&mut self) {
        self.progress.stopping.store(true, Ordering::Relaxed);
    }
}

#[derive(Debug)]
struct Writer {
    file: File,
    /// The length of what is known to be whole.
    length: u64,
    decisions: Receiver<Decision>,
    progress: Arc<Progress>,
    wake: Sender<Message>,
    _lock: File,
}

impl Writer {
    /// Writes until the control thread lets go of its end.
    fn run(mut self) {
        let mut lines = Vec::new();
        let mut last = 0;
        while let Ok(decision) = self.decisions.recv() {
            lines.clear();
            for decision in std::iter::once(decision).chain(self.decisions.try_iter()) {
                last = decision.seq;
                match serde_json::to_writer(&mut lines, &decision) {
                    Ok(()) => lines.push(b'\n'),
                    Err(error) => tracing::error!(%error, "journal: a decision cannot be written"),
                }
            }
            if !self.persist(&lines) {
                tracing::error!("journal: the last decisions are not on disk");
                return;
            }
            self.progress.durable.store(last, Ordering::Release);
            // A full inbox wakes the control thread anyway.
            let _ = self.wake.try_send(Message::Durable);
        }
    }

    /// Tries until the lines are on disk; gives up when nobody waits for it any more.
    fn persist(&mut self, lines: &[u8]) -> bool {
        loop {
            match self.attempt(lines) {
                Ok(()) => {
                    self.length += lines.len() as u64;
                    if !self.progress.writable.swap(true, Ordering::Relaxed) {
                        tracing::info!("journal: writing again");
                    }
                    return true;
                }
                Err(error) => {
                    if self.progress.writable.swap(false, Ordering::Relaxed) {
                        tracing::error!(%error, "journal: cannot write");
                    }
                }
            }
            if self.progress.stopping.load(Ordering::Relaxed) {
                return false;
            }
            thread::sleep(PAUSE);
        }
    }

    /// Writes behind what is whole, over what an attempt before may have left.
    fn attempt(&mut self, lines: &[u8]) -> io::Result<()> {
        self.file.set_len(self.length)?;
        self.file.seek(SeekFrom::Start(self.length))?;
        self.file.write_all(lines)?;
        self.file.sync_data()
    }
}

#[cfg(test)]
mod tests;
