//! `haldane status`: what is going on, once, again and again, or until something is the case.

use std::{
    fmt::Write as _,
    io::{IsTerminal, Write as _},
    time::Duration,
};

use tokio::time::{Instant, sleep};

use crate::rollout::{Phase, Verdict};
pub(super) use crate::rollout::{RolloutStatus, Status};

use super::{
    arguments::{self, Global, Output, Target, Wait},
    client::Client,
    exit::{Exit, Failure},
};

/// Pause between two looks.
const EVERY: Duration = Duration::from_secs(1);

/// Shows the status, or waits.
pub(super) async fn run(global: &Global, arguments: &arguments::Status) -> Result<(), Failure> {
    let client = Client::new(global)?;
    let look = async || {
        let mut status = fetch(&client).await?;
        if let Some(target) = &arguments.target {
            keep(&mut status, target)?;
        }
        Ok::<_, Failure>(status)
    };
    match arguments.wait {
        Some(wait) => show(global, &self::wait(look, wait, arguments.timeout).await?, false),
        None if arguments.watch => watch(global, look).await,
        None => show(global, &look().await?, false),
    }
}

async fn watch(
    global: &Global,
    look: impl AsyncFn() -> Result<Status, Failure>,
) -> Result<(), Failure> {
    show(global, &look().await?, true)?;
    loop {
        sleep(EVERY).await;
        match look().await {
            Ok(status) => show(global, &status, true)?,
            // It may come back; until then the last numbers stay.
            Err(failure) if failure.exit == Exit::Unreachable => {
                eprintln!("haldane: {}", failure.message);
            }
            Err(failure) => return Err(failure),
        }
    }
}

/// Asks for the status document.
pub(super) async fn fetch(client: &Client) -> Result<Status, Failure> {
    let answer = client.get("/api/v1/status").await?;
    if !answer.status.is_success() {
        return Err(client.refusal(&answer));
    }
    serde_json::from_slice(&answer.body).map_err(|error| unreadable(&error))
}

/// An answer that is not what this version expects.
pub(super) fn unreadable(error: &serde_json::Error) -> Failure {
    Failure::new(
        Exit::Failed,
        format!("the answer cannot be read ({error}); is that proxy of another version?"),
    )
}

fn keep(status: &mut Status, target: &Target) -> Result<(), Failure> {
    status.rollouts.retain(|rollout| {
        *rollout.service == *target.service
            && target.canary.as_ref().is_none_or(|canary| *rollout.canary == **canary)
    });
    if status.rollouts.is_empty() {
        return Err(Failure::new(
            Exit::Failed,
            format!(
                "there is no rollout of {}; `haldane status` lists them all",
                target.canary.as_ref().map_or_else(
                    || target.service.clone(),
                    |canary| format!("{}/{canary}", target.service)
                )
            ),
        ));
    }
    Ok(())
}

fn show(global: &Global, status: &Status, redraw: bool) -> Result<(), Failure> {
    let mut out = std::io::stdout().lock();
    match global.output {
        Output::Json => {
            let text = serde_json::to_string(status).map_err(|error| unreadable(&error))?;
            writeln!(out, "{text}")?;
        }
        Output::Text => {
            if redraw && out.is_terminal() {
                // Home, and clear to the end: less flicker than clearing first.
                write!(out, "\x1b[H\x1b[J")?;
            }
            if status.rollouts.is_empty() {
                writeln!(out, "No service has a canary: all traffic goes to the baselines.")?;
            }
            write!(out, "{}", render(&status.rollouts))?;
        }
    }
    out.flush()?;
    Ok(())
}

async fn wait(
    look: impl AsyncFn() -> Result<Status, Failure>,
    wait: Wait,
    limit: Duration,
) -> Result<Status, Failure> {
    let deadline = Instant::now() + limit;
    let mut status = look().await?;
    loop {
        if let Some(result) = settled(&status, wait) {
            return result.map(|()| status);
        }
        if Instant::now() + EVERY > deadline {
            return Err(Failure::new(
                Exit::TimedOut,
                format!(
                    "still waiting after {}; now:\n{}",
                    humantime::format_duration(limit),
                    render(&status.rollouts)
                ),
            ));
        }
        sleep(EVERY).await;
        match look().await {
            Ok(newer) => status = newer,
            // A restart in between is no reason to give up before the time is over.
            Err(failure) if failure.exit == Exit::Unreachable => {}
            Err(failure) => return Err(failure),
        }
    }
}

