//! Who goes where: shares, stickiness, overrides, through the running proxy.

use std::{collections::BTreeMap, net::SocketAddr};

use crate::harness::{Call, Connection, Haldane, Upstream, two_arms};

const STICKY: &str = "    assign_by: [{ header: x-user }]
    override: { header: x-arm, from: [127.0.0.0/8] }";

/// The arm of every user, asked on one connection.
async fn arms(addr: SocketAddr, users: u32) -> BTreeMap<u32, String> {
    let mut connection = Connection::open(addr, false).await.unwrap();
    let mut arms = BTreeMap::new();
    for user in 0..users {
        let call = Call::get("/").header("x-user", &format!("user-{user}"));
        let answer = connection.call(call).await.unwrap();
        arms.insert(user, answer.header("x-haldane-arm").unwrap().to_owned());
    }
    arms
}

fn on_canary(arms: &BTreeMap<u32, String>) -> usize {
    arms.values().filter(|arm| *arm == "v2").count()
}

#[tokio::test]
async fn a_share_of_keyless_requests_is_the_weight() {
    let upstream = Upstream::text("x").await;
    let haldane = Haldane::start(&two_arms(upstream.addr, upstream.addr, "20%", "")).await;
    let mut connection = Connection::open(haldane.addr, false).await.unwrap();
    let (requests, mut canary) = (3_000_u32, 0_u32);
    for _ in 0..requests {
        let answer = connection.call(Call::get("/")).await.unwrap();
        canary += u32::from(answer.header("x-haldane-arm") == Some("v2"));
    }
    // Six standard deviations: fails once in 500 million runs of a correct proxy.
    let sigma = (f64::from(requests) * 0.2 * 0.8).sqrt();
    let off = f64::from(canary) - f64::from(requests) * 0.2;
    assert!(off.abs() < 6.0 * sigma, "{canary} of {requests}");
}

#[tokio::test]
async fn users_stay_over_reloads_restarts_and_another_number_of_workers() {
    let upstream = Upstream::text("x").await;
    let yaml = two_arms(upstream.addr, upstream.addr, "30%", STICKY);
    let haldane = Haldane::with_workers(&yaml, 1).await;
    let before = arms(haldane.addr, 300).await;
    assert!((50..130).contains(&on_canary(&before)), "{}", on_canary(&before));
    haldane.write_config(&format!("{yaml}  # changed\n"));
    assert_eq!(haldane.reload().await.status, 200);
    assert_eq!(arms(haldane.addr, 300).await, before);
    let restarted = Haldane::in_dir(haldane.stop().await, 3).await;
    assert_eq!(arms(restarted.addr, 300).await, before);
}

#[tokio::test]
async fn raising_the_weight_moves_nobody_back_and_lowering_it_nobody_forward() {
    let upstream = Upstream::text("x").await;
    let haldane = Haldane::start(&two_arms(upstream.addr, upstream.addr, "5%", STICKY)).await;
    let mut last = arms(haldane.addr, 300).await;
    for (weight, raised) in [(25.0, true), (60.0, true), (10.0, false)] {
        assert_eq!(haldane.set_weight("shop", weight).await.status, 200);
        let now = arms(haldane.addr, 300).await;
        for (user, arm) in &now {
            let moved_wrongly = if raised { "baseline" } else { "v2" };
            assert!(
                *arm == last[user] || arm != moved_wrongly,
                "user {user} went from {} to {arm} at {weight} %",
                last[user]
            );
        }
        last = now;
    }
}

#[tokio::test]
async fn a_weight_set_by_a_person_survives_a_restart() {
    let upstream = Upstream::text("x").await;
    let haldane = Haldane::start(&two_arms(upstream.addr, upstream.addr, "5%", STICKY)).await;
    assert_eq!(haldane.set_weight("shop", 40.0).await.status, 200);
    let before = arms(haldane.addr, 200).await;
    let restarted = Haldane::in_dir(haldane.stop().await, 2).await;
    let status = restarted.status().await;
    assert_eq!(status["rollouts"][0]["weight"], 0.4, "{status}");
    assert_eq!(status["rollouts"][0]["phase"], "paused", "{status}");
    assert_eq!(arms(restarted.addr, 200).await, before);
}

#[tokio::test]
async fn a_trusted_override_chooses_the_arm_and_is_left_out_of_the_share() {
    let upstream = Upstream::text("x").await;
    let haldane = Haldane::start(&two_arms(upstream.addr, upstream.addr, "5%", STICKY)).await;
    for (value, expected) in [("v2", "v2"), ("never", "baseline"), ("baseline", "baseline")] {
        let call = Call::get("/").header("x-user", "u").header("x-arm", value);
        let answer = call.to(haldane.addr).await;
        assert_eq!(answer.header("x-haldane-arm"), Some(expected));
    }
}

#[tokio::test]
async fn cohorts_are_pinned_and_capped() {
    let upstream = Upstream::text("x").await;
    let yaml = format!(
        "cohorts:
  - {{ name: staff, match: {{ header: {{ name: x-staff, exact: '1' }} }} }}
  - {{ name: careful, match: {{ header: {{ name: x-careful, present: true }} }} }}
services:
  shop:
    baseline: {addr}
    canaries: {{ v2: {{ upstream: \"{addr}\", version: \"2\" }} }}
    rollout: {{ manual: true, stages: [100%] }}
    arm_header: true
    cohorts: {{ staff: {{ pin: v2 }}, careful: {{ max_weight: 0% }} }}
routes: [{{ service: shop }}]
",
        addr = upstream.addr
    );
    let haldane = Haldane::start(&yaml).await;
    assert_eq!(haldane.set_weight("shop", 50.0).await.status, 200);
    for _ in 0..20 {
        let staff = Call::get("/").header("x-staff", "1").to(haldane.addr).await;
        assert_eq!(staff.header("x-haldane-arm"), Some("v2"));
        let careful = Call::get("/").header("x-careful", "yes").to(haldane.addr).await;
        assert_eq!(careful.header("x-haldane-arm"), Some("baseline"));
    }
}
