//! From the cells of a block to the strata of the judge. What a sticky user has told before is
//! left out here.

use super::{Armed, Pair, Split, pairs, parts::Parts};
use crate::{
    judge::{ArmCounts, Coin, EDGES, Lag, Stratum},
    measure::{Bad, Block, Cell, Draw, Units},
};

/// Places of the ages of failure in the table of units, behind the edges.
const FAILED: [usize; 2] = [EDGES, EDGES + 1];

/// Place of refusals in it.
const REFUSED: usize = EDGES + 2;

/// Shares closer than this are those of units that were never counted.
const SAME_SHARE: f64 = 1e-6;

/// The strata of a block for one lag, by component: the service first, then as many others as
/// there are. A unit that was counted counts for all components that its request belongs to.
pub(super) fn strata(
    block: &Block,
    view: View,
    splits: &[Split],
    units: &mut Units,
    members: Members<'_>,
) -> Vec<Vec<Stratum>> {
    let mut all = vec![Vec::new(); members.components.max(1)];
    for Pair { stratum: number, keyed, arms } in pairs(block) {
        let Some(split) = splits.get(usize::from(number)).copied() else { continue };
        let mut places: Vec<Shares> = (0..all.len()).map(|_| Shares::new(number, keyed)).collect();
        // Every stratum has one with the share of the epoch, in which requests count.
        let omega = split.omega();
        for (arm, cells) in arms.iter().enumerate() {
            for cell in cells {
                for component in members.of(cell) {
                    places[component].arm(omega, arm).started += cell.started;
                }
            }
        }
        if keyed {
            sticky(split, &arms, view, units, |cell, share, arm, change| {
                for component in members.of(cell) {
                    change(places[component].arm(share, arm));
                }
            });
        } else {
            for (arm, cells) in arms.iter().enumerate() {
                for cell in cells {
                    let counts = ArmCounts { started: 0, ..counts(cell, view) };
                    for component in members.of(cell) {
                        places[component].arm(omega, arm).merge(&counts);
                    }
                }
            }
        }
        for (strata, mut place) in all.iter_mut().zip(places) {
            strata.append(&mut place.strata);
        }
    }
    all
}

/// Which components a cell belongs to.
#[derive(Clone, Copy)]
pub(super) struct Members<'p> {
    pub(super) parts: &'p Parts,
    /// Number of the weights of the block.
    pub(super) weights: u32,
    /// How many components there are.
    pub(super) components: usize,
}

impl<'p> Members<'p> {
    fn of(self, cell: &Cell) -> impl Iterator<Item = usize> + use<'p> {
        self.parts.of(cell.part, self.weights).filter(move |it| *it < self.components)
    }
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
pub(super) struct View {
    pub(super) lag: Lag,
    pub(super) armed: Armed,
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
    let refused = if view.lag == Lag::Early { cell.refused.count } else { 0 };
    ArmCounts::of_requests(cell.started, errors, refused, slow)
}

/// Counts the bad events of sticky strata: `count` is told the cell of an event, the probability
/// that it is the canary's, its arm, and what to add.
fn sticky(
    split: Split,
    arms: &[Vec<&Cell>; 2],
    view: View,
    units: &mut Units,
    mut count: impl FnMut(&Cell, f64, usize, &dyn Fn(&mut ArmCounts)),
) {
    let omega = split.omega();
    for (arm, cells) in arms.iter().enumerate() {
        let draw = Draw::new(split.canary_bp, split.baseline_bp, arm == 1);
        let mut share_of = |unit, definition| {
            let share = units.count(unit, definition, draw)?;
            Some(if (share - omega).abs() < SAME_SHARE { omega } else { share })
        };
        for (place, edge) in view.edges() {
            for cell in cells {
                for unit in cell.slow.get(place).into_iter().flat_map(|bad| &bad.units) {
                    let Some(share) = share_of(*unit, edge) else { continue };
                    // The first event of a unit at the lowest edge comes with its depth.
                    let depth = if edge == 0 { depth(cells, *unit) } else { [0; EDGES] };
                    count(cell, share, arm, &|counts| {
                        counts.slow[edge] += 1;
                        for (graded, deep) in counts.graded.iter_mut().zip(depth) {
                            *graded += deep;
                        }
                    });
                }
            }
        }
        if view.lag == Lag::Early {
            for cell in cells {
                for unit in &cell.refused.units {
                    if let Some(share) = share_of(*unit, REFUSED) {
                        count(cell, share, arm, &|counts| counts.refused += 1);
                    }
                }
            }
        }
        if let Some(age) = view.age() {
            for cell in cells {
                for unit in cell.failed.first().into_iter().flat_map(|bad| &bad.units) {
                    if let Some(share) = share_of(*unit, FAILED[age]) {
                        count(cell, share, arm, &|counts| counts.errors[age] += 1);
                    }
                }
            }
        }
    }
}

/// At which edges a unit is slow in any of the cells: one or none each.
fn depth(cells: &[&Cell], unit: u64) -> [u64; EDGES] {
    std::array::from_fn(|edge| {
        let mut bad = cells.iter().filter_map(|cell| cell.slow.get(edge));
        u64::from(bad.any(|bad| holds(bad, unit)))
    })
}

fn holds(bad: &Bad, unit: u64) -> bool {
    bad.units.binary_search(&unit).is_ok()
}

/// The strata of one place, by the probability that a bad event is the canary's.
struct Shares {
    number: u16,
    keyed: bool,
    strata: Vec<Stratum>,
}

impl Shares {
    const fn new(number: u16, keyed: bool) -> Self {
        Self { number, keyed, strata: Vec::new() }
    }

    fn at(&mut self, share: f64) -> &mut Stratum {
        let same = |stratum: &Stratum| match stratum.coin {
            Coin::Unit { share: other } | Coin::Drawn { share: other } => {
                (other - share).abs() < SAME_SHARE
            }
            Coin::Request => false,
        };
        let place = self.strata.iter().position(same).unwrap_or_else(|| {
            self.strata.push(Stratum {
                weights: u32::from(self.number),
                coin: if self.keyed { Coin::Unit { share } } else { Coin::Drawn { share } },
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
