//! `haldane report`: the story of a rollout, from the running proxy or from a journal.

use std::{fs, path::PathBuf};

use clap::{Args, ValueEnum};

use super::{
    act::escaped,
    arguments::{Global, Target},
    client::Client,
    exit::{Exit, Failure},
};
use crate::rollout::{NoReport, Report, ReportForm};

#[derive(Args, Debug)]
pub(super) struct Arguments {
    /// The service, and the canary where it has several
    #[arg(value_name = "SERVICE[/ARM]")]
    target: Target,
    /// The canary, where the service has several
    #[arg(long, value_name = "ARM")]
    canary: Option<String>,
    /// The form of the report
    #[arg(long, default_value = "markdown", value_name = "FORM")]
    format: Form,
    /// Write it to this file in place of standard output
    #[arg(long, value_name = "FILE")]
    file: Option<PathBuf>,
    /// Read this journal (a file, its directory, or a state directory) in place of asking
    #[arg(long, value_name = "PATH")]
    journal: Option<PathBuf>,
}

/// The form of a report.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Form {
    /// Tables and text.
    Markdown,
    /// A page with plots.
    Html,
}

/// Writes the report.
pub(super) async fn run(global: &Global, arguments: &Arguments) -> Result<(), Failure> {
    let canary = arguments.canary.as_deref().or(arguments.target.canary.as_deref());
    let service = &arguments.target.service;
    let text = match &arguments.journal {
        Some(path) => {
            let form = match arguments.format {
                Form::Markdown => ReportForm::Markdown,
                Form::Html => ReportForm::Html,
            };
            Report::read(path, service, canary)?.render(form)
        }
        None => fetch(global, service, canary, arguments.format).await?,
    };
    match &arguments.file {
        None => print!("{text}"),
        Some(file) => fs::write(file, text).map_err(|error| {
            Failure::new(Exit::Failed, format!("cannot write {}: {error}", file.display()))
        })?,
    }
    Ok(())
}

async fn fetch(
    global: &Global,
    service: &str,
    canary: Option<&str>,
    form: Form,
) -> Result<String, Failure> {
    let form = match form {
        Form::Markdown => "markdown",
        Form::Html => "html",
    };
    let mut path = format!("/api/v1/services/{}/report?format={form}", escaped(service));
    if let Some(canary) = canary {
        path += &format!("&canary={}", escaped(canary));
    }
    let client = Client::new(global)?;
    let answer = client.get(&path).await?;
    if !answer.status.is_success() {
        return Err(client.refusal(&answer));
    }
    Ok(String::from_utf8_lossy(&answer.body).into_owned())
}

impl From<NoReport> for Failure {
    fn from(error: NoReport) -> Self {
        Self::new(Exit::Failed, error.to_string())
    }
}
