//! The pulse of a connection: pings to a peer that is silent while requests wait for it.
//!
//! gRPC servers end a connection that is pinged more than twice without an answer's frames in
//! between, unless five minutes lie between the pings (gRPC proposal A8, `ping strikes`). So a
//! silence is asked about once, and a long one again every five minutes.

use std::{
    rc::Rc,
    task::{Context, Waker},
    time::Duration,
};

use h2::{Ping, PingPong};

use crate::{proxy::upstream::wire::Tally, routing::Http2};

/// Between two pings into one silence: a little more than what gRPC servers insist on.
const AGAIN: Duration = Duration::from_secs(310);

/// What is known of the peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Beat {
    /// Nothing speaks against it.
    Alive,
    /// It did not answer.
    Dead,
}

/// Watches one connection.
#[derive(Debug)]
pub(super) struct Pulse {
    interval: Duration,
    timeout: Duration,
    pings: Option<PingPong>,
    watch: Watch,
}

/// The part without a connection: what was read when, what was asked when.
#[derive(Debug, Default)]
struct Watch {
    reads: u32,
    /// Since when nothing was read while requests waited.
    silent_since: Option<Duration>,
    /// When the ping was sent that was not answered yet.
    asked: Option<Duration>,
    /// When the last ping was sent into this silence, or into one before without an answer since.
    last: Option<Duration>,
}

/// What to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Act {
    Nothing,
    Ask,
    GiveUp,
}

impl Watch {
    /// `busy`: whether requests wait; `reads`: changes whenever something was read.
    fn look(&mut self, now: Duration, busy: bool, reads: u32, limits: (Duration, Duration)) -> Act {
        let (interval, timeout) = limits;
        if reads != self.reads {
            self.reads = reads;
            // A pong alone says that the peer lives, not that it would bear another ping soon.
            if self.asked.take().is_none() {
                self.last = None;
            }
            self.silent_since = None;
        }
        if let Some(asked) = self.asked {
            return if now.saturating_sub(asked) >= timeout { Act::GiveUp } else { Act::Nothing };
        }
        if !busy {
            self.silent_since = None;
            return Act::Nothing;
        }
        let silent_since = *self.silent_since.get_or_insert(now);
        let again = self.last.is_none_or(|last| now.saturating_sub(last) >= AGAIN);
        if now.saturating_sub(silent_since) < interval || !again {
            return Act::Nothing;
        }
        self.asked = Some(now);
        self.last = Some(now);
        Act::Ask
    }
}

impl Pulse {
    pub(super) fn new(settings: &Http2, pings: Option<PingPong>, tally: &Rc<Tally>) -> Self {
        Self {
            interval: settings.ping_interval,
            timeout: settings.ping_timeout,
            pings,
            watch: Watch { reads: tally.reads.get(), ..Watch::default() },
        }
    }

    pub(super) fn feel(&mut self, now: Duration, busy: bool, tally: &Tally) -> Beat {
        let Some(pings) = &mut self.pings else { return Beat::Alive };
        // Takes the pong of the last ping, without which no other can be sent.
        let _ = pings.poll_pong(&mut Context::from_waker(Waker::noop()));
        match self.watch.look(now, busy, tally.reads.get(), (self.interval, self.timeout)) {
            Act::Nothing => Beat::Alive,
            Act::Ask => {
                // A connection that has ended tells its streams itself.
                let _ = pings.send_ping(Ping::opaque());
                Beat::Alive
            }
            Act::GiveUp => Beat::Dead,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: (Duration, Duration) = (Duration::from_secs(20), Duration::from_secs(10));

    /// Looks once a second; `reads` says when something is read. Gives what was done when.
    fn play(seconds: u64, reads: impl Fn(u64) -> bool) -> Vec<(u64, Act)> {
        let mut watch = Watch::default();
        let mut count = 0;
        (0..seconds)
            .filter_map(|second| {
                count += u32::from(reads(second));
                let act = watch.look(Duration::from_secs(second), true, count, LIMITS);
                (act != Act::Nothing).then_some((second, act))
            })
            .collect()
    }

    #[test]
    fn a_peer_that_is_silent_is_asked_and_then_given_up() {
        assert_eq!(play(31, |_| false), [(20, Act::Ask), (30, Act::GiveUp)]);
    }

    #[test]
    fn a_quiet_stream_is_asked_about_no_more_often_than_servers_bear() {
        let pongs = |second| matches!(second, 21 | 331 | 641);
        assert_eq!(play(700, pongs), [(20, Act::Ask), (330, Act::Ask), (640, Act::Ask)]);
    }

    #[test]
    fn a_peer_that_answers_is_not_asked() {
        assert_eq!(play(200, |second| second % 15 == 0), []);
        let bursts = |second| matches!(second, 21 | 40);
        assert_eq!(play(62, bursts), [(20, Act::Ask), (60, Act::Ask)]);
    }

    #[test]
    fn a_connection_that_nobody_waits_on_is_left_alone() {
        let mut watch = Watch::default();
        for second in 0..100 {
            assert_eq!(watch.look(Duration::from_secs(second), false, 0, LIMITS), Act::Nothing);
        }
    }
}
