//! Evidence from single requests, for comparison: it needs every bad event to fall on an arm by a
//! coin of its own, which a disturbed pod breaks. Nothing is ever decided by it.

/// Ratios of bad rates that are bet on, and what lies on each.
const RATIOS: [f64; 8] = [1.25, 1.5, 2.0, 3.0, 5.0, 10.0, 30.0, 300.0];
const PLACES: [f64; RATIOS.len()] = [0.12, 0.18, 0.22, 0.16, 0.12, 0.10, 0.06, 0.04];

/// The likelihood of the canary's share of the bad events under each ratio over that under equal
/// versions (Wald 1945), mixed over the ratios.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct ByRequest {
    ln: [f64; RATIOS.len()],
}

impl ByRequest {
    /// Adds bad events of the canary and of the baseline at the canary's weight; ln of the
    /// evidence so far.
    pub(super) fn add(&mut self, [canary, baseline]: [u64; 2], weight: f64) -> f64 {
        for (ln, ratio) in self.ln.iter_mut().zip(RATIOS) {
            let all = (1.0 - weight + weight * ratio).ln();
            *ln += canary as f64 * ratio.ln() - (canary + baseline) as f64 * all;
        }
        let top = self.ln.into_iter().fold(f64::MIN, f64::max);
        let parts = self.ln.iter().zip(PLACES).map(|(ln, place)| place * (ln - top).exp());
        top + parts.sum::<f64>().ln()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        judge::{Definition, Pods},
        lab::blocks::{Pause, Setting, Stage, many},
    };

    #[test]
    fn a_doubled_rate_is_found() {
        let mut evidence = ByRequest::default();
        let found = (1..=200).find(|_| evidence.add([1, 9], 0.05) >= 1000.0_f64.ln());
        assert!(found.is_some_and(|seconds| (20..60).contains(&seconds)), "{found:?}");
    }

    #[test]
    fn equal_requests_are_no_evidence_and_stalled_pods_are() {
        let rolled_back = |setting: &Setting| {
            let stage = Stage::new(setting);
            let play = |run| stage.play_by_request(Definition::SlowP99, 3, run);
            many(40, 2, play).iter().filter(|outcome| outcome.rolled_back.is_some()).count()
        };
        let still = Setting { seconds: 900, ..Setting::plain() };
        assert_eq!(rolled_back(&still), 0);
        let stalling = Setting {
            pods: Some(Pods { canary: 1, baseline: 10 }),
            pause: Some(Pause { every: 300.0, length: 1.0 }),
            ..still
        };
        assert!(rolled_back(&stalling) >= 6);
    }
}
