//! The dial: the live weights of every service, as tables of buckets.
//!
//! Canary i owns the arc that begins at its anchor (0, 5000, 2500, 7500, … in order of declaration)
//! and grows rightwards up to the next anchor; what exceeds the arc takes free buckets leftwards
//! from the anchor. So a change of one weight by Δ moves exactly Δ buckets, all between that arm and
//! the baseline, as long as there are one or two canaries or each is within its arc.

use std::sync::Arc;

use super::{ArmIndex, CohortId, CohortPolicy, Service, ServiceId};

/// Number of buckets of a table; one bucket is 0.01 % of the keys.
pub const BUCKETS: usize = 10_000;

const BASELINE: ArmIndex = ArmIndex(0);

/// The dials of all services, by [`ServiceId`].
#[derive(Clone, Debug, Default)]
pub struct Dials(Vec<Arc<ServiceDial>>);

impl Dials {
    /// The dials in the order of the services.
    #[must_use]
    pub fn new(dials: Vec<Arc<ServiceDial>>) -> Self {
        Self(dials)
    }

    /// The dial of a service of the same table.
    #[must_use]
    pub fn of(&self, service: ServiceId) -> &Arc<ServiceDial> {
        &self.0[service.0 as usize]
    }
}

/// The weights of one service, and the bucket tables made of them: one for all cohorts without a
/// policy of their own, and one for each different policy.
#[derive(Clone, Debug)]
pub struct ServiceDial {
    weights_bp: Vec<u16>,
    zeros: Box<[(CohortId, ArmIndex)]>,
    /// For cohorts without a policy.
    usual: Table,
    /// For the others.
    special: Vec<Table>,
    /// By cohort, 0 for the usual table, else one more than the index of a special one. Cohorts
    /// beyond the end use the usual table.
    by_cohort: Box<[u16]>,
    /// Whose tables keyed requests keep, while sessions may end where they are.
    before: Option<Arc<ServiceDial>>,
}

impl ServiceDial {
    /// The dial of `service` with these weights of its canaries, in order, each in buckets of
    /// 0.01 %. Weights that are missing are 0. Together they are at most [`BUCKETS`]; what exceeds
    /// that is taken off, from the last canary first.
    ///
    /// A pin holds while its arm has a weight above 0, so that a canary that was rolled back gets
    /// nothing from pinned cohorts either; such a cohort is then treated like any other.
    #[must_use]
    pub fn new(service: &Service, weights_bp: &[u16]) -> Self {
        Self::with_zeros(service, weights_bp, &[])
    }

    /// As [`ServiceDial::new`], with some canaries at 0 (pins included) in some cohorts alone.
    #[must_use]
    pub fn with_zeros(
        service: &Service,
        weights_bp: &[u16],
        zeros: &[(CohortId, ArmIndex)],
    ) -> Self {
        let weights_bp = fitted(weights_bp, service.arms.len().saturating_sub(1));
        let beyond_zeros = zeros.iter().map(|(cohort, _)| usize::from(cohort.0) + 1).max();
        let cohorts = service.cohorts.len().max(beyond_zeros.unwrap_or(0));
        let mut dial = Self {
            usual: Table::of(&weights_bp),
            special: Vec::new(),
            by_cohort: Box::default(),
            before: None,
            weights_bp,
            zeros: zeros.into(),
        };
        dial.by_cohort = (0..cohorts)
            .map(|cohort| {
                let policy = service.cohorts.get(cohort).copied().unwrap_or_default();
                let zeros = zeros.iter().filter(|(at, _)| usize::from(at.0) == cohort);
                let table = dial.table_for(policy, zeros.map(|(_, arm)| *arm));
                dial.number_of(table)
            })
            .collect();
        dial
    }

    /// This dial, with sessions that may end where they are: keyed requests keep the tables of
    /// `before` until a dial is stored without it, all others go by this one. A pin of `before` is
    /// no session: what it forced goes by this dial too. Where `before` is draining itself, the
    /// tables that it keeps are kept; where it has more arms than this dial, nothing is.
    #[must_use]
    pub fn draining(self, before: &Arc<ServiceDial>) -> Self {
        let before = before.before.as_ref().unwrap_or(before);
        let fits = before.weights_bp.len() <= self.weights_bp.len();
        Self { before: fits.then(|| Arc::clone(before)), ..self }
    }

