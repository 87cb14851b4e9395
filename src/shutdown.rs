//! Shutdown as an argument: one trigger, many watchers, and a deadline for what is in flight.

use std::time::Duration;

use tokio::sync::watch;

/// Starts the shutdown. Dropping it does nothing.
#[derive(Clone, Debug)]
pub struct Trigger(watch::Sender<Option<Duration>>);

/// Waits for the shutdown.
#[derive(Clone, Debug)]
pub struct Watcher(watch::Receiver<Option<Duration>>);

/// A trigger and its watcher.
#[must_use]
pub fn channel() -> (Trigger, Watcher) {
    let (sender, receiver) = watch::channel(None);
    (Trigger(sender), Watcher(receiver))
}

impl Trigger {
    /// Asks every watcher to finish within `drain`. The first call counts.
    pub fn begin(&self, drain: Duration) {
        self.0.send_if_modified(|state| {
            let first = state.is_none();
            if first {
                *state = Some(drain);
            }
            first
        });
    }
}

impl Watcher {
    /// Whether the shutdown has begun, and how long what is in flight may take.
    #[must_use]
    pub fn begun(&self) -> Option<Duration> {
        *self.0.borrow()
    }

    /// Waits until the shutdown begins, and says how long what is in flight may take. Waits for
    /// ever if the trigger is gone without having been pulled.
    pub async fn wait(&mut self) -> Duration {
        loop {
            if let Some(drain) = *self.0.borrow_and_update() {
                return drain;
            }
            if self.0.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_first_call_sets_the_time_to_drain() {
        let (trigger, mut watcher) = channel();
        assert_eq!(watcher.begun(), None);
        trigger.begin(Duration::from_secs(3));
        trigger.begin(Duration::from_secs(9));
        assert_eq!(watcher.wait().await, Duration::from_secs(3));
    }
}
