//! `haldane explain`: which route, cohort and arm a request would get, and why. Asks no running
//! proxy: the weights are those of the first stages of the plans.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    net::IpAddr,
    path::PathBuf,
    time::{SystemTime, UNIX_EPOCH},
};

use clap::Args;
use http::{
    HeaderMap, HeaderName, HeaderValue, Method, Uri,
    header::{AUTHORIZATION, HOST},
};
use serde::Serialize;

use super::{
    arguments::Output,
    exit::{Exit, Failure},
};
use crate::{
    config::{self, Compiled},
    routing::{
        Assignment, BUCKETS, Claims, CohortId, Facts, KeySource, Learned, RequestHead, Service,
        ServiceDial, TokenProblem, VerifiedTokens, assign, bucket, normalise_host, normalise_path,
    },
};

/// What `haldane explain` is asked.
#[derive(Args, Debug)]
pub(super) struct Arguments {
    /// The configuration
    #[arg(short, long, default_value = super::arguments::DEFAULT_CONFIG, value_name = "FILE")]
    pub(super) config: PathBuf,
    /// The method of the request
    #[arg(value_name = "METHOD")]
    pub(super) method: Method,
    /// Its URL, such as http://shop.example.com/cart?id=1, or its path alone
    #[arg(value_name = "URL")]
    pub(super) url: Uri,
    /// A header field of it; may be given again
    #[arg(short = 'H', long = "header", value_name = "NAME: VALUE", value_parser = header)]
    pub(super) headers: Vec<(HeaderName, HeaderValue)>,
    /// The client's address
    #[arg(long, default_value = "127.0.0.1", value_name = "IP")]
    pub(super) client_ip: IpAddr,
}

fn header(text: &str) -> Result<(HeaderName, HeaderValue), String> {
    let (name, value) = text.split_once(':').ok_or("expected 'name: value'")?;
    let name = HeaderName::from_bytes(name.trim().as_bytes()).map_err(|error| error.to_string())?;
    let value = HeaderValue::from_str(value.trim()).map_err(|error| error.to_string())?;
    Ok((name, value))
}

/// Explains the request. It is data and goes to standard output.
pub(super) fn run(output: Output, arguments: &Arguments) -> Result<(), Failure> {
    let compiled = config::load(&arguments.config, &|name| std::env::var(name).ok())
        .map_err(|problems| Failure::new(Exit::InvalidConfig, problems.to_string()))?;
    let explanation = explain(&compiled, arguments)?;
    match output {
        Output::Text => print!("{}", explanation.text()),
        Output::Json => println!("{:#}", serde_json::json!(explanation)),
    }
    Ok(())
}

/// What would become of a request.
#[derive(Debug, PartialEq, Serialize)]
struct Explanation {
    /// The host that was matched.
    host: String,
    /// The normalised path that was matched.
    path: String,
    /// The client's country; left out where the configuration has no `geo`.
    #[serde(skip_serializing_if = "Option::is_none")]
    country: Option<Country>,
    /// What the token says; left out where the configuration has no `jwt`.
    #[serde(skip_serializing_if = "Option::is_none")]
    token: Option<Token>,
    /// The route, if any matches.
    route: Option<String>,
    service: Option<String>,
    cohort: String,
    /// The arm; none where a coin would decide.
    arm: Option<String>,
    /// How it comes to that, one sentence.
    why: Option<String>,
    /// The bucket of the key, of 10,000.
    bucket: Option<u16>,
    /// The arms' shares of the cohort at the first stage, as shares of 1.
    weights: Vec<ArmWeight>,
    /// Whether such a request is left out of the evidence.
    left_out: bool,
}

/// Two letters, or null where it is not known.
#[derive(Debug, PartialEq, Serialize)]
struct Country(Option<String>);

/// A token as conditions see it.
#[derive(Debug, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
enum Token {
    /// The texts of each claim.
    Claims(BTreeMap<String, Vec<String>>),
    /// Why it has none.
    Invalid(String),
    /// There is none.
    Missing,
}

impl Token {
    fn text(&self) -> String {
        match self {
            Self::Claims(claims) => {
                let claim = |(name, texts): (&String, &Vec<String>)| {
                    format!("{name}: {}", texts.join(" | "))
                };
                claims.iter().map(claim).collect::<Vec<_>>().join(", ")
            }
            Self::Invalid(why) => format!("none: the token is not valid, {why}"),
            Self::Missing => "none: there is no token".to_owned(),
        }
    }
}

#[derive(Debug, PartialEq, Serialize)]
struct ArmWeight {
    arm: String,
    version: String,
    weight: f64,
}

