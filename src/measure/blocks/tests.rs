//! Which requests come into which block.

use super::*;
use crate::measure::{
    Batch, Deadlines, Event, Head, Judging, Kind, OVERHEAD_BUCKETS, Outcome, RecorderId,
};

/// One recorder per arm, judged by 50 ms and failures up to 100 ms; two arms, one worker.
struct Scene {
    ledger: Ledger,
    builder: BlockBuilder,
    events: Vec<(u32, Event)>,
}

const DONE_US: u32 = 1_000;
const SLOW_US: u32 = 60_000;

impl Scene {
    fn new(length: u32) -> Self {
        let mut ledger = Ledger::new(1);
        let mut members = Vec::new();
        for arm in 0..2 {
            let key = ledger.register(Judging::FirstByte, None);
            ledger.bind(RecorderId(u32::from(arm)), key);
            ledger.set_deadlines(key, Tick(0), Deadlines::new(&[50_000], [100_000; 2], 0));
            members.push(Member { key, arm, stratum: 0, part: 0 });
        }
        let bank = Bank { slow: vec![0], failed: vec![0], refused: false };
        let mut builder = BlockBuilder::new(vec![bank], Tick(0), Epoch::new(1), length);
        builder.set_members(members);
        Self { ledger, builder, events: Vec::new() }
    }

    fn request(&mut self, arm: u32, tick: u32, epoch: u32, age_us: u32, unit: u64) {
        let ended = Kind::Ended { outcome: Outcome::Ok, head: Head::Untold };
        for kind in [Kind::Assigned, ended] {
            let mut event = Event::new(kind, Epoch::new(epoch), false);
            event.recorder = RecorderId(arm);
            event.arrival = Tick(tick);
            event.unit = unit;
            event.age_us = age_us;
            event.first_byte_us = age_us;
            self.events.push((tick, event));
        }
    }

    /// Applies what happened up to the end of a tick; folds.
    fn through(&mut self, tick: u32) -> Vec<Block> {
        let events = self.events.extract_if(.., |(at, _)| *at <= tick).map(|(_, event)| event);
        let through = Tick(tick).end();
        let batch = Batch {
            worker: 0,
            through,
            events: events.collect(),
            overflowed: false,
            overhead: [0; OVERHEAD_BUCKETS],
            overhead_sum_us: 0,
            report: None,
        };
        self.ledger.apply(&batch, Tick(tick));
        self.ledger.observe(through);
        self.builder.fold(&self.ledger)
    }
}

/// First and last tick, and requests by cell.
fn shape(blocks: &[Block]) -> Vec<(u32, u32, Vec<u64>)> {
    let started = |block: &Block| block.cells.iter().map(|cell| cell.started).collect();
    blocks.iter().map(|block| (block.first.0, block.last.0, started(block))).collect()
}

#[test]
fn a_block_is_complete_when_its_last_slot_is_final() {
    let mut scene = Scene::new(5);
    for tick in 0..10 {
        scene.request(0, tick, 1, DONE_US, 0);
        scene.request(1, tick, 1, if tick % 2 == 0 { SLOW_US } else { DONE_US }, 0);
    }
    assert_eq!(scene.through(7), [], "the credit and the ages of tick 4 end in tick 8");
    let blocks = scene.through(8);
    assert_eq!(shape(&blocks), [(0, 4, vec![5, 5])]);
    let slow: Vec<_> = blocks[0].cells.iter().map(|cell| cell.slow[0].count).collect();
    assert_eq!(slow, [0, 3]);
    assert_eq!(shape(&scene.through(20)), [(5, 9, vec![5, 5])]);
}

#[test]
fn a_changing_tick_gives_each_epoch_its_own_requests() {
    let mut scene = Scene::new(10);
    scene.request(0, 3, 1, DONE_US, 0);
    scene.builder.reweigh(Epoch::new(2), Tick(4), Cut::Scheduled);
    scene.request(0, 4, 1, DONE_US, 0);
    scene.request(0, 5, 1, DONE_US, 0);
    scene.request(0, 3, 2, DONE_US, 0);
    scene.request(0, 4, 2, DONE_US, 0);
    scene.request(0, 14, 2, DONE_US, 0);
    let blocks = scene.through(30);
    let epochs: Vec<_> = blocks.iter().map(|block| block.epoch.number()).collect();
    assert_eq!(epochs, [1, 2, 2]);
    assert_eq!(shape(&blocks), [(0, 5, vec![3]), (3, 4, vec![2]), (14, 14, vec![1])]);
    assert_eq!(scene.builder.dropped(), 0);
}

#[test]
fn requests_of_the_same_weights_share_a_block_over_epochs() {
    let mut scene = Scene::new(5);
    scene.request(0, 1, 1, DONE_US, 0);
    scene.builder.same_weights(Epoch::new(2));
    scene.request(0, 2, 2, DONE_US, 0);
    assert_eq!(shape(&scene.through(10)), [(0, 2, vec![2])]);
}

#[test]
fn a_forced_cut_drops_the_block_that_it_cuts_and_no_other() {
    let mut scene = Scene::new(5);
    for tick in 0..12 {
        scene.request(0, tick, 1, DONE_US, 0);
    }
    scene.builder.reweigh(Epoch::new(2), Tick(12), Cut::Forced);
    scene.request(0, 12, 2, DONE_US, 0);
    let blocks = scene.through(40);
    assert_eq!(shape(&blocks), [(0, 4, vec![5]), (5, 9, vec![5]), (12, 12, vec![1])]);
    assert_eq!(scene.builder.dropped(), 1);
}

#[test]
fn another_length_begins_with_the_next_block() {
    let mut scene = Scene::new(5);
    for tick in 0..14 {
        scene.request(0, tick, 1, DONE_US, 0);
    }
    scene.builder.restart(Tick(8), 3);
    let blocks = scene.through(40);
    let expected = [(0, 4, vec![5]), (5, 7, vec![3]), (8, 10, vec![3]), (11, 13, vec![3])];
    assert_eq!(shape(&blocks), expected);
}

#[test]
fn sticky_requests_are_a_stratum_of_their_own_and_name_their_units_once() {
    let mut scene = Scene::new(5);
    scene.request(0, 0, 1, SLOW_US, 7);
    scene.request(0, 1, 1, SLOW_US, 7);
    scene.request(0, 1, 1, SLOW_US, 3);
    scene.request(0, 1, 1, DONE_US, 9);
    scene.request(0, 1, 1, SLOW_US, 0);
    let blocks = scene.through(10);
    let cells = &blocks[0].cells;
    assert_eq!((cells[0].keyed, cells[0].started, cells[0].slow[0].count), (false, 1, 1));
    assert_eq!((cells[1].keyed, cells[1].started, cells[1].slow[0].count), (true, 4, 3));
    assert_eq!(cells[1].slow[0].units, [3, 7]);
}

#[test]
fn dropped_events_void_the_blocks_that_they_may_have_touched() {
    let mut scene = Scene::new(5);
    scene.request(0, 0, 1, DONE_US, 0);
    scene.request(0, 1, 1, DONE_US, 0);
    let batch = Batch {
        worker: 0,
        through: Duration::from_millis(100),
        events: Vec::new(),
        overflowed: true,
        overhead: [0; OVERHEAD_BUCKETS],
        overhead_sum_us: 0,
        report: None,
    };
    scene.ledger.apply(&batch, Tick(0));
    let blocks = scene.through(10);
    assert_eq!(blocks.iter().map(|block| block.void).collect::<Vec<_>>(), [true]);
}
