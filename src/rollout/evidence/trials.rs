//! Trials of a promotion. With a coin per request every request is one; among sticky users only
//! the first second in which a unit shows in a stage: bad if any of its requests in it is.

use std::{
    collections::{HashSet, VecDeque},
    hash::BuildHasherDefault,
};

use serde::{Deserialize, Serialize};

use super::{
    Newcomers, Pair, Split, pairs,
    yardstick::{MARGIN, SHIFTED},
};
use crate::{
    judge::{Coin, SHIFT_COUNT, TrialCounts, TrialStratum},
    measure::{Bad, Block, Cell, MAX_UNITS, Tick, UnitHasher},
};

/// One unit in so many is in the sample of the check of the shares. Its low bits choose; the arm
/// is chosen by the high ones.
const SAMPLE: u64 = 64;

/// Units of the sample that are remembered; further ones are not checked.
const MOST_CHECKED: usize = 1 << 18;

/// A unit is a keyed hash already, and needs no other one.
type UnitSet = HashSet<u64, BuildHasherDefault<UnitHasher>>;

/// Units that came in this stage.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct SeenUnits {
    #[serde(with = "sorted")]
    seen: UnitSet,
    /// Units of the stage by arm: baseline, canary.
    by_arm: [u64; 2],
    /// Units of the sample whose assignment was checked in this rollout.
    #[serde(with = "sorted")]
    checked: UnitSet,
    /// In the order of their coming, until the block of that time is counted.
    waiting: VecDeque<Newcomers>,
}

/// Where a unit's requests go.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Arm {
    /// As in [`Source`](super::Source): cohorts with the same weights.
    pub stratum: u16,
    /// The canary rather than the baseline.
    pub is_canary: bool,
}

/// Units that were noted since the last tick.
#[derive(Debug, Default)]
pub(super) struct Noted {
    units: UnitSet,
    inputs: Vec<(Tick, Arm, u64)>,
}

impl Noted {
    /// Notes a unit that is not known yet.
    pub(super) fn note(&mut self, seen: &SeenUnits, unit: u64, arrival: Tick, arm: Arm) {
        if !seen.seen.contains(&unit) && self.units.insert(unit) {
            self.inputs.push((arrival, arm, unit));
        }
    }

    pub(super) fn clear(&mut self) {
        self.units.clear();
        self.inputs.clear();
    }

    /// All of them, by arrival and arm.
    pub(super) fn take(&mut self) -> Vec<Newcomers> {
        self.units.clear();
        self.inputs.sort_unstable();
        let mut groups: Vec<Newcomers> = Vec::new();
        for (arrival, Arm { stratum, is_canary }, unit) in self.inputs.drain(..) {
            let same = |group: &&mut Newcomers| {
                (group.arrival, group.stratum, group.is_canary) == (arrival, stratum, is_canary)
            };
            match groups.last_mut().filter(same) {
                Some(group) => group.units.push(unit),
                None => groups.push(Newcomers { arrival, stratum, is_canary, units: vec![unit] }),
            }
        }
        groups
    }
}

impl SeenUnits {
    /// Takes notice of units. Once the table is full nobody is new any more. Returns, by stratum,
    /// the units of a fixed sample whose side was never looked at before, of baseline and canary:
    /// counts of requests would not do for the check of the shares, for users differ in theirs.
    pub(super) fn note(&mut self, newcomers: &[Newcomers]) -> Vec<(u16, [u64; 2])> {
        let mut checked: Vec<(u16, [u64; 2])> = Vec::new();
        for group in newcomers {
            let mut group = group.clone();
            let seen = &mut self.seen;
            group.units.retain(|unit| seen.len() < MAX_UNITS && seen.insert(*unit));
            let arm = usize::from(group.is_canary);
            self.by_arm[arm] += group.units.len() as u64;
            let sample = group.units.iter().filter(|unit| unit.is_multiple_of(SAMPLE));
            let checked_ever = &mut self.checked;
            let is_fresh =
                |unit: &&u64| checked_ever.len() < MOST_CHECKED && checked_ever.insert(**unit);
            let fresh = sample.filter(is_fresh).count() as u64;
            if fresh > 0 {
                let place = checked.iter().position(|(stratum, _)| *stratum == group.stratum);
                let place = place.unwrap_or_else(|| {
                    checked.push((group.stratum, [0; 2]));
                    checked.len() - 1
                });
                checked[place].1[arm] += fresh;
            }
            if !group.units.is_empty() {
                self.waiting.push_back(group);
            }
        }
        checked
    }

