//! The compiled matcher: from the head of a request to its route and its cohort.

use std::sync::Arc;

use super::{
    CohortId, Condition, HostPattern, RequestHead, Route, RouteId, Service, ServiceId, Upstream,
    UpstreamId, ValueMatch,
    assignment::{bucket, key_hash},
    device::{DeviceSet, devices},
    read::{cookie, parameter},
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
    pub fn route(&self, head: &RequestHead<'_>) -> Option<RouteId> {
        let routes = self.parts.routes.iter().enumerate();
        let matching = routes.filter(|(_, (condition, _))| holds(condition, head));
        matching
            .max_by_key(|(order, (condition, _))| (rank(condition), std::cmp::Reverse(*order)))
            .map(|(order, _)| RouteId(order as u32))
    }

    /// The cohort of a request: the first whose condition holds, else `default`.
    #[must_use]
    pub fn cohort(&self, head: &RequestHead<'_>) -> CohortId {
        let first = self.parts.cohorts.iter().position(|(_, condition)| holds(condition, head));
        CohortId(first.map_or(0, |index| index as u16 + 1))
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

/// How specific a condition is: host, path, method, number of other conditions.
fn rank(condition: &Condition) -> ((u8, usize), (u8, usize), bool, usize) {
    let all: &[Condition] =
        if let Condition::All(all) = condition { all } else { std::slice::from_ref(condition) };
    let mut rank = ((0, 0), (0, 0), false, 0);
    for condition in all {
        match condition {
            Condition::Host(hosts) => {
                rank.0 = hosts
                    .iter()
                    .map(|host| match host {
                        HostPattern::Exact(_) => (2, 0),
                        HostPattern::Suffix(suffix) => (1, suffix.len()),
                    })
                    .max()
                    .unwrap_or_default();
            }
            Condition::Path(_) => rank.1 = (3, 0),
            Condition::PathPrefix(prefixes) => {
                rank.1 =
                    rank.1.max((2, prefixes.iter().map(|prefix| prefix.len()).max().unwrap_or(0)));
            }
            Condition::PathRegex(_) => rank.1 = rank.1.max((1, 0)),
            Condition::Method(_) => rank.2 = true,
            Condition::All(_)
            | Condition::Any(_)
            | Condition::Not(_)
            | Condition::Header(..)
            | Condition::Cookie(..)
            | Condition::Query(..)
            | Condition::ClientIp(_)
            | Condition::Country(_)
            | Condition::Device(_)
            | Condition::JwtClaim(..)
            | Condition::Percent { .. } => rank.3 += 1,
        }
    }
    rank
}

fn holds(condition: &Condition, head: &RequestHead<'_>) -> bool {
    match condition {
        Condition::All(all) => all.iter().all(|condition| holds(condition, head)),
        Condition::Any(any) => any.iter().any(|condition| holds(condition, head)),
        Condition::Not(condition) => !holds(condition, head),
        Condition::Method(methods) => methods.contains(head.method),
        Condition::Host(hosts) => hosts.iter().any(|host| match host {
            HostPattern::Exact(host) => **host == *head.host,
            HostPattern::Suffix(suffix) => head.host.ends_with(&**suffix),
        }),
        Condition::Path(paths) => paths.iter().any(|path| **path == *head.path),
        Condition::PathPrefix(prefixes) => prefixes.iter().any(|prefix| {
            head.path.strip_prefix(&**prefix).is_some_and(|rest| {
                rest.is_empty()
                    || rest.starts_with('/')
                    || prefix.is_empty()
                    || prefix.ends_with('/')
            })
        }),
        Condition::PathRegex(regexes) => regexes.iter().any(|regex| regex.is_match(head.path)),
        Condition::Header(name, test) => {
            value_holds(test, head.headers.get(name).map(|value| value.as_bytes()))
        }
        Condition::Cookie(name, test) => value_holds(test, cookie(head.headers, name)),
        Condition::Query(name, test) => value_holds(test, parameter(head.query, name).as_deref()),
        Condition::ClientIp(nets) => {
            nets.iter().any(|net| net.contains(&head.client_ip.to_canonical()))
        }
        Condition::Country(_) => false,
        Condition::Device(kinds) => devices(head.headers).meets(DeviceSet::of(kinds)),
        Condition::JwtClaim(_, test) => value_holds(test, None),
        Condition::Percent { share_bp, by, salt } => {
            key_hash(by, *salt, head).is_some_and(|hash| bucket(hash) < *share_bp)
        }
    }
}

fn value_holds(test: &ValueMatch, value: Option<&[u8]>) -> bool {
    let Some(value) = value else { return matches!(test, ValueMatch::Present(false)) };
    match test {
        ValueMatch::Exact(texts) => texts.iter().any(|text| text.as_bytes() == value),
        ValueMatch::Prefix(texts) => texts.iter().any(|text| value.starts_with(text.as_bytes())),
        ValueMatch::Regex(regexes) => std::str::from_utf8(value)
            .is_ok_and(|text| regexes.iter().any(|regex| regex.is_match(text))),
        ValueMatch::Present(present) => *present,
    }
}
