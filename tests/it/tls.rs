//! TLS from clients: which certificate, which protocol, sessions taken up again, certificates
//! exchanged while connections live, and what becomes of handshakes that fail.

use std::{
    fs,
    os::unix::fs::symlink,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
};

use http::Response;
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use crate::{
    harness::{Call, Connection, Haldane, Upstream, eventually, full, one_arm},
    secure::{Authority, Client, Issued, protocol, resumed, shown},
};

/// A proxy with one TLS listener, and its authority.
struct Scene {
    haldane: Haldane,
    authority: Authority,
    shop: Issued,
}

impl Scene {
    async fn new(upstream: &Upstream, tls: &str, more: &str) -> Self {
        let authority = Authority::new();
        let shop = authority.issue(&["shop.example"]);
        let directory = tempfile::tempdir().unwrap();
        shop.write(directory.path(), "shop");
        authority.issue(&["*.wild.example"]).write(directory.path(), "wild");
        authority.issue(&["a.wild.example"]).write(directory.path(), "exact");
        let yaml = format!(
            "version: 1
listeners:
  - name: edge
    address: 127.0.0.1:0
    tls: {{ {tls} }}
{more}
admin: {{ address: \"127.0.0.1:0\" }}
state_dir: state
{}",
            one_arm(upstream.addr)
        );
        fs::write(directory.path().join("haldane.yaml"), yaml).unwrap();
        Self { haldane: Haldane::in_dir(directory, 2).await, authority, shop }
    }

    async fn simple(upstream: &Upstream) -> Self {
        Self::new(upstream, SHOP, "").await
    }

    fn client(&self) -> Client {
        Client::new(&self.authority)
    }

    async fn shed(&self, reason: &str) -> u64 {
        let metrics = self.haldane.metrics().await;
        let begin = format!("haldane_shed_total{{reason=\"{reason}\"}} ");
        metrics.lines().find_map(|line| line.strip_prefix(&begin)?.parse().ok()).unwrap()
    }
}

const SHOP: &str = "certificates: { cert: shop.crt, key: shop.key }";

#[tokio::test]
async fn the_certificate_is_picked_by_the_name_that_is_asked_for() {
    let three = "certificates: [{ cert: shop.crt, key: shop.key }, \
        { cert: wild.crt, key: wild.key }, { cert: exact.crt, key: exact.key }]";
    let scene = Scene::new(&Upstream::text("x").await, three, "").await;
    let read = |name: &str| {
        let pem = fs::read_to_string(scene.haldane.dir.path().join(name)).unwrap();
        Issued { cert: pem, key: String::new() }.leaf()
    };
    for (name, file) in [
        ("shop.example", "shop.crt"),
        ("b.wild.example", "wild.crt"),
        ("B.Wild.Example", "wild.crt"),
        ("a.wild.example", "exact.crt"),
    ] {
        let stream = scene.client().asking(name).connect(scene.haldane.addr).await.unwrap();
        assert_eq!(shown(&stream), read(file), "{name}");
    }
    // A name that nobody knows gets the first, which its client does not take.
    let refused = scene.client().asking("a.b.wild.example").connect(scene.haldane.addr).await;
    assert!(refused.unwrap_err().to_string().contains("shop.example"));
}

#[tokio::test]
async fn the_protocol_is_agreed_on_or_told_by_the_first_bytes() {
    let scene = Scene::simple(&Upstream::echo().await).await;
    let addr = scene.haldane.addr;
    for (proposed, agreed) in [
        (&["h2", "http/1.1"] as &[&str], Some("h2")),
        (&["http/1.1", "h2"], Some("h2")),
        (&["http/1.1"], Some("http/1.1")),
        (&["http/1.0"], Some("http/1.0")),
        (&[], None),
    ] {
        let client = scene.client().proposing(proposed);
        let stream = client.connect(addr).await.unwrap();
        assert_eq!(protocol(&stream), agreed);
        let h2 = agreed == Some("h2");
        let mut connection = Connection::over(stream, addr, h2).await.unwrap();
        for _ in 0..2 {
            let call =
                Call::get("/a").header("host", "shop.example").header("x-forwarded-proto", "http");
            let call = if h2 { call.h2() } else { call };
            let text = connection.call(call).await.unwrap().text();
            assert!(text.starts_with("GET /a\n"), "{text}");
            assert!(text.contains("x-forwarded-proto: https\n"), "{text}");
            assert!(text.contains("host: shop.example\n"), "{text}");
        }
    }
    let stream = scene.client().connect(addr).await.unwrap();
    let mut prior_knowledge = Connection::over(stream, addr, true).await.unwrap();
    let answer = prior_knowledge.call(Call::get("/b").h2()).await.unwrap();
    assert!(answer.text().contains("via: 2 haldane\n"));
    let nothing_in_common = scene.client().proposing(&["spdy/3"]).connect(addr).await;
    assert!(nothing_in_common.unwrap_err().to_string().contains("NoApplicationProtocol"));
}

#[tokio::test]
async fn the_proxy_chooses_the_cipher_unless_the_client_has_no_hardware_for_it() {
    use rustls::crypto::aws_lc_rs::cipher_suite as suites;
    let scene = Scene::simple(&Upstream::text("x").await).await;
    let chosen = async |order: &[rustls::SupportedCipherSuite]| {
        let client = Client::of_ciphers(&scene.authority, order);
        let stream = client.connect(scene.haldane.addr).await.unwrap();
        stream.get_ref().1.negotiated_cipher_suite().unwrap()
    };
    let [small, large, soft] = [
        suites::TLS13_AES_128_GCM_SHA256,
        suites::TLS13_AES_256_GCM_SHA384,
        suites::TLS13_CHACHA20_POLY1305_SHA256,
    ];
    assert_eq!(chosen(&[large, small, soft]).await, small);
    assert_eq!(chosen(&[large, soft]).await, large);
    assert_eq!(chosen(&[soft, large, small]).await, soft);
    let [small, soft] = [
        suites::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
        suites::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256,
    ];
    assert_eq!(chosen(&[small, soft]).await, small);
    assert_eq!(chosen(&[soft, small]).await, soft);
}

#[tokio::test]
async fn both_versions_take_up_sessions_again() {
    let scene = Scene::simple(&Upstream::text("x").await).await;
    for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
        let client = Client::of_version(&scene.authority, version);
        for again in [false, true, true, true] {
            // Workers share what they know: whichever accepts takes up the session.
            let mut stream = client.connect(scene.haldane.addr).await.unwrap();
            assert_eq!(resumed(&stream), again, "{version:?}");
            // Tickets of TLS 1.3 come with the answer.
            stream
                .write_all(b"GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n")
                .await
                .unwrap();
            let mut answer = String::new();
            // An end without a goodbye would be an error here.
            stream.read_to_string(&mut answer).await.unwrap();
            assert!(answer.ends_with("x"), "{answer}");
        }
    }
}

#[tokio::test]
async fn large_bodies_arrive_whole_both_ways() {
    const SIZE: usize = 5 << 20;
    let upstream = Upstream::start(|request| async move {
        let body = http_body_util::BodyExt::collect(request.into_body()).await.unwrap();
        Response::new(full(body.to_bytes()))
    })
    .await;
    let scene = Scene::simple(&upstream).await;
    let body: Vec<u8> = (0..SIZE).map(|at| (at % 251) as u8).collect();
    for proposed in ["http/1.1", "h2"] {
        let client = scene.client().proposing(&[proposed]);
        let call = Call::post("/").body(body.clone());
        let call = if proposed == "h2" { call.h2() } else { call };
        let answer = client.call(scene.haldane.addr, call).await;
        assert!(answer.body == body, "{proposed}: {} bytes", answer.body.len());
    }
}

#[tokio::test]
async fn a_tunnel_inside_ends_well_though_its_client_hangs_up_without_a_word() {
    let parrot = Upstream::raw(|stream| async move {
        let mut stream = tokio::io::BufStream::new(stream);
        let mut line = String::new();
        while line != "\r\n" {
            line.clear();
            stream.read_line(&mut line).await.unwrap();
        }
        let agree =
            "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n";
        stream.write_all(agree.as_bytes()).await.unwrap();
        stream.flush().await.unwrap();
        let (mut from, mut to) = tokio::io::split(stream);
        // The test ends when its client does.
        let _ = tokio::io::copy(&mut from, &mut to).await;
    })
    .await;
    let scene = Scene::simple(&parrot).await;
    let mut stream = scene.client().connect(scene.haldane.addr).await.unwrap();
    let ask = "GET / HTTP/1.1\r\nhost: a\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\nearly";
    stream.write_all(ask.as_bytes()).await.unwrap();
    let mut heard = String::new();
    while !heard.ends_with("early") {
        let mut piece = [0; 100];
        let count = stream.read(&mut piece).await.unwrap();
        assert!(count > 0, "{heard}");
        heard.push_str(std::str::from_utf8(&piece[..count]).unwrap());
    }
    assert!(heard.starts_with("HTTP/1.1 101 "), "{heard}");
    // The socket goes, and no goodbye of TLS was sent.
    drop(stream.into_inner());
    let ended = ",arm=\"baseline\",outcome=\"ok\"} 1";
    eventually("the tunnel has ended well", async || {
        scene.haldane.metrics().await.lines().any(|line| line.ends_with(ended)).then_some(())
    })
    .await;
}

#[tokio::test]
async fn certificates_are_exchanged_by_their_content_and_connections_live_on() {
    let scene = Scene::simple(&Upstream::text("x").await).await;
    let (addr, dir) = (scene.haldane.addr, scene.haldane.dir.path());
    // As a mounted secret is laid out: links to a directory behind a link.
    let put = |version: &str, issued: &Issued| {
        fs::create_dir(dir.join(version)).unwrap();
        issued.write(&dir.join(version), "shop");
        symlink(version, dir.join("data.tmp")).unwrap();
        fs::rename(dir.join("data.tmp"), dir.join("data")).unwrap();
    };
    put("one", &scene.shop);
    for name in ["shop.crt", "shop.key"] {
        fs::remove_file(dir.join(name)).unwrap();
        symlink(format!("data/{name}"), dir.join(name)).unwrap();
    }
    let mut old = scene.client().proposing(&["http/1.1"]).open(addr).await;
    // Its ticket comes with the answer.
    let client = scene.client();
    assert_eq!(client.call(addr, Call::get("/")).await.text(), "x");
    assert_eq!(shown(&scene.client().connect(addr).await.unwrap()), scene.shop.leaf());

    let next = scene.authority.issue(&["shop.example"]);
    put("two", &next);
    eventually("the new certificate is shown", async || {
        let stream = scene.client().connect(addr).await.unwrap();
        (shown(&stream) == next.leaf()).then_some(())
    })
    .await;
    assert_eq!(old.call(Call::get("/")).await.unwrap().text(), "x");
    // Whoever was here before need not shake hands anew.
    assert!(resumed(&client.connect(addr).await.unwrap()));

    put("broken", &Issued { cert: next.cert.clone(), key: scene.shop.key.clone() });
    let last = scene.authority.issue(&["shop.example"]);
    let stream = scene.client().connect(addr).await.unwrap();
    assert_eq!(shown(&stream), next.leaf());
    put("three", &last);
    eventually("the last certificate is shown", async || {
        let stream = scene.client().connect(addr).await.unwrap();
        let leaf = shown(&stream);
        assert!(leaf == next.leaf() || leaf == last.leaf());
        (leaf == last.leaf()).then_some(())
    })
    .await;
    assert_eq!(scene.shed("handshake").await, 0);
}

#[tokio::test]
async fn no_handshake_fails_while_certificates_are_exchanged() {
    const EXCHANGES: usize = 5;
    let scene = Arc::new(Scene::simple(&Upstream::text("x").await).await);
    let (stop, handshakes) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU32::new(0)));
    let clients: Vec<_> = (0..4)
        .map(|_| {
            let (scene, stop) = (Arc::clone(&scene), Arc::clone(&stop));
            let handshakes = Arc::clone(&handshakes);
            tokio::spawn(async move {
                while !stop.load(Ordering::SeqCst) {
                    let answer = scene.client().call(scene.haldane.addr, Call::get("/")).await;
                    assert_eq!(answer.text(), "x");
                    handshakes.fetch_add(1, Ordering::SeqCst);
                }
            })
        })
        .collect();
    let dir = scene.haldane.dir.path();
    for _ in 0..EXCHANGES {
        let next = scene.authority.issue(&["shop.example"]);
        // Not at once, and in between they do not fit together.
        next.write(dir, "next");
        fs::rename(dir.join("next.crt"), dir.join("shop.crt")).unwrap();
        fs::rename(dir.join("next.key"), dir.join("shop.key")).unwrap();
        eventually("the new certificate is shown", async || {
            let stream = scene.client().connect(scene.haldane.addr).await.unwrap();
            (shown(&stream) == next.leaf()).then_some(())
        })
        .await;
    }
    stop.store(true, Ordering::SeqCst);
    for client in clients {
        client.await.unwrap();
    }
    assert!(handshakes.load(Ordering::SeqCst) > 20);
    assert_eq!(scene.shed("handshake").await, 0);
}

