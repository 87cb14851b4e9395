//! The binary as a script sees it: exit codes, standard output, standard error.

use std::{
    io::{BufRead, BufReader},
    path::Path,
    process::{Child, Command, Output, Stdio},
};

use serde_json::Value;

use crate::harness::{Haldane, Upstream, two_arms};

fn haldane(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_haldane"));
    command.args(arguments).env_remove("HALDANE_ADMIN").env_remove("HALDANE_TOKEN_FILE");
    command.env_remove("RUST_LOG");
    command
}

/// Runs the binary to its end, without keeping the test's own upstreams from answering.
pub(crate) async fn run(arguments: &[&str]) -> Output {
    let mut command = haldane(arguments);
    tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap()
}

pub(crate) async fn run_at(admin: &Haldane, arguments: &[&str]) -> Output {
    let url = format!("http://{}", admin.admin);
    run(&[&["--admin", &url], arguments].concat()).await
}

#[track_caller]
pub(crate) fn check(output: &Output, code: i32, said: &str) {
    let error = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{error}");
    assert!(error.contains(said), "{said:?} is not in {error}");
}

#[tokio::test]
async fn a_weight_is_set_and_shown() {
    let upstream = Upstream::text("x").await;
    let proxy = Haldane::start(&two_arms(upstream.addr, upstream.addr, "5%", "")).await;
    let set = run_at(&proxy, &["set-weight", "shop/v2", "12.5%", "--reason", "more"]).await;
    check(&set, 0, "");
    assert!(String::from_utf8_lossy(&set.stdout).contains("weight 12.50 %"));
    let status = run_at(&proxy, &["status", "-o", "json"]).await;
    check(&status, 0, "");
    let document: Value = serde_json::from_slice(&status.stdout).unwrap();
    assert_eq!(document["rollouts"][0]["weight"], 0.125);
    check(&run_at(&proxy, &["healthcheck"]).await, 0, "");
    check(&run_at(&proxy, &["reload"]).await, 0, "in force");
}

#[tokio::test]
async fn all_rollouts_are_paused_at_once() {
    let upstream = Upstream::text("x").await;
    let proxy = Haldane::start(&two_arms(upstream.addr, upstream.addr, "5%", "")).await;
    check(&run_at(&proxy, &["pause", "--all", "--reason", "incident"]).await, 0, "");
    assert_eq!(proxy.status().await["rollouts"][0]["phase"], "paused");
}

#[tokio::test]
async fn exit_codes_tell_what_went_wrong() {
    let upstream = Upstream::text("x").await;
    let proxy = Haldane::start(&two_arms(upstream.addr, upstream.addr, "5%", "")).await;
    let at = async |arguments: &[&str]| run_at(&proxy, arguments).await;
    check(&at(&["set-weight", "nope", "5%", "--reason", "x"]).await, 1, "no service");
    check(&at(&["retry", "shop", "--reason", "x"]).await, 1, "not rolled back");
    check(&at(&["set-weight", "shop", "5", "--reason", "x"]).await, 2, "such as \"25%\"");
    check(&at(&["set-weight", "shop", "5%"]).await, 2, "--reason");
    check(&at(&["status", "nope"]).await, 1, "no rollout");
    check(&at(&["status", "--wait", "done", "--timeout", "100ms"]).await, 6, "still waiting");
    proxy.write_config("services: {}\nroutes: [{ service: nope }]\n");
    check(&at(&["reload"]).await, 3, "nope");
    check(&run(&["--admin", "https://127.0.0.1:1", "status"]).await, 2, "plain HTTP");
    let gone = format!("http://{}", crate::harness::nobody().await);
    check(&run(&["--admin", &gone, "healthcheck"]).await, 4, "Is the proxy running?");
}

#[tokio::test]
async fn an_abort_ends_every_wait_with_its_own_code() {
    let upstream = Upstream::text("x").await;
    let proxy = Haldane::start(&two_arms(upstream.addr, upstream.addr, "5%", "")).await;
    check(&run_at(&proxy, &["abort", "shop", "--reason", "bad"]).await, 0, "");
    check(&run_at(&proxy, &["status", "--wait", "healthy"]).await, 5, "rolled_back");
    check(&run_at(&proxy, &["set-weight", "shop", "5%", "--reason", "x"]).await, 1, "retry");
}

#[tokio::test]
async fn a_broken_configuration_does_not_run() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("haldane.yaml");
    let name = path.to_str().unwrap();
    check(&run(&["run", "-c", name]).await, 3, "--config");
    std::fs::write(&path, "version: 1\nlisteners: [{ adress: \"127.0.0.1:0\" }]\n").unwrap();
    check(&run(&["run", "-c", name]).await, 3, "adress");
}

#[tokio::test]
async fn sigterm_ends_the_proxy_with_success() {
    let dir = tempfile::tempdir().unwrap();
    let mut proxy = start(dir.path());
    let mut lines = BufReader::new(proxy.stderr.take().unwrap()).lines();
    let admin = lines.find(|line| line.as_ref().unwrap().contains("\"admin\"")).unwrap().unwrap();
    let event: Value = serde_json::from_str(&admin).unwrap();
    let url = format!("http://{}", event["address"].as_str().unwrap());
    check(&run(&["--admin", &url, "healthcheck"]).await, 0, "");
    let pid = rustix::process::Pid::from_child(&proxy);
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    let ended = tokio::task::spawn_blocking(move || {
        let rest: Vec<_> = lines.map_while(Result::ok).collect();
        (proxy.wait().unwrap(), rest)
    });
    let (status, rest) = ended.await.unwrap();
    assert!(status.success(), "{status}\n{}", rest.join("\n"));
}

/// A proxy of its own process, logging JSON.
fn start(dir: &Path) -> Child {
    let text = "version: 1\nlisteners: [{ address: \"127.0.0.1:0\" }]\nstate_dir: state\n\
                admin: { address: \"127.0.0.1:0\" }\nservices: { a: { baseline: \"127.0.0.1:1\" } }\n\
                routes: [{ service: a }]\n";
    let path = dir.join("haldane.yaml");
    std::fs::write(&path, text).unwrap();
    haldane(&["run", "--log", "json", "--workers", "1", "-c", path.to_str().unwrap()])
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

#[tokio::test]
async fn the_binary_describes_itself() {
    let version = run(&["version"]).await;
    assert_eq!(
        String::from_utf8_lossy(&version.stdout),
        format!("haldane {}\n", env!("CARGO_PKG_VERSION"))
    );
    let completions = run(&["completions", "zsh"]).await;
    assert!(String::from_utf8_lossy(&completions.stdout).contains("set-weight"));
    let manual = run(&["man"]).await;
    assert!(String::from_utf8_lossy(&manual.stdout).contains("HALDANE SET-WEIGHT"));
}

#[tokio::test]
async fn the_demo_ends_well_when_nothing_goes_wrong() {
    let output = run(&["demo", "--regress", "none", "--for", "3s", "--rate", "100"]).await;
    check(&output, 0, "");
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(text.contains("ok      the proxy counted"), "{text}");
}
