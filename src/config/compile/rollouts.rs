//! Plans of rollouts: the named ones, those in place, and those that `risk` picks.

use std::{collections::HashMap, sync::Arc, time::Duration};

use super::Compiling;
use crate::{
    config::{
        file,
        given::{Given, Many, Named},
        reading::Spot,
        values::{Block, Percent, Text},
    },
    rollout::{Fallback, Inconclusive, JudgeSettings, Margin, Plan, Risk, Stage, Tolerance},
};

/// The plans with a name.
pub(super) struct Plans {
    by_name: HashMap<String, Arc<Plan>>,
    used: std::cell::RefCell<std::collections::HashSet<String>>,
}

impl Plans {
    pub(super) fn compile(
        named: &Given<Named<file::Rollout>>,
        compiling: &Compiling<'_, '_>,
    ) -> Self {
        let mut by_name = HashMap::new();
        for (name, rollout) in named.get().map_or(&[] as &[_], |named| named) {
            compiling.check_name(&name.text, name.spot);
            let plan = match rollout.located() {
                Some((rollout, spot)) => compile_one(rollout, spot, &name.text, compiling),
                None => of_risk(Risk::default()),
            };
            by_name.insert(name.text.clone(), Arc::new(plan));
        }
        Self { by_name, used: std::cell::RefCell::default() }
    }

    /// The plan that a service or canary names or writes in place.
    pub(super) fn resolve(
        &self,
        given: &Given<file::RolloutOrName>,
        compiling: &Compiling<'_, '_>,
    ) -> Option<Arc<Plan>> {
        let (Text(name), spot) = match given.located()? {
            (file::RolloutOrName::Name(name), spot) => (name, spot),
            (file::RolloutOrName::InPlace(rollout), spot) => {
                return Some(Arc::new(compile_one(rollout, spot, "in place", compiling)));
            }
        };
        let plan = self.by_name.get(name).cloned();
        match plan {
            Some(_) => {
                self.used.borrow_mut().insert(name.clone());
            }
            None => {
                let mut names: Vec<&str> = self.by_name.keys().map(String::as_str).collect();
                names.sort_unstable();
                let message = format!("no rollout is named `{name}`");
                compiling.unknown(spot, message, name, names.into_iter());
            }
        }
        plan
    }

    pub(super) fn unused(&self) -> Vec<&str> {
        let used = self.used.borrow();
        let names = self.by_name.keys().filter(|name| !used.contains(*name));
        let mut names: Vec<&str> = names.map(String::as_str).collect();
        names.sort_unstable();
        names
    }
}

/// The plan of a risk.
pub(super) fn of_risk(risk: Risk) -> Plan {
    let (name, weights): (_, &[u16]) = match risk {
        Risk::Low => ("risk: low", &[500, 2_500, 10_000]),
        Risk::Medium => ("risk: medium", &[100, 500, 2_500, 5_000, 9_500, 10_000]),
        Risk::High => ("risk: high", &[10, 100, 500, 1_000, 2_500, 5_000, 9_500, 10_000]),
    };
    let mut judge = JudgeSettings::default();
    let gated = match risk {
        Risk::Low | Risk::Medium => None,
        Risk::High => {
            judge.promote_within.latency = 0.10;
            Some(2_500)
        }
    };
    let stage = |weight_bp: &u16| Stage {
        weight_bp: *weight_bp,
        at_least: at_least(*weight_bp),
        gate: gated == Some(*weight_bp),
        prove: None,
    };
    Plan {
        name: name.into(),
        stages: weights.iter().map(stage).collect(),
        judge,
        inconclusive_after: Inconclusive::default(),
        manual: false,
    }
}

/// The least time at a stage that does not say it.
fn at_least(weight_bp: u16) -> Duration {
    let minutes = match weight_bp {
        0..500 => 2,
        500..9_500 => 5,
        9_500..10_000 => 10,
        _ => 0,
    };
    Duration::from_secs(minutes * 60)
}

pub(super) fn compile_one(
    rollout: &file::Rollout,
    spot: Spot,
    name: &str,
    compiling: &Compiling<'_, '_>,
) -> Plan {
    let judge = compile_judge(&rollout.judge, compiling);
    let stages = compile_stages(&rollout.stages, spot, &judge, compiling);
    let mut inconclusive_after = Inconclusive::default();
    if let Some(given) = rollout.inconclusive_after.get() {
        inconclusive_after.period = compiling.time(&given.period, inconclusive_after.period);
        inconclusive_after.then = match given.then.get() {
            None | Some(file::Fallback::Hold) => Fallback::Hold,
            Some(file::Fallback::Advance) => Fallback::Advance,
            Some(file::Fallback::Rollback) => Fallback::Rollback,
        };
    }
    let manual = rollout.manual.get().is_some_and(|flag| flag.0);
    Plan { name: name.into(), stages, judge, inconclusive_after, manual }
}

