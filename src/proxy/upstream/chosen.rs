//! An endpoint that was chosen for a request: counts the request there for as long as it lasts,
//! and learns from it how the endpoint does.

use std::{rc::Rc, time::Duration};

use super::{ConnectError, Lease, Lost, endpoint::EndpointPool};
use crate::measure::EndpointNumber;

/// A request's endpoint. Dropped when the request is over, whatever came of it.
#[derive(Debug)]
pub(in crate::proxy) struct Chosen {
    endpoint: Rc<EndpointPool>,
    /// Since when the first byte is waited for; `None` where nobody asks how long that takes, since
    /// there is no other endpoint.
    since: Option<Duration>,
    waits: bool,
}

impl Chosen {
    pub(super) fn new(endpoint: &Rc<EndpointPool>, since: Option<Duration>) -> Self {
        endpoint.member().begin();
        Self { endpoint: Rc::clone(endpoint), since, waits: true }
    }

    /// Which of its upstream's endpoints it is.
    pub(in crate::proxy) fn number(&self) -> EndpointNumber {
        self.endpoint.member().number()
    }

    pub(super) fn endpoint(&self) -> &Rc<EndpointPool> {
        &self.endpoint
    }

    /// A connection that is ready for the request; a new one if `fresh`.
    pub(in crate::proxy) async fn lease(&self, fresh: bool) -> Result<Lease, ConnectError> {
        self.endpoint.lease(fresh).await
    }

    /// A connection that no other request shares.
    pub(in crate::proxy) async fn lease_alone(&self) -> Result<Lease, ConnectError> {
        self.endpoint.lease_alone().await
    }

    /// The first byte of the answer came.
    pub(in crate::proxy) fn answered(&mut self) {
        self.stop_waiting();
        if let Some(since) = self.since {
            let now = self.endpoint.now();
            self.endpoint.member().answered(now.saturating_sub(since), now);
        }
    }

    /// The request went well, or failed by its answer.
    pub(in crate::proxy) fn judged(&self, failed: bool) {
        if self.since.is_some() {
            self.endpoint.member().judged(failed);
        }
    }

    /// The endpoint did not answer the request: it broke off, or it took too long.
    pub(in crate::proxy) fn failed(mut self) -> Lost {
        self.stop_waiting();
        if let Some(since) = self.since {
            let now = self.endpoint.now();
            self.endpoint.member().broke_off(now.saturating_sub(since), now);
            self.judged(true);
        }
        Lost(Rc::clone(&self.endpoint))
    }

    fn stop_waiting(&mut self) -> bool {
        let waited = std::mem::replace(&mut self.waits, false);
        if waited {
            self.endpoint.member().waited();
        }
        waited
    }
}

impl Drop for Chosen {
    fn drop(&mut self) {
        if self.stop_waiting()
            && let Some(since) = self.since
        {
            let now = self.endpoint.now();
            self.endpoint.member().given_up(now.saturating_sub(since), now);
        }
        self.endpoint.member().end();
    }
}
