//! What happened: events, outcomes and their blame, slots by arrival, blocks, histograms, the
//! units seen. Shared by the data plane (which writes events) and the control plane (which counts
//! them). No I/O, no clock, no randomness.

mod batch;
mod blocks;
mod counters;
mod deadlines;
mod event;
mod facts;
pub(crate) mod hex;
mod latency;
mod ledger;
mod outstanding;
mod progress;
mod report;
mod slots;
mod thresholds;
mod totals;
mod units;

pub use batch::{Batch, OVERHEAD_BUCKETS, overhead_bucket};
pub use blocks::{Bad, Bank, Block, BlockBuilder, Cell, Cut, Member};
pub use counters::Counters;
pub use deadlines::{Deadlines, MAX_DEADLINE_US, MAX_DEADLINES};
pub use event::{
    EndpointNumber, Epoch, Event, Head, Kind, Outcome, RecorderId, Tick, WAIT_CREDIT_US,
};
pub use facts::Judging;
pub use latency::{DURATION_BOUNDS_US, Durations, Latencies, Window};
pub use ledger::{Ledger, MAX_WITH_SLOTS, RecorderKey};
pub use report::{
    EndpointStanding, EndpointState, Probed, RescueResult, Rescues, Retries, ShedReason,
    UpstreamConnections, UpstreamEndpoints, WorkerReport,
};
pub use slots::{SlotView, Slots};
pub use thresholds::{ENOUGH, ENOUGH_FOR_LAST, Past, QUANTILES, Thresholds};
pub use totals::Totals;
pub use units::{Draw, Interval, MAX_UNITS, UNIT_DEFINITIONS, UnitHasher, Units};
