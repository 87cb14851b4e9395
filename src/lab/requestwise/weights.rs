//! Weights that move by a schedule, or with the evidence.

use std::time::Duration;

use crate::lab::scenario::{Scenario, Weighting};

/// Odds from which on reacting weights take their second value.
const REACTS_FROM: f64 = 3.0;

/// A weight that is due, and whether what was seen chose it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Due {
    /// By the clock.
    Scheduled(u16),
    /// By the evidence.
    Seen(u16),
}

/// The weights of a scenario without a plan.
#[derive(Clone, Copy, Debug)]
pub(super) struct Schedule<'a> {
    weighting: &'a Weighting,
}

impl<'a> Schedule<'a> {
    pub(super) const fn new(weighting: &'a Weighting) -> Self {
        Self { weighting }
    }

    /// The weight at the start.
    pub(super) fn first(&self) -> u16 {
        match self.due(0, f64::NEG_INFINITY) {
            Due::Scheduled(weight_bp) | Due::Seen(weight_bp) => weight_bp,
        }
    }

    /// The weight so many ticks after the start.
    pub(super) fn due(&self, ticks: u32, evidence_ln: f64) -> Due {
        let now = Duration::from_millis(u64::from(ticks) * 100);
        match self.weighting {
            Weighting::Fixed(weight_bp) => Due::Scheduled(*weight_bp),
            Weighting::Steps(steps) => {
                let current = steps.partition_point(|(from, _)| *from <= now);
                Due::Scheduled(steps[current.max(1) - 1].1)
            }
            Weighting::Flap { between, every } => {
                let every = every.as_millis().max(100);
                Due::Scheduled(between[(now.as_millis() / every) as usize % 2])
            }
            Weighting::React { between } => {
                Due::Seen(between[usize::from(evidence_ln >= REACTS_FROM.ln())])
            }
            // A plan moves its weight itself.
            Weighting::Plan(plan) => {
                Due::Scheduled(plan.stages.first().map_or(0, |stage| stage.weight_bp))
            }
        }
    }
}

/// A fixed weight in place of a plan: that of its first stage from 5 % on, or of its last.
pub(super) fn fixed(scenario: &Scenario) -> Weighting {
    let Weighting::Plan(plan) = &scenario.weighting else { return scenario.weighting.clone() };
    let stage = plan.stages.iter().find(|stage| stage.weight_bp >= 500).or(plan.stages.last());
    Weighting::Fixed(stage.map_or(500, |stage| stage.weight_bp.min(5_000)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weights_flap_by_the_clock() {
        let every = Duration::from_secs(7);
        let weighting = Weighting::Flap { between: [100, 1_000], every };
        let schedule = Schedule::new(&weighting);
        assert_eq!(schedule.first(), 100);
        assert_eq!(schedule.due(69, 0.0), Due::Scheduled(100));
        assert_eq!(schedule.due(70, 0.0), Due::Scheduled(1_000));
        assert_eq!(schedule.due(140, 0.0), Due::Scheduled(100));
    }

    #[test]
    fn reacting_weights_follow_the_evidence() {
        let weighting = Weighting::React { between: [100, 2_500] };
        let schedule = Schedule::new(&weighting);
        assert_eq!(schedule.due(5, 0.0), Due::Seen(100));
        assert_eq!(schedule.due(5, 1.2), Due::Seen(2_500));
    }
}
