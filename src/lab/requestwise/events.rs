//! From requests to what a worker hands over: assignment by the proxy's own code, an event at the
//! arrival, an event at the end.
//!
//! The flaws of the tests of the test are put in here: the events are changed, the counting code
//! is not.

use std::{
    collections::VecDeque,
    net::{IpAddr, Ipv4Addr},
};

use http::{HeaderMap, HeaderName, HeaderValue, Method};

use crate::{
    lab::{
        scenario::{Flaw, Scenario},
        traffic::{End, Request},
    },
    measure::{Batch, Epoch, Event, Head, Kind, OVERHEAD_BUCKETS, Outcome, RecorderId, Tick},
    rollout::EvidenceArm,
    routing::{
        Arm, ArmIndex, CohortId, HeaderOps, KeySource, RequestHead, Salt, Service, ServiceDial,
        UpstreamId, assign, bucket,
    },
};

/// The header that carries the user's name.
const USER: HeaderName = HeaderName::from_static("x-user");

/// Workers that a flawed accounting spreads a user's requests over.
const WORKERS: u64 = 8;

/// A service with one canary, its dial, and the users' hashes.
pub(super) struct Arms {
    service: Service,
    dial: ServiceDial,
    /// The keyed hash of each user; empty without users.
    units: Vec<u64>,
}

impl Arms {
    /// The arms of a run. Its salt is its own, so that users are assigned anew in every run.
    pub(super) fn new(scenario: &Scenario, run: u32) -> Self {
        let arm = |name: &str| Arm {
            name: name.into(),
            version: "".into(),
            upstream: UpstreamId(0),
            request_headers: HeaderOps::default(),
        };
        let users = scenario.users.map_or(0, |users| users.count);
        let service = Service {
            name: "lab".into(),
            arms: vec![arm("baseline"), arm("canary")],
            assign_by: if users > 0 { vec![KeySource::Header(USER)] } else { Vec::new() },
            salt: Salt::derive(&format!("{}/{run}", scenario.seed)),
            override_by: None,
            cohorts: Vec::new(),
            arm_header: false,
            toggles: Vec::new(),
        };
        let dial = ServiceDial::new(&service, &[0]);
        let units = (0..users).map(|user| unit(&service, &dial, user)).collect();
        Self { service, dial, units }
    }

    /// Puts a weight in force.
    pub(super) fn dial(&mut self, weight_bp: u16) {
        self.dial = ServiceDial::new(&self.service, &[weight_bp]);
    }

    /// Whether a request goes to the canary: by its user's hash, else by the coin.
    pub(super) fn is_canary(&self, user: u32, coin: u64) -> bool {
        let hash = self.units.get(user as usize).copied().unwrap_or(coin);
        self.dial.arm(CohortId(0), bucket(hash)) != ArmIndex(0)
    }

    /// The keyed hash of a user; 0 without users.
    pub(super) fn unit(&self, user: u32) -> u64 {
        self.units.get(user as usize).copied().unwrap_or(0)
    }
}

/// The unit that a request of this user is assigned by.
fn unit(service: &Service, dial: &ServiceDial, user: u32) -> u64 {
    let mut headers = HeaderMap::new();
    headers.insert(USER, HeaderValue::from(user));
    let head = RequestHead {
        method: &Method::GET,
        host: "lab",
        path: "/",
        query: None,
        headers: &headers,
        client_ip: IpAddr::V4(Ipv4Addr::LOCALHOST),
        learned: None,
    };
    assign(service, dial, CohortId(0), &head, 0).unit
}

/// The events of requests, in the order of time.
pub(super) struct Events {
    flaw: Option<Flaw>,
    now: Vec<Event>,
    /// By ticks from now.
    later: VecDeque<Vec<Event>>,
    spare: Vec<Event>,
    serial: u64,
}

impl Events {
    pub(super) fn new(scenario: &Scenario) -> Self {
        Self {
            flaw: scenario.flaw,
            now: Vec::new(),
            later: VecDeque::new(),
            spare: Vec::new(),
            serial: 0,
        }
    }

