//! What the workers say about themselves, added up.

use std::{collections::BTreeMap, sync::Arc};

use crate::measure::{
    Batch, OVERHEAD_BUCKETS, RescueResult, Rescues, ShedReason, UpstreamConnections, WorkerReport,
};

/// The last report of every worker, and the time that requests spent in the proxy.
#[derive(Debug)]
pub(super) struct Workers {
    reports: Vec<WorkerReport>,
    pub(super) overhead: [u64; OVERHEAD_BUCKETS],
    pub(super) overhead_sum_us: u64,
}

impl Workers {
    pub(super) fn new(workers: usize) -> Self {
        let reports = vec![WorkerReport::default(); workers];
        Self { reports, overhead: [0; OVERHEAD_BUCKETS], overhead_sum_us: 0 }
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
        }
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

    pub(super) fn accept_pauses(&self) -> u64 {
        self.reports.iter().map(|report| report.accept_pauses).sum()
    }

    pub(super) fn open_connections(&self) -> u64 {
        self.reports.iter().map(|report| u64::from(report.open_connections)).sum()
    }
}
