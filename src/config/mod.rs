//! What the operator wrote: the file as it is (`file`), compiled into what the parts need
//! (`compile`, which collects every problem), and watched for changes (`watch`).
//!
//! The way of a text: `yaml` makes a tree of it, `reader` fills the mirror in `file` from the tree
//! and interpolates on the way, `compile` resolves names and builds conditions. Nothing in here
//! applies a configuration; that is the control thread's.

mod compile;
mod facts;
mod file;
mod given;
mod interpolate;
mod problem;
mod reader;
mod reading;
mod reload;
mod scenario;
mod schema;
mod values;
mod watch;
mod yaml;

#[cfg(test)]
mod tests;

use std::{
    fs::File as Opened,
    io::Read,
    path::{Path, PathBuf},
};

use serde::Deserialize;
use sha2::{Digest, Sha256};

pub use facts::{FactFiles, FactsProblem};
pub use problem::{Problem, Problems};
pub use reload::needs_restart;
pub use scenario::{Cell, compile_scenario};
pub use schema::schema;
pub use watch::Watch;

use crate::{admin, proxy, rollout, routing};

/// Largest configuration that is read.
const MAX_BYTES: u64 = 16 << 20;

/// A configuration that may be put in force.
#[derive(Clone, Debug)]
pub struct Compiled {
    /// Routes, cohorts, services and upstreams.
    pub routes: routing::RouteTable,
    /// Listeners.
    pub proxy: proxy::Settings,
    /// Plans and journal.
    pub rollout: rollout::Settings,
    /// Admin server.
    pub admin: admin::Settings,
    /// The files that countries and claims come from.
    pub facts: FactFiles,
    /// SHA-256 of the file's content and of what its variables came to, in hex: names this
    /// configuration in the journal and in metrics.
    pub hash: String,
    /// What an operator should think about, one sentence each.
    pub advice: Vec<String>,
}

/// Reads and compiles a file. `env` looks up the variables of `${NAME}`.
///
/// # Errors
/// Everything that is wrong with the file, at once; or that it could not be read.
pub fn load(path: &Path, env: &dyn Fn(&str) -> Option<String>) -> Result<Compiled, Problems> {
    compile_text(&read(path)?, path, env)
}

/// Reads the text of a file, for [`compile_text`].
///
/// # Errors
/// That it cannot be read, is larger than 16 MiB, or is not UTF-8.
pub fn read(path: &Path) -> Result<String, Problems> {
    read_text(path).map_err(|reason| Problems::unreadable(path.to_owned(), reason))
}

/// Reads and compiles a scenario file of the simulator.
///
/// # Errors
/// Everything that is wrong with the file, at once; or that it could not be read.
pub fn load_scenario(
    path: &Path,
    env: &dyn Fn(&str) -> Option<String>,
) -> Result<Vec<Cell>, Problems> {
    compile_scenario(&read(path)?, path, env)
}

/// Compiles a text as if it stood in the file `path`, to which file names in it are relative.
///
/// # Errors
/// Everything that is wrong with it, at once.
pub fn compile_text(
    text: &str,
    path: &Path,
    env: &dyn Fn(&str) -> Option<String>,
) -> Result<Compiled, Problems> {
    let problems = |list| Problems::new(path.to_owned(), text, list);
    let tree = parse(text, path)?;
    let reading = reading::Reading::new(env);
    // What cannot be read was noted by the reader; the rest is still compiled.
    let file = file::File::deserialize(reader::At::root(&reading, &tree)).unwrap_or_default();
    let hash = hash(text, &reading.interpolated());
    let base = directory(path);
    match compile::compile(&file, &reading, &base, hash) {
        Some(compiled) => Ok(compiled),
        None => Err(problems(reading.into_problems())),
    }
}

/// The tree of a text.
fn parse<'t>(text: &'t str, path: &Path) -> Result<yaml::Node<'t>, Problems> {
    yaml::parse(text).map_err(|flaw| {
        let yaml::Place { line, column, .. } = flaw.place;
        let (at, message) = (String::new(), flaw.message);
        let problem = Problem { line, column, path: at, message, help: None };
        Problems::new(path.to_owned(), text, vec![problem])
    })
}

fn read_text(path: &Path) -> Result<String, String> {
    let file = Opened::open(path).map_err(|error| format!("cannot be opened: {error}"))?;
    let mut bytes = Vec::new();
    file.take(MAX_BYTES + 1)
        .read_to_end(&mut bytes)
        .map_err(|error| format!("cannot be read: {error}"))?;
    if bytes.len() as u64 > MAX_BYTES {
        return Err(format!("is larger than {} MiB", MAX_BYTES >> 20));
    }
    String::from_utf8(bytes).map_err(|error| {
        let valid = error.utf8_error().valid_up_to();
        let line = error.as_bytes()[..valid].iter().filter(|byte| **byte == b'\n').count() + 1;
        format!("is not UTF-8 in line {line}")
    })
}

/// The directory of the file, absolute where the working directory can be told.
fn directory(path: &Path) -> PathBuf {
    let directory = path.parent().unwrap_or(Path::new(""));
    std::path::absolute(directory.join("."))
        .map(|absolute| absolute.components().collect())
        .unwrap_or_else(|_| directory.to_owned())
}

fn hash(text: &str, interpolated: &[String]) -> String {
    let mut hash = Sha256::new();
    hash.update(text);
    for value in interpolated {
        // Lengths keep two neighbours apart.
        hash.update((value.len() as u64).to_le_bytes());
        hash.update(value);
    }
    hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}
