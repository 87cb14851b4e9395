//! The placebo: of every baseline one endpoint is held against the others as if it were a canary,
//! with a rollout or without. What shows there is the environment's doing; it sets the length of
//! blocks and stops promotions. Where endpoints cannot be told apart, the shares of the arms
//! calibrate.
//!
//! It needs no slots: requests are counted when they end, in the tick of their arrival. It judges
//! no canary and moves no weight.

use std::{collections::HashMap, sync::Arc, time::SystemTime};

use serde::{Deserialize, Serialize};

use super::{layout::Cell, snapshot::PlaceboView, workers::Workers};
use crate::{
    judge::{self, ArmCounts, Calibration, Pods},
    measure::{
        Batch, EndpointNumber, Event, Kind, Latencies, Ledger, Outcome, Past, RecorderId,
        RecorderKey, Thresholds, Tick, WAIT_CREDIT_US,
    },
    routing::{Judged, RouteTable},
};

/// A second counts so many ticks after its end: what ends later counts when it ends.
const LAG: usize = 50;

/// Ticks of a second.
const SECOND: usize = 10;

/// How often thresholds are looked up, in ticks: as long as there are none, and later.
const LOOKS: [u32; 2] = [50, 600];

const SECONDS_OF_A_DAY: u64 = 86_400;

/// The placebos of all services.
#[derive(Debug, Default)]
pub(super) struct Placebos {
    all: Vec<Placebo>,
    /// By service: the place in `all`.
    places: HashMap<Arc<str>, usize>,
    recorders: HashMap<RecorderId, Recorder>,
    /// What a process before knew, for services that were not laid out yet.
    past: HashMap<Arc<str>, PlaceboMemory>,
}

/// Which placebo a recorder belongs to, and how its requests are looked at.
#[derive(Clone, Copy, Debug)]
struct Recorder {
    place: usize,
    of_canary: bool,
    judged: Judged,
}

/// The placebo of one service.
#[derive(Debug)]
struct Placebo {
    service: Arc<str>,
    memory: PlaceboMemory,
    /// The baseline's upstream, and those of its endpoints that get requests.
    upstream: Arc<str>,
    numbers: Vec<EndpointNumber>,
    /// The endpoint of the day; `None` where there are no two that can be told apart.
    picked: Option<EndpointNumber>,
    baseline: Vec<RecorderKey>,
    thresholds: Option<Thresholds>,
    weights_bp: Vec<u16>,
    /// The last ticks, oldest first; the first begins at `from`.
    ticks: Vec<Counts>,
    from: u32,
    alarms: u64,
}

/// What a placebo knows, for the journal.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct PlaceboMemory {
    day: u64,
    /// The number of endpoints of which one was picked.
    endpoints: usize,
    calibration: Calibration,
}

/// Requests of a tick.
#[derive(Clone, Copy, Debug, Default)]
struct Counts {
    picked: ArmCounts,
    others: ArmCounts,
    canaries: ArmCounts,
}

impl Counts {
    fn add(&mut self, other: &Self) {
        self.picked.merge(&other.picked);
        self.others.merge(&other.others);
        self.canaries.merge(&other.canaries);
    }
}

impl Placebos {
    /// Goes on with what a process before knew.
    pub(super) fn recall(past: Vec<(Arc<str>, PlaceboMemory)>) -> Self {
        Self { past: past.into_iter().collect(), ..Self::default() }
    }

    /// Everything that the placebos know, for the journal.
    pub(super) fn memory(&self) -> Vec<(Arc<str>, PlaceboMemory)> {
        self.all.iter().map(|it| (Arc::clone(&it.service), it.memory.clone())).collect()
    }

