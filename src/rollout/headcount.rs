//! Headcount: which endpoints of an upstream get requests, and how many pods these are. A change
//! counts once it has lasted, so that an endpoint that comes and goes does not shake the judge.

use std::{collections::HashMap, sync::Arc};

use crate::measure::{EndpointNumber, UpstreamEndpoints};

/// So many reports, a second apart, have to say the same before it counts.
const LASTING: u32 = 5;

/// The endpoints that get requests.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Heads {
    /// Their numbers, in order.
    pub(super) numbers: Vec<EndpointNumber>,
    /// The pods among them, where these can be counted.
    pub(super) pods: Option<u32>,
}

/// The headcounts of all upstreams.
#[derive(Debug, Default)]
pub(super) struct Headcount(HashMap<Arc<str>, Counted>);

#[derive(Debug)]
struct Counted {
    in_force: Heads,
    next: Heads,
    /// So many reports in a row said so.
    reports: u32,
}

impl Headcount {
    /// Takes in what a worker says.
    pub(super) fn count(&mut self, upstreams: &[UpstreamEndpoints]) {
        self.0.retain(|name, _| upstreams.iter().any(|one| one.upstream == *name));
        for one in upstreams {
            let mut numbers = one.taking.clone();
            numbers.sort_unstable();
            numbers.dedup();
            let heads = Heads { numbers, pods: one.pods };
            match self.0.get_mut(&one.upstream) {
                Some(counted) => counted.take(heads),
                // A name that was not resolved yet says nothing.
                None if heads.numbers.is_empty() => {}
                None => {
                    let (in_force, next) = (heads.clone(), heads);
                    let counted = Counted { in_force, next, reports: LASTING };
                    self.0.insert(Arc::clone(&one.upstream), counted);
                }
            }
        }
    }

    pub(super) fn of(&self, upstream: &str) -> Option<&Heads> {
        self.0.get(upstream).map(|counted| &counted.in_force)
    }
}

impl Counted {
    fn take(&mut self, heads: Heads) {
        if heads == self.next {
            self.reports = self.reports.saturating_add(1);
        } else {
            (self.next, self.reports) = (heads, 1);
        }
        if self.reports >= LASTING && self.in_force != self.next {
            self.in_force.clone_from(&self.next);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(numbers: &[usize], pods: Option<u32>) -> Vec<UpstreamEndpoints> {
        vec![UpstreamEndpoints {
            upstream: "shop".into(),
            endpoints: Vec::new(),
            taking: numbers.iter().map(|it| EndpointNumber::of(*it)).collect(),
            pods,
            panics: false,
        }]
    }

    fn pods(headcount: &Headcount) -> Option<u32> {
        headcount.of("shop").and_then(|heads| heads.pods)
    }

    #[test]
    fn the_first_count_is_in_force_at_once_and_a_change_when_it_has_lasted() {
        let mut headcount = Headcount::default();
        headcount.count(&report(&[], None));
        assert_eq!(headcount.of("shop"), None);
        headcount.count(&report(&[1, 0, 2], Some(3)));
        assert_eq!(pods(&headcount), Some(3));
        assert!(headcount.of("shop").unwrap().numbers.is_sorted());
        for _ in 1..LASTING {
            headcount.count(&report(&[0, 1], Some(2)));
            assert_eq!(pods(&headcount), Some(3));
        }
        headcount.count(&report(&[0, 1, 2], Some(3)));
        (0..LASTING).for_each(|_| headcount.count(&report(&[0, 1], Some(2))));
        assert_eq!(pods(&headcount), Some(2));
        headcount.count(&[]);
        assert_eq!(headcount.of("shop"), None);
    }
}
