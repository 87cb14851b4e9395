//! The table of units: which users of a sticky service can still tell the arms apart. One table
//! per service and canary, for all workers.
//!
//! A unit's coin is its hash, and a hash can be spent: once a bad event has shown on which side of
//! the weight it lies, another one under the same weight says nothing new. So the table keeps, per
//! unit and definition of bad, the interval that the hash is known to lie in. A weight inside the
//! interval makes it a fresh coin.

use std::{
    collections::HashMap,
    hash::{BuildHasherDefault, Hasher},
};

use serde::{Deserialize, Serialize};

/// Units that one table remembers at most; bad events of further ones are dropped.
pub const MAX_UNITS: usize = 1 << 20;

/// Definitions of bad that units are told apart by.
pub const UNIT_DEFINITIONS: usize = 8;

/// Where a unit's hash is known to lie, as a share of those that go to the canary or the baseline.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Interval {
    /// Not below this.
    pub lo: f32,
    /// Below this.
    pub hi: f32,
}

impl Interval {
    /// Nothing is known.
    pub const WHOLE: Self = Self { lo: 0.0, hi: 1.0 };

    /// Counts a bad event under a draw: the probability, given what is known, that it is the
    /// canary's, and what is known afterwards. `None` if the outcome was known beforehand.
    #[must_use]
    pub fn count(self, draw: Draw) -> Option<(f64, Self)> {
        let Self { lo, hi } = self;
        let omega = draw.omega;
        if omega <= lo || omega >= hi {
            return None;
        }
        let probability = f64::from(omega - lo) / f64::from(hi - lo);
        let known = if draw.canary { Self { lo, hi: omega } } else { Self { lo: omega, hi } };
        Some((probability, known))
    }
}

/// The weight under which a bad event happened, and which arm had it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Draw {
    omega: f32,
    canary: bool,
}

impl Draw {
    /// Weights of the canary and of the baseline in the epoch of the event, in any unit.
    #[must_use]
    pub fn new(canary_weight: u16, baseline_weight: u16, canary: bool) -> Self {
        let sum = f32::from(canary_weight) + f32::from(baseline_weight);
        Self { omega: f32::from(canary_weight) / sum.max(1.0), canary }
    }

    /// The canary's share of the two weights.
    #[must_use]
    pub const fn omega(&self) -> f32 {
        self.omega
    }
}

/// What is known about the hashes of units that had bad events.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(from = "WrittenUnits", into = "WrittenUnits")]
pub struct Units {
    known: HashMap<u64, Known, BuildHasherDefault<UnitHasher>>,
    limit: usize,
    generation: u32,
    dropped: u64,
}

#[derive(Clone, Copy, Debug, PartialEq)]
struct Known {
    /// The weights of the other canaries under which it was counted.
    generation: u32,
    intervals: [Interval; UNIT_DEFINITIONS],
}

impl Units {
    /// An empty table for at most so many units.
    #[must_use]
    pub fn new(limit: usize) -> Self {
        Self { known: HashMap::default(), limit, generation: 0, dropped: 0 }
    }

    /// What is counted next happened under this set of weights of the other canaries of the
    /// service, by number. The intervals are exact only while those stand, so units that were
    /// counted under another set are not counted again.
    pub const fn under(&mut self, generation: u32) {
        self.generation = generation;
    }

    /// Counts a bad event of a unit by a definition below [`UNIT_DEFINITIONS`]: the probability
    /// that it is the canary's, or `None` where it does not count.
    pub fn count(&mut self, unit: u64, definition: usize, draw: Draw) -> Option<f64> {
        let known = self.known.get(&unit).copied();
        let mut known = known.unwrap_or(Known {
            generation: self.generation,
            intervals: [Interval::WHOLE; UNIT_DEFINITIONS],
        });
        if known.generation != self.generation {
            return None;
        }
        let (probability, interval) = known.intervals.get(definition)?.count(draw)?;
        known.intervals[definition] = interval;
        if self.known.len() >= self.limit && !self.known.contains_key(&unit) {
            self.dropped += 1;
            return None;
        }
        self.known.insert(unit, known);
        Some(probability)
    }

