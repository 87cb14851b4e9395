//! The event: the one thing that travels from the data plane to the control plane.
//!
//! A request writes one event when it is assigned to an arm and one when it ends; a response that
//! streams for longer than its first piece of body writes one more in between, at its first byte.
//! An event is 32 bytes and carries all that counting needs, so that workers share nothing else.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// How much waiting for a connection (connecting, or queueing for a pooled one) is taken off the
/// judged latency of a request, in microseconds: judged = latency - min(wait, credit). A canary at 1 % finds its pool cold more often
/// than the baseline does; that is the proxy's doing, not the canary's. Waiting beyond the credit
/// counts in full, so an upstream that cannot be reached still shows.
pub const WAIT_CREDIT_US: u32 = 250_000;

/// A tick: 100 ms of time since the process started. Requests are counted in the tick of their
/// arrival.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct Tick(pub u32);

impl Tick {
    /// The length of a tick.
    pub const LENGTH: Duration = Duration::from_millis(100);

    /// The tick that holds the moment `since_start` after the process started.
    #[must_use]
    pub fn at(since_start: Duration) -> Self {
        Self(u32::try_from(since_start.as_millis() / 100).unwrap_or(u32::MAX))
    }

    /// The moment at which this tick ends, measured from the start of the process.
    #[must_use]
    pub fn end(self) -> Duration {
        Duration::from_millis((u64::from(self.0) + 1) * 100)
    }
}

/// The weight epoch: which set of weights was in force when a request was assigned. It counts the
/// stored tables modulo 2^24; slots live for about a minute, so equal numbers are equal epochs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Epoch(u32);

impl Epoch {
    const MASK: u32 = 0x00ff_ffff;

    /// The epoch with this number, modulo 2^24.
    #[must_use]
    pub const fn new(number: u32) -> Self {
        Self(number & Self::MASK)
    }

    /// The epoch after this one.
    #[must_use]
    pub const fn next(self) -> Self {
        Self::new(self.0.wrapping_add(1))
    }

    /// The number of this epoch, below 2^24.
    #[must_use]
    pub const fn number(self) -> u32 {
        self.0
    }
}

/// Names one route × cohort × arm of one version. Given out by the control thread, never reused:
/// a request in flight over a reload reports under the id that it began with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RecorderId(pub u32);

/// Names an endpoint of an upstream: one that the configuration lists, or one of the addresses of a
/// name. All workers know an endpoint by the same number, which it keeps for as long as it is there
/// and which nobody else has until a minute after; all that find none of 255 free share the last.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EndpointNumber(u8);

impl EndpointNumber {
    /// No endpoint: the request was not sent.
    pub const NONE: Self = Self(0);

    /// Endpoints that can be told apart.
    pub const MOST: usize = u8::MAX as usize;

    /// The number that all endpoints share for which there is none of their own.
    pub const LAST: Self = Self(u8::MAX);

    /// The endpoint at a place of the upstream's list, from 0.
    #[must_use]
    pub fn of(place: usize) -> Self {
        Self((place + 1).min(Self::MOST) as u8)
    }

    /// The number itself: 0 for none, up to [`EndpointNumber::MOST`].
    #[must_use]
    pub const fn index(self) -> usize {
        self.0 as usize
    }
}

/// How a request ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// Answered, and not counted as a failure by the route's `failed_when`.
    Ok,
    /// Failed, and the upstream is to blame: a failing status, a refused connection, a reset, a
    /// truncated body.
    Failed,
    /// No answer within the route's timeout. The upstream is to blame.
    Hung,
    /// Given up by the client before it was answered.
    Aborted,
    /// Refused or broken by the proxy itself (a limit, a shutdown). Nobody's arm is to blame.
    Local,
}

impl Outcome {
    /// All outcomes, in the order of their labels in metrics.
    pub const ALL: [Self; 5] = [Self::Ok, Self::Failed, Self::Hung, Self::Aborted, Self::Local];

    /// The word for this outcome in metrics, logs and the journal.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Failed => "failed",
            Self::Hung => "hung",
            Self::Aborted => "aborted",
            Self::Local => "local",
        }
    }
}

/// What an event says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The request was assigned to its arm. Latencies are zero.
    Assigned,
    /// The first byte of the answer came, and the body goes on. `failed` if its head already says
    /// so (a 5xx). Written only for routes judged by the first byte.
    Answered {
        /// Whether the head of the answer counts as a failure.
        failed: bool,
    },
    /// The request is over.
    Ended {
        /// How it ended.
        outcome: Outcome,
        /// What an [`Kind::Answered`] event said of it before, so that nothing counts twice.
        head: Head,
    },
}

/// What an [`Kind::Answered`] event said of a request before its end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Head {
    /// None was written.
    #[default]
    Untold,
    /// The head of the answer was good.
    Good,
    /// The head of the answer already counted as a failure.
    Failed,
}

/// One fact about one request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Event {
    /// Keyed hash of the assignment key; 0 where a coin was thrown for this request alone.
    pub unit: u64,
    /// Route × cohort × arm.
    pub recorder: RecorderId,
    /// The tick in which the request arrived.
    pub arrival: Tick,
    /// Epoch in the upper 24 bits, kind in the lower 8.
    stamp: u32,
    /// From the arrival to the first byte of the answer, in microseconds; equal to `age_us` where
    /// none came.
    pub first_byte_us: u32,
    /// From the arrival to this event, in microseconds; saturates at about 71 minutes.
    pub age_us: u32,
    /// The endpoint in the upper 8 bits, waiting in the lower 24.
    sent: u32,
}

const EXCLUDED: u8 = 0x80;
const REFUSED: u8 = 0x40;
const HEAD_SHIFT: u8 = 4;
const ENDPOINT_SHIFT: u8 = 24;
const MAX_WAIT_US: u32 = (1 << ENDPOINT_SHIFT) - 1;

