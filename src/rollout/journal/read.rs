//! Reading a journal: every line in order, with the chain of its decisions verified. It needs no
//! lock and changes nothing, so that a journal can be read while a proxy writes it.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use super::{
    Decision, Line,
    line::{self, Chained, GENESIS, Parsed, Unreadable},
};

/// Why a journal cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// A file or directory cannot be read.
    #[error("{path}: {source}")]
    File {
        /// Which.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A line is not what was written.
    #[error("{path}, line {line}: {problem}")]
    Line {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// What is wrong with it, and what can be done.
        problem: String,
    },
}

/// A place in a journal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// The file.
    pub path: PathBuf,
    /// The line, from 1.
    pub line: usize,
}

/// Reads a file of a journal, its directory, or the state directory that this lies in, and shows
/// every line to `visit`, oldest first. The end of the last file may be torn: that is left out.
///
/// # Errors
/// [`ReadError`]: a file cannot be read, or a line in the middle is not what was written.
pub fn read_journal(
    path: &Path,
    mut visit: impl FnMut(&Place, Line<'_>),
) -> Result<Chain, ReadError> {
    let mut chain = Chain::default();
    let paths = paths(path)?;
    for (index, path) in paths.iter().enumerate() {
        let text = read_file(path)?;
        let last = index + 1 == paths.len();
        let (lines, _) = chain.follow(path, &text, last)?;
        for (number, line) in lines {
            visit(&Place { path: path.clone(), line: number }, line);
        }
    }
    Ok(chain)
}

fn paths(path: &Path) -> Result<Vec<PathBuf>, ReadError> {
    if path.is_file() {
        return Ok(vec![path.to_owned()]);
    }
    let inner = path.join("journal");
    files(if inner.is_dir() { &inner } else { path })
}

/// The files of a journal, oldest first.
pub(super) fn files(directory: &Path) -> Result<Vec<PathBuf>, ReadError> {
    let failed = |source| ReadError::File { path: directory.to_owned(), source };
    let mut paths = Vec::new();
    for entry in fs::read_dir(directory).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        if number(&path).is_some() {
            paths.push(path);
        }
    }
    paths.sort_by_key(|path| number(path));
    Ok(paths)
}

pub(super) fn read_file(path: &Path) -> Result<Vec<u8>, ReadError> {
    fs::read(path).map_err(|source| ReadError::File { path: path.to_owned(), source })
}

/// The number that a file of the journal is named by.
pub(super) fn number(path: &Path) -> Option<u64> {
    let ours = path.extension().is_some_and(|extension| extension == "jsonl");
    ours.then(|| path.file_stem()?.to_str()?.parse().ok()).flatten()
}

/// How far the decisions have been followed.
#[derive(Clone, Debug, Default)]
pub struct Chain {
    /// The hash of the last decision; `None` before the first that tells.
    pub(super) hash: Option<String>,
    /// The number of the last decision.
    pub(super) seq: u64,
    damage: Option<Damage>,
}

/// Lines that cannot be read, and of which it is not known yet whether one was a decision.
#[derive(Clone, Debug)]
struct Damage {
    place: Place,
    problem: String,
    /// Where in the file at hand: the offset, and the number of good lines before.
    here: Option<(usize, usize)>,
}

/// The good lines of a file with their numbers, and up to where they go.
type Good<'a> = (Vec<(usize, Line<'a>)>, usize);

impl Chain {
    /// The hash of the last decision; what is written next is chained to it.
    #[must_use]
    pub fn hash(&self) -> &str {
        self.hash.as_deref().unwrap_or(GENESIS)
    }

