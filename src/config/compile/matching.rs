//! The match grammar, compiled to conditions; and cohorts, which are named conditions.

use std::{collections::HashMap, sync::Arc};

use http::Method;
use regex::{Regex, RegexBuilder};

use super::Compiling;
use crate::{
    config::{
        file,
        given::{Given, Many},
        reading::Spot,
        values::{Percent, Text},
    },
    routing::{Condition, Device, HostPattern, Salt, ValueMatch, normalise_host, normalise_path},
};

/// Memory that one compiled expression may take.
const REGEX_BYTES: usize = 1 << 20;
/// Most cohorts: they are counted in 16 bits, and `default` is one of them.
const MOST_COHORTS: usize = u16::MAX as usize - 1;

pub(super) fn compile_cohorts(
    list: &Given<Many<file::Cohort>>,
    compiling: &Compiling<'_, '_>,
) -> Vec<(Arc<str>, Condition)> {
    let mut cohorts: Vec<(Arc<str>, Condition)> = Vec::new();
    let mut lines = HashMap::new();
    for (cohort, spot) in
        list.get().map_or(&[] as &[_], |list| list).iter().filter_map(Given::located)
    {
        let Some((Text(name), name_spot)) = cohort.name.located() else {
            if cohort.name.is_absent() {
                compiling.missing(spot, "name", "give the cohort a name");
            }
            continue;
        };
        compiling.check_free_name(name, name_spot);
        if let Some(first) = lines.insert(name.clone(), compiling.reading.line(spot)) {
            compiling.problem(name_spot, format!("the name `{name}` is taken, see line {first}"));
        }
        if cohort.matching.is_absent() {
            compiling.missing(spot, "match", "say which requests belong to the cohort");
        }
        cohorts.push((name.as_str().into(), compile(&cohort.matching, name, compiling)));
    }
    if cohorts.len() > MOST_COHORTS {
        compiling.problem(list.spot(), format!("more than {MOST_COHORTS} cohorts"));
    }
    cohorts
}

/// Compiles a match. `owner` is the cohort or route that it belongs to.
pub(super) fn compile(
    given: &Given<file::Match>,
    owner: &str,
    compiling: &Compiling<'_, '_>,
) -> Condition {
    given.get().map_or(Condition::All(Vec::new()), |matching| one(matching, owner, compiling))
}

fn one(matching: &file::Match, owner: &str, compiling: &Compiling<'_, '_>) -> Condition {
    let mut all = Vec::new();
    let mut push = |given: bool, condition: Condition| {
        if given {
            all.push(condition);
        }
    };
    let m = matching;
    push(m.method.get().is_some(), Condition::Method(texts(&m.method, compiling, method)));
    push(m.host.get().is_some(), Condition::Host(texts(&m.host, compiling, host)));
    push(m.path.get().is_some(), Condition::Path(texts(&m.path, compiling, path)));
    push(
        m.path_prefix.get().is_some(),
        Condition::PathPrefix(texts(&m.path_prefix, compiling, prefix)),
    );
    push(
        m.path_regex.get().is_some(),
        Condition::PathRegex(texts(&m.path_regex, compiling, expression)),
    );
    push(
        m.header.get().is_some(),
        tested(&m.header, compiling, |name, spot, value| {
            Some(Condition::Header(compiling.header_name(name, spot)?, value))
        }),
    );
    push(
        m.cookie.get().is_some(),
        tested(&m.cookie, compiling, |name, spot, value| {
            Some(Condition::Cookie(compiling.token(name, spot)?, value))
        }),
    );
    push(
        m.query.get().is_some(),
        tested(&m.query, compiling, |name, _, value| Some(Condition::Query(name.into(), value))),
    );
    push(m.client_ip.get().is_some(), Condition::ClientIp(compiling.networks(&m.client_ip)));
    if m.country.get().is_some() {
        if !compiling.has.geo {
            let help = "write `geo: { database: country.mmdb }` at the top of the file";
            compiling.problem_with_help(m.country.spot(), "no request has a country", help);
        }
        push(true, Condition::Country(texts(&m.country, compiling, country)));
    }
    push(m.device.get().is_some(), Condition::Device(devices(&m.device, compiling)));
    if m.jwt_claim.get().is_some() {
        if !compiling.has.jwt {
            let help = "write `jwt: { jwks: keys.json, issuer: … }` at the top of the file";
            compiling.problem_with_help(m.jwt_claim.spot(), "no request has a claim", help);
        }
        push(
            true,
            tested(&m.jwt_claim, compiling, |name, _, value| {
                Some(Condition::JwtClaim(name.into(), value))
            }),
        );
    }
    if let Some((share, spot)) = m.percent.located() {
        push(true, percent(share, spot, owner, compiling));
    }
    let each = |list: &Given<Many<file::Match>>| -> Vec<Condition> {
        let items = compiling.items(list).iter().filter_map(Given::get);
        items.map(|matching| one(matching, owner, compiling)).collect()
    };
    push(m.any.get().is_some(), Condition::Any(each(&m.any)));
    push(m.all.get().is_some(), Condition::All(each(&m.all)));
    if let Some(not) = m.not.get() {
        push(true, Condition::Not(Box::new(one(not, owner, compiling))));
    }
    match all.len() {
        1 => all.remove(0),
        _ => Condition::All(all),
    }
}

