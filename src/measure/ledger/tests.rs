//! The ledger against a reference that computes every slot from the list of requests.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;
use crate::measure::{Epoch, Head, OVERHEAD_BUCKETS, Outcome, WAIT_CREDIT_US};

const DEADLINES_US: [u32; 3] = [400_000, 50_000, 1_000_000];
const FAILED_BY_US: [u32; 2] = [100_000, 1_200_000];
const ABORTED_EARLY_US: u32 = 50_000;
const WORKERS: usize = 3;

#[derive(Clone, Debug)]
struct Request {
    recorder: usize,
    worker: usize,
    arrival_us: u64,
    epoch: u32,
    unit: u64,
    excluded: bool,
    wait_us: u32,
    first_byte_us: u32,
    age_us: u32,
    outcome: Option<Outcome>,
    streams: bool,
    failed_head: bool,
}

fn request() -> impl Strategy<Value = Request> {
    let place = (0_usize..2, 0..WORKERS, 0_u64..3_000_000, 0_u32..2, 0_u64..4);
    let times = (0_u32..300_000, 0_u32..1_500_000, 0_u32..1_000_000);
    let end = (prop::option::weighted(0.9, 0_usize..5), any::<bool>(), any::<bool>());
    (place, times, end, prop::bool::weighted(0.1)).prop_map(|(place, times, end, excluded)| {
        let (recorder, worker, arrival_us, epoch, unit) = place;
        let (wait_us, first_byte_us, body_us) = times;
        let (outcome, streams, failed_head) = end;
        let outcome = outcome.map(|index| Outcome::ALL[index]);
        let streams = streams && recorder == 0;
        let failed_head = failed_head && streams;
        let outcome = outcome.map(|outcome| if failed_head { Outcome::Failed } else { outcome });
        let body_us = if streams { body_us } else { 0 };
        Request {
            recorder,
            worker,
            arrival_us,
            epoch: epoch + (arrival_us / 1_000_000) as u32,
            unit,
            excluded,
            wait_us,
            first_byte_us,
            age_us: first_byte_us + body_us,
            outcome,
            streams,
            failed_head,
        }
    })
}

impl Request {
    fn event(&self, kind: Kind, age_us: u32) -> (u64, Event) {
        let mut event = Event::new(kind, Epoch::new(self.epoch), self.excluded);
        event.unit = self.unit;
        event.recorder = RecorderId(self.recorder as u32);
        event.arrival = Tick::at(Duration::from_micros(self.arrival_us));
        if age_us > 0 {
            event.age_us = age_us;
            event.first_byte_us = self.first_byte_us.min(age_us);
            event = event.with_wait(self.wait_us);
        }
        (self.arrival_us + u64::from(age_us), event)
    }

    fn events(&self) -> Vec<(u64, Event)> {
        let mut events = vec![self.event(Kind::Assigned, 0)];
        let mut head = Head::Untold;
        if self.streams {
            let answered = Kind::Answered { failed: self.failed_head };
            events.push(self.event(answered, self.first_byte_us));
            head = if self.failed_head { Head::Failed } else { Head::Good };
        }
        if let Some(outcome) = self.outcome {
            events.push(self.event(Kind::Ended { outcome, head }, self.age_us));
        }
        events
    }

    fn judged(&self, latency_us: u32) -> u32 {
        latency_us.saturating_sub(self.wait_us.min(WAIT_CREDIT_US))
    }

    /// When it was done, by the judged clock.
    fn done_us(&self) -> Option<u32> {
        if self.streams {
            return Some(self.judged(self.first_byte_us));
        }
        matches!(self.outcome?, Outcome::Ok | Outcome::Failed).then(|| self.judged(self.age_us))
    }

    fn failed_us(&self) -> Option<u32> {
        if self.failed_head {
            return Some(self.judged(self.first_byte_us));
        }
        let body_broke = self.streams && self.outcome? == Outcome::Hung;
        (body_broke || self.outcome? == Outcome::Failed).then(|| self.judged(self.age_us))
    }

    fn left_out(&self) -> bool {
        !self.streams
            && matches!(self.outcome, Some(Outcome::Aborted | Outcome::Local))
            && self.judged(self.age_us) < ABORTED_EARLY_US
    }
}

/// By recorder, tick, epoch, whether keyed.
type Key = (usize, u32, u32, bool);

#[derive(Debug, Default, PartialEq, Eq)]
struct Expected {
    started: u32,
    left_out: u32,
    slow: [u32; 3],
    failed: [u32; 2],
    slow_units: [BTreeSet<u64>; 3],
    failed_units: [BTreeSet<u64>; 2],
}

