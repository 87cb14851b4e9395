//! What is accepted, and what it comes to.

use std::time::Duration;

use super::{LEAST, accept, directory_with_certificates};
use crate::{
    config::compile_text,
    proxy::Listen,
    rollout::{Fallback, SessionPolicy},
    routing::{ArmIndex, Balancing, Eject, Endpoint, HealthQuestion, KeySource, Policy},
};

#[test]
fn the_least_that_runs() {
    let compiled = accept(LEAST);
    assert_eq!(compiled.proxy.listeners.len(), 1);
    assert_eq!(&*compiled.proxy.listeners[0].name, "0.0.0.0:8080");
    assert_eq!(compiled.proxy.drain, Duration::from_secs(30));
    let service = &compiled.routes.services()[0];
    let arms: Vec<_> = service.arms.iter().map(|arm| (&*arm.name, &*arm.version)).collect();
    assert_eq!(arms, [("baseline", ""), ("v2", "2.3.1")]);
    let endpoint =
        |arm: usize| compiled.routes.upstream(service.arms[arm].upstream).endpoints[0].clone();
    assert_eq!(endpoint(0), Endpoint::Address("127.0.0.1:9001".parse().unwrap()));
    assert_eq!(endpoint(1), Endpoint::Address("127.0.0.1:9002".parse().unwrap()));
    let route = compiled.routes.routes().next().unwrap();
    assert_eq!(&*route.name, "shop");
    assert_eq!(route.timeout, Duration::from_secs(10));
    let plan = compiled.rollout.services[0].canaries[0].plan.clone().unwrap();
    assert_eq!(&*plan.name, "risk: medium");
    let weights: Vec<u16> = plan.stages.iter().map(|stage| stage.weight_bp).collect();
    assert_eq!(weights, [100, 500, 2_500, 5_000, 9_500, 10_000]);
}

