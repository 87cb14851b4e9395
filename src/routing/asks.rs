//! Asks: what the control thread wants of the workers beyond assigning requests. They ride in the
//! live table, so that they come into force and end with it; nothing is asked most of the time.
//!
//! What is asked is described here; how it is done is the data plane's subject.

use std::time::Duration;

use super::{ArmIndex, CohortId, ServiceId, UpstreamId, bucket};

/// What is asked of the workers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Asks {
    /// Connections to be opened ahead of traffic. Of several for one upstream the first counts.
    pub warm: Vec<Warm>,
    /// Arms that are to be tried once a second.
    pub probes: Vec<Probe>,
    /// Arms whose answers are to be hurt, for a drill.
    pub hurts: Vec<Hurt>,
}

/// Connections to be opened ahead of traffic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Warm {
    /// To this upstream.
    pub upstream: UpstreamId,
    /// This many in the whole process, over all of the upstream's endpoints. What is open already,
    /// idle or in use, counts.
    pub connections: u32,
}

/// An arm that is to be tried once a second, whatever its weight. Trials are no evidence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Probe {
    /// The service.
    pub service: ServiceId,
    /// The arm.
    pub arm: ArmIndex,
}

/// Harm that is done to a share of an arm's answers, for a drill.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hurt {
    /// The service.
    pub service: ServiceId,
    /// The arm.
    pub arm: ArmIndex,
    /// Only requests of this cohort; `None`: of any.
    pub cohort: Option<CohortId>,
    /// This share of them, in steps of 0.01 %.
    pub share_bp: u16,
    /// What is done.
    pub what: Harm,
}

/// What is done to an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Harm {
    /// Its head comes later by this long.
    Latency(Duration),
    /// It is replaced by a 503.
    Errors,
    /// It never comes: the request hangs until its timeout.
    Hang,
}

impl Asks {
    /// The harm that is done to a request with this coin. Several hurts of the same requests get
    /// shares of their own, one beside the other.
    #[must_use]
    pub fn harm(
        &self,
        service: ServiceId,
        arm: ArmIndex,
        cohort: CohortId,
        coin: u64,
    ) -> Option<Harm> {
        let drawn = bucket(mixed(coin));
        let mut before = 0_u16;
        self.hurts
            .iter()
            .filter(|hurt| hurt.service == service && hurt.arm == arm)
            .filter(|hurt| hurt.cohort.is_none_or(|only| only == cohort))
            .find(|hurt| {
                before = before.saturating_add(hurt.share_bp);
                drawn < before
            })
            .map(|hurt| hurt.what)
    }
}

/// A coin that says nothing about the one it is made of: the finaliser of SplitMix64 (Steele, Lea,
/// Flood 2014), a bijection, so that shares stay exact. The coin itself may have decided about the
/// arm.
fn mixed(coin: u64) -> u64 {
    let mut bits = coin.wrapping_add(0x9e37_79b9_7f4a_7c15);
    bits = (bits ^ bits >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    bits = (bits ^ bits >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    bits ^ bits >> 31
}

#[cfg(test)]
mod tests {
    use super::*;

    const SERVICE: ServiceId = ServiceId(0);
    const CANARY: ArmIndex = ArmIndex(1);
    const DEFAULT: CohortId = CohortId(0);

    fn hurt(share_bp: u16, what: Harm) -> Hurt {
        Hurt { service: SERVICE, arm: CANARY, cohort: None, share_bp, what }
    }

    /// How many of 100,000 coins below 5 % of all (those that lead to a canary at 5 %) are harmed
    /// so.
    fn harmed(hurts: Vec<Hurt>, what: Harm) -> usize {
        let asks = Asks { hurts, ..Asks::default() };
        let coins = (0..100_000_u64).map(|number| number * (u64::MAX / 2_000_000));
        coins.filter(|coin| asks.harm(SERVICE, CANARY, DEFAULT, *coin) == Some(what)).count()
    }

    #[test]
    fn a_share_of_the_arm_is_hurt_whatever_led_there() {
        assert_eq!(harmed(vec![hurt(10_000, Harm::Hang)], Harm::Hang), 100_000);
        assert_eq!(harmed(vec![hurt(0, Harm::Hang)], Harm::Hang), 0);
        // Binomial: mean 5,000, sd 69.
        let errors = harmed(vec![hurt(500, Harm::Errors)], Harm::Errors);
        assert!((4_700..5_300).contains(&errors), "{errors}");
    }

    #[test]
    fn several_hurts_have_shares_beside_each_other() {
        let latency = Harm::Latency(Duration::from_millis(300));
        let hurts = || vec![hurt(5_000, latency), hurt(2_500, Harm::Errors)];
        let found = [latency, Harm::Errors].map(|what| harmed(hurts(), what));
        assert!((49_000..51_000).contains(&found[0]), "{found:?}");
        assert!((24_000..26_000).contains(&found[1]), "{found:?}");
    }

    #[test]
    fn only_the_arm_and_the_cohort_that_were_named_are_hurt() {
        let only = Hurt { cohort: Some(CohortId(2)), ..hurt(10_000, Harm::Hang) };
        let asks = Asks { hurts: vec![only], ..Asks::default() };
        assert_eq!(asks.harm(SERVICE, CANARY, CohortId(2), 7), Some(Harm::Hang));
        assert_eq!(asks.harm(SERVICE, CANARY, DEFAULT, 7), None);
        assert_eq!(asks.harm(SERVICE, ArmIndex(0), CohortId(2), 7), None);
        assert_eq!(asks.harm(ServiceId(1), CANARY, CohortId(2), 7), None);
    }
}
