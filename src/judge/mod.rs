//! The judge: numbers in, numbers out. Evidence against a canary that can be watched at any time,
//! proof for its promotion, a breaker, and sizes for people.
//!
//! Pure: no clock, no randomness, no I/O, and nothing is allocated after set-up except when a
//! component is added or a sentence is asked for. It does not count requests and moves no weight.

mod bank;
mod bets;
mod block;
mod breaker;
mod calibrate;
mod config;
mod definition;
mod effect;
mod evidence;
mod gather;
mod missing;
mod promotion;
mod quadrature;
mod sentence;
mod shares;
mod suspicion;
mod thinning;
mod verdict;
mod wealth;

pub use block::{
    ALL_RUNGS, ArmCounts, Block, Coin, EDGES, Ending, Lag, PROOF_QUANTILES, Pods, QUANTILES, Rungs,
    SHIFT_COUNT, SHIFTS, Stratum, TICK_SECONDS, TrialCounts, TrialStratum, Trials,
};
pub use breaker::{Breaker, BreakerState, BreakerTick, Ended};
pub use calibrate::{BLOCK_SECONDS, Calibration, Placebo};
pub use config::{Component, JudgeConfig, Scope};
pub use definition::{BankName, Definition};
pub use effect::{CONFIDENCE, Effect, Size};
pub use missing::Missing;
pub use promotion::{Proof, bake_floor_blocks};
pub use shares::ShareCheck;
pub use suspicion::Suspicion;
pub use thinning::MAX_STRATA;
pub use verdict::{ComponentVerdict, Lead, Level, Proofs, Verdict};

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use effect::Ladders;
use evidence::{Evidence, Workbench};
use missing::Rates;
use promotion::Promotion;

/// Odds at which caution begins, and below which it may end.
const CAUTION: f64 = 20.0;
const CALM: f64 = 2.0;

/// How long evidence must stay calm before caution ends, in seconds.
const CALM_SECONDS: f64 = 300.0;

/// Odds above which a canary is not called healthy, and a stage not promoted.
const DOUBT: f64 = 3.0;

/// Odds by which a part of the traffic must lead the others of its kind to be named.
const STANDS_OUT: f64 = 20.0;

/// The judge of one rollout: one canary of one service in one version.
#[derive(Clone, Debug)]
pub struct Judge {
    state: Snapshot,
    bench: Workbench,
}

/// Everything a judge knows, for the journal.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Snapshot {
    config: JudgeConfig,
    evidence: Evidence,
    promotion: Promotion,
    ladders: Ladders,
    rates: Rates,
    suspicion: Suspicion,
    shares: ShareCheck,
    breaker: Breaker,
    block_ticks: u32,
    rollback: bool,
    caution: bool,
    calm_seconds: f64,
}

impl Judge {
    /// A judge that has seen nothing. Settings beyond their ranges are moved into them.
    #[must_use]
    pub fn new(config: JudgeConfig) -> Self {
        let config = config.within_ranges();
        let state = Snapshot {
            evidence: Evidence::new(&config),
            promotion: Promotion::new(&config),
            ladders: Ladders::new(),
            rates: Rates::default(),
            suspicion: Suspicion::default(),
            shares: ShareCheck::default(),
            breaker: Breaker::default(),
            block_ticks: config.block_ticks,
            rollback: false,
            caution: false,
            calm_seconds: 0.0,
            config,
        };
        Self { state, bench: Workbench::new() }
    }

    /// A judge that goes on where the snapshot was taken.
    #[must_use]
    pub fn restore(mut snapshot: Snapshot) -> Self {
        snapshot.evidence.make_room();
        Self { state: snapshot, bench: Workbench::new() }
    }

    /// Everything this judge knows.
    #[must_use]
    pub const fn snapshot(&self) -> &Snapshot {
        &self.state
    }

    /// Watches one more part of the traffic from now on; returns its index.
    pub fn add_component(&mut self, component: Component) -> usize {
        self.state.config.components.push(component);
        self.state.evidence.watch_late()
    }

    /// The parts of the traffic that are watched.
    #[must_use]
    pub fn components(&self) -> &[Component] {
        &self.state.config.components
    }

