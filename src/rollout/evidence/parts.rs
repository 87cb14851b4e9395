//! Parts of the traffic: which components of the judge the requests of a route and a cohort count
//! for, besides the whole service.

use serde::{Deserialize, Serialize};

use super::{Part, Subject};
use crate::{
    judge::{Component, Judge, Scope},
    measure::{Ledger, Totals},
};

/// Components of one rollout at most; the traffic of further ones counts for the service alone.
const MOST: usize = 64;

/// Which of its two names a part goes by.
type NameOf = fn(&Part) -> &str;

/// The parts by number.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct Parts {
    all: Vec<Known>,
    /// The component of the whole service, as far as the canary has its traffic.
    service: usize,
    /// Components from this one on are not fed what was assigned before the weights with this
    /// number: they were added when a cohort was set aside, and must not see its harm.
    fresh: Option<(usize, u32)>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Known {
    part: Part,
    /// Its components besides the service.
    of: Vec<usize>,
}

impl Parts {
    pub(super) fn position(&self, part: &Part) -> Option<usize> {
        self.all.iter().position(|known| known.part == *part)
    }

    pub(super) const fn len(&self) -> usize {
        self.all.len()
    }

    /// The components of a part, for a block under the weights with a number. The first is that
    /// of the service as a whole.
    pub(super) fn of(&self, part: u16, weights: u32) -> impl Iterator<Item = usize> + use<'_> {
        let known = self.all.get(usize::from(part));
        let service = (self.service > 0).then_some(self.service);
        let all = std::iter::once(0)
            .chain(service)
            .chain(known.into_iter().flat_map(|known| known.of.iter().copied()));
        let last = match self.fresh {
            Some((first, from)) if weights < from => first,
            Some(_) | None => usize::MAX,
        };
        all.filter(move |component| *component < last)
    }

    /// A cohort does not count any more, from the weights with a number on. The service and its
    /// routes saw what it did: new ones take their places.
    pub(super) fn set_aside(&mut self, cohort: &str, weights: u32, judge: &mut Judge) {
        let first = judge.components().len();
        let gone: Vec<usize> = judge
            .by_component()
            .filter(|it| it.scope != Scope::Cohort || it.name == cohort)
            .map(|it| it.component)
            .collect();
        gone.into_iter().for_each(|component| judge.set_aside(component));
        let name = judge.components()[0].name.clone();
        self.service = judge.add_component(Component::service(&name));
        self.fresh = Some((first, weights));
        self.add(&[], judge);
    }

    /// Adds parts. Where there is more than one route, or more than one cohort, those that have
    /// no component yet get one out of the reserve.
    pub(super) fn add(&mut self, parts: &[Part], judge: &mut Judge) {
        self.all.extend(parts.iter().map(|part| Known { part: part.clone(), of: Vec::new() }));
        let several = |name: NameOf| {
            let mut names = self.all.iter().map(|known| name(&known.part));
            let first = names.next();
            names.any(|name| Some(name) != first)
        };
        let scopes: [(Scope, NameOf); 2] =
            [(Scope::Route, |part| &part.route), (Scope::Cohort, |part| &part.cohort)];
        let scopes = scopes.map(|(scope, name)| (several(name), scope, name));
        for known in &mut self.all {
            let used = scopes.iter().filter(|(several, ..)| *several);
            let of = used.filter_map(|(_, scope, name)| find(judge, *scope, name(&known.part)));
            known.of = of.collect();
        }
    }
}

/// The component of a scope with a name, added where there is room.
fn find(judge: &mut Judge, scope: Scope, name: &str) -> Option<usize> {
    let named = judge.by_component().filter(|it| it.scope == scope && it.name == name);
    let (mut gone, mut known) = (false, None);
    for it in named {
        gone |= it.set_aside;
        known = known.or((!it.set_aside).then_some(it.component));
    }
    if gone && scope == Scope::Cohort {
        return None;
    }
    known.or_else(|| {
        let component = || Component { scope, name: name.to_owned(), share: 1.0 };
        (judge.components().len() < MOST).then(|| judge.add_component(component()))
    })
}

impl Subject {
    /// The same with a component of the judge for each route and each cohort, where there is more
    /// than one, by what the baseline was asked so far: the largest first, up to 64 in all. Only
    /// for the start of a rollout: the weights of a union may not change with what is seen.
    #[must_use]
    pub fn with_components(mut self, ledger: &Ledger) -> Self {
        let mut found: Vec<Component> = Vec::new();
        for scope in [Scope::Route, Scope::Cohort] {
            let names: Vec<&str> = match scope {
                Scope::Route => self.routes.iter().map(|route| &*route.name).collect(),
                Scope::Cohort => self.cohorts.iter().map(|cohort| &**cohort).collect(),
                Scope::Service => Vec::new(),
            };
            if names.len() < 2 {
                continue;
            }
            found.extend(names.into_iter().enumerate().map(|(place, name)| {
                let mut totals = Totals::default();
                let place_of = |source: &super::Source| match scope {
                    Scope::Route => source.route,
                    Scope::Cohort | Scope::Service => source.cohort,
                };
                let of = self.of_arm(false).filter(|it| usize::from(place_of(it)) == place);
                of.for_each(|source| totals.add(&ledger.totals(source.key)));
                let share = (totals.started + 1) as f64;
                Component { scope, name: name.to_owned(), share }
            }));
        }
        found.sort_by(|a, b| b.share.total_cmp(&a.share));
        let room = MOST.saturating_sub(self.judge.components.len());
        self.judge.components.extend(found.into_iter().take(room));
        self
    }
}
