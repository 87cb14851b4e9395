//! The plots of a report: weight, failures, slowness and evidence over the same time.

use super::{Report, series::Slice, story};
use crate::plot::{Anchor, Frame, Svg, time, time_step};

const WIDTH: f64 = 960.0;
const LEFT: f64 = 64.0;
const PANEL: f64 = 790.0;

/// Where the first panel begins, how high each is, and what lies between two.
const TOP: f64 = 52.0;
const HEIGHT: f64 = 112.0;
const GAP: f64 = 44.0;

const BASELINE: &str = "#5c6773";
const CANARY: &str = "#c2410c";
const PROOF: &str = "#1c6b2a";
const GRID: &str = "#e3e3e6";
const DECISION: &str = "#9aa0a8";

/// Odds are shown from 1/10 to 10^6, as decimal logarithms.
const ODDS: [f64; 2] = [-1.0, 6.0];

/// Numbers of decisions that stand closer than this are left out.
const LABEL: f64 = 16.0;

/// A point of a line of shares stands for as many requests of the arm at least: of fewer one bad
/// request would be a spike.
const POINT: u64 = 50;

pub(super) fn svg(report: &Report) -> String {
    let panels = [0, 1, 2, 3].map(|place| Frame {
        left: LEFT,
        top: TOP + f64::from(place) * (HEIGHT + GAP),
        width: PANEL,
        height: HEIGHT,
    });
    let seconds = report.lasted.as_secs_f64().max(report.series.end()).max(1.0);
    let mut chart = Chart { svg: Svg::new(WIDTH, panels[3].bottom() + 44.0), seconds, report };
    for panel in panels {
        chart.times(panel, panel == panels[3]);
    }
    chart.decisions(&panels);
    chart.weight(panels[0]);
    chart.shares(panels[1], "failed, share of requests", |slice, arm| slice.failed_share(arm));
    let slow = "slower than the baseline's p99, share of requests";
    chart.shares(panels[2], slow, |slice, arm| slice.slow_shares(arm)[1]);
    chart.evidence(panels[3]);
    chart.svg.finish()
}

struct Chart<'a> {
    svg: Svg,
    seconds: f64,
    report: &'a Report,
}

