//! The report of a rollout, running or over, from its journal: what happened, what it cost, and
//! by which evidence, as Markdown or as a page of HTML with plots.
//!
//! Everything in it comes from the journal; it asks no running proxy.

mod charts;
mod gather;
mod html;
mod markdown;
mod series;
mod story;
#[cfg(test)]
mod tests;

use std::{path::Path, sync::Arc, time::Duration};

use super::{Decision, Phase, Plan, ReadError, read_journal};
use crate::judge::Effect;
use gather::Gathering;
use series::Series;

/// What is known of one rollout.
#[derive(Debug)]
pub struct Report {
    service: Arc<str>,
    canary: Arc<str>,
    version: Arc<str>,
    /// Its decisions, oldest first; at least one.
    decisions: Vec<Decision>,
    plan: Option<Arc<Plan>>,
    phase: Phase,
    /// Time from its beginning to the last that is known of it.
    lasted: Duration,
    series: Series,
    judged: Option<Judged>,
    /// The upstreams of baseline and canary, where the configuration is at hand.
    upstreams: Option<[String; 2]>,
    /// Rollouts of this canary that the journal knows from before.
    earlier: usize,
    /// Whether parts of it are missing in the journal.
    is_torn: bool,
}

/// What the judge came to.
#[derive(Debug)]
struct Judged {
    /// Odds against the canary, and those at which it is rolled back.
    odds: [f64; 2],
    sentence: String,
    /// The leading bet in words.
    lead: Option<String>,
    effect: Effect,
    /// Bad canary responses beyond the baseline's share, as far as they are beyond doubt.
    excess_bad: f64,
    /// The baseline's deadlines in microseconds, by route: p75 to p99.9.
    deadlines_us: Vec<Vec<u32>>,
}

/// The form of a report.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReportForm {
    /// Markdown.
    Markdown,
    /// A page that needs nothing else.
    Html,
}

/// Why there is no report.
#[derive(Debug, thiserror::Error)]
pub enum NoReport {
    /// The journal cannot be read.
    #[error(transparent)]
    Journal(#[from] ReadError),
    /// No rollout of this service, or of this canary, was recorded, or several were.
    #[error("{0}")]
    Unknown(String),
}

impl Report {
    /// Reads what a journal (a file, its directory, or the state directory) says of the last
    /// rollout of a canary. The canary may be left out where the service had one.
    ///
    /// # Errors
    /// See [`NoReport`].
    pub fn read(path: &Path, service: &str, canary: Option<&str>) -> Result<Self, NoReport> {
        let mut gathering = Gathering::new(service);
        read_journal(path, |place, line| gathering.take(place, line))?;
        gathering.report(canary).map_err(NoReport::Unknown)
    }

    /// Names the upstreams of baseline and canary, for the edit that makes the canary the
    /// baseline.
    #[must_use]
    pub fn with_upstreams(self, upstreams: Option<[String; 2]>) -> Self {
        Self { upstreams, ..self }
    }

    /// The canary that it is about.
    #[must_use]
    pub fn canary(&self) -> &str {
        &self.canary
    }

    /// The report as text.
    #[must_use]
    pub fn render(&self, form: ReportForm) -> String {
        match form {
            ReportForm::Markdown => markdown::render(self),
            ReportForm::Html => html::render(self),
        }
    }

    /// The weight over time: since when, in seconds after the beginning, and how much.
    fn weights(&self) -> Vec<(f64, u16)> {
        let at = |decision: &Decision| (decision.at_ms as f64 / 1000.0, decision.weight_bp);
        self.decisions.iter().map(at).collect()
    }

    /// For how many seconds the canary had any weight.
    fn exposed_seconds(&self) -> f64 {
        let weights = self.weights();
        let ends = weights.iter().skip(1).map(|(at, _)| *at);
        let ends = ends.chain([self.lasted.as_secs_f64()]);
        let stretches = weights.iter().zip(ends).filter(|((_, weight_bp), _)| *weight_bp > 0);
        stretches.map(|((from, _), to)| (to - from).max(0.0)).sum()
    }
}