#[tokio::test]
async fn handshakes_that_fail_or_last_too_long_are_counted() {
    let limits = "    limits: { header_timeout: 500ms }";
    let scene = Scene::new(&Upstream::text("x").await, SHOP, limits).await;
    let counts = async |expected: u64| {
        eventually("the handshake is counted", async || {
            (scene.shed("handshake").await == expected).then_some(())
        })
        .await;
    };
    let addr = scene.haldane.addr;
    let mut plain = TcpStream::connect(addr).await.unwrap();
    plain.write_all(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n").await.unwrap();
    let mut answer = Vec::new();
    plain.read_to_end(&mut answer).await.unwrap();
    assert_eq!(answer.first(), Some(&21), "an alert: {answer:?}");
    counts(1).await;
    let stranger = Client::new(&Authority::new()).connect(addr).await.unwrap_err();
    assert!(stranger.to_string().contains("invalid peer certificate"), "{stranger}");
    counts(2).await;
    let mut silent = TcpStream::connect(addr).await.unwrap();
    assert_eq!(silent.read(&mut [0]).await.unwrap(), 0);
    counts(3).await;
    // Whoever only looks whether the port is open has not failed.
    drop(TcpStream::connect(addr).await.unwrap());
    // Shakes hands and then says nothing: that is a head that comes too late.
    let mut mute = scene.client().connect(addr).await.unwrap();
    assert_eq!(mute.read(&mut [0]).await.map_err(|error| error.kind()).unwrap_or(0), 0);
    eventually("the head is counted", async || {
        (scene.shed("header_timeout").await == 1).then_some(())
    })
    .await;
    assert_eq!(scene.shed("handshake").await, 3);
}

#[tokio::test]
async fn browsers_are_told_to_stay_with_tls() {
    let upstream = Upstream::start(|request| async move {
        let mut response = Response::new(full("x"));
        if request.uri() == "/own" {
            response
                .headers_mut()
                .insert("strict-transport-security", "max-age=1".parse().unwrap());
        }
        response
    })
    .await;
    let plain = "    limits: { h2_streams: 100 }\n  - { name: plain, address: \"127.0.0.1:0\" }";
    let scene = Scene::new(&upstream, &format!("{SHOP}, hsts: 365d"), plain).await;
    let hsts = async |path: &str| {
        let answer = scene.client().call(scene.haldane.addr, Call::get(path)).await;
        answer.header("strict-transport-security").map(str::to_owned)
    };
    assert_eq!(hsts("/").await.as_deref(), Some("max-age=31536000"));
    assert_eq!(hsts("/own").await.as_deref(), Some("max-age=1"));
    assert_eq!(hsts("/a%00").await.as_deref(), Some("max-age=31536000"));
    // Over a connection that is not safe it would say nothing (RFC 6797, section 7.2).
    let plain = Call::get("/").to(scene.haldane.listener(1)).await;
    assert_eq!(plain.header("strict-transport-security"), None);
}
