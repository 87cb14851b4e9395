//! Looks at the status document all the time, and keeps what changed in it and when. A status that
//! cannot be had is no news; whether that is right is for the row to say.

use std::{cell::RefCell, rc::Rc, time::Duration};

use serde_json::Value;
use tokio::{
    task::{JoinHandle, spawn_local},
    time::{Instant, MissedTickBehavior, interval},
};

use crate::admin::{Admin, Line};

/// How often it looks.
const EVERY: Duration = Duration::from_millis(50);

/// A rollout as its status shows it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Rollout {
    pub(crate) canary: String,
    pub(crate) version: String,
    pub(crate) phase: String,
    pub(crate) stage: u64,
    pub(crate) weight: f64,
    pub(crate) evidence: f64,
    pub(crate) reason: String,
    pub(crate) since: String,
    /// Requests of all arms and routes since the rollout began.
    pub(crate) requests: u64,
}

/// All rollouts at one moment.
#[derive(Clone, Debug)]
pub(crate) struct Look {
    pub(crate) at: Instant,
    pub(crate) rollouts: Vec<Rollout>,
}

impl Look {
    /// The rollout of this canary.
    pub(crate) fn of(&self, canary: &str) -> Option<&Rollout> {
        self.rollouts.iter().find(|rollout| rollout.canary == canary)
    }
}

/// A change of a weight or a phase.
#[derive(Clone, Debug)]
pub(crate) struct Change {
    pub(crate) at: Instant,
    pub(crate) canary: String,
    pub(crate) phase: String,
    pub(crate) weight: f64,
}

/// Somebody who looks.
#[derive(Debug)]
pub(crate) struct Watch {
    seen: Rc<Seen>,
    looking: JoinHandle<()>,
}

#[derive(Debug, Default)]
struct Seen {
    last: RefCell<Option<Look>>,
    changes: RefCell<Vec<Change>>,
}

impl Watch {
    pub(crate) fn start(admin: Admin) -> Self {
        let seen = Rc::<Seen>::default();
        let looking = spawn_local(look(admin, Rc::clone(&seen)));
        Self { seen, looking }
    }

    /// The latest look.
    pub(crate) fn last(&self) -> Option<Look> {
        self.seen.last.borrow().clone()
    }

    /// Everything that changed since a moment, and where it stood then.
    pub(crate) fn changes(&self, since: Instant) -> Vec<Change> {
        let changes = self.seen.changes.borrow();
        changes.iter().filter(|change| change.at >= since).cloned().collect()
    }

    /// Forgets the latest look: what follows will have been seen from now on.
    pub(crate) fn forget(&self) {
        self.seen.last.replace(None);
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.looking.abort();
    }
}

async fn look(admin: Admin, seen: Rc<Seen>) {
    let mut line = Line::default();
    let mut ticks = interval(EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let asked = Instant::now();
        let Ok(answer) = line.get(admin, "/api/v1/status").await else { continue };
        let Ok(document) = serde_json::from_slice::<Value>(&answer.body) else { continue };
        let found = document["rollouts"].as_array().into_iter().flatten().filter_map(read);
        seen.note(Look { at: asked, rollouts: found.collect() });
    }
}

impl Seen {
    fn note(&self, look: Look) {
        let mut changes = self.changes.borrow_mut();
        for rollout in &look.rollouts {
            let before = changes.iter().rev().find(|change| change.canary == rollout.canary);
            let same = |it: &Change| it.weight == rollout.weight && it.phase == rollout.phase;
            if !before.is_some_and(same) {
                changes.push(Change {
                    at: Instant::now(),
                    canary: rollout.canary.clone(),
                    phase: rollout.phase.clone(),
                    weight: rollout.weight,
                });
            }
        }
        self.last.replace(Some(look));
    }
}

fn read(document: &Value) -> Option<Rollout> {
    let text = |key: &str| Some(document.get(key)?.as_str()?.to_owned());
    let routes = document.get("routes")?.as_array()?;
    let arms = routes.iter().filter_map(|route| route.get("arms")?.as_array()).flatten();
    Some(Rollout {
        canary: text("canary")?,
        version: text("version")?,
        phase: text("phase")?,
        stage: document.get("stage")?.as_u64()?,
        weight: document.get("weight")?.as_f64()?,
        evidence: document.get("evidence")?.as_f64()?,
        reason: text("reason")?,
        since: text("since")?,
        requests: arms.filter_map(|arm| arm.get("requests")?.as_u64()).sum(),
    })
}
