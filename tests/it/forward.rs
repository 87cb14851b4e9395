//! What is forwarded, both ways: header rules, bodies, trailers, rewriting.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Response};
use http_body_util::{BodyExt, channel::Channel};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

use crate::harness::{Call, Connection, Haldane, PATIENCE, Upstream, full, two_arms};

async fn proxy_to(upstream: &Upstream) -> Haldane {
    Haldane::start(&two_arms(upstream.addr, upstream.addr, "5%", "")).await
}

#[tokio::test]
async fn the_upstream_learns_who_asks_and_nothing_that_belongs_to_one_hop() {
    let haldane = proxy_to(&Upstream::echo().await).await;
    let answer = Call::get("/a/./b%7e/../c?q=1")
        .header("host", "Shop.example:81")
        .header("x-forwarded-for", "6.6.6.6")
        .header("x-forwarded-proto", "https")
        .header("forwarded", "for=6.6.6.6")
        .header("connection", "x-hop, keep-alive")
        .header("x-hop", "1")
        .header("keep-alive", "timeout=5")
        .header("te", "trailers, gzip")
        .header("x-kept", "2")
        .to(haldane.addr)
        .await;
    let text = answer.text();
    assert!(text.starts_with("GET /a/c?q=1\n"), "{text}");
    for line in [
        "host: Shop.example:81",
        "x-forwarded-for: 127.0.0.1",
        "x-forwarded-proto: http",
        "x-forwarded-host: Shop.example:81",
        "via: 1.1 haldane",
        "te: trailers",
        "x-kept: 2",
    ] {
        assert!(text.contains(&format!("{line}\n")), "{line} is missing in {text}");
    }
    for name in ["x-hop", "keep-alive", "forwarded", "6.6.6.6"] {
        assert!(!text.contains(&format!("\n{name}:")), "{name} is in {text}");
    }
}

#[tokio::test]
async fn http_2_by_prior_knowledge_reaches_the_same_upstream() {
    let haldane = proxy_to(&Upstream::echo().await).await;
    let answer = Call::post("/upload")
        .h2()
        .header("cookie", "a=1")
        .header("cookie", "b=2")
        .body("hello")
        .to(haldane.addr)
        .await;
    let text = answer.text();
    assert_eq!(answer.status, 200);
    assert!(text.starts_with("POST /upload\n"), "{text}");
    assert!(text.contains("cookie: a=1; b=2\n"), "{text}");
    assert!(text.contains("via: 2 haldane\n"), "{text}");
    assert!(text.contains(&format!("host: {}\n", haldane.addr)), "{text}");
    assert!(text.ends_with("\n\nhello"), "{text}");
}

#[tokio::test]
async fn answers_lose_what_belongs_to_one_hop_and_name_their_arm() {
    let upstream = Upstream::start(|_| async {
        let mut response = Response::new(full("x"));
        response.headers_mut().insert("connection", HeaderValue::from_static("x-hop"));
        response.headers_mut().insert("x-hop", HeaderValue::from_static("1"));
        response.headers_mut().insert("date", HeaderValue::from_static("yesterday"));
        response
    })
    .await;
    let haldane = proxy_to(&upstream).await;
    let answer = Call::get("/").to(haldane.addr).await;
    assert_eq!(answer.header("x-hop"), None);
    assert_eq!(answer.header("date"), Some("yesterday"));
    assert!(["baseline", "v2"].contains(&answer.header("x-haldane-arm").unwrap()));
}

#[tokio::test]
async fn host_path_and_fields_are_rewritten_as_configured() {
    let upstream = Upstream::echo().await;
    let yaml = format!(
        "services:
  shop:
    baseline: {addr}
    canaries:
      v2:
        upstream: {addr}
        version: '1'
        request_headers: {{ set: {{ x-feature: canary }} }}
    override: {{ header: x-canary, from: [127.0.0.0/8] }}
    rollout: {{ manual: true, stages: [1%, 100%] }}
routes:
  - service: shop
    match: {{ path_prefix: /api }}
    rewrite: {{ host: inside.example, path_prefix: / }}
    request_headers: {{ set: {{ x-set: a }}, add: {{ x-kept: more }}, remove: [x-secret] }}
    response_headers: {{ set: {{ x-answer: b }} }}
",
        addr = upstream.addr
    );
    let haldane = Haldane::start(&yaml).await;
    assert_eq!(haldane.set_weight("shop", 0.0).await.status, 200);
    let call = || {
        Call::get("/api/v1")
            .header("x-secret", "1")
            .header("x-kept", "one")
            .header("x-feature", "forged")
    };
    let answer = call().to(haldane.addr).await;
    let text = answer.text();
    assert!(text.starts_with("GET /v1\n"), "{text}");
    for line in ["host: inside.example", "x-set: a", "x-kept: one", "x-kept: more"] {
        assert!(text.contains(&format!("{line}\n")), "{line} is missing in {text}");
    }
    assert!(!text.contains("x-secret") && !text.contains("x-feature"), "{text}");
    assert_eq!(answer.header("x-answer"), Some("b"));
    let canary = call().header("x-canary", "v2").to(haldane.addr).await.text();
    assert!(canary.contains("x-feature: canary\n"), "{canary}");
}