    /// A request comes in and will end.
    pub(super) fn arrive(&mut self, request: &Request, unit: u64, tick: Tick, epoch: Epoch) {
        let unit = self.told_unit(unit);
        let recorder = RecorderId(u32::from(request.canary));
        let mut begin = Event::new(Kind::Assigned, epoch, false);
        let mut end = Event::new(ended(request.end), epoch, false);
        for event in [&mut begin, &mut end] {
            (event.unit, event.recorder, event.arrival) = (unit, recorder, tick);
        }
        end.first_byte_us = request.latency_us;
        end.age_us = request.latency_us;
        let ends_us = request.arrival_us + u64::from(request.latency_us);
        let ticks = (ends_us / 100_000) as usize - tick.0 as usize;
        if self.flaw != Some(Flaw::NoEpochTag) {
            self.now.push(begin);
        }
        if self.later.len() <= ticks {
            self.later.resize_with(ticks + 1, Vec::new);
        }
        self.later[ticks].push(end);
    }

    /// What the worker hands over at the end of a tick.
    pub(super) fn batch(&mut self, tick: Tick, epoch: Epoch) -> Batch {
        let mut events = std::mem::take(&mut self.spare);
        events.append(&mut self.now);
        let mut ends = self.later.pop_front().unwrap_or_default();
        if self.flaw == Some(Flaw::NoEpochTag) {
            for end in ends.drain(..) {
                // Counted as if it had come in now, under the weights of now.
                let kinds = [Kind::Assigned, end.kind()];
                events.extend(kinds.map(|kind| retold(kind, tick, epoch, &end)));
            }
        } else {
            events.append(&mut ends);
        }
        // The room of a tick that is over serves a tick to come.
        self.later.push_back(ends);
        Batch {
            worker: 0,
            through: tick.end(),
            events,
            overflowed: false,
            overhead: [0; OVERHEAD_BUCKETS],
            overhead_sum_us: 0,
            report: None,
        }
    }

    /// Takes the buffer back.
    pub(super) fn give_back(&mut self, batch: Batch) {
        self.spare = batch.events;
        self.spare.clear();
    }

    /// The unit that the accounting is told.
    fn told_unit(&mut self, unit: u64) -> u64 {
        self.serial += 1;
        let salt = match self.flaw {
            Some(Flaw::NoDedupe) => self.serial,
            Some(Flaw::DedupePerWorker) => self.serial % WORKERS,
            Some(Flaw::NoEpochTag | Flaw::NoThinning | Flaw::SkipWithoutCanary) | None => {
                return unit;
            }
        };
        unit.wrapping_add(salt.wrapping_mul(0x9e37_79b9_7f4a_7c15)) | 1
    }
}

/// The units of the keyed requests that a batch tells of, and their arms.
pub(super) fn assigned(batch: &Batch) -> impl Iterator<Item = (u64, EvidenceArm)> + '_ {
    let assigned = batch.events.iter().filter(|event| event.kind() == Kind::Assigned);
    assigned.map(|event| {
        (event.unit, EvidenceArm { stratum: 0, is_canary: event.recorder == RecorderId(1) })
    })
}

/// An event of the same request, as if it had come in now.
fn retold(kind: Kind, tick: Tick, epoch: Epoch, like: &Event) -> Event {
    let mut event = Event::new(kind, epoch, false);
    (event.unit, event.recorder, event.arrival) = (like.unit, like.recorder, tick);
    if kind != Kind::Assigned {
        (event.first_byte_us, event.age_us) = (like.first_byte_us, like.age_us);
    }
    event
}

const fn ended(end: End) -> Kind {
    let outcome = match end {
        End::Ok => Outcome::Ok,
        End::Failed => Outcome::Failed,
        End::Hung => Outcome::Hung,
    };
    Kind::Ended { outcome, head: Head::Untold }
}
