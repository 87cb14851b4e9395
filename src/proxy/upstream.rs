//! Upstream connections: one pool per upstream on every worker, with the choice of an endpoint.
//!
//! A request leases a connection and gives it back when both its bodies are complete; anything
//! else closes it. Nothing here decides whether a request may be sent again; it only says whether
//! the upstream can have taken it.

mod answer;
mod connection;
mod endpoint;
mod h1;
mod h2;
mod tls;
mod wire;

use std::{cell::Cell, io, rc::Rc, sync::Arc};

use self::endpoint::EndpointPool;
pub(super) use self::{
    answer::AnswerBody,
    connection::{BrokenOff, Lease, SendError},
    h1::{Switched, Switching},
};
use super::{clock::Clock, deadline::Deadlines};
use crate::routing::Upstream;

/// Why no connection could be had.
#[derive(Debug, thiserror::Error)]
pub(super) enum ConnectError {
    #[error("connecting to the upstream failed: {0}")]
    Io(#[from] io::Error),
    #[error("the upstream did not accept the connection in time")]
    Timeout,
    #[error("the name of the upstream has no address")]
    NoAddress,
    #[error("the handshake with the upstream failed: {0}")]
    Handshake(#[from] hyper::Error),
    #[error("the handshake with the upstream failed: {0}")]
    Http2(::h2::Error),
    #[error("the upstream does not speak HTTP/2")]
    NotHttp2,
    #[error("the upstream speaks HTTP/2 alone, in which no other protocol can be switched to")]
    NotHttp1,
    #[error("the upstream did not agree on HTTP/2")]
    NotAgreed,
    #[error("the TLS handshake with the upstream failed: {0}")]
    Tls(io::Error),
    #[error("the files for TLS to the upstream are of no use")]
    TlsFiles,
    #[error("there is no name to verify the upstream by")]
    NoServerName,
    #[error("{0}")]
    Joined(Rc<ConnectError>),
    #[error("too many requests wait for a connection to this upstream")]
    Overloaded,
    #[error("the upstream has no endpoints")]
    NoEndpoint,
}

/// The connections of one worker to one upstream.
#[derive(Debug)]
pub(super) struct Pool {
    spec: Arc<Upstream>,
    endpoints: Vec<Rc<EndpointPool>>,
    turn: Cell<usize>,
}

/// How many connections a pool has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct PoolCounts {
    pub(super) idle: u32,
    pub(super) in_use: u32,
    pub(super) connecting: u32,
}

impl Pool {
    pub(super) fn new(spec: &Arc<Upstream>, clock: Clock, deadlines: &Rc<Deadlines>) -> Self {
        let endpoints = (0..spec.endpoints.len())
            .map(|place| EndpointPool::new(spec, place, clock, deadlines))
            .collect();
        Self { spec: Arc::clone(spec), endpoints, turn: Cell::new(0) }
    }

    pub(super) fn spec(&self) -> &Arc<Upstream> {
        &self.spec
    }

    pub(super) fn counts(&self) -> PoolCounts {
        self.endpoints.iter().fold(PoolCounts::default(), |sum, endpoint| {
            let counts = endpoint.counts();
            PoolCounts {
                idle: sum.idle + counts.idle,
                in_use: sum.in_use + counts.in_use,
                connecting: sum.connecting + counts.connecting,
            }
        })
    }

    /// A connection that is ready for a request; a new one if `fresh`.
    pub(super) async fn lease(&self, fresh: bool) -> Result<Lease, ConnectError> {
        self.pick().ok_or(ConnectError::NoEndpoint)?.lease(fresh).await
    }

    /// The endpoint with the fewest requests, in turn among equals.
    pub(super) fn pick(&self) -> Option<&Rc<EndpointPool>> {
        if let [only] = self.endpoints.as_slice() {
            return Some(only);
        }
        let count = self.endpoints.len();
        let turn = self.turn.get();
        self.turn.set(turn.wrapping_add(1));
        (0..count)
            .map(|offset| &self.endpoints[(turn.wrapping_add(offset)) % count])
            .min_by_key(|endpoint| endpoint.load())
    }

    /// Opens connections until `asked` are open, or as many as warm-up wants. `first` is the
    /// endpoint that gets one more than others where they cannot be even.
    pub(super) fn open_ahead(&self, asked: u32, first: usize) {
        let count = self.endpoints.len().max(1);
        let always = self.spec.warmup.map_or(0, |warmup| warmup.connections);
        for (index, endpoint) in self.endpoints.iter().enumerate() {
            let place = (index + count - first % count) % count;
            let share = asked / count as u32 + u32::from(place < asked as usize % count);
            endpoint.open_ahead(always.max(share));
        }
    }

    /// Closes what has been idle for too long.
    pub(super) fn maintain(&self) {
        for endpoint in &self.endpoints {
            endpoint.maintain();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::{
        task::LocalSet,
        time::{Instant, advance},
    };

    use super::*;
    use crate::routing::{Endpoint, Http2, Protocol};

    fn pool_to(endpoint: Endpoint) -> (Pool, Clock, Rc<Deadlines>) {
        let spec = Arc::new(Upstream {
            name: "one".into(),
            endpoints: vec![endpoint],
            protocol: Protocol::Auto,
            replicas: None,
            tls: None,
            warmup: None,
            health: None,
            max_connections: 100,
            idle_connections: 100,
            idle_timeout: Duration::from_secs(3),
            connect_timeout: Duration::from_secs(3),
            h2: Http2::default(),
        });
        let clock = Clock::new(Instant::now());
        let deadlines = Rc::new(Deadlines::new(clock));
        (Pool::new(&spec, clock, &deadlines), clock, deadlines)
    }

    #[tokio::test(start_paused = true)]
    async fn what_cannot_be_opened_ahead_is_tried_less_and_less_often() {
        let nowhere = Endpoint::Unix("/nonexistent/haldane.sock".into());
        let (pool, clock, deadlines) = pool_to(nowhere);
        let tasks = LocalSet::new();
        let attempts = tasks.run_until(async {
            let mut last = 0;
            let mut attempts = Vec::new();
            for _ in 0..600 {
                deadlines.advance(clock.now());
                pool.open_ahead(4, 0);
                advance(Duration::from_millis(100)).await;
                for _ in 0..16 {
                    tokio::task::yield_now().await;
                }
                let failures = pool.endpoints[0].failures_ahead();
                if failures > last {
                    attempts.push(clock.now().as_millis() / 100);
                    last = failures;
                }
            }
            attempts
        });
        let attempts = attempts.await;
        assert!((7..=12).contains(&attempts.len()), "{attempts:?}");
        let pauses: Vec<u128> = attempts.windows(2).map(|it| it[1] - it[0]).collect();
        assert!(pauses.is_sorted() && pauses.last() >= Some(&128), "{pauses:?}");
        assert_eq!(pool.counts(), PoolCounts::default());
    }
}
