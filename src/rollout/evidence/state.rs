//! What the evidence has come to. It changes by inputs alone, so that the same inputs make the
//! same evidence, and it can be written down as it is.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use serde::{Deserialize, Serialize};

use super::{
    super::{Obstacle, Seen, Standing},
    Armed, FedBlock, Input, Split, Subject,
    excess::Excess,
    parts::Parts,
    strata, stretch,
    trials::SeenUnits,
    yardstick::RUNGS,
};
use crate::{
    judge::{self, ArmCounts, Ending, Judge, Lag, Level, Pods},
    measure::{Block, Cut, Epoch, MAX_UNITS, Tick, Units},
};

/// The banks of the block builder: one per lag, and one for the trials of a promotion.
pub(super) const BANKS: [Option<Lag>; 4] =
    [Some(Lag::Early), Some(Lag::Slow), Some(Lag::Tail), None];

/// Sets of weights that are remembered: blocks are fed within a minute.
const MAX_WEIGHTS: usize = 1024;

/// All weight, in buckets of 0.01 %.
const ALL_BP: u16 = 10_000;

/// Suspicion looks at whole seconds.
const SECOND: u32 = 10;

/// Everything that the evidence against one canary has come to, for the journal.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct EvidenceSnapshot {
    pub(super) judge: Judge,
    /// Length of the stretches that the judge is fed, in ticks; it joins them to its own blocks.
    stretch: u32,
    pods: Option<Pods>,
    pub(super) parts: Parts,
    pub(super) units: Units,
    /// The sets of weights of late, oldest first.
    weights: VecDeque<InForce>,
    next_weights: u32,
    cuts: VecDeque<CutAt>,
    /// By bank: cuts that the judge was told of, counted from the first ever.
    told: [u64; BANKS.len()],
    cuts_forgotten: u64,
    pub(super) seen: SeenUnits,
    stage: Stage,
    excess: Excess,
    /// Bad events of sticky users of the second that is not over yet.
    second: (u32, [ArmCounts; 2]),
    suspected: bool,
    /// Requests that were judged: of baseline and canary.
    requests: [u64; 2],
    warm_ticks: u32,
    /// The baseline's deadlines in microseconds, by route: what another process begins with.
    #[serde(default)]
    deadlines_us: Vec<Vec<u32>>,
}

/// A set of weights.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct InForce {
    /// Its first epoch.
    epoch: Epoch,
    number: u32,
    /// Counts the changes of the other canaries' weights.
    generation: u32,
    /// By stratum.
    splits: Vec<Split>,
}

/// A place where blocks end before their time.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
struct CutAt {
    at: Tick,
    /// The first epoch of the weights in force afterwards.
    epoch: Epoch,
    reweighed: bool,
    ending: Ending,
}

/// What belongs to the stage in force.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
struct Stage {
    from: Tick,
    /// Number of the weights in force when it was entered: blocks of later ones belong to it
    /// wherever they begin.
    entered_at: u32,
    canary_requests: u64,
}

/// Users of a sticky service in the stage, and how many of them can still tell the arms apart: a
/// user who was slow once under a weight tells nothing more about slowness under it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tellers {
    /// Users that came in this stage, on both arms.
    pub users: u64,
    /// Of these, those who can still tell.
    pub open: u64,
    /// Of those, the canary's.
    pub open_canary: u64,
}

/// Fewer users of the canary than this can hardly tell anything.
const FEW: u64 = 30;

impl Tellers {
    /// Whether too few users of the canary are left to tell.
    #[must_use]
    pub const fn are_too_few(&self) -> bool {
        self.open_canary < FEW
    }

    /// "users that can still tell: 120 of 5000, 6 of them on the canary".
    #[must_use]
    pub fn sentence(&self) -> String {
        let Self { users, open, open_canary } = self;
        format!("users that can still tell: {open} of {users}, {open_canary} of them on the canary")
    }
}

fn others_bp(splits: &[Split]) -> Option<u16> {
    splits.first().map(|split| ALL_BP.saturating_sub(split.canary_bp + split.baseline_bp))
}

impl EvidenceSnapshot {
    pub(super) fn new(subject: &Subject, from: Tick, epoch: Epoch, splits: Vec<Split>) -> Self {
        let mut config = subject.judge.clone();
        if subject.units_lost {
            // What the lost units had told may be told again: the process before keeps its half.
            config.false_rollback /= 2.0;
        }
        Self {
            stretch: stretch(config.block_ticks),
            judge: Judge::new(config),
            pods: subject.pods,
            parts: Parts::default(),
            units: Units::new(MAX_UNITS),
            weights: VecDeque::from([InForce { epoch, number: 0, generation: 0, splits }]),
            next_weights: 1,
            cuts: VecDeque::new(),
            told: [0; BANKS.len()],
            cuts_forgotten: 0,
            seen: SeenUnits::default(),
            stage: Stage { from, entered_at: 0, canary_requests: 0 },
            excess: Excess::default(),
            second: Default::default(),
            suspected: false,
            requests: [0; 2],
            warm_ticks: 0,
            deadlines_us: Vec::new(),
        }
    }