    /// Number of units that had a bad event.
    #[must_use]
    pub fn len(&self) -> usize {
        self.known.len()
    }

    /// Whether no unit had a bad event.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.known.is_empty()
    }

    /// Bad events that were dropped because the table was full.
    #[must_use]
    pub const fn dropped(&self) -> u64 {
        self.dropped
    }

    /// Units whose side of a weight is known by one definition, so that they tell nothing more
    /// under it: of the baseline and of the canary. Looks at all units that `of` accepts.
    pub fn spent(&self, definition: usize, omega: f32, of: impl Fn(u64) -> bool) -> [usize; 2] {
        let mut spent = [0; 2];
        for (unit, known) in &self.known {
            let Some(Interval { lo, hi }) = known.intervals.get(definition) else { continue };
            let is_old = known.generation != self.generation;
            let side = if *hi <= omega { 1 } else { 0 };
            if (is_old || *hi <= omega || *lo >= omega) && of(*unit) {
                spent[side] += 1;
            }
        }
        spent
    }

    /// Of the units that had a bad event, those whose next one would count by some definition
    /// under this weight. Looks at all of them.
    #[must_use]
    pub fn open(&self, draw: Draw) -> usize {
        let open = |known: &&Known| {
            known.generation == self.generation
                && known.intervals.iter().any(|interval| interval.count(draw).is_some())
        };
        self.known.values().filter(open).count()
    }
}

/// The table as it is written down: by unit, in their order, the generation and the definitions
/// of which something is known, the interval as the bits of its ends.
#[derive(Serialize, Deserialize)]
struct WrittenUnits {
    limit: usize,
    generation: u32,
    dropped: u64,
    #[serde(with = "super::hex")]
    units: Vec<u64>,
    known: Vec<(u32, Vec<WrittenInterval>)>,
}

/// A definition, and the bits of both ends.
type WrittenInterval = (u8, u32, u32);

impl From<Units> for WrittenUnits {
    fn from(table: Units) -> Self {
        let mut all: Vec<(u64, Known)> = table.known.into_iter().collect();
        all.sort_unstable_by_key(|(unit, _)| *unit);
        let known = all.iter().map(|(_, known)| {
            let told = known.intervals.iter().enumerate().filter(|(_, i)| **i != Interval::WHOLE);
            let bits =
                told.map(|(place, Interval { lo, hi })| (place as u8, lo.to_bits(), hi.to_bits()));
            (known.generation, bits.collect())
        });
        Self {
            limit: table.limit,
            generation: table.generation,
            dropped: table.dropped,
            known: known.collect(),
            units: all.into_iter().map(|(unit, _)| unit).collect(),
        }
    }
}

impl From<WrittenUnits> for Units {
    fn from(written: WrittenUnits) -> Self {
        let WrittenUnits { limit, generation, dropped, units, known } = written;
        let known = known.into_iter().map(|(generation, told)| {
            let mut intervals = [Interval::WHOLE; UNIT_DEFINITIONS];
            for (place, lo, hi) in told {
                if let Some(interval) = intervals.get_mut(usize::from(place)) {
                    *interval = Interval { lo: f32::from_bits(lo), hi: f32::from_bits(hi) };
                }
            }
            Known { generation, intervals }
        });
        Self { known: units.into_iter().zip(known).collect(), limit, generation, dropped }
    }
}

/// The hasher of units: a unit is a keyed hash already.
#[derive(Clone, Copy, Debug, Default)]
pub struct UnitHasher(u64);

