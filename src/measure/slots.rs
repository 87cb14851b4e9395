//! The slots of one recorder: what became of the requests that arrived in one tick under one
//! epoch, counted by the ages of the events alone. So the order in which events come in does not
//! matter, as long as they come before the slot is final.
//!
//! Keyed and keyless requests have slots of their own: they are different strata.

use std::{collections::VecDeque, time::Duration};

use super::{Deadlines, Epoch, MAX_DEADLINES, Tick, WAIT_CREDIT_US, outstanding::Outstanding};

/// Slots of one recorder at most. One recorder has one slot per tick, and more only while weights
/// change or keyed and keyless requests mix.
const MAX_SLOTS: usize = 512;

/// Sets of deadlines that one recorder remembers: the slots that are held span less than a minute.
const MAX_SETS: usize = 8;

/// An age that no deadline reaches.
const NEVER: u32 = u32::MAX;

/// What became of the requests of one slot.
#[derive(Debug)]
struct Slot {
    units: Option<Box<SlotUnits>>,
    key: SlotKey,
    started: u16,
    left_out: u16,
    aborted_late: u16,
    hung: u16,
    failed: [u16; 2],
    /// Refused by the first age of failure.
    refused: u16,
    /// By the place of the first deadline that was kept.
    done: [u16; MAX_DEADLINES],
    /// Number of the set of deadlines in force, modulo 256.
    set: u8,
    void: bool,
}

/// The units behind a keyed slot, as far as they are or may become bad.
#[derive(Debug, Default)]
struct SlotUnits {
    outstanding: Outstanding,
    /// Done, or given up, after the first deadline: unit and age.
    late: Vec<(u64, u32)>,
    /// Failed: unit and age.
    failed: Vec<(u64, u32)>,
    /// Refused by the first age of failure.
    refused: Vec<u64>,
}

impl SlotUnits {
    fn room(&self) -> usize {
        self.outstanding.room()
            + self.late.capacity()
            + self.failed.capacity()
            + self.refused.capacity()
    }

    fn clear(&mut self) {
        self.outstanding.clear();
        self.late.clear();
        self.failed.clear();
        self.refused.clear();
    }

    fn len(&self) -> usize {
        self.outstanding.len() + self.late.len() + self.failed.len() + self.refused.len()
    }
}

/// How many units the slots of a ledger hold, and how many they may.
#[derive(Debug)]
pub(super) struct UnitBudget {
    held: usize,
    limit: usize,
    /// Emptied, with their room, for the next slots.
    #[expect(clippy::vec_box, reason = "the boxes themselves go from slot to slot")]
    spares: Vec<Box<SlotUnits>>,
}

impl UnitBudget {
    const SPARES: usize = 4096;
    const SPARE_ROOM: usize = 256;

    pub(super) const fn new(limit: usize) -> Self {
        Self { held: 0, limit, spares: Vec::new() }
    }

    /// Whether there was room for one more.
    fn take(&mut self) -> bool {
        let room = self.held < self.limit;
        self.held += usize::from(room);
        room
    }

    fn give(&mut self, count: usize) {
        self.held -= count;
    }

    /// Empty units for a new slot.
    fn spare(&mut self) -> Box<SlotUnits> {
        self.spares.pop().unwrap_or_default()
    }

    /// Keeps the room of small ones.
    fn keep(&mut self, mut units: Box<SlotUnits>) {
        if self.spares.len() < Self::SPARES && units.room() <= Self::SPARE_ROOM {
            units.clear();
            self.spares.push(units);
        }
    }
}

/// Where an event belongs, and whose it is.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place {
    pub(super) tick: Tick,
    pub(super) epoch: Epoch,
    pub(super) unit: u64,
}

/// Tick, epoch, and whether keyed, packed so that slots are in order of ticks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct SlotKey(u64);

impl SlotKey {
    const fn new(tick: Tick, epoch: Epoch, keyed: bool) -> Self {
        Self((tick.0 as u64) << 32 | (epoch.number() as u64) << 1 | keyed as u64)
    }

    const fn tick(self) -> Tick {
        Tick((self.0 >> 32) as u32)
    }

    const fn epoch(self) -> Epoch {
        Epoch::new(self.0 as u32 >> 1)
    }

    const fn keyed(self) -> bool {
        self.0 & 1 == 1
    }
}

impl Place {
    const fn key(self) -> SlotKey {
        SlotKey::new(self.tick, self.epoch, self.unit != 0)
    }
}

