//! Sessions: how many users were moved away from a canary that they had been on. Users are known
//! by the keyed hash that their requests carry, and never written down here.

use std::{collections::HashMap, sync::Arc};

use super::layout::Cell;
use crate::{
    measure::{Batch, Kind, RecorderId},
    routing::ArmIndex,
};

/// Users of canaries that are remembered at most; those beyond are not counted.
const MOST: usize = 1 << 16;

/// Who is on which canary.
#[derive(Debug, Default)]
pub(super) struct Sessions {
    /// By recorder id: the service and the arm.
    arms: HashMap<RecorderId, (Arc<str>, ArmIndex)>,
    on_canary: HashMap<u64, ArmIndex>,
    moved: HashMap<Arc<str>, u64>,
}

impl Sessions {
    /// The recorders of services that have canaries.
    pub(super) fn arrange(&mut self, cells: &[Cell]) {
        let canaries = cells.iter().filter(|cell| cell.arm.0 > 0).map(|cell| cell.service);
        let services: std::collections::HashSet<usize> = canaries.collect();
        self.arms.clear();
        for cell in cells.iter().filter(|cell| services.contains(&cell.service)) {
            self.moved.entry(cell.labels.service.clone()).or_default();
            self.arms.insert(cell.id, (cell.labels.service.clone(), cell.arm));
        }
    }

    /// Takes notice of the keyed requests of a batch.
    pub(super) fn notice(&mut self, batch: &Batch) {
        for event in batch.events.iter().filter(|event| event.unit != 0 && !event.excluded()) {
            if !matches!(event.kind(), Kind::Assigned) {
                continue;
            }
            let Some((service, arm)) = self.arms.get(&event.recorder) else { continue };
            if arm.0 > 0 {
                if self.on_canary.len() < MOST || self.on_canary.contains_key(&event.unit) {
                    self.on_canary.insert(event.unit, *arm);
                }
            } else if !self.on_canary.is_empty() && self.on_canary.remove(&event.unit).is_some() {
                *self.moved.entry(service.clone()).or_default() += 1;
            }
        }
    }

    /// Users that came back to the baseline, by service, since the start of the process.
    pub(super) fn moved(&self) -> Vec<(Arc<str>, u64)> {
        let mut moved: Vec<(Arc<str>, u64)> =
            self.moved.iter().map(|(service, count)| (service.clone(), *count)).collect();
        moved.sort_unstable();
        moved
    }
}
