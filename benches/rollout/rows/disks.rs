//! Disks that are full, read-only or asleep: traffic goes on, weight does not rise, cuts do not wait.

use std::time::Duration;

use serde_json::json;
use tokio::{
    task::{spawn_blocking, spawn_local},
    time::{Instant, sleep},
};

use super::{Findings, Found, Run, detect, holds};
use crate::{
    disk::Disk,
    scene::{Scene, Setting, Trouble},
    upstream::Behaviour,
};

const ALARM: Duration = Duration::from_secs(20);

pub(super) async fn unwritable(run: Run) -> Result<Findings, Trouble> {
    let full = run.number.is_multiple_of(2);
    let disk = apart(if full { Disk::small } else { Disk::in_a_file }).await?;
    // Dropped in the order of scene, disk: nobody writes where it is taken away.
    let mut scene =
        run.open(Setting { state_dir: Some(disk.state_dir()), ..Setting::default() }).await?;
    detect::healthy(&scene, Duration::from_secs(10)).await?;
    let began = Instant::now();
    let spoilt = if full { disk.fill() } else { disk.turn_read_only() };
    spoilt.map_err(|error| format!("the disk cannot be spoilt: {error}"))?;

    let admin = scene.admin;
    // What is being written may still fit behind the last byte; writing the same weight again and
    // again uses that up.
    let writing = spawn_local(async move {
        loop {
            let _ = admin.act("weight", "v2", &json!({ "weight": "5%" })).await;
            sleep(Duration::from_millis(100)).await;
        }
    });
    let alarm = alarm(&scene, began).await;
    writing.abort();
    // A raise that cannot be written down must not be in force; its answer may take its time.
    let raised = admin.act("weight", "v2", &json!({ "weight": "25%" })).await;
    let rose = || scene.watch.changes(began).iter().any(|it| it.weight > 0.05);
    let no_raise = holds(!raised.as_ref().is_ok_and(|it| *it == 200) && !rose(), || {
        format!("a raise was answered {raised:?}")
    });
    let asked = Instant::now();
    let command =
        spawn_local(async move { admin.act("weight", "v2", &json!({ "weight": "1%" })).await });
    let cut = scene
        .until("a cut to 1 %", Duration::from_secs(5), |look| {
            (look.of("v2")?.weight <= 0.01).then(|| Found::After(asked.elapsed().as_secs_f64()))
        })
        .await;
    command.abort();
    sleep(Duration::from_secs(5)).await;
    let no_raise = no_raise.and(holds(!rose(), || "the weight rose".to_owned()));
    let client = scene.client.take().ok_or("nobody sent")?;
    client.stop().await;
    let tally = client.tally();
    run.lateness.set(tally.lateness_p99());
    let unharmed = holds(tally.failures() == 0 && tally.ended > 5000, || {
        format!("of {} requests {} failed: {:?}", tally.ended, tally.failures(), tally.failed)
    });
    Ok(Findings::of([unharmed, no_raise, cut, alarm]))
}

/// How long until the status or the metrics tell that the journal cannot be written.
async fn alarm(scene: &Scene, began: Instant) -> Result<Found, Trouble> {
    while began.elapsed() < ALARM {
        let metrics = scene.admin.get("/metrics").await.map(|answer| answer.body);
        let metrics = String::from_utf8(metrics.unwrap_or_default()).unwrap_or_default();
        let reason = scene.rollout()?.reason;
        if metrics.contains("haldane_journal_writable 0\n")
            || ["journal", "disk"].iter().any(|word| reason.contains(word))
        {
            return Ok(Found::After(began.elapsed().as_secs_f64()));
        }
        sleep(Duration::from_millis(50)).await;
    }
    Err("neither the status nor the metrics tell".to_owned())
}

pub(super) async fn stalled(run: Run) -> Result<Findings, Trouble> {
    let disk = apart(Disk::in_a_file).await?;
    let scene =
        run.open(Setting { state_dir: Some(disk.state_dir()), ..Setting::default() }).await?;
    detect::healthy(&scene, Duration::from_secs(20)).await?;
    // Dropped first, and waits for its end: what is frozen cannot be ended.
    let stall = disk.stall(5);
    let mut stall = stall.map_err(|error| format!("the disk cannot be stalled: {error}"))?;
    let switched = Instant::now();
    scene.canary().become_(Behaviour::errors(1.0));
    let stop = detect::stop(&scene, switched, 3.0).await;
    while !stall.is_over() {
        sleep(Duration::from_millis(20)).await;
    }
    let stop = stop?;
    let written = written(&scene, switched).await;
    Ok(Findings {
        worse: Some(scene.canary().worse()),
        ..Findings::of([Ok(stop.after(stop.zero)), written])
    })
}

/// Waits until the files of the journal have the decision.
async fn written(scene: &Scene, switched: Instant) -> Result<Found, Trouble> {
    let end = Instant::now() + Duration::from_secs(5);
    loop {
        let decisions = super::kills::journal(&scene.state_dir())?;
        if decisions.iter().any(|it| it.weight == 0.0 && scene.moment(it.time) >= switched) {
            return Ok(Found::Holds);
        }
        if Instant::now() > end {
            return Err("the decision is not in the journal".to_owned());
        }
        sleep(Duration::from_millis(50)).await;
    }
}

/// Makes a disk on a thread where nobody is kept waiting.
async fn apart(make: fn() -> std::io::Result<Disk>) -> Result<Disk, Trouble> {
    let made = spawn_blocking(make).await.map_err(std::io::Error::other);
    made.and_then(|made| made).map_err(|error| format!("no disk: {error}"))
}
