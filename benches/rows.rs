//! Prints the acceptance tables of the judge at block level:
//! `cargo bench --bench rows -- validity|detection|bank|promotion|fleet|speed [RUNS] [--threads=N]`;
//! `--rows=A..B` plays a part of the table of validity, counted from 0.

use haldane::{
    judge::{Definition, JudgeConfig, Pods, bake_floor_blocks},
    lab::blocks::{
        Kind, Latency, Load, Outcome, Pause, Rates, Setting, Shards, Stage, Traffic, Weights,
        block_floor_requests, exact_interval, many, play_many, two_sample_requests,
    },
};

fn main() {
    // `cargo bench` adds flags of its own.
    let (flags, words): (Vec<_>, Vec<_>) =
        std::env::args().skip(1).partition(|argument| argument.starts_with("--"));
    let flag = |name: &str| flags.iter().find_map(|flag| flag.strip_prefix(name));
    let threads = flag("--threads=")
        .and_then(|threads| threads.parse().ok())
        .unwrap_or_else(|| std::thread::available_parallelism().map_or(1, usize::from));
    if flags.iter().any(|flag| flag == "--test") {
        for table in TABLES {
            play(table, Some(SMOKE_RUNS), threads, ALL);
        }
        return;
    }
    let table = words.first().map_or("", String::as_str);
    let runs = words.get(1).and_then(|runs| runs.parse().ok());
    let rows = flag("--rows=").map_or(ALL, |rows| {
        let (from, to) = rows.split_once("..").unwrap_or((rows, ""));
        (from.parse().unwrap_or(ALL.0), to.parse().unwrap_or(ALL.1))
    });
    if !play(table, runs, threads, rows) {
        eprintln!("unknown table {table:?}: {}", TABLES.join(", "));
        std::process::exit(2);
    }
}

const TABLES: [&str; 7] =
    ["validity", "calibration", "detection", "bank", "promotion", "fleet", "speed"];

/// Rollouts of every row where only the program itself is tried.
const SMOKE_RUNS: usize = 4;

/// The first row to play and the one after the last.
type Part = (usize, usize);

const ALL: Part = (0, usize::MAX);

/// Prints a table; false if there is none of this name.
fn play(table: &str, runs: Option<usize>, threads: usize, rows: Part) -> bool {
    let start = tokio::time::Instant::now();
    match table {
        "validity" => validity(runs.unwrap_or(10_000), threads, rows),
        "calibration" => calibration(runs.unwrap_or(1000), threads),
        "detection" => detection(runs.unwrap_or(200), threads),
        "bank" => bank(runs.unwrap_or(400), threads),
        "promotion" => promotion(runs.unwrap_or(2000), threads),
        "fleet" => fleet(runs.unwrap_or(1000), threads),
        "speed" => speed(runs.unwrap_or(10_000), threads),
        _ => return false,
    }
    eprintln!("took {:.1} s on {threads} threads", start.elapsed().as_secs_f64());
    true
}

fn count(outcomes: &[Outcome], pick: impl Fn(&Outcome) -> bool) -> u64 {
    outcomes.iter().filter(|o| pick(o)).count() as u64
}

fn validity(runs: usize, threads: usize, (from, to): Part) {
    println!(
        "{:<44} {:>8} {:>8} {:>8} {:>9} {:>9} {:>8}",
        "A/A, 30 min, no tolerance", "runs", ">=1000", ">=20", "low1000", "low20", "caution"
    );
    let (mut hits, mut all) = (0, 0);
    let rows = validity_rows().into_iter().take(to).skip(from);
    for (name, setting, guaranteed) in rows {
        // Rows without a guarantee show a size, for which a tenth is enough.
        let runs = if guaranteed { runs } else { runs.div_ceil(10) };
        let outcomes = play_many(&setting, 11, runs, threads);
        let n = runs as u64;
        let rolled = count(&outcomes, |o| o.rolled_back.is_some());
        let twenty = count(&outcomes, |o| o.reached_twenty.is_some());
        let cautioned = count(&outcomes, |o| o.cautioned.is_some());
        let low = |hits| exact_interval(hits, n, 0.95).0;
        let failed = guaranteed && (low(rolled) > 0.001 || low(twenty) > 0.05);
        if guaranteed {
            hits += rolled;
            all += n;
        }
        println!(
            "{name:<44} {n:>8} {:>8.5} {:>8.4} {:>9.5} {:>9.4} {:>8.4}  {}",
            rolled as f64 / n as f64,
            twenty as f64 / n as f64,
            low(rolled),
            low(twenty),
            cautioned as f64 / n as f64,
            if failed {
                "FAILED"
            } else if guaranteed {
                "ok"
            } else {
                "(reported)"
            },
        );
    }
    println!("all guaranteed rows together: {:.5} at 1000", hits as f64 / all as f64);
}

