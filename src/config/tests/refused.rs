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
    insta::assert_snapshot!(problems.join("\n"), @r#"
    1:10 version: version `2` is not known (write `version: 1`)
    2:1 listner: unknown key `listner` (did you mean `listeners`?)
    4:14 listeners[0].address: `:8080` is not an address to listen on (write 0.0.0.0:8080 or "[::]:8080")
    5:53 listeners[1].limits.header_size: `64` is a bare number where a size is needed (write 64B or 64KiB)
    5:70 listeners[1].limits.connections: `many` is not a whole number (write digits alone, as in 100)
    6:19 admin.address: `localhost` is not an address with a port (write it like 127.0.0.1:9900)
    8:26 upstreams.shop-v1.endpoints[0]: `127.0.0.1` is not an endpoint (write it like 10.0.0.1:9001, checkout.internal:9001 or unix:/run/checkout.sock)
    8:37 upstreams.shop-v1.endpoints[1]: `http://x:1` is not an endpoint (write host:port alone, without a scheme; TLS is said by `tls`)
    8:62 upstreams.shop-v1.protocol: `h3` is none of the accepted values (did you mean `h2`? accepted: auto, http1, h2)
    9:3 upstreams.shop-v1: the key `shop-v1` is there twice
    10:19 cohorts[0].name: the name `default` is reserved (any other name than default, baseline, other, never)
    10:45 cohorts[0].match.device: `iphone` is none of the accepted values (accepted: ios, android, mobile, tablet, desktop, bot)
    13:15 services.shop.baseline: no upstream is named `shop-v2`, and an endpoint has a `:` (did you mean `shop-v1`?)
    14:17 services.shop.canaries.baseline: the name `baseline` is reserved (any other name than default, baseline, other, never)
    14:58 services.shop.canaries.v2: `upstream` is missing (write it like `upstream: 127.0.0.1:9002`)
    15:16 services.shop.cohorts.stuff: no cohort is named `stuff` (accepted: default)
    15:37 services.shop.cohorts.stuff.max_weight: `5` is a bare number where a percentage is needed (write 5%)
    16:14 services.shop.rollout: no rollout is named `fast` (there is none to choose from)
    18:16 routes[0].service: no service is named `shp` (did you mean `shop`?)
    18:30 routes[0].timeout: `5` is a bare number where a duration is needed (write 5s or 5ms)
    18:47 routes[0].failed_when[0]: `6xx` names no statuses (write it like 5xx, 429 or 500-504)
    18:62 routes[0].latency: `body` is none of the accepted values (accepted: first_byte, total)
    "#);
}

