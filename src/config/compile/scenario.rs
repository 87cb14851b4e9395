//! Scenarios of the simulator, compiled.

mod weighting;

use std::{path::Path, time::Duration};

use super::Compiling;
use crate::{
    config::{
        file::scenario as written,
        given::{Given, Many},
        reading::{Reading, Spot},
        values::{Flag, Number, Percent, Text, Time},
    },
    lab::{
        Behaviour, Burst, Change, Expect, Flaw, LongRequests, Pause, Pods, Rate, Scenario, Slower,
        Tail, Users,
    },
};

/// Longest simulated time of a run.
const LONGEST: Duration = Duration::from_secs(30 * 24 * 3600);
/// Most runs.
const MOST_RUNS: u64 = 10_000_000;
/// Most requests per second, and most users.
const MOST_RPS: f64 = 1e6;
const MOST_USERS: u64 = 10_000_000;
/// Most repetitions of a request.
const MOST_RETRIES: u64 = 10;
/// Most pods of an arm.
const MOST_PODS: u64 = 10_000;

/// Compiles a scenario that was read. What it returns may be used only if the reading has no
/// problems.
pub(in crate::config) fn compile(
    written: &written::Scenario,
    reading: &Reading<'_>,
    base: &Path,
) -> Option<Scenario> {
    let compiling = Compiling { reading, base, has: Default::default(), notes: Default::default() };
    let default = Scenario::default();
    let (weighting, judge) = weighting::compile(written, &compiling);
    let mut scenario = Scenario {
        seed: compiling.number(&written.seed, 0, default.seed),
        runs: compiling.up_to(&written.runs, MOST_RUNS, default.runs),
        duration: duration(&written.duration, default.duration, &compiling),
        rate: rate(&written.rps, &compiling).unwrap_or(default.rate),
        burst: burst(&written.burst, &compiling),
        timeout: compiling.time(&written.timeout, default.timeout),
        baseline: behaviour(&written.baseline, default.baseline, &compiling),
        slow: slow(&written.slow, &compiling),
        canary: change(&written.canary, &compiling),
        load_noise: compiling.plain(&written.load_noise, 0.0, 0.0..=2.0),
        pods: pods(&written.pods, &compiling),
        retries: compiling.up_to(&written.retries, MOST_RETRIES, 0),
        users: users(&written.users, &compiling),
        weighting,
        judge,
        definitions: Vec::new(),
        flaw: flaw(written, &compiling),
        expect: expect(&written.expect),
    };
    definitions(&written.definitions, &compiling, &mut scenario);
    (!reading.has_problems()).then_some(scenario)
}

impl Compiling<'_, '_> {
    /// A plain number within bounds, or the default.
    fn plain(
        &self,
        number: &Given<Number>,
        default: f64,
        bounds: std::ops::RangeInclusive<f64>,
    ) -> f64 {
        let Some((Number(number), spot)) = number.located() else { return default };
        if !bounds.contains(number) {
            let (least, most) = bounds.into_inner();
            self.problem(spot, format!("`{number}` is out of bounds; from {least} to {most}"));
        }
        *number
    }

    /// A count from 1 up to a bound, or the default.
    fn up_to(&self, count: &Given<crate::config::values::Count>, most: u64, default: u32) -> u32 {
        if let Some((count, spot)) = count.located()
            && count.0 > most
        {
            self.problem(spot, format!("`{}` is too large, at most {most}", count.0));
            return default;
        }
        self.number(count, 1, default)
    }

    /// A share of the requests, at most all.
    fn part(&self, percent: &Given<Percent>, default: f64) -> f64 {
        let Some((percent, spot)) = percent.located() else { return default };
        if percent.steps() > 10_000 {
            self.problem(spot, format!("{percent} of the requests; at most 100%"));
        }
        percent.share()
    }

    pub(super) fn weight_of(&self, percent: Percent, spot: Spot) -> u16 {
        match u16::try_from(percent.steps()) {
            Ok(weight_bp) if weight_bp <= 10_000 => weight_bp,
            Ok(_) | Err(_) => {
                self.problem(spot, format!("a weight of {percent}; at most 100%"));
                0
            }
        }
    }

    /// A key that must be there, with what to write.
    pub(super) fn needed<'g, T>(
        &self,
        given: &'g Given<T>,
        of: Spot,
        key: &str,
        help: &str,
    ) -> Option<(&'g T, Spot)> {
        if given.is_absent() {
            self.missing(of, key, help);
        }
        given.located()
    }

    /// Exactly two of something.
    pub(super) fn pair<T: Copy>(
        &self,
        list: &Given<Many<T>>,
        of: Spot,
        help: &str,
    ) -> Option<[(T, Spot); 2]> {
        let (items, spot) = self.needed(list, of, "between", help)?;
        match &items[..] {
            [first, second] => {
                let first = first.located().map(|(value, spot)| (*value, spot))?;
                let second = second.located().map(|(value, spot)| (*value, spot))?;
                Some([first, second])
            }
            _ => {
                self.problem_with_help(
                    spot,
                    format!("{} items in place of two", items.len()),
                    help,
                );
                None
            }
        }
    }

    /// A time that must be there and be longer than nothing.
    pub(super) fn needed_time(&self, time: &Given<Time>, of: Spot, key: &str) -> Option<Duration> {
        self.needed(time, of, key, "write it like 60s")?;
        Some(self.time(time, Duration::from_secs(60)))
    }
}

