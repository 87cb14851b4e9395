//! The units of one slot's requests that are still out: a multiset with constant-time removal.
//!
//! An open-addressing table of (unit, how many); a unit is a keyed hash, so it is its own hash.

/// Units with the number of their requests that are still out.
#[derive(Debug, Default)]
pub(super) struct Outstanding {
    /// A power of two of places, or none; a count of 0 is a free place.
    places: Vec<(u64, u32)>,
    used: usize,
}

impl Outstanding {
    const FIRST: usize = 4;

    /// Notes a request of a unit; whether the unit is new here.
    pub(super) fn add(&mut self, unit: u64) -> bool {
        if (self.used + 1) * 4 > self.places.len() * 3 {
            self.grow();
        }
        let place = self.find(unit);
        let entry = &mut self.places[place];
        let new = entry.1 == 0;
        *entry = (unit, entry.1 + 1);
        self.used += usize::from(new);
        new
    }

    /// Takes one request of a unit away; whether it was the unit's last one here.
    pub(super) fn remove(&mut self, unit: u64) -> bool {
        if self.places.is_empty() {
            return false;
        }
        let place = self.find(unit);
        match self.places[place].1 {
            0 => false,
            1 => {
                self.used -= 1;
                self.free(place);
                true
            }
            count => {
                self.places[place].1 = count - 1;
                false
            }
        }
    }

    /// The units that have requests out.
    pub(super) fn units(&self) -> impl Iterator<Item = u64> {
        // Most tables that are looked at are empty by then.
        let places = if self.used == 0 { &[] } else { self.places.as_slice() };
        places.iter().filter(|(_, count)| *count > 0).map(|(unit, _)| *unit)
    }

    /// Number of places.
    pub(super) const fn room(&self) -> usize {
        self.places.len()
    }

    /// Forgets all, and keeps the places.
    pub(super) fn clear(&mut self) {
        if self.used > 0 {
            self.places.fill((0, 0));
            self.used = 0;
        }
    }

    /// Number of units that have requests out.
    pub(super) const fn len(&self) -> usize {
        self.used
    }

    /// The place of a unit, or the free one where it would stand.
    fn find(&self, unit: u64) -> usize {
        let mask = self.places.len() - 1;
        let mut place = unit as usize & mask;
        while self.places[place].1 > 0 && self.places[place].0 != unit {
            place = (place + 1) & mask;
        }
        place
    }

    /// Frees a place and moves back what stands behind it, so that no search stops early.
    fn free(&mut self, mut hole: usize) {
        let mask = self.places.len() - 1;
        let mut place = hole;
        loop {
            place = (place + 1) & mask;
            let (unit, count) = self.places[place];
            if count == 0 {
                break;
            }
            let home = unit as usize & mask;
            if place.wrapping_sub(home) & mask >= place.wrapping_sub(hole) & mask {
                self.places[hole] = (unit, count);
                hole = place;
            }
        }
        self.places[hole] = (0, 0);
    }

    fn grow(&mut self) {
        let size = (self.places.len() * 2).max(Self::FIRST);
        let old = std::mem::replace(&mut self.places, vec![(0, 0); size]);
        for (unit, count) in old.into_iter().filter(|(_, count)| *count > 0) {
            let place = self.find(unit);
            self.places[place] = (unit, count);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn it_is_a_multiset(steps in prop::collection::vec((any::<bool>(), 0_u64..40), 0..400)) {
            let mut outstanding = Outstanding::default();
            let mut reference = BTreeMap::<u64, u32>::new();
            for (add, unit) in steps {
                // Many units share their low bits, so that places collide.
                let unit = unit / 8 * 64 + unit % 8;
                if add {
                    *reference.entry(unit).or_default() += 1;
                    prop_assert_eq!(outstanding.add(unit), reference[&unit] == 1);
                } else {
                    let last = reference.get(&unit) == Some(&1);
                    if last {
                        reference.remove(&unit);
                    } else if let Some(count) = reference.get_mut(&unit) {
                        *count -= 1;
                    }
                    prop_assert_eq!(outstanding.remove(unit), last);
                }
                let mut units: Vec<_> = outstanding.units().collect();
                units.sort_unstable();
                prop_assert_eq!(units, reference.keys().copied().collect::<Vec<_>>());
                prop_assert_eq!(outstanding.len(), reference.len());
            }
        }
    }
}
