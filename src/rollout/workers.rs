//! What the workers say about themselves, added up.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use super::headcount::{Headcount, Heads};
use crate::measure::{
    Batch, EndpointNumber, EndpointState, OVERHEAD_BUCKETS, RescueResult, Rescues, Retries,
    ShedReason, UpstreamConnections, WorkerReport,
};

/// The last report of every worker, and the time that requests spent in the proxy.
#[derive(Debug)]
pub(super) struct Workers {
    reports: Vec<WorkerReport>,
    pub(super) overhead: [u64; OVERHEAD_BUCKETS],
    pub(super) overhead_sum_us: u64,
    heads: Headcount,
}

/// The endpoints of one upstream, by how they stand on the worker that thinks the least of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EndpointsView {
    /// The upstream.
    pub upstream: Arc<str>,
    /// How many stand so, by [`EndpointState::index`].
    pub states: [u32; EndpointState::ALL.len()],
    /// Whether some worker sends requests to all of them because none is fit.
    pub panics: bool,
}

impl Workers {
    pub(super) fn new(workers: usize) -> Self {
        let reports = vec![WorkerReport::default(); workers];
        let heads = Headcount::default();
        Self { reports, overhead: [0; OVERHEAD_BUCKETS], overhead_sum_us: 0, heads }
    }

    pub(super) fn take(&mut self, batch: &mut Batch) {
        for (sum, count) in self.overhead.iter_mut().zip(batch.overhead) {
            *sum += u64::from(count);
        }
        self.overhead_sum_us += batch.overhead_sum_us;
        if let (Some(held), Some(report)) =
            (self.reports.get_mut(batch.worker), batch.report.take())
        {
            *held = *report;
            // All workers know the same endpoints; the first one counts for all.
            if batch.worker == 0 {
                self.heads.count(&held.endpoints);
            }
        }
    }

    /// The endpoints of an upstream that get requests, once a worker has said so.
    pub(super) fn heads(&self, upstream: &str) -> Option<&Heads> {
        self.heads.of(upstream)
    }

    /// Endpoints by upstream, in the order of their names.
    pub(super) fn endpoints(&self) -> Vec<EndpointsView> {
        let mut worst = BTreeMap::<Arc<str>, (HashMap<EndpointNumber, EndpointState>, bool)>::new();
        for one in self.reports.iter().flat_map(|report| &report.endpoints) {
            let (states, panics) = worst.entry(one.upstream.clone()).or_default();
            *panics |= one.panics;
            for standing in &one.endpoints {
                let state = states.entry(standing.number).or_insert(standing.state);
                *state = standing.state.max(*state);
            }
        }
        let view = |(upstream, (by_number, panics)): (_, (HashMap<_, EndpointState>, _))| {
            let mut states = [0; EndpointState::ALL.len()];
            by_number.into_values().for_each(|state| states[state.index()] += 1);
            EndpointsView { upstream, states, panics }
        };
        worst.into_iter().map(view).collect()
    }

    /// Connections by upstream, in the order of their names.
    pub(super) fn upstreams(&self) -> Vec<UpstreamConnections> {
        let mut sums = BTreeMap::<Arc<str>, UpstreamConnections>::new();
        for one in self.reports.iter().flat_map(|report| &report.upstreams) {
            let sum = sums.entry(one.upstream.clone()).or_insert_with(|| UpstreamConnections {
                upstream: one.upstream.clone(),
                idle: 0,
                in_use: 0,
                connecting: 0,
            });
            sum.idle += one.idle;
            sum.in_use += one.in_use;
            sum.connecting += one.connecting;
        }
        sums.into_values().collect()
    }

    pub(super) fn shed(&self) -> [u64; ShedReason::ALL.len()] {
        let mut sums = [0; ShedReason::ALL.len()];
        for report in &self.reports {
            for (sum, count) in sums.iter_mut().zip(report.shed) {
                *sum += count;
            }
        }
        sums
    }

    /// Rescues by service, in the order of their names.
    pub(super) fn rescues(&self) -> Vec<Rescues> {
        let mut sums = BTreeMap::<Arc<str>, Rescues>::new();
        for one in self.reports.iter().flat_map(|report| &report.rescues) {
            let none = [0; RescueResult::ALL.len()];
            let sum = sums
                .entry(one.service.clone())
                .or_insert_with(|| Rescues { service: one.service.clone(), counts: none });
            for (sum, count) in sum.counts.iter_mut().zip(one.counts) {
                *sum += count;
            }
        }
        sums.into_values().collect()
    }

    /// Repeated requests by upstream, in the order of their names.
    pub(super) fn retries(&self) -> Vec<Retries> {
        let mut sums = BTreeMap::<Arc<str>, [u64; RescueResult::ALL.len()]>::new();
        for one in self.reports.iter().flat_map(|report| &report.retries) {
            let sum = sums.entry(one.upstream.clone()).or_default();
            sum.iter_mut().zip(one.counts).for_each(|(sum, count)| *sum += count);
        }
        sums.into_iter().map(|(upstream, counts)| Retries { upstream, counts }).collect()
    }

    pub(super) fn accept_pauses(&self) -> u64 {
        self.reports.iter().map(|report| report.accept_pauses).sum()
    }

    pub(super) fn open_connections(&self) -> u64 {
        self.reports.iter().map(|report| u64::from(report.open_connections)).sum()
    }
}
