//! The compiled matcher against its rules, and against a plain reading of every condition.

use std::sync::Arc;

use http::{HeaderName, Method};
use proptest::prelude::*;
use regex::Regex;

use super::*;
use crate::routing::{
    Device, HostPattern, KeySource, Salt, ValueMatch,
    fixtures::{Request, route},
    precedence::{HostKey, PathKey, Precedence, alternatives},
};

#[cfg(all(feature = "geo", feature = "jwt"))]
mod learned;
mod reference;

fn texts(texts: &[&str]) -> Vec<Arc<str>> {
    texts.iter().map(|text| Arc::from(*text)).collect()
}

fn pattern(name: &str) -> HostPattern {
    match name.strip_prefix('*') {
        Some(suffix) => HostPattern::Suffix(suffix.into()),
        None => HostPattern::Exact(name.into()),
    }
}

fn host(name: &str) -> Condition {
    Condition::Host(vec![pattern(name)])
}

fn path(path: &str) -> Condition {
    Condition::Path(texts(&[path]))
}

fn prefix(prefix: &str) -> Condition {
    Condition::PathPrefix(texts(&[prefix]))
}

fn regex(pattern: &str) -> Condition {
    Condition::PathRegex(vec![Regex::new(pattern).unwrap()])
}

fn method(method: Method) -> Condition {
    Condition::Method(vec![method])
}

fn header(name: &'static str, value: &str) -> Condition {
    Condition::Header(HeaderName::from_static(name), ValueMatch::Exact(texts(&[value])))
}

fn all(conditions: &[Condition]) -> Condition {
    Condition::All(conditions.to_vec())
}

fn table_of_routes(conditions: &[Condition]) -> RouteTable {
    let routes = conditions.iter().enumerate();
    RouteTable::new(TableParts {
        routes: routes.map(|(at, condition)| (condition.clone(), route(&at.to_string()))).collect(),
        ..TableParts::default()
    })
}

fn table_of_cohorts(conditions: &[Condition]) -> RouteTable {
    let cohorts = conditions.iter().enumerate();
    RouteTable::new(TableParts {
        cohorts: cohorts.map(|(at, is)| (Arc::from(at.to_string()), is.clone())).collect(),
        ..TableParts::default()
    })
}

/// The first condition wins over the second, in whichever order they stand.
fn check_wins(winner: &Condition, loser: &Condition, request: &Request) {
    for (conditions, expected) in
        [([winner.clone(), loser.clone()], 0), ([loser.clone(), winner.clone()], 1)]
    {
        let table = table_of_routes(&conditions);
        assert_eq!(table.route(&request.head()), Some(RouteId(expected)), "{conditions:?}");
    }
    let table = table_of_routes(std::slice::from_ref(loser));
    assert_eq!(table.route(&request.head()), Some(RouteId(0)), "the loser does not match alone");
}

#[test]
fn an_exact_host_wins_over_a_wildcard_and_a_longer_wildcard_over_a_shorter() {
    let request = Request::get("a.shop.example.com", "/cart/1").with("x-a", "1");
    let order =
        [host("a.shop.example.com"), host("*.shop.example.com"), host("*.example.com"), all(&[])];
    for pair in order.windows(2) {
        check_wins(&pair[0], &pair[1], &request);
        let demanding = all(&[pair[1].clone(), path("/cart/1"), header("x-a", "1")]);
        check_wins(&pair[0], &demanding, &request);
    }
}

#[test]
fn an_exact_path_wins_over_prefixes_a_longer_prefix_over_a_shorter_and_both_over_a_regex() {
    let request = Request::get("shop", "/cart/items/1").with("x-a", "1");
    let order = [
        path("/cart/items/1"),
        prefix("/cart/items/"),
        prefix("/cart/items"),
        prefix("/cart"),
        prefix("/"),
        regex("^/cart/items/[0-9]$"),
        all(&[]),
    ];
    for pair in order.windows(2) {
        check_wins(&pair[0], &pair[1], &request);
        let demanding = all(&[pair[1].clone(), method(Method::GET), header("x-a", "1")]);
        check_wins(&pair[0], &demanding, &request);
    }
}