    /// The splits in force.
    pub(super) fn splits(&self) -> &[Split] {
        self.weights.back().map_or(&[], |it| &it.splits)
    }

    fn generation(&self) -> u32 {
        self.weights.back().map_or(0, |it| it.generation)
    }

    /// The weight of the other canaries.
    fn others_bp(&self) -> Option<u16> {
        others_bp(self.splits())
    }

    /// Ticks in which the canary was warming up.
    pub(super) const fn warm_ticks(&self) -> u32 {
        self.warm_ticks
    }

    /// Users of the stage and those who can still tell.
    pub(super) fn tellers(&self) -> Option<Tellers> {
        let users = self.seen.by_arm();
        let omega = self.splits().first()?.omega() as f32;
        if users == [0; 2] {
            return None;
        }
        let spent = self.units.spent(0, omega, |unit| self.seen.contains(unit));
        let open = |arm: usize| users[arm].saturating_sub(spent[arm] as u64);
        Some(Tellers { users: users[0] + users[1], open: open(0) + open(1), open_canary: open(1) })
    }

    pub(super) const fn requests(&self) -> [u64; 2] {
        self.requests
    }

    pub(super) fn excess_bad(&self) -> f64 {
        self.excess.at_least()
    }

    pub(super) const fn pods(&self) -> Option<Pods> {
        self.pods
    }

    /// The baseline's deadlines in microseconds, by route, as they were told last.
    pub(super) fn deadlines_us(&self) -> &[Vec<u32>] {
        &self.deadlines_us
    }

    /// Length of the stretches in ticks.
    pub(super) const fn stretch(&self) -> u32 {
        self.stretch
    }

    pub(super) fn take(&mut self, input: &Input) {
        match input {
            Input::Block(fed) => self.feed(fed),
            Input::Newcomers(newcomers) => {
                let splits = self.weights.back().map_or(&[][..], |it| &it.splits);
                for (stratum, [baseline, canary]) in self.seen.note(newcomers) {
                    if let Some(split) = splits.get(usize::from(stratum)) {
                        self.judge.assigned(split.omega(), canary, baseline);
                    }
                }
            }
            Input::Ended(ended) => ended.breaker_ticks().for_each(|tick| {
                self.judge.tick(tick);
            }),
            Input::Deadlines { from, by_route } => {
                self.deadlines_us.clone_from(by_route);
                let epoch = self.weights.back().map_or(Epoch::default(), |it| it.epoch);
                let ending = Ending::Scheduled;
                self.cuts.push_back(CutAt { at: *from, epoch, reweighed: false, ending });
                self.forget_cuts();
            }
            Input::Reweigh { epoch, at, splits, cut } => {
                self.reweigh(*epoch, *at, splits.clone(), *cut);
            }
            Input::SameWeights { .. } => {}
            Input::Stage { from } => self.enter_stage(*from),
            Input::Probe { ok } => {
                self.judge.probe(*ok);
            }
            Input::BlockTicks(ticks) => self.judge.set_block_ticks(*ticks),
            Input::Parts(parts) => self.parts.add(parts, &mut self.judge),
            Input::SetAside { cohort } => {
                self.parts.set_aside(cohort, self.next_weights, &mut self.judge);
            }
            Input::Pods(pods) => self.pods = *pods,
            Input::OthersChanged => {
                if let Some(in_force) = self.weights.back_mut() {
                    in_force.generation += 1;
                }
            }
            Input::Resumed { from, epoch, splits } => self.resume(*from, *epoch, splits.clone()),
        }
    }

    fn reweigh(&mut self, epoch: Epoch, at: Tick, splits: Vec<Split>, cut: Cut) {
        let others_changed = self.others_bp() != others_bp(&splits);
        let generation = self.generation() + u32::from(others_changed);
        self.weights.push_back(InForce { epoch, number: self.next_weights, generation, splits });
        self.next_weights += 1;
        if self.weights.len() > MAX_WEIGHTS {
            self.weights.pop_front();
        }
        let ending = match cut {
            Cut::Scheduled => Ending::Scheduled,
            Cut::Forced => Ending::Reacted,
        };
        self.cuts.push_back(CutAt { at, epoch, reweighed: true, ending });
        self.forget_cuts();
        self.enter_stage(at);
        // What was in force before the change says nothing of the stage.
        self.stage.entered_at = self.next_weights - 2;
        self.stage.from = Tick(u32::MAX);
    }

    fn enter_stage(&mut self, from: Tick) {
        self.judge.enter_stage();
        self.seen.clear();
        let entered_at = self.next_weights - 1;
        self.stage = Stage { from, entered_at, canary_requests: 0 };
    }