/// Stalls of any length, judged request by request (p99), and with the length of blocks fixed and
/// calibrated by an hour of placebo.
fn calibration(runs: usize, threads: usize) {
    println!(
        "{:<38} {:>10} {:>9} {:>9} {:>10} {:>13}",
        "A/A, 10+1 pods, 10 %, rolled back",
        "by request",
        "B = 1 s",
        "B = 5 s",
        "calibrated",
        "x 2 found, s"
    );
    for (every, length) in [(300.0, 0.2), (300.0, 1.0), (300.0, 5.0), (600.0, 15.0)] {
        let setting = |block_ticks, factor| Setting {
            weights: Weights::Fixed(0.1),
            traffic: Traffic::of(Latency { factor, ..Latency::usual() }),
            pods: Some(Pods { canary: 1, baseline: 10 }),
            pods_known: true,
            pause: Some(Pause { every, length }),
            judge: JudgeConfig { block_ticks, ..JudgeConfig::default() },
            ..Setting::plain()
        };
        let share = |outcomes: &[Outcome]| {
            count(outcomes, |o| o.rolled_back.is_some()) as f64 / runs as f64
        };
        let fixed = [10, 50].map(|b| share(&play_many(&setting(b, 1.0), 13, runs, threads)));
        let calibrated = |factor| {
            let setting = setting(50, factor);
            let stage = Stage::new(&setting);
            many(runs, threads, |run| stage.play_calibrated(3600, 13, run))
        };
        let (found, ..) = delays(&calibrated(2.0), 1800, 0);
        let exact = Setting {
            traffic: Traffic::of(Latency { tolerance: 0.0, ..Latency::usual() }),
            ..setting(10, 1.0)
        };
        let stage = Stage::new(&exact);
        let by_request =
            many(runs, threads, |run| stage.play_by_request(Definition::SlowP99, 13, run));
        println!(
            "{:<38} {:>10.4} {:>9.4} {:>9.4} {:>10.4} {found:>13.1}",
            format!("stalls of {length} s every {every} s"),
            share(&by_request),
            fixed[0],
            fixed[1],
            share(&calibrated(1.0)),
        );
    }
}

