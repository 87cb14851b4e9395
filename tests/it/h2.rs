//! HTTP/2 to upstreams: what they get, how many connections, and what happens when they let go.

use std::{
    convert::Infallible,
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU32, AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use h2::{RecvStream, server::SendResponse};
use http::{HeaderMap, Request, Response};
use http_body_util::{BodyExt, Channel, Full};
use hyper::{body::Incoming, client, server, service::service_fn};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::watch,
    time::{sleep, timeout},
};

use crate::harness::{
    Body, Call, Connection, Haldane, PATIENCE, Upstream, eventually, full, one_arm,
};

/// An upstream that speaks HTTP/2 in the clear and takes `streams` requests at once on each
/// connection.
pub(crate) async fn h2_upstream<F, Fut>(streams: u32, answer: F) -> Upstream
where
    F: Fn(Request<Incoming>) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Response<Body>> + Send + 'static,
{
    let answer = Arc::new(answer);
    let requests: Arc<AtomicU64> = Arc::default();
    let count = Arc::clone(&requests);
    let mut upstream = Upstream::raw(move |stream| {
        let (answer, count) = (Arc::clone(&answer), Arc::clone(&count));
        async move {
            stream.set_nodelay(true).unwrap();
            let service = service_fn(move |request| {
                count.fetch_add(1, Ordering::SeqCst);
                let answer = answer(request);
                async move { Ok::<_, Infallible>(answer.await) }
            });
            // Proxies may cut connections as they like.
            let _ = server::conn::http2::Builder::new(TokioExecutor::new())
                .max_concurrent_streams(streams)
                // The codec ends connections with many small frames that it has not read yet, by
                // a measure that grows with this.
                .initial_connection_window_size(64 << 20)
                .serve_connection(TokioIo::new(stream), service)
                .await;
        }
    })
    .await;
    upstream.requests = requests;
    upstream
}

/// One service on an upstream with these further keys.
pub(crate) fn speaking_h2(upstream: SocketAddr, more: &str) -> String {
    format!(
        "upstreams: {{ one: {{ endpoints: [\"{upstream}\"], protocol: h2{more} }} }}
services: {{ shop: {{ baseline: one }} }}
routes: [{{ name: all, service: shop, timeout: 5s }}]
"
    )
}

/// Waits until the proxy has counted this many requests with this outcome.
pub(crate) async fn counted(haldane: &Haldane, outcome: &str, count: u64) {
    let series = format!(
        "haldane_requests_total{{route=\"all\",cohort=\"default\",arm=\"baseline\",outcome=\"{outcome}\"}} {count}\n"
    );
    eventually(&series, async || haldane.metrics().await.contains(&series).then_some(())).await;
}

/// A description of a request: version, line, fields, body, trailers.
async fn describe(request: Request<Incoming>) -> Response<Body> {
    let (parts, body) = request.into_parts();
    let mut text = format!("{:?} {} {}\n", parts.version, parts.method, parts.uri);
    let line = |name: &http::HeaderName, value: &http::HeaderValue| {
        format!("{name}: {}\n", value.to_str().unwrap())
    };
    parts.headers.iter().for_each(|(name, value)| text += &line(name, value));
    let body = body.collect().await.unwrap();
    let trailers = body.trailers().cloned().unwrap_or_default();
    text += "\n";
    text += std::str::from_utf8(&body.to_bytes()).unwrap();
    trailers.iter().for_each(|(name, value)| text += &line(name, value));
    Response::new(full(text))
}

#[tokio::test]
async fn an_http1_request_arrives_as_http2_has_it() {
    let upstream = h2_upstream(100, describe).await;
    let haldane = Haldane::start(&speaking_h2(upstream.addr, "")).await;
    let call = Call::get("/a?b=1")
        .header("host", "shop.example:81")
        .header("connection", "x-hop")
        .header("x-hop", "1")
        .header("te", "trailers, gzip")
        .header("cookie", "a=1; b=2");
    let answer = call.to(haldane.addr).await;
    let text = answer.text();
    assert!(text.starts_with("HTTP/2.0 GET http://shop.example:81/a?b=1\n"), "{text}");
    for line in ["te: trailers\n", "cookie: a=1; b=2\n", "via: 1.1 haldane\n"] {
        assert!(text.contains(line), "{line} in {text}");
    }
    for name in ["\nhost:", "connection:", "x-hop:", "transfer-encoding:"] {
        assert!(!text.contains(name), "{name} in {text}");
    }
    assert_eq!(answer.header("transfer-encoding"), None);
}

