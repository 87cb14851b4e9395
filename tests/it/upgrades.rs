//! Upgrades: another protocol on a connection that began as HTTP/1.1, byte by byte.

use std::time::Duration;

use bytes::Bytes;
use haldane::measure::Outcome;
use http_body_util::Empty;
use hyper::{client::conn::http2, ext::Protocol};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

use crate::{
    harness::{Haldane, PATIENCE, Upstream, eventually, two_arms},
    plane::Plane,
};

const ASK: &str = "GET /chat HTTP/1.1\r\nhost: shop\r\nconnection: keep-alive, Upgrade\r\n\
    upgrade: websocket\r\nsec-websocket-version: 13\r\nsec-websocket-key: AAAA\r\n\r\n";
const AGREE: &str = "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\
    sec-websocket-accept: BBBB\r\n\r\n";

/// Reads a head; what follows it stays unread.
async fn head(stream: &mut TcpStream) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let byte = timeout(PATIENCE, stream.read_u8()).await.expect("a head in time");
        head.push(byte.unwrap_or_else(|error| panic!("{error} after {head:?}")));
    }
    String::from_utf8(head).unwrap().to_ascii_lowercase()
}

async fn said(stream: &mut TcpStream, expected: &str) {
    let mut heard = vec![0; expected.len()];
    timeout(PATIENCE, stream.read_exact(&mut heard)).await.expect("in time").unwrap();
    assert_eq!(String::from_utf8(heard).unwrap(), expected);
}

async fn ended(stream: &mut TcpStream) {
    let mut rest = Vec::new();
    timeout(PATIENCE, stream.read_to_end(&mut rest)).await.expect("in time").unwrap();
    assert_eq!(rest, b"");
}

/// An upstream that agrees, greets, and then repeats what it hears.
async fn parrot() -> Upstream {
    Upstream::raw(|mut stream| async move {
        let asked = head(&mut stream).await;
        assert!(asked.contains("connection: upgrade\r\n"), "{asked}");
        assert!(asked.contains("upgrade: websocket\r\n"), "{asked}");
        stream.write_all(format!("{AGREE}hello").as_bytes()).await.unwrap();
        let (mut from, mut to) = stream.split();
        // The test ends when its client does.
        let _ = tokio::io::copy(&mut from, &mut to).await;
        let _ = to.shutdown().await;
    })
    .await
}

async fn asked(addr: std::net::SocketAddr, request: &str) -> TcpStream {
    let mut stream = TcpStream::connect(addr).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    stream
}

fn plane(upstream: &Upstream, route: &str) -> Plane {
    let yaml = format!(
        "services: {{ shop: {{ baseline: \"{}\" }} }}\nroutes: [{{ service: shop, timeout: 2s{route} }}]",
        upstream.addr
    );
    Plane::start(&yaml, 0, 1)
}

async fn outcome(plane: &mut Plane) -> Outcome {
    plane.until("the end", |plane| plane.ended(0, false).first().copied()).await
}

#[tokio::test]
async fn bytes_go_both_ways_once_the_upstream_has_agreed() {
    let parrot = parrot().await;
    let mut plane = plane(&parrot, "");
    // The first words follow the head at once; they must not arrive before the 101.
    let mut client = asked(plane.addr, &format!("{ASK}early ")).await;
    let answer = head(&mut client).await;
    assert!(answer.starts_with("http/1.1 101 "), "{answer}");
    assert!(answer.contains("connection: upgrade\r\n"), "{answer}");
    assert!(answer.contains("upgrade: websocket\r\n"), "{answer}");
    assert!(answer.contains("sec-websocket-accept: bbbb\r\n"), "{answer}");
    said(&mut client, "helloearly ").await;
    for word in ["one ", "two ", "three"] {
        client.write_all(word.as_bytes()).await.unwrap();
        said(&mut client, word).await;
    }
    assert_eq!(plane.ended(0, false), [], "it is still open");
    client.shutdown().await.unwrap();
    ended(&mut client).await;
    assert_eq!(outcome(&mut plane).await, Outcome::Ok);
}