impl Chart<'_> {
    fn times(&mut self, panel: Frame, labelled: bool) {
        let step = time_step(self.seconds);
        let mut at = 0.0;
        while at <= self.seconds {
            let x = panel.x(at / self.seconds);
            self.svg.line([x, panel.top, x, panel.bottom()], GRID, 1.0);
            if labelled {
                self.svg.label([x, panel.bottom() + 18.0], Anchor::Middle, &time(at));
            }
            at += step;
        }
        if labelled {
            let place = [panel.right(), panel.bottom() + 36.0];
            self.svg.label(place, Anchor::End, "time since the rollout began");
        }
    }

    /// Decisions as lines through all panels; a number where there is room for one.
    fn decisions(&mut self, panels: &[Frame; 4]) {
        let mut free = f64::MIN;
        for (place, (at, _)) in self.report.weights().into_iter().enumerate() {
            let x = panels[0].x(at / self.seconds);
            for panel in panels {
                self.svg.dashes([x, panel.top, x, panel.bottom()], DECISION);
            }
            if x >= free {
                let label = (place + 1).to_string();
                self.svg.label([x, panels[0].top - 6.0], Anchor::Middle, &label);
                free = x + LABEL;
            }
        }
    }

    fn weight(&mut self, panel: Frame) {
        self.titled(panel, "weight");
        for share in [0.0, 0.25, 0.5, 0.75, 1.0] {
            let y = panel.y(share);
            self.svg.line([panel.left, y, panel.right(), y], GRID, 1.0);
            self.svg.label([panel.left - 8.0, y + 4.0], Anchor::End, &percent(share));
        }
        let mut path = String::new();
        for (at, weight_bp) in self.report.weights() {
            let (x, y) = (panel.x(at / self.seconds), panel.y(f64::from(weight_bp) / 10_000.0));
            if path.is_empty() {
                path += &format!("M{x:.1} {:.1}", panel.bottom());
            }
            path += &format!(" H{x:.1} V{y:.1}");
        }
        path += &format!(" H{:.1}", panel.x(self.report.lasted.as_secs_f64() / self.seconds));
        self.svg.area(&format!("{path} V{:.1} Z", panel.bottom()), "#c2410c22");
        self.svg.path(&path, CANARY, 2.0);
    }

    /// A share of both arms over time.
    fn shares(&mut self, panel: Frame, title: &str, share: impl Fn(&Slice, usize) -> Option<f64>) {
        self.titled(panel, title);
        let lines = [0, 1].map(|arm| {
            let points = self.report.series.points(arm, POINT);
            let shown = |(at, slice): &(f64, Slice)| Some((*at, share(slice, arm)?));
            points.iter().filter_map(shown).collect::<Vec<_>>()
        });
        let top = lines.iter().flatten().map(|(_, share)| *share).fold(0.001, f64::max);
        let top = nice(top);
        for part in [0.0, 0.5, 1.0] {
            let y = panel.y(part);
            self.svg.line([panel.left, y, panel.right(), y], GRID, 1.0);
            self.svg.label([panel.left - 8.0, y + 4.0], Anchor::End, &percent(part * top));
        }
        for (points, colour) in lines.iter().zip([BASELINE, CANARY]) {
            let mut path = String::new();
            for (at, share) in points {
                let pen = if path.is_empty() { 'M' } else { 'L' };
                let (x, y) = (panel.x(at / self.seconds), panel.y(share / top));
                path += &format!("{pen}{x:.1} {y:.1} ");
            }
            self.svg.path(&path, colour, 1.6);
        }
        self.legend(panel, &[("baseline", BASELINE), ("canary", CANARY)]);
    }

    fn evidence(&mut self, panel: Frame) {
        self.titled(panel, "evidence, as odds");
        let share = |ln: f64| (ln / std::f64::consts::LN_10 - ODDS[0]) / (ODDS[1] - ODDS[0]);
        for (label, odds) in [("1 : 1", 1.0_f64), ("1e3 : 1", 1e3), ("1e6 : 1", 1e6)] {
            let y = panel.y(share(odds.ln()));
            self.svg.line([panel.left, y, panel.right(), y], GRID, 1.0);
            self.svg.label([panel.left - 8.0, y + 4.0], Anchor::End, label);
        }
        let plan = self.report.plan.as_ref().map(|plan| &plan.judge);
        let needs = self.report.judged.as_ref().map(|judged| ("rollback", judged.odds[1], CANARY));
        let caution = Some(("caution", 20.0, CANARY));
        let proof = plan.map(|judge| ("proof", 1.0 / judge.false_promotion, PROOF));
        // Caution and the usual proof need the same odds: the label names both.
        let same = proof.is_some_and(|(_, odds, _)| (odds - 20.0).abs() < 0.5);
        let both = Some(("caution, proof", 20.0, CANARY));
        let marks = if same { [needs, both, None] } else { [needs, caution, proof] };
        for (name, odds, colour) in marks.into_iter().flatten() {
            let y = panel.y(share(odds.ln()));
            self.svg.dashes([panel.left, y, panel.right(), y], colour);
            self.svg.label([panel.right() + 4.0, y + 4.0], Anchor::Start, name);
        }
        let proved = self.path(panel, |slice| slice.proof_ln.map(share));
        self.svg.path(&proved, PROOF, 1.6);
        let against = self.path(panel, |slice| slice.odds_ln.map(share));
        self.svg.path(&against, CANARY, 1.6);
        self.legend(panel, &[("against the canary", CANARY), ("weakest proof for it", PROOF)]);
    }

    /// A line through the slices that have a value; where one has none the line is interrupted.
    fn path(&self, panel: Frame, share: impl Fn(&Slice) -> Option<f64>) -> String {
        let series = &self.report.series;
        let width = series.width_ms as f64 / 1000.0;
        let mut path = String::new();
        let mut pen = 'M';
        for (place, slice) in series.slices.iter().enumerate() {
            let Some(share) = share(slice) else {
                pen = 'M';
                continue;
            };
            let x = panel.x((place as f64 + 0.5) * width / self.seconds);
            path += &format!("{pen}{x:.1} {:.1} ", panel.y(share));
            pen = 'L';
        }
        path
    }

    fn titled(&mut self, panel: Frame, title: &str) {
        let above = if panel.top > TOP { 14.0 } else { 26.0 };
        self.svg.label([panel.left, panel.top - above], Anchor::Start, title);
        self.svg.line([panel.left, panel.bottom(), panel.right(), panel.bottom()], "#666", 1.0);
    }

    fn legend(&mut self, panel: Frame, entries: &[(&str, &str)]) {
        let mut right = panel.right();
        for (name, colour) in entries.iter().rev() {
            let y = panel.top - 14.0;
            self.svg.label([right, y], Anchor::End, name);
            let left = right - 7.0 * name.len() as f64 - 8.0;
            self.svg.line([left - 18.0, y - 4.0, left, y - 4.0], colour, 3.0);
            right = left - 34.0;
        }
    }
}

/// The next round number.
fn nice(number: f64) -> f64 {
    let decade = 10.0_f64.powf(number.log10().floor());
    let steps = [1.0, 2.0, 5.0, 10.0];
    steps.into_iter().map(|step| step * decade).find(|top| *top >= number * 0.999).unwrap_or(number)
}

fn percent(share: f64) -> String {
    let bp = share * 10_000.0;
    if bp > 0.0 && bp < 9.5 {
        format!("{:.3} %", share * 100.0)
    } else {
        story::percent(bp.round() as u16)
    }
}
