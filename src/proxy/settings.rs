//! What the data plane needs from the configuration: listeners and their limits.

use std::{net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};

use http::{HeaderName, HeaderValue};
use ipnet::IpNet;

use crate::tls::{Clients, Identity, Problem, Source};

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
    /// Whether connections begin with a PROXY protocol header. With `trusted_proxies` only those
    /// may connect.
    pub proxy_protocol: bool,
    /// Answers every request with a redirect to https on this port.
    pub redirect_https: Option<u16>,
    /// Whether `Forwarded` (RFC 7239) is sent, and believed of trusted proxies.
    pub forwarded: bool,
    /// Fields that clients may not send: the proxy says by them who a client is.
    pub reserved_fields: Vec<HeaderName>,
    /// Bounds.
    pub limits: Limits,
}

impl ListenerSettings {
    /// A listener without anything special.
    #[must_use]
    pub fn plain(name: &str, address: Listen) -> Self {
        Self {
            name: name.into(),
            address,
            tls: None,
            trusted_proxies: Vec::new(),
            proxy_protocol: false,
            redirect_https: None,
            forwarded: false,
            reserved_fields: Vec::new(),
            limits: Limits::default(),
        }
    }
}

/// Where a listener listens.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Listen {
    /// An address and port; port 0 lets the system choose.
    Tcp(SocketAddr),
    /// A Unix socket.
    Unix(PathBuf),
}

/// TLS of a listener.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ListenerTls {
    /// Certificates with their keys, picked by SNI; the first is the default.
    pub certificates: Vec<Identity>,
    /// Asks for client certificates and verifies them by these.
    pub clients: Option<Clients>,
    /// The field that tells the upstream who a client is by its certificate.
    pub client_header: Option<HeaderName>,
    /// Strict-Transport-Security of answers that do not have it.
    pub hsts: Option<HeaderValue>,
}

impl ListenerTls {
    /// Reads all files again. What is of no use stays as it was, and is a problem.
    pub fn renew(&mut self) -> Vec<Problem> {
        let mut problems = Vec::new();
        for identity in &mut self.certificates {
            match identity.again() {
                Ok(new) => *identity = new,
                Err(problem) => problems.push(problem),
            }
        }
        if let Some(clients) = &mut self.clients {
            match clients.again() {
                Ok(new) => *clients = new,
                Err(problem) => problems.push(problem),
            }
        }
        problems
    }

    /// The files that it was read from.
    pub fn sources(&self) -> impl Iterator<Item = &Source> {
        let certificates = self.certificates.iter().flat_map(Identity::sources);
        certificates.chain(self.clients.iter().map(Clients::source))
    }
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
