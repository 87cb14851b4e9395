//! What the evidence against one canary is made of: recorders, routes, cohorts, settings.

use std::{sync::Arc, time::Duration};

use serde::{Deserialize, Serialize};

use super::super::{Tolerance, plan::Margin};
use crate::{
    judge::{JudgeConfig, Pods},
    measure::RecorderKey,
};

/// What the evidence against one canary is made of.
#[derive(Clone, Debug)]
pub struct Subject {
    /// The judge's settings.
    pub judge: JudgeConfig,
    /// What does not count as drift.
    pub tolerate: Tolerance,
    /// The margin that a promotion must prove.
    pub promote_within: Margin,
    /// Pods taking traffic, where they are known.
    pub pods: Option<Pods>,
    /// For so long after its first request the canary may be slower than later.
    pub warmup: Option<Duration>,
    /// Whether another process judged this version before and its table of units is lost: half
    /// of the probability of a false rollback is spent then.
    pub units_lost: bool,
    /// The routes of the service; at least one.
    pub routes: Vec<JudgedRoute>,
    /// The cohorts of the service by name; at least one.
    pub cohorts: Vec<Arc<str>>,
    /// The recorders of the baseline and of this canary.
    pub sources: Vec<Source>,
}

/// A route as far as evidence goes.
#[derive(Clone, Debug)]
pub struct JudgedRoute {
    /// Its name.
    pub name: Arc<str>,
    /// After this long without an answer a request is hung.
    pub timeout: Duration,
}

/// A recorder and what it counts for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Source {
    /// The recorder.
    pub key: RecorderKey,
    /// Of the canary rather than of the baseline.
    pub is_canary: bool,
    /// Cohorts with the same weights are one stratum: the place in the list of splits.
    pub stratum: u16,
    /// Place in [`Subject::routes`].
    pub route: u16,
    /// Place in [`Subject::cohorts`].
    pub cohort: u16,
}

/// The weights of canary and baseline in one stratum, in buckets of 0.01 %.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Split {
    /// Of this canary.
    #[serde(rename = "c")]
    pub canary_bp: u16,
    /// Of the baseline.
    #[serde(rename = "b")]
    pub baseline_bp: u16,
}

impl Subject {
    /// One route without a cohort.
    #[must_use]
    pub fn plain(judge: JudgeConfig, timeout: Duration, sources: Vec<Source>) -> Self {
        let settings = super::super::JudgeSettings::default();
        Self {
            judge,
            tolerate: settings.tolerate,
            promote_within: settings.promote_within,
            pods: None,
            warmup: None,
            units_lost: false,
            routes: vec![JudgedRoute { name: "default".into(), timeout }],
            cohorts: vec!["default".into()],
            sources,
        }
    }

    pub(super) fn of_arm(&self, is_canary: bool) -> impl Iterator<Item = &Source> {
        self.sources.iter().filter(move |source| source.is_canary == is_canary)
    }
}

impl Source {
    /// A recorder of a service with one route, one cohort and one set of weights.
    #[must_use]
    pub const fn plain(key: RecorderKey, is_canary: bool) -> Self {
        Self { key, is_canary, stratum: 0, route: 0, cohort: 0 }
    }
}

impl Split {
    /// The canary's share of the two.
    #[must_use]
    pub fn omega(self) -> f64 {
        let sum = f64::from(self.canary_bp) + f64::from(self.baseline_bp);
        f64::from(self.canary_bp) / sum.max(1.0)
    }
}
