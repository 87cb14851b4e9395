//! The control thread: wakes every 100 ms, counts what the workers did, lets the rollouts go on,
//! and stores the live table. It waits for nothing but its own clock and its inbox.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use arc_swap::ArcSwap;
use crossbeam_channel::{Receiver, Sender};
use tokio::{
    sync::{oneshot, watch},
    time::Instant,
};

use super::{
    Action, Command, ConfigView, NewConfig, Obstacle, Recorded, Refused, Seen, Settings, Snapshot,
    asking::{self, Asking},
    groups::Groups,
    handle::Message,
    headroom::Headroom,
    hearing::{About, Hearings, Now},
    layout::{self, Layout, OutOfIds},
    objectives::Objectives,
    placebo::Placebos,
    sessions::Sessions,
    shares::Shares,
    steering::{At, Changes, Counted, Known, Moment, Rollout, Steering, reply},
    view::{Beginnings, View},
    workers::Workers,
};
use crate::{
    judge::BreakerState,
    measure::{Batch, Cut, Epoch, Event, Ledger, Tick},
    routing::{
        Arm, ArmIndex, Asks, CohortId, Dials, LiveTable, RouteTable, Service, ServiceDial,
        ServiceId, TableParts,
    },
};

/// Weights do not rise while the control thread wakes later than this.
const TOO_LATE: Duration = Duration::from_millis(500);

/// The control thread's ends of a worker's channels.
#[derive(Debug)]
pub(super) struct WorkerEnd {
    pub(super) batches: Receiver<Batch>,
    pub(super) empties: Sender<Vec<Event>>,
}

/// All that the control thread owns.
#[derive(Debug)]
pub(super) struct Control {
    started: Instant,
    ends: Vec<WorkerEnd>,
    table: Arc<ArcSwap<LiveTable>>,
    /// Tables that a worker may still hold: they are dropped here, not there.
    retired: Vec<Arc<LiveTable>>,
    /// The table without recorders' ids, to be laid out again.
    routes: RouteTable,
    settings: Settings,
    config: ConfigView,
    steering: Steering,
    hearings: Hearings,
    layout: Layout,
    /// The versions that were laid out, by service and arm.
    versions: Vec<Vec<Arc<str>>>,
    ledger: Ledger,
    groups: Groups,
    objectives: Objectives,
    shares: Shares,
    headroom: Headroom,
    placebos: Placebos,
    sessions: Sessions,
    asking: Asking,
    /// Whether some weight is still on its way down.
    descending: bool,
    workers: Workers,
    beginnings: Beginnings,
    /// Counts of rollouts that began in a process before this one, as far as it had come.
    carried: Counted,
    /// Counts as the journal was told them last.
    counted: Counted,
    /// Reloads whose raises are on their way to the disk.
    reloads: Vec<(u64, oneshot::Sender<Result<(), Refused>>)>,
    snapshots: Option<watch::Sender<Arc<Snapshot>>>,
    ticks: u64,
    /// The worst lateness of the second before and of this one.
    lateness: [Duration; 2],
}

/// What the control thread begins with.
pub(super) struct Parts {
    pub(super) started: Instant,
    pub(super) ends: Vec<WorkerEnd>,
    pub(super) config: NewConfig,
    pub(super) steering: Steering,
    pub(super) placebos: Placebos,
}

