//! Blocks: slices of time whose counts make one observation, cut out of the slots of one service
//! as these become final. A block holds requests of one set of weights.
//!
//! Several banks look at the same slots with different patience, so each has blocks of its own.

use std::{collections::VecDeque, time::Duration};

use serde::{Deserialize, Serialize};

use super::{Deadlines, Epoch, Ledger, RecorderKey, SlotView, Tick, WAIT_CREDIT_US, hex};

/// After a change of weights, requests may still be assigned under the one before for this many
/// ticks; later ones are left out.
const STRAGGLERS: u32 = 10;

/// A recorder of the service, and what it counts for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Member {
    /// The recorder.
    pub key: RecorderKey,
    /// 0 is the baseline, the canaries count from 1.
    pub arm: u8,
    /// Which weights the recorder's cohort gets: cohorts with the same weights are one stratum.
    pub stratum: u16,
    /// The part of the traffic that it counts for, where parts are told apart.
    pub part: u16,
}

/// Definitions of bad that are looked at together, as late as the most patient one needs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Bank {
    /// Definitions of slow, as places in the recorders' deadlines.
    pub slow: Vec<usize>,
    /// Ages of failure, as places in the recorders' two ages.
    pub failed: Vec<usize>,
    /// Whether refusals by the first age are counted.
    pub refused: bool,
}

/// Why a run of blocks ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Cut {
    /// It was due: a stage, a person, new thresholds. What the last block holds counts.
    Scheduled,
    /// It came of what was seen (caution, breaker, a cap): the last block is dropped, for a cut
    /// that is chosen by the content of a block biases it.
    Forced,
}

/// One observation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Block {
    /// Which of the builder's banks.
    #[serde(rename = "b")]
    pub bank: usize,
    /// The first epoch of the weights under which it was counted.
    #[serde(rename = "e")]
    pub epoch: Epoch,
    /// The first tick that it is about.
    #[serde(rename = "f")]
    pub first: Tick,
    /// The last tick that was counted into it.
    #[serde(rename = "l")]
    pub last: Tick,
    /// Something could not be counted: it must not be used.
    #[serde(rename = "v", default, skip_serializing_if = "is_default")]
    pub void: bool,
    /// What was counted, by stratum, kind of assignment, part and arm.
    #[serde(rename = "c", default, skip_serializing_if = "Vec::is_empty")]
    pub cells: Vec<Cell>,
}

/// The counts of one arm in one stratum of a block.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cell {
    /// As in [`Member::stratum`].
    #[serde(rename = "s", default, skip_serializing_if = "is_default")]
    pub stratum: u16,
    /// Whether by key (sticky) or by coin.
    #[serde(rename = "k", default, skip_serializing_if = "is_default")]
    pub keyed: bool,
    /// As in [`Member::part`].
    #[serde(rename = "p", default, skip_serializing_if = "is_default")]
    pub part: u16,
    /// As in [`Member::arm`].
    #[serde(rename = "a", default, skip_serializing_if = "is_default")]
    pub arm: u8,
    /// Requests, those given up early left out.
    #[serde(rename = "n")]
    pub started: u64,
    /// Of these, by the bank's definitions of slow.
    #[serde(rename = "w", default, skip_serializing_if = "Vec::is_empty")]
    pub slow: Vec<Bad>,
    /// Of these, by the bank's ages of failure.
    #[serde(rename = "x", default, skip_serializing_if = "Vec::is_empty")]
    pub failed: Vec<Bad>,
    /// Of these, those refused, where the bank counts them.
    #[serde(rename = "r", default, skip_serializing_if = "is_default")]
    pub refused: Bad,
    /// Of these, those known to hang by the last deadline.
    #[serde(rename = "h", default, skip_serializing_if = "is_default")]
    pub hung: u64,
    /// Of these, those given up late by the client; they are slow.
    #[serde(rename = "g", default, skip_serializing_if = "is_default")]
    pub aborted_late: u64,
}

