//! The layout: which recorder counts for which route, cohort and arm. Recorders are found by
//! their names, so that counts live on over reloads; ids are never given out twice.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use super::snapshot::RecorderLabels;
use crate::{
    measure::{Judging, Ledger, RecorderId, RecorderKey},
    routing::{ArmIndex, CohortId, CohortPolicy, Judged, RecorderGrid, Route, RouteTable, Service},
};

/// Up to this many recorders every cohort has a column of its own; beyond it only `default` and
/// the cohorts that a service names, and the others count as `other`.
const FULL_GRID: usize = 65_536;

/// Ids that are given out at most; a grid that did not change keeps its ids.
const MAX_IDS: u32 = 1 << 24;

/// All ids were given out: the process has to be started anew to take another table.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct OutOfIds;

/// Recorders by name, and those of the table in force.
#[derive(Debug, Default)]
pub(super) struct Layout {
    next_id: u32,
    by_name: HashMap<Arc<RecorderLabels>, RecorderKey>,
    /// Recorders that evidence falls back on when too many have slots.
    others: HashMap<Other, RecorderKey>,
    /// Ids by route: kept while the grid stays the same.
    grids: HashMap<Arc<str>, (RecorderGrid, Vec<RecorderKey>)>,
    /// The recorders of the table in force.
    current: Vec<Cell>,
    past: Vec<(Arc<RecorderLabels>, RecorderKey)>,
}

/// What falls back on one recorder: an arm of a service, as far as its weights are the same.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Other {
    service: Arc<str>,
    arm: Arc<str>,
    version: Arc<str>,
    max_weight_bp: Option<u16>,
}

/// One recorder of the table in force.
#[derive(Clone, Debug)]
pub(super) struct Cell {
    pub(super) key: RecorderKey,
    /// Where its evidence counts when too many recorders have slots.
    pub(super) other: RecorderKey,
    /// The id that requests carry.
    pub(super) id: RecorderId,
    pub(super) labels: Arc<RecorderLabels>,
    /// What the service says about the cohort.
    pub(super) policy: CohortPolicy,
    /// Index of the route.
    pub(super) route: usize,
    /// Index of the service.
    pub(super) service: usize,
    pub(super) arm: ArmIndex,
}

/// The columns of one service's grids.
struct Columns {
    by_cohort: Arc<[u16]>,
    other: u16,
    /// By column: its name and what the service says about its cohorts.
    named: Vec<(Arc<str>, CohortPolicy)>,
}

impl Layout {
    /// Gives every route of a table its recorders. `versions` are those that are being rolled
    /// out, by service and arm.
    pub(super) fn lay(
        &mut self,
        routes: &mut RouteTable,
        versions: &[Vec<Arc<str>>],
        ledger: &mut Ledger,
    ) -> Result<(), OutOfIds> {
        let services = routes.services().to_vec();
        let full = fits_in_full(routes);
        let columns: Vec<Columns> =
            services.iter().map(|service| columns(service, routes, full)).collect();
        let mut current = Vec::new();
        for (index, route) in routes.routes_mut().enumerate() {
            let place = route.service.0 as usize;
            let of = Of { service: &services[place], versions: &versions[place] };
            let mut cells = self.cells(&of, route, index, &columns[place], ledger);
            route.recorders = self.grid(route, &columns[place], of.service, &cells, ledger)?;
            for (id, cell) in (route.recorders.base.0..).zip(&mut cells) {
                cell.id = RecorderId(id);
            }
            current.extend(cells);
        }
        let kept: HashSet<RecorderKey> = current.iter().map(|cell| cell.key).collect();
        for cell in self.current.iter().filter(|cell| !kept.contains(&cell.key)) {
            ledger.release(cell.key);
        }
        self.past = self
            .by_name
            .iter()
            .filter(|(_, key)| !kept.contains(key))
            .map(|(labels, key)| (Arc::clone(labels), *key))
            .collect();
        self.current = current;
        Ok(())
    }

    /// The recorders of the table in force.
    pub(super) fn current(&self) -> &[Cell] {
        &self.current
    }

    /// Recorders of tables of before that the one in force does not have.
    pub(super) fn past(&self) -> impl Iterator<Item = (&Arc<RecorderLabels>, RecorderKey)> {
        self.past.iter().map(|(labels, key)| (labels, *key))
    }

    /// Whether ids are left for such a table, whatever of it is new.
    pub(super) fn has_room_for(&self, routes: &RouteTable) -> bool {
        let services = routes.services();
        let full = fits_in_full(routes);
        let columns: Vec<Columns> =
            services.iter().map(|service| columns(service, routes, full)).collect();
        let ids = routes.routes().map(|route| {
            let place = route.service.0 as usize;
            services[place].arms.len() * columns[place].named.len()
        });
        ids.sum::<usize>() <= (MAX_IDS - self.next_id) as usize
    }

