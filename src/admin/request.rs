//! The bodies of writes: from JSON to an action with its reason, or to a problem that says what
//! would be accepted.

use std::time::Duration;

use http::StatusCode;
use serde::Deserialize;

use super::problem::Problem;
use crate::{
    rollout::{Action, Drill},
    routing::Harm,
};

/// The last part of `POST /api/v1/services/NAME/VERB`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verb {
    Weight,
    Pause,
    Resume,
    Promote,
    Approve,
    Abort,
    Retry,
    Release,
    Drill,
}

impl Verb {
    /// The verb with this name.
    pub(super) fn named(name: &str) -> Option<Self> {
        Some(match name {
            "weight" => Self::Weight,
            "pause" => Self::Pause,
            "resume" => Self::Resume,
            "promote" => Self::Promote,
            "approve" => Self::Approve,
            "abort" => Self::Abort,
            "retry" => Self::Retry,
            "release" => Self::Release,
            "drill" => Self::Drill,
            _ => return None,
        })
    }
}

/// What was asked for.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Asked {
    /// The canary; may be left out where the service has one.
    pub(super) canary: Option<String>,
    /// What is to be done.
    pub(super) action: Action,
    /// Why.
    pub(super) reason: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Body {
    canary: Option<String>,
    reason: Option<String>,
    weight: Option<String>,
    version: Option<String>,
    full: Option<bool>,
    inject: Option<String>,
    share: Option<String>,
    cohort: Option<String>,
    #[serde(rename = "for")]
    time: Option<String>,
}

/// Longest reason or version, in bytes; both go to the journal.
const TEXT_BYTES: usize = 4096;

/// Reads the body of a write.
///
/// # Errors
/// 400 where it is not JSON, 422 where it does not say what the verb needs.
pub(super) fn parse(verb: Verb, body: &[u8]) -> Result<Asked, Problem> {
    let body: Body = serde_json::from_slice(body).map_err(|error| {
        let status = match error.classify() {
            serde_json::error::Category::Data => StatusCode::UNPROCESSABLE_ENTITY,
            serde_json::error::Category::Io
            | serde_json::error::Category::Syntax
            | serde_json::error::Category::Eof => StatusCode::BAD_REQUEST,
        };
        Problem::new(status, format!("The body is not what is expected ({error}). {EXAMPLE}"))
    })?;
    let reason = bounded("reason", body.reason)?.ok_or_else(|| {
        unprocessable(format!("Say why: `reason` is missing; it goes to the journal. {EXAMPLE}"))
    })?;
    let drill = (body.inject.as_deref(), body.share.as_deref(), body.time.as_deref());
    let action = match verb {
        Verb::Drill => parse_drill(drill, body.cohort)?,
        Verb::Weight => Action::SetWeight(parse_weight(body.weight.as_deref())?),
        Verb::Pause => Action::Pause,
        Verb::Resume => Action::Resume,
        Verb::Promote => Action::Promote { full: body.full.unwrap_or(false) },
        Verb::Approve => Action::Approve,
        Verb::Abort => Action::Abort,
        Verb::Retry => Action::Retry,
        Verb::Release => Action::Release {
            version: bounded("version", body.version)?
                .ok_or_else(|| unprocessable("`version` is missing: the new version, a string."))?,
        },
    };
    Ok(Asked { canary: body.canary, action, reason })
}

/// How long a drill lasts that does not say it, and how long any may.
const USUAL_DRILL: Duration = Duration::from_secs(300);
const LONGEST_DRILL: Duration = Duration::from_secs(3600);

/// What a drill does: `latency=300ms`, `errors=5%`, `hang`, `hang=5%`, or `none` to end one.
fn parse_drill(
    (inject, share, time): (Option<&str>, Option<&str>, Option<&str>),
    cohort: Option<String>,
) -> Result<Action, Problem> {
    const FORMS: &str = "`inject` is `latency=300ms`, `errors=5%`, `hang`, `hang=5%` or `none`";
    let unknown = || unprocessable(format!("{FORMS}; not {:?}.", inject.unwrap_or_default()));
    let (kind, amount) = inject.map_or(("", None), |inject| match inject.split_once('=') {
        Some((kind, amount)) => (kind.trim(), Some(amount.trim())),
        None => (inject.trim(), None),
    });
    let whole = Some("100%");
    let (harm, share) = match (kind, amount) {
        ("none", None) => return Ok(Action::EndDrill),
        ("latency", Some(time)) => {
            let time = humantime::parse_duration(time).map_err(|_| unknown())?;
            (Harm::Latency(time), share.or(whole))
        }
        ("errors", Some(amount)) => (Harm::Errors, Some(amount)),
        ("hang", amount) => (Harm::Hang, amount.or(share).or(whole)),
        _ => return Err(unknown()),
    };
    let period = match time.map(humantime::parse_duration) {
        None => USUAL_DRILL,
        Some(Ok(period)) if period <= LONGEST_DRILL => period,
        Some(_) => return Err(unprocessable("`for` is a time such as \"5m\", up to an hour.")),
    };
    let share_bp = parse_weight(share)?;
    Ok(Action::Drill(Drill { cohort, share_bp, harm, period }))
}

const EXAMPLE: &str = r#"For example: {"canary": "v2", "reason": "looks good"}."#;

