//! Regressions that begin at once: how long until the canary has no traffic.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::{Findings, Found, Run, holds};
use crate::{
    scene::{Scene, Setting, Trouble},
    upstream::Behaviour,
};

/// Long enough for the deepest threshold, which needs 10,000 requests of the baseline.
const HEALTHY: Duration = Duration::from_secs(25);
/// After the weight is 0: in this time a straggler would show.
const LINGER: Duration = Duration::from_millis(1500);
/// How much longer than its limit a run waits, to see how late it was.
const BEYOND: f64 = 1.5;

const GOES: &str = "weight 0";

pub(super) async fn twice_as_slow(
    run: Run,
    block: &'static str,
    replicas: u32,
    limit: f64,
) -> Result<Findings, Trouble> {
    let scene = run.open(Setting { block, replicas, ..Setting::default() }).await?;
    regress(&scene, Behaviour::slower(2.0), limit).await
}

pub(super) async fn tail(run: Run) -> Result<Findings, Trouble> {
    let scene = run.open(Setting::default()).await?;
    regress(&scene, Behaviour::tail(0.02, 5.0), 300.0).await
}

async fn regress(scene: &Scene, behaviour: Behaviour, limit: f64) -> Result<Findings, Trouble> {
    healthy(scene, HEALTHY).await?;
    scene.canary().become_(behaviour);
    let stop = stop(scene, Instant::now(), limit).await?;
    Ok(Findings {
        worse: Some(scene.canary().worse()),
        ..Findings::of([Ok(stop.after(stop.zero)), stop.last(scene).await])
    })
}

pub(super) async fn errors(run: Run) -> Result<Findings, Trouble> {
    let scene = run.open(Setting::default()).await?;
    healthy(&scene, HEALTHY).await?;
    let switched = Instant::now();
    scene.canary().become_(Behaviour::errors(0.3));
    let stop = stop(&scene, switched, 8.0).await?;
    let changes = scene.watch.changes(switched);
    let cut = changes.iter().find(|change| change.weight <= 0.01).map(|change| change.at);
    let cut = cut.ok_or("the weight was never 1 % or less")?;
    Ok(Findings {
        worse: Some(scene.canary().worse()),
        ..Findings::of([Ok(stop.after(cut)), Ok(stop.after(stop.zero)), stop.last(&scene).await])
    })
}

pub(super) async fn refused(run: Run) -> Result<Findings, Trouble> {
    let route = ", rescue: true";
    let mut scene = run.open(Setting { route, ..Setting::default() }).await?;
    healthy(&scene, HEALTHY).await?;
    let switched = Instant::now();
    scene.canary().close();
    let stop = stop(&scene, switched, 3.0).await?;
    let client = scene.client.take().ok_or("nobody sent")?;
    client.stop().await;
    let tally = client.tally();
    run.lateness.set(tally.lateness_p99());
    let seen =
        || format!("clients saw failures: {:?}, {} without answer", tally.failed, tally.unanswered);
    Ok(Findings::of([Ok(stop.after(stop.zero)), holds(tally.failures() == 0, seen)]))
}

pub(super) async fn decision_latency(run: Run) -> Result<Findings, Trouble> {
    let stages = "[{ weight: 50%, at_least: 2h }, 100%]";
    let scene = run.open(Setting { stages, ..Setting::default() }).await?;
    healthy(&scene, Duration::from_secs(8)).await?;
    let switched = Instant::now();
    scene.canary().become_(Behaviour::errors(1.0));
    let stop = stop(&scene, switched, 10.0).await?;
    Ok(Findings { worse: Some(scene.canary().worse()), ..Findings::of([stop.last(&scene).await]) })
}

/// Lets a healthy canary run; its weight must stand.
pub(super) async fn healthy(scene: &Scene, time: Duration) -> Result<(), Trouble> {
    let began = Instant::now();
    scene.until("a first status", Duration::from_secs(5), |look| look.of("v2").map(drop)).await?;
    let weight = scene.rollout()?.weight;
    sleep(time).await;
    let rollout = scene.rollout()?;
    let moved =
        scene.watch.changes(began).iter().any(|it| it.canary == "v2" && it.weight != weight);
    if moved {
        return Err(format!("healthy, and yet {}: {}", rollout.phase, rollout.reason));
    }
    Ok(())
}

/// When and how the traffic of a canary ended.
pub(super) struct Stop {
    /// The first answer that was worse, or else the moment from which on nothing is answered.
    pub(super) onset: Instant,
    /// When the status first showed 0.
    pub(super) zero: Instant,
}

/// Waits for the end of the first canary's traffic, and a little longer.
pub(super) async fn stop(scene: &Scene, switched: Instant, limit: f64) -> Result<Stop, Trouble> {
    let patience = Duration::from_secs_f64(limit * BEYOND + 5.0);
    scene.until(GOES, patience, |look| (look.of("v2")?.weight == 0.0).then_some(())).await?;
    let changes = scene.watch.changes(switched);
    let zero = changes.iter().find(|change| change.canary == "v2" && change.weight == 0.0);
    let zero = zero.map(|change| change.at).ok_or("the weight was 0 before the regression")?;
    sleep(LINGER).await;
    Ok(Stop { onset: scene.canary().first_worse().unwrap_or(switched), zero })
}

impl Stop {
    /// How long after the onset something was.
    pub(super) fn after(&self, moment: Instant) -> Found {
        Found::After(moment.saturating_duration_since(self.onset).as_secs_f64())
    }

    /// How long after the decision the canary got its last request.
    pub(super) async fn last(&self, scene: &Scene) -> Result<Found, Trouble> {
        last_request(scene, self.onset).await
    }
}

/// How long after the first decision since `onset` that leaves it nothing the canary got its last
/// request.
pub(super) async fn last_request(scene: &Scene, onset: Instant) -> Result<Found, Trouble> {
    let decisions = scene.admin.decisions().await;
    let decisions = decisions.map_err(|error| format!("the journal cannot be read: {error}"))?;
    let decided = decisions.iter().map(|it| (scene.moment(it.time), it)).find(|(at, it)| {
        // Times are written down in milliseconds.
        it.canary == "v2" && it.weight == 0.0 && *at + Duration::from_millis(1) >= onset
    });
    let (decided, _) = decided.ok_or("the journal has no decision that takes the weight to 0")?;
    let last = scene.canary().last_request().ok_or("the canary was never asked")?;
    Ok(Found::After(last.saturating_duration_since(decided).as_secs_f64()))
}
