//! What a simulation came to, for people.

use std::fmt::Write;

use super::{Played, unmet};
use crate::lab::{
    Weighting,
    rivals::RIVALS,
    summary::{Share, Spread, Tally},
};

/// One scenario in full.
pub(super) fn one(played: &Played) -> String {
    let (scenario, summary) = (&played.cell.scenario, &played.summary);
    let haldane = &summary.haldane;
    let mut text = format!(
        "{}: {} runs of {}, {}, seed {}, {}\n\n",
        played.title,
        scenario.runs,
        humantime::format_duration(scenario.duration),
        weighting(&scenario.weighting),
        scenario.seed,
        played.engine.phrase(),
    );
    let mut line = |name: &str, value: &str| put(&mut text, &format!("{name:<24}{value}\n"));
    line("rolled back", &share(haldane.rolled_back));
    if let Some(cautioned) = haldane.cautioned {
        line("cautioned", &share(cautioned));
    }
    line("promoted", &share(haldane.promoted));
    line("neither", &haldane.inconclusive().to_string());
    put(&mut text, &format!("\n{:<24}{:>12}{:>12}{:>12}\n", "", "mean", "p50", "p90"));
    let mut spread_line = |name: &str, spread: Option<Spread>| {
        let [mean, p50, p90] = spread.map_or(["-", "-", "-"].map(str::to_owned), |spread| {
            [spread.mean, spread.p50, spread.p90].map(number)
        });
        put(&mut text, &format!("{name:<24}{mean:>12}{p50:>12}{p90:>12}\n"));
    };
    spread_line("seconds to rollback", haldane.seconds_to_rollback);
    spread_line("seconds from the onset", haldane.seconds_from_onset);
    spread_line("  to caution", summary.caution_from_onset);
    spread_line("  to the breaker", summary.opened_from_onset);
    spread_line("canary requests", haldane.canary_requests);
    spread_line("excess bad requests", haldane.excess_bad_requests);
    if let Some(bound) = summary.wald_canary_requests {
        let bound = number(bound);
        put(&mut text, &format!("\ninformation bound (Wald): {bound} canary requests\n"));
    }
    if !summary.rivals.is_empty() {
        put(&mut text, &rivals(&summary.rivals));
    }
    put(&mut text, &expectations(played));
    text
}

/// Many scenarios, a row each.
pub(super) fn table(all: &[Played]) -> String {
    let width = all.iter().map(|played| played.title.chars().count()).max().unwrap_or(0).max(8);
    let mut text = format!(
        "{:<width$} {:>8} {:>9} {:>9} {:>9} {:>9} {:>9} {:>10} {:>10} {:>8}  expected\n",
        "scenario",
        "runs",
        "rollback",
        "low 97.5",
        "caution",
        "low 97.5",
        "promoted",
        "s to roll",
        "canary req",
        "floor",
    );
    for played in all {
        let summary = &played.summary;
        let haldane = &summary.haldane;
        let cautioned = haldane.cautioned.unwrap_or(Share { hits: 0, runs: 0 });
        let mean = |spread: Option<Spread>| spread.map_or("-".to_owned(), |s| number(s.mean));
        let unmet = unmet(played);
        let verdict = if unmet.is_empty() { "yes".to_owned() } else { unmet.join("; ") };
        put(
            &mut text,
            &format!(
                "{:<width$} {:>8} {:>9.5} {:>9.5} {:>9.4} {:>9.4} {:>9.4} {:>10} {:>10} {:>8}  {}\n",
                played.title,
                haldane.rolled_back.runs,
                haldane.rolled_back.estimate(),
                haldane.rolled_back.interval().0,
                cautioned.estimate(),
                cautioned.interval().0,
                haldane.promoted.estimate(),
                mean(haldane.seconds_from_onset),
                mean(haldane.canary_requests),
                summary.floor_canary_requests.map_or("-".to_owned(), number),
                verdict,
            ),
        );
    }
    put(&mut text, &pooled(all));
    text
}

