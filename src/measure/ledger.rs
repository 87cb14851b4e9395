//! The ledger: the one place where requests are counted. One thread owns it; it reads no clock.
//!
//! Recorder ids come and go with the tables of routes; behind each stands a recorder that keeps
//! its counts for as long as its names stay the same.

use std::time::Duration;

use super::{
    Batch, Counters, Durations, Event, Judging, Kind, Latencies, RecorderId, Slots, Tick, Totals,
    deadlines::Deadlines,
    facts::facts,
    latency::Times,
    progress::Progress,
    slots::{Fact, Noted, Place, UnitBudget},
};

/// Recorders that have slots of their own at most. Further ones count into the slots of the
/// recorder that they were registered with as their `other`.
pub const MAX_WITH_SLOTS: usize = 4096;

/// Units that all slots together hold at most; beyond that slots are void.
const MAX_UNITS_HELD: usize = 1 << 20;

/// After a slot's last deadline its numbers are kept for this long, to be folded into blocks.
const KEPT: Duration = Duration::from_secs(1);

/// Names a recorder of a [`Ledger`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RecorderKey(u32);

impl RecorderKey {
    const NONE: Self = Self(u32::MAX);

    const fn index(self) -> usize {
        self.0 as usize
    }
}

/// Counts the events of all workers.
#[derive(Debug)]
pub struct Ledger {
    /// By recorder id.
    bound: Vec<RecorderKey>,
    recorders: Vec<Recorder>,
    progress: Progress,
    units: UnitBudget,
    with_slots: usize,
    counters: Counters,
}

#[derive(Debug)]
struct Recorder {
    judging: Judging,
    /// Where the evidence counts when there is no room for slots; itself where that is always.
    other: RecorderKey,
    slots_at: RecorderKey,
    counts: Option<Box<Counts>>,
    /// What is kept of a recorder that was released.
    past: Option<Box<Sums>>,
}

#[derive(Debug)]
struct Counts {
    sums: Sums,
    latencies: Latencies,
    slots: Slots,
}

/// What is never forgotten.
#[derive(Clone, Copy, Debug, Default)]
struct Sums {
    totals: Totals,
    durations: Durations,
}

impl Ledger {
    /// A ledger for so many workers.
    #[must_use]
    pub fn new(workers: usize) -> Self {
        Self {
            bound: Vec::new(),
            recorders: Vec::new(),
            progress: Progress::new(workers),
            units: UnitBudget::new(MAX_UNITS_HELD),
            with_slots: 0,
            counters: Counters::default(),
        }
    }

    /// Adds a recorder. Its evidence counts into `other` when [`MAX_WITH_SLOTS`] recorders have
    /// slots already; without one it always gets slots of its own.
    pub fn register(&mut self, judging: Judging, other: Option<RecorderKey>) -> RecorderKey {
        let key = RecorderKey(self.recorders.len() as u32);
        self.recorders.push(Recorder {
            judging,
            other: other.unwrap_or(key),
            slots_at: RecorderKey::NONE,
            counts: None,
            past: None,
        });
        key
    }

    /// Changes which latency of a recorder is judged, from the next event on.
    pub fn set_judging(&mut self, key: RecorderKey, judging: Judging) {
        self.recorders[key.index()].judging = judging;
    }

    /// Lets events with this id count for a recorder.
    pub fn bind(&mut self, id: RecorderId, key: RecorderKey) {
        let place = id.0 as usize;
        if self.bound.len() <= place {
            self.bound.resize(place + 1, RecorderKey::NONE);
        }
        self.bound[place] = key;
    }

    /// Puts deadlines in force for the slots of a recorder that begin at `from` or later; `from`
    /// is a tick that no request has come in yet.
    pub fn set_deadlines(&mut self, key: RecorderKey, from: Tick, deadlines: Deadlines) {
        let recorder = &mut self.recorders[key.index()];
        recorder.counts().slots.set_deadlines(from, deadlines);
    }

    /// Counts what a worker did. `now` is the current tick, for the windows of latencies.
    pub fn apply(&mut self, batch: &Batch, now: Tick) {
        self.counters.events += batch.events.len() as u64;
        self.counters.overflows += u64::from(batch.overflowed);
        for event in &batch.events {
            self.count(event, now);
        }
        self.progress.advance(batch.worker, batch.through, batch.overflowed);
    }

    fn count(&mut self, event: &Event, now: Tick) {
        let key = self.bound.get(event.recorder.0 as usize).copied().unwrap_or(RecorderKey::NONE);
        let Some(recorder) = self.recorders.get_mut(key.index()) else {
            self.counters.unknown_recorder += 1;
            return;
        };
        let facts = facts(event, recorder.judging);
        let counts = recorder.counts();
        counts.count(event);
        if let Some(Fact::Done(latency_us) | Fact::Hung(latency_us)) = facts.what {
            counts.latencies.judged(latency_us, now);
        }
        if event.excluded() {
            return;
        }
        let slots_at = match recorder.slots_at {
            RecorderKey::NONE => self.give_slots(key),
            slots_at => slots_at,
        };
        let counts = self.recorders[slots_at.index()].counts();
        let place = Place { tick: event.arrival, epoch: event.epoch(), unit: event.unit };
        if let Some(what) = facts.what {
            let noted = counts.slots.note(place, what, &mut self.units);
            mishap(noted, &mut self.counters, &mut self.progress);
        }
        if let Some(failed) = facts.failed {
            let noted = counts.slots.note(place, failed, &mut self.units);
            mishap(noted, &mut self.counters, &mut self.progress);
        }
    }