impl Control {
    /// Lays out the first table. Weights that are new come into force with [`Control::settle`].
    pub(super) fn new(parts: Parts, moment: Moment) -> Result<Self, OutOfIds> {
        let NewConfig { routes, settings, config_hash } = parts.config;
        let empty = LiveTable {
            routes: Arc::new(RouteTable::new(TableParts::default())),
            dials: Arc::new(Dials::default()),
            epoch: Epoch::default(),
            asks: Arc::default(),
        };
        let config_hash: Arc<str> = config_hash.into();
        let mut control = Self {
            started: parts.started,
            ledger: Ledger::new(parts.ends.len()),
            workers: Workers::new(parts.ends.len()),
            ends: parts.ends,
            table: Arc::new(ArcSwap::from_pointee(empty)),
            retired: Vec::new(),
            routes,
            settings,
            config: ConfigView {
                hash: config_hash.clone(),
                last_reload_successful: true,
                last_success: moment.wall,
                last_error: None,
            },
            steering: parts.steering,
            hearings: Hearings::default(),
            layout: Layout::default(),
            versions: Vec::new(),
            groups: Groups::default(),
            objectives: Objectives::default(),
            shares: Shares::default(),
            headroom: Headroom::default(),
            placebos: parts.placebos,
            sessions: Sessions::default(),
            asking: Asking::default(),
            descending: false,
            beginnings: Beginnings::default(),
            carried: Counted::default(),
            counted: Counted::default(),
            reloads: Vec::new(),
            snapshots: None,
            ticks: 0,
            lateness: [Duration::ZERO; 2],
        };
        control.steering.plan(&control.settings.services, config_hash, moment);
        let changes = control.steering.take_changes();
        control.lay_out(moment.wall)?;
        control.store(true);
        control.hold_hearings(&changes, moment);
        Ok(control)
    }

    pub(super) fn table(&self) -> Arc<ArcSwap<LiveTable>> {
        Arc::clone(&self.table)
    }

    /// Whether a weight still waits for the disk.
    pub(super) fn is_settled(&self) -> bool {
        self.steering.last_pending().is_none()
    }

    /// Publishes snapshots from now on.
    pub(super) fn publish_to(&mut self, wall: SystemTime) -> watch::Receiver<Arc<Snapshot>> {
        let (sender, receiver) = watch::channel(Arc::new(self.view().snapshot(wall)));
        self.snapshots = Some(sender);
        receiver
    }

    /// The thread's life, until it is told to stop.
    pub(super) fn run(mut self, inbox: &Receiver<Message>) {
        let mut due = Instant::now() + Tick::LENGTH;
        loop {
            let now = Instant::now();
            if now >= due {
                let late = now - due;
                self.lateness[1] = self.lateness[1].max(late);
                self.tick(moment());
                // After a long sleep the missed ticks are not made up for.
                due = if late > Duration::from_secs(1) { now } else { due } + Tick::LENGTH;
                continue;
            }
            match inbox.recv_timeout(due - now) {
                Ok(Message::Stop) => break,
                Ok(message) => self.take(message, moment()),
                Err(_) => {}
            }
        }
        self.drain(Instant::now());
        self.publish(SystemTime::now());
    }

    fn take(&mut self, message: Message, moment: Moment) {
        match message {
            Message::Command(command, answer) => {
                let refused = self.drill(&command, moment).err();
                match refused {
                    Some(refused) => reply(answer, Err(refused)),
                    None => self.steering.command(&command, answer, moment),
                }
                self.ask(moment);
                self.settle(moment);
            }
            Message::Apply(config, answer) => self.apply(*config, answer, moment),
            Message::ReloadFailed(error) => {
                self.config.last_reload_successful = false;
                self.config.last_error = Some(error.into());
                self.publish(moment.wall);
            }
            Message::Durable => self.settle(moment),
            Message::Stop => {}
        }
    }

    fn tick(&mut self, moment: Moment) {
        let tick = self.drain(moment.now);
        self.ledger.observe(moment.now - self.started);
        self.groups.refresh(&self.ledger, tick);
        self.objectives.read(&self.ledger, tick);
        self.placebos.tick(&self.ledger, tick, moment.wall);
        self.judge(tick, moment);
        self.ask(moment);
        self.settle(moment);
        self.retired.retain(|table| Arc::strong_count(table) > 1);
        self.ticks += 1;
        if self.ticks.is_multiple_of(10) {
            self.ledger.retire();
            self.placebos.follow(&self.workers, moment.wall);
            self.shares.second(self.layout.current(), &self.ledger);
            self.headroom.second(self.shares.last_second());
            self.tell_counts(moment);
            if self.descending {
                self.store(false);
                // What was seen chose the moment of each of these steps.
                let forced = self.steering.places();
                self.hold_hearings(&Changes { forced, ..Changes::default() }, moment);
            }
            self.publish(moment.wall);
            self.lateness = [self.lateness[1], Duration::ZERO];
        }
    }

