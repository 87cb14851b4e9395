//! How the weight of a scenario moves: fixed, by a schedule, to and fro, with the evidence, or by a
//! plan.

use super::check_order;
use crate::{
    config::{
        compile::{
            Compiling,
            rollouts::{self, compile_judge},
        },
        file::{self, scenario as written},
        given::Given,
        reading::Spot,
        values::{Percent, Text},
    },
    lab::Weighting,
    rollout::{JudgeSettings, Plan, Risk},
};

/// How the weight moves, and the judge's settings.
pub(super) fn compile(
    written: &written::Scenario,
    compiling: &Compiling<'_, '_>,
) -> (Weighting, JudgeSettings) {
    let judge = compile_judge(&written.judge, compiling);
    let ways = [
        ("rollout", !written.rollout.is_absent(), written.rollout.spot()),
        ("flap", !written.flap.is_absent(), written.flap.spot()),
        ("react", !written.react.is_absent(), written.react.spot()),
    ];
    let mut given = ways.iter().filter(|(_, is_given, _)| *is_given);
    if let (Some((first, ..)), Some((second, _, spot))) = (given.next(), given.next()) {
        compiling.problem(*spot, format!("`{second}` together with `{first}`: one of the two"));
    }
    if let Some(plan) = plan(written, compiling) {
        let judge = if written.judge.is_absent() { plan.judge.clone() } else { judge };
        return (Weighting::Plan(Plan { judge: judge.clone(), ..plan }), judge);
    }
    let help = "write it like [1%, 10%]";
    let two =
        |pair: [(Percent, Spot); 2]| pair.map(|(percent, at)| compiling.weight_of(percent, at));
    let moving = match (written.flap.located(), written.react.located()) {
        (Some((flap, spot)), _) => compiling.pair(&flap.between, spot, help).and_then(|pair| {
            let every = compiling.needed_time(&flap.every, spot, "every")?;
            Some(Weighting::Flap { between: two(pair), every })
        }),
        (None, Some((react, spot))) => compiling
            .pair(&react.between, spot, help)
            .map(|pair| Weighting::React { between: two(pair) }),
        (None, None) => None,
    };
    (moving.unwrap_or_else(|| scheduled(&written.weight, compiling)), judge)
}

/// The plan, in place or of a risk.
fn plan(written: &written::Scenario, compiling: &Compiling<'_, '_>) -> Option<Plan> {
    let (rollout, spot) = written.rollout.located()?;
    if !written.weight.is_absent() {
        let message = "`weight` together with `rollout`: one of the two";
        compiling.problem(written.weight.spot(), message);
    }
    match rollout {
        file::RolloutOrName::InPlace(rollout) => {
            if let (Some((_, spot)), false) = (rollout.judge.located(), written.judge.is_absent()) {
                compiling.problem(spot, "`judge` is given twice: here and for the scenario");
            }
            Some(rollouts::compile_one(rollout, spot, "in place", compiling))
        }
        file::RolloutOrName::Name(Text(name)) => {
            let risk = match name.as_str() {
                "low" => Risk::Low,
                "medium" => Risk::Medium,
                "high" => Risk::High,
                other => {
                    let accepted = ["low", "medium", "high"].into_iter();
                    let message = format!("`{other}` is neither a plan in place nor a risk");
                    compiling.unknown(spot, message, other, accepted);
                    return None;
                }
            };
            Some(rollouts::of_risk(risk))
        }
    }
}

fn scheduled(weight: &Given<written::WeightOrSteps>, compiling: &Compiling<'_, '_>) -> Weighting {
    const DEFAULT_BP: u16 = 500;
    match weight.located() {
        None => Weighting::Fixed(DEFAULT_BP),
        Some((written::WeightOrSteps::Fixed(percent), spot)) => {
            Weighting::Fixed(compiling.weight_of(*percent, spot))
        }
        Some((written::WeightOrSteps::Steps(steps), _)) => {
            let help = "write it like [{ at: 0s, weight: 1% }, { at: 10m, weight: 5% }]";
            let mut list = Vec::new();
            for (step, spot) in steps.iter().filter_map(Given::located) {
                let at = compiling.needed(&step.at, spot, "at", help);
                let weight = compiling.needed(&step.weight, spot, "weight", help);
                let (Some((at, at_spot)), Some((percent, spot))) = (at, weight) else { continue };
                check_order(list.last().map(|(at, _)| *at), at.0, at_spot, compiling);
                list.push((at.0, compiling.weight_of(*percent, spot)));
            }
            if list.is_empty() { Weighting::Fixed(DEFAULT_BP) } else { Weighting::Steps(list) }
        }
    }
}