fn texts<T>(
    list: &Given<Many<Text>>,
    compiling: &Compiling<'_, '_>,
    parse: fn(&str, Spot, &Compiling<'_, '_>) -> Option<T>,
) -> Vec<T> {
    let items = compiling.items(list).iter().filter_map(Given::located);
    items.filter_map(|(Text(text), spot)| parse(text, spot, compiling)).collect()
}

fn method(text: &str, spot: Spot, compiling: &Compiling<'_, '_>) -> Option<Method> {
    if text.bytes().any(|byte| byte.is_ascii_lowercase()) {
        let help = format!("write {}", text.to_ascii_uppercase());
        compiling.problem_with_help(spot, format!("`{text}`: methods are in upper case"), help);
        return None;
    }
    let method = Method::from_bytes(text.as_bytes()).ok();
    if method.is_none() {
        compiling.problem(spot, format!("`{text}` cannot be a method"));
    }
    method
}

fn host(text: &str, spot: Spot, compiling: &Compiling<'_, '_>) -> Option<HostPattern> {
    let (wild, name) = match text.strip_prefix("*.") {
        Some(rest) => (true, rest),
        None => (false, text),
    };
    let has_port = !name.ends_with(']') && name.contains(':');
    let normal = normalise_host(name).ok().filter(|_| !has_port && !name.contains('*'));
    let Some(normal) = normal else {
        let help = match text {
            "*" => "leave `host` out to match every host",
            _ if has_port => "write the host without its port",
            _ if !text.is_ascii() => "write the name as it is in DNS, beginning with xn--",
            _ => "write it like shop.example.com or *.example.com",
        };
        compiling.problem_with_help(spot, format!("`{text}` is not a host"), help);
        return None;
    };
    Some(if wild {
        HostPattern::Suffix(format!(".{normal}").into())
    } else {
        HostPattern::Exact(normal.into())
    })
}

fn path(text: &str, spot: Spot, compiling: &Compiling<'_, '_>) -> Option<Arc<str>> {
    let wrong = if !text.starts_with('/') {
        "does not begin with `/`"
    } else if text.contains(['?', '#']) {
        "holds more than a path; `query` matches parameters"
    } else if text.split('/').any(|segment| matches!(segment, "." | "..")) {
        "never matches: `.` and `..` are resolved before"
    } else if text.contains('*') {
        "holds a `*`, which means nothing here; `path_regex` takes expressions"
    } else {
        match normalise_path(text) {
            Ok(normal) => return Some(normal.into()),
            Err(problem) => {
                compiling.problem(spot, format!("`{text}` never matches: {problem}"));
                return None;
            }
        }
    };
    compiling.problem(spot, format!("the path `{text}` {wrong}"));
    None
}

