//! Trials of a promotion. With a coin per request every request is one; among sticky users only
//! the first second in which a unit shows in a stage: bad if any of its requests in it is.

use std::{
    collections::{HashSet, VecDeque},
    hash::BuildHasherDefault,
};

use super::{Split, pairs};
use crate::{
    judge::{Coin, TrialCounts, TrialStratum},
    measure::{Bad, Block, Cell, MAX_UNITS, Tick, UnitHasher},
};

/// Units that came in this stage.
#[derive(Debug, Default)]
pub(super) struct Newcomers {
    seen: HashSet<u64, BuildHasherDefault<UnitHasher>>,
    /// In the order of their coming, until the block of that time is counted.
    waiting: VecDeque<Newcomer>,
}

#[derive(Clone, Copy, Debug)]
struct Newcomer {
    arrival: Tick,
    unit: u64,
    arm: Arm,
}

/// Where a unit's requests go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Arm {
    /// As in [`Subject`](super::Subject): cohorts with the same weights.
    pub stratum: u16,
    /// The canary rather than the baseline.
    pub is_canary: bool,
}

impl Newcomers {
    /// Takes notice of a keyed request. Once the table is full nobody is new any more.
    pub(super) fn note(&mut self, unit: u64, arrival: Tick, arm: Arm) {
        if self.seen.len() < MAX_UNITS && self.seen.insert(unit) {
            self.waiting.push_back(Newcomer { arrival, unit, arm });
        }
    }

    /// A stage begins.
    pub(super) fn clear(&mut self) {
        self.seen.clear();
        self.waiting.clear();
    }

    /// The trials of a block.
    pub(super) fn trials(&mut self, block: &Block, splits: &[Split]) -> Vec<TrialStratum> {
        let newcomers = self.take(block);
        let mut strata = Vec::new();
        for (number, keyed, cells) in pairs(block) {
            let Some(split) = splits.get(usize::from(number)) else { continue };
            let coin = Coin::Drawn { share: split.omega() };
            let [baseline, canary] = [false, true].map(|is_canary| {
                let arm = Arm { stratum: number, is_canary };
                match cells[usize::from(is_canary)] {
                    None => TrialCounts::default(),
                    Some(cell) if keyed => of_units(cell, &newcomers, arm),
                    Some(cell) => of_requests(cell),
                }
            });
            strata.push(TrialStratum { coin, canary, baseline });
        }
        strata
    }

    /// The units that came within a block, ascending.
    fn take(&mut self, block: &Block) -> Vec<(u64, Arm)> {
        let mut taken = Vec::new();
        while let Some(newcomer) = self.waiting.front()
            && newcomer.arrival <= block.last
        {
            if newcomer.arrival >= block.first {
                taken.push((newcomer.unit, newcomer.arm));
            }
            self.waiting.pop_front();
        }
        taken.sort_unstable_by_key(|(unit, _)| *unit);
        taken
    }
}

fn of_requests(cell: &Cell) -> TrialCounts {
    let slow = |place: usize| cell.slow.get(place).map_or(0, |bad| bad.count);
    TrialCounts {
        started: cell.started,
        failed: cell.failed.first().map_or(0, |bad| bad.count),
        beyond_margin: [slow(0), slow(1), 0],
        ..TrialCounts::default()
    }
}

/// The newcomers of a cell and those of them that were bad.
fn of_units(cell: &Cell, newcomers: &[(u64, Arm)], arm: Arm) -> TrialCounts {
    let is_new = |unit: &u64| {
        let place = newcomers.binary_search_by_key(unit, |(unit, _)| *unit);
        place.is_ok_and(|place| newcomers[place].1 == arm)
    };
    let new = |bad: Option<&Bad>| {
        bad.map_or(0, |bad| bad.units.iter().filter(|unit| is_new(unit)).count() as u64)
    };
    TrialCounts {
        started: newcomers.iter().filter(|(_, other)| *other == arm).count() as u64,
        failed: new(cell.failed.first()),
        beyond_margin: [new(cell.slow.first()), new(cell.slow.get(1)), 0],
        ..TrialCounts::default()
    }
}
