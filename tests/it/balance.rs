//! Several endpoints: which of them gets a request, and what happens when one of them goes away,
//! fails, or comes back.

use std::{
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use haldane::{
    measure::{EndpointState, Kind, Outcome, RescueResult},
    proxy::Resolver,
};
use http::{HeaderMap, Request, Response};
use http_body_util::BodyExt;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::watch,
    time::Instant,
};

use crate::{
    h2::h2_upstream,
    harness::{Call, Connection, Haldane, Upstream, eventually, full, nobody},
    plane::Plane,
};

/// One upstream with these endpoints and settings, and a service without canaries.
fn shop(endpoints: &[String], settings: &str, route: &str) -> String {
    format!(
        "upstreams: {{ pods: {{ endpoints: {endpoints:?}, {settings} }} }}
services: {{ shop: {{ baseline: pods }} }}
routes: [{{ name: all, service: shop, timeout: 5s, {route} }}]"
    )
}

fn addresses(of: &[&Upstream]) -> Vec<String> {
    of.iter().map(|upstream| upstream.addr.to_string()).collect()
}

/// An upstream that can be killed as a process is: nobody listens any more, and every connection
/// ends at once.
struct Mortal {
    addr: SocketAddr,
    requests: Arc<AtomicU64>,
    answers: Arc<AtomicU64>,
    kill: watch::Sender<bool>,
}

impl Mortal {
    /// Answers each request after `delay`.
    async fn start(addr: SocketAddr, delay: Duration) -> Self {
        let listener = TcpListener::bind(addr).await.unwrap();
        let addr = listener.local_addr().unwrap();
        let (requests, answers) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
        let (kill, killed) = watch::channel(false);
        let counts = [Arc::clone(&requests), Arc::clone(&answers)];
        tokio::spawn(async move {
            let mut over = killed.clone();
            loop {
                tokio::select! {
                    _ = over.wait_for(|killed| *killed) => return,
                    Ok((stream, _)) = listener.accept() => {
                        let (mut over, counts) = (killed.clone(), counts.clone());
                        tokio::spawn(async move {
                            tokio::select! {
                                _ = over.wait_for(|killed| *killed) => {}
                                () = serve(stream, &counts, delay) => {}
                            }
                        });
                    }
                }
            }
        });
        Self { addr, requests, answers, kill }
    }

    async fn any(delay: Duration) -> Self {
        Self::start(([127, 0, 0, 1], 0).into(), delay).await
    }

    fn kill(&self) {
        self.kill.send_replace(true);
    }

    /// Whether it has a request that it has not answered.
    fn is_busy(&self) -> bool {
        self.answers.load(Ordering::SeqCst) < self.seen()
    }

    fn seen(&self) -> u64 {
        self.requests.load(Ordering::SeqCst)
    }
}

async fn serve(mut stream: TcpStream, [requests, answers]: &[Arc<AtomicU64>; 2], delay: Duration) {
    let mut chunk = [0; 4096];
    loop {
        let mut seen = Vec::new();
        while !seen.ends_with(b"\r\n\r\n") {
            match stream.read(&mut chunk).await {
                Ok(read @ 1..) => seen.extend_from_slice(&chunk[..read]),
                Ok(0) | Err(_) => return,
            }
        }
        requests.fetch_add(1, Ordering::SeqCst);
        tokio::time::sleep(delay).await;
        answers.fetch_add(1, Ordering::SeqCst);
        if stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await.is_err() {
            return;
        }
    }
}

/// Clients that ask again and again, and how their requests ended.
struct Load {
    stop: Arc<AtomicBool>,
    clients: Vec<tokio::task::JoinHandle<[u64; 2]>>,
    /// Requests that ended so far.
    ended: Arc<AtomicU64>,
}

