//! How the rest of the program talks to the control thread: commands in, snapshots out.
//!
//! A handle never blocks its caller: it waits for the answer as a future.

use std::{path::Path, sync::Arc};

use crossbeam_channel::{Sender, TrySendError};
use tokio::sync::{oneshot, watch};

use super::{Drill, RolloutStatus, Settings, Snapshot};
use crate::routing::RouteTable;

/// Talks to the control thread.
#[derive(Clone, Debug)]
pub struct Handle {
    pub(super) inbox: Sender<Message>,
    pub(super) snapshots: watch::Receiver<Arc<Snapshot>>,
    /// Where the journal lies, for those who read it.
    pub(super) state_dir: Arc<Path>,
}

/// What a person wants of a rollout.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Command {
    /// The service.
    pub service: String,
    /// The canary; may be left out where the service has one.
    pub canary: Option<String>,
    /// What is to be done.
    pub action: Action,
    /// Why, for the journal.
    pub reason: String,
    /// Who, for the journal.
    pub actor: String,
}

/// What can be asked of a rollout.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Sets the weight, in buckets of 0.01 %, and pauses there.
    SetWeight(u16),
    /// Holds the weight where it is.
    Pause,
    /// Ends a pause.
    Resume,
    /// Goes to the next stage, or (`full`) to 100 %.
    Promote {
        /// Whether the stages in between are left out.
        full: bool,
    },
    /// Passes the gate that the rollout waits at.
    Approve,
    /// Rolls back.
    Abort,
    /// Starts a rolled-back version again at its first stage.
    Retry,
    /// Hurts the canary's answers, to see that it is found.
    Drill(Drill),
    /// Ends a drill.
    EndDrill,
    /// Says that the canary runs another version now.
    Release {
        /// The new version.
        version: String,
    },
}

/// A configuration to be put in force.
#[derive(Clone, Debug)]
pub struct NewConfig {
    /// Routes, cohorts, services and upstreams.
    pub routes: RouteTable,
    /// Plans and journal.
    pub settings: Settings,
    /// The configuration's hash.
    pub config_hash: String,
}

/// Why a command or a configuration was not carried out.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// There is no such service (404).
    #[error("there is no service {0:?}")]
    UnknownService(String),
    /// The service has no such canary, or several and none was named (404).
    #[error("{0}")]
    UnknownCanary(String),
    /// The rollout's state forbids it (409); a sentence for a person.
    #[error("{0}")]
    Forbidden(String),
    /// The change must be on disk before it is in force, and the journal does not get it there
    /// (503).
    #[error("the journal cannot be written: the change was taken back")]
    Journal,
    /// The control thread has as much to do as it takes (503).
    #[error("the control thread is busy, try again")]
    Busy,
    /// The control thread has stopped (503).
    #[error("the proxy is stopping")]
    Stopped,
}

/// What the control thread is sent.
#[derive(Debug)]
pub(super) enum Message {
    Command(Command, oneshot::Sender<Result<RolloutStatus, Refused>>),
    Apply(Box<NewConfig>, oneshot::Sender<Result<(), Refused>>),
    ReloadFailed(String),
    /// The journal got further; says nothing but "look".
    Durable,
    Stop,
}

/// Messages that wait for the control thread at most.
pub(super) const INBOX: usize = 256;

impl Handle {
    /// The latest snapshot.
    #[must_use]
    pub fn snapshot(&self) -> Arc<Snapshot> {
        self.snapshots.borrow().clone()
    }

    /// The directory that the journal lies in: it can be read while it is written.
    #[must_use]
    pub fn state_dir(&self) -> Arc<Path> {
        Arc::clone(&self.state_dir)
    }

    /// Follows the snapshots: one a second, and one after every command.
    #[must_use]
    pub fn watch(&self) -> watch::Receiver<Arc<Snapshot>> {
        self.snapshots.clone()
    }

    /// Carries a command out; answers when it is in force, with the canary's new status.
    ///
    /// # Errors
    /// See [`Refused`]. Nothing was changed then.
    pub async fn command(&self, command: Command) -> Result<RolloutStatus, Refused> {
        let (answer, answered) = oneshot::channel();
        self.send(Message::Command(command, answer))?;
        answered.await.map_err(|_| Refused::Stopped)?
    }

    /// Puts a configuration in force; answers when it is.
    ///
    /// # Errors
    /// See [`Refused`]. The configuration of before is still in force then.
    pub async fn apply(&self, config: NewConfig) -> Result<(), Refused> {
        let (answer, answered) = oneshot::channel();
        self.send(Message::Apply(Box::new(config), answer))?;
        answered.await.map_err(|_| Refused::Stopped)?
    }

    /// Notes that a configuration could not be loaded, for metrics and status.
    ///
    /// # Errors
    /// [`Refused::Busy`] and [`Refused::Stopped`].
    pub fn reload_failed(&self, error: String) -> Result<(), Refused> {
        self.send(Message::ReloadFailed(error))
    }

    fn send(&self, message: Message) -> Result<(), Refused> {
        self.inbox.try_send(message).map_err(|error| match error {
            TrySendError::Full(_) => Refused::Busy,
            TrySendError::Disconnected(_) => Refused::Stopped,
        })
    }
}
