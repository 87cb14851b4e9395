//! Single requests: when they arrive, whose they are, and how the arm that they are assigned to
//! answers them.
//!
//! A request takes the same random numbers whatever its arm is, so that weights that move do not
//! change who comes and when.

use std::collections::VecDeque;

use rand::RngExt;
use rand_distr::{Distribution, Poisson, StandardNormal, weighted::WeightedAliasIndex};

use super::{Arm, Conditions, Random, Stalls, Stream, Weather, random};
use crate::lab::scenario::{Scenario, Slower};

/// Length of a tick in seconds.
const TICK: f64 = 0.1;

/// One request and its answer.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Request {
    /// The user, from 0; 0 where there are none.
    pub user: u32,
    /// Whether it went to the canary.
    pub canary: bool,
    /// When it arrived, in microseconds after the first tick.
    pub arrival_us: u64,
    /// How it ended.
    pub end: End,
    /// From its arrival to its end, in microseconds; at most the timeout.
    pub latency_us: u32,
}

/// How a request ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// Answered.
    Ok,
    /// Failed.
    Failed,
    /// Not answered within the timeout.
    Hung,
}

/// Who may send requests: shared by all runs of a scenario.
#[derive(Debug)]
pub struct Population {
    activity: Option<WeightedAliasIndex<f64>>,
}

impl Population {
    /// The users of a scenario.
    #[must_use]
    pub fn new(scenario: &Scenario) -> Self {
        let activity = scenario.users.map(|users| {
            let law = (1..=users.count).map(|rank| f64::from(rank).powf(-users.zipf)).collect();
            WeightedAliasIndex::new(law).expect("a scenario has at least one user")
        });
        Self { activity }
    }
}

/// The requests of one run, tick by tick.
#[derive(Debug)]
pub struct Requests<'a> {
    scenario: &'a Scenario,
    population: &'a Population,
    weather: Weather<'a>,
    random: Random,
    answers: Answers<'a>,
    repeats: Repeats,
    tick: u32,
}

/// Requests that failed and are repeated. They have random numbers of their own, so that they
/// move nothing else.
#[derive(Debug)]
struct Repeats {
    random: Random,
    /// By ticks from now.
    later: VecDeque<Vec<Repeat>>,
}

#[derive(Clone, Copy, Debug)]
struct Repeat {
    user: u32,
    arrival_us: u64,
    left: u32,
}

/// A request is repeated within this time after it failed, in microseconds.
const PATIENCE_US: u64 = 1_000_000;

/// How the arms answer.
#[derive(Debug)]
struct Answers<'a> {
    scenario: &'a Scenario,
    stalls: [Stalls; 2],
}

impl<'a> Requests<'a> {
    /// The requests of a run, from `lead` ticks before its start on.
    #[must_use]
    pub fn new(scenario: &'a Scenario, population: &'a Population, run: u32, lead: u32) -> Self {
        let pods = scenario.pods.map_or([1, 1], |pods| [pods.baseline, pods.canary]);
        Self {
            scenario,
            population,
            weather: Weather::new(scenario, run, lead),
            random: random(scenario.seed, run, Stream::Requests),
            answers: Answers {
                scenario,
                stalls: [
                    Stalls::new(scenario, run, Stream::BaselinePods, pods[0]),
                    Stalls::new(scenario, run, Stream::CanaryPods, pods[1]),
                ],
            },
            repeats: Repeats {
                random: random(scenario.seed, run, Stream::Retries),
                later: VecDeque::new(),
            },
            tick: 0,
        }
    }

    /// The requests that arrive in the next tick. `is_canary` assigns a request by its user and
    /// 64 random bits of its own.
    pub fn next_tick(
        &mut self,
        requests: &mut Vec<Request>,
        mut is_canary: impl FnMut(u32, u64) -> bool,
    ) {
        let from = f64::from(self.tick) * TICK;
        let start_us = u64::from(self.tick) * 100_000;
        self.tick += 1;
        let conditions = self.weather.next_tick();
        let repeated = self.repeats.later.pop_front().unwrap_or_default();
        for stalls in &mut self.answers.stalls {
            stalls.advance(from, from + TICK);
        }
        requests.clear();
        let mean = conditions.rate * TICK;
        let count = match Poisson::new(mean) {
            Ok(arrivals) => Distribution::<f64>::sample(&arrivals, &mut self.random) as u64,
            // The mean of a schedule's pause is zero, which is no Poisson law.
            Err(_) => 0,
        };
        for _ in 0..count {
            let user = match &self.population.activity {
                Some(activity) => activity.sample(&mut self.random) as u32,
                None => 0,
            };
            let canary = is_canary(user, self.random.random());
            let arrival_us = start_us + self.random.random_range(0..100_000_u64);
            let asked = Asked { user, canary, arrival_us };
            let request = self.answers.answer(asked, &conditions, &mut self.random);
            self.repeats.note(&request, self.scenario.retries, self.tick);
            requests.push(request);
        }
        for Repeat { user, arrival_us, left } in repeated {
            let canary = is_canary(user, self.repeats.random.random());
            let asked = Asked { user, canary, arrival_us };
            let request = self.answers.answer(asked, &conditions, &mut self.repeats.random);
            self.repeats.note(&request, left, self.tick);
            requests.push(request);
        }
    }
}

