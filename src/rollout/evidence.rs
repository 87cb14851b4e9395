//! Evidence: from the ledger's slots to the judge of one canary. Sets the deadlines, has blocks
//! cut, removes what sticky users tell twice, and hands the counts over.
//!
//! It has two halves. Gathering reads the ledger and makes inputs; taking an input moves the
//! evidence, and nothing else does: who writes the inputs down can repeat it exactly. The live
//! control thread and the simulator run this very code. It counts no request itself, reads no
//! clock and moves no weight.

mod breaking;
mod excess;
mod input;
mod parts;
mod state;
mod strata;
mod subject;
mod trials;
mod yardstick;

pub use input::{EndedTicks, FedBlock, Input, Newcomers, Part};
pub use state::{EvidenceSnapshot, Tellers};
pub use subject::{JudgedRoute, Source, Split, Subject};
pub use trials::Arm;
pub use yardstick::{Armed, Yardstick};

use std::{sync::Arc, time::Duration};

use super::{Obstacle, Seen};
use crate::{
    judge::{BreakerState, Judge, Pods, Scope},
    measure::{Bank, Block, BlockBuilder, Cell, Cut, Epoch, Ledger, Member, Tick, Units},
};
use breaking::Ends;
use trials::Noted;
use yardstick::MARGIN;

/// The longest stretch that the judge is fed, in ticks.
const LONGEST_STRETCH: u32 = 10;

/// The length of the stretches that the judge is fed: it joins them to its own blocks.
const fn stretch(block_ticks: u32) -> u32 {
    if block_ticks < LONGEST_STRETCH { block_ticks } else { LONGEST_STRETCH }
}

/// The evidence against one canary.
#[derive(Debug)]
pub struct Evidence {
    subject: Subject,
    builder: BlockBuilder,
    noted: Noted,
    ends: Ends,
    /// Parts that the state does not know yet.
    new_parts: Vec<Part>,
    /// The epochs of the weights in force.
    epochs: Vec<Epoch>,
    /// The tick of the canary's first request in this process.
    first_request: Option<Tick>,
    /// Ticks that it warmed up in another one.
    warm_before: u32,
    /// The set of deadlines that the canary has, and the tick that its first came into force.
    generation: u64,
    measured_from: Option<Tick>,
    news: bool,
    state: EvidenceSnapshot,
}

impl Evidence {
    /// Begins at a tick, with the weights of an epoch by stratum. Where recorders have counted
    /// already, that is the tick after the one in which it gathers for the first time: deadlines
    /// hold from then on.
    #[must_use]
    pub fn new(subject: Subject, from: Tick, epoch: Epoch, splits: Vec<Split>) -> Self {
        let state = EvidenceSnapshot::new(&subject, from, epoch, splits);
        Self::with(subject, state, from, epoch)
    }

    /// The evidence of a snapshot, to be fed the inputs that were written down after it. It
    /// gathers nothing until it is resumed.
    #[must_use]
    pub fn recall(subject: Subject, snapshot: EvidenceSnapshot) -> Self {
        Self::with(subject, snapshot, Tick(0), Epoch::default())
    }

    /// Goes on in another process than the one in which the snapshot was taken: ticks and epochs
    /// begin anew and recorders are other ones. The blocks that were open are lost. The input
    /// says so to whoever repeats it.
    #[must_use]
    pub fn restore(
        subject: Subject,
        snapshot: EvidenceSnapshot,
        from: Tick,
        epoch: Epoch,
        splits: Vec<Split>,
    ) -> (Self, Input) {
        let mut evidence = Self::recall(subject, snapshot);
        let input = evidence.resume(from, epoch, splits);
        (evidence, input)
    }

    fn with(subject: Subject, state: EvidenceSnapshot, from: Tick, epoch: Epoch) -> Self {
        let mut builder = BlockBuilder::new(banks(), from, epoch, state.stretch());
        let (members, new_parts) = members(&subject, &state);
        builder.set_members(members);
        Self {
            subject,
            new_parts,
            builder,
            noted: Noted::default(),
            ends: Ends::default(),
            epochs: vec![epoch],
            first_request: None,
            warm_before: state.warm_ticks(),
            generation: 0,
            measured_from: None,
            news: false,
            state,
        }
    }