#[test]
fn then_the_method_then_more_conditions_then_the_order_in_the_file() {
    let request = Request::get("shop", "/cart").with("x-a", "1").with("x-b", "2");
    let [a, b] = [header("x-a", "1"), header("x-b", "2")];
    let get = method(Method::GET);
    check_wins(&get, &all(&[a.clone(), b.clone()]), &request);
    check_wins(&all(&[a.clone(), b.clone()]), &a, &request);
    check_wins(&a, &all(&[]), &request);
    let table = table_of_routes(&[b, a]);
    assert_eq!(table.route(&request.head()), Some(RouteId(0)));
}

#[test]
fn every_alternative_of_an_any_has_its_own_precedence() {
    let either = Condition::Any(vec![path("/exact"), prefix("/")]);
    let table = table_of_routes(&[prefix("/cart"), either]);
    let find = |path: &str| table.route(&Request::get("shop", path).head());
    assert_eq!(find("/cart"), Some(RouteId(0)));
    assert_eq!(find("/exact"), Some(RouteId(1)));
    assert_eq!(find("/other"), Some(RouteId(1)));
}

#[test]
fn a_route_that_does_not_match_wholly_gives_way_to_the_next() {
    let table = table_of_routes(&[
        all(&[host("shop"), path("/cart"), header("x-a", "1")]),
        all(&[host("shop"), prefix("/cart"), method(Method::POST)]),
        prefix("/cart"),
    ]);
    let find = |request: Request| table.route(&request.head());
    assert_eq!(find(Request::get("shop", "/cart").with("x-a", "1")), Some(RouteId(0)));
    assert_eq!(find(Request::get("shop", "/cart")), Some(RouteId(2)));
    let post = Request { method: Method::POST, ..Request::get("shop", "/cart") };
    assert_eq!(find(post), Some(RouteId(1)));
    assert_eq!(find(Request::get("shop", "/other")), None);
}

#[test]
fn a_prefix_ends_on_a_border_of_segments() {
    let table = table_of_routes(&[prefix("/cart")]);
    let matches = |path: &str| table.route(&Request::get("shop", path).head()).is_some();
    assert!(matches("/cart") && matches("/cart/") && matches("/cart/1") && matches("/cart//"));
    assert!(!matches("/carts") && !matches("/car") && !matches("/") && !matches("/a/cart"));
    let below = table_of_routes(&[prefix("/cart/")]);
    assert!(below.route(&Request::get("shop", "/cart/1").head()).is_some());
    assert!(below.route(&Request::get("shop", "/cart").head()).is_none());
}

#[test]
fn hosts_and_paths_match_in_any_spelling_of_the_configuration() {
    let table = table_of_routes(&[all(&[host("Shop.Example.com."), path("/caf\u{e9}/%7ea")])]);
    let request = Request::get("shop.example.com", "/caf%C3%A9/~a");
    assert_eq!(table.route(&request.head()), Some(RouteId(0)));
}

#[test]
fn a_wildcard_does_not_match_the_bare_domain() {
    let table = table_of_routes(&[host("*.example.com")]);
    let matches = |host: &str| table.route(&Request::get(host, "/").head()).is_some();
    assert!(matches("a.example.com") && matches("a.b.example.com"));
    assert!(!matches("example.com") && !matches("badexample.com"));
}