    /// Counts what the workers sent; returns the current tick.
    fn drain(&mut self, now: Instant) -> Tick {
        let tick = Tick::at(now - self.started);
        for end in &self.ends {
            // What comes in meanwhile has time until the next tick.
            for mut batch in end.batches.try_iter().take(end.batches.len()) {
                self.hearings.notice(&batch);
                self.sessions.notice(&batch);
                self.placebos.notice(&batch);
                self.ledger.apply(&batch, tick);
                self.workers.take(&mut batch);
                let mut events = batch.events;
                events.clear();
                // A worker that has enough of them makes do without this one.
                let _ = end.empties.try_send(events);
            }
        }
        tick
    }

    /// Hears what has become final, and lets every rollout take its step.
    fn judge(&mut self, tick: Tick, moment: Moment) {
        let late = self.lateness[0].max(self.lateness[1]) > TOO_LATE;
        let obstacle = (!self.steering.is_writable())
            .then_some(Obstacle::Journal)
            .or(late.then_some(Obstacle::Late));
        self.hearings.measure(&mut self.ledger, tick);
        for at in self.steering.places() {
            let names = self.steering.at(at).names();
            let second = tick.0.is_multiple_of(10);
            let pods = second.then(|| self.about(at).map(|about| about.pods())).flatten();
            let Some(hearing) = self.hearings.listen(&names, &mut self.ledger, tick) else {
                continue;
            };
            if let Some(pods) = pods {
                hearing.count_pods(pods);
            }
            for note in hearing.notes() {
                self.steering.record(at, note, moment);
            }
            if let Some(ticks) = self.placebos.block_ticks(&names[0]) {
                hearing.calibrate(ticks);
            }
            let obstacle =
                obstacle.or(self.placebos.alarms(&names[0]).then_some(Obstacle::Placebo));
            if hearing.is_due(tick) {
                let now = self.steering.time_of(at, moment);
                let (objectives, breached) = self.objectives.standing(at.service, at.canary);
                let seen = hearing.seen(now, self.steering.others_bp(at), obstacle, tick);
                let mut said = hearing.said();
                if let Some(breached) = breached {
                    said.told.sentence = format!("{breached} is breached; {}", said.told.sentence);
                }
                if seen.breaker == BreakerState::Open {
                    self.asking.end_drain(&names[0]);
                }
                self.steering.judge(at, Seen { objectives, ..seen }, said, moment);
            }
        }
        if self.steering.wants_snapshot() {
            let known = Known { counted: &self.counted, placebos: &self.placebos };
            self.steering.remember_all(&self.hearings, known, moment);
        }
    }

    /// Tells the journal how many requests there were, where there were any.
    fn tell_counts(&mut self, moment: Moment) {
        for at in self.steering.places() {
            let names = self.steering.at(at).names();
            if self.hearings.of(&names).is_none() {
                continue;
            }
            let counts = self.view().counts(at);
            if self.counted.get(&names) != Some(&counts) {
                self.steering.record(at, Recorded::Counts(counts.clone()), moment);
                self.counted.insert(names, counts);
            }
        }
    }

    /// Begins or ends the drill that a command asks for, if the rollout allows it.
    fn drill(&mut self, command: &Command, moment: Moment) -> Result<(), Refused> {
        let drills = matches!(command.action, Action::Drill(_) | Action::EndDrill);
        if !drills {
            return Ok(());
        }
        let at = self.steering.find(command)?;
        let names = self.steering.at(at).names();
        if let Action::Drill(drill) = &command.action {
            if let Some(name) = &drill.cohort
                && asking::cohort(&self.table.load(), name).is_none()
            {
                return Err(Refused::Forbidden(format!("there is no cohort {name:?}")));
            }
            if self.steering.allows(at, &command.action, moment) {
                self.asking.drill(names, drill, moment);
            }
        } else {
            self.asking.end_drill(&names);
        }
        Ok(())
    }

