//! placeholder
/// x
pub struct Watch;
