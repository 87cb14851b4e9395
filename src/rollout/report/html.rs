//! A report as one page of HTML that needs nothing else: no script, no other file.

use super::{Report, charts, story};
use crate::plot::escaped;

/// Rows of the table over time.
const ROWS: usize = 48;

const STYLE: &str = include_str!("report.css");

pub(super) fn render(report: &Report) -> String {
    let title = format!("{}/{} {}", report.service, report.canary, report.version);
    let mut text = format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <title>Rollout of {title}</title>\n<style>\n{STYLE}</style>\n</head>\n<body>\n\
         <h1>Rollout of {title} <span class=\"{phase}\">{words}</span></h1>\n<p>{summary}</p>\n",
        title = escaped(&title),
        phase = report.phase.label(),
        words = report.phase.label().replace('_', " "),
        summary = escaped(&story::summary(report)),
    );
    text += "<figure>\n";
    text += &charts::svg(report);
    text += "<figcaption>Dashed lines are decisions, numbered as in the table below.\
             </figcaption>\n</figure>\n<div class=\"two\">\n";
    pairs(&mut text, "In numbers", story::facts(report));
    pairs(&mut text, "Evidence and effect", story::cause(report));
    text += "</div>\n";
    let decisions = report.decisions.iter().enumerate().map(|(place, decision)| {
        let number = std::iter::once((place + 1).to_string());
        number.chain(story::decision(decision)).collect()
    });
    table(&mut text, "Decisions", &[&[""], &story::DECISION[..]].concat(), decisions, "words");
    let rows = report.series.rows(ROWS);
    let rows = rows.iter().map(|(at, slice)| story::slice(*at, slice).to_vec());
    table(&mut text, "Over time", &story::SLICE, rows, "numbers");
    if let Some(edit) = story::edit(report) {
        text += "<h2>Make it the baseline</h2>\n<p>The canary has all of the traffic. This edit \
                 of the configuration makes it the baseline:</p>\n<pre>";
        text += &escaped(&edit);
        text += "</pre>\n";
    }
    text += "</body>\n</html>\n";
    text
}

fn pairs(text: &mut String, title: &str, pairs: Vec<(&'static str, String)>) {
    *text += &format!("<section>\n<h2>{title}</h2>\n<dl>\n");
    for (name, value) in pairs {
        *text += &format!("<dt>{}</dt><dd>{}</dd>\n", escaped(name), escaped(&value));
    }
    *text += "</dl>\n</section>\n";
}

fn table(
    text: &mut String,
    title: &str,
    names: &[&str],
    rows: impl Iterator<Item = Vec<String>>,
    class: &str,
) {
    *text += &format!("<h2>{title}</h2>\n<div class=\"scroll\">\n<table class=\"{class}\">\n<tr>");
    names.iter().for_each(|name| *text += &format!("<th>{}</th>", escaped(name)));
    *text += "</tr>\n";
    for row in rows {
        let cells: String = row.iter().map(|cell| format!("<td>{}</td>", escaped(cell))).collect();
        *text += &format!("<tr>{cells}</tr>\n");
    }
    *text += "</table>\n</div>\n";
}