    /// What it is about.
    #[must_use]
    pub const fn subject(&self) -> &Subject {
        &self.subject
    }

    /// The baseline's deadlines in microseconds, by route, as they were told last.
    pub(super) fn deadlines_us(&self) -> &[Vec<u32>] {
        self.state.deadlines_us()
    }

    /// The judge.
    #[must_use]
    pub const fn judge(&self) -> &Judge {
        &self.state.judge
    }

    /// Everything that the evidence has come to. [`Evidence::snapshot`] without a copy.
    #[must_use]
    pub const fn state(&self) -> &EvidenceSnapshot {
        &self.state
    }

    /// Everything that the evidence has come to.
    #[must_use]
    pub fn snapshot(&self) -> EvidenceSnapshot {
        self.state.clone()
    }

    /// Takes notice of a keyed request that was assigned, for the trials of a promotion. Those
    /// under other weights than the ones in force are no trials.
    pub fn assigned(&mut self, unit: u64, arrival: Tick, epoch: Epoch, arm: Arm) {
        if self.epochs.contains(&epoch) {
            self.noted.note(&self.state.seen, unit, arrival, arm);
        }
    }

    /// Other recorders count, after a change of routes or cohorts. Their names and order in
    /// [`Subject::routes`] and [`Subject::cohorts`] are the new ones.
    pub fn reshape(&mut self, subject: Subject) -> Option<Input> {
        self.subject = subject;
        let (members, new_parts) = members(&self.subject, &self.state);
        self.builder.set_members(members);
        self.new_parts = new_parts;
        self.ends.recount();
        self.generation = 0;
        self.set_pods(self.subject.pods)
    }

    /// Goes on in another process: see [`Evidence::restore`].
    pub fn resume(&mut self, from: Tick, epoch: Epoch, splits: Vec<Split>) -> Input {
        self.builder = BlockBuilder::new(banks(), from, epoch, self.state.stretch());
        let (members, new_parts) = members(&self.subject, &self.state);
        self.builder.set_members(members);
        self.new_parts = new_parts;
        self.epochs = vec![epoch];
        self.warm_before = self.state.warm_ticks();
        self.do_take(Input::Resumed { from, epoch, splits })
    }

    /// Other weights are in force from `at` on: for proof and suspicion that is a new stage.
    /// A forced cut is one whose moment was chosen by what was seen; the block in progress is
    /// dropped then.
    pub fn reweigh(&mut self, epoch: Epoch, at: Tick, splits: Vec<Split>, cut: Cut) -> Input {
        self.builder.reweigh(epoch, at, cut);
        self.epochs = vec![epoch];
        self.noted.clear();
        self.do_take(Input::Reweigh { epoch, at, splits, cut })
    }

    /// The weights of this epoch are those of the one before.
    pub fn same_weights(&mut self, epoch: Epoch) -> Input {
        self.builder.same_weights(epoch);
        self.epochs.push(epoch);
        self.do_take(Input::SameWeights { epoch })
    }

    /// A stage is entered at a tick: its proof starts anew.
    pub fn enter_stage(&mut self, from: Tick) -> Input {
        self.noted.clear();
        self.do_take(Input::Stage { from })
    }

    /// The outcome of a probe of an open breaker.
    pub fn probe(&mut self, ok: bool) -> Input {
        self.do_take(Input::Probe { ok })
    }

    /// Calibration gives the next rollback blocks another length in ticks; `None` where it is
    /// that already.
    pub fn set_block_ticks(&mut self, ticks: u32) -> Option<Input> {
        (ticks != self.judge().block_ticks()).then(|| self.do_take(Input::BlockTicks(ticks)))
    }

    /// Another number of pods takes traffic; `None` where it is that already.
    pub fn set_pods(&mut self, pods: Option<Pods>) -> Option<Input> {
        (pods != self.state.pods()).then(|| self.do_take(Input::Pods(pods)))
    }

    /// The weights of the service's other canaries changed and their sum did not: users that told
    /// something under the ones before are not asked again. Where the sum changes, that is
    /// noticed without being told.
    pub fn others_changed(&mut self) -> Input {
        self.do_take(Input::OthersChanged)
    }