#[tokio::test]
async fn a_head_answer_keeps_its_length_and_has_no_body() {
    let upstream = Upstream::start(|_| async { Response::new(full("12345")) }).await;
    let haldane = proxy_to(&upstream).await;
    let mut connection = Connection::open(haldane.addr, false).await.unwrap();
    for _ in 0..3 {
        let head = Call::new(http::Request::head("/"));
        let answer = connection.call(head).await.unwrap();
        assert_eq!(answer.header("content-length"), Some("5"));
        assert!(answer.body.is_empty());
    }
    assert_eq!(connection.call(Call::get("/")).await.unwrap().text(), "12345");
}

#[tokio::test]
async fn an_answer_streams_frame_by_frame_with_its_trailers() {
    let (mut frames, body) = Channel::<Bytes>::new(1);
    let body = std::sync::Mutex::new(Some(BodyExt::boxed(body)));
    let upstream = Upstream::start(move |_| {
        let mut response = Response::new(body.lock().unwrap().take().unwrap());
        response.headers_mut().insert("trailer", HeaderValue::from_static("x-sum"));
        async { response }
    })
    .await;
    let haldane = proxy_to(&upstream).await;
    let mut stream = TcpStream::connect(haldane.addr).await.unwrap();
    stream.write_all(b"GET / HTTP/1.1\r\nhost: a\r\nte: trailers\r\n\r\n").await.unwrap();
    let mut seen = String::new();
    frames.send_data("first".into()).await.unwrap();
    read_until(&mut stream, &mut seen, "first").await;
    frames.send_data("second".into()).await.unwrap();
    read_until(&mut stream, &mut seen, "second").await;
    let mut trailers = HeaderMap::new();
    trailers.insert("x-sum", HeaderValue::from_static("42"));
    frames.send_trailers(trailers).await.unwrap();
    drop(frames);
    read_until(&mut stream, &mut seen, "x-sum: 42\r\n\r\n").await;
}

async fn read_until(stream: &mut TcpStream, seen: &mut String, end: &str) {
    let mut chunk = [0; 4096];
    while !seen.contains(end) {
        let count = timeout(PATIENCE, stream.read(&mut chunk)).await.expect("more").unwrap();
        assert!(count > 0, "the connection ended after {seen}");
        seen.push_str(std::str::from_utf8(&chunk[..count]).unwrap());
    }
}

#[tokio::test]
async fn the_upstream_sees_a_body_while_the_client_still_sends_it() {
    let upstream = Upstream::echo().await;
    let haldane = proxy_to(&upstream).await;
    let mut stream = TcpStream::connect(haldane.addr).await.unwrap();
    let head = b"POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n";
    stream.write_all(head).await.unwrap();
    crate::harness::eventually("the upstream sees the head", async || {
        (upstream.seen() == 1).then_some(())
    })
    .await;
    stream.write_all(b"6\r\n world\r\n0\r\n\r\n").await.unwrap();
    let mut seen = String::new();
    read_until(&mut stream, &mut seen, "hello world").await;
}

#[tokio::test]
async fn a_client_that_waits_for_100_continue_is_told_to_go_on() {
    let haldane = proxy_to(&Upstream::echo().await).await;
    let mut stream = TcpStream::connect(haldane.addr).await.unwrap();
    let head = b"PUT / HTTP/1.1\r\nhost: a\r\ncontent-length: 2\r\nexpect: 100-continue\r\n\r\n";
    stream.write_all(head).await.unwrap();
    let mut seen = String::new();
    read_until(&mut stream, &mut seen, "HTTP/1.1 100 Continue\r\n\r\n").await;
    stream.write_all(b"ok").await.unwrap();
    read_until(&mut stream, &mut seen, "\n\nok").await;
}

#[tokio::test]
async fn an_early_answer_reaches_a_client_that_has_not_sent_its_body() {
    let upstream = Upstream::raw(|mut stream| async move {
        let mut chunk = [0; 4096];
        // The head is enough; the body is never asked for.
        let _ = stream.read(&mut chunk).await.unwrap();
        let answer = b"HTTP/1.1 413 Too Large\r\ncontent-length: 4\r\n\r\nstop";
        stream.write_all(answer).await.unwrap();
        // Stays open: only the proxy can end this connection.
        while matches!(stream.read(&mut chunk).await, Ok(1..)) {}
    })
    .await;
    let haldane = proxy_to(&upstream).await;
    let mut stream = TcpStream::connect(haldane.addr).await.unwrap();
    let head = b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 1000000\r\n\r\nstart";
    stream.write_all(head).await.unwrap();
    let mut seen = String::new();
    read_until(&mut stream, &mut seen, "\r\n\r\nstop").await;
    assert!(seen.starts_with("HTTP/1.1 413 "), "{seen}");
    crate::harness::eventually("the upstream's connection is not kept", async || {
        let metrics = haldane.metrics().await;
        let open = metrics
            .lines()
            .filter(|line| line.starts_with("haldane_upstream_connections{"))
            .all(|line| line.ends_with(" 0"));
        open.then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_large_body_passes_while_the_client_reads_slowly() {
    const SIZE: usize = 8 << 20;
    let upstream = Upstream::start(|_| async { Response::new(full(vec![7; SIZE])) }).await;
    let haldane = proxy_to(&upstream).await;
    let mut stream = TcpStream::connect(haldane.addr).await.unwrap();
    stream.write_all(b"GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n").await.unwrap();
    tokio::time::sleep(Duration::from_millis(100)).await;
    let mut answer = Vec::new();
    timeout(PATIENCE, stream.read_to_end(&mut answer)).await.unwrap().unwrap();
    let body = answer.windows(4).position(|it| it == b"\r\n\r\n").unwrap() + 4;
    assert_eq!(answer.len() - body, SIZE);
}