/// What an event says of a request, for the evidence. Ages are judged ones, in microseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fact {
    Assigned,
    /// Finished, well or failed.
    Done(u32),
    /// Failed; comes beside `Done`.
    Failed(u32),
    /// Refused; comes beside `Done`.
    Refused(u32),
    Hung(u32),
    /// Given up by the client or refused by the proxy.
    GivenUp(u32),
}

/// What noting a fact came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Noted {
    Counted,
    /// The slot is gone.
    Gone,
    /// A slot was given up unfinished: this tick is void.
    Evicted(Tick),
}

/// All slots of one recorder.
#[derive(Debug)]
pub struct Slots {
    /// By tick, then lane.
    ring: VecDeque<Slot>,
    /// Sets of deadlines with the tick that each is in force from.
    sets: VecDeque<(Tick, Deadlines)>,
    /// Number of the first set, modulo 256.
    first_set: u8,
    /// Slots before this tick are gone.
    gone_before: Tick,
}

impl Slots {
    pub(super) fn new() -> Self {
        Self {
            ring: VecDeque::new(),
            sets: VecDeque::from([(Tick(0), Deadlines::default())]),
            first_set: 0,
            gone_before: Tick(0),
        }
    }

    /// Puts deadlines in force for the slots that begin at `from` or later and do not exist yet.
    pub(super) fn set_deadlines(&mut self, from: Tick, deadlines: Deadlines) {
        while self.sets.back().is_some_and(|(begin, _)| *begin >= from) && self.sets.len() > 1 {
            self.sets.pop_back();
        }
        self.sets.push_back((from, deadlines));
        let oldest = self.ring.front().map_or(self.gone_before, |slot| slot.key.tick());
        while self.sets.len() > 1 && (self.sets[1].0 <= oldest || self.sets.len() > MAX_SETS) {
            self.sets.pop_front();
            self.first_set = self.first_set.wrapping_add(1);
        }
    }

    /// The deadlines in force at a tick.
    #[must_use]
    pub fn deadlines_at(&self, tick: Tick) -> &Deadlines {
        &self.sets[self.set_at(tick)].1
    }

    fn set_at(&self, tick: Tick) -> usize {
        self.sets.iter().rposition(|(from, _)| *from <= tick).unwrap_or(0)
    }

    /// The deadlines of a slot: those that were in force when it began.
    fn deadlines_of(&self, slot: &Slot) -> &Deadlines {
        of_set(&self.sets, self.first_set, slot.set)
    }

    #[inline]
    pub(super) fn note(&mut self, place: Place, fact: Fact, budget: &mut UnitBudget) -> Noted {
        let (index, noted) = match self.find(place.key()) {
            Ok(index) => (index, Noted::Counted),
            Err(index) if fact == Fact::Assigned && place.tick >= self.gone_before => {
                match self.insert(index, place, budget) {
                    (Some(index), None) => (index, Noted::Counted),
                    (Some(index), Some(tick)) => (index, Noted::Evicted(tick)),
                    (None, tick) => return Noted::Evicted(tick.unwrap_or(place.tick)),
                }
            }
            Err(_) => return Noted::Gone,
        };
        let slot = &mut self.ring[index];
        let deadlines = of_set(&self.sets, self.first_set, slot.set);
        slot.note(place.unit, fact, deadlines, budget);
        noted
    }

    /// Searches from the back, where most events belong.
    #[inline]
    fn find(&self, key: SlotKey) -> Result<usize, usize> {
        let Some(last) = self.ring.back() else { return Err(0) };
        // Slots are nearly dense: as many places back as ticks, then the few that are missing.
        let back = last.key.tick().0.saturating_sub(key.tick().0) as usize;
        let mut index = self.ring.len() - 1 - back.min(self.ring.len() - 1);
        let mut here = self.ring[index].key;
        while here > key && index > 0 {
            index -= 1;
            here = self.ring[index].key;
        }
        while here < key {
            index += 1;
            match self.ring.get(index) {
                Some(slot) => here = slot.key,
                None => return Err(index),
            }
        }
        if here == key { Ok(index) } else { Err(index) }
    }

    fn insert(
        &mut self,
        mut index: usize,
        place: Place,
        budget: &mut UnitBudget,
    ) -> (Option<usize>, Option<Tick>) {
        let mut evicted = None;
        if self.ring.len() == MAX_SLOTS {
            if index == 0 {
                return (None, Some(place.tick));
            }
            evicted = self.pop(budget);
            index -= 1;
        }
        let set = self.first_set.wrapping_add(self.set_at(place.tick) as u8);
        let units = (place.unit != 0).then(|| budget.spare());
        self.ring.insert(index, Slot::new(place, set, units));
        (Some(index), evicted)
    }