#[tokio::test]
async fn an_http2_request_arrives_with_its_cookie_in_one_piece() {
    let upstream = h2_upstream(100, describe).await;
    let haldane = Haldane::start(&speaking_h2(upstream.addr, "")).await;
    let call = Call::post("/").h2().header("cookie", "a=1").header("cookie", "b=2").body("hello");
    let text = call.to(haldane.addr).await.text();
    assert!(text.starts_with(&format!("HTTP/2.0 POST http://{}/\n", haldane.addr)), "{text}");
    assert!(text.contains("cookie: a=1; b=2\n") && text.contains("via: 2 haldane\n"), "{text}");
    assert!(text.ends_with("\n\nhello"), "{text}");
}

#[tokio::test]
async fn a_chunked_upload_arrives_whole_with_its_trailers() {
    let upstream = h2_upstream(100, describe).await;
    let haldane = Haldane::start(&speaking_h2(upstream.addr, "")).await;
    let request = b"POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\
        trailer: x-sum\r\nconnection: close\r\n\r\n3\r\none\r\n4\r\n two\r\n0\r\nx-sum: 7\r\n\r\n";
    let answer = crate::harness::raw(haldane.addr, request).await;
    assert!(answer.contains("one two") && answer.ends_with("x-sum: 7\n"), "{answer}");
    assert!(!answer.contains("transfer-encoding: chunked\ntransfer"), "{answer}");
}

#[tokio::test]
async fn an_http2_answer_reaches_an_http1_client() {
    let upstream = h2_upstream(100, |request| async move {
        let empty = request.uri().path() == "/empty";
        let status = if empty { 204 } else { 200 };
        let body = if empty { full("") } else { full("x".repeat(100_000)) };
        Response::builder().status(status).header("x-from", "h2").body(body).unwrap()
    })
    .await;
    let haldane = Haldane::start(&speaking_h2(upstream.addr, "")).await;
    let mut connection = Connection::open(haldane.addr, false).await.unwrap();
    for _ in 0..3 {
        let answer = connection.call(Call::get("/")).await.unwrap();
        assert_eq!((answer.header("x-from"), answer.body.len()), (Some("h2"), 100_000));
        let answer = connection.call(Call::get("/empty")).await.unwrap();
        assert_eq!((answer.status.as_u16(), answer.body.len()), (204, 0));
    }
    assert_eq!(upstream.connections.load(Ordering::SeqCst), 1);
    counted(&haldane, "ok", 6).await;
}

/// An upstream that answers when it is told to, and how many requests it has.
async fn waiting_upstream(streams: u32) -> (Upstream, watch::Sender<bool>) {
    let (release, released) = watch::channel(false);
    let upstream = h2_upstream(streams, move |_| {
        let mut released = released.clone();
        async move {
            // The test may be over.
            let _ = released.wait_for(|released| *released).await;
            Response::new(full("x"))
        }
    })
    .await;
    (upstream, release)
}

/// Makes `calls` requests at once and says how many connections they took.
async fn connections_for(calls: usize, at_once: u32, more: &str) -> u64 {
    let (upstream, release) = waiting_upstream(at_once).await;
    let haldane = Haldane::with_workers(&speaking_h2(upstream.addr, more), 1).await;
    let calls: Vec<_> = (0..calls).map(|_| tokio::spawn(Call::get("/").to(haldane.addr))).collect();
    let all = calls.len() as u64;
    eventually("all requests are there", async || (upstream.seen() == all).then_some(())).await;
    let connections = upstream.connections.load(Ordering::SeqCst);
    release.send_replace(true);
    for call in calls {
        assert_eq!(call.await.unwrap().status, 200);
    }
    connections
}

#[tokio::test]
async fn requests_share_connections_up_to_what_the_upstream_or_the_configuration_allows() {
    assert_eq!(connections_for(40, 1000, "").await, 1);
    assert_eq!(connections_for(40, 10, "").await, 4);
    assert_eq!(connections_for(40, 1000, ", h2: { streams: 8 }").await, 5);
}

