//! Conditions compiled for asking: every leaf names the attribute that it reads and a test on its
//! value. Whole subtrees that read one attribute can be decided ahead for whole classes of values,
//! which is what `rows` does; the others are asked as they stand.

use std::borrow::Cow;

use http::HeaderName;
use ipnet::IpNet;
use regex::Regex;

use super::{
    Condition, HostPattern, KeySource, RequestHead, Salt, ValueMatch,
    assignment::{bucket, key_hash},
    device::{DeviceSet, devices},
    read::{cookie, parameter},
};

/// A condition, compiled.
#[derive(Clone, Debug)]
pub(super) enum Predicate {
    All(Box<[Predicate]>),
    Any(Box<[Predicate]>),
    Not(Box<Predicate>),
    Leaf(Attribute, Test),
    Learned(Fact, Test),
    Percent(Box<Share>),
}

/// What is known about a request beyond its head. It costs more than to read an attribute, so no
/// table has it: it is asked for last, and only of what everything else has left.
#[derive(Clone, Debug)]
pub(super) enum Fact {
    Country,
    Claim(Box<str>),
}

/// A share of the keys.
#[derive(Clone, Debug)]
pub(super) struct Share {
    share_bp: u16,
    by: Box<[KeySource]>,
    salt: Salt,
}

/// What a leaf reads from a request. The device stands last: it costs most.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Attribute {
    Method,
    Host,
    Path,
    ClientIp,
    Header(HeaderName),
    Cookie(Box<str>),
    Query(Box<str>),
    Device,
}

/// What a leaf asks of a value.
#[derive(Clone, Debug)]
pub(super) enum Test {
    /// One of these, which are sorted.
    Exact(Box<[Box<[u8]>]>),
    Prefix(Box<[Box<[u8]>]>),
    Suffix(Box<[Box<[u8]>]>),
    Regex(Box<[Regex]>),
    Present(bool),
    Nets(Box<[IpNet]>),
    Devices(DeviceSet),
}