impl Repeats {
    /// Repeats a request that failed, if it may be; `tick` is the next one.
    fn note(&mut self, request: &Request, left: u32, tick: u32) {
        if left == 0 || request.end == End::Ok {
            return;
        }
        let after_us = self.random.random_range(0..PATIENCE_US);
        let arrival_us = request.arrival_us + u64::from(request.latency_us) + after_us;
        // Within a tick nothing is repeated: its requests are asked at once.
        let arrival_us = arrival_us.max(u64::from(tick) * 100_000);
        let place = (arrival_us / 100_000) as usize - tick as usize;
        if self.later.len() <= place {
            self.later.resize_with(place + 1, Vec::new);
        }
        self.later[place].push(Repeat { user: request.user, arrival_us, left: left - 1 });
    }
}

/// A request that is not answered yet.
#[derive(Clone, Copy)]
struct Asked {
    user: u32,
    canary: bool,
    arrival_us: u64,
}

impl Answers<'_> {
    fn answer(&self, asked: Asked, conditions: &Conditions, random: &mut Random) -> Request {
        let Asked { user, canary, arrival_us } = asked;
        let at = arrival_us as f64 * 1e-6;
        let arm = usize::from(canary);
        let (end, latency) = self.outcome(conditions, arm, at, random);
        Request { user, canary, arrival_us, end, latency_us: (latency * 1e6) as u32 }
    }

    /// How an arm answers a request that arrives at a moment; the latency is in seconds.
    fn outcome(
        &self,
        conditions: &Conditions,
        index: usize,
        at: f64,
        random: &mut Random,
    ) -> (End, f64) {
        let normal: f64 = StandardNormal.sample(random);
        let lot: f64 = random.random();
        let pod: f64 = random.random();
        let arm = &conditions.arms[index];
        let timeout = self.scenario.timeout.as_secs_f64();
        let Some(lot) = above(lot, arm.hang) else { return (End::Hung, timeout) };
        let behaviour = &self.scenario.baseline;
        let usual = behaviour.median.as_secs_f64()
            * (behaviour.sigma * normal).exp()
            * conditions.load
            * arm.latency_factor;
        let (failed, latency) = match above(lot, arm.errors) {
            None => (true, usual),
            Some(lot) => (false, self.latency(arm, lot, usual)),
        };
        let stalls = &self.stalls[index];
        let wait =
            if stalls.any() { stalls.wait((pod * stalls.pods() as f64) as usize, at) } else { 0.0 };
        let latency = latency + wait;
        match (latency >= timeout, failed) {
            (true, _) => (End::Hung, timeout),
            (false, true) => (End::Failed, latency),
            (false, false) => (End::Ok, latency),
        }
    }

    /// The latency of a request that does not fail, by what is left of its lot.
    fn latency(&self, arm: &Arm, lot: f64, usual: f64) -> f64 {
        let (tail_share, slower) = arm.tail;
        let Some(slow) = self.scenario.slow else { return tail(lot, tail_share, slower, usual) };
        match above(lot, slow.share) {
            None => {
                let [least, most] = slow.between.map(|bound| bound.as_secs_f64());
                least + (most - least) * (lot / slow.share)
            }
            Some(lot) => tail(lot, tail_share, slower, usual),
        }
    }
}

fn tail(lot: f64, share: f64, slower: Slower, usual: f64) -> f64 {
    match (lot < share, slower) {
        (true, Slower::Factor(factor)) => usual * factor,
        (true, Slower::Latency(latency)) => latency.as_secs_f64(),
        (false, _) => usual,
    }
}

