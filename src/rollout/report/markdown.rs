//! A report as Markdown: tables and text.

use super::{Report, story};

/// Rows of the table over time, and characters of a bar of weight.
const ROWS: usize = 24;
const BAR: usize = 20;

pub(super) fn render(report: &Report) -> String {
    let mut text = format!(
        "# Rollout of {}/{} {}\n\n{}\n\n",
        escaped(&report.service),
        escaped(&report.canary),
        escaped(&report.version),
        escaped(&story::summary(report))
    );
    text += "## In numbers\n\n";
    pairs(&mut text, story::facts(report));
    text += "## Evidence and effect\n\n";
    pairs(&mut text, story::cause(report));
    text += "## Weight\n\n";
    row(&mut text, &["after", "weight", "", "decision"]);
    rule(&mut text, 4);
    for decision in &report.decisions {
        let [_, after, what, ..] = story::decision(decision);
        let filled = (usize::from(decision.weight_bp) * BAR).div_ceil(10_000).min(BAR);
        let bar = "█".repeat(filled) + &"░".repeat(BAR - filled);
        row(&mut text, &[&after, &story::percent(decision.weight_bp), &bar, &what]);
    }
    text += "\n## Over time\n\n";
    row(&mut text, &story::SLICE);
    rule(&mut text, story::SLICE.len());
    for (at, slice) in report.series.rows(ROWS) {
        row(&mut text, &story::slice(at, &slice).each_ref().map(String::as_str));
    }
    text += "\n## Decisions\n\n";
    row(&mut text, &story::DECISION);
    rule(&mut text, story::DECISION.len());
    for decision in &report.decisions {
        row(&mut text, &story::decision(decision).each_ref().map(String::as_str));
    }
    if let Some(edit) = story::edit(report) {
        text += "\n## Make it the baseline\n\nThe canary has all of the traffic. This edit of the \
                 configuration makes it the baseline:\n\n```yaml\n";
        text += &edit;
        text += "```\n";
    }
    text
}

fn pairs(text: &mut String, pairs: Vec<(&'static str, String)>) {
    row(text, &["", ""]);
    rule(text, 2);
    for (name, value) in pairs {
        row(text, &[name, &value]);
    }
    text.push('\n');
}

fn row(text: &mut String, cells: &[&str]) {
    text.push('|');
    for cell in cells {
        *text += &format!(" {} |", escaped(cell));
    }
    text.push('\n');
}

fn rule(text: &mut String, columns: usize) {
    *text += &format!("|{}\n", " --- |".repeat(columns));
}

/// What people wrote may not end a cell, nor become a mark-up of its own.
fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '\n' | '\r' => escaped.push(' '),
            '|' | '*' | '_' | '`' | '<' | '[' | '\\' => {
                escaped.push('\\');
                escaped.push(letter);
            }
            _ => escaped.push(letter),
        }
    }
    escaped
}
