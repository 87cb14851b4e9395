//! The running control plane: commands, reloads, restarts, counting.

use std::{fs, sync::Arc};

mod judged;

use super::*;
use crate::{
    measure::{Head, Kind, Outcome, RecorderId},
    rollout::{
        Action, Phase, Running,
        testing::{World, batch, command, weights},
    },
    routing::{ArmIndex, CohortId, RouteId},
};

async fn set(running: &Running, weight_bp: u16) {
    running.handle.command(command(Action::SetWeight(weight_bp))).await.unwrap();
}

fn recorder(running: &Running, arm: u8) -> RecorderId {
    let table = running.table.load();
    table.routes.route_at(RouteId(0)).recorders.at(CohortId(0), ArmIndex(arm))
}

/// A request of one arm, from assignment to a good end.
fn request(id: RecorderId, arrival: Tick, epoch: Epoch) -> [Event; 2] {
    let ended = Kind::Ended { outcome: Outcome::Ok, head: Head::Untold };
    [Kind::Assigned, ended].map(|kind| {
        let mut event = Event::new(kind, epoch, false);
        event.recorder = id;
        event.arrival = arrival;
        event
    })
}

/// Waits for a snapshot that satisfies a condition.
async fn until(running: &Running, holds: impl Fn(&Snapshot) -> bool) -> Arc<Snapshot> {
    let mut watch = running.handle.watch();
    let found = watch.wait_for(|snapshot| holds(snapshot));
    let found = tokio::time::timeout(Duration::from_secs(20), found).await;
    found.expect("it comes within 20 s").unwrap().clone()
}

#[tokio::test]
async fn the_first_stage_is_in_force_with_the_first_table() {
    let state_dir = tempfile::tempdir().unwrap();
    let running = World::new(&[500, 2500]).start(state_dir.path()).unwrap();
    assert_eq!(weights(&running), [500]);
    let status = &running.handle.snapshot().status.rollouts[0];
    assert_eq!((status.phase, status.stage, status.stages), (Phase::Holding, 1, 2));
    assert_eq!((status.weight, status.weight_actual), (0.05, None));
    running.stop();
}

#[tokio::test]
async fn a_weight_is_in_force_when_the_command_is_answered_and_after_a_restart() {
    let state_dir = tempfile::tempdir().unwrap();
    let running = World::new(&[500]).start(state_dir.path()).unwrap();
    for weight_bp in [6000, 0, 10_000, 1234] {
        let answer = running.handle.command(command(Action::SetWeight(weight_bp))).await.unwrap();
        assert_eq!(weights(&running), [weight_bp]);
        assert_eq!((answer.phase, answer.weight), (Phase::Paused, f64::from(weight_bp) / 1e4));
    }
    running.stop();
    let running = World::new(&[500]).start(state_dir.path()).unwrap();
    assert_eq!(weights(&running), [1234]);
    assert_eq!(running.handle.snapshot().status.rollouts[0].phase, Phase::Paused);
    running.stop();
}

#[tokio::test]
async fn a_process_that_dies_in_the_middle_of_a_line_starts_with_the_line_before() {
    let state_dir = tempfile::tempdir().unwrap();
    let running = World::new(&[500]).start(state_dir.path()).unwrap();
    set(&running, 700).await;
    set(&running, 900).await;
    running.stop();
    let journal = state_dir.path().join("journal/000001.jsonl");
    // Whatever follows the decision is lost too.
    let text = fs::read_to_string(&journal).unwrap();
    let last = text.rfind("{\"decision\"").unwrap();
    fs::write(&journal, &text[..last + 10]).unwrap();
    let running = World::new(&[500]).start(state_dir.path()).unwrap();
    assert_eq!(weights(&running), [700]);
    set(&running, 800).await;
    running.stop();
    let running = World::new(&[500]).start(state_dir.path()).unwrap();
    assert_eq!(weights(&running), [800]);
    running.stop();
}

#[tokio::test]
async fn a_rolled_back_version_is_remembered_until_it_is_retried_or_replaced() {
    let state_dir = tempfile::tempdir().unwrap();
    let mut world = World::new(&[500]);
    let running = world.start(state_dir.path()).unwrap();
    running.handle.command(command(Action::Abort)).await.unwrap();
    assert_eq!(weights(&running), [0]);
    let refused = running.handle.command(command(Action::SetWeight(1))).await.unwrap_err();
    assert!(matches!(refused, Refused::Forbidden(_)), "{refused}");
    running.stop();
    let running = world.start(state_dir.path()).unwrap();
    assert_eq!(weights(&running), [0]);
    world.canaries[0].1 = "2";
    running.handle.apply(world.config(state_dir.path())).await.unwrap();
    assert_eq!(weights(&running), [500]);
    world.canaries[0].1 = "1";
    running.handle.apply(world.config(state_dir.path())).await.unwrap();
    assert_eq!(weights(&running), [0]);
    running.handle.command(command(Action::Retry)).await.unwrap();
    assert_eq!(weights(&running), [500]);
    running.stop();
}

#[tokio::test]
async fn a_release_holds_over_a_restart_until_the_file_names_another_version() {
    let state_dir = tempfile::tempdir().unwrap();
    let mut world = World::new(&[500]);
    let running = world.start(state_dir.path()).unwrap();
    set(&running, 3000).await;
    let before = recorder(&running, 1);
    let release = Action::Release { version: "1.1".into() };
    let answer = running.handle.command(command(release)).await.unwrap();
    assert_eq!((&*answer.version, weights(&running)), ("1.1", vec![500]));
    assert_ne!(recorder(&running, 1), before, "another version has other recorders");
    running.stop();
    let running = world.start(state_dir.path()).unwrap();
    assert_eq!(&*running.handle.snapshot().status.rollouts[0].version, "1.1");
    world.canaries[0].1 = "2";
    running.handle.apply(world.config(state_dir.path())).await.unwrap();
    assert_eq!(&*running.handle.snapshot().status.rollouts[0].version, "2");
    running.stop();
}

