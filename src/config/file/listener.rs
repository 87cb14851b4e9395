//! Listeners as written.

use schemars::JsonSchema;
use serde::Deserialize;

use crate::config::{
    given::{Given, Many},
    values::{Count, Flag, Size, Text, Time},
};

/// Where clients connect to.
#[derive(Default, Deserialize, JsonSchema)]
#[serde(default)]
#[schemars(deny_unknown_fields)]
pub(in crate::config) struct Listener {
    /// Its name in logs. Default: its address.
    pub(in crate::config) name: Given<Text>,
    /// `0.0.0.0:8080`, `"[::]:8080"` or `unix:/run/haldane.sock`.
    pub(in crate::config) address: Given<Text>,
    /// TLS; plain HTTP/1 and HTTP/2 by prior knowledge where left out.
    pub(in crate::config) tls: Given<ListenerTls>,
    /// Peers (addresses or networks) whose X-Forwarded-* and Forwarded are believed. Default: none.
    pub(in crate::config) trusted_proxies: Given<Many<Text>>,
    /// Whether connections begin with a PROXY protocol header. Default: false.
    pub(in crate::config) proxy_protocol: Given<Flag>,
    /// `https`: answers every request with a redirect to it.
    pub(in crate::config) redirect: Given<Redirect>,
    /// The port of https in redirects. Default: that of the listener with TLS, 443 if there is
    /// none.
    pub(in crate::config) redirect_port: Given<Count>,
    /// Whether `Forwarded` (RFC 7239) is sent beside X-Forwarded-*, and believed of trusted proxies
    /// before these. Default: false.
    pub(in crate::config) forwarded: Given<Flag>,
    /// Bounds, in force without being written.
    pub(in crate::config) limits: Given<Limits>,
}

/// Where a listener redirects to.
#[derive(Clone, Copy, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(in crate::config) enum Redirect {
    /// The same URL with https.
    Https,
}

/// TLS of a listener.
#[derive(Default, Deserialize, JsonSchema)]
#[serde(default)]
#[schemars(deny_unknown_fields)]
pub(in crate::config) struct ListenerTls {
    /// Certificates with their keys, picked by the name that the client asks for; the first is the
    /// default. Loaded again when their content changes.
    pub(in crate::config) certificates: Given<Many<Certificate>>,
    /// Asks clients for a certificate and verifies it by these. Default: does not ask.
    pub(in crate::config) client_ca: Given<Text>,
    /// Whether clients without a certificate are let in. Default: required.
    pub(in crate::config) client_auth: Given<ClientAuth>,
    /// Names of which a client's certificate needs one, DNS (`*.clients.example.com`) or URI
    /// (`spiffe://example.com/*`). Default: any.
    pub(in crate::config) client_names: Given<Many<Text>>,
    /// The header field that tells the upstream the client's name by its certificate; no client may
    /// send it. Default: none.
    pub(in crate::config) client_header: Given<Text>,
    /// For how long browsers shall use https alone (Strict-Transport-Security). Default: not sent.
    pub(in crate::config) hsts: Given<Time>,
}

/// Whether a client needs a certificate.
#[derive(Clone, Copy, Deserialize, PartialEq, Eq, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(in crate::config) enum ClientAuth {
    /// It does.
    Required,
    /// Without one it is let in; with one that is not verified it is not.
    Optional,
}

/// A certificate and its key.
#[derive(Default, Deserialize, JsonSchema)]
#[serde(default)]
#[schemars(deny_unknown_fields)]
pub(in crate::config) struct Certificate {
    /// The certificate chain, PEM.
    pub(in crate::config) cert: Given<Text>,
    /// Its key, PEM.
    pub(in crate::config) key: Given<Text>,
}

/// Bounds of a listener.
#[derive(Default, Deserialize, JsonSchema)]
#[serde(default)]
#[schemars(deny_unknown_fields)]
pub(in crate::config) struct Limits {
    /// Size of request line and header; more is answered 431. Default: 64KiB.
    pub(in crate::config) header_size: Given<Size>,
    /// Number of header fields; more is answered 431. Default: 100.
    pub(in crate::config) header_fields: Given<Count>,
    /// Time to send a header. Default: 10s.
    pub(in crate::config) header_timeout: Given<Time>,
    /// Longest idle time of a kept-alive connection. Default: 60s.
    pub(in crate::config) idle_timeout: Given<Time>,
    /// A body that does not move for this long ends its request. Default: 60s.
    pub(in crate::config) body_timeout: Given<Time>,
    /// Open connections. Default: 10000.
    pub(in crate::config) connections: Given<Count>,
    /// Concurrent streams of an HTTP/2 connection. Default: 100.
    pub(in crate::config) h2_streams: Given<Count>,
    /// Whether `%2F` and `%5C` in a path are refused. Default: false.
    pub(in crate::config) reject_escaped_slashes: Given<Flag>,
}
