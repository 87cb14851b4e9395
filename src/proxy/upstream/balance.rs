//! The choice of one of several endpoints, as a pure function of what is known of them and of a
//! coin of its own: neither the arm nor the coin or the key that decided about the arm is asked.
//!
//! `tower::load::PeakEwma` estimates the same. It keeps the estimate to itself behind a service,
//! a lock and a clock of its own, and takes it from there to the end of the answer; an estimate is
//! a dozen lines, so these are here.

use std::time::Duration;

use fastrand::Rng;

use crate::routing::Policy;

/// Within this time the estimate of a latency moves by 1 - 1/e towards what is measured.
const MEMORY: Duration = Duration::from_secs(10);

/// Latencies that differ by less than this factor are alike. Without it the endpoint that happened
/// to be slow last would get little for seconds, and endpoints that are alike would not get alike,
/// which the judge counts on.
const ALIKE: f64 = 1.5;

/// An endpoint whose share still grows is passed over at most so often in one choice.
const DRAWS: usize = 4;

/// What a choice knows of an endpoint.
#[derive(Clone, Copy, Debug)]
pub(super) struct Candidate {
    /// Requests in flight.
    pub(super) in_flight: u32,
    /// What its latency is thought to be, in microseconds; `None` as long as nobody knows.
    pub(super) latency_us: Option<f64>,
    /// The part of a full share that it is to get, from 0 to 1.
    pub(super) share: f64,
}

/// The place of the endpoint that gets a request, of `count`, of which there is at least one.
/// `turn` says whose turn it is where they take turns.
pub(super) fn choose(
    policy: Policy,
    count: usize,
    candidate: impl Fn(usize) -> Candidate,
    turn: usize,
    coin: u64,
) -> usize {
    let mut rng = Rng::with_seed(coin);
    if policy == Policy::RoundRobin {
        let offset = (0..count).find(|offset| {
            let share = candidate((turn + offset) % count).share;
            share >= 1.0 || rng.f64() < share
        });
        return (turn + offset.unwrap_or(0)) % count;
    }
    let first = draw(&mut rng, count, &candidate);
    if count == 1 {
        return first;
    }
    // Drawn from the others, the first one's place standing for the last one's.
    let last = count - 1;
    let exchange = |place| if place == first { last } else { place };
    let second = exchange(draw(&mut rng, last, |place| candidate(exchange(place))));
    let [one, other] = [first, second].map(candidate);
    if is_better(policy, other, one) { second } else { first }
}

/// A place at random; one with less than a full share is drawn that much less often.
fn draw(rng: &mut Rng, count: usize, candidate: impl Fn(usize) -> Candidate) -> usize {
    let mut place = rng.usize(..count);
    for _ in 1..DRAWS {
        let share = candidate(place).share;
        if share >= 1.0 || rng.f64() < share {
            break;
        }
        place = rng.usize(..count);
    }
    place
}

fn is_better(policy: Policy, one: Candidate, other: Candidate) -> bool {
    match (policy, one.latency_us, other.latency_us) {
        (Policy::PeakEwma, Some(left), Some(right))
            if left.max(right) > ALIKE * left.min(right) =>
        {
            left * f64::from(one.in_flight + 1) < right * f64::from(other.in_flight + 1)
        }
        // As if they were the same, where nothing is known of one of them, too.
        (Policy::PeakEwma | Policy::LeastRequest | Policy::RoundRobin, _, _) => {
            one.in_flight < other.in_flight
        }
    }
}

/// An estimate of a latency: an exponentially weighted moving average that follows a rise at once
/// (as Finagle's `PeakEwma` does), so that a slow endpoint is left before it has collected many
/// requests.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Latency {
    estimate_us: Option<f64>,
    at: Duration,
}

impl Latency {
    /// Takes in a latency that was measured.
    pub(super) fn measured(&mut self, latency: Duration, now: Duration) {
        let new_us = latency.as_secs_f64() * 1e6;
        self.estimate_us = Some(match self.estimate_us {
            Some(old_us) if old_us > new_us => {
                let kept = self.kept(now);
                old_us * kept + new_us * (1.0 - kept)
            }
            Some(_) | None => new_us,
        });
        self.at = now;
    }

    /// The estimate, and what is left of it where nobody has asked for a long time and so nobody
    /// knows: an endpoint that was slow is tried again.
    pub(super) fn estimate_us(&self, asked: bool, now: Duration) -> Option<f64> {
        self.estimate_us.map(|us| if asked { us } else { us * self.kept(now) })
    }

    fn kept(&self, now: Duration) -> f64 {
        let passed = now.saturating_sub(self.at);
        (-passed.as_secs_f64() / MEMORY.as_secs_f64()).exp()
    }
}

#[cfg(test)]
mod tests {
    use fastrand::Rng;
    use proptest::prelude::*;

    use super::*;

    const CANDIDATE: Candidate = Candidate { in_flight: 0, latency_us: None, share: 1.0 };

    /// A request on its way: when it is over, where it is, how long it takes.
    #[derive(Clone, Copy)]
    struct Busy {
        until: f64,
        place: usize,
        took: f64,
    }

