//! The mean of the observation by enumeration of whole designs, and its order.

use proptest::prelude::*;

use super::*;

/// A stratum of a small design: requests per arm, and how many of all are bad on either arm.
#[derive(Clone, Copy, Debug)]
struct Design {
    canary: u64,
    baseline: u64,
    bad: u64,
}

/// Counts of bad requests per stratum, canary and baseline.
type Bad = Vec<(u64, u64)>;

fn observe(thinning: &mut Thinning, designs: &[Design], bad: &Bad, tolerance: f64) -> f64 {
    thinning.observe(tolerance, |i| Tally {
        canary: Bins::one(bad[i].0),
        baseline: Bins::one(bad[i].1),
        good_baseline: (designs[i].baseline - bad[i].1) as f64,
    })
}

fn prepare(thinning: &mut Thinning, designs: &[Design], pods: Option<Pods>, tolerated: f64) {
    let assigned = designs.iter().map(|d| Assigned {
        coin: Coin::Request,
        canary: d.canary,
        baseline: d.baseline,
    });
    assert!(thinning.prepare(assigned, pods, tolerated));
}

fn ways(n: u64, k: u64) -> f64 {
    (0..k).fold(1.0, |w, i| w * (n - i) as f64 / (i + 1) as f64)
}

fn binomial(n: u64, k: u64, p: f64) -> f64 {
    ways(n, k) * p.powi(k as i32) * (1.0 - p).powi((n - k) as i32)
}

/// Every outcome of one stratum with its probability, if bad requests are bad on either arm and
/// good ones turn bad on the canary with probability `tolerance`: the edge of the null.
fn outcomes(design: &Design, tolerance: f64) -> Vec<(f64, (u64, u64))> {
    let Design { canary, baseline, bad } = *design;
    let mut all = Vec::new();
    for fixed in 0..=bad.min(canary) {
        if bad - fixed > baseline {
            continue;
        }
        let hypergeometric =
            ways(canary, fixed) * ways(baseline, bad - fixed) / ways(canary + baseline, bad);
        for extra in 0..=canary - fixed {
            let chance = hypergeometric * binomial(canary - fixed, extra, tolerance);
            if chance > 0.0 {
                all.push((chance, (fixed + extra, bad - fixed)));
            }
        }
    }
    all
}

fn expectation(designs: &[Design], pods: Option<Pods>, tolerance: f64) -> f64 {
    let mut thinning = Thinning::new();
    prepare(&mut thinning, designs, pods, 1.0);
    let mut joint: Vec<(f64, Bad)> = vec![(1.0, Vec::new())];
    for design in designs {
        let each = outcomes(design, tolerance);
        joint = joint
            .iter()
            .flat_map(|(chance, bad)| {
                each.iter().map(move |(c, counts)| {
                    let mut bad = bad.clone();
                    bad.push(*counts);
                    (chance * c, bad)
                })
            })
            .collect();
    }
    joint.iter().map(|(c, bad)| c * observe(&mut thinning, designs, bad, tolerance)).sum()
}

#[test]
fn the_mean_is_not_positive_in_any_small_design_of_realised_shares() {
    let pods = [None, Some((1, 1)), Some((1, 10)), Some((3, 1)), Some((3, 3))];
    for (canary, baseline) in [(1, 1), (1, 6), (3, 5), (5, 2)] {
        for bad in 0..=4.min(canary + baseline) {
            for other in [None, Some(Design { canary: 2, baseline: 3, bad: 2 })] {
                for pods in pods {
                    for tolerance in [0.0, 0.01, 0.05] {
                        let pods = pods.map(|(canary, baseline)| Pods { canary, baseline });
                        let mut designs = vec![Design { canary, baseline, bad }];
                        designs.extend(other);
                        let mean = expectation(&designs, pods, tolerance);
                        assert!(mean <= 1e-12, "{designs:?} {pods:?} {tolerance}: {mean}");
                    }
                }
            }
        }
    }
}

/// The mean of both observations over all coins and all virtual events of `requests`, `bad` of
/// which are bad on either arm.
fn drawn_means(share: f64, requests: u64, bad: u64, pods: Pods, tolerance: f64) -> (f64, f64) {
    let mut thinning = Thinning::new();
    let coin = Coin::Drawn { share };
    let assigned = [Assigned { coin, canary: 0, baseline: 0 }];
    assert!(thinning.prepare(assigned.into_iter(), Some(pods), 1.0));
    let good = requests - bad;
    let (mut mean, mut at_most) = (0.0, 0.0);
    for canary_bad in 0..=bad {
        for canary_good in 0..=good {
            for turned in 0..=canary_good {
                let chance = binomial(bad, canary_bad, share)
                    * binomial(good, canary_good, share)
                    * binomial(canary_good, turned, tolerance);
                let tally = |_: usize| Tally {
                    canary: Bins::one(canary_bad + turned),
                    baseline: Bins::one(bad - canary_bad),
                    good_baseline: (good - canary_good) as f64,
                };
                let (below, above) = thinning.observe_both(tolerance, tally);
                mean += chance * below;
                at_most += chance * above;
            }
        }
    }
    (mean, at_most)
}

