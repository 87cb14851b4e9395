//! The command line as it is typed: verbs, their arguments, and what holds for all of them.

use std::{path::PathBuf, time::Duration};

use clap::{Args, Parser, Subcommand, ValueEnum};
use http::Uri;

use super::{demo, drill, explain, history, logging::LogFormat, replay, report, simulate};

/// The configuration of the system, used where none is named.
pub(super) const DEFAULT_CONFIG: &str = "/etc/haldane/haldane.yaml";

/// A reverse proxy that splits traffic between a baseline and its canaries, measures both, and
/// takes weight away from a canary when the evidence says that it is worse.
#[derive(Debug, Parser)]
#[command(name = "haldane", version, max_term_width = 100)]
pub(super) struct Arguments {
    #[command(flatten)]
    pub(super) global: Global,
    #[command(subcommand)]
    pub(super) verb: Verb,
}

/// What holds for all verbs.
#[derive(Args, Debug)]
pub(super) struct Global {
    /// The admin address of the running proxy
    #[arg(
        long,
        global = true,
        env = "HALDANE_ADMIN",
        default_value = "http://127.0.0.1:9900",
        value_name = "URL"
    )]
    pub(super) admin: Uri,
    /// The file with the token that writes need
    #[arg(long, global = true, env = "HALDANE_TOKEN_FILE", value_name = "FILE")]
    pub(super) token_file: Option<PathBuf>,
    /// The form of what goes to standard output
    #[arg(short, long, global = true, default_value = "text", value_name = "FORM")]
    pub(super) output: Output,
}

/// The form of what goes to standard output.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Output {
    /// For people.
    Text,
    /// For machines.
    Json,
}

#[derive(Debug, Subcommand)]
pub(super) enum Verb {
    /// Run the proxy
    Run(Run),
    /// Show a canary going wrong: proxy, two upstreams and clients in one process
    Demo(demo::Arguments),
    /// Say what is wrong with a configuration, and what to think about
    Check {
        /// The configuration
        #[arg(short, long, default_value = DEFAULT_CONFIG, value_name = "FILE")]
        config: PathBuf,
    },
    /// Say which route, cohort and arm a request gets, and why
    Explain(explain::Arguments),
    /// Play the judge over made-up traffic
    Simulate(simulate::Arguments),
    /// Say what is going on
    Status(Status),
    /// Say what was decided, by whom and why
    History(history::Arguments),
    /// Write the report of a rollout, running or over
    Report(report::Arguments),
    /// Judge what a journal recorded again, and say whether every decision comes out the same
    Replay(replay::Arguments),
    /// Set a canary's weight and stay there until `resume`
    SetWeight(SetWeight),
    /// Hold a rollout where it is
    Pause(Several),
    /// Go on after a pause
    Resume(One),
    /// Go on to the next stage now
    Promote(Promote),
    /// Pass the gate that a rollout waits at
    Approve(One),
    /// Roll back: weight 0, at once
    Abort(Several),
    /// Start a rolled-back version again
    Retry(One),
    /// Say that a canary runs another version now
    Release(Release),
    /// Hurt a canary's answers in the proxy, and see how long it takes until it is taken back
    Drill(drill::Arguments),
    /// Load the configuration again
    Reload,
    /// Exit with 0 if the running proxy is ready
    Healthcheck,
    /// Print the JSON schema of the configuration
    Schema,
    /// Print a shell's completion script
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
    /// Print the manual page
    Man,
    /// Print the version
    Version,
}

#[derive(Args, Debug)]
pub(super) struct Run {
    /// The configuration
    #[arg(short, long, default_value = DEFAULT_CONFIG, value_name = "FILE")]
    pub(super) config: PathBuf,
    /// Number of worker threads; the number of cores where left out
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub(super) workers: Option<u16>,
    /// The form of the log on standard error
    #[arg(long, env = "HALDANE_LOG", default_value = "text", value_name = "FORM")]
    pub(super) log: LogFormat,
}