    /// Plays requests that come every `gap` seconds to endpoints with these latencies, each of them
    /// varied by up to a half; returns how many each got.
    fn play(policy: Policy, latencies: &[f64], shares: &[f64], gap: f64, seed: u64) -> Vec<u32> {
        const REQUESTS: usize = 20_000;
        let mut rng = Rng::with_seed(seed);
        let count = latencies.len();
        let mut known = vec![Latency::default(); count];
        let (mut in_flight, mut got) = (vec![0_u32; count], vec![0_u32; count]);
        let mut busy: Vec<Busy> = Vec::new();
        for number in 0..REQUESTS {
            let now = number as f64 * gap;
            let moment = |seconds: f64| Duration::from_secs_f64(seconds);
            busy.retain(|one| {
                let over = one.until <= now;
                if over {
                    in_flight[one.place] -= 1;
                    known[one.place].measured(moment(one.took), moment(one.until));
                }
                !over
            });
            let candidate = |place: usize| Candidate {
                in_flight: in_flight[place],
                latency_us: known[place].estimate_us(in_flight[place] > 0, moment(now)),
                share: shares[place],
            };
            let place = choose(policy, count, candidate, number, rng.u64(..));
            let took = latencies[place] * (0.5 + rng.f64());
            busy.push(Busy { until: now + took, place, took });
            in_flight[place] += 1;
            got[place] += 1;
        }
        got
    }

    #[test]
    fn a_slow_endpoint_gets_little_and_is_not_forgotten() {
        for gap in [0.0005, 0.005] {
            let got = play(Policy::PeakEwma, &[0.02, 0.02, 0.2], &[1.0; 3], gap, 7);
            assert!((1..2_500).contains(&got[2]), "{got:?}");
        }
        let got = play(Policy::LeastRequest, &[0.02, 0.02, 0.2], &[1.0; 3], 0.0005, 7);
        assert!(got[2] < 4_000, "{got:?}");
    }

    #[test]
    fn turns_are_taken_one_after_the_other() {
        let got = play(Policy::RoundRobin, &[0.02, 0.2, 0.02], &[1.0; 3], 0.001, 7);
        assert!(got.iter().all(|count| count.abs_diff(20_000 / 3) <= 1), "{got:?}");
    }

    #[test]
    fn the_share_of_a_new_endpoint_grows() {
        for policy in [Policy::PeakEwma, Policy::LeastRequest, Policy::RoundRobin] {
            let part = |share| play(policy, &[0.02; 4], &[share, 1.0, 1.0, 1.0], 0.0005, 7)[0];
            let parts = [0.1, 0.4, 0.7, 1.0].map(part);
            assert!(parts.is_sorted(), "{policy:?}: {parts:?}");
            assert!(parts[0] < 2_500 && parts[3] > 4_000, "{policy:?}: {parts:?}");
        }
    }

    #[test]
    fn fewer_requests_in_flight_decide_where_latencies_are_not_known() {
        let candidate = |place| Candidate { in_flight: [9, 0][place], ..CANDIDATE };
        for coin in 0..100 {
            assert_eq!(choose(Policy::PeakEwma, 2, candidate, 0, coin), 1);
        }
    }

    #[test]
    fn an_estimate_rises_at_once_and_falls_slowly() {
        let second = Duration::from_secs(1);
        let mut latency = Latency::default();
        assert_eq!(latency.estimate_us(true, second), None);
        latency.measured(second / 100, second);
        latency.measured(second / 10, 2 * second);
        assert_eq!(latency.estimate_us(true, 2 * second), Some(100_000.0));
        latency.measured(second / 100, 3 * second);
        let after = latency.estimate_us(true, 3 * second).unwrap();
        assert!((91_000.0..92_000.0).contains(&after), "{after}");
        assert_eq!(latency.estimate_us(true, 99 * second), Some(after));
        assert!(latency.estimate_us(false, 33 * second).unwrap() < after / 15.0);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]

        /// What is alike gets alike: within 5 standard deviations of independent draws.
        #[test]
        fn equal_endpoints_get_equal_shares(
            count in 2_usize..12,
            gap in 0.0002_f64..0.01,
            seed in any::<u64>(),
            policy in prop_oneof![
                Just(Policy::PeakEwma), Just(Policy::LeastRequest), Just(Policy::RoundRobin)
            ],
        ) {
            let got = play(policy, &vec![0.02; count], &vec![1.0; count], gap, seed);
            let fair = 20_000.0 / count as f64;
            for part in &got {
                prop_assert!((f64::from(*part) - fair).abs() < 5.0 * fair.sqrt() + 0.15 * fair, "{got:?}");
            }
        }

        /// The same coin makes the same choice, and every place can be chosen.
        #[test]
        fn a_choice_follows_from_its_coin(
            candidates in proptest::collection::vec((0_u32..50, 1.0_f64..1e6, 0.1_f64..=1.0), 1..20),
            coin in any::<u64>(),
            turn in any::<u32>(),
        ) {
            let candidate = |place: usize| {
                let (in_flight, latency_us, share) = candidates[place];
                Candidate { in_flight, latency_us: Some(latency_us), share }
            };
            for policy in [Policy::PeakEwma, Policy::LeastRequest, Policy::RoundRobin] {
                let choose = || choose(policy, candidates.len(), candidate, turn as usize, coin);
                prop_assert!(choose() == choose() && choose() < candidates.len());
            }
        }
    }
}
