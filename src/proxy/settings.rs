//! What the data plane needs from the configuration: listeners and their limits.

use std::{net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};

use ipnet::IpNet;

/// Settings of the data plane.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Settings {
    /// The listeners, in the order of the configuration.
    pub listeners: Vec<ListenerSettings>,
    /// How long requests may go on after a SIGTERM.
    pub drain: Duration,
}

/// One listener.
#[derive(Clone, Debug, PartialEq)]
pub struct ListenerSettings {
    /// Its name.
    pub name: Arc<str>,
    /// Where it listens.
    pub address: Listen,
    /// TLS; plain where left out.
    pub tls: Option<ListenerTls>,
    /// Peers whose X-Forwarded-* and Forwarded are believed and appended to.
    pub trusted_proxies: Vec<IpNet>,
    /// Whether connections begin with a PROXY protocol header.
    pub proxy_protocol: bool,
    /// Answers every request with a redirect to https.
    pub redirect_https: bool,
    /// Bounds.
    pub limits: Limits,
}

/// Where a listener listens.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Listen {
    /// An address and port; port 0 lets the system choose.
    Tcp(SocketAddr),
    /// A Unix socket.
    Unix(PathBuf),
}

/// TLS of a listener. Paths are absolute.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ListenerTls {
    /// Certificate chain and key, picked by SNI; the first is the default.
    pub certificates: Vec<(PathBuf, PathBuf)>,
    /// Asks for client certificates and verifies them by these.
    pub client_ca: Option<PathBuf>,
}

/// Bounds of a listener, in force out of the box.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of request line and header; more is answered 431.
    pub header_bytes: u32,
    /// Number of header fields; more is answered 431.
    pub header_fields: u16,
    /// Time to send a header; also the longest idle time of a kept-alive connection.
    pub header_timeout: Duration,
    /// Longest idle time of a kept-alive connection.
    pub idle_timeout: Duration,
    /// A body that does not move for this long, in either direction, ends its request.
    pub body_timeout: Duration,
    /// Open connections; more wait in the kernel's queue.
    pub connections: u32,
    /// Concurrent streams of an HTTP/2 connection.
    pub h2_streams: u32,
    /// Whether `%2F` and `%5C` in a path are refused (400) or kept as they are.
    pub reject_escaped_slashes: bool,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            header_bytes: 64 * 1024,
            header_fields: 100,
            header_timeout: Duration::from_secs(10),
            idle_timeout: Duration::from_secs(60),
            body_timeout: Duration::from_secs(60),
            connections: 10_000,
            h2_streams: 100,
            reject_escaped_slashes: false,
        }
    }
}
