//! Observing: the only writer of events.
//!
//! Every assigned request carries an [`Observation`]. It writes `Assigned` when it is made and
//! `Ended` when it is finished, or when it is dropped: a request that nobody finished was given up
//! by its client.

use std::{
    cell::{Cell, RefCell},
    rc::Rc,
    time::Duration,
};

use super::clock::{Clock, micros};
use crate::measure::{
    Batch, EndpointNumber, Epoch, Event, Head, Kind, OVERHEAD_BUCKETS, Outcome, RecorderId, Tick,
    overhead_bucket,
};

/// Most events that a worker holds between two hand-overs; beyond it events are dropped and the
/// touched blocks are void.
pub(super) const MAX_EVENTS: usize = 256 * 1024;

/// The proxy's own time is measured on one request in this many.
const OVERHEAD_SAMPLE: u32 = 8;

/// The events of one worker since its last hand-over.
#[derive(Debug)]
pub(super) struct EventBuffer {
    held: RefCell<Held>,
    turn: Cell<u32>,
    pub(super) clock: Clock,
}

/// What is handed over.
#[derive(Debug)]
pub(super) struct Held {
    pub(super) events: Vec<Event>,
    pub(super) overflowed: bool,
    pub(super) overhead: [u32; OVERHEAD_BUCKETS],
    pub(super) overhead_sum_us: u64,
}

impl Held {
    fn empty(events: Vec<Event>) -> Self {
        Self { events, overflowed: false, overhead: [0; OVERHEAD_BUCKETS], overhead_sum_us: 0 }
    }
}

impl EventBuffer {
    pub(super) fn new(clock: Clock) -> Self {
        Self {
            held: RefCell::new(Held::empty(Vec::with_capacity(4096))),
            turn: Cell::new(0),
            clock,
        }
    }

    /// Takes what is held and goes on with `empty`.
    pub(super) fn take(&self, empty: Vec<Event>) -> Held {
        self.held.replace(Held::empty(empty))
    }

    /// Puts back what could not be handed over, in front of what has come since.
    pub(super) fn put_back(&self, earlier: Batch) {
        let mut held = self.held.borrow_mut();
        let mut events = earlier.events;
        let room = MAX_EVENTS.saturating_sub(events.len());
        held.overflowed |= earlier.overflowed || held.events.len() > room;
        events.extend(held.events.iter().take(room));
        held.events = events;
        for (sum, count) in held.overhead.iter_mut().zip(earlier.overhead) {
            *sum += count;
        }
        held.overhead_sum_us += earlier.overhead_sum_us;
    }

    fn push(&self, event: Event) {
        let mut held = self.held.borrow_mut();
        if held.events.len() < MAX_EVENTS {
            held.events.push(event);
        } else {
            held.overflowed = true;
        }
    }

    fn sample(&self) -> bool {
        let turn = self.turn.get().wrapping_add(1);
        self.turn.set(turn);
        turn.is_multiple_of(OVERHEAD_SAMPLE)
    }

    fn overhead(&self, overhead: Duration) {
        let overhead_us = micros(overhead);
        let mut held = self.held.borrow_mut();
        held.overhead[overhead_bucket(overhead_us)] += 1;
        held.overhead_sum_us += u64::from(overhead_us);
    }
}

/// What an observation needs to know of its request.
#[derive(Clone, Copy, Debug)]
pub(super) struct Observed {
    pub(super) recorder: RecorderId,
    pub(super) epoch: Epoch,
    pub(super) unit: u64,
    pub(super) excluded: bool,
    /// Whether the first byte decides, so that it is reported before the end of a long answer.
    pub(super) first_byte_decides: bool,
    /// When the request arrived, since the start of the process.
    pub(super) arrived: Duration,
}

/// One request under observation, from its assignment to its end.
#[derive(Debug)]
pub(super) struct Observation {
    buffer: Rc<EventBuffer>,
    request: Observed,
    wait: Duration,
    endpoint: EndpointNumber,
    first_byte: Option<Duration>,
    failed: bool,
    refused: bool,
    told: Head,
    /// From this moment on its client goes away because it gets no more time, and whether that
    /// counts as a failure of an answer that has begun.
    expires: Option<(Duration, bool)>,
    finished: bool,
}