#[tokio::test]
async fn requests_beyond_the_last_connection_wait_their_turn() {
    let upstream = h2_upstream(2, |_| async {
        sleep(Duration::from_millis(10)).await;
        Response::new(full("x"))
    })
    .await;
    let yaml = speaking_h2(upstream.addr, ", pool: { max: 2 }");
    let haldane = Haldane::with_workers(&yaml, 1).await;
    let calls: Vec<_> = (0..40).map(|_| tokio::spawn(Call::get("/").to(haldane.addr))).collect();
    for call in calls {
        assert_eq!(call.await.unwrap().status, 200);
    }
    assert!(upstream.connections.load(Ordering::SeqCst) <= 2);
}

#[tokio::test]
async fn metrics_tell_shared_connections_in_use_from_idle_ones() {
    let (upstream, release) = waiting_upstream(100).await;
    let yaml = speaking_h2(upstream.addr, ", warmup: { connections: 2, period: 1s }");
    let haldane = Haldane::with_workers(&yaml, 1).await;
    let counts = async |idle: u32, in_use: u32| {
        let series =
            [("idle", idle), ("in_use", in_use), ("connecting", 0)].map(|(state, count)| {
                format!(
                    "haldane_upstream_connections{{upstream=\"one\",state=\"{state}\"}} {count}\n"
                )
            });
        eventually(&series.concat(), async || {
            let metrics = haldane.metrics().await;
            series.iter().all(|series| metrics.contains(series)).then_some(())
        })
        .await;
    };
    counts(2, 0).await;
    let calls: Vec<_> = (0..3).map(|_| tokio::spawn(Call::get("/").to(haldane.addr))).collect();
    counts(0, 2).await;
    release.send_replace(true);
    for call in calls {
        assert_eq!(call.await.unwrap().status, 200);
    }
    counts(2, 0).await;
    assert_eq!(upstream.connections.load(Ordering::SeqCst), 2);
}

/// An upstream that handles each request of each connection by hand: the number of the connection
/// and of the request on it are given.
async fn by_hand<F, Fut>(serve: F) -> Upstream
where
    F: Fn(u32, u32, Request<RecvStream>, SendResponse<Bytes>) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = ()> + Send + 'static,
{
    let serve = Arc::new(serve);
    let connections = Arc::new(AtomicU32::new(0));
    Upstream::raw(move |stream| {
        let serve = Arc::clone(&serve);
        let connection = connections.fetch_add(1, Ordering::SeqCst);
        async move {
            let mut accepting = h2::server::handshake(stream).await.unwrap();
            let mut number = 0;
            while let Some(Ok((request, respond))) = accepting.accept().await {
                tokio::spawn(serve(connection, number, request, respond));
                number += 1;
            }
        }
    })
    .await
}

/// Answers 200 with the request's body.
async fn repeat(request: Request<RecvStream>, mut respond: SendResponse<Bytes>) {
    let mut body = request.into_body();
    let mut all = Vec::new();
    while let Some(Ok(data)) = body.data().await {
        body.flow_control().release_capacity(data.len()).unwrap();
        all.extend_from_slice(&data);
    }
    let mut stream = respond.send_response(Response::new(()), false).unwrap();
    stream.send_data(all.into(), true).unwrap();
}

#[tokio::test]
async fn a_request_that_the_upstream_refuses_is_sent_again_with_its_body() {
    let upstream = by_hand(|_, number, request, mut respond| async move {
        if number % 2 == 0 {
            // What was sent of the body is lost here.
            respond.send_reset(h2::Reason::REFUSED_STREAM);
        } else {
            repeat(request, respond).await;
        }
    })
    .await;
    let haldane = Haldane::with_workers(&speaking_h2(upstream.addr, ""), 1).await;
    for h2 in [false, true] {
        let mut connection = Connection::open(haldane.addr, h2).await.unwrap();
        for length in [0, 1, 1000, 60_000] {
            let body = "y".repeat(length);
            let call = if h2 { Call::post("/").h2() } else { Call::post("/") };
            let answer = connection.call(call.body(body.clone())).await.unwrap();
            assert_eq!((answer.status.as_u16(), answer.text()), (200, body));
        }
    }
    counted(&haldane, "ok", 8).await;
}

#[tokio::test]
async fn a_request_that_is_refused_again_and_again_fails() {
    let upstream =
        by_hand(
            |_, _, _, mut respond| async move { respond.send_reset(h2::Reason::REFUSED_STREAM) },
        )
        .await;
    let haldane = Haldane::start(&speaking_h2(upstream.addr, "")).await;
    assert_eq!(Call::get("/").to(haldane.addr).await.status, 502);
    counted(&haldane, "failed", 1).await;
}

