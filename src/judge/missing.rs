//! What is missing until a proof, at today's rate.

use serde::{Deserialize, Serialize};

use super::{
    Ending, JudgeConfig, TICK_SECONDS, Trials,
    promotion::{Promotion, Proof, bake_floor_blocks},
};

/// Memory of the rates in seconds.
const RECENT: f64 = 120.0;

/// Bad requests of the canary that a canary twice as bad would have needed to be found: the
/// information of a doubled rate is 2 ln 2 - 1 a bad request of the baseline's rate.
const DOUBLED: f64 = 0.386_294_361_119_890_6;

/// Blocks without which nothing can be proved, whatever the traffic.
const LEAST_SECONDS: f64 = 15.0;

/// What is missing.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Missing {
    /// The proof that will take longest.
    pub proof: Proof,
    /// Canary requests until then.
    pub canary_requests: u64,
    /// Seconds until then at the rate of the last minutes; `None` without canary traffic.
    pub seconds: Option<f64>,
}

/// Requests of the canary without which it is taken for a healthy one, and how many times as often
/// the baseline then goes beyond a quantile as the canary goes beyond the margin.
const LEAST_TO_GUESS: f64 = 100.0;
const USUAL_RATIO: f64 = 2.0;

/// Decayed rates of the trials, per second.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Rates {
    seconds: f64,
    canary: f64,
    baseline: f64,
    /// Bad requests of the baseline by proof, and of the canary beyond the margin.
    baseline_bad: [f64; Proof::ALL.len()],
    canary_bad: [f64; Proof::ALL.len()],
    /// All canary trials since the rollout began, and the time.
    canary_total: f64,
    total_seconds: f64,
}

impl Rates {
    pub(super) fn add(&mut self, trials: &Trials<'_>) {
        if trials.ending == Ending::Reacted {
            return;
        }
        let seconds = f64::from(trials.ticks) * TICK_SECONDS;
        let keep = (-seconds / RECENT).exp();
        self.seconds = self.seconds * keep + seconds;
        self.total_seconds += seconds;
        for sum in [&mut self.canary, &mut self.baseline]
            .into_iter()
            .chain(&mut self.baseline_bad)
            .chain(&mut self.canary_bad)
        {
            *sum *= keep;
        }
        for stratum in trials.strata {
            self.canary += stratum.canary.started as f64;
            self.canary_total += stratum.canary.started as f64;
            self.baseline += stratum.baseline.started as f64;
            for (i, proof) in Proof::ALL.into_iter().enumerate() {
                self.baseline_bad[i] += proof.bad(&stratum.baseline) as f64;
                self.canary_bad[i] += proof.bad(&stratum.canary) as f64;
            }
        }
    }

    /// Canary requests per second.
    fn canary_rate(&self) -> Option<f64> {
        (self.seconds > 0.0 && self.canary > 0.0).then(|| self.canary / self.seconds)
    }

    /// Whether a canary that is slow twice as often at p90 would have shown by now.
    pub(super) fn would_have_shown(&self, config: &JudgeConfig) -> bool {
        let share = self.share_of_bad(1).unwrap_or(0.1);
        let wanted = -config.false_rollback.ln() * 1.5 / (share.max(0.01) * DOUBLED);
        self.canary_total >= wanted.max(500.0)
            && self.total_seconds >= LEAST_SECONDS.max(3.0 * config.block_seconds())
    }

    fn share_of_bad(&self, proof: usize) -> Option<f64> {
        (self.baseline >= 100.0).then(|| self.baseline_bad[proof] / self.baseline)
    }

    /// The planned need of a proof from nothing: canary requests by information
    /// `ln(1/alpha) / (p (r - 1 - ln r))` (Wald 1945 for the mean sample number), and seconds
    /// below which no bet can grow enough.
    fn planned(&self, proof: Proof, config: &JudgeConfig) -> (f64, f64) {
        let index = Proof::ALL.iter().position(|p| *p == proof).unwrap_or(0);
        let wanted_ln = -config.false_promotion.ln();
        let pi = (self.canary / (self.canary + self.baseline)).clamp(1e-4, 0.95);
        let (requests, ratio) = match proof {
            Proof::Errors => {
                let base = self.share_of_bad(index).unwrap_or(0.0);
                let margin = config.margin_errors.max(1e-5);
                // Information of the rate base against base + margin.
                let ratio = (base + margin) / base.max(1e-9);
                let information = (base * (ratio - 1.0 - ratio.ln())).max(margin * 0.05);
                let information = if base < 1e-6 { margin } else { information };
                (1.2 * wanted_ln / information, ratio.min(1e3))
            }
            Proof::P90 | Proof::P99 | Proof::Objective => {
                let usual = if proof == Proof::P90 { 0.1 } else { 0.01 };
                let base = self.share_of_bad(index).unwrap_or(usual).max(1e-5);
                let beyond = (self.canary_bad[index] + 1.0) / (self.canary + 1.0 / base);
                let known = self.canary >= LEAST_TO_GUESS;
                let ratio = if known { (base / beyond).clamp(1.05, 20.0) } else { USUAL_RATIO };
                // The canary's rate beyond the margin is the baseline's over the ratio.
                let information = base / ratio * (ratio - 1.0 - ratio.ln());
                ((wanted_ln + 0.3) / information.max(1e-9), ratio)
            }
        };
        (requests, bake_floor_blocks(pi, ratio, config.false_promotion))
    }

    /// What is missing until the stage is proved; `None` if nothing is.
    pub(super) fn missing(&self, promotion: &Promotion, config: &JudgeConfig) -> Option<Missing> {
        let wanted_ln = -config.false_promotion.ln();
        let mut longest: Option<Missing> = None;
        for (proof, ln, peak_ln) in promotion.proofs() {
            if peak_ln >= wanted_ln {
                continue;
            }
            let left = ((wanted_ln - ln) / wanted_ln).max(0.05);
            let (requests, floor_seconds) = self.planned(proof, config);
            let rate = self.canary_rate();
            let seconds = rate.map(|rate| left * (requests / rate + floor_seconds));
            let floor_requests = rate.map_or(0.0, |rate| rate * floor_seconds);
            let requests = (left * (requests + floor_requests)).ceil() as u64;
            let missing = Missing { proof, canary_requests: requests, seconds };
            if longest.is_none_or(|m| m.canary_requests < requests) {
                longest = Some(missing);
            }
        }
        longest
    }
}