/// A prefix ends on a segment border, so the slash at its end says nothing.
fn prefix(text: &str, spot: Spot, compiling: &Compiling<'_, '_>) -> Option<Arc<str>> {
    let text = path(text, spot, compiling)?;
    match text.trim_end_matches('/') {
        "" => Some("/".into()),
        trimmed => Some(trimmed.into()),
    }
}

fn expression(text: &str, spot: Spot, compiling: &Compiling<'_, '_>) -> Option<Regex> {
    match RegexBuilder::new(text).size_limit(REGEX_BYTES).build() {
        Ok(regex) => Some(regex),
        Err(error) => {
            let words = error.to_string();
            let reason = words.lines().last().unwrap_or_default().trim_start_matches("error: ");
            compiling.problem(spot, format!("`{text}` is not a regular expression: {reason}"));
            None
        }
    }
}

fn exactly(text: &str, _: Spot, _: &Compiling<'_, '_>) -> Option<Arc<str>> {
    Some(text.into())
}

fn country(text: &str, spot: Spot, compiling: &Compiling<'_, '_>) -> Option<Arc<str>> {
    if text.len() != 2 || !text.bytes().all(|byte| byte.is_ascii_alphabetic()) {
        compiling.problem_with_help(
            spot,
            format!("`{text}` is not a country"),
            "two letters as in ISO 3166-1, like DE",
        );
        return None;
    }
    Some(text.to_ascii_uppercase().into())
}

fn devices(list: &Given<Many<file::Device>>, compiling: &Compiling<'_, '_>) -> Vec<Device> {
    let device = |device: &file::Device| match device {
        file::Device::Ios => Device::Ios,
        file::Device::Android => Device::Android,
        file::Device::Mobile => Device::Mobile,
        file::Device::Tablet => Device::Tablet,
        file::Device::Desktop => Device::Desktop,
        file::Device::Bot => Device::Bot,
    };
    compiling.items(list).iter().filter_map(Given::get).map(device).collect()
}

fn tested(
    list: &Given<Many<file::Tested>>,
    compiling: &Compiling<'_, '_>,
    build: impl Fn(&str, Spot, ValueMatch) -> Option<Condition>,
) -> Condition {
    let mut any = Vec::new();
    for (tested, spot) in compiling.items(list).iter().filter_map(Given::located) {
        let value = value_match(tested, spot, compiling);
        let Some((Text(name), name_spot)) = tested.name.located() else {
            if tested.name.is_absent() {
                compiling.missing(spot, "name", "write it like { name: x-staff, exact: \"1\" }");
            }
            continue;
        };
        if name.is_empty() {
            compiling.problem(name_spot, "an empty name");
        }
        any.extend(value.and_then(|value| build(name, name_spot, value)));
    }
    match any.len() {
        1 => any.remove(0),
        _ => Condition::Any(any),
    }
}

fn value_match(
    tested: &file::Tested,
    spot: Spot,
    compiling: &Compiling<'_, '_>,
) -> Option<ValueMatch> {
    let file::Tested { exact, prefix, regex, present, .. } = tested;
    let mut values = Vec::new();
    if exact.get().is_some() {
        values.push(ValueMatch::Exact(texts(exact, compiling, exactly)));
    }
    if prefix.get().is_some() {
        values.push(ValueMatch::Prefix(texts(prefix, compiling, exactly)));
    }
    if regex.get().is_some() {
        values.push(ValueMatch::Regex(texts(regex, compiling, expression)));
    }
    if let Some(flag) = present.get() {
        values.push(ValueMatch::Present(flag.0));
    }
    let absent = [exact.is_absent(), prefix.is_absent(), regex.is_absent(), present.is_absent()];
    if absent.iter().filter(|absent| !**absent).count() != 1 {
        compiling.problem_with_help(
            spot,
            "a value is tested in exactly one way",
            "one of exact, prefix, regex, present",
        );
    }
    values.pop()
}