    /// Gives the first slot up; returns its tick.
    fn pop(&mut self, budget: &mut UnitBudget) -> Option<Tick> {
        let slot = self.ring.pop_front()?;
        let tick = slot.key.tick();
        if let Some(units) = slot.units {
            budget.give(units.len());
            budget.keep(units);
        }
        let shared = self.ring.front().is_some_and(|next| next.key.tick() == tick);
        self.gone_before = self.gone_before.max(if shared { tick } else { Tick(tick.0 + 1) });
        Some(tick)
    }

    /// The time after the end of a slot in which something may still change in it.
    pub(super) fn longest_reach(&self) -> Duration {
        let reach_us = self.sets.iter().map(|(_, set)| set.reach_us()).max().unwrap_or(0);
        Tick::LENGTH + Duration::from_micros(u64::from(reach_us) + u64::from(WAIT_CREDIT_US))
    }

    /// Drops the slots before `tick`; none of them comes back.
    pub(super) fn retire(&mut self, tick: Tick, budget: &mut UnitBudget) {
        while self.ring.front().is_some_and(|slot| slot.key.tick() < tick) {
            self.pop(budget);
        }
        self.gone_before = self.gone_before.max(tick);
        if self.ring.capacity() > 64 && self.ring.len() * 4 < self.ring.capacity() {
            self.ring.shrink_to(self.ring.len() * 2);
        }
    }

    /// The slots of a tick with their deadlines.
    pub fn at(&self, tick: Tick) -> impl Iterator<Item = SlotView<'_>> {
        let begin = match self.find(SlotKey::new(tick, Epoch::new(0), false)) {
            Ok(index) | Err(index) => index,
        };
        self.ring
            .range(begin..)
            .take_while(move |slot| slot.key.tick() == tick)
            .map(|slot| SlotView { slot, deadlines: self.deadlines_of(slot) })
    }

    /// Memory held for the slots themselves, in bytes; units are counted by the ledger's budget.
    #[must_use]
    pub fn bytes(&self) -> usize {
        size_of::<Self>()
            + self.ring.capacity() * size_of::<Slot>()
            + self.sets.capacity() * size_of::<(Tick, Deadlines)>()
    }
}

/// The deadlines with a number, out of those that begin with `first`.
#[inline]
fn of_set(sets: &VecDeque<(Tick, Deadlines)>, first: u8, set: u8) -> &Deadlines {
    let place = usize::from(set.wrapping_sub(first));
    &sets[place.min(sets.len() - 1)].1
}

impl Slot {
    fn new(place: Place, set: u8, units: Option<Box<SlotUnits>>) -> Self {
        Self {
            units,
            key: place.key(),
            started: 0,
            left_out: 0,
            aborted_late: 0,
            hung: 0,
            failed: [0; 2],
            refused: 0,
            done: [0; MAX_DEADLINES],
            set,
            void: false,
        }
    }

    fn note(&mut self, unit: u64, fact: Fact, deadlines: &Deadlines, budget: &mut UnitBudget) {
        let mut fits = true;
        match fact {
            Fact::Assigned => {
                fits &= bump(&mut self.started);
                if let Some(units) = &mut self.units {
                    fits &= units.assigned(unit, budget);
                }
            }
            Fact::Done(latency_us) => {
                let place = deadlines.place(latency_us);
                if place < deadlines.len() {
                    fits &= bump(&mut self.done[place]);
                }
                fits &= self.over(unit, latency_us, place > 0, budget);
            }
            Fact::Failed(age_us) => {
                for (count, until_us) in self.failed.iter_mut().zip(deadlines.failed_by_us()) {
                    fits &= age_us > until_us || bump(count);
                }
                if let Some(units) = &mut self.units {
                    fits &= units.push(unit, age_us, budget, List::Failed);
                }
            }
            Fact::Refused(age_us) => {
                if age_us <= deadlines.failed_by_us()[0] {
                    fits &= bump(&mut self.refused);
                    if let Some(units) = &mut self.units {
                        fits &= units.push(unit, age_us, budget, List::Refused);
                    }
                }
            }
            Fact::Hung(age_us) => {
                if age_us <= deadlines.reach_us() {
                    fits &= bump(&mut self.hung);
                }
                fits &= self.over(unit, NEVER, true, budget);
            }
            Fact::GivenUp(age_us) if deadlines.aborted_early(age_us) => {
                fits &= bump(&mut self.left_out);
                fits &= self.over(unit, age_us, false, budget);
            }
            Fact::GivenUp(age_us) => {
                if age_us <= deadlines.reach_us() {
                    fits &= bump(&mut self.aborted_late);
                }
                fits &= self.over(unit, NEVER, true, budget);
            }
        }
        self.void |= !fits;
    }

