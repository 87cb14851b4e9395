//! Sentences for people. Never "p", always odds.

use super::{Judge, Level, Missing, Scope};

/// Why the verdict is what it is, in one sentence.
pub(super) fn reason(judge: &Judge) -> String {
    let verdict = judge.verdict();
    let threshold = odds(verdict.threshold_ln);
    let against = || match verdict.lead {
        Some(lead) => {
            format!("{} {}", names(judge, lead.component), lead.definition.phrase())
        }
        None => "no bet leads".to_owned(),
    };
    match verdict.level {
        Level::Rollback => format!(
            "{}: evidence {} : 1, which is beyond {threshold} : 1{}",
            against(),
            odds(verdict.rollback_peak_ln),
            size(judge),
        ),
        Level::Caution => format!(
            "{}: evidence {} : 1, needs {threshold} : 1 for a rollback{}",
            against(),
            odds(verdict.rollback_ln.max(verdict.caution_ln)),
            size(judge),
        ),
        Level::Healthy => format!(
            "no worse than the baseline: evidence {} : 1 against the canary",
            odds(verdict.rollback_ln.max(verdict.caution_ln)),
        ),
        Level::Holding => match judge.missing() {
            Some(missing) => waiting(&missing),
            None => "not enough requests yet to tell a bad canary from a good one".to_owned(),
        },
    }
}

/// "waiting for 1,200 canary requests (p99), about 4 min at today's rate".
pub(super) fn waiting(missing: &Missing) -> String {
    let what = format!(
        "waiting for {} canary requests ({})",
        thousands(missing.canary_requests),
        missing.proof.phrase()
    );
    match missing.seconds {
        Some(seconds) => format!("{what}, {} at today's rate", about(seconds)),
        None => format!("{what}; no canary traffic"),
    }
}

/// "checkout, route cart, cohort ios-eu": the service or the part that leads, and the parts of
/// the other kinds that stand out.
fn names(judge: &Judge, lead: usize) -> String {
    let mut names = vec![name_of(judge, lead)];
    let of = judge.components().get(lead).map(|component| component.scope);
    for scope in [Scope::Route, Scope::Cohort].into_iter().filter(|scope| Some(*scope) != of) {
        let part = judge.stands_out(scope);
        let place = part.and_then(|part| judge.components().iter().position(|c| c == part));
        names.extend(place.map(|place| name_of(judge, place)));
    }
    names.join(", ")
}

fn name_of(judge: &Judge, component: usize) -> String {
    match judge.components().get(component) {
        Some(component) if component.scope == Scope::Cohort => format!("cohort {}", component.name),
        Some(component) if component.scope == Scope::Route => format!("route {}", component.name),
        Some(component) => component.name.clone(),
        None => "the canary".to_owned(),
    }
}

/// "; p99 slower by 31 %, at least 18 %", for what is proved.
fn size(judge: &Judge) -> String {
    let effect = judge.effect();
    let mut text = String::new();
    for (quantile, size) in ["p90", "p99"].into_iter().zip(effect.latency) {
        let Some(at_least) = size.at_least.filter(|least| *least >= 1.0) else { continue };
        let estimate = size.estimate.unwrap_or(at_least).max(at_least);
        let percent = |factor: f64| ((factor - 1.0) * 100.0).round();
        text += &format!("; {quantile} slower by {} %", percent(estimate));
        if at_least > 1.0 {
            text += &format!(", at least {} %", percent(at_least));
        }
    }
    if let Some(at_least) = effect.errors.at_least {
        let estimate = effect.errors.estimate.unwrap_or(at_least).max(at_least);
        text += &format!("; {:.2} % more errors", estimate * 100.0);
        if at_least > 0.0 {
            text += &format!(", at least {:.1} %", at_least * 100.0);
        }
    }
    text
}

/// Odds to two digits, at most 1e12.
fn odds(ln: f64) -> String {
    let odds = ln.min(27.631_021_115_928_547).exp();
    if odds < 10.0 { format!("{odds:.1}") } else { thousands(odds.round() as u64) }
}

fn thousands(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

fn about(seconds: f64) -> String {
    match seconds {
        s if s < 90.0 => format!("about {:.0} s", s.max(1.0)),
        s if s < 5400.0 => format!("about {:.0} min", s / 60.0),
        s if s < 172_800.0 => format!("about {:.0} h", s / 3600.0),
        _ => "more than two days".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::judge::Proof;

    #[test]
    fn numbers_are_written_for_people() {
        assert_eq!(thousands(1_234_567), "1,234,567");
        assert_eq!(thousands(999), "999");
        assert_eq!(odds(1000.0_f64.ln()), "1,000");
        assert_eq!(odds(0.5_f64.ln()), "0.5");
        assert_eq!(about(250.0), "about 4 min");
    }

    #[test]
    fn waiting_names_requests_proof_and_time() {
        let missing = Missing { proof: Proof::P99, canary_requests: 1200, seconds: Some(240.0) };
        let text = waiting(&missing);
        assert_eq!(text, "waiting for 1,200 canary requests (p99), about 4 min at today's rate");
    }
}