/// Bad requests by one definition. Written as a number, or with its units as a pair.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "Written", into = "Written")]
pub struct Bad {
    /// How many.
    pub count: u64,
    /// In keyed cells: the units that had them, each once, ascending.
    pub units: Vec<u64>,
}

/// The short form of [`Bad`] in the journal.
#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum Written {
    Count(u64),
    Units(u64, #[serde(with = "hex")] Vec<u64>),
}

impl From<Written> for Bad {
    fn from(written: Written) -> Self {
        match written {
            Written::Count(count) => Self { count, units: Vec::new() },
            Written::Units(count, units) => Self { count, units },
        }
    }
}

impl From<Bad> for Written {
    fn from(Bad { count, units }: Bad) -> Self {
        if units.is_empty() { Self::Count(count) } else { Self::Units(count, units) }
    }
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

/// Cuts the blocks of one service.
#[derive(Debug)]
pub struct BlockBuilder {
    members: Vec<Member>,
    banks: Vec<Folding>,
    runs: VecDeque<Run>,
    next_run: u32,
    dropped: u64,
}

/// How far one bank has come.
#[derive(Debug)]
struct Folding {
    bank: Bank,
    /// The first tick that is not folded yet.
    next: Tick,
    /// By run, then number within it.
    open: Vec<Open>,
}

/// A stretch of time with one set of weights and one length of block.
#[derive(Debug)]
struct Run {
    id: u32,
    epochs: Vec<Epoch>,
    from: Tick,
    until: Option<(Tick, Cut)>,
    length: u32,
    /// Whether the weights change at its end, so that stragglers may come.
    reweighted: bool,
}

#[derive(Debug)]
struct Open {
    run: u32,
    number: u32,
    block: Block,
}

impl BlockBuilder {
    /// A builder that begins at `from` with the weights of `epoch`, and blocks of `length` ticks.
    #[must_use]
    pub fn new(banks: Vec<Bank>, from: Tick, epoch: Epoch, length: u32) -> Self {
        let folding = |bank| Folding { bank, next: from, open: Vec::new() };
        let banks = banks.into_iter().map(folding).collect();
        let mut builder =
            Self { members: Vec::new(), banks, runs: VecDeque::new(), next_run: 0, dropped: 0 };
        builder.push_run(vec![epoch], from, length);
        builder
    }

    /// The recorders of the service, from the next tick that is folded on.
    pub fn set_members(&mut self, members: Vec<Member>) {
        self.members = members;
    }

    /// The weights of this epoch are those of the one before: blocks go on.
    pub fn same_weights(&mut self, epoch: Epoch) {
        if let Some(run) = self.runs.back_mut() {
            run.epochs.push(epoch);
        }
    }

    /// Other weights are in force from `at` on, under `epoch`.
    pub fn reweigh(&mut self, epoch: Epoch, at: Tick, cut: Cut) {
        let length = self.end_run(at, cut, true);
        self.push_run(vec![epoch], at, length);
    }

    /// Blocks have another length, or other deadlines are in force, from `at` on.
    pub fn restart(&mut self, at: Tick, length: u32) {
        let epochs = self.runs.back().map_or_else(Vec::new, |run| run.epochs.clone());
        self.end_run(at, Cut::Scheduled, false);
        self.push_run(epochs, at, length);
    }

    /// Blocks that were dropped by a forced cut, and slots that came too late for theirs.
    #[must_use]
    pub const fn dropped(&self) -> u64 {
        self.dropped
    }

    fn end_run(&mut self, at: Tick, cut: Cut, reweighted: bool) -> u32 {
        let Some(run) = self.runs.back_mut() else { return 1 };
        run.until = Some((at.max(run.from), cut));
        run.reweighted = reweighted;
        run.length
    }

    fn push_run(&mut self, epochs: Vec<Epoch>, from: Tick, length: u32) {
        let (id, length) = (self.next_run, length.max(1));
        self.next_run += 1;
        self.runs.push_back(Run { id, epochs, from, until: None, length, reweighted: false });
    }

