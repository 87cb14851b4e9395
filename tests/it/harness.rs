//! The scenery of the tests: upstreams in the test's own process, a proxy on free ports, clients.
//!
//! Nothing here waits for a fixed time: what must come about is polled by [`eventually`].

use std::{
    convert::Infallible,
    fmt::Write as _,
    net::SocketAddr,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use haldane::{app, config};
use http::{HeaderMap, Request, Response, StatusCode, request};
use http_body_util::{BodyExt, Full, combinators::BoxBody};
use hyper::{body::Incoming, client, server, service::service_fn};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    time::{Instant, sleep, timeout},
};

/// How long anything may take before a test fails.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// Polls `check` until it gives something.
pub(crate) async fn eventually<T>(what: &str, mut check: impl AsyncFnMut() -> Option<T>) -> T {
    let end = Instant::now() + PATIENCE;
    loop {
        if let Some(value) = check().await {
            return value;
        }
        assert!(Instant::now() < end, "did not come about: {what}");
        sleep(Duration::from_millis(10)).await;
    }
}

/// A body of bytes.
pub(crate) type Body = BoxBody<Bytes, Infallible>;

/// A body that is there at once.
pub(crate) fn full(bytes: impl Into<Bytes>) -> Body {
    Full::new(bytes.into()).boxed()
}

/// An upstream that answers by a function.
#[derive(Clone)]
pub(crate) struct Upstream {
    pub(crate) addr: SocketAddr,
    /// Requests that reached it.
    pub(crate) requests: Arc<AtomicU64>,
    /// Connections that reached it.
    pub(crate) connections: Arc<AtomicU64>,
    /// Those of them that are open, of an upstream that answers by a function.
    pub(crate) open: Arc<AtomicU64>,
}

impl Upstream {
    /// Answers every request by `answer`.
    pub(crate) async fn start<F, Fut>(answer: F) -> Self
    where
        F: Fn(Request<Incoming>) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Response<Body>> + Send + 'static,
    {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let upstream = Self {
            addr: listener.local_addr().unwrap(),
            requests: Arc::default(),
            connections: Arc::default(),
            open: Arc::default(),
        };
        let (requests, connections) =
            (Arc::clone(&upstream.requests), Arc::clone(&upstream.connections));
        let open = Arc::clone(&upstream.open);
        let answer = Arc::new(answer);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                connections.fetch_add(1, Ordering::SeqCst);
                stream.set_nodelay(true).unwrap();
                let (answer, requests) = (Arc::clone(&answer), Arc::clone(&requests));
                open.fetch_add(1, Ordering::SeqCst);
                let open = Arc::clone(&open);
                let service = service_fn(move |request| {
                    requests.fetch_add(1, Ordering::SeqCst);
                    let answer = answer(request);
                    async move { Ok::<_, Infallible>(answer.await) }
                });
                tokio::spawn(async move {
                    // Clients and proxies may cut connections as they like.
                    let _ = server::conn::http1::Builder::new()
                        .serve_connection(TokioIo::new(stream), service)
                        .await;
                    open.fetch_sub(1, Ordering::SeqCst);
                });
            }
        });
        upstream
    }

    /// Answers every request at once with 200 and this text.
    pub(crate) async fn text(text: &'static str) -> Self {
        Self::start(move |_| async move { Response::new(full(text)) }).await
    }

    /// Answers with a description of the request: its line, its fields, its body.
    pub(crate) async fn echo() -> Self {
        Self::start(|request| async move {
            let mut text = format!("{} {}\n", request.method(), request.uri());
            for (name, value) in request.headers() {
                writeln!(text, "{name}: {}", value.to_str().unwrap()).unwrap();
            }
            let body = request.into_body().collect().await.map(|it| it.to_bytes());
            text.push('\n');
            text.push_str(std::str::from_utf8(&body.unwrap_or_default()).unwrap());
            Response::new(full(text))
        })
        .await
    }

    /// Handles every connection by `serve`, byte by byte.
    pub(crate) async fn raw<F, Fut>(serve: F) -> Self
    where
        F: Fn(TcpStream) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = ()> + Send + 'static,
    {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let upstream = Self {
            addr: listener.local_addr().unwrap(),
            requests: Arc::default(),
            connections: Arc::default(),
            open: Arc::default(),
        };
        let connections = Arc::clone(&upstream.connections);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                connections.fetch_add(1, Ordering::SeqCst);
                tokio::spawn(serve(stream));
            }
        });
        upstream
    }

    pub(crate) fn seen(&self) -> u64 {
        self.requests.load(Ordering::SeqCst)
    }
}

/// An address on which nobody listens.
pub(crate) async fn nobody() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    listener.local_addr().unwrap()
}

/// A running proxy with a configuration file of its own.
pub(crate) struct Haldane {
    running: Option<app::Running>,
    pub(crate) dir: tempfile::TempDir,
    pub(crate) addr: SocketAddr,
    pub(crate) admin: SocketAddr,
}

