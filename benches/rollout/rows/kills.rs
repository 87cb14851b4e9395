//! `kill -9` again and again, at any moment, while a rollout goes on: what was known is still known
//! afterwards.

use std::{fs, path::Path, time::Duration};

use serde_json::Value;
use tokio::time::{Instant, sleep};

use super::{Findings, Found, Run, holds, people::kept};
use crate::{
    admin::{Decision, decision},
    scene::{Scene, Setting, Trouble},
    upstream::Behaviour,
    watch::Rollout,
};

const KILLS: u32 = 50;
/// From this one on the canary is slow.
const REGRESSION: u32 = 30;
/// Shortest and longest time from a start to the next kill, but for every fifth kill, which comes
/// while the proxy still starts.
const LIVES: (f64, f64) = (0.05, 6.0);
const START: f64 = 0.1;
const RATE: f64 = 300.0;
/// The status is drawn up once a second: what is known must be in it within this.
const TOLD: Duration = Duration::from_millis(1500);
/// The last seconds before a kill that may not have been counted: a block is written when all of it
/// is final.
const PENDING: f64 = 3.0;

const STAGES: &str = "[{ weight: 5%, at_least: 15s, prove: false }, \
                      { weight: 25%, at_least: 2h }, 100%]";

pub(super) async fn fifty(run: Run) -> Result<Findings, Trouble> {
    let mut scene = run.open(Setting { rate: RATE, stages: STAGES, ..Setting::default() }).await?;
    let (mut weights, mut evidence) = (Vec::new(), Vec::new());
    let mut switched = None;
    let mut known = 0.0;
    for kill in 0..KILLS {
        if kill == REGRESSION {
            scene.canary().become_(Behaviour::slower(3.0));
            switched = Some(Instant::now());
        }
        let life = LIVES.0 + (LIVES.1 - LIVES.0) * fastrand::f64();
        sleep(Duration::from_secs_f64(life)).await;
        let before = scene.rollout()?;
        scene.kill_proxy().await?;
        if kill % 5 == 4 {
            scene.spawn_proxy().await?;
            sleep(Duration::from_secs_f64(START * fastrand::f64())).await;
            scene.kill_proxy().await?;
        }
        let written = journal(&scene.state_dir())?;
        let last = written.last().ok_or("the journal has no decision")?.weight;
        scene.watch.forget();
        scene.start_proxy().await?;
        let first = |look: &crate::watch::Look| look.of("v2").cloned();
        let after = scene.until("a status after a kill", Duration::from_secs(5), first).await?;
        if after.weight > last {
            weights.push(format!(
                "kill {kill}: {} %, the journal says {} %",
                after.weight * 100.0,
                last * 100.0
            ));
        }
        // Chance may have sent a tenth less; what is over is not counted any more.
        if before.phase != "rolled_back" {
            known += 0.9 * RATE * (life - PENDING).max(0.0);
        }
        let is_known =
            |it: &Rollout| kept(before.evidence, it.evidence) && it.requests as f64 >= known;
        let seen = |look: &crate::watch::Look| look.of("v2").filter(|it| is_known(it)).map(drop);
        if scene.until("evidence", TOLD, seen).await.is_err() {
            let after = scene.rollout()?;
            evidence.push(format!(
                "kill {kill}: {} requests, {:.3} : 1 became {}, {:.3} : 1; {known:.0} must be known",
                before.requests, before.evidence, after.requests, after.evidence
            ));
        }
    }
    let onset = scene.canary().first_worse().or(switched).ok_or("the canary was never bad")?;
    let gone = rolled_back(&scene, onset);
    let first = |found: Vec<String>| {
        found.first().map_or(Ok(Found::Holds), |it| Err(format!("{} kills, {it}", found.len())))
    };
    Ok(Findings {
        worse: Some(scene.canary().worse()),
        ..Findings::of([first(weights), first(evidence), gone, replay(&mut scene).await])
    })
}

/// How long after the onset it was rolled back; lives are too short for evidence that begins anew.
fn rolled_back(scene: &Scene, onset: Instant) -> Result<Found, Trouble> {
    let rollout = scene.rollout()?;
    let changes = scene.watch.changes(onset);
    let gone = changes.iter().find(|it| it.phase == "rolled_back");
    let gone = gone.ok_or_else(|| format!("still {}: {}", rollout.phase, rollout.reason))?;
    Ok(Found::After(gone.at.saturating_duration_since(onset).as_secs_f64()))
}

async fn replay(scene: &mut Scene) -> Result<Found, Trouble> {
    scene.end_proxy().await?;
    let directory = scene.state_dir().join("journal");
    let (status, said) = scene
        .program
        .verb("replay", &directory)
        .await
        .map_err(|error| format!("replay cannot be started: {error}"))?;
    holds(status.success(), || {
        format!("replay: {status}: {}", said.lines().last().unwrap_or_default())
    })
}

/// All decisions of the first canary in the files of a journal, in order. A torn last line is none.
pub(super) fn journal(state_dir: &Path) -> Result<Vec<Decision>, Trouble> {
    let unreadable = |error: std::io::Error| format!("the journal cannot be read: {error}");
    let mut paths: Vec<_> = fs::read_dir(state_dir.join("journal"))
        .map_err(unreadable)?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| path.extension().is_some_and(|end| end == "jsonl"))
        .collect();
    paths.sort();
    let mut decisions = Vec::new();
    for path in paths {
        let text = fs::read(path).map_err(unreadable)?;
        let lines = text.split(|byte| *byte == b'\n');
        // Most lines are counts; only decisions name a weight.
        let weighing = lines.filter(|line| memchr::memmem::find(line, b"\"weight_bp\"").is_some());
        let values = weighing.filter_map(|line| serde_json::from_slice::<Value>(line).ok());
        decisions
            .extend(values.filter_map(|value| decision(&value)).filter(|it| it.canary == "v2"));
    }
    Ok(decisions)
}
