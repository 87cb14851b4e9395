//! Counting: whatever happens to requests, the counts add up.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use haldane::measure::Outcome;
use http::Response;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::{Instant, sleep, timeout},
};

use crate::harness::{Call, Connection, Haldane, Upstream, eventually, full, two_arms};

/// An upstream that answers, fails, hangs, resets or truncates, as the path says.
async fn moody() -> Upstream {
    Upstream::raw(|mut stream| async move {
        let mut seen = Vec::new();
        let mut chunk = [0; 4096];
        loop {
            while !seen.windows(4).any(|it| it == b"\r\n\r\n") {
                match stream.read(&mut chunk).await {
                    Ok(count @ 1..) => seen.extend_from_slice(&chunk[..count]),
                    Ok(0) | Err(_) => return,
                }
            }
            let answer: &[u8] = match &seen[..seen.len().min(8)] {
                [b'G', b'E', b'T', b' ', b'/', b'o', ..] => {
                    b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"
                }
                [b'G', b'E', b'T', b' ', b'/', b'f', ..] => {
                    b"HTTP/1.1 500 Oh\r\ncontent-length: 2\r\n\r\nno"
                }
                [b'G', b'E', b'T', b' ', b'/', b't', ..] => {
                    let half = b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nhalf";
                    // The proxy may be gone with the client.
                    let _ = stream.write_all(half).await;
                    return;
                }
                [b'G', b'E', b'T', b' ', b'/', b'h', ..] => {
                    while matches!(stream.read(&mut chunk).await, Ok(1..)) {}
                    return;
                }
                _ => return,
            };
            seen.clear();
            if stream.write_all(answer).await.is_err() {
                return;
            }
        }
    })
    .await
}

/// What the clients have seen.
#[derive(Debug, Default)]
struct Seen {
    ok: AtomicU64,
    failed: AtomicU64,
    hung: AtomicU64,
    aborted: AtomicU64,
}

async fn client(addr: std::net::SocketAddr, number: u64, seen: Arc<Seen>, stop: Arc<AtomicBool>) {
    let kinds =
        ["/ok", "/ok", "/ok", "/fail", "/ok", "/truncate", "/ok", "/reset", "/hang", "/abort"];
    let mut turn = number;
    while !stop.load(Ordering::SeqCst) {
        turn += 1;
        let path = kinds[usize::try_from(turn).unwrap() % kinds.len()];
        if path == "/abort" {
            abort(addr).await;
            seen.aborted.fetch_add(1, Ordering::SeqCst);
            continue;
        }
        let counter = match Call::get(path).try_to(addr).await {
            Ok(answer) => match answer.status.as_u16() {
                200 => &seen.ok,
                500 | 502 => &seen.failed,
                504 => &seen.hung,
                other => panic!("{path} was answered {other}"),
            },
            Err(_) => &seen.failed,
        };
        counter.fetch_add(1, Ordering::SeqCst);
    }
}

/// Sends a request that hangs, and goes away when it has certainly been assigned.
async fn abort(addr: std::net::SocketAddr) {
    let mut stream = TcpStream::connect(addr).await.unwrap();
    stream.write_all(b"GET /hang HTTP/1.1\r\nhost: a\r\n\r\n").await.unwrap();
    let mut byte = [0];
    // Nothing comes: the timeout of the route is longer.
    assert!(timeout(Duration::from_millis(100), stream.read(&mut byte)).await.is_err());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn counts_add_up_whatever_happens_while_weights_change() {
    let (one, two) = (moody().await, moody().await);
    let yaml = two_arms(one.addr, two.addr, "10%", "").replace("timeout: 2s", "timeout: 500ms");
    let haldane = Haldane::start(&yaml).await;
    let (seen, stop) = (Arc::new(Seen::default()), Arc::new(AtomicBool::new(false)));
    let clients: Vec<_> = (0..16)
        .map(|number| {
            let (seen, stop) = (Arc::clone(&seen), Arc::clone(&stop));
            tokio::spawn(client(haldane.addr, number, seen, stop))
        })
        .collect();
    let end = Instant::now() + Duration::from_secs(4);
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

#[tokio::test]
async fn forced_requests_are_shown_and_left_out_of_the_actual_weight() {
    let upstream = Upstream::start(|_| async { Response::new(full("x")) }).await;
    let more = "    override: { header: x-arm, from: [127.0.0.0/8] }";
    let haldane = Haldane::start(&two_arms(upstream.addr, upstream.addr, "1%", more)).await;
    assert_eq!(haldane.set_weight("shop", 0.0).await.status, 200);
    let mut connection = Connection::open(haldane.addr, false).await.unwrap();
    for _ in 0..10 {
        connection.call(Call::get("/").header("x-arm", "v2")).await.unwrap();
        connection.call(Call::get("/")).await.unwrap();
    }
    eventually("both arms show their requests", async || {
        let status = haldane.status().await;
        let rollout = &status["rollouts"][0];
        let requests: Vec<_> = rollout["routes"][0]["arms"]
            .as_array()?
            .iter()
            .map(|arm| arm["requests"].as_u64().unwrap())
            .collect();
        (requests == [10, 10] && rollout["weight_actual"] == 0.0).then_some(())
    })
    .await;
}
