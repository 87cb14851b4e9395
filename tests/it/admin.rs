//! The admin address: what it answers, and who may write.

use haldane::admin::Settings;
use serde_json::Value;

use crate::harness::{Answer, Call, Haldane, Upstream, two_arms};

const WEIGHT: &str = r#"{"canary": "v2", "weight": "25%", "reason": "test"}"#;

async fn start(more: &str) -> Haldane {
    let upstream = Upstream::text("x").await;
    Haldane::start(&two_arms(upstream.addr, upstream.addr, "5%", more)).await
}

/// A proxy whose writes need the token `s3cret`.
async fn start_with_token() -> Haldane {
    let upstream = Upstream::text("x").await;
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("token"), "s3cret\n").unwrap();
    let services = two_arms(upstream.addr, upstream.addr, "5%", "");
    let text = format!(
        "version: 1\nlisteners: [{{ address: \"127.0.0.1:0\" }}]\nstate_dir: state\n\
         admin: {{ address: \"127.0.0.1:0\", token_file: token }}\n{services}"
    );
    std::fs::write(dir.path().join("haldane.yaml"), text).unwrap();
    Haldane::in_dir(dir, 1).await
}

async fn write(haldane: &Haldane, path: &str, body: &str, fields: &[(&str, &str)]) -> Answer {
    let mut call = Call::post(path).body(body.to_owned());
    for (name, value) in fields {
        call = call.header(name, value);
    }
    call.to(haldane.admin).await
}

#[track_caller]
fn check_problem(answer: &Answer, status: u16) {
    assert_eq!(answer.status, status, "{}", answer.text());
    assert_eq!(answer.header("content-type"), Some("application/problem+json"));
    let document: Value = serde_json::from_slice(&answer.body).unwrap();
    assert_eq!(document["status"], status);
    assert!(!document["detail"].as_str().unwrap().is_empty());
}

#[tokio::test]
async fn the_answer_to_a_write_is_the_status_that_is_in_force() {
    let haldane = start("").await;
    let answer = write(&haldane, "/api/v1/services/shop/weight", WEIGHT, &[]).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    let status: Value = serde_json::from_slice(&answer.body).unwrap();
    assert_eq!((&status["weight"], &status["phase"]), (&0.25.into(), &"paused".into()));
    let whole = haldane.status().await;
    assert_eq!(whole["rollouts"][0]["weight"], 0.25);
    let metrics = haldane.metrics().await;
    let series = "haldane_canary_weight{service=\"shop\",canary=\"v2\",cohort=\"default\"} 0.25";
    assert!(metrics.contains(series), "{metrics}");
}

#[tokio::test]
async fn what_cannot_be_done_is_a_problem_that_says_why() {
    let haldane = start("").await;
    let post = async |path: &str, body: &str| write(&haldane, path, body, &[]).await;
    check_problem(&post("/api/v1/services/nope/weight", WEIGHT).await, 404);
    check_problem(&post("/api/v1/services/shop/dance", WEIGHT).await, 404);
    let other = r#"{"canary": "v9", "reason": "x"}"#;
    check_problem(&post("/api/v1/services/shop/pause", other).await, 404);
    check_problem(&post("/api/v1/services/shop/weight", "{").await, 400);
    check_problem(&post("/api/v1/services/shop/weight", "{\"reason\": \"x\"}").await, 422);
    check_problem(&post("/api/v1/services/shop/pause", "{}").await, 422);
    check_problem(&post("/api/v1/services/shop/retry", "{\"reason\": \"x\"}").await, 409);
    check_problem(&Call::get("/api/v1/services/nope").to(haldane.admin).await, 404);
    check_problem(&Call::get("/api/v1/nope").to(haldane.admin).await, 404);
    check_problem(&Call::get("/api/v1/reload").to(haldane.admin).await, 405);
    assert_eq!(haldane.status().await["rollouts"][0]["weight"], 0.05);
}

#[tokio::test]
async fn a_body_beyond_the_limit_is_refused() {
    let haldane = start("").await;
    let body = format!("{{\"reason\": \"{}\"}}", "x".repeat(100_000));
    let answer = write(&haldane, "/api/v1/services/shop/pause", &body, &[]).await;
    assert_eq!(answer.status, 413);
}

