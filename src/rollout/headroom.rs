//! Headroom: how much traffic a baseline has lately carried, and so how fast it may get back what
//! a canary is taken away. It limits nothing where the canary fails outright.

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
};

use crate::routing::BUCKETS;

/// Minutes that are looked back.
const MINUTES: usize = 60;
const MINUTE: u32 = 60;

/// By how much a baseline's traffic may rise beyond what it carried, in one second.
const RISE: f64 = 1.2;

/// Below this many requests a second nothing is worth being careful about.
const LITTLE: f64 = 50.0;

/// The peaks of all services.
#[derive(Debug, Default)]
pub(super) struct Headroom {
    second: u32,
    services: HashMap<Arc<str>, Peaks>,
}

/// Requests per second.
#[derive(Debug, Default)]
struct Peaks {
    /// The most that the baseline carried in a second, minute by minute.
    by_minute: VecDeque<f64>,
    /// All arms, in the last second.
    all: f64,
}

impl Headroom {
    /// A second is over in which a service's baseline and all of its arms got so many requests.
    pub(super) fn second(&mut self, counts: impl Iterator<Item = (Arc<str>, u64, u64)>) {
        self.second = self.second.wrapping_add(1);
        for (service, baseline, all) in counts {
            let peaks = self.services.entry(service).or_default();
            if peaks.by_minute.is_empty() || self.second.is_multiple_of(MINUTE) {
                peaks.by_minute.push_back(0.0);
            }
            if peaks.by_minute.len() > MINUTES {
                peaks.by_minute.pop_front();
            }
            if let Some(peak) = peaks.by_minute.back_mut() {
                *peak = peak.max(baseline as f64);
            }
            peaks.all = all as f64;
        }
    }

    /// The weights that a service's canaries may fall to from those in force: the targets, or
    /// what leaves the baseline no more than it can be expected to carry.
    pub(super) fn descend(&self, service: &str, in_force: &[u16], targets: &[u16]) -> Vec<u16> {
        let [from, to] = [in_force, targets].map(|weights| weights.iter().copied().sum::<u16>());
        let Some(peaks) = self.services.get(service).filter(|_| to < from) else {
            return targets.to_vec();
        };
        let all = BUCKETS as f64;
        let carried = peaks.by_minute.iter().copied().fold(0.0, f64::max);
        let now = peaks.all * (all - f64::from(from)) / all;
        let most = (carried.max(now) * RISE).max(LITTLE);
        if peaks.all * (all - f64::from(to)) / all <= most {
            return targets.to_vec();
        }
        // What all canaries keep together, and each of those that fall its part of it.
        let keep = (1.0 - most / peaks.all) * all;
        let part = ((keep - f64::from(to)) / f64::from(from - to)).clamp(0.0, 1.0);
        let step = |(in_force, target): (&u16, &u16)| {
            let falls = f64::from(in_force.saturating_sub(*target));
            target + (falls * part) as u16
        };
        in_force.iter().zip(targets).map(step).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(seconds: &[(u64, u64)]) -> Headroom {
        let mut headroom = Headroom::default();
        for (baseline, all) in seconds {
            headroom.second(std::iter::once(("shop".into(), *baseline, *all)));
        }
        headroom
    }

    #[test]
    fn what_the_baseline_carried_within_the_hour_it_gets_back_at_once() {
        let headroom = after(&[(1000, 1000), (500, 1000)]);
        assert_eq!(headroom.descend("shop", &[5000], &[0]), [0]);
        assert_eq!(headroom.descend("elsewhere", &[5000], &[0]), [0]);
    }

    #[test]
    fn beyond_that_its_traffic_rises_by_a_fifth_a_second() {
        let headroom = after(&[(500, 1000)]);
        assert_eq!(headroom.descend("shop", &[5000], &[0]), [4000]);
        let mut weights = vec![9000];
        let mut seconds = 0;
        while weights != [0] {
            let carried = 10_000 - weights[0];
            let next = after(&[(u64::from(carried), 10_000)]).descend("shop", &weights, &[0]);
            let rise = f64::from(10_000 - next[0]) / f64::from(carried);
            assert!(next < weights && rise <= RISE + 0.001, "{weights:?} to {next:?}");
            (weights, seconds) = (next, seconds + 1);
        }
        assert_eq!(seconds, 13);
    }

    #[test]
    fn of_several_canaries_only_those_fall_that_shall() {
        let headroom = after(&[(4000, 10_000)]);
        assert_eq!(headroom.descend("shop", &[3000, 3000], &[3000, 0]), [3000, 2200]);
    }

    #[test]
    fn a_raise_and_little_traffic_are_not_held_up() {
        assert_eq!(after(&[(500, 1000)]).descend("shop", &[100], &[2500]), [2500]);
        assert_eq!(after(&[(1, 40)]).descend("shop", &[9500], &[0]), [0]);
    }

    #[test]
    fn an_hour_later_a_peak_is_forgotten() {
        let mut seconds = vec![(1000, 1000)];
        seconds.extend(std::iter::repeat_n((100, 1000), 62 * 60));
        assert_eq!(after(&seconds).descend("shop", &[9000], &[0]), [8800]);
    }
}
