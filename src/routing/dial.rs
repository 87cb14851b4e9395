//! The dial: the live weights of every service, as tables of buckets.

use std::sync::Arc;

use super::{ArmIndex, CohortId, Service, ServiceId};

/// Number of buckets of a table; one bucket is 0.01 % of the keys.
pub const BUCKETS: usize = 10_000;

/// The dials of all services, by [`ServiceId`].
#[derive(Clone, Debug, Default)]
pub struct Dials(Vec<Arc<ServiceDial>>);

impl Dials {
    /// The dials in the order of the services.
    #[must_use]
    pub fn new(dials: Vec<Arc<ServiceDial>>) -> Self {
        Self(dials)
    }

    /// The dial of a service of the same table.
    #[must_use]
    pub fn of(&self, service: ServiceId) -> &Arc<ServiceDial> {
        &self.0[service.0 as usize]
    }
}

/// The weights of one service, and the bucket tables made of them.
#[derive(Clone, Debug)]
pub struct ServiceDial {
    weights_bp: Vec<u16>,
}

impl ServiceDial {
    /// The dial of `service` with these weights of its canaries, in order, each in buckets of
    /// 0.01 %. Together they are at most [`BUCKETS`].
    #[must_use]
    pub fn new(_service: &Service, weights_bp: &[u16]) -> Self {
        Self { weights_bp: weights_bp.to_vec() }
    }

    /// The weights of the canaries, in order, in buckets of 0.01 %.
    #[must_use]
    pub fn weights_bp(&self) -> &[u16] {
        &self.weights_bp
    }

    /// The weight of an arm in a cohort, caps included, in buckets of 0.01 %.
    #[must_use]
    pub fn weight_bp(&self, _cohort: CohortId, _arm: ArmIndex) -> u16 {
        0
    }

    /// The arm that owns a bucket in a cohort.
    #[must_use]
    pub fn arm(&self, _cohort: CohortId, _bucket: u16) -> ArmIndex {
        ArmIndex(u8::from(_bucket < self.weights_bp[0]))
    }
}