    fn cells(
        &mut self,
        of: &Of<'_>,
        route: &Route,
        index: usize,
        columns: &Columns,
        ledger: &mut Ledger,
    ) -> Vec<Cell> {
        let judging = match route.judged {
            Judged::FirstByte => Judging::FirstByte,
            Judged::Total => Judging::Total,
        };
        let mut cells = Vec::with_capacity(columns.named.len() * of.service.arms.len());
        for (cohort, policy) in &columns.named {
            for (arm, version) in of.versions.iter().enumerate() {
                let labels = RecorderLabels {
                    service: Arc::clone(&of.service.name),
                    route: Arc::clone(&route.name),
                    cohort: Arc::clone(cohort),
                    arm: Arc::clone(&of.service.arms[arm].name),
                    version: Arc::clone(version),
                };
                let (labels, key, other) = self.recorder(labels, *policy, judging, ledger);
                cells.push(Cell {
                    key,
                    other,
                    id: RecorderId::default(),
                    labels,
                    policy: *policy,
                    route: index,
                    service: route.service.0 as usize,
                    arm: ArmIndex(arm as u8),
                });
            }
        }
        cells
    }

    fn recorder(
        &mut self,
        labels: RecorderLabels,
        policy: CohortPolicy,
        judging: Judging,
        ledger: &mut Ledger,
    ) -> (Arc<RecorderLabels>, RecorderKey, RecorderKey) {
        let names = Other {
            service: Arc::clone(&labels.service),
            arm: Arc::clone(&labels.arm),
            version: Arc::clone(&labels.version),
            max_weight_bp: policy.max_weight_bp,
        };
        let other =
            *self.others.entry(names).or_insert_with(|| ledger.register(Judging::default(), None));
        if let Some((labels, key)) = self.by_name.get_key_value(&labels) {
            ledger.set_judging(*key, judging);
            return (Arc::clone(labels), *key, other);
        }
        let key = ledger.register(judging, Some(other));
        let labels = Arc::new(labels);
        self.by_name.insert(Arc::clone(&labels), key);
        (labels, key, other)
    }

    /// The grid of a route: that of before where nothing changed, else new ids.
    fn grid(
        &mut self,
        route: &Route,
        columns: &Columns,
        service: &Service,
        cells: &[Cell],
        ledger: &mut Ledger,
    ) -> Result<RecorderGrid, OutOfIds> {
        let keys: Vec<RecorderKey> = cells.iter().map(|cell| cell.key).collect();
        if let Some((grid, known)) = self.grids.get(&route.name)
            && *known == keys
            && grid.columns == columns.by_cohort
            && grid.other == columns.other
        {
            return Ok(grid.clone());
        }
        let end = u32::try_from(keys.len()).ok().and_then(|count| self.next_id.checked_add(count));
        let end = end.filter(|end| *end <= MAX_IDS).ok_or(OutOfIds)?;
        let grid = RecorderGrid {
            base: RecorderId(self.next_id),
            arms: service.arms.len() as u32,
            columns: Arc::clone(&columns.by_cohort),
            other: columns.other,
        };
        for (id, key) in (self.next_id..end).zip(&keys) {
            ledger.bind(RecorderId(id), *key);
        }
        self.next_id = end;
        self.grids.insert(Arc::clone(&route.name), (grid.clone(), keys));
        Ok(grid)
    }
}

/// The cohorts of a table that count under a name.
pub(super) fn cohorts_of(routes: &RouteTable, service: &Service, name: &str) -> Vec<CohortId> {
    let columns = columns(service, routes, fits_in_full(routes));
    let Some(column) = columns.named.iter().position(|(known, _)| **known == *name) else {
        return Vec::new();
    };
    let cohorts = columns.by_cohort.iter().enumerate();
    let of = cohorts.filter(|(_, known)| usize::from(**known) == column);
    of.map(|(cohort, _)| CohortId(cohort as u16)).collect()
}

/// A service and the versions of its arms.
struct Of<'a> {
    service: &'a Service,
    versions: &'a [Arc<str>],
}

fn fits_in_full(routes: &RouteTable) -> bool {
    let arms = routes.routes().map(|route| routes.service(route.service).arms.len());
    arms.sum::<usize>() * routes.cohort_count() <= FULL_GRID
}

fn columns(service: &Service, routes: &RouteTable, full: bool) -> Columns {
    let policy = |cohort: usize| service.cohorts.get(cohort).copied().unwrap_or_default();
    let cohorts = routes.cohort_count();
    let name = |cohort: usize| Arc::from(routes.cohort_name(CohortId(cohort as u16)));
    let own: Vec<usize> = (0..cohorts)
        .filter(|cohort| full || *cohort == 0 || policy(*cohort) != CohortPolicy::default())
        .collect();
    let mut named: Vec<_> = own.iter().map(|cohort| (name(*cohort), policy(*cohort))).collect();
    let other = if own.len() < cohorts {
        named.push(("other".into(), CohortPolicy::default()));
        named.len() as u16 - 1
    } else {
        0
    };
    let mut by_cohort = vec![other; cohorts];
    for (column, cohort) in own.into_iter().enumerate() {
        by_cohort[cohort] = column as u16;
    }
    Columns { by_cohort: by_cohort.into(), other, named }
}

#[cfg(test)]
mod tests;
