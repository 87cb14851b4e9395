//! The plot of a simulation, written by hand as SVG: how soon each judge rolled back, and how
//! often it did so without a reason.

use std::fmt::Write;

use super::{
    rivals::RIVALS,
    scenario::Scenario,
    summary::{Share, Summary, Tally},
};

/// Size of the whole, and the frames of its two panels: left, top, width, height.
const WIDTH: f64 = 960.0;
const HEIGHT: f64 = 460.0;
const DELAYS: [f64; 4] = [70.0, 80.0, 480.0, 300.0];
const ALARMS: [f64; 4] = [700.0, 80.0, 220.0, 300.0];

/// Colours that differ in lightness too, for print and for those who see few colours.
const COLOURS: [&str; 6] = ["#0b5394", "#b45f06", "#e69138", "#38761d", "#6aa84f", "#741b47"];

/// Least share on the logarithmic axis of false alarms.
const LEAST_SHARE: f64 = 1e-5;

/// A judge with its name and colour.
struct Curve<'a> {
    name: &'a str,
    colour: &'static str,
    tally: &'a Tally,
}

/// The plot of a scenario that was played, titled.
#[must_use]
pub fn svg(title: &str, scenario: &Scenario, summary: &Summary) -> String {
    let names = std::iter::once("haldane").chain(RIVALS.iter().map(|rival| rival.name));
    let tallies = std::iter::once(&summary.haldane).chain(&summary.rivals);
    let curves: Vec<Curve<'_>> = names
        .zip(tallies)
        .zip(COLOURS)
        .map(|((name, tally), colour)| Curve { name, colour, tally })
        .collect();
    let mut svg = String::new();
    put(
        &mut svg,
        format_args!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" \
         font-family=\"system-ui, sans-serif\" font-size=\"13\" fill=\"#222\">\n\
         <rect width=\"{WIDTH}\" height=\"{HEIGHT}\" fill=\"#fff\"/>\n\
         <text x=\"20\" y=\"30\" font-size=\"17\">{}</text>\n",
            escaped(title),
        ),
    );
    delays(&mut svg, scenario, &curves);
    alarms(&mut svg, scenario, &curves);
    svg.push_str("</svg>\n");
    svg
}