fn reference(requests: &[Request]) -> BTreeMap<Key, Expected> {
    let mut slots = BTreeMap::<Key, Expected>::new();
    for request in requests.iter().filter(|request| !request.excluded) {
        let tick = (request.arrival_us / 100_000) as u32;
        let keyed = request.unit != 0;
        let slot = slots.entry((request.recorder, tick, request.epoch, keyed)).or_default();
        slot.started += 1;
        slot.left_out += u32::from(request.left_out());
        for (definition, deadline_us) in DEADLINES_US.into_iter().enumerate() {
            let done = request.done_us().is_some_and(|at_us| at_us <= deadline_us);
            if !done && !request.left_out() {
                slot.slow[definition] += 1;
                if keyed {
                    slot.slow_units[definition].insert(request.unit);
                }
            }
        }
        for (age, until_us) in FAILED_BY_US.into_iter().enumerate() {
            if request.failed_us().is_some_and(|at_us| at_us <= until_us) {
                slot.failed[age] += 1;
                if keyed {
                    slot.failed_units[age].insert(request.unit);
                }
            }
        }
    }
    slots
}

fn ledger() -> (Ledger, [RecorderKey; 2]) {
    let mut ledger = Ledger::new(WORKERS);
    let keys = [Judging::FirstByte, Judging::Total].map(|judging| ledger.register(judging, None));
    for (id, key) in keys.into_iter().enumerate() {
        ledger.bind(RecorderId(id as u32), key);
        let deadlines = Deadlines::new(&DEADLINES_US, FAILED_BY_US, ABORTED_EARLY_US);
        ledger.set_deadlines(key, Tick(0), deadlines);
    }
    (ledger, keys)
}

fn batch(worker: usize, through_us: u64, events: Vec<Event>) -> Batch {
    Batch {
        worker,
        through: Duration::from_micros(through_us),
        events,
        overflowed: false,
        overhead: [0; OVERHEAD_BUCKETS],
        overhead_sum_us: 0,
        report: None,
    }
}

/// The batches of all workers, cut at `cuts` (and at the end), in an order in which the workers
/// take turns.
fn batches(requests: &[Request], cuts: &[Vec<u64>]) -> Vec<Batch> {
    let end_us = 10_000_000;
    let mut all = Vec::new();
    for (worker, cuts) in cuts.iter().enumerate() {
        let mine = requests.iter().filter(|request| request.worker == worker);
        let mut events: Vec<_> = mine.flat_map(Request::events).collect();
        events.sort_by_key(|(at_us, _)| *at_us);
        let mut cuts = cuts.clone();
        cuts.sort_unstable();
        cuts.push(end_us);
        let mut events = events.into_iter().peekable();
        for cut in cuts {
            let mut part = Vec::new();
            while let Some((_, event)) = events.next_if(|(at_us, _)| *at_us <= cut) {
                part.push(event);
            }
            all.push(batch(worker, cut, part));
        }
    }
    all.sort_by_key(|batch| batch.through);
    all
}

/// Compares what is final by the watermark with the reference.
fn check_final(ledger: &Ledger, keys: &[RecorderKey], expected: &BTreeMap<Key, Expected>) {
    let watermark = ledger.watermark();
    let final_at = |tick: u32, age_us: u32| {
        watermark > Tick(tick).end() + Duration::from_micros(u64::from(age_us + WAIT_CREDIT_US))
    };
    let mut seen = BTreeSet::new();
    for (recorder, key) in keys.iter().enumerate() {
        let Some(slots) = ledger.slots(*key) else { continue };
        for tick in 0..40 {
            for slot in slots.at(Tick(tick)) {
                let place = (recorder, tick, slot.epoch().number(), slot.keyed());
                seen.insert(place);
                let expected = &expected[&place];
                for (definition, deadline_us) in DEADLINES_US.into_iter().enumerate() {
                    if final_at(tick, deadline_us) {
                        assert_eq!(slot.started(), expected.started);
                        assert_eq!(slot.left_out(), expected.left_out);
                        assert_eq!(slot.slow(definition), expected.slow[definition], "{place:?}");
                        assert_eq!(
                            slot.slow_units(definition).collect::<BTreeSet<_>>(),
                            expected.slow_units[definition]
                        );
                    }
                }
                for (age, until_us) in FAILED_BY_US.into_iter().enumerate() {
                    if final_at(tick, until_us) {
                        assert_eq!(slot.failed()[age], expected.failed[age]);
                        assert_eq!(
                            slot.failed_units(age).collect::<BTreeSet<_>>(),
                            expected.failed_units[age]
                        );
                    }
                }
            }
        }
    }
    for place in expected.keys().filter(|place| final_at(place.1, 0)) {
        assert!(seen.contains(place), "{place:?} has no slot");
    }
}

