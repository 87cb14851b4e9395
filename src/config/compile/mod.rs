//! From the mirror to what the parts need. One file per section; each resolves what it can, notes
//! every problem where it stands, and goes on with a stand-in, so that one run finds them all.

mod advice;
mod facts;
mod listener_tls;
mod listeners;
mod matching;
mod names;
mod rollouts;
mod routes;
mod scenario;
mod services;
mod upstreams;

pub(super) use scenario::compile as compile_scenario;

use std::{
    cell::RefCell,
    path::{Path, PathBuf},
    time::Duration,
};

use super::{
    Compiled,
    file::File,
    given::Given,
    reading::{Reading, Spot},
    values::{Count, Text},
};
use crate::{
    admin, proxy, rollout,
    routing::{RouteTable, TableParts},
};

/// Where the journal lives unless told otherwise.
const STATE_DIR: &str = "/var/lib/haldane";
/// How long requests may go on after a SIGTERM unless told otherwise.
const DRAIN: Duration = Duration::from_secs(30);

/// What every section needs: where to note problems, and where files are.
struct Compiling<'a, 't> {
    reading: &'a Reading<'t>,
    /// The directory of the configuration file, absolute.
    base: &'a Path,
    /// Whether the file says where countries come from, and what verifies tokens.
    has: Has,
    notes: RefCell<advice::Notes>,
}

/// Sections that conditions rest on.
#[derive(Clone, Copy, Default)]
struct Has {
    geo: bool,
    jwt: bool,
}

impl Compiling<'_, '_> {
    fn problem(&self, spot: Spot, message: impl Into<String>) {
        self.reading.problem(spot, message, None);
    }

    fn problem_with_help(&self, spot: Spot, message: impl Into<String>, help: impl Into<String>) {
        self.reading.problem(spot, message, Some(help.into()));
    }

    /// The help is only made while problems are still kept.
    fn unknown<'w>(
        &self,
        spot: Spot,
        message: String,
        word: &str,
        accepted: impl Iterator<Item = &'w str>,
    ) {
        if !self.reading.is_full() {
            self.problem_with_help(spot, message, super::problem::suggest(word, accepted));
        }
    }

    /// Notes that a needed key is missing from what stands at `spot`.
    fn missing(&self, spot: Spot, key: &str, help: &str) {
        self.problem_with_help(spot, format!("`{key}` is missing"), help);
    }

    /// A path of a file, relative to the configuration.
    fn path(&self, text: &Given<Text>) -> Option<PathBuf> {
        let (Text(path), spot) = text.located()?;
        if path.is_empty() {
            self.problem(spot, "an empty path");
            return None;
        }
        Some(self.base.join(path))
    }

    /// A number within bounds, or the default.
    fn number<T: TryFrom<u64>>(&self, count: &Given<Count>, least: u64, default: T) -> T {
        let Some((Count(number), spot)) = count.located() else { return default };
        match T::try_from(*number) {
            Ok(fits) if *number >= least => fits,
            Ok(_) => {
                self.problem(spot, format!("`{number}` is too small, at least {least}"));
                default
            }
            Err(_) => {
                self.problem(spot, format!("`{number}` is too large"));
                default
            }
        }
    }

    /// A length of time longer than nothing, or the default.
    fn time(&self, time: &Given<super::values::Time>, default: Duration) -> Duration {
        match time.located() {
            Some((time, spot)) if time.0.is_zero() => {
                self.problem(spot, "no time at all; it must be longer than nothing");
                default
            }
            Some((time, _)) => time.0,
            None => default,
        }
    }
}

/// Compiles a file that was read. What it returns may be used only if the reading has no problems.
pub(super) fn compile(
    file: &File,
    reading: &Reading<'_>,
    base: &Path,
    hash: String,
) -> Option<Compiled> {
    let has = Has { geo: !file.geo.is_absent(), jwt: !file.jwt.is_absent() };
    let compiling = Compiling { reading, base, has, notes: RefCell::default() };
    check_version(file, &compiling);
    let listeners = listeners::compile(&file.listeners, &compiling);
    let admin = compile_admin(file, &compiling);
    let (facts, fact_files) = facts::compile(file, &compiling);
    let mut upstreams = upstreams::Upstreams::compile(&file.upstreams, &compiling);
    let cohorts = matching::compile_cohorts(&file.cohorts, &compiling);
    let plans = rollouts::Plans::compile(&file.rollouts, &compiling);
    let known = services::Known { cohorts: &cohorts, plans: &plans };
    let (services, service_plans) =
        services::compile(&file.services, &known, &mut upstreams, &compiling);
    let (routes, route_slos) = routes::compile(&file.routes, &services, &compiling);

    let journal = compile_journal(file, &compiling);
    let state_dir = compiling.path(&file.state_dir);
    let drain = compiling.time(&file.drain, DRAIN);
    if reading.has_problems() {
        return None;
    }
    let advice = advice::all(file, &compiling, &upstreams, &plans, &service_plans);
    let upstreams = upstreams.into_list();
    let parts = TableParts { routes, cohorts, services, upstreams, facts };
    Some(Compiled {
        routes: RouteTable::new(parts),
        proxy: proxy::Settings { listeners, drain },
        rollout: rollout::Settings {
            state_dir: state_dir.unwrap_or_else(|| STATE_DIR.into()),
            journal,
            services: service_plans,
            route_slos,
        },
        admin,
        facts: fact_files,
        hash,
        advice,
    })
}

fn check_version(file: &File, compiling: &Compiling<'_, '_>) {
    match file.version.located() {
        None if file.version.is_absent() => {
            compiling.missing(Spot::default(), "version", "write `version: 1`");
        }
        Some((Count(number), spot)) if *number != 1 => {
            compiling.problem_with_help(
                spot,
                format!("version `{number}` is not known"),
                "write `version: 1`",
            );
        }
        Some(_) | None => {}
    }
}

fn compile_admin(file: &File, compiling: &Compiling<'_, '_>) -> admin::Settings {
    let mut settings = admin::Settings::default();
    let Some(admin) = file.admin.get() else { return settings };
    if let Some((Text(address), spot)) = admin.address.located() {
        match address.parse() {
            Ok(address) => settings.address = address,
            Err(_) => compiling.problem_with_help(
                spot,
                format!("`{address}` is not an address with a port"),
                "write it like 127.0.0.1:9900",
            ),
        }
    }
    settings.token_file = compiling.path(&admin.token_file);
    settings
}

fn compile_journal(file: &File, compiling: &Compiling<'_, '_>) -> rollout::JournalSettings {
    let mut settings = rollout::JournalSettings::default();
    let Some(journal) = file.journal.get() else { return settings };
    settings.keep = compiling.time(&journal.keep, settings.keep);
    if let Some((size, spot)) = journal.max_size.located() {
        // Below this a single rollout would not fit.
        const LEAST: u64 = 1 << 20;
        if size.0 < LEAST {
            compiling.problem(spot, "too small, at least 1MiB");
        }
        settings.max_size = size.0;
    }
    settings
}