fn validity_rows() -> Vec<(String, Setting, bool)> {
    // Nothing is tolerated: the edge of the null, where it is hardest.
    let exact = Latency { tolerance: 0.0, ..Latency::usual() };
    let judge = |block_seconds: u32| JudgeConfig {
        tolerate_errors: 0.0,
        tolerate_refused: 0.0,
        block_ticks: block_seconds * 10,
        ..JudgeConfig::default()
    };
    let plain = || Setting { traffic: Traffic::of(exact), judge: judge(1), ..Setting::plain() };
    let mut rows = vec![
        ("constant load".to_owned(), plain(), true),
        ("constant load, tolerances as usual".to_owned(), Setting::plain(), true),
        (
            "sine and step of load".to_owned(),
            Setting { load: Load { rps: 500.0, swing: 0.6, step: 3.0 }, ..plain() },
            true,
        ),
        (
            "common load noise .2".to_owned(),
            Setting { traffic: Traffic::of(Latency { load_noise: 0.2, ..exact }), ..plain() },
            true,
        ),
        (
            "20 requests a second".to_owned(),
            Setting { load: Load::constant(20.0), ..plain() },
            true,
        ),
        (
            "weights reacting to the evidence".to_owned(),
            Setting { weights: Weights::Reacting { between: [0.1, 0.01] }, ..plain() },
            true,
        ),
        (
            "weights reacting, 5 s blocks".to_owned(),
            Setting {
                weights: Weights::Reacting { between: [0.1, 0.01] },
                judge: judge(5),
                ..plain()
            },
            true,
        ),
        (
            "weights flapping every 3 s, 5 s blocks".to_owned(),
            Setting {
                weights: Weights::Flapping { between: [0.01, 0.1], every: 3 },
                judge: judge(5),
                ..plain()
            },
            true,
        ),
    ];
    for (baseline, canary) in [(10, 1), (3, 1), (3, 3)] {
        for weight in [0.01, 0.05, 0.25] {
            for (block, length, guaranteed) in
                [(1, 0.1, true), (1, 0.33, false), (5, 0.5, true), (5, 1.6, false)]
            {
                let name = format!(
                    "{baseline}+{canary} pods, {:.0} %, B {block} s, pauses {length} s",
                    weight * 100.0
                );
                let setting = Setting {
                    weights: Weights::Fixed(weight),
                    pods: Some(Pods { canary, baseline }),
                    pods_known: true,
                    pause: Some(Pause { every: 60.0, length }),
                    judge: judge(block),
                    ..plain()
                };
                rows.push((name, setting, guaranteed));
            }
        }
    }
    rows
}

fn detection(runs: usize, threads: usize) {
    println!(
        "{:>5} {:>5} {:>5} {:>6} {:>10} {:>10} {:>10} {:>7} {:>7}",
        "r", "p", "w", "rps", "bound", "floor", "mean", "of all", "missed"
    );
    let mut worst: f64 = 0.0;
    for ratio in [1.25, 1.5, 2.0, 5.0] {
        for p in [0.01, 0.05] {
            for weight in [0.01, 0.05, 0.1, 0.5] {
                for rps in [50.0, 500.0, 5000.0] {
                    let bound = two_sample_requests(p, p * ratio, weight, 0.001);
                    if bound > 1800.0 * weight * rps {
                        continue;
                    }
                    let floor = block_floor_requests(ratio, weight, rps, 0.001);
                    let allowed = 2.3 * bound + 1.15 * floor;
                    let seconds = (6.0 * allowed / (weight * rps)).ceil().max(60.0) as u32;
                    let setting = Setting {
                        seconds,
                        load: Load::constant(rps),
                        traffic: Traffic::exceedance(p, ratio),
                        weights: Weights::Fixed(weight),
                        judge: only(Definition::SlowP99),
                        ..Setting::plain()
                    };
                    let outcomes = play_many(&setting, 5, runs, threads);
                    let mean = outcomes.iter().map(|o| o.canary_requests as f64).sum::<f64>()
                        / runs as f64;
                    let missed = count(&outcomes, |o| o.rolled_back.is_none());
                    worst = worst.max(mean / allowed);
                    println!(
                        "{ratio:>5} {p:>5} {weight:>5} {rps:>6} {bound:>10.0} {floor:>10.0} \
                         {mean:>10.0} {:>7.2} {missed:>7}{}",
                        mean / allowed,
                        if mean > allowed { "  FAILED" } else { "" },
                    );
                }
            }
        }
    }
    println!("worst cell: {worst:.2} of what is allowed (2.3 x bound + 1.15 x floor)");
}

