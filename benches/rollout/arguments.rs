//! The command line: `[ROW…] [--runs N] [--parallel P] [--binary PATH]`.

use std::path::PathBuf;

use crate::rows::{ROWS, Row, SELF_CHECK};

/// What is asked for.
pub(crate) struct Arguments {
    pub(crate) rows: Vec<&'static Row>,
    pub(crate) runs: usize,
    pub(crate) parallel: f64,
    pub(crate) binary: PathBuf,
}

/// What is accepted.
pub(crate) fn usage() -> String {
    let names: Vec<_> = ROWS.iter().map(|row| row.name).collect();
    format!(
        "usage: cargo bench --bench rollout -- [ROW…] [--runs 20] [--parallel 6] [--binary PATH]\n\
         --parallel: how many runs of 500 requests/s at the same time\n\
         rows: {} (all but the last where none is named)",
        names.join(", ")
    )
}

impl Arguments {
    /// Reads the arguments of the process; `--test` asks for one run that shows that everything
    /// works together.
    pub(crate) fn read(given: impl Iterator<Item = String>) -> Result<Self, String> {
        let mut given = given;
        let mut arguments = Self {
            rows: Vec::new(),
            runs: 20,
            parallel: 6.0,
            binary: env!("CARGO_BIN_EXE_haldane").into(),
        };
        while let Some(word) = given.next() {
            let mut value = || given.next().ok_or_else(|| format!("{word} needs a value"));
            match word.as_str() {
                "--runs" => arguments.runs = number(&value()?)?,
                "--parallel" => arguments.parallel = number(&value()?)? as f64,
                "--binary" => arguments.binary = value()?.into(),
                "--test" => {
                    arguments.runs = 1;
                    arguments.rows = vec![row(SELF_CHECK)?];
                }
                // Added by cargo.
                "--bench" => {}
                name => arguments.rows.push(row(name)?),
            }
        }
        if arguments.rows.is_empty() {
            arguments.rows = ROWS.iter().filter(|row| row.name != SELF_CHECK).collect();
        }
        Ok(arguments)
    }
}

fn row(name: &str) -> Result<&'static Row, String> {
    ROWS.iter().find(|row| row.name == name).ok_or_else(|| format!("there is no row {name:?}"))
}

fn number(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(number) if number > 0 => Ok(number),
        Ok(_) | Err(_) => Err(format!("expected a number from 1 on, not {text:?}")),
    }
}