    /// Whether keyed requests keep the tables of an earlier dial.
    #[must_use]
    pub fn is_draining(&self) -> bool {
        self.before.is_some()
    }

    /// The weights of the canaries, in order, in buckets of 0.01 %.
    #[must_use]
    pub fn weights_bp(&self) -> &[u16] {
        &self.weights_bp
    }

    /// The canaries that are at 0 in some cohorts alone, in the order given.
    #[must_use]
    pub fn zeros(&self) -> &[(CohortId, ArmIndex)] {
        &self.zeros
    }

    /// The weight of an arm in a cohort, caps and pins included, in buckets of 0.01 %. An arm that
    /// the service does not have weighs 0.
    #[must_use]
    pub fn weight_bp(&self, cohort: CohortId, arm: ArmIndex) -> u16 {
        self.table(cohort).weights_bp.get(usize::from(arm.0)).copied().unwrap_or(0)
    }

    /// The arm that owns a bucket in a cohort.
    #[must_use]
    pub fn arm(&self, cohort: CohortId, bucket: u16) -> ArmIndex {
        let runs = &self.table(cohort).runs;
        runs.iter().find(|run| bucket < run.end).map_or(BASELINE, |run| run.arm)
    }

    /// The arm that owns the bucket of a key in a cohort.
    #[must_use]
    pub fn keyed_arm(&self, cohort: CohortId, bucket: u16) -> ArmIndex {
        match &self.before {
            Some(before) if before.pin(cohort).is_none() => before.arm(cohort, bucket),
            Some(_) | None => self.arm(cohort, bucket),
        }
    }

    /// The arm that a cohort is pinned to, where that pin is in force.
    #[must_use]
    pub fn pin(&self, cohort: CohortId) -> Option<ArmIndex> {
        self.table(cohort).pin
    }

    fn table(&self, cohort: CohortId) -> &Table {
        let number = self.by_cohort.get(usize::from(cohort.0)).copied().unwrap_or(0);
        match usize::from(number) {
            0 => &self.usual,
            number => &self.special[number - 1],
        }
    }

    fn table_for(&self, policy: CohortPolicy, zeros: impl Iterator<Item = ArmIndex>) -> Table {
        let mut weights_bp = self.weights_bp.clone();
        for arm in zeros {
            if let Some(weight) = canary(arm).and_then(|index| weights_bp.get_mut(index)) {
                *weight = 0;
            }
        }
        let pin = policy.pin.filter(|arm| match canary(*arm) {
            None => true,
            Some(index) => weights_bp.get(index).is_some_and(|weight| *weight > 0),
        });
        if let Some(arm) = pin {
            return Table::pinned(arm, weights_bp.len() + 1);
        }
        if let Some(cap) = policy.max_weight_bp {
            weights_bp.iter_mut().for_each(|weight| *weight = (*weight).min(cap));
        }
        Table::of(&weights_bp)
    }

    /// The number of an equal table in `by_cohort`; it is kept if there is none.
    fn number_of(&mut self, table: Table) -> u16 {
        if table == self.usual {
            return 0;
        }
        let index = self.special.iter().position(|known| *known == table).unwrap_or_else(|| {
            self.special.push(table);
            self.special.len() - 1
        });
        index as u16 + 1
    }
}

/// The bucket table of some cohorts, kept as runs of equal arms: a few of them, where the table of
/// buckets would be 10 KB a service, out of the cache whenever it is needed.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Table {
    /// By arm, baseline first.
    weights_bp: Box<[u16]>,
    runs: Box<[Run]>,
    pin: Option<ArmIndex>,
}

/// The buckets from the end of the run before it up to `end` belong to `arm`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Run {
    end: u16,
    arm: ArmIndex,
}

impl Table {
    /// The table of these weights of canaries, which are at most [`BUCKETS`] together.
    fn of(canaries_bp: &[u16]) -> Self {
        let owners = owners(canaries_bp);
        let baseline_bp = BUCKETS as u16 - canaries_bp.iter().sum::<u16>();
        let runs = owners.chunk_by(|one, next| one == next).scan(0, |end, run| {
            *end += run.len() as u16;
            Some(Run { end: *end, arm: run[0] })
        });
        Self {
            weights_bp: std::iter::once(baseline_bp).chain(canaries_bp.iter().copied()).collect(),
            runs: runs.collect(),
            pin: None,
        }
    }

