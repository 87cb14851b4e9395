//! From the cells of a block to the strata of the judge. What a sticky user has told before is
//! left out here.

use super::{Armed, Pair, Split, pairs};
use crate::{
    judge::{ArmCounts, Coin, EDGES, Lag, Stratum},
    measure::{Bad, Block, Cell, Draw, Units},
};

/// Places of the ages of failure in the table of units, behind the edges.
const FAILED: [usize; 2] = [EDGES, EDGES + 1];

/// Shares closer than this are those of units that were never counted.
const SAME_SHARE: f64 = 1e-6;

/// The strata of a block for one lag.
pub(super) fn strata(
    block: &Block,
    lag: Lag,
    armed: Armed,
    splits: &[Split],
    units: &mut Units,
) -> Vec<Stratum> {
    let mut strata = Vec::new();
    let view = View { lag, armed };
    for Pair { stratum: number, keyed, arms } in pairs(block) {
        let Some(split) = splits.get(usize::from(number)).copied() else { continue };
        if keyed {
            sticky(Place { number, split }, &arms, view, units, &mut strata);
        } else {
            let [baseline, canary] = arms.map(|cells| {
                let mut sum = ArmCounts::default();
                cells.into_iter().for_each(|cell| sum.merge(&counts(cell, view)));
                sum
            });
            let coin = Coin::Drawn { share: split.omega() };
            strata.push(Stratum { weights: u32::from(number), coin, canary, baseline });
        }
    }
    strata
}

/// The coin strata of a block: their split, and the requests of baseline and canary.
pub(super) fn coin_started<'b>(
    block: &'b Block,
    splits: &'b [Split],
) -> impl Iterator<Item = (Split, [u64; 2])> {
    pairs(block).into_iter().filter(|pair| !pair.keyed).filter_map(|pair| {
        let split = splits.get(usize::from(pair.stratum)).copied()?;
        let both = pair.arms.iter().all(|cells| !cells.is_empty());
        both.then(|| (split, pair.arms.map(|cells| cells.iter().map(|cell| cell.started).sum())))
    })
}

/// All bad events of the sticky strata of a block of the lag [`Lag::Slow`], repeated ones of a
/// unit included: of the baseline and of the canary.
pub(super) fn sticky_bad(block: &Block) -> [ArmCounts; 2] {
    let mut sums = [ArmCounts::default(); 2];
    for cell in block.cells.iter().filter(|cell| cell.keyed) {
        let mut counts = counts(cell, View { lag: Lag::Slow, armed: Armed::All });
        counts.errors[0] = cell.failed.first().map_or(0, |bad| bad.count);
        sums[usize::from(cell.arm.min(1))].merge(&counts);
    }
    sums
}

/// What is looked at.
#[derive(Clone, Copy)]
struct View {
    lag: Lag,
    armed: Armed,
}

impl View {
    /// The edges, as places in a cell's list and in the judge's.
    fn edges(self) -> impl Iterator<Item = (usize, usize)> {
        let edges = match (self.lag, self.armed) {
            (Lag::Early, _) | (_, Armed::Nothing) | (Lag::Tail, Armed::ButLast) => 0..0,
            (Lag::Slow, Armed::ButLast | Armed::All) => 0..EDGES - 1,
            (Lag::Tail, Armed::All) => EDGES - 1..EDGES,
        };
        edges.enumerate()
    }

    /// The age of failure in the judge's list, if one is looked at.
    const fn age(self) -> Option<usize> {
        match self.lag {
            Lag::Early => Some(0),
            Lag::Slow => None,
            Lag::Tail => Some(1),
        }
    }
}

/// The counts of a cell in which every request has a coin of its own.
fn counts(cell: &Cell, view: View) -> ArmCounts {
    let mut slow = [0; EDGES];
    for (place, edge) in view.edges() {
        slow[edge] = cell.slow.get(place).map_or(0, |bad| bad.count);
    }
    let mut errors = [0; 2];
    if let Some(age) = view.age() {
        errors[age] = cell.failed.first().map_or(0, |bad| bad.count);
    }
    ArmCounts::of_requests(cell.started, errors, 0, slow)
}

#[derive(Clone, Copy)]
struct Place {
    number: u16,
    split: Split,
}

/// Sticky strata: one of units that were never counted, which carries all requests, and one for
/// each other probability.
fn sticky(
    place: Place,
    arms: &[Vec<&Cell>; 2],
    view: View,
    units: &mut Units,
    strata: &mut Vec<Stratum>,
) {
    let omega = place.split.omega();
    let mut shares = Shares { number: place.number, strata: Vec::new() };
    for (arm, cells) in arms.iter().enumerate() {
        shares.arm(omega, arm).started = cells.iter().map(|cell| cell.started).sum();
    }
    for (arm, cells) in arms.iter().enumerate() {
        let draw = Draw::new(place.split.canary_bp, place.split.baseline_bp, arm == 1);
        let mut count = |unit, definition| {
            let share = units.count(unit, definition, draw)?;
            Some(if (share - omega).abs() < SAME_SHARE { omega } else { share })
        };
        for (place, edge) in view.edges() {
            for unit in cells.iter().filter_map(|cell| cell.slow.get(place)).flat_map(|b| &b.units)
            {
                let Some(share) = count(*unit, edge) else { continue };
                let counts = shares.arm(share, arm);
                counts.slow[edge] += 1;
                if edge == 0 {
                    // The first event of a unit at the lowest edge, with its depth.
                    for (place, graded) in counts.graded.iter_mut().enumerate() {
                        let bad = cells.iter().filter_map(|cell| cell.slow.get(place));
                        *graded += u64::from(bad.into_iter().any(|bad| holds(bad, *unit)));
                    }
                }
            }
        }
        if let Some(age) = view.age() {
            let failed = cells.iter().filter_map(|cell| cell.failed.first());
            for unit in failed.flat_map(|bad| &bad.units) {
                if let Some(share) = count(*unit, FAILED[age]) {
                    shares.arm(share, arm).errors[age] += 1;
                }
            }
        }
    }
    strata.append(&mut shares.strata);
}

fn holds(bad: &Bad, unit: u64) -> bool {
    bad.units.binary_search(&unit).is_ok()
}

/// The sticky strata of one place, by the probability that a bad event is the canary's.
struct Shares {
    number: u16,
    strata: Vec<Stratum>,
}

impl Shares {
    fn at(&mut self, share: f64) -> &mut Stratum {
        let same = |stratum: &Stratum| match stratum.coin {
            Coin::Unit { share: other } => (other - share).abs() < SAME_SHARE,
            Coin::Request | Coin::Drawn { .. } => false,
        };
        let place = self.strata.iter().position(same).unwrap_or_else(|| {
            self.strata.push(Stratum {
                weights: u32::from(self.number),
                coin: Coin::Unit { share },
                canary: ArmCounts::default(),
                baseline: ArmCounts::default(),
            });
            self.strata.len() - 1
        });
        &mut self.strata[place]
    }

    fn arm(&mut self, share: f64, arm: usize) -> &mut ArmCounts {
        let stratum = self.at(share);
        if arm == 1 { &mut stratum.canary } else { &mut stratum.baseline }
    }
}
