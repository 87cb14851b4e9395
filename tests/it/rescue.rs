//! Rescue: what fails on the canary is replayed on the baseline, and charged to the canary.

use std::net::SocketAddr;

use haldane::measure::{Outcome, RescueResult};
use http::{Request, Response};
use tokio::{io::AsyncWriteExt, net::TcpStream};

use crate::{
    harness::{Answer, Call, Haldane, Upstream, eventually, full, nobody, two_arms},
    plane::Plane,
};

fn plane(baseline: SocketAddr, canary: SocketAddr) -> Plane {
    let yaml = format!(
        "services:
  shop:
    baseline: {baseline}
    canaries:
      v2:
        upstream: \"{canary}\"
        version: \"2\"
        request_headers: {{ set: {{ x-toggle: \"on\" }} }}
    arm_header: true
routes: [{{ service: shop, timeout: 2s, rescue: true }}]"
    );
    Plane::start(&yaml, 10_000, 1)
}

/// The canary's request counts as failed, and nothing else counts; `result` came of the rescue.
async fn check_charged(plane: &mut Plane, result: Option<RescueResult>) {
    plane.until("the failure of the canary", |plane| plane.ended(1, false).first().copied()).await;
    plane
        .until("the report", |plane| {
            let counts = plane.reports.last()?.rescues.first()?.counts;
            let expected = RescueResult::ALL.map(|it| u64::from(Some(it) == result));
            (counts == expected).then_some(())
        })
        .await;
    assert_eq!(plane.ended(1, false), [Outcome::Failed]);
    assert_eq!(plane.events.len(), 2, "{:?}", plane.events);
}

async fn check(canary: SocketAddr, call: Call) -> Answer {
    let baseline = Upstream::echo().await;
    let mut plane = plane(baseline.addr, canary);
    let answer = call.to(plane.addr).await;
    assert_eq!(answer.status, 200);
    assert_eq!(answer.header("x-haldane-arm"), Some("baseline"));
    assert!(!answer.text().contains("x-toggle"), "{}", answer.text());
    assert_eq!(baseline.seen(), 1);
    check_charged(&mut plane, Some(RescueResult::Rescued)).await;
    answer
}

async fn failing() -> Upstream {
    Upstream::start(|_| async { Response::builder().status(500).body(full("no")).unwrap() }).await
}

/// Closes every connection after a part of the head of its answer.
async fn breaking_off() -> Upstream {
    Upstream::raw(|mut stream: TcpStream| async move {
        let mut chunk = [0; 4096];
        let _ = tokio::io::AsyncReadExt::read(&mut stream, &mut chunk).await;
        stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-le").await.unwrap();
    })
    .await
}

#[tokio::test]
async fn a_refused_connection_is_rescued() {
    let answer = check(nobody().await, Call::get("/cart?x=1").header("x-own", "1")).await;
    assert!(answer.text().starts_with("GET /cart?x=1\n"), "{}", answer.text());
    assert!(answer.text().contains("x-own: 1\n"));
}

#[tokio::test]
async fn an_answer_of_500_is_rescued() {
    check(failing().await.addr, Call::get("/")).await;
}

#[tokio::test]
async fn a_connection_that_ends_within_the_head_of_the_answer_is_rescued() {
    check(breaking_off().await.addr, Call::get("/")).await;
}

#[tokio::test]
async fn a_body_of_which_nothing_was_sent_is_sent_to_the_baseline() {
    let answer = check(nobody().await, Call::new(Request::put("/")).body("all of it")).await;
    assert!(answer.text().ends_with("\nall of it"), "{}", answer.text());
}

/// The canary's own failure reaches the client.
async fn check_not_rescued(canary: SocketAddr, call: Call, status: u16) {
    let baseline = Upstream::text("baseline").await;
    let mut plane = plane(baseline.addr, canary);
    assert_eq!(call.to(plane.addr).await.status, status);
    check_charged(&mut plane, None).await;
    assert_eq!(baseline.seen(), 0);
}

#[tokio::test]
async fn a_post_is_never_rescued() {
    check_not_rescued(nobody().await, Call::post("/"), 502).await;
    check_not_rescued(failing().await.addr, Call::post("/").body("x"), 500).await;
}

#[tokio::test]
async fn a_body_that_was_sent_is_not_sent_again() {
    let call = Call::new(Request::put("/")).body("x");
    check_not_rescued(failing().await.addr, call, 500).await;
}

#[tokio::test]
async fn a_rescue_that_fails_too_is_answered_as_the_baseline_did() {
    let baseline =
        Upstream::start(|_| async { Response::builder().status(503).body(full("busy")).unwrap() })
            .await;
    let mut plane = plane(baseline.addr, failing().await.addr);
    let answer = Call::get("/").to(plane.addr).await;
    assert_eq!((answer.status.as_u16(), answer.text().as_str()), (503, "busy"));
    check_charged(&mut plane, Some(RescueResult::Failed)).await;
}

#[tokio::test]
async fn no_more_than_the_budget_are_rescued() {
    const REQUESTS: u64 = 200;
    let baseline = Upstream::text("baseline").await;
    let mut plane = plane(baseline.addr, nobody().await);
    let mut rescued = 0;
    for _ in 0..REQUESTS {
        match Call::get("/").to(plane.addr).await.status.as_u16() {
            200 => rescued += 1,
            502 => {}
            other => panic!("{other}"),
        }
    }
    // 10 a second over 10 s, and a fifth of the requests.
    assert!((100..=140).contains(&rescued), "{rescued}");
    plane
        .until("the counts", |plane| {
            let counts = plane.reports.last()?.rescues.first()?.counts;
            (counts == [rescued, 0, REQUESTS - rescued]).then_some(())
        })
        .await;
    assert_eq!(plane.ended(1, false), vec![Outcome::Failed; REQUESTS as usize]);
}

#[tokio::test]
async fn rescues_are_in_the_metrics_from_the_start() {
    let baseline = Upstream::text("baseline").await;
    let yaml = two_arms(baseline.addr, nobody().await, "100%", "")
        .replace("stages: [100%, 100%]", "stages: [100%]")
        .replace("timeout: 2s", "timeout: 2s, rescue: true");
    let haldane = Haldane::with_workers(&yaml, 1).await;
    let rescued = async |count: u32| {
        let series =
            format!("haldane_rescues_total{{service=\"shop\",result=\"rescued\"}} {count}\n");
        eventually(&series, async || haldane.metrics().await.contains(&series).then_some(())).await;
    };
    rescued(0).await;
    assert_eq!(Call::get("/").to(haldane.addr).await.text(), "baseline");
    rescued(1).await;
}
