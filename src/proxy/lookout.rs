//! The lookout: the first worker resolves the names of all upstreams again and again, asks their
//! endpoints whether they are well, and tells all workers what came of it.
//!
//! So a name is resolved, and an endpoint asked, once per process, and all workers know an endpoint
//! by the same number. No request waits for it but those that come before a name was resolved for
//! the first time.

mod checks;

use std::{
    cell::RefCell,
    collections::{HashMap, HashSet},
    io,
    net::SocketAddr,
    rc::Rc,
    sync::Arc,
    time::Duration,
};

use tokio::{
    sync::{mpsc, watch},
    task::spawn_local,
};

use self::checks::Checks;
use super::{
    resolver::Resolver,
    upstream::{Health, Roster, Rosters, Site},
    worker::Worker,
};
use crate::routing::{Endpoint, RouteTable, Upstream};

/// A name is not looked up again within this time, whatever happens.
const LEAST_PAUSE: Duration = Duration::from_millis(500);

/// Most addresses of one name that are used.
const MOST_ADDRESSES: usize = 1024;

/// Most hints that wait. One more says nothing new.
const MOST_HINTS: usize = 64;

/// What every worker gets of the lookout.
#[derive(Clone, Debug)]
pub(super) struct Outlook {
    pub(super) rosters: watch::Receiver<Arc<Rosters>>,
    pub(super) hints: Hints,
}

/// Asks for names to be looked up at once.
#[derive(Clone, Debug)]
pub(super) struct Hints(mpsc::Sender<Arc<str>>);

impl Hints {
    /// The names of this upstream should be looked up.
    pub(super) fn give(&self, upstream: &Arc<str>) {
        // Where the queue is full or nobody reads it, one hint less does no harm.
        let _ = self.0.try_send(Arc::clone(upstream));
    }
}

/// What the lookout itself is made of.
#[derive(Debug)]
pub(super) struct Post {
    rosters: watch::Sender<Arc<Rosters>>,
    hints: mpsc::Receiver<Arc<str>>,
    resolver: Resolver,
}

/// The post of a lookout, and what the workers get of it.
pub(super) fn post(resolver: Resolver) -> (Post, Outlook) {
    let (sender, rosters) = watch::channel(Arc::default());
    let (hinted, hints) = mpsc::channel(MOST_HINTS);
    (Post { rosters: sender, hints, resolver }, Outlook { rosters, hints: Hints(hinted) })
}

/// Looks after the endpoints of all upstreams.
#[derive(Debug)]
pub(super) struct Lookout {
    worker: Rc<Worker>,
    resolver: Resolver,
    rosters: watch::Sender<Arc<Rosters>>,
    seen: RefCell<Seen>,
}

#[derive(Debug, Default)]
struct Seen {
    routes: Option<Arc<RouteTable>>,
    upstreams: HashMap<Arc<str>, Watched>,
}

/// One upstream.
#[derive(Debug)]
struct Watched {
    spec: Arc<Upstream>,
    roster: Roster,
    names: Vec<Name>,
    checks: Checks,
}

/// A name among the endpoints of an upstream.
#[derive(Debug)]
struct Name {
    endpoint: Endpoint,
    addresses: Vec<SocketAddr>,
    /// When it is to be looked up.
    due: Duration,
    /// When it was last looked up; `None` before the first time.
    looked: Option<Duration>,
    underway: bool,
    fails: bool,
}

impl Lookout {
    pub(super) fn new(worker: &Rc<Worker>, post: Post) -> Rc<Self> {
        let Post { rosters, mut hints, resolver } = post;
        let lookout = Rc::new(Self {
            worker: Rc::clone(worker),
            resolver,
            rosters,
            seen: RefCell::default(),
        });
        let hinted = Rc::downgrade(&lookout);
        spawn_local(async move {
            while let Some(upstream) = hints.recv().await {
                let Some(lookout) = hinted.upgrade() else { return };
                lookout.hurry(&upstream);
            }
        });
        lookout
    }

    /// Another tick has passed: looks up and asks what is due.
    pub(super) fn tick(self: &Rc<Self>) {
        let now = self.worker.clock.now();
        self.follow_table(now);
        let mut seen = self.seen.borrow_mut();
        for watched in seen.upstreams.values_mut() {
            for place in 0..watched.names.len() {
                if watched.names[place].due <= now {
                    self.look_up(watched, place, now);
                }
            }
            self.ask(watched, now);
        }
    }

    /// Watches the upstreams of the table in force.
    fn follow_table(&self, now: Duration) {
        let view = self.worker.view();
        let mut seen = self.seen.borrow_mut();
        if seen.routes.as_ref().is_some_and(|routes| Arc::ptr_eq(routes, &view.table.routes)) {
            return;
        }
        let routes = Arc::clone(&view.table.routes);
        let names: HashSet<&str> = routes.upstreams().iter().map(|spec| &*spec.name).collect();
        seen.upstreams.retain(|name, _| names.contains(&**name));
        for spec in routes.upstreams().iter().filter(|spec| spec.needs_lookout()) {
            match seen.upstreams.get_mut(&spec.name) {
                Some(watched) if watched.spec == *spec => {}
                Some(watched) => watched.become_like(spec, now),
                None => {
                    seen.upstreams.insert(Arc::clone(&spec.name), Watched::new(spec, now));
                }
            }
        }
        seen.upstreams.retain(|_, watched| watched.spec.needs_lookout());
        seen.routes = Some(routes);
        self.publish(&seen);
    }

