//! A bank: the definitions whose counts are final at the same time, and the wealth on them.

use serde::{Deserialize, Serialize};

use super::{
    BankName, Definition, bets,
    wealth::{Wealth, ln_mean},
};

/// Part of the wealth that is never handed back to the prior: it finds drifts too slow for the
/// other part.
const STEADY: f64 = 0.25;

/// The wealth of one component on one group of definitions.
///
/// Two parts are averaged, one that shares and one that does not: averages of supermartingales in
/// one filtration are supermartingales (Vovk, Wang, arXiv 1912.06116). What is shared falls with
/// the time judged, so that a long healthy stage does not bleed the wealth out (Adamskiy, Koolen,
/// Chernov, Vovk, "A closer look at adaptive regret", ALT 2012).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Bank {
    name: BankName,
    definitions: Vec<Definition>,
    prior: Vec<f64>,
    steady: Wealth,
    sharing: Wealth,
    /// Time judged.
    seconds: f64,
    ln: f64,
    peak_ln: f64,
}

impl Bank {
    /// `None` if none of the armed definitions belongs to it.
    pub(super) fn new(name: BankName, armed: &[Definition]) -> Option<Self> {
        let definitions: Vec<Definition> =
            Definition::ALL.into_iter().filter(|d| d.bank() == name && armed.contains(d)).collect();
        if definitions.is_empty() {
            return None;
        }
        let prior = bets::prior(&definitions);
        let wealth = Wealth::new(&prior);
        Some(Self {
            name,
            definitions,
            prior,
            steady: wealth.clone(),
            sharing: wealth,
            seconds: 0.0,
            ln: 0.0,
            peak_ln: 0.0,
        })
    }

    pub(super) const fn name(&self) -> BankName {
        self.name
    }

    pub(super) fn definitions(&self) -> &[Definition] {
        &self.definitions
    }

    /// One block. `observations` are those of the definitions in order, `factors` is room for the
    /// bets. Of the sharing part, the block's part of `memory` and of the time judged so far is
    /// handed back first.
    pub(super) fn update(
        &mut self,
        observations: &[f64],
        seconds: f64,
        memory: f64,
        factors: &mut Vec<f64>,
    ) {
        let shared = seconds / (memory + self.seconds + seconds);
        self.seconds += seconds;
        if observations.iter().all(|x| *x == 0.0) {
            // Every bet pays back what it stakes: only the sharing part moves, within itself.
            self.sharing.share(&self.prior, shared);
            return;
        }
        factors.clear();
        factors.push(1.0);
        for x in observations {
            factors.extend(bets::STAKES.iter().map(|stake| stake.mul_add(*x, 1.0)));
        }
        self.steady.update(&self.prior, factors, 0.0);
        self.sharing.update(&self.prior, factors, shared);
        self.ln = ln_mean(STEADY, self.steady.ln(), self.sharing.ln());
        self.peak_ln = self.peak_ln.max(self.ln);
    }

    /// Whether another bank of the same definitions is where this one is.
    pub(super) fn is_at(&self, other: &Self) -> bool {
        self.seconds == other.seconds
            && self.peak_ln == other.peak_ln
            && self.steady.is_at(&other.steady)
            && self.sharing.is_at(&other.sharing)
    }

    /// Goes to where another bank of the same definitions is.
    pub(super) fn follow(&mut self, other: &Self) {
        self.steady.copy_from(&other.steady);
        self.sharing.copy_from(&other.sharing);
        (self.seconds, self.ln, self.peak_ln) = (other.seconds, other.ln, other.peak_ln);
    }

    /// ln of the wealth.
    pub(super) const fn ln(&self) -> f64 {
        self.ln
    }

    /// Its largest value so far.
    pub(super) const fn peak_ln(&self) -> f64 {
        self.peak_ln
    }

    /// The definition on which most of the wealth lies, and its share.
    pub(super) fn lead(&self) -> (Definition, f64) {
        let steady = (self.steady.ln() - self.ln).exp() * STEADY;
        let per = bets::STAKES.len();
        let mut lead = (self.definitions[0], 0.0);
        for (i, definition) in self.definitions.iter().enumerate() {
            let places = 1 + i * per..1 + (i + 1) * per;
            let on = |wealth: &Wealth| wealth.places()[places.clone()].iter().sum::<f64>();
            let share = steady * on(&self.steady) + (1.0 - steady) * on(&self.sharing);
            if share > lead.1 {
                lead = (*definition, share);
            }
        }
        lead
    }
}