fn unprocessable(detail: impl Into<String>) -> Problem {
    Problem::new(StatusCode::UNPROCESSABLE_ENTITY, detail)
}

fn bounded(name: &str, text: Option<String>) -> Result<Option<String>, Problem> {
    match text {
        Some(text) if text.len() > TEXT_BYTES => {
            Err(unprocessable(format!("`{name}` is longer than {TEXT_BYTES} bytes.")))
        }
        Some(text) if text.trim().is_empty() => Ok(None),
        Some(_) | None => Ok(text),
    }
}

/// A weight in buckets of 0.01 %: text with `%`, at most two decimals, from 0 to 100.
fn parse_weight(text: Option<&str>) -> Result<u16, Problem> {
    let weight = text.and_then(|text| {
        let number = text.trim().strip_suffix('%')?.trim_end();
        let (whole, decimals) = number.split_once('.').unwrap_or((number, "0"));
        let digits = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
        if !digits(whole) || !digits(decimals) || decimals.len() > 2 {
            return None;
        }
        let hundredths = format!("{decimals:0<2}").parse::<u32>().ok()?;
        let weight_bp = whole.parse::<u32>().ok()?.checked_mul(100)?.checked_add(hundredths)?;
        u16::try_from(weight_bp).ok().filter(|weight_bp| *weight_bp <= 10_000)
    });
    weight.ok_or_else(|| {
        let given = text.map_or_else(|| "it is missing".to_owned(), |text| format!("not {text:?}"));
        unprocessable(format!(
            "`weight` is text from \"0%\" to \"100%\" in steps of 0.01 %, such as \"25%\"; {given}."
        ))
    })
}

#[cfg(test)]
mod tests {
    use axum::response::IntoResponse;

    use super::*;

    fn check(verb: Verb, body: &str, expected: &Action) {
        assert_eq!(parse(verb, body.as_bytes()).unwrap().action, *expected, "{body}");
    }

    fn check_refused(verb: Verb, body: &str, expected: u16) {
        let problem = parse(verb, body.as_bytes()).unwrap_err();
        assert_eq!(problem.into_response().status(), expected, "{body}");
    }

    fn check_weight(text: &str, expected: Option<u16>) {
        assert_eq!(parse_weight(Some(text)).ok(), expected, "{text}");
    }

    #[test]
    fn weights_are_read_in_steps_of_a_hundredth_of_a_percent() {
        check_weight("0%", Some(0));
        check_weight("0.01%", Some(1));
        check_weight("2.5 %", Some(250));
        check_weight("100%", Some(10_000));
        check_weight("100.00%", Some(10_000));
    }

    #[test]
    fn weights_that_are_no_weights_are_refused() {
        for text in ["", "%", "5", "0.05", "100.01%", "-1%", "+1%", "1.005%", "1.%", ".5%", "1e1%"]
        {
            check_weight(text, None);
        }
        check_weight("99999999999999999999%", None);
    }

    #[test]
    fn every_verb_needs_a_reason() {
        check(Verb::Pause, r#"{"reason":"lunch"}"#, &Action::Pause);
        check_refused(Verb::Pause, r#"{"canary":"v2"}"#, 422);
        check_refused(Verb::Pause, r#"{"reason":" "}"#, 422);
    }

    #[test]
    fn a_drill_says_what_is_hurt_and_how_much() {
        let drill = |share_bp, harm, period| {
            let period = Duration::from_secs(period);
            Action::Drill(Drill { cohort: None, share_bp, harm, period })
        };
        let latency = Harm::Latency(Duration::from_millis(300));
        check(
            Verb::Drill,
            r#"{"reason":"x","inject":"latency=300ms"}"#,
            &drill(10_000, latency, 300),
        );
        let body = r#"{"reason":"x","inject":"errors=5%","for":"30s"}"#;
        check(Verb::Drill, body, &drill(500, Harm::Errors, 30));
        check(Verb::Drill, r#"{"reason":"x","inject":"hang=1%"}"#, &drill(100, Harm::Hang, 300));
        check(Verb::Drill, r#"{"reason":"x","inject":"none"}"#, &Action::EndDrill);
        for inject in ["", "latency", "latency=5%", "errors", "errors=lots", "pain=1%"] {
            check_refused(Verb::Drill, &format!(r#"{{"reason":"x","inject":"{inject}"}}"#), 422);
        }
        check_refused(Verb::Drill, r#"{"reason":"x","inject":"hang","for":"2h"}"#, 422);
    }

    #[test]
    fn a_body_that_is_not_json_is_told_apart_from_one_that_says_too_little() {
        check_refused(Verb::Abort, "", 400);
        check_refused(Verb::Abort, "reason=x", 400);
        check_refused(Verb::Abort, "[]", 422);
        check_refused(Verb::Abort, r#"{"reason":"x","wieght":"5%"}"#, 422);
        check_refused(Verb::Weight, r#"{"reason":"x"}"#, 422);
        check_refused(Verb::Weight, r#"{"reason":"x","weight":5}"#, 422);
        check(Verb::Weight, r#"{"reason":"x","weight":"5%"}"#, &Action::SetWeight(500));
        check_refused(Verb::Release, r#"{"reason":"x"}"#, 422);
        check(Verb::Promote, r#"{"reason":"x","full":true}"#, &Action::Promote { full: true });
    }
}
