//! Evidence: from the ledger's slots to the judge of one canary. Sets the deadlines, has blocks
//! cut, removes what sticky users tell twice, and hands the counts over.
//!
//! The live control thread and the simulator run this very code. It counts no request itself,
//! reads no clock and moves no weight.

mod excess;
mod strata;
mod trials;
mod yardstick;

pub use trials::Arm;

use std::{collections::VecDeque, time::Duration};

use super::{Obstacle, Seen, Standing, Tolerance, plan::Margin};
use crate::{
    judge::{
        self, BreakerTick, Ended, Ending, Judge, JudgeConfig, Lag, Pods, Stratum, TrialStratum,
    },
    measure::{
        Bank, Block, BlockBuilder, Cell, Cut, Epoch, Ledger, MAX_UNITS, Member, RecorderKey, Tick,
        Totals, Units,
    },
};
use excess::Excess;
use trials::Newcomers;
use yardstick::{Armed, MARGIN, Yardstick};

/// Length of the stretches that the judge is fed, in ticks; it joins them to its own blocks.
const STRETCH: u32 = 10;

/// The banks of the block builder: one per lag, and one for the trials of a promotion.
const BANKS: [Option<Lag>; 4] = [Some(Lag::Early), Some(Lag::Slow), Some(Lag::Tail), None];

/// Sets of weights that are remembered: blocks are fed within a minute.
const MAX_WEIGHTS: usize = 1024;

/// What the evidence against one canary is made of.
#[derive(Clone, Debug)]
pub struct Subject {
    /// The judge's settings.
    pub judge: JudgeConfig,
    /// What does not count as drift.
    pub tolerate: Tolerance,
    /// The margin that a promotion must prove.
    pub promote_within: Margin,
    /// After this long without an answer a request is hung.
    pub timeout: Duration,
    /// Pods taking traffic, where they are known.
    pub pods: Option<Pods>,
    /// The baseline's recorders with the stratum of each: cohorts with the same weights are one.
    pub baseline: Vec<(RecorderKey, u16)>,
    /// The canary's recorders with the stratum of each.
    pub canary: Vec<(RecorderKey, u16)>,
}

/// The weights of canary and baseline in one stratum, in buckets of 0.01 %.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Split {
    /// Of this canary.
    pub canary_bp: u16,
    /// Of the baseline.
    pub baseline_bp: u16,
}

/// The evidence against one canary.
#[derive(Debug)]
pub struct Evidence {
    subject: Subject,
    judge: Judge,
    builder: BlockBuilder,
    units: Units,
    yardstick: Yardstick,
    /// Splits by stratum of each set of weights, oldest first, with its number.
    weights: VecDeque<(Epoch, u32, Vec<Split>)>,
    next_weights: u32,
    cuts: VecDeque<CutAt>,
    /// By bank: cuts that the judge was told of, counted from the first ever.
    told: [u64; BANKS.len()],
    cuts_forgotten: u64,
    newcomers: Newcomers,
    stage: Stage,
    totals: [Totals; 2],
    excess: Excess,
    suspected: bool,
    fed_until: Tick,
    news: bool,
    requests: [u64; 2],
}

/// A place where blocks end before their time.
#[derive(Clone, Copy, Debug)]
struct CutAt {
    at: Tick,
    /// The first epoch of the weights in force afterwards.
    epoch: Epoch,
    reweighed: bool,
    ending: Ending,
}

/// What belongs to the stage in force.
#[derive(Clone, Copy, Debug)]
struct Stage {
    from: Tick,
    /// Number of the weights in force when it was entered: blocks of later ones belong to it
    /// wherever they begin.
    entered_at: u32,
    canary_requests: u64,
}

impl Evidence {
    /// Begins at a tick, with the weights of an epoch by stratum.
    #[must_use]
    pub fn new(subject: Subject, from: Tick, epoch: Epoch, splits: Vec<Split>) -> Self {
        let mut builder = BlockBuilder::new(banks(), from, epoch, STRETCH);
        let member =
            |arm| move |(key, stratum): &(_, _)| Member { key: *key, arm, stratum: *stratum };
        let members = subject.baseline.iter().map(member(0));
        builder.set_members(members.chain(subject.canary.iter().map(member(1))).collect());
        Self {
            judge: Judge::new(subject.judge.clone()),
            subject,
            builder,
            units: Units::new(MAX_UNITS),
            yardstick: Yardstick::default(),
            weights: VecDeque::from([(epoch, 0, splits)]),
            next_weights: 1,
            cuts: VecDeque::new(),
            told: [0; BANKS.len()],
            cuts_forgotten: 0,
            newcomers: Newcomers::default(),
            stage: Stage { from, entered_at: 0, canary_requests: 0 },
            totals: [Totals::default(); 2],
            excess: Excess::default(),
            suspected: false,
            fed_until: from,
            news: false,
            requests: [0; 2],
        }
    }

    /// The judge.
    #[must_use]
    pub const fn judge(&self) -> &Judge {
        &self.judge
    }