#[derive(Args, Debug)]
pub(super) struct Status {
    /// Only this service, or this canary of it
    #[arg(value_name = "SERVICE[/ARM]")]
    pub(super) target: Option<Target>,
    /// Keep showing it
    #[arg(short, long)]
    pub(super) watch: bool,
    /// Wait until all rollouts are healthy (proved or promoted) or done (promoted); exit with 5 if
    /// one is rolled back (or, waiting for healthy, in caution)
    #[arg(long, value_name = "STATE", conflicts_with = "watch")]
    pub(super) wait: Option<Wait>,
    /// Wait no longer than this; then exit with 6
    #[arg(long, default_value = "5m", value_name = "DURATION", value_parser = duration)]
    pub(super) timeout: Duration,
}

/// What can be waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Wait {
    /// Proved to be no worse, or promoted.
    Healthy,
    /// Promoted.
    Done,
}

/// A rollout: a service, and its canary where it has several.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Target {
    /// The service.
    pub(super) service: String,
    /// The canary.
    pub(super) canary: Option<String>,
}

impl std::str::FromStr for Target {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (service, canary) = match text.split_once('/') {
            Some((service, canary)) => (service, Some(canary)),
            None => (text, None),
        };
        if service.is_empty() || canary.is_some_and(str::is_empty) {
            return Err("expected SERVICE or SERVICE/ARM");
        }
        Ok(Self { service: service.to_owned(), canary: canary.map(str::to_owned) })
    }
}

#[derive(Args, Debug)]
pub(super) struct One {
    /// The service, and the canary where it has several
    #[arg(value_name = "SERVICE[/ARM]")]
    pub(super) target: Target,
    #[command(flatten)]
    pub(super) why: Why,
}

#[derive(Args, Debug)]
pub(super) struct Several {
    /// The service, and the canary where it has several
    #[arg(value_name = "SERVICE[/ARM]", required_unless_present = "all")]
    pub(super) target: Option<Target>,
    /// All rollouts of the proxy
    #[arg(long, conflicts_with = "target")]
    pub(super) all: bool,
    #[command(flatten)]
    pub(super) why: Why,
}

#[derive(Args, Debug)]
pub(super) struct Promote {
    #[command(flatten)]
    pub(super) one: One,
    /// Go to 100 % without the stages in between
    #[arg(long)]
    pub(super) full: bool,
}

#[derive(Args, Debug)]
pub(super) struct SetWeight {
    /// The service, and the canary where it has several
    #[arg(value_name = "SERVICE[/ARM]")]
    pub(super) target: Target,
    /// The weight, such as 25% or 0.5%
    pub(super) weight: String,
    #[command(flatten)]
    pub(super) why: Why,
}

#[derive(Args, Debug)]
pub(super) struct Release {
    /// The service, and the canary where it has several
    #[arg(value_name = "SERVICE[/ARM]")]
    pub(super) target: Target,
    /// The version that it runs now
    #[arg(id = "new_version", value_name = "VERSION")]
    pub(super) version: String,
    #[command(flatten)]
    pub(super) why: Why,
}

#[derive(Args, Debug)]
pub(super) struct Why {
    /// Why; it goes to the journal
    #[arg(long, value_name = "TEXT")]
    pub(super) reason: String,
}

/// A duration such as `5s` or `2m 30s`.
pub(super) fn duration(text: &str) -> Result<Duration, humantime::DurationError> {
    humantime::parse_duration(text)
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_parser_is_consistent() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn a_target_is_a_service_and_perhaps_a_canary() {
        let check = |text: &str, service: &str, canary: Option<&str>| {
            let target: Target = text.parse().unwrap();
            assert_eq!((target.service.as_str(), target.canary.as_deref()), (service, canary));
        };
        check("shop", "shop", None);
        check("shop/v2", "shop", Some("v2"));
        assert!("shop/".parse::<Target>().is_err());
        assert!("/v2".parse::<Target>().is_err());
    }

    #[test]
    fn acting_needs_a_reason_and_a_target() {
        let parse = |line: &str| Arguments::try_parse_from(line.split(' ')).is_ok();
        assert!(parse("haldane pause shop --reason lunch"));
        assert!(parse("haldane pause --all --reason lunch"));
        assert!(parse("haldane set-weight shop/v2 25% --reason more --admin http://[::1]:1"));
        assert!(!parse("haldane pause shop"));
        assert!(!parse("haldane pause --reason lunch"));
        assert!(!parse("haldane pause shop --all --reason lunch"));
        assert!(!parse("haldane resume --all --reason lunch"));
    }
}