impl Explanation {
    fn text(&self) -> String {
        let mut text = String::new();
        let mut line = |what: &str, value: &str| {
            // Writing to a string cannot fail.
            let _ = writeln!(text, "{what:<9}{value}");
        };
        line("request", &format!("host `{}`, path `{}`", self.host, self.path));
        if let Some(Country(country)) = &self.country {
            line("country", country.as_deref().unwrap_or("not known"));
        }
        if let Some(token) = &self.token {
            line("claims", &token.text());
        }
        let (Some(route), Some(service)) = (&self.route, &self.service) else {
            line("route", "none matches: the answer is 404");
            return text;
        };
        line("route", route);
        line("service", service);
        line("cohort", &self.cohort);
        line("arm", self.arm.as_deref().unwrap_or("by a coin"));
        line("why", self.why.as_deref().unwrap_or_default());
        for ArmWeight { arm, version, weight } in &self.weights {
            let version = if version.is_empty() { String::new() } else { format!(" ({version})") };
            line("weight", &format!("{:>6.2} % {arm}{version}", weight * 100.0));
        }
        if self.left_out {
            line("evidence", "left out, since the request is forced to its arm");
        }
        text
    }
}

fn explain(compiled: &Compiled, arguments: &Arguments) -> Result<Explanation, Failure> {
    let usage = |message: String| Failure::new(Exit::Usage, message);
    let headers: HeaderMap = arguments.headers.iter().cloned().collect();
    let authority = arguments.url.authority().map(http::uri::Authority::as_str);
    let authority = authority.or_else(|| headers.get(HOST)?.to_str().ok()).unwrap_or_default();
    let host = match authority {
        "" => "".into(),
        authority => normalise_host(authority)
            .map_err(|error| usage(format!("the host `{authority}`: {error}")))?,
    };
    let path = normalise_path(arguments.url.path())
        .map_err(|error| usage(format!("the URL: {error}; the proxy would answer 400")))?;
    let table = &compiled.routes;
    let verified = VerifiedTokens::default();
    let learned = Learned::new(table.facts(), &verified, unix_seconds);
    let head = RequestHead {
        method: &arguments.method,
        host: &host,
        path: &path,
        query: arguments.url.query(),
        headers: &headers,
        client_ip: arguments.client_ip,
        learned: Some(&learned),
    };
    let cohort = table.cohort(&head);
    let mut explanation = Explanation {
        host: head.host.to_owned(),
        path: head.path.to_owned(),
        country: country(table.facts(), arguments.client_ip),
        token: token(table.facts(), &headers),
        route: None,
        service: None,
        cohort: table.cohort_name(cohort).to_owned(),
        arm: None,
        why: None,
        bucket: None,
        weights: Vec::new(),
        left_out: false,
    };
    if let Some(route) = table.route(&head) {
        let route = table.route_at(route);
        explanation.route = Some(route.name.to_string());
        let weights = first_weights(compiled, route.service.0 as usize);
        explain_arm(&mut explanation, table.service(route.service), &weights, cohort, &head);
    }
    Ok(explanation)
}

fn country(facts: &Facts, client_ip: IpAddr) -> Option<Country> {
    let countries = facts.countries.as_ref()?;
    Some(Country(countries.country(client_ip).map(|country| country.to_string())))
}

fn token(facts: &Facts, headers: &HeaderMap) -> Option<Token> {
    let tokens = facts.tokens.as_ref()?;
    let Some(authorization) = headers.get(AUTHORIZATION) else { return Some(Token::Missing) };
    Some(match tokens.verify(authorization.as_bytes(), unix_seconds()) {
        Ok((claims, _)) => Token::Claims(by_name(&claims)),
        Err(TokenProblem::NoToken) => Token::Missing,
        Err(problem) => Token::Invalid(problem.to_string()),
    })
}

fn by_name(claims: &Claims) -> BTreeMap<String, Vec<String>> {
    let texts = |texts: &[Box<str>]| texts.iter().map(|text| text.to_string()).collect();
    claims.iter().map(|(name, all)| (name.to_owned(), texts(all))).collect()
}

fn unix_seconds() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// The weights of the canaries at the first stage of their plans, as far as they fit.
fn first_weights(compiled: &Compiled, service: usize) -> Vec<u16> {
    let mut free = BUCKETS as u16;
    let first = |canary: &crate::rollout::CanaryPlan| {
        let stage = canary.plan.as_ref().and_then(|plan| plan.stages.first());
        let weight = stage.map_or(0, |stage| stage.weight_bp).min(free);
        free -= weight;
        weight
    };
    compiled.rollout.services[service].canaries.iter().map(first).collect()
}