    /// Takes notice of a keyed request that was assigned, for the trials of a promotion.
    pub fn assigned(&mut self, unit: u64, arrival: Tick, arm: Arm) {
        self.newcomers.note(unit, arrival, arm);
    }

    /// Other weights are in force from `at` on: for proof and suspicion that is a new stage.
    /// A forced cut is one whose moment was chosen by what was seen; the block in progress is
    /// dropped then.
    pub fn reweigh(&mut self, epoch: Epoch, at: Tick, splits: Vec<Split>, cut: Cut) {
        self.builder.reweigh(epoch, at, cut);
        self.weights.push_back((epoch, self.next_weights, splits));
        self.next_weights += 1;
        if self.weights.len() > MAX_WEIGHTS {
            self.weights.pop_front();
        }
        let ending = match cut {
            Cut::Scheduled => Ending::Scheduled,
            Cut::Forced => Ending::Reacted,
        };
        self.cuts.push_back(CutAt { at, epoch, reweighed: true, ending });
        self.enter_stage(at);
        // What was in force before the change says nothing of the stage.
        self.stage.entered_at = self.next_weights - 2;
        self.stage.from = Tick(u32::MAX);
    }

    /// The weights of this epoch are those of the one before.
    pub fn same_weights(&mut self, epoch: Epoch) {
        self.builder.same_weights(epoch);
    }

    /// A stage is entered at a tick: its proof starts anew.
    pub fn enter_stage(&mut self, from: Tick) {
        self.judge.enter_stage();
        self.newcomers.clear();
        let entered_at = self.next_weights - 1;
        self.stage = Stage { from, entered_at, canary_requests: 0 };
    }

    /// One tick is over: sets deadlines where they are due, and hands over what has become final.
    pub fn tick(&mut self, ledger: &mut Ledger, now: Tick) {
        self.tick_with(ledger, now, |_| true);
    }

    /// Like [`Evidence::tick`], but blocks that are not kept are left out.
    pub fn tick_with(&mut self, ledger: &mut Ledger, now: Tick, keep: impl Fn(&Block) -> bool) {
        if self.yardstick.refresh(&self.subject, ledger, now) {
            let from = Tick(now.0 + 1);
            self.builder.restart(from, STRETCH);
            let epoch = self.weights.back().map_or(Epoch::default(), |(epoch, ..)| *epoch);
            let ending = Ending::Scheduled;
            self.cuts.push_back(CutAt { at: from, epoch, reweighed: false, ending });
        }
        for block in self.builder.fold(ledger) {
            if block.void {
                ledger.counters_mut().void_blocks += 1;
            } else if keep(&block) {
                self.feed(&block);
            }
        }
        self.forget_cuts();
        self.trip(ledger);
    }

    /// What a step of the rollout is decided by; suspicion is told once.
    pub fn seen(&mut self, now: Duration, others_bp: u16, obstacle: Option<Obstacle>) -> Seen {
        Seen {
            now,
            verdict: self.judge.verdict(),
            proofs: self.judge.promotion(),
            breaker: self.judge.breaker(),
            suspected: std::mem::take(&mut self.suspected),
            canary_requests: self.stage.canary_requests,
            excess_bad: self.excess.at_least(),
            others_bp,
            objectives: Standing::Kept,
            obstacle,
            block_ends: true,
        }
    }

    /// Units of sticky strata that had a bad event, and how many of them can still tell.
    #[must_use]
    pub const fn units(&self) -> &Units {
        &self.units
    }

    /// Whether a block was judged since this was asked last.
    pub fn has_news(&mut self) -> bool {
        std::mem::take(&mut self.news)
    }

    /// Requests that were judged since the rollout began: of the baseline and of the canary.
    #[must_use]
    pub const fn requests(&self) -> [u64; 2] {
        self.requests
    }

    /// Bad canary responses beyond the baseline's share, as far as they are beyond doubt.
    #[must_use]
    pub fn excess_bad(&self) -> f64 {
        self.excess.at_least()
    }

    /// Other recorders belong to it from now on: the table has other routes or cohorts.
    pub fn reshape(&mut self, subject: Subject) {
        let member =
            |arm| move |(key, stratum): &(_, _)| Member { key: *key, arm, stratum: *stratum };
        let members = subject.baseline.iter().map(member(0));
        self.builder.set_members(members.chain(subject.canary.iter().map(member(1))).collect());
        self.subject = subject;
        self.yardstick = Yardstick::default();
    }

    fn feed(&mut self, block: &Block) {
        self.news = true;
        self.tell_cuts(block);
        let Some((_, number, splits)) = self.weights.iter().rfind(|(e, ..)| *e == block.epoch)
        else {
            return;
        };
        let (number, splits) = (*number, splits.clone());
        let of_stage = block.first >= self.stage.from || number > self.stage.entered_at;
        match BANKS[block.bank] {
            Some(lag) => self.feed_judge(block, lag, &splits, of_stage),
            None if of_stage => self.feed_trials(block, &splits),
            None => {}
        }
    }

