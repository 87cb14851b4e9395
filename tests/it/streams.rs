//! Streams in flight while weights change: they end where they began, and count there.

use std::{convert::Infallible, sync::Arc};

use bytes::Bytes;
use haldane::measure::{Kind, Outcome, RecorderId};
use http::Response;
use http_body_util::{BodyExt, Channel, Full, channel};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::{net::TcpStream, sync::Mutex, time::timeout};

use crate::{
    harness::{Body, Call, PATIENCE, Upstream},
    plane::Plane,
};

const CHANGES: u16 = 100;

fn plane(baseline: &Upstream, canary: &Upstream) -> Plane {
    let yaml = format!(
        "services:
  shop:
    baseline: {}
    canaries: {{ v2: {{ upstream: \"{}\", version: \"2\" }} }}
routes: [{{ service: shop, timeout: 2s }}]",
        baseline.addr, canary.addr
    );
    Plane::start(&yaml, 10_000, 1)
}

/// A client's connection that does not read its answers to the end by itself.
async fn open<B>(plane: &Plane) -> http1::SendRequest<B>
where
    B: http_body::Body<Data = Bytes, Error: std::error::Error + Send + Sync> + Send + 'static,
{
    let stream = TcpStream::connect(plane.addr).await.unwrap();
    let (sender, connection) = http1::handshake(TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    sender
}

/// Weights from 0 to 99 %, none of them the one before.
fn weights() -> impl Iterator<Item = u16> {
    (0..CHANGES).map(|turn| turn * 37 % 100 * 100)
}

/// The one request counted for the canary under the weights that it came under.
async fn check_counted(plane: &mut Plane) {
    plane.until("the end", |plane| plane.ended(1, false).first().copied()).await;
    assert_eq!(plane.ended(1, false), [Outcome::Ok]);
    let of_canary = plane.events.iter().filter(|event| event.recorder == RecorderId(1));
    assert!(of_canary.clone().all(|event| event.epoch().number() == 1));
    assert_eq!(of_canary.filter(|event| event.kind() == Kind::Assigned).count(), 1);
}

#[tokio::test]
async fn an_answer_that_streams_survives_a_hundred_changes_of_weight() {
    type Source = channel::Sender<Bytes, Infallible>;
    let sources: Arc<Mutex<Vec<Source>>> = Arc::default();
    let opened = Arc::clone(&sources);
    let canary = Upstream::start(move |_| {
        let opened = Arc::clone(&opened);
        async move {
            let (source, body) = Channel::new(1);
            opened.lock().await.push(source);
            Response::new(Body::new(body))
        }
    })
    .await;
    let baseline = Upstream::text("baseline").await;
    let mut plane = plane(&baseline, &canary);
    let mut sender = open(&plane).await;
    let request = http::Request::get("/").header("host", "a").body(Full::<Bytes>::default());
    let mut answer =
        timeout(PATIENCE, sender.send_request(request.unwrap())).await.unwrap().unwrap();
    let mut source = sources.lock().await.pop().unwrap();
    for (turn, weight_bp) in weights().enumerate() {
        plane.weigh(weight_bp);
        // Others go by the new weights meanwhile.
        if weight_bp == 0 {
            assert_eq!(Call::get("/").to(plane.addr).await.text(), "baseline");
        }
        let sent = Bytes::from(format!("piece {turn}"));
        source.send_data(sent.clone()).await.unwrap();
        let frame = timeout(PATIENCE, answer.frame()).await.unwrap().unwrap().unwrap();
        assert_eq!(frame.into_data().unwrap(), sent);
    }
    drop(source);
    assert!(timeout(PATIENCE, answer.frame()).await.unwrap().is_none());
    check_counted(&mut plane).await;
}

#[tokio::test]
async fn an_upload_survives_a_hundred_changes_of_weight() {
    let (baseline, canary) = (Upstream::text("baseline").await, Upstream::echo().await);
    let mut plane = plane(&baseline, &canary);
    let mut sender = open(&plane).await;
    let (mut source, body) = Channel::<Bytes, Infallible>::new(1);
    let request = http::Request::post("/").header("host", "a").body(body).unwrap();
    let answer = tokio::spawn(async move { sender.send_request(request).await });
    source.send_data(Bytes::from_static(b"first ")).await.unwrap();
    plane.until("the assignment", |plane| (!plane.events.is_empty()).then_some(())).await;
    for weight_bp in weights() {
        plane.weigh(weight_bp);
        source.send_data(Bytes::from_static(b"piece ")).await.unwrap();
    }
    drop(source);
    let answer = timeout(PATIENCE, answer).await.unwrap().unwrap().unwrap();
    let text = answer.into_body().collect().await.unwrap().to_bytes();
    assert!(text.ends_with("piece ".repeat(CHANGES.into()).as_bytes()));
    check_counted(&mut plane).await;
}
