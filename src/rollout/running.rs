//! Starting and stopping the control plane: its threads, and what the rest of the program gets to
//! hold of them.

use std::{path::PathBuf, sync::Arc, thread::JoinHandle};

use arc_swap::ArcSwap;
use crossbeam_channel::{Receiver, Sender};
use tokio::time::Instant;

use super::{Handle, Settings, handle::Message};
use crate::{
    measure::{Batch, Event},
    routing::{LiveTable, RouteTable},
};

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
    /// A thread could not be started.
    #[error("cannot start a thread: {0}")]
    Thread(std::io::Error),
}

/// Starts the control plane: takes the lock on the state directory, replays the journal, and
/// answers when the first table is in force. Blocks for as long as the disk needs.
///
/// # Errors
/// See [`StartError`].
pub fn start(_start: Start) -> Result<Running, StartError> {
    unimplemented!("rollout")
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