#[tokio::test]
async fn a_request_that_the_upstream_may_have_taken_is_not_sent_again() {
    let taken = Arc::new(AtomicU32::new(0));
    let count = Arc::clone(&taken);
    let upstream = by_hand(move |_, _, _, mut respond| {
        count.fetch_add(1, Ordering::SeqCst);
        async move { respond.send_reset(h2::Reason::INTERNAL_ERROR) }
    })
    .await;
    let haldane = Haldane::start(&speaking_h2(upstream.addr, "")).await;
    assert_eq!(Call::get("/").to(haldane.addr).await.status, 502);
    assert_eq!(taken.load(Ordering::SeqCst), 1);
    counted(&haldane, "failed", 1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_goodbye_under_load_loses_no_request_and_repeats_none() {
    const CLIENTS: usize = 12;
    const EACH: usize = 60;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    let taken: Arc<Mutex<Vec<String>>> = Arc::default();
    let log = Arc::clone(&taken);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let log = Arc::clone(&log);
            tokio::spawn(async move {
                let Ok(mut accepting) = h2::server::handshake(stream).await else { return };
                let mut number = 0;
                while let Some(Ok((request, respond))) = accepting.accept().await {
                    log.lock().unwrap().push(request.uri().path().to_owned());
                    number += 1;
                    if number == 25 {
                        accepting.graceful_shutdown();
                    }
                    tokio::spawn(repeat(request, respond));
                }
            });
        }
    });
    let haldane = Haldane::start(&speaking_h2(addr, "")).await;
    let clients: Vec<_> = (0..CLIENTS)
        .map(|client| {
            let addr = haldane.addr;
            tokio::spawn(async move {
                let h2 = client % 2 == 0;
                let mut connection = Connection::open(addr, h2).await.unwrap();
                for number in 0..EACH {
                    let call = Call::post(&format!("/{client}/{number}")).body("hello");
                    let call = if h2 { call.h2() } else { call };
                    let answer = connection.call(call).await.unwrap();
                    assert_eq!((answer.status.as_u16(), &*answer.body), (200, &b"hello"[..]));
                }
            })
        })
        .collect();
    for client in clients {
        client.await.unwrap();
    }
    let mut taken = taken.lock().unwrap().clone();
    taken.sort_unstable();
    let all = taken.len();
    taken.dedup();
    assert_eq!((taken.len(), all), (CLIENTS * EACH, CLIENTS * EACH));
    counted(&haldane, "ok", (CLIENTS * EACH) as u64).await;
}

/// Reads a frame: its type and its stream; none at the end.
async fn frame(stream: &mut TcpStream) -> Option<(u8, u32)> {
    let mut head = [0; 9];
    stream.read_exact(&mut head).await.ok()?;
    let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
    let mut rest = vec![0; length as usize];
    stream.read_exact(&mut rest).await.ok()?;
    Some((head[3], u32::from_be_bytes([head[5], head[6], head[7], head[8]])))
}

/// Writes these frames when the first request of a connection has come, and none after them.
async fn answer_once(stream: &mut TcpStream, frames: &[&[u8]]) -> Option<()> {
    const SETTINGS: &[u8] = &[0, 0, 0, 4, 0, 0, 0, 0, 0];
    let mut preface = [0; 24];
    stream.read_exact(&mut preface).await.ok()?;
    stream.write_all(SETTINGS).await.ok()?;
    while frame(stream).await? != (1, 1) {}
    stream.write_all(&frames.concat()).await.ok()?;
    while frame(stream).await.is_some() {}
    Some(())
}

/// An upstream whose every connection answers once.
async fn once(frames: &'static [&'static [u8]]) -> Upstream {
    Upstream::raw(move |mut stream| async move {
        // The proxy may cut the connection at any point.
        let _ = answer_once(&mut stream, frames).await;
    })
    .await
}

#[tokio::test]
async fn what_a_goodbye_leaves_out_is_sent_on_another_connection() {
    // The first stream was taken, and no other.
    const GOODBYE: &[u8] = &[0, 0, 8, 7, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0];
    // END_STREAM and END_HEADERS; `:status: 200` of the static table.
    const OK: &[u8] = &[0, 0, 1, 1, 5, 0, 0, 0, 1, 0x88];
    let upstream = once(&[GOODBYE, OK]).await;
    let haldane = Haldane::with_workers(&speaking_h2(upstream.addr, ""), 1).await;
    let calls: Vec<_> =
        (0..5).map(|_| tokio::spawn(Call::post("/").body("hello").to(haldane.addr))).collect();
    for call in calls {
        assert_eq!(call.await.unwrap().status, 200);
    }
    assert_eq!(upstream.connections.load(Ordering::SeqCst), 5);
    counted(&haldane, "ok", 5).await;
}

