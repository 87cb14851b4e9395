//! The rows: what is played, and which limits its measurements have. A limit is a promise of the
//! project; the time that a run takes is an estimate for whoever waits.

mod alike;
mod detect;
mod disks;
mod kills;
mod people;
mod sticky;

use std::{cell::Cell, future::Future, path::PathBuf, pin::Pin, rc::Rc, time::Duration};

use crate::{
    disk::Disk,
    scene::{Scene, Setting, Trouble},
};

/// One row.
#[derive(Clone, Copy)]
pub(crate) struct Row {
    pub(crate) name: &'static str,
    pub(crate) says: &'static str,
    pub(crate) measures: &'static [Measure],
    /// About how long a run takes, in seconds.
    pub(crate) seconds: f64,
    /// Its requests per second, in 500.
    pub(crate) cost: f64,
    /// Why it cannot be played here, if it cannot.
    pub(crate) hindrance: fn() -> Option<String>,
    pub(crate) play: Play,
}

/// Plays one run in the thread it is called in.
pub(crate) type Play = fn(Run) -> Pin<Box<dyn Future<Output = Result<Findings, Trouble>>>>;

/// What is measured in a run.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Measure {
    pub(crate) name: &'static str,
    /// In seconds; `None`: it only has to come about.
    pub(crate) limit: Option<f64>,
}

/// One run of a row.
#[derive(Clone, Debug)]
pub(crate) struct Run {
    pub(crate) binary: PathBuf,
    /// From 0.
    pub(crate) number: usize,
    /// How late 99 % of the requests of its clients were at most.
    pub(crate) lateness: Rc<Cell<Duration>>,
}

impl Run {
    async fn open(&self, setting: Setting) -> Result<Scene, Trouble> {
        Scene::open(&self.binary, setting, Rc::clone(&self.lateness)).await
    }
}

/// What a run found: one finding for every measure of its row.
#[derive(Clone, Debug, Default)]
pub(crate) struct Findings {
    pub(crate) found: Vec<Result<Found, Trouble>>,
    /// Answers of the canary that were worse than a healthy upstream's.
    pub(crate) worse: Option<u64>,
}

/// What was measured.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Found {
    /// It came about after this many seconds.
    After(f64),
    /// It is so.
    Holds,
}

impl Findings {
    fn of<const N: usize>(found: [Result<Found, Trouble>; N]) -> Self {
        Self { found: found.into(), worse: None }
    }
}

/// What must be so.
fn holds(is_so: bool, otherwise: impl FnOnce() -> Trouble) -> Result<Found, Trouble> {
    if is_so { Ok(Found::Holds) } else { Err(otherwise()) }
}

const fn within(name: &'static str, seconds: f64) -> Measure {
    Measure { name, limit: Some(seconds) }
}

const fn comes(name: &'static str) -> Measure {
    Measure { name, limit: None }
}

/// The weight goes to 0; and nobody is sent to the canary afterwards.
const WEIGHT_0: &str = "weight 0";
const LAST: Measure = within("last request after the decision", 0.2);