    /// A keyed request is no longer out; `late` ones keep their unit.
    fn over(&mut self, unit: u64, age_us: u32, late: bool, budget: &mut UnitBudget) -> bool {
        let Some(units) = &mut self.units else { return true };
        if units.outstanding.remove(unit) {
            budget.give(1);
        }
        !late || units.push(unit, age_us, budget, List::Late)
    }
}

#[derive(Clone, Copy)]
enum List {
    Late,
    Failed,
    Refused,
}

impl SlotUnits {
    fn assigned(&mut self, unit: u64, budget: &mut UnitBudget) -> bool {
        if !budget.take() {
            return false;
        }
        if !self.outstanding.add(unit) {
            budget.give(1);
        }
        true
    }

    fn push(&mut self, unit: u64, age_us: u32, budget: &mut UnitBudget, list: List) -> bool {
        let room = budget.take();
        if room {
            match list {
                List::Late => self.late.push((unit, age_us)),
                List::Failed => self.failed.push((unit, age_us)),
                List::Refused => self.refused.push(unit),
            }
        }
        room
    }
}

/// Counts one more; whether it fits.
fn bump(count: &mut u16) -> bool {
    let next = count.checked_add(1);
    *count = next.unwrap_or(*count);
    next.is_some()
}

/// A slot and its deadlines, for reading. A number for a deadline is final when every watermark
/// has passed the slot's end by that deadline and the credit for waiting.
#[derive(Clone, Copy, Debug)]
pub struct SlotView<'a> {
    slot: &'a Slot,
    deadlines: &'a Deadlines,
}