    fn pinned(arm: ArmIndex, arms: usize) -> Self {
        let mut weights_bp = vec![0; arms].into_boxed_slice();
        weights_bp[usize::from(arm.0)] = BUCKETS as u16;
        let runs = Box::new([Run { end: BUCKETS as u16, arm }]);
        Self { weights_bp, runs, pin: Some(arm) }
    }
}

/// The owner of every bucket.
fn owners(canaries_bp: &[u16]) -> Vec<ArmIndex> {
    let mut owners = vec![BASELINE; BUCKETS];
    let anchors: Vec<usize> = (0..canaries_bp.len()).map(anchor).collect();
    for (index, (&start, &weight)) in anchors.iter().zip(canaries_bp).enumerate() {
        let within = usize::from(weight).min(arc_end(&anchors, start) - start);
        owners[start..start + within].fill(arm_of(index));
    }
    for (index, (&start, &weight)) in anchors.iter().zip(canaries_bp).enumerate() {
        let excess = usize::from(weight).saturating_sub(arc_end(&anchors, start) - start);
        let leftwards = (0..start).rev().chain((start..BUCKETS).rev());
        let free = leftwards.filter(|bucket| owners[*bucket] == BASELINE).take(excess);
        for bucket in free.collect::<Vec<_>>() {
            owners[bucket] = arm_of(index);
        }
    }
    owners
}

/// The bucket at which the arc of a canary begins: its index with the bits reversed, as a fraction
/// of the circle, so that a canary that is added later halves an arc and moves no anchor.
fn anchor(canary: usize) -> usize {
    usize::from((canary as u8).reverse_bits()) * BUCKETS / 256
}

/// The end of the arc that begins at `start`: the next anchor, or the end of the circle.
fn arc_end(anchors: &[usize], start: usize) -> usize {
    anchors.iter().copied().filter(|anchor| *anchor > start).min().unwrap_or(BUCKETS)
}

/// One weight per canary, at most [`BUCKETS`] together.
fn fitted(weights_bp: &[u16], canaries: usize) -> Vec<u16> {
    let mut room = BUCKETS as u16;
    let weights = weights_bp.iter().copied().chain(std::iter::repeat(0)).take(canaries);
    weights
        .map(|weight| {
            let weight = weight.min(room);
            room -= weight;
            weight
        })
        .collect()
}

fn arm_of(canary: usize) -> ArmIndex {
    ArmIndex(canary as u8 + 1)
}