    /// Another process goes on with new ticks and epochs: what was open is dropped, the stage and
    /// its proof stand.
    fn resume(&mut self, from: Tick, epoch: Epoch, splits: Vec<Split>) {
        for lag in Lag::ALL {
            self.tell_end(lag, Ending::Reacted);
        }
        let others_changed = self.others_bp() != others_bp(&splits);
        let generation = self.generation() + u32::from(others_changed);
        let in_force = InForce { epoch, number: self.next_weights, generation, splits };
        self.weights = VecDeque::from([in_force]);
        self.next_weights += 1;
        self.cuts.clear();
        (self.told, self.cuts_forgotten) = ([0; BANKS.len()], 0);
        self.seen.forget_waiting();
        self.second = Default::default();
        self.stage.from = from;
        self.stage.entered_at = self.next_weights - 1;
    }

    pub(super) fn seen(
        &mut self,
        now: Duration,
        others_bp: u16,
        obstacle: Option<Obstacle>,
    ) -> Seen {
        let verdict = self.judge.verdict();
        let condemns = verdict.level == Level::Rollback;
        Seen {
            now,
            verdict,
            condemned: condemns.then(|| self.condemned()).flatten(),
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

    fn condemned(&self) -> Option<Arc<str>> {
        self.judge.condemned_cohorts().next().map(Arc::from)
    }

    fn feed(&mut self, fed: &FedBlock) {
        let block = &fed.block;
        self.tell_cuts(block);
        self.forget_cuts();
        let Some(weights) = self.weights.iter().rfind(|it| it.epoch == block.epoch) else {
            return;
        };
        let of_stage = block.first >= self.stage.from || weights.number > self.stage.entered_at;
        self.units.under(weights.generation);
        let under = weights.clone();
        match BANKS.get(block.bank) {
            Some(Some(lag)) => self.feed_judge(fed, *lag, &under, of_stage),
            Some(None) if of_stage => self.feed_trials(fed, &under.splits),
            Some(None) | None => {}
        }
    }

    fn feed_judge(&mut self, fed: &FedBlock, lag: Lag, under: &InForce, of_stage: bool) {
        let InForce { number, splits, .. } = under;
        let FedBlock { block, armed, .. } = fed;
        let view = strata::View { lag, armed: *armed };
        let components = self.judge.components().len();
        let members = strata::Members { parts: &self.parts, weights: *number, components };
        let strata = strata::strata(block, view, splits, &mut self.units, members);
        for (component, strata) in strata.iter().enumerate() {
            self.judge.block(&judge::Block {
                component,
                lag,
                ticks: self.stretch,
                strata,
                pods: self.pods,
                warming: fed.warming,
                ending: Ending::Open,
            });
        }
        match lag {
            Lag::Early => {
                self.warm_ticks += if fed.warming { self.stretch } else { 0 };
                for cell in &block.cells {
                    self.requests[usize::from(cell.arm.min(1))] += cell.started;
                }
                for (split, [baseline, canary]) in strata::coin_started(block, splits) {
                    self.judge.assigned(split.omega(), canary, baseline);
                }
            }
            Lag::Slow => {
                if *armed != Armed::Nothing && !fed.warming {
                    self.excess.add_slow(block);
                    if of_stage {
                        self.suspect(strata::sticky_bad(block));
                    }
                }
            }
            Lag::Tail => self.excess.add_failed(block),
        }
    }

    fn suspect(&mut self, [baseline, canary]: [ArmCounts; 2]) {
        if baseline.started + canary.started == 0 {
            return;
        }
        let (ticks, sums) = &mut self.second;
        *ticks += self.stretch;
        sums[0].merge(&baseline);
        sums[1].merge(&canary);
        if *ticks >= SECOND {
            let (ticks, [baseline, canary]) = std::mem::take(&mut self.second);
            self.suspected |= self.judge.suspect(ticks, &canary, &baseline);
        }
    }

    fn feed_trials(&mut self, fed: &FedBlock, splits: &[Split]) {
        if fed.armed == Armed::Nothing {
            return;
        }
        let canary_cells = fed.block.cells.iter().filter(|cell| cell.arm == 1);
        self.stage.canary_requests += canary_cells.map(|cell| cell.started).sum::<u64>();
        let strata = self.seen.trials(&fed.block, splits);
        self.judge.trials(&judge::Trials {
            ticks: self.stretch,
            strata: &strata,
            pods: self.pods,
            rungs: RUNGS,
            ending: Ending::Open,
        });
    }

    /// Tells the judge that blocks of all components end.
    fn tell_end(&mut self, lag: Lag, ending: Ending) {
        for component in 0..self.judge.components().len() {
            self.judge.block(&judge::Block {
                component,
                lag,
                ticks: 0,
                strata: &[],
                pods: self.pods,
                warming: false,
                ending,
            });
        }
    }

    /// Tells the judge of the cuts that lie before a block.
    fn tell_cuts(&mut self, block: &Block) {
        let Some(Some(lag)) = BANKS.get(block.bank) else { return };
        let is_before =
            |cut: &CutAt| cut.epoch == block.epoch && (cut.reweighed || block.first >= cut.at);
        let Some(last) = self.cuts.iter().rposition(is_before) else { return };
        let told = self.told[block.bank].max(self.cuts_forgotten) - self.cuts_forgotten;
        for place in told as usize..=last {
            let ending = self.cuts[place].ending;
            self.tell_end(*lag, ending);
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
}
