//! The journal from outside: history, replay and report, of a running proxy and of its files.

use std::{fs, path::Path};

use serde_json::Value;

use crate::{
    command_line::{check, run, run_at},
    harness::{Call, Haldane, Upstream, two_arms},
};

/// A proxy on which a person set a weight.
async fn moved() -> Haldane {
    let upstream = Upstream::text("x").await;
    let haldane = Haldane::start(&two_arms(upstream.addr, upstream.addr, "5%", "")).await;
    for _ in 0..20 {
        Call::get("/").to(haldane.addr).await;
    }
    assert_eq!(haldane.set_weight("shop", 25.0).await.status, 200);
    haldane
}

fn state(dir: &Path) -> String {
    dir.join("state").to_str().unwrap().to_owned()
}

fn actions(document: &[u8]) -> Vec<String> {
    let document: Value = serde_json::from_slice(document).unwrap();
    let decisions = document["decisions"].as_array().unwrap();
    decisions.iter().map(|decision| decision["action"].as_str().unwrap().to_owned()).collect()
}

#[tokio::test]
async fn history_is_the_same_from_the_proxy_and_from_its_files() {
    let haldane = moved().await;
    let asked = run_at(&haldane, &["history", "shop/v2", "-o", "json"]).await;
    check(&asked, 0, "");
    assert_eq!(actions(&asked.stdout), ["start", "set_weight"]);
    let last = run_at(&haldane, &["history", "-n", "1", "-o", "json"]).await;
    assert_eq!(actions(&last.stdout), ["set_weight"]);
    let text = run_at(&haldane, &["history"]).await;
    let text = String::from_utf8_lossy(&text.stdout).into_owned();
    assert!(text.contains("5 % to 25 %") && text.contains("set_weight"), "{text}");
    let none = run_at(&haldane, &["history", "cart"]).await;
    assert!(String::from_utf8_lossy(&none.stdout).contains("Nothing was decided"));
    let dir = haldane.stop().await;
    let read = run(&["history", "--journal", &state(dir.path()), "-o", "json"]).await;
    check(&read, 0, "");
    assert_eq!(read.stdout, asked.stdout);
}

#[tokio::test]
async fn a_replay_agrees_until_somebody_changes_what_was_decided() {
    let haldane = moved().await;
    // It can be read while it is written.
    let state = state(haldane.dir.path());
    check(&run(&["replay", &state]).await, 0, "");
    let _dir = haldane.stop().await;
    let replayed = run(&["replay", &state, "-o", "json"]).await;
    check(&replayed, 0, "");
    let outcome: Value = serde_json::from_slice(&replayed.stdout).unwrap();
    assert_eq!((&outcome["decisions"], &outcome["different"]), (&2.into(), &0.into()));
    let file = Path::new(&state).join("journal/000001.jsonl");
    let text = fs::read_to_string(&file).unwrap();
    fs::write(&file, text.replacen("\"weight_bp\":2500", "\"weight_bp\":2600", 1)).unwrap();
    check(&run(&["replay", &state]).await, 1, "000001.jsonl, line ");
}

#[tokio::test]
async fn a_report_of_a_running_rollout_is_there_in_both_forms() {
    let haldane = moved().await;
    let page = Call::get("/api/v1/services/shop/report?format=html").to(haldane.admin).await;
    assert_eq!(page.status, 200, "{}", page.text());
    assert_eq!(page.header("content-type"), Some("text/html; charset=utf-8"));
    assert!(page.header("content-security-policy").unwrap().starts_with("default-src 'none'"));
    assert!(page.text().contains("<svg ") && page.text().contains("set weight"));
    let file = haldane.dir.path().join("report.md");
    let written = ["report", "shop", "--file", file.to_str().unwrap()];
    check(&run_at(&haldane, &written).await, 0, "");
    let text = fs::read_to_string(&file).unwrap();
    assert!(text.starts_with("# Rollout of shop/v2") && text.contains("5 % → 25 %"), "{text}");
    for (path, status) in [
        ("/api/v1/services/cart/report", 404),
        ("/api/v1/services/shop/report?canary=v9", 404),
        ("/api/v1/services/shop/report?format=pdf", 400),
        ("/api/v1/services/shop/report?colour=red", 400),
        ("/api/v1/journal?limit=many", 400),
    ] {
        assert_eq!(Call::get(path).to(haldane.admin).await.status, status, "{path}");
    }
    let unknown = run_at(&haldane, &["report", "cart"]).await;
    check(&unknown, 1, "The journal has no rollout of cart");
    let dir = haldane.stop().await;
    let read = run(&["report", "shop", "--journal", &state(dir.path())]).await;
    check(&read, 0, "");
    assert!(String::from_utf8_lossy(&read.stdout).contains("## Decisions"));
}