#[tokio::test]
async fn without_a_token_a_foreign_page_cannot_write() {
    let haldane = start("").await;
    for fields in [[("origin", "http://evil.example")], [("host", "evil.example")]] {
        for path in ["/api/v1/services/shop/weight", "/api/v1/reload"] {
            check_problem(&write(&haldane, path, WEIGHT, &fields).await, 403);
        }
    }
    let own = format!("http://{}", haldane.admin);
    let path = "/api/v1/services/shop/weight";
    let answer = write(&haldane, path, WEIGHT, &[("origin", &own)]).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
}

#[tokio::test]
async fn with_a_token_file_every_write_needs_the_token_of_that_moment() {
    let haldane = start_with_token().await;
    let path = "/api/v1/services/shop/weight";
    let refused = write(&haldane, path, WEIGHT, &[]).await;
    check_problem(&refused, 401);
    assert_eq!(refused.header("www-authenticate"), Some("Bearer"));
    check_problem(&write(&haldane, "/api/v1/reload", "", &[]).await, 401);
    let old = [("authorization", "Bearer s3cret")];
    let new = [("authorization", "Bearer rotated")];
    check_problem(&write(&haldane, path, WEIGHT, &new).await, 401);
    assert_eq!(write(&haldane, path, WEIGHT, &old).await.status, 200);
    std::fs::write(haldane.dir.path().join("token"), "rotated").unwrap();
    check_problem(&write(&haldane, path, WEIGHT, &old).await, 401);
    assert_eq!(write(&haldane, path, WEIGHT, &new).await.status, 200);
    assert_eq!(Call::get("/api/v1/status").to(haldane.admin).await.status, 200);
}

#[tokio::test]
async fn the_configuration_is_shown_without_its_secrets() {
    let haldane = start("    salt: hush-hush\n").await;
    let answer = Call::get("/api/v1/config").to(haldane.admin).await;
    let document: Value = serde_json::from_slice(&answer.body).unwrap();
    assert_eq!(document["config"]["services"]["shop"]["salt"], "***");
    assert_eq!(document["config"]["services"]["shop"]["arm_header"], true);
    assert!(!answer.text().contains("hush-hush"));
}

#[tokio::test]
async fn a_refused_reload_says_what_is_wrong_and_changes_nothing() {
    let haldane = start("").await;
    haldane.write_config("services: {}\nroutes: [{ service: nope }]\n");
    let answer = haldane.reload().await;
    check_problem(&answer, 422);
    assert!(answer.text().contains("nope"), "{}", answer.text());
    assert_eq!(Call::get("/").to(haldane.addr).await.text(), "x");
    let metrics = haldane.metrics().await;
    assert!(metrics.contains("haldane_config_last_reload_successful 0"), "{metrics}");
}

#[tokio::test]
async fn open_metrics_is_given_where_it_is_asked_for() {
    let haldane = start("").await;
    let plain = Call::get("/metrics").to(haldane.admin).await;
    assert_eq!(plain.header("content-type"), Some("text/plain; version=0.0.4; charset=utf-8"));
    let accept = "application/openmetrics-text; version=1.0.0";
    let open = Call::get("/metrics").header("accept", accept).to(haldane.admin).await;
    assert!(open.header("content-type").unwrap().starts_with("application/openmetrics-text"));
    assert!(open.text().ends_with("# EOF\n"));
}

#[tokio::test]
async fn the_journal_has_what_was_done_and_why() {
    let haldane = start("").await;
    write(&haldane, "/api/v1/services/shop/weight", WEIGHT, &[]).await;
    let answer = Call::get("/api/v1/journal").to(haldane.admin).await;
    let document: Value = serde_json::from_slice(&answer.body).unwrap();
    let last = document["decisions"].as_array().unwrap().last().unwrap();
    assert_eq!(last["action"], "set_weight");
    assert_eq!(last["reason"], "test");
    assert_eq!(last["weight_bp"], 2500);
    assert_eq!(last["actor"], "api 127.0.0.1");
}

#[tokio::test]
async fn the_page_and_its_files_are_confined_to_their_host() {
    let haldane = start("").await;
    for path in ["/", "/ui/page.js", "/ui/page.css", "/ui/mark.svg"] {
        let answer = Call::get(path).to(haldane.admin).await;
        assert_eq!(answer.status, 200, "{path}");
        let policy = answer.header("content-security-policy").unwrap();
        assert!(policy.starts_with("default-src 'none'"), "{path}: {policy}");
        assert!(!policy.contains("unsafe"), "{path}: {policy}");
    }
}

#[test]
fn by_default_it_listens_on_loopback_alone() {
    assert!(Settings::default().address.ip().is_loopback());
}