impl Observation {
    /// Begins with the assignment.
    pub(super) fn begin(buffer: &Rc<EventBuffer>, request: Observed) -> Self {
        let observation = Self {
            buffer: Rc::clone(buffer),
            request,
            wait: Duration::ZERO,
            endpoint: EndpointNumber::NONE,
            first_byte: None,
            failed: false,
            refused: false,
            told: Head::Untold,
            expires: None,
            finished: false,
        };
        observation.write(Kind::Assigned, request.arrived);
        observation
    }

    /// When the request arrived, since the start of the process.
    pub(super) fn arrived(&self) -> Duration {
        self.request.arrived
    }

    /// Notes when its client has said that it will give up. A client that goes away from `about` on
    /// was kept waiting by its upstream; if the answer has begun, only where that `fails` it.
    pub(super) fn expires(&mut self, about: Duration, fails: bool) {
        self.expires = Some((about, fails));
    }

    /// Notes time spent on waiting for a connection.
    pub(super) fn waited(&mut self, wait: Duration) {
        self.wait += wait;
    }

    /// Notes the endpoint that it is sent to.
    pub(super) fn sent_to(&mut self, endpoint: EndpointNumber) {
        self.endpoint = endpoint;
    }

    /// The request is ready to be sent: what lies between its arrival and now is the proxy's own
    /// time. One request in [`OVERHEAD_SAMPLE`] is looked at, since looking costs as much as some
    /// of the work.
    pub(super) fn prepared(&self) {
        if self.buffer.sample() {
            self.buffer.overhead(self.buffer.clock.now().saturating_sub(self.request.arrived));
        }
    }

    /// Notes the head of the answer, and whether it already counts as a failure.
    pub(super) fn head(&mut self, failed: bool) {
        self.first_byte = Some(self.buffer.clock.now());
        self.failed = failed;
    }

    /// The head of the answer refuses the request, and that is no failure.
    pub(super) fn refuse(&mut self) {
        self.refused = true;
    }

    /// The answer goes on beyond its first piece of body.
    pub(super) fn streams(&mut self) {
        if self.request.first_byte_decides && self.told == Head::Untold {
            self.told = if self.failed { Head::Failed } else { Head::Good };
            let now = self.first_byte.unwrap_or_else(|| self.buffer.clock.now());
            self.write(Kind::Answered { failed: self.failed }, now);
        }
    }

    /// The answer switches protocols: its first byte decides, whatever the route is judged by. How
    /// long both sides then talk says nothing.
    pub(super) fn switches(&mut self) {
        self.request.first_byte_decides = true;
        self.streams();
    }

    /// The answer fails after its head, by its trailers or by its body.
    pub(super) fn fail(&mut self) {
        self.failed = true;
    }

    /// The answer is complete: ok, or failed if its head or its trailers said so.
    pub(super) fn complete(mut self) {
        let outcome = if self.failed { Outcome::Failed } else { Outcome::Ok };
        self.end(outcome);
    }

    /// The request ends with this outcome.
    pub(super) fn finish(mut self, outcome: Outcome) {
        self.end(outcome);
    }

    fn end(&mut self, outcome: Outcome) {
        if !self.finished {
            self.finished = true;
            let now = self.buffer.clock.now();
            let outcome = match outcome {
                Outcome::Aborted => self.given_up(now),
                Outcome::Ok | Outcome::Failed | Outcome::Hung | Outcome::Local => outcome,
            };
            let kind = Kind::Ended { outcome, head: self.told };
            self.write(kind, now);
        }
    }

    /// What it is when the client goes away now.
    fn given_up(&self, now: Duration) -> Outcome {
        match (self.expires, self.first_byte) {
            (Some((about, _)), None) if now >= about => Outcome::Hung,
            (Some((about, true)), Some(_)) if now >= about => Outcome::Failed,
            (Some(_) | None, _) => Outcome::Aborted,
        }
    }