#[test]
fn the_first_cohort_that_matches_wins_and_the_rest_is_default() {
    let table = table_of_cohorts(&[
        all(&[header("x-staff", "1"), Condition::Device(vec![Device::Ios])]),
        header("x-staff", "1"),
        Condition::Cookie("beta".into(), ValueMatch::Present(true)),
    ]);
    let iphone = "Mozilla/5.0 (iPhone; CPU iPhone OS 17_0 like Mac OS X) Mobile/15E148";
    let staff = Request::get("shop", "/").with("x-staff", "1");
    let cohort = |request: &Request| table.cohort(&request.head());
    assert_eq!(cohort(&staff), CohortId(2));
    assert_eq!(cohort(&staff.with("user-agent", iphone)), CohortId(1));
    assert_eq!(cohort(&Request::get("shop", "/").with("cookie", "a=1; beta")), CohortId(3));
    assert_eq!(cohort(&Request::get("shop", "/")), CohortId(0));
    assert_eq!(table.cohort_name(CohortId(0)), "default");
}

#[test]
fn a_country_is_unknown_and_a_claim_absent_where_nothing_tells_them() {
    let country = Condition::Country(texts(&["DE"]));
    let claim = |value| Condition::JwtClaim("sub".into(), value);
    let request = Request::get("shop", "/");
    assert!(!country.holds(&request.head()));
    assert!(Condition::Not(Box::new(country)).holds(&request.head()));
    assert!(!claim(ValueMatch::Exact(texts(&["a"]))).holds(&request.head()));
    assert!(claim(ValueMatch::Present(false)).holds(&request.head()));
}

#[test]
fn the_shortest_and_the_last_address_of_a_network_are_in_it() {
    let net = |text: &str| Condition::ClientIp(vec![text.parse().unwrap()]);
    let table = table_of_cohorts(&[
        net("10.1.0.0/16"),
        net("10.0.0.0/8"),
        net("255.255.255.0/24"),
        net("2001:db8::/32"),
    ]);
    for (address, expected) in [
        ("9.255.255.255", 0),
        ("10.0.0.0", 2),
        ("10.1.0.0", 1),
        ("10.1.255.255", 1),
        ("10.2.0.0", 2),
        ("10.255.255.255", 2),
        ("11.0.0.0", 0),
        ("255.255.255.255", 3),
        ("::", 0),
        ("::ffff:10.1.2.3", 1),
        ("2001:db7:ffff::", 0),
        ("2001:db8::1", 4),
        ("2001:db9::", 0),
    ] {
        let request = Request::get("shop", "/").from(address);
        assert_eq!(table.cohort(&request.head()), CohortId(expected), "{address}");
    }
}

#[test]
fn more_rows_than_one_index_holds_keep_their_order() {
    let named = |at: usize| header("x-number", &at.to_string());
    let conditions: Vec<Condition> = (0..5000).map(named).collect();
    let table = table_of_cohorts(&conditions);
    for number in [0, 63, 64, 4095, 4096, 4999] {
        let request = Request::get("shop", "/").with("x-number", &number.to_string());
        assert_eq!(table.cohort(&request.head()), CohortId(number as u16 + 1));
    }
    let routes = table_of_routes(&conditions);
    let request = Request::get("shop", "/").with("x-number", "4999");
    assert_eq!(routes.route(&request.head()), Some(RouteId(4999)));
}

#[test]
fn more_cookies_than_one_pass_tells_apart_are_all_read() {
    let named =
        |at: usize| Condition::Cookie(format!("c{at}").into(), ValueMatch::Exact(texts(&["1"])));
    let table = table_of_cohorts(&(0..130).map(named).collect::<Vec<_>>());
    for number in [0, 63, 64, 127, 128, 129] {
        let request = Request::get("shop", "/").with("cookie", &format!("a=1; c{number}=1"));
        assert_eq!(table.cohort(&request.head()), CohortId(number + 1));
    }
}

