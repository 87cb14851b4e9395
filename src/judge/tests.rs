//! The whole judge: what must hold for any counts, and what it says of plain cases.

use proptest::prelude::*;

use super::*;

/// A splitmix64 stream, for Monte-Carlo that repeats itself.
struct Dice(u64);

impl Dice {
    fn uniform(&mut self) -> f64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) >> 11) as f64 / (1_u64 << 53) as f64
    }

    fn count(&mut self, n: u64, p: f64) -> u64 {
        (0..n).filter(|_| self.uniform() < p).count() as u64
    }
}

fn exact_null() -> JudgeConfig {
    JudgeConfig {
        tolerate_errors: 0.0,
        tolerate_refused: 0.0,
        block_ticks: 10,
        ..JudgeConfig::default()
    }
}

fn tell(judge: &mut Judge, strata: &[Stratum], pods: Option<Pods>) -> Verdict {
    for lag in Lag::ALL {
        judge.block(&Block {
            component: 0,
            lag,
            ticks: 10,
            strata,
            pods,
            warming: false,
            ending: Ending::Open,
        });
    }
    judge.verdict()
}

fn arm(started: u64, errors: u64, slow: [u64; EDGES]) -> ArmCounts {
    ArmCounts::of_requests(started, [errors, errors], 0, slow)
}

fn stratum(share: f64, canary: ArmCounts, baseline: ArmCounts) -> Stratum {
    Stratum { weights: 0, coin: Coin::Drawn { share }, canary, baseline }
}

/// A second of requests that are equally bad on both arms.
fn fair_second(dice: &mut Dice, share: f64) -> Stratum {
    let all = 40;
    let canary = dice.count(all, share);
    let mut draw = |started: u64| {
        let slow0 = dice.count(started, 0.25);
        let slow1 = dice.count(slow0, 0.4);
        let slow2 = dice.count(slow1, 0.5);
        let slow3 = dice.count(slow2, 0.4);
        let errors = dice.count(started, 0.03);
        arm(started, errors, [slow0, slow1, slow2, slow3, slow3 / 2])
    };
    stratum(share, draw(canary), draw(all - canary))
}

#[test]
fn the_mean_wealth_of_equal_versions_stays_one() {
    let mut dice = Dice(1);
    for pods in [None, Some(Pods { canary: 2, baseline: 3 }), Some(Pods { canary: 1, baseline: 9 })]
    {
        let runs = 600;
        let mut wealth = Vec::new();
        for _ in 0..runs {
            let mut judge = Judge::new(exact_null());
            for _ in 0..30 {
                let second = fair_second(&mut dice, 0.2);
                tell(&mut judge, &[second], pods);
            }
            let members = judge.state.evidence.wealth_ln();
            wealth.push(members.map(f64::exp).collect::<Vec<f64>>());
        }
        for member in 0..wealth[0].len() {
            let mean = wealth.iter().map(|w| w[member]).sum::<f64>() / f64::from(runs);
            let square = wealth.iter().map(|w| w[member].powi(2)).sum::<f64>() / f64::from(runs);
            let error = ((square - mean * mean).max(0.0) / f64::from(runs)).sqrt();
            assert!(mean < 1.0 + 4.0 * error + 1e-9, "{pods:?} {member}: {mean} +- {error}");
        }
    }
}

#[test]
fn equal_versions_rarely_reach_twenty() {
    let mut dice = Dice(2);
    let mut cautions = 0;
    for _ in 0..300 {
        let mut judge = Judge::new(exact_null());
        let mut cautioned = false;
        for _ in 0..120 {
            let second = fair_second(&mut dice, 0.1);
            cautioned |= tell(&mut judge, &[second], None).level >= Level::Caution;
        }
        cautions += u32::from(cautioned);
    }
    // Nominal 5 %; 27 of 300 would be beyond its 99.9 % limit.
    assert!(cautions <= 26, "{cautions}");
}

#[test]
fn a_canary_twice_as_bad_is_rolled_back_with_the_right_reason() {
    let mut judge = Judge::new(JudgeConfig { block_ticks: 10, ..JudgeConfig::default() });
    let bad = stratum(0.05, arm(25, 0, [17, 12, 8, 3, 0]), arm(475, 0, [119, 47, 24, 5, 0]));
    let mut verdict = judge.verdict();
    for _ in 0..20 {
        verdict = tell(&mut judge, &[bad], None);
    }
    assert_eq!(verdict.level, Level::Rollback);
    let reason = judge.reason();
    assert!(reason.starts_with("service is slower"), "{reason}");
    assert!(reason.contains("beyond 1,000 : 1"), "{reason}");
}

