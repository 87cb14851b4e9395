//! Users who stick to their arm: a regression is found, and nobody is moved who need not be.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::{Findings, Found, Run, holds};
use crate::{
    client::Client,
    scene::{STAYS, Scene, Setting, Trouble},
    upstream::Behaviour,
    users::Move,
    watch::Change,
};

const HEALTHY: Duration = Duration::from_secs(600);
const PATIENCE: Duration = Duration::from_secs(600);
/// The status may show a change of weight this much later than it was in force.
const SLACK: Duration = Duration::from_millis(1500);

pub(super) async fn late_regression(run: Run) -> Result<Findings, Trouble> {
    let scene = run.open(Setting { sticky: true, ..Setting::default() }).await?;
    let began = Instant::now();
    sleep(HEALTHY).await;
    let rollout = scene.rollout()?;
    // Suspicion among users may take weight from a healthy canary for a while; it comes back.
    let healthy = holds(rollout.phase != "rolled_back", || rollout.reason.clone());
    let switched = Instant::now();
    scene.canary().become_(Behaviour::slower(2.0));
    let gone = scene
        .until("rollback", PATIENCE, |look| (look.of("v2")?.phase == "rolled_back").then_some(()))
        .await;
    let onset = scene.canary().first_worse().unwrap_or(switched);
    let first = |phase: &str| {
        let changes = scene.watch.changes(switched);
        let found = changes.into_iter().find(|it| it.phase == phase).map(|it| it.at);
        let after = |at: Instant| Found::After(at.saturating_duration_since(onset).as_secs_f64());
        found.map(after).ok_or_else(|| format!("never came: {phase}"))
    };
    sleep(SLACK).await;
    let client = scene.client.as_ref().ok_or("nobody sent")?;
    Ok(Findings {
        worse: Some(scene.canary().worse()),
        ..Findings::of([
            healthy,
            first("caution"),
            gone.and_then(|()| first("rolled_back")),
            right_way(&scene, client, began),
        ])
    })
}

pub(super) async fn two_canaries(run: Run) -> Result<Findings, Trouble> {
    let setting =
        Setting { sticky: true, canaries: &["v2", "v3"], stages: STAYS, ..Setting::default() };
    let scene = run.open(setting).await?;
    let began = Instant::now();
    super::detect::healthy(&scene, Duration::from_secs(25)).await?;
    let switched = Instant::now();
    scene.canary().become_(Behaviour::slower(2.0));
    let gone = scene
        .until("rollback", Duration::from_secs(180), |look| {
            (look.of("v2")?.phase == "rolled_back").then_some(())
        })
        .await;
    let onset = scene.canary().first_worse().unwrap_or(switched);
    let gone = gone.map(|()| Found::After(onset.elapsed().as_secs_f64()));
    // Long enough for most users to come again.
    sleep(Duration::from_secs(10)).await;
    let changes = scene.watch.changes(began);
    let other = changes.iter().find(|it| it.canary == "v3" && it.weight != 0.05);
    let stays = holds(other.is_none(), || format!("the other went too: {other:?}"));
    let client = scene.client.as_ref().ok_or("nobody sent")?;
    Ok(Findings {
        worse: Some(scene.canary().worse()),
        ..Findings::of([gone, stays, right_way(&scene, client, began)])
    })
}

/// Nobody comes to a canary unless its weight rose meanwhile, nor leaves one unless it fell.
fn right_way(scene: &Scene, client: &Client, began: Instant) -> Result<Found, Trouble> {
    let tally = client.tally();
    if tally.arms.len() != scene.canaries.len() + 1 {
        return Err(format!("not every arm answered: {:?}", tally.arms));
    }
    let changes = scene.watch.changes(began - SLACK);
    let moves = client.moves();
    let wrong: Vec<_> = moves.iter().filter(|it| !is_right(it, &changes)).collect();
    holds(wrong.is_empty(), || {
        format!("{} of {} moves were wrong, such as {:?}", wrong.len(), moves.len(), wrong[0])
    })
}

fn is_right(it: &Move, changes: &[Change]) -> bool {
    let changed = |canary: &str, rose: bool| {
        let of_it: Vec<_> = changes.iter().filter(|change| change.canary == canary).collect();
        of_it.windows(2).any(|pair| {
            let meanwhile = pair[1].at + SLACK >= it.after && pair[1].at <= it.before + SLACK;
            let moved = pair[1].weight - pair[0].weight;
            meanwhile && if rose { moved > 0.0 } else { moved < 0.0 }
        })
    };
    (it.to == "baseline" || changed(&it.to, true))
        && (it.from == "baseline" || changed(&it.from, false))
}
