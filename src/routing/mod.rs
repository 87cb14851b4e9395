//! Which route, cohort and arm a request gets: the compiled matcher, the cohorts, the assignment,
//! and the table that the workers read. Shared by the data plane (which looks up) and the control
//! plane (which builds and stores). No I/O, no clock, no randomness.

mod table;

mod facts;
mod head;
mod host;
mod path;
mod read;

mod condition;
mod device;

mod classes;
mod hash;
mod matcher;
mod names;
mod precedence;
mod predicate;
mod rows;
mod stretches;
mod tree;

mod asks;
mod assignment;
mod balancing;
mod dial;

#[cfg(test)]
pub(crate) mod fixtures;

pub use asks::{Asks, Harm, Hurt, Probe, Warm};
pub use assignment::{Assignment, assign, bucket};
pub use balancing::{Balancing, Eject, HealthCheck, HealthQuestion, Policy};
pub use condition::{Condition, Device, HostPattern, ValueMatch};
pub use dial::{BUCKETS, Dials, ServiceDial};
pub use facts::{
    Claims, Countries, CountriesProblem, Country, Facts, KeysProblem, Learned, TokenProblem,
    TokenRules, Tokens, VerifiedTokens,
};
pub use head::RequestHead;
pub use host::{HostProblem, normalise_host};
pub use matcher::{RouteTable, TableParts};
pub use path::{PathProblem, normalise_path, refuse_encoded_slashes};
pub use precedence::{HostRank, PathRank, Precedence};
pub use table::{
    Arm, ArmIndex, CohortId, CohortPolicy, Endpoint, FailedWhen, HeaderOps, Http2, Judged,
    KeySource, LiveTable, Override, Protocol, RecorderGrid, Rewrite, Route, RouteId, Salt, Service,
    ServiceId, Statuses, Upgrades, Upstream, UpstreamId, UpstreamTls, Warmup,
};