/// Whether there is nothing left to wait for, and how it ended.
fn settled(status: &Status, wait: Wait) -> Option<Result<(), Failure>> {
    let bad = |rollout: &&RolloutStatus| match rollout.phase {
        Phase::RolledBack => true,
        Phase::Caution => wait == Wait::Healthy,
        Phase::Idle
        | Phase::Promoted
        | Phase::Paused
        | Phase::Gated
        | Phase::Holding
        | Phase::Progressing => false,
    };
    if let Some(rollout) = status.rollouts.iter().find(bad) {
        return Some(Err(Failure::new(
            Exit::Degraded,
            format!(
                "{}/{} is in phase {}: {}",
                rollout.service,
                rollout.canary,
                rollout.phase.label(),
                rollout.reason
            ),
        )));
    }
    let good = |rollout: &RolloutStatus| {
        rollout.phase == Phase::Promoted
            || wait == Wait::Healthy && rollout.verdict == Verdict::Healthy
    };
    status.rollouts.iter().all(good).then_some(Ok(()))
}

/// The rollouts as text.
pub(super) fn render(rollouts: &[RolloutStatus]) -> String {
    let mut text = String::new();
    for rollout in rollouts {
        render_one(&mut text, rollout).expect("writing into a String cannot fail");
    }
    text
}

fn render_one(text: &mut String, rollout: &RolloutStatus) -> std::fmt::Result {
    let stage = match rollout.stages {
        0 => "no plan".to_owned(),
        stages => format!("stage {} of {stages}", rollout.stage),
    };
    writeln!(
        text,
        "{}/{} {}: {}, {stage}, weight {} (last 60 s: {}), verdict {}, evidence {:.1} : 1",
        rollout.service,
        rollout.canary,
        rollout.version,
        rollout.phase.label(),
        percent(Some(rollout.weight)),
        percent(rollout.weight_actual),
        rollout.verdict.label(),
        rollout.evidence,
    )?;
    writeln!(text, "  {}", rollout.reason)?;
    for route in &rollout.routes {
        writeln!(
            text,
            "  {:<24} {:>10} {:>8} {:>10} {:>10} {:>10} {:>10}",
            route.route, "requests", "errors", "p50 ms", "p95 ms", "p99 ms", "p99.9 ms"
        )?;
        for arm in &route.arms {
            writeln!(
                text,
                "    {:<22} {:>10} {:>8} {:>10} {:>10} {:>10} {:>10}",
                arm.arm,
                arm.requests,
                arm.errors,
                millis(arm.p50_ms),
                millis(arm.p95_ms),
                millis(arm.p99_ms),
                millis(arm.p999_ms),
            )?;
        }
    }
    Ok(())
}

fn percent(share: Option<f64>) -> String {
    share.map_or_else(|| "–".to_owned(), |share| format!("{:.2} %", share * 100.0))
}

fn millis(ms: Option<f64>) -> String {
    ms.map_or_else(|| "–".to_owned(), |ms| format!("{ms:.2}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rollout(phase: Phase, verdict: Verdict) -> RolloutStatus {
        RolloutStatus {
            service: "shop".into(),
            canary: "v2".into(),
            version: "2".into(),
            phase,
            stage: 1,
            stages: 3,
            weight: 0.05,
            weight_actual: None,
            verdict,
            evidence: 1.0,
            reason: "Because.".to_owned(),
            since: "2000-01-01T00:00:00Z".to_owned(),
            routes: Vec::new(),
        }
    }

    fn check(wait: Wait, phase: Phase, verdict: Verdict, expected: Option<Result<(), Exit>>) {
        let status = Status { rollouts: vec![rollout(phase, verdict)] };
        let found = settled(&status, wait).map(|result| result.map_err(|failure| failure.exit));
        assert_eq!(found, expected, "{wait:?} {phase:?} {verdict:?}");
    }

    #[test]
    fn waiting_ends_with_a_promotion() {
        check(Wait::Done, Phase::Promoted, Verdict::Holding, Some(Ok(())));
        check(Wait::Healthy, Phase::Promoted, Verdict::Holding, Some(Ok(())));
        check(Wait::Done, Phase::Progressing, Verdict::Healthy, None);
        check(Wait::Healthy, Phase::Progressing, Verdict::Healthy, Some(Ok(())));
        check(Wait::Healthy, Phase::Progressing, Verdict::Holding, None);
    }

    #[test]
    fn a_rollback_ends_every_wait_and_caution_only_that_for_health() {
        check(Wait::Done, Phase::RolledBack, Verdict::Rollback, Some(Err(Exit::Degraded)));
        check(Wait::Healthy, Phase::RolledBack, Verdict::Rollback, Some(Err(Exit::Degraded)));
        check(Wait::Healthy, Phase::Caution, Verdict::Caution, Some(Err(Exit::Degraded)));
        check(Wait::Done, Phase::Caution, Verdict::Caution, None);
    }

    #[test]
    fn the_text_says_phase_weight_and_reason() {
        let text = render(&[rollout(Phase::Holding, Verdict::Holding)]);
        assert_eq!(
            text,
            "shop/v2 2: holding, stage 1 of 3, weight 5.00 % (last 60 s: –), verdict holding, \
             evidence 1.0 : 1\n  Because.\n"
        );
    }
}
