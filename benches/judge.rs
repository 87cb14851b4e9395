//! What the judge costs per block of one route and cohort, and that it allocates nothing.

use std::{alloc::System, hint::black_box};

use criterion::{Criterion, criterion_group, criterion_main};
use haldane::judge::{
    ArmCounts, Block, Coin, Ending, Judge, JudgeConfig, Lag, Pods, SHIFT_COUNT, Stratum,
    TrialCounts, TrialStratum, Trials, Verdict,
};
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

/// Seconds of plain traffic, 500 requests each, that differ a little.
fn seconds() -> Vec<[Stratum; 1]> {
    let arm = |started: u64, errors: u64, jitter: u64| {
        let slow = [started / 4 + jitter, started / 10 + jitter, started / 20, started / 100, 0];
        ArmCounts::of_requests(started, [errors, errors], jitter, slow)
    };
    (0..16_u64)
        .map(|i| {
            [Stratum {
                weights: 0,
                coin: Coin::Drawn { share: 0.05 },
                canary: arm(25, i % 5 / 4, i % 3),
                baseline: arm(475, i % 2, i % 4),
            }]
        })
        .collect()
}

fn tell(judge: &mut Judge, strata: &[Stratum], pods: Option<Pods>) -> Verdict {
    let mut verdict = judge.verdict();
    for lag in Lag::ALL {
        verdict = judge.block(&Block {
            component: 0,
            lag,
            ticks: 10,
            strata,
            pods,
            warming: false,
            ending: Ending::Open,
        });
    }
    verdict
}

fn trials(judge: &mut Judge) {
    let counts = |started: u64, bad: u64| TrialCounts {
        started,
        failed: bad / 20,
        beyond_margin: [bad / 2, bad / 20, bad / 20],
        shifted: [[bad; SHIFT_COUNT], [bad / 10; SHIFT_COUNT]],
    };
    judge.trials(&Trials {
        ticks: 10,
        strata: &[TrialStratum {
            coin: Coin::Drawn { share: 0.05 },
            canary: counts(25, 3),
            baseline: counts(475, 47),
        }],
        pods: Some(Pods { canary: 1, baseline: 10 }),
        rungs: haldane::judge::ALL_RUNGS,
        ending: Ending::Open,
    });
}

fn allocates_nothing(seconds: &[[Stratum; 1]]) {
    let mut judge = Judge::new(JudgeConfig::default());
    let pods = Some(Pods { canary: 3, baseline: 3 });
    let region = Region::new(ALLOCATOR);
    for second in seconds.iter().cycle().take(1000) {
        black_box(tell(&mut judge, second, None));
        black_box(tell(&mut judge, second, pods));
        trials(&mut judge);
        black_box((judge.promotion(), judge.missing(), judge.effect()));
    }
    let change = region.change();
    assert_eq!(change.allocations + change.reallocations, 0, "the judge allocated: {change:?}");
}

fn judge(c: &mut Criterion) {
    let seconds = seconds();
    allocates_nothing(&seconds);
    let cases = [
        ("pods unknown", None),
        ("10+1 pods", Some(Pods { canary: 1, baseline: 10 })),
        ("3+3 pods", Some(Pods { canary: 3, baseline: 3 })),
    ];
    for (name, pods) in cases {
        let mut judge = Judge::new(JudgeConfig { block_ticks: 10, ..JudgeConfig::default() });
        let mut next = seconds.iter().cycle();
        c.bench_function(&format!("block of one route and cohort, {name}"), |b| {
            b.iter(|| next.next().map(|second| tell(&mut judge, black_box(second), pods)));
        });
    }
    let mut judge = Judge::new(JudgeConfig::default());
    c.bench_function("trials of one service", |b| b.iter(|| trials(&mut judge)));
}

criterion_group!(benches, judge);
criterion_main!(benches);
