//! Rollouts that are judged, tick by tick with made-up moments: requests in, weights out.

use std::{path::Path, thread::JoinHandle};

use super::*;
use crate::{
    measure::{EndpointNumber, Head},
    rollout::{
        DecisionKind, EvidenceInput, Line, NewConfig, Record, Replay, Start, read_journal,
        running::{SetUp, WorkerLink, set_up},
    },
};

/// A control plane whose ticks are taken by hand.
struct Played {
    control: Control,
    link: WorkerLink,
    _messages: Receiver<Message>,
    journal: JoinHandle<()>,
    started: Instant,
    tick: u32,
}

impl Played {
    fn start(world: &World, state_dir: &Path) -> Self {
        let NewConfig { routes, settings, config_hash } = world.config(state_dir);
        let started = Instant::now();
        let SetUp { control, mut links, messages, journal, .. } =
            set_up(Start { settings, routes, config_hash, workers: 1, started }, at(started, 0))
                .unwrap();
        let link = links.remove(0);
        let mut played = Self { control, link, _messages: messages, journal, started, tick: 0 };
        played.settle();
        played
    }

    /// Lets a raise that waits for the disk come into force.
    fn settle(&mut self) {
        while !self.control.is_settled() {
            self.control.settle(self.moment());
            std::thread::yield_now();
        }
    }

    fn moment(&self) -> Moment {
        at(self.started, self.tick)
    }

    /// A tick of requests without users; `fails` says by arm, cohort and number which do.
    fn tick(&mut self, fails: impl Fn(u8, u16, u32) -> bool) {
        self.tick_of(0, fails);
    }

    /// The same where there are so many users, if any.
    fn tick_of(&mut self, users: u32, fails: impl Fn(u8, u16, u32) -> bool) {
        let table = self.control.table.load_full();
        let cohorts = table.routes.cohort_count() as u32;
        let mut events = Vec::new();
        for number in self.tick * 80..self.tick * 80 + 80 {
            let cohort = CohortId((number % cohorts) as u16);
            let key = if users > 0 { number % users } else { number / cohorts };
            let bucket = mixed(u64::from(key)) % BUCKETS;
            let arm = table.dials.of(ServiceId(0)).arm(cohort, bucket as u16);
            let id = table.routes.route_at(RouteId(0)).recorders.at(cohort, arm);
            let failed = fails(arm.0, cohort.0, number);
            let outcome = if failed { Outcome::Failed } else { Outcome::Ok };
            let ended = Kind::Ended { outcome, head: Head::Untold };
            for kind in [Kind::Assigned, ended] {
                let mut event =
                    Event::new(kind, table.epoch, false).with_endpoint(endpoint_of(number));
                event.recorder = id;
                event.arrival = Tick(self.tick);
                event.unit = if users > 0 { u64::from(key) + 1 } else { 0 };
                if kind != Kind::Assigned {
                    event.first_byte_us = 10_000 + (mixed(u64::from(number) << 16) % 20_000) as u32;
                    event.age_us = event.first_byte_us;
                }
                events.push(event);
            }
        }
        self.end_tick(events);
    }

    fn end_tick(&mut self, events: Vec<Event>) {
        self.tick += 1;
        let through = Tick::LENGTH * self.tick;
        self.link.batches.try_send(batch(through, events)).unwrap();
        self.control.tick(self.moment());
        self.settle();
    }

    fn order(&mut self, action: Action) {
        let (answer, _answered) = oneshot::channel();
        self.control.take(Message::Command(command(action), answer), self.moment());
        self.settle();
    }

    fn life(&self) -> &crate::rollout::Rollout {
        &self.control.steering.of(0)[0].state.life
    }

    fn weight_bp(&self, cohort: u16) -> u16 {
        self.control.table.load().dials.of(ServiceId(0)).weight_bp(CohortId(cohort), ArmIndex(1))
    }

    fn end(self) {
        drop(self.control);
        self.journal.join().unwrap();
    }
}

/// The end of so many ticks, always on the same day.
fn at(started: Instant, ticks: u32) -> Moment {
    let since = Tick::LENGTH * ticks;
    let day = SystemTime::UNIX_EPOCH + Duration::from_secs(20_000 * 86_400);
    Moment { now: started + since, wall: day + since }
}

/// The one of three endpoints that a request is sent to.
fn endpoint_of(number: u32) -> EndpointNumber {
    EndpointNumber::of((number / 7 % 3) as usize)
}

