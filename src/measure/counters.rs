//! What could not be counted: every loss has a name and a number.

/// Losses of the accounting since the start of the process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Events taken in.
    pub events: u64,
    /// Events of recorders that nobody registered.
    pub unknown_recorder: u64,
    /// Events for the evidence whose slot was already gone: requests that lasted longer than any
    /// deadline.
    pub past_every_deadline: u64,
    /// Slots given up before they were final, because a recorder had too many of them.
    pub slots_evicted: u64,
    /// Times that a worker dropped events because its buffer was full.
    pub overflows: u64,
    /// Times that a worker was found more than a second late.
    pub late_workers: u64,
    /// Blocks left out for both arms for one of these reasons.
    pub void_blocks: u64,
    /// Recorders that count into their service's `other` because too many have slots.
    pub spilled_recorders: u64,
    /// Bad events of units that found the table of units full.
    pub units_dropped: u64,
}
