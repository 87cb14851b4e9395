//! What stands between a client and its request: redirects to https, the PROXY protocol, and what is
//! believed of proxies in front.

use std::net::SocketAddr;

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpStream, UnixStream},
};

use crate::{
    harness::{Call, Connection, Haldane, Upstream, eventually, one_arm, raw},
    secure::{Authority, Client},
};

async fn start(listeners: &str, upstream: &Upstream) -> Haldane {
    let directory = tempfile::tempdir().unwrap();
    start_in(directory, listeners, upstream).await
}

async fn start_in(directory: tempfile::TempDir, listeners: &str, upstream: &Upstream) -> Haldane {
    let yaml = format!(
        "version: 1\nlisteners:\n{listeners}\nadmin: {{ address: \"127.0.0.1:0\" }}\nstate_dir: state\n{}",
        one_arm(upstream.addr)
    );
    std::fs::write(directory.path().join("haldane.yaml"), yaml).unwrap();
    Haldane::in_dir(directory, 2).await
}

async fn refusals(haldane: &Haldane, expected: u32) {
    let line = format!("haldane_shed_total{{reason=\"proxy_protocol\"}} {expected}");
    eventually("refusals are counted", async || {
        haldane.metrics().await.lines().any(|it| it == line).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_redirect_keeps_host_path_and_query() {
    let upstream = Upstream::text("x").await;
    let listeners = "  - { address: \"127.0.0.1:0\", redirect: https }
  - { name: odd, address: \"127.0.0.1:0\", redirect: https, redirect_port: 8443 }";
    let haldane = start(listeners, &upstream).await;
    let (usual, odd) = (haldane.addr, haldane.listener(1));
    let location = async |addr: SocketAddr, call: Call| {
        let answer = call.to(addr).await;
        assert_eq!(answer.status, 308);
        answer.header("location").unwrap().to_owned()
    };
    let get = |path: &str, host: &str| Call::get(path).header("host", host);
    assert_eq!(
        location(usual, get("/a%20b/../c?q=1&r=/", "Shop.example:8080")).await,
        "https://shop.example/a%20b/../c?q=1&r=/"
    );
    assert_eq!(location(odd, get("/", "shop.example")).await, "https://shop.example:8443/");
    assert_eq!(location(odd, get("/", "[::1]:80")).await, "https://[::1]:8443/");
    let post = Call::post("/buy").body("x").h2().header("host", "shop.example");
    assert_eq!(location(usual, post).await, "https://shop.example/buy");
    let star = raw(usual, b"OPTIONS * HTTP/1.1\r\nhost: a\r\n\r\n").await;
    assert!(star.contains("location: https://a/\r\n"), "{star}");
    let nobody = raw(usual, b"GET / HTTP/1.1\r\n\r\n").await;
    assert!(nobody.starts_with("HTTP/1.1 400 "), "{nobody}");
    assert_eq!(upstream.seen(), 0);
}

/// Sends a header and a request; the client that the upstream is told of, none if refused.
async fn told(addr: SocketAddr, header: &[u8]) -> Option<String> {
    let mut stream = TcpStream::connect(addr).await.unwrap();
    stream.write_all(header).await.unwrap();
    answered(stream, addr).await
}

async fn answered<S>(stream: S, addr: SocketAddr) -> Option<String>
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Send + Unpin + 'static,
{
    let mut connection = Connection::over(stream, addr, false).await.ok()?;
    let text = connection.call(Call::get("/").header("host", "a")).await.ok()?.text();
    text.lines().find_map(|line| line.strip_prefix("x-forwarded-for: ")).map(str::to_owned)
}

fn binary(command: u8, rest: &[u8]) -> Vec<u8> {
    let fixed = [b"\r\n\r\n\0\r\nQUIT\n".as_slice(), &[0x20 | command, 0x11]].concat();
    [fixed, u16::try_from(rest.len()).unwrap().to_be_bytes().to_vec(), rest.to_vec()].concat()
}

const V1: &[u8] = b"PROXY TCP4 192.0.2.9 198.51.100.1 5000 443\r\n";
const V2: [u8; 12] = [192, 0, 2, 8, 198, 51, 100, 1, 1, 2, 3, 4];

#[tokio::test]
async fn a_balancer_says_who_the_client_is() {
    let listeners =
        "  - { address: \"127.0.0.1:0\", proxy_protocol: true, limits: { header_timeout: 500ms } }";
    let haldane = start(listeners, &Upstream::echo().await).await;
    let addr = haldane.addr;
    let of = |text: &str| Some(text.to_owned());
    assert_eq!(told(addr, V1).await, of("192.0.2.9"));
    assert_eq!(told(addr, &binary(1, &V2)).await, of("192.0.2.8"));
    assert_eq!(told(addr, b"PROXY UNKNOWN\r\n").await, of("127.0.0.1"));
    assert_eq!(told(addr, &binary(0, &[])).await, of("127.0.0.1"));
    refusals(&haldane, 0).await;
    assert_eq!(told(addr, b"").await, None);
    assert_eq!(told(addr, b"PROXY nonsense\r\n").await, None);
    refusals(&haldane, 2).await;
    // Byte by byte it is a header as well.
    let mut slow = TcpStream::connect(addr).await.unwrap();
    slow.set_nodelay(true).unwrap();
    for byte in V1 {
        slow.write_all(&[*byte]).await.unwrap();
    }
    assert_eq!(answered(slow, addr).await, of("192.0.2.9"));
    let mut silent = TcpStream::connect(addr).await.unwrap();
    assert_eq!(silent.read(&mut [0]).await.unwrap(), 0);
    refusals(&haldane, 3).await;
}

#[tokio::test]
async fn only_trusted_balancers_are_believed() {
    let listeners =
        "  - { address: \"127.0.0.1:0\", proxy_protocol: true, trusted_proxies: 10.0.0.0/8 }
  - { name: open, address: \"127.0.0.1:0\", proxy_protocol: true, trusted_proxies: 127.0.0.1 }";
    let haldane = start(listeners, &Upstream::echo().await).await;
    assert_eq!(told(haldane.addr, V1).await, None);
    refusals(&haldane, 1).await;
    assert_eq!(told(haldane.listener(1), V1).await.as_deref(), Some("192.0.2.9"));
}

#[tokio::test]
async fn a_header_stands_before_the_handshake_and_on_unix_sockets_too() {
    let directory = tempfile::tempdir().unwrap();
    let authority = Authority::new();
    authority.issue(&["shop.example"]).write(directory.path(), "shop");
    let listeners = "  - address: 127.0.0.1:0
    proxy_protocol: true
    tls: { certificates: { cert: shop.crt, key: shop.key } }
  - { name: local, address: \"unix:edge.sock\", proxy_protocol: true }";
    let haldane = start_in(directory, listeners, &Upstream::echo().await).await;
    let mut stream = TcpStream::connect(haldane.addr).await.unwrap();
    stream.write_all(&binary(1, &V2)).await.unwrap();
    let stream = Client::new(&authority).over(stream).await.unwrap();
    assert_eq!(answered(stream, haldane.addr).await.as_deref(), Some("192.0.2.8"));
    let mut unix = UnixStream::connect(haldane.dir.path().join("edge.sock")).await.unwrap();
    unix.write_all(V1).await.unwrap();
    assert_eq!(answered(unix, haldane.addr).await.as_deref(), Some("192.0.2.9"));
}

#[tokio::test]
async fn the_standard_field_is_sent_and_believed_where_it_is_asked_for() {
    let listeners = "  - { address: \"127.0.0.1:0\", forwarded: true }
  - { name: behind, address: \"127.0.0.1:0\", forwarded: true, trusted_proxies: 127.0.0.1 }
  - { name: without, address: \"127.0.0.1:0\", trusted_proxies: 127.0.0.1 }";
    let upstream = Upstream::echo().await;
    let directory = tempfile::tempdir().unwrap();
    let haldane = start_in(directory, listeners, &upstream).await;
    let field = async |index: usize| {
        let call = Call::get("/").header("host", "shop:81").header("forwarded", "for=192.0.2.1");
        let text = call.to(haldane.listener(index)).await.text();
        text.lines().find_map(|line| line.strip_prefix("forwarded: ")).map(str::to_owned)
    };
    let ours = "for=127.0.0.1;host=\"shop:81\";proto=http";
    assert_eq!(field(0).await.as_deref(), Some(ours));
    assert_eq!(field(1).await, Some(format!("for=192.0.2.1, {ours}")));
    assert_eq!(field(2).await.as_deref(), Some("for=192.0.2.1"));
}

#[tokio::test]
async fn the_client_named_by_the_standard_field_is_matched() {
    let (here, there) = (Upstream::text("here").await, Upstream::text("there").await);
    let yaml = format!(
        "version: 1
listeners: [{{ address: \"127.0.0.1:0\", forwarded: true, trusted_proxies: 127.0.0.1 }}]
admin: {{ address: \"127.0.0.1:0\" }}
state_dir: state
services: {{ here: {{ baseline: \"{}\" }}, there: {{ baseline: \"{}\" }} }}
routes: [{{ match: {{ client_ip: 192.0.2.0/24 }}, service: there }}, {{ service: here }}]
",
        here.addr, there.addr
    );
    let haldane = Haldane::start(&yaml).await;
    let answer = async |fields: &[(&str, &str)]| {
        let mut call = Call::get("/");
        for (name, value) in fields {
            call = call.header(name, value);
        }
        call.to(haldane.addr).await.text()
    };
    assert_eq!(answer(&[("forwarded", "for=\"192.0.2.7:99\"")]).await, "there");
    assert_eq!(answer(&[("x-forwarded-for", "192.0.2.7")]).await, "there");
    let both = [("forwarded", "for=198.51.100.1"), ("x-forwarded-for", "192.0.2.7")];
    assert_eq!(answer(&both).await, "here");
}