/// One block bet on the joined counts of many proxies, of which a tenth gets lost.
fn fleet(runs: usize, threads: usize) {
    println!(
        "{:>6} {:>8} {:>8} {:>8} {:>9} {:>9} {:>7} {:>10} {:>7}",
        "shards", ">=1000", ">=20", "low1000", "p99 1-2 %", "p50", "missed", "/ of one", "floor"
    );
    let mut of_one = f64::NAN;
    for proxies in [1, 10, 100] {
        let shards = Shards { count: proxies, lost: 0.1 };
        let each = Setting { load: Load::constant(50.0), shards, ..Setting::plain() };
        let exact = Latency { tolerance: 0.0, load_noise: 0.2, ..Latency::usual() };
        let healthy = Setting {
            traffic: Traffic::of(exact),
            pods: Some(Pods { canary: 1, baseline: 10 }),
            pods_known: true,
            pause: Some(Pause { every: 60.0, length: 0.1 }),
            judge: JudgeConfig { tolerate_errors: 0.0, ..each.judge.clone() },
            ..each.clone()
        };
        let outcomes = play_many(&healthy, 17, runs, threads);
        let n = runs as u64;
        let rolled = count(&outcomes, |o| o.rolled_back.is_some());
        let twenty = count(&outcomes, |o| o.reached_twenty.is_some());
        let slow = Setting {
            seconds: 7200,
            traffic: Traffic::exceedance(0.01, 2.0),
            judge: only(Definition::SlowP99),
            ..each
        };
        let found = play_many(&slow, 19, runs.div_ceil(4), threads);
        let (mean, p50, _, missed) = delays(&found, slow.seconds, 0);
        if proxies == 1 {
            of_one = mean;
        }
        let low = exact_interval(rolled, n, 0.95).0;
        let rps = 50.0 * f64::from(proxies);
        println!(
            "{proxies:>6} {:>8.5} {:>8.4} {low:>8.5} {mean:>9.1} {p50:>9} {missed:>7} {:>10.2} {:>7.1}{}",
            rolled as f64 / n as f64,
            twenty as f64 / n as f64,
            mean * f64::from(proxies) / of_one,
            block_floor_requests(2.0, 0.05, rps, 0.001) / (0.05 * rps),
            if low > 0.001 { "  FAILED" } else { "" },
        );
    }
}

fn only(definition: Definition) -> JudgeConfig {
    JudgeConfig { definitions: vec![definition], block_ticks: 10, ..JudgeConfig::default() }
}

