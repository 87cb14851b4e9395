//! The table: all that the workers know about routes, services and weights, as plain data.
//!
//! `config` compiles everything in here but [`LiveTable::dials`], [`LiveTable::asks`] and
//! [`Route::recorders`], which the control thread fills in before it stores the table.

use std::{net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};

use http::{HeaderName, HeaderValue};
use ipnet::IpNet;

use super::{Balancing, HealthCheck, asks::Asks, dial::Dials, matcher::RouteTable};
use crate::measure::{Epoch, RecorderId};

/// What the workers read: one immutable snapshot, behind the only `ArcSwap` of the program.
#[derive(Clone, Debug)]
pub struct LiveTable {
    /// Routes, cohorts, services and upstreams.
    pub routes: Arc<RouteTable>,
    /// The weights in force.
    pub dials: Arc<Dials>,
    /// The number of this set of weights.
    pub epoch: Epoch,
    /// What else the workers are asked for.
    pub asks: Arc<Asks>,
}

/// Index into [`RouteTable::routes`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RouteId(pub u32);

/// Index into [`RouteTable::services`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ServiceId(pub u32);

/// Index into [`RouteTable::upstreams`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct UpstreamId(pub u32);

/// A cohort: 0 is `default`, the others count from 1 in the order of the configuration.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CohortId(pub u16);

/// An arm of a service: 0 is the baseline, the canaries count from 1 in order of declaration.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ArmIndex(pub u8);

/// What leads a request to a service, and how it is treated there.
#[derive(Clone, Debug)]
pub struct Route {
    /// The name in metrics and status.
    pub name: Arc<str>,
    /// Where the route leads.
    pub service: ServiceId,
    /// After this long without an answer a request is hung.
    pub timeout: Duration,
    /// Which latency is judged.
    pub judged: Judged,
    /// Which answers count as failures.
    pub failed_when: FailedWhen,
    /// Whether an idempotent request that fails on a canary before the first byte of its answer is
    /// replayed on the baseline.
    pub rescue: bool,
    /// How often an idempotent request without a body, whose endpoint broke off before its answer,
    /// is repeated on another endpoint of its arm.
    pub retries: u32,
    /// Which other protocols its requests may switch to.
    pub upgrades: Upgrades,
    /// Changes of host and path before forwarding.
    pub rewrite: Rewrite,
    /// Changes to the request's header.
    pub request_headers: HeaderOps,
    /// Changes to the response's header.
    pub response_headers: HeaderOps,
    /// Under which ids this route's requests are counted; filled in by the control thread.
    pub recorders: RecorderGrid,
}

/// The recorder ids of one route, by cohort and arm.
#[derive(Clone, Debug, Default)]
pub struct RecorderGrid {
    /// The id of column 0, arm 0.
    pub base: RecorderId,
    /// Number of arms of the service.
    pub arms: u32,
    /// Column by cohort; a cohort beyond its end counts in the last column, `other`.
    pub columns: Arc<[u16]>,
    /// Column of the cohorts that `columns` does not name.
    pub other: u16,
}

impl RecorderGrid {
    /// The recorder for a cohort and an arm.
    #[must_use]
    pub fn at(&self, cohort: CohortId, arm: ArmIndex) -> RecorderId {
        let column = self.columns.get(usize::from(cohort.0)).copied().unwrap_or(self.other);
        RecorderId(self.base.0 + u32::from(column) * self.arms + u32::from(arm.0))
    }
}

/// Which latency a route is judged by. Both are always recorded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Judged {
    /// Until the first byte of the answer.
    #[default]
    FirstByte,
    /// Until the last byte; includes the client's download speed.
    Total,
}

/// A set of statuses.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Statuses {
    /// One bit per status from 100 to 599, bit `status - 100` of the array of words.
    words: [u64; 8],
}

impl Statuses {
    /// Adds the statuses from `first` to `last`; those outside 100 to 599 are passed over.
    pub fn add(&mut self, first: u16, last: u16) {
        for status in first.max(100)..=last.min(599) {
            let bit = usize::from(status - 100);
            self.words[bit / 64] |= 1 << (bit % 64);
        }
    }

    /// Whether a status is one of them.
    #[must_use]
    pub fn contain(&self, status: http::StatusCode) -> bool {
        let bit = usize::from(status.as_u16()).wrapping_sub(100);
        self.words.get(bit / 64).is_some_and(|word| word >> (bit % 64) & 1 == 1)
    }
}

/// Which protocols the requests of a route may switch to, and how long those may be silent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Upgrades {
    /// Their names in `Upgrade`, in lower case.
    pub protocols: Vec<Arc<str>>,
    /// Without a byte in either direction for this long, it is over.
    pub idle_timeout: Duration,
}

impl Default for Upgrades {
    /// WebSocket, silent for an hour at most.
    fn default() -> Self {
        let idle_timeout = Duration::from_secs(3600);
        Self { protocols: vec!["websocket".into()], idle_timeout }
    }
}

