//! What is refused, and in which words.

use super::{LEAST, compile, refuse};

#[test]
fn all_problems_come_at_once_with_place_path_and_help() {
    let problems = refuse(
        "version: 2
listner: []
listeners:
  - address: :8080
  - { address: 0.0.0.0:8080, limits: { header_size: 64, connections: many } }
admin: { address: localhost }
upstreams:
  shop-v1: { endpoints: [127.0.0.1, 'http://x:1'], protocol: h3 }
  shop-v1: { endpoints: [127.0.0.1:1] }
cohorts: [{ name: default, match: { device: iphone } }]
services:
  shop:
    baseline: shop-v2
    canaries: { baseline: { upstream: 127.0.0.1:2 }, v2: {} }
    cohorts: { stuff: { max_weight: 5 } }
    rollout: fast
routes:
  - { service: shp, timeout: 5, failed_when: [6xx], latency: body }
",
    );
    insta::assert_snapshot!(problems.join("\n"), @"");
}

#[test]
fn problems_are_shown_with_their_line() {
    let text = LEAST.replace("127.0.0.1:9001", "shop-v1");
    insta::assert_snapshot!(compile(&text).unwrap_err(), @"");
}

#[test]
fn problems_are_given_to_programs_as_json() {
    let text = LEAST.replace("version: 1", "version: 1\nlistenrs: 1");
    insta::assert_snapshot!(compile(&text).unwrap_err().to_json(), @"");
}

#[test]
fn yaml_that_is_none_is_refused_at_its_place() {
    insta::assert_snapshot!(refuse("version: 1\nlisteners: [\n").join("\n"), @"");
    insta::assert_snapshot!(refuse("a: *b").join("\n"), @"");
    insta::assert_snapshot!(refuse("a: !secret b").join("\n"), @"");
    insta::assert_snapshot!(refuse("version: 1\n---\nversion: 1\n").join("\n"), @"");
}

/// The problems of a rollout in place.
fn rollout(plan: &str) -> String {
    let text = LEAST.replace("  shop:\n", &format!("  shop:\n    rollout: {plan}\n"));
    refuse(&text).join("\n")
}

#[test]
fn plans_that_make_no_sense_are_refused() {
    insta::assert_snapshot!(rollout("{}"), @"");
    insta::assert_snapshot!(rollout("{ stages: [] }"), @"");
    insta::assert_snapshot!(rollout("{ stages: [5%, 5%, 1%, 0%, 101%, 10] }"), @"");
    insta::assert_snapshot!(
        rollout("{ stages: [1%], judge: { false_rollback: 0%, block: 10ms, promote_within: { latency: 0% } } }"),
        @""
    );
    insta::assert_snapshot!(rollout("{ stages: [{ weight: 1%, gate: true }], manual: yes }"), @"");
}

/// The problems of a match.
fn matching(matching: &str) -> String {
    let route = format!("{{ service: shop, match: {matching} }}");
    refuse(&LEAST.replace("{ service: shop }", &route)).join("\n")
}

#[test]
fn matches_that_make_no_sense_are_refused() {
    insta::assert_snapshot!(matching("{ method: get, host: ['*', 'a:80'] }"), @"");
    insta::assert_snapshot!(matching("{ path: [cart, '/a?b', /a/../b, '/*'], path_regex: '(' }"), @"");
    insta::assert_snapshot!(matching("{ header: { name: x }, cookie: { exact: a, prefix: b } }"), @"");
    insta::assert_snapshot!(matching("{ client_ip: 10.0.0.0/99, country: Germany, any: [] }"), @"");
    insta::assert_snapshot!(matching("{ percent: { share: 200%, by: { cookie: a, header: b } } }"), @"");
    insta::assert_snapshot!(matching("[GET]"), @"");
}

#[test]
fn the_framing_of_messages_cannot_be_changed_by_header_rules() {
    let route = "{ service: shop, request_headers: { set: { Host: x, Content-Length: 1 }, remove: 'a b' } }";
    insta::assert_snapshot!(refuse(&LEAST.replace("{ service: shop }", route)).join("\n"), @"");
}

#[test]
fn a_variable_that_is_not_set_is_refused() {
    let text = LEAST.replace("2.3.1", "${VERSION}");
    insta::assert_snapshot!(refuse(&text).join("\n"), @"");
}

#[test]
fn a_file_that_is_not_there_is_a_problem_of_its_own() {
    let missing = std::path::Path::new("/nonexistent/haldane.yaml");
    let problems = crate::config::load(missing, &|_| None).unwrap_err().to_string();
    assert!(problems.starts_with("/nonexistent/haldane.yaml: cannot be opened:"), "{problems}");
}

#[test]
fn a_thousand_problems_are_enough() {
    let mut text = LEAST.to_owned();
    for number in 0..3_000 {
        text.push_str(&format!("unknown{number}: 1\n"));
    }
    assert_eq!(refuse(&text).len(), 1000);
}

#[test]
fn names_may_be_given_once() {
    let text = "version: 1
listeners: [{ name: a, address: '127.0.0.1:1' }, { name: a, address: '127.0.0.1:1' }]
services: { shop: { baseline: '127.0.0.1:2' } }
routes: [{ name: r, service: shop }, { name: r, service: shop }]
cohorts: [{ name: c, match: {} }, { name: c, match: {} }]
";
    insta::assert_snapshot!(refuse(text).join("\n"), @"");
}

#[test]
fn an_override_must_say_whom_it_believes() {
    let text = LEAST.replace("  shop:\n", "  shop:\n    override: { header: x-canary }\n");
    insta::assert_snapshot!(refuse(&text).join("\n"), @"");
}