    pub(super) const fn by_arm(&self) -> [u64; 2] {
        self.by_arm
    }

    pub(super) fn contains(&self, unit: u64) -> bool {
        self.seen.contains(&unit)
    }

    /// A stage begins.
    pub(super) fn clear(&mut self) {
        self.seen.clear();
        self.by_arm = [0; 2];
        self.waiting.clear();
    }

    /// The blocks of those that wait are lost.
    pub(super) fn forget_waiting(&mut self) {
        self.waiting.clear();
    }

    /// The trials of a block.
    pub(super) fn trials(&mut self, block: &Block, splits: &[Split]) -> Vec<TrialStratum> {
        let newcomers = self.take(block);
        let mut strata = Vec::new();
        for Pair { stratum: number, keyed, arms } in pairs(block) {
            let Some(split) = splits.get(usize::from(number)) else { continue };
            let coin = Coin::Drawn { share: split.omega() };
            let counts = |is_canary: bool| {
                let arm = Arm { stratum: number, is_canary };
                let cells = &arms[usize::from(is_canary)];
                if cells.is_empty() {
                    TrialCounts::default()
                } else if keyed {
                    of_units(cells, &newcomers, arm)
                } else {
                    of_requests(cells)
                }
            };
            strata.push(TrialStratum { coin, canary: counts(true), baseline: counts(false) });
        }
        strata
    }

    /// The units that came within a block, ascending.
    fn take(&mut self, block: &Block) -> Vec<(u64, Arm)> {
        let mut taken = Vec::new();
        while let Some(group) = self.waiting.front()
            && group.arrival <= block.last
        {
            if group.arrival >= block.first {
                let arm = Arm { stratum: group.stratum, is_canary: group.is_canary };
                taken.extend(group.units.iter().map(|unit| (*unit, arm)));
            }
            self.waiting.pop_front();
        }
        taken.sort_unstable_by_key(|(unit, _)| *unit);
        taken
    }
}

fn of_requests(cells: &[&Cell]) -> TrialCounts {
    let slow = |place: usize| {
        let bad = cells.iter().filter_map(|cell| cell.slow.get(place));
        bad.map(|bad| bad.count).sum()
    };
    let failed = cells.iter().filter_map(|cell| cell.failed.first());
    TrialCounts {
        started: cells.iter().map(|cell| cell.started).sum(),
        failed: failed.map(|bad| bad.count).sum(),
        beyond_margin: [slow(0), slow(1), 0],
        shifted: shifted(slow),
    }
}

/// The newcomers of some cells and those of them that were bad.
fn of_units(cells: &[&Cell], newcomers: &[(u64, Arm)], arm: Arm) -> TrialCounts {
    let is_new = |unit: &u64| {
        let place = newcomers.binary_search_by_key(unit, |(unit, _)| *unit);
        place.is_ok_and(|place| newcomers[place].1 == arm)
    };
    let new = |bad: &mut dyn Iterator<Item = &Bad>| {
        let mut units: Vec<u64> = bad.flat_map(|bad| &bad.units).copied().filter(is_new).collect();
        units.sort_unstable();
        units.dedup();
        units.len() as u64
    };
    let slow = |place: usize| new(&mut cells.iter().filter_map(|cell| cell.slow.get(place)));
    TrialCounts {
        started: newcomers.iter().filter(|(_, other)| *other == arm).count() as u64,
        failed: new(&mut cells.iter().filter_map(|cell| cell.failed.first())),
        beyond_margin: [slow(0), slow(1), 0],
        shifted: shifted(slow),
    }
}

/// The counts beyond shifted deadlines, by the place of each in a cell.
fn shifted(slow: impl Fn(usize) -> u64) -> [[u64; SHIFT_COUNT]; 2] {
    let mut p99 = [0; SHIFT_COUNT];
    for (place, shift) in SHIFTED.into_iter().enumerate() {
        p99[shift] = slow(MARGIN.len() + place);
    }
    [[0; SHIFT_COUNT], p99]
}

/// A set as the list of its hashes in their order.
mod sorted {
    use serde::{Deserializer, Serializer};

    use super::UnitSet;
    use crate::measure::hex;

    pub(super) fn serialize<S: Serializer>(
        set: &UnitSet,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        let mut list: Vec<u64> = set.iter().copied().collect();
        list.sort_unstable();
        hex::serialize(&list, serializer)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<UnitSet, D::Error> {
        Ok(hex::deserialize(deserializer)?.into_iter().collect())
    }
}
