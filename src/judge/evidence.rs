//! The evidence against a canary: banks by component, and their union.

use serde::{Deserialize, Serialize};

use super::{
    BankName, Block, Definition, Ending, JudgeConfig, Lead, Scope,
    bank::Bank,
    gather::Gathering,
    thinning::{Assigned, Tally, Thinning},
};
use crate::judge::{Component, Lag, TICK_SECONDS};

/// Ratio of slow requests that is tolerated while the canary warms up.
const WARMING: f64 = 5.0;

/// What is kept for components that come later, of a weight of one in all.
const RESERVE: f64 = 0.05;

/// Weights of the banks in the union.
const fn bank_weight(name: BankName) -> f64 {
    match name {
        BankName::Errors => 0.38,
        BankName::Slow => 0.43,
        BankName::Tail => 0.14,
        BankName::Refused => 0.05,
    }
}

/// One bank in the union, twice: on stretches as handed over (caution) and on blocks of the
/// certified length (rollback).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Member {
    /// ln of its weight in the union.
    weight_ln: f64,
    caution: Bank,
    rollback: Bank,
}

/// The evidence of one component.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Watched {
    members: Vec<Member>,
    gathered: Vec<Gathering>,
    /// Whether it does not count any more.
    set_aside: bool,
}

/// The evidence of all components.
///
/// The decision statistic is the largest of the members' wealths, each times its weight: the
/// weights sum to at most one, so the probability that it ever reaches 1/alpha is at most alpha
/// for any dependence between members, across lags and filtrations (union bound over Ville's
/// inequality; that averages would not do across filtrations: Choe, Ramdas, arXiv 2402.09698).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Evidence {
    watched: Vec<Watched>,
    armed: Vec<Definition>,
    late: u32,
}

/// Room for the work on one block.
#[derive(Clone, Debug)]
pub(super) struct Workbench {
    thinning: Thinning,
    /// The stretch at hand with the strata of its shards joined.
    stretch: Gathering,
    observations: Vec<f64>,
    factors: Vec<f64>,
}

impl Workbench {
    pub(super) fn new() -> Self {
        Self {
            thinning: Thinning::new(),
            stretch: Gathering::new(Lag::Early),
            observations: Vec::with_capacity(Definition::ALL.len()),
            factors: Vec::with_capacity(1 + Definition::ALL.len() * super::bets::STAKES.len()),
        }
    }
}

impl Evidence {
    pub(super) fn new(config: &JudgeConfig) -> Self {
        let mut evidence = Self {
            watched: Vec::with_capacity(config.components.len()),
            armed: config.definitions.clone(),
            late: 0,
        };
        for weight in component_weights(&config.components) {
            evidence.watch(weight * (1.0 - RESERVE));
        }
        evidence
    }

    /// Watches one more component from now on, on a part of the reserve; returns its index.
    pub(super) fn watch_late(&mut self) -> usize {
        // The series of 1/k^2 sums to pi^2/6: there is room for any number of them.
        self.late = self.late.saturating_add(1);
        let k = f64::from(self.late);
        self.watch(RESERVE * 6.0 / (std::f64::consts::PI.powi(2) * k * k));
        self.watched.len() - 1
    }

    fn watch(&mut self, weight: f64) {
        let banks: Vec<Bank> =
            BankName::ALL.into_iter().filter_map(|name| Bank::new(name, &self.armed)).collect();
        let total: f64 = banks.iter().map(|bank| bank_weight(bank.name())).sum();
        let member = |bank: Bank| Member {
            weight_ln: (weight * bank_weight(bank.name()) / total).max(1e-12).ln(),
            rollback: bank.clone(),
            caution: bank,
        };
        self.watched.push(Watched {
            members: banks.into_iter().map(member).collect(),
            gathered: Lag::ALL.into_iter().map(Gathering::new).collect(),
            set_aside: false,
        });
    }

    /// Makes the room that a snapshot does not carry, so that nothing is allocated later.
    pub(super) fn make_room(&mut self) {
        self.watched.iter_mut().flat_map(|w| &mut w.gathered).for_each(Gathering::make_room);
    }