    /// Takes what has become final since the last time; returns the blocks that are complete.
    pub fn fold(&mut self, ledger: &Ledger) -> Vec<Block> {
        let mut complete = Vec::new();
        for (index, folding) in self.banks.iter_mut().enumerate() {
            let mut slots = Vec::new();
            while final_slots(ledger, &self.members, folding, &mut slots) {
                for (member, slot) in slots.drain(..) {
                    self.dropped += u64::from(!folding.take(index, &self.runs, member, slot));
                }
                folding.next = Tick(folding.next.0 + 1);
                for block in folding.close(&self.runs, ledger) {
                    match block {
                        Some(block) => complete.push(block),
                        None => self.dropped += 1,
                    }
                }
            }
        }
        let folded = self.banks.iter().map(|folding| folding.next).min().unwrap_or_default();
        while self.runs.len() > 1 && self.runs[0].is_over(folded) {
            self.runs.pop_front();
        }
        complete
    }
}

/// The slots of the bank's next tick, if nothing that the bank looks at can change in it any more.
/// Where some requests came before the first deadlines of their recorder the whole tick is left
/// out, so that no arm is counted without the other.
fn final_slots<'a>(
    ledger: &'a Ledger,
    members: &[Member],
    folding: &Folding,
    found: &mut Vec<(Member, SlotView<'a>)>,
) -> bool {
    let (bank, tick) = (&folding.bank, folding.next);
    let credit = Duration::from_micros(u64::from(WAIT_CREDIT_US));
    let Some(past) = ledger.watermark().checked_sub(tick.end() + credit) else { return false };
    let mut measured = true;
    for member in members {
        for slot in ledger.slots(member.key).into_iter().flat_map(|slots| slots.at(tick)) {
            if slot.deadlines().is_empty() {
                measured = false;
                continue;
            }
            if past <= Duration::from_micros(u64::from(bank.lag_us(slot.deadlines()))) {
                found.clear();
                return false;
            }
            found.push((*member, slot));
        }
    }
    if !measured {
        found.clear();
    }
    true
}

impl Bank {
    /// The age at which the bank has seen all that it looks at.
    fn lag_us(&self, deadlines: &Deadlines) -> u32 {
        let slow = self.slow.iter().filter_map(|definition| deadlines.of(*definition));
        let first = self.refused.then_some(0);
        let ages = self.failed.iter().copied().chain(first);
        let failed = ages.map(|age| deadlines.failed_by_us()[age]);
        slow.chain(failed).max().unwrap_or(0)
    }
}

impl Run {
    /// The number of the block that a tick belongs to.
    fn number(&self, tick: Tick) -> u32 {
        let number = tick.0.saturating_sub(self.from.0) / self.length;
        self.last_number().map_or(number, |last| number.min(last))
    }

    /// The number of the run's last block, where it is known.
    fn last_number(&self) -> Option<u32> {
        let (until, _) = self.until?;
        Some((until.0 - self.from.0).saturating_sub(1) / self.length)
    }

    /// The tick from which on nothing comes to a block any more.
    fn complete_from(&self, number: u32) -> Tick {
        match self.until {
            Some((until, _)) if self.last_number() == Some(number) => {
                Tick(until.0 + if self.reweighted { STRAGGLERS } else { 0 })
            }
            _ => Tick(self.from.0 + (number + 1) * self.length),
        }
    }

    fn is_dropped(&self, number: u32) -> bool {
        matches!(self.until, Some((_, Cut::Forced))) && self.last_number() == Some(number)
    }

