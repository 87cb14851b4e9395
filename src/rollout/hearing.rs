//! Hearings: for every rollout that is judged, what its evidence is made of and how it stands.
//! Moves no weight: that is the step's to do.

use std::{collections::HashMap, sync::Arc, time::Duration};

use super::{
    EvidenceArm, Obstacle, Plan, Seen, Split, Subject, Told, Verdict, evidence::Evidence,
    layout::Cell, steering::Said,
};
use crate::{
    judge::{BreakerState, Component, Judge, Level, Pods},
    measure::{Batch, Cut, Epoch, Kind, Ledger, RecorderId, RecorderKey, Tick},
    routing::{ArmIndex, BUCKETS, RouteTable, Service},
};

/// The names of a service and a canary.
type Names = [Arc<str>; 2];

/// Without a request for so many ticks a rollout says that it waits for traffic.
const QUIET: u32 = 300;

/// The hearings, by service and canary.
#[derive(Debug, Default)]
pub(super) struct Hearings {
    all: HashMap<Names, Hearing>,
    /// By recorder id: the hearings that its keyed requests are trials of.
    keyed: HashMap<RecorderId, Vec<(Names, EvidenceArm)>>,
}

/// The evidence against one canary.
#[derive(Debug)]
pub(super) struct Hearing {
    evidence: Evidence,
    /// By stratum: the cap on the canaries' weights in its cohorts.
    caps: Vec<Option<u16>>,
    splits: Vec<Split>,
    epoch: Epoch,
    members: Vec<RecorderKey>,
    /// The tick from which on the weights are as they are.
    since: Tick,
    /// Requests so far, and when the last of them was seen.
    requests: u64,
    heard_at: Tick,
    breaker: BreakerState,
}

/// What one hearing is about.
pub(super) struct About<'a> {
    pub(super) routes: &'a RouteTable,
    pub(super) cells: &'a [Cell],
    /// Index of the service, and of the canary among its canaries.
    pub(super) service: usize,
    pub(super) canary: usize,
    pub(super) plan: &'a Plan,
}

/// Where the ledger and the table stand.
#[derive(Clone, Copy)]
pub(super) struct Now {
    pub(super) tick: Tick,
    pub(super) epoch: Epoch,
}

impl About<'_> {
    fn arms(&self) -> &Service {
        &self.routes.services()[self.service]
    }

    /// Those of its recorders whose requests are drawn, with the stratum of each, and the caps of
    /// the strata.
    fn members(&self) -> (Vec<(&Cell, u16)>, Vec<Option<u16>>) {
        let mut caps = vec![None];
        let mine = |arm: ArmIndex| arm.0 == 0 || usize::from(arm.0) == self.canary + 1;
        let drawn = self.cells.iter().filter(|cell| {
            cell.service == self.service && mine(cell.arm) && cell.policy.pin.is_none()
        });
        let mut members = Vec::new();
        for cell in drawn {
            let cap = cell.policy.max_weight_bp;
            let stratum = caps.iter().position(|known| *known == cap).unwrap_or_else(|| {
                caps.push(cap);
                caps.len() - 1
            });
            members.push((cell, stratum as u16));
        }
        (members, caps)
    }

    fn subject(&self, members: &[(&Cell, u16)]) -> Subject {
        let of = |canary: bool| {
            let mut keys: Vec<(RecorderKey, u16)> = Vec::new();
            for (cell, stratum) in members.iter().filter(|(cell, _)| (cell.arm.0 > 0) == canary) {
                keys.extend([(cell.key, *stratum), (cell.other, *stratum)]);
            }
            keys.sort_unstable();
            keys.dedup();
            keys
        };
        let routes = self.routes.routes().filter(|route| route.service.0 as usize == self.service);
        let judge = &self.plan.judge;
        Subject {
            judge: judge.config(vec![Component::service(&self.arms().name)]),
            tolerate: judge.tolerate,
            promote_within: judge.promote_within,
            timeout: routes.map(|route| route.timeout).max().unwrap_or(Duration::from_secs(10)),
            pods: self.pods(),
            baseline: of(false),
            canary: of(true),
        }
    }

    /// The pods of both arms, where they can be counted: by `replicas`, or because there is more
    /// than one endpoint. One endpoint alone may hide any number.
    fn pods(&self) -> Option<Pods> {
        let count = |arm: usize| {
            let upstream = self.routes.upstream(self.arms().arms[arm].upstream);
            let endpoints = upstream.endpoints.len() as u32;
            upstream.replicas.or((endpoints > 1).then_some(endpoints))
        };
        Some(Pods { baseline: count(0)?, canary: count(self.canary + 1)? })
    }
}

impl Hearings {
    /// A rollout begins to be judged, under these weights of all canaries.
    pub(super) fn begin(&mut self, names: Names, about: &About<'_>, weights_bp: &[u16], now: Now) {
        let (members, caps) = about.members();
        let splits = splits(&caps, weights_bp, about.canary);
        let subject = about.subject(&members);
        let keys = members.iter().map(|(cell, _)| cell.key).collect();
        let evidence = Evidence::new(subject, now.tick, now.epoch, splits.clone());
        let hearing = Hearing {
            evidence,
            caps,
            splits,
            epoch: now.epoch,
            members: keys,
            since: now.tick,
            requests: 0,
            heard_at: now.tick,
            breaker: BreakerState::Closed,
        };
        self.all.insert(names, hearing);
    }