    /// A cohort's traffic is taken away from the canary, by the next [`Evidence::reweigh`]: what
    /// was seen of it does not count any more, and the rest is judged anew out of the reserve.
    /// `None` where it has no evidence of its own. See [`Judge::condemned_cohorts`].
    pub fn set_aside(&mut self, cohort: &Arc<str>) -> Option<Input> {
        let mut all = self.judge().by_component().filter(|it| it.scope == Scope::Cohort);
        let found = all.any(|it| !it.set_aside && *it.name == **cohort);
        drop(all);
        found.then(|| self.do_take(Input::SetAside { cohort: Arc::clone(cohort) }))
    }

    fn do_take(&mut self, input: Input) -> Input {
        self.state.take(&input);
        input
    }

    /// One tick is over, and the yardstick is refreshed: sets the canary's deadlines where they
    /// are due, and makes inputs of what has become final. Nothing is judged before these are
    /// taken, each once and in their order.
    pub fn gather(
        &mut self,
        ledger: &mut Ledger,
        yardstick: &Yardstick,
        now: Tick,
        out: &mut Vec<Input>,
    ) {
        self.gather_with(ledger, yardstick, now, out, |_| true);
    }

    fn gather_with(
        &mut self,
        ledger: &mut Ledger,
        yardstick: &Yardstick,
        now: Tick,
        out: &mut Vec<Input>,
        keep: impl Fn(&Block) -> bool,
    ) {
        if !self.new_parts.is_empty() {
            out.push(Input::Parts(std::mem::take(&mut self.new_parts)));
        }
        let newcomers = self.noted.take();
        if !newcomers.is_empty() {
            out.push(Input::Newcomers(newcomers));
        }
        out.extend(self.follow(ledger, yardstick, now));
        for block in self.builder.fold(ledger) {
            if block.void {
                ledger.counters_mut().void_blocks += 1;
            } else if keep(&block) {
                let is_measured = self.measured_from.is_some_and(|from| from <= block.first);
                let armed =
                    if is_measured { yardstick.armed_at(block.first) } else { Armed::Nothing };
                let warming = self.is_warming(block.first);
                out.push(Input::Block(FedBlock { block, armed, warming }));
            }
        }
        let closed = self.judge().breaker() == BreakerState::Closed;
        out.extend(self.ends.tick(&self.subject, ledger, closed).map(Input::Ended));
        if self.ends.canary_came() {
            self.first_request.get_or_insert(now);
        }
    }

    /// Whether the canary is warming up at a tick: for a time after its first request. What it
    /// had of that time in another process counts.
    fn is_warming(&self, tick: Tick) -> bool {
        let Some(warmup) = self.subject.warmup else { return false };
        let ticks = u32::try_from(warmup.as_millis().div_ceil(100)).unwrap_or(u32::MAX);
        let left = ticks.saturating_sub(self.warm_before);
        left > 0 && self.first_request.is_none_or(|from| tick.0 < from.0.saturating_add(left))
    }

    /// Users of a sticky service in the stage, and those who can still tell; `None` without any.
    /// Looks at all that had a bad event: ask once a second at most.
    #[must_use]
    pub fn tellers(&self) -> Option<Tellers> {
        self.state.tellers()
    }

    /// Gives the canary the deadlines of a new set.
    fn follow(&mut self, ledger: &mut Ledger, yardstick: &Yardstick, now: Tick) -> Option<Input> {
        if yardstick.generation() == self.generation {
            return None;
        }
        self.generation = yardstick.generation();
        let from = Tick(now.0 + 1);
        self.measured_from.get_or_insert(from);
        for source in self.subject.of_arm(true) {
            if let Some(deadlines) = yardstick.of_canary(&self.subject, source.route) {
                ledger.set_deadlines(source.key, from, deadlines);
            }
        }
        self.builder.restart(from, self.state.stretch());
        Some(Input::Deadlines { from, by_route: yardstick.edges_us() })
    }

    /// Moves the evidence by an input. Pure: the same inputs make the same evidence.
    pub fn take(&mut self, input: &Input) {
        self.news |= matches!(input, Input::Block(_));
        self.state.take(input);
    }

