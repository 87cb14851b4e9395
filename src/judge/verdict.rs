//! What the judge says.

use serde::{Deserialize, Serialize};

use super::{Definition, Proof, Scope};

/// The verdict in one word, from good to bad.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Level {
    /// Enough was seen that a canary twice as bad would have shown, and nothing did.
    Healthy,
    /// Not enough evidence yet.
    Holding,
    /// Evidence of at least 20 : 1 against the canary.
    Caution,
    /// Evidence beyond the configured probability of a false rollback. Final for this version.
    Rollback,
}

/// Which bet leads.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Lead {
    /// Index of the component.
    pub component: usize,
    /// The kind of badness.
    pub definition: Definition,
    /// Share of its bank's wealth that is placed on it, 0 to 1.
    pub share: f64,
}

/// How the evidence of one component stands, as it counts in the union of all.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ComponentVerdict<'j> {
    /// Index of the component.
    pub component: usize,
    /// What it is.
    pub scope: Scope,
    /// Its name.
    pub name: &'j str,
    /// ln of its evidence for a rollback now.
    pub rollback_ln: f64,
    /// Its largest value so far.
    pub rollback_peak_ln: f64,
    /// Whether that passed the threshold.
    pub condemned: bool,
    /// Whether it does not count any more.
    pub set_aside: bool,
}

/// The state of the evidence after a block. Odds are natural logarithms of e-values after the
/// union over banks and components; all are finite.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Verdict {
    /// In one word.
    pub level: Level,
    /// ln of the evidence for a rollback now (blocks of the certified length).
    pub rollback_ln: f64,
    /// Its largest value so far; a rollback is latched on it.
    pub rollback_peak_ln: f64,
    /// ln of the evidence for caution now (blocks as handed over).
    pub caution_ln: f64,
    /// Its largest value so far.
    pub caution_peak_ln: f64,
    /// ln of the evidence at which the canary is rolled back.
    pub threshold_ln: f64,
    /// The leading bet, once its odds exceed 1 : 1.
    pub lead: Option<Lead>,
}

impl Verdict {
    /// The evidence against the canary as odds, shown up to 1e12.
    #[must_use]
    pub fn odds(&self) -> f64 {
        self.rollback_ln.max(self.caution_ln).min(27.631_021_115_928_547).exp()
    }
}

/// The proofs of a stage.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Proofs {
    /// Whether every proof was given at some time in this stage.
    pub proved: bool,
    /// Whether the evidence against the canary is below 3 : 1 now.
    pub undoubted: bool,
    /// The proof with the least evidence, and ln of it.
    pub weakest: Proof,
    /// ln of its evidence.
    pub weakest_ln: f64,
    /// ln of the evidence that each proof needs.
    pub threshold_ln: f64,
    /// Time judged in this stage, in seconds.
    pub seconds: f64,
    /// Canary trials of this stage.
    pub canary_trials: u64,
}