/// All rows together that are held to a false rollback: no single one has the runs to show it.
fn pooled(all: &[Played]) -> String {
    let held = |played: &&Played| {
        let expect = &played.cell.scenario.expect;
        expect.rollbacks_at_most.is_some() && !expect.must_fail
    };
    let (mut hits, mut runs) = (0, 0);
    for played in all.iter().filter(held) {
        hits += played.summary.haldane.rolled_back.hits;
        runs += played.summary.haldane.rolled_back.runs;
    }
    if runs == 0 {
        return String::new();
    }
    format!(
        "\nall rows of healthy canaries together: rolled back {}\n",
        share(Share { hits, runs })
    )
}

fn rivals(tallies: &[Tally]) -> String {
    let mut text = format!(
        "\n{:<16}{:>12}{:>14}{:>14}{:>14}{:>14}\n",
        "on the same requests",
        "rolled back",
        "mean seconds",
        "p90 seconds",
        "canary req",
        "excess bad"
    );
    for (rival, tally) in RIVALS.iter().zip(tallies) {
        let cell = |spread: Option<Spread>, pick: fn(Spread) -> f64| {
            spread.map_or("-".to_owned(), |spread| number(pick(spread)))
        };
        put(
            &mut text,
            &format!(
                "{:<20}{:>12}{:>14}{:>14}{:>14}{:>14}\n",
                rival.name,
                format!("{:.1} %", tally.rolled_back.estimate() * 100.0),
                cell(tally.seconds_from_onset, |s| s.mean),
                cell(tally.seconds_from_onset, |s| s.p90),
                cell(tally.canary_requests, |s| s.mean),
                cell(tally.excess_bad_requests, |s| s.mean),
            ),
        );
    }
    for rival in &RIVALS {
        put(&mut text, &format!("  {}: {}\n", rival.name, rival.about));
    }
    text
}

fn expectations(played: &Played) -> String {
    if played.cell.scenario.expect == crate::lab::Expect::default() {
        return String::new();
    }
    let unmet = unmet(played);
    if unmet.is_empty() {
        return "\nas expected\n".to_owned();
    }
    unmet.iter().fold("\nnot as expected:\n".to_owned(), |text, line| format!("{text}  {line}\n"))
}

fn weighting(weighting: &Weighting) -> String {
    let percent = |bp: &u16| format!("{} %", f64::from(*bp) / 100.0);
    match weighting {
        Weighting::Fixed(weight) => format!("weight {}", percent(weight)),
        Weighting::Steps(steps) => format!("{} weights", steps.len()),
        Weighting::Flap { between: [one, other], .. } => {
            format!("weight flapping between {} and {}", percent(one), percent(other))
        }
        Weighting::React { between: [one, other] } => {
            format!("weight reacting between {} and {}", percent(one), percent(other))
        }
        Weighting::Plan(plan) => format!("plan of {} stages", plan.stages.len()),
    }
}

/// "3 of 200 (1.5 %, 95 % interval 0.3 % to 4.3 %)".
fn share(share: Share) -> String {
    let (low, high) = share.interval();
    let percent = |share: f64| format!("{} %", number(share * 100.0));
    format!(
        "{} of {} ({}, 95 % interval {} to {})",
        share.hits,
        share.runs,
        percent(share.estimate()),
        percent(low),
        percent(high),
    )
}

/// A number to about three digits.
fn number(number: f64) -> String {
    match number.abs() {
        size if size >= 100.0 => format!("{number:.0}"),
        size if size >= 10.0 => format!("{number:.1}"),
        size if size >= 1.0 || size == 0.0 => format!("{number:.2}"),
        _ => format!("{number:.4}"),
    }
}

fn put(text: &mut String, more: &str) {
    text.write_str(more).expect("a string takes whatever is written");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_keep_what_matters() {
        let shown: Vec<_> = [0.0, 0.012_34, 1.234, 12.34, 1234.5].map(number).to_vec();
        assert_eq!(shown, ["0.00", "0.0123", "1.23", "12.3", "1234"]);
    }

    #[test]
    fn shares_come_with_their_interval() {
        let text = share(Share { hits: 3, runs: 200 });
        assert_eq!(text, "3 of 200 (1.50 %, 95 % interval 0.3104 % to 4.32 %)");
    }
}
