//! The match grammar as a tree: what `config` parses a `match` into, and what the matcher compiles.

use std::sync::Arc;

use http::{HeaderName, Method};
use ipnet::IpNet;
use regex::Regex;

use super::{KeySource, RequestHead, Salt, normalise_host, normalise_path, predicate::Predicate};

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

impl Condition {
    /// Whether a request fulfils this condition. It is compiled anew for every question: good for
    /// explaining, not for routing.
    #[must_use]
    pub fn holds(&self, head: &RequestHead<'_>) -> bool {
        Predicate::of(&self.normalised()).holds(head)
    }

    /// The same condition with its hosts and paths in the normal form of those of requests. What
    /// has no normal form stays as it is, and no request is like it.
    pub(super) fn normalised(&self) -> Self {
        let all_of = |conditions: &[Self]| conditions.iter().map(Self::normalised).collect();
        let path = |path: &Arc<str>| match normalise_path(path) {
            Ok(normal) => Arc::from(normal),
            Err(_) => Arc::clone(path),
        };
        match self {
            Self::All(all) => Self::All(all_of(all)),
            Self::Any(any) => Self::Any(all_of(any)),
            Self::Not(inner) => Self::Not(Box::new(inner.normalised())),
            Self::Host(hosts) => Self::Host(hosts.iter().map(HostPattern::normalised).collect()),
            Self::Path(paths) => Self::Path(paths.iter().map(path).collect()),
            Self::PathPrefix(prefixes) => Self::PathPrefix(prefixes.iter().map(path).collect()),
            Self::Method(_)
            | Self::PathRegex(_)
            | Self::Header(..)
            | Self::Cookie(..)
            | Self::Query(..)
            | Self::ClientIp(_)
            | Self::Country(_)
            | Self::Device(_)
            | Self::JwtClaim(..)
            | Self::Percent { .. } => self.clone(),
        }
    }
}

/// A pattern of hosts.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum HostPattern {
    /// This host, in lower case.
    Exact(Arc<str>),
    /// Every host that ends with this, dot included: `*.example.com` is `.example.com`.
    Suffix(Arc<str>),
}

impl HostPattern {
    fn normalised(&self) -> Self {
        match self {
            Self::Exact(host) => Self::Exact(match normalise_host(host) {
                Ok(normal) => Arc::from(normal),
                Err(_) => Arc::clone(host),
            }),
            Self::Suffix(suffix) => {
                let labels = suffix.strip_prefix('.').unwrap_or(suffix);
                Self::Suffix(format!(".{}", labels.to_ascii_lowercase()).into())
            }
        }
    }
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