fn canary(arm: ArmIndex) -> Option<usize> {
    usize::from(arm.0).checked_sub(1)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::routing::fixtures::service;

    const DEFAULT: CohortId = CohortId(0);

    fn arms(dial: &ServiceDial, cohort: CohortId) -> Vec<u8> {
        (0..BUCKETS as u16).map(|bucket| dial.arm(cohort, bucket).0).collect()
    }

    fn table(weights_bp: &[u16]) -> Vec<u8> {
        arms(&ServiceDial::new(&service(weights_bp.len(), &[]), weights_bp), DEFAULT)
    }

    fn check(weights_bp: &[u16], expected: &[(std::ops::Range<usize>, u8)]) {
        let mut owners = vec![0; BUCKETS];
        for (range, arm) in expected {
            owners[range.clone()].fill(*arm);
        }
        assert!(table(weights_bp) == owners, "{weights_bp:?}");
    }

    /// The arms between which buckets moved, once for every bucket.
    fn moves(before: &[u8], after: &[u8]) -> Vec<(u8, u8)> {
        let pairs = before.iter().copied().zip(after.iter().copied());
        pairs.filter(|(old, new)| old != new).collect()
    }

    #[test]
    fn anchors_are_the_reversed_bits() {
        let anchors: Vec<usize> = (0..9).map(anchor).collect();
        assert_eq!(anchors, [0, 5000, 2500, 7500, 1250, 6250, 3750, 8750, 625]);
        let all: std::collections::BTreeSet<usize> = (0..254).map(anchor).collect();
        assert_eq!(all.len(), 254);
    }

    #[test]
    fn arcs_grow_rightwards_from_their_anchors() {
        check(&[500], &[(0..500, 1)]);
        check(&[500, 300], &[(0..500, 1), (5000..5300, 2)]);
        check(&[500, 300, 100], &[(0..500, 1), (5000..5300, 2), (2500..2600, 3)]);
        check(&[0], &[]);
        check(&[10_000], &[(0..10_000, 1)]);
        check(&[7_000], &[(0..7_000, 1)]);
    }

    #[test]
    fn what_exceeds_an_arc_grows_leftwards_from_the_anchor() {
        check(&[7_000, 300], &[(0..5000, 1), (8000..10_000, 1), (5000..5300, 2)]);
        check(&[300, 7_000], &[(0..300, 1), (3000..10_000, 2)]);
        check(&[3_000, 0, 100], &[(0..2500, 1), (9500..10_000, 1), (2500..2600, 3)]);
        check(&[9_900, 100], &[(0..5000, 1), (5000..5100, 2), (5100..10_000, 1)]);
    }

    #[test]
    fn caps_hold_in_their_cohort_alone() {
        let capped = CohortPolicy { pin: None, max_weight_bp: Some(500) };
        let service = service(2, &[CohortPolicy::default(), capped]);
        let dial = ServiceDial::new(&service, &[2500, 100]);
        let weights =
            |cohort| [0, 1, 2, 3].map(|arm| dial.weight_bp(CohortId(cohort), ArmIndex(arm)));
        assert_eq!(weights(0), [7400, 2500, 100, 0]);
        assert_eq!(weights(1), [9400, 500, 100, 0]);
        assert_eq!(weights(9), weights(0));
        assert_eq!(dial.weights_bp(), [2500, 100]);
        assert_eq!(arms(&dial, CohortId(1)), table(&[500, 100]));
    }

    #[test]
    fn a_pin_holds_while_its_arm_has_a_weight() {
        let pin = |arm| CohortPolicy { pin: Some(ArmIndex(arm)), max_weight_bp: Some(1) };
        let service = service(1, &[pin(0), pin(1)]);
        let dial = ServiceDial::new(&service, &[1]);
        assert_eq!(dial.pin(CohortId(0)), Some(ArmIndex(0)));
        assert_eq!(dial.pin(CohortId(1)), Some(ArmIndex(1)));
        assert_eq!(dial.weight_bp(CohortId(1), ArmIndex(1)), 10_000);
        assert_eq!(arms(&dial, CohortId(1)), vec![1; BUCKETS]);
        let rolled_back = ServiceDial::new(&service, &[0]);
        assert_eq!(rolled_back.pin(CohortId(1)), None);
        assert_eq!(arms(&rolled_back, CohortId(1)), vec![0; BUCKETS]);
    }

    #[test]
    fn a_canary_can_be_at_zero_in_one_cohort() {
        let pinned = CohortPolicy { pin: Some(ArmIndex(1)), max_weight_bp: None };
        let service = service(2, &[CohortPolicy::default(), pinned]);
        let zeros = [(CohortId(1), ArmIndex(1)), (CohortId(3), ArmIndex(2))];
        let dial = ServiceDial::with_zeros(&service, &[100, 200], &zeros);
        assert_eq!(arms(&dial, DEFAULT), table(&[100, 200]));
        assert_eq!(dial.pin(CohortId(1)), None);
        assert_eq!(arms(&dial, CohortId(1)), table(&[0, 200]));
        assert_eq!(arms(&dial, CohortId(2)), table(&[100, 200]));
        assert_eq!(arms(&dial, CohortId(3)), table(&[100, 0]));
    }

    #[test]
    fn while_sessions_drain_keys_keep_their_arms_and_the_rest_goes_at_once() {
        let pinned = CohortPolicy { pin: Some(ArmIndex(1)), max_weight_bp: None };
        let service = service(1, &[CohortPolicy::default(), pinned]);
        let before = Arc::new(ServiceDial::new(&service, &[2500]));
        let dial = ServiceDial::new(&service, &[0]).draining(&before);
        let keyed = |dial: &ServiceDial, cohort| {
            (0..BUCKETS as u16).map(|it| dial.keyed_arm(cohort, it).0).collect::<Vec<_>>()
        };
        assert!(dial.is_draining() && !before.is_draining());
        assert_eq!(keyed(&dial, DEFAULT), table(&[2500]));
        assert_eq!(arms(&dial, DEFAULT), table(&[0]));
        assert_eq!(dial.pin(CohortId(1)), None);
        assert_eq!(keyed(&dial, CohortId(1)), table(&[0]), "what was pinned is no session");
        assert_eq!(dial.weights_bp(), [0]);
        let again = ServiceDial::new(&service, &[0]).draining(&Arc::new(dial));
        assert_eq!(keyed(&again, DEFAULT), table(&[2500]));
        assert!(again.before.is_some_and(|kept| Arc::ptr_eq(&kept, &before)));
        assert_eq!(keyed(&ServiceDial::new(&service, &[0]), DEFAULT), table(&[0]));
    }

    #[test]
    fn equal_tables_are_kept_once_and_a_table_is_small() {
        let capped = CohortPolicy { pin: None, max_weight_bp: Some(500) };
        let service = service(1, &[capped; 1000]);
        let dial = ServiceDial::new(&service, &[2500]);
        assert_eq!(dial.special.len(), 1);
        let bytes: usize = dial.special.iter().map(|table| size_of_val(&*table.runs)).sum();
        assert!(bytes <= 32, "{bytes}");
    }

    #[test]
    fn weights_that_are_missing_or_too_many_are_seen_to() {
        let two = service(2, &[]);
        assert_eq!(ServiceDial::new(&two, &[100]).weights_bp(), [100, 0]);
        assert_eq!(ServiceDial::new(&two, &[6_000, 6_000]).weights_bp(), [6_000, 4_000]);
        assert_eq!(ServiceDial::new(&two, &[1, 2, 3]).weights_bp(), [1, 2]);
    }

    /// Weights of so many canaries that fit together.
    fn weights(canaries: std::ops::Range<usize>) -> impl Strategy<Value = Vec<u16>> {
        prop::collection::vec(0..=10_000u16, canaries).prop_map(|weights| {
            let canaries = weights.len();
            fitted(&weights, canaries)
        })
    }

    /// Where each canary's arc ends.
    fn arc_of(canary: usize, canaries: usize) -> u16 {
        let anchors: Vec<usize> = (0..canaries).map(anchor).collect();
        (arc_end(&anchors, anchor(canary)) - anchor(canary)) as u16
    }

    fn check_move(before: &[u16], canary: usize, to: u16) -> Result<(), TestCaseError> {
        let mut after = before.to_vec();
        after[canary] = to;
        let moved = moves(&table(before), &table(&after));
        let arm = canary as u8 + 1;
        let between = if to > before[canary] { (0, arm) } else { (arm, 0) };
        prop_assert_eq!(moved.len(), usize::from(to.abs_diff(before[canary])));
        prop_assert!(moved.iter().all(|pair| *pair == between), "{before:?} {after:?}");
        Ok(())
    }

    proptest! {
        #[test]
        fn shares_are_exact(weights in weights(0..9)) {
            let dial = ServiceDial::new(&service(weights.len(), &[]), &weights);
            let owners = arms(&dial, DEFAULT);
            for arm in 0..=weights.len() as u8 {
                let owned = owners.iter().filter(|owner| **owner == arm).count();
                prop_assert_eq!(owned, usize::from(dial.weight_bp(DEFAULT, ArmIndex(arm))));
            }
        }

        #[test]
        fn one_or_two_canaries_move_exactly_the_change_to_or_from_the_baseline(
            before in weights(1..3),
            canary in any::<prop::sample::Index>(),
            to in 0..=10_000u16,
        ) {
            let canary = canary.index(before.len());
            let others = before.iter().sum::<u16>() - before[canary];
            check_move(&before, canary, to.min(BUCKETS as u16 - others))?;
        }

        #[test]
        fn so_do_more_canaries_within_their_arcs(
            wishes in prop::collection::vec(0..=10_000u16, 3..9),
            canary in any::<prop::sample::Index>(),
            to in 0..=10_000u16,
        ) {
            let arc = |canary| arc_of(canary, wishes.len());
            let within = wishes.iter().enumerate().map(|(at, weight)| (*weight).min(arc(at)));
            let canary = canary.index(wishes.len());
            check_move(&within.collect::<Vec<_>>(), canary, to.min(arc(canary)))?;
        }
    }
}
