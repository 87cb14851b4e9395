//! What came out, as a table: how many runs kept each limit, the median and the worst.

use std::fmt::Write as _;

use crate::rows::{Findings, Found, Measure, Row};

/// The share of the runs that must keep every limit.
const MUST_HOLD: (usize, usize) = (18, 20);

/// All runs of one row that count.
#[derive(Debug, Default)]
pub(crate) struct Runs {
    pub(crate) played: Vec<Result<Findings, String>>,
    /// Runs that were repeated, because their clients were late.
    pub(crate) voided: usize,
}

/// Whether a finding keeps the limit.
fn keeps(measure: Measure, found: &Result<Found, String>) -> bool {
    match (found, measure.limit) {
        (Ok(Found::After(seconds)), Some(limit)) => *seconds <= limit,
        (Ok(_), None) => true,
        (Ok(Found::Holds), Some(_)) | (Err(_), _) => false,
    }
}

/// One line for a run that has just ended.
pub(crate) fn run(row: &Row, played: &Result<Findings, String>) -> String {
    match played {
        Ok(findings) => {
            let each = row.measures.iter().zip(&findings.found).map(|(measure, found)| {
                let mark = if keeps(*measure, found) { "" } else { " (!)" };
                match found {
                    Ok(Found::After(seconds)) => format!("{} {seconds:.3} s{mark}", measure.name),
                    Ok(Found::Holds) => format!("{} yes{mark}", measure.name),
                    Err(trouble) => format!("{} NO: {trouble}", measure.name),
                }
            });
            each.collect::<Vec<_>>().join("; ")
        }
        Err(trouble) => format!("FAILED: {trouble}"),
    }
}

/// The head of the table.
pub(crate) fn head() -> String {
    format!(
        "{:<17} {:<33} {:>8} {:>8} {:>9} {:>9}  {}\n{}",
        "row",
        "measured from the onset",
        "limit",
        "within",
        "median",
        "worst",
        "bad answers of the canary: median, worst",
        "-".repeat(128)
    )
}

/// A row's lines, and whether enough runs kept every limit.
pub(crate) fn lines(row: &Row, runs: &Runs) -> (String, bool) {
    let mut text = String::new();
    let mut enough = true;
    let mut troubles: Vec<String> = Vec::new();
    for (place, measure) in row.measures.iter().enumerate() {
        let found: Vec<Result<Found, String>> =
            runs.played.iter().map(|played| finding(played, place)).collect();
        let kept = found.iter().filter(|it| keeps(*measure, it)).count();
        let holds = !found.is_empty() && kept * MUST_HOLD.1 >= found.len() * MUST_HOLD.0;
        enough &= holds;
        let (median, worst) = spread(*measure, &found);
        let name = if place == 0 { row.name } else { "" };
        let limit = measure.limit.map_or("-".to_owned(), |limit| format!("{limit} s"));
        let within = format!("{kept}/{}", found.len());
        let bad = if place == 0 { exposure(runs) } else { String::new() };
        let mark = if holds { "" } else { "  FAILED" };
        let line = format!(
            "{name:<17} {:<33} {limit:>8} {within:>8} {median:>9} {worst:>9}  {bad}{mark}",
            measure.name
        );
        text.push_str(line.trim_end());
        text.push('\n');
        let new = found.into_iter().filter_map(Result::err);
        new.for_each(|it| {
            if !troubles.contains(&it) {
                troubles.push(it)
            }
        });
    }
    if runs.voided > 0 {
        let _ = writeln!(text, "    {} runs repeated: their clients were late", runs.voided);
    }
    for trouble in troubles.iter().take(3) {
        let _ = writeln!(text, "    {trouble}");
    }
    (text, enough)
}

fn finding(played: &Result<Findings, String>, place: usize) -> Result<Found, String> {
    match played {
        Ok(findings) => {
            findings.found.get(place).cloned().unwrap_or_else(|| Err("not measured".to_owned()))
        }
        Err(trouble) => Err(trouble.clone()),
    }
}

/// Median and worst in seconds; what did not come about is worse than everything.
fn spread(measure: Measure, found: &[Result<Found, String>]) -> (String, String) {
    let mut seconds: Vec<f64> = Vec::new();
    let mut timed = measure.limit.is_some();
    for it in found {
        match it {
            Ok(Found::After(after)) => {
                timed = true;
                seconds.push(*after);
            }
            Ok(Found::Holds) => {}
            Err(_) => seconds.push(f64::INFINITY),
        }
    }
    if !timed || found.is_empty() {
        return ("-".to_owned(), "-".to_owned());
    }
    seconds.sort_by(f64::total_cmp);
    let say = |seconds: f64| {
        if seconds.is_finite() { format!("{seconds:.3} s") } else { "never".to_owned() }
    };
    (say(seconds[(seconds.len() - 1) / 2]), say(seconds[seconds.len() - 1]))
}

fn exposure(runs: &Runs) -> String {
    let findings = runs.played.iter().filter_map(|played| played.as_ref().ok());
    let mut worse: Vec<u64> = findings.filter_map(|it| it.worse).collect();
    worse.sort_unstable();
    match worse.last() {
        Some(most) => format!("{}, {most}", worse[(worse.len() - 1) / 2]),
        None => String::new(),
    }
}