#[test]
fn problems_are_shown_with_their_line() {
    let text = LEAST.replace("127.0.0.1:9001", "shop-v1");
    insta::assert_snapshot!(compile(&text).unwrap_err(), @r"
    /etc/haldane/haldane.yaml:5:15: services.shop.baseline: no upstream is named `shop-v1`, and an endpoint has a `:`
      5 |     baseline: shop-v1
        |               ^
      help: there is none to choose from
    1 problem
    ");
}

#[test]
fn problems_are_given_to_programs_as_json() {
    let text = LEAST.replace("version: 1", "version: 1\nlistenrs: 1");
    insta::assert_snapshot!(compile(&text).unwrap_err().to_json(), @r#"{"file":"/etc/haldane/haldane.yaml","problems":[{"column":1,"help":"did you mean `listeners`?","line":2,"message":"unknown key `listenrs`","path":"listenrs"}]}"#);
}

#[test]
fn yaml_that_is_none_is_refused_at_its_place() {
    insta::assert_snapshot!(refuse("version: 1\nlisteners: [\n").join("\n"), @"2:12 : not YAML: unclosed bracket '['");
    insta::assert_snapshot!(refuse("a: *b").join("\n"), @"1:4 : not YAML: while parsing node, found unknown anchor");
    insta::assert_snapshot!(refuse("a: !secret b").join("\n"), @"1:12 : the tag `!secret` means nothing here");
    insta::assert_snapshot!(refuse("version: 1\n---\nversion: 1\n").join("\n"), @"2:1 : the file holds more than one document");
}

/// The problems of a rollout in place.
fn rollout(plan: &str) -> String {
    let text = LEAST.replace("  shop:\n", &format!("  shop:\n    rollout: {plan}\n"));
    refuse(&text).join("\n")
}

#[test]
fn plans_that_make_no_sense_are_refused() {
    insta::assert_snapshot!(rollout("{}"), @"5:14 services.shop.rollout: `stages` is missing (write it like `stages: [1%, 5%, 25%, 50%, 100%]`)");
    insta::assert_snapshot!(rollout("{ stages: [] }"), @"5:24 services.shop.rollout.stages: an empty list: leave the key out, or say something");
    insta::assert_snapshot!(rollout("{ stages: [5%, 5%, 1%, 0%, 101%, 10] }"), @r"
    5:29 services.shop.rollout.stages[1]: 5% is no more than the 5% of the stage before (each stage is heavier than the one before)
    5:33 services.shop.rollout.stages[2]: 1% is no more than the 5% of the stage before (each stage is heavier than the one before)
    5:37 services.shop.rollout.stages[3]: a stage of 0%; from 0.01% to 100%
    5:41 services.shop.rollout.stages[4]: a stage of 101%; from 0.01% to 100%
    5:47 services.shop.rollout.stages[5]: `10` is a bare number where a percentage is needed (write 10%)
    ");
    insta::assert_snapshot!(
        rollout("{ stages: [1%], judge: { false_rollback: 0%, block: 10ms, promote_within: { latency: 0% } } }"),
        @r"
        5:55 services.shop.rollout.judge.false_rollback: a chance of 0%; from 0.01% to below 50%
        5:66 services.shop.rollout.judge.block: a block lasts from 100ms to 5m
        5:99 services.shop.rollout.judge.promote_within.latency: a margin of 0% can never be proved
        "
    );
    insta::assert_snapshot!(rollout("{ stages: [{ weight: 1%, gate: true }], manual: yes }"), @r"
    5:45 services.shop.rollout.stages[0].gate: `true` is none of the accepted values (accepted: approval)
    5:62 services.shop.rollout.manual: `yes` is neither true nor false (accepted: true, false)
    ");
}

/// The problems of a match.
fn matching(matching: &str) -> String {
    let route = format!("{{ service: shop, match: {matching} }}");
    refuse(&LEAST.replace("{ service: shop }", &route)).join("\n")
}

#[test]
fn matches_that_make_no_sense_are_refused() {
    insta::assert_snapshot!(matching("{ method: get, host: ['*', 'a:80'] }"), @r"
    7:44 routes[0].match.method: `get`: methods are in upper case (write GET)
    7:56 routes[0].match.host[0]: `*` is not a host (leave `host` out to match every host)
    7:61 routes[0].match.host[1]: `a:80` is not a host (write the host without its port)
    ");
    insta::assert_snapshot!(matching("{ path: [cart, '/a?b', /a/../b, '/*'], path_regex: '(' }"), @r"
    7:43 routes[0].match.path[0]: the path `cart` does not begin with `/`
    7:49 routes[0].match.path[1]: the path `/a?b` holds more than a path; `query` matches parameters
    7:57 routes[0].match.path[2]: the path `/a/../b` never matches: `.` and `..` are resolved before
    7:66 routes[0].match.path[3]: the path `/*` holds a `*`, which means nothing here; `path_regex` takes expressions
    7:85 routes[0].match.path_regex: `(` is not a regular expression: unclosed group
    ");
    insta::assert_snapshot!(matching("{ header: { name: x }, cookie: { exact: a, prefix: b } }"), @r#"
    7:44 routes[0].match.header: a value is tested in exactly one way (one of exact, prefix, regex, present)
    7:65 routes[0].match.cookie: a value is tested in exactly one way (one of exact, prefix, regex, present)
    7:65 routes[0].match.cookie: `name` is missing (write it like { name: x-staff, exact: "1" })
    "#);
    insta::assert_snapshot!(matching("{ client_ip: 10.0.0.0/99, country: Germany, any: [] }"), @r"
    7:47 routes[0].match.client_ip: `10.0.0.0/99` is not an address or network (write it like 10.0.0.0/8, 192.0.2.7 or 2001:db8::/32)
    7:69 routes[0].match.country: no request has a country (write `geo: { database: country.mmdb }` at the top of the file)
    7:69 routes[0].match.country: `Germany` is not a country (two letters as in ISO 3166-1, like DE)
    7:83 routes[0].match.any: an empty list: leave the key out, or say something
    ");
    insta::assert_snapshot!(matching("{ percent: { share: 200%, by: { cookie: a, header: b } } }"), @r"
    7:54 routes[0].match.percent.share: 200% of the traffic is more than there is
    7:64 routes[0].match.percent.by: a key comes from exactly one place ({ cookie: NAME }, { header: NAME }, { query: NAME } or client_ip)
    ");
    insta::assert_snapshot!(matching("[GET]"), @"7:34 routes[0].match: expected a map with keys out of `method`, `host`, `path`, `path_prefix`, `path_regex`, `header`, `cookie`, `query`, `client_ip`, `country`, `device`, `jwt_claim`, `percent`, `any`, `all`, `not`, found a list");
}

#[test]
fn the_framing_of_messages_cannot_be_changed_by_header_rules() {
    let route = "{ service: shop, request_headers: { set: { Host: x, Content-Length: 1 }, remove: 'a b' } }";
    insta::assert_snapshot!(refuse(&LEAST.replace("{ service: shop }", route)).join("\n"), @r"
    7:53 routes[0].request_headers.set.Host: the host is no ordinary field (use `rewrite: { host }`)
    7:62 routes[0].request_headers.set.Content-Length: `content-length` belongs to the proxy and cannot be changed
    7:91 routes[0].request_headers.remove: `a b` cannot be the name of a header field
    ");
}

#[test]
fn a_variable_that_is_not_set_is_refused() {
    let text = LEAST.replace("2.3.1", "${VERSION}");
    insta::assert_snapshot!(refuse(&text).join("\n"), @"6:60 services.shop.canaries.v2.version: the variable `VERSION` is not set (set it, or write `${VERSION:-default}`)");
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
    insta::assert_snapshot!(refuse(text).join("\n"), @r"
    2:50 listeners[1]: the name `a` is taken, see line 2
    2:50 listeners[1]: the address is taken, see line 2
    4:46 routes[1].name: the name `r` is taken, see line 4
    5:43 cohorts[1].name: the name `c` is taken, see line 5
    ");
}

#[test]
fn an_override_must_say_whom_it_believes() {
    let text = LEAST.replace("  shop:\n", "  shop:\n    override: { header: x-canary }\n");
    insta::assert_snapshot!(refuse(&text).join("\n"), @"5:15 services.shop.override: `from` is missing (say whom to believe, as in `from: [10.0.0.0/8]`)");
}

#[test]
fn tls_to_upstreams_needs_files_of_use_and_a_name() {
    let problems = refuse(&LEAST.replace(
        "services:",
        "upstreams:
  none: { endpoints: ['127.0.0.1:1'], tls: { ca: none.pem } }
  half: { endpoints: ['127.0.0.1:1'], tls: { cert: a.pem, server_name: a } }
  unix: { endpoints: ['unix:/run/a.sock'], tls: {} }
  name: { endpoints: ['127.0.0.1:1'], tls: { server_name: 'a b' } }
services:",
    ));
    insta::assert_snapshot!(problems.join("\n"), @r"
    4:44 upstreams.none.tls: /etc/haldane/none.pem: No such file or directory (os error 2)
    5:44 upstreams.half.tls: a certificate needs both `cert` and `key`
    6:49 upstreams.unix.tls: `server_name` is missing (a Unix socket has no name to verify)
    7:59 upstreams.name.tls.server_name: `a b` is neither a host name nor an address
    ");
}

/// The problems of an upstream with these keys.
fn upstream(keys: &str) -> String {
    let text = format!("{LEAST}upstreams: {{ one: {{ endpoints: [\"h:1\"], {keys} }} }}\n");
    refuse(&text).join("\n")
}

#[test]
fn checks_and_ejections_that_make_no_sense_are_refused() {
    insta::assert_snapshot!(upstream("health_check: { interval: 5s }"), @"8:55 upstreams.one.health_check: `path` is missing (write it like `path: /healthz`)");
    insta::assert_snapshot!(upstream("health_check: { path: healthz, statuses: [6xx], healthy: 0 }"), @r"
    8:63 upstreams.one.health_check.path: `healthz` does not begin with `/`
    8:83 upstreams.one.health_check.statuses[0]: `6xx` names no statuses (write it like 5xx, 429 or 500-504)
    8:98 upstreams.one.health_check.healthy: `0` is too small, at least 1
    ");
    insta::assert_snapshot!(upstream("health_check: { path: /, grpc: shop }"), @"8:55 upstreams.one.health_check: either `path` or `grpc`, not both");
    insta::assert_snapshot!(upstream("health_check: { grpc: shop }"), @"8:55 upstreams.one.health_check: gRPC needs HTTP/2 (write `protocol: h2`)");
    insta::assert_snapshot!(upstream("eject: { failures: 0, for: 0s, at_most: 50 }, balance: fair"), @r"
    8:60 upstreams.one.eject.failures: `0` is too small, at least 1
    8:68 upstreams.one.eject.for: no time at all; it must be longer than nothing
    8:81 upstreams.one.eject.at_most: `50` is a bare number where a percentage is needed (write 50%)
    8:96 upstreams.one.balance: `fair` is none of the accepted values (accepted: peak_ewma, least_request, round_robin)
    ");
    insta::assert_snapshot!(upstream("pool: { max_requests: 0 }, slow_start: 0s"), @r"
    8:63 upstreams.one.pool.max_requests: `0` is too small, at least 1
    8:80 upstreams.one.slow_start: no time at all; it must be longer than nothing
    ");
}