    fn look_up(self: &Rc<Self>, watched: &mut Watched, place: usize, now: Duration) {
        let name = &mut watched.names[place];
        let Endpoint::Name(host, port) = &name.endpoint else { return };
        if std::mem::replace(&mut name.underway, true) {
            return;
        }
        name.looked = Some(now);
        let lookout = Rc::clone(self);
        let (upstream, endpoint) = (Arc::clone(&watched.spec.name), name.endpoint.clone());
        let addresses = self.resolver.resolve(host, *port);
        spawn_local(async move {
            let found = addresses.await;
            lookout.found(&upstream, &endpoint, found);
        });
    }

    /// A name was resolved, or not: then what is known of it stays.
    fn found(&self, upstream: &str, endpoint: &Endpoint, found: io::Result<Vec<SocketAddr>>) {
        let now = self.worker.clock.now();
        let mut seen = self.seen.borrow_mut();
        let Some(watched) = seen.upstreams.get_mut(upstream) else { return };
        let period = watched.spec.balancing.resolve_every;
        let Some(name) = watched.names.iter_mut().find(|name| name.endpoint == *endpoint) else {
            return;
        };
        name.underway = false;
        name.due = now + period;
        if let Err(problem) = name.learn(found) {
            if !std::mem::replace(&mut name.fails, true) {
                tracing::warn!(upstream, ?endpoint, problem, "a name cannot be resolved");
            }
        } else if std::mem::take(&mut name.fails) {
            tracing::info!(upstream, ?endpoint, "a name can be resolved again");
        }
        let before = watched.roster.seats.len();
        watched.seat(now);
        if watched.roster.seats.len() != before {
            let endpoints = watched.roster.seats.len();
            tracing::info!(upstream, before, endpoints, "endpoints came or went");
        }
        self.publish(&seen);
    }

    /// Has the names of an upstream looked up at once, if that was not just done.
    fn hurry(self: &Rc<Self>, upstream: &str) {
        let now = self.worker.clock.now();
        let mut seen = self.seen.borrow_mut();
        let Some(watched) = seen.upstreams.get_mut(upstream) else { return };
        for place in 0..watched.names.len() {
            let name = &mut watched.names[place];
            let least = name.looked.map_or(now, |looked| looked + LEAST_PAUSE);
            name.due = name.due.min(least);
            if name.due <= now {
                self.look_up(watched, place, now);
            }
        }
    }

    /// Tells the workers what has changed.
    fn publish(&self, seen: &Seen) {
        self.rosters.send_if_modified(|rosters| {
            let same = rosters.len() == seen.upstreams.len()
                && seen.upstreams.iter().all(|(name, watched)| {
                    rosters.get(name).is_some_and(|known| **known == watched.roster)
                });
            if same {
                return false;
            }
            let roster = |(name, watched): (&Arc<str>, &Watched)| {
                let known = rosters.get(name).filter(|known| ***known == watched.roster);
                let now = known.map_or_else(|| Arc::new(watched.roster.clone()), Arc::clone);
                (Arc::clone(name), now)
            };
            *rosters = Arc::new(seen.upstreams.iter().map(roster).collect());
            true
        });
    }
}

impl Name {
    fn new(endpoint: &Endpoint, now: Duration) -> Self {
        Self {
            endpoint: endpoint.clone(),
            addresses: Vec::new(),
            due: now,
            looked: None,
            underway: false,
            fails: false,
        }
    }

    /// Takes over what was found; else says why there was nothing.
    fn learn(&mut self, found: io::Result<Vec<SocketAddr>>) -> Result<(), String> {
        let mut addresses = found.map_err(|error| error.to_string())?;
        // Resolvers shuffle.
        addresses.sort_unstable();
        addresses.dedup();
        addresses.truncate(MOST_ADDRESSES);
        if addresses.is_empty() {
            return Err("it has no address".to_owned());
        }
        self.addresses = addresses;
        Ok(())
    }
}

impl Watched {
    fn new(spec: &Arc<Upstream>, now: Duration) -> Self {
        let names = spec.endpoints.iter().filter(|it| matches!(it, Endpoint::Name(..)));
        Self {
            spec: Arc::clone(spec),
            roster: Roster::of(spec, None, now),
            names: names.map(|endpoint| Name::new(endpoint, now)).collect(),
            checks: Checks::default(),
        }
    }

    /// Goes on with another description of the upstream.
    fn become_like(&mut self, spec: &Arc<Upstream>, now: Duration) {
        let mut before = std::mem::take(&mut self.names);
        let names = spec.endpoints.iter().filter(|it| matches!(it, Endpoint::Name(..)));
        let name = |endpoint: &Endpoint| {
            let known = before.iter().position(|name| name.endpoint == *endpoint);
            known.map_or_else(|| Name::new(endpoint, now), |place| before.swap_remove(place))
        };
        self.names = names.map(name).collect();
        if self.spec.health != spec.health {
            self.checks = Checks::default();
        }
        self.spec = Arc::clone(spec);
        self.roster = Roster::of(spec, Some(&self.roster), now);
        self.seat(now);
    }

    /// Brings the roster up to what is known of the names.
    fn seat(&mut self, now: Duration) {
        let mut sites = Vec::new();
        for endpoint in &self.spec.endpoints {
            match self.names.iter().find(|name| name.endpoint == *endpoint) {
                Some(name) => {
                    sites.extend(name.addresses.iter().map(|address| Site {
                        endpoint: endpoint.clone(),
                        address: Some(*address),
                    }))
                }
                None => sites.push(Site { endpoint: endpoint.clone(), address: None }),
            }
        }
        let fresh = if self.spec.health.is_some() { Health::Untested } else { Health::Well };
        self.roster.unresolved =
            self.names.iter().any(|name| name.addresses.is_empty() && !name.fails);
        self.roster.seat(sites, fresh, now);
        self.checks.retain(&self.roster);
    }
}