fn explain_arm(
    explanation: &mut Explanation,
    service: &Service,
    weights: &[u16],
    cohort: CohortId,
    head: &RequestHead<'_>,
) {
    let dial = ServiceDial::new(service, weights);
    // The coin of a request without a key is not known: only what does not rest on it is said.
    let assignment = assign(service, &dial, cohort, head, 0);
    let arm = &service.arms[usize::from(assignment.arm.0)].name;
    explanation.service = Some(service.name.to_string());
    explanation.left_out = assignment.excluded;
    explanation.weights = service
        .arms
        .iter()
        .zip(0..)
        .map(|(arm, index)| ArmWeight {
            arm: arm.name.to_string(),
            version: arm.version.to_string(),
            weight: f64::from(dial.weight_bp(cohort, crate::routing::ArmIndex(index))) / 10_000.0,
        })
        .collect();
    if assignment.unit != 0 {
        explanation.bucket = Some(bucket(assignment.unit));
    }
    explanation.why = Some(why(service, &dial, cohort, head, &assignment));
    if assignment.excluded || assignment.unit != 0 {
        explanation.arm = Some(arm.to_string());
    }
}

fn why(
    service: &Service,
    dial: &ServiceDial,
    cohort: CohortId,
    head: &RequestHead<'_>,
    assignment: &Assignment,
) -> String {
    if assignment.excluded {
        let unpinned = Service { cohorts: Vec::new(), ..service.clone() };
        let by_override =
            assign(&unpinned, &ServiceDial::new(&unpinned, dial.weights_bp()), cohort, head, 0)
                .excluded;
        return match &service.override_by {
            Some(rule) if by_override => {
                format!("the override header `{}`, believed from {}", rule.header, head.client_ip)
            }
            Some(_) | None => "the service pins this cohort".to_owned(),
        };
    }
    // A source alone tells whether it is present.
    let present = service.assign_by.iter().find(|source| {
        let alone = Service { assign_by: vec![(*source).clone()], ..service.clone() };
        assign(&alone, dial, cohort, head, 0).unit != 0
    });
    match present {
        Some(source) => {
            let bucket = bucket(assignment.unit);
            format!("keyed by the {}: bucket {bucket} of {BUCKETS}", name_of(source))
        }
        None if service.assign_by.is_empty() => {
            "the service has no `assign_by`: a coin decides for each request".to_owned()
        }
        None => "no key of `assign_by` is present: a coin decides for each request".to_owned(),
    }
}

