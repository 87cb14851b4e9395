//! A tunnel: bytes both ways between a client and an upstream that have switched protocols, until
//! both have ended. It understands nothing of what it carries.

use std::{cell::Cell, io, time::Duration};

use bytes::Bytes;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, split},
    time::sleep,
};

use super::{
    clock::Clock,
    connection::InFlight,
    observe::Observation,
    upstream::{Chosen, Switched, Switching},
};
use crate::measure::Outcome;

/// Bytes that are carried at once, in each direction.
const PIECE: usize = 8 * 1024;

/// When one side has ended, the other may be silent for this long.
const HALF_CLOSED: Duration = Duration::from_secs(30);

/// What was agreed on: the upstream's end, and the request that it began as.
#[derive(Debug)]
pub(super) struct Tunnel {
    pub(super) upstream: Switching,
    pub(super) observation: Option<Observation>,
    pub(super) pulse: Pulse,
    /// Keeps the client's connection counted as busy.
    pub(super) in_flight: InFlight,
    /// Counts it at its endpoint.
    pub(super) chosen: Chosen,
}

/// How a tunnel ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// Both sides have ended, or neither had anything to say any more.
    Quiet,
    /// One side broke off.
    Broken(Side),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Side {
    Client,
    Upstream,
}

impl Tunnel {
    /// Carries bytes until the end. `early` is what the client has sent before it was told that the
    /// protocol is another one now.
    pub(super) async fn run(self, client: impl AsyncRead + AsyncWrite, early: Bytes) {
        let end = match self.upstream.switched().await {
            Some(upstream) => carry_both(client, early, upstream, self.pulse).await,
            None => End::Broken(Side::Upstream),
        };
        if let Some(observation) = self.observation {
            match end {
                End::Quiet => observation.complete(),
                End::Broken(Side::Client) => observation.finish(Outcome::Aborted),
                End::Broken(Side::Upstream) => observation.finish(Outcome::Failed),
            }
        }
        drop((self.in_flight, self.chosen));
    }
}

async fn carry_both(
    client: impl AsyncRead + AsyncWrite,
    early: Bytes,
    mut upstream: Switched,
    pulse: Pulse,
) -> End {
    let first = upstream.first();
    let (from_client, to_client) = split(client);
    let (from_upstream, to_upstream) = split(upstream.stream());
    let up = carry(&pulse, early, (from_client, Side::Client), (to_upstream, Side::Upstream));
    let down = carry(&pulse, first, (from_upstream, Side::Upstream), (to_client, Side::Client));
    let both = async {
        let ended = tokio::try_join!(up, down);
        ended.map_or_else(End::Broken, |((), ())| End::Quiet)
    };
    tokio::select! {
        end = both => end,
        () = pulse.stopped() => End::Quiet,
    }
}

/// Carries one direction to its end. An error says which side broke off.
async fn carry(
    pulse: &Pulse,
    first: Bytes,
    (mut from, reading): (impl AsyncRead + Unpin, Side),
    (mut to, writing): (impl AsyncWrite + Unpin, Side),
) -> Result<(), Side> {
    write(&mut to, &first).await.map_err(|_| writing)?;
    let mut piece = vec![0; PIECE];
    loop {
        let count = from.read(&mut piece).await.map_err(|_| reading)?;
        pulse.beats();
        if count == 0 {
            break;
        }
        write(&mut to, &piece[..count]).await.map_err(|_| writing)?;
        pulse.beats();
    }
    pulse.one_has_ended();
    // Who has gone already needs no goodbye.
    let _ = to.shutdown().await;
    Ok(())
}

async fn write(to: &mut (impl AsyncWrite + Unpin), bytes: &[u8]) -> io::Result<()> {
    to.write_all(bytes).await?;
    to.flush().await
}

/// Notices a tunnel in which nothing moves.
#[derive(Debug)]
pub(super) struct Pulse {
    clock: Clock,
    moved: Cell<Duration>,
    limit: Cell<Duration>,
}

impl Pulse {
    /// Without a byte for `limit` a tunnel is over.
    pub(super) fn new(clock: Clock, limit: Duration) -> Self {
        Self { clock, moved: Cell::new(clock.now()), limit: Cell::new(limit) }
    }

    fn beats(&self) {
        self.moved.set(self.clock.now());
    }

    fn one_has_ended(&self) {
        self.beats();
        self.limit.set(self.limit.get().min(HALF_CLOSED));
    }

    /// Comes about when nothing has moved for the limit.
    async fn stopped(&self) {
        loop {
            let still = self.clock.now().saturating_sub(self.moved.get());
            let Some(left) = self.limit.get().checked_sub(still).filter(|it| !it.is_zero()) else {
                return;
            };
            // The limit may become shorter meanwhile.
            sleep(left.min(HALF_CLOSED)).await;
        }
    }
}