#[tokio::test]
async fn no_byte_of_the_client_passes_before_the_upstream_has_agreed() {
    let upstream = Upstream::raw(|mut stream| async move {
        head(&mut stream).await;
        let mut byte = [0; 1];
        // Nothing comes, however long one waits; a refusal follows, and it is no upgrade.
        let early = timeout(Duration::from_millis(300), stream.read(&mut byte)).await;
        let status = if early.is_ok() { "500 Early" } else { "403 No" };
        let answer = format!("HTTP/1.1 {status}\r\ncontent-length: 2\r\n\r\nno");
        stream.write_all(answer.as_bytes()).await.unwrap();
    })
    .await;
    let mut plane = plane(&upstream, "");
    let mut client = asked(plane.addr, &format!("{ASK}smuggled")).await;
    let answer = head(&mut client).await;
    assert!(answer.starts_with("http/1.1 403 "), "{answer}");
    assert_eq!(outcome(&mut plane).await, Outcome::Ok);
}

#[tokio::test]
async fn what_the_route_does_not_allow_is_asked_for_in_plain_http() {
    let echo = Upstream::echo().await;
    for (route, request) in [
        (", upgrades: none", ASK.to_owned()),
        ("", ASK.replace("websocket\r\n", "h2c\r\n")),
        ("", ASK.replace("GET", "POST")),
        ("", ASK.replace("keep-alive, Upgrade", "keep-alive")),
    ] {
        let plane = plane(&echo, route);
        let mut client = asked(plane.addr, &request).await;
        let answer = head(&mut client).await;
        assert!(answer.starts_with("http/1.1 200 "), "{answer}");
        let length = answer.lines().find_map(|line| line.strip_prefix("content-length: "));
        let mut body = vec![0; length.unwrap().parse().unwrap()];
        client.read_exact(&mut body).await.unwrap();
        let body = String::from_utf8(body).unwrap();
        assert!(!body.contains("upgrade: ") && !body.contains("connection: "), "{body}");
    }
}

#[tokio::test]
async fn an_answer_that_switches_unasked_or_to_something_else_is_a_failure() {
    let upstream = Upstream::raw(|mut stream| async move {
        head(&mut stream).await;
        let answer = AGREE.replace("websocket", "smoke-signals");
        // Whoever refuses it may be gone.
        let _ = stream.write_all(answer.as_bytes()).await;
    })
    .await;
    for request in [ASK.to_owned(), "GET / HTTP/1.1\r\nhost: shop\r\n\r\n".to_owned()] {
        let mut plane = plane(&upstream, "");
        let mut client = asked(plane.addr, &request).await;
        let answer = head(&mut client).await;
        assert!(answer.starts_with("http/1.1 502 "), "{answer}");
        assert_eq!(outcome(&mut plane).await, Outcome::Failed);
    }
}

#[tokio::test]
async fn it_counts_by_how_it_ends() {
    // The upstream breaks off.
    let breaks = Upstream::raw(|mut stream| async move {
        head(&mut stream).await;
        stream.write_all(AGREE.as_bytes()).await.unwrap();
        stream.read_u8().await.unwrap();
        stream.set_zero_linger().unwrap();
    })
    .await;
    let mut of_upstream = plane(&breaks, "");
    let mut client = asked(of_upstream.addr, ASK).await;
    head(&mut client).await;
    client.write_all(b"x").await.unwrap();
    assert_eq!(outcome(&mut of_upstream).await, Outcome::Failed);
    // The client does.
    let parrot = parrot().await;
    let mut of_client = plane(&parrot, "");
    let mut client = asked(of_client.addr, ASK).await;
    head(&mut client).await;
    said(&mut client, "hello").await;
    client.set_zero_linger().unwrap();
    drop(client);
    assert_eq!(outcome(&mut of_client).await, Outcome::Aborted);
    // Nobody says anything any more.
    let mut quiet = plane(&parrot, ", upgrades: { idle_timeout: 200ms }");
    let mut client = asked(quiet.addr, ASK).await;
    head(&mut client).await;
    said(&mut client, "hello").await;
    ended(&mut client).await;
    assert_eq!(outcome(&mut quiet).await, Outcome::Ok);
}

