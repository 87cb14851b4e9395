//! The plot of a simulation, written by hand as SVG: how soon each judge rolled back, and how
//! often it did so without a reason.

use super::{
    rivals::RIVALS,
    scenario::Scenario,
    summary::{Share, Summary, Tally},
};
use crate::plot::{Anchor, Frame, Svg, time, time_step};

/// Size of the whole, and its two panels.
const WIDTH: f64 = 960.0;
const HEIGHT: f64 = 460.0;
const DELAYS: Frame = Frame { left: 70.0, top: 80.0, width: 480.0, height: 300.0 };
const ALARMS: Frame = Frame { left: 700.0, top: 80.0, width: 220.0, height: 300.0 };

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
    let mut svg = Svg::new(WIDTH, HEIGHT);
    svg.heading(title);
    delays(&mut svg, scenario, &curves);
    alarms(&mut svg, scenario, &curves);
    svg.finish()
}

/// Share of the runs that were rolled back by a time.
fn delays(svg: &mut Svg, scenario: &Scenario, curves: &[Curve<'_>]) {
    let Frame { left, top, width, height } = DELAYS;
    let until = scenario.duration.as_secs_f64();
    let x = |seconds: f64| left + width * (seconds / until).clamp(0.0, 1.0);
    let y = |share: f64| top + height * (1.0 - share);
    svg.frame(DELAYS, "share of the runs rolled back by a time");
    for tick in 0..=4 {
        let share = f64::from(tick) / 4.0;
        let label = format!("{:.0} %", share * 100.0);
        svg.line([left - 4.0, y(share), left + width, y(share)], "#ddd", 1.0);
        svg.label([left - 8.0, y(share) + 4.0], Anchor::End, &label);
    }
    let step = time_step(until);
    let mut at = 0.0;
    while at <= until * 1.0001 {
        svg.line([x(at), top + height, x(at), top + height + 4.0], "#666", 1.0);
        svg.label([x(at), top + height + 18.0], Anchor::Middle, &time(at));
        at += step;
    }
    if scenario.changes() && scenario.onset() > 0.0 {
        let onset = x(scenario.onset());
        svg.line([onset, top, onset, top + height], "#999", 1.0);
        svg.label([onset + 4.0, top + 12.0], Anchor::Start, "onset");
    }
    for (place, curve) in curves.iter().enumerate() {
        let mut times = curve.tally.rollbacks.clone();
        times.sort_unstable_by(f64::total_cmp);
        let runs = curve.tally.rolled_back.runs.max(1) as f64;
        let mut path = format!("M{left:.1} {:.1}", y(0.0));
        for (count, at) in times.iter().enumerate() {
            path += &format!(" H{:.1} V{:.1}", x(*at), y((count + 1) as f64 / runs));
        }
        path += &format!(" H{:.1}", left + width);
        svg.path(&path, curve.colour, 2.0);
        let legend = top + height + 44.0 + 18.0 * (place / 3) as f64;
        let column = left + 160.0 * (place % 3) as f64;
        svg.line([column, legend - 4.0, column + 22.0, legend - 4.0], curve.colour, 3.0);
        svg.label([column + 28.0, legend], Anchor::Start, curve.name);
    }
}

/// Share of the runs that were rolled back before anything was wrong, with exact intervals.
fn alarms(svg: &mut Svg, scenario: &Scenario, curves: &[Curve<'_>]) {
    let Frame { left, top, width, height } = ALARMS;
    let decades = -LEAST_SHARE.log10();
    let x = |share: f64| left + width * (1.0 + share.max(LEAST_SHARE).log10() / decades);
    svg.frame(ALARMS, "false alarms: share of runs, 95 %");
    for decade in 0..=(decades as i32) {
        let share = 10.0_f64.powi(-decade);
        svg.line([x(share), top, x(share), top + height], "#ddd", 1.0);
        let label = match decade {
            0 => "1".to_owned(),
            decade => format!("1e-{decade}"),
        };
        svg.label([x(share), top + height + 18.0], Anchor::Middle, &label);
    }
    let alpha = scenario.judge.false_rollback;
    svg.line([x(alpha), top, x(alpha), top + height], "#cc0000", 1.0);
    svg.label([x(alpha) + 4.0, top + height - 6.0], Anchor::Start, "alpha");
    if scenario.changes() && scenario.onset() <= 0.0 {
        svg.label(
            [left + 8.0, top + height / 2.0],
            Anchor::Start,
            "the change is there from the start",
        );
        return;
    }
    let row = height / curves.len() as f64;
    for (place, curve) in curves.iter().enumerate() {
        let y = top + row * (place as f64 + 0.5);
        let share = false_alarms(scenario, curve.tally);
        let (low, high) = share.interval();
        svg.line([x(low), y, x(high), y], curve.colour, 3.0);
        svg.dot([x(share.estimate()), y], 5.0, curve.colour);
        svg.label([left - 8.0, y + 4.0], Anchor::End, curve.name);
    }
}

/// Rollbacks before the onset, or all of them where nothing is ever wrong.
fn false_alarms(scenario: &Scenario, tally: &Tally) -> Share {
    let until = if scenario.changes() { scenario.onset() } else { f64::INFINITY };
    let hits = tally.rollbacks.iter().filter(|at| **at < until).count() as u64;
    Share { hits, runs: tally.rolled_back.runs }
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