fn duration(time: &Given<Time>, default: Duration, compiling: &Compiling<'_, '_>) -> Duration {
    if let Some((time, spot)) = time.located()
        && time.0 > LONGEST
    {
        compiling.problem(spot, "longer than 30 days");
    }
    compiling.time(time, default)
}

fn rate(rps: &Given<written::Rps>, compiling: &Compiling<'_, '_>) -> Option<Rate> {
    let (rps, spot) = rps.located()?;
    let bounds = 0.0..=MOST_RPS;
    match rps {
        written::Rps::Constant(Number(rps)) => {
            if *rps <= 0.0 || *rps > MOST_RPS {
                compiling.problem(spot, format!("`{rps}` requests per second; up to {MOST_RPS}"));
            }
            Some(Rate::Steps(vec![(Duration::ZERO, *rps)]))
        }
        written::Rps::Steps(steps) => {
            let help = "write it like [{ at: 0s, rps: 200 }, { at: 5m, rps: 800 }]";
            let mut list = Vec::new();
            for (step, spot) in steps.iter().filter_map(Given::located) {
                let at = compiling.needed(&step.at, spot, "at", help);
                let rps = compiling.needed(&step.rps, spot, "rps", help);
                let (Some((at, at_spot)), Some(_)) = (at, rps) else { continue };
                check_order(list.last().map(|(at, _)| *at), at.0, at_spot, compiling);
                list.push((at.0, compiling.plain(&step.rps, 0.0, bounds.clone())));
            }
            (!list.is_empty()).then_some(Rate::Steps(list))
        }
        written::Rps::Wave(wave) => {
            compiling.needed(
                &wave.mean,
                spot,
                "mean",
                "write it like { mean: 500, swing: 90% }",
            )?;
            Some(Rate::Wave {
                mean: compiling.plain(&wave.mean, 500.0, bounds),
                swing: compiling.part(&wave.swing, 0.9),
                every: compiling.time(&wave.every, Duration::from_secs(600)),
            })
        }
    }
}

/// Moments begin at 0 and go on.
fn check_order(last: Option<Duration>, at: Duration, spot: Spot, compiling: &Compiling<'_, '_>) {
    match last {
        None if !at.is_zero() => compiling.problem(spot, "the first moment must be 0s"),
        Some(last) if at <= last => {
            compiling.problem(spot, "not later than the moment before it");
        }
        None | Some(_) => {}
    }
}

fn burst(burst: &Given<written::Burst>, compiling: &Compiling<'_, '_>) -> Option<Burst> {
    let (burst, spot) = burst.located()?;
    let every = compiling.needed_time(&burst.every, spot, "every")?;
    let length = compiling.needed_time(&burst.length, spot, "for")?;
    compiling.needed(&burst.factor, spot, "factor", "write it like 3")?;
    if length >= every {
        compiling.problem(burst.length.spot(), "as long as from one burst to the next");
    }
    let factor = compiling.plain(&burst.factor, 1.0, 0.0..=1000.0);
    Some(Burst { every, length, factor })
}

fn behaviour(
    behaviour: &Given<written::Behaviour>,
    default: Behaviour,
    compiling: &Compiling<'_, '_>,
) -> Behaviour {
    let Some(behaviour) = behaviour.get() else { return default };
    Behaviour {
        median: compiling.time(&behaviour.median, default.median),
        sigma: compiling.plain(&behaviour.sigma, default.sigma, 0.0..=5.0),
        errors: compiling.part(&behaviour.errors, default.errors),
    }
}

fn slow(
    slow: &Given<written::LongRequests>,
    compiling: &Compiling<'_, '_>,
) -> Option<LongRequests> {
    let (slow, spot) = slow.located()?;
    compiling.needed(&slow.share, spot, "share", "write it like 1%")?;
    let [(least, _), (most, most_spot)] =
        compiling.pair(&slow.between, spot, "write it like [5s, 30s]")?;
    if most < least {
        compiling.problem(most_spot, "shorter than the first of the two");
    }
    let share = compiling.part(&slow.share, 0.0);
    Some(LongRequests { share, between: [least.0, most.0] })
}

