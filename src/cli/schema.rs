//! `haldane schema`: the JSON schema of the configuration, for editors.

use std::io::Write;

use super::exit::Failure;
use crate::config;

/// Prints the schema, the same text as `config/haldane.schema.json`.
pub(super) fn run() -> Result<(), Failure> {
    Ok(std::io::stdout().lock().write_all(config::schema().as_bytes())?)
}