proptest! {
    #[test]
    fn counts_are_those_of_the_requests_however_batches_are_cut(
        requests in prop::collection::vec(request(), 0..120),
        cuts in prop::collection::vec(prop::collection::vec(0_u64..5_000_000, 0..30), WORKERS),
    ) {
        let expected = reference(&requests);
        let (mut ledger, keys) = ledger();
        for batch in batches(&requests, &cuts) {
            ledger.apply(&batch, Tick::at(batch.through));
            // A worker is never late here: the time is that of the slowest one.
            ledger.observe(ledger.progress.slowest());
            check_final(&ledger, &keys, &expected);
        }
        for (recorder, key) in keys.into_iter().enumerate() {
            let mine: Vec<_> = requests.iter().filter(|one| one.recorder == recorder).collect();
            let totals = ledger.totals(key);
            prop_assert_eq!(totals.started, mine.len() as u64);
            prop_assert_eq!(
                totals.in_flight(),
                mine.iter().filter(|one| one.outcome.is_none()).count() as u64
            );
            for outcome in Outcome::ALL {
                let ended = mine.iter().filter(|one| one.outcome == Some(outcome)).count() as u64;
                prop_assert_eq!(totals.ended(outcome), ended);
            }
        }
        ledger.retire();
        prop_assert_eq!(ledger.counters().unknown_recorder, 0);
        prop_assert_eq!(ledger.counters().past_every_deadline, 0);
    }
}

#[test]
fn recorders_beyond_the_limit_count_into_other() {
    let mut ledger = Ledger::new(1);
    let other = ledger.register(Judging::FirstByte, None);
    let count = MAX_WITH_SLOTS as u32 + 2;
    let events = (0..count)
        .map(|id| {
            let key = ledger.register(Judging::FirstByte, Some(other));
            ledger.bind(RecorderId(id), key);
            let mut event = Event::new(Kind::Assigned, Epoch::new(1), false);
            event.recorder = RecorderId(id);
            event
        })
        .collect();
    ledger.apply(&batch(0, 0, events), Tick(0));
    let started = ledger.slots(other).unwrap().at(Tick(0)).map(|slot| slot.started()).sum::<u32>();
    assert_eq!(started, 2);
    assert_eq!(ledger.counters().spilled_recorders, 2);
    assert_eq!(ledger.totals(other).started, 0, "totals stay where they are");
}

#[test]
fn a_new_id_of_the_same_recorder_goes_on_counting() {
    let (mut ledger, keys) = ledger();
    ledger.bind(RecorderId(77), keys[0]);
    let mut event = Event::new(Kind::Assigned, Epoch::new(1), false);
    event.recorder = RecorderId(77);
    ledger.apply(&batch(0, 0, vec![event]), Tick(0));
    let ended = Kind::Ended { outcome: Outcome::Ok, head: Head::Untold };
    ledger.apply(&batch(0, 0, vec![Event::new(ended, Epoch::new(1), false)]), Tick(0));
    assert_eq!(ledger.totals(keys[0]).started, 1);
    assert_eq!(ledger.totals(keys[0]).in_flight(), 0);
}

#[test]
fn an_unknown_id_is_counted_as_such() {
    let mut ledger = Ledger::new(1);
    let events = vec![Event::new(Kind::Assigned, Epoch::new(1), false)];
    ledger.apply(&batch(0, 0, events), Tick(0));
    assert_eq!(ledger.counters().unknown_recorder, 1);
}

#[test]
fn a_released_recorder_keeps_its_totals_and_makes_room() {
    let mut ledger = Ledger::new(1);
    let other = ledger.register(Judging::FirstByte, None);
    let key = ledger.register(Judging::FirstByte, Some(other));
    ledger.bind(RecorderId(0), key);
    let ended = Kind::Ended { outcome: Outcome::Ok, head: Head::Untold };
    let assigned = Event::new(Kind::Assigned, Epoch::new(1), false);
    let mut sticky = assigned;
    sticky.unit = 5;
    ledger.apply(&batch(0, 0, vec![assigned, sticky]), Tick(0));
    assert_eq!(ledger.with_slots, 1);
    ledger.release(key);
    assert_eq!(ledger.with_slots, 0);
    assert!(ledger.latencies(key).is_none() && ledger.slots(key).is_none());
    ledger.apply(&batch(0, 0, vec![Event::new(ended, Epoch::new(1), false)]), Tick(0));
    assert_eq!((ledger.totals(key).started, ledger.totals(key).in_flight()), (2, 1));
    assert_eq!(ledger.durations(key).buckets[0], 1);
    ledger.release(key);
    assert_eq!(ledger.totals(key).ended(Outcome::Ok), 1);
}