    /// Asks the workers for what the rollouts need, where that has changed.
    fn ask(&mut self, moment: Moment) {
        let drained = self.asking.expire(moment);
        let table = self.table.load_full();
        let asks = self.asking.asks(&table, &self.steering, &self.workers);
        if !asks.warm.is_empty() {
            self.steering.asked(moment);
        }
        if drained || *table.asks != asks {
            drop(table);
            self.store_with(Arc::new(asks), false);
            self.hold_hearings(&Changes::default(), moment);
        }
    }

    /// Lets the hearings follow what changed, under the table that was stored.
    fn hold_hearings(&mut self, changes: &Changes, moment: Moment) {
        let table = self.table.load_full();
        let epoch = table.epoch;
        let now = Now { tick: Tick::at(moment.now - self.started), epoch };
        let mut hearings = std::mem::take(&mut self.hearings);
        let mut pasts = self.steering.take_pasts();
        let mut carried = Vec::new();
        for (at, rollout) in self.steering.all() {
            let names = rollout.names();
            let weights_bp = table.dials.of(ServiceId(at.service as u32)).weights_bp();
            if changes.begun.contains(&at) {
                let past = pasts.remove(&rollout.run);
                let (evidence, counts) =
                    past.map_or((None, Vec::new()), |past| (past.evidence, past.counts));
                if let Some(about) = self.about(at) {
                    hearings.begin(&about, evidence, weights_bp, now);
                }
                carried.push((names, counts));
                continue;
            }
            if let (Some(hearing), Some(about)) = (hearings.of(&names), self.about(at)) {
                hearing.follow(&about);
            }
            let forced = changes.forced.contains(&at);
            let cut = if forced { Cut::Forced } else { Cut::Scheduled };
            let reweighed = hearings.reweigh(&names, weights_bp, at.canary, now, cut);
            if !reweighed
                && changes.fresh_proofs.contains(&at)
                && let Some(hearing) = hearings.of(&names)
            {
                hearing.enter_stage(now.tick);
            }
        }
        hearings.retain(|names| {
            let (at, _) = self.steering.named(names)?;
            self.about(at)
        });
        self.hearings = hearings;
        for (names, _) in &carried {
            if let Some(hearing) = self.hearings.of(names) {
                self.steering.note(names, hearing.said());
            }
        }
        // The journal is told everything before the first second is counted.
        self.counted.extend(carried.iter().cloned());
        self.carried.extend(carried);
    }

