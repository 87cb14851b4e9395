//! Joins the stretches that are handed over to blocks of the certified length.

use serde::{Deserialize, Serialize};

use super::{Block, Coin, Ending, Lag, MAX_STRATA, Pods, Stratum};

/// A block of one component at one lag, as far as it has come.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Gathering {
    lag: Lag,
    strata: Vec<Stratum>,
    ticks: u32,
    /// Length at which the block is complete, fixed when it begins.
    length: u32,
    pods: Option<Pods>,
    warming: bool,
    left_out: u64,
}

impl Default for Gathering {
    /// Without room: for a moment's absence only.
    fn default() -> Self {
        Self {
            lag: Lag::Early,
            strata: Vec::new(),
            ticks: 0,
            length: 0,
            pods: None,
            warming: false,
            left_out: 0,
        }
    }
}

impl Gathering {
    pub(super) fn new(lag: Lag) -> Self {
        Self { lag, strata: Vec::with_capacity(MAX_STRATA), ..Self::default() }
    }

    /// Makes room for all strata.
    pub(super) fn make_room(&mut self) {
        self.strata.reserve_exact(MAX_STRATA - self.strata.len().min(MAX_STRATA));
    }

    pub(super) const fn lag(&self) -> Lag {
        self.lag
    }

    /// Strata that found no room.
    pub(super) const fn left_out(&self) -> u64 {
        self.left_out
    }

    /// Adds a stretch; whether the block is complete. A complete block must be cleared.
    pub(super) fn add(&mut self, block: &Block<'_>, length_ticks: u32) -> bool {
        if block.ending == Ending::Reacted {
            self.clear();
            return false;
        }
        if self.ticks == 0 {
            // The length and the pods of a block are known before its first count.
            self.length = length_ticks;
            self.pods = block.pods;
        }
        self.ticks = self.ticks.saturating_add(block.ticks.max(1));
        self.warming |= block.warming;
        for stratum in block.strata {
            self.merge(stratum);
        }
        block.ending == Ending::Scheduled || self.ticks >= self.length
    }

    fn merge(&mut self, stratum: &Stratum) {
        let same = |s: &&mut Stratum| s.weights == stratum.weights && same_coin(s.coin, stratum);
        if let Some(known) = self.strata.iter_mut().find(same) {
            known.canary.merge(&stratum.canary);
            known.baseline.merge(&stratum.baseline);
        } else if self.strata.len() < MAX_STRATA {
            self.strata.push(*stratum);
        } else {
            self.left_out += 1;
        }
    }

    /// The block, as one.
    pub(super) fn block(&self, component: usize) -> Block<'_> {
        Block {
            component,
            lag: self.lag,
            ticks: self.ticks,
            strata: &self.strata,
            pods: self.pods,
            warming: self.warming,
            ending: Ending::Open,
        }
    }

    pub(super) fn clear(&mut self) {
        self.strata.clear();
        self.ticks = 0;
        self.warming = false;
    }
}

fn same_coin(coin: Coin, stratum: &Stratum) -> bool {
    match (coin, stratum.coin) {
        (Coin::Request, Coin::Request) => true,
        (Coin::Drawn { share: a }, Coin::Drawn { share: b })
        | (Coin::Unit { share: a }, Coin::Unit { share: b }) => a.to_bits() == b.to_bits(),
        (Coin::Request | Coin::Drawn { .. } | Coin::Unit { .. }, _) => false,
    }
}
