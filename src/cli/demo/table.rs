//! The demo's text: one line per second, and the summary at the end.

use super::tally::{ArmTally, Run, Tally, WINDOW_SECONDS};
use crate::rollout::Decision;

/// The head of the table.
pub(super) fn head() -> String {
    format!(
        "Split and requests per second of the last second; latency in ms and failures of the last \
         {WINDOW_SECONDS} s,\nas the clients saw them, from the moment at which a request was \
         due.\n\n\
         {:>6} {:>8} {:>8} {:>6} | {:^29} | {:^29}\n\
         {:>6} {:>8} {:>8} {:>6} | {:>6} {:>6} {:>7} {:>7} | {:>6} {:>6} {:>7} {:>7}",
        "",
        "",
        "canary",
        "",
        "baseline",
        "canary",
        "time",
        "weight",
        "share",
        "req/s",
        "p50",
        "p95",
        "p99",
        "failed",
        "p50",
        "p95",
        "p99",
        "failed",
    )
}

/// One line: the second that ended at `seconds`, and the window up to it.
pub(super) fn line(seconds: u64, weight: Option<f64>, second: &Tally, window: &Tally) -> String {
    format!(
        "{:>4} s {:>8} {:>8} {:>6} | {} | {}",
        seconds,
        percent(weight),
        percent(second.share()),
        second.served() + second.unserved,
        arm(&window.baseline),
        arm(&window.canary),
    )
}

/// A decision, on a line of its own.
pub(super) fn decision(decision: &Decision) -> String {
    let weight = |bp: u16| percent(Some(f64::from(bp) / 1e4));
    format!(
        "------ {}, {} -> {}: {}",
        decision.action.label(),
        weight(decision.from_bp),
        weight(decision.weight_bp),
        decision.reason,
    )
}

/// The numbers of the whole run.
pub(super) fn summary(run: &Run) -> String {
    let mut text = format!(
        "{:<28} {:>9} {:>8} {:>8} {:>8} {:>8}\n",
        "", "requests", "failed", "p50 ms", "p95 ms", "p99 ms"
    );
    let rows = [
        ("before, baseline", &run.before.baseline),
        ("before, canary", &run.before.canary),
        ("after, baseline", &run.after.baseline),
        ("after, canary", &run.after.canary),
    ];
    for (name, arm) in rows {
        if arm.requests == 0 {
            continue;
        }
        text.push_str(&format!(
            "{name:<28} {:>9} {:>8} {:>8} {:>8} {:>8}\n",
            arm.requests,
            arm.failed,
            millis(arm.quantile_ms(0.5)),
            millis(arm.quantile_ms(0.95)),
            millis(arm.quantile_ms(0.99)),
        ));
    }
    text
}

fn arm(arm: &ArmTally) -> String {
    format!(
        "{:>6} {:>6} {:>7} {:>7}",
        millis(arm.quantile_ms(0.5)),
        millis(arm.quantile_ms(0.95)),
        millis(arm.quantile_ms(0.99)),
        percent(arm.failed_share()),
    )
}

/// A share as a percentage.
pub(super) fn percent(share: Option<f64>) -> String {
    share.map_or_else(|| "-".to_owned(), |share| format!("{:.2}%", share * 100.0))
}

fn millis(ms: Option<f64>) -> String {
    ms.map_or_else(|| "-".to_owned(), |ms| format!("{ms:.1}"))
}