#[tokio::test]
async fn a_peer_that_is_silent_is_pinged_and_given_up() {
    let upstream = Upstream::raw(|mut stream| async move {
        // Settings, and then nothing more.
        stream.write_all(&[0, 0, 0, 4, 0, 0, 0, 0, 0]).await.unwrap();
        std::future::pending::<()>().await;
    })
    .await;
    let yaml = speaking_h2(upstream.addr, ", h2: { ping_interval: 1s, ping_timeout: 1s }");
    let haldane = Haldane::start(&yaml.replace("timeout: 5s", "timeout: 60s")).await;
    let answer = Call::get("/").to(haldane.addr).await;
    assert_eq!(
        (answer.status.as_u16(), answer.text().as_str()),
        (502, "haldane: the upstream broke off\n")
    );
    counted(&haldane, "failed", 1).await;
}

#[tokio::test]
async fn an_upstream_that_does_not_speak_http2_is_a_502() {
    let upstream = Upstream::text("x").await;
    let haldane = Haldane::start(&speaking_h2(upstream.addr, "")).await;
    let calls: Vec<_> = (0..5).map(|_| tokio::spawn(Call::get("/").to(haldane.addr))).collect();
    for call in calls {
        let answer = call.await.unwrap();
        assert_eq!(
            (answer.status.as_u16(), answer.text().as_str()),
            (502, "haldane: no connection to the upstream\n")
        );
    }
    counted(&haldane, "failed", 5).await;
}

#[tokio::test]
async fn a_client_that_gives_up_frees_its_stream_at_once() {
    let reset: Arc<Mutex<Option<h2::Reason>>> = Arc::default();
    let seen = Arc::clone(&reset);
    let hanging = Arc::new(AtomicU32::new(0));
    let hangs = Arc::clone(&hanging);
    let upstream = by_hand(move |_, _, request, mut respond| {
        let (seen, hangs) = (Arc::clone(&seen), Arc::clone(&hangs));
        async move {
            if request.uri().path() == "/hang" {
                hangs.fetch_add(1, Ordering::SeqCst);
                let reason = std::future::poll_fn(|cx| respond.poll_reset(cx)).await;
                *seen.lock().unwrap() = reason.ok();
            } else {
                repeat(request, respond).await;
            }
        }
    })
    .await;
    let yaml = speaking_h2(upstream.addr, ", pool: { max: 1 }, h2: { streams: 1 }");
    let haldane = Haldane::with_workers(&yaml, 1).await;
    let mut stream = TcpStream::connect(haldane.addr).await.unwrap();
    stream.write_all(b"GET /hang HTTP/1.1\r\nhost: a\r\n\r\n").await.unwrap();
    eventually("the request is there", async || {
        (hanging.load(Ordering::SeqCst) == 1).then_some(())
    })
    .await;
    let next = tokio::spawn(Call::get("/").to(haldane.addr));
    drop(stream);
    assert_eq!(next.await.unwrap().status, 200);
    eventually("the reset", async || *reset.lock().unwrap()).await;
    assert_eq!(*reset.lock().unwrap(), Some(h2::Reason::CANCEL));
    assert_eq!(upstream.connections.load(Ordering::SeqCst), 1);
    counted(&haldane, "aborted", 1).await;
}

