//! What many runs came to, as numbers: the JSON document of `simulate`, in one place.

use serde_json::{Map, Value, json};

use super::{
    blocks::{block_floor_requests, exact_interval, two_sample_requests},
    bound::wald_canary_requests,
    record::Record,
    rivals::{RIVALS, Stopped},
    scenario::{Rate, Scenario, Weighting},
};

/// How often something happened in so many runs.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Share {
    /// How often.
    pub hits: u64,
    /// Of how many.
    pub runs: u64,
}

impl Share {
    /// The observed share.
    #[must_use]
    pub fn estimate(self) -> f64 {
        if self.runs == 0 { 0.0 } else { self.hits as f64 / self.runs as f64 }
    }

    /// The exact 95 % interval (Clopper, Pearson 1934): each bound holds with 97.5 %.
    #[must_use]
    pub fn interval(self) -> (f64, f64) {
        if self.runs == 0 { (0.0, 1.0) } else { exact_interval(self.hits, self.runs, 0.95) }
    }
}

/// Mean, median and 90th percentile of some numbers.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Spread {
    /// Their mean.
    pub mean: f64,
    /// Their median.
    pub p50: f64,
    /// Their 90th percentile.
    pub p90: f64,
}

impl Spread {
    /// `None` of no numbers. A quantile is the smallest number that so many do not exceed.
    #[must_use]
    pub fn of(mut numbers: Vec<f64>) -> Option<Self> {
        if numbers.is_empty() {
            return None;
        }
        numbers.sort_unstable_by(f64::total_cmp);
        let count = numbers.len() as f64;
        let quantile = |q: f64| numbers[((q * count).ceil() as usize).max(1) - 1];
        Some(Self {
            mean: numbers.iter().sum::<f64>() / count,
            p50: quantile(0.5),
            p90: quantile(0.9),
        })
    }

    fn to_json(spread: Option<Self>) -> Value {
        spread.map_or(
            Value::Null,
            |Self { mean, p50, p90 }| json!({ "mean": mean, "p50": p50, "p90": p90 }),
        )
    }
}

/// What one judge (ours, or a rival) did in all runs.
#[derive(Clone, Debug, PartialEq)]
pub struct Tally {
    /// Runs that it rolled back.
    pub rolled_back: Share,
    /// Runs in which the evidence asked for caution; `None` for those who know none.
    pub cautioned: Option<Share>,
    /// Runs that ended in promotion.
    pub promoted: Share,
    /// When each rollback came, in seconds after the start, in the order of the runs.
    pub rollbacks: Vec<f64>,
    /// Seconds from the start of a run to its rollback.
    pub seconds_to_rollback: Option<Spread>,
    /// Seconds from the onset of the change to the rollback; negative where it came before.
    pub seconds_from_onset: Option<Spread>,
    /// Canary requests until the rollback.
    pub canary_requests: Option<Spread>,
    /// Bad canary responses beyond the baseline's share until the rollback.
    pub excess_bad_requests: Option<Spread>,
}

impl Tally {
    fn new(onset: f64, stopped: &[Option<Stopped>], cautioned: Option<u64>, promoted: u64) -> Self {
        let runs = stopped.len() as u64;
        let share = |hits| Share { hits, runs };
        let rolled: Vec<Stopped> = stopped.iter().copied().flatten().collect();
        let spread = |pick: &dyn Fn(&Stopped) -> f64| Spread::of(rolled.iter().map(pick).collect());
        Self {
            rolled_back: share(rolled.len() as u64),
            cautioned: cautioned.map(share),
            promoted: share(promoted),
            rollbacks: rolled.iter().map(|stopped| stopped.at).collect(),
            seconds_to_rollback: spread(&|stopped| stopped.at),
            seconds_from_onset: spread(&|stopped| stopped.at - onset),
            canary_requests: spread(&|stopped| stopped.canary_requests as f64),
            excess_bad_requests: spread(&|stopped| stopped.excess_bad),
        }
    }

    /// Runs that were neither rolled back nor promoted.
    #[must_use]
    pub fn inconclusive(&self) -> u64 {
        self.rolled_back.runs - self.rolled_back.hits - self.promoted.hits
    }

    fn to_json(&self) -> Map<String, Value> {
        let (low, high) = self.rolled_back.interval();
        let mut document = Map::new();
        let mut put = |name: &str, value: Value| document.insert(name.to_owned(), value);
        put("runs", json!(self.rolled_back.runs));
        put("rolled_back", json!(self.rolled_back.hits));
        put("rolled_back_fraction", json!(self.rolled_back.estimate()));
        put("rolled_back_fraction_ci95", json!([low, high]));
        put("cautioned_fraction", json!(self.cautioned.map(Share::estimate)));
        put("cautioned_fraction_ci95", json!(self.cautioned.map(Share::interval)));
        put("promoted", json!(self.promoted.hits));
        put("inconclusive", json!(self.inconclusive()));
        put("seconds_to_rollback", Spread::to_json(self.seconds_to_rollback));
        put("seconds_from_onset", Spread::to_json(self.seconds_from_onset));
        put("canary_requests_to_rollback", Spread::to_json(self.canary_requests));
        put("excess_bad_requests", Spread::to_json(self.excess_bad_requests));
        document
    }
}