fn change(change: &Given<written::Change>, compiling: &Compiling<'_, '_>) -> Change {
    let default = Change::default();
    let Some(change) = change.get() else { return default };
    let time = |time: &Given<Time>| time.get().map_or(Duration::ZERO, |time| time.0);
    Change {
        latency_factor: compiling.plain(&change.latency_factor, 1.0, 0.01..=1000.0),
        tail: tail(&change.tail, compiling),
        errors: change.errors.get().map(|_| compiling.part(&change.errors, 0.0)),
        hang: compiling.part(&change.hang, 0.0),
        spill: compiling.part(&change.spill, 0.0),
        after: time(&change.after),
        ramp: time(&change.ramp),
    }
}

fn tail(tail: &Given<written::Tail>, compiling: &Compiling<'_, '_>) -> Option<Tail> {
    let (tail, spot) = tail.located()?;
    compiling.needed(&tail.share, spot, "share", "write it like { share: 1%, factor: 5 }")?;
    let share = compiling.part(&tail.share, 0.0);
    let slower = match (tail.factor.located(), tail.latency.located()) {
        (Some(_), Some((_, spot))) => {
            compiling.problem(spot, "`latency` together with `factor`: one of the two");
            return None;
        }
        (_, Some((latency, _))) => Slower::Latency(latency.0),
        (_, None) => {
            compiling.needed(&tail.factor, spot, "factor", "write it like 5")?;
            Slower::Factor(compiling.plain(&tail.factor, 1.0, 0.01..=10_000.0))
        }
    };
    Some(Tail { share, slower })
}

fn pods(pods: &Given<written::Pods>, compiling: &Compiling<'_, '_>) -> Option<Pods> {
    let (pods, spot) = pods.located()?;
    let help = "write it like { baseline: 10, canary: 1 }";
    compiling.needed(&pods.baseline, spot, "baseline", help)?;
    compiling.needed(&pods.canary, spot, "canary", help)?;
    let pause = pods.pause.located().and_then(|(pause, spot)| {
        Some(Pause {
            every: compiling.needed_time(&pause.every, spot, "every")?,
            length: compiling.needed_time(&pause.length, spot, "for")?,
        })
    });
    Some(Pods {
        baseline: compiling.up_to(&pods.baseline, MOST_PODS, 1),
        canary: compiling.up_to(&pods.canary, MOST_PODS, 1),
        pause,
        known: pods.known.get().is_none_or(|known| known.0),
    })
}

fn users(users: &Given<written::Users>, compiling: &Compiling<'_, '_>) -> Option<Users> {
    let (users, spot) = users.located()?;
    compiling.needed(&users.count, spot, "count", "write it like 5000")?;
    Some(Users {
        count: compiling.up_to(&users.count, MOST_USERS, 1),
        zipf: compiling.plain(&users.zipf, 1.1, 0.0..=5.0),
    })
}

fn definitions(list: &Given<Many<Text>>, compiling: &Compiling<'_, '_>, scenario: &mut Scenario) {
    for (Text(name), spot) in compiling.items(list).iter().filter_map(Given::located) {
        match Scenario::definition(name) {
            Some(definition) => scenario.definitions.push(definition),
            None => {
                let names = Scenario::definition_names();
                let accepted = names.iter().map(String::as_str);
                compiling.unknown(spot, format!("no kind of badness is `{name}`"), name, accepted);
            }
        }
    }
}

fn flaw(written: &written::Scenario, compiling: &Compiling<'_, '_>) -> Option<Flaw> {
    let (flaw, spot) = written.flaw.located()?;
    let (flaw, needs_users) = match flaw {
        written::Flaw::NoEpochTag => (Flaw::NoEpochTag, false),
        written::Flaw::NoThinning => (Flaw::NoThinning, false),
        written::Flaw::SkipWithoutCanary => (Flaw::SkipWithoutCanary, true),
        written::Flaw::DedupePerWorker => (Flaw::DedupePerWorker, true),
        written::Flaw::NoDedupe => (Flaw::NoDedupe, true),
    };
    if needs_users && written.users.is_absent() {
        compiling.problem(spot, "this flaw shows among sticky users alone: give `users`");
    }
    Some(flaw)
}

fn expect(expect: &Given<written::Expect>) -> Expect {
    let Some(expect) = expect.get() else { return Expect::default() };
    let share = |percent: &Given<Percent>| percent.get().map(|percent| percent.share());
    let time = |time: &Given<Time>| time.get().map(|time| time.0);
    let flag = |flag: &Given<Flag>| flag.get().is_some_and(|flag| flag.0);
    Expect {
        rollbacks_at_most: share(&expect.rollbacks_at_most),
        cautions_at_most: share(&expect.cautions_at_most),
        promotions_at_most: share(&expect.promotions_at_most),
        rollbacks_at_least: share(&expect.rollbacks_at_least),
        promotions_at_least: share(&expect.promotions_at_least),
        rollback_within: time(&expect.rollback_within),
        caution_within: time(&expect.caution_within),
        opened_within: time(&expect.opened_within),
        bound: flag(&expect.bound),
        must_fail: flag(&expect.must_fail),
    }
}