    fn is_over(&self, folded: Tick) -> bool {
        self.until.is_some_and(|(until, _)| Tick(until.0 + STRAGGLERS) <= folded)
    }
}

/// The run that a slot belongs to: the last one of its epoch that had begun, else the first.
fn run_of<'a>(runs: &'a VecDeque<Run>, slot: SlotView<'_>) -> Option<&'a Run> {
    let of_epoch = || runs.iter().filter(|run| run.epochs.contains(&slot.epoch()));
    of_epoch().rfind(|run| run.from <= slot.tick()).or_else(|| of_epoch().next())
}

impl Folding {
    /// Counts a slot into its block; false where there is none any more.
    fn take(
        &mut self,
        bank: usize,
        runs: &VecDeque<Run>,
        member: Member,
        slot: SlotView<'_>,
    ) -> bool {
        let Some(run) = run_of(runs, slot) else { return false };
        let number = run.number(slot.tick());
        if run.complete_from(number) <= slot.tick() {
            return false;
        }
        let place = self.open.iter().position(|open| open.run == run.id && open.number == number);
        let place = place.unwrap_or_else(|| {
            let first = Tick(run.from.0 + number * run.length);
            let block = Block {
                bank,
                epoch: run.epochs[0],
                first,
                last: first,
                void: false,
                cells: Vec::new(),
            };
            self.open.push(Open { run: run.id, number, block });
            self.open.len() - 1
        });
        self.open[place].block.add(&self.bank, member, slot);
        true
    }

    /// The blocks that are complete; `None` for those that a forced cut drops.
    fn close(&mut self, runs: &VecDeque<Run>, ledger: &Ledger) -> Vec<Option<Block>> {
        let folded = self.next;
        let is_complete = |open: &mut Open| {
            let run = runs.iter().find(|run| run.id == open.run);
            run.is_none_or(|run| run.complete_from(open.number) <= folded)
        };
        let complete = self.open.extract_if(.., is_complete);
        let finish = |mut open: Open| {
            let run = runs.iter().find(|run| run.id == open.run)?;
            if run.is_dropped(open.number) {
                return None;
            }
            let block = &mut open.block;
            let mut ticks = block.first.0..=block.last.0;
            block.void |= ticks.any(|tick| ledger.is_void(Tick(tick)));
            block.finish();
            Some(open.block)
        };
        complete.map(finish).collect()
    }
}

impl Block {
    fn add(&mut self, bank: &Bank, member: Member, slot: SlotView<'_>) {
        self.first = self.first.min(slot.tick());
        self.last = self.last.max(slot.tick());
        self.void |= slot.void();
        let Member { arm, stratum, part, .. } = member;
        let keyed = slot.keyed();
        let is_its = |cell: &Cell| {
            (cell.stratum, cell.keyed, cell.part, cell.arm) == (stratum, keyed, part, arm)
        };
        let place = self.cells.iter().position(is_its).unwrap_or_else(|| {
            self.cells.push(Cell {
                stratum,
                keyed,
                part,
                arm,
                slow: vec![Bad::default(); bank.slow.len()],
                failed: vec![Bad::default(); bank.failed.len()],
                ..Cell::default()
            });
            self.cells.len() - 1
        });
        let cell = &mut self.cells[place];
        cell.started += u64::from(slot.started() - slot.left_out());
        cell.hung += u64::from(slot.hung());
        cell.aborted_late += u64::from(slot.aborted_late());
        for (bad, definition) in cell.slow.iter_mut().zip(&bank.slow) {
            bad.count += u64::from(slot.slow(*definition));
            bad.units.extend(slot.slow_units(*definition));
        }
        if bank.refused {
            cell.refused.count += u64::from(slot.refused());
            cell.refused.units.extend(slot.refused_units());
        }
        for (bad, age) in cell.failed.iter_mut().zip(&bank.failed) {
            bad.count += u64::from(slot.failed()[*age]);
            bad.units.extend(slot.failed_units(*age));
        }
    }

    /// Names every unit once, and puts the cells in order.
    fn finish(&mut self) {
        self.cells.sort_by_key(|cell| (cell.stratum, cell.keyed, cell.part, cell.arm));
        let lists = self.cells.iter_mut().flat_map(|cell| {
            cell.slow.iter_mut().chain(&mut cell.failed).chain([&mut cell.refused])
        });
        for bad in lists {
            bad.units.sort_unstable();
            bad.units.dedup();
        }
    }
}

#[cfg(test)]
mod tests;
