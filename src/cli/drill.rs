//! `haldane drill`: a practice drill. The proxy hurts the canary's answers, and this command
//! measures how long it takes until that is found and the canary is taken back.

use std::time::Duration;

use clap::Args;
use tokio::time::{Instant, sleep};

use super::{
    act::{self, Action},
    arguments::{Global, Target, Why, duration},
    client::Client,
    exit::{Exit, Failure},
    status::{self, RolloutStatus},
};
use crate::rollout::Phase;

/// How often the status is asked for.
const LOOK: Duration = Duration::from_millis(200);

#[derive(Args, Debug)]
pub(super) struct Arguments {
    /// The service, and the canary where it has several
    #[arg(value_name = "SERVICE[/ARM]")]
    target: Target,
    /// What is done to the canary's answers: latency=300ms, errors=5%, hang or hang=5%
    #[arg(long, value_name = "HARM")]
    inject: String,
    /// Only to this share of them
    #[arg(long, value_name = "SHARE")]
    share: Option<String>,
    /// Only to requests of this cohort
    #[arg(long, value_name = "NAME")]
    cohort: Option<String>,
    /// Give up after this long
    #[arg(long = "for", default_value = "5m", value_name = "DURATION", value_parser = duration)]
    time: Duration,
    /// Start the version again when the drill is over
    #[arg(long)]
    retry: bool,
    #[command(flatten)]
    why: Why,
}

/// Runs a drill. Fails where the canary was not rolled back in time.
pub(super) async fn run(global: &Global, arguments: &Arguments) -> Result<(), Failure> {
    let client = Client::new(global)?;
    let reason = format!("drill: {}", arguments.why.reason);
    let mut begin = Action::plain("drill", &reason)
        .with("inject", arguments.inject.as_str())
        .with("for", humantime::format_duration(arguments.time).to_string());
    if let Some(share) = &arguments.share {
        begin = begin.with("share", share.as_str());
    }
    if let Some(cohort) = &arguments.cohort {
        begin = begin.with("cohort", cohort.as_str());
    }
    act::send(&client, &arguments.target, &begin).await?;
    println!("{}: from now on the canary's answers are hurt", arguments.inject);
    let found = watch(&client, &arguments.target, arguments.time).await;
    let end = Action::plain("drill", &reason).with("inject", "none");
    // A proxy that is gone hurts nobody.
    let ended = act::send(&client, &arguments.target, &end).await;
    let found = found?;
    ended?;
    println!("the drill is over: nothing is hurt any more");
    if found && arguments.retry {
        let retry = Action::plain("retry", &format!("{reason}, over"));
        act::send(&client, &arguments.target, &retry).await?;
        println!("the version starts again at its first stage");
    } else if found {
        println!("the version stays rolled back; `haldane retry` starts it again");
    }
    if found {
        Ok(())
    } else {
        let time = humantime::format_duration(arguments.time);
        Err(Failure::new(Exit::Failed, format!("the canary was not rolled back within {time}")))
    }
}

/// Tells what happens; whether the canary was rolled back in time.
async fn watch(client: &Client, target: &Target, time: Duration) -> Result<bool, Failure> {
    let began = Instant::now();
    let mut last: Option<(Phase, f64)> = None;
    let mut stopped = std::pin::pin!(tokio::signal::ctrl_c());
    loop {
        let rollouts = status::fetch(client).await?.rollouts;
        let Some(rollout) = rollouts.iter().find(|rollout| is_target(rollout, target)) else {
            return Err(Failure::new(Exit::Failed, "the rollout is gone"));
        };
        let now = (rollout.phase, rollout.weight);
        if last.is_some_and(|last| last != now) {
            println!(
                "{:>6.1} s  {}, weight {:.2} %: {}",
                began.elapsed().as_secs_f64(),
                rollout.phase.label(),
                rollout.weight * 100.0,
                rollout.reason,
            );
        }
        last = Some(now);
        if rollout.phase == Phase::RolledBack {
            return Ok(true);
        }
        tokio::select! {
            () = sleep(LOOK) => {}
            _ = &mut stopped => return Ok(false),
        }
        if began.elapsed() >= time {
            return Ok(false);
        }
    }
}

fn is_target(rollout: &RolloutStatus, target: &Target) -> bool {
    let canary = target.canary.as_deref();
    *rollout.service == *target.service && canary.is_none_or(|canary| *rollout.canary == *canary)
}
