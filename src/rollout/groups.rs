//! Groups: the recorders of one route and arm over its cohorts, and what status shows of them.
//! Quantiles are refreshed a tenth at a time, so that no tick pays for all.

use std::{collections::HashMap, sync::Arc};

use hdrhistogram::Histogram;

use super::{layout::Cell, status::ArmStatus};
use crate::measure::{Ledger, RecorderKey, Tick, Totals};

/// The quantiles that status shows.
const QUANTILES: [f64; 4] = [0.5, 0.95, 0.99, 0.999];

/// All groups of the table in force.
#[derive(Debug, Default)]
pub(super) struct Groups {
    all: Vec<Group>,
    /// By service: the places of its groups, route by route.
    by_service: Vec<Vec<usize>>,
    next: usize,
}

/// The recorders of one route and arm.
#[derive(Debug)]
pub(super) struct Group {
    pub(super) route_name: Arc<str>,
    pub(super) service: usize,
    pub(super) arm: usize,
    pub(super) arm_name: Arc<str>,
    pub(super) keys: Vec<RecorderKey>,
    /// In milliseconds; `None` without samples.
    quantiles_ms: Option<[f64; 4]>,
}

impl Groups {
    /// The groups of a layout; quantiles of groups that stay are kept.
    pub(super) fn arrange(&mut self, cells: &[Cell]) {
        let mut known: HashMap<_, _> = std::mem::take(&mut self.all)
            .into_iter()
            .map(|group| ((group.route_name, group.arm_name), group.quantiles_ms))
            .collect();
        let mut places = HashMap::new();
        for cell in cells {
            let arm = usize::from(cell.arm.0);
            let place = *places.entry((cell.route, arm)).or_insert_with(|| {
                let names = (cell.labels.route.clone(), cell.labels.arm.clone());
                self.all.push(Group {
                    service: cell.service,
                    arm,
                    keys: Vec::new(),
                    quantiles_ms: known.remove(&names).flatten(),
                    route_name: names.0,
                    arm_name: names.1,
                });
                self.all.len() - 1
            });
            self.all[place].keys.push(cell.key);
        }
        let services = self.all.iter().map(|group| group.service + 1).max().unwrap_or(0);
        self.by_service = vec![Vec::new(); services];
        for (place, group) in self.all.iter().enumerate() {
            self.by_service[group.service].push(place);
        }
        self.next = 0;
    }

    /// The groups of a service, route by route.
    pub(super) fn of(&self, service: usize) -> impl Iterator<Item = &Group> {
        let places = self.by_service.get(service).into_iter().flatten();
        places.map(|place| &self.all[*place])
    }

    /// Refreshes the quantiles of every tenth group.
    pub(super) fn refresh(&mut self, ledger: &Ledger, now: Tick) {
        self.next = (self.next + 1) % 10;
        for group in self.all.iter_mut().skip(self.next).step_by(10) {
            group.refresh(ledger, now);
        }
    }
}

impl Group {
    fn refresh(&mut self, ledger: &Ledger, now: Tick) {
        let mut sum = Histogram::<u32>::new(2).expect("two digits are within 0 to 5");
        for latencies in self.keys.iter().filter_map(|key| ledger.latencies(*key)) {
            latencies.window().add_minute(now, &mut sum);
        }
        self.quantiles_ms = (!sum.is_empty())
            .then(|| QUANTILES.map(|quantile| sum.value_at_quantile(quantile) as f64 / 1000.0));
    }

    /// The group as status shows it, with the counts since `began`.
    pub(super) fn status(
        &self,
        ledger: &Ledger,
        began: &HashMap<RecorderKey, Totals>,
    ) -> ArmStatus {
        let mut totals = Totals::default();
        for key in &self.keys {
            let now = ledger.totals(*key);
            totals.add(&began.get(key).map_or(now, |before| now.since(before)));
        }
        let quantile = |index: usize| self.quantiles_ms.map(|quantiles| quantiles[index]);
        ArmStatus {
            arm: self.arm_name.clone(),
            requests: totals.started,
            errors: totals.errors(),
            p50_ms: quantile(0),
            p95_ms: quantile(1),
            p99_ms: quantile(2),
            p999_ms: quantile(3),
        }
    }
}
