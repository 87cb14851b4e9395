//! The words of a report, the same in every form of it.

use super::{
    super::{Decision, Phase},
    Report,
    series::Slice,
};

/// What happened, in one paragraph.
pub(super) fn summary(report: &Report) -> String {
    let (first, last) = ends(report);
    let mut text = format!(
        "Version {} of canary {} of service {} began at {}. ",
        report.version,
        report.canary,
        report.service,
        clock(&first.time)
    );
    let after = duration(last.at_ms as f64 / 1000.0);
    let weight = percent(last.weight_bp);
    text += &match report.phase {
        Phase::RolledBack => format!(
            "It was rolled back after {after}, from {} of the traffic: {}. ",
            percent(last.from_bp),
            last.reason
        ),
        Phase::Promoted => format!("It was promoted to {weight} of the traffic after {after}. "),
        Phase::Paused => format!("{} paused it after {after} at {weight}. ", last.actor),
        Phase::Caution => format!(
            "It is in caution at {weight} since {after} after its beginning: {}. ",
            last.reason
        ),
        Phase::Gated | Phase::Holding | Phase::Progressing | Phase::Idle => {
            format!("It is going on: {weight} of the traffic since {after} after its beginning. ")
        }
    };
    let requests = report.series.sum.requests[1];
    text += &format!(
        "The canary had traffic for {} and answered {} requests that were judged",
        duration(report.exposed_seconds()),
        thousands(requests)
    );
    let excess: f64 = report.series.sum.excess().iter().sum();
    text += &match excess.round() {
        bad if bad >= 1.0 => format!(
            ", of which about {} were bad beyond the baseline's share.",
            thousands(bad as u64)
        ),
        _ => "; it gave no more bad answers than the baseline's share.".to_owned(),
    };
    if report.is_torn {
        text += " Parts of the journal are missing, so counts are too low.";
    }
    text
}

/// Numbers with their names.
pub(super) fn facts(report: &Report) -> Vec<(&'static str, String)> {
    let (first, last) = ends(report);
    let sum = &report.series.sum;
    let [failed, slow] = sum.excess();
    let mut facts = vec![
        ("service", report.service.to_string()),
        ("canary", report.canary.to_string()),
        ("version", report.version.to_string()),
        ("phase", report.phase.label().replace('_', " ")),
        ("began", clock(&first.time)),
        ("last decision", clock(&last.time)),
        (
            "exposure",
            format!(
                "{} requests, {}",
                thousands(sum.requests[1]),
                duration(report.exposed_seconds())
            ),
        ),
        (
            "failed",
            format!(
                "{} of the canary's, {} of the baseline's",
                share(sum.failed_share(1)),
                share(sum.failed_share(0))
            ),
        ),
        (
            "excess bad requests",
            format!(
                "{} failed, {} slower than the baseline's p99{}",
                signed(failed),
                signed(slow),
                match report.judged.as_ref().map(|judged| judged.excess_bad.floor()) {
                    Some(least) if least >= 1.0 =>
                        format!("; beyond doubt {}", thousands(least as u64)),
                    Some(_) | None => String::new(),
                }
            ),
        ),
    ];
    if let Some(plan) = &report.plan {
        let stages: Vec<_> = plan.stages.iter().map(|stage| percent(stage.weight_bp)).collect();
        facts.push(("plan", format!("{} ({})", plan.name, stages.join(", "))));
    }
    if report.earlier > 0 {
        facts.push(("rollouts before", report.earlier.to_string()));
    }
    facts
}

/// What the judge found: names and sentences.
pub(super) fn cause(report: &Report) -> Vec<(&'static str, String)> {
    let Some(judged) = &report.judged else {
        return vec![("evidence", "nothing was judged, or the journal does not tell".into())];
    };
    let [odds, needs] = judged.odds.map(odds);
    let mut rows = vec![
        ("evidence against it", format!("{odds} : 1 (rolled back at {needs} : 1)")),
        ("the judge says", judged.sentence.clone()),
    ];
    if let Some(lead) = &judged.lead {
        rows.push(("leading sign", lead.clone()));
    }
    for (name, size) in ["latency at p90", "latency at p99"].into_iter().zip(judged.effect.latency)
    {
        let change = |factor: f64| signed_percent((factor - 1.0) * 100.0, 0);
        rows.push((name, bounded([size.estimate, size.at_least, size.at_most], change)));
    }
    let errors = judged.effect.errors;
    let change = |more: f64| format!("{} of requests", signed_percent(more * 100.0, 2));
    rows.push(("failures", bounded([errors.estimate, errors.at_least, errors.at_most], change)));
    for (route, deadlines) in judged.deadlines_us.iter().enumerate() {
        if let (Some(p90), Some(p99)) = (deadlines.get(1), deadlines.get(3)) {
            let name = "the baseline's p90 and p99";
            let which = if judged.deadlines_us.len() > 1 {
                format!("route {}: ", route + 1)
            } else {
                String::new()
            };
            rows.push((name, format!("{which}{}, {}", millis(*p90), millis(*p99))));
        }
    }
    rows
}

/// The edit of the configuration that makes the canary the baseline, where it has everything.
pub(super) fn edit(report: &Report) -> Option<String> {
    let (_, last) = ends(report);
    if report.phase != Phase::Promoted || last.weight_bp != 10_000 {
        return None;
    }
    let Report { service, canary, version, .. } = report;
    let (now, before) = match &report.upstreams {
        Some([before, now]) => (now.clone(), format!("before: {before}")),
        None => ("...".to_owned(), format!("what canaries.{canary}.upstream says")),
    };
    Some(format!(
        "services:\n  {service}:\n    baseline: {now}    # {before}\n    canaries: {{}}    \
         # {canary} {version} is the baseline now\n"
    ))
}

