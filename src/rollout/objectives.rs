//! Objectives: the absolute limits that the configuration sets for routes and cohorts, how fast
//! each arm burns what they allow, and what that means for a canary.
//!
//! Unlike the evidence this compares an arm with a number, so it has no bound on false alarms
//! while the load changes; it only holds, except where a canary alone burns its budget tenfold.

use std::{collections::HashMap, collections::VecDeque, sync::Arc, time::Duration};

use serde::{Deserialize, Serialize};

use super::{Settings, Slo, layout::Cell, step::Standing};
use crate::{
    measure::{Judging, Ledger, RecorderKey, Tick},
    routing::{Judged, RouteTable},
};

/// How often the counts are read, in ticks.
const EVERY: u32 = 50;

/// The window of an objective that does not say one, and the short one that must agree with it.
const USUAL: Duration = Duration::from_secs(3600);
const SHORT: Duration = Duration::from_secs(60);

/// Fewer bad requests than this prove nothing.
const LEAST_BAD: f64 = 10.0;

/// Standard deviations that are taken off the bad requests: a breach may not be chance.
const SIGMAS: f64 = 3.0;

/// A canary that alone burns its budget so many times as fast as allowed is taken back.
const SEVERE: f64 = 10.0;

/// All objectives.
#[derive(Debug, Default)]
pub(super) struct Objectives(Vec<Objective>);

/// One limit on a part of a service's traffic.
#[derive(Debug)]
struct Objective {
    service: usize,
    names: Names,
    goal: Goal,
    /// Share of the requests that may miss it.
    allowed: f64,
    window: Duration,
    /// By arm of the service.
    arms: Vec<Budget>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Names {
    service: Arc<str>,
    /// `route cart`, `cohort ios-eu`.
    scope: String,
    /// `p99 <= 250ms`, `errors <= 0.5 %`.
    objective: String,
}

#[derive(Clone, Copy, Debug)]
enum Goal {
    LatencyUs(u32),
    Errors,
}

/// What one arm used of what it may.
#[derive(Debug)]
struct Budget {
    arm: Arc<str>,
    keys: Vec<(RecorderKey, Judging)>,
    readings: VecDeque<Reading>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Reading {
    at: Tick,
    all: u64,
    bad: u64,
}

/// An objective and how one arm keeps it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ObjectiveView {
    /// The service.
    pub service: Arc<str>,
    /// `route cart`, `cohort ios-eu`.
    pub scope: String,
    /// `p99 <= 250ms`, `errors <= 0.5 %`.
    pub objective: String,
    /// `baseline`, or the canary.
    pub arm: Arc<str>,
    /// Requests of the window that missed it, as a multiple of what it allows.
    pub burn_rate: f64,
    /// Share of the window's budget that is left, at least 0.
    pub budget_left: f64,
}

impl Objectives {
    /// The objectives of a table; what was read of those that stay is kept.
    pub(super) fn arrange(&mut self, settings: &Settings, routes: &RouteTable, cells: &[Cell]) {
        let known = std::mem::take(&mut self.0).into_iter().map(|one| (one.names, one.arms));
        let mut known: HashMap<Names, Vec<Budget>> = known.collect();
        let judged: Vec<Judged> = routes.routes().map(|route| route.judged).collect();
        let mut add = |service: usize, scope: String, slo: &Slo, mine: &dyn Fn(&Cell) -> bool| {
            let arms = &routes.services()[service].arms;
            for (objective, goal, allowed) in goals(slo) {
                let name = Arc::clone(&routes.services()[service].name);
                let names = Names { service: name, scope: scope.clone(), objective };
                let mut before = known.remove(&names).unwrap_or_default();
                let budget = |(index, arm): (usize, &crate::routing::Arm)| {
                    let cells = cells.iter().filter(|cell| {
                        cell.service == service && usize::from(cell.arm.0) == index && mine(cell)
                    });
                    let keys = cells.map(|cell| (cell.key, judging(judged[cell.route]))).collect();
                    let place = before.iter().position(|budget| budget.arm == arm.name);
                    let readings = place.map(|place| before.swap_remove(place).readings);
                    let readings = readings.unwrap_or_default();
                    Budget { arm: arm.name.clone(), keys, readings }
                };
                let arms = arms.iter().enumerate().map(budget).collect();
                let window = slo.window.unwrap_or(USUAL);
                self.0.push(Objective { service, names, goal, allowed, window, arms });
            }
        };
        for (index, (route, slo)) in routes.routes().zip(&settings.route_slos).enumerate() {
            let service = route.service.0 as usize;
            add(service, format!("route {}", route.name), slo, &|cell| cell.route == index);
        }
        for (service, plans) in settings.services.iter().enumerate() {
            for (cohort, slo) in &plans.cohort_slos {
                let mine = |cell: &Cell| cell.labels.cohort == *cohort;
                add(service, format!("cohort {cohort}"), slo, &mine);
            }
        }
    }

