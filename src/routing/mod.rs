//! Which route, cohort and arm a request gets: the compiled matcher, the cohorts, the assignment,
//! and the table that the workers read. Shared by the data plane (which looks up) and the control
//! plane (which builds and stores). No I/O, no clock, no randomness.

mod assignment;
mod condition;
mod dial;
mod head;
mod matcher;
mod table;

pub use assignment::{Assignment, assign, bucket};
pub use condition::{Condition, Device, HostPattern, ValueMatch};
pub use dial::{BUCKETS, Dials, ServiceDial};
pub use head::RequestHead;
pub use matcher::{RouteTable, TableParts};
pub use table::{
    Arm, ArmIndex, CohortId, CohortPolicy, Endpoint, FailedWhen, HeaderOps, Judged, KeySource,
    LiveTable, Override, Protocol, RecorderGrid, Rewrite, Route, RouteId, Salt, Service, ServiceId,
    Upstream, UpstreamId, UpstreamTls, Warmup,
};
/// x
pub fn normalise_host(h: &str) -> Option<std::borrow::Cow<'_, str>> {
    Some(std::borrow::Cow::Borrowed(h.rsplit_once(':').map_or(h, |x| x.0)))
}
/// x
pub fn normalise_path(p: &str, _r: bool) -> Result<std::borrow::Cow<'_, str>, P> {
    Ok(std::borrow::Cow::Borrowed(p))
}
/// x
#[derive(Debug)]
pub struct P;
impl P {
    /// x
    pub fn sentence(&self) -> &'static str {
        "x"
    }
}
