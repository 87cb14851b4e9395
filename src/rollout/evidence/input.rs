//! Inputs: everything that the evidence is fed, in a form for the journal. The same inputs in the
//! same order make the same evidence, in this process or in another.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::{Armed, Split};
use crate::{
    judge::{BreakerTick, Ended, Pods},
    measure::{Block, Cut, Epoch, Tick, hex},
};

/// One thing that the evidence is fed. Ticks and epochs are those of the process that wrote it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Input {
    /// A block whose counts are final.
    #[serde(rename = "b")]
    Block(FedBlock),
    /// Units that were seen for the first time in this stage.
    #[serde(rename = "u")]
    Newcomers(Vec<Newcomers>),
    /// Requests that ended, tick by tick.
    #[serde(rename = "e")]
    Ended(EndedTicks),
    /// Other deadlines are in force from a tick on.
    Deadlines {
        /// That tick.
        from: Tick,
        /// By route: the baseline's deadlines for p75 to p99.9 in microseconds, none where it is
        /// not known yet. Another process that goes on begins with them.
        by_route: Vec<Vec<u32>>,
    },
    /// Other weights are in force from a tick on.
    Reweigh {
        /// Their first epoch.
        epoch: Epoch,
        /// That tick.
        at: Tick,
        /// By stratum.
        splits: Vec<Split>,
        /// Whether what was seen chose the moment.
        cut: Cut,
    },
    /// An epoch whose weights are those of the one before.
    SameWeights {
        /// That epoch.
        epoch: Epoch,
    },
    /// The proof of the stage starts anew at a tick.
    Stage {
        /// That tick.
        from: Tick,
    },
    /// The outcome of a probe of an open breaker.
    Probe {
        /// Whether it succeeded.
        ok: bool,
    },
    /// Calibration gave the next rollback blocks another length in ticks.
    BlockTicks(u32),
    /// Parts of the traffic that are told apart from now on, behind those before: routes crossed
    /// with cohorts.
    Parts(Vec<Part>),
    /// A cohort's traffic is taken away from the canary, and its evidence does not count any more.
    SetAside {
        /// The cohort.
        cohort: Arc<str>,
    },
    /// Another number of pods takes traffic.
    Pods(Option<Pods>),
    /// The weights of the service's other canaries changed in a way that their sum does not show.
    OthersChanged,
    /// Another process goes on. Its ticks and epochs begin anew, and the blocks that were open in
    /// the one before are lost.
    Resumed {
        /// The first tick that is judged.
        from: Tick,
        /// The epoch of the weights in force.
        epoch: Epoch,
        /// These weights, by stratum.
        splits: Vec<Split>,
    },
}

/// A part of the traffic.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Part {
    /// The route.
    #[serde(rename = "r")]
    pub route: Arc<str>,
    /// The cohort.
    #[serde(rename = "c")]
    pub cohort: Arc<str>,
}

/// A block and how it is to be read.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct FedBlock {
    /// The counts.
    #[serde(flatten)]
    pub block: Block,
    /// Which deadlines meant something.
    #[serde(rename = "m")]
    pub armed: Armed,
    /// Whether the canary was warming up.
    #[serde(rename = "h", default, skip_serializing_if = "std::ops::Not::not")]
    pub warming: bool,
}

/// Units that came in one tick on one arm.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Newcomers {
    /// The tick of their arrival.
    #[serde(rename = "t")]
    pub arrival: Tick,
    /// Their stratum.
    #[serde(rename = "s", default, skip_serializing_if = "is_zero")]
    pub stratum: u16,
    /// Whether they go to the canary.
    #[serde(rename = "c", default, skip_serializing_if = "std::ops::Not::not")]
    pub is_canary: bool,
    /// The units.
    #[serde(rename = "u", with = "hex")]
    pub units: Vec<u64>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "the signature is serde's")]
const fn is_zero(value: &u16) -> bool {
    *value == 0
}

/// Requests that ended: ticks in which none did, then others.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct EndedTicks {
    /// So many ticks without any come first.
    #[serde(rename = "i", default, skip_serializing_if = "is_none")]
    pub idle: u32,
    /// By tick: all and failed ones of the canary, all and failed ones of the baseline.
    #[serde(rename = "n")]
    pub ticks: Vec<[u64; 4]>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "the signature is serde's")]
const fn is_none(value: &u32) -> bool {
    *value == 0
}

impl EndedTicks {
    pub(super) fn breaker_ticks(&self) -> impl Iterator<Item = BreakerTick> + '_ {
        let idle = (0..self.idle).map(|_| BreakerTick::default());
        let busy = self.ticks.iter().map(|[canary, canary_failed, baseline, baseline_failed]| {
            BreakerTick {
                canary: Ended { all: *canary, failed: *canary_failed },
                baseline: Ended { all: *baseline, failed: *baseline_failed },
            }
        });
        idle.chain(busy)
    }
}
