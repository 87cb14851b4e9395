//! Upstreams that misbehave: what the client gets, and who is blamed.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU32, AtomicU64, Ordering},
    },
    time::Duration,
};

use http::Response;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::sleep,
};

use crate::harness::{Call, Connection, Haldane, Upstream, eventually, full, nobody, one_arm};

async fn proxy_to(upstream: SocketAddr) -> Haldane {
    Haldane::start(&one_arm(upstream)).await
}

/// Waits until the proxy has counted one request with this outcome.
async fn outcome(haldane: &Haldane, outcome: &str) {
    let series = format!(
        "haldane_requests_total{{route=\"all\",cohort=\"default\",arm=\"baseline\",outcome=\"{outcome}\"}} 1"
    );
    eventually(&series, async || haldane.metrics().await.contains(&series).then_some(())).await;
}

const OK: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";

/// Reads a head; false if the connection ended.
async fn head(stream: &mut TcpStream) -> bool {
    let mut seen = Vec::new();
    let mut chunk = [0; 4096];
    while !seen.windows(4).any(|it| it == b"\r\n\r\n") {
        match stream.read(&mut chunk).await {
            Ok(count @ 1..) => seen.extend_from_slice(&chunk[..count]),
            Ok(0) | Err(_) => return false,
        }
    }
    true
}

#[tokio::test]
async fn a_refused_connection_is_a_502_and_a_failure_of_the_arm() {
    let haldane = proxy_to(nobody().await).await;
    let answer = Call::get("/").to(haldane.addr).await;
    assert_eq!(answer.status, 502);
    assert_eq!(answer.text(), "haldane: no connection to the upstream\n");
    outcome(&haldane, "failed").await;
}

#[tokio::test]
async fn an_answer_of_500_is_passed_on_and_counts_as_failed() {
    let upstream =
        Upstream::start(|_| async { Response::builder().status(503).body(full("busy")).unwrap() })
            .await;
    let haldane = proxy_to(upstream.addr).await;
    let answer = Call::get("/").to(haldane.addr).await;
    assert_eq!((answer.status.as_u16(), answer.text().as_str()), (503, "busy"));
    outcome(&haldane, "failed").await;
}

#[tokio::test]
async fn no_answer_within_the_timeout_is_a_504_and_a_hung_request() {
    let upstream =
        Upstream::raw(|mut stream| async move { while head(&mut stream).await {} }).await;
    let haldane = proxy_to(upstream.addr).await;
    assert_eq!(Call::get("/").to(haldane.addr).await.status, 504);
    outcome(&haldane, "hung").await;
}

#[tokio::test]
async fn a_truncated_answer_is_cut_for_the_client_and_counts_as_failed() {
    let upstream = Upstream::raw(|mut stream| async move {
        if head(&mut stream).await {
            let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf";
            stream.write_all(answer).await.unwrap();
        }
    })
    .await;
    let haldane = proxy_to(upstream.addr).await;
    assert!(Call::get("/").try_to(haldane.addr).await.is_err());
    outcome(&haldane, "failed").await;
}