impl Event {
    /// An event of `kind` for a request assigned under `epoch`. `excluded` requests (forced,
    /// pinned, health checks) are shown but left out of the evidence.
    #[must_use]
    pub const fn new(kind: Kind, epoch: Epoch, excluded: bool) -> Self {
        let code = match kind {
            Kind::Assigned => 0,
            Kind::Answered { failed: false } => 1,
            Kind::Answered { failed: true } => 2,
            Kind::Ended { outcome, head } => {
                let base = match outcome {
                    Outcome::Ok => 3,
                    Outcome::Failed => 4,
                    Outcome::Hung => 5,
                    Outcome::Aborted => 6,
                    Outcome::Local => 7,
                };
                base | (head as u8) << HEAD_SHIFT
            }
        };
        let code = code | if excluded { EXCLUDED } else { 0 };
        Self {
            unit: 0,
            recorder: RecorderId(0),
            arrival: Tick(0),
            stamp: (epoch.number() << 8) | code as u32,
            first_byte_us: 0,
            age_us: 0,
            sent: 0,
        }
    }

    /// The weight epoch in which the request was assigned.
    #[must_use]
    pub const fn epoch(&self) -> Epoch {
        Epoch::new(self.stamp >> 8)
    }

    /// What this event says.
    #[must_use]
    pub const fn kind(&self) -> Kind {
        let code = (self.stamp & 0xff) as u8;
        let head = match (code >> HEAD_SHIFT) & 0x03 {
            0 => Head::Untold,
            1 => Head::Good,
            _ => Head::Failed,
        };
        match code & 0x0f {
            0 => Kind::Assigned,
            1 => Kind::Answered { failed: false },
            2 => Kind::Answered { failed: true },
            3 => Kind::Ended { outcome: Outcome::Ok, head },
            4 => Kind::Ended { outcome: Outcome::Failed, head },
            5 => Kind::Ended { outcome: Outcome::Hung, head },
            6 => Kind::Ended { outcome: Outcome::Aborted, head },
            _ => Kind::Ended { outcome: Outcome::Local, head },
        }
    }

    /// The same for a request that waited for a connection (connecting, or queueing for a pooled
    /// one) for so many microseconds; saturates at about 17 s.
    #[must_use]
    pub const fn with_wait(mut self, wait_us: u32) -> Self {
        let wait_us = if wait_us < MAX_WAIT_US { wait_us } else { MAX_WAIT_US };
        self.sent = (self.sent & !MAX_WAIT_US) | wait_us;
        self
    }

    /// How long the request waited for a connection, in microseconds.
    #[must_use]
    pub const fn wait_us(&self) -> u32 {
        self.sent & MAX_WAIT_US
    }

    /// The same for a request that was sent to an endpoint.
    #[must_use]
    pub const fn with_endpoint(mut self, endpoint: EndpointNumber) -> Self {
        self.sent = (self.sent & MAX_WAIT_US) | ((endpoint.0 as u32) << ENDPOINT_SHIFT);
        self
    }

    /// The endpoint that the request was sent to last.
    #[must_use]
    pub const fn endpoint(&self) -> EndpointNumber {
        EndpointNumber((self.sent >> ENDPOINT_SHIFT) as u8)
    }

    /// The same for a request that was refused: answered with a 4xx that is no failure.
    #[must_use]
    pub const fn of_refused(mut self) -> Self {
        self.stamp |= REFUSED as u32;
        self
    }

    /// Whether the request was refused.
    #[must_use]
    pub const fn refused(&self) -> bool {
        self.stamp & REFUSED as u32 != 0
    }

    /// Whether the request is left out of the evidence.
    #[must_use]
    pub const fn excluded(&self) -> bool {
        self.stamp & EXCLUDED as u32 != 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_thirty_two_bytes() {
        assert_eq!(size_of::<Event>(), 32);
    }

    #[test]
    fn waiting_and_endpoint_keep_out_of_each_others_way() {
        let event = Event::new(Kind::Assigned, Epoch::new(1), false);
        assert_eq!((event.wait_us(), event.endpoint()), (0, EndpointNumber::NONE));
        for (place, wait_us) in [(0, 1), (200, MAX_WAIT_US), (9999, u32::MAX)] {
            let sent = event.with_wait(wait_us).with_endpoint(EndpointNumber::of(place));
            assert_eq!(
                (sent.wait_us(), sent.endpoint()),
                (wait_us.min(MAX_WAIT_US), EndpointNumber::of(place))
            );
            assert_eq!(sent.with_wait(7).endpoint(), sent.endpoint());
        }
        assert_eq!(EndpointNumber::of(254), EndpointNumber::of(300));
        assert_ne!(EndpointNumber::of(0), EndpointNumber::NONE);
    }

    #[test]
    fn every_kind_survives_packing() {
        let mut kinds =
            vec![Kind::Assigned, Kind::Answered { failed: false }, Kind::Answered { failed: true }];
        for outcome in Outcome::ALL {
            for head in [Head::Untold, Head::Good, Head::Failed] {
                kinds.push(Kind::Ended { outcome, head });
            }
        }
        for kind in kinds {
            for excluded in [false, true] {
                let event = Event::new(kind, Epoch::new(0x00ab_cdef), excluded);
                assert_eq!(event.kind(), kind);
                assert_eq!(event.excluded(), excluded);
                assert_eq!(event.epoch(), Epoch::new(0x00ab_cdef));
                assert!(!event.refused());
                let refused = event.of_refused();
                assert!(refused.refused());
                assert_eq!((refused.kind(), refused.excluded()), (kind, excluded));
                assert_eq!(refused.epoch(), event.epoch());
            }
        }
    }
}
