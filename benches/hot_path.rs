//! What measuring and routing cost a request: from the head of a request to the event in the
//! worker's buffer. Before anything is timed it is made sure that none of it allocates; with
//! `--test` (as `cargo test --bench hot_path` does) that is all that is looked at.

#[path = "hot_path/traffic.rs"]
mod traffic;

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion};
use haldane::{
    measure::{Event, Kind, Tick},
    routing::{ArmIndex, LiveTable, RouteTable, assign, normalise_host, normalise_path},
};
use traffic::{Requests, cohorts, live, requests, routes};

/// Events that a worker's buffer holds here; it is emptied when it is full, as a tick does.
const EVENTS: usize = 4096;

fn main() {
    assert_nothing_allocates();
    let mut criterion = Criterion::default().configure_from_args();
    whole_way(&mut criterion);
    steps(&mut criterion);
    conditions(&mut criterion);
    normalising(&mut criterion);
    criterion.final_summary();
}

/// A table and the requests that it is asked about, one after the other, over and over.
struct Scene {
    name: &'static str,
    table: LiveTable,
    requests: Requests,
}

/// The sizes that are compared: few of everything, and very many.
fn scenes() -> [Scene; 3] {
    [
        Scene {
            name: "10 routes, 2 cohorts",
            table: live(routes(1, 10), cohorts::few()),
            requests: requests(1, 10),
        },
        Scene {
            name: "10,000 routes, 100 cohorts over ten attributes",
            table: live(routes(1_000, 10), cohorts::over_ten_attributes(100)),
            requests: requests(1_000, 10),
        },
        Scene {
            name: "10,000 routes, 1,000 cohorts over ten attributes",
            table: live(routes(1_000, 10), cohorts::over_ten_attributes(1_000)),
            requests: requests(1_000, 10),
        },
    ]
}

/// What a worker does with a request before it forwards it.
fn admit(table: &LiveTable, requests: &Requests, turn: usize, events: &mut Vec<Event>) {
    let head = requests.head(turn);
    let Some(route) = table.routes.route(&head) else { return };
    let route = table.routes.route_at(route);
    let cohort = table.routes.cohort(&head);
    let service = table.routes.service(route.service);
    let coin = (turn as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let assignment = assign(service, table.dials.of(route.service), cohort, &head, coin);
    if events.len() == events.capacity() {
        events.clear();
    }
    let mut event = Event::new(Kind::Assigned, table.epoch, assignment.excluded);
    event.unit = assignment.unit;
    event.recorder = route.recorders.at(cohort, assignment.arm);
    event.arrival = Tick(turn as u32);
    events.push(event);
}

fn assert_nothing_allocates() {
    let counted = allocation_counter::measure(|| drop(black_box(vec![0u8; 16])));
    assert_eq!(counted.count_total, 1, "allocations are not counted");
    for Scene { name, table, requests } in scenes() {
        let mut events = Vec::with_capacity(EVENTS);
        let mut on_canaries = 0;
        let measured = allocation_counter::measure(|| {
            for turn in 0..2 * EVENTS {
                admit(&table, &requests, turn, &mut events);
                let event = events.last().expect("every request finds a route");
                on_canaries += usize::from(event.recorder.0 % 2 == 1);
            }
        });
        assert_eq!(measured.count_total, 0, "{name}: the request path allocates");
        assert!(on_canaries > 0, "{name}: no request went to a canary");
        assert!(
            requests.len() > 0 && (0..requests.len()).all(|turn| requests.is_routed(turn, &table))
        );
    }
}

/// Routing, cohort, assignment and the event, together.
fn whole_way(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("route, cohort, assign, event");
    for Scene { name, table, requests } in scenes() {
        let mut events = Vec::with_capacity(EVENTS);
        let mut turn = 0;
        group.bench_function(name, |bencher| {
            bencher.iter(|| {
                turn += 1;
                admit(&table, &requests, turn, black_box(&mut events));
            });
        });
    }
    group.finish();
}

/// Each step alone.
fn steps(criterion: &mut Criterion) {
    for Scene { name, table, requests } in scenes() {
        let mut group = criterion.benchmark_group(name);
        let mut turn = 0;
        let mut next = || {
            turn += 1;
            requests.head(turn)
        };
        group.bench_function("route", |bencher| bencher.iter(|| table.routes.route(&next())));
        group.bench_function("cohort", |bencher| bencher.iter(|| table.routes.cohort(&next())));
        let service = &table.routes.services()[0];
        let dial = table.dials.of(haldane::routing::ServiceId(0));
        group.bench_function("assign", |bencher| {
            bencher
                .iter(|| assign(service, dial, Default::default(), &next(), 0).arm != ArmIndex(1));
        });
        group.finish();
    }
}

/// What cohorts cost that cannot be tabled, or whose attribute is dear to read.
fn conditions(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("cohorts");
    let requests = requests(1, 10);
    for (name, cohorts) in cohorts::dear() {
        for count in [1, 10] {
            let cohorts = cohorts(count);
            let table = RouteTable::new(traffic::parts(routes(1, 1), cohorts));
            let mut turn = 0;
            group.bench_function(BenchmarkId::new(name, count), |bencher| {
                bencher.iter(|| {
                    turn += 1;
                    table.cohort(&requests.head(turn))
                });
            });
        }
    }
    group.finish();
}

/// Bringing host and path into their normal form, which goes before routing.
fn normalising(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("normalise");
    for path in ["/cart/items/8431/details.html", "/cart/%7Euser/../items/%e9t%c3%a9"] {
        group.bench_function(BenchmarkId::new("path", path), |bencher| {
            bencher.iter(|| normalise_path(black_box(path)).is_ok());
        });
    }
    for host in ["shop.example.com:8080", "Shop.Example.COM."] {
        group.bench_function(BenchmarkId::new("host", host), |bencher| {
            bencher.iter(|| normalise_host(black_box(host)).is_ok());
        });
    }
    group.finish();
}