impl Upgrades {
    /// Whether a request may switch to a protocol, whose name is compared without regard to case.
    #[must_use]
    pub fn allow(&self, protocol: &[u8]) -> bool {
        let protocol = protocol.trim_ascii();
        self.protocols.iter().any(|known| known.as_bytes().eq_ignore_ascii_case(protocol))
    }
}

/// Which answers count as failures of the arm.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FailedWhen {
    /// The statuses that do.
    pub statuses: Statuses,
    /// One bit per gRPC status code from 0 to 16, looked at only in gRPC answers.
    pub grpc: u32,
}

impl FailedWhen {
    /// UNKNOWN, DEADLINE_EXCEEDED, INTERNAL, UNAVAILABLE, DATA_LOSS.
    pub const GRPC_DEFAULT: u32 = 1 << 2 | 1 << 4 | 1 << 13 | 1 << 14 | 1 << 15;

    /// These statuses fail, and what gRPC says.
    #[must_use]
    pub const fn of(statuses: Statuses) -> Self {
        Self { statuses, grpc: Self::GRPC_DEFAULT }
    }

    /// Whether an answer with this status is a failure.
    #[must_use]
    pub fn status(&self, status: http::StatusCode) -> bool {
        self.statuses.contain(status)
    }
}

impl Default for FailedWhen {
    /// `[5xx]` and the gRPC codes of [`FailedWhen::GRPC_DEFAULT`].
    fn default() -> Self {
        let mut all = Statuses::default();
        all.add(500, 599);
        Self::of(all)
    }
}

/// Changes of the request's target before it is forwarded.
#[derive(Clone, Debug, Default)]
pub struct Rewrite {
    /// The `Host` (or `:authority`) that the upstream sees; the client's where left out.
    pub host: Option<HeaderValue>,
    /// Replaces the given prefix of the path (on a segment border) by another one.
    pub path_prefix: Option<(Arc<str>, Arc<str>)>,
}

/// Changes to a header: `remove` first, then `set`, then `add`.
#[derive(Clone, Debug, Default)]
pub struct HeaderOps {
    /// Fields that are taken away.
    pub remove: Vec<HeaderName>,
    /// Fields that replace all of their name.
    pub set: Vec<(HeaderName, HeaderValue)>,
    /// Fields that are added to those of their name.
    pub add: Vec<(HeaderName, HeaderValue)>,
}

/// A baseline and its canaries.
#[derive(Clone, Debug)]
pub struct Service {
    /// The name in configuration, metrics and status.
    pub name: Arc<str>,
    /// Baseline first, then the canaries in order of declaration; at most 255.
    pub arms: Vec<Arm>,
    /// Where the assignment key comes from: the first one present. Empty: a coin per request.
    pub assign_by: Vec<KeySource>,
    /// Keys the hash.
    pub salt: Salt,
    /// Lets trusted clients choose their arm.
    pub override_by: Option<Override>,
    /// What the service says about cohorts, by [`CohortId`]; cohorts beyond the end have none.
    pub cohorts: Vec<CohortPolicy>,
    /// Whether answers carry `x-haldane-arm`.
    pub arm_header: bool,
    /// Header fields that some arm sets: taken away from every client's request first.
    pub toggles: Vec<HeaderName>,
}

/// One arm of a service.
#[derive(Clone, Debug)]
pub struct Arm {
    /// `baseline`, or the canary's name.
    pub name: Arc<str>,
    /// The version, for canaries; empty for the baseline.
    pub version: Arc<str>,
    /// Where its requests go.
    pub upstream: UpstreamId,
    /// The arm's feature toggles.
    pub request_headers: HeaderOps,
}

/// Where an assignment key is read from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeySource {
    /// The value of a cookie.
    Cookie(Arc<str>),
    /// The value of a header field.
    Header(HeaderName),
    /// The value of a query parameter.
    Query(Arc<str>),
    /// The client's address.
    ClientIp,
}

/// The 128-bit key of a service's SipHash.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Salt(pub u64, pub u64);

/// A header by which trusted clients choose their arm.
#[derive(Clone, Debug)]
pub struct Override {
    /// The header field; its value is an arm's name or `never`.
    pub header: HeaderName,
    /// The client addresses that are believed.
    pub from: Vec<IpNet>,
}

/// What a service says about one cohort.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CohortPolicy {
    /// All of the cohort goes to this arm (while it is not rolled back), outside the evidence.
    pub pin: Option<ArmIndex>,
    /// A canary's weight in this cohort is at most this many buckets of 0.01 %.
    pub max_weight_bp: Option<u16>,
}