#[test]
fn the_mean_is_zero_in_every_small_design_of_drawn_shares() {
    for share in [0.01, 0.05, 0.3, 0.6] {
        for (requests, bad) in [(1, 1), (4, 0), (6, 2), (7, 4)] {
            for (canary, baseline) in [(1, 1), (1, 10), (3, 1)] {
                for tolerance in [0.0, 0.01, 0.1] {
                    let pods = Pods { canary, baseline };
                    let (mean, at_most) = drawn_means(share, requests, bad, pods, tolerance);
                    assert!(mean <= 1e-12 && mean > -1e-6, "{share} {bad} {pods:?}: {mean}");
                    assert!((-1e-12..1e-6).contains(&at_most), "{share} {bad}: {at_most}");
                }
            }
        }
    }
}

#[test]
fn the_mean_is_not_positive_if_a_ratio_is_tolerated() {
    for ratio in [2.0, 5.0] {
        for pods in [None, Some(Pods { canary: 1, baseline: 10 })] {
            for p in [0.02, 0.1, 0.2] {
                let design = [Design { canary: 3, baseline: 6, bad: 0 }];
                let mut thinning = Thinning::new();
                prepare(&mut thinning, &design, pods, ratio);
                let mut mean = 0.0;
                for canary in 0..=3 {
                    for baseline in 0..=6 {
                        let chance = binomial(3, canary, p * ratio) * binomial(6, baseline, p);
                        let bad = vec![(canary, baseline)];
                        mean += chance * observe(&mut thinning, &design, &bad, 0.0);
                    }
                }
                assert!(mean <= 1e-12, "{ratio} {pods:?} {p}: {mean}");
            }
        }
    }
}

#[test]
fn the_mean_is_not_positive_if_a_ratio_is_tolerated_of_drawn_requests() {
    for (ratio, share, p) in [(2.0, 0.05, 0.1), (5.0, 0.05, 0.1), (5.0, 0.4, 0.2)] {
        for pods in [None, Some(Pods { canary: 1, baseline: 10 })] {
            let coins = [Coin::Drawn { share }, Coin::Drawn { share: 0.5 }];
            let assigned = coins.map(|coin| Assigned { coin, canary: 5, baseline: 5 });
            let mut thinning = Thinning::new();
            assert!(thinning.prepare(assigned.into_iter(), pods, ratio));
            let mut mean = 0.0;
            for canary in 0..=8 {
                for canary_bad in 0..=canary {
                    for baseline_bad in 0..=8 - canary {
                        let chance = binomial(8, canary, share)
                            * binomial(canary, canary_bad, p * ratio)
                            * binomial(8 - canary, baseline_bad, p);
                        let tally = |i: usize| match i {
                            0 => Tally {
                                canary: Bins::one(canary_bad),
                                baseline: Bins::one(baseline_bad),
                                good_baseline: 0.0,
                            },
                            _ => Tally::default(),
                        };
                        mean += chance * thinning.observe(0.0, tally);
                    }
                }
            }
            assert!(mean <= 1e-12, "{ratio} {share} {pods:?}: {mean}");
        }
    }
}

#[test]
fn the_mean_is_zero_for_units_with_shares_of_their_own() {
    let shares = [0.05, 0.2, 0.7];
    let events = [3, 2, 1];
    for pods in [None, Some(Pods { canary: 1, baseline: 4 })] {
        let assigned = shares.iter().map(|share| Assigned {
            coin: Coin::Unit { share: *share },
            canary: 0,
            baseline: if *share == 0.05 { 100 } else { 0 },
        });
        let mut thinning = Thinning::new();
        assert!(thinning.prepare(assigned, pods, 1.0));
        let mut mean = 0.0;
        for a in 0..=3 {
            for b in 0..=2 {
                for c in 0..=1 {
                    let bad = [a, b, c];
                    let chance: f64 =
                        (0..3).map(|i| binomial(events[i], bad[i], shares[i])).product();
                    mean += chance
                        * thinning.observe(0.0, |i| Tally {
                            canary: Bins::one(bad[i]),
                            baseline: Bins::one(events[i] - bad[i]),
                            good_baseline: 0.0,
                        });
                }
            }
        }
        assert!(mean <= 1e-12 && mean > -1e-6, "{pods:?}: {mean}");
    }
}

#[test]
fn one_stratum_of_equal_pods_is_the_share_over_its_expectation() {
    let design = [Design { canary: 50, baseline: 950, bad: 0 }];
    let mut thinning = Thinning::new();
    prepare(&mut thinning, &design, None, 1.0);
    let x = observe(&mut thinning, &design, &vec![(3, 17)], 0.0);
    assert!((x - (3.0 / 20.0 / 0.05 - 1.0)).abs() < 1e-12);
}

