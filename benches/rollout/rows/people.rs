//! What people do meanwhile: gates, reloads, versions, commands; and nobody coming at all.

use std::time::Duration;

use serde_json::json;
use tokio::time::{Instant, sleep};

use super::{Findings, Found, Run, detect, holds};
use crate::{
    admin::Admin,
    scene::{Scene, Setting, Trouble},
    upstream::Behaviour,
    watch::Rollout,
};

const SOON: Duration = Duration::from_secs(5);

pub(super) async fn gate(run: Run) -> Result<Findings, Trouble> {
    let stages = "[{ weight: 5%, at_least: 25s, prove: false }, \
                  { weight: 25%, at_least: 2h, gate: approval }, 100%]";
    let scene = run.open(Setting { stages, ..Setting::default() }).await?;
    let gated = |rollout: &Rollout| rollout.phase == "gated" && rollout.weight == 0.05;
    let patience = Duration::from_secs(60);
    scene.until("gated at 5 %", patience, |look| gated(look.of("v2")?).then_some(())).await?;
    sleep(SOON).await;
    let switched = Instant::now();
    scene.canary().become_(Behaviour::slower(2.0));
    let stop = detect::stop(&scene, switched, 20.0).await?;
    let phase = scene.rollout()?.phase;
    let found = if phase == "rolled_back" {
        Ok(stop.after(stop.zero))
    } else {
        Err(format!("without weight, and yet {phase}"))
    };
    Ok(Findings { worse: Some(scene.canary().worse()), ..Findings::of([found]) })
}

pub(super) async fn unrelated_reload(run: Run) -> Result<Findings, Trouble> {
    const SERVICE: &str = "  other: { baseline: \"127.0.0.1:9\" }";
    let others = |route| (SERVICE, route);
    let before =
        others("  - { name: other, match: { path: /other }, service: other, timeout: 1s }");
    let after = others("  - { name: other, match: { path: /more }, service: other, timeout: 2s }");
    let mut scene = run.open(Setting { others: before, ..Setting::default() }).await?;
    detect::healthy(&scene, Duration::from_secs(12)).await?;
    let old = scene.rollout()?;
    scene.change(|setting| setting.others = after)?;
    scene.reload().await?;
    let edge = Admin(scene.edge());
    let answer = edge.get("/more").await.map_err(|error| format!("no answer: {error}"))?;
    if answer.status == 404 {
        return Err("the reload is not in force".to_owned());
    }
    let reloaded = Instant::now();
    let new = fresh(&scene, reloaded).await?;
    let parts = |it: &Rollout| (it.since.clone(), it.stage, it.weight, it.version.clone());
    let same = holds(parts(&old) == parts(&new), || format!("{old:?} became {new:?}"));
    let goes_on = holds(new.requests >= old.requests && kept(old.evidence, new.evidence), || {
        format!(
            "{} requests and {} : 1 became {} and {} : 1",
            old.requests, old.evidence, new.requests, new.evidence
        )
    });
    Ok(Findings::of([same, goes_on]))
}

/// Whether evidence went on: it may have moved, but not back to nothing. Below 3 : 1 either way it
/// is about nothing, and passes 1 : 1 within a block when the canary turns bad.
pub(super) fn kept(old: f64, new: f64) -> bool {
    let (old, new) = (old.ln(), new.ln());
    old.abs() < 3_f64.ln() || new.abs() >= 0.3 * old.abs()
}

/// The rollout as it stands after a moment.
pub(super) async fn fresh(scene: &Scene, since: Instant) -> Result<Rollout, Trouble> {
    // The status is drawn up once a second.
    let since = since + Duration::from_millis(1200);
    let rollout = |look: &crate::watch::Look| (look.at >= since).then(|| look.of("v2").cloned())?;
    scene.until("a status", SOON, rollout).await
}

pub(super) async fn versions(run: Run) -> Result<Findings, Trouble> {
    let mut scene = run.open(Setting { rate: 100.0, ..Setting::default() }).await?;
    goes(&scene, "2.0.0").await?;
    sleep(Duration::from_secs(2)).await;
    act(&scene, "abort", &json!({}), 200).await?;
    let gone = gone(&scene, "2.0.0").await?;

    scene.change(|setting| setting.version = "3.0.0")?;
    scene.reload().await?;
    let anew = goes(&scene, "3.0.0").await.and_then(|it| {
        let counts = || format!("it begins with {} requests, after {}", it.requests, gone.requests);
        holds(it.stage == 1 && it.requests < gone.requests, counts)
    });

    scene.change(|setting| setting.version = "2.0.0")?;
    scene.reload().await?;
    let mut refused = self::gone(&scene, "2.0.0").await.map(|_| Found::Holds);
    for (verb, more) in [("weight", json!({ "weight": "5%" })), ("promote", json!({}))] {
        refused = refused.and(act(&scene, verb, &more, 409).await);
    }
    refused = refused.and(act(&scene, "retry", &json!({ "reason": "" }), 422).await);

    let retried = act(&scene, "retry", &json!({}), 200).await;
    let again = goes(&scene, "2.0.0").await;
    Ok(Findings::of([anew, refused, retried.and(again.map(|_| Found::Holds))]))
}