    /// Takes in one stretch.
    pub(super) fn add(
        &mut self,
        block: &Block<'_>,
        config: &JudgeConfig,
        block_ticks: u32,
        bench: &mut Workbench,
    ) {
        let Some(watched) = self.watched.get_mut(block.component) else {
            return;
        };
        let Watched { members, gathered, .. } = watched;
        let Some(gathering) = gathered.iter_mut().find(|g| g.lag() == block.lag) else {
            return;
        };
        let complete = gathering.add(block, block_ticks);
        if block.ending == Ending::Reacted {
            return;
        }
        let mut joined = std::mem::take(&mut bench.stretch);
        let stretch = if block.strata.len() > 1 {
            joined.clear();
            joined.add(block, block.ticks);
            joined.block(block.component)
        } else {
            *block
        };
        let whole = gathering.block(block.component);
        let same = complete && whole.ticks == stretch.ticks;
        for member in members.iter_mut().filter(|m| m.caution.name().lag() == block.lag) {
            let level = same && member.rollback.is_at(&member.caution);
            bench.bet(&stretch, &mut member.caution, config);
            if level {
                // The same wealth on the same observations: every block was one stretch so far.
                member.rollback.follow(&member.caution);
            } else if same {
                // The stretch is the block: its observations stand.
                bench.settle(&stretch, &mut member.rollback, config);
            } else if complete {
                bench.bet(&whole, &mut member.rollback, config);
            }
        }
        bench.stretch = joined;
        if complete {
            gathering.clear();
        }
    }

    /// ln of the evidence for a rollback: now and at its peak.
    pub(super) fn rollback_ln(&self) -> (f64, f64) {
        self.union(|member| &member.rollback)
    }

    /// ln of the evidence for caution: now and at its peak.
    pub(super) fn caution_ln(&self) -> (f64, f64) {
        self.union(|member| &member.caution)
    }

    fn union(&self, pick: impl Fn(&Member) -> &Bank) -> (f64, f64) {
        let mut union = (f64::MIN, f64::MIN);
        let counted = self.watched.iter().filter(|w| !w.set_aside);
        for member in counted.flat_map(|w| &w.members) {
            let bank = pick(member);
            union.0 = union.0.max(bank.ln() + member.weight_ln);
            union.1 = union.1.max(bank.peak_ln() + member.weight_ln);
        }
        union
    }

    /// ln of the wealth of every member, without its weight.
    #[cfg(test)]
    pub(super) fn wealth_ln(&self) -> impl Iterator<Item = f64> + '_ {
        self.watched.iter().flat_map(|w| &w.members).map(|m| m.rollback.ln())
    }

    /// The leading bet among those for rollback and for caution, once it is ahead at all.
    pub(super) fn lead(&self) -> Option<Lead> {
        let mut lead = None;
        let mut best = 0.0;
        for (component, watched) in self.watched.iter().enumerate().filter(|(_, w)| !w.set_aside) {
            for member in &watched.members {
                for bank in [&member.rollback, &member.caution] {
                    if bank.ln() + member.weight_ln > best {
                        best = bank.ln() + member.weight_ln;
                        let (definition, share) = bank.lead();
                        lead = Some(Lead { component, definition, share });
                    }
                }
            }
        }
        lead
    }

    /// A component does not count any more: its traffic is taken away from the canary.
    pub(super) fn set_aside(&mut self, component: usize) {
        if let Some(watched) = self.watched.get_mut(component) {
            watched.set_aside = true;
        }
    }

    pub(super) fn is_set_aside(&self, component: usize) -> bool {
        self.watched.get(component).is_some_and(|watched| watched.set_aside)
    }

    /// ln of the evidence of one component as it counts in the union: now, and at its peak.
    pub(super) fn of_component(&self, component: usize) -> (f64, f64) {
        let mut union = (f64::MIN, f64::MIN);
        for member in self.watched.get(component).into_iter().flat_map(|w| &w.members) {
            union.0 = union.0.max(member.rollback.ln() + member.weight_ln);
            union.1 = union.1.max(member.rollback.peak_ln() + member.weight_ln);
        }
        union
    }

    /// ln of the largest wealth of one component, whatever its weight in the union.
    pub(super) fn unweighted_ln(&self, component: usize) -> f64 {
        let members = self.watched.get(component).into_iter().flat_map(|w| &w.members);
        members.map(|member| member.rollback.ln().max(member.caution.ln())).fold(f64::MIN, f64::max)
    }

    /// Strata that found no room in a block.
    pub(super) fn left_out(&self) -> u64 {
        self.watched.iter().flat_map(|w| &w.gathered).map(Gathering::left_out).sum()
    }
}

