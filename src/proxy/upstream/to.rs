//! Where a request goes: to an upstream, and to which of its endpoints. It remembers the endpoints
//! that the request has been to in vain.

use std::rc::Rc;

use super::{Chosen, ConnectError, Pool, Site, endpoint::EndpointPool};

/// Most endpoints that one request tries to connect to.
const MOST_TRIED: usize = 8;

/// The endpoint that a request was lost at.
#[derive(Clone, Debug)]
pub(in crate::proxy) struct Lost(pub(super) Rc<EndpointPool>);

/// Where a request goes.
#[derive(Debug)]
pub(in crate::proxy) struct To<'a> {
    pool: &'a Pool,
    /// The endpoints that it has been to in vain.
    tried: Vec<Rc<EndpointPool>>,
    /// The only one that will do.
    only: Option<Rc<EndpointPool>>,
}

impl<'a> To<'a> {
    /// To any endpoint.
    pub(in crate::proxy) fn any(pool: &'a Pool) -> Self {
        Self { pool, tried: Vec::new(), only: None }
    }

    /// To another endpoint than this one; `None` where there is no other.
    pub(in crate::proxy) fn other(pool: &'a Pool, than: Lost) -> Option<Self> {
        let tried = vec![than.0];
        pool.has_other(&tried).then(|| Self { pool, tried, only: None })
    }

    /// To one endpoint, if it is there. What comes of it says nothing about the endpoint.
    pub(in crate::proxy) fn only(pool: &'a Pool, site: &Site) -> Option<Self> {
        let only = Some(pool.endpoint_at(site)?);
        Some(Self { pool, tried: Vec::new(), only })
    }

    /// The endpoint for the request. Waits as long as a name is not resolved yet, or all endpoints
    /// have as many requests as they may have.
    pub(in crate::proxy) async fn choose(&self) -> Result<Chosen, ConnectError> {
        match &self.only {
            Some(only) => Ok(Chosen::new(only, false)),
            None => self.pool.choose(&self.tried).await,
        }
    }

    /// No connection to the endpoint could be made, so nothing was sent. Whether the request may
    /// go to another one.
    pub(in crate::proxy) fn goes_on(&mut self, chosen: &Chosen, error: &ConnectError) -> bool {
        if self.only.is_some() {
            return false;
        }
        if matches!(error, ConnectError::Retired) {
            return true;
        }
        if !error.is_the_endpoints() {
            return false;
        }
        self.pool.could_not_reach(chosen.endpoint(), error);
        self.tried.push(Rc::clone(chosen.endpoint()));
        self.tried.len() < MOST_TRIED && self.pool.has_other(&self.tried)
    }
}