    /// Follows another table.
    pub(super) fn arrange(
        &mut self,
        routes: &RouteTable,
        cells: &[Cell],
        workers: &Workers,
        wall: SystemTime,
    ) {
        let before = std::mem::take(&mut self.all).into_iter();
        let mut before: HashMap<Arc<str>, Placebo> =
            before.map(|it| (Arc::clone(&it.service), it)).collect();
        self.places.clear();
        self.recorders.clear();
        for (place, service) in routes.services().iter().enumerate() {
            if service.arms.len() < 2 {
                continue;
            }
            let upstream = routes.upstream(service.arms[0].upstream);
            let of_service = cells.iter().filter(|cell| cell.service == place);
            for cell in of_service.clone() {
                let recorder = Recorder {
                    place: self.all.len(),
                    of_canary: cell.arm.0 > 0,
                    judged: routes.route_at(crate::routing::RouteId(cell.route as u32)).judged,
                };
                self.recorders.insert(cell.id, recorder);
            }
            let baseline = of_service.filter(|cell| cell.arm.0 == 0).map(|cell| cell.key);
            let mut placebo = before.remove(&service.name).unwrap_or_else(|| Placebo {
                service: Arc::clone(&service.name),
                memory: self.past.remove(&service.name).unwrap_or_default(),
                upstream: Arc::clone(&upstream.name),
                numbers: Vec::new(),
                picked: None,
                baseline: Vec::new(),
                thresholds: None,
                weights_bp: Vec::new(),
                ticks: Vec::new(),
                from: 0,
                alarms: 0,
            });
            placebo.baseline = baseline.collect();
            placebo.upstream = Arc::clone(&upstream.name);
            placebo.numbers = match workers.heads(&upstream.name) {
                Some(heads) => heads.numbers.clone(),
                None => (0..upstream.endpoints.len()).map(EndpointNumber::of).collect(),
            };
            placebo.numbers.dedup();
            placebo.pick(day(wall));
            self.places.insert(Arc::clone(&service.name), self.all.len());
            self.all.push(placebo);
        }
    }

    /// Follows which endpoints get requests.
    pub(super) fn follow(&mut self, workers: &Workers, wall: SystemTime) {
        for placebo in &mut self.all {
            if let Some(heads) = workers.heads(&placebo.upstream)
                && heads.numbers != placebo.numbers
            {
                placebo.numbers.clone_from(&heads.numbers);
                placebo.pick(day(wall));
            }
        }
    }

    /// Counts the requests of a batch that ended.
    pub(super) fn notice(&mut self, batch: &Batch) {
        for event in &batch.events {
            let Kind::Ended { outcome, .. } = event.kind() else { continue };
            if event.excluded() {
                continue;
            }
            if let Some(recorder) = self.recorders.get(&event.recorder)
                && let Some(placebo) = self.all.get_mut(recorder.place)
            {
                placebo.count(event, outcome, *recorder);
            }
        }
    }

    /// One tick is over.
    pub(super) fn tick(&mut self, ledger: &Ledger, tick: Tick, wall: SystemTime) {
        for (place, placebo) in self.all.iter_mut().enumerate() {
            placebo.look(ledger, Tick(tick.0.wrapping_add(place as u32)), tick);
            if placebo.feed(tick) {
                placebo.pick(day(wall));
            }
        }
    }

    /// The weights of a service's canaries are these from now on.
    pub(super) fn reweigh(&mut self, service: &str, weights_bp: &[u16]) {
        if let Some(place) = self.places.get(service)
            && let placebo = &mut self.all[*place]
            && placebo.weights_bp != weights_bp
        {
            placebo.weights_bp = weights_bp.to_vec();
            placebo.memory.calibration.reweighed();
        }
    }

    /// The length in ticks of the blocks that a service needs.
    pub(super) fn block_ticks(&self, service: &str) -> Option<u32> {
        self.of(service).map(|placebo| placebo.memory.calibration.block_ticks())
    }

    /// Whether differences between the arms of a service prove nothing.
    pub(super) fn alarms(&self, service: &str) -> bool {
        self.of(service).is_some_and(|placebo| placebo.memory.calibration.alarm())
    }

    fn of(&self, service: &str) -> Option<&Placebo> {
        self.places.get(service).map(|place| &self.all[*place])
    }

    /// All placebos, for metrics.
    pub(super) fn views(&self) -> Vec<PlaceboView> {
        self.all.iter().map(Placebo::view).collect()
    }
}

impl Placebo {
    /// Another day, or the endpoint that was picked is there no more: another one is picked, and
    /// nothing of what was seen of the one says anything of the other. Others may come and go.
    fn pick(&mut self, day: u64) {
        let count = self.numbers.len();
        let stays = count > 1 && self.picked.is_some_and(|it| self.numbers.contains(&it));
        if stays && self.memory.day == day {
            return;
        }
        let before = self.picked;
        let of_day = || self.numbers[place_of_day(&self.service, day, count)];
        self.picked = (count > 1).then(of_day);
        let (known, now) = ((self.memory.day, self.memory.endpoints), (day, count));
        (self.memory.day, self.memory.endpoints) = now;
        if known != now || (before.is_some() && before != self.picked) {
            self.memory.calibration.restart();
        }
    }