    fn feed_judge(&mut self, block: &Block, lag: Lag, splits: &[Split], of_stage: bool) {
        let armed = self.yardstick.armed_at(block.first);
        let strata = strata::strata(block, lag, armed, splits, &mut self.units);
        self.hand_over(lag, STRETCH, &strata, Ending::Open);
        match lag {
            Lag::Early => {
                for cell in &block.cells {
                    self.requests[usize::from(cell.arm.min(1))] += cell.started;
                }
                for (split, [baseline, canary]) in strata::coin_cells(block, splits) {
                    self.judge.assigned(split.omega(), canary.started, baseline.started);
                }
            }
            Lag::Slow => {
                if armed != Armed::Nothing {
                    self.excess.add_slow(block);
                    let [baseline, canary] = strata::sticky_bad(block);
                    if of_stage && baseline.started + canary.started > 0 {
                        self.suspected |= self.judge.suspect(STRETCH, &canary, &baseline);
                    }
                }
            }
            Lag::Tail => self.excess.add_failed(block),
        }
        self.fed_until = self.fed_until.max(block.last);
    }

    fn feed_trials(&mut self, block: &Block, splits: &[Split]) {
        if self.yardstick.armed_at(block.first) == Armed::Nothing {
            return;
        }
        let canary_cells = block.cells.iter().filter(|cell| cell.arm == 1);
        self.stage.canary_requests += canary_cells.map(|cell| cell.started).sum::<u64>();
        let strata: Vec<TrialStratum> = self.newcomers.trials(block, splits);
        self.judge.trials(&judge::Trials {
            ticks: STRETCH,
            strata: &strata,
            pods: self.subject.pods,
            ending: Ending::Open,
        });
    }

    fn hand_over(&mut self, lag: Lag, ticks: u32, strata: &[Stratum], ending: Ending) {
        self.judge.block(&judge::Block {
            component: 0,
            lag,
            ticks,
            strata,
            pods: self.subject.pods,
            warming: false,
            ending,
        });
    }

    /// Tells the judge of the cuts that lie before a block.
    fn tell_cuts(&mut self, block: &Block) {
        let Some(lag) = BANKS[block.bank] else { return };
        let is_before =
            |cut: &CutAt| cut.epoch == block.epoch && (cut.reweighed || block.first >= cut.at);
        let Some(last) = self.cuts.iter().rposition(is_before) else { return };
        let told = self.told[block.bank].max(self.cuts_forgotten) - self.cuts_forgotten;
        for place in told as usize..=last {
            let ending = self.cuts[place].ending;
            self.hand_over(lag, 0, &[], ending);
        }
        let all = self.cuts_forgotten + last as u64 + 1;
        self.told[block.bank] = self.told[block.bank].max(all);
    }

    /// Keeps the cuts that some bank may still come to.
    fn forget_cuts(&mut self) {
        const MOST: usize = 1024;
        let told = self.told.iter().zip(BANKS).filter(|(_, lag)| lag.is_some());
        let least = told.map(|(told, _)| *told).min().unwrap_or(0);
        while self.cuts_forgotten < least || self.cuts.len() > MOST {
            self.cuts.pop_front();
            self.cuts_forgotten += 1;
        }
    }

    /// Feeds the breaker with what ended in this tick.
    fn trip(&mut self, ledger: &Ledger) {
        let arms = [&self.subject.baseline, &self.subject.canary];
        let [baseline, canary] = [0, 1].map(|arm| {
            let mut now = Totals::default();
            for (key, _) in arms[arm] {
                now.add(&ledger.totals(*key));
            }
            let since = now.since(&self.totals[arm]);
            self.totals[arm] = now;
            // What is in flight is left out: it is no failure yet.
            Ended { all: since.all_ended(), failed: since.errors() }
        });
        self.judge.tick(BreakerTick { canary, baseline });
    }
}

impl Split {
    /// The canary's share of the two.
    #[must_use]
    pub fn omega(self) -> f64 {
        let sum = f64::from(self.canary_bp) + f64::from(self.baseline_bp);
        f64::from(self.canary_bp) / sum.max(1.0)
    }
}

fn banks() -> Vec<Bank> {
    vec![
        Bank { slow: Vec::new(), failed: vec![0] },
        Bank { slow: vec![0, 1, 2, 3], failed: vec![0] },
        Bank { slow: vec![4], failed: vec![1] },
        Bank { slow: MARGIN.to_vec(), failed: vec![1] },
    ]
}

/// The cells of one stratum and kind of assignment, as baseline and canary.
fn pairs(block: &Block) -> impl Iterator<Item = (u16, bool, [Option<&Cell>; 2])> {
    let mut places: Vec<(u16, bool)> =
        block.cells.iter().map(|cell| (cell.stratum, cell.keyed)).collect();
    places.dedup();
    places.into_iter().map(|(stratum, keyed)| {
        let of = |arm| {
            let mut cells = block.cells.iter();
            cells.find(|cell| (cell.stratum, cell.keyed, cell.arm) == (stratum, keyed, arm))
        };
        (stratum, keyed, [of(0), of(1)])
    })
}

#[cfg(test)]
mod tests;