    /// Reads the counts, every five seconds.
    pub(super) fn read(&mut self, ledger: &Ledger, now: Tick) {
        if !now.0.is_multiple_of(EVERY) {
            return;
        }
        for objective in &mut self.0 {
            for budget in &mut objective.arms {
                budget.read(objective.goal, objective.window, ledger, now);
            }
        }
    }

    /// How a canary stands: by the worst of its service's objectives, and which that is.
    pub(super) fn standing(&self, service: usize, canary: usize) -> (Standing, Option<String>) {
        let mine = self.0.iter().filter(|objective| objective.service == service);
        let worst = mine
            .map(|objective| (objective.standing(canary), objective))
            .max_by_key(|(standing, _)| *standing);
        let Some((standing, objective)) = worst else { return (Standing::Kept, None) };
        let names = &objective.names;
        let named =
            (standing != Standing::Kept).then(|| format!("{}: {}", names.scope, names.objective));
        (standing, named)
    }

    /// All objectives by arm.
    pub(super) fn views(&self) -> Vec<ObjectiveView> {
        let view = |objective: &Objective, budget: &Budget| {
            let (all, bad) = budget.within(objective.window);
            let burn_rate = if all > 0.0 { bad / all / objective.allowed } else { 0.0 };
            ObjectiveView {
                service: objective.names.service.clone(),
                scope: objective.names.scope.clone(),
                objective: objective.names.objective.clone(),
                arm: budget.arm.clone(),
                burn_rate,
                budget_left: (1.0 - burn_rate).max(0.0),
            }
        };
        let views = self.0.iter().flat_map(|it| it.arms.iter().map(move |arm| view(it, arm)));
        views.collect()
    }
}

impl Objective {
    fn standing(&self, canary: usize) -> Standing {
        let burns = |arm: usize, times: f64| {
            let Some(budget) = self.arms.get(arm) else { return false };
            [self.window, SHORT].iter().all(|window| {
                let (all, bad) = budget.within(*window);
                bad >= LEAST_BAD && bad - SIGMAS * bad.sqrt() > times * self.allowed * all
            })
        };
        match (burns(0, 1.0), burns(canary + 1, 1.0)) {
            (true, true) => Standing::BothBreach,
            (true, false) => Standing::BaselineBreaches,
            (false, true) if burns(canary + 1, SEVERE) => Standing::Severe,
            (false, true) => Standing::Breaches,
            (false, false) => Standing::Kept,
        }
    }
}

impl Budget {
    fn read(&mut self, goal: Goal, window: Duration, ledger: &Ledger, now: Tick) {
        let mut sum = Reading { at: now, ..Reading::default() };
        for (key, judging) in &self.keys {
            let (all, bad) = match goal {
                Goal::LatencyUs(limit_us) => ledger
                    .latencies(*key)
                    .map_or((0, 0), |latencies| latencies.beyond(*judging, limit_us)),
                Goal::Errors => {
                    let totals = ledger.totals(*key);
                    (totals.all_ended(), totals.errors())
                }
            };
            (sum.all, sum.bad) = (sum.all + all, sum.bad + bad);
        }
        // Another version counts from 0 again.
        if self.readings.back().is_some_and(|last| last.all > sum.all) {
            self.readings.clear();
        }
        self.readings.push_back(sum);
        let begins = Tick(now.0.saturating_sub(ticks(window)));
        while self.readings.get(1).is_some_and(|second| second.at <= begins) {
            self.readings.pop_front();
        }
    }

