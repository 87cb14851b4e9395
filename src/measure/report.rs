//! What a worker says about itself once a second: connections, refusals, pauses.
//!
//! Gauges hold at the moment of the report. Counters run since the worker's start, so that a lost
//! report loses nothing; how probes went is told once.

use std::sync::Arc;

use super::EndpointNumber;

/// The state of one worker.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WorkerReport {
    /// Connections to every upstream that the worker knows.
    pub upstreams: Vec<UpstreamConnections>,
    /// How the endpoints of every upstream stand.
    pub endpoints: Vec<UpstreamEndpoints>,
    /// Requests and connections refused since the worker's start, by [`ShedReason::index`].
    pub shed: [u64; ShedReason::ALL.len()],
    /// How often accepting was paused since the worker's start, because the process ran out of
    /// file descriptors or the worker left accepting to the others.
    pub accept_pauses: u64,
    /// Connections of clients that are open.
    pub open_connections: u32,
    /// Rescues since the worker's start, of every service that has a route with `rescue`.
    pub rescues: Vec<Rescues>,
    /// Repeated requests since the worker's start, of every upstream that had some to repeat.
    pub retries: Vec<Retries>,
    /// How arms did that the worker was asked to try, since its last report.
    pub probes: Vec<Probed>,
}

/// Requests that failed on a canary and may be replayed on the baseline, by what came of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rescues {
    /// The service's name.
    pub service: Arc<str>,
    /// By [`RescueResult::index`].
    pub counts: [u64; RescueResult::ALL.len()],
}

/// Requests that failed on an endpoint and may be repeated on another one of the same arm, by what
/// came of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Retries {
    /// The upstream's name.
    pub upstream: Arc<str>,
    /// By [`RescueResult::index`].
    pub counts: [u64; RescueResult::ALL.len()],
}

/// What came of sending a request a second time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RescueResult {
    /// It was answered.
    Rescued,
    /// It failed again.
    Failed,
    /// It was not tried: too many had been sent a second time.
    OutOfBudget,
}

impl RescueResult {
    /// All results, in the order of [`RescueResult::index`].
    pub const ALL: [Self; 3] = [Self::Rescued, Self::Failed, Self::OutOfBudget];

    /// Where this result stands in [`Rescues::counts`].
    #[must_use]
    pub const fn index(self) -> usize {
        self as usize
    }

    /// The word for this result in metrics.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Rescued => "rescued",
            Self::Failed => "failed",
            Self::OutOfBudget => "out_of_budget",
        }
    }
}

/// How an arm did that was tried once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Probed {
    /// The service's name.
    pub service: Arc<str>,
    /// The arm's name.
    pub arm: Arc<str>,
    /// Whether it answered, and not by a failure.
    pub ok: bool,
}

/// The connections of one worker to one upstream, over all of its endpoints.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UpstreamConnections {
    /// The upstream's name in the configuration.
    pub upstream: Arc<str>,
    /// Open and unused.
    pub idle: u32,
    /// Open and carrying at least one request.
    pub in_use: u32,
    /// On their way to being open.
    pub connecting: u32,
}

/// How the endpoints of an upstream stand on one worker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UpstreamEndpoints {
    /// The upstream's name in the configuration.
    pub upstream: Arc<str>,
    /// Each endpoint, those among them that are still busy after they went away.
    pub endpoints: Vec<EndpointStanding>,
    /// Those that get requests.
    pub taking: Vec<EndpointNumber>,
    /// The pods that get requests, where they can be counted.
    pub pods: Option<u32>,
    /// Whether no endpoint is fit, so that all get requests.
    pub panics: bool,
}

/// How one endpoint stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EndpointStanding {
    /// Which one.
    pub number: EndpointNumber,
    /// How it stands.
    pub state: EndpointState,
}

/// How an endpoint stands, from good to bad.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum EndpointState {
    /// It gets requests.
    Ready,
    /// No health check has come back yet: it gets requests where none is ready.
    Untested,
    /// It failed several requests in a row, and is passed over for a while.
    Ejected,
    /// No connection to it could be made: it is passed over until one can.
    Unreachable,
    /// Its health checks fail: it is passed over.
    Unhealthy,
    /// It went away, and has requests that are not over.
    Draining,
}

impl EndpointState {
    /// All states, in the order of [`EndpointState::index`].
    pub const ALL: [Self; 6] = [
        Self::Ready,
        Self::Untested,
        Self::Ejected,
        Self::Unreachable,
        Self::Unhealthy,
        Self::Draining,
    ];

    /// Where this state stands in [`EndpointState::ALL`].
    #[must_use]
    pub const fn index(self) -> usize {
        self as usize
    }

    /// The word for this state in metrics.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Ready => "ready",
            Self::Untested => "untested",
            Self::Ejected => "ejected",
            Self::Unreachable => "unreachable",
            Self::Unhealthy => "unhealthy",
            Self::Draining => "draining",
        }
    }
}

/// Why the proxy refused a request or a connection of its own accord.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ShedReason {
    /// No route matches.
    NoRoute,
    /// The request is malformed or ambiguous.
    BadRequest,
    /// The method is one that a reverse proxy does not serve (CONNECT).
    Method,
    /// The header is larger than the limit, or has too many fields.
    HeaderTooLarge,
    /// The header took longer than the limit.
    HeaderTimeout,
    /// The listener has as many connections as it may have.
    Connections,
    /// The upstream has as many connections as it may have, and waiting for one took too long.
    Overload,
    /// The proxy is shutting down.
    Draining,
    /// The TLS handshake failed or took too long.
    Handshake,
    /// The connection did not begin with a PROXY header, or came from where none is believed.
    ProxyProtocol,
}

impl ShedReason {
    /// All reasons, in the order of [`ShedReason::index`].
    pub const ALL: [Self; 10] = [
        Self::NoRoute,
        Self::BadRequest,
        Self::Method,
        Self::HeaderTooLarge,
        Self::HeaderTimeout,
        Self::Connections,
        Self::Overload,
        Self::Draining,
        Self::Handshake,
        Self::ProxyProtocol,
    ];

    /// Where this reason stands in [`WorkerReport::shed`].
    #[must_use]
    pub const fn index(self) -> usize {
        self as usize
    }

    /// The word for this reason in metrics.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::NoRoute => "no_route",
            Self::BadRequest => "bad_request",
            Self::Method => "method",
            Self::HeaderTooLarge => "header_too_large",
            Self::HeaderTimeout => "header_timeout",
            Self::Connections => "connections",
            Self::Overload => "overload",
            Self::Draining => "draining",
            Self::Handshake => "handshake",
            Self::ProxyProtocol => "proxy_protocol",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_and_result_stands_at_its_index() {
        for (place, reason) in ShedReason::ALL.into_iter().enumerate() {
            assert_eq!(reason.index(), place);
        }
        for (place, result) in RescueResult::ALL.into_iter().enumerate() {
            assert_eq!(result.index(), place);
        }
    }
}
