//! Starting and stopping the control plane: its threads, and what the rest of the program gets to
//! hold of them.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::Arc,
    thread::{self, JoinHandle},
    time::{Duration, SystemTime},
};

use arc_swap::ArcSwap;
use crossbeam_channel::{Receiver, Sender, bounded};
use tokio::time::Instant;

use super::{
    Decision, Handle, Memory, NewConfig, Record, Settings,
    control::{Control, Parts, WorkerEnd, moment},
    handle::{INBOX, Message},
    journal,
    layout::OutOfIds,
    placebo::Placebos,
    recall::recall_all,
    steering::{Moment, Steering},
};
use crate::{
    measure::{Batch, Event, Tick},
    routing::{LiveTable, RouteTable},
};

/// Batches of one worker that wait for the control thread at most: a bit over six seconds.
const BATCHES: usize = 64;

/// The first weights wait for the disk for this long before the proxy starts without them.
const FIRST_WEIGHTS: Duration = Duration::from_secs(5);

/// What the control plane starts with.
#[derive(Debug)]
pub struct Start {
    /// Plans and journal.
    pub settings: Settings,
    /// Routes, cohorts, services and upstreams.
    pub routes: RouteTable,
    /// The configuration's hash.
    pub config_hash: String,
    /// Number of workers; each gets one link.
    pub workers: usize,
    /// The moment that ticks and watermarks count from.
    pub started: Instant,
}

/// The control plane at work.
#[derive(Debug)]
pub struct Running {
    /// What the workers read; the control thread alone stores it.
    pub table: Arc<ArcSwap<LiveTable>>,
    /// One per worker, in order.
    pub links: Vec<WorkerLink>,
    /// Commands in, snapshots out.
    pub handle: Handle,
    pub(super) threads: Vec<JoinHandle<()>>,
}

/// A worker's end of the channels to the control thread.
#[derive(Clone, Debug)]
pub struct WorkerLink {
    /// Takes the worker's batches. Bounded: use `try_send`, and keep the events where it is full.
    pub batches: Sender<Batch>,
    /// Gives empty buffers back, with their room. Where none is there, make a new one.
    pub empties: Receiver<Vec<Event>>,
}

/// Why the control plane could not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The state directory cannot be made or read.
    #[error("state_dir {path}: {source}")]
    StateDir {
        /// The directory or the file in it.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// Another process works in the state directory.
    #[error("state_dir {0}: another haldane is using it")]
    Locked(PathBuf),
    /// A line in the middle of the journal cannot be read.
    #[error("journal {path}, line {line}: {problem}")]
    Journal {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// What is wrong with it.
        problem: String,
    },
    /// The table needs more recorders than there are ids.
    #[error("routes, cohorts and arms make more combinations than can be counted")]
    TooManyRecorders,
    /// A thread could not be started.
    #[error("cannot start a thread: {0}")]
    Thread(std::io::Error),
}

/// Starts the control plane: takes the lock on the state directory, replays the journal, and
/// answers when the first table is in force. Blocks for as long as the disk needs, up to
/// a few seconds; what is not on disk by then follows later.
///
/// # Errors
/// See [`StartError`].
pub fn start(start: Start) -> Result<Running, StartError> {
    let SetUp { mut control, inbox, messages, links, journal, state_dir } =
        set_up(start, moment())?;
    let until = Instant::now() + FIRST_WEIGHTS;
    control.settle(moment());
    while !control.is_settled() && Instant::now() < until {
        // Only the journal writes to the inbox so far.
        let _ = messages.recv_timeout(Tick::LENGTH);
        control.settle(moment());
    }
    let table = control.table();
    let snapshots = control.publish_to(SystemTime::now());
    let thread = thread::Builder::new().name("control".into());
    let thread = thread.spawn(move || control.run(&messages)).map_err(StartError::Thread)?;
    let handle = Handle { inbox, snapshots, state_dir };
    Ok(Running { table, links, handle, threads: vec![thread, journal] })
}

/// The control plane before its thread is started.
pub(super) struct SetUp {
    pub(super) control: Control,
    pub(super) inbox: Sender<Message>,
    pub(super) messages: Receiver<Message>,
    pub(super) links: Vec<WorkerLink>,
    /// The journal's thread: it ends when the control plane is dropped.
    pub(super) journal: JoinHandle<()>,
    state_dir: Arc<Path>,
}

/// Reads the journal and lays out the first table.
pub(super) fn set_up(start: Start, moment: Moment) -> Result<SetUp, StartError> {
    let state_dir: Arc<Path> = start.settings.state_dir.clone().into();
    let mut found: journal::Found<Record, Memory> =
        journal::open(&start.settings.state_dir, start.settings.journal)?;
    let memory = found.snapshot.take().unwrap_or_default();
    let mut decisions: BTreeMap<u64, Decision> =
        memory.decisions.into_iter().map(|decision| (decision.seq, decision)).collect();
    decisions.extend(found.decisions.drain(..).map(|decision| (decision.seq, decision)));
    let placebos = Placebos::recall(memory.placebos);
    let recalled = recall_all(memory.live, memory.ended, std::mem::take(&mut found.records));
    let (inbox, messages) = bounded(INBOX);
    let (journal, thread) = found.write(inbox.clone()).map_err(StartError::Thread)?;
    let (ends, links) = (0..start.workers).map(|_| link()).unzip();
    let config = NewConfig {
        routes: start.routes,
        settings: start.settings,
        config_hash: start.config_hash,
    };
    let steering = Steering::new(journal, decisions.into_values(), recalled);
    let parts = Parts { started: start.started, ends, config, steering, placebos };
    let control = Control::new(parts, moment).map_err(|OutOfIds| StartError::TooManyRecorders)?;
    Ok(SetUp { control, inbox, messages, links, journal: thread, state_dir })
}

fn link() -> (WorkerEnd, WorkerLink) {
    let (batches, received) = bounded(BATCHES);
    let (emptied, empties) = bounded(BATCHES);
    (WorkerEnd { batches: received, empties: emptied }, WorkerLink { batches, empties })
}

impl Running {
    /// Stops the threads and waits for them; what was decided is on disk afterwards. Send the
    /// workers' last batches before.
    pub fn stop(self) {
        // A full inbox empties within a tick, a closed one means that the thread is gone.
        let _ = self.handle.inbox.send(Message::Stop);
        for thread in self.threads {
            if thread.join().is_err() {
                tracing::error!("a control thread panicked");
            }
        }
    }
}