/// A decision in the words of the table: time, after, what, weight, phase, evidence, actor,
/// reason.
pub(super) fn decision(decision: &Decision) -> [String; 8] {
    let weight = if decision.from_bp == decision.weight_bp {
        percent(decision.weight_bp)
    } else {
        format!("{} → {}", percent(decision.from_bp), percent(decision.weight_bp))
    };
    let evidence = decision.evidence.as_ref();
    [
        clock(&decision.time),
        duration(decision.at_ms as f64 / 1000.0),
        decision.action.label().replace('_', " "),
        weight,
        decision.phase.label().replace('_', " "),
        evidence.map_or_else(String::new, |told| format!("{} : 1", odds(told.odds))),
        decision.actor.clone(),
        decision.reason.clone(),
    ]
}

/// The names of what [`decision`] gives.
pub(super) const DECISION: [&str; 8] =
    ["time", "after", "decision", "weight", "phase", "evidence", "by", "reason"];

/// A slice in the words of the table: its beginning, then by arm, then the evidence.
pub(super) fn slice(at: f64, slice: &Slice) -> [String; 9] {
    let slow = [0, 1].map(|arm| slice.slow_shares(arm));
    [
        duration(at),
        thousands(slice.requests[0]),
        thousands(slice.requests[1]),
        share(slice.failed_share(0)),
        share(slice.failed_share(1)),
        share(slow[0][1]),
        share(slow[1][1]),
        slice.odds_ln.map_or_else(dash, |ln| format!("{} : 1", odds(ln.min(27.63).exp()))),
        slice.proof_ln.map_or_else(dash, |ln| format!("{} : 1", odds(ln.min(27.63).exp()))),
    ]
}

/// The names of what [`slice()`] gives.
pub(super) const SLICE: [&str; 9] = [
    "from",
    "baseline requests",
    "canary requests",
    "baseline failed",
    "canary failed",
    "baseline beyond p99",
    "canary beyond p99",
    "evidence against it",
    "weakest proof for it",
];

fn ends(report: &Report) -> (&Decision, &Decision) {
    let first = report.decisions.first().expect("a report has a decision");
    (first, report.decisions.last().unwrap_or(first))
}

fn bounded(size: [Option<f64>; 3], write: impl Fn(f64) -> String) -> String {
    let [estimate, at_least, at_most] = size;
    // A bound that the estimate is beyond is of a time before the effect changed.
    let at_most = at_most.filter(|most| estimate.is_none_or(|estimate| estimate <= *most));
    let at_least = at_least.filter(|least| estimate.is_none_or(|estimate| estimate >= *least));
    let [estimate, at_least, at_most] = [estimate, at_least, at_most].map(|it| it.map(&write));
    let bounds = match (at_least, at_most) {
        (Some(least), Some(most)) => format!(", proved between {least} and {most}"),
        (Some(least), None) => format!(", proved at least {least}"),
        (None, Some(most)) => format!(", proved at most {most}"),
        (None, None) => String::new(),
    };
    format!("{}{bounds}", estimate.unwrap_or_else(|| "not enough requests".into()))
}

fn dash() -> String {
    "–".to_owned()
}

/// A weight: `5 %`.
pub(super) fn percent(weight_bp: u16) -> String {
    format!("{} %", f64::from(weight_bp) / 100.0)
}

fn share(share: Option<f64>) -> String {
    share.map_or_else(dash, |share| format!("{:.2} %", share * 100.0))
}

fn signed(number: f64) -> String {
    let number = number.round();
    match number {
        0.0 => "0".to_owned(),
        ..0.0 => format!("−{}", thousands(-number as u64)),
        _ => format!("+{}", thousands(number as u64)),
    }
}

fn signed_percent(percent: f64, digits: usize) -> String {
    let scale = 10.0_f64.powi(digits as i32);
    // Adding zero takes the sign off a zero.
    let rounded = (percent * scale).round() / scale + 0.0;
    if rounded == 0.0 { "0 %".to_owned() } else { format!("{rounded:+.digits$} %") }
}

fn millis(us: u32) -> String {
    format!("{:.1} ms", f64::from(us) / 1000.0)
}

/// Odds to two digits.
fn odds(odds: f64) -> String {
    match odds {
        ..10.0 => format!("{odds:.1}"),
        ..1e9 => thousands(odds.round() as u64),
        _ => format!("{odds:.0e}"),
    }
}

/// `1,234,567`.
pub(super) fn thousands(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// `2026-05-28 20:26:40 UTC`, of a time as decisions have it.
fn clock(time: &str) -> String {
    match time.split_once('.').and_then(|(whole, _)| whole.split_once('T')) {
        Some((day, time)) => format!("{day} {time} UTC"),
        None => time.to_owned(),
    }
}

/// A time in two units: `3 min 20 s`.
pub(super) fn duration(seconds: f64) -> String {
    let whole = seconds.round().max(0.0) as u64;
    let two = |big: u64, unit: &str, small: u64, smaller: &str| match small {
        0 => format!("{big} {unit}"),
        small => format!("{big} {unit} {small} {smaller}"),
    };
    match whole {
        0 if seconds > 0.0 => format!("{:.1} s", seconds),
        0..60 => format!("{whole} s"),
        60..7200 => two(whole / 60, "min", whole % 60, "s"),
        7200..172_800 => two(whole / 3600, "h", whole % 3600 / 60, "min"),
        _ => two(whole / 86_400, "d", whole % 86_400 / 3600, "h"),
    }
}
