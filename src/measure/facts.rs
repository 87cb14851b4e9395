//! From an event to what it means for the evidence: which latency is judged, and what an end says
//! that the first byte did not say before.

use super::{Event, Head, Kind, Outcome, WAIT_CREDIT_US, slots::Fact};

/// Which latency of a recorder's requests is judged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Judging {
    /// Until the first byte of the answer.
    #[default]
    FirstByte,
    /// Until the last byte.
    Total,
}

/// At most two facts of one event: what became of the request, and that it failed or was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Facts {
    pub(super) what: Option<Fact>,
    pub(super) failed: Option<Fact>,
}

impl Facts {
    const NONE: Self = Self { what: None, failed: None };

    const fn one(what: Fact) -> Self {
        Self { what: Some(what), failed: None }
    }
}

/// What an event means for the evidence.
#[inline]
pub(super) fn facts(event: &Event, judging: Judging) -> Facts {
    let age_us = credited(event.age_us, event.wait_us());
    let first_byte_us = credited(event.first_byte_us, event.wait_us());
    match (event.kind(), judging) {
        (Kind::Assigned, _) => Facts::one(Fact::Assigned),
        (Kind::Answered { .. }, Judging::Total) => Facts::NONE,
        (Kind::Answered { failed }, Judging::FirstByte) => Facts {
            what: Some(Fact::Done(first_byte_us)),
            failed: failed
                .then_some(Fact::Failed(first_byte_us))
                .or(event.refused().then_some(Fact::Refused(first_byte_us))),
        },
        (Kind::Ended { outcome, head: Head::Good }, Judging::FirstByte) => match outcome {
            // The head was good and the body broke or stalled: the arm is to blame.
            Outcome::Failed | Outcome::Hung => {
                Facts { what: None, failed: Some(Fact::Failed(age_us)) }
            }
            Outcome::Ok | Outcome::Aborted | Outcome::Local => Facts::NONE,
        },
        (Kind::Ended { head: Head::Failed, .. }, Judging::FirstByte) => Facts::NONE,
        (Kind::Ended { outcome, head: Head::Untold }, Judging::FirstByte) => {
            end(outcome, event.refused(), first_byte_us, age_us)
        }
        (Kind::Ended { outcome, .. }, Judging::Total) => {
            end(outcome, event.refused(), age_us, age_us)
        }
    }
}

#[inline]
fn end(outcome: Outcome, refused: bool, latency_us: u32, age_us: u32) -> Facts {
    match outcome {
        Outcome::Ok => Facts {
            what: Some(Fact::Done(latency_us)),
            failed: refused.then_some(Fact::Refused(latency_us)),
        },
        Outcome::Failed => {
            Facts { what: Some(Fact::Done(latency_us)), failed: Some(Fact::Failed(age_us)) }
        }
        Outcome::Hung => Facts::one(Fact::Hung(age_us)),
        Outcome::Aborted | Outcome::Local => Facts::one(Fact::GivenUp(age_us)),
    }
}

/// The part of a latency that is judged.
const fn credited(latency_us: u32, wait_us: u32) -> u32 {
    let credit = if wait_us < WAIT_CREDIT_US { wait_us } else { WAIT_CREDIT_US };
    latency_us.saturating_sub(credit)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::measure::Epoch;

    fn check(kind: Kind, judging: Judging, [what, failed]: [Option<Fact>; 2]) {
        let mut event = Event::new(kind, Epoch::new(1), false);
        event.first_byte_us = 400_000;
        event.age_us = 900_000;
        event = event.with_wait(300_000);
        assert_eq!(facts(&event, judging), Facts { what, failed }, "{kind:?} {judging:?}");
    }

    const fn ended(outcome: Outcome, head: Head) -> Kind {
        Kind::Ended { outcome, head }
    }

    #[test]
    fn waiting_is_credited_up_to_a_quarter_of_a_second() {
        check(
            ended(Outcome::Ok, Head::Untold),
            Judging::FirstByte,
            [Some(Fact::Done(150_000)), None],
        );
        check(ended(Outcome::Ok, Head::Untold), Judging::Total, [Some(Fact::Done(650_000)), None]);
    }

    #[test]
    fn a_refusal_counts_once_and_is_no_failure() {
        let refused = |kind: Kind, judging| {
            let mut event = Event::new(kind, Epoch::new(1), false).of_refused();
            (event.first_byte_us, event.age_us) = (400_000, 900_000);
            facts(&event, judging).failed
        };
        let answered = Kind::Answered { failed: false };
        let [first, last] = [Fact::Refused(400_000), Fact::Refused(900_000)];
        assert_eq!(refused(answered, Judging::FirstByte), Some(first));
        assert_eq!(refused(ended(Outcome::Ok, Head::Good), Judging::FirstByte), None);
        assert_eq!(refused(ended(Outcome::Ok, Head::Untold), Judging::FirstByte), Some(first));
        assert_eq!(refused(answered, Judging::Total), None);
        assert_eq!(refused(ended(Outcome::Ok, Head::Good), Judging::Total), Some(last));
    }

    #[test]
    fn a_failed_head_counts_once() {
        let answered = Kind::Answered { failed: true };
        let both = [Some(Fact::Done(150_000)), Some(Fact::Failed(150_000))];
        check(answered, Judging::FirstByte, both);
        check(ended(Outcome::Failed, Head::Failed), Judging::FirstByte, [None, None]);
        check(answered, Judging::Total, [None, None]);
        let both = [Some(Fact::Done(650_000)), Some(Fact::Failed(650_000))];
        check(ended(Outcome::Failed, Head::Failed), Judging::Total, both);
    }

    #[test]
    fn a_body_that_breaks_after_a_good_head_is_a_failure() {
        for outcome in [Outcome::Failed, Outcome::Hung] {
            check(
                ended(outcome, Head::Good),
                Judging::FirstByte,
                [None, Some(Fact::Failed(650_000))],
            );
        }
    }

    #[test]
    fn a_client_that_leaves_after_the_first_byte_changes_nothing() {
        check(ended(Outcome::Aborted, Head::Good), Judging::FirstByte, [None, None]);
    }
}