/// A regression, its limit in seconds, and its setting.
type Row = (&'static str, f64, Setting);

fn bank(runs: usize, threads: usize) {
    println!(
        "{:<46} {:>7} {:>7} {:>7} {:>7} {:>7} {:>8}",
        "w = 5 %", "limit", "mean", "p50", "p90", "missed", "late x"
    );
    for (name, limit, setting) in bank_rows() {
        let outcomes = play_many(&setting, 7, runs, threads);
        let late = Setting {
            seconds: setting.seconds + 1800,
            traffic: Traffic { onset: 1800, ..setting.traffic.clone() },
            ..setting.clone()
        };
        let late: Vec<Outcome> = play_many(&late, 7, runs.div_ceil(2), threads)
            .into_iter()
            .filter(|o| o.rolled_back.is_none_or(|s| s > 1800))
            .collect();
        let (mean, p50, p90, missed) = delays(&outcomes, setting.seconds, 0);
        let (late_mean, ..) = delays(&late, setting.seconds, 1800);
        println!(
            "{name:<46} {limit:>7.1} {mean:>7.1} {p50:>7} {p90:>7} {missed:>7} {:>8.2}{}",
            late_mean / mean,
            if mean > limit { "  FAILED" } else { "" },
        );
    }
}

fn delays(outcomes: &[Outcome], seconds: u32, onset: u32) -> (f64, u32, u32, u64) {
    let mut delays: Vec<u32> = outcomes
        .iter()
        .map(|o| o.rolled_back.map_or(seconds, |s| s.saturating_sub(onset)))
        .collect();
    delays.sort_unstable();
    let mean = delays.iter().map(|s| f64::from(*s)).sum::<f64>() / delays.len() as f64;
    let at = |share: f64| delays[(share * (delays.len() - 1) as f64) as usize];
    (mean, at(0.5), at(0.9), count(outcomes, |o| o.rolled_back.is_none()))
}

fn bank_rows() -> Vec<Row> {
    let latency = |factor: f64| Latency { factor, ..Latency::usual() };
    let with = |latency: Latency| Setting { traffic: Traffic::of(latency), ..Setting::plain() };
    let slow = |factor| with(latency(factor));
    let tail = with(Latency { tail_share: 0.02, tail_factor: 5.0, ..Latency::usual() });
    let errors = |from: f64, to: f64| with(Latency { errors: [from, to], ..Latency::usual() });
    let pods = |setting: Setting, baseline, canary| Setting {
        pods: Some(Pods { canary, baseline }),
        pods_known: true,
        ..setting
    };
    let blocks_of_5 = |setting: Setting| Setting {
        judge: JudgeConfig { block_ticks: 50, ..JudgeConfig::default() },
        ..setting
    };
    let p99_doubled = Setting {
        traffic: Traffic {
            before: Kind::Rates(Box::new([doubled_tail(0.01), doubled_tail(0.02)])),
            onset: 0,
            ramp: 0,
        },
        ..Setting::plain()
    };
    let p99_alone = Setting { judge: only(Definition::SlowP99), ..p99_doubled.clone() };
    let at_200 = |setting: Setting| Setting { load: Load::constant(200.0), ..setting };
    let no_limit = f64::INFINITY;
    vec![
        ("p99 exceedance 1 -> 2 %", 165.0, p99_doubled.clone()),
        ("p99 exceedance 1 -> 2 %, alone", 140.0, p99_alone),
        ("tail 2 % x 5", 145.0, tail.clone()),
        ("all x 1.2", no_limit, slow(1.2)),
        ("all x 1.5", 20.0, slow(1.5)),
        ("all x 2", 10.0, slow(2.0)),
        ("errors 0 -> 5 %", 7.5, errors(0.0, 0.05)),
        ("errors .1 -> 1 %", no_limit, errors(0.001, 0.01)),
        ("10+1 pods: tail 2 % x 5", 145.0 * 1.15, pods(tail.clone(), 10, 1)),
        ("10+1 pods: p99 1 -> 2 %", 165.0 * 1.15, pods(p99_doubled.clone(), 10, 1)),
        ("10+1 pods: all x 1.5", 20.0 * 1.15, pods(slow(1.5), 10, 1)),
        ("10+1 pods: all x 2", 10.0 * 1.15, pods(slow(2.0), 10, 1)),
        ("10+1 pods: errors 0 -> 5 %", 7.5 * 1.15, pods(errors(0.0, 0.05), 10, 1)),
        ("equal pods: all x 1.2", no_limit, pods(slow(1.2), 3, 3)),
        ("equal pods: all x 1.5", 45.0, pods(slow(1.5), 3, 3)),
        ("equal pods: all x 2", 27.0, pods(slow(2.0), 3, 3)),
        ("equal pods: tail 2 % x 5", no_limit, pods(tail.clone(), 3, 3)),
        ("equal pods: errors 0 -> 5 %", no_limit, pods(errors(0.0, 0.05), 3, 3)),
        ("5 s blocks: all x 2", 45.0, blocks_of_5(slow(2.0))),
        ("200/s: all x 1.2", 100.0, at_200(slow(1.2))),
    ]
}

/// The whole distribution of a tail beyond p99 that holds `share` of the requests.
fn doubled_tail(share: f64) -> Rates {
    let below = (1.0 - share) / 0.99;
    let slow = [0.75, 0.9, 0.95, 0.99].map(|q| 1.0 - q * below);
    Rates {
        slow: [slow[0], slow[1], slow[2], share, share / 10.0],
        errors: 0.001,
        ..Rates::default()
    }
}

fn promotion(runs: usize, threads: usize) {
    println!(
        "{:<52} {:>9} {:>9} {:>8} {:>8} {:>8}",
        "promotion, margins 25 % and .5 %", "promoted", "low", "mean s", "p90 s", "/ floor"
    );
    for (name, nominal, floor, setting) in promotion_rows() {
        let outcomes = play_many(&setting, 9, runs, threads);
        let promoted = count(&outcomes, |o| o.promoted.is_some());
        let mut seconds: Vec<u32> =
            outcomes.iter().map(|o| o.promoted.unwrap_or(setting.seconds)).collect();
        seconds.sort_unstable();
        let mean = seconds.iter().map(|s| f64::from(*s)).sum::<f64>() / runs as f64;
        let low = exact_interval(promoted, runs as u64, 0.95).0;
        println!(
            "{name:<52} {:>9.4} {low:>9.4} {mean:>8.1} {:>8} {:>8.2}{}",
            promoted as f64 / runs as f64,
            seconds[seconds.len() * 9 / 10],
            mean / floor,
            if nominal.is_some_and(|n| low > n) { "  FAILED" } else { "" },
        );
    }
}

/// One proof at its margin or healthy, the others given easily.
fn proof_rates(proof: usize, healthy: bool) -> [Rates; 2] {
    // Beyond the margin of 25 %, a healthy log-normal of sigma .6 has .049 and .0035 left.
    let baseline = Rates { errors: 0.001, beyond_margin: [0.1, 0.01, 0.01], ..Rates::default() };
    let mut canary = Rates { errors: 0.0, beyond_margin: [0.01, 0.0005, 0.0], ..baseline };
    let easy = Rates { errors: 0.03, beyond_margin: [0.1, 0.1, 0.1], ..Rates::default() };
    let mut base = easy;
    match proof {
        0 => {
            base.errors = baseline.errors;
            canary.errors = if healthy { 0.001 } else { 0.006 - 0.001 * 0.005 };
        }
        1 => {
            base.beyond_margin[0] = baseline.beyond_margin[0];
            canary.beyond_margin[0] = if healthy { 0.0491 } else { 0.1 };
        }
        _ => {
            base.beyond_margin[1] = baseline.beyond_margin[1];
            canary.beyond_margin[1] = if healthy { 0.0035 } else { 0.01 };
        }
    }
    [base, canary]
}

fn promotion_rows() -> Vec<(String, Option<f64>, f64, Setting)> {
    let mut rows = Vec::new();
    for (proof, name) in ["errors", "p90", "p99"].into_iter().enumerate() {
        for weight in [0.05, 0.1, 0.25, 0.5] {
            let setting = |healthy, pods: Option<(u32, u32)>| Setting {
                promotion: true,
                load: Load::constant(if proof == 1 { 500.0 } else { 2000.0 }),
                weights: Weights::Fixed(weight),
                traffic: Traffic {
                    before: Kind::Rates(Box::new(proof_rates(proof, healthy))),
                    onset: 0,
                    ramp: 0,
                },
                pods: pods.map(|(baseline, canary)| Pods { canary, baseline }),
                pods_known: true,
                pause: pods.map(|_| Pause { every: 60.0, length: 0.1 }),
                judge: JudgeConfig { definitions: Vec::new(), ..JudgeConfig::default() },
                ..Setting::plain()
            };
            let percent = weight * 100.0;
            // The bad rate at the margin over that of a healthy canary.
            let ratio = [6.0, 0.1 / 0.0491, 0.01 / 0.0035][proof];
            let floor = bake_floor_blocks(weight, ratio, 0.05);
            rows.push((
                format!("{name} healthy, {percent:.0} %"),
                None,
                floor,
                setting(true, None),
            ));
            for pods in [None, Some((10, 1)), Some((3, 3))] {
                let what = pods.map_or(String::new(), |(b, c)| format!(", {b}+{c} pods pausing"));
                rows.push((
                    format!("{name} at the margin, {percent:.0} %{what}"),
                    Some(0.05),
                    floor,
                    setting(false, pods),
                ));
            }
        }
    }
    rows
}

fn speed(runs: usize, threads: usize) {
    let outcomes = play_many(&Setting::plain(), 1, runs, threads);
    println!(
        "{runs} A/A runs of 30 min: {} rolled back, {} cautioned",
        count(&outcomes, |o| o.rolled_back.is_some()),
        count(&outcomes, |o| o.cautioned.is_some()),
    );
}
