//! Conditions on what is known beyond the head.

use std::{cell::Cell, sync::Arc};

use jsonwebtoken::Algorithm;
use serde_json::{Value, json};

use super::{all, header, table_of_cohorts, table_of_routes, texts};
use crate::routing::{
    CohortId, Condition, Countries, Facts, Learned, RequestHead, RouteId, RouteTable, TokenRules,
    Tokens, ValueMatch, VerifiedTokens,
    facts::{
        mmdb::{Place, database},
        signing::{Signer, key_set},
    },
    fixtures::Request,
};

const NOW: u64 = 1_800_000_000;

thread_local! {
    /// How often anybody wanted to know the time: once for every token that is looked at.
    static ASKED: Cell<u32> = const { Cell::new(0) };
}

fn now() -> u64 {
    ASKED.set(ASKED.get() + 1);
    NOW
}

struct Scene {
    facts: Facts,
    verified: VerifiedTokens,
    signer: Signer,
}

impl Scene {
    fn new() -> Self {
        let networks = [("203.0.113.0/24", "DE"), ("198.51.100.0/24", "FR")];
        let countries = Countries::new(database(Place::IsoCode, &networks)).unwrap();
        let signer = Signer::new(Algorithm::ES256, None);
        let rules = TokenRules { issuer: "https://id.example".to_owned(), audience: None };
        let tokens = Tokens::new(&key_set(&[signer.public()]), rules).unwrap();
        let facts = Facts { countries: Some(Arc::new(countries)), tokens: Some(Arc::new(tokens)) };
        Self { facts, verified: VerifiedTokens::default(), signer }
    }

    fn with<T>(&self, request: &Request, ask: impl FnOnce(&RequestHead<'_>) -> T) -> T {
        let learned = Learned::new(&self.facts, &self.verified, now);
        ask(&RequestHead { learned: Some(&learned), ..request.head() })
    }

    fn holds(&self, condition: &Condition, request: &Request) -> bool {
        let alone = std::slice::from_ref(condition);
        self.with(request, |head| {
            let holds = condition.holds(head);
            assert_eq!(table_of_cohorts(alone).cohort(head) == CohortId(1), holds);
            assert_eq!(table_of_routes(alone).route(head).is_some(), holds);
            holds
        })
    }

    fn signed(&self, claims: &Value) -> Request {
        let mut all = json!({ "iss": "https://id.example", "exp": NOW + 600 });
        all.as_object_mut().unwrap().extend(claims.as_object().unwrap().clone());
        Request::get("shop", "/").with("authorization", &self.signer.bearer(&all))
    }
}

fn country(names: &[&'static str]) -> Condition {
    Condition::Country(texts(names))
}

fn claim(name: &str, values: &[&'static str]) -> Condition {
    Condition::JwtClaim(name.into(), ValueMatch::Exact(texts(values)))
}

fn not(condition: Condition) -> Condition {
    Condition::Not(Box::new(condition))
}

#[test]
fn a_country_is_that_of_the_clients_address() {
    let scene = Scene::new();
    let from = |address: &str| Request::get("shop", "/").from(address);
    assert!(scene.holds(&country(&["DE"]), &from("203.0.113.7")));
    assert!(scene.holds(&country(&["AT", "DE"]), &from("::ffff:203.0.113.7")));
    assert!(!scene.holds(&country(&["DE"]), &from("198.51.100.1")));
    assert!(!scene.holds(&country(&["DE"]), &from("192.0.2.1")));
    assert!(scene.holds(&not(country(&["DE"])), &from("192.0.2.1")));
}

#[test]
fn a_claim_is_compared_by_its_text_and_a_list_by_any_of_its_members() {
    let scene = Scene::new();
    let request = scene.signed(&json!({
        "tier": "gold", "level": 7, "beta": true, "groups": ["staff", "berlin"], "o": { "a": 1 },
    }));
    for (name, value) in [
        ("tier", "gold"),
        ("level", "7"),
        ("beta", "true"),
        ("groups", "staff"),
        ("groups", "berlin"),
    ] {
        assert!(scene.holds(&claim(name, &[value]), &request), "{name} {value}");
        assert!(!scene.holds(&not(claim(name, &[value])), &request), "{name} {value}");
    }
    assert!(!scene.holds(&claim("tier", &["Gold", "silver"]), &request));
    let both = all(&[claim("groups", &["staff"]), claim("groups", &["berlin"])]);
    assert!(scene.holds(&both, &request));
    let present = |name: &str, is| Condition::JwtClaim(name.into(), ValueMatch::Present(is));
    assert!(scene.holds(&present("o", true), &request));
    assert!(!scene.holds(&claim("o", &["a"]), &request));
    assert!(scene.holds(&present("none", false), &request));
    let prefix = Condition::JwtClaim("groups".into(), ValueMatch::Prefix(texts(&["ber"])));
    assert!(scene.holds(&prefix, &request));
}

#[test]
fn a_token_that_is_not_valid_has_no_claims() {
    let scene = Scene::new();
    let gold = claim("tier", &["gold"]);
    let stranger = Scene::new();
    let forged = stranger.signed(&json!({ "tier": "gold" }));
    for request in [
        forged,
        scene.signed(&json!({ "tier": "gold", "exp": NOW - 3600 })),
        Request::get("shop", "/"),
        Request::get("shop", "/").with("authorization", "Bearer x"),
        Request::get("shop", "/").with("authorization", "Basic dTpw"),
    ] {
        assert!(!scene.holds(&gold, &request), "{request:?}");
    }
}

#[test]
fn a_token_is_looked_at_only_where_everything_else_holds_and_once() {
    let scene = Scene::new();
    let beta = all(&[header("x-beta", "1"), claim("tier", &["gold"])]);
    let late = all(&[claim("tier", &["silver"]), country(&["DE"])]);
    let cohorts = table_of_cohorts(&[header("x-staff", "1"), beta.clone(), late]);
    let routes = table_of_routes(&[beta]);
    let asked = |routes: &RouteTable, cohorts: &RouteTable, request: &Request| {
        ASKED.set(0);
        let found = scene.with(request, |head| (routes.route(head), cohorts.cohort(head)));
        (found, ASKED.get())
    };
    let none = table_of_routes(&[]);
    let staff = scene.signed(&json!({ "tier": "gold" })).with("x-staff", "1");
    assert_eq!(asked(&none, &cohorts, &staff), ((None, CohortId(1)), 0));
    let gold = scene.signed(&json!({ "tier": "gold" })).with("x-beta", "1");
    assert_eq!(asked(&routes, &cohorts, &gold), ((Some(RouteId(0)), CohortId(2)), 1));
    let silver = scene.signed(&json!({ "tier": "silver" }));
    assert_eq!(asked(&routes, &cohorts, &silver), ((None, CohortId(3)), 1));
}

#[test]
fn several_routes_of_one_path_are_told_apart_by_country() {
    let scene = Scene::new();
    let countries = ["AT", "BE", "CH", "DE", "ES", "FR"];
    let routes = table_of_routes(&countries.map(|name| country(&[name])));
    let route = |address: &str| {
        scene.with(&Request::get("shop", "/").from(address), |head| routes.route(head))
    };
    assert_eq!(route("203.0.113.7"), Some(RouteId(3)));
    assert_eq!(route("198.51.100.7"), Some(RouteId(5)));
    assert_eq!(route("192.0.2.7"), None);
}