impl Load {
    fn start(addr: SocketAddr) -> Self {
        let (stop, ended) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let client = |_| {
            let (stop, ended) = (Arc::clone(&stop), Arc::clone(&ended));
            tokio::spawn(async move {
                let mut connection = Connection::open(addr, false).await.unwrap();
                let mut counts = [0, 0];
                while !stop.load(Ordering::SeqCst) {
                    match connection.call(Call::get("/")).await {
                        Ok(answer) if answer.status == 200 => counts[0] += 1,
                        Ok(_) | Err(_) => {
                            counts[1] += 1;
                            connection = Connection::open(addr, false).await.unwrap();
                        }
                    }
                    ended.fetch_add(1, Ordering::SeqCst);
                }
                counts
            })
        };
        Self { clients: (0..8).map(client).collect(), stop, ended }
    }

    /// Waits for this many more requests.
    async fn more(&self, count: u64) {
        let goal = self.ended.load(Ordering::SeqCst) + count;
        eventually("requests end", async || {
            (self.ended.load(Ordering::SeqCst) >= goal).then_some(())
        })
        .await;
    }

    /// Requests that went well and that did not.
    async fn stop(self) -> [u64; 2] {
        self.stop.store(true, Ordering::SeqCst);
        let mut all = [0, 0];
        for client in self.clients {
            let counts = client.await.unwrap();
            all = [all[0] + counts[0], all[1] + counts[1]];
        }
        all
    }
}

/// Waits until the last report of every worker has this many endpoints in a state.
async fn stand(plane: &mut Plane, state: EndpointState, count: usize) {
    plane
        .until(&format!("{count} endpoints are {state:?}"), |plane| {
            let upstream = plane.reports.last()?.endpoints.first()?;
            let found = upstream.endpoints.iter().filter(|it| it.state == state).count();
            (found == count).then_some(())
        })
        .await;
}

#[tokio::test]
async fn requests_are_spread_over_the_endpoints_and_events_name_them() {
    for policy in ["peak_ewma", "least_request", "round_robin"] {
        let pods =
            [Upstream::text("x").await, Upstream::text("x").await, Upstream::text("x").await];
        let endpoints = addresses(&pods.iter().collect::<Vec<_>>());
        let yaml = shop(&endpoints, &format!("balance: {policy}"), "");
        let mut plane = Plane::start(&yaml, 0, 1);
        let mut connection = Connection::open(plane.addr, false).await.unwrap();
        for _ in 0..300 {
            assert_eq!(connection.call(Call::get("/")).await.unwrap().status, 200);
        }
        let seen: Vec<u64> = pods.iter().map(Upstream::seen).collect();
        let least = if policy == "peak_ewma" { 1 } else { 50 };
        assert!(seen.iter().all(|count| *count >= least), "{policy}: {seen:?}");
        plane.until("the events", |plane| (plane.ended(0, false).len() == 300).then_some(())).await;
        for (place, count) in seen.into_iter().enumerate() {
            let ended = |event: &&haldane::measure::Event| {
                matches!(event.kind(), Kind::Ended { .. })
                    && event.endpoint() == haldane::measure::EndpointNumber::of(place)
            };
            assert_eq!(plane.events.iter().filter(ended).count() as u64, count);
        }
    }
}

