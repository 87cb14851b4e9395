//! What a hearing is about: the recorders, strata and settings of one canary's evidence, out of
//! the table in force. It holds nothing and judges nothing.

use std::sync::Arc;

use crate::{
    judge::{Component, Pods},
    measure::{Epoch, Ledger, Tick},
    rollout::{
        Beginning, JudgedRoute, Plan, Source, Split, Subject, layout::Cell, steering::Rollout,
        workers::Workers,
    },
    routing::{ArmIndex, BUCKETS, RouteTable, Service},
};

/// What one hearing is about.
pub(in crate::rollout) struct About<'a> {
    pub(in crate::rollout) ledger: &'a Ledger,
    pub(in crate::rollout) routes: &'a RouteTable,
    pub(in crate::rollout) workers: &'a Workers,
    pub(in crate::rollout) cells: &'a [Cell],
    /// Index of the service, and of the canary among its canaries.
    pub(in crate::rollout) service: usize,
    pub(in crate::rollout) canary: usize,
    /// All of the service, by canary.
    pub(in crate::rollout) rollouts: &'a [Rollout],
    pub(in crate::rollout) rollout: &'a Rollout,
    pub(in crate::rollout) plan: &'a Plan,
}

/// What the canaries' weights become in the cohorts of a stratum.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Weighing {
    /// The canaries that these cohorts do not get.
    pub(super) out: Vec<usize>,
    pub(super) cap: Option<u16>,
}

/// The recorders whose requests are drawn.
pub(super) struct Members<'a> {
    pub(super) sources: Vec<(&'a Cell, Source)>,
    pub(super) strata: Vec<Weighing>,
    pub(super) cohorts: Vec<Arc<str>>,
}

/// Where the ledger and the table stand.
#[derive(Clone, Copy)]
pub(in crate::rollout) struct Now {
    pub(in crate::rollout) tick: Tick,
    pub(in crate::rollout) epoch: Epoch,
}

