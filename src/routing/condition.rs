//! The match grammar as a tree: what `config` parses a `match` into, and what the matcher compiles.

use std::sync::Arc;

use http::{HeaderName, Method};
use ipnet::IpNet;
use regex::Regex;

use super::{KeySource, Salt};

/// A condition on a request. A list inside one key means any of it.
#[derive(Clone, Debug)]
pub enum Condition {
    /// All of them; empty: every request.
    All(Vec<Condition>),
    /// At least one of them; empty: no request.
    Any(Vec<Condition>),
    /// Not this one.
    Not(Box<Condition>),
    /// The method.
    Method(Vec<Method>),
    /// The host.
    Host(Vec<HostPattern>),
    /// The whole path.
    Path(Vec<Arc<str>>),
    /// The beginning of the path, on segment borders: `/cart` matches `/cart` and `/cart/1`, and
    /// not `/carts`.
    PathPrefix(Vec<Arc<str>>),
    /// A regular expression somewhere in the path.
    PathRegex(Vec<Regex>),
    /// A header field.
    Header(HeaderName, ValueMatch),
    /// A cookie.
    Cookie(Arc<str>, ValueMatch),
    /// A query parameter, percent-decoded.
    Query(Arc<str>, ValueMatch),
    /// The client's address.
    ClientIp(Vec<IpNet>),
    /// The client's country, ISO 3166-1 alpha-2 in upper case.
    Country(Vec<Arc<str>>),
    /// The kind of device.
    Device(Vec<Device>),
    /// A claim of a verified JSON Web Token.
    JwtClaim(Arc<str>, ValueMatch),
    /// A share of the keys found by `by`, in buckets of 0.01 %, hashed under `salt`; requests
    /// without a key do not match.
    Percent {
        /// How many of the 10,000 buckets match.
        share_bp: u16,
        /// Where the key is read: the first one present.
        by: Vec<KeySource>,
        /// Keys the hash.
        salt: Salt,
    },
}

/// A pattern of hosts.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum HostPattern {
    /// This host, in lower case.
    Exact(Arc<str>),
    /// Every host that ends with this, dot included: `*.example.com` is `.example.com`.
    Suffix(Arc<str>),
}

/// What a value must look like.
#[derive(Clone, Debug)]
pub enum ValueMatch {
    /// One of these.
    Exact(Vec<Arc<str>>),
    /// Begins with one of these.
    Prefix(Vec<Arc<str>>),
    /// One of these is found in it.
    Regex(Vec<Regex>),
    /// It is there (`true`) or not (`false`).
    Present(bool),
}

/// A kind of device, from client hints and User-Agent. `Mobile` holds every phone, iOS and Android
/// included.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Device {
    /// iPhone, iPad, iPod.
    Ios,
    /// Android phones and tablets.
    Android,
    /// Any phone.
    Mobile,
    /// Any tablet.
    Tablet,
    /// Anything else that a person sits at.
    Desktop,
    /// Crawlers and scripts that say so.
    Bot,
}
