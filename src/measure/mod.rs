//! What happened: events, outcomes and their blame, slots by arrival, blocks, histograms, the
//! units seen. Shared by the data plane (which writes events) and the control plane (which counts
//! them). No I/O, no clock, no randomness.

mod batch;
mod counters;
mod event;
mod latency;
mod report;
mod totals;

pub use batch::{Batch, OVERHEAD_BUCKETS, overhead_bucket};
pub use counters::Counters;
pub use event::{Epoch, Event, Head, Kind, Outcome, RecorderId, Tick, WAIT_CREDIT_US};
pub use latency::DURATION_BOUNDS_US;
pub use report::{ShedReason, UpstreamConnections, WorkerReport};
pub use totals::Totals;