    /// How the evidence of each component stands.
    pub fn by_component(&self) -> impl Iterator<Item = ComponentVerdict<'_>> {
        let threshold_ln = -self.state.config.false_rollback.ln();
        let evidence = &self.state.evidence;
        self.components().iter().enumerate().map(move |(component, of)| {
            let (rollback_ln, rollback_peak_ln) = evidence.of_component(component);
            ComponentVerdict {
                component,
                scope: of.scope,
                name: &of.name,
                rollback_ln,
                rollback_peak_ln,
                condemned: rollback_peak_ln >= threshold_ln,
                set_aside: evidence.is_set_aside(component),
            }
        })
    }

    /// The evidence of a component does not count any more, because its traffic is taken away
    /// from the canary: the verdict is that of the others. What is left is still a union of no
    /// more than the whole, so its probability of a false rollback is no larger.
    pub fn set_aside(&mut self, component: usize) {
        let state = &mut self.state;
        state.evidence.set_aside(component);
        state.rollback = state.evidence.rollback_ln().1 >= -state.config.false_rollback.ln();
        let now_ln = state.evidence.caution_ln().0.max(state.evidence.rollback_ln().0);
        state.caution &= now_ln >= CALM.ln();
    }

    /// Cohorts whose evidence passed the threshold, where no other cohort shows anything: then
    /// taking the canary's weight in these alone is enough.
    pub fn condemned_cohorts(&self) -> impl Iterator<Item = &str> {
        let cohorts =
            || self.by_component().filter(|it| it.scope == Scope::Cohort && !it.set_aside);
        let is_quiet = |it: &ComponentVerdict<'_>| {
            self.state.evidence.unweighted_ln(it.component) < DOUBT.ln()
        };
        let mut others = cohorts().filter(|it| !it.condemned).peekable();
        let alone = others.peek().is_some() && others.all(|it| is_quiet(&it));
        cohorts().filter(move |it| alone && it.condemned).map(|it| it.name)
    }

    /// The one component of a scope that stands out, if one does: others of its kind show far
    /// less. That is a hint for people; the bounds hold for the whole.
    #[must_use]
    pub fn stands_out(&self, scope: Scope) -> Option<&Component> {
        let (mut best, mut second) = ((f64::MIN, None), f64::MIN);
        for (place, component) in self.components().iter().enumerate() {
            if component.scope != scope || self.state.evidence.is_set_aside(place) {
                continue;
            }
            let ln = self.state.evidence.unweighted_ln(place);
            if ln > best.0 {
                second = best.0;
                best = (ln, Some(component));
            } else {
                second = second.max(ln);
            }
        }
        best.1.filter(|_| best.0 >= DOUBT.ln() && best.0 - second >= STANDS_OUT.ln())
    }

    /// The length in ticks of the next rollback blocks, from [`Calibration::block_ticks`].
    pub fn set_block_ticks(&mut self, ticks: u32) {
        self.state.block_ticks = ticks.clamp(1, config::MAX_BLOCK_TICKS);
    }

    /// The length in ticks of rollback blocks now.
    #[must_use]
    pub const fn block_ticks(&self) -> u32 {
        self.state.block_ticks
    }

    /// Takes in a stretch of counts.
    pub fn block(&mut self, block: &Block<'_>) -> Verdict {
        let state = &mut self.state;
        state.evidence.add(block, &state.config, state.block_ticks, &mut self.bench);
        let threshold_ln = -state.config.false_rollback.ln();
        let (rollback_ln, caution_ln) = (state.evidence.rollback_ln(), state.evidence.caution_ln());
        state.rollback |= rollback_ln.1 >= threshold_ln;
        let now_ln = caution_ln.0.max(rollback_ln.0);
        if now_ln >= CAUTION.ln() {
            state.caution = true;
        }
        if now_ln > CALM.ln() {
            state.calm_seconds = 0.0;
        } else if block.component == 0 && block.lag == Lag::Early {
            state.calm_seconds += f64::from(block.ticks) * TICK_SECONDS;
            state.caution &= state.calm_seconds < CALM_SECONDS;
        }
        self.verdict_on(rollback_ln, caution_ln)
    }

    /// Takes in trials of the whole service, for promotion, for effect sizes and for what is
    /// missing. Without them no verdict is better than [`Level::Holding`].
    pub fn trials(&mut self, trials: &Trials<'_>) {
        let state = &mut self.state;
        let thinning = self.bench.thinning();
        state.promotion.add(trials, &state.config, thinning);
        state.ladders.add(trials, thinning);
        state.rates.add(trials);
    }

    /// Takes in a tick of ended requests, for the breaker.
    pub fn tick(&mut self, tick: BreakerTick) -> BreakerState {
        self.state.breaker.tick(tick)
    }

    /// Takes in the outcome of a probe of an open breaker.
    pub fn probe(&mut self, succeeded: bool) -> BreakerState {
        self.state.breaker.probe(succeeded)
    }

    /// Takes in a second of all bad events of sticky strata; true when the canary is suspected.
    /// See [`Suspicion::add`].
    pub fn suspect(&mut self, ticks: u32, canary: &ArmCounts, baseline: &ArmCounts) -> bool {
        self.state.suspicion.add(ticks, canary, baseline)
    }

    /// Takes in assigned requests or units under the design share `omega`; true once the
    /// assignment is shown to be wrong. See [`ShareCheck::add`].
    pub fn assigned(&mut self, omega: f64, canary: u64, baseline: u64) -> bool {
        self.state.shares.add(omega, canary, baseline);
        self.state.shares.fired()
    }

    /// A stage is entered (by plan, by a person or after caution): its proof starts fresh. The
    /// evidence against the canary does not.
    pub fn enter_stage(&mut self) {
        self.state.promotion = Promotion::new(&self.state.config);
        self.state.suspicion.enter_stage();
    }

    /// The state of the evidence.
    #[must_use]
    pub fn verdict(&self) -> Verdict {
        self.verdict_on(self.state.evidence.rollback_ln(), self.state.evidence.caution_ln())
    }

    /// The verdict on evidence for a rollback and for caution, each now and at its peak.
    fn verdict_on(&self, rollback: (f64, f64), caution: (f64, f64)) -> Verdict {
        let state = &self.state;
        let (rollback_ln, rollback_peak_ln) = rollback;
        let (caution_ln, caution_peak_ln) = caution;
        let doubt = rollback_ln.max(caution_ln) >= DOUBT.ln();
        let level = if state.rollback {
            Level::Rollback
        } else if state.caution {
            Level::Caution
        } else if !doubt && state.rates.would_have_shown(&state.config) {
            Level::Healthy
        } else {
            Level::Holding
        };
        Verdict {
            level,
            rollback_ln,
            rollback_peak_ln,
            caution_ln,
            caution_peak_ln,
            threshold_ln: -state.config.false_rollback.ln(),
            lead: state.evidence.lead(),
        }
    }

    /// The proofs of the stage.
    #[must_use]
    pub fn promotion(&self) -> Proofs {
        let state = &self.state;
        let doubt_ln = state.evidence.rollback_ln().0.max(state.evidence.caution_ln().0);
        let mut weakest = (Proof::Errors, f64::MAX);
        for (proof, ln, _) in state.promotion.proofs() {
            if ln < weakest.1 {
                weakest = (proof, ln);
            }
        }
        Proofs {
            proved: state.promotion.proved(&state.config),
            undoubted: doubt_ln < DOUBT.ln(),
            weakest: weakest.0,
            weakest_ln: weakest.1,
            threshold_ln: -state.config.false_promotion.ln(),
            seconds: state.promotion.seconds(),
            canary_trials: state.promotion.canary_trials(),
        }
    }

    /// The evidence for each proof of the stage, as ln of odds.
    pub fn proofs(&self) -> impl Iterator<Item = (Proof, f64)> + '_ {
        self.state.promotion.proofs().map(|(proof, ln, _)| (proof, ln))
    }

    /// What is missing until the stage is proved; `None` if nothing is.
    #[must_use]
    pub fn missing(&self) -> Option<Missing> {
        self.state.rates.missing(&self.state.promotion, &self.state.config)
    }

    /// Effect sizes since the rollout began.
    #[must_use]
    pub fn effect(&self) -> Effect {
        self.state.ladders.effect()
    }

    /// Whether the assignment was shown to be wrong, and ln of that evidence.
    #[must_use]
    pub const fn share_check(&self) -> &ShareCheck {
        &self.state.shares
    }

    /// What the breaker asks for.
    #[must_use]
    pub const fn breaker(&self) -> BreakerState {
        self.state.breaker.state()
    }

    /// Strata that found no room in their block, since the rollout began.
    #[must_use]
    pub fn strata_left_out(&self) -> u64 {
        self.state.evidence.left_out()
    }

    /// Why the verdict is what it is, in one sentence for a person.
    #[must_use]
    pub fn reason(&self) -> String {
        sentence::reason(self)
    }
}

impl Serialize for Judge {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.state.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Judge {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Snapshot::deserialize(deserializer).map(Self::restore)
    }
}

#[cfg(test)]
mod tests;