/// A named set of endpoints.
#[derive(Clone, Debug, PartialEq)]
pub struct Upstream {
    /// The name in configuration and metrics.
    pub name: Arc<str>,
    /// Where it is.
    pub endpoints: Vec<Endpoint>,
    /// What it speaks.
    pub protocol: Protocol,
    /// Pods behind the endpoints where these hide them.
    pub replicas: Option<u32>,
    /// TLS towards the upstream; plain where left out.
    pub tls: Option<UpstreamTls>,
    /// Connections opened before traffic comes, and the time of wider tolerance.
    pub warmup: Option<Warmup>,
    /// What is asked for to learn whether it is well; nothing where left out.
    pub health: Option<HealthCheck>,
    /// How its requests are spread over its endpoints.
    pub balancing: Balancing,
    /// Most connections that one worker opens to one endpoint.
    pub max_connections: u32,
    /// Idle connections that one worker keeps for one endpoint.
    pub idle_connections: u32,
    /// After this long a connection that nobody uses is closed.
    pub idle_timeout: Duration,
    /// Time for a connection to be made.
    pub connect_timeout: Duration,
    /// Connections that speak HTTP/2.
    pub h2: Http2,
}

/// HTTP/2 towards an upstream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Http2 {
    /// Most requests that share a connection before another one is opened.
    pub streams: u32,
    /// After this long without a sign of life from an upstream that requests wait for, it is
    /// pinged.
    pub ping_interval: Duration,
    /// After this long without an answer to a ping its connection is given up.
    pub ping_timeout: Duration,
}

impl Default for Http2 {
    fn default() -> Self {
        Self {
            // What most servers allow.
            streams: 100,
            ping_interval: Duration::from_secs(20),
            ping_timeout: Duration::from_secs(10),
        }
    }
}

impl Upstream {
    /// One without endpoints, with everything else at its default.
    #[must_use]
    pub fn bare(name: &str) -> Self {
        Self {
            name: name.into(),
            endpoints: Vec::new(),
            protocol: Protocol::default(),
            replicas: None,
            tls: None,
            warmup: None,
            health: None,
            balancing: Balancing::default(),
            max_connections: 1024,
            idle_connections: 256,
            // Below the keep-alive of common servers (5 s), so that few connections go stale.
            idle_timeout: Duration::from_secs(3),
            connect_timeout: Duration::from_secs(3),
            h2: Http2::default(),
        }
    }

    /// Whether connections to an endpoint that both have are made and kept alike.
    #[must_use]
    pub fn connects_like(&self, other: &Self) -> bool {
        let alike = Self {
            endpoints: other.endpoints.clone(),
            replicas: other.replicas,
            warmup: other.warmup,
            health: other.health.clone(),
            balancing: other.balancing.clone(),
            ..self.clone()
        };
        alike == *other
    }

    /// Whether its endpoints are to be looked up or asked again and again.
    #[must_use]
    pub fn needs_lookout(&self) -> bool {
        self.health.is_some() || self.has_names()
    }

    /// Whether some of its endpoints are names.
    #[must_use]
    pub fn has_names(&self) -> bool {
        self.endpoints.iter().any(|endpoint| matches!(endpoint, Endpoint::Name(..)))
    }
}

/// Where an upstream listens.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Endpoint {
    /// An address and port.
    Address(SocketAddr),
    /// A name and port, resolved again and again.
    Name(Arc<str>, u16),
    /// A Unix socket.
    Unix(PathBuf),
}

/// The protocol spoken with an upstream.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Protocol {
    /// HTTP/1.1 in the clear, what ALPN agrees on over TLS.
    #[default]
    Auto,
    /// HTTP/1.1.
    Http1,
    /// HTTP/2.
    H2,
}

/// TLS towards an upstream. Paths are absolute.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UpstreamTls {
    /// The name sent by SNI and verified; the endpoint's where left out.
    pub server_name: Option<Arc<str>>,
    /// Certificates to verify the upstream by; the system's where left out.
    pub ca: Option<PathBuf>,
    /// Certificate and key shown to the upstream.
    pub identity: Option<(PathBuf, PathBuf)>,
}

/// Warm-up of an upstream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Warmup {
    /// Connections opened ahead, per worker and endpoint.
    pub connections: u32,
    /// How long the arm is judged with a wider tolerance, at 1 % or less.
    pub period: Duration,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_recorder_is_found_by_cohort_and_arm_and_late_cohorts_count_as_other() {
        let grid =
            RecorderGrid { base: RecorderId(100), arms: 3, columns: Arc::new([0, 2, 1]), other: 3 };
        let at = |cohort, arm| grid.at(CohortId(cohort), ArmIndex(arm)).0;
        assert_eq!([at(0, 0), at(0, 1), at(0, 2)], [100, 101, 102]);
        assert_eq!([at(1, 0), at(1, 2)], [106, 108]);
        assert_eq!(at(2, 1), 104);
        assert_eq!([at(3, 0), at(900, 2)], [109, 111]);
    }

    #[test]
    fn failing_statuses_are_those_that_were_named() {
        let mut failed = FailedWhen::default();
        failed.statuses.add(429, 429);
        let fails = |code| failed.status(http::StatusCode::from_u16(code).unwrap());
        assert!(fails(500) && fails(503) && fails(599) && fails(429));
        assert!(!fails(428) && !fails(499) && !fails(200) && !fails(600));
    }
}