    /// Decides where the evidence of a recorder counts, at its first event.
    fn give_slots(&mut self, key: RecorderKey) -> RecorderKey {
        let recorder = &mut self.recorders[key.index()];
        recorder.slots_at = if recorder.other == key {
            key
        } else if self.with_slots < MAX_WITH_SLOTS {
            self.with_slots += 1;
            key
        } else {
            self.counters.spilled_recorders += 1;
            recorder.other
        };
        recorder.slots_at
    }

    /// Takes notice of the time since the start: finds late workers, and moves the watermark.
    pub fn observe(&mut self, now: Duration) {
        self.counters.late_workers += self.progress.update(now);
    }

    /// The moment up to which everything is counted.
    #[must_use]
    pub const fn watermark(&self) -> Duration {
        self.progress.watermark()
    }

    /// Whether a tick must not be used: for both arms of every service.
    #[must_use]
    pub fn is_void(&self, tick: Tick) -> bool {
        self.progress.is_void(tick)
    }

    /// Drops the slots in which nothing changes any more. Call it when blocks have taken what is
    /// final, about once a second.
    pub fn retire(&mut self) {
        let watermark = self.progress.watermark();
        for counts in self.recorders.iter_mut().filter_map(|recorder| recorder.counts.as_mut()) {
            let past = counts.slots.longest_reach() + KEPT;
            counts.slots.retire(Tick::at(watermark.saturating_sub(past)), &mut self.units);
        }
    }

    /// Keeps no more of a recorder than its totals and durations: its names are not in force any
    /// more. Requests that are still out count all the same.
    pub fn release(&mut self, key: RecorderKey) {
        let recorder = &mut self.recorders[key.index()];
        if let Some(mut counts) = recorder.counts.take() {
            counts.slots.retire(Tick(u32::MAX), &mut self.units);
            recorder.past = Some(Box::new(counts.sums));
        }
        let own = recorder.slots_at == key && recorder.other != key;
        self.with_slots -= usize::from(own);
        recorder.slots_at = RecorderKey::NONE;
    }

    /// The totals of a recorder.
    #[must_use]
    pub fn totals(&self, key: RecorderKey) -> Totals {
        self.sums(key).totals
    }

    /// The durations of a recorder's requests.
    #[must_use]
    pub fn durations(&self, key: RecorderKey) -> Durations {
        self.sums(key).durations
    }

    /// The latencies of a recorder; `None` before its first event.
    #[must_use]
    pub fn latencies(&self, key: RecorderKey) -> Option<&Latencies> {
        self.counts(key).map(|counts| &counts.latencies)
    }

    /// The slots of a recorder; `None` before its first event.
    #[must_use]
    pub fn slots(&self, key: RecorderKey) -> Option<&Slots> {
        self.counts(key).map(|counts| &counts.slots)
    }

    /// Whether a recorder has counted anything.
    #[must_use]
    pub fn is_used(&self, key: RecorderKey) -> bool {
        self.totals(key).started > 0
    }

    /// What could not be counted.
    #[must_use]
    pub const fn counters(&self) -> &Counters {
        &self.counters
    }

    /// What could not be counted, for those who count further.
    pub const fn counters_mut(&mut self) -> &mut Counters {
        &mut self.counters
    }

    fn counts(&self, key: RecorderKey) -> Option<&Counts> {
        self.recorders.get(key.index())?.counts.as_deref()
    }

    fn sums(&self, key: RecorderKey) -> Sums {
        let Some(recorder) = self.recorders.get(key.index()) else { return Sums::default() };
        let past = || recorder.past.as_deref().copied().unwrap_or_default();
        recorder.counts.as_ref().map_or_else(past, |counts| counts.sums)
    }
}

impl Recorder {
    #[inline]
    fn counts(&mut self) -> &mut Counts {
        let past = &mut self.past;
        self.counts.get_or_insert_with(|| Counts::after(past.take()))
    }
}

/// Counts what could not be noted, and voids what it belongs to.
#[inline]
fn mishap(noted: Noted, counters: &mut Counters, progress: &mut Progress) {
    match noted {
        Noted::Counted => {}
        Noted::Gone => counters.past_every_deadline += 1,
        Noted::Evicted(tick) => {
            counters.slots_evicted += 1;
            progress.void(tick, tick);
        }
    }
}

impl Counts {
    #[cold]
    fn after(past: Option<Box<Sums>>) -> Box<Self> {
        Box::new(Self {
            sums: past.map_or_else(Sums::default, |past| *past),
            latencies: Latencies::new(),
            slots: Slots::new(),
        })
    }

    /// Counts what is shown of every request, evidence or not.
    fn count(&mut self, event: &Event) {
        match event.kind() {
            Kind::Assigned => {
                self.sums.totals.started += 1;
                self.sums.totals.excluded += u64::from(event.excluded());
            }
            Kind::Answered { .. } => {}
            Kind::Ended { outcome, .. } => {
                self.sums.totals.end(outcome);
                self.sums.durations.over(event.age_us);
                self.latencies.over(Times {
                    first_byte_us: event.first_byte_us,
                    total_us: event.age_us,
                    wait_us: event.wait_us(),
                });
            }
        }
    }
}

#[cfg(test)]
mod tests;