    /// Follows one more file. Of the last one the end may be torn, which a crash leaves behind:
    /// nothing from there on was acknowledged.
    pub(super) fn follow<'a>(
        &mut self,
        path: &Path,
        text: &'a [u8],
        last: bool,
    ) -> Result<Good<'a>, ReadError> {
        if let Some(damage) = &mut self.damage {
            damage.here = None;
        }
        let mut lines = Vec::new();
        let mut offset = 0;
        for (index, line) in text.split_inclusive(|byte| *byte == b'\n').enumerate() {
            let place = Place { path: path.to_owned(), line: index + 1 };
            let parsed = match line.strip_suffix(b"\n") {
                Some(line) => line::parse(line),
                None => Err(Unreadable::Torn("no end of line".to_owned())),
            };
            match parsed {
                Ok(Parsed::Decision(chained)) if last && self.is_torn_before(&chained) => {
                    self.end_of_batch(chained.batch, &text[offset..])?;
                    break;
                }
                Ok(parsed) => lines.push((place.line, self.take(parsed, line, place)?)),
                Err(Unreadable::Strange(problem)) => return Err(broken(place, &problem)),
                Err(Unreadable::Torn(problem)) => {
                    let here = Some((offset, lines.len()));
                    self.damage.get_or_insert(Damage { place: place.clone(), problem, here });
                    lines.push((place.line, Line::Damaged));
                }
            }
            offset += line.len();
        }
        // Torn in the end, or in the middle of what went to the disk last.
        if last && let Some((good, count)) = self.damage.take().and_then(|damage| damage.here) {
            lines.truncate(count);
            offset = good;
        }
        Ok((lines, offset))
    }

    /// Whether a decision before this one is missing, and can only have been lost on its way to
    /// the disk: the damaged lines were not acknowledged then, and nothing after them.
    fn is_torn_before(&self, chained: &Chained<'_>) -> bool {
        let lost = self.hash() != chained.previous;
        let damaged_here = self.damage.as_ref().is_some_and(|damage| damage.here.is_some());
        lost && damaged_here && chained.batch <= self.seq + 1
    }

    /// Holds what follows a torn line to have been on its way with it.
    fn end_of_batch(&self, batch: u64, rest: &[u8]) -> Result<(), ReadError> {
        let later =
            |line| matches!(line::parse(line), Ok(Parsed::Decision(it)) if it.batch != batch);
        match &self.damage {
            Some(damage) if rest.split(|byte| *byte == b'\n').any(later) => Err(damage.error()),
            Some(_) | None => Ok(()),
        }
    }

    fn take<'a>(
        &mut self,
        parsed: Parsed<'a>,
        line: &[u8],
        place: Place,
    ) -> Result<Line<'a>, ReadError> {
        Ok(match parsed {
            Parsed::Block(raw) => Line::Block(raw),
            Parsed::Gap(lost) => Line::Gap(lost),
            Parsed::Decision(chained) => Line::Decision(self.decision(&chained, place)?),
            Parsed::Bare(decision) => {
                if let Some(damage) = &self.damage {
                    return Err(damage.error());
                }
                let content = line.strip_suffix(b"\n").unwrap_or(line);
                self.hash = Some(line::link(self.hash(), content));
                self.seq = decision.seq;
                Line::Decision(decision)
            }
            Parsed::Snapshot { raw, after, hash } => {
                self.links_to(hash, place)?;
                self.damage = None;
                (self.hash, self.seq) = (Some(hash.to_owned()), after);
                Line::Snapshot(raw)
            }
        })
    }

    fn decision(
        &mut self,
        chained: &Chained<'_>,
        place: Place,
    ) -> Result<Box<Decision>, ReadError> {
        self.links_to(chained.previous, place.clone())?;
        if line::link(chained.previous, chained.raw.get().as_bytes()) != chained.hash {
            return Err(broken(place, "the decision is not the one that was written"));
        }
        let decision: Decision = serde_json::from_str(chained.raw.get())
            .map_err(|error| broken(place, &format!("the decision cannot be read: {error}")))?;
        self.damage = None;
        (self.hash, self.seq) = (Some(chained.hash.to_owned()), decision.seq);
        Ok(Box::new(decision))
    }

    /// What follows must continue the chain, once that is known; with something missing before it
    /// is known, it must be the first decision of all.
    fn links_to(&self, hash: &str, place: Place) -> Result<(), ReadError> {
        match &self.damage {
            _ if self.hash() == hash => Ok(()),
            Some(damage) => Err(damage.error()),
            None if self.hash.is_none() => Ok(()),
            None => Err(broken(place, "a decision before it is missing, or was put there")),
        }
    }
}

impl Damage {
    fn error(&self) -> ReadError {
        broken(self.place.clone(), &self.problem)
    }
}

fn broken(place: Place, problem: &str) -> ReadError {
    let Place { path, line } = place;
    let what = "put the file back as it was, or move the journal away to start without it: all \
                versions begin anew then";
    ReadError::Line { path, line, problem: format!("{problem}; {what}") }
}