#[tokio::test]
async fn a_client_that_gives_up_is_not_blamed_on_the_arm() {
    let upstream =
        Upstream::raw(|mut stream| async move { while head(&mut stream).await {} }).await;
    let haldane = proxy_to(upstream.addr).await;
    let mut stream = TcpStream::connect(haldane.addr).await.unwrap();
    stream.write_all(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n").await.unwrap();
    eventually("the request reaches the upstream", async || {
        (upstream.connections.load(Ordering::SeqCst) == 1).then_some(())
    })
    .await;
    drop(stream);
    outcome(&haldane, "aborted").await;
}

#[tokio::test]
async fn connections_to_an_upstream_are_kept_and_used_again() {
    let upstream = Upstream::text("x").await;
    let haldane = Haldane::with_workers(&one_arm(upstream.addr), 1).await;
    let mut connection = Connection::open(haldane.addr, false).await.unwrap();
    for _ in 0..50 {
        assert_eq!(connection.call(Call::get("/")).await.unwrap().status, 200);
    }
    assert_eq!(upstream.connections.load(Ordering::SeqCst), 1);
}

/// An upstream that closes every connection after a few answers, without saying so.
async fn unreliable(answers: u32) -> (Upstream, Arc<AtomicU64>) {
    let taken = Arc::new(AtomicU64::new(0));
    let count = Arc::clone(&taken);
    let upstream = Upstream::raw(move |mut stream| {
        let count = Arc::clone(&count);
        async move {
            for _ in 0..answers {
                if !head(&mut stream).await {
                    return;
                }
                count.fetch_add(1, Ordering::SeqCst);
                stream.write_all(OK).await.unwrap();
            }
        }
    })
    .await;
    (upstream, taken)
}

#[tokio::test]
async fn a_stale_connection_never_becomes_a_502_and_no_request_is_taken_twice() {
    let (upstream, taken) = unreliable(2).await;
    let haldane = proxy_to(upstream.addr).await;
    let mut clients = Vec::new();
    for _ in 0..8 {
        let addr = haldane.addr;
        clients.push(tokio::spawn(async move {
            let mut connection = Connection::open(addr, false).await.unwrap();
            for number in 0..150_u32 {
                let answer = connection.call(Call::get("/")).await.unwrap();
                assert_eq!(answer.status, 200, "request {number}: {}", answer.text());
                if number % 3 == 0 {
                    sleep(Duration::from_millis(u64::from(number % 4))).await;
                }
            }
        }));
    }
    for client in clients {
        client.await.unwrap();
    }
    assert_eq!(taken.load(Ordering::SeqCst), 1_200);
}

#[tokio::test]
async fn a_request_that_the_upstream_may_have_taken_is_not_sent_again() {
    let attempts = Arc::new(AtomicU32::new(0));
    let count = Arc::clone(&attempts);
    let upstream = Upstream::raw(move |mut stream| {
        let count = Arc::clone(&count);
        async move {
            if head(&mut stream).await && count.fetch_add(1, Ordering::SeqCst) == 0 {
                stream.write_all(OK).await.unwrap();
                // The second request on this connection is read, and not answered.
                head(&mut stream).await;
                count.fetch_add(1, Ordering::SeqCst);
            }
        }
    })
    .await;
    let haldane = Haldane::with_workers(&one_arm(upstream.addr), 1).await;
    assert_eq!(Call::get("/").to(haldane.addr).await.status, 200);
    assert_eq!(Call::get("/").to(haldane.addr).await.status, 502);
    assert_eq!(attempts.load(Ordering::SeqCst), 2);
}

#[tokio::test]
async fn a_pool_at_its_limit_lets_requests_wait_their_turn() {
    let upstream = Upstream::start(|_| async {
        sleep(Duration::from_millis(20)).await;
        Response::new(full("x"))
    })
    .await;
    let yaml = format!(
        "upstreams: {{ one: {{ endpoints: [\"{}\"], pool: {{ max: 2 }} }} }}
services: {{ shop: {{ baseline: one }} }}
routes: [{{ service: shop }}]",
        upstream.addr
    );
    let haldane = Haldane::with_workers(&yaml, 1).await;
    let calls: Vec<_> = (0..20).map(|_| tokio::spawn(Call::get("/").to(haldane.addr))).collect();
    for call in calls {
        assert_eq!(call.await.unwrap().status, 200);
    }
    assert!(upstream.connections.load(Ordering::SeqCst) <= 2);
}

#[tokio::test]
async fn warm_up_opens_connections_before_requests_come() {
    let upstream = Upstream::text("x").await;
    let yaml = format!(
        "upstreams: {{ one: {{ endpoints: [\"{}\"], warmup: {{ connections: 3, period: 1s }} }} }}
services: {{ shop: {{ baseline: one }} }}
routes: [{{ service: shop }}]",
        upstream.addr
    );
    let _haldane = Haldane::with_workers(&yaml, 1).await;
    eventually("three connections", async || {
        (upstream.connections.load(Ordering::SeqCst) == 3).then_some(())
    })
    .await;
}

#[tokio::test]
async fn metrics_tell_idle_connections_from_those_in_use() {
    let (release, released) = tokio::sync::watch::channel(false);
    let canary = Upstream::start(move |_| {
        let mut released = released.clone();
        async move {
            // The test may be over.
            let _ = released.wait_for(|released| *released).await;
            Response::new(full("x"))
        }
    })
    .await;
    let baseline = Upstream::text("x").await;
    let yaml = format!(
        "upstreams:
  two: {{ endpoints: [\"{}\"], warmup: {{ connections: 3, period: 1s }} }}
services:
  shop:
    baseline: \"{}\"
    canaries: {{ v2: {{ upstream: two, version: \"2\" }} }}
    rollout: {{ manual: true, stages: [100%] }}
routes: [{{ service: shop }}]",
        canary.addr, baseline.addr
    );
    let haldane = Haldane::with_workers(&yaml, 2).await;
    let counts = async |idle: u32, in_use: u32| {
        let series = |state, count| {
            let labels = format!("upstream=\"two\",state=\"{state}\"");
            format!("haldane_upstream_connections{{{labels}}} {count}\n")
        };
        let expected = [series("idle", idle), series("in_use", in_use), series("connecting", 0)];
        eventually(&expected.concat(), async || {
            let metrics = haldane.metrics().await;
            expected.iter().all(|series| metrics.contains(series)).then_some(())
        })
        .await;
    };
    // Three of each worker, before any request.
    counts(6, 0).await;
    assert_eq!(canary.connections.load(Ordering::SeqCst), 6);
    assert_eq!(haldane.set_weight("shop", 100.0).await.status, 200);
    let calls: Vec<_> = (0..2).map(|_| tokio::spawn(Call::get("/").to(haldane.addr))).collect();
    counts(4, 2).await;
    release.send_replace(true);
    for call in calls {
        assert_eq!(call.await.unwrap().status, 200);
    }
    counts(6, 0).await;
    assert_eq!(canary.connections.load(Ordering::SeqCst), 6);
}
