//! gRPC: calls of every kind, deadlines, cancellations, who is blamed, and errors in its own words.

use std::{
    convert::Infallible,
    future::pending,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use haldane::measure::Outcome;
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response};
use http_body_util::{BodyExt, Channel, Full, channel};
use hyper::{
    body::{Body as _, Incoming},
    client::conn::http2::{self, SendRequest},
};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::{
    net::TcpStream,
    time::{Instant, sleep, timeout},
};

use crate::{
    h2::{counted, h2_upstream, speaking_h2},
    harness::{Body, Haldane, PATIENCE, Upstream, eventually, full, nobody, two_arms},
};

type Source = channel::Sender<Bytes, Infallible>;

fn fields(status: &str) -> HeaderMap {
    let status = HeaderValue::try_from(status).unwrap();
    HeaderMap::from_iter([(HeaderName::from_static("grpc-status"), status)])
}

fn answer(body: Body) -> Response<Body> {
    Response::builder().header("content-type", "application/grpc").body(body).unwrap()
}

/// Counts up when it is dropped.
struct Gone(Arc<AtomicU64>);

impl Drop for Gone {
    fn drop(&mut self) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

/// A server of calls by path: `/echo` sends back every piece, `/status/N` one message and a status,
/// `/only/N` a status alone, at once; `/hang` nothing, `/half` a head and nothing more. And how many
/// calls that hang were ended from outside.
async fn server() -> (Upstream, Arc<AtomicU64>) {
    let gone: Arc<AtomicU64> = Arc::default();
    let count = Arc::clone(&gone);
    let upstream = h2_upstream(1000, move |request| {
        let gone = Gone(Arc::clone(&count));
        async move {
            let path = request.uri().path().to_owned();
            match path.split('/').collect::<Vec<_>>()[..] {
                ["", "echo"] => {
                    std::mem::forget(gone);
                    let (source, body) = Channel::new(1);
                    tokio::spawn(echo(request.into_body(), source));
                    answer(Body::new(body))
                }
                ["", "status", status] => {
                    std::mem::forget(gone);
                    let body = request.into_body().collect().await.unwrap().to_bytes();
                    let trailers = fields(status);
                    let body = Full::new(body).with_trailers(async move { Some(Ok(trailers)) });
                    answer(Body::new(body))
                }
                ["", "only", status] => {
                    std::mem::forget(gone);
                    let mut answer = answer(full(""));
                    answer.headers_mut().extend(fields(status));
                    answer
                }
                ["", "half"] => {
                    let (source, body) = Channel::<Bytes, Infallible>::new(1);
                    tokio::spawn(async move {
                        let _gone = gone;
                        let mut rest = request.into_body();
                        while let Some(Ok(_)) = rest.frame().await {}
                        drop(source);
                    });
                    answer(Body::new(body))
                }
                _ => {
                    let _gone = gone;
                    pending().await
                }
            }
        }
    })
    .await;
    (upstream, gone)
}

async fn echo(mut body: Incoming, mut source: Source) {
    while let Some(Ok(frame)) = body.frame().await {
        // Codecs end a connection with many empty pieces.
        if let Ok(data) = frame.into_data()
            && !data.is_empty()
            && source.send_data(data).await.is_err()
        {
            return;
        }
    }
    // The client may be gone.
    let _ = source.send_trailers(fields("0")).await;
}

/// A client's connection.
async fn connect(addr: SocketAddr) -> SendRequest<Channel<Bytes, Infallible>> {
    let stream = TcpStream::connect(addr).await.unwrap();
    stream.set_nodelay(true).unwrap();
    let io = TokioIo::new(stream);
    // With this the client's own codec bears as many small frames as the tests send.
    let (sender, connection) = http2::Builder::new(TokioExecutor::new())
        .initial_connection_window_size(64 << 20)
        .handshake(io)
        .await
        .unwrap();
    tokio::spawn(connection);
    sender
}

type Answered = Result<Response<Incoming>, hyper::Error>;

/// Begins a call with these further fields. Its body stays open.
fn call(
    sender: &mut SendRequest<Channel<Bytes, Infallible>>,
    path: &str,
    more: &[(&str, &str)],
) -> (Source, impl Future<Output = Answered> + Send + 'static) {
    let (source, body) = Channel::new(1);
    let mut request = Request::post(format!("http://shop{path}"))
        .header("content-type", "application/grpc")
        .header("te", "trailers");
    for (name, value) in more {
        request = request.header(*name, *value);
    }
    let answer = sender.send_request(request.body(body).unwrap());
    (source, async move { timeout(PATIENCE, answer).await.unwrap() })
}

/// The rest of an answer: its bytes, and the status in its trailers or its head.
async fn rest(answer: Response<Incoming>) -> (Bytes, Option<String>) {
    let (head, body) = answer.into_parts();
    let body = timeout(PATIENCE, body.collect()).await.unwrap().unwrap();
    let in_head = head.headers.get("grpc-status").cloned();
    let status = body.trailers().and_then(|it| it.get("grpc-status").cloned()).or(in_head);
    (body.to_bytes(), status.map(|it| it.to_str().unwrap().to_owned()))
}

/// One call with one message.
async fn unary(
    sender: &mut SendRequest<Channel<Bytes, Infallible>>,
    path: &str,
    more: &[(&str, &str)],
) -> (Bytes, Option<String>) {
    let (mut source, answer) = call(sender, path, more);
    // What is answered before its message is asked for does not take it.
    let _ = source.send_data(Bytes::from_static(b"hello")).await;
    drop(source);
    let answer = answer.await.unwrap();
    assert_eq!(answer.status(), 200);
    assert_eq!(answer.headers()["content-type"], "application/grpc");
    rest(answer).await
}

fn status(status: &str) -> Option<String> {
    Some(status.to_owned())
}

#[tokio::test]
async fn unary_calls_bring_their_status_which_tells_failures_from_refusals() {
    let (upstream, _) = server().await;
    let haldane = Haldane::start(&speaking_h2(upstream.addr, "")).await;
    let mut client = connect(haldane.addr).await;
    for code in ["0", "5", "14", "4", "2"] {
        let (body, found) = unary(&mut client, &format!("/status/{code}"), &[]).await;
        assert_eq!((&body[..], found), (&b"hello"[..], status(code)));
        let (body, found) = unary(&mut client, &format!("/only/{code}"), &[]).await;
        assert_eq!((body.len(), found), (0, status(code)));
    }
    counted(&haldane, "ok", 4).await;
    counted(&haldane, "failed", 6).await;
}

#[tokio::test]
async fn both_directions_of_a_call_go_on_at_the_same_time() {
    let (upstream, _) = server().await;
    let haldane = Haldane::start(&speaking_h2(upstream.addr, "")).await;
    let mut client = connect(haldane.addr).await;
    let (mut source, answer) = call(&mut client, "/echo", &[]);
    let mut answer = answer.await.unwrap();
    for number in 0..200 {
        let piece = Bytes::from(format!("piece {number}"));
        source.send_data(piece.clone()).await.unwrap();
        let frame = timeout(PATIENCE, answer.frame()).await.unwrap().unwrap().unwrap();
        assert_eq!(frame.into_data().unwrap(), piece);
    }
    drop(source);
    assert_eq!(rest(answer).await, (Bytes::new(), status("0")));
    counted(&haldane, "ok", 1).await;
}

#[tokio::test]
async fn a_status_before_the_end_of_the_request_ends_the_call() {
    let (upstream, _) = server().await;
    let haldane = Haldane::start(&speaking_h2(upstream.addr, "")).await;
    let mut client = connect(haldane.addr).await;
    for _ in 0..10 {
        let (_source, answer) = call(&mut client, "/only/7", &[]);
        assert_eq!(rest(answer.await.unwrap()).await, (Bytes::new(), status("7")));
    }
    assert_eq!(unary(&mut client, "/status/0", &[]).await.1, status("0"));
    counted(&haldane, "ok", 11).await;
    assert_eq!(upstream.connections.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn a_call_without_an_answer_ends_with_the_earlier_of_both_deadlines() {
    let (upstream, gone) = server().await;
    let yaml = speaking_h2(upstream.addr, "").replace("timeout: 5s", "timeout: 600ms");
    let haldane = Haldane::start(&yaml).await;
    let mut client = connect(haldane.addr).await;
    for (header, least) in [("200m", 200), ("60S", 600)] {
        let begun = Instant::now();
        let (_, found) = unary(&mut client, "/hang", &[("grpc-timeout", header)]).await;
        assert_eq!(found, status("4"));
        assert!(begun.elapsed() >= Duration::from_millis(least), "{header}: {:?}", begun.elapsed());
        assert!(begun.elapsed() < Duration::from_millis(least + 5_000));
    }
    counted(&haldane, "hung", 2).await;
    eventually("the upstream is told", async || (gone.load(Ordering::SeqCst) == 2).then_some(()))
        .await;
}

#[tokio::test]
async fn an_answer_that_has_begun_ends_with_the_deadline_of_its_call() {
    let (upstream, gone) = server().await;
    let haldane = Haldane::start(&speaking_h2(upstream.addr, "")).await;
    let mut client = connect(haldane.addr).await;
    let (_, found) = unary(&mut client, "/half", &[("grpc-timeout", "60S")]).await;
    assert_eq!(found, None);
    // Its body is over, so the server ends it; with an open one only the deadline does.
    let (_source, answer) = call(&mut client, "/half", &[("grpc-timeout", "200m")]);
    assert_eq!(rest(answer.await.unwrap()).await, (Bytes::new(), status("4")));
    counted(&haldane, "failed", 1).await;
    eventually("the upstream is told", async || (gone.load(Ordering::SeqCst) == 2).then_some(()))
        .await;
}

#[tokio::test]
async fn a_cancellation_reaches_the_upstream_and_blames_nobody_unless_it_is_the_deadline() {
    let (upstream, gone) = server().await;
    let yaml = speaking_h2(upstream.addr, "").replace("timeout: 5s", "timeout: 60s");
    let haldane = Haldane::start(&yaml).await;
    let mut client = connect(haldane.addr).await;
    let cancelled = async |client: &mut SendRequest<_>, path: &str, header: &str, calls: u64| {
        let (source, answer) = call(client, path, &[("grpc-timeout", header)]);
        let answer = tokio::spawn(answer);
        eventually("the call is there", async || (upstream.seen() == calls).then_some(())).await;
        if header == "5S" {
            // As the client's own clock would have it.
            sleep(Duration::from_millis(4_950)).await;
        }
        answer.abort();
        drop((source, answer));
        eventually("the upstream is told", async || {
            (gone.load(Ordering::SeqCst) == calls).then_some(())
        })
        .await;
    };
    cancelled(&mut client, "/hang", "60S", 1).await;
    counted(&haldane, "aborted", 1).await;
    cancelled(&mut client, "/half", "60S", 2).await;
    counted(&haldane, "aborted", 2).await;
    cancelled(&mut client, "/hang", "5S", 3).await;
    counted(&haldane, "hung", 1).await;
}

#[tokio::test]
async fn a_client_that_streams_for_longer_than_the_timeout_is_not_hung() {
    let (upstream, _) = server().await;
    let yaml = format!(
        "version: 1
listeners: [{{ name: edge, address: \"127.0.0.1:0\", limits: {{ body_timeout: 1s }} }}]
admin: {{ address: \"127.0.0.1:0\" }}
state_dir: state
{}",
        speaking_h2(upstream.addr, "").replace("timeout: 5s", "timeout: 500ms")
    );
    let haldane = Haldane::start(&yaml).await;
    let mut client = connect(haldane.addr).await;
    let (mut source, answer) = call(&mut client, "/status/0", &[]);
    for _ in 0..2 {
        source.send_data(Bytes::from_static(b"piece ")).await.unwrap();
        // Longer than either limit.
        sleep(Duration::from_millis(1_300)).await;
    }
    drop(source);
    let expected = (Bytes::from_static(b"piece piece "), status("0"));
    assert_eq!(rest(answer.await.unwrap()).await, expected);
    let (source, answer) = call(&mut client, "/hang", &[]);
    sleep(Duration::from_millis(700)).await;
    drop(source);
    let answer = answer.await.unwrap();
    assert_eq!(rest(answer).await.1, status("4"));
    counted(&haldane, "ok", 1).await;
    counted(&haldane, "hung", 1).await;
}

#[tokio::test]
async fn what_the_proxy_itself_answers_is_a_status() {
    let yaml = speaking_h2(nobody().await, "").replace(
        "{ name: all, service: shop, timeout: 5s }",
        "{ name: all, service: shop, match: { path_prefix: /shop } }",
    );
    let haldane = Haldane::start(&yaml).await;
    let mut client = connect(haldane.addr).await;
    for (path, code, message) in [
        ("/shop/a", "14", "haldane: no connection to the upstream"),
        ("/other", "12", "haldane: no route matches this request"),
        ("/a%00", "13", "haldane: the path holds %2500"),
    ] {
        let (source, answer) = call(&mut client, path, &[]);
        drop(source);
        let answer = answer.await.unwrap();
        assert_eq!(answer.status(), 200);
        let headers = answer.headers();
        assert_eq!(headers["content-type"], "application/grpc");
        assert_eq!(
            (headers["grpc-status"].to_str().unwrap(), answer.body().is_end_stream()),
            (code, true)
        );
        assert!(headers["grpc-message"].to_str().unwrap().starts_with(message), "{headers:?}");
    }
    counted(&haldane, "failed", 1).await;
}

#[tokio::test]
async fn small_messages_in_a_crowd_are_no_flood() {
    let (upstream, _) = server().await;
    let haldane = Haldane::with_workers(&speaking_h2(upstream.addr, ""), 1).await;
    let mut client = connect(haldane.addr).await;
    let mut calls = Vec::new();
    for _ in 0..6 {
        let (mut source, answer) = call(&mut client, "/echo", &[]);
        calls.push(tokio::spawn(async move {
            for _ in 0..3_000 {
                source.send_data(Bytes::from_static(b"tiny!")).await.unwrap();
            }
        }));
        calls.push(tokio::spawn(async move {
            let (body, found) = rest(answer.await.unwrap()).await;
            assert_eq!((body.len(), found), (15_000, status("0")));
        }));
    }
    for call in calls {
        call.await.unwrap();
    }
    counted(&haldane, "ok", 6).await;
}

/// What the clients have seen.
#[derive(Debug, Default)]
struct Seen {
    ok: AtomicU64,
    failed: AtomicU64,
    hung: AtomicU64,
    aborted: AtomicU64,
}

async fn client(addr: SocketAddr, number: usize, seen: Arc<Seen>, stop: Arc<AtomicBool>) {
    let kinds = ["/status/0", "/status/13", "/only/14", "/echo", "/hang", "/abort", "/half"];
    let mut client = connect(addr).await;
    let mut turn = number;
    while !stop.load(Ordering::SeqCst) {
        turn += 1;
        let path = kinds[turn % kinds.len()];
        let counter = match path {
            "/abort" => {
                let (source, answer) = call(&mut client, "/hang", &[("grpc-timeout", "60S")]);
                // The call is on its way when the answer has been waited for.
                assert!(timeout(Duration::from_millis(50), answer).await.is_err());
                drop(source);
                &seen.aborted
            }
            "/half" => {
                let more = [("grpc-timeout", "60S")];
                let (source, answer) = call(&mut client, path, &more);
                drop(answer.await.unwrap());
                drop(source);
                &seen.aborted
            }
            "/hang" => {
                let (_, found) = unary(&mut client, path, &[("grpc-timeout", "100m")]).await;
                assert_eq!(found, status("4"));
                &seen.hung
            }
            path => {
                let (_, found) = unary(&mut client, path, &[]).await;
                if found == status("0") { &seen.ok } else { &seen.failed }
            }
        };
        counter.fetch_add(1, Ordering::SeqCst);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_add_up_whatever_happens_while_weights_change() {
    let ((one, _), (two, _)) = (server().await, server().await);
    let upstreams = format!(
        "upstreams:
  one: {{ endpoints: [\"{}\"], protocol: h2 }}
  two: {{ endpoints: [\"{}\"], protocol: h2 }}
",
        one.addr, two.addr
    );
    let yaml = two_arms(one.addr, two.addr, "10%", "")
        .replace(&format!("baseline: {}", one.addr), "baseline: one")
        .replace(&format!("upstream: \"{}\"", two.addr), "upstream: two");
    let haldane = Haldane::start(&(upstreams + &yaml)).await;
    let (seen, stop) = (Arc::new(Seen::default()), Arc::new(AtomicBool::new(false)));
    let clients: Vec<_> = (0..16)
        .map(|number| {
            let (seen, stop) = (Arc::clone(&seen), Arc::clone(&stop));
            tokio::spawn(client(haldane.addr, number, seen, stop))
        })
        .collect();
    let end = Instant::now() + Duration::from_secs(3);
    let mut weight = 0;
    while Instant::now() < end {
        weight = (weight + 17) % 100;
        assert_eq!(haldane.set_weight("shop", f64::from(weight)).await.status, 200);
        sleep(Duration::from_millis(100)).await;
    }
    stop.store(true, Ordering::SeqCst);
    for client in clients {
        client.await.unwrap();
    }
    let expected = [
        (Outcome::Ok, seen.ok.load(Ordering::SeqCst)),
        (Outcome::Failed, seen.failed.load(Ordering::SeqCst)),
        (Outcome::Hung, seen.hung.load(Ordering::SeqCst)),
        (Outcome::Aborted, seen.aborted.load(Ordering::SeqCst)),
        (Outcome::Local, 0),
    ];
    eventually(&format!("the counts of the clients: {expected:?}"), async || {
        let snapshot = haldane.handle().snapshot();
        let mut sums = [0; 5];
        for recorder in &snapshot.recorders {
            let totals = &recorder.totals;
            let ended: u64 = Outcome::ALL.iter().map(|it| totals.ended(*it)).sum();
            assert_eq!(totals.started, ended + totals.in_flight());
            for (sum, outcome) in sums.iter_mut().zip(Outcome::ALL) {
                *sum += totals.ended(outcome);
            }
        }
        (sums == expected.map(|(_, count)| count)).then_some(())
    })
    .await;
    assert!(expected.iter().take(4).all(|(_, count)| *count > 10), "{expected:?}");
}