#[test]
fn failures_are_named_as_failures() {
    let mut judge = Judge::new(JudgeConfig { block_ticks: 10, ..JudgeConfig::default() });
    let bad = stratum(0.05, arm(25, 2, [6, 2, 1, 0, 0]), arm(475, 0, [119, 47, 24, 5, 0]));
    for _ in 0..20 {
        tell(&mut judge, &[bad], None);
    }
    let lead = judge.verdict().lead.unwrap();
    assert_eq!(lead.definition, Definition::EarlyErrors);
    assert!(judge.reason().contains("fails more often"), "{}", judge.reason());
}

#[test]
fn a_rollback_is_latched_and_caution_is_not() {
    let mut judge = Judge::new(JudgeConfig { block_ticks: 10, ..JudgeConfig::default() });
    let bad = stratum(0.05, arm(25, 0, [17, 12, 8, 3, 0]), arm(475, 0, [119, 47, 24, 5, 0]));
    let good = stratum(0.05, arm(25, 0, [3, 1, 0, 0, 0]), arm(475, 0, [119, 47, 24, 5, 0]));
    let mut seconds = 0;
    while tell(&mut judge, &[bad], None).level < Level::Caution {
        seconds += 1;
        assert!(seconds < 30);
    }
    let mut quiet = 0;
    while tell(&mut judge, &[good], None).level >= Level::Caution {
        quiet += 1;
        assert!(quiet < 2000);
    }
    assert!(quiet >= 300, "{quiet}");
    for _ in 0..40 {
        tell(&mut judge, &[bad], None);
    }
    for _ in 0..3000 {
        tell(&mut judge, &[good], None);
    }
    assert_eq!(judge.verdict().level, Level::Rollback);
}

#[test]
fn a_block_cut_by_what_was_seen_is_dropped() {
    let mut judge = Judge::new(JudgeConfig::default());
    let bad = [stratum(0.05, arm(25, 9, [17, 12, 8, 3, 0]), arm(475, 0, [119, 47, 24, 5, 0]))];
    for second in 0..400 {
        for lag in Lag::ALL {
            let ending = if second % 4 == 3 { Ending::Reacted } else { Ending::Open };
            judge.block(&Block {
                component: 0,
                lag,
                ticks: 10,
                strata: &bad,
                pods: None,
                warming: false,
                ending,
            });
        }
    }
    // No block of five seconds was ever complete.
    assert_eq!(
        judge.verdict().rollback_peak_ln,
        Judge::new(JudgeConfig::default()).verdict().rollback_peak_ln
    );
}

#[test]
fn warm_up_tolerates_slow_requests_but_not_failures() {
    let play = |slow: [u64; EDGES], errors: u64| {
        let mut judge = Judge::new(JudgeConfig { block_ticks: 10, ..JudgeConfig::default() });
        let bad = [stratum(0.05, arm(25, errors, slow), arm(475, 0, [119, 47, 24, 5, 0]))];
        for _ in 0..60 {
            for lag in Lag::ALL {
                judge.block(&Block {
                    component: 0,
                    lag,
                    ticks: 10,
                    strata: &bad,
                    pods: None,
                    warming: true,
                    ending: Ending::Open,
                });
            }
        }
        judge.verdict().level
    };
    assert_eq!(play([15, 8, 4, 1, 0], 0), Level::Holding);
    assert_eq!(play([6, 2, 1, 0, 0], 2), Level::Rollback);
}

#[test]
fn a_healthy_canary_is_proved_and_its_effect_bounded() {
    let mut judge = Judge::new(JudgeConfig::default());
    let canary = TrialCounts {
        started: 250,
        failed: 0,
        beyond_margin: [12, 1, 0],
        shifted: [[140, 88, 51, 36, 25, 18, 12, 7, 2, 0, 0], [52, 27, 12, 7, 3, 2, 1, 0, 0, 0, 0]],
    };
    let mut baseline = TrialCounts { started: 250, failed: 0, ..canary };
    baseline.beyond_margin = [25, 3, 0];
    assert!(judge.missing().is_some_and(|m| m.seconds.is_none()));
    let mut seconds = 0;
    while !judge.promotion().proved || seconds < 60 {
        judge.trials(&Trials {
            ticks: 10,
            strata: &[TrialStratum { coin: Coin::Drawn { share: 0.5 }, canary, baseline }],
            pods: None,
            rungs: ALL_RUNGS,
            ending: Ending::Open,
        });
        seconds += 1;
        assert!(seconds < 120);
        if seconds == 5 {
            let missing = judge.missing().unwrap();
            assert!(missing.seconds.is_some_and(|s| s > 1.0 && s < 300.0), "{missing:?}");
        }
    }
    assert_eq!(judge.missing(), None);
    let p90 = judge.effect().latency[0];
    assert!((p90.estimate.unwrap() - 1.0).abs() < 0.02, "{p90:?}");
    assert!(p90.at_most.is_some_and(|most| most <= 1.25), "{p90:?}");
    judge.enter_stage();
    assert!(!judge.promotion().proved);
}

