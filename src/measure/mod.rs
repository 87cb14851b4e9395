//! What happened: events, outcomes and their blame, slots by arrival, blocks, histograms, the
//! units seen. Shared by the data plane (which writes events) and the control plane (which counts
//! them). No I/O, no clock, no randomness.

mod batch;
mod event;
mod report;

pub use batch::{Batch, OVERHEAD_BUCKETS, overhead_bucket};
pub use event::{Epoch, Event, Kind, Outcome, RecorderId, Tick, WAIT_CREDIT_US};
pub use report::{ShedReason, UpstreamConnections, WorkerReport};
