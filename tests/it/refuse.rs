//! Requests that are malformed or ambiguous are refused and never forwarded.

use std::time::Duration;

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::{sleep, timeout},
};

use crate::harness::{Call, Haldane, PATIENCE, Upstream, raw, two_arms};

async fn scene() -> (Haldane, Upstream) {
    let upstream = Upstream::echo().await;
    let haldane = Haldane::start(&two_arms(upstream.addr, upstream.addr, "5%", "")).await;
    (haldane, upstream)
}

/// The request gets this status, and the upstream does not see it.
async fn check_refused(request: &[u8], status: &str) {
    let (haldane, upstream) = scene().await;
    let answer = raw(haldane.addr, request).await;
    assert!(answer.starts_with(&format!("HTTP/1.1 {status}")), "{answer}");
    assert!(answer.to_lowercase().contains("\r\ncontent-length: "), "{answer}");
    assert_eq!(upstream.seen(), 0);
}

#[tokio::test]
async fn a_nul_in_the_path_is_refused() {
    check_refused(b"GET /a%00b HTTP/1.1\r\nhost: a\r\n\r\n", "400").await;
}

#[tokio::test]
async fn a_request_without_a_host_is_refused() {
    check_refused(b"GET / HTTP/1.1\r\n\r\n", "400").await;
}

#[tokio::test]
async fn a_request_with_two_hosts_is_refused() {
    check_refused(b"GET / HTTP/1.1\r\nhost: a\r\nhost: b\r\n\r\n", "400").await;
}

#[tokio::test]
async fn differing_content_lengths_are_refused() {
    let request =
        b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 3\r\ncontent-length: 4\r\n\r\nabcd";
    check_refused(request, "400").await;
}

#[tokio::test]
async fn white_space_before_a_colon_is_refused() {
    check_refused(b"GET / HTTP/1.1\r\nhost : a\r\n\r\n", "400").await;
}

#[tokio::test]
async fn transfer_encoding_on_http_1_0_is_refused() {
    let request = b"POST / HTTP/1.0\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n";
    check_refused(request, "400").await;
}

#[tokio::test]
async fn connect_is_refused() {
    check_refused(b"CONNECT a:443 HTTP/1.1\r\nhost: a:443\r\n\r\n", "405").await;
}

#[tokio::test]
async fn a_header_over_the_limit_is_refused_and_the_answer_can_be_read() {
    let mut request = b"GET / HTTP/1.1\r\nhost: a\r\nx-large: ".to_vec();
    request.resize(request.len() + 300 * 1024, b'a');
    request.extend_from_slice(b"\r\n\r\n");
    check_refused(&request, "431").await;
}

#[tokio::test]
async fn too_many_fields_are_refused() {
    let mut request = b"GET / HTTP/1.1\r\nhost: a\r\n".to_vec();
    for number in 0..150 {
        request.extend_from_slice(format!("x-{number}: 1\r\n").as_bytes());
    }
    request.extend_from_slice(b"\r\n");
    check_refused(&request, "431").await;
}

#[tokio::test]
async fn length_and_chunks_together_are_forwarded_as_chunks_and_the_connection_is_closed() {
    let (haldane, _upstream) = scene().await;
    let mut stream = TcpStream::connect(haldane.addr).await.unwrap();
    let request = b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 3\r\n\
        transfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n";
    stream.write_all(request).await.unwrap();
    let mut answer = Vec::new();
    timeout(PATIENCE, stream.read_to_end(&mut answer)).await.expect("it is closed").unwrap();
    let answer = String::from_utf8(answer).unwrap();
    assert!(answer.contains("transfer-encoding: chunked\n"), "{answer}");
    assert!(!answer.contains("\ncontent-length: 3"), "{answer}");
    assert!(answer.ends_with("hello"), "{answer}");
}

#[tokio::test]
async fn what_no_route_matches_is_answered_with_a_sentence() {
    let upstream = Upstream::text("x").await;
    let yaml = format!(
        "services: {{ shop: {{ baseline: \"{}\" }} }}
routes: [{{ service: shop, match: {{ path_prefix: /cart }} }}]",
        upstream.addr
    );
    let haldane = Haldane::start(&yaml).await;
    let answer = Call::get("/carts").to(haldane.addr).await;
    assert_eq!(answer.status, 404);
    assert_eq!(answer.text(), "haldane: no route matches this request\n");
    assert_eq!(Call::get("/cart/1").to(haldane.addr).await.status, 200);
    assert_eq!(upstream.seen(), 1);
}

#[tokio::test]
async fn a_head_that_takes_too_long_is_answered_408() {
    let upstream = Upstream::text("x").await;
    let yaml = format!(
        "version: 1
listeners: [{{ address: \"127.0.0.1:0\", limits: {{ header_timeout: 300ms }} }}]
admin: {{ address: \"127.0.0.1:0\" }}
state_dir: state
services: {{ shop: {{ baseline: \"{}\" }} }}
routes: [{{ service: shop }}]",
        upstream.addr
    );
    let haldane = Haldane::start(&yaml).await;
    let mut stream = TcpStream::connect(haldane.addr).await.unwrap();
    stream.write_all(b"GET / HTTP/1.1\r\nhost: a\r\n").await.unwrap();
    let mut answer = Vec::new();
    timeout(PATIENCE, stream.read_to_end(&mut answer)).await.expect("it is closed").unwrap();
    let answer = String::from_utf8(answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 408 "), "{answer}");
    assert_eq!(answer.split_once("\r\n\r\n").unwrap().1.len(), 40);
}

#[tokio::test]
async fn a_client_that_is_slow_within_the_limit_is_served() {
    let (haldane, _upstream) = scene().await;
    let mut stream = TcpStream::connect(haldane.addr).await.unwrap();
    for byte in b"GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n" {
        stream.write_all(&[*byte]).await.unwrap();
        sleep(Duration::from_millis(1)).await;
    }
    let mut answer = Vec::new();
    timeout(PATIENCE, stream.read_to_end(&mut answer)).await.unwrap().unwrap();
    assert!(answer.starts_with(b"HTTP/1.1 200 "));
}