/// A number as if drawn at random (splitmix64).
fn mixed(number: u64) -> u64 {
    let mut mixed = number.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

const BUCKETS: u64 = crate::routing::BUCKETS as u64;

fn shop() -> World {
    let mut world = World::new(&[2000]);
    world.cohorts = vec!["ios"];
    world.manual = false;
    world
}

/// Until the cohort `ios` is out: there a fourth of the canary's requests fails.
fn until_out(played: &mut Played) {
    for _ in 0..300 {
        played.tick(|_, _, number| number.is_multiple_of(997));
    }
    for _ in 0..1500 {
        played.tick(|arm, cohort, number| arm == 1 && cohort == 1 && number.is_multiple_of(31));
        if !played.life().cohorts_out().is_empty() || played.life().is_rolled_back() {
            return;
        }
    }
}

fn assert_replays(state_dir: &Path, judged: u64) {
    let mut replay = Replay::default();
    read_journal(state_dir, |place, line| replay.take(place, &line)).unwrap();
    let outcome = replay.outcome();
    assert!(outcome.is_same() && outcome.same >= judged, "{outcome:?}");
}

#[test]
fn a_cohort_that_alone_is_worse_is_rolled_back_alone() {
    let state_dir = tempfile::tempdir().unwrap();
    let world = shop();
    let mut played = Played::start(&world, state_dir.path());
    until_out(&mut played);
    assert_eq!(played.life().cohorts_out(), ["ios".into()]);
    assert_eq!(played.weight_bp(1), 0);
    assert!(played.weight_bp(0) > 0);
    let last = played.control.steering.recent().last().unwrap();
    assert_eq!(last.action, DecisionKind::RollbackCohort);
    assert!(last.reason.contains("cohort ios alone"), "{}", last.reason);
    for _ in 0..300 {
        played.tick(|_, _, number| number.is_multiple_of(997));
    }
    assert!(!played.life().is_rolled_back());
    let sentence =
        played.control.view().snapshot(SystemTime::now()).status.rollouts[0].reason.clone();
    assert!(sentence.contains("rolled back for cohort ios"), "{sentence}");
    played.end();
    assert_replays(state_dir.path(), 1);
    // A process after it does not give the cohort back, and judges the rest on.
    let mut played = Played::start(&world, state_dir.path());
    assert_eq!((played.weight_bp(1), played.weight_bp(0) > 0), (0, true));
    for _ in 0..1500 {
        played.tick(|arm, cohort, number| arm == 1 && cohort == 0 && number.is_multiple_of(30));
        if played.life().is_rolled_back() {
            break;
        }
    }
    assert!(
        played.life().is_rolled_back(),
        "{}",
        played.control.steering.of(0)[0].said.told.sentence
    );
    played.end();
    assert_replays(state_dir.path(), 2);
}

#[test]
fn a_retry_gives_a_cohort_the_canary_again() {
    let state_dir = tempfile::tempdir().unwrap();
    let mut played = Played::start(&shop(), state_dir.path());
    until_out(&mut played);
    played.order(Action::Abort);
    played.order(Action::Retry);
    assert_eq!((played.weight_bp(1), played.life().cohorts_out().len()), (2000, 0));
    played.end();
}

#[test]
fn a_stage_that_few_users_see_is_not_left_by_itself() {
    let state_dir = tempfile::tempdir().unwrap();
    let mut world = World::new(&[100, 200]);
    world.manual = false;
    let mut played = Played::start(&world, state_dir.path());
    for _ in 0..1000 {
        played.tick_of(1000, |_, _, _| false);
    }
    let status = played.control.view().snapshot(SystemTime::now()).status.rollouts[0].clone();
    assert_eq!((status.stage, status.phase), (1, Phase::Holding), "{}", status.reason);
    let says = |what: &str| status.reason.contains(what);
    assert!(says("users that can still tell: ") && says(" of 1000, "), "{}", status.reason);
    // With more users the stage is over.
    for _ in 0..1000 {
        played.tick_of(20_000, |_, _, _| false);
    }
    assert_eq!(played.life().stage(), 2);
    played.end();
    assert_replays(state_dir.path(), 1);
}

#[test]
fn pods_that_differ_among_themselves_stop_the_rollout_before_and_after_a_restart() {
    let state_dir = tempfile::tempdir().unwrap();
    let mut world = World::new(&[2000, 5000]);
    (world.manual, world.endpoints) = (false, 3);
    let mut played = Played::start(&world, state_dir.path());
    played.order(Action::Pause);
    let alarmed = |played: &mut Played, bad: u32| {
        for _ in 0..8000 {
            played.tick(|_, _, number| {
                number / 7 % 3 == bad && mixed(u64::from(number) << 32).is_multiple_of(7)
            });
            if played.control.placebos.alarms("shop") {
                return true;
            }
        }
        false
    };
    // Which of them is picked depends on the day.
    assert!((0..3).any(|bad| alarmed(&mut played, bad)));
    played.order(Action::Resume);
    for _ in 0..30 {
        played.tick(|_, _, _| false);
    }
    let status = |played: &Played| {
        played.control.view().snapshot(SystemTime::now()).status.rollouts[0].clone()
    };
    let reason = status(&played).reason;
    assert!(reason.contains("placebo") && reason.contains("blocks of 60 s"), "{reason}");
    let moment = played.moment();
    let Control { steering, hearings, placebos, counted, .. } = &mut played.control;
    steering.remember_all(hearings, Known { counted, placebos }, moment);
    played.end();
    assert_replays(state_dir.path(), 0);
    let mut played = Played::start(&world, state_dir.path());
    for _ in 0..10 {
        played.tick(|_, _, _| false);
    }
    assert_eq!(status(&played).phase, Phase::Holding);
    assert!(status(&played).reason.contains("placebo"), "{}", status(&played).reason);
    played.end();
}

#[test]
fn counts_go_on_after_processes_that_ended_at_once() {
    let state_dir = tempfile::tempdir().unwrap();
    let mut world = World::new(&[2000, 5000]);
    world.manual = false;
    let requests = |played: &Played| {
        let status = played.control.view().snapshot(SystemTime::now()).status;
        status.rollouts[0].routes[0].arms.iter().map(|arm| arm.requests).sum::<u64>()
    };
    let mut played = Played::start(&world, state_dir.path());
    for _ in 0..30 {
        played.tick(|_, _, _| false);
    }
    let known = requests(&played);
    assert!(known > 0);
    played.end();
    for _ in 0..2 {
        let mut played = Played::start(&world, state_dir.path());
        assert_eq!(requests(&played), known);
        // Long enough for the journal to be told everything, too short for a second to be counted.
        played.end_tick(Vec::new());
        played.end();
    }
    let played = Played::start(&world, state_dir.path());
    assert_eq!(requests(&played), known);
    played.end();
}

#[test]
fn a_restart_knows_at_once_what_is_slow() {
    let state_dir = tempfile::tempdir().unwrap();
    let mut world = World::new(&[2000, 5000]);
    world.manual = false;
    let mut played = Played::start(&world, state_dir.path());
    for _ in 0..40 {
        played.tick(|_, _, _| false);
    }
    played.end();
    let before = deadlines_told(state_dir.path());
    assert!(before.last().is_some_and(|by_route| by_route[0].len() >= 4), "{before:?}");
    for remembers in [false, true] {
        let mut played = Played::start(&world, state_dir.path());
        for _ in 0..3 {
            played.end_tick(Vec::new());
        }
        let moment = played.moment();
        let Control { steering, hearings, placebos, counted, .. } = &mut played.control;
        if remembers {
            steering.remember_all(hearings, Known { counted, placebos }, moment);
        }
        played.end();
    }
    // Once from the records, once more from what the first restart wrote; then from a snapshot.
    let mut played = Played::start(&world, state_dir.path());
    played.end_tick(Vec::new());
    played.end();
    let after = deadlines_told(state_dir.path());
    assert_eq!(after.len(), before.len() + 3);
    assert!(after[before.len()..].iter().all(|it| it == before.last().unwrap()), "{after:?}");
    assert_replays(state_dir.path(), 0);
}

/// The deadlines that the journal was told, by route.
fn deadlines_told(state_dir: &Path) -> Vec<Vec<Vec<u32>>> {
    let mut told = Vec::new();
    read_journal(state_dir, |_, line| {
        let Line::Block(text) = line else { return };
        let record: Record = serde_json::from_str(text.get()).unwrap();
        if let Recorded::Input(EvidenceInput::Deadlines { by_route, .. }) = record.what {
            told.push(by_route);
        }
    })
    .unwrap();
    told
}

#[test]
fn counts_of_a_rollout_that_is_over_outlast_the_process() {
    let state_dir = tempfile::tempdir().unwrap();
    let world = World::new(&[2000, 5000]);
    let requests = |played: &Played| {
        let status = played.control.view().snapshot(SystemTime::now()).status;
        status.rollouts[0].routes[0].arms.iter().map(|arm| arm.requests).sum::<u64>()
    };
    let mut played = Played::start(&world, state_dir.path());
    for _ in 0..30 {
        played.tick(|_, _, _| false);
    }
    let known = requests(&played);
    assert!(known > 0);
    played.order(Action::Abort);
    played.end();
    // From the records first, then from a snapshot.
    for _ in 0..3 {
        let mut played = Played::start(&world, state_dir.path());
        assert_eq!(requests(&played), known);
        let moment = played.moment();
        let Control { steering, hearings, placebos, counted, .. } = &mut played.control;
        steering.remember_all(hearings, Known { counted, placebos }, moment);
        played.end();
    }
}
