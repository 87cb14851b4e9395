//! What every condition means, read off one by one. Shares nothing with the compiled matcher but
//! the readers of cookies, parameters and devices.

use crate::routing::{
    Condition, HostPattern, RequestHead, ValueMatch,
    assignment::{bucket, key_hash},
    device::{DeviceSet, devices},
    read::{cookie, parameter},
};

pub(super) fn holds(condition: &Condition, head: &RequestHead<'_>) -> bool {
    match condition {
        Condition::All(all) => all.iter().all(|condition| holds(condition, head)),
        Condition::Any(any) => any.iter().any(|condition| holds(condition, head)),
        Condition::Not(condition) => !holds(condition, head),
        Condition::Method(methods) => methods.contains(head.method),
        Condition::Host(hosts) => hosts.iter().any(|host| match host {
            HostPattern::Exact(host) => **host == *head.host,
            HostPattern::Suffix(suffix) => head.host.ends_with(&**suffix),
        }),
        Condition::Path(paths) => paths.iter().any(|path| **path == *head.path),
        Condition::PathPrefix(prefixes) => prefixes.iter().any(|prefix| {
            head.path.strip_prefix(&**prefix).is_some_and(|rest| {
                rest.is_empty() || rest.starts_with('/') || prefix.ends_with('/')
            })
        }),
        Condition::PathRegex(regexes) => regexes.iter().any(|regex| regex.is_match(head.path)),
        Condition::Header(name, test) => {
            value_holds(test, head.headers.get(name).map(|value| value.as_bytes()))
        }
        Condition::Cookie(name, test) => value_holds(test, cookie(head.headers, name)),
        Condition::Query(name, test) => value_holds(test, parameter(head.query, name).as_deref()),
        Condition::ClientIp(nets) => {
            nets.iter().any(|net| net.contains(&head.client_ip.to_canonical()))
        }
        Condition::Country(_) => false,
        Condition::Device(kinds) => devices(head.headers).meets(DeviceSet::of(kinds)),
        Condition::JwtClaim(_, test) => value_holds(test, None),
        Condition::Percent { share_bp, by, salt } => {
            key_hash(by, *salt, head).is_some_and(|hash| bucket(hash) < *share_bp)
        }
    }
}

fn value_holds(test: &ValueMatch, value: Option<&[u8]>) -> bool {
    let Some(value) = value else { return matches!(test, ValueMatch::Present(false)) };
    match test {
        ValueMatch::Exact(texts) => texts.iter().any(|text| text.as_bytes() == value),
        ValueMatch::Prefix(texts) => texts.iter().any(|text| value.starts_with(text.as_bytes())),
        ValueMatch::Regex(regexes) => std::str::from_utf8(value)
            .is_ok_and(|text| regexes.iter().any(|regex| regex.is_match(text))),
        ValueMatch::Present(present) => *present,
    }
}
