//! Promotion: proof that the canary is not worse than the margin, fresh at every stage.

use serde::{Deserialize, Serialize};

use super::{
    Ending, JudgeConfig, TrialCounts, TrialStratum, Trials,
    definition::Bins,
    thinning::{Assigned, Tally, Thinning},
    wealth::Wealth,
};

/// The blocks of a second below which no traffic proves a stage: the best bet of a promotion
/// grows by at most `ln(1 + .98 (pi_N - pi_1) / (1 - pi_N))` a block (the logarithm of its mean
/// factor, so that any wealth needs at least this many: Wald 1945). `weight` is the canary's share,
/// 0 to 1, `ratio` the bad rate at the margin over that of a healthy canary, above 1.
#[must_use]
pub fn bake_floor_blocks(weight: f64, ratio: f64, false_promotion: f64) -> f64 {
    let healthy = weight / (weight + (1.0 - weight) * ratio);
    let growth = (0.98 * (weight - healthy) / (1.0 - weight)).ln_1p();
    -false_promotion.ln() / growth.max(1e-12)
}

/// What a promotion proves, each on its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Proof {
    /// Failures by the late age.
    Errors,
    /// Slower than p90.
    P90,
    /// Slower than p99.
    P99,
    /// Slower than the quantile of the objective.
    Objective,
}

impl Proof {
    /// All proofs.
    pub const ALL: [Self; 4] = [Self::Errors, Self::P90, Self::P99, Self::Objective];

    /// How a person would call it.
    #[must_use]
    pub const fn phrase(self) -> &'static str {
        match self {
            Self::Errors => "errors",
            Self::P90 => "p90",
            Self::P99 => "p99",
            Self::Objective => "the objective's quantile",
        }
    }

    /// Bad trials of an arm.
    pub(super) const fn bad(self, counts: &TrialCounts) -> u64 {
        match self {
            Self::Errors => counts.failed,
            Self::P90 => counts.beyond_margin[0],
            Self::P99 => counts.beyond_margin[1],
            Self::Objective => counts.beyond_margin[2],
        }
    }
}

/// Fractions of the largest stake that the bets of a promotion take, and what lies on each. Most
/// lies on the largest: with many bad events a block it is the best, and the floor on the bake
/// time is its growth.
const FRACTIONS: [f64; 5] = [0.1, 0.25, 0.5, 0.75, 0.98];
const PLACES: [f64; 5] = [0.1, 0.1, 0.15, 0.15, 0.5];

/// The wealth of bets against "the canary is worse than the margin".
///
/// The factor of a block is `e = 1 - c * pi*/(1 - pi*) * x` with the observation x of matched
/// thinning at the margin: its mean is at most one if the canary's bad events are at least its
/// share, because x then has mean at least zero (Waudby-Smith, Ramdas, arXiv 2010.09686, bets on
/// a bounded mean from below). Nothing is kept as cash: a healthy canary is healthy from the start.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct NonInferiority {
    wealth: Wealth,
}

impl NonInferiority {
    pub(super) fn new() -> Self {
        Self { wealth: Wealth::new(&PLACES) }
    }

    pub(super) const fn ln(&self) -> f64 {
        self.wealth.ln()
    }

    /// One block, `x` the upper one of [`Thinning::observe_both`].
    pub(super) fn update(&mut self, x: f64, pod_share: f64) {
        let odds = pod_share / (1.0 - pod_share);
        let factors = FRACTIONS.map(|c| (1.0 - c * odds * x).max(0.0));
        self.wealth.update(&PLACES, &factors, 0.0);
    }
}

/// The proofs of one stage. A stage is proved when every critical one is: no correction for their
/// number is due (intersection-union test: Berger, Technometrics 1982).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Promotion {
    proofs: Vec<(Proof, NonInferiority, f64)>,
    seconds: f64,
    canary_trials: u64,
}

impl Promotion {
    pub(super) fn new(config: &JudgeConfig) -> Self {
        let wanted = |p: &Proof| *p != Proof::Objective || config.prove_objective;
        Self {
            proofs: Proof::ALL
                .into_iter()
                .filter(wanted)
                .map(|p| (p, NonInferiority::new(), 0.0))
                .collect(),
            seconds: 0.0,
            canary_trials: 0,
        }
    }

    pub(super) fn add(
        &mut self,
        trials: &Trials<'_>,
        config: &JudgeConfig,
        thinning: &mut Thinning,
    ) {
        if trials.ending == Ending::Reacted {
            return;
        }
        self.seconds += f64::from(trials.ticks) * super::TICK_SECONDS;
        for stratum in trials.strata {
            self.canary_trials = self.canary_trials.saturating_add(stratum.canary.started);
        }
        if !thinning.prepare(assigned(trials.strata), trials.pods, 1.0) {
            return;
        }
        for (proof, bets, peak_ln) in &mut self.proofs {
            let tolerance = if *proof == Proof::Errors { config.margin_errors } else { 0.0 };
            let counts = |i: usize| tally(&trials.strata[i], |c| proof.bad(c));
            let (_, x) = thinning.observe_both(tolerance, counts);
            bets.update(x, thinning.pod_share());
            *peak_ln = peak_ln.max(bets.ln());
        }
    }

    /// The proofs with ln of their evidence now and at its peak.
    pub(super) fn proofs(&self) -> impl Iterator<Item = (Proof, f64, f64)> + '_ {
        self.proofs.iter().map(|(proof, bets, peak_ln)| (*proof, bets.ln(), *peak_ln))
    }

    /// Whether every proof has been given at some time in this stage.
    pub(super) fn proved(&self, config: &JudgeConfig) -> bool {
        let threshold_ln = -config.false_promotion.ln();
        self.proofs.iter().all(|(_, _, peak_ln)| *peak_ln >= threshold_ln)
    }

    pub(super) const fn seconds(&self) -> f64 {
        self.seconds
    }

    pub(super) const fn canary_trials(&self) -> u64 {
        self.canary_trials
    }
}

pub(super) fn assigned(strata: &[TrialStratum]) -> impl Iterator<Item = Assigned> + Clone + '_ {
    strata.iter().map(|stratum| Assigned {
        coin: stratum.coin,
        canary: stratum.canary.started,
        baseline: stratum.baseline.started,
    })
}

pub(super) fn tally(stratum: &TrialStratum, bad: impl Fn(&TrialCounts) -> u64) -> Tally {
    tally_of(bad(&stratum.canary), bad(&stratum.baseline), stratum.baseline.started)
}

pub(super) fn tally_of(canary: u64, baseline: u64, baseline_started: u64) -> Tally {
    Tally {
        canary: Bins::one(canary),
        baseline: Bins::one(baseline),
        good_baseline: baseline_started.saturating_sub(baseline) as f64,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_floor_falls_with_the_weight() {
        let floor = |weight| bake_floor_blocks(weight, 1.5, 0.01).round();
        assert_eq!([floor(0.01), floor(0.1), floor(0.5)], [1407.0, 139.0, 26.0]);
    }
}
