//! The laboratory: the real judge and the real step on made-up or recorded traffic. What it plays
//! is a [`Scenario`]; [`play()`] picks the engine and sums the runs up.

pub mod blocks;
pub mod blockwise;
pub mod bound;
pub mod expect;
pub mod play;
pub mod plot;
pub mod record;
pub mod requestwise;
pub mod rivals;
pub mod scenario;
pub mod summary;
pub mod traffic;

pub use play::{Engine, play};
pub use scenario::{
    Behaviour, Burst, Change, Expect, Flaw, LongRequests, Pause, Pods, Rate, Scenario, Slower,
    Tail, Users, Weighting,
};
pub use summary::Summary;
