//! What was counted and believed over time, in a bounded number of slices: the longer a rollout
//! lasts the coarser they are.

use crate::{measure::Block, rollout::EvidenceInput};

/// Slices at most.
const MOST: usize = 240;

/// Places of the banks of blocks that are shown, and of p90 and p99 among their deadlines.
const SLOW_BANK: usize = 1;
const TAIL_BANK: usize = 2;
const P90: usize = 1;
const P99: usize = 3;

/// Slices of equal length, from the beginning on.
#[derive(Clone, Debug)]
pub(super) struct Series {
    /// The length of a slice in milliseconds.
    pub(super) width_ms: u64,
    pub(super) slices: Vec<Slice>,
    /// Everything together.
    pub(super) sum: Slice,
}

/// What was counted in one slice, by arm: baseline, canary.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Slice {
    /// Requests whose failures were counted, and those that failed.
    pub(super) requests: [u64; 2],
    pub(super) failed: [u64; 2],
    /// Requests whose latency was counted, and those beyond the baseline's p90 and p99.
    pub(super) timed: [u64; 2],
    pub(super) beyond_p90: [u64; 2],
    pub(super) beyond_p99: [u64; 2],
    /// The highest odds against the canary, as a natural logarithm.
    pub(super) odds_ln: Option<f64>,
    /// The weakest proof at the end of the slice, as a natural logarithm.
    pub(super) proof_ln: Option<f64>,
}

impl Default for Series {
    fn default() -> Self {
        Self { width_ms: 1000, slices: Vec::new(), sum: Slice::default() }
    }
}

impl Series {
    /// Adds what the evidence was fed at a time.
    pub(super) fn add(&mut self, at_ms: u64, input: &EvidenceInput) {
        let EvidenceInput::Block(fed) = input else { return };
        let counted = Slice::of(&fed.block);
        self.sum.merge(&counted);
        self.slice(at_ms).merge(&counted);
    }

    /// Notes what is believed at a time.
    pub(super) fn note(&mut self, at_ms: u64, odds_ln: f64, proof_ln: f64) {
        let noted = Slice { odds_ln: Some(odds_ln), proof_ln: Some(proof_ln), ..Slice::default() };
        self.slice(at_ms).merge(&noted);
    }

    /// The end of the last slice in seconds.
    pub(super) fn end(&self) -> f64 {
        (self.slices.len() as u64 * self.width_ms) as f64 / 1000.0
    }

    /// The slices joined to so few that they fit into a table, with their beginnings in seconds.
    pub(super) fn rows(&self, most: usize) -> Vec<(f64, Slice)> {
        let each = self.slices.len().div_ceil(most).max(1);
        let join = |(row, slices): (usize, &[Slice])| {
            let mut sum = Slice::default();
            slices.iter().for_each(|slice| sum.merge(slice));
            ((row * each) as f64 * self.width_ms as f64 / 1000.0, sum)
        };
        self.slices.chunks(each).enumerate().map(join).collect()
    }

    /// The slices joined until each has this many requests of an arm, with their middles in
    /// seconds.
    pub(super) fn points(&self, arm: usize, least: u64) -> Vec<(f64, Slice)> {
        let width = self.width_ms as f64 / 1000.0;
        let mut points: Vec<(f64, Slice)> = Vec::new();
        let (mut sum, mut first) = (Slice::default(), 0);
        for (place, slice) in self.slices.iter().enumerate() {
            sum.merge(slice);
            if sum.requests[arm] >= least {
                let middle = (first + place + 1) as f64 / 2.0 * width;
                points.push((middle, std::mem::take(&mut sum)));
                first = place + 1;
            }
        }
        // What is left is a point of its own where it says anything.
        if sum.requests[arm] >= (least / 4).max(1) || points.is_empty() {
            points.push(((first + self.slices.len()) as f64 / 2.0 * width, sum));
        }
        points
    }

    fn slice(&mut self, at_ms: u64) -> &mut Slice {
        while at_ms / self.width_ms >= MOST as u64 {
            self.width_ms *= 2;
            let pairs = self.slices.chunks(2).map(|pair| {
                let mut sum = pair[0];
                pair[1..].iter().for_each(|slice| sum.merge(slice));
                sum
            });
            self.slices = pairs.collect();
        }
        let place = (at_ms / self.width_ms) as usize;
        if self.slices.len() <= place {
            self.slices.resize(place + 1, Slice::default());
        }
        &mut self.slices[place]
    }
}

impl Slice {
    fn of(block: &Block) -> Self {
        let mut slice = Self::default();
        for cell in &block.cells {
            let arm = usize::from(cell.arm.min(1));
            let slow = |place: usize| cell.slow.get(place).map_or(0, |bad| bad.count);
            match block.bank {
                SLOW_BANK => {
                    slice.timed[arm] += cell.started;
                    slice.beyond_p90[arm] += slow(P90);
                    slice.beyond_p99[arm] += slow(P99);
                }
                TAIL_BANK => {
                    slice.requests[arm] += cell.started;
                    slice.failed[arm] += cell.failed.first().map_or(0, |bad| bad.count);
                }
                _ => {}
            }
        }
        slice
    }

    fn merge(&mut self, other: &Self) {
        for arm in 0..2 {
            self.requests[arm] += other.requests[arm];
            self.failed[arm] += other.failed[arm];
            self.timed[arm] += other.timed[arm];
            self.beyond_p90[arm] += other.beyond_p90[arm];
            self.beyond_p99[arm] += other.beyond_p99[arm];
        }
        self.odds_ln = match (self.odds_ln, other.odds_ln) {
            (Some(one), Some(other)) => Some(one.max(other)),
            (one, other) => one.or(other),
        };
        self.proof_ln = other.proof_ln.or(self.proof_ln);
    }

    /// The share of requests that failed.
    pub(super) fn failed_share(&self, arm: usize) -> Option<f64> {
        share(self.failed[arm], self.requests[arm])
    }

    /// The shares of requests beyond the baseline's p90 and p99.
    pub(super) fn slow_shares(&self, arm: usize) -> [Option<f64>; 2] {
        [self.beyond_p90[arm], self.beyond_p99[arm]].map(|slow| share(slow, self.timed[arm]))
    }

    /// Canary requests beyond the baseline's share: those that failed, and those beyond p99.
    pub(super) fn excess(&self) -> [f64; 2] {
        let excess = |bad: [u64; 2], all: [u64; 2]| match share(bad[0], all[0]) {
            Some(usual) => bad[1] as f64 - usual * all[1] as f64,
            None => 0.0,
        };
        [excess(self.failed, self.requests), excess(self.beyond_p99, self.timed)]
    }
}

fn share(part: u64, of: u64) -> Option<f64> {
    (of > 0).then(|| part as f64 / of as f64)
}
