//! Opening a journal to go on with it: takes the lock, reads what is there, and cuts a torn end.
//! A disk that cannot be written right now is no reason to fail.

use std::{
    fs::{self, File, OpenOptions},
    io,
    marker::PhantomData,
    path::{Path, PathBuf},
    thread::{self, JoinHandle},
};

use crossbeam_channel::Sender;
use serde::{Serialize, de::DeserializeOwned};

use super::{
    Decision, Journal, Line, Message,
    disk::{Disk, Files},
    read::{self, Chain, ReadError},
    shelf::Shelf,
    writer::Writer,
};
use crate::rollout::{JournalSettings, StartError};

/// What was found on disk.
#[derive(Debug)]
pub(in crate::rollout) struct Found<B, S> {
    /// The last snapshot; `None` without any, or where it is of another version of the program.
    pub(in crate::rollout) snapshot: Option<S>,
    /// What follows it, or all there is without a snapshot.
    pub(in crate::rollout) records: Vec<Record<B>>,
    /// All decisions of the files that are kept, in order.
    pub(in crate::rollout) decisions: Vec<Decision>,
    ground: Ground,
    blocks: PhantomData<B>,
}

/// What follows the last snapshot.
#[derive(Clone, Debug, PartialEq)]
pub(in crate::rollout) enum Record<B> {
    /// What was counted or asked.
    Block(B),
    /// What was decided.
    Decision(Box<Decision>),
    /// Something is missing: blocks after this tell nothing.
    Gap,
}

/// What a writer stands on.
#[derive(Debug)]
pub(super) struct Ground {
    pub(super) shelf: Shelf,
    pub(super) chain: Chain,
    /// Held for as long as the process lives.
    pub(super) lock: File,
}

/// Takes the lock, reads what is there, and cuts a torn end.
///
/// # Errors
/// The directory can be neither made nor locked nor read, or the chain of decisions is broken.
pub(in crate::rollout) fn open<B: DeserializeOwned, S: DeserializeOwned>(
    state_dir: &Path,
    settings: JournalSettings,
) -> Result<Found<B, S>, StartError> {
    let directory = state_dir.join("journal");
    fs::create_dir_all(&directory).map_err(failed(&directory))?;
    let lock = lock(state_dir)?;
    let paths = read::files(&directory)?;
    let mut reading = Reading::default();
    let mut chain = Chain::default();
    let mut length = 0;
    for (index, path) in paths.iter().enumerate() {
        let text = read::read_file(path)?;
        let last = index + 1 == paths.len();
        let (lines, good) = chain.follow(path, &text, last)?;
        lines.into_iter().for_each(|(number, line)| reading.take(path, number, line));
        if good < text.len() {
            tracing::warn!(path = %path.display(), bytes = text.len() - good, "journal: torn end cut");
            cut(path, good as u64);
        }
        length = good as u64;
    }
    let shelf = Shelf::new(directory.clone(), &paths, length, settings);
    // The names of files are durable when their directory is; a disk that cannot do that now will
    // be asked again with the next file.
    if let Err(error) = File::open(&directory).and_then(|it| it.sync_all()) {
        tracing::warn!(%error, "journal: the directory cannot be synced");
    }
    Ok(reading.found(Ground { shelf, chain, lock }))
}

fn lock(state_dir: &Path) -> Result<File, StartError> {
    let path = state_dir.join("lock");
    let made = OpenOptions::new().create(true).truncate(false).write(true).open(&path);
    // Where nothing can be written a lock that is there can be taken all the same.
    let lock = made.or_else(|error| File::open(&path).map_err(|_| error)).map_err(failed(&path))?;
    match lock.try_lock() {
        Ok(()) => Ok(lock),
        Err(fs::TryLockError::WouldBlock) => Err(StartError::Locked(state_dir.to_owned())),
        Err(fs::TryLockError::Error(source)) => Err(failed(&path)(source)),
    }
}

