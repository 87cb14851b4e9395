//! Deadlines without a timer per request: a list that is looked through once a tick.
//!
//! A request in flight costs an entry of a few bytes; the list is scanned every 100 ms, so a
//! deadline fires up to one tick late and never early. A deadline less than two seconds away, for
//! which a tick is much, gets a timer of its own.

use std::{
    cell::RefCell,
    future::poll_fn,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, Waker},
    time::Duration,
};

use tokio::time::{Sleep, sleep};

use super::clock::Clock;
use crate::measure::Tick;

/// Below this a deadline gets a timer of its own.
const PRECISE: Duration = Duration::from_secs(2);

/// The deadlines of one worker.
#[derive(Debug)]
pub(super) struct Deadlines {
    entries: RefCell<Entries>,
}

#[derive(Debug, Default)]
struct Entries {
    slots: Vec<Entry>,
    free: Vec<u32>,
    now: Duration,
}

#[derive(Debug)]
struct Entry {
    at: Duration,
    waker: Option<Waker>,
}

/// The wait for a future took too long.
#[derive(Debug)]
pub(super) struct Elapsed;

impl Deadlines {
    pub(super) fn new(clock: Clock) -> Self {
        let entries = Entries { now: clock.now(), ..Entries::default() };
        Self { entries: RefCell::new(entries) }
    }

    /// The time as of the last tick: up to 100 ms behind, and free.
    pub(super) fn coarse_now(&self) -> Duration {
        self.entries.borrow().now
    }

    /// A deadline `limit` after the last tick's end.
    pub(super) fn within(self: &Rc<Self>, limit: Duration) -> Deadline {
        self.after(self.coarse_now() + Tick::LENGTH, limit)
    }

    /// Lets time pass: wakes whoever waits for a moment up to `now`.
    pub(super) fn advance(&self, now: Duration) {
        let mut entries = self.entries.borrow_mut();
        entries.now = now;
        for entry in &mut entries.slots {
            if entry.at <= now
                && let Some(waker) = entry.waker.take()
            {
                waker.wake();
            }
        }
    }

    /// A deadline `limit` after the moment `from`, which is counted from the start of the process
    /// and not long ago.
    pub(super) fn after(self: &Rc<Self>, from: Duration, limit: Duration) -> Deadline {
        let at = from + limit;
        let mut entries = self.entries.borrow_mut();
        let entry = Entry { at, waker: None };
        let key = if let Some(key) = entries.free.pop() {
            entries.slots[key as usize] = entry;
            key
        } else {
            entries.slots.push(entry);
            u32::try_from(entries.slots.len() - 1).expect("fewer than 2^32 requests in flight")
        };
        drop(entries);
        let timer = (limit < PRECISE).then(|| Box::pin(sleep(limit)));
        Deadline { list: Rc::clone(self), key, timer }
    }
}

/// One deadline; forgotten when dropped.
#[derive(Debug)]
pub(super) struct Deadline {
    list: Rc<Deadlines>,
    key: u32,
    timer: Option<Pin<Box<Sleep>>>,
}

impl Deadline {
    /// Ready once the deadline has passed.
    pub(super) fn poll_expired(&mut self, cx: &mut Context<'_>) -> Poll<Elapsed> {
        if let Some(timer) = &mut self.timer {
            return timer.as_mut().poll(cx).map(|()| Elapsed);
        }
        let mut entries = self.list.entries.borrow_mut();
        let now = entries.now;
        let entry = &mut entries.slots[self.key as usize];
        if entry.at <= now {
            return Poll::Ready(Elapsed);
        }
        match &mut entry.waker {
            Some(waker) => waker.clone_from(cx.waker()),
            none => *none = Some(cx.waker().clone()),
        }
        Poll::Pending
    }

    /// Runs `future` until the deadline. It is pinned where it stands: taken by value it would be
    /// held twice.
    pub(super) async fn bound<F: Future>(
        &mut self,
        mut future: Pin<&mut F>,
    ) -> Result<F::Output, Elapsed> {
        poll_fn(|cx| {
            if let Poll::Ready(output) = future.as_mut().poll(cx) {
                return Poll::Ready(Ok(output));
            }
            self.poll_expired(cx).map(Err)
        })
        .await
    }
}

impl Drop for Deadline {
    fn drop(&mut self) {
        let mut entries = self.list.entries.borrow_mut();
        entries.slots[self.key as usize] = Entry { at: Duration::MAX, waker: None };
        entries.free.push(self.key);
    }
}

#[cfg(test)]
mod tests {
    use std::{future::pending, pin::pin};

    use super::*;

    #[tokio::test]
    async fn a_deadline_fires_when_its_moment_has_passed_and_not_before() {
        let list = Rc::new(Deadlines::new(Clock::new(tokio::time::Instant::now())));
        let mut deadline = list.after(Duration::ZERO, Duration::from_secs(3));
        list.advance(Duration::from_millis(2_900));
        let mut never = pin!(pending::<()>());
        let mut waiting = pin!(deadline.bound(never.as_mut()));
        assert!(poll_fn(|cx| Poll::Ready(waiting.as_mut().poll(cx))).await.is_pending());
        list.advance(Duration::from_secs(3));
        assert!(waiting.await.is_err());
    }

    #[tokio::test]
    async fn a_forgotten_deadline_gives_its_place_to_the_next() {
        let list = Rc::new(Deadlines::new(Clock::new(tokio::time::Instant::now())));
        drop(list.after(Duration::ZERO, Duration::from_secs(2)));
        let mut next = list.after(Duration::ZERO, Duration::from_secs(9));
        assert_eq!(list.entries.borrow().slots.len(), 1);
        list.advance(Duration::from_secs(5));
        assert!(next.bound(pin!(async {})).await.is_ok());
    }
}
