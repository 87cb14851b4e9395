//! Plays a scenario: picks the engine, plays the runs, sums them up.

use std::sync::atomic::AtomicBool;

use super::{
    blocks::Stage, blockwise, record::play_all, requestwise, scenario::Scenario, summary::Summary,
};

/// What single runs are made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Engine {
    /// Counts drawn per block, from their distributions.
    Blocks,
    /// Every request by itself, through the proxy's own assignment and accounting.
    Requests,
}

impl Engine {
    /// The engine of a scenario: blocks where they are exact. Rivals look at requests.
    #[must_use]
    pub fn of(scenario: &Scenario, rivals: bool) -> Self {
        match blockwise::setting(scenario) {
            Some(_) if !rivals => Self::Blocks,
            Some(_) | None => Self::Requests,
        }
    }

    /// Its word, for programs.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Blocks => "blocks",
            Self::Requests => "requests",
        }
    }

    /// What it does, for people.
    #[must_use]
    pub const fn phrase(self) -> &'static str {
        match self {
            Self::Blocks => "block by block",
            Self::Requests => "request by request",
        }
    }
}

/// Plays all runs of a scenario; `None` once `cancelled`. The result depends on nothing but the
/// scenario and whether rivals look on. `done` is told of every run that is over.
#[must_use]
pub fn play(
    scenario: &Scenario,
    rivals: bool,
    threads: usize,
    cancelled: &AtomicBool,
    done: impl Fn() + Sync,
) -> Option<Summary> {
    let by_block = blockwise::setting(scenario).filter(|_| !rivals);
    let records = match by_block {
        Some(setting) => {
            let stage = Stage::new(&setting);
            let placebo = blockwise::placebo(scenario);
            let play = |run| blockwise::play(&stage, placebo, scenario.seed, run);
            play_all(scenario.runs, threads, cancelled, play, done)
        }
        None => {
            let laboratory = requestwise::Laboratory::new(scenario, rivals);
            let play = |run| laboratory.play(run);
            play_all(scenario.runs, threads, cancelled, play, done)
        }
    };
    records.map(|records| Summary::new(scenario, &records))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::lab::scenario::{Change, LongRequests};

    #[test]
    fn the_number_of_threads_does_not_show() {
        let canary = Change { latency_factor: 1.5, ..Change::default() };
        let duration = Duration::from_secs(60);
        let drawn = Scenario { runs: 20, canary, duration, ..Scenario::default() };
        let between = [Duration::from_secs(1), Duration::from_secs(2)];
        let slow = Some(LongRequests { share: 0.01, between });
        let single = Scenario { runs: 4, slow, ..drawn.clone() };
        assert_eq!(Engine::of(&drawn, false), Engine::Blocks);
        assert_eq!(Engine::of(&single, false), Engine::Requests);
        let go = AtomicBool::new(false);
        for scenario in [drawn, single] {
            let with = |threads| play(&scenario, false, threads, &go, || {}).unwrap().to_json();
            assert_eq!(with(1).to_string(), with(3).to_string());
        }
    }

    #[test]
    fn both_engines_agree_where_both_are_exact() {
        let canary = Change { latency_factor: 2.0, ..Change::default() };
        let duration = Duration::from_secs(120);
        let drawn = Scenario { runs: 30, canary, duration, ..Scenario::default() };
        // A share of nothing changes nothing, and is out of the reach of blocks.
        let between = [Duration::from_secs(1), Duration::from_secs(2)];
        let single = Scenario { slow: Some(LongRequests { share: 0.0, between }), ..drawn.clone() };
        let go = AtomicBool::new(false);
        let [drawn, single] = [drawn, single].map(|scenario| {
            let summary = play(&scenario, false, 2, &go, || {}).unwrap();
            assert_eq!(summary.haldane.rolled_back.hits, 30);
            summary.haldane.seconds_to_rollback.unwrap().mean
        });
        assert!((single / drawn - 1.0).abs() < 0.3, "{single} {drawn}");
    }
}
