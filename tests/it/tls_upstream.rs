//! TLS to upstreams: whom the proxy believes, what it shows, what is spoken inside.

use std::{
    convert::Infallible,
    path::Path,
    sync::{Arc, Mutex, atomic::Ordering},
};

use http::Response;
use hyper::{server, service::service_fn};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair, SanType};
use rustls::{
    HandshakeKind, RootCertStore, ServerConfig,
    crypto::aws_lc_rs,
    pki_types::{PrivateKeyDer, pem::PemObject},
    server::WebPkiClientVerifier,
};
use tokio_rustls::TlsAcceptor;

use crate::harness::{Call, Connection, Haldane, Upstream, eventually, full};

/// An authority that signs certificates.
struct Authority(CertifiedIssuer<'static, KeyPair>);

/// A certificate with its key.
struct Signed {
    cert: rcgen::Certificate,
    key: KeyPair,
}

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    fn sign(&self, name: &str) -> Signed {
        let mut params = CertificateParams::default();
        let name = match name.parse() {
            Ok(addr) => SanType::IpAddress(addr),
            Err(_) => SanType::DnsName(name.try_into().unwrap()),
        };
        params.subject_alt_names = vec![name];
        let key = KeyPair::generate().unwrap();
        Signed { cert: params.signed_by(&key, &self.0).unwrap(), key }
    }

    fn write(&self, path: &Path) {
        std::fs::write(path, self.0.pem()).unwrap();
    }
}

impl Signed {
    fn write(&self, dir: &Path, name: &str) {
        std::fs::write(dir.join(format!("{name}.crt")), self.cert.pem()).unwrap();
        std::fs::write(dir.join(format!("{name}.key")), self.key.serialize_pem()).unwrap();
    }
}

/// What an upstream saw of a handshake.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Shaken {
    name: Option<String>,
    resumed: bool,
    client: Option<Vec<u8>>,
}

/// An upstream behind TLS, which answers with the version of HTTP that it is spoken to in.
struct Secure {
    upstream: Upstream,
    shaken: Arc<Mutex<Vec<Shaken>>>,
}

impl Secure {
    async fn start(identity: &Signed, protocols: &[&str], clients: Option<&Authority>) -> Self {
        let builder = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap();
        let builder = match clients {
            None => builder.with_no_client_auth(),
            Some(authority) => {
                let mut roots = RootCertStore::empty();
                roots.add(authority.0.der().clone()).unwrap();
                let provider = Arc::new(aws_lc_rs::default_provider());
                let verifier =
                    WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
                builder.with_client_cert_verifier(verifier.build().unwrap())
            }
        };
        let key = PrivateKeyDer::from_pem_slice(identity.key.serialize_pem().as_bytes()).unwrap();
        let mut config = builder.with_single_cert(vec![identity.cert.der().clone()], key).unwrap();
        config.alpn_protocols = protocols.iter().map(|it| it.as_bytes().to_vec()).collect();
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let shaken: Arc<Mutex<Vec<Shaken>>> = Arc::default();
        let log = Arc::clone(&shaken);
        let upstream = Upstream::raw(move |stream| {
            let (acceptor, log) = (acceptor.clone(), Arc::clone(&log));
            async move {
                let Ok(stream) = acceptor.accept(stream).await else { return };
                let session = stream.get_ref().1;
                log.lock().unwrap().push(Shaken {
                    name: session.server_name().map(str::to_owned),
                    resumed: session.handshake_kind() == Some(HandshakeKind::Resumed),
                    client: session.peer_certificates().map(|it| it[0].to_vec()),
                });
                let h2 = session.alpn_protocol() == Some(b"h2");
                let service = service_fn(|request: http::Request<_>| async move {
                    let text = format!("{:?} {}", request.version(), request.uri());
                    Ok::<_, Infallible>(Response::new(full(text)))
                });
                let io = TokioIo::new(stream);
                // The proxy may cut connections as it likes.
                if h2 {
                    let builder = server::conn::http2::Builder::new(TokioExecutor::new());
                    let _ = builder.serve_connection(io, service).await;
                } else {
                    let _ = server::conn::http1::Builder::new().serve_connection(io, service).await;
                }
            }
        })
        .await;
        Self { upstream, shaken }
    }

    fn shaken(&self) -> Vec<Shaken> {
        self.shaken.lock().unwrap().clone()
    }
}

