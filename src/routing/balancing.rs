//! How the requests of an upstream are spread over its endpoints, and which of these are passed
//! over: settings alone. What is made of them is the data plane's subject.

use std::{sync::Arc, time::Duration};

use super::Statuses;

/// How an upstream's requests are spread over its endpoints.
#[derive(Clone, Debug, PartialEq)]
pub struct Balancing {
    /// Which endpoint gets a request.
    pub policy: Policy,
    /// Names are resolved again after this long.
    pub resolve_every: Duration,
    /// When an endpoint that fails is passed over for a while; never where left out.
    pub eject: Option<Eject>,
    /// Most requests that one worker has in flight to one endpoint.
    pub max_requests: Option<u32>,
    /// For so long the share of an endpoint that is new or well again grows.
    pub slow_start: Option<Duration>,
}

impl Default for Balancing {
    fn default() -> Self {
        Self {
            policy: Policy::default(),
            resolve_every: Duration::from_secs(5),
            eject: None,
            max_requests: None,
            slow_start: None,
        }
    }
}

/// Which endpoint gets a request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Policy {
    /// Of two drawn at random the one with the smaller product of its latency and its requests in
    /// flight.
    PeakEwma,
    /// Of two drawn at random the one with fewer requests in flight.
    LeastRequest,
    /// One after the other. The default: it avoids no pod for being slow, so that an arm with few
    /// pods is not at a disadvantage against one with many.
    #[default]
    RoundRobin,
}

/// When an endpoint that fails is passed over for a while.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Eject {
    /// After so many failures in a row; at least 1.
    pub failures: u32,
    /// For so long at first, and longer every time that it fails again.
    pub period: Duration,
    /// At most this share of an upstream's endpoints at a time, rounded down; but one of several
    /// always may be. From 0 to 1.
    pub at_most: f64,
}

/// Requests of the proxy's own that tell which endpoints are well.
#[derive(Clone, Debug, PartialEq)]
pub struct HealthCheck {
    /// What is asked for.
    pub ask: HealthQuestion,
    /// How often.
    pub interval: Duration,
    /// How long the answer may take.
    pub timeout: Duration,
    /// An endpoint that was not well is well after so many good answers in a row.
    pub healthy: u32,
    /// An endpoint that was well is not any more after so many bad answers in a row.
    pub unhealthy: u32,
}

/// What a health check asks for.
#[derive(Clone, Debug, PartialEq)]
pub enum HealthQuestion {
    /// A path, query included, and the statuses that are good.
    Path {
        /// The path.
        path: Arc<str>,
        /// The good ones.
        good: Statuses,
    },
    /// A service's name, by `grpc.health.v1`; empty for the whole server.
    Grpc(Arc<str>),
}