#[test]
fn a_slower_canary_is_sized() {
    let mut judge = Judge::new(JudgeConfig::default());
    let baseline = TrialCounts {
        started: 475,
        shifted: [[0, 0, 0, 0, 48, 0, 0, 0, 0, 0, 0], [0, 0, 0, 0, 5, 0, 0, 0, 0, 0, 0]],
        ..TrialCounts::default()
    };
    // Half again as slow: at the shift 1.5 it is beyond as often as the baseline.
    let canary = TrialCounts {
        started: 475,
        shifted: [
            [400, 330, 260, 205, 150, 120, 85, 48, 20, 4, 0],
            [220, 150, 90, 60, 40, 25, 12, 5, 1, 0, 0],
        ],
        ..TrialCounts::default()
    };
    for _ in 0..120 {
        judge.trials(&Trials {
            ticks: 10,
            strata: &[TrialStratum { coin: Coin::Drawn { share: 0.5 }, canary, baseline }],
            pods: None,
            rungs: ALL_RUNGS,
            ending: Ending::Open,
        });
    }
    let p90 = judge.effect().latency[0];
    assert!((p90.estimate.unwrap() - 1.5).abs() < 0.01, "{p90:?}");
    assert_eq!((p90.at_least, p90.at_most), (Some(1.25), Some(2.0)));
}

#[test]
fn a_snapshot_goes_on_where_it_was_taken() {
    let mut dice = Dice(3);
    let mut judge = Judge::new(JudgeConfig::default());
    for _ in 0..137 {
        let second = fair_second(&mut dice, 0.2);
        tell(&mut judge, &[second], None);
    }
    let text = serde_json::to_string(judge.snapshot()).unwrap();
    let mut restored = Judge::restore(serde_json::from_str(&text).unwrap());
    assert_eq!(restored.snapshot(), judge.snapshot());
    for _ in 0..50 {
        let second = fair_second(&mut dice, 0.2);
        assert_eq!(tell(&mut restored, &[second], None), tell(&mut judge, &[second], None));
    }
}

fn any_count() -> impl Strategy<Value = u64> {
    prop_oneof![Just(0), Just(1), 0..1000_u64, any::<u64>(), Just(u64::MAX)]
}

fn any_arm() -> impl Strategy<Value = ArmCounts> {
    let five = || [any_count(), any_count(), any_count(), any_count(), any_count()];
    (any_count(), [any_count(), any_count()], any_count(), five(), five()).prop_map(
        |(started, errors, refused, slow, graded)| ArmCounts {
            started,
            errors,
            refused,
            slow,
            graded,
        },
    )
}

fn any_coin() -> impl Strategy<Value = Coin> {
    prop_oneof![
        Just(Coin::Request),
        (0.0..=1.0).prop_map(|share| Coin::Drawn { share }),
        (-1.0..=2.0).prop_map(|share| Coin::Unit { share }),
        Just(Coin::Drawn { share: f64::NAN }),
    ]
}

fn any_stratum() -> impl Strategy<Value = Stratum> {
    (0..3_u32, any_coin(), any_arm(), any_arm())
        .prop_map(|(weights, coin, canary, baseline)| Stratum { weights, coin, canary, baseline })
}

fn any_pods() -> impl Strategy<Value = Option<Pods>> {
    prop_oneof![
        Just(None),
        (0..20_u32, 0..20_u32).prop_map(|(canary, baseline)| Some(Pods { canary, baseline })),
        Just(Some(Pods { canary: u32::MAX, baseline: 1 })),
    ]
}

