//! What the control thread asks of the workers: connections ahead of traffic, probes, drills.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use haldane::{
    measure::{Outcome, Probed},
    routing::{ArmIndex, Asks, Harm, Hurt, Probe, ServiceId, UpstreamId, Warm},
};
use http::Response;
use tokio::time::{Instant, sleep};

use crate::{
    harness::{Call, Upstream, full, nobody},
    plane::Plane,
};

const CANARY: ArmIndex = ArmIndex(1);

fn yaml(baseline: &str, canary: &str, route: &str) -> String {
    format!(
        "services:
  shop:
    baseline: {baseline}
    canaries: {{ v2: {{ upstream: {canary}, version: \"2\" }} }}
    arm_header: true
routes: [{{ service: shop, timeout: 2s{route} }}]"
    )
}

fn canary_upstream(plane: &Plane) -> UpstreamId {
    plane.routes().services()[0].arms[1].upstream
}

fn warm(plane: &Plane, connections: u32) {
    let upstream = canary_upstream(plane);
    plane.ask(Asks { warm: vec![Warm { upstream, connections }], ..Asks::default() });
}

/// Waits until the workers report so many idle connections to the canary in all.
async fn idle(plane: &mut Plane, workers: usize, expected: u32) {
    let name = plane.routes().upstream(canary_upstream(plane)).name.clone();
    plane
        .until("idle connections", |plane| {
            let last = plane.reports.iter().rev().take(workers);
            let of_canary = last.flat_map(|report| &report.upstreams);
            let idle = of_canary.filter(|it| it.upstream == name).map(|it| it.idle).sum::<u32>();
            (idle == expected).then_some(())
        })
        .await;
}

#[tokio::test]
async fn connections_are_opened_ahead_in_the_whole_process_and_over_all_endpoints() {
    let baseline = Upstream::text("baseline").await;
    let (one, two) = (Upstream::text("x").await, Upstream::text("x").await);
    let canary = format!("{{ endpoints: [\"{}\", \"{}\"] }}", one.addr, two.addr);
    let mut plane = Plane::start(&yaml(&baseline.addr.to_string(), &canary, ""), 0, 2);
    warm(&plane, 10);
    idle(&mut plane, 2, 10).await;
    let opened = |it: &Upstream| it.connections.load(Ordering::SeqCst);
    assert_eq!(opened(&one) + opened(&two), 10);
    assert!(opened(&one).abs_diff(opened(&two)) <= 2, "{} {}", opened(&one), opened(&two));
    // They are kept beyond the idle timeout while they are asked for, and closed afterwards.
    let closed = Instant::now() + Duration::from_secs(4);
    plane.until("four seconds", |_| (Instant::now() > closed).then_some(())).await;
    idle(&mut plane, 2, 10).await;
    assert_eq!(opened(&one) + opened(&two), 10, "none was opened again");
    plane.ask(Asks::default());
    idle(&mut plane, 2, 0).await;
    assert_eq!(opened(&baseline), 0);
}

#[tokio::test]
async fn connections_that_are_open_already_count() {
    let (baseline, canary) = (Upstream::text("baseline").await, Upstream::text("x").await);
    let yaml = yaml(&baseline.addr.to_string(), &format!("\"{}\"", canary.addr), "");
    let mut plane = Plane::start(&yaml, 10_000, 1);
    assert_eq!(Call::get("/").to(plane.addr).await.status, 200);
    warm(&plane, 3);
    idle(&mut plane, 1, 3).await;
    assert_eq!(canary.connections.load(Ordering::SeqCst), 3);
}

fn probe(plane: &Plane) {
    let probe = Probe { service: ServiceId(0), arm: CANARY };
    plane.ask(Asks { probes: vec![probe], ..Asks::default() });
}

fn probed(plane: &Plane) -> Vec<bool> {
    let probes = plane.reports.iter().flat_map(|report| &report.probes);
    let mut results = Vec::new();
    for Probed { service, arm, ok } in probes {
        assert_eq!((&**service, &**arm), ("shop", "v2"));
        results.push(*ok);
    }
    results
}

#[tokio::test]
async fn a_probe_is_a_connection_where_there_is_nothing_better() {
    let baseline = Upstream::text("baseline").await;
    let canary = Upstream::text("x").await;
    for (addr, ok) in [(canary.addr, true), (nobody().await, false)] {
        let yaml = yaml(&baseline.addr.to_string(), &format!("\"{addr}\""), "");
        let mut plane = Plane::start(&yaml, 0, 2);
        let begun = Instant::now();
        probe(&plane);
        let results = plane
            .until("three probes", |plane| {
                let results = probed(plane);
                (results.len() >= 3).then_some(results)
            })
            .await;
        assert!(results.iter().all(|it| *it == ok), "{results:?}");
        assert!(begun.elapsed() > Duration::from_millis(1_900), "one a second in the process");
        assert!(plane.events.is_empty(), "a probe of our own is not counted");
    }
    assert_eq!(canary.seen(), 0);
}

#[tokio::test]
async fn a_probe_asks_for_the_health_path_where_there_is_one() {
    let healthy = Arc::new(AtomicBool::new(false));
    let state = Arc::clone(&healthy);
    let canary = Upstream::start(move |request| {
        assert_eq!(request.uri().path(), "/healthz");
        let status = if state.load(Ordering::SeqCst) { 200 } else { 503 };
        async move { Response::builder().status(status).body(full("x")).unwrap() }
    })
    .await;
    let baseline = Upstream::text("baseline").await;
    let in_place =
        format!("{{ endpoints: \"{}\", health_check: {{ path: /healthz }} }}", canary.addr);
    let mut plane = Plane::start(&yaml(&baseline.addr.to_string(), &in_place, ""), 0, 1);
    probe(&plane);
    let first = plane.until("a probe", |plane| probed(plane).first().copied()).await;
    assert!(!first);
    healthy.store(true, Ordering::SeqCst);
    plane.until("a probe that succeeds", |plane| probed(plane).contains(&true).then_some(())).await;
    assert!(plane.events.is_empty());
    assert_eq!(baseline.seen(), 0);
}

#[tokio::test]
async fn with_rescue_a_probe_is_a_real_request_a_second_and_no_client_notices() {
    let healthy = Arc::new(AtomicBool::new(false));
    let state = Arc::clone(&healthy);
    let canary = Upstream::start(move |_| {
        let status = if state.load(Ordering::SeqCst) { 200 } else { 500 };
        async move { Response::builder().status(status).body(full("canary")).unwrap() }
    })
    .await;
    let baseline = Upstream::text("baseline").await;
    let yaml = yaml(&baseline.addr.to_string(), &format!("\"{}\"", canary.addr), ", rescue: true");
    let mut plane = Plane::start(&yaml, 0, 1);
    probe(&plane);
    let until = async |plane: &mut Plane, outcome| {
        let end = Instant::now() + Duration::from_secs(20);
        while !plane.ended(1, true).contains(&outcome) {
            assert!(Instant::now() < end, "no probe is {outcome:?}");
            assert_eq!(Call::get("/").to(plane.addr).await.status, 200);
            sleep(Duration::from_millis(5)).await;
            plane.read();
        }
    };
    until(&mut plane, Outcome::Failed).await;
    assert_eq!(probed(&plane).last(), Some(&false));
    healthy.store(true, Ordering::SeqCst);
    until(&mut plane, Outcome::Ok).await;
    plane.until("the result", |plane| probed(plane).contains(&true).then_some(())).await;
    assert!(plane.ended(1, false).is_empty(), "probes are no evidence");
    assert!(plane.ended(0, false).len() > 20);
    let probes = plane.ended(1, true).len() as u64;
    assert_eq!(canary.seen(), probes);
    assert!(probes <= 10, "{probes} in a few seconds");
}

async fn drill(what: Harm, share_bp: u16, route: &str) -> (Plane, Upstream) {
    let (baseline, canary) = (Upstream::text("baseline").await, Upstream::text("canary").await);
    let canary_at = format!("\"{}\"", canary.addr);
    let plane = Plane::start(&yaml(&baseline.addr.to_string(), &canary_at, route), 10_000, 1);
    let (service, arm) = (ServiceId(0), CANARY);
    let hurt = Hurt { service, arm, cohort: None, share_bp, what };
    plane.ask(Asks { hurts: vec![hurt], ..Asks::default() });
    (plane, canary)
}

#[tokio::test]
async fn a_drill_makes_the_arm_slower_and_it_is_measured_so() {
    let (mut plane, _canary) = drill(Harm::Latency(Duration::from_millis(300)), 10_000, "").await;
    let begun = Instant::now();
    let answer = Call::get("/").to(plane.addr).await;
    assert!(begun.elapsed() >= Duration::from_millis(300));
    assert_eq!((answer.status.as_u16(), answer.text().as_str()), (200, "canary"));
    assert_eq!(answer.header("x-haldane-drill"), Some("latency"));
    let outcome = plane.until("the event", |plane| plane.ended(1, false).first().copied()).await;
    assert_eq!(outcome, Outcome::Ok);
    let slowest = plane.events.iter().map(|event| event.first_byte_us).max();
    assert!(slowest >= Some(300_000), "{slowest:?}");
}

#[tokio::test]
async fn a_drill_makes_an_exact_share_of_the_arms_answers_fail_and_keeps_connections() {
    let (mut plane, canary) = drill(Harm::Errors, 2_500, "").await;
    let mut connection = crate::harness::Connection::open(plane.addr, false).await.unwrap();
    let mut failed = 0;
    for _ in 0..400 {
        let answer = connection.call(Call::get("/")).await.unwrap();
        let marked = answer.header("x-haldane-drill") == Some("errors");
        assert_eq!(answer.status.as_u16(), if marked { 503 } else { 200 });
        failed += usize::from(marked);
    }
    // Binomial: mean 100, sd 9.
    assert!((55..150).contains(&failed), "{failed}");
    plane.until("all events", |plane| (plane.ended(1, false).len() == 400).then_some(())).await;
    let counted = plane.ended(1, false).iter().filter(|it| **it == Outcome::Failed).count();
    assert_eq!(counted, failed);
    let connections = canary.connections.load(Ordering::SeqCst);
    assert!(connections < 10, "{connections} connections: an answer that nobody gets is read");
}

#[tokio::test]
async fn a_drill_makes_requests_hang_until_their_timeout() {
    let (mut plane, _canary) = drill(Harm::Hang, 10_000, "").await;
    let begun = Instant::now();
    let answer = Call::get("/").to(plane.addr).await;
    assert_eq!(answer.status, 504);
    assert!(begun.elapsed() >= Duration::from_secs(2));
    assert_eq!(answer.header("x-haldane-drill"), Some("hang"));
    let outcome = plane.until("the event", |plane| plane.ended(1, false).first().copied()).await;
    assert_eq!(outcome, Outcome::Hung);
}

#[tokio::test]
async fn a_drill_is_rescued_like_the_real_thing() {
    let (mut plane, _canary) = drill(Harm::Errors, 10_000, ", rescue: true").await;
    let answer = Call::get("/").to(plane.addr).await;
    assert_eq!((answer.status.as_u16(), answer.text().as_str()), (200, "baseline"));
    assert_eq!(answer.header("x-haldane-drill"), Some("errors"));
    let outcome = plane.until("the event", |plane| plane.ended(1, false).first().copied()).await;
    assert_eq!(outcome, Outcome::Failed);
}

#[tokio::test]
async fn what_is_not_asked_any_more_ends_with_the_table() {
    let (plane, _canary) = drill(Harm::Errors, 10_000, "").await;
    assert_eq!(Call::get("/").to(plane.addr).await.status, 503);
    plane.ask(Asks::default());
    let answer = Call::get("/").to(plane.addr).await;
    assert_eq!((answer.status.as_u16(), answer.header("x-haldane-drill")), (200, None));
    plane.weigh(0);
    assert_eq!(Call::get("/").to(plane.addr).await.text(), "baseline");
}