    /// What a rollout's evidence is made of; `None` where nothing is judged.
    fn about(&self, at: At) -> Option<About<'_>> {
        let rollout = self.steering.at(at);
        let plan = rollout.state.plan.as_deref()?;
        let judged = rollout.state.is_judged() || self.asking.is_draining(&rollout.service);
        (rollout.run > 0 && judged).then(|| About {
            ledger: &self.ledger,
            routes: &self.routes,
            workers: &self.workers,
            cells: self.layout.current(),
            service: at.service,
            canary: at.canary,
            rollouts: self.steering.of(at.service),
            rollout,
            plan,
        })
    }

    /// Puts in force what the disk and the rollouts allow, and answers who waited for it.
    pub(super) fn settle(&mut self, moment: Moment) {
        self.steering.tick(moment);
        let changes = self.steering.take_changes();
        if changes.is_empty() && self.reloads.is_empty() {
            return;
        }
        for at in &changes.begun {
            self.begin(*at);
        }
        let released = !changes.begun.is_empty() && self.versions() != self.versions;
        if released && let Err(OutOfIds) = self.lay_out(moment.wall) {
            tracing::error!("no recorder ids are left: the new version counts as the one before");
        }
        for at in &changes.rolled_back {
            let rollout = self.steering.at(*at);
            let policy = self.settings.services[at.service].sessions_on_rollback;
            if !rollout.state.life.fails_outright() {
                self.asking.drain(&rollout.service, policy, moment);
            }
        }
        if released || changes.weights {
            self.store(released);
        }
        self.hold_hearings(&changes, moment);
        self.publish(moment.wall);
        for (at, answer) in changes.answers {
            let status = self.view().rollout(at, self.steering.at(at));
            reply(answer, Ok(status));
        }
        let steering = &self.steering;
        for (_, answer) in self.reloads.extract_if(.., |(seq, _)| !steering.is_pending(*seq)) {
            // Who asked may be gone; the reload is in force all the same.
            let _ = answer.send(Ok(()));
        }
    }

    fn apply(
        &mut self,
        config: NewConfig,
        answer: oneshot::Sender<Result<(), Refused>>,
        moment: Moment,
    ) {
        if let Err(refused) = self.put_in_force(config, moment) {
            self.config.last_reload_successful = false;
            self.config.last_error = Some(refused.to_string().into());
            self.publish(moment.wall);
            let _ = answer.send(Err(refused));
            return;
        }
        self.reloads.push((self.steering.last_pending().unwrap_or(0), answer));
        self.settle(moment);
    }

    fn put_in_force(&mut self, config: NewConfig, moment: Moment) -> Result<(), Refused> {
        if config.settings.state_dir != self.settings.state_dir {
            let sentence = "state_dir changed: that needs a restart, and nothing was changed";
            return Err(Refused::Forbidden(sentence.into()));
        }
        if !self.layout.has_room_for(&config.routes) {
            let sentence = "no recorder ids are left for another table: that needs a restart";
            return Err(Refused::Forbidden(sentence.into()));
        }
        let hash: Arc<str> = config.config_hash.into();
        self.routes = config.routes;
        self.settings = config.settings;
        self.steering.keep(self.settings.journal);
        self.config = ConfigView {
            hash: hash.clone(),
            last_reload_successful: true,
            last_success: moment.wall,
            last_error: None,
        };
        self.steering.plan(&self.settings.services, hash, moment);
        // New versions are laid out with the table; what they count begins now.
        let changes = self.steering.take_changes();
        for at in &changes.begun {
            self.begin(*at);
        }
        let laid = self.lay_out(moment.wall);
        debug_assert_eq!(laid, Ok(()), "there was room");
        self.store(true);
        self.hold_hearings(&changes, moment);
        Ok(())
    }

    /// Counts of a rollout are those since now.
    fn begin(&mut self, at: At) {
        let rollout = self.steering.at(at);
        let names = rollout.names();
        let cells = self.layout.current().iter().filter(|cell| cell.labels.service == names[0]);
        let now = cells.map(|cell| (cell.key, self.ledger.totals(cell.key))).collect();
        self.carried.remove(&names);
        self.beginnings.insert(names, now);
    }

    /// Gives the routes their recorders, under the versions that are being rolled out.
    fn lay_out(&mut self, wall: SystemTime) -> Result<(), OutOfIds> {
        let versions = self.versions();
        self.layout.lay(&mut self.routes, &versions, &mut self.ledger)?;
        self.versions = versions;
        self.groups.arrange(self.layout.current());
        self.sessions.arrange(self.layout.current());
        self.placebos.arrange(&self.routes, self.layout.current(), &self.workers, wall);
        self.objectives.arrange(&self.settings, &self.routes, self.layout.current());
        Ok(())
    }

    /// The versions that are being rolled out, by service and arm.
    fn versions(&self) -> Vec<Vec<Arc<str>>> {
        let services = self.routes.services().iter().enumerate();
        let versions = services.map(|(service, it)| {
            let rollouts = self.steering.of(service);
            let rolled_out = |(index, arm): (usize, &Arm)| {
                let rollout = index.checked_sub(1).and_then(|canary| rollouts.get(canary));
                rollout.map_or(&arm.version, |it| &it.state.version).clone()
            };
            it.arms.iter().enumerate().map(rolled_out).collect()
        });
        versions.collect()
    }

    /// Stores the table: with the weights of now, and with the routes of now where they are new.
    fn store(&mut self, new_routes: bool) {
        let asks = if new_routes { Arc::default() } else { Arc::clone(&self.table.load().asks) };
        self.store_with(asks, new_routes);
    }

    fn store_with(&mut self, asks: Arc<Asks>, new_routes: bool) {
        let before = self.table.load_full();
        let routes =
            if new_routes { Arc::new(self.routes.clone()) } else { Arc::clone(&before.routes) };
        let mut descending = false;
        let mut placebos = std::mem::take(&mut self.placebos);
        let dial = |(service, it): (usize, &Service)| {
            let rollouts = self.steering.of(service);
            let id = ServiceId(service as u32);
            let targets = weights_of(rollouts);
            let outright = rollouts.iter().any(|it| it.by_hand || it.state.life.fails_outright());
            let weights_bp = if new_routes || outright {
                targets.clone()
            } else {
                let in_force = before.dials.of(id).weights_bp();
                self.headroom.descend(&it.name, in_force, &targets)
            };
            descending |= weights_bp != targets;
            placebos.reweigh(&it.name, &weights_bp);
            let drains = self.asking.is_draining(&it.name);
            let zeros = zeros(&routes, it, rollouts);
            match (!new_routes).then(|| before.dials.of(id)) {
                Some(dial)
                    if dial.weights_bp() == weights_bp
                        && dial.zeros() == zeros
                        && (drains || !dial.is_draining()) =>
                {
                    Arc::clone(dial)
                }
                Some(dial) if drains => {
                    Arc::new(ServiceDial::with_zeros(it, &weights_bp, &zeros).draining(dial))
                }
                Some(_) | None => Arc::new(ServiceDial::with_zeros(it, &weights_bp, &zeros)),
            }
        };
        let dials = routes.services().iter().enumerate().map(dial).collect();
        self.descending = descending;
        self.placebos = placebos;
        let epoch = before.epoch.next();
        let table = LiveTable { routes, dials: Arc::new(Dials::new(dials)), epoch, asks };
        drop(before);
        self.retired.push(self.table.swap(Arc::new(table)));
    }

    fn publish(&mut self, wall: SystemTime) {
        if let Some(snapshots) = &self.snapshots {
            snapshots.send_replace(Arc::new(self.view().snapshot(wall)));
        }
    }

    fn view(&self) -> View<'_> {
        View {
            table: self.table.load_full(),
            steering: &self.steering,
            ledger: &self.ledger,
            layout: &self.layout,
            groups: &self.groups,
            shares: &self.shares,
            objectives: &self.objectives,
            placebos: &self.placebos,
            sessions: &self.sessions,
            workers: &self.workers,
            beginnings: &self.beginnings,
            carried: &self.carried,
            config: &self.config,
            lateness: self.lateness[0].max(self.lateness[1]),
        }
    }
}

fn weights_of(rollouts: &[Rollout]) -> Vec<u16> {
    rollouts.iter().map(|rollout| rollout.state.weight_bp()).collect()
}

/// The cohorts that canaries of a service do not get any more.
fn zeros(
    routes: &RouteTable,
    service: &Service,
    rollouts: &[Rollout],
) -> Vec<(CohortId, ArmIndex)> {
    let outs = rollouts.iter().enumerate().flat_map(|(canary, rollout)| {
        let arm = ArmIndex(canary as u8 + 1);
        rollout.state.life.cohorts_out().iter().map(move |cohort| (cohort, arm))
    });
    let of = |(name, arm): (&Arc<str>, ArmIndex)| {
        let cohorts = layout::cohorts_of(routes, service, name);
        cohorts.into_iter().map(move |cohort| (cohort, arm))
    };
    outs.flat_map(of).collect()
}

/// Now, on both clocks.
pub(super) fn moment() -> Moment {
    Moment { now: Instant::now(), wall: SystemTime::now() }
}

#[cfg(test)]
mod tests;