/// Waits until this version is at the weight of its first stage.
async fn goes(scene: &Scene, version: &str) -> Result<Rollout, Trouble> {
    let at_5 = |it: &&Rollout| it.version == version && it.weight == 0.05;
    let what = format!("{version} at 5 %");
    scene.until(&what, SOON, |look| look.of("v2").filter(at_5).cloned()).await
}

/// Waits until this version is rolled back.
async fn gone(scene: &Scene, version: &str) -> Result<Rollout, Trouble> {
    let gone =
        |it: &&Rollout| it.version == version && it.phase == "rolled_back" && it.weight == 0.0;
    let what = format!("{version} rolled back");
    scene.until(&what, SOON, |look| look.of("v2").filter(gone).cloned()).await
}

async fn act(
    scene: &Scene,
    verb: &str,
    more: &serde_json::Value,
    expected: u16,
) -> Result<Found, Trouble> {
    let status = scene.admin.act(verb, "v2", more).await;
    let status = status.map_err(|error| format!("{verb} was not answered: {error}"))?;
    holds(status == expected, || format!("{verb} was answered {status}, not {expected}"))
}

pub(super) async fn no_traffic(run: Run) -> Result<Findings, Trouble> {
    let then = ["hold", "advance", "rollback"][run.number % 3];
    let setting = Setting {
        rate: 0.0,
        stages: "[{ weight: 5%, at_least: 1s }, { weight: 25%, at_least: 2h }, 100%]",
        plan: format!("    inconclusive_after: {{ period: 45s, then: {then} }}\n"),
        ..Setting::default()
    };
    let scene = run.open(setting).await?;
    let began = Instant::now();
    let holding = scene
        .until("holding, with a sentence", Duration::from_secs(40), |look| {
            let it = look.of("v2")?;
            (it.phase == "holding" && it.reason.contains(' ')).then_some(())
        })
        .await;
    let end = Duration::from_secs(15);
    let came = match then {
        "advance" => {
            scene.until("25 %", end, |look| (look.of("v2")?.weight == 0.25).then_some(())).await
        }
        "rollback" => {
            let gone = |look: &crate::watch::Look| {
                let it = look.of("v2")?;
                (it.phase == "rolled_back" && it.weight == 0.0).then_some(())
            };
            scene.until("rollback", end, gone).await
        }
        _ => {
            sleep(Duration::from_millis(47_500).saturating_sub(began.elapsed())).await;
            let still = |look: &crate::watch::Look| {
                let it = look.of("v2")?;
                (it.phase == "holding" && it.weight == 0.05).then_some(())
            };
            scene.until("still holding at 5 %", Duration::ZERO, still).await
        }
    };
    let took = began.elapsed().as_secs_f64();
    let came = came.map_err(|trouble| format!("then {then}: {trouble}"));
    Ok(Findings::of([holding.map(|()| Found::Holds), came.map(|()| Found::After(took))]))
}

pub(super) async fn abort(run: Run) -> Result<Findings, Trouble> {
    // Little enough for the baseline to take back at once.
    let stages = "[{ weight: 10%, at_least: 2h }, 100%]";
    let mut scene = run.open(Setting { stages, ..Setting::default() }).await?;
    detect::healthy(&scene, Duration::from_secs(4)).await?;
    let asked = Instant::now();
    act(&scene, "abort", &json!({}), 200).await?;
    let stop = detect::stop(&scene, asked, 1.0).await?;
    let last = detect::last_request(&scene, asked).await;
    let client = scene.client.take().ok_or("nobody sent")?;
    client.stop().await;
    let tally = client.tally();
    run.lateness.set(tally.lateness_p99());
    let share = |arm| tally.arms.get(arm).copied().unwrap_or(0) as f64 / tally.ended as f64;
    let split = tally.failures() == 0 && share("v2") > 0.01 && share("baseline") > 0.8;
    let unharmed =
        holds(split, || format!("{} failures, answers by {:?}", tally.failures(), tally.arms));
    Ok(Findings::of([Ok(stop.after(stop.zero)), last, unharmed]))
}