impl About<'_> {
    pub(super) fn service(&self) -> &Service {
        &self.routes.services()[self.service]
    }

    /// Its recorders whose requests are drawn, and the strata.
    pub(super) fn sources(&self) -> Members<'_> {
        let mut strata = vec![Weighing::default()];
        let mut cohorts: Vec<Arc<str>> = Vec::new();
        let routes: Vec<usize> = self.route_places();
        let mine = |arm: ArmIndex| arm.0 == 0 || usize::from(arm.0) == self.canary + 1;
        let drawn = self.cells.iter().filter(|cell| {
            cell.service == self.service && mine(cell.arm) && cell.policy.pin.is_none()
        });
        let drawn: Vec<(&Cell, Weighing)> = drawn.map(|cell| (cell, self.weighing(cell))).collect();
        // What is behind another weight keeps its number when a cohort is taken out.
        for all_in in [true, false] {
            for (_, weighing) in drawn.iter().filter(|(_, it)| it.out.is_empty() == all_in) {
                place_of(&mut strata, weighing);
            }
        }
        let mut sources = Vec::new();
        for (cell, weighing) in drawn {
            let source = Source {
                key: cell.key,
                is_canary: cell.arm.0 > 0,
                stratum: place_of(&mut strata, &weighing),
                route: routes.iter().position(|route| *route == cell.route).unwrap_or(0) as u16,
                cohort: place_of(&mut cohorts, &cell.labels.cohort),
            };
            sources.push((cell, source));
        }
        Members { sources, strata, cohorts }
    }

    pub(super) fn weighing(&self, cell: &Cell) -> Weighing {
        let rollouts = self.rollouts.iter().enumerate();
        let cohort = &cell.labels.cohort;
        let out = rollouts.filter(|(_, it)| it.state.life.cohorts_out().contains(cohort));
        Weighing { out: out.map(|(canary, _)| canary).collect(), cap: cell.policy.max_weight_bp }
    }

    /// The cohorts that other canaries of the service are not in any more.
    pub(super) fn others_out(&self) -> Vec<(usize, Arc<str>)> {
        let others = self.rollouts.iter().enumerate().filter(|(place, _)| *place != self.canary);
        let out = others.flat_map(|(place, rollout)| {
            rollout.state.life.cohorts_out().iter().map(move |cohort| (place, cohort.clone()))
        });
        out.collect()
    }

    pub(super) fn route_places(&self) -> Vec<usize> {
        let routes = self.routes.routes().enumerate();
        let mine = routes.filter(|(_, route)| route.service.0 as usize == self.service);
        mine.map(|(place, _)| place).collect()
    }

    pub(super) fn subject(&self, sources: &[(&Cell, Source)], cohorts: Vec<Arc<str>>) -> Subject {
        let routes = self.routes.routes().filter(|route| route.service.0 as usize == self.service);
        let judge = &self.plan.judge;
        // What has no slots of its own counts in those of another.
        let spilled = |(cell, source): &(&Cell, Source)| Source { key: cell.other, ..*source };
        let mut others: Vec<Source> = sources.iter().map(spilled).collect();
        // The strata of cohorts that are out come last.
        others.sort_unstable_by_key(|source| (source.key, source.stratum));
        others.dedup_by_key(|source| source.key);
        Subject {
            judge: judge.config(vec![Component::service(&self.service().name)]),
            tolerate: judge.tolerate,
            promote_within: judge.promote_within,
            pods: self.pods(),
            warmup: self.rollout.state.warmup,
            units_lost: false,
            routes: routes
                .map(|route| JudgedRoute { name: route.name.clone(), timeout: route.timeout })
                .collect(),
            cohorts,
            sources: sources.iter().map(|(_, source)| *source).chain(others).collect(),
        }
    }

    pub(super) fn beginning(&self, subject: &Subject, now: Now, splits: &[Split]) -> Beginning {
        Beginning {
            service: self.rollout.service.clone(),
            canary: self.rollout.canary.clone(),
            version: self.rollout.state.version.clone(),
            plan: self.rollout.state.plan.clone(),
            judge: subject.judge.clone(),
            tolerate: subject.tolerate,
            promote_within: subject.promote_within,
            pods: subject.pods,
            warmup: subject.warmup,
            units_lost: subject.units_lost,
            routes: subject.routes.iter().map(|it| (it.name.clone(), it.timeout)).collect(),
            cohorts: subject.cohorts.clone(),
            from: now.tick,
            epoch: now.epoch,
            splits: splits.to_vec(),
        }
    }

    /// The pods of both arms, where they can be counted: by `replicas`, or because there is more
    /// than one endpoint. One endpoint alone may hide any number, and a name may have any number of
    /// addresses, until a worker says which of them get requests.
    pub(in crate::rollout) fn pods(&self) -> Option<Pods> {
        let count = |arm: usize| {
            let upstream = self.routes.upstream(self.service().arms[arm].upstream);
            let counted = || match self.workers.heads(&upstream.name) {
                Some(heads) => heads.pods,
                None => {
                    let many = upstream.endpoints.len() > 1 && !upstream.has_names();
                    many.then_some(upstream.endpoints.len() as u32)
                }
            };
            upstream.replicas.or_else(counted).filter(|count| *count > 0)
        };
        Some(Pods { baseline: count(0)?, canary: count(self.canary + 1)? })
    }
}

fn place_of<T: Clone + PartialEq>(known: &mut Vec<T>, one: &T) -> u16 {
    let place = known.iter().position(|other| other == one).unwrap_or_else(|| {
        known.push(one.clone());
        known.len() - 1
    });
    place as u16
}

/// The weights of a canary and of the baseline by stratum.
pub(super) fn splits(strata: &[Weighing], weights_bp: &[u16], canary: usize) -> Vec<Split> {
    let split = |stratum: &Weighing| {
        let weigh = |(place, weight_bp): (usize, &u16)| match stratum.cap {
            _ if stratum.out.contains(&place) => 0,
            Some(cap) => cap.min(*weight_bp),
            None => *weight_bp,
        };
        let all: u16 = weights_bp.iter().enumerate().map(weigh).sum();
        Split {
            canary_bp: weights_bp.get(canary).map_or(0, |weight_bp| weigh((canary, weight_bp))),
            baseline_bp: (BUCKETS as u16).saturating_sub(all),
        }
    };
    strata.iter().map(split).collect()
}
