//! `haldane history`: what was decided, by whom and why. Asks the running proxy, or reads a
//! journal without one.

use std::path::PathBuf;

use clap::Args;
use serde::{Deserialize, Serialize};

use super::{
    act::escaped,
    arguments::{Global, Output, Target},
    client::Client,
    exit::{Exit, Failure},
    status::unreadable,
};
use crate::rollout::{Decision, ReadError, Wanted, history};

#[derive(Args, Debug)]
pub(super) struct Arguments {
    /// Only this service, or this canary of it
    #[arg(value_name = "SERVICE[/ARM]")]
    target: Option<Target>,
    /// Show no more than the last so many
    #[arg(short = 'n', long, default_value_t = 100, value_name = "N")]
    limit: usize,
    /// Read this journal (a file, its directory, or a state directory) in place of asking
    #[arg(long, value_name = "PATH")]
    journal: Option<PathBuf>,
}

#[derive(Serialize, Deserialize)]
struct Document {
    decisions: Vec<Decision>,
}

/// Shows the decisions.
pub(super) async fn run(global: &Global, arguments: &Arguments) -> Result<(), Failure> {
    let target = arguments.target.clone();
    let wanted = Wanted {
        service: target.as_ref().map(|target| target.service.clone()),
        canary: target.and_then(|target| target.canary),
        limit: Some(arguments.limit),
    };
    let document = match &arguments.journal {
        Some(path) => Document { decisions: history(path, &wanted)? },
        None => fetch(global, &wanted).await?,
    };
    match global.output {
        Output::Json => {
            let text = serde_json::to_string(&document).map_err(|error| unreadable(&error))?;
            println!("{text}");
        }
        Output::Text if document.decisions.is_empty() => println!("Nothing was decided yet."),
        Output::Text => document.decisions.iter().for_each(|it| println!("{}", line(it))),
    }
    Ok(())
}

async fn fetch(global: &Global, wanted: &Wanted) -> Result<Document, Failure> {
    let mut path = "/api/v1/journal?".to_owned();
    let limit = wanted.limit.map(|limit| limit.to_string());
    let parameters = [("service", &wanted.service), ("canary", &wanted.canary), ("limit", &limit)];
    for (name, value) in parameters {
        if let Some(value) = value {
            path += &format!("{name}={}&", escaped(value));
        }
    }
    let client = Client::new(global)?;
    let answer = client.get(path.trim_end_matches('&')).await?;
    if !answer.status.is_success() {
        return Err(client.refusal(&answer));
    }
    serde_json::from_slice(&answer.body).map_err(|error| unreadable(&error))
}

fn line(decision: &Decision) -> String {
    let percent = |bp: u16| format!("{} %", f64::from(bp) / 100.0);
    let weight = if decision.from_bp == decision.weight_bp {
        percent(decision.weight_bp)
    } else {
        format!("{} to {}", percent(decision.from_bp), percent(decision.weight_bp))
    };
    format!(
        "{}  {}/{} {}  {:<10}  {:<16}  {:<11}  {}: {}",
        decision.time,
        decision.service,
        decision.canary,
        decision.version,
        decision.action.label(),
        weight,
        decision.phase.label(),
        decision.actor,
        decision.reason.replace('\n', " "),
    )
}

impl From<ReadError> for Failure {
    fn from(error: ReadError) -> Self {
        Self::new(Exit::Failed, error.to_string())
    }
}