/// A proxy in front of one upstream, with `tls` and further keys; `dir` has the files.
async fn proxy(dir: tempfile::TempDir, secure: &Secure, keys: &str) -> Haldane {
    let addr = secure.upstream.addr;
    let yaml = format!(
        "version: 1
listeners: [{{ name: edge, address: \"127.0.0.1:0\" }}]
admin: {{ address: \"127.0.0.1:0\" }}
state_dir: state
upstreams: {{ one: {{ endpoints: [\"{addr}\"], {keys} }} }}
services: {{ shop: {{ baseline: one }} }}
routes: [{{ name: all, service: shop, timeout: 5s }}]
"
    );
    std::fs::write(dir.path().join("haldane.yaml"), yaml).unwrap();
    Haldane::in_dir(dir, 1).await
}

/// A directory with the certificate of an authority in `ca.pem`.
fn trusting(authority: &Authority) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    authority.write(&dir.path().join("ca.pem"));
    dir
}

#[tokio::test]
async fn both_sides_speak_the_best_version_that_both_know() {
    let authority = Authority::new();
    let identity = authority.sign("127.0.0.1");
    let check = async |protocols: &[&str], keys: &str, expected: &str| {
        let secure = Secure::start(&identity, protocols, None).await;
        let keys = format!("tls: {{ ca: ca.pem }}{keys}");
        let haldane = proxy(trusting(&authority), &secure, &keys).await;
        let mut connection = Connection::open(haldane.addr, false).await.unwrap();
        for _ in 0..2 {
            let answer = connection.call(Call::get("/a").header("host", "shop")).await.unwrap();
            assert_eq!(answer.text(), expected, "{protocols:?} {keys}");
        }
        assert_eq!(secure.upstream.connections.load(Ordering::SeqCst), 1);
    };
    check(&["h2", "http/1.1"], "", "HTTP/2.0 https://shop/a").await;
    check(&["http/1.1"], "", "HTTP/1.1 /a").await;
    check(&[], "", "HTTP/1.1 /a").await;
    check(&["h2", "http/1.1"], ", protocol: http1", "HTTP/1.1 /a").await;
    check(&["h2"], ", protocol: h2", "HTTP/2.0 https://shop/a").await;
    let burst = Secure::start(&identity, &["http/1.1"], None).await;
    let haldane = proxy(trusting(&authority), &burst, "tls: { ca: ca.pem }").await;
    let calls: Vec<_> = (0..20).map(|_| tokio::spawn(Call::get("/").to(haldane.addr))).collect();
    for call in calls {
        assert_eq!(call.await.unwrap().status, 200);
    }
}

#[tokio::test]
async fn an_upstream_is_verified_by_name_and_by_authority() {
    let (authority, other) = (Authority::new(), Authority::new());
    let check = async |trusted: &Authority, name: &str, keys: &str, status: u16| {
        let secure = Secure::start(&authority.sign(name), &["h2", "http/1.1"], None).await;
        let keys = format!("tls: {{ ca: ca.pem{keys} }}");
        let haldane = proxy(trusting(trusted), &secure, &keys).await;
        let answer = Call::get("/").to(haldane.addr).await;
        assert_eq!(answer.status, status, "{name} {keys}: {}", answer.text());
        secure.shaken()
    };
    let named = ", server_name: shop.internal";
    let shaken = check(&authority, "shop.internal", named, 200).await;
    assert_eq!(shaken[0].name.as_deref(), Some("shop.internal"));
    assert_eq!(check(&authority, "127.0.0.1", "", 200).await[0].name, None);
    check(&authority, "other.internal", named, 502).await;
    check(&authority, "shop.internal", "", 502).await;
    check(&other, "shop.internal", named, 502).await;
}

#[tokio::test]
async fn the_proxy_shows_its_certificate_and_the_new_one_when_the_files_change() {
    let authority = Authority::new();
    let secure = Secure::start(&authority.sign("127.0.0.1"), &["http/1.1"], Some(&authority)).await;
    let (one, two) = (authority.sign("one"), authority.sign("two"));
    let dir = trusting(&authority);
    one.write(dir.path(), "haldane");
    // A connection that rests is closed soon, so that others are made.
    let keys = "tls: { ca: ca.pem, cert: haldane.crt, key: haldane.key }, pool: { idle: 0 }";
    let haldane = proxy(dir, &secure, keys).await;
    assert_eq!(Call::get("/").to(haldane.addr).await.status, 200);
    let shown = |secure: &Secure| secure.shaken().last().and_then(|it| it.client.clone());
    assert_eq!(shown(&secure), Some(one.cert.der().to_vec()));
    two.write(haldane.dir.path(), "haldane");
    eventually("the new certificate", async || {
        assert_eq!(Call::get("/").to(haldane.addr).await.status, 200);
        (shown(&secure) == Some(two.cert.der().to_vec())).then_some(())
    })
    .await;
    // What is of no use changes nothing.
    std::fs::write(haldane.dir.path().join("haldane.crt"), "nonsense").unwrap();
    for _ in 0..3 {
        assert_eq!(Call::get("/").to(haldane.addr).await.status, 200);
    }
}

#[tokio::test]
async fn an_upstream_that_wants_a_certificate_refuses_a_proxy_without() {
    let authority = Authority::new();
    let secure = Secure::start(&authority.sign("127.0.0.1"), &["h2"], Some(&authority)).await;
    let haldane = proxy(trusting(&authority), &secure, "tls: { ca: ca.pem }, protocol: h2").await;
    assert_eq!(Call::get("/").to(haldane.addr).await.status, 502);
}

#[tokio::test]
async fn sessions_are_resumed() {
    let authority = Authority::new();
    let secure = Secure::start(&authority.sign("127.0.0.1"), &["http/1.1"], None).await;
    let keys = "tls: { ca: ca.pem }, pool: { idle: 0 }";
    let haldane = proxy(trusting(&authority), &secure, keys).await;
    for _ in 0..3 {
        assert_eq!(Call::get("/").to(haldane.addr).await.status, 200);
    }
    let resumed: Vec<_> = secure.shaken().iter().map(|it| it.resumed).collect();
    assert_eq!(resumed, [false, true, true]);
}
