//! What the workers report, request by request, against what the clients have seen: every request
//! once, in the tick of its arrival, under the weights that it was assigned by.
//!
//! The test stands in for the control thread: it stores the tables and takes the batches.

use std::{
    collections::HashMap,
    net::SocketAddr,
    path::Path,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use arc_swap::ArcSwap;
use haldane::{
    config,
    measure::{Batch, Epoch, Event, Judging, Kind, Ledger, Outcome, RecorderId, Tick},
    proxy::{Inputs, Link, Listener, Proxy, Resolver},
    routing::{
        CohortId, Dials, LiveTable, RecorderGrid, RequestHead, RouteTable, ServiceDial, assign,
    },
    shutdown,
};
use http::{HeaderMap, HeaderValue, Method};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::{Instant, sleep, timeout},
};

use crate::harness::{Call, Upstream, full, no_environment};

const WORKERS: usize = 2;
const WEIGHTS_BP: [u16; 5] = [500, 5_000, 100, 9_000, 2_500];

/// What a client knows of one request of its own.
struct Told {
    user: String,
    sent: Duration,
    over: Duration,
    outcome: Outcome,
}

/// An upstream that answers, fails or hangs by the path.
async fn moody() -> Upstream {
    Upstream::start(|request| async move {
        let failing = request.uri().path() == "/fail";
        if request.uri().path() == "/hang" {
            sleep(Duration::from_secs(60)).await;
        }
        let mut response = http::Response::new(full("x"));
        if failing {
            *response.status_mut() = http::StatusCode::INTERNAL_SERVER_ERROR;
        }
        response
    })
    .await
}