#[tokio::test]
async fn a_reload_keeps_weights_ids_and_counts_of_what_did_not_change() {
    let state_dir = tempfile::tempdir().unwrap();
    let mut world = World::new(&[500, 2500]);
    let running = world.start(state_dir.path()).unwrap();
    set(&running, 3000).await;
    let ids = [0, 1].map(|arm| recorder(&running, arm));
    let epoch = running.table.load().epoch;
    let events = ids.into_iter().flat_map(|id| request(id, Tick(0), epoch)).collect();
    running.links[0].batches.try_send(batch(Duration::from_millis(100), events)).unwrap();

    world.routes.push("pay");
    running.handle.apply(world.config(state_dir.path())).await.unwrap();
    assert_eq!(weights(&running), [3000]);
    assert_eq!([0, 1].map(|arm| recorder(&running, arm)), ids);

    world.cohorts.push("staff");
    running.handle.apply(world.config(state_dir.path())).await.unwrap();
    let moved = recorder(&running, 0);
    assert!(!ids.contains(&moved), "another grid has other ids");
    let late = request(ids[0], Tick(0), epoch).into_iter().chain(request(moved, Tick(0), epoch));
    running.links[0].batches.try_send(batch(Duration::from_millis(200), late.collect())).unwrap();
    let counted = |snapshot: &Snapshot| {
        let of = |arm: &str| {
            let views = snapshot
                .recorders
                .iter()
                .filter(|view| *view.labels.arm == *arm && *view.labels.route == *"cart");
            views.map(|view| view.totals.ended(Outcome::Ok)).sum::<u64>()
        };
        (of("baseline"), of("v2"))
    };
    until(&running, |snapshot| counted(snapshot) == (3, 1)).await;
    running.stop();
}

#[tokio::test]
async fn an_edited_stage_moves_the_weight_and_a_failed_reload_nothing() {
    let state_dir = tempfile::tempdir().unwrap();
    let running = World::new(&[500]).start(state_dir.path()).unwrap();
    for weight_bp in [200, 4000] {
        let config = World::new(&[weight_bp]).config(state_dir.path());
        running.handle.apply(config).await.unwrap();
        assert_eq!(weights(&running), [weight_bp]);
    }
    running.handle.reload_failed("line 3: no".into()).unwrap();
    let snapshot = until(&running, |snapshot| !snapshot.config.last_reload_successful).await;
    assert_eq!(snapshot.config.last_error.as_deref(), Some("line 3: no"));
    let elsewhere = World::new(&[1]).config(&state_dir.path().join("elsewhere"));
    assert!(running.handle.apply(elsewhere).await.is_err());
    assert_eq!(weights(&running), [4000]);
    running.stop();
}

#[tokio::test]
async fn all_canaries_fit_together_or_the_command_is_refused() {
    let state_dir = tempfile::tempdir().unwrap();
    let mut world = World::new(&[500]);
    world.canaries.push(("v3", "1", vec![1000]));
    let running = world.start(state_dir.path()).unwrap();
    assert_eq!(weights(&running), [500, 1000]);
    let to = |canary: Option<&str>, weight_bp| {
        let mut command = command(Action::SetWeight(weight_bp));
        command.canary = canary.map(Into::into);
        running.handle.command(command)
    };
    assert!(matches!(to(None, 1).await, Err(Refused::UnknownCanary(_))));
    assert!(matches!(to(Some("v4"), 1).await, Err(Refused::UnknownCanary(_))));
    assert!(to(Some("v2"), 9000).await.is_ok());
    assert!(matches!(to(Some("v3"), 1001).await, Err(Refused::Forbidden(_))));
    assert_eq!(weights(&running), [9000, 1000]);
    running.stop();
}

#[tokio::test]
async fn the_actual_weight_is_the_share_of_what_was_assigned() {
    let state_dir = tempfile::tempdir().unwrap();
    let running = World::new(&[500]).start(state_dir.path()).unwrap();
    let epoch = running.table.load().epoch;
    let ids = [0, 1].map(|arm| recorder(&running, arm));
    let requests = [ids[0], ids[0], ids[0], ids[1]];
    let mut events: Vec<Event> =
        requests.into_iter().flat_map(|id| request(id, Tick(0), epoch)).collect();
    let mut forced = Event::new(Kind::Assigned, epoch, true);
    forced.recorder = ids[1];
    events.push(forced);
    running.links[0].batches.try_send(batch(Duration::from_millis(100), events)).unwrap();
    let snapshot = until(&running, |snapshot| snapshot.canaries[0].weight_actual.is_some()).await;
    let status = &snapshot.status.rollouts[0];
    assert_eq!(status.weight_actual, Some(0.25));
    let arms: Vec<_> = status.routes[0].arms.iter().map(|arm| arm.requests).collect();
    assert_eq!(arms, [3, 2]);
    until(&running, |snapshot| snapshot.status.rollouts[0].routes[0].arms[0].p99_ms.is_some())
        .await;
    running.stop();
}

#[tokio::test]
async fn a_table_that_workers_let_go_of_is_dropped() {
    let state_dir = tempfile::tempdir().unwrap();
    let running = World::new(&[500]).start(state_dir.path()).unwrap();
    let held = running.table.load_full();
    let table = Arc::downgrade(&held);
    set(&running, 600).await;
    drop(held);
    until(&running, |_| table.strong_count() == 0).await;
    running.stop();
}
