//! What an operator should think about: nothing here is wrong, and nothing here is refused.

use std::{collections::HashSet, time::Duration};

use super::{Compiling, rollouts::Plans, upstreams::Upstreams};
use crate::{
    config::{file::File, reading::Spot, values::Percent},
    rollout::{JudgeSettings, ServicePlan, Stage},
};

/// Block length that `auto` starts with.
const FIRST_BLOCK: Duration = Duration::from_secs(5);
/// Names listed in one sentence; more are counted.
const NAMES_SHOWN: usize = 5;

/// What was noted on the way.
#[derive(Default)]
pub(super) struct Notes {
    sentences: Vec<String>,
    default_salts: Vec<String>,
}

impl Compiling<'_, '_> {
    /// Notes a sentence about what stands at `spot`.
    pub(super) fn advise(&self, spot: Spot, sentence: &str) {
        let path = self.reading.path(spot);
        self.notes.borrow_mut().sentences.push(format!("{path}: {sentence}"));
    }

    /// Notes a service whose keyed hash is salted by its own name.
    pub(super) fn salt_left_at_default(&self, service: &str) {
        self.notes.borrow_mut().default_salts.push(service.to_owned());
    }

    /// Notes a time below the number of blocks that the proof of a stage takes.
    pub(super) fn consider_floor(&self, stage: &Stage, judge: &JudgeSettings, spot: Spot) {
        let proves = stage.prove.unwrap_or(stage.weight_bp >= 500) && stage.weight_bp < 10_000;
        if !proves {
            return;
        }
        let blocks = blocks_to_prove(stage.weight_bp);
        let length = judge.block.unwrap_or(FIRST_BLOCK);
        let floor = length * blocks;
        if stage.at_least < floor {
            let [weight, needed, length, written] = [
                Percent::of_steps(stage.weight_bp.into()).to_string(),
                show(floor),
                show(length),
                show(stage.at_least),
            ];
            self.advise(
                spot,
                &format!(
                    "the proof at {weight} takes at least {blocks} blocks, {needed} at {length} \
                     each: the stage will last longer than the {written} written here"
                ),
            );
        }
    }
}

/// The fewest blocks that can prove a stage: 150 at 5 %, 30 at 25 %, 15 at 50 %. The bound falls as
/// one over the weight, since what a block can say grows with the canary's share.
fn blocks_to_prove(weight_bp: u16) -> u32 {
    (75_000 / u32::from(weight_bp.max(1))).max(1)
}

fn show(time: Duration) -> String {
    humantime::format_duration(time).to_string()
}

/// All sentences, the most general last.
pub(super) fn all(
    file: &File,
    compiling: &Compiling<'_, '_>,
    upstreams: &Upstreams,
    plans: &Plans,
    services: &[ServicePlan],
) -> Vec<String> {
    let notes = compiling.notes.take();
    let mut advice = notes.sentences;
    let routes = file.routes.get().map_or(&[] as &[_], |routes| routes);
    let led_to: HashSet<&str> =
        routes.iter().filter_map(|route| Some(&*route.get()?.service.get()?.0)).collect();
    let names = services.iter().map(|plan| &*plan.service);
    let unrouted: Vec<&str> = names.filter(|name| !led_to.contains(name)).collect();
    if file.routes.get().is_none() {
        advice.push("there are no routes: every request will be answered 404".to_owned());
    } else if !unrouted.is_empty() {
        advice.push(format!("no route leads to {}", list(&unrouted)));
    }
    let unused: Vec<&str> = upstreams.unused().collect();
    if !unused.is_empty() {
        advice.push(format!("no service uses the upstream {}", list(&unused)));
    }
    let unused = plans.unused();
    if !unused.is_empty() {
        advice.push(format!("no service uses the rollout {}", list(&unused)));
    }
    if !notes.default_salts.is_empty() {
        let names: Vec<&str> = notes.default_salts.iter().map(String::as_str).collect();
        advice.push(format!(
            "the salt is the service's name, by which a client can grind itself into an arm; set \
             `salt` from a secret: {}",
            list(&names)
        ));
    }
    if services.iter().any(|service| !service.canaries.is_empty()) {
        advice.push(
            "each proxy judges by its own traffic: with several in front of a service, each needs \
             longer for a verdict and rolls back for itself"
                .to_owned(),
        );
    }
    advice
}

fn list(names: &[&str]) -> String {
    let shown = names[..names.len().min(NAMES_SHOWN)].join(", ");
    match names.len().checked_sub(NAMES_SHOWN) {
        None | Some(0) => shown,
        Some(more) => format!("{shown} and {more} more"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_floors_are_those_of_the_contract() {
        let floors = [500, 2_500, 5_000].map(blocks_to_prove);
        assert_eq!(floors, [150, 30, 15]);
    }

    #[test]
    fn long_lists_are_cut() {
        assert_eq!(list(&["a", "b"]), "a, b");
        assert_eq!(list(&["a", "b", "c", "d", "e", "f", "g"]), "a, b, c, d, e and 2 more");
    }
}