    /// Ends the hearings that are not to go on, and learns which recorders belong to the others.
    pub(super) fn retain<'a>(&mut self, goes_on: impl Fn(&Names) -> Option<About<'a>>) {
        self.keyed.clear();
        self.all.retain(|names, hearing| {
            let Some(about) = goes_on(names) else { return false };
            let (members, caps) = about.members();
            let keys: Vec<RecorderKey> = members.iter().map(|(cell, _)| cell.key).collect();
            if keys != hearing.members {
                hearing.evidence.reshape(about.subject(&members));
                (hearing.members, hearing.caps) = (keys, caps);
            }
            for (cell, stratum) in members {
                let arm = EvidenceArm { stratum, is_canary: cell.arm.0 > 0 };
                self.keyed.entry(cell.id).or_default().push((names.clone(), arm));
            }
            true
        });
    }

    /// The hearing of a rollout.
    pub(super) fn of(&mut self, names: &Names) -> Option<&mut Hearing> {
        self.all.get_mut(names)
    }

    /// Takes notice of the keyed requests of a batch, for the trials of promotions.
    pub(super) fn notice(&mut self, batch: &Batch) {
        if self.keyed.is_empty() {
            return;
        }
        for event in &batch.events {
            if event.unit == 0 || event.excluded() || !matches!(event.kind(), Kind::Assigned) {
                continue;
            }
            for (names, arm) in self.keyed.get(&event.recorder).into_iter().flatten() {
                if let Some(hearing) = self.all.get_mut(names) {
                    hearing.evidence.assigned(event.unit, event.arrival, *arm);
                }
            }
        }
    }

    /// Other weights are in force from now on, or another table with the same weights; whether
    /// they are others.
    pub(super) fn reweigh(
        &mut self,
        names: &Names,
        weights_bp: &[u16],
        canary: usize,
        now: Now,
        cut: Cut,
    ) -> bool {
        let Some(hearing) = self.all.get_mut(names) else { return false };
        let splits = splits(&hearing.caps, weights_bp, canary);
        let others = splits != hearing.splits;
        if now.epoch == hearing.epoch {
            return false;
        }
        hearing.epoch = now.epoch;
        if !others {
            hearing.evidence.same_weights(now.epoch);
        } else {
            hearing.splits.clone_from(&splits);
            hearing.since = now.tick;
            hearing.evidence.reweigh(now.epoch, now.tick, splits, cut);
        }
        others
    }
}

impl Hearing {
    /// One tick is over.
    pub(super) fn listen(&mut self, ledger: &mut Ledger, tick: Tick) {
        self.evidence.tick(ledger, tick);
        if tick.0.is_multiple_of(10) {
            let requests = self.members.iter().map(|key| ledger.totals(*key).started).sum();
            if requests != self.requests {
                (self.requests, self.heard_at) = (requests, tick);
            }
        }
    }

    /// The proof of the stage begins anew, under the same weights.
    pub(super) fn enter_stage(&mut self, tick: Tick) {
        self.evidence.enter_stage(tick);
    }

    /// Whether a step is due at a tick: once a second, where blocks end, and as soon as the
    /// breaker or the evidence asks for one.
    pub(super) fn is_due(&mut self, tick: Tick) -> bool {
        let breaker = self.evidence.judge().breaker();
        let tripped = std::mem::replace(&mut self.breaker, breaker) != breaker;
        tripped || self.evidence.has_news() || tick.0.is_multiple_of(10) || self.block_ends(tick)
    }

    /// What a step goes by.
    pub(super) fn seen(
        &mut self,
        now: Duration,
        others_bp: u16,
        obstacle: Option<Obstacle>,
        tick: Tick,
    ) -> Seen {
        let shares = self.evidence.judge().share_check().fired();
        let quiet = tick.0.saturating_sub(self.heard_at.0) >= QUIET;
        let own = shares.then_some(Obstacle::ShareCheck).or(quiet.then_some(Obstacle::NoTraffic));
        let block_ends = self.block_ends(tick);
        Seen { block_ends, ..self.evidence.seen(now, others_bp, obstacle.or(own)) }
    }

    /// What a person is told.
    pub(super) fn said(&self) -> Said {
        let judge = self.evidence.judge();
        let verdict = judge.verdict();
        Said {
            verdict: match verdict.level {
                Level::Healthy => Verdict::Healthy,
                Level::Holding => Verdict::Holding,
                Level::Caution => Verdict::Caution,
                Level::Rollback => Verdict::Rollback,
            },
            told: Told {
                odds: verdict.odds(),
                needs: verdict.threshold_ln.exp(),
                sentence: judge.reason(),
                requests: self.evidence.requests(),
                excess_bad: self.evidence.excess_bad(),
            },
        }
    }

    fn block_ends(&self, tick: Tick) -> bool {
        let block = block_ticks(self.evidence.judge());
        tick.0.saturating_sub(self.since.0).is_multiple_of(block)
    }
}

fn block_ticks(judge: &Judge) -> u32 {
    (judge.block_seconds() * 10).max(1)
}

/// The weights of a canary and of the baseline by stratum.
fn splits(caps: &[Option<u16>], weights_bp: &[u16], canary: usize) -> Vec<Split> {
    let split = |cap: &Option<u16>| {
        let capped = |weight_bp: &u16| cap.map_or(*weight_bp, |cap| cap.min(*weight_bp));
        let all: u16 = weights_bp.iter().map(capped).sum();
        Split {
            canary_bp: weights_bp.get(canary).map_or(0, capped),
            baseline_bp: (BUCKETS as u16).saturating_sub(all),
        }
    };
    caps.iter().map(split).collect()
}