    /// Requests of a window, and those of them that were bad.
    fn within(&self, window: Duration) -> (f64, f64) {
        let Some(last) = self.readings.back() else { return (0.0, 0.0) };
        let begins = Tick(last.at.0.saturating_sub(ticks(window)));
        let place = self.readings.partition_point(|reading| reading.at < begins);
        let first = self.readings[place];
        ((last.all - first.all) as f64, last.bad.saturating_sub(first.bad) as f64)
    }
}

fn goals(slo: &Slo) -> Vec<(String, Goal, f64)> {
    let latency = slo.latency.iter().map(|(quantile, limit)| {
        let name = format!("p{} <= {}", quantile * 100.0, humantime::format_duration(*limit));
        let limit_us = u32::try_from(limit.as_micros()).unwrap_or(u32::MAX);
        (name, Goal::LatencyUs(limit_us), 1.0 - quantile)
    });
    let errors = slo.errors.map(|errors| {
        // A limit of nothing still needs a number to divide by.
        (format!("errors <= {} %", errors * 100.0), Goal::Errors, errors.max(1e-6))
    });
    latency.chain(errors).collect()
}

const fn judging(judged: Judged) -> Judging {
    match judged {
        Judged::FirstByte => Judging::FirstByte,
        Judged::Total => Judging::Total,
    }
}

fn ticks(window: Duration) -> u32 {
    u32::try_from(window.as_millis() / Tick::LENGTH.as_millis()).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An arm that had these requests and bad ones in every five seconds of a minute and a half.
    fn arm(all: u64, bad: u64) -> Budget {
        let reading = |n: u64| Reading { at: Tick(n as u32 * EVERY), all: all * n, bad: bad * n };
        Budget { arm: "any".into(), keys: Vec::new(), readings: (0..=18).map(reading).collect() }
    }

    fn standing(baseline: Budget, canary: Budget) -> Standing {
        let names = Names { service: "s".into(), scope: "r".into(), objective: "o".into() };
        let arms = vec![baseline, canary];
        let goal = Goal::Errors;
        let objective = Objective { service: 0, names, goal, allowed: 0.01, window: USUAL, arms };
        Objectives(vec![objective]).standing(0, 0).0
    }

    #[test]
    fn a_canary_that_burns_its_budget_alone_is_told_from_a_bad_day() {
        assert_eq!(standing(arm(1000, 5), arm(100, 1)), Standing::Kept);
        assert_eq!(standing(arm(1000, 5), arm(100, 4)), Standing::Breaches);
        assert_eq!(standing(arm(1000, 5), arm(100, 30)), Standing::Severe);
        assert_eq!(standing(arm(1000, 50), arm(100, 5)), Standing::BothBreach);
        assert_eq!(standing(arm(1000, 50), arm(100, 0)), Standing::BaselineBreaches);
    }

    #[test]
    fn a_few_bad_requests_are_no_breach() {
        assert_eq!(standing(arm(1000, 0), arm(1, 0)), Standing::Kept);
        let nine_of_ten = Budget {
            readings: [(0, 0), (10, 9)]
                .iter()
                .enumerate()
                .map(|(n, (all, bad))| Reading { at: Tick(n as u32 * EVERY), all: *all, bad: *bad })
                .collect(),
            ..arm(0, 0)
        };
        assert_eq!(standing(arm(1000, 0), nine_of_ten), Standing::Kept);
    }

    #[test]
    fn a_window_holds_what_came_within_it() {
        let budget = arm(100, 2);
        assert_eq!(budget.within(SHORT), (1200.0, 24.0));
        assert_eq!(budget.within(USUAL), (1800.0, 36.0));
    }

    #[test]
    fn goals_are_named_as_they_were_written() {
        let slo = Slo {
            latency: vec![(0.99, Duration::from_millis(250))],
            errors: Some(0.005),
            window: None,
        };
        let names: Vec<String> = goals(&slo).into_iter().map(|(name, ..)| name).collect();
        assert_eq!(names, ["p99 <= 250ms", "errors <= 0.5 %"]);
    }
}