#[test]
fn a_percentage_is_exact_over_the_buckets_and_leaves_out_who_has_no_key() {
    let salt = Salt::derive("percent");
    let by = vec![KeySource::Cookie("uid".into())];
    let share = Condition::Percent { share_bp: 1000, by, salt };
    let table = table_of_cohorts(&[share]);
    let inside = (0..20_000).filter(|user| {
        let request = Request::get("shop", "/").with("cookie", &format!("uid=user-{user}"));
        table.cohort(&request.head()) == CohortId(1)
    });
    let inside = inside.count();
    assert!((1_850..2_150).contains(&inside), "{inside} of 20,000 at 10 %");
    assert_eq!(table.cohort(&Request::get("shop", "/").head()), CohortId(0));
}

fn any_value_match() -> impl Strategy<Value = ValueMatch> {
    let some = |values: &'static [&'static str]| {
        prop::collection::vec(prop::sample::select(values), 0..3).prop_map(|found| texts(&found))
    };
    prop_oneof![
        4 => some(&["", "a", "ab", "abc", "b", "ba"]).prop_map(ValueMatch::Exact),
        3 => some(&["", "a", "ab", "b"]).prop_map(ValueMatch::Prefix),
        1 => Just(ValueMatch::Regex(vec![Regex::new("^a.?$").unwrap()])),
        1 => any::<bool>().prop_map(ValueMatch::Present),
    ]
}

fn any_leaf() -> impl Strategy<Value = Condition> {
    let select =
        |values: &'static [&'static str]| prop::collection::vec(prop::sample::select(values), 1..3);
    let devices = [Device::Ios, Device::Android, Device::Mobile, Device::Desktop, Device::Bot];
    prop_oneof![
        prop::sample::select(&[Method::GET, Method::POST][..]).prop_map(method),
        select(&["shop", "*.shop", "a.shop", "*.a.shop"])
            .prop_map(|names| { Condition::Any(names.into_iter().map(host).collect()) }),
        select(&["shop", "*.shop", "a.shop", "*.a.shop"])
            .prop_map(|names| { Condition::Host(names.into_iter().map(pattern).collect()) }),
        select(&["/", "/a", "/a/b", "/b"]).prop_map(|paths| Condition::Path(texts(&paths))),
        select(&["/", "/a", "/a/", "/a/b"]).prop_map(|paths| Condition::PathPrefix(texts(&paths))),
        Just(regex("b$")),
        (prop::sample::select(&["x-a", "x-b"][..]), any_value_match())
            .prop_map(|(name, value)| Condition::Header(HeaderName::from_static(name), value)),
        (prop::sample::select(&["a", "b"][..]), any_value_match())
            .prop_map(|(name, value)| Condition::Cookie(name.into(), value)),
        (prop::sample::select(&["a", "b"][..]), any_value_match())
            .prop_map(|(name, value)| Condition::Query(name.into(), value)),
        select(&["10.0.0.0/8", "10.1.0.0/16", "0.0.0.0/0", "2001:db8::/32"]).prop_map(|nets| {
            Condition::ClientIp(nets.iter().map(|net| net.parse().unwrap()).collect())
        }),
        Just(Condition::Country(texts(&["DE"]))),
        prop::sample::select(devices.to_vec()).prop_map(|device| Condition::Device(vec![device])),
        any_value_match().prop_map(|value| Condition::JwtClaim("sub".into(), value)),
        (0..=10_000u16).prop_map(|share_bp| Condition::Percent {
            share_bp,
            by: vec![KeySource::Cookie("a".into()), KeySource::Query("b".into())],
            salt: Salt(1, 2),
        }),
    ]
}

fn any_condition() -> impl Strategy<Value = Condition> {
    any_leaf().prop_recursive(3, 10, 3, |inner| {
        prop_oneof![
            3 => prop::collection::vec(inner.clone(), 0..4).prop_map(Condition::All),
            1 => prop::collection::vec(inner.clone(), 0..3).prop_map(Condition::Any),
            1 => inner.prop_map(|condition| Condition::Not(Box::new(condition))),
        ]
    })
}