fn percent(
    share: &file::Share,
    spot: Spot,
    owner: &str,
    compiling: &Compiling<'_, '_>,
) -> Condition {
    if share.share.is_absent() {
        compiling.missing(spot, "share", "write it like { share: 10%, by: { cookie: uid } }");
    }
    if share.by.is_absent() {
        compiling.missing(spot, "by", "write it like { share: 10%, by: { cookie: uid } }");
    }
    let share_bp = compiling.weight(&share.share).unwrap_or_default();
    let salt = share.salt.get().map_or(owner, |salt| &salt.0);
    Condition::Percent { share_bp, by: compiling.keys(&share.by), salt: Salt::derive(salt) }
}

impl Compiling<'_, '_> {
    /// A percentage of traffic, in buckets of 0.01 %.
    pub(super) fn weight(&self, percent: &Given<Percent>) -> Option<u16> {
        let (percent, spot) = percent.located()?;
        let weight = u16::try_from(percent.steps()).ok().filter(|weight| *weight <= 10_000);
        if weight.is_none() {
            self.problem(spot, format!("{percent} of the traffic is more than there is"));
        }
        weight
    }
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;
    use crate::config::{reader::At, reading::Reading, yaml};

    /// The condition of a match, as it is shown for debugging.
    fn condition(text: &str) -> String {
        let tree = yaml::parse(text).unwrap();
        let reading = Reading::new(&|_| None);
        let matching = Given::<file::Match>::deserialize(At::root(&reading, &tree)).unwrap();
        let base = std::path::Path::new("/etc");
        let compiling = Compiling {
            reading: &reading,
            base,
            has: Default::default(),
            notes: Default::default(),
        };
        let condition = compile(&matching, "owner", &compiling);
        assert!(!reading.has_problems());
        format!("{condition:?}")
    }

    #[track_caller]
    fn check(text: &str, expected: &Condition) {
        assert_eq!(condition(text), format!("{expected:?}"));
    }

    #[test]
    fn one_key_with_several_values_is_any_of_them() {
        let hosts =
            vec![HostPattern::Exact("a.example".into()), HostPattern::Suffix(".b.example".into())];
        check("{ host: [A.example., '*.b.example'] }", &Condition::Host(hosts));
        check(
            "{ query: [{ name: a, exact: [1, 0.10] }, { name: b, present: false }] }",
            &Condition::Any(vec![
                Condition::Query("a".into(), ValueMatch::Exact(vec!["1".into(), "0.10".into()])),
                Condition::Query("b".into(), ValueMatch::Present(false)),
            ]),
        );
    }

    #[test]
    fn several_keys_are_all_of_them_and_any_all_not_nest() {
        let either = Condition::Any(vec![
            Condition::Path(vec!["/a".into()]),
            Condition::Not(Box::new(Condition::Path(vec!["/b".into()]))),
        ]);
        check(
            "{ path_prefix: /cart/, any: [{ path: /a }, { not: { path: /b } }] }",
            &Condition::All(vec![Condition::PathPrefix(vec!["/cart".into()]), either]),
        );
        check("{}", &Condition::All(Vec::new()));
    }

    #[test]
    fn paths_are_matched_in_the_form_in_which_they_are_forwarded() {
        check("{ path: /%7euser/%c3%a4 }", &Condition::Path(vec!["/~user/%C3%A4".into()]));
        check("{ path: /ä }", &Condition::Path(vec!["/%C3%A4".into()]));
        check("{ path_prefix: / }", &Condition::PathPrefix(vec!["/".into()]));
    }

    #[test]
    fn a_share_is_salted_by_its_owner() {
        let share = |salt| Condition::Percent {
            share_bp: 1_250,
            by: vec![crate::routing::KeySource::Cookie("uid".into())],
            salt: Salt::derive(salt),
        };
        check("{ percent: { share: 12.5%, by: { cookie: uid } } }", &share("owner"));
        check("{ percent: { share: 12.5%, by: { cookie: uid }, salt: s } }", &share("s"));
    }

    #[test]
    fn a_single_address_is_a_network_of_one() {
        let networks = ["192.0.2.7/32", "10.0.0.0/8"].map(|text| text.parse().unwrap());
        check("{ client_ip: [192.0.2.7, 10.1.2.3/8] }", &Condition::ClientIp(networks.to_vec()));
    }
}
