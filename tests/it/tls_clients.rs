//! Clients with certificates: who is let in, and what the upstream is told.

use crate::{
    harness::{Call, Haldane, Upstream, eventually, one_arm},
    secure::{Authority, Client, Issued, resumed},
};

struct Scene {
    haldane: Haldane,
    servers: Authority,
    clients: Authority,
}

impl Scene {
    /// `client_ca` and these keys; a plain listener stands behind the one with TLS.
    async fn new(keys: &str) -> Self {
        let upstream = Upstream::echo().await;
        let (servers, clients) = (Authority::new(), Authority::new());
        let directory = tempfile::tempdir().unwrap();
        servers.issue(&["shop.example"]).write(directory.path(), "shop");
        std::fs::write(directory.path().join("clients.pem"), clients.pem()).unwrap();
        let yaml = format!(
            "version: 1
listeners:
  - name: edge
    address: 127.0.0.1:0
    tls:
      certificates: {{ cert: shop.crt, key: shop.key }}
      client_ca: clients.pem
{keys}
  - {{ name: plain, address: \"127.0.0.1:0\" }}
admin: {{ address: \"127.0.0.1:0\" }}
state_dir: state
{}",
            one_arm(upstream.addr)
        );
        std::fs::write(directory.path().join("haldane.yaml"), yaml).unwrap();
        Self { haldane: Haldane::in_dir(directory, 2).await, servers, clients }
    }

    fn client(&self, shown: Option<&Issued>) -> Client {
        Client::with(&self.servers, shown, rustls::ALL_VERSIONS)
    }

    /// What the upstream sees of a request with this certificate; none if the proxy refuses it.
    async fn seen(&self, shown: Option<&Issued>) -> Option<String> {
        let mut text = None;
        for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
            let client = Client::with(&self.servers, shown, &[version]);
            let now = self.attempt(&client).await;
            assert!(text.is_none() || text == Some(now.clone()), "versions differ");
            text = Some(now);
        }
        text.unwrap()
    }

    async fn attempt(&self, client: &Client) -> Option<String> {
        // In TLS 1.3 the client is done before the server has looked at its certificate.
        let stream = client.connect(self.haldane.addr).await.ok()?;
        let call = Call::get("/")
            .header("host", "a")
            .header("x-name", "forged")
            .header("X_Name", "forged");
        let opened = crate::harness::Connection::over(stream, self.haldane.addr, false).await;
        let answer = opened.ok()?.call(call).await.ok()?;
        Some(answer.text())
    }

    async fn refused(&self) -> String {
        let metrics = self.haldane.metrics().await;
        let line =
            metrics.lines().find(|it| it.starts_with("haldane_shed_total{reason=\"handshake\"}"));
        line.unwrap().rsplit_once(' ').unwrap().1.to_owned()
    }
}

#[tokio::test]
async fn only_clients_of_the_authority_are_let_in() {
    let scene = Scene::new("").await;
    let known = scene.clients.issue(&["a.example.com"]);
    let text = scene.seen(Some(&known)).await.expect("it is let in");
    // Nobody was told of a field: it is the client's to send.
    assert!(text.contains("x-name: forged\n"), "{text}");
    assert_eq!(scene.seen(None).await, None);
    let stranger = Authority::new().issue(&["a.example.com"]);
    assert_eq!(scene.seen(Some(&stranger)).await, None);
    eventually("four handshakes are counted", async || {
        (scene.refused().await == "4").then_some(())
    })
    .await;
}

#[tokio::test]
async fn names_decide_and_the_upstream_is_told() {
    let keys = "      client_names: [\"*.clients.example.com\", \"spiffe://example.com/ns/*\"]
      client_header: x-name";
    let scene = Scene::new(keys).await;
    let told = async |names: &[&str]| {
        let text = scene.seen(Some(&scene.clients.issue(names))).await?;
        assert!(!text.contains("forged"), "{text}");
        text.lines().find_map(|line| line.strip_prefix("x-name: ")).map(str::to_owned)
    };
    let of = |name: &str| Some(name.to_owned());
    assert_eq!(told(&["a.clients.example.com"]).await, of("a.clients.example.com"));
    let spiffe = "spiffe://example.com/ns/shop";
    assert_eq!(told(&["a.clients.example.com", spiffe]).await, of(spiffe));
    assert_eq!(told(&["a.example.com"]).await, None);
    assert_eq!(told(&["spiffe://example.com/other"]).await, None);
    // No other way in lets a client say who it is.
    let plain = Call::get("/").header("x-name", "forged").to(scene.haldane.listener(1)).await;
    assert!(!plain.text().contains("forged"), "{}", plain.text());
}

#[tokio::test]
async fn a_client_cannot_have_its_name_dropped_on_the_way() {
    let scene = Scene::new("      client_header: x-name").await;
    let issued = scene.clients.issue(&["a.example.com"]);
    let call = Call::get("/").header("host", "a").header("connection", "x-name, keep-alive");
    let answer = scene.client(Some(&issued)).call(scene.haldane.addr, call).await;
    assert!(answer.text().contains("x-name: a.example.com\n"), "{}", answer.text());
}

#[tokio::test]
async fn optional_certificates_are_verified_where_there_is_one() {
    let keys = "      client_auth: optional\n      client_header: x-name";
    let scene = Scene::new(keys).await;
    let without = scene.seen(None).await.expect("it is let in");
    assert!(!without.contains("x-name"), "{without}");
    let known = scene.clients.issue(&["a.example.com"]);
    let with = scene.seen(Some(&known)).await.expect("it is let in");
    assert!(with.contains("x-name: a.example.com\n"), "{with}");
    let stranger = Authority::new().issue(&["a.example.com"]);
    assert_eq!(scene.seen(Some(&stranger)).await, None);
}

#[tokio::test]
async fn sessions_keep_the_name_and_end_when_the_authority_changes() {
    let scene = Scene::new("      client_header: x-name").await;
    let issued = scene.clients.issue(&["a.example.com"]);
    let client = scene.client(Some(&issued));
    for again in [false, true] {
        let stream = client.connect(scene.haldane.addr).await.unwrap();
        assert_eq!(resumed(&stream), again);
        let addr = scene.haldane.addr;
        let mut connection = crate::harness::Connection::over(stream, addr, false).await.unwrap();
        let text = connection.call(Call::get("/").header("host", "a")).await.unwrap().text();
        assert!(text.contains("x-name: a.example.com\n"), "{text}");
    }
    let others = Authority::new();
    std::fs::write(scene.haldane.dir.path().join("clients.pem"), others.pem()).unwrap();
    eventually("the client is no longer let in", async || {
        scene.attempt(&client).await.is_none().then_some(())
    })
    .await;
    let trusted = others.issue(&["b.example.com"]);
    let text = scene.seen(Some(&trusted)).await.expect("it is let in");
    assert!(text.contains("x-name: b.example.com\n"), "{text}");
}