    fn write(&self, kind: Kind, now: Duration) {
        let age_us = micros(now.saturating_sub(self.request.arrived));
        let first_byte_us = self
            .first_byte
            .map_or(age_us, |first_byte| micros(first_byte.saturating_sub(self.request.arrived)));
        let mut event = Event::new(kind, self.request.epoch, self.request.excluded);
        if self.refused && kind != Kind::Assigned {
            event = event.of_refused();
        }
        event.unit = self.request.unit;
        event.recorder = self.request.recorder;
        event.arrival = Tick::at(self.request.arrived);
        event.first_byte_us = first_byte_us;
        event.age_us = age_us;
        self.buffer.push(event.with_wait(micros(self.wait)).with_endpoint(self.endpoint));
    }
}

impl Drop for Observation {
    fn drop(&mut self) {
        self.end(Outcome::Aborted);
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::Instant;

    use super::*;

    fn observed() -> Observed {
        Observed {
            recorder: RecorderId(7),
            epoch: Epoch::new(3),
            unit: 42,
            excluded: false,
            first_byte_decides: true,
            arrived: Duration::ZERO,
        }
    }

    fn kinds(buffer: &EventBuffer) -> Vec<Kind> {
        buffer.take(Vec::new()).events.iter().map(Event::kind).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn a_request_that_nobody_finishes_was_aborted_by_its_client() {
        let buffer = Rc::new(EventBuffer::new(Clock::new(Instant::now())));
        drop(Observation::begin(&buffer, observed()));
        let end = Kind::Ended { outcome: Outcome::Aborted, head: Head::Untold };
        assert_eq!(kinds(&buffer), [Kind::Assigned, end]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_gave_up_when_it_said_it_would_was_kept_waiting() {
        let buffer = Rc::new(EventBuffer::new(Clock::new(Instant::now())));
        let check = async |waits: u64, answered: bool, fails: bool, expected: Outcome| {
            let arrived = buffer.clock.now();
            let mut observation = Observation::begin(&buffer, Observed { arrived, ..observed() });
            observation.expires(arrived + Duration::from_millis(90), fails);
            if answered {
                observation.head(false);
            }
            tokio::time::advance(Duration::from_millis(waits)).await;
            drop(observation);
            let end = Kind::Ended { outcome: expected, head: Head::Untold };
            assert_eq!(kinds(&buffer), [Kind::Assigned, end]);
        };
        check(50, false, true, Outcome::Aborted).await;
        check(95, false, true, Outcome::Hung).await;
        check(95, false, false, Outcome::Hung).await;
        check(50, true, true, Outcome::Aborted).await;
        check(95, true, true, Outcome::Failed).await;
        check(95, true, false, Outcome::Aborted).await;
    }

    #[tokio::test(start_paused = true)]
    async fn a_long_answer_reports_its_first_byte_before_its_end() {
        let buffer = Rc::new(EventBuffer::new(Clock::new(Instant::now())));
        let mut observation = Observation::begin(&buffer, observed());
        tokio::time::advance(Duration::from_millis(20)).await;
        observation.sent_to(EndpointNumber::of(2));
        observation.head(false);
        observation.streams();
        observation.streams();
        tokio::time::advance(Duration::from_millis(80)).await;
        observation.complete();
        let events = buffer.take(Vec::new()).events;
        assert_eq!(events[1].kind(), Kind::Answered { failed: false });
        assert_eq!(events[1].age_us, 20_000);
        assert_eq!(events[2].kind(), Kind::Ended { outcome: Outcome::Ok, head: Head::Good });
        assert_eq!((events[2].first_byte_us, events[2].age_us), (20_000, 100_000));
        assert_eq!(events[0].endpoint(), EndpointNumber::NONE);
        assert_eq!(events[2].endpoint(), EndpointNumber::of(2));
        assert_eq!(events.len(), 3);
    }

    #[tokio::test(start_paused = true)]
    async fn what_could_not_be_handed_over_stays_in_order() {
        let buffer = Rc::new(EventBuffer::new(Clock::new(Instant::now())));
        drop(Observation::begin(&buffer, observed()));
        let held = buffer.take(Vec::new());
        Observation::begin(&buffer, Observed { unit: 43, ..observed() }).complete();
        buffer.put_back(Batch {
            worker: 0,
            through: Duration::ZERO,
            events: held.events,
            overflowed: false,
            overhead: held.overhead,
            overhead_sum_us: 0,
            report: None,
        });
        let units: Vec<u64> = buffer.take(Vec::new()).events.iter().map(|e| e.unit).collect();
        assert_eq!(units, [42, 42, 43, 43]);
    }
}
