//! The match grammar as written, and cohorts.

use schemars::JsonSchema;
use serde::Deserialize;

use crate::config::{
    given::{Given, Many},
    values::{Flag, Percent, Text},
};

/// A named segment of requests.
#[derive(Default, Deserialize, JsonSchema)]
#[serde(default)]
#[schemars(deny_unknown_fields)]
pub(in crate::config) struct Cohort {
    /// Its name.
    pub(in crate::config) name: Given<Text>,
    /// Which requests belong to it.
    #[serde(rename = "match")]
    pub(in crate::config) matching: Given<Match>,
}

/// A condition on a request. Several keys mean all of them, a list under a key any of it; nothing
/// matches everything.
#[derive(Default, Deserialize, JsonSchema)]
#[serde(default)]
#[schemars(deny_unknown_fields)]
pub(in crate::config) struct Match {
    /// Methods.
    pub(in crate::config) method: Given<Many<Text>>,
    /// Hosts: `shop.example.com` or `*.example.com`.
    pub(in crate::config) host: Given<Many<Text>>,
    /// Whole paths.
    pub(in crate::config) path: Given<Many<Text>>,
    /// Beginnings of the path, on segment borders: `/cart` matches `/cart/1` and not `/carts`.
    pub(in crate::config) path_prefix: Given<Many<Text>>,
    /// Regular expressions, found anywhere in the path unless anchored by `^` and `$`.
    pub(in crate::config) path_regex: Given<Many<Text>>,
    /// Header fields.
    pub(in crate::config) header: Given<Many<Tested>>,
    /// Cookies.
    pub(in crate::config) cookie: Given<Many<Tested>>,
    /// Query parameters.
    pub(in crate::config) query: Given<Many<Tested>>,
    /// The client's address: addresses or networks.
    pub(in crate::config) client_ip: Given<Many<Text>>,
    /// The client's country, two letters (needs `geo`).
    pub(in crate::config) country: Given<Many<Text>>,
    /// Kinds of device, from client hints and User-Agent.
    pub(in crate::config) device: Given<Many<Device>>,
    /// Claims of a verified JSON Web Token (needs `jwt`).
    pub(in crate::config) jwt_claim: Given<Many<Tested>>,
    /// A share of the keys.
    pub(in crate::config) percent: Given<Share>,
    /// At least one of these.
    pub(in crate::config) any: Given<Many<Match>>,
    /// Every one of these.
    pub(in crate::config) all: Given<Many<Match>>,
    /// Not this.
    pub(in crate::config) not: Given<Box<Match>>,
}

/// A named value and what it must look like: one of `exact`, `prefix`, `regex`, `present`.
#[derive(Default, Deserialize, JsonSchema)]
#[serde(default)]
#[schemars(deny_unknown_fields)]
pub(in crate::config) struct Tested {
    /// The name of the header field, cookie, parameter or claim.
    pub(in crate::config) name: Given<Text>,
    /// It is this.
    pub(in crate::config) exact: Given<Many<Text>>,
    /// It begins with this.
    pub(in crate::config) prefix: Given<Many<Text>>,
    /// This regular expression is found in it.
    pub(in crate::config) regex: Given<Many<Text>>,
    /// It is there (true) or not (false).
    pub(in crate::config) present: Given<Flag>,
}

/// A kind of device.
#[derive(Clone, Copy, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(in crate::config) enum Device {
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

/// A share of the keys, the same keys every time.
#[derive(Default, Deserialize, JsonSchema)]
#[serde(default)]
#[schemars(deny_unknown_fields)]
pub(in crate::config) struct Share {
    /// How many of them.
    pub(in crate::config) share: Given<Percent>,
    /// Where the key is read: the first one present. Requests without a key do not match.
    pub(in crate::config) by: Given<Many<KeySource>>,
    /// Keys the hash; shares with the same salt hold the same keys. Default: the name of the cohort
    /// or route.
    pub(in crate::config) salt: Given<Text>,
}

/// Where a key is read: `client_ip`, or a cookie, header field or query parameter by its name.
#[derive(Deserialize, JsonSchema)]
#[serde(rename = "\0shape")]
#[schemars(rename = "KeySource", untagged)]
pub(in crate::config) enum KeySource {
    /// `client_ip`
    #[serde(rename = "scalar")]
    Word(ClientIp),
    /// `{ cookie: uid }` and the like.
    #[serde(rename = "map")]
    Named(NamedKey),
}

/// The client's address as a key.
#[derive(Clone, Copy, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(in crate::config) enum ClientIp {
    /// The client's address, after the listener's trusted proxies.
    ClientIp,
}

/// One of these.
#[derive(Default, Deserialize, JsonSchema)]
#[serde(default)]
#[schemars(deny_unknown_fields)]
pub(in crate::config) struct NamedKey {
    /// The value of this cookie.
    pub(in crate::config) cookie: Given<Text>,
    /// The value of this header field.
    pub(in crate::config) header: Given<Text>,
    /// The value of this query parameter.
    pub(in crate::config) query: Given<Text>,
}
