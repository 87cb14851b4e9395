//! What an event costs on the control thread: counting it into totals, histograms and slots,
//! with the watermark and the retiring of slots that go with it. Criterion prints the time per
//! event as the inverse of its throughput.

use std::{collections::VecDeque, hint::black_box, time::Duration};

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use haldane::measure::{
    Batch, Deadlines, Epoch, Event, Head, Judging, Kind, Ledger, OVERHEAD_BUCKETS, Outcome,
    RecorderId, Tick,
};

/// Ten routes, three cohorts, two arms.
const RECORDERS: u32 = 60;
const REQUESTS_PER_TICK: usize = 1000;
const DEADLINES_US: [u32; 8] = [20_000, 40_000, 60_000, 150_000, 600_000, 50_000, 190_000, 250_000];

/// Requests that are out, and the events that they write tick by tick.
struct Traffic {
    random: u64,
    tick: u32,
    sticky: bool,
    /// By the ticks from now in which they end.
    ends: VecDeque<Vec<Event>>,
}

impl Traffic {
    fn new(sticky: bool) -> Self {
        let ends = (0..16).map(|_| Vec::new()).collect();
        Self { random: 0x9e37_79b9_7f4a_7c15, tick: 0, sticky, ends }
    }

    fn next(&mut self) -> u64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        self.random
    }

    /// A latency of a median of 16 ms with a long tail, below 1.5 s.
    fn latency_us(&mut self) -> u32 {
        let random = self.next();
        (1_000 << (random.count_ones() / 4).min(10)).min(1_400_000) + (random % 1_000) as u32
    }

    fn batch(&mut self) -> Batch {
        let mut events = self.ends.pop_front().unwrap_or_default();
        self.ends.push_back(Vec::new());
        for _ in 0..REQUESTS_PER_TICK {
            let random = self.next();
            let kind = Kind::Ended { outcome: Outcome::Ok, head: Head::Untold };
            let [mut begin, mut end] =
                [Kind::Assigned, kind].map(|kind| Event::new(kind, Epoch::new(1), false));
            for event in [&mut begin, &mut end] {
                event.recorder = RecorderId(random as u32 % RECORDERS);
                event.arrival = Tick(self.tick);
                event.unit = if self.sticky { random | 1 } else { 0 };
            }
            end.age_us = self.latency_us();
            end.first_byte_us = end.age_us;
            end = end.with_wait(if random.is_multiple_of(8) { 300 } else { 0 });
            events.push(begin);
            let ticks = (end.age_us / 100_000) as usize;
            self.ends[ticks].push(end);
        }
        self.tick += 1;
        Batch {
            worker: 0,
            through: Tick(self.tick - 1).end(),
            events,
            overflowed: false,
            overhead: [0; OVERHEAD_BUCKETS],
            overhead_sum_us: 0,
            report: None,
        }
    }
}

fn ledger() -> Ledger {
    let mut ledger = Ledger::new(1);
    for id in 0..RECORDERS {
        let key = ledger.register(Judging::FirstByte, None);
        ledger.bind(RecorderId(id), key);
        let deadlines = Deadlines::new(&DEADLINES_US, [40_000, 600_000], 20_000);
        ledger.set_deadlines(key, Tick(0), deadlines);
    }
    ledger
}

fn apply(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("ledger");
    // As many requests begin as end.
    group.throughput(Throughput::Elements(2 * REQUESTS_PER_TICK as u64));
    for (name, sticky) in [("coin", false), ("sticky", true)] {
        let (mut ledger, mut traffic) = (ledger(), Traffic::new(sticky));
        group.bench_function(name, |bencher| {
            let routine = |batch: Batch| {
                let now = batch.through + Duration::from_millis(1);
                ledger.apply(black_box(&batch), Tick::at(now));
                ledger.observe(now);
                if batch.through.subsec_millis() == 0 {
                    ledger.retire();
                }
                batch
            };
            bencher.iter_batched(|| traffic.batch(), routine, BatchSize::PerIteration);
        });
    }
    group.finish();
}

criterion_group!(benches, apply);
criterion_main!(benches);