#[tokio::test]
async fn the_endpoint_says_nothing_about_the_arm() {
    let pods = [Upstream::text("x").await, Upstream::text("x").await];
    let yaml = format!(
        "upstreams: {{ pods: {{ endpoints: {:?} }} }}
services:
  shop:
    baseline: pods
    canaries: {{ v2: {{ upstream: pods, version: \"2\" }} }}
    assign_by: {{ header: x-user }}
routes: [{{ service: shop, timeout: 5s }}]",
        addresses(&[&pods[0], &pods[1]])
    );
    let mut plane = Plane::start(&yaml, 5_000, 1);
    let mut connection = Connection::open(plane.addr, false).await.unwrap();
    const REQUESTS: usize = 2_000;
    for user in 0..REQUESTS {
        let call = Call::get("/").header("x-user", &format!("u{}", user % 500));
        assert_eq!(connection.call(call).await.unwrap().status, 200);
    }
    let count = |plane: &Plane| plane.ended(0, false).len() + plane.ended(1, false).len();
    plane.until("the events", |plane| (count(plane) == REQUESTS).then_some(())).await;
    let mut table = [[0.0_f64; 2]; 2];
    for event in plane.events.iter().filter(|it| matches!(it.kind(), Kind::Ended { .. })) {
        table[event.recorder.0 as usize][event.endpoint().index() - 1] += 1.0;
    }
    // Pearson's chi-squared of the two by two table, 1 degree of freedom: 19.5 is beyond 1e-5.
    let [[a, b], [c, d]] = table;
    let marginals = (a + b) * (c + d) * (a + c) * (b + d);
    let chi_squared = (a + b + c + d) * (a * d - b * c).powi(2) / marginals;
    assert!(chi_squared < 19.5, "{table:?}: {chi_squared}");
}

#[tokio::test]
async fn a_connection_that_cannot_be_made_is_made_elsewhere_and_nobody_notices() {
    let alive = Upstream::text("alive").await;
    let dead = nobody().await;
    let yaml = shop(&[dead.to_string(), alive.addr.to_string()], "", "");
    let mut plane = Plane::start(&yaml, 0, 1);
    for _ in 0..20 {
        let answer = Call::post("/").body("all of it").to(plane.addr).await;
        assert_eq!((answer.status.as_u16(), answer.text().as_str()), (200, "alive"));
    }
    stand(&mut plane, EndpointState::Unreachable, 1).await;
    // What comes up there is found without a request's help.
    let risen = Mortal::start(dead, Duration::ZERO).await;
    stand(&mut plane, EndpointState::Ready, 2).await;
    eventually("both get requests", async || {
        Call::get("/").to(plane.addr).await;
        (risen.seen() > 0).then_some(())
    })
    .await;
    let ended = plane.ended(0, false);
    assert!(ended.iter().all(|outcome| *outcome == Outcome::Ok), "{ended:?}");
}

#[tokio::test]
async fn without_any_endpoint_that_can_be_reached_the_arm_fails() {
    let yaml = shop(&[nobody().await.to_string(), nobody().await.to_string()], "", "");
    let mut plane = Plane::start(&yaml, 0, 1);
    for _ in 0..3 {
        assert_eq!(Call::get("/").to(plane.addr).await.status, 502);
    }
    plane.until("the events", |plane| (plane.ended(0, false).len() == 3).then_some(())).await;
    assert_eq!(plane.ended(0, false), [Outcome::Failed; 3]);
    plane
        .until("all are used", |plane| {
            let upstream = plane.reports.last()?.endpoints.first()?;
            (upstream.panics && upstream.taking.len() == 2).then_some(())
        })
        .await;
}

/// Kills one of two endpoints under load; returns how requests ended for clients and for the arm,
/// and what came of repetitions.
async fn kill_one(route: &str) -> ([u64; 2], Vec<Outcome>, Option<[u64; 3]>) {
    let pods = [
        Mortal::any(Duration::from_millis(20)).await,
        Mortal::any(Duration::from_millis(20)).await,
    ];
    let endpoints = pods.each_ref().map(|pod| pod.addr.to_string());
    let yaml = shop(&endpoints, "balance: round_robin", route);
    let mut plane = Plane::start(&yaml, 0, 2);
    let load = Load::start(plane.addr);
    load.more(500).await;
    assert!(pods.iter().all(|pod| pod.seen() > 0));
    eventually("a request is under way", async || pods[0].is_busy().then_some(())).await;
    pods[0].kill();
    load.more(500).await;
    let counts = load.stop().await;
    let all = (counts[0] + counts[1]) as usize;
    plane.until("the events", |plane| (plane.ended(0, false).len() == all).then_some(())).await;
    let retries = plane
        .until("the reports of both workers", |plane| {
            (plane.reports.len() > 4).then(|| {
                let last = plane.reports.iter().rev().take(4);
                let sums = last.filter_map(|report| Some(report.retries.first()?.counts));
                sums.reduce(|one, other| std::array::from_fn(|it| one[it].max(other[it])))
            })
        })
        .await;
    (counts, plane.ended(0, false), retries)
}

#[tokio::test]
async fn with_retry_nobody_notices_an_endpoint_that_is_killed_but_the_arm_is_charged() {
    let ([_, failed], ended, retries) = kill_one("retry: true").await;
    assert_eq!(failed, 0);
    let charged = ended.iter().filter(|outcome| **outcome == Outcome::Failed).count();
    assert!(charged > 0, "requests were under way at the endpoint that was killed");
    assert!(retries.is_some_and(|counts| counts[RescueResult::Rescued.index()] > 0));
}

#[tokio::test]
async fn without_retry_only_what_was_under_way_fails() {
    let ([_, failed], ended, retries) = kill_one("retry: false").await;
    // As many as there are clients.
    assert!((1..=8).contains(&failed), "{failed}");
    let charged = ended.iter().filter(|outcome| **outcome == Outcome::Failed).count();
    assert_eq!(charged as u64, failed);
    assert_eq!(retries, None);
}

/// Reads a request and closes the connection.
async fn breaks_off(count: Arc<AtomicU64>) -> Upstream {
    Upstream::raw(move |mut stream: TcpStream| {
        let count = Arc::clone(&count);
        async move {
            let mut chunk = [0; 4096];
            let _ = stream.read(&mut chunk).await;
            count.fetch_add(1, Ordering::SeqCst);
            stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-le").await.unwrap();
        }
    })
    .await
}

#[tokio::test]
async fn only_what_is_idempotent_and_has_no_body_is_repeated_and_only_elsewhere() {
    let taken = Arc::new(AtomicU64::new(0));
    let bad = breaks_off(Arc::clone(&taken)).await;
    let worse = breaks_off(Arc::clone(&taken)).await;
    let both = addresses(&[&bad, &worse]);
    let check = async |endpoints: &[String], call: Call, times: u64| {
        let plane = Plane::start(&shop(endpoints, "", "retry: { attempts: 3 }"), 0, 1);
        let before = taken.load(Ordering::SeqCst);
        assert_eq!(call.to(plane.addr).await.status, 502);
        assert_eq!(taken.load(Ordering::SeqCst) - before, times);
    };
    check(&both, Call::get("/"), 4).await;
    check(&both, Call::post("/"), 1).await;
    check(&both, Call::new(Request::put("/")).body("x"), 1).await;
    check(&both[..1], Call::get("/"), 1).await;
}

#[tokio::test]
async fn an_endpoint_that_fails_is_ejected_comes_back_and_its_failures_count() {
    let sick = Arc::new(AtomicBool::new(true));
    let mood = Arc::clone(&sick);
    let moody = Upstream::start(move |_| {
        let status = if mood.load(Ordering::SeqCst) { 500 } else { 200 };
        async move { Response::builder().status(status).body(full("moody")).unwrap() }
    })
    .await;
    let good = Upstream::text("good").await;
    let eject = "eject: { failures: 3, for: 300ms, at_most: 50% }";
    let yaml = shop(&addresses(&[&moody, &good]), eject, "");
    let mut plane = Plane::start(&yaml, 0, 1);
    let mut failures = 0;
    eventually("the endpoint is ejected", async || {
        failures += u32::from(Call::get("/").to(plane.addr).await.status == 500);
        (failures == 3).then_some(())
    })
    .await;
    let before = moody.seen();
    for _ in 0..10 {
        assert_eq!(Call::get("/").to(plane.addr).await.text(), "good");
    }
    assert_eq!(moody.seen(), before);
    sick.store(false, Ordering::SeqCst);
    eventually("it is back", async || {
        (Call::get("/").to(plane.addr).await.text() == "moody").then_some(())
    })
    .await;
    plane
        .until("the failures", |plane| {
            let ended = plane.ended(0, false);
            (ended.iter().filter(|it| **it == Outcome::Failed).count() == 3).then_some(())
        })
        .await;
}

/// Names that the test gives addresses to.
#[derive(Clone, Default)]
struct Names(Arc<Mutex<Option<Vec<SocketAddr>>>>, Arc<AtomicU64>);

impl Names {
    fn set(&self, addresses: Option<Vec<SocketAddr>>) {
        *self.0.lock().unwrap() = addresses;
    }

    fn lookups(&self) -> u64 {
        self.1.load(Ordering::SeqCst)
    }

    fn resolver(&self) -> Resolver {
        let names = self.clone();
        Resolver::new(move |_, _| {
            names.1.fetch_add(1, Ordering::SeqCst);
            let known = names.0.lock().unwrap().clone();
            let none = || std::io::Error::other("nobody knows this name");
            Box::pin(async move { known.ok_or_else(none) })
        })
    }
}

const NAME: &str = "pods.test:80";

#[tokio::test]
async fn a_name_is_followed_under_load_and_not_a_request_is_lost() {
    let mut pods = Vec::new();
    for _ in 0..3 {
        pods.push(Upstream::text("x").await);
    }
    let names = Names::default();
    let of = |places: &[usize]| Some(places.iter().map(|place| pods[*place].addr).collect());
    names.set(of(&[0, 1]));
    let yaml = shop(&[NAME.to_owned()], "resolve_every: 50ms", "");
    let mut plane = Plane::resolving(&yaml, 0, 2, names.resolver());
    let load = Load::start(plane.addr);
    load.more(300).await;
    assert!(pods[0].seen() > 0 && pods[1].seen() > 0 && pods[2].seen() == 0);
    names.set(of(&[1, 2]));
    eventually("the new address takes part", async || (pods[2].seen() > 0).then_some(())).await;
    // The other worker follows at the same time.
    load.more(100).await;
    let before = pods[0].seen();
    load.more(300).await;
    assert_eq!(pods[0].seen(), before, "an address that went away got another request");
    // A failure to resolve changes nothing.
    names.set(None);
    let lookups = names.lookups();
    eventually("it fails a few times", async || (names.lookups() > lookups + 3).then_some(()))
        .await;
    load.more(300).await;
    let [_, failed] = load.stop().await;
    assert_eq!(failed, 0);
    // Who stays keeps its number, and no number is used again at once.
    plane
        .until("the report", |plane| {
            let last = &plane.reports.last()?.endpoints[0];
            let mut numbers: Vec<usize> =
                last.endpoints.iter().map(|it| it.number.index()).collect();
            numbers.sort_unstable();
            (matches!(numbers[..], [1 | 2, 3]) && last.taking.len() == 2 && last.pods == Some(2))
                .then_some(())
        })
        .await;
}

#[tokio::test]
async fn a_stream_to_an_address_that_went_away_goes_on_to_its_end() {
    let (release, released) = watch::channel(false);
    let pods: Vec<Upstream> = [
        Upstream::raw(move |mut stream| {
            let mut released = released.clone();
            async move {
                let mut chunk = [0; 4096];
                let _ = stream.read(&mut chunk).await;
                stream
                    .write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 8\r\n\r\nhalf")
                    .await
                    .unwrap();
                let _ = released.wait_for(|it| *it).await;
                stream.write_all(b"half").await.unwrap();
                // Closed by the proxy, since nobody is to use it again.
                assert_eq!(stream.read(&mut chunk).await.unwrap_or(0), 0);
            }
        })
        .await,
        Upstream::text("other").await,
    ]
    .into();
    let names = Names::default();
    names.set(Some(vec![pods[0].addr]));
    let yaml = shop(&[NAME.to_owned()], "resolve_every: 50ms", "");
    let mut plane = Plane::resolving(&yaml, 0, 1, names.resolver());
    let stream = tokio::spawn(Call::get("/").to(plane.addr));
    eventually("the stream is under way", async || {
        (pods[0].connections.load(Ordering::SeqCst) == 1).then_some(())
    })
    .await;
    names.set(Some(vec![pods[1].addr]));
    stand(&mut plane, EndpointState::Draining, 1).await;
    assert_eq!(Call::get("/").to(plane.addr).await.text(), "other");
    release.send_replace(true);
    assert_eq!(stream.await.unwrap().text(), "halfhalf");
    stand(&mut plane, EndpointState::Draining, 0).await;
}

#[tokio::test]
async fn a_name_is_looked_up_at_once_when_a_connection_cannot_be_made() {
    let first = Mortal::any(Duration::ZERO).await;
    let second = Upstream::text("second").await;
    let names = Names::default();
    names.set(Some(vec![first.addr]));
    let yaml = shop(&[NAME.to_owned()], "resolve_every: 1h", "");
    let plane = Plane::resolving(&yaml, 0, 1, names.resolver());
    assert_eq!(Call::get("/").to(plane.addr).await.text(), "ok");
    names.set(Some(vec![second.addr]));
    first.kill();
    let asked = Instant::now();
    eventually("the new address", async || {
        (Call::get("/").to(plane.addr).await.text() == "second").then_some(())
    })
    .await;
    assert!(asked.elapsed() < Duration::from_secs(5));
}

#[tokio::test]
async fn requests_wait_for_a_name_to_be_resolved_and_fail_if_it_cannot_be() {
    let names = Names::default();
    let yaml = shop(&[NAME.to_owned()], "resolve_every: 100ms", "");
    let plane = Plane::resolving(&yaml, 0, 2, names.resolver());
    assert_eq!(Call::get("/").to(plane.addr).await.status, 502);
    let pod = Upstream::text("x").await;
    names.set(Some(vec![pod.addr]));
    eventually("the address is found", async || {
        (Call::get("/").to(plane.addr).await.status == 200).then_some(())
    })
    .await;
    // The first request of another process.
    let plane = Plane::resolving(&yaml, 0, 2, names.resolver());
    assert_eq!(Call::get("/").to(plane.addr).await.status, 200);
}

#[tokio::test]
async fn an_endpoint_that_a_reload_adds_takes_part_and_one_that_it_takes_away_is_drained() {
    let mut pods = Vec::new();
    for _ in 0..3 {
        pods.push(Upstream::text("x").await);
    }
    let yaml = |places: [usize; 2]| shop(&addresses(&places.map(|place| &pods[place])), "", "");
    let plane = Plane::start(&yaml([0, 1]), 0, 2);
    let load = Load::start(plane.addr);
    load.more(300).await;
    let before = pods[1].connections.load(Ordering::SeqCst);
    plane.reload(&yaml([1, 2]), 0);
    eventually("the new endpoint takes part", async || (pods[2].seen() > 0).then_some(())).await;
    load.more(300).await;
    let gone = pods[0].seen();
    load.more(300).await;
    assert_eq!(load.stop().await[1], 0);
    assert_eq!(pods[0].seen(), gone);
    eventually("what nobody uses any more is closed", async || {
        (pods[0].open.load(Ordering::SeqCst) == 0).then_some(())
    })
    .await;
    // Connections to what stayed live on: 8 clients need no more than 8 on each worker.
    let now = pods[1].connections.load(Ordering::SeqCst);
    assert!(now <= 16 && now >= before, "{before} {now}");
}

#[tokio::test]
async fn an_endpoint_that_is_not_well_gets_nothing_until_it_is() {
    let well = Arc::new(AtomicBool::new(true));
    let (mood, asked) = (Arc::clone(&well), Arc::new(AtomicU64::new(0)));
    let count = Arc::clone(&asked);
    let moody = Upstream::start(move |request| {
        let check = request.uri().path() == "/healthz";
        count.fetch_add(u64::from(check), Ordering::SeqCst);
        let status = if check && !mood.load(Ordering::SeqCst) { 503 } else { 200 };
        async move { Response::builder().status(status).body(full("moody")).unwrap() }
    })
    .await;
    let good = Upstream::text("good").await;
    let check = "health_check: { path: /healthz, interval: 50ms, unhealthy: 2, healthy: 2 }";
    let yaml = shop(&addresses(&[&moody, &good]), check, "");
    let mut plane = Plane::start(&yaml, 0, 2);
    stand(&mut plane, EndpointState::Ready, 2).await;
    well.store(false, Ordering::SeqCst);
    stand(&mut plane, EndpointState::Unhealthy, 1).await;
    for _ in 0..20 {
        assert_eq!(Call::get("/").to(plane.addr).await.text(), "good");
    }
    well.store(true, Ordering::SeqCst);
    stand(&mut plane, EndpointState::Ready, 2).await;
    eventually("it gets requests again", async || {
        (Call::get("/").to(plane.addr).await.text() == "moody").then_some(())
    })
    .await;
    // Checks are no requests of the arm.
    let all = moody.seen() + good.seen();
    let checks = asked.load(Ordering::SeqCst);
    assert!(checks > 4);
    plane.read();
    assert!((plane.ended(0, false).len() as u64) < all - checks);
}

#[tokio::test]
async fn where_no_endpoint_is_well_all_are_used() {
    let sick = || async {
        Upstream::start(|request| {
            let status = if request.uri().path() == "/healthz" { 503 } else { 200 };
            async move { Response::builder().status(status).body(full("x")).unwrap() }
        })
        .await
    };
    let pods = [sick().await, sick().await];
    let yaml = shop(
        &addresses(&[&pods[0], &pods[1]]),
        "health_check: { path: /healthz, interval: 50ms }",
        "",
    );
    let haldane = Haldane::start(&yaml).await;
    let series = [
        "haldane_upstream_endpoints{upstream=\"pods\",state=\"unhealthy\"} 2\n",
        "haldane_upstream_endpoints{upstream=\"pods\",state=\"ready\"} 0\n",
        "haldane_upstream_panic{upstream=\"pods\"} 1\n",
    ];
    eventually("all are unhealthy", async || {
        let metrics = haldane.metrics().await;
        series.iter().all(|series| metrics.contains(series)).then_some(())
    })
    .await;
    assert_eq!(Call::get("/").to(haldane.addr).await.status, 200);
}

#[tokio::test]
async fn a_grpc_service_that_does_not_serve_gets_nothing() {
    let serving = Arc::new(AtomicBool::new(true));
    let pod = |status: Arc<AtomicBool>, text: &'static str| {
        h2_upstream(100, move |request| {
            let serves = status.load(Ordering::SeqCst);
            async move {
                if request.uri().path() != "/grpc.health.v1.Health/Check" {
                    return Response::new(full(text));
                }
                assert_eq!(request.headers()["content-type"], "application/grpc");
                let asked = request.into_body().collect().await.unwrap().to_bytes();
                assert_eq!(&asked[..], b"\0\0\0\0\x06\x0a\x04shop");
                let answer: &[u8] =
                    if serves { b"\0\0\0\0\x02\x08\x01" } else { b"\0\0\0\0\x02\x08\x02" };
                let mut trailers = HeaderMap::new();
                trailers.insert("grpc-status", "0".parse().unwrap());
                let trailers = std::future::ready(Some(Ok(trailers)));
                let mut response = Response::new(full(answer).with_trailers(trailers).boxed());
                let kind = "application/grpc".parse().unwrap();
                response.headers_mut().insert("content-type", kind);
                response
            }
        })
    };
    let moody = pod(Arc::clone(&serving), "moody").await;
    let good = pod(Arc::new(AtomicBool::new(true)), "good").await;
    let settings = "protocol: h2, health_check: { grpc: shop, interval: 50ms, unhealthy: 1 }";
    let yaml = shop(&addresses(&[&moody, &good]), settings, "");
    let mut plane = Plane::start(&yaml, 0, 1);
    stand(&mut plane, EndpointState::Ready, 2).await;
    serving.store(false, Ordering::SeqCst);
    stand(&mut plane, EndpointState::Unhealthy, 1).await;
    for _ in 0..20 {
        assert_eq!(Call::get("/").to(plane.addr).await.text(), "good");
    }
}

#[tokio::test]
async fn an_endpoint_has_no_more_requests_than_it_may_have() {
    let (now, most) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    let pod = || {
        let (now, most) = (Arc::clone(&now), Arc::clone(&most));
        Upstream::start(move |_| {
            let (now, most) = (Arc::clone(&now), Arc::clone(&most));
            async move {
                most.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                tokio::time::sleep(Duration::from_millis(20)).await;
                now.fetch_sub(1, Ordering::SeqCst);
                Response::new(full("x"))
            }
        })
    };
    let pods = [pod().await, pod().await];
    let yaml = shop(&addresses(&[&pods[0], &pods[1]]), "pool: { max_requests: 2 }", "");
    let plane = Plane::start(&yaml, 0, 1);
    let calls: Vec<_> = (0..20).map(|_| tokio::spawn(Call::get("/").to(plane.addr))).collect();
    for call in calls {
        assert_eq!(call.await.unwrap().status, 200);
    }
    assert_eq!(most.load(Ordering::SeqCst), 4);
}