impl Workbench {
    pub(super) fn thinning(&mut self) -> &mut Thinning {
        &mut self.thinning
    }

    pub(super) fn bet(&mut self, block: &Block<'_>, bank: &mut Bank, config: &JudgeConfig) {
        self.observations.clear();
        let assigned = block.strata.iter().map(|stratum| Assigned {
            coin: stratum.coin,
            canary: stratum.canary.started,
            baseline: stratum.baseline.started,
        });
        let mut prepared: Option<(f64, bool)> = None;
        for definition in bank.definitions() {
            let tolerated = if block.warming && definition.is_slowness() { WARMING } else { 1.0 };
            let usable = match prepared {
                Some((same, usable)) if same == tolerated => usable,
                Some(_) | None => self.thinning.prepare(assigned.clone(), block.pods, tolerated),
            };
            prepared = Some((tolerated, usable));
            let x = if usable {
                self.thinning.observe(tolerance(*definition, config), |i| {
                    tally(&block.strata[i], *definition)
                })
            } else {
                0.0
            };
            self.observations.push(x);
        }
        self.settle(block, bank, config);
    }

    /// Places the observations of the last bet on another bank of the same definitions.
    fn settle(&mut self, block: &Block<'_>, bank: &mut Bank, config: &JudgeConfig) {
        let seconds = f64::from(block.ticks.max(1)) * TICK_SECONDS;
        bank.update(&self.observations, seconds, config.memory_seconds, &mut self.factors);
    }
}

fn tally(stratum: &super::Stratum, definition: Definition) -> Tally {
    let canary = definition.bins(&stratum.canary);
    let baseline = definition.bins(&stratum.baseline);
    let bad = baseline.used()[0].1;
    Tally { canary, baseline, good_baseline: (stratum.baseline.started as f64 - bad).max(0.0) }
}

const fn tolerance(definition: Definition, config: &JudgeConfig) -> f64 {
    match definition {
        Definition::EarlyErrors | Definition::LateErrors => config.tolerate_errors,
        Definition::Refused => config.tolerate_refused,
        Definition::SlowP75
        | Definition::SlowP90
        | Definition::SlowP95
        | Definition::SlowP99
        | Definition::SlowP999
        | Definition::Graded
        | Definition::GradedTail => 0.0,
    }
}

/// Half for the service, a quarter each for routes and cohorts by their traffic at the start;
/// sums to one over the scopes that exist.
fn component_weights(components: &[Component]) -> Vec<f64> {
    let scope_weight = |scope: Scope| match scope {
        Scope::Service => 0.5,
        Scope::Route | Scope::Cohort => 0.25,
    };
    let sum_of = |scope: Scope| -> f64 {
        components.iter().filter(|c| c.scope == scope).map(|c| positive(c.share)).sum()
    };
    let present: f64 = [Scope::Service, Scope::Route, Scope::Cohort]
        .into_iter()
        .filter(|scope| components.iter().any(|c| c.scope == *scope))
        .map(scope_weight)
        .sum();
    components
        .iter()
        .map(|c| scope_weight(c.scope) / present * positive(c.share) / sum_of(c.scope))
        .collect()
}

fn positive(share: f64) -> f64 {
    if share.is_finite() { share.clamp(1e-6, 1e6) } else { 1e-6 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weights_sum_to_at_most_one_with_any_number_of_late_components() {
        let component = |scope, share| Component { scope, name: String::new(), share };
        let config = JudgeConfig {
            components: vec![
                component(Scope::Service, 1.0),
                component(Scope::Route, 0.7),
                component(Scope::Route, 0.3),
                component(Scope::Cohort, f64::NAN),
            ],
            ..JudgeConfig::default()
        };
        let mut evidence = Evidence::new(&config);
        for _ in 0..100 {
            evidence.watch_late();
        }
        let members = evidence.watched.iter().flat_map(|w| &w.members);
        let sum: f64 = members.map(|m| m.weight_ln.exp()).sum();
        assert!(sum <= 1.0 + 1e-9, "{sum}");
    }

    #[test]
    fn the_service_alone_has_nearly_all_the_weight() {
        let weights = component_weights(&[Component::service("shop")]);
        assert_eq!(weights, [1.0]);
    }
}