fn any_request() -> impl Strategy<Value = Request> {
    let value = || prop::option::of(prop::sample::select(&["", "a", "ab", "abd", "b", "c"][..]));
    let select = |values: &'static [&'static str]| prop::sample::select(values);
    (
        prop::sample::select(&[Method::GET, Method::POST][..]),
        select(&["shop", "a.shop", "b.a.shop", "bshop"]),
        select(&["/", "/a", "/a/", "/a/b", "/ab", "/b", "/a/b/c"]),
        (value(), value(), value(), value(), value(), value()),
        select(&["9.9.9.9", "10.0.0.1", "10.1.0.1", "2001:db8::1", "::1"]),
        select(&["", "curl/8", "Mozilla/5.0 (iPhone; x) Mobile", "Mozilla/5.0 (X11)"]),
    )
        .prop_map(|(method, host, path, values, address, agent)| {
            let mut request = Request { method, ..Request::get(host, path).from(address) };
            let (header_a, header_b, cookie_a, cookie_b, query_a, query_b) = values;
            for (name, value) in [("x-a", header_a), ("x-b", header_b)] {
                if let Some(value) = value {
                    request = request.with(name, value);
                }
            }
            for (name, value) in [("a", cookie_a), ("b", cookie_b)] {
                if let Some(value) = value {
                    request = request.with("cookie", &format!("x=y; {name}={value}"));
                }
            }
            let pairs = [("a", query_a), ("b", query_b)];
            let found =
                pairs.iter().filter_map(|(name, value)| Some(format!("{name}={}", (*value)?)));
            let query = found.collect::<Vec<_>>().join("&");
            request.query(&query).with("user-agent", agent)
        })
}

/// The best of all ways of matching of all routes, each looked at in turn.
fn slow_route(conditions: &[Condition], request: &Request) -> Option<RouteId> {
    let head = request.head();
    let matching: Option<Precedence> = conditions
        .iter()
        .enumerate()
        .flat_map(|(order, condition)| alternatives(condition, order))
        .filter(|way| {
            (match &way.host {
                HostKey::Any => true,
                HostKey::Suffix(suffix) => head.host.ends_with(&**suffix),
                HostKey::Exact(host) => **host == *head.host,
            }) && (match &way.path {
                PathKey::Any => true,
                PathKey::Prefix(prefix) => reference::holds(&self::prefix(prefix), &head),
                PathKey::Exact(path) => **path == *head.path,
            }) && way.rest.iter().all(|term| reference::holds(term, &head))
        })
        .map(|way| way.precedence)
        .max();
    matching.map(|precedence| RouteId(precedence.order.0 as u32))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn a_compiled_condition_holds_where_the_plain_reading_does(
        condition in any_condition(),
        request in any_request(),
    ) {
        let plain = reference::holds(&condition, &request.head());
        prop_assert_eq!(condition.holds(&request.head()), plain);
        let cohort = table_of_cohorts(std::slice::from_ref(&condition)).cohort(&request.head());
        prop_assert_eq!(cohort == CohortId(1), plain);
        let route = table_of_routes(&[condition]).route(&request.head());
        prop_assert_eq!(route.is_some(), plain);
    }

    #[test]
    fn the_cohort_is_the_first_that_holds(
        conditions in prop::collection::vec(any_condition(), 0..12),
        request in any_request(),
    ) {
        let first = conditions.iter().position(|is| reference::holds(is, &request.head()));
        let expected = CohortId(first.map_or(0, |index| index as u16 + 1));
        prop_assert_eq!(table_of_cohorts(&conditions).cohort(&request.head()), expected);
    }

    #[test]
    fn the_route_is_the_one_of_the_greatest_precedence(
        conditions in prop::collection::vec(any_condition(), 0..12),
        request in any_request(),
    ) {
        let expected = slow_route(&conditions, &request);
        prop_assert_eq!(table_of_routes(&conditions).route(&request.head()), expected);
    }
}