/// Share of the runs that were rolled back by a time.
fn delays(svg: &mut String, scenario: &Scenario, curves: &[Curve<'_>]) {
    let [left, top, width, height] = DELAYS;
    let until = scenario.duration.as_secs_f64();
    let x = |seconds: f64| left + width * (seconds / until).clamp(0.0, 1.0);
    let y = |share: f64| top + height * (1.0 - share);
    frame(svg, DELAYS, "share of the runs rolled back by a time");
    for tick in 0..=4 {
        let share = f64::from(tick) / 4.0;
        let label = format!("{:.0} %", share * 100.0);
        line(svg, [left - 4.0, y(share), left + width, y(share)], "#ddd", 1.0);
        text(svg, left - 8.0, y(share) + 4.0, "end", &label);
    }
    let step = tick_step(until);
    let mut at = 0.0;
    while at <= until * 1.0001 {
        line(svg, [x(at), top + height, x(at), top + height + 4.0], "#666", 1.0);
        text(svg, x(at), top + height + 18.0, "middle", &time(at));
        at += step;
    }
    if scenario.changes() && scenario.onset() > 0.0 {
        let onset = x(scenario.onset());
        line(svg, [onset, top, onset, top + height], "#999", 1.0);
        text(svg, onset + 4.0, top + 12.0, "start", "onset");
    }
    for (place, curve) in curves.iter().enumerate() {
        let mut times = curve.tally.rollbacks.clone();
        times.sort_unstable_by(f64::total_cmp);
        let runs = curve.tally.rolled_back.runs.max(1) as f64;
        let mut path = format!("M{left:.1} {:.1}", y(0.0));
        for (count, at) in times.iter().enumerate() {
            put(&mut path, format_args!(" H{:.1} V{:.1}", x(*at), y((count + 1) as f64 / runs)));
        }
        put(&mut path, format_args!(" H{:.1}", left + width));
        put(
            svg,
            format_args!(
                "<path d=\"{path}\" fill=\"none\" stroke=\"{}\" stroke-width=\"2\"/>\n",
                curve.colour
            ),
        );
        let legend = top + height + 44.0 + 18.0 * (place / 3) as f64;
        let column = left + 160.0 * (place % 3) as f64;
        line(svg, [column, legend - 4.0, column + 22.0, legend - 4.0], curve.colour, 3.0);
        text(svg, column + 28.0, legend, "start", curve.name);
    }
}

/// Share of the runs that were rolled back before anything was wrong, with exact intervals.
fn alarms(svg: &mut String, scenario: &Scenario, curves: &[Curve<'_>]) {
    let [left, top, width, height] = ALARMS;
    let decades = -LEAST_SHARE.log10();
    let x = |share: f64| left + width * (1.0 + share.max(LEAST_SHARE).log10() / decades);
    frame(svg, ALARMS, "false alarms: share of runs, 95 %");
    for decade in 0..=(decades as i32) {
        let share = 10.0_f64.powi(-decade);
        line(svg, [x(share), top, x(share), top + height], "#ddd", 1.0);
        let label = match decade {
            0 => "1".to_owned(),
            decade => format!("1e-{decade}"),
        };
        text(svg, x(share), top + height + 18.0, "middle", &label);
    }
    let alpha = scenario.judge.false_rollback;
    line(svg, [x(alpha), top, x(alpha), top + height], "#cc0000", 1.0);
    text(svg, x(alpha) + 4.0, top + height - 6.0, "start", "alpha");
    if scenario.changes() && scenario.onset() <= 0.0 {
        text(svg, left + 8.0, top + height / 2.0, "start", "the change is there from the start");
        return;
    }
    let row = height / curves.len() as f64;
    for (place, curve) in curves.iter().enumerate() {
        let y = top + row * (place as f64 + 0.5);
        let share = false_alarms(scenario, curve.tally);
        let (low, high) = share.interval();
        line(svg, [x(low), y, x(high), y], curve.colour, 3.0);
        put(
            svg,
            format_args!(
                "<circle cx=\"{:.1}\" cy=\"{y:.1}\" r=\"5\" fill=\"{}\"/>\n",
                x(share.estimate()),
                curve.colour
            ),
        );
        text(svg, left - 8.0, y + 4.0, "end", curve.name);
    }
}

/// Rollbacks before the onset, or all of them where nothing is ever wrong.
fn false_alarms(scenario: &Scenario, tally: &Tally) -> Share {
    let until = if scenario.changes() { scenario.onset() } else { f64::INFINITY };
    let hits = tally.rollbacks.iter().filter(|at| **at < until).count() as u64;
    Share { hits, runs: tally.rolled_back.runs }
}

/// A step between ticks that makes four to ten of them, in round numbers of time.
fn tick_step(until: f64) -> f64 {
    const STEPS: [f64; 12] =
        [1.0, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1200.0, 1800.0, 3600.0, 7200.0];
    STEPS.into_iter().find(|step| until / step <= 10.0).unwrap_or(until / 8.0)
}

fn time(seconds: f64) -> String {
    if seconds < 120.0 { format!("{seconds:.0} s") } else { format!("{:.0} min", seconds / 60.0) }
}

fn frame(svg: &mut String, [left, top, width, height]: [f64; 4], title: &str) {
    text(svg, left, top - 18.0, "start", title);
    put(
        svg,
        format_args!(
            "<rect x=\"{left}\" y=\"{top}\" width=\"{width}\" height=\"{height}\" fill=\"none\" \
         stroke=\"#666\"/>\n"
        ),
    );
}

fn line(svg: &mut String, [x1, y1, x2, y2]: [f64; 4], colour: &str, width: f64) {
    put(
        svg,
        format_args!(
            "<line x1=\"{x1:.1}\" y1=\"{y1:.1}\" x2=\"{x2:.1}\" y2=\"{y2:.1}\" stroke=\"{colour}\" \
         stroke-width=\"{width}\"/>\n"
        ),
    );
}

fn text(svg: &mut String, x: f64, y: f64, anchor: &str, text: &str) {
    let text = escaped(text);
    put(
        svg,
        format_args!("<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\">{text}</text>\n"),
    );
}

fn put(text: &mut String, arguments: std::fmt::Arguments<'_>) {
    text.write_fmt(arguments).expect("a string takes whatever is written");
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lab::{record::Record, rivals::Stopped};

    #[test]
    fn the_plot_shows_every_judge_and_is_well_formed() {
        let stopped = Some(Stopped { at: 300.0, canary_requests: 1, excess_bad: 0.0 });
        let record = Record {
            rolled_back: stopped,
            rivals: vec![stopped, None, None, None, None],
            ..Record::default()
        };
        let scenario = Scenario::default();
        let summary = Summary::new(&scenario, &vec![record; 20]);
        let svg = svg("a <title> & more", &scenario, &summary);
        assert!(svg.starts_with("<svg ") && svg.ends_with("</svg>\n"));
        assert!(svg.contains("a &lt;title&gt; &amp; more"));
        for name in ["haldane", "flagger", "argo_wide", "kayenta"] {
            assert_eq!(svg.matches(&format!(">{name}<")).count(), 2, "{name}");
        }
        assert_eq!(svg.matches("<path ").count(), 6);
        assert!(!svg.contains("NaN") && !svg.contains("inf"));
    }
}