fn name_of(source: &KeySource) -> String {
    match source {
        KeySource::Cookie(name) => format!("cookie `{name}`"),
        KeySource::Header(name) => format!("header field `{name}`"),
        KeySource::Query(name) => format!("query parameter `{name}`"),
        KeySource::ClientIp => "client's address".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    #[cfg(feature = "jwt")]
    use crate::routing::{TokenRules, Tokens};

    const FILE: &str = r#"
version: 1
listeners: [{ address: 127.0.0.1:0 }]
cohorts:
  - { name: staff, match: { header: { name: x-staff, exact: "1" } } }
  - { name: capped, match: { path_prefix: /capped } }
services:
  shop:
    baseline: 127.0.0.1:1
    canaries: { v2: { upstream: "127.0.0.1:2", version: "2.3.1" } }
    assign_by: [{ cookie: uid }, { header: x-user-id }]
    override: { header: x-canary, from: 10.0.0.0/8 }
    cohorts: { staff: { pin: v2 }, capped: { max_weight: 5% } }
    rollout: { stages: [20%, 100%] }
routes:
  - { name: web, match: { host: shop.example.com }, service: shop }
"#;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        arguments: Arguments,
    }

    fn explained(line: &[&str]) -> Explanation {
        let compiled =
            config::compile_text(FILE, std::path::Path::new("c.yaml"), &|_| None).unwrap();
        let line = Line::try_parse_from([&["explain"], line].concat()).unwrap();
        explain(&compiled, &line.arguments).unwrap()
    }

    #[test]
    fn without_a_route_the_answer_is_404() {
        let text = explained(&["GET", "http://other.example/x"]).text();
        insta::assert_snapshot!(text, @r"
        request  host `other.example`, path `/x`
        route    none matches: the answer is 404
        ");
    }

    #[test]
    fn without_a_key_the_odds_are_shown() {
        let explanation = explained(&["GET", "http://shop.example.com:8080/a/../b?c=d"]);
        assert_eq!((explanation.arm.as_ref(), explanation.bucket), (None, None));
        insta::assert_snapshot!(explanation.text(), @r"
        request  host `shop.example.com`, path `/b`
        route    web
        service  shop
        cohort   default
        arm      by a coin
        why      no key of `assign_by` is present: a coin decides for each request
        weight    80.00 % baseline
        weight    20.00 % v2 (2.3.1)
        ");
    }

    #[test]
    fn a_key_has_its_bucket_and_its_arm() {
        let explanation =
            explained(&["GET", "/", "-H", "host: shop.example.com", "-H", "x-user-id: 7"]);
        insta::assert_snapshot!(explanation.text(), @r"
        request  host `shop.example.com`, path `/`
        route    web
        service  shop
        cohort   default
        arm      baseline
        why      keyed by the header field `x-user-id`: bucket 3566 of 10000
        weight    80.00 % baseline
        weight    20.00 % v2 (2.3.1)
        ");
        let again = explained(&["POST", "http://SHOP.example.com/x", "-H", "cookie: a=b; uid=7"]);
        assert_eq!(again.bucket, explanation.bucket, "the same key is the same user");
    }

    #[test]
    fn caps_pins_and_overrides_are_told_apart() {
        let capped = explained(&["GET", "http://shop.example.com/capped", "-H", "x-user-id: 7"]);
        assert_eq!(capped.cohort, "capped");
        assert!((capped.weights[1].weight - 0.05).abs() < 1e-9);
        let pinned = explained(&["GET", "http://shop.example.com/", "-H", "x-staff: 1"]);
        insta::assert_snapshot!(pinned.text(), @r"
        request  host `shop.example.com`, path `/`
        route    web
        service  shop
        cohort   staff
        arm      v2
        why      the service pins this cohort
        weight     0.00 % baseline
        weight   100.00 % v2 (2.3.1)
        evidence left out, since the request is forced to its arm
        ");
        let chosen =
            ["GET", "http://shop.example.com/", "-H", "x-canary: never", "-H", "x-staff: 1"];
        let believed = explained(&[&chosen[..], &["--client-ip", "10.1.2.3"]].concat());
        insta::assert_snapshot!(believed.text(), @r"
        request  host `shop.example.com`, path `/`
        route    web
        service  shop
        cohort   staff
        arm      baseline
        why      the override header `x-canary`, believed from 10.1.2.3
        weight     0.00 % baseline
        weight   100.00 % v2 (2.3.1)
        evidence left out, since the request is forced to its arm
        ");
        assert_eq!(explained(&chosen).arm.as_deref(), Some("v2"), "not believed: the pin holds");
    }

    #[cfg(feature = "geo")]
    #[test]
    fn the_country_is_shown_where_it_is_configured() {
        let tests = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/c.yaml");
        let geo = "cohorts:\n  - { name: german, match: { country: DE } }\n";
        let file = FILE.replace("cohorts:\n", geo) + "geo: { database: country-de.mmdb }\n";
        let compiled = config::compile_text(&file, &tests, &|_| None).unwrap();
        let from = |address| {
            let line = ["explain", "GET", "http://a.example/", "--client-ip", address];
            explain(&compiled, &Line::try_parse_from(line).unwrap().arguments).unwrap()
        };
        let german = from("203.0.113.7");
        assert_eq!(german.cohort, "german");
        assert!(german.text().contains("\ncountry  DE\n"), "{}", german.text());
        assert_eq!(serde_json::json!(german)["country"], "DE");
        let other = from("192.0.2.7");
        assert_eq!(other.cohort, "default");
        assert!(other.text().contains("\ncountry  not known\n"), "{}", other.text());
        assert!(serde_json::json!(other)["country"].is_null());
    }

    #[cfg(feature = "jwt")]
    #[test]
    fn claims_are_shown_or_why_there_are_none() {
        let rules = TokenRules { issuer: "i".to_owned(), audience: None };
        let keys = br#"{"keys":[{"kty":"EC","crv":"P-256",
            "x":"f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU",
            "y":"x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0"}]}"#;
        let tokens = Tokens::new(keys, rules).unwrap();
        let facts = Facts { tokens: Some(std::sync::Arc::new(tokens)), ..Facts::default() };
        let shown = |authorization: Option<&'static str>| {
            let field = |value| (AUTHORIZATION, HeaderValue::from_static(value));
            token(&facts, &authorization.map(field).into_iter().collect()).unwrap()
        };
        assert_eq!(shown(None), Token::Missing);
        assert_eq!(shown(Some("Basic dTpw")), Token::Missing);
        let why =
            "none: the token is not valid, it is malformed, or asks for what is not understood";
        assert_eq!(shown(Some("Bearer a.b.c")).text(), why);
        let claims = |name: &str, texts: &[&str]| {
            (name.to_owned(), texts.iter().map(|text| (*text).to_owned()).collect())
        };
        let token = Token::Claims([claims("tier", &["gold"]), claims("a", &["1", "2"])].into());
        assert_eq!(token.text(), "a: 1 | 2, tier: gold");
        assert_eq!(super::token(&Facts::default(), &HeaderMap::new()), None);
    }

    #[test]
    fn a_header_without_a_colon_is_a_mistake_of_usage() {
        assert!(Line::try_parse_from(["explain", "GET", "/", "-H", "nothing"]).is_err());
    }
}
