//! The laboratory: the real judge and the real step on made-up or recorded traffic.

pub mod blocks;
pub mod blockwise;
pub mod bound;
pub mod record;
pub mod rivals;
pub mod scenario;
pub mod summary;
pub mod traffic;
