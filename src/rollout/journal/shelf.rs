//! The files of a journal: which one is written, when the next one begins, and which old ones may
//! go. Pure but for a look at the files that are there when it is made.

use std::{
    fs,
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use super::read::number;
use crate::rollout::JournalSettings;

/// A journal is kept in about this many files: only whole ones are deleted.
const FILES: u32 = 16;

/// Bounds of a file's size in bytes and of its age. One file must be read before the proxy starts.
const SIZES: [u64; 2] = [64 * 1024, 64 * 1024 * 1024];
const LEAST_AGE: Duration = Duration::from_secs(3600);

/// The files.
#[derive(Debug)]
pub(super) struct Shelf {
    directory: PathBuf,
    settings: JournalSettings,
    /// Files before the one that is written, oldest first.
    closed: Vec<Closed>,
    number: u64,
    /// The file that is written.
    pub(super) path: PathBuf,
    /// The length of what is whole in it.
    pub(super) length: u64,
    began: SystemTime,
}

#[derive(Debug)]
struct Closed {
    path: PathBuf,
    bytes: u64,
    ended: SystemTime,
}

impl Shelf {
    /// What is there: the last file is gone on with, of which `length` bytes are whole.
    pub(super) fn new(
        directory: PathBuf,
        paths: &[PathBuf],
        length: u64,
        settings: JournalSettings,
    ) -> Self {
        let (last, before) = match paths.split_last() {
            Some((last, before)) => (Some(last), before),
            None => (None, paths),
        };
        let closed = |path: &PathBuf| {
            let metadata = fs::metadata(path).ok();
            let ended = metadata.as_ref().and_then(|it| it.modified().ok());
            Closed {
                path: path.clone(),
                bytes: metadata.map_or(0, |it| it.len()),
                ended: ended.unwrap_or(SystemTime::UNIX_EPOCH),
            }
        };
        let number = last.and_then(|path| number(path)).unwrap_or(1);
        // A file that was begun before is at least as old as the end of the one before it.
        let closed: Vec<Closed> = before.iter().map(closed).collect();
        let began = last.and_then(|path| fs::metadata(path).and_then(|it| it.created()).ok());
        Self {
            path: last.cloned().unwrap_or_else(|| file(&directory, number)),
            directory,
            settings,
            closed,
            number,
            length,
            began: began.unwrap_or_else(SystemTime::now),
        }
    }

    /// The size at which a file is full, in bytes.
    pub(super) fn full_at(&self) -> u64 {
        (self.settings.max_size / u64::from(FILES)).clamp(SIZES[0], SIZES[1])
    }

    /// Whether a snapshot would begin the next file.
    pub(super) fn is_full(&self, now: SystemTime) -> bool {
        let age = (self.settings.keep / FILES).max(LEAST_AGE);
        let old = now.duration_since(self.began).is_ok_and(|it| it >= age);
        self.length > 0 && (self.length >= self.full_at() || old)
    }

    /// The file after this one.
    pub(super) fn next_path(&self) -> PathBuf {
        file(&self.directory, self.number + 1)
    }

    /// The next file has begun with so many bytes.
    pub(super) fn turn(&mut self, length: u64, now: SystemTime) {
        let next = self.next_path();
        let path = std::mem::replace(&mut self.path, next);
        self.closed.push(Closed { path, bytes: self.length, ended: now });
        self.number += 1;
        self.length = length;
        self.began = now;
    }

    /// Takes out the oldest file if it is too much or too old. To be asked only when the file that
    /// is written holds a snapshot: every file before that may go.
    pub(super) fn take_stale(&mut self, now: SystemTime) -> Option<PathBuf> {
        let bytes: u64 = self.closed.iter().map(|it| it.bytes).sum::<u64>() + self.length;
        let oldest = self.closed.first()?;
        let old = now.duration_since(oldest.ended).is_ok_and(|it| it > self.settings.keep);
        (old || bytes > self.settings.max_size).then(|| self.closed.remove(0).path)
    }

    pub(super) fn set(&mut self, settings: JournalSettings) {
        self.settings = settings;
    }
}

fn file(directory: &Path, number: u64) -> PathBuf {
    directory.join(format!("{number:06}.jsonl"))
}
