//! The command line: one file per verb. Data goes to standard output, talk to standard error.

mod act;
mod arguments;
mod check;
mod client;
mod demo;
mod drill;
mod exit;
mod explain;
mod healthcheck;
mod history;
mod logging;
mod manual;
mod reload;
mod replay;
mod report;
mod run;
mod schema;
mod simulate;
mod status;

use std::process::ExitCode;

use act::Action;
use arguments::{Arguments, Global, Several, Verb};
use clap::Parser;
use exit::Failure;

/// Runs the command line.
#[must_use]
pub fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match dispatch(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.report(),
    }
}

fn dispatch(arguments: &Arguments) -> Result<(), Failure> {
    let global = &arguments.global;
    match &arguments.verb {
        Verb::Run(arguments) => run::run(arguments),
        Verb::Demo(arguments) => demo::run(arguments),
        Verb::Check { config } => check::run(global.output, config),
        Verb::Explain(arguments) => explain::run(global.output, arguments),
        Verb::Simulate(arguments) => simulate::run(global.output, arguments),
        Verb::Status(arguments) => wait_for(status::run(global, arguments)),
        Verb::History(arguments) => wait_for(history::run(global, arguments)),
        Verb::Report(arguments) => wait_for(report::run(global, arguments)),
        Verb::Replay(arguments) => replay::run(global.output, arguments),
        Verb::SetWeight(to) => {
            let action = Action::plain("weight", &to.why.reason).with("weight", &*to.weight);
            wait_for(act::one(global, &to.target, &action))
        }
        Verb::Pause(to) => several(global, "pause", to),
        Verb::Resume(to) => {
            wait_for(act::one(global, &to.target, &Action::plain("resume", &to.why.reason)))
        }
        Verb::Promote(to) => {
            let action = Action::plain("promote", &to.one.why.reason).with("full", to.full);
            wait_for(act::one(global, &to.one.target, &action))
        }
        Verb::Approve(to) => {
            wait_for(act::one(global, &to.target, &Action::plain("approve", &to.why.reason)))
        }
        Verb::Abort(to) => several(global, "abort", to),
        Verb::Retry(to) => {
            wait_for(act::one(global, &to.target, &Action::plain("retry", &to.why.reason)))
        }
        Verb::Release(to) => {
            let action = Action::plain("release", &to.why.reason).with("version", &*to.version);
            wait_for(act::one(global, &to.target, &action))
        }
        Verb::Drill(arguments) => wait_for(drill::run(global, arguments)),
        Verb::Reload => wait_for(reload::run(global)),
        Verb::Healthcheck => wait_for(healthcheck::run(global)),
        Verb::Schema => schema::run(),
        Verb::Completions { shell } => manual::completions(*shell),
        Verb::Man => manual::page(),
        Verb::Version => {
            println!("haldane {}", env!("CARGO_PKG_VERSION"));
            Ok(())
        }
    }
}

fn several(global: &Global, verb: &'static str, to: &Several) -> Result<(), Failure> {
    let action = Action::plain(verb, &to.why.reason);
    match &to.target {
        Some(target) => wait_for(act::one(global, target, &action)),
        None => wait_for(act::all(global, &action)),
    }
}

/// Runs a verb that waits, on a runtime of its own.
fn wait_for(work: impl Future<Output = Result<(), Failure>>) -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let result = runtime.block_on(work);
    // A name that is still being looked up may not keep the process from ending.
    runtime.shutdown_background();
    result
}
