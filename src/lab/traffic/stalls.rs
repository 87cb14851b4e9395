//! Stalls of single pods, like pauses of a garbage collector: what arrives meanwhile waits for the
//! end. Each pod stalls on its own.

use rand_distr::{Distribution, Exp1};

use super::{Random, Stream, random};
use crate::lab::scenario::{Pause, Scenario};

/// The stalls of the pods of one arm.
#[derive(Debug)]
pub struct Stalls {
    pause: Option<Pause>,
    random: Random,
    /// Of every pod the stalls that may still matter, in order, the last one ahead of time.
    pods: Vec<Vec<(f64, f64)>>,
}

impl Stalls {
    /// The pods of an arm; `stream` tells the arms apart.
    #[must_use]
    pub fn new(scenario: &Scenario, run: u32, stream: Stream, pods: u32) -> Self {
        let pause = scenario.pods.and_then(|pods| pods.pause);
        let mut stalls = Self {
            pause,
            random: random(scenario.seed, run, stream),
            pods: vec![Vec::new(); pods as usize],
        };
        if let Some(pause) = pause {
            for pod in 0..stalls.pods.len() {
                let first = stalls.gap(pause);
                stalls.pods[pod].push((first, first + pause.length.as_secs_f64()));
            }
        }
        stalls
    }

    /// Makes sure that the stalls between two moments are known, and forgets what ended before.
    /// Moments never go back.
    pub fn advance(&mut self, from: f64, to: f64) {
        let Some(pause) = self.pause else { return };
        for pod in 0..self.pods.len() {
            while let Some(&(start, end)) = self.pods[pod].last()
                && start <= to
            {
                let next = end + self.gap(pause);
                self.pods[pod].push((next, next + pause.length.as_secs_f64()));
                self.pods[pod].retain(|&(_, end)| end >= from);
            }
        }
    }

    /// How long a request that arrives at a pod at a moment waits before it is taken up, in
    /// seconds. The moment lies between those of the last [`Stalls::advance`].
    #[must_use]
    pub fn wait(&self, pod: usize, at: f64) -> f64 {
        let stall = self.pods[pod].iter().find(|(start, end)| (*start..*end).contains(&at));
        stall.map_or(0.0, |(_, end)| end - at)
    }

    /// The share of the time between two moments during which a pod stalls, summed over pods.
    #[must_use]
    pub fn stalled(&self, from: f64, to: f64) -> f64 {
        let all = self.pods.iter().flatten();
        all.map(|&(start, end)| (end.min(to) - start.max(from)).max(0.0)).sum::<f64>() / (to - from)
    }

    /// Whether any pod ever stalls.
    #[must_use]
    pub fn any(&self) -> bool {
        self.pause.is_some()
    }

    /// Number of pods.
    #[must_use]
    pub fn pods(&self) -> usize {
        self.pods.len()
    }

    fn gap(&mut self, pause: Pause) -> f64 {
        let unit: f64 = Exp1.sample(&mut self.random);
        unit * pause.every.as_secs_f64()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::lab::scenario::Pods;

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn pods_stall_as_often_and_as_long_as_asked_for() {
        let pause = Pause { every: seconds(59), length: seconds(1) };
        let pods = Pods { baseline: 10, canary: 1, pause: Some(pause), known: true };
        let scenario = Scenario { pods: Some(pods), ..Scenario::default() };
        let mut stalls = Stalls::new(&scenario, 0, Stream::BaselinePods, 10);
        let (mut stalled, mut hits, seconds) = (0.0, 0, 20_000);
        for second in 0..seconds {
            let at = f64::from(second);
            stalls.advance(at, at + 1.0);
            stalled += stalls.stalled(at, at + 1.0);
            hits += (0..10).filter(|&pod| stalls.wait(pod, at + 0.5) > 0.0).count();
        }
        let pod_seconds = f64::from(seconds) * 10.0;
        assert!((0.014..0.020).contains(&(stalled / pod_seconds)), "{}", stalled / pod_seconds);
        assert!((0.014..0.020).contains(&(hits as f64 / pod_seconds)), "{hits}");
    }
}