    /// Whether a block was judged since this was asked last.
    pub fn has_news(&mut self) -> bool {
        std::mem::take(&mut self.news)
    }

    /// Requests that were judged since the rollout began: of the baseline and of the canary.
    #[must_use]
    pub const fn requests(&self) -> [u64; 2] {
        self.state.requests()
    }

    /// Bad canary responses beyond the baseline's share, as far as they are beyond doubt.
    #[must_use]
    pub fn excess_bad(&self) -> f64 {
        self.state.excess_bad()
    }

    /// One tick is over, for a service with one canary: gathers, and takes what was gathered.
    pub fn tick(&mut self, ledger: &mut Ledger, yardstick: &mut Yardstick, now: Tick) {
        self.tick_with(ledger, yardstick, now, |_| true);
    }

    /// Like [`Evidence::tick`], but blocks that are not kept are left out.
    pub fn tick_with(
        &mut self,
        ledger: &mut Ledger,
        yardstick: &mut Yardstick,
        now: Tick,
        keep: impl Fn(&Block) -> bool,
    ) {
        yardstick.refresh(ledger, now);
        let mut inputs = Vec::new();
        self.gather_with(ledger, yardstick, now, &mut inputs, keep);
        inputs.iter().for_each(|input| self.take(input));
    }

    /// What a step of the rollout is decided by; suspicion is told once.
    pub fn seen(&mut self, now: Duration, others_bp: u16, obstacle: Option<Obstacle>) -> Seen {
        self.state.seen(now, others_bp, obstacle)
    }

    /// Units of sticky strata that had a bad event, and how many of them can still tell.
    #[must_use]
    pub const fn units(&self) -> &Units {
        &self.state.units
    }
}

/// The members of the block builder, and the parts of the traffic that are new.
fn members(subject: &Subject, state: &EvidenceSnapshot) -> (Vec<Member>, Vec<Part>) {
    let mut new: Vec<Part> = Vec::new();
    let mut members = Vec::with_capacity(subject.sources.len());
    for source in &subject.sources {
        let (Some(route), Some(cohort)) = (
            subject.routes.get(usize::from(source.route)),
            subject.cohorts.get(usize::from(source.cohort)),
        ) else {
            continue;
        };
        let part = Part { route: route.name.clone(), cohort: cohort.clone() };
        let known = state.parts.position(&part).or_else(|| {
            let place = new.iter().position(|it| *it == part)?;
            Some(state.parts.len() + place)
        });
        let number = known.unwrap_or_else(|| {
            new.push(part);
            state.parts.len() + new.len() - 1
        });
        members.push(Member {
            key: source.key,
            arm: u8::from(source.is_canary),
            stratum: source.stratum,
            part: u16::try_from(number).unwrap_or(u16::MAX),
        });
    }
    (members, new)
}

fn banks() -> Vec<Bank> {
    let trials = MARGIN.into_iter().chain(yardstick::shifts()).collect();
    vec![
        Bank { slow: Vec::new(), failed: vec![0], refused: true },
        Bank { slow: vec![0, 1, 2, 3], failed: vec![0], refused: false },
        Bank { slow: vec![4], failed: vec![1], refused: false },
        Bank { slow: trials, failed: vec![1], refused: false },
    ]
}

/// The cells of one stratum and kind of assignment.
struct Pair<'b> {
    stratum: u16,
    keyed: bool,
    /// Of baseline and canary, by part.
    arms: [Vec<&'b Cell>; 2],
}

fn pairs(block: &Block) -> Vec<Pair<'_>> {
    let mut pairs: Vec<Pair<'_>> = Vec::new();
    for cell in &block.cells {
        let place = (cell.stratum, cell.keyed);
        let same = |pair: &&mut Pair<'_>| (pair.stratum, pair.keyed) == place;
        let known = pairs.last_mut().filter(same).is_some();
        if !known {
            let arms = [Vec::new(), Vec::new()];
            pairs.push(Pair { stratum: cell.stratum, keyed: cell.keyed, arms });
        }
        if let Some(pair) = pairs.last_mut() {
            pair.arms[usize::from(cell.arm.min(1))].push(cell);
        }
    }
    pairs
}

#[cfg(test)]
mod tests;