/// All rows. The last is for the harness itself, and played only when it is named.
pub(crate) const ROWS: &[Row] = &[
    Row {
        name: "slow2-1s",
        says: "canary twice as slow, blocks of 1 s, 9 pods to 1",
        measures: &[within(WEIGHT_0, 20.0), LAST],
        seconds: 42.0,
        play: |run| Box::pin(detect::twice_as_slow(run, "1s", 9, 20.0)),
        ..PLAIN
    },
    Row {
        name: "slow2-5s",
        says: "canary twice as slow, blocks of 5 s, 9 pods to 1",
        measures: &[within(WEIGHT_0, 60.0), LAST],
        seconds: 68.0,
        play: |run| Box::pin(detect::twice_as_slow(run, "5s", 9, 60.0)),
        ..PLAIN
    },
    Row {
        name: "slow2-one-pod-1s",
        says: "canary twice as slow, blocks of 1 s, one pod each",
        measures: &[within(WEIGHT_0, 35.0), LAST],
        seconds: 56.0,
        play: |run| Box::pin(detect::twice_as_slow(run, "1s", 1, 35.0)),
        ..PLAIN
    },
    Row {
        name: "slow2-one-pod-5s",
        says: "canary twice as slow, blocks of 5 s, one pod each",
        measures: &[within(WEIGHT_0, 130.0), LAST],
        seconds: 130.0,
        play: |run| Box::pin(detect::twice_as_slow(run, "5s", 1, 130.0)),
        ..PLAIN
    },
    Row {
        name: "errors30",
        says: "30 % of the canary's answers fail",
        measures: &[within("weight <= 1 %", 3.0), within(WEIGHT_0, 8.0), LAST],
        seconds: 36.0,
        play: |run| Box::pin(detect::errors(run)),
        ..PLAIN
    },
    Row {
        name: "refused",
        says: "canary refuses connections; idempotent route with rescue",
        measures: &[within(WEIGHT_0, 3.0), comes("clients see no error")],
        seconds: 32.0,
        play: |run| Box::pin(detect::refused(run)),
        ..PLAIN
    },
    Row {
        name: "tail",
        says: "2 % of the canary's answers take 5 times as long",
        measures: &[within(WEIGHT_0, 300.0), LAST],
        seconds: 165.0,
        play: |run| Box::pin(detect::tail(run)),
        ..PLAIN
    },
    Row {
        name: "sticky",
        says: "5,000 users (Zipf 1.1), canary twice as slow after 10 healthy minutes",
        measures: &[
            comes("10 healthy minutes"),
            comes("caution"),
            comes("then rollback"),
            comes("nobody moves the wrong way"),
        ],
        seconds: 790.0,
        play: |run| Box::pin(sticky::late_regression(run)),
        ..PLAIN
    },
    Row {
        name: "decision-latency",
        says: "half of the traffic on a canary that begins to fail always",
        measures: &[LAST],
        seconds: 20.0,
        play: |run| Box::pin(detect::decision_latency(run)),
        ..PLAIN
    },
    Row {
        name: "aa",
        says: "identical arms under load noise, stages 5/25/50/100 %",
        measures: &[comes("no rollback in 15 min"), within("promoted by proof", alike::LIMIT)],
        seconds: 290.0,
        play: |run| Box::pin(alike::promoted(run)),
        ..PLAIN
    },
    Row {
        name: "kill9",
        says: "50 kills during a rollout under load, the canary bad from the 30th on",
        measures: &[
            comes("weight the journal's or lower"),
            comes("evidence goes on"),
            comes("rolled back between the kills"),
            comes("replay agrees"),
        ],
        seconds: 190.0,
        cost: 0.6,
        play: |run| Box::pin(kills::fifty(run)),
        ..PLAIN
    },
    Row {
        name: "gate",
        says: "canary twice as slow while a person is asked",
        measures: &[within("rolled back", 20.0)],
        seconds: 50.0,
        play: |run| Box::pin(people::gate(run)),
        ..PLAIN
    },
    Row {
        name: "reload-unrelated",
        says: "reload of an unrelated route during a rollout",
        measures: &[comes("nothing changes"), comes("evidence goes on")],
        seconds: 20.0,
        play: |run| Box::pin(people::unrelated_reload(run)),
        ..PLAIN
    },
    Row {
        name: "versions",
        says: "a new version; a rolled-back version again",
        measures: &[
            comes("a new version begins anew"),
            comes("a rolled-back one is refused"),
            comes("retry begins it again"),
        ],
        seconds: 12.0,
        cost: 0.2,
        play: |run| Box::pin(people::versions(run)),
        ..PLAIN
    },
    Row {
        name: "no-traffic",
        says: "nobody comes; by turns hold, advance, rollback",
        measures: &[comes("holding, with a sentence"), within("then what was configured", 48.0)],
        seconds: 52.0,
        cost: 0.1,
        play: |run| Box::pin(people::no_traffic(run)),
        ..PLAIN
    },
    Row {
        name: "two-canaries",
        says: "users on two canaries, one of them twice as slow",
        measures: &[
            comes("the bad one goes"),
            comes("the other stays"),
            comes("nobody else moves"),
        ],
        seconds: 80.0,
        play: |run| Box::pin(sticky::two_canaries(run)),
        ..PLAIN
    },
    Row {
        name: "enospc",
        says: "state directory full and, by turns, read-only",
        measures: &[
            comes("traffic unharmed"),
            comes("no raise"),
            within("a cut is in force", 2.0),
            within("alarm visible", 10.0),
        ],
        seconds: 30.0,
        hindrance: || hindered(Disk::small().and_then(|_| Disk::in_a_file())),
        play: |run| Box::pin(disks::unwritable(run)),
        ..PLAIN
    },
    Row {
        name: "stalled-disk",
        says: "journal disk stalls for 5 s while the canary begins to fail always",
        measures: &[within(WEIGHT_0, 3.0), comes("in the journal afterwards")],
        seconds: 36.0,
        hindrance: || hindered(Disk::in_a_file().and_then(|disk| disk.stall(0).map(drop))),
        play: |run| Box::pin(disks::stalled(run)),
        ..PLAIN
    },
    Row {
        name: SELF_CHECK,
        says: "a person aborts (tries the harness)",
        measures: &[within("weight 0 after the command", 1.5), LAST, comes("traffic unharmed")],
        seconds: 8.0,
        play: |run| Box::pin(people::abort(run)),
        ..PLAIN
    },
];

/// The row that needs no judge.
pub(crate) const SELF_CHECK: &str = "self-check";

/// What most rows have in common.
const PLAIN: Row = Row {
    name: "",
    says: "",
    measures: &[],
    seconds: 0.0,
    cost: 1.0,
    hindrance: || None,
    play: |_| Box::pin(async { Err("nothing is played".to_owned()) }),
};

fn hindered<T>(tried: std::io::Result<T>) -> Option<String> {
    tried.err().map(|error| error.to_string())
}
