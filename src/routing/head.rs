//! What routing may look at: the head of a request, borrowed, and what is learned about it.

use std::net::IpAddr;

use http::{HeaderMap, Method};

use super::Learned;

/// The head of a request as routing sees it.
#[derive(Clone, Copy, Debug)]
pub struct RequestHead<'a> {
    /// The method.
    pub method: &'a Method,
    /// The host in lower case, without its port.
    pub host: &'a str,
    /// The normalised path, still percent-encoded, as it is forwarded.
    pub path: &'a str,
    /// What stands behind the `?`, undecoded.
    pub query: Option<&'a str>,
    /// The header fields as the client sent them.
    pub headers: &'a HeaderMap,
    /// The client's address, after the listener's trusted proxies.
    pub client_ip: IpAddr,
    /// What is known beyond the head; where left out, neither a country nor claims.
    pub learned: Option<&'a Learned<'a>>,
}
