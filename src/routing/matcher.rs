//! The compiled matcher: from the head of a request to its route and its cohort.

use std::sync::Arc;

use super::{
    CohortId, Condition, Facts, RequestHead, Route, RouteId, Service, ServiceId, Upstream,
    UpstreamId, precedence::conjunctions, predicate::Predicate, rows::Rows, tree::RouteTree,
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
    /// Where countries and claims come from.
    pub facts: Facts,
}

/// Routes, cohorts, services and upstreams, compiled.
#[derive(Clone, Debug)]
pub struct RouteTable {
    parts: TableParts,
    tree: RouteTree,
    cohorts: Rows,
    /// The cohort of every row of `cohorts`.
    cohort_of_row: Box<[CohortId]>,
}

impl RouteTable {
    /// Compiles the parts. Hosts and paths in conditions may be in any spelling: they are brought
    /// into the form in which those of requests are compared.
    ///
    /// Routes are found by host and path in a time that does not grow with their number. Cohorts
    /// are asked all at once, each attribute of the request read once; a condition costs more only
    /// where it holds a regular expression, a share of keys, or an `any` or `not` over several
    /// attributes, or a country or a claim, and only for requests that fulfil the rest of its route
    /// or cohort.
    #[must_use]
    pub fn new(parts: TableParts) -> Self {
        let routes: Vec<Condition> =
            parts.routes.iter().map(|(condition, _)| condition.normalised()).collect();
        let mut rows = Vec::new();
        let mut cohort_of_row = Vec::new();
        for (index, (_, condition)) in parts.cohorts.iter().enumerate() {
            for terms in conjunctions(&condition.normalised()) {
                rows.push(terms.into_iter().map(Predicate::of).collect());
                cohort_of_row.push(CohortId(index as u16 + 1));
            }
        }
        Self {
            tree: RouteTree::new(routes.iter()),
            cohorts: Rows::new(rows),
            cohort_of_row: cohort_of_row.into(),
            parts,
        }
    }

    /// The route of a request, if any matches: of several the one of the greatest
    /// [`Precedence`](super::Precedence).
    #[must_use]
    pub fn route(&self, head: &RequestHead<'_>) -> Option<RouteId> {
        self.tree.find(head)
    }

    /// The cohort of a request: the first whose condition holds, else `default`.
    #[must_use]
    pub fn cohort(&self, head: &RequestHead<'_>) -> CohortId {
        self.cohorts.first(head).map_or(CohortId(0), |row| self.cohort_of_row[row])
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

    /// The condition of a route, as it was given.
    #[must_use]
    pub fn condition(&self, id: RouteId) -> &Condition {
        &self.parts.routes[id.0 as usize].0
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

    /// Where countries and claims come from.
    #[must_use]
    pub fn facts(&self) -> &Facts {
        &self.parts.facts
    }

    /// Lets countries and claims come from elsewhere, before the table is stored.
    pub fn set_facts(&mut self, facts: Facts) {
        self.parts.facts = facts;
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

#[cfg(test)]
mod tests;