fn possible_arm() -> impl Strategy<Value = ArmCounts> {
    (1..500_u64, 0.0..1.0_f64, 0.0..0.3_f64).prop_map(|(started, slow, errors)| {
        let part = |share: f64| (started as f64 * share) as u64;
        let slow = [slow, slow * 0.5, slow * 0.3, slow * 0.1, slow * 0.01].map(part);
        arm(started, part(errors), slow)
    })
}

/// What the errors of the integrals of 15 blocks come to in a logarithm of evidence.
const QUADRATURE: f64 = 1e-5;

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn any_counts_leave_finite_evidence(
        blocks in proptest::collection::vec(
            (proptest::collection::vec(any_stratum(), 0..4), any_pods(), any::<u32>(), 0..3_u32),
            1..12,
        ),
    ) {
        let mut judge = Judge::new(JudgeConfig::default());
        for (strata, pods, ticks, ending) in &blocks {
            for lag in Lag::ALL {
                let ending = [Ending::Open, Ending::Scheduled, Ending::Reacted][*ending as usize];
                let verdict = judge.block(&Block {
                    component: 0,
                    lag,
                    ticks: *ticks,
                    strata,
                    pods: *pods,
                    warming: ticks % 2 == 0,
                    ending,
                });
                for ln in [verdict.rollback_ln, verdict.caution_ln, verdict.rollback_peak_ln] {
                    prop_assert!(ln.is_finite() && ln.exp() >= 0.0);
                }
                prop_assert!(verdict.odds() >= 0.0 && verdict.odds() <= 1.000_001e12);
            }
        }
        prop_assert!(!judge.reason().contains("NaN"));
    }

    #[test]
    fn any_trials_leave_finite_proofs(
        trials in proptest::collection::vec(
            (any_coin(), any_count(), any_count(), any_count(), any_count(), any_pods()),
            1..10,
        ),
    ) {
        let mut judge = Judge::new(JudgeConfig::default());
        for (coin, a, b, c, d, pods) in trials {
            let counts = |started, bad| TrialCounts {
                started,
                failed: bad,
                beyond_margin: [bad; 3],
                shifted: [[bad; SHIFT_COUNT]; 2],
            };
            judge.trials(&Trials {
                ticks: 10,
                strata: &[TrialStratum { coin, canary: counts(a, b), baseline: counts(c, d) }],
                pods,
                rungs: ALL_RUNGS,
                ending: Ending::Open,
            });
            prop_assert!(judge.proofs().all(|(_, ln)| ln.is_finite()));
        }
        let text = format!("{:?} {}", judge.effect(), judge.reason());
        prop_assert!(!text.contains("NaN"), "{text}");
    }

    #[test]
    fn a_worse_canary_never_has_less_evidence_against_it(
        seconds in proptest::collection::vec((possible_arm(), possible_arm()), 1..15),
        worse in 0..5_usize,
        pods in any_pods(),
    ) {
        let mut judges = [Judge::new(exact_null()), Judge::new(exact_null())];
        for (canary, baseline) in seconds {
            let mut harmed = canary;
            // One more request is slow up to this edge, and one more fails.
            for edge in 0..=worse {
                harmed.slow[edge] = (harmed.slow[edge] + 1).min(harmed.started);
            }
            harmed.graded = harmed.slow;
            harmed.errors = harmed.errors.map(|e| (e + 1).min(harmed.started));
            let [better, worse] = &mut judges;
            tell(better, &[stratum(0.1, canary, baseline)], pods);
            tell(worse, &[stratum(0.1, harmed, baseline)], pods);
        }
        let [better, worse] = judges.map(|j| j.verdict());
        prop_assert!(worse.rollback_ln >= better.rollback_ln - QUADRATURE);
        prop_assert!(worse.caution_ln >= better.caution_ln - QUADRATURE);
    }

    #[test]
    fn shards_count_like_the_whole(
        seconds in proptest::collection::vec(
            proptest::collection::vec((possible_arm(), possible_arm()), 1..5),
            1..12,
        ),
        pods in any_pods(),
    ) {
        let mut judges = [Judge::new(JudgeConfig::default()), Judge::new(JudgeConfig::default())];
        for shards in &seconds {
            let strata: Vec<Stratum> =
                shards.iter().map(|(canary, baseline)| stratum(0.1, *canary, *baseline)).collect();
            let mut whole = strata[0];
            for shard in &strata[1..] {
                whole.canary.merge(&shard.canary);
                whole.baseline.merge(&shard.baseline);
            }
            let [apart, together] = &mut judges;
            prop_assert_eq!(tell(apart, &strata, pods), tell(together, &[whole], pods));
        }
    }
}