/// Everything of a configuration but services and routes.
const PREAMBLE: &str = "version: 1
listeners: [{ name: edge, address: \"127.0.0.1:0\" }]
admin: { address: \"127.0.0.1:0\" }
state_dir: state
";

impl Haldane {
    /// Starts a proxy with these services and routes (and whatever else) on two workers.
    pub(crate) async fn start(yaml: &str) -> Self {
        Self::with_workers(yaml, 2).await
    }

    /// Starts a proxy on this many workers.
    pub(crate) async fn with_workers(yaml: &str, workers: usize) -> Self {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("haldane.yaml"), whole(yaml)).unwrap();
        Self::in_dir(dir, workers).await
    }

    /// Starts a proxy in a directory that has a configuration.
    pub(crate) async fn in_dir(dir: tempfile::TempDir, workers: usize) -> Self {
        let path = dir.path().join("haldane.yaml");
        let running = tokio::task::spawn_blocking(move || {
            let text = config::read(&path).map_err(|it| it.to_string())?;
            let compiled =
                config::compile_text(&text, &path, &no_environment).map_err(|it| it.to_string())?;
            let options = app::Options {
                workers,
                config_path: Some(path),
                config_text: text.into(),
                env: no_environment,
            };
            app::start(compiled, options).map_err(|error| format!("{error:#}"))
        });
        let running = running.await.unwrap().unwrap_or_else(|error| panic!("{error}"));
        let addr = running.listeners()[0];
        let admin = running.admin();
        Self { running: Some(running), dir, addr, admin }
    }

    /// The address of a listener, counted from 0.
    pub(crate) fn listener(&self, index: usize) -> SocketAddr {
        self.running.as_ref().unwrap().listeners()[index]
    }

    pub(crate) fn config_path(&self) -> PathBuf {
        self.dir.path().join("haldane.yaml")
    }

    /// Replaces the configuration file, all at once.
    pub(crate) fn write_config(&self, yaml: &str) {
        let new = self.dir.path().join("new.tmp");
        std::fs::write(&new, whole(yaml)).unwrap();
        std::fs::rename(new, self.config_path()).unwrap();
    }

    pub(crate) fn handle(&self) -> haldane::rollout::Handle {
        self.running.as_ref().unwrap().handle()
    }

    /// Reads the configuration again, by the admin API.
    pub(crate) async fn reload(&self) -> Answer {
        Call::post("/api/v1/reload").to(self.admin).await
    }

    /// Sets the weight of a service's only canary, in percent; returns when it is in force.
    pub(crate) async fn set_weight(&self, service: &str, percent: f64) -> Answer {
        let body = format!("{{\"weight\": \"{percent}%\", \"reason\": \"test\"}}");
        Call::post(&format!("/api/v1/services/{service}/weight"))
            .header("content-type", "application/json")
            .body(body)
            .to(self.admin)
            .await
    }

    /// The status document.
    pub(crate) async fn status(&self) -> serde_json::Value {
        let answer = Call::get("/api/v1/status").to(self.admin).await;
        serde_json::from_slice(&answer.body).unwrap()
    }

    /// The metrics, as text.
    pub(crate) async fn metrics(&self) -> String {
        Call::get("/metrics").to(self.admin).await.text()
    }

    /// Stops the proxy as SIGTERM does; returns its directory.
    pub(crate) async fn stop(mut self) -> tempfile::TempDir {
        let running = self.running.take().unwrap();
        tokio::task::spawn_blocking(move || running.shutdown()).await.unwrap();
        std::mem::replace(&mut self.dir, tempfile::tempdir().unwrap())
    }

    /// Begins the shutdown without waiting for its end.
    pub(crate) fn begin_shutdown(&self) {
        self.running.as_ref().unwrap().begin_shutdown();
    }
}

impl Drop for Haldane {
    fn drop(&mut self) {
        if let Some(running) = self.running.take() {
            running.begin_shutdown();
        }
    }
}

/// The environment of the tests' configurations: nothing is set.
pub(crate) fn no_environment(_name: &str) -> Option<String> {
    None
}

fn whole(yaml: &str) -> String {
    if yaml.contains("listeners:") { yaml.to_owned() } else { format!("{PREAMBLE}{yaml}") }
}

/// One service with a canary, all requests to it, manual weights.
pub(crate) fn two_arms(
    baseline: SocketAddr,
    canary: SocketAddr,
    weight: &str,
    more: &str,
) -> String {
    format!(
        "services:
  shop:
    baseline: {baseline}
    canaries: {{ v2: {{ upstream: \"{canary}\", version: \"2\" }} }}
    rollout: {{ manual: true, stages: [{weight}, 100%] }}
    arm_header: true
{more}
routes: [{{ name: all, service: shop, timeout: 2s }}]
"
    )
}

/// One service without canaries, all requests to it.
pub(crate) fn one_arm(baseline: SocketAddr) -> String {
    format!(
        "services: {{ shop: {{ baseline: \"{baseline}\", arm_header: true }} }}
routes: [{{ name: all, service: shop, timeout: 2s }}]
"
    )
}

/// A request to be made.
#[derive(Debug)]
pub(crate) struct Call {
    builder: request::Builder,
    body: Bytes,
    h2: bool,
}

/// An answer, read to its end.
#[derive(Clone, Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

impl Answer {
    pub(crate) fn text(&self) -> String {
        String::from_utf8(self.body.to_vec()).unwrap()
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().unwrap())
    }
}

impl Call {
    pub(crate) fn get(path: &str) -> Self {
        Self::new(Request::get(path))
    }

    pub(crate) fn post(path: &str) -> Self {
        Self::new(Request::post(path))
    }

    pub(crate) fn new(builder: request::Builder) -> Self {
        Self { builder, body: Bytes::new(), h2: false }
    }

    pub(crate) fn header(mut self, name: &str, value: &str) -> Self {
        self.builder = self.builder.header(name, value);
        self
    }

    pub(crate) fn body(mut self, body: impl Into<Bytes>) -> Self {
        self.body = body.into();
        self
    }

    /// By HTTP/2 with prior knowledge.
    pub(crate) fn h2(mut self) -> Self {
        self.h2 = true;
        self
    }

    /// Makes the request on a connection of its own.
    pub(crate) async fn to(self, addr: SocketAddr) -> Answer {
        self.try_to(addr).await.unwrap()
    }

    pub(crate) async fn try_to(self, addr: SocketAddr) -> Result<Answer, hyper::Error> {
        timeout(PATIENCE, async {
            let h2 = self.h2;
            let mut connection = Connection::open(addr, h2).await?;
            connection.call(self).await
        })
        .await
        .expect("an answer within the test's patience")
    }

    fn request(self, addr: SocketAddr) -> Request<Full<Bytes>> {
        let mut request = self.builder.body(Full::new(self.body)).unwrap();
        if self.h2 {
            let path = request.uri().path_and_query().unwrap().clone();
            let host = request.headers_mut().remove("host");
            let host = host.map_or_else(|| addr.to_string(), |it| it.to_str().unwrap().to_owned());
            *request.uri_mut() = format!("http://{host}{path}").parse().unwrap();
        } else if !request.headers().contains_key("host") {
            request.headers_mut().insert("host", addr.to_string().parse().unwrap());
        }
        request
    }
}

/// A client's connection, kept alive.
pub(crate) struct Connection {
    addr: SocketAddr,
    sender: Sender,
}

enum Sender {
    H1(client::conn::http1::SendRequest<Full<Bytes>>),
    H2(client::conn::http2::SendRequest<Full<Bytes>>),
}

impl Connection {
    pub(crate) async fn open(addr: SocketAddr, h2: bool) -> Result<Self, hyper::Error> {
        let stream = TcpStream::connect(addr).await.expect("the proxy accepts");
        stream.set_nodelay(true).unwrap();
        Self::over(stream, addr, h2).await
    }

    /// Speaks over a stream that is open already.
    pub(crate) async fn over<S>(stream: S, addr: SocketAddr, h2: bool) -> Result<Self, hyper::Error>
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let io = TokioIo::new(stream);
        let sender = if h2 {
            let (sender, connection) =
                client::conn::http2::handshake(TokioExecutor::new(), io).await?;
            tokio::spawn(connection);
            Sender::H2(sender)
        } else {
            let (sender, connection) = client::conn::http1::handshake(io).await?;
            tokio::spawn(connection);
            Sender::H1(sender)
        };
        Ok(Self { addr, sender })
    }

    pub(crate) async fn call(&mut self, call: Call) -> Result<Answer, hyper::Error> {
        let request = call.request(self.addr);
        let response = match &mut self.sender {
            Sender::H1(sender) => {
                sender.ready().await?;
                sender.send_request(request).await?
            }
            Sender::H2(sender) => {
                sender.ready().await?;
                sender.send_request(request).await?
            }
        };
        let (parts, body) = response.into_parts();
        let body = body.collect().await?;
        Ok(Answer { status: parts.status, headers: parts.headers, body: body.to_bytes() })
    }
}

/// Writes bytes to a new connection and reads until the other side closes it or the answer's
/// length is reached.
pub(crate) async fn raw(addr: SocketAddr, bytes: &[u8]) -> String {
    let mut stream = TcpStream::connect(addr).await.unwrap();
    stream.write_all(bytes).await.unwrap();
    let mut answer = Vec::new();
    let read = async {
        let mut chunk = [0; 4096];
        loop {
            match stream.read(&mut chunk).await {
                Ok(0) | Err(_) => return,
                Ok(count) => answer.extend_from_slice(&chunk[..count]),
            }
            if complete(&answer) {
                return;
            }
        }
    };
    timeout(PATIENCE, read).await.expect("an answer within the test's patience");
    String::from_utf8_lossy(&answer).into_owned()
}

/// Whether a whole answer with a Content-Length is there.
fn complete(answer: &[u8]) -> bool {
    let text = String::from_utf8_lossy(answer);
    let Some((head, body)) = text.split_once("\r\n\r\n") else {
        return false;
    };
    head.lines()
        .filter_map(|line| line.split_once(':'))
        .find(|(name, _)| name.eq_ignore_ascii_case("content-length"))
        .and_then(|(_, length)| length.trim().parse().ok())
        .is_some_and(|length: usize| body.len() >= length)
}
