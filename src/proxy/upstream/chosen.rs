//! An endpoint that was chosen for a request: counts the request there for as long as it lasts,
//! and learns from it how the endpoint does.

use std::{cell::Cell, rc::Rc, time::Duration};

use super::{ConnectError, Lease, Lost, endpoint::EndpointPool};
use crate::measure::EndpointNumber;

/// A request's endpoint. Dropped when the request is over, whatever came of it.
#[derive(Debug)]
pub(in crate::proxy) struct Chosen {
    endpoint: Rc<EndpointPool>,
    /// Whether anybody asks how the endpoint does: there is another one.
    counts: bool,
    /// Since when the first byte is waited for. Connecting is not part of it: where requests are
    /// few it would make all the difference.
    since: Cell<Option<Duration>>,
    waits: bool,
}

impl Chosen {
    pub(super) fn new(endpoint: &Rc<EndpointPool>, counts: bool) -> Self {
        endpoint.member().begin();
        Self { endpoint: Rc::clone(endpoint), counts, since: Cell::new(None), waits: true }
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
        self.leased(self.endpoint.lease(fresh).await)
    }

    /// A connection that no other request shares.
    pub(in crate::proxy) async fn lease_alone(&self) -> Result<Lease, ConnectError> {
        self.leased(self.endpoint.lease_alone().await)
    }

    fn leased(&self, leased: Result<Lease, ConnectError>) -> Result<Lease, ConnectError> {
        self.since.set(self.counts.then(|| self.endpoint.now()));
        leased
    }

    /// The first byte of the answer came.
    pub(in crate::proxy) fn answered(&mut self) {
        self.stop_waiting();
        if let Some(since) = self.since.get() {
            let now = self.endpoint.now();
            self.endpoint.member().answered(now.saturating_sub(since), now);
        }
    }

    /// The request went well, or failed by its answer.
    pub(in crate::proxy) fn judged(&self, failed: bool) {
        if self.counts {
            self.endpoint.member().judged(failed);
        }
    }

    /// The endpoint did not answer the request: it broke off, or it took too long.
    pub(in crate::proxy) fn failed(mut self) -> Lost {
        self.stop_waiting();
        if let Some(since) = self.since.get() {
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
            && let Some(since) = self.since.get()
        {
            let now = self.endpoint.now();
            self.endpoint.member().given_up(now.saturating_sub(since), now);
        }
        self.endpoint.member().end();
    }
}