    /// Looks the thresholds up. `turn` differs between services, so that they do not all do it
    /// in one tick.
    fn look(&mut self, ledger: &Ledger, turn: Tick, now: Tick) {
        if !turn.0.is_multiple_of(LOOKS[usize::from(self.thresholds.is_some())]) {
            return;
        }
        let latencies = self.baseline.iter().filter_map(|key| ledger.latencies(*key));
        let past = Past::new(latencies.map(Latencies::window).collect(), now);
        self.thresholds = past.thresholds().or(self.thresholds);
    }

    fn count(&mut self, event: &Event, outcome: Outcome, recorder: Recorder) {
        let failed = match outcome {
            Outcome::Ok => false,
            Outcome::Failed | Outcome::Hung => true,
            Outcome::Aborted | Outcome::Local => return,
        };
        let whole_us = match recorder.judged {
            Judged::FirstByte => event.first_byte_us,
            Judged::Total => event.age_us,
        };
        let latency_us = whole_us.saturating_sub(event.wait_us().min(WAIT_CREDIT_US));
        let mut slow = [0; judge::EDGES];
        let edges = self.thresholds.as_ref().map_or(&[][..], Thresholds::baseline_us);
        // A failure that comes fast is no slow request.
        for (slow, edge_us) in slow.iter_mut().zip(edges) {
            *slow = u64::from(latency_us > *edge_us);
        }
        let errors = u64::from(failed);
        let counts = ArmCounts::of_requests(1, [errors; 2], 0, slow);
        let picked = self.picked;
        let place = (event.arrival.0.saturating_sub(self.from) as usize).min(LAG + SECOND - 1);
        if self.ticks.len() <= place {
            self.ticks.resize(place + 1, Counts::default());
        }
        let tick = &mut self.ticks[place];
        let sum = match picked {
            _ if recorder.of_canary => &mut tick.canaries,
            // What was not sent to an endpoint says nothing about endpoints.
            Some(_) if event.endpoint() == EndpointNumber::NONE => return,
            Some(picked) if event.endpoint() == picked => &mut tick.picked,
            Some(_) | None => &mut tick.others,
        };
        sum.merge(&counts);
    }

    /// Feeds the seconds whose time has come; whether there was one.
    fn feed(&mut self, now: Tick) -> bool {
        let due = |from: u32| now.0.saturating_sub(from) as usize >= LAG + SECOND;
        // After a long sleep the seconds in between were empty.
        if now.0.saturating_sub(self.from) as usize > 2 * (LAG + SECOND) {
            self.ticks.clear();
            self.from = now.0.saturating_sub((LAG + SECOND) as u32);
            return true;
        }
        if !due(self.from) {
            return false;
        }
        let mut second = Counts::default();
        let count = self.ticks.len().min(SECOND);
        self.ticks.drain(..count).for_each(|tick| second.add(&tick));
        self.from += SECOND as u32;
        let alarmed = self.memory.calibration.alarm();
        self.feed_second(&second);
        self.alarms += u64::from(!alarmed && self.memory.calibration.alarm());
        true
    }

    fn feed_second(&mut self, second: &Counts) {
        let ticks = SECOND as u32;
        let calibration = &mut self.memory.calibration;
        let others = self.numbers.len().saturating_sub(1);
        if others > 0 {
            calibration.placebo(&judge::Placebo {
                ticks,
                picked: &second.picked,
                others: &second.others,
                pods: Pods { canary: 1, baseline: others as u32 },
            });
        } else if second.canaries.started > 0 {
            calibration.shares(ticks, &second.canaries, &second.others);
        }
    }

    fn view(&self) -> PlaceboView {
        let calibration = &self.memory.calibration;
        let odds = calibration.peaks_ln().map(|(seconds, ln)| (seconds, ln.exp().min(1e12)));
        PlaceboView {
            service: Arc::clone(&self.service),
            evidence: if self.picked.is_some() { odds.collect() } else { Vec::new() },
            block_seconds: calibration.block_ticks() / SECOND as u32,
            alarm: calibration.alarm(),
            alarms: self.alarms,
        }
    }
}

/// The day of a moment, counted from 1970.
fn day(wall: SystemTime) -> u64 {
    let since = wall.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    since.as_secs() / SECONDS_OF_A_DAY
}

/// The place of the endpoint that is picked on a day: FNV-1a over the service and the day.
fn place_of_day(service: &str, day: u64, count: usize) -> usize {
    let bytes = service.bytes().chain(day.to_le_bytes());
    let hash = bytes.fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    (hash >> 16) as usize % count
}

#[cfg(test)]
mod tests;