impl Hasher for UnitHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = self.0.rotate_left(8) ^ u64::from(*byte);
        }
    }

    fn write_u64(&mut self, unit: u64) {
        self.0 = unit;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const fn draw(omega: f32, canary: bool) -> Draw {
        Draw { omega, canary }
    }

    #[test]
    fn a_unit_counts_once_under_one_weight_and_again_under_another() {
        let mut units = Units::new(10);
        assert_eq!(units.count(1, 0, draw(0.5, false)), Some(0.5));
        assert_eq!(units.count(1, 0, draw(0.5, false)), None);
        assert_eq!(units.count(1, 1, draw(0.5, false)), Some(0.5), "another definition");
        assert_eq!(units.count(1, 0, draw(0.25, false)), None, "known to be above a half");
        assert_eq!(units.count(1, 0, draw(0.75, true)), Some(0.5));
        assert_eq!(units.count(1, 0, draw(0.625, true)), Some(0.5));
    }

    #[test]
    fn without_a_choice_there_is_no_coin() {
        let mut units = Units::new(10);
        assert_eq!(units.count(1, 0, Draw::new(0, 100, false)), None);
        assert_eq!(units.count(1, 0, Draw::new(100, 0, true)), None);
        assert!(units.is_empty());
    }

    #[test]
    fn a_full_table_drops_new_units_and_says_so() {
        let mut units = Units::new(2);
        for unit in 1..=5 {
            units.count(unit, 0, draw(0.5, true));
        }
        assert_eq!((units.len(), units.dropped()), (2, 3));
        assert!(units.count(1, 0, draw(0.25, true)).is_some(), "known ones go on");
        assert_eq!(units.open(draw(0.125, true)), 2);
    }

    #[test]
    fn units_counted_under_other_weights_of_other_canaries_are_left_out() {
        let mut units = Units::new(10);
        units.count(1, 0, draw(0.5, true));
        units.under(1);
        assert_eq!(units.count(1, 0, draw(0.25, true)), None);
        assert_eq!(units.count(1, 3, draw(0.25, true)), None);
        assert!(units.count(2, 0, draw(0.25, true)).is_some());
    }

    #[test]
    fn a_table_that_was_written_down_is_the_same() {
        let mut units = Units::new(3);
        units.count(u64::MAX, 0, draw(0.1, true));
        units.under(1);
        units.count(7, 5, draw(1.0 / 3.0, false));
        units.count(7, 2, draw(0.7, true));
        let text = serde_json::to_string(&units).unwrap();
        let read: Units = serde_json::from_str(&text).unwrap();
        assert_eq!(read.known, units.known);
        assert_eq!((read.limit, read.generation), (units.limit, units.generation));
        assert_eq!(serde_json::to_string(&read).unwrap(), text);
    }

    proptest! {
        /// Over all hashes, the probability given what is known is the share of hashes for which
        /// the event is the canary's: the coins are fair, whatever weights come one after another.
        #[test]
        fn probabilities_are_the_shares_of_hashes(
            weights in prop::collection::vec(1_u16..1000, 1..12),
        ) {
            let hashes = 1000;
            let mut by_history = HashMap::<Vec<bool>, (u32, f64)>::new();
            for hash in 0..hashes {
                let mut interval = Interval::WHOLE;
                let mut history = Vec::new();
                for weight in &weights {
                    let canary = hash < *weight;
                    let draw = Draw::new(*weight, hashes - *weight, canary);
                    if let Some((probability, known)) = interval.count(draw) {
                        let seen = by_history.entry(history.clone()).or_default();
                        seen.0 += 1;
                        seen.1 += probability - f64::from(u8::from(canary));
                        interval = known;
                        history.push(canary);
                    }
                    prop_assert!(interval.lo <= f32::from(hash) / 1000.0);
                    prop_assert!(f32::from(hash) / 1000.0 < interval.hi);
                }
            }
            for (history, (count, bias)) in by_history {
                prop_assert!((bias / f64::from(count)).abs() < 1e-4, "{history:?}: {bias}");
            }
        }
    }
}
