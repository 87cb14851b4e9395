//! What is wrong with a configuration, for people and for programs: where, what, and what would be
//! accepted. Knows nothing of the keys; whoever finds a problem words it.

use std::{fmt, path::PathBuf, sync::Arc};

use serde::Serialize;

/// Most problems that are kept; a file with more of them is not a configuration at all.
pub(super) const MAX_PROBLEMS: usize = 1000;

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Problem {
    /// The line, from 1; 0 where the file could not be read at all.
    pub line: u32,
    /// The column, from 1, in characters; 0 where the file could not be read at all.
    pub column: u32,
    /// The path in the document, such as `services.checkout.canaries.v2.upstream`.
    pub path: String,
    /// What is wrong, with the value that was found.
    pub message: String,
    /// What would be accepted, and what may have been meant.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub help: Option<String>,
}

/// Everything that is wrong with one file, in the order of the file.
#[derive(Clone, Debug)]
pub struct Problems {
    file: PathBuf,
    source: Arc<str>,
    list: Vec<Problem>,
}

impl Problems {
    /// The problems of a file with this content.
    pub(super) fn new(file: PathBuf, source: &str, mut list: Vec<Problem>) -> Self {
        list.sort_by(|left, right| {
            (left.line, left.column, &left.path).cmp(&(right.line, right.column, &right.path))
        });
        list.dedup();
        Self { file, source: source.into(), list }
    }

    /// The file could not be read.
    pub(super) fn unreadable(file: PathBuf, message: String) -> Self {
        let problem = Problem { line: 0, column: 0, path: String::new(), message, help: None };
        Self { file, source: "".into(), list: vec![problem] }
    }

    /// The problems.
    #[must_use]
    pub fn list(&self) -> &[Problem] {
        &self.list
    }

    /// The problems for a program: `{"file": …, "problems": [{"line", "column", "path", "message",
    /// "help"}]}`.
    #[must_use]
    pub fn to_json(&self) -> serde_json::Value {
        serde_json::json!({ "file": self.file.display().to_string(), "problems": self.list })
    }
}

impl fmt::Display for Problems {
    /// One paragraph for each problem: place, path, what is wrong, the line, the help.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let lines: Vec<&str> = self.source.lines().collect();
        for problem in &self.list {
            write!(formatter, "{}", self.file.display())?;
            if problem.line > 0 {
                write!(formatter, ":{}:{}", problem.line, problem.column)?;
            }
            if !problem.path.is_empty() {
                write!(formatter, ": {}", problem.path)?;
            }
            writeln!(formatter, ": {}", problem.message)?;
            if let Some(line) = (problem.line as usize).checked_sub(1).and_then(|at| lines.get(at))
            {
                write_snippet(problem, line, formatter)?;
            }
            if let Some(help) = &problem.help {
                writeln!(formatter, "  help: {help}")?;
            }
        }
        let plural = if self.list.len() == 1 { "" } else { "s" };
        write!(formatter, "{} problem{plural}", self.list.len())
    }
}

impl std::error::Error for Problems {}

fn write_snippet(problem: &Problem, line: &str, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
    // A line of a minified file would bury the message.
    const WIDEST: usize = 160;
    if line.chars().count() > WIDEST {
        return Ok(());
    }
    let margin = problem.line.to_string();
    let indent: String = line
        .chars()
        .take((problem.column as usize).saturating_sub(1))
        .map(|character| if character == '\t' { '\t' } else { ' ' })
        .collect();
    writeln!(formatter, "  {margin} | {line}")?;
    writeln!(formatter, "  {:width$} | {indent}^", "", width = margin.len())
}

/// The best help for a word that is not among `accepted`: what was meant, or all that is accepted.
pub(super) fn suggest<'a>(word: &str, accepted: impl IntoIterator<Item = &'a str>) -> String {
    let accepted: Vec<&str> = accepted.into_iter().collect();
    let nearest = accepted
        .iter()
        .map(|candidate| (distance(word, candidate), *candidate))
        .filter(|(distance, candidate)| {
            *distance < word.len() && *distance <= 1 + candidate.len().min(word.len()) / 4
        })
        .min();
    match (nearest, accepted.len()) {
        (_, 0) => "there is none to choose from".to_owned(),
        (Some((_, candidate)), 2..=12) => {
            format!("did you mean `{candidate}`? accepted: {}", accepted.join(", "))
        }
        (Some((_, candidate)), _) => format!("did you mean `{candidate}`?"),
        (None, 1..=24) => format!("accepted: {}", accepted.join(", ")),
        (None, count) => {
            format!("accepted: {}, … ({count} in all)", accepted[..12].join(", "))
        }
    }
}

/// Number of characters to insert, remove, replace or swap with their neighbour (optimal string
/// alignment, Damerau 1964) to turn one word into the other; words are compared up to 64
/// characters.
fn distance(left: &str, right: &str) -> usize {
    const LONGEST: usize = 64;
    let left: Vec<char> = left.chars().take(LONGEST).collect();
    let right: Vec<char> = right.chars().take(LONGEST).collect();
    let mut rows = vec![vec![0; right.len() + 1]; left.len() + 1];
    for row in 0..=left.len() {
        for column in 0..=right.len() {
            if row == 0 || column == 0 {
                rows[row][column] = row + column;
                continue;
            }
            let replace = usize::from(left[row - 1] != right[column - 1]);
            let mut best = (rows[row - 1][column] + 1)
                .min(rows[row][column - 1] + 1)
                .min(rows[row - 1][column - 1] + replace);
            let swapped = row > 1
                && column > 1
                && left[row - 1] == right[column - 2]
                && left[row - 2] == right[column - 1];
            if swapped {
                best = best.min(rows[row - 2][column - 2] + 1);
            }
            rows[row][column] = best;
        }
    }
    rows[left.len()][right.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slip_of_the_finger_is_recognised() {
        for (written, meant) in [("listner", "listeners"), ("bsaeline", "baseline"), ("v3", "v2")] {
            let help = suggest(written, ["listeners", "baseline", "v2"]);
            assert!(help.starts_with(&format!("did you mean `{meant}`?")), "{written}: {help}");
        }
    }

    #[test]
    fn a_word_like_none_of_them_gets_the_whole_list() {
        assert_eq!(suggest("colour", ["auto", "http1", "h2"]), "accepted: auto, http1, h2");
        assert_eq!(suggest("x", []), "there is none to choose from");
    }

    #[test]
    fn a_snippet_points_at_the_column() {
        let problem = Problem {
            line: 2,
            column: 4,
            path: "a.b".into(),
            message: "no such thing".into(),
            help: Some("accepted: c".into()),
        };
        let problems = Problems::new("f.yaml".into(), "a:\n  \tb: 1\n", vec![problem]);
        assert_eq!(
            problems.to_string(),
            "f.yaml:2:4: a.b: no such thing\n  2 |   \tb: 1\n    |   \t^\n  help: accepted: c\n1 problem"
        );
    }
}
