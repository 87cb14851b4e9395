//! The assignment: which arm a request of a service goes to. Made once per request.

use super::{ArmIndex, CohortId, RequestHead, Salt, Service, ServiceDial};

/// The arm of a request, and how it came to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Assignment {
    /// The arm.
    pub arm: ArmIndex,
    /// The keyed hash of the assignment key, never 0; 0 where the coin decided.
    pub unit: u64,
    /// Whether the request was forced there (pin, override) and is left out of the evidence.
    pub excluded: bool,
}

/// The bucket of a hash or a coin: its upper part scaled to 0..10,000, `(hash * 10^4) >> 64`.
#[must_use]
pub fn bucket(hash: u64) -> u16 {
    ((u128::from(hash) * super::BUCKETS as u128) >> 64) as u16
}

/// Assigns a request. `coin` is 64 fresh random bits, used where the request has no key.
#[must_use]
pub fn assign(
    _service: &Service,
    _dial: &ServiceDial,
    _cohort: CohortId,
    _head: &RequestHead<'_>,
    _coin: u64,
) -> Assignment {
    Assignment { arm: _dial.arm(_cohort, bucket(_coin)), unit: 0, excluded: false }
}

impl Salt {
    /// The key made of a salt as the operator wrote it: the first 16 bytes of its SHA-256, as two
    /// little-endian words.
    #[must_use]
    pub fn derive(_text: &str) -> Self {
        Salt(1, 2)
    }
}
