//! Suspicion among sticky users: bets on all bad events against the canary's own past.
//!
//! A heuristic, and it only asks for caution: weight to a fifth gives every known canary user a
//! fresh coin, and the coins decide.

use serde::{Deserialize, Serialize};

use super::{ArmCounts, Definition, TICK_SECONDS, bets, wealth::Wealth};

/// Definitions that are watched.
const WATCHED: [Definition; 5] = [
    Definition::EarlyErrors,
    Definition::SlowP75,
    Definition::SlowP90,
    Definition::SlowP95,
    Definition::SlowP99,
];

/// The canary's own share is taken from this many stretches, ending that many ago.
const PAST: usize = 600;
const GAP: usize = 30;

/// What the own share is multiplied by before it is bet against.
const ALLOWANCE: f64 = 1.25;

/// Least past before a bet is placed: stretches, and bad events of the canary.
const LEAST_PAST: u32 = 60;
const LEAST_EVENTS: u64 = 20;

/// Memory in seconds of the change detector.
const MEMORY: f64 = 3600.0;

/// Bad events of the canary and of both arms in one stretch.
type Pair = (u64, u64);

/// Watches the canary's share of all bad events of sticky users in one stage.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Suspicion {
    ring: Vec<[Pair; WATCHED.len()]>,
    next: usize,
    past: [Pair; WATCHED.len()],
    past_len: u32,
    prior: Vec<f64>,
    wealth: Vec<Wealth>,
}

impl Default for Suspicion {
    fn default() -> Self {
        let prior = bets::prior(&WATCHED[..1]);
        let wealth = WATCHED.iter().map(|_| Wealth::new(&prior)).collect();
        Self {
            ring: vec![Default::default(); PAST + GAP],
            next: 0,
            past: Default::default(),
            past_len: 0,
            prior,
            wealth,
        }
    }
}

impl Suspicion {
    /// Forgets everything: a new weight, other users.
    pub fn enter_stage(&mut self) {
        self.ring.fill(Default::default());
        (self.next, self.past, self.past_len) = (0, Default::default(), 0);
        for wealth in &mut self.wealth {
            wealth.reset(&self.prior);
        }
    }

    /// A second of all bad events of sticky strata, repeated ones of a unit included, final at
    /// [`Lag::Slow`](super::Lag::Slow). True when it fires; it then starts anew.
    pub fn add(&mut self, ticks: u32, canary: &ArmCounts, baseline: &ArmCounts) -> bool {
        let seconds = f64::from(ticks.max(1)) * TICK_SECONDS;
        let shared = -(-seconds / MEMORY).exp_m1();
        let mut now = [Pair::default(); WATCHED.len()];
        let mut fired = false;
        for (i, definition) in WATCHED.into_iter().enumerate() {
            let bad = definition.bad_events(canary);
            now[i] = (bad, bad.saturating_add(definition.bad_events(baseline)));
            let Some(x) = self.observation(i, now[i]) else { continue };
            let mut factors = [1.0; 1 + bets::STAKES.len()];
            for (factor, stake) in factors[1..].iter_mut().zip(bets::STAKES) {
                *factor = stake.mul_add(x, 1.0);
            }
            self.wealth[i].update(&self.prior, &factors, shared);
            fired |= self.wealth[i].ln() >= (1000.0 * WATCHED.len() as f64).ln();
        }
        self.remember(now);
        if fired {
            self.enter_stage();
        }
        fired
    }

    /// The share of the canary over what is allowed of it, less one.
    fn observation(&self, i: usize, (canary, all): Pair) -> Option<f64> {
        let (past_canary, past_all) = self.past[i];
        if self.past_len < LEAST_PAST || past_canary < LEAST_EVENTS || all == 0 {
            return None;
        }
        let allowed = ALLOWANCE * past_canary as f64 / past_all as f64;
        (allowed < 1.0).then(|| canary as f64 / all as f64 / allowed - 1.0)
    }

    fn remember(&mut self, now: [Pair; WATCHED.len()]) {
        let len = self.ring.len();
        let leaving = self.ring[self.next];
        let entering = self.ring[(self.next + len - GAP) % len];
        for (i, past) in self.past.iter_mut().enumerate() {
            past.0 = past.0.saturating_add(entering[i].0).saturating_sub(leaving[i].0);
            past.1 = past.1.saturating_add(entering[i].1).saturating_sub(leaving[i].1);
        }
        self.ring[self.next] = now;
        self.next = (self.next + 1) % len;
        self.past_len = self.past_len.saturating_add(1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(slow: u64) -> ArmCounts {
        ArmCounts::of_requests(slow * 4, [0, 0], 0, [slow, slow / 2, slow / 4, slow / 20, 0])
    }

    #[test]
    fn a_canary_that_doubles_its_own_share_is_suspected() {
        let mut suspicion = Suspicion::default();
        for _ in 0..600 {
            assert!(!suspicion.add(10, &counts(6), &counts(120)));
        }
        let after = (1..=60).find(|_| suspicion.add(10, &counts(15), &counts(120)));
        assert!(after.is_some_and(|seconds| seconds <= 45), "{after:?}");
    }

    #[test]
    fn twice_the_load_on_both_arms_is_no_suspicion() {
        let mut suspicion = Suspicion::default();
        for second in 0..1800 {
            let factor = if second < 900 { 1 } else { 2 };
            assert!(!suspicion.add(10, &counts(6 * factor), &counts(120 * factor)));
        }
    }

    #[test]
    fn any_counts_are_survived() {
        let mut suspicion = Suspicion::default();
        let huge = ArmCounts::of_requests(u64::MAX, [u64::MAX; 2], u64::MAX, [u64::MAX; 5]);
        for i in 0..2000 {
            let (a, b) = if i % 2 == 0 { (huge, counts(0)) } else { (counts(0), huge) };
            suspicion.add(u32::MAX, &a, &b);
            assert!(suspicion.wealth.iter().all(|w| w.ln().is_finite()));
        }
    }
}