#[tokio::test]
async fn an_answer_before_the_end_of_the_request_ends_the_exchange() {
    let upstream = by_hand(|_, _, _request, mut respond| async move {
        let answer = Response::builder().status(403).body(()).unwrap();
        let mut stream = respond.send_response(answer, false).unwrap();
        stream.send_data(Bytes::from_static(b"no"), true).unwrap();
    })
    .await;
    let haldane = Haldane::with_workers(&speaking_h2(upstream.addr, ""), 1).await;
    let stream = TcpStream::connect(haldane.addr).await.unwrap();
    let (mut sender, connection) =
        client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    for _ in 0..3 {
        let (mut source, body) = Channel::<Bytes, Infallible>::new(1);
        source.send_data(Bytes::from_static(b"first")).await.unwrap();
        let uri = format!("http://{}/", haldane.addr);
        let request = Request::post(uri).body(body).unwrap();
        let answer = timeout(PATIENCE, sender.send_request(request)).await.unwrap().unwrap();
        assert_eq!(answer.status(), 403);
        let body = timeout(PATIENCE, answer.into_body().collect()).await.unwrap().unwrap();
        assert_eq!(body.to_bytes(), "no");
        drop(source);
    }
    counted(&haldane, "ok", 3).await;
    assert_eq!(upstream.connections.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn an_answer_that_is_reset_half_way_counts_as_failed() {
    const HEAD: &[u8] = &[0, 0, 1, 1, 4, 0, 0, 0, 1, 0x88];
    const HALF: &[u8] = &[0, 0, 4, 0, 0, 0, 0, 0, 1, b'h', b'a', b'l', b'f'];
    // NO_ERROR: a client may take it for the end.
    const RESET: &[u8] = &[0, 0, 4, 3, 0, 0, 0, 0, 1, 0, 0, 0, 0];
    let upstream = once(&[HEAD, HALF, RESET]).await;
    for h2 in [false, true] {
        let haldane = Haldane::start(&speaking_h2(upstream.addr, "")).await;
        let call = if h2 { Call::get("/").h2() } else { Call::get("/") };
        assert!(call.try_to(haldane.addr).await.is_err(), "h2: {h2}");
        counted(&haldane, "failed", 1).await;
    }
}

#[tokio::test]
async fn large_bodies_pass_and_a_slow_client_holds_up_nobody() {
    const LARGE: usize = 4 << 20;
    let upstream = h2_upstream(100, |request| async move {
        let length = request.into_body().collect().await.unwrap().to_bytes().len();
        Response::new(full(vec![b'x'; length.max(LARGE)]))
    })
    .await;
    let yaml = speaking_h2(upstream.addr, ", h2: { streams: 8 }, pool: { max: 1 }");
    let haldane = Haldane::with_workers(&yaml, 1).await;
    let mut slow = Vec::new();
    for _ in 0..7 {
        let stream = TcpStream::connect(haldane.addr).await.unwrap();
        let (mut sender, connection) = client::conn::http2::Builder::new(TokioExecutor::new())
            .initial_stream_window_size(1000)
            .handshake(TokioIo::new(stream))
            .await
            .unwrap();
        tokio::spawn(connection);
        let uri = format!("http://{}/", haldane.addr);
        let request = Request::get(uri).body(Full::<Bytes>::default()).unwrap();
        // Takes the head and nothing of the body.
        slow.push(timeout(PATIENCE, sender.send_request(request)).await.unwrap().unwrap());
    }
    for _ in 0..3 {
        let answer = Call::post("/").body(vec![b'y'; 2 * LARGE]).to(haldane.addr).await;
        assert_eq!((answer.status.as_u16(), answer.body.len()), (200, 2 * LARGE));
    }
    drop(slow);
    counted(&haldane, "aborted", 7).await;
}

#[tokio::test]
async fn trailers_of_an_answer_reach_an_http2_client() {
    let upstream = h2_upstream(100, |_| async {
        let trailers = HeaderMap::from_iter([(
            http::HeaderName::from_static("x-sum"),
            http::HeaderValue::from_static("7"),
        )]);
        let body = Full::new(Bytes::from_static(b"data"));
        let body = body.with_trailers(async move { Some(Ok(trailers)) });
        Response::new(Body::new(body))
    })
    .await;
    let haldane = Haldane::start(&speaking_h2(upstream.addr, "")).await;
    let stream = TcpStream::connect(haldane.addr).await.unwrap();
    let (mut sender, connection) =
        client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    let uri = format!("http://{}/", haldane.addr);
    let request = Request::get(uri).body(Full::<Bytes>::default()).unwrap();
    let answer = timeout(PATIENCE, sender.send_request(request)).await.unwrap().unwrap();
    let body = timeout(PATIENCE, answer.into_body().collect()).await.unwrap().unwrap();
    assert_eq!(body.trailers().unwrap()["x-sum"], "7");
    assert_eq!(body.to_bytes(), "data");
}

#[tokio::test]
async fn http1_stays_the_protocol_of_an_upstream_in_the_clear() {
    let upstream = Upstream::echo().await;
    let haldane = Haldane::start(&one_arm(upstream.addr)).await;
    assert!(Call::get("/").to(haldane.addr).await.text().contains("host: "));
}