/// What is left of a lot that does not fall to a share: again uniform from 0 to 1. `None` if it
/// falls to the share.
fn above(lot: f64, share: f64) -> Option<f64> {
    (lot >= share).then(|| (lot - share) / (1.0 - share))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::lab::scenario::{Behaviour, Change, LongRequests, Pause, Pods, Tail, Users};

    fn play(scenario: &Scenario, run: u32, ticks: u32, share: f64) -> Vec<Request> {
        let population = Population::new(scenario);
        let mut requests = Requests::new(scenario, &population, run, 0);
        let (mut tick, mut all) = (Vec::new(), Vec::new());
        for _ in 0..ticks {
            requests.next_tick(&mut tick, |_, coin| (coin as f64) < share * u64::MAX as f64);
            all.extend_from_slice(&tick);
        }
        all
    }

    fn share(requests: &[Request], hit: impl Fn(&Request) -> bool) -> f64 {
        requests.iter().filter(|request| hit(request)).count() as f64 / requests.len() as f64
    }

    #[test]
    fn the_same_run_is_the_same_and_another_is_not() {
        let scenario = Scenario::default();
        let first = play(&scenario, 3, 50, 0.05);
        assert_eq!(first, play(&scenario, 3, 50, 0.05));
        assert_ne!(first, play(&scenario, 4, 50, 0.05));
    }

    #[test]
    fn weights_do_not_change_who_comes_and_when() {
        let scenario =
            Scenario { users: Some(Users { count: 100, zipf: 1.1 }), ..Scenario::default() };
        let who = |share| {
            let requests = play(&scenario, 0, 100, share);
            requests.iter().map(|r| (r.user, r.arrival_us, r.latency_us)).collect::<Vec<_>>()
        };
        assert_eq!(who(0.01), who(0.5));
    }

    #[test]
    fn latencies_and_errors_are_as_the_scenario_says() {
        let requests = play(&Scenario::default(), 0, 4000, 0.05);
        assert!((requests.len() as f64 / 200_000.0 - 1.0).abs() < 0.01);
        assert!((share(&requests, |r| r.latency_us < 20_000) - 0.5).abs() < 0.005);
        // p99 of the log-normal law: 20 ms * exp(0.6 * 2.3263).
        assert!((share(&requests, |r| r.latency_us > 80_770) - 0.01).abs() < 0.001);
        assert!((share(&requests, |r| r.end == End::Failed) - 0.001).abs() < 0.0003);
        assert!((share(&requests, |r| r.canary) - 0.05).abs() < 0.003);
    }

    #[test]
    fn what_is_wrong_with_the_canary_shows_in_the_canary_alone() {
        let canary = Change {
            tail: Some(Tail { share: 0.1, slower: Slower::Latency(Duration::from_millis(700)) }),
            errors: Some(0.05),
            hang: 0.02,
            ..Change::default()
        };
        let scenario = Scenario { canary, ..Scenario::default() };
        let (hurt, fine): (Vec<_>, Vec<_>) =
            play(&scenario, 0, 4000, 0.5).into_iter().partition(|r| r.canary);
        assert!((share(&hurt, |r| r.end == End::Hung) - 0.02).abs() < 0.002);
        assert!((share(&hurt, |r| r.end == End::Failed) - 0.049).abs() < 0.004);
        assert!((share(&hurt, |r| r.latency_us == 700_000) - 0.0931).abs() < 0.006);
        assert_eq!(share(&fine, |r| r.end == End::Hung), 0.0);
        assert!(share(&fine, |r| r.end == End::Failed) < 0.002);
    }

    #[test]
    fn long_requests_end_within_their_bounds_or_hang() {
        let between = [Duration::from_secs(5), Duration::from_secs(30)];
        let slow = Some(LongRequests { share: 0.01, between });
        let scenario = Scenario { slow, timeout: Duration::from_secs(20), ..Scenario::default() };
        let requests = play(&scenario, 0, 4000, 0.05);
        assert!((share(&requests, |r| r.latency_us >= 5_000_000) - 0.01).abs() < 0.001);
        assert!((share(&requests, |r| r.end == End::Hung) - 0.004).abs() < 0.001);
    }

    #[test]
    fn what_arrives_during_a_stall_waits_for_its_end() {
        let pause = Pause { every: Duration::from_secs(59), length: Duration::from_secs(1) };
        let pods = Pods { baseline: 10, canary: 1, pause: Some(pause), known: true };
        let scenario = Scenario { pods: Some(pods), ..Scenario::default() };
        let late = share(&play(&scenario, 0, 20_000, 0.05), |r| r.latency_us > 500_000);
        // A request meets a stall with probability 1/60 and then waits up to a second.
        assert!((late - 1.0 / 120.0).abs() < 0.002, "{late}");
    }

    #[test]
    fn failures_are_repeated_and_move_nothing_else() {
        let baseline = Behaviour { errors: 0.2, ..Scenario::default().baseline };
        let plain = Scenario { baseline, ..Scenario::default() };
        let repeating = Scenario { retries: 2, ..plain.clone() };
        let [once, again] = [plain, repeating].map(|scenario| play(&scenario, 0, 2000, 0.05));
        let more = again.len() as f64 / once.len() as f64;
        assert!((more - 1.24).abs() < 0.01, "{more}");
        assert!((share(&again, |r| r.canary) - 0.05).abs() < 0.003);
        let of_tick = |requests: &[Request], tick: u64| {
            let within = requests.iter().filter(|r| r.arrival_us / 100_000 == tick);
            within.copied().collect::<Vec<_>>()
        };
        for tick in [0, 700, 1999] {
            let first = of_tick(&once, tick);
            assert_eq!(of_tick(&again, tick)[..first.len()], first);
        }
    }

    #[test]
    fn few_users_send_most_of_the_requests() {
        let scenario =
            Scenario { users: Some(Users { count: 5000, zipf: 1.1 }), ..Scenario::default() };
        let requests = play(&scenario, 0, 1000, 0.05);
        assert!(share(&requests, |r| r.user < 50) > 0.5);
        assert!(requests.iter().all(|r| r.user < 5000));
    }
}
