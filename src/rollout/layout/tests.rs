//! Who counts where, before and after a reload.

use super::*;
use crate::rollout::testing::World;

fn lay(layout: &mut Layout, ledger: &mut Ledger, world: &World) -> RouteTable {
    let mut table = world.table();
    let versions: Vec<Vec<Arc<str>>> = table
        .services()
        .iter()
        .map(|service| service.arms.iter().map(|arm| arm.version.clone()).collect())
        .collect();
    layout.lay(&mut table, &versions, ledger).unwrap();
    table
}

/// All ids of a table by route, cohort and arm.
fn ids(table: &RouteTable) -> Vec<u32> {
    let arms = table.services()[0].arms.len() as u8;
    let mut ids = Vec::new();
    for route in table.routes() {
        for cohort in 0..table.cohort_count() as u16 {
            for arm in 0..arms {
                ids.push(route.recorders.at(CohortId(cohort), ArmIndex(arm)).0);
            }
        }
    }
    ids
}

fn world(routes: usize, cohorts: usize) -> World {
    let mut world = World::new(&[100]);
    let names = |count: usize, what: &str| -> Vec<&'static str> {
        (0..count).map(|index| &*format!("{what}{index}").leak()).collect()
    };
    world.routes = names(routes, "route");
    world.cohorts = names(cohorts, "cohort");
    world
}

#[test]
fn every_route_cohort_and_arm_has_its_own_recorder() {
    let (mut layout, mut ledger) = (Layout::default(), Ledger::new(1));
    let table = lay(&mut layout, &mut ledger, &world(3, 2));
    let mut ids = ids(&table);
    ids.sort_unstable();
    assert_eq!(ids, (0..3 * 3 * 2).collect::<Vec<_>>());
    assert_eq!(layout.current().len(), 18);
}

#[test]
fn an_unchanged_grid_keeps_its_ids_and_a_changed_one_its_recorders() {
    let (mut layout, mut ledger) = (Layout::default(), Ledger::new(1));
    let before = ids(&lay(&mut layout, &mut ledger, &world(2, 1)));
    let keys: HashSet<_> = layout.current().iter().map(|cell| cell.key).collect();
    assert_eq!(ids(&lay(&mut layout, &mut ledger, &world(2, 1))), before);
    let wider = ids(&lay(&mut layout, &mut ledger, &world(2, 2)));
    assert!(wider.iter().all(|id| !before.contains(id)), "no id is given out twice");
    let wider_keys: HashSet<_> = layout.current().iter().map(|cell| cell.key).collect();
    assert!(wider_keys.is_superset(&keys));
    let mut released = world(2, 2);
    released.canaries[0].1 = "2";
    lay(&mut layout, &mut ledger, &released);
    let past: HashSet<_> = layout.past().map(|(labels, _)| labels.version.clone()).collect();
    assert_eq!(past, HashSet::from(["1".into()]), "the baseline goes on, the canary is another");
}

#[test]
fn a_huge_grid_keeps_columns_for_default_and_the_cohorts_that_a_service_names() {
    let (mut layout, mut ledger) = (Layout::default(), Ledger::new(1));
    let world = world(400, 99);
    let mut table = world.table();
    let mut parts = table.services().to_vec();
    parts[0].cohorts[5].max_weight_bp = Some(100);
    table = world.table_of(parts);
    let versions = vec![vec!["".into(), "1".into()]];
    layout.lay(&mut table, &versions, &mut ledger).unwrap();
    assert_eq!(layout.current().len(), 400 * 3 * 2);
    let names: Vec<_> =
        layout.current().iter().step_by(2).take(3).map(|cell| &*cell.labels.cohort).collect();
    assert_eq!(names, ["default", "cohort4", "other"]);
    let route = table.routes().next().unwrap();
    let at = |cohort| route.recorders.at(CohortId(cohort), ArmIndex(0));
    assert_eq!(at(1), at(99), "both are other");
    assert!(at(0) != at(1) && at(5) != at(1) && at(0) != at(5));
}