#[test]
fn the_integral_is_the_mean_over_binomials() {
    let design = [Design { canary: 25, baseline: 475, bad: 0 }];
    let pods = Some(Pods { canary: 3, baseline: 3 });
    let mut thinning = Thinning::new();
    let coin = Coin::Drawn { share: 0.05 };
    let assigned = [Assigned { coin, canary: 25, baseline: 475 }];
    assert!(thinning.prepare(assigned.into_iter(), pods, 1.0));
    let keep: f64 = 25.0 / 475.0;
    for (canary, baseline) in [(1, 10), (4, 40), (20, 300), (25, 475)] {
        let got = observe(&mut thinning, &design, &vec![(canary, baseline)], 0.0);
        let direct: f64 = (0..=baseline)
            .map(|kept| {
                let ln_ways: f64 =
                    (0..kept).map(|i| ((baseline - i) as f64 / (i + 1) as f64).ln()).sum();
                let ln =
                    ln_ways + kept as f64 * keep.ln() + (baseline - kept) as f64 * (-keep).ln_1p();
                ln.exp() * canary as f64 / (canary + kept) as f64
            })
            .sum();
        assert!((got - (2.0 * direct - 1.0)).abs() < 1e-5, "{canary} {baseline}: {got} {direct}");
    }
}

fn any_count() -> impl Strategy<Value = u64> {
    prop_oneof![Just(0), Just(1), 0..100_u64, 0..1_000_000_u64, any::<u64>(), Just(u64::MAX)]
}

fn any_coin() -> impl Strategy<Value = Coin> {
    prop_oneof![
        2 => Just(Coin::Request),
        2 => (0.0..=1.0).prop_map(|share| Coin::Drawn { share }),
        1 => (0.0..=1.0).prop_map(|share| Coin::Unit { share }),
    ]
}

fn any_pods() -> impl Strategy<Value = Option<Pods>> {
    let pods = (any::<u32>(), any::<u32>());
    let few = (0..20_u32, 0..20_u32);
    prop_oneof![Just(None), pods.prop_map(Some), few.prop_map(Some)]
        .prop_map(|p| p.map(|(canary, baseline)| Pods { canary, baseline }))
}

type Any = (Coin, [u64; 2], [[u64; 4]; 2]);

fn any_strata() -> impl Strategy<Value = Vec<Any>> {
    let counts = || [any_count(), any_count(), any_count(), any_count()];
    let stratum = (any_coin(), [any_count(), any_count()], [counts(), counts()]);
    proptest::collection::vec(stratum, 0..5)
}

fn bins(counts: &[u64; 4]) -> Bins {
    let mut bins = Bins { len: 4, ..Bins::default() };
    for (i, (entry, count)) in bins.entries.iter_mut().zip(counts).enumerate() {
        *entry = ([0, 1, 2, 4][i], *count as f64);
    }
    bins
}

proptest! {
    #[test]
    fn any_counts_give_an_observation_in_its_range(
        strata in any_strata(),
        pods in any_pods(),
        tolerance in 0.0..0.6_f64,
        tolerated in 0.5..6.0_f64,
    ) {
        let mut thinning = Thinning::new();
        let assigned = strata.iter().map(|(coin, started, _)| Assigned {
            coin: *coin,
            canary: started[0],
            baseline: started[1],
        });
        if thinning.prepare(assigned, pods, tolerated) {
            for tolerance in [0.0, tolerance] {
                let tally = |i: usize| Tally {
                    canary: bins(&strata[i].2[0]),
                    baseline: bins(&strata[i].2[1]),
                    good_baseline: strata[i].1[1] as f64,
                };
                let (x, at_most) = thinning.observe_both(tolerance, tally);
                let most = 1.0 / thinning.pod_share() - 1.0;
                prop_assert!(x >= -1.0 && x <= most * (1.0 + 1e-12), "{x}");
                prop_assert!(at_most >= x && at_most <= most * (1.0 + 1e-6) + 1e-6, "{at_most}");
            }
        }
    }

    #[test]
    fn one_more_bad_request_of_an_arm_moves_the_observation_against_it(
        started in (1..60_u64, 1..400_u64),
        bad in (0..50_u64, 0..200_u64),
        pods in prop_oneof![Just(None), (1..5_u32, 1..12_u32).prop_map(Some)],
        tolerance in prop_oneof![Just(0.0), Just(0.001), 0.0..0.1_f64],
        tolerated in prop_oneof![Just(1.0), Just(5.0)],
    ) {
        let pods = pods.map(|(canary, baseline)| Pods { canary, baseline });
        let (canary, baseline) = started;
        let design = [Design { canary, baseline, bad: 0 }];
        let share = canary as f64 / (canary + baseline) as f64;
        let assigned = [Assigned { coin: Coin::Drawn { share }, canary, baseline }];
        let (k_c, k_b) = (bad.0.min(canary - 1), bad.1.min(baseline - 1));
        let mut thinning = Thinning::new();
        prop_assert!(thinning.prepare(assigned.into_iter(), pods, tolerated));
        let mut x = |k_c, k_b| observe(&mut thinning, &design, &vec![(k_c, k_b)], tolerance);
        let (base, more_canary, more_baseline) = (x(k_c, k_b), x(k_c + 1, k_b), x(k_c, k_b + 1));
        prop_assert!(more_canary >= base - 1e-6, "{base} {more_canary}");
        prop_assert!(more_baseline <= base + 1e-6, "{base} {more_baseline}");
    }
}