impl SlotView<'_> {
    /// The tick of the requests' arrival.
    #[must_use]
    pub const fn tick(&self) -> Tick {
        self.slot.key.tick()
    }

    /// The epoch in which they were assigned.
    #[must_use]
    pub const fn epoch(&self) -> Epoch {
        self.slot.key.epoch()
    }

    /// Whether they were assigned by a key (sticky) rather than by a coin.
    #[must_use]
    pub const fn keyed(&self) -> bool {
        self.slot.key.keyed()
    }

    /// Whether something could not be counted: the slot must not be used.
    #[must_use]
    pub const fn void(&self) -> bool {
        self.slot.void
    }

    /// The deadlines that were in force.
    #[must_use]
    pub const fn deadlines(&self) -> &Deadlines {
        self.deadlines
    }

    /// Requests assigned.
    #[must_use]
    pub fn started(&self) -> u32 {
        u32::from(self.slot.started)
    }

    /// Of these, those given up so early that they say nothing.
    #[must_use]
    pub fn left_out(&self) -> u32 {
        u32::from(self.slot.left_out)
    }

    /// Requests given up later, up to the last deadline; they count as slow.
    #[must_use]
    pub fn aborted_late(&self) -> u32 {
        u32::from(self.slot.aborted_late)
    }

    /// Requests known to hang by the last deadline; they count as slow.
    #[must_use]
    pub fn hung(&self) -> u32 {
        u32::from(self.slot.hung)
    }

    /// Requests finished by the deadline of a definition, well or failed.
    #[must_use]
    pub fn done_by(&self, definition: usize) -> u32 {
        let last = self.deadlines.place_of(definition);
        self.slot.done[..=last].iter().map(|count| u32::from(*count)).sum()
    }

    /// Requests not finished by the deadline of a definition: started less done, those left out
    /// aside. A request that fails fast is not slow, one that hangs or fails late is.
    #[must_use]
    pub fn slow(&self, definition: usize) -> u32 {
        (self.started() - self.left_out()).saturating_sub(self.done_by(definition))
    }

    /// Requests failed by each of the two ages.
    #[must_use]
    pub fn failed(&self) -> [u32; 2] {
        self.slot.failed.map(u32::from)
    }

    /// Requests refused by the first age of failure.
    #[must_use]
    pub fn refused(&self) -> u32 {
        u32::from(self.slot.refused)
    }

    /// Their units; a unit may come more than once.
    pub fn refused_units(&self) -> impl Iterator<Item = u64> {
        self.slot.units.iter().flat_map(|units| units.refused.iter().copied())
    }

    /// The units of the requests that are slow by a definition; a unit may come more than once.
    pub fn slow_units(&self, definition: usize) -> impl Iterator<Item = u64> {
        let deadline_us = self.deadlines.of(definition).unwrap_or(NEVER);
        self.slot.units.iter().flat_map(move |units| {
            let late = units.late.iter().filter(move |(_, age_us)| *age_us > deadline_us);
            units.outstanding.units().chain(late.map(|(unit, _)| *unit))
        })
    }

    /// The units of the requests failed by one of the two ages; a unit may come more than once.
    pub fn failed_units(&self, age: usize) -> impl Iterator<Item = u64> {
        let until_us = self.deadlines.failed_by_us()[age];
        self.slot.units.iter().flat_map(move |units| {
            units.failed.iter().filter(move |(_, at_us)| *at_us <= until_us).map(|(unit, _)| *unit)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(tick: u32, epoch: u32, unit: u64) -> Place {
        Place { tick: Tick(tick), epoch: Epoch::new(epoch), unit }
    }

    #[test]
    fn a_slot_is_56_bytes() {
        assert_eq!(size_of::<Slot>(), 56);
    }

    #[test]
    fn a_recorder_holds_32_kib_of_slots_at_most() {
        let mut slots = Slots::new();
        let mut budget = UnitBudget::new(0);
        let mut evicted = 0;
        for tick in 0..1000 {
            slots.set_deadlines(Tick(tick), Deadlines::new(&[tick], [0; 2], 0));
            for epoch in [tick, tick + 1] {
                let noted = slots.note(place(tick, epoch, 0), Fact::Assigned, &mut budget);
                evicted += usize::from(matches!(noted, Noted::Evicted(_)));
            }
        }
        assert_eq!(evicted, 2000 - MAX_SLOTS);
        assert!(slots.bytes() <= 32 * 1024, "{} bytes", slots.bytes());
    }

    #[test]
    fn a_slot_keeps_the_deadlines_of_its_arrival() {
        let mut slots = Slots::new();
        let mut budget = UnitBudget::new(0);
        slots.set_deadlines(Tick(0), Deadlines::new(&[100], [0; 2], 0));
        slots.set_deadlines(Tick(5), Deadlines::new(&[50], [0; 2], 0));
        for tick in [4, 5] {
            slots.note(place(tick, 0, 0), Fact::Assigned, &mut budget);
        }
        slots.set_deadlines(Tick(9), Deadlines::new(&[10], [0; 2], 0));
        for tick in [4, 5] {
            slots.note(place(tick, 0, 0), Fact::Done(75), &mut budget);
        }
        let slow = |tick| slots.at(Tick(tick)).map(|slot| slot.slow(0)).sum::<u32>();
        assert_eq!((slow(4), slow(5)), (0, 1));
    }

    #[test]
    fn hung_late_and_failed_requests_name_their_units() {
        let mut slots = Slots::new();
        let mut budget = UnitBudget::new(100);
        slots.set_deadlines(Tick(0), Deadlines::new(&[100, 1000], [500, 900], 100));
        for unit in 1..=6 {
            slots.note(place(0, 1, unit), Fact::Assigned, &mut budget);
        }
        let facts = [
            (1, Fact::Done(100)),
            (2, Fact::Done(101)),
            (3, Fact::Done(2000)),
            (4, Fact::GivenUp(99)),
            (5, Fact::GivenUp(100)),
            (1, Fact::Failed(600)),
        ];
        for (unit, fact) in facts {
            slots.note(place(0, 1, unit), fact, &mut budget);
        }
        let slot = slots.at(Tick(0)).next().unwrap();
        let units = |definition| {
            let mut units: Vec<_> = slot.slow_units(definition).collect();
            units.sort_unstable();
            units
        };
        assert_eq!(units(0), [2, 3, 5, 6]);
        assert_eq!(units(1), [3, 5, 6]);
        assert_eq!((slot.slow(0), slot.slow(1)), (4, 3));
        assert_eq!(slot.failed(), [0, 1]);
        assert_eq!(slot.failed_units(1).collect::<Vec<_>>(), [1]);
        assert_eq!((slot.left_out(), slot.aborted_late()), (1, 1));
        slots.retire(Tick(1), &mut budget);
        assert_eq!(budget.held, 0);
    }
}
