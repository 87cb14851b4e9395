//! What gRPC adds to HTTP: a deadline in the request, a status in trailers or in an answer of
//! trailers alone, errors that have to be told in its own words.
//!
//! Sources: "gRPC over HTTP2" and "Status codes and their use in gRPC" of the gRPC documentation.
//! Messages are never looked at.

use std::{fmt::Write as _, time::Duration};

use http::{HeaderMap, HeaderName, HeaderValue, Request, Version, header};

use super::clock::Clock;
use crate::routing::FailedWhen;

static STATUS: HeaderName = HeaderName::from_static("grpc-status");
static MESSAGE: HeaderName = HeaderName::from_static("grpc-message");
static TIMEOUT: HeaderName = HeaderName::from_static("grpc-timeout");

/// Most digits of a timeout.
const TIMEOUT_DIGITS: usize = 8;

/// See [`Ends::about`]; and a fiftieth of the timeout, which clients round to two or three digits.
const ROUNDING: Duration = Duration::from_millis(20);

/// Codes that refuse a call as a 4xx does: INVALID_ARGUMENT, NOT_FOUND, ALREADY_EXISTS,
/// PERMISSION_DENIED, RESOURCE_EXHAUSTED, FAILED_PRECONDITION, ABORTED, OUT_OF_RANGE,
/// UNIMPLEMENTED, UNAUTHENTICATED.
const REFUSALS: u32 =
    1 << 3 | 1 << 5 | 1 << 6 | 1 << 7 | 1 << 8 | 1 << 9 | 1 << 10 | 1 << 11 | 1 << 12 | 1 << 16;

/// A status code that the proxy itself gives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Code {
    Cancelled = 1,
    DeadlineExceeded = 4,
    Unimplemented = 12,
    Internal = 13,
    Unavailable = 14,
}

/// A request that is a gRPC call.
#[derive(Clone, Copy, Debug)]
pub(super) struct Call {
    /// When its client gives up, since the start of the process.
    pub(super) ends: Option<Ends>,
}

/// When the client of a call gives up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Ends {
    pub(super) at: Duration,
    /// From here on a client that goes away does so because of that: its clock began a little
    /// before the call arrived, and rounds.
    pub(super) about: Duration,
}

impl Call {
    /// None if it is not one.
    pub(super) fn of<B>(request: &Request<B>, clock: Clock) -> Option<Self> {
        if request.version() != Version::HTTP_2 || !is_grpc(request.headers()) {
            return None;
        }
        let timeout = request.headers().get(&TIMEOUT).and_then(parse_timeout);
        let ends = timeout.map(|timeout| {
            let at = clock.now() + timeout;
            Ends { at, about: at.saturating_sub(ROUNDING + timeout / 50) }
        });
        Some(Self { ends })
    }
}

/// Whether a message says of itself that it is gRPC.
fn is_grpc(headers: &HeaderMap) -> bool {
    let rest = headers
        .get(header::CONTENT_TYPE)
        .and_then(|value| value.as_bytes().strip_prefix(b"application/grpc"));
    rest.is_some_and(|rest| matches!(rest.first(), None | Some(b'+' | b';')))
}

/// At most eight digits and a unit; what is malformed is no timeout.
fn parse_timeout(value: &HeaderValue) -> Option<Duration> {
    let (unit, digits) = value.as_bytes().split_last()?;
    if digits.is_empty() || digits.len() > TIMEOUT_DIGITS {
        return None;
    }
    let number = digits.iter().try_fold(0_u64, |sum, digit| {
        digit.is_ascii_digit().then(|| sum * 10 + u64::from(digit - b'0'))
    })?;
    match unit {
        b'H' => Some(Duration::from_secs(number * 3600)),
        b'M' => Some(Duration::from_secs(number * 60)),
        b'S' => Some(Duration::from_secs(number)),
        b'm' => Some(Duration::from_millis(number)),
        b'u' => Some(Duration::from_micros(number)),
        b'n' => Some(Duration::from_nanos(number)),
        _ => None,
    }
}

/// What the status codes of an answer mean; nothing outside gRPC.
#[derive(Clone, Copy, Debug)]
pub(super) struct Statuses {
    failures: u32,
    refusals: u32,
}

impl Statuses {
    /// By the head of the answer.
    pub(super) fn of(failed_when: &FailedWhen, headers: &HeaderMap) -> Self {
        if is_grpc(headers) {
            Self { failures: failed_when.grpc, refusals: REFUSALS & !failed_when.grpc }
        } else {
            Self { failures: 0, refusals: 0 }
        }
    }

