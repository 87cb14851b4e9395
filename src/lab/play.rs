//! Plays a scenario: picks the engine, plays the runs, sums them up.

use std::sync::atomic::AtomicBool;

use super::{blockwise, record::play_all, requestwise, scenario::Scenario, summary::Summary};

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
            let play = |run| blockwise::play(&setting, scenario.seed, run);
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
