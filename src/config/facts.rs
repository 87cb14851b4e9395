//! The files that facts about requests come from: read whole into memory, and read again when their
//! content changes.

use std::{
    fs::File,
    io::{self, Read},
    path::{Path, PathBuf},
    sync::Arc,
};

use sha2::{Digest, Sha256};

use crate::{
    routing::{Countries, CountriesProblem, Facts, KeysProblem, TokenRules, Tokens},
    tls::Source,
};

/// Largest database that is read.
const MAX_DATABASE: u64 = 1 << 30;
/// Largest key set that is read.
const MAX_JWKS: u64 = 1 << 20;

/// The files that facts come from, as they were read last.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FactFiles {
    pub(super) database: Option<Source>,
    pub(super) jwks: Option<(Source, TokenRules)>,
}

/// Why a file is of no use.
#[derive(Debug, thiserror::Error)]
pub enum FactsProblem {
    /// It cannot be read.
    #[error("{path}: {1}", path = .0.display())]
    Unreadable(PathBuf, #[source] io::Error),
    /// It is no database of countries.
    #[error("{path} {1}", path = .0.display())]
    Countries(PathBuf, #[source] CountriesProblem),
    /// It is no set of keys.
    #[error("{path} {1}", path = .0.display())]
    Keys(PathBuf, #[source] KeysProblem),
}

impl FactFiles {
    /// The files, to be watched.
    pub fn sources(&self) -> impl Iterator<Item = &Source> {
        self.database.iter().chain(self.jwks.iter().map(|(source, _)| source))
    }

    /// Reads the files again. A file of no use leaves what it held before in force, and the problem
    /// is returned.
    #[must_use]
    pub fn renew(&mut self, facts: &mut Facts) -> Vec<FactsProblem> {
        let mut problems = Vec::new();
        if let Some(source) = &mut self.database {
            match countries(&source.path) {
                Ok((new, countries)) => {
                    *source = new;
                    facts.countries = Some(countries);
                }
                Err(problem) => problems.push(problem),
            }
        }
        if let Some((source, rules)) = &mut self.jwks {
            match tokens(&source.path, rules) {
                Ok((new, tokens)) => {
                    *source = new;
                    facts.tokens = Some(tokens);
                }
                Err(problem) => problems.push(problem),
            }
        }
        problems
    }
}

/// Reads a database of countries.
pub(super) fn countries(path: &Path) -> Result<(Source, Arc<Countries>), FactsProblem> {
    let content = read(path, MAX_DATABASE)?;
    let source = source(path, &content);
    let countries = Countries::new(content)
        .map_err(|problem| FactsProblem::Countries(path.to_owned(), problem))?;
    Ok((source, Arc::new(countries)))
}

/// Reads a set of keys.
pub(super) fn tokens(
    path: &Path,
    rules: &TokenRules,
) -> Result<(Source, Arc<Tokens>), FactsProblem> {
    let content = read(path, MAX_JWKS)?;
    let tokens = Tokens::new(&content, rules.clone())
        .map_err(|problem| FactsProblem::Keys(path.to_owned(), problem))?;
    Ok((source(path, &content), Arc::new(tokens)))
}

fn source(path: &Path, content: &[u8]) -> Source {
    Source { path: path.to_owned(), digest: Sha256::digest(content).into() }
}

fn read(path: &Path, most: u64) -> Result<Vec<u8>, FactsProblem> {
    let unreadable = |error| FactsProblem::Unreadable(path.to_owned(), error);
    let mut content = Vec::new();
    let file = File::open(path).map_err(unreadable)?;
    file.take(most + 1).read_to_end(&mut content).map_err(unreadable)?;
    if content.len() as u64 > most {
        let message = format!("it is larger than {} MiB", most >> 20);
        return Err(unreadable(io::Error::new(io::ErrorKind::FileTooLarge, message)));
    }
    Ok(content)
}