    /// Whether these fields carry a status that counts as a failure.
    pub(super) fn fail(self, fields: &HeaderMap) -> bool {
        self.failures != 0 && has(fields, self.failures)
    }

    /// Whether these fields carry a status that refuses the call without being a failure.
    pub(super) fn refuse(self, fields: &HeaderMap) -> bool {
        self.refusals != 0 && has(fields, self.refusals)
    }
}

fn has(fields: &HeaderMap, codes: u32) -> bool {
    fields
        .get(&STATUS)
        .and_then(|value| value.to_str().ok()?.parse::<u32>().ok())
        .is_some_and(|code| code < 32 && codes >> code & 1 == 1)
}

/// The fields that end a call: an answer's trailers, or, with a content type, its only header.
pub(super) fn status(code: Code, message: &str) -> HeaderMap {
    let mut fields = HeaderMap::new();
    fields.insert(&STATUS, HeaderValue::from(code as u32));
    if let Ok(message) = HeaderValue::try_from(percent_encoded(message)) {
        fields.insert(&MESSAGE, message);
    }
    fields
}

/// Everything but printable ASCII, and the percent sign, as its bytes in hexadecimal.
fn percent_encoded(message: &str) -> String {
    message.bytes().fold(String::new(), |mut text, byte| {
        match byte {
            b'%' | 0..=0x1f | 0x7f.. => {
                // Writing into a string cannot fail.
                let _ = write!(text, "%{byte:02X}");
            }
            byte => text.push(byte.into()),
        }
        text
    })
}

#[cfg(test)]
mod tests {
    use tokio::time::Instant;

    use super::*;

    fn call(version: Version, content_type: &str, timeout: &str) -> Option<Call> {
        let request = Request::post("/a.B/C")
            .version(version)
            .header("content-type", content_type)
            .header("grpc-timeout", timeout);
        Call::of(&request.body(()).unwrap(), Clock::new(Instant::now()))
    }

    #[test]
    fn a_call_is_told_by_its_content_type_on_http2() {
        for known in ["application/grpc", "application/grpc+proto", "application/grpc;x=y"] {
            assert!(call(Version::HTTP_2, known, "1S").is_some(), "{known}");
        }
        assert!(call(Version::HTTP_11, "application/grpc", "1S").is_none());
        assert!(call(Version::HTTP_2, "application/grpc-web", "1S").is_none());
        assert!(call(Version::HTTP_2, "application/json", "1S").is_none());
    }

    #[test]
    fn timeouts_are_read_in_every_unit() {
        let check = |text: &'static str, expected: Option<Duration>| {
            assert_eq!(parse_timeout(&HeaderValue::from_static(text)), expected, "{text}");
        };
        check("2H", Some(Duration::from_secs(7200)));
        check("3M", Some(Duration::from_secs(180)));
        check("99999999S", Some(Duration::from_secs(99_999_999)));
        check("100m", Some(Duration::from_millis(100)));
        check("7u", Some(Duration::from_micros(7)));
        check("7n", Some(Duration::from_nanos(7)));
        for malformed in ["", "S", "5", "1.5S", "-1S", "123456789S", "5s"] {
            check(malformed, None);
        }
    }

    #[test]
    fn codes_fail_refuse_or_neither() {
        let mut head = HeaderMap::new();
        head.insert("content-type", HeaderValue::from_static("application/grpc"));
        let statuses = Statuses::of(&FailedWhen::default(), &head);
        let judge = |code: u32| {
            let fields = HeaderMap::from_iter([(STATUS.clone(), HeaderValue::from(code))]);
            (statuses.fail(&fields), statuses.refuse(&fields))
        };
        assert_eq!(
            [judge(0), judge(1), judge(14)],
            [(false, false), (false, false), (true, false)]
        );
        assert_eq!(
            [judge(7), judge(16), judge(99)],
            [(false, true), (false, true), (false, false)]
        );
        let other = Statuses::of(&FailedWhen::default(), &HeaderMap::new());
        assert!(!other.fail(&status(Code::Unavailable, "")));
    }

    #[test]
    fn messages_are_printable() {
        let fields = status(Code::Internal, "50 % of ü\n");
        assert_eq!(fields["grpc-message"], "50 %25 of %C3%BC%0A");
        assert_eq!(fields["grpc-status"], "13");
    }
}