/// What a scenario came to.
#[derive(Clone, Debug, PartialEq)]
pub struct Summary {
    /// Ours.
    pub haldane: Tally,
    /// Mean seconds from the onset to caution, over the runs that came to it after the onset.
    pub caution_from_onset: Option<Spread>,
    /// Seconds from the onset until the breaker took all weight.
    pub opened_from_onset: Option<Spread>,
    /// Each of [`RIVALS`], if they were asked.
    pub rivals: Vec<Tally>,
    /// The information bound, where it is known.
    pub wald_canary_requests: Option<f64>,
    /// The two-sample bound plus the block floor, where one rate alone is compared.
    pub floor_canary_requests: Option<f64>,
}

impl Summary {
    /// Sums up the runs of a scenario.
    #[must_use]
    pub fn new(scenario: &Scenario, records: &[Record]) -> Self {
        let onset = scenario.onset();
        let count = |hit: fn(&Record) -> bool| records.iter().filter(|r| hit(r)).count() as u64;
        let since = |pick: fn(&Record) -> Option<f64>| {
            let times = records.iter().filter_map(pick).map(|at| at - onset);
            Spread::of(times.filter(|seconds| *seconds >= 0.0).collect())
        };
        let rolled: Vec<_> = records.iter().map(|record| record.rolled_back).collect();
        let asked = records.first().map_or(0, |record| record.rivals.len());
        let rival = |place: usize| {
            let stopped: Vec<_> = records.iter().map(|record| record.rivals[place]).collect();
            Tally::new(onset, &stopped, None, 0)
        };
        let cautioned = count(|record| record.cautioned.is_some());
        let promoted = count(|record| record.promoted.is_some() && record.rolled_back.is_none());
        Self {
            haldane: Tally::new(onset, &rolled, Some(cautioned), promoted),
            caution_from_onset: since(|record| record.cautioned),
            opened_from_onset: since(|record| record.opened),
            rivals: (0..asked).map(rival).collect(),
            wald_canary_requests: wald_canary_requests(scenario),
            floor_canary_requests: floor_canary_requests(scenario),
        }
    }

    /// The document that `-o json` prints.
    #[must_use]
    pub fn to_json(&self) -> Value {
        let mut document = self.haldane.to_json();
        document.insert("wald_canary_requests".to_owned(), json!(self.wald_canary_requests));
        for (rival, tally) in RIVALS.iter().zip(&self.rivals) {
            let mut inner = tally.to_json();
            inner.insert("setup".to_owned(), json!(rival.about));
            document.insert(rival.name.to_owned(), Value::Object(inner));
        }
        Value::Object(document)
    }
}

/// Detection is held to its bound where that is at most so many seconds of traffic.
const LONGEST_BOUND: f64 = 1800.0;

/// What detection is held to where one error rate is compared at a fixed weight: 2.3 times the
/// two-sample bound plus 1.15 times the block floor.
fn floor_canary_requests(scenario: &Scenario) -> Option<f64> {
    let (Weighting::Fixed(weight_bp), Rate::Steps(steps)) = (&scenario.weighting, &scenario.rate)
    else {
        return None;
    };
    let (p, errors) = (scenario.baseline.errors, scenario.canary.errors?);
    let weight = f64::from(*weight_bp) / 10_000.0;
    let alpha = scenario.judge.false_rollback;
    let block = scenario.judge_config().block_seconds();
    let &[(_, rps)] = steps.as_slice() else { return None };
    if p <= 0.0 || errors <= p || weight <= 0.0 || scenario.onset() > 0.0 {
        return None;
    }
    let bound = two_sample_requests(p, errors, weight, alpha);
    let seconds = bound / (weight * rps);
    (seconds <= LONGEST_BOUND)
        .then(|| 2.3 * bound + 1.15 * block_floor_requests(errors / p, weight, rps * block, alpha))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stopped(at: f64) -> Option<Stopped> {
        Some(Stopped { at, canary_requests: at as u64 * 25, excess_bad: 3.0 })
    }

    fn records() -> Vec<Record> {
        let mut records = vec![Record::default(); 10];
        for (place, record) in records.iter_mut().enumerate().take(4) {
            record.rolled_back = stopped(10.0 + place as f64);
            record.cautioned = Some(5.0);
        }
        records[9].promoted = Some(900.0);
        for record in &mut records {
            record.rivals = vec![stopped(360.0), None, None, None, None];
        }
        records
    }

    #[test]
    fn the_document_has_the_names_of_the_contract() {
        let document = Summary::new(&Scenario::default(), &records()).to_json();
        assert_eq!(document["runs"], 10);
        assert_eq!(document["rolled_back"], 4);
        assert_eq!(document["rolled_back_fraction"], 0.4);
        assert_eq!(document["cautioned_fraction"], 0.4);
        assert_eq!((&document["promoted"], &document["inconclusive"]), (&json!(1), &json!(5)));
        let spread = json!({ "mean": 11.5, "p50": 11.0, "p90": 13.0 });
        assert_eq!(document["seconds_to_rollback"], spread);
        assert_eq!(document["seconds_from_onset"], spread);
        assert_eq!(document["canary_requests_to_rollback"]["mean"], 287.5);
        assert_eq!(document["excess_bad_requests"]["p50"], 3.0);
        assert!(document["wald_canary_requests"].is_null());
        assert_eq!(document["flagger"]["rolled_back"], 10);
        assert_eq!(document["kayenta"]["rolled_back"], 0);
        assert!(document["kayenta"]["seconds_to_rollback"].is_null());
        let low = document["rolled_back_fraction_ci95"][0].as_f64().unwrap();
        assert!((low - 0.1216).abs() < 1e-3, "{low}");
    }
}