/// A value as read from a request, or a class of values that are alike to the tests of a table.
#[derive(Clone, Debug)]
pub(super) enum Value<'a> {
    Absent,
    Text(Cow<'a, [u8]>),
    /// Each of them; a test holds if it holds for one.
    Texts(&'a [Box<str>]),
    /// All texts that begin so, and equal nothing that any test names.
    TextLike(&'a [u8]),
    /// All texts that end so, and equal nothing that any test names.
    TextEndingLike(&'a [u8]),
    Address(std::net::IpAddr),
    Devices(DeviceSet),
}

impl Predicate {
    /// Compiles a condition in normal form.
    pub(super) fn of(condition: &Condition) -> Self {
        let all_of = |conditions: &[Condition]| conditions.iter().map(Self::of).collect();
        match condition {
            Condition::All(all) => Self::All(all_of(all)),
            Condition::Any(any) => Self::Any(all_of(any)),
            Condition::Not(inner) => Self::Not(Box::new(Self::of(inner))),
            Condition::Method(methods) => Self::Leaf(
                Attribute::Method,
                exact(methods.iter().map(|method| method.as_str().as_bytes())),
            ),
            Condition::Host(hosts) => of_hosts(hosts),
            Condition::Path(paths) => {
                Self::Leaf(Attribute::Path, exact(paths.iter().map(|path| path.as_bytes())))
            }
            Condition::PathPrefix(prefixes) => of_path_prefixes(prefixes),
            Condition::PathRegex(regexes) => {
                Self::Leaf(Attribute::Path, Test::Regex(regexes.as_slice().into()))
            }
            Condition::Header(name, value) => {
                Self::Leaf(Attribute::Header(name.clone()), Test::of(value))
            }
            Condition::Cookie(name, value) => {
                Self::Leaf(Attribute::Cookie(name.as_ref().into()), Test::of(value))
            }
            Condition::Query(name, value) => {
                Self::Leaf(Attribute::Query(name.as_ref().into()), Test::of(value))
            }
            Condition::ClientIp(nets) => {
                Self::Leaf(Attribute::ClientIp, Test::Nets(nets.as_slice().into()))
            }
            Condition::Device(kinds) => {
                Self::Leaf(Attribute::Device, Test::Devices(DeviceSet::of(kinds)))
            }
            Condition::Country(countries) => Self::Learned(
                Fact::Country,
                exact(countries.iter().map(|country| country.as_bytes())),
            ),
            Condition::JwtClaim(name, value) => {
                Self::Learned(Fact::Claim(name.as_ref().into()), Test::of(value))
            }
            Condition::Percent { share_bp, by, salt } => Self::Percent(Box::new(Share {
                share_bp: *share_bp,
                by: by.as_slice().into(),
                salt: *salt,
            })),
        }
    }

    /// Whether a request fulfils it.
    pub(super) fn holds(&self, head: &RequestHead<'_>) -> bool {
        match self {
            Self::All(all) => all.iter().all(|predicate| predicate.holds(head)),
            Self::Any(any) => any.iter().any(|predicate| predicate.holds(head)),
            Self::Not(inner) => !inner.holds(head),
            Self::Leaf(attribute, test) => test.holds(&attribute.read(head)),
            Self::Learned(fact, test) => test.holds(&fact.learn(head)),
            Self::Percent(share) => key_hash(&share.by, share.salt, head)
                .is_some_and(|hash| bucket(hash) < share.share_bp),
        }
    }

    /// Whether every request with this value of the only attribute fulfils it.
    pub(super) fn holds_for(&self, value: &Value<'_>) -> bool {
        match self {
            Self::All(all) => all.iter().all(|predicate| predicate.holds_for(value)),
            Self::Any(any) => any.iter().any(|predicate| predicate.holds_for(value)),
            Self::Not(inner) => !inner.holds_for(value),
            Self::Leaf(_, test) => test.holds(value),
            Self::Learned(..) | Self::Percent(_) => false,
        }
    }

    /// The one attribute that decides it, where there is one and classes of its values can be
    /// named: no regular expression, no fact and no share of the keys is in it.
    pub(super) fn only_attribute(&self) -> Option<&Attribute> {
        match self {
            Self::All(parts) | Self::Any(parts) => {
                let (first, others) = parts.split_first()?;
                let attribute = first.only_attribute()?;
                others
                    .iter()
                    .all(|part| part.only_attribute() == Some(attribute))
                    .then_some(attribute)
            }
            Self::Not(inner) => inner.only_attribute(),
            Self::Leaf(_, Test::Regex(_)) | Self::Learned(..) | Self::Percent(_) => None,
            Self::Leaf(attribute, _) => Some(attribute),
        }
    }

    /// Calls `visit` with the test of every leaf.
    pub(super) fn for_each_test<'a>(&'a self, visit: &mut impl FnMut(&'a Test)) {
        match self {
            Self::All(parts) | Self::Any(parts) => {
                parts.iter().for_each(|part| part.for_each_test(visit));
            }
            Self::Not(inner) => inner.for_each_test(visit),
            Self::Leaf(_, test) => visit(test),
            Self::Learned(..) | Self::Percent(_) => {}
        }
    }
}

fn of_hosts(hosts: &[HostPattern]) -> Predicate {
    let mut names = Vec::new();
    let mut suffixes = Vec::new();
    for host in hosts {
        match host {
            HostPattern::Exact(name) => names.push(name.as_bytes()),
            HostPattern::Suffix(suffix) => suffixes.push(suffix.as_bytes().into()),
        }
    }
    Predicate::Any(Box::new([
        Predicate::Leaf(Attribute::Host, exact(names.into_iter())),
        Predicate::Leaf(Attribute::Host, Test::Suffix(suffixes.into())),
    ]))
}

/// A prefix on a segment border is the path itself or anything below it.
fn of_path_prefixes(prefixes: &[std::sync::Arc<str>]) -> Predicate {
    let below = |prefix: &str| -> Box<[u8]> {
        let slash = if prefix.ends_with('/') { "" } else { "/" };
        [prefix.as_bytes(), slash.as_bytes()].concat().into()
    };
    Predicate::Any(Box::new([
        Predicate::Leaf(Attribute::Path, exact(prefixes.iter().map(|prefix| prefix.as_bytes()))),
        Predicate::Leaf(
            Attribute::Path,
            Test::Prefix(prefixes.iter().map(|prefix| below(prefix)).collect()),
        ),
    ]))
}

fn exact<'a>(texts: impl Iterator<Item = &'a [u8]>) -> Test {
    let mut texts: Vec<Box<[u8]>> = texts.map(Into::into).collect();
    texts.sort_unstable();
    Test::Exact(texts.into())
}

impl Test {
    fn of(value: &ValueMatch) -> Self {
        match value {
            ValueMatch::Exact(texts) => exact(texts.iter().map(|text| text.as_bytes())),
            ValueMatch::Prefix(texts) => {
                Self::Prefix(texts.iter().map(|text| text.as_bytes().into()).collect())
            }
            ValueMatch::Regex(regexes) => Self::Regex(regexes.as_slice().into()),
            ValueMatch::Present(present) => Self::Present(*present),
        }
    }

    fn holds(&self, value: &Value<'_>) -> bool {
        match (self, value) {
            (Self::Present(present), Value::Absent) => !present,
            (Self::Present(present), _) => *present,
            (Self::Nets(nets), Value::Address(address)) => {
                nets.iter().any(|net| net.contains(address))
            }
            (Self::Devices(wanted), Value::Devices(found)) => wanted.meets(*found),
            (_, Value::Text(text)) => self.holds_for_text(text),
            (_, Value::Texts(texts)) => {
                texts.iter().any(|text| self.holds_for_text(text.as_bytes()))
            }
            (Self::Prefix(prefixes), Value::TextLike(start)) => {
                prefixes.iter().any(|prefix| start.starts_with(prefix))
            }
            (Self::Suffix(suffixes), Value::TextEndingLike(end)) => {
                suffixes.iter().any(|suffix| end.ends_with(suffix))
            }
            _ => false,
        }
    }

    fn holds_for_text(&self, text: &[u8]) -> bool {
        match self {
            Self::Exact(texts) => texts.binary_search_by(|known| (**known).cmp(text)).is_ok(),
            Self::Prefix(prefixes) => prefixes.iter().any(|prefix| text.starts_with(prefix)),
            Self::Suffix(suffixes) => suffixes.iter().any(|suffix| text.ends_with(suffix)),
            Self::Regex(regexes) => std::str::from_utf8(text)
                .is_ok_and(|text| regexes.iter().any(|regex| regex.is_match(text))),
            Self::Present(_) | Self::Nets(_) | Self::Devices(_) => false,
        }
    }
}

impl Attribute {
    /// The value of a request. Of several fields, cookies or parameters of a name the first counts.
    pub(super) fn read<'a>(&self, head: &RequestHead<'a>) -> Value<'a> {
        let text = |value: Option<&'a [u8]>| {
            value.map_or(Value::Absent, |value| Value::Text(Cow::Borrowed(value)))
        };
        match self {
            Self::Method => text(Some(head.method.as_str().as_bytes())),
            Self::Host => text(Some(head.host.as_bytes())),
            Self::Path => text(Some(head.path.as_bytes())),
            Self::ClientIp => Value::Address(head.client_ip.to_canonical()),
            Self::Header(name) => text(head.headers.get(name).map(|value| value.as_bytes())),
            Self::Cookie(name) => text(cookie(head.headers, name)),
            Self::Query(name) => parameter(head.query, name).map_or(Value::Absent, Value::Text),
            Self::Device => Value::Devices(devices(head.headers)),
        }
    }
}

impl Fact {
    fn learn<'a>(&self, head: &RequestHead<'a>) -> Value<'a> {
        let Some(learned) = head.learned else { return Value::Absent };
        match self {
            Self::Country => learned
                .country(head.client_ip)
                .map_or(Value::Absent, |country| Value::Text(Cow::Borrowed(country.as_bytes()))),
            Self::Claim(name) => learned
                .claims(head.headers)
                .and_then(|claims| claims.get(name))
                .map_or(Value::Absent, Value::Texts),
        }
    }
}
