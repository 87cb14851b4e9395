//! History: the decisions of a journal, picked by service and canary. What they rest on is left
//! to reports and to a replay.

use std::{collections::VecDeque, path::Path};

use super::{Decision, Line, ReadError, read_journal};

/// Which decisions are wanted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wanted {
    /// Only those of this service.
    pub service: Option<String>,
    /// Only those of this canary.
    pub canary: Option<String>,
    /// Only the last so many; `None`: all of them.
    pub limit: Option<usize>,
}

impl Wanted {
    /// Whether a decision is wanted, its place left out of account.
    #[must_use]
    pub fn includes(&self, decision: &Decision) -> bool {
        let is = |wanted: &Option<String>, name: &str| {
            wanted.as_ref().is_none_or(|wanted| *wanted == *name)
        };
        is(&self.service, &decision.service) && is(&self.canary, &decision.canary)
    }
}

/// The decisions of a journal (a file, its directory, or the state directory), oldest first.
///
/// # Errors
/// See [`ReadError`].
pub fn history(path: &Path, wanted: &Wanted) -> Result<Vec<Decision>, ReadError> {
    let mut decisions = VecDeque::new();
    read_journal(path, |_, line| {
        let Line::Decision(decision) = line else { return };
        if wanted.includes(&decision) {
            decisions.push_back(*decision);
        }
        if wanted.limit.is_some_and(|limit| decisions.len() > limit) {
            decisions.pop_front();
        }
    })?;
    Ok(decisions.into())
}
