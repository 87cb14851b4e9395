//! Rescue: an idempotent request that failed on a canary before the first byte of its answer was
//! passed on is replayed on the baseline, once and within a budget.
//!
//! The canary's failure is counted before, as if there were no rescue; the baseline's answer is not
//! counted at all.

use std::{
    cell::{Cell, OnceCell},
    collections::HashMap,
    rc::Rc,
    sync::Arc,
};

use tower::retry::budget::{Budget as _, TpsBudget};

use crate::{
    measure::{RescueResult, Rescues},
    routing::LiveTable,
};

/// Requests that are sent a second time, within a budget.
#[derive(Debug, Default)]
pub(super) struct Repeats {
    /// A fifth of the requests of the last 10 s, and 10 a second whatever came.
    budget: OnceCell<TpsBudget>,
    counts: Cell<[u64; RescueResult::ALL.len()]>,
}

impl Repeats {
    fn budget(&self) -> &TpsBudget {
        self.budget.get_or_init(TpsBudget::default)
    }

    /// A request came that may be sent a second time, or another one of its kind: the budget grows
    /// with them.
    pub(super) fn request(&self) {
        self.budget().deposit();
    }

    /// Whether the budget has room for another one, which it then has for one less.
    pub(super) fn may_repeat(&self) -> bool {
        let granted = self.budget().withdraw();
        if !granted {
            self.count(RescueResult::OutOfBudget);
        }
        granted
    }

    pub(super) fn count(&self, result: RescueResult) {
        let mut counts = self.counts.get();
        counts[result.index()] += 1;
        self.counts.set(counts);
    }

    pub(super) fn counts(&self) -> [u64; RescueResult::ALL.len()] {
        self.counts.get()
    }
}

/// The rescues of one service on one worker.
#[derive(Debug)]
pub(super) struct Rescuer {
    service: Arc<str>,
    pub(super) repeats: Repeats,
}

impl Rescuer {
    fn new(service: &Arc<str>) -> Self {
        Self { service: Arc::clone(service), repeats: Repeats::default() }
    }

    pub(super) fn report(&self) -> Rescues {
        Rescues { service: Arc::clone(&self.service), counts: self.repeats.counts() }
    }
}

/// The rescuers of a table, by service: those of before live on under their names.
pub(super) fn rescuers(
    table: &LiveTable,
    old: &[Option<Rc<Rescuer>>],
) -> Rc<[Option<Rc<Rescuer>>]> {
    let services = table.routes.services();
    let mut rescuers = vec![None; services.len()];
    let kept: HashMap<&str, &Rc<Rescuer>> =
        old.iter().flatten().map(|rescuer| (&*rescuer.service, rescuer)).collect();
    for route in table.routes.routes().filter(|route| route.rescue) {
        let id = route.service.0 as usize;
        if let (Some(place), Some(service)) = (rescuers.get_mut(id), services.get(id)) {
            place.get_or_insert_with(|| match kept.get(&*service.name) {
                Some(rescuer) => Rc::clone(rescuer),
                None => Rc::new(Rescuer::new(&service.name)),
            });
        }
    }
    rescuers.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_budget_is_ten_a_second_and_a_fifth_of_the_requests() {
        let repeats = Repeats::default();
        (0..1000).for_each(|_| repeats.request());
        let granted = (0..1000).filter(|_| repeats.may_repeat()).count();
        assert_eq!(granted, 100 + 200);
        let out_of_budget = repeats.counts()[RescueResult::OutOfBudget.index()];
        assert_eq!(out_of_budget, 700);
    }
}