#[tokio::test]
async fn it_lives_through_weights_reloads_and_a_rollback() {
    let (baseline, canary) = (Upstream::text("baseline").await, parrot().await);
    let yaml = two_arms(baseline.addr, canary.addr, "50%", "");
    let haldane = Haldane::start(&yaml).await;
    haldane.set_weight("shop", 100.0).await;
    let mut client = asked(haldane.addr, ASK).await;
    head(&mut client).await;
    said(&mut client, "hello").await;
    for turn in 0..20 {
        haldane.set_weight("shop", f64::from(turn * 7 % 100)).await;
        haldane.write_config(&yaml.replace("timeout: 2s", &format!("timeout: {}s", 2 + turn)));
        assert_eq!(haldane.reload().await.status, 200);
        client.write_all(b"still here").await.unwrap();
        said(&mut client, "still here").await;
    }
    // Neither its upstream nor its canary is in the configuration any more.
    haldane.write_config(&crate::harness::one_arm(baseline.addr));
    assert_eq!(haldane.reload().await.status, 200);
    client.write_all(b"and here").await.unwrap();
    said(&mut client, "and here").await;
    // A shutdown waits for it.
    haldane.begin_shutdown();
    eventually("no more connections", async || TcpStream::connect(haldane.addr).await.err()).await;
    client.write_all(b"to the end").await.unwrap();
    said(&mut client, "to the end").await;
    client.shutdown().await.unwrap();
    ended(&mut client).await;
}

/// An extended CONNECT for `protocol`, and what is answered.
async fn extended(plane: &Plane, protocol: &'static str) -> http::Response<hyper::body::Incoming> {
    let stream = TcpStream::connect(plane.addr).await.unwrap();
    let (mut sender, mut connection) =
        http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
    // What the peer can do is in its first frame.
    eventually("the settings of the peer", async || {
        futures_poll(&mut connection).await;
        connection.is_extended_connect_protocol_enabled().then_some(())
    })
    .await;
    tokio::spawn(connection);
    let mut request = http::Request::builder()
        .method("CONNECT")
        .uri(format!("http://{}/chat", plane.addr))
        .header("sec-websocket-version", "13")
        .body(Empty::<Bytes>::new())
        .unwrap();
    request.extensions_mut().insert(Protocol::from_static(protocol));
    timeout(PATIENCE, sender.send_request(request)).await.unwrap().unwrap()
}

/// Polls a future that need not come to its end.
async fn futures_poll(future: &mut (impl Future + Unpin)) {
    std::future::poll_fn(|cx| {
        let _ = std::pin::Pin::new(&mut *future).poll(cx);
        std::task::Poll::Ready(())
    })
    .await;
}

#[tokio::test]
async fn a_stream_of_http2_becomes_a_tunnel_as_well() {
    let parrot = parrot().await;
    let mut plane = plane(&parrot, "");
    let answer = extended(&plane, "websocket").await;
    assert_eq!(answer.status(), 200);
    assert!(!answer.headers().contains_key("sec-websocket-accept"), "{answer:?}");
    let mut stream = TokioIo::new(hyper::upgrade::on(answer).await.unwrap());
    let mut heard = [0; 5];
    timeout(PATIENCE, stream.read_exact(&mut heard)).await.unwrap().unwrap();
    assert_eq!(&heard, b"hello");
    for word in ["one", "two"] {
        stream.write_all(word.as_bytes()).await.unwrap();
        stream.flush().await.unwrap();
        let mut heard = vec![0; word.len()];
        timeout(PATIENCE, stream.read_exact(&mut heard)).await.unwrap().unwrap();
        assert_eq!(heard, word.as_bytes());
    }
    stream.shutdown().await.unwrap();
    let mut rest = Vec::new();
    timeout(PATIENCE, stream.read_to_end(&mut rest)).await.unwrap().unwrap();
    assert_eq!(outcome(&mut plane).await, Outcome::Ok);
}

#[tokio::test]
async fn a_stream_of_http2_does_not_become_what_was_not_agreed_on() {
    let plain = Upstream::text("a page").await;
    let mut of_page = plane(&plain, "");
    assert_eq!(extended(&of_page, "websocket").await.status(), 502);
    assert_eq!(outcome(&mut of_page).await, Outcome::Failed);
    assert_eq!(extended(&plane(&plain, ""), "smoke-signals").await.status(), 405);
    assert_eq!(extended(&plane(&plain, ", upgrades: none"), "websocket").await.status(), 405);
}