fn compile_stages(
    list: &Given<Many<file::StageOrWeight>>,
    rollout: Spot,
    judge: &JudgeSettings,
    compiling: &Compiling<'_, '_>,
) -> Vec<Stage> {
    if list.is_absent() {
        compiling.missing(rollout, "stages", "write it like `stages: [1%, 5%, 25%, 50%, 100%]`");
    }
    let mut stages: Vec<Stage> = Vec::new();
    for (stage, spot) in compiling.items(list).iter().filter_map(Given::located) {
        let compiled = match stage {
            file::StageOrWeight::Weight(percent) => bare_stage(*percent, spot, compiling),
            file::StageOrWeight::Stage(stage) => compile_stage(stage, spot, judge, compiling),
        };
        let Some(compiled) = compiled else { continue };
        if let Some(before) = stages.last().filter(|before| before.weight_bp >= compiled.weight_bp)
        {
            let [this, before] =
                [compiled.weight_bp, before.weight_bp].map(|bp| Percent::of_steps(bp.into()));
            let message = format!("{this} is no more than the {before} of the stage before");
            compiling.problem_with_help(spot, message, "each stage is heavier than the one before");
        }
        stages.push(compiled);
    }
    stages
}

fn bare_stage(percent: Percent, spot: Spot, compiling: &Compiling<'_, '_>) -> Option<Stage> {
    let weight = u16::try_from(percent.steps()).ok().filter(|weight| (1..=10_000).contains(weight));
    let Some(weight_bp) = weight else {
        compiling.problem(spot, format!("a stage of {percent}; from 0.01% to 100%"));
        return None;
    };
    Some(Stage { weight_bp, at_least: at_least(weight_bp), gate: false, prove: None })
}

fn compile_stage(
    stage: &file::Stage,
    spot: Spot,
    judge: &JudgeSettings,
    compiling: &Compiling<'_, '_>,
) -> Option<Stage> {
    if stage.weight.is_absent() {
        compiling.missing(spot, "weight", "write it like { weight: 5%, at_least: 5m }");
    }
    let (percent, weight_spot) = stage.weight.located()?;
    let mut compiled = bare_stage(*percent, weight_spot, compiling)?;
    compiled.gate = stage.gate.get().is_some();
    compiled.prove = stage.prove.get().map(|flag| flag.0);
    if let Some((time, spot)) = stage.at_least.located() {
        compiled.at_least = time.0;
        compiling.consider_floor(&compiled, judge, spot);
    }
    Some(compiled)
}

pub(super) fn compile_judge(
    judge: &Given<file::Judge>,
    compiling: &Compiling<'_, '_>,
) -> JudgeSettings {
    let default = JudgeSettings::default();
    let Some(judge) = judge.get() else { return default };
    JudgeSettings {
        false_rollback: chance(&judge.false_rollback, default.false_rollback, compiling),
        false_promotion: chance(&judge.false_promotion, default.false_promotion, compiling),
        tolerate: judge.tolerate.get().map_or(default.tolerate, |given| Tolerance {
            latency: share(&given.latency, default.tolerate.latency),
            latency_floor: given
                .latency_floor
                .get()
                .map_or(default.tolerate.latency_floor, |floor| floor.0),
            errors: errors(&given.errors, default.tolerate.errors, compiling),
        }),
        promote_within: judge.promote_within.get().map_or(default.promote_within, |given| {
            let margin = |given: &Given<Percent>, default| {
                if let Some((percent, spot)) = given.located().filter(|(at, _)| at.steps() == 0) {
                    compiling.problem(spot, format!("a margin of {percent} can never be proved"));
                }
                share(given, default)
            };
            errors(&given.errors, default.promote_within.errors, compiling);
            Margin {
                latency: margin(&given.latency, default.promote_within.latency),
                errors: margin(&given.errors, default.promote_within.errors),
            }
        }),
        block: block(&judge.block, compiling),
        max_bad_responses: compiling.number(&judge.max_bad_responses, 1, default.max_bad_responses),
    }
}

fn share(given: &Given<Percent>, default: f64) -> f64 {
    given.get().map_or(default, |percent| percent.share())
}

/// A chance of error: more than nothing, less than a coin.
fn chance(given: &Given<Percent>, default: f64, compiling: &Compiling<'_, '_>) -> f64 {
    if let Some((percent, spot)) = given.located()
        && !(1..5_000).contains(&percent.steps())
    {
        compiling.problem(spot, format!("a chance of {percent}; from 0.01% to below 50%"));
    }
    share(given, default)
}

/// A share of the requests.
fn errors(given: &Given<Percent>, default: f64, compiling: &Compiling<'_, '_>) -> f64 {
    if let Some((percent, spot)) = given.located()
        && percent.steps() >= 10_000
    {
        compiling.problem(spot, format!("{percent} of the requests; it must be below 100%"));
    }
    share(given, default)
}

fn block(given: &Given<Block>, compiling: &Compiling<'_, '_>) -> Option<Duration> {
    match given.located()? {
        (Block::Auto, _) => None,
        (Block::Fixed(length), spot) => {
            // Counts are taken every 100 ms; a block longer than this would decide too late.
            let bounds = Duration::from_millis(100)..=Duration::from_secs(300);
            if !bounds.contains(length) {
                compiling.problem(spot, "a block lasts from 100ms to 5m");
            }
            Some(*length)
        }
    }
}