fn routes(one: SocketAddr, two: SocketAddr) -> RouteTable {
    let yaml = format!(
        "version: 1
listeners: [{{ address: \"127.0.0.1:0\" }}]
services:
  shop:
    baseline: {one}
    canaries: {{ v2: {{ upstream: \"{two}\", version: \"1\" }} }}
    assign_by: [{{ header: x-user }}]
routes: [{{ service: shop, timeout: 400ms }}]"
    );
    let compiled = config::compile_text(&yaml, Path::new("haldane.yaml"), &no_environment).unwrap();
    let mut routes = compiled.routes;
    for route in routes.routes_mut() {
        route.recorders =
            RecorderGrid { base: RecorderId(0), arms: 2, columns: Arc::from([0]), other: 0 };
    }
    routes
}

fn dial(routes: &RouteTable, number: u32) -> Arc<ServiceDial> {
    let weight_bp = WEIGHTS_BP[number as usize % WEIGHTS_BP.len()];
    Arc::new(ServiceDial::new(&routes.services()[0], &[weight_bp]))
}

fn table(routes: &Arc<RouteTable>, number: u32) -> LiveTable {
    LiveTable {
        routes: Arc::clone(routes),
        dials: Arc::new(Dials::new(vec![dial(routes, number)])),
        epoch: Epoch::new(number),
        asks: Arc::default(),
    }
}

/// The unit of a user, and the recorder that the weights of an epoch send it to.
fn assigned(routes: &RouteTable, user: &str, epoch: Epoch) -> (u64, RecorderId) {
    let mut headers = HeaderMap::new();
    headers.insert("x-user", HeaderValue::from_str(user).unwrap());
    let head = RequestHead {
        method: &Method::GET,
        host: "a",
        path: "/",
        query: None,
        headers: &headers,
        client_ip: [127, 0, 0, 1].into(),
        learned: None,
    };
    let dial = dial(routes, epoch.number());
    let assignment = assign(&routes.services()[0], &dial, CohortId(0), &head, 0);
    (assignment.unit, RecorderId(u32::from(assignment.arm.0)))
}

async fn client(
    number: u32,
    addr: SocketAddr,
    started: Instant,
    stop: Arc<AtomicBool>,
    told: Arc<Mutex<Vec<Told>>>,
) {
    const KINDS: [&str; 6] = ["/ok", "/ok", "/fail", "/ok", "/hang", "/abort"];
    let mut turn = number;
    while !stop.load(Ordering::SeqCst) {
        turn += 1;
        let kind = KINDS[turn as usize % KINDS.len()];
        let user = format!("{number}-{turn}");
        let sent = started.elapsed();
        let outcome = if kind == "/abort" {
            abort(addr, &user).await;
            Outcome::Aborted
        } else {
            let answer = Call::get(kind).header("x-user", &user).to(addr).await;
            match answer.status.as_u16() {
                200 => Outcome::Ok,
                500 => Outcome::Failed,
                504 => Outcome::Hung,
                other => panic!("{kind} was answered {other}"),
            }
        };
        told.lock().unwrap().push(Told { user, sent, over: started.elapsed(), outcome });
    }
}

/// Sends a request that hangs, and goes away before its timeout.
async fn abort(addr: SocketAddr, user: &str) {
    let mut stream = TcpStream::connect(addr).await.unwrap();
    let request = format!("GET /hang HTTP/1.1\r\nhost: a\r\nx-user: {user}\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut byte = [0];
    assert!(timeout(Duration::from_millis(100), stream.read(&mut byte)).await.is_err());
}

/// What the run left behind.
struct Run {
    routes: Arc<RouteTable>,
    told: Vec<Told>,
    batches: Vec<Batch>,
    /// When the table of each number was stored, and when it surely was in force.
    stored: Vec<(Duration, Duration)>,
}

async fn run() -> Run {
    let (one, two) = (moody().await, moody().await);
    let routes = Arc::new(routes(one.addr, two.addr));
    let live = Arc::new(ArcSwap::from_pointee(table(&routes, 0)));
    let started = Instant::now();
    let (sender, batches) = crossbeam_channel::unbounded();
    let (_spare, empties) = crossbeam_channel::bounded(0);
    let address = haldane::proxy::Listen::Tcp(([127, 0, 0, 1], 0).into());
    let settings = haldane::proxy::ListenerSettings::plain("edge", address);
    let listener = Listener::bind(&Arc::new(settings)).unwrap();
    let addr = listener.local_addr().unwrap();
    let (trigger, watcher) = shutdown::channel();
    let links = vec![Link { batches: sender, empties }; WORKERS];
    let inputs = Inputs {
        started,
        table: Arc::clone(&live),
        links,
        shutdown: watcher,
        resolver: Resolver::system(),
    };
    let proxy = Proxy::start(vec![listener], inputs).unwrap();
    let (stop, told) = (Arc::new(AtomicBool::new(false)), Arc::default());
    let clients: Vec<_> = (0..12)
        .map(|number| {
            let (stop, told) = (Arc::clone(&stop), Arc::clone(&told));
            tokio::spawn(client(number * 100_000, addr, started, stop, told))
        })
        .collect();
    let mut stored = vec![(Duration::ZERO, Duration::ZERO)];
    for number in 1..25 {
        sleep(Duration::from_millis(100)).await;
        let before = started.elapsed();
        live.store(Arc::new(table(&routes, number)));
        stored.push((before, started.elapsed()));
    }
    stop.store(true, Ordering::SeqCst);
    for client in clients {
        client.await.unwrap();
    }
    trigger.begin(Duration::from_secs(5));
    tokio::task::spawn_blocking(move || proxy.join()).await.unwrap();
    let told = std::mem::take(&mut *told.lock().unwrap());
    Run { routes, told, batches: batches.iter().collect(), stored }
}

/// The events of a request: assigned first, ended last, and nothing unknown between.
fn check_request(run: &Run, told: &Told, events: &[Event]) {
    let first = events[0];
    let user = &told.user;
    assert_eq!(first.kind(), Kind::Assigned, "{user}");
    assert!((2..=3).contains(&events.len()), "{user}: {events:?}");
    let Kind::Ended { outcome, .. } = events[events.len() - 1].kind() else {
        panic!("{user} did not end: {events:?}");
    };
    assert_eq!(outcome, told.outcome, "{user}");
    let ticks = Tick::at(told.sent)..=Tick::at(told.over);
    assert!(ticks.contains(&first.arrival), "{user}: {:?} outside {ticks:?}", first.arrival);
    let epoch = first.epoch();
    let (stored, _) = run.stored[epoch.number() as usize];
    assert!(stored <= told.over, "{user} was assigned by weights of the future");
    if let Some((_, replaced)) = run.stored.get(epoch.number() as usize + 1) {
        assert!(*replaced >= told.sent, "{user} was assigned by weights of the past");
    }
    let (_, recorder) = assigned(&run.routes, user, epoch);
    for event in events {
        assert_eq!((event.recorder, event.epoch()), (recorder, epoch), "{user}");
        assert_eq!(event.arrival, first.arrival, "{user}");
        // The proxy learns of an abort after its client.
        let longest = told.over - told.sent;
        let age = Duration::from_micros(event.age_us.into());
        assert!(age <= longest || outcome == Outcome::Aborted, "{user}: {age:?} of {longest:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_request_is_counted_once_in_its_tick_and_its_epoch() {
    let run = run().await;
    let mut by_unit: HashMap<u64, Vec<Event>> = HashMap::new();
    let mut ledger = Ledger::new(WORKERS);
    let keys = [0, 1].map(|id| {
        let key = ledger.register(Judging::FirstByte, None);
        ledger.bind(RecorderId(id), key);
        key
    });
    for batch in &run.batches {
        ledger.apply(batch, Tick::at(batch.through));
        for event in &batch.events {
            by_unit.entry(event.unit).or_default().push(*event);
        }
    }
    let mut reference: HashMap<(RecorderId, Tick, u32), u32> = HashMap::new();
    for told in &run.told {
        let (unit, _) = assigned(&run.routes, &told.user, Epoch::new(0));
        let events = by_unit.remove(&unit).unwrap_or_default();
        assert!(!events.is_empty(), "{} was not counted", told.user);
        check_request(&run, told, &events);
        let place = (events[0].recorder, events[0].arrival, events[0].epoch().number());
        *reference.entry(place).or_default() += 1;
    }
    assert!(by_unit.is_empty(), "counted without a client: {by_unit:?}");
    for ((recorder, tick, epoch), count) in &reference {
        let slots = ledger.slots(keys[recorder.0 as usize]).unwrap();
        let slot = slots.at(*tick).find(|slot| slot.epoch().number() == *epoch);
        assert_eq!(slot.map(|slot| slot.started()), Some(*count), "{tick:?}, epoch {epoch}");
    }
    let outcome = |outcome| run.told.iter().filter(|told| told.outcome == outcome).count();
    for (wanted, least) in
        [(Outcome::Ok, 50), (Outcome::Failed, 20), (Outcome::Hung, 20), (Outcome::Aborted, 20)]
    {
        assert!(outcome(wanted) >= least, "{} {}", outcome(wanted), wanted.label());
    }
}