#[cfg(all(feature = "geo", feature = "jwt"))]
#[test]
fn the_whole_of_the_example() {
    let directory = directory_with_certificates();
    super::facts::add_to(directory.path());
    let at = |name: &str| directory.path().join(name);
    let compiled = compile_text(
        r#"
version: 1
listeners:
  - name: edge
    address: 0.0.0.0:8080
  - name: edge-tls
    address: 0.0.0.0:8443
    tls:
      certificates: [{ cert: tls/shop.crt, key: tls/shop.key }]
      client_ca: tls/clients.pem
    trusted_proxies: [10.0.0.0/8]
    proxy_protocol: false
  - { address: "[::]:8081", redirect: https }
  - { name: local, address: "unix:run/haldane.sock" }
admin:
  address: 127.0.0.1:9900
  token_file: /run/secrets/haldane
state_dir: state
geo: { database: country.mmdb }
jwt: { jwks: keys.json, issuer: https://id.example.com }
upstreams:
  checkout-v1:
    endpoints: ["10.0.0.1:9001", "checkout.internal:9001", "unix:/run/checkout.sock"]
    protocol: auto
    health_check: { path: /healthz, interval: 5s }
  checkout-v2:
    endpoints: ["10.0.0.9:9001"]
    warmup: { connections: 8, period: 60s }
cohorts:
  - name: staff
    match: { header: { name: x-staff, exact: "1" } }
  - name: ios-eu
    match: { device: ios, country: [DE, FR] }
services:
  checkout:
    baseline: checkout-v1
    canaries:
      v2:
        upstream: checkout-v2
        version: "2.3.1"
        request_headers: { set: { x-feature-fast-cart: "on" } }
    assign_by: [ { cookie: uid }, { header: x-user-id }, client_ip ]
    salt: "${CHECKOUT_SALT:-checkout}"
    sessions_on_rollback: { drain: 5m }
    override: { header: x-canary, from: [10.0.0.0/8] }
    cohorts:
      staff: { pin: v2 }
      ios-eu: { max_weight: 5%, slo: { latency: { p99: 400ms } } }
    rollout: standard
    risk: medium
routes:
  - name: cart
    match: { host: shop.example.com, path_prefix: /cart, method: [GET, POST] }
    service: checkout
    timeout: 10s
    latency: first_byte
    failed_when: [5xx, 429]
    slo: { latency: { p99: 250ms }, errors: 0.5%, window: 1h }
rollouts:
  standard:
    stages:
      - { weight: 1%,  at_least: 2m }
      - { weight: 5%,  at_least: 5m }
      - { weight: 25%, at_least: 5m, gate: approval }
      - { weight: 50%, at_least: 5m }
      - { weight: 95%, at_least: 10m }
      - { weight: 100% }
    judge:
      false_rollback: 0.1%
      false_promotion: 5%
      tolerate: { latency: 5%, latency_floor: 0.1ms, errors: 0.1% }
      promote_within: { latency: 25%, errors: 0.5% }
      block: auto
      max_bad_responses: 1000
    inconclusive_after: { period: 4h, then: rollback }
    manual: true
"#,
        &at("haldane.yaml"),
        &|_| None,
    )
    .unwrap_or_else(|problems| panic!("{problems}"));
    let listeners = &compiled.proxy.listeners;
    assert_eq!(listeners[3].address, Listen::Unix(at("run/haldane.sock")));
    assert_eq!(listeners[2].redirect_https, Some(8443));
    let tls = listeners[1].tls.clone().unwrap();
    let files: Vec<_> = tls.sources().map(|source| source.path.clone()).collect();
    assert_eq!(files, [at("tls/shop.crt"), at("tls/shop.key"), at("tls/clients.pem")]);
    assert_eq!(compiled.admin.token_file.clone().unwrap().to_str(), Some("/run/secrets/haldane"));
    assert_eq!(compiled.rollout.state_dir, at("state"));

    let service = &compiled.routes.services()[0];
    assert_eq!(service.assign_by[0], KeySource::Cookie("uid".into()));
    assert_eq!(service.assign_by[2], KeySource::ClientIp);
    assert_eq!(service.toggles[0].as_str(), "x-feature-fast-cart");
    assert_eq!(service.cohorts[1].pin, Some(ArmIndex(1)));
    assert_eq!(service.cohorts[2].max_weight_bp, Some(500));
    assert_eq!(service.override_by.clone().unwrap().header.as_str(), "x-canary");
    let plans = &compiled.rollout.services[0];
    assert_eq!(plans.sessions_on_rollback, SessionPolicy::Drain(Duration::from_secs(300)));
    assert_eq!(plans.cohort_slos[0].1.latency, [(0.99, Duration::from_millis(400))]);
    let plan = plans.canaries[0].plan.clone().unwrap();
    assert_eq!(&*plan.name, "standard");
    assert!(plan.manual && plan.stages[2].gate && !plan.stages[3].gate);
    assert_eq!(plan.inconclusive_after.then, Fallback::Rollback);
    assert_eq!(plan.judge, crate::rollout::JudgeSettings::default());
    let slo = &compiled.rollout.route_slos[0];
    assert_eq!((slo.errors, slo.window), (Some(0.005), Some(Duration::from_secs(3600))));
    let route = compiled.routes.routes().next().unwrap();
    let failed =
        |status: u16| route.failed_when.status(http::StatusCode::from_u16(status).unwrap());
    assert!(failed(500) && failed(429) && !failed(404));

    let health = compiled.routes.upstreams()[0].health.clone().unwrap();
    assert_eq!((health.interval, health.timeout), (Duration::from_secs(5), Duration::from_secs(1)));
    assert_eq!((health.healthy, health.unhealthy), (2, 3));
}

#[test]
fn variables_are_put_in_after_parsing_and_cannot_add_structure() {
    let text = LEAST.replace("127.0.0.1:9001", "${BASE:-127.0.0.1:9001}");
    let with = |value: Option<&str>| {
        let env = |name: &str| value.filter(|_| name == "BASE").map(str::to_owned);
        compile_text(&text, std::path::Path::new("c.yaml"), &env)
    };
    let baseline = |value| {
        let compiled = with(value).unwrap();
        compiled.routes.upstreams()[0].endpoints[0].clone()
    };
    assert_eq!(baseline(None), Endpoint::Address("127.0.0.1:9001".parse().unwrap()));
    assert_eq!(baseline(Some("shop.internal:80")), Endpoint::Name("shop.internal".into(), 80));
    let problems = with(Some("x:1\nassign_by: client_ip")).unwrap_err();
    assert!(problems.list()[0].message.contains("is not an endpoint"), "{problems}");
}

#[test]
fn the_hash_follows_the_text_and_the_environment() {
    let text = LEAST.replace("127.0.0.1:9001", "${BASE:-127.0.0.1:9001}");
    let hash = |text: &str, value: Option<&str>| {
        let env = |_: &str| value.map(str::to_owned);
        compile_text(text, std::path::Path::new("c.yaml"), &env).unwrap().hash
    };
    let first = hash(&text, None);
    assert_eq!(first.len(), 64);
    assert_eq!(first, hash(&text, None));
    assert_eq!(first, hash(&text, Some("127.0.0.1:9001")));
    assert_ne!(first, hash(&text, Some("127.0.0.1:9003")));
    assert_ne!(first, hash(&format!("{text}# a comment\n"), None));
}

#[test]
fn a_canary_without_a_version_is_named_by_its_definition() {
    let version = |canary: &str| {
        let old = "{ upstream: \"127.0.0.1:9002\", version: \"2.3.1\" }";
        let compiled = accept(&LEAST.replace(old, canary));
        compiled.routes.services()[0].arms[1].version.to_string()
    };
    let first = version("{ upstream: \"127.0.0.1:9002\" }");
    assert_eq!(first.len(), 12);
    let pooled = "{ upstream: { endpoints: \"127.0.0.1:9002\", pool: { max: 5 } } }";
    assert_eq!(first, version(pooled), "a pool size is no new version");
    assert_ne!(first, version("{ upstream: \"127.0.0.1:9003\" }"));
    let toggled = "{ upstream: \"127.0.0.1:9002\", request_headers: { set: { x-fast: 'on' } } }";
    assert_ne!(first, version(toggled));
}

#[test]
fn arms_with_the_same_endpoint_share_an_upstream() {
    let compiled = accept(&LEAST.replace("127.0.0.1:9002", "127.0.0.1:9001"));
    assert_eq!(compiled.routes.upstreams().len(), 1);
}

#[test]
fn routes_without_a_name_take_their_services_numbered() {
    let routes = "routes: [{ service: shop }, { name: shop-2, service: shop }, { service: shop }]";
    let compiled = accept(&LEAST.replace("routes: [{ service: shop }]", routes));
    let names: Vec<_> = compiled.routes.routes().map(|route| route.name.to_string()).collect();
    assert_eq!(names, ["shop", "shop-2", "shop-3"]);
}

#[test]
fn risk_picks_the_plan_where_none_is_named() {
    let plan = |extra: &str| {
        let compiled = accept(&LEAST.replace("  shop:\n", &format!("  shop:\n    {extra}\n")));
        compiled.rollout.services[0].canaries[0].plan.clone().unwrap()
    };
    let low: Vec<u16> = plan("risk: low").stages.iter().map(|stage| stage.weight_bp).collect();
    assert_eq!(low, [500, 2_500, 10_000]);
    let high = plan("risk: high");
    let gated: Vec<u16> =
        high.stages.iter().filter(|stage| stage.gate).map(|stage| stage.weight_bp).collect();
    assert_eq!((high.stages[0].weight_bp, gated), (10, vec![2_500]));
    assert!((high.judge.promote_within.latency - 0.1).abs() < 1e-12);
    let short = plan("rollout: { stages: [1%, 5%, 100%] }");
    let short: Vec<_> = short.stages.iter().map(|stage| stage.weight_bp).collect();
    assert_eq!(short, [100, 500, 10_000]);
}

#[test]
fn anchors_aliases_and_merge_keys_work() {
    let compiled = accept(
        "version: 1
listeners:
  - &edge { address: 127.0.0.1:8080, limits: { connections: 7 } }
  - { <<: *edge, address: 127.0.0.1:8081 }
",
    );
    let second = &compiled.proxy.listeners[1];
    assert_eq!(second.limits.connections, 7);
    assert_eq!(second.address, Listen::Tcp("127.0.0.1:8081".parse().unwrap()));
}

#[test]
fn what_to_think_about_is_said_and_not_refused() {
    let text = LEAST.replace(
        "    baseline: 127.0.0.1:9001\n",
        "    baseline: 127.0.0.1:9001
    assign_by: client_ip
    rollout: { stages: [{ weight: 5%, at_least: 5m }, { weight: 50%, at_least: 2m }], judge: { block: 5s } }
",
    );
    let advice = accept(&text).advice;
    let expected = "services.shop.rollout.stages[0].at_least: the proof at 5% takes at least 150 \
                    blocks, 12m 30s at 5s each: the stage will last longer than the 5m written here";
    assert_eq!(advice[0], expected);
    assert!(!advice.iter().any(|sentence| sentence.contains("50%")), "{advice:?}");
    assert!(advice.iter().any(|sentence| sentence.contains("salt")), "{advice:?}");
    assert!(advice.iter().any(|sentence| sentence.contains("each proxy judges")), "{advice:?}");
}

#[test]
fn a_prefix_is_rewritten_from_the_match_or_from_what_is_written() {
    let rewrite = |route: &str| {
        let compiled = accept(&LEAST.replace("{ service: shop }", route));
        let route = compiled.routes.routes().next().unwrap();
        route.rewrite.path_prefix.clone().map(|(from, to)| (from.to_string(), to.to_string()))
    };
    let pair = |from: &str, to: &str| Some((from.to_owned(), to.to_owned()));
    assert_eq!(
        rewrite(
            "{ service: shop, match: { path_prefix: /cart/ }, rewrite: { path_prefix: /v2/ } }"
        ),
        pair("/cart", "/v2")
    );
    assert_eq!(
        rewrite("{ service: shop, rewrite: { path_prefix: { from: /a, to: / } } }"),
        pair("/a", "/")
    );
}

#[test]
fn ten_thousand_routes_are_compiled_in_order() {
    let mut text = LEAST.replace("routes: [{ service: shop }]\n", "routes:\n");
    for number in 0..10_000 {
        text.push_str(&format!(
            "  - name: r{number}\n    match: {{ host: h{number}.example.com, path_prefix: /p }}\n    service: shop\n"
        ));
    }
    let compiled = accept(&text);
    assert_eq!(compiled.routes.routes().len(), 10_000);
    assert_eq!(&*compiled.routes.routes().last().unwrap().name, "r9999");
}

#[test]
fn what_concerns_the_choice_of_an_endpoint_has_defaults() {
    let text = format!(
        "{}upstreams:
  all:
    endpoints: [\"h:1\", \"127.0.0.1:2\"]
    balance: least_request
    resolve_every: 1m
    slow_start: 30s
    eject: {{}}
    pool: {{ max_requests: 7 }}
    health_check: {{ grpc: \"\" }}
    protocol: h2
  none: {{ endpoints: \"h:1\" }}
",
        LEAST.replace("{ service: shop }", "{ service: shop, retry: { attempts: 2 } }")
    );
    let compiled = accept(&text);
    let [all, none] = [0, 1].map(|place| compiled.routes.upstreams()[place].clone());
    assert_eq!(none.balancing, Balancing::default());
    assert_eq!(none.health, None);
    let second = Duration::from_secs(1);
    let balancing = Balancing {
        policy: Policy::LeastRequest,
        resolve_every: 60 * second,
        eject: Some(Eject { failures: 5, period: 10 * second, at_most: 0.5 }),
        max_requests: Some(7),
        slow_start: Some(30 * second),
    };
    assert_eq!(all.balancing, balancing);
    assert_eq!(all.health.as_ref().unwrap().ask, HealthQuestion::Grpc("".into()));
    assert_eq!(compiled.routes.routes().next().unwrap().retries, 2);
}