fn failed(path: &Path) -> impl Fn(io::Error) -> StartError {
    let path = path.to_owned();
    move |source| StartError::StateDir { path: path.clone(), source }
}

/// Whoever writes cuts again: here it only keeps the file readable until then.
fn cut(path: &Path, length: u64) {
    let file = OpenOptions::new().write(true).open(path);
    if let Err(error) = file.and_then(|file| file.set_len(length)) {
        tracing::warn!(%error, path = %path.display(), "journal: the torn end stays for now");
    }
}

impl From<ReadError> for StartError {
    fn from(error: ReadError) -> Self {
        match error {
            ReadError::File { path, source } => Self::StateDir { path, source },
            ReadError::Line { path, line, problem } => Self::Journal { path, line, problem },
        }
    }
}

/// A block's text, and where it stands.
type Unread = (PathBuf, usize, String);

/// What was read so far.
struct Reading<B, S> {
    snapshot: Option<S>,
    /// Blocks stay text until it is clear that no snapshot follows.
    records: Vec<Record<Unread>>,
    decisions: Vec<Decision>,
    blocks: PhantomData<B>,
}

impl<B, S> Default for Reading<B, S> {
    fn default() -> Self {
        Self { snapshot: None, records: Vec::new(), decisions: Vec::new(), blocks: PhantomData }
    }
}

impl<B: DeserializeOwned, S: DeserializeOwned> Reading<B, S> {
    fn take(&mut self, path: &Path, number: usize, line: Line<'_>) {
        match line {
            Line::Block(raw) => {
                let text = raw.get().to_owned();
                self.records.push(Record::Block((path.to_owned(), number, text)));
            }
            Line::Decision(decision) => {
                self.records.push(Record::Decision(Box::new((*decision).clone())));
                self.decisions.push(*decision);
            }
            Line::Snapshot(raw) => {
                self.records.clear();
                self.snapshot = serde_json::from_str(raw.get())
                    .map_err(|error| strange(path, number, &error))
                    .ok();
            }
            Line::Gap(_) => self.records.push(Record::Gap),
            Line::Damaged => {
                tracing::warn!(path = %path.display(), line = number, "journal: damaged line");
                self.records.push(Record::Gap);
            }
        }
    }

    fn found(self, ground: Ground) -> Found<B, S> {
        let parse = |record: Record<Unread>| match record {
            Record::Block((path, number, text)) => serde_json::from_str(&text)
                .map_err(|error| strange(&path, number, &error))
                .map_or(Record::Gap, Record::Block),
            Record::Decision(decision) => Record::Decision(decision),
            Record::Gap => Record::Gap,
        };
        Found {
            snapshot: self.snapshot,
            records: self.records.into_iter().map(parse).collect(),
            decisions: self.decisions,
            ground,
            blocks: PhantomData,
        }
    }
}

fn strange(path: &Path, line: usize, error: &serde_json::Error) {
    tracing::warn!(path = %path.display(), line, %error, "journal: of another version");
}

impl<B, S> Found<B, S>
where
    B: Serialize + Send + 'static,
    S: Serialize + Send + 'static,
{
    /// Starts the thread that writes. `wake` is told whenever more is on disk.
    pub(in crate::rollout) fn write(
        self,
        wake: Sender<Message>,
    ) -> io::Result<(Journal<B, S>, JoinHandle<()>)> {
        self.write_to(Files::default(), wake)
    }

    pub(super) fn write_to(
        self,
        disk: impl Disk,
        wake: Sender<Message>,
    ) -> io::Result<(Journal<B, S>, JoinHandle<()>)> {
        let (journal, queue) = Journal::new(self.ground.chain.seq);
        let writer = Writer::new(disk, self.ground, queue, wake);
        let thread = thread::Builder::new().name("journal".into()).spawn(|| writer.run())?;
        Ok((journal, thread))
    }
}
