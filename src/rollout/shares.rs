//! The weights that requests really got: assignments of the last 60 s by service and arm, forced
//! ones left out.

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
};

use super::layout::Cell;
use crate::measure::{Ledger, RecorderKey};

/// The arm that is no canary.
const BASELINE: &str = "baseline";

/// Seconds that are looked at.
const SECONDS: usize = 60;

/// Assignments of one service by arm.
type ByArm = HashMap<Arc<str>, u64>;

/// What one recorder assigned in one second.
#[derive(Debug)]
struct Assigned {
    service: Arc<str>,
    arm: Arc<str>,
    count: u64,
}

/// Assignments by second.
#[derive(Debug, Default)]
pub(super) struct Shares {
    /// What was assigned by each recorder when it was last looked at.
    seen: HashMap<RecorderKey, u64>,
    seconds: VecDeque<Vec<Assigned>>,
    /// The sums over `seconds`.
    sums: HashMap<Arc<str>, ByArm>,
}

impl Shares {
    /// Notes what was assigned in the last second; called once a second.
    pub(super) fn second(&mut self, cells: &[Cell], ledger: &Ledger) {
        let mut second = Vec::new();
        for cell in cells.iter().filter(|cell| ledger.is_used(cell.key)) {
            let totals = ledger.totals(cell.key);
            let assigned = totals.started - totals.excluded;
            let count = assigned - self.seen.insert(cell.key, assigned).unwrap_or(0);
            if count > 0 {
                let (service, arm) = (cell.labels.service.clone(), cell.labels.arm.clone());
                *self.sum(&service, &arm) += count;
                second.push(Assigned { service, arm, count });
            }
        }
        self.seconds.push_back(second);
        if self.seconds.len() > SECONDS {
            for old in self.seconds.pop_front().into_iter().flatten() {
                *self.sum(&old.service, &old.arm) -= old.count;
            }
        }
    }

    /// Requests of the last second by service: of the baseline, and of all arms.
    pub(super) fn last_second(&self) -> impl Iterator<Item = (Arc<str>, u64, u64)> {
        let mut sums = HashMap::<Arc<str>, (u64, u64)>::new();
        for one in self.seconds.back().into_iter().flatten() {
            let (baseline, all) = sums.entry(one.service.clone()).or_default();
            *baseline += if &*one.arm == BASELINE { one.count } else { 0 };
            *all += one.count;
        }
        sums.into_iter().map(|(service, (baseline, all))| (service, baseline, all))
    }

    fn sum(&mut self, service: &Arc<str>, arm: &Arc<str>) -> &mut u64 {
        self.sums.entry(service.clone()).or_default().entry(arm.clone()).or_default()
    }

    /// The share of an arm in its service's assignments; `None` without any.
    pub(super) fn of(&self, service: &str, arm: &str) -> Option<f64> {
        let arms = self.sums.get(service)?;
        let all: u64 = arms.values().sum();
        let mine = arms.get(arm).copied().unwrap_or(0);
        (all > 0).then(|| mine as f64 / all as f64)
    }
}
