//! Upstreams as written.

use schemars::JsonSchema;
use serde::Deserialize;

use crate::config::{
    given::{Given, Many},
    values::{Count, Percent, Text, Time},
};

/// An upstream's name, an endpoint (anything with a `:`), or an upstream in place.
#[derive(Deserialize, JsonSchema)]
#[serde(rename = "\0shape")]
#[schemars(rename = "UpstreamOrName", untagged)]
pub(in crate::config) enum UpstreamOrName {
    /// A name or an endpoint.
    #[serde(rename = "scalar")]
    Text(Text),
    /// An upstream in place.
    #[serde(rename = "map")]
    InPlace(Box<Upstream>),
}

/// A named set of endpoints.
#[derive(Default, Deserialize, JsonSchema)]
#[serde(default)]
#[schemars(deny_unknown_fields)]
pub(in crate::config) struct Upstream {
    /// `10.0.0.1:9001`, `checkout.internal:9001` (resolved again and again) or
    /// `unix:/run/checkout.sock`.
    pub(in crate::config) endpoints: Given<Many<Text>>,
    /// What it speaks. Default: auto, HTTP/1.1 in the clear and what ALPN agrees on over TLS.
    pub(in crate::config) protocol: Given<Protocol>,
    /// Pods behind the endpoints where these hide them, as one virtual address does.
    pub(in crate::config) replicas: Given<Count>,
    /// TLS towards it; plain where left out.
    pub(in crate::config) tls: Given<UpstreamTls>,
    /// Requests of the proxy's own; none where left out.
    pub(in crate::config) health_check: Given<HealthCheck>,
    /// Connections made before traffic comes, and a time of wider tolerance.
    pub(in crate::config) warmup: Given<Warmup>,
    /// Connections of each worker to each endpoint.
    pub(in crate::config) pool: Given<Pool>,
    /// Those of them that speak HTTP/2.
    pub(in crate::config) h2: Given<Http2>,
    /// Which of several endpoints gets a request. Default: round_robin, which compares arms cleanly.
    pub(in crate::config) balance: Given<Balance>,
    /// How often names are resolved. Default: 5s.
    pub(in crate::config) resolve_every: Given<Time>,
    /// Passes over an endpoint that fails; none where left out.
    pub(in crate::config) eject: Given<Eject>,
    /// For so long the share of an endpoint that is new or well again grows; none where left out.
    pub(in crate::config) slow_start: Given<Time>,
}

/// Which of several endpoints gets a request.
#[derive(Clone, Copy, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(in crate::config) enum Balance {
    /// Of two drawn at random the one with the smaller product of latency and requests in flight.
    PeakEwma,
    /// Of two drawn at random the one with fewer requests in flight.
    LeastRequest,
    /// One after the other.
    RoundRobin,
}

/// When an endpoint that fails is passed over. Its failures count against its arm all the same.
#[derive(Default, Deserialize, JsonSchema)]
#[serde(default)]
#[schemars(deny_unknown_fields)]
pub(in crate::config) struct Eject {
    /// After so many failures in a row, on each worker. Default: 5.
    pub(in crate::config) failures: Given<Count>,
    /// For so long, and longer when it fails again soon. Default: 10s.
    #[serde(rename = "for")]
    pub(in crate::config) period: Given<Time>,
    /// At most this part of the endpoints at a time, but one of several always may be. Default: 50%.
    pub(in crate::config) at_most: Given<Percent>,
}

/// A protocol.
#[derive(Clone, Copy, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(in crate::config) enum Protocol {
    /// HTTP/1.1 in the clear, what ALPN agrees on over TLS.
    Auto,
    /// HTTP/1.1.
    Http1,
    /// HTTP/2.
    H2,
}

/// TLS towards an upstream.
#[derive(Default, Deserialize, JsonSchema)]
#[serde(default)]
#[schemars(deny_unknown_fields)]
pub(in crate::config) struct UpstreamTls {
    /// The name asked for and verified. Default: the endpoint's.
    pub(in crate::config) server_name: Given<Text>,
    /// Certificates to verify it by, PEM. Default: the system's.
    pub(in crate::config) ca: Given<Text>,
    /// A certificate to show, PEM.
    pub(in crate::config) cert: Given<Text>,
    /// Its key, PEM.
    pub(in crate::config) key: Given<Text>,
}

/// Requests of the proxy's own that tell which endpoints are well.
#[derive(Default, Deserialize, JsonSchema)]
#[serde(default)]
#[schemars(deny_unknown_fields)]
pub(in crate::config) struct HealthCheck {
    /// The path that is asked for.
    pub(in crate::config) path: Given<Text>,
    /// Which answers are good: `2xx`, `200`, `200-204`. Default: [2xx, 3xx].
    pub(in crate::config) statuses: Given<Many<Text>>,
    /// Instead of a path, the service that grpc.health.v1 is asked about; empty for the whole server.
    pub(in crate::config) grpc: Given<Text>,
    /// How often. Default: 5s.
    pub(in crate::config) interval: Given<Time>,
    /// How long an answer may take. Default: 1s.
    pub(in crate::config) timeout: Given<Time>,
    /// So many good answers in a row make an endpoint well again. Default: 2.
    pub(in crate::config) healthy: Given<Count>,
    /// So many bad ones in a row make it unwell. The first answer decides alone. Default: 3.
    pub(in crate::config) unhealthy: Given<Count>,
}

/// Warm-up of an upstream.
#[derive(Default, Deserialize, JsonSchema)]
#[serde(default)]
#[schemars(deny_unknown_fields)]
pub(in crate::config) struct Warmup {
    /// Connections opened ahead, per worker and endpoint. Default: 8.
    pub(in crate::config) connections: Given<Count>,
    /// How long the arm stays at 1 % or less and is judged with a wider tolerance. Default: 60s.
    pub(in crate::config) period: Given<Time>,
}

/// Connections of each worker to each endpoint.
#[derive(Default, Deserialize, JsonSchema)]
#[serde(default)]
#[schemars(deny_unknown_fields)]
pub(in crate::config) struct Pool {
    /// The most. Default: 1024.
    pub(in crate::config) max: Given<Count>,
    /// The most requests in flight, those that wait for a connection included. Default: no limit.
    pub(in crate::config) max_requests: Given<Count>,
    /// The most that are kept idle. Default: 256.
    pub(in crate::config) idle: Given<Count>,
    /// After this long an idle one is closed; keep it below the upstream's own. Default: 3s.
    pub(in crate::config) idle_timeout: Given<Time>,
    /// Time for a connection to be made. Default: 3s.
    pub(in crate::config) connect_timeout: Given<Time>,
}

/// Connections that speak HTTP/2.
#[derive(Default, Deserialize, JsonSchema)]
#[serde(default)]
#[schemars(deny_unknown_fields)]
pub(in crate::config) struct Http2 {
    /// Most requests that share a connection before another one is opened. Default: 100.
    pub(in crate::config) streams: Given<Count>,
    /// After this long without a sign of life from an upstream that requests wait for, it is
    /// pinged. Default: 20s.
    pub(in crate::config) ping_interval: Given<Time>,
    /// After this long without an answer to a ping its connection is given up. Default: 10s.
    pub(in crate::config) ping_timeout: Given<Time>,
}
