//! The life of a rollout, told in steps.

use std::time::Duration;

use super::{super::*, Change, Obstacle, Rollout, Seen, Standing, Wait, Why};
use crate::judge::{BreakerState, Level, Proof, Proofs, Verdict as Judged};

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn plan(weights_bp: &[u16]) -> Plan {
    let stage = |weight_bp: &u16| Stage {
        weight_bp: *weight_bp,
        at_least: seconds(120),
        gate: false,
        prove: None,
    };
    Plan {
        name: "test".into(),
        stages: weights_bp.iter().map(stage).collect(),
        judge: JudgeSettings::default(),
        inconclusive_after: Inconclusive::default(),
        manual: false,
    }
}

/// Nothing against the canary, everything proved, enough requests.
fn fine(now: u64) -> Seen {
    Seen {
        now: seconds(now),
        verdict: Judged {
            level: Level::Healthy,
            rollback_ln: -0.3,
            rollback_peak_ln: 0.1,
            caution_ln: -0.3,
            caution_peak_ln: 0.1,
            threshold_ln: 1000.0_f64.ln(),
            lead: None,
        },
        condemned: None,
        proofs: Proofs {
            proved: true,
            undoubted: true,
            weakest: Proof::P99,
            weakest_ln: 3.5,
            threshold_ln: 20.0_f64.ln(),
            seconds: 0.0,
            canary_trials: 0,
        },
        breaker: BreakerState::Closed,
        suspected: false,
        canary_requests: 10_000,
        excess_bad: 0.0,
        others_bp: 0,
        objectives: Standing::Kept,
        obstacle: None,
        block_ends: true,
    }
}

fn doubtful(now: u64) -> Seen {
    let mut seen = fine(now);
    seen.verdict.level = Level::Caution;
    seen.verdict.caution_ln = 25.0_f64.ln();
    seen.proofs.undoubted = false;
    seen
}

fn unproved(now: u64) -> Seen {
    let mut seen = fine(now);
    seen.proofs.proved = false;
    seen
}

/// A rollout that is followed through time.
struct Story {
    plan: Plan,
    rollout: Rollout,
}

impl Story {
    fn of(plan: Plan) -> Self {
        let rollout = Rollout::start(&plan, None, 0);
        Self { plan, rollout }
    }

    fn see(&mut self, seen: &Seen) -> Option<Change> {
        let step = self.rollout.step(&self.plan, seen);
        self.rollout = step.rollout;
        step.change
    }

    #[track_caller]
    fn check(&self, phase: Phase, stage: usize, weight_bp: u16) {
        let is = (self.rollout.phase(), self.rollout.stage(), self.rollout.weight_bp());
        assert_eq!(is, (phase, stage, weight_bp), "{}", self.rollout.sentence(&self.plan));
    }
}

#[test]
fn the_first_stage_is_in_force_at_once() {
    Story::of(plan(&[100, 500, 10_000])).check(Phase::Progressing, 1, 100);
    let mut manual = plan(&[500, 10_000]);
    manual.manual = true;
    Story::of(manual).check(Phase::Holding, 1, 500);
}

#[test]
fn a_healthy_canary_is_promoted_stage_by_stage() {
    let mut story = Story::of(plan(&[100, 500, 5_000, 10_000]));
    assert_eq!(story.see(&fine(119)), None);
    story.check(Phase::Progressing, 1, 100);
    assert_eq!(story.see(&fine(120)), Some(Change::Entered));
    story.check(Phase::Progressing, 2, 500);
    assert_eq!(story.see(&fine(239)), None);
    assert_eq!(story.see(&fine(240)), Some(Change::Entered));
    assert_eq!(story.see(&fine(360)), Some(Change::Promoted));
    story.check(Phase::Promoted, 4, 10_000);
    assert!(story.rollout.is_over());
}

#[test]
fn from_five_percent_on_a_stage_waits_for_its_proof() {
    let mut story = Story::of(plan(&[100, 500, 10_000]));
    assert_eq!(story.see(&unproved(120)), Some(Change::Entered));
    assert_eq!(story.see(&unproved(1000)), None);
    assert_eq!(story.rollout.wait(), Wait::Proof);
    assert_eq!(story.see(&fine(1001)), Some(Change::Promoted));
}

#[test]
fn a_small_stage_waits_for_requests_and_for_doubt_to_pass() {
    let mut story = Story::of(plan(&[100, 500]));
    let few = Seen { canary_requests: 499, ..fine(130) };
    assert_eq!(story.see(&few), None);
    assert_eq!(story.rollout.wait(), Wait::Requests);
    let mut doubted = fine(131);
    doubted.proofs.undoubted = false;
    assert_eq!(story.see(&doubted), None);
    assert_eq!(story.rollout.wait(), Wait::Doubt);
    assert_eq!(story.see(&fine(132)), Some(Change::Entered));
}

#[test]
fn prove_overrides_the_five_percent() {
    let mut eager = plan(&[100, 500, 10_000]);
    eager.stages[0].prove = Some(true);
    eager.stages[1].prove = Some(false);
    let mut story = Story::of(eager);
    assert_eq!(story.see(&unproved(500)), None);
    assert_eq!(story.see(&fine(501)), Some(Change::Entered));
    assert_eq!(story.see(&unproved(1000)), Some(Change::Promoted));
}

#[test]
fn a_gate_stands_before_the_stage_that_carries_it() {
    let mut gated = plan(&[500, 2_500, 10_000]);
    gated.stages[1].gate = true;
    let mut story = Story::of(gated);
    story.see(&fine(120));
    story.check(Phase::Gated, 1, 500);
    // Waiting is no reason to call it undecided.
    story.see(&fine(100_000));
    story.check(Phase::Gated, 1, 500);
    story.rollout.approve(&story.plan.clone()).unwrap();
    assert_eq!(story.see(&fine(100_001)), Some(Change::Entered));
    story.check(Phase::Progressing, 2, 2_500);
    assert!(story.rollout.approve(&story.plan.clone()).is_err());
}

#[test]
fn nothing_that_waits_blocks_a_lowering() {
    let mut gated = plan(&[2_500, 10_000]);
    gated.stages[1].gate = true;
    let mut story = Story::of(gated);
    story.see(&fine(120));
    assert_eq!(story.see(&doubtful(121)), Some(Change::Cautioned));
    assert_eq!(story.rollout.weight_bp(), 500);
}

#[test]
fn a_last_stage_below_all_is_promoted_once_proved_and_still_judged() {
    let mut story = Story::of(plan(&[500]));
    assert_eq!(story.see(&unproved(500)), None);
    assert_eq!(story.see(&fine(501)), Some(Change::Promoted));
    story.check(Phase::Promoted, 1, 500);
    assert!(!story.rollout.is_over());
    assert_eq!(story.see(&fine(502)), None);
    let mut bad = fine(503);
    bad.verdict.level = Level::Rollback;
    assert_eq!(story.see(&bad), Some(Change::RolledBack(Why::Evidence)));
    story.check(Phase::RolledBack, 1, 0);
}

#[test]
fn a_rollback_is_for_good() {
    let mut story = Story::of(plan(&[500, 10_000]));
    let mut bad = fine(10);
    bad.verdict.level = Level::Rollback;
    story.see(&bad);
    assert_eq!(story.see(&fine(1000)), None);
    story.check(Phase::RolledBack, 1, 0);
    let seen = fine(1001);
    let plan = story.plan.clone();
    assert!(story.rollout.set_weight(500, true, &seen).is_err());
    assert!(story.rollout.promote(&plan, &seen).is_err());
    assert!(story.rollout.resume(&plan, &seen).is_err());
    let again = story.rollout.retry(&plan, None, 0).unwrap();
    assert_eq!((again.phase(), again.weight_bp()), (Phase::Progressing, 500));
}

#[test]
fn caution_leaves_five_percent_and_only_freezes_below() {
    let mut story = Story::of(plan(&[2_500, 10_000]));
    assert_eq!(story.see(&doubtful(10)), Some(Change::Cautioned));
    story.check(Phase::Caution, 1, 500);
    let mut small = Story::of(plan(&[100, 500]));
    assert_eq!(small.see(&doubtful(10)), Some(Change::Cautioned));
    small.check(Phase::Caution, 1, 100);
    assert_eq!(small.see(&doubtful(1_000)), None);
    small.check(Phase::Caution, 1, 100);
}

#[test]
fn caution_ends_after_calm_and_a_fresh_proof() {
    let mut story = Story::of(plan(&[2_500, 10_000]));
    let step = story.rollout.step(&story.plan, &doubtful(10));
    assert!(step.fresh_proof);
    story.rollout = step.rollout;
    assert_eq!(story.see(&fine(309)), None);
    assert_eq!(story.see(&unproved(400)), None);
    assert_eq!(story.see(&fine(401)), Some(Change::Returned));
    story.check(Phase::Progressing, 1, 2_500);
    // The stage begins again.
    assert_eq!(story.see(&fine(520)), None);
    assert_eq!(story.see(&fine(521)), Some(Change::Promoted));
}

#[test]
fn caution_ends_by_itself_twice_each_time_later() {
    let mut story = Story::of(plan(&[2_500, 10_000]));
    story.see(&doubtful(0));
    assert_eq!(story.see(&fine(300)), Some(Change::Returned));
    story.see(&doubtful(310));
    assert_eq!(story.see(&fine(909)), None);
    assert_eq!(story.see(&fine(910)), Some(Change::Returned));
    story.see(&doubtful(920));
    assert_eq!(story.see(&fine(1_000_000)), None);
    assert_eq!(story.rollout.weight_bp(), 500);
}

#[test]
fn the_breaker_takes_the_weight_and_gives_little_of_it_back() {
    let mut story = Story::of(plan(&[2_500, 10_000]));
    let with = |breaker, now| Seen { breaker, ..fine(now) };
    assert_eq!(story.see(&with(BreakerState::Open, 1)), Some(Change::Tripped));
    story.check(Phase::Caution, 1, 0);
    assert!(story.rollout.wants_probes());
    assert_eq!(story.see(&with(BreakerState::Reduced, 5)), Some(Change::Recovered));
    story.check(Phase::Caution, 1, 100);
    assert_eq!(story.see(&with(BreakerState::Closed, 35)), Some(Change::Recovered));
    story.check(Phase::Caution, 1, 500);
    assert_eq!(story.see(&fine(304)), None);
    assert_eq!(story.see(&fine(305)), Some(Change::Returned));
    story.check(Phase::Progressing, 1, 2_500);
}

#[test]
fn a_canary_that_fails_outright_again_and_again_is_taken_back() {
    let mut story = Story::of(plan(&[2_500, 10_000]));
    for outage in 0..3 {
        let at = |second: u64| 10 * outage + second;
        story.see(&Seen { breaker: BreakerState::Open, ..unproved(at(1)) });
        story.check(Phase::Caution, 1, 0);
        if outage < 2 {
            story.see(&Seen { breaker: BreakerState::Reduced, ..unproved(at(5)) });
        }
    }
    let rolled_back = Some(Change::RolledBack(Why::Outages));
    assert_eq!(story.see(&Seen { breaker: BreakerState::Open, ..unproved(22) }), rolled_back);
}

#[test]
fn suspicion_takes_a_fifth_for_five_minutes() {
    let mut story = Story::of(plan(&[500, 10_000]));
    let suspect = |now| Seen { suspected: true, ..unproved(now) };
    assert_eq!(story.see(&suspect(10)), Some(Change::Suspected));
    story.check(Phase::Caution, 1, 100);
    assert_eq!(story.see(&suspect(200)), None);
    assert_eq!(story.see(&unproved(499)), None);
    assert_eq!(story.see(&unproved(500)), Some(Change::Returned));
    story.check(Phase::Progressing, 1, 500);
}

#[test]
fn weights_rise_only_where_a_block_ends() {
    let within = |seen: Seen| Seen { block_ends: false, ..seen };
    let mut story = Story::of(plan(&[2_500, 10_000]));
    assert_eq!(story.see(&within(fine(500))), None);
    assert_eq!(story.see(&within(doubtful(501))), Some(Change::Cautioned));
    assert_eq!(story.see(&within(fine(900))), None);
    assert_eq!(story.see(&fine(901)), Some(Change::Returned));
}

#[test]
fn too_many_bad_responses_roll_back() {
    let mut story = Story::of(plan(&[500, 10_000]));
    assert_eq!(story.see(&Seen { excess_bad: 999.0, ..unproved(10) }), None);
    let costly = Seen { excess_bad: 1000.0, ..unproved(11) };
    assert_eq!(story.see(&costly), Some(Change::RolledBack(Why::BadResponses)));
}

#[test]
fn an_undecided_stage_does_what_the_plan_says() {
    let undecided = |then| {
        let mut plan = plan(&[500, 10_000]);
        plan.inconclusive_after = Inconclusive { period: seconds(3600), then };
        let mut story = Story::of(plan);
        assert_eq!(story.see(&unproved(3599)), None);
        story.check(Phase::Progressing, 1, 500);
        story.see(&unproved(3600));
        story
    };
    undecided(Fallback::Hold).check(Phase::Holding, 1, 500);
    undecided(Fallback::Advance).check(Phase::Promoted, 2, 10_000);
    undecided(Fallback::Rollback).check(Phase::RolledBack, 1, 0);
}

#[test]
fn doubt_is_never_advanced_over() {
    let mut plan = plan(&[500, 10_000]);
    plan.inconclusive_after = Inconclusive { period: seconds(60), then: Fallback::Advance };
    let mut story = Story::of(plan);
    let mut doubted = fine(1000);
    doubted.proofs.undoubted = false;
    assert_eq!(story.see(&doubted), None);
    story.check(Phase::Holding, 1, 500);
}

#[test]
fn several_canaries_share_the_room() {
    let mut story = Story::of(plan(&[2_500, 5_000, 10_000]));
    let crowded = |now, others_bp| Seen { others_bp, ..fine(now) };
    story.see(&crowded(120, 5_000));
    story.check(Phase::Holding, 1, 2_500);
    assert_eq!(story.see(&crowded(121, 4_500)), Some(Change::Entered));
    story.see(&crowded(300, 1));
    story.check(Phase::Holding, 2, 5_000);
    assert_eq!(story.see(&crowded(301, 0)), Some(Change::Promoted));
    let waiting = Rollout::start(&plan(&[5_000]), None, 5_000);
    assert_eq!((waiting.stage(), waiting.weight_bp(), waiting.wait()), (0, 0, Wait::Room));
}

#[test]
fn an_obstacle_holds_and_does_not_lower() {
    let mut story = Story::of(plan(&[500, 10_000]));
    let obstacle = Some(Obstacle::NoTraffic);
    assert_eq!(story.see(&Seen { obstacle, ..fine(500) }), None);
    story.check(Phase::Holding, 1, 500);
    assert_eq!(story.see(&fine(501)), Some(Change::Promoted));
}

#[test]
fn a_canary_that_breaches_an_objective_halts_and_a_severe_breach_rolls_back() {
    let mut story = Story::of(plan(&[500, 2_500, 10_000]));
    let standing = |objectives, now| Seen { objectives, ..fine(now) };
    assert_eq!(story.see(&standing(Standing::Breaches, 120)), None);
    story.check(Phase::Holding, 1, 500);
    assert_eq!(story.see(&fine(121)), Some(Change::Entered));
    let rolled_back = Change::RolledBack(Why::Objective);
    assert_eq!(story.see(&standing(Standing::Severe, 122)), Some(rolled_back));
}

#[test]
fn what_hits_the_baseline_alone_freezes() {
    let mut story = Story::of(plan(&[500, 10_000]));
    story.see(&Seen { objectives: Standing::BaselineBreaches, ..fine(500) });
    story.check(Phase::Holding, 1, 500);
    assert_eq!(story.rollout.wait(), Wait::Obstacle(Obstacle::Environment));
}

#[test]
fn a_raise_after_which_both_arms_are_bad_is_taken_back_until_it_is_known_why() {
    let both = |now| Seen { objectives: Standing::BothBreach, ..fine(now) };
    let guarded = || {
        let mut story = Story::of(plan(&[500, 2_500, 10_000]));
        story.see(&fine(120));
        assert_eq!(story.see(&both(200)), Some(Change::Guarded));
        story.check(Phase::Caution, 2, 500);
        assert_eq!(story.see(&both(499)), None);
        story
    };
    // Bad at the lower weight too: the environment.
    let mut environment = guarded();
    assert_eq!(environment.see(&both(500)), Some(Change::Returned));
    environment.see(&both(501));
    environment.check(Phase::Holding, 2, 2_500);
    // Good again at the lower weight: the canary hurts the baseline.
    let mut interference = guarded();
    assert_eq!(interference.see(&fine(500)), None);
    interference.check(Phase::Caution, 2, 500);
    assert_eq!(interference.rollout.wait(), Wait::Obstacle(Obstacle::Interference));
    interference.rollout.set_weight(2_500, true, &fine(501)).unwrap();
    interference.check(Phase::Paused, 2, 2_500);
}

#[test]
fn manual_reports_and_never_moves() {
    let mut manual = plan(&[500, 10_000]);
    manual.manual = true;
    let mut story = Story::of(manual);
    let mut bad = doubtful(10);
    bad.verdict.level = Level::Rollback;
    bad.breaker = BreakerState::Open;
    assert_eq!(story.see(&bad), None);
    assert_eq!(story.rollout.weight_bp(), 500);
    story.rollout.set_weight(3_000, true, &bad).unwrap();
    assert_eq!(story.rollout.weight_bp(), 3_000);
    assert_eq!(story.see(&bad), None);
    story.check(Phase::Paused, 1, 3_000);
}

#[test]
fn a_set_weight_pauses_until_resume() {
    let mut story = Story::of(plan(&[100, 500, 2_500, 10_000]));
    let plan = story.plan.clone();
    story.rollout.set_weight(1_000, true, &fine(10)).unwrap();
    assert_eq!(story.see(&fine(10_000)), None);
    story.check(Phase::Paused, 1, 1_000);
    story.rollout.resume(&plan, &fine(10_001)).unwrap();
    story.check(Phase::Progressing, 2, 1_000);
    assert_eq!(story.see(&fine(10_121)), Some(Change::Entered));
    story.check(Phase::Progressing, 3, 2_500);
}

#[test]
fn the_judge_may_lower_what_is_paused() {
    let mut story = Story::of(plan(&[100, 10_000]));
    story.rollout.set_weight(3_000, true, &fine(10)).unwrap();
    assert_eq!(story.see(&doubtful(11)), Some(Change::Cautioned));
    story.check(Phase::Paused, 1, 500);
    // A person insists; only stronger evidence lowers it again.
    story.rollout.set_weight(3_000, true, &doubtful(12)).unwrap();
    assert_eq!(story.see(&doubtful(13)), None);
    story.check(Phase::Paused, 1, 3_000);
    let mut stronger = doubtful(14);
    stronger.verdict.caution_ln = 130.0_f64.ln();
    assert_eq!(story.see(&stronger), Some(Change::Cautioned));
    story.check(Phase::Paused, 1, 500);
}

#[test]
fn a_pause_keeps_the_time_of_the_stage() {
    let mut story = Story::of(plan(&[500, 10_000]));
    let plan = story.plan.clone();
    story.rollout.pause().unwrap();
    assert_eq!(story.see(&fine(500)), None);
    story.rollout.resume(&plan, &fine(501)).unwrap();
    assert_eq!(story.see(&fine(502)), Some(Change::Promoted));
    assert!(story.rollout.resume(&plan, &fine(503)).is_err());
}

#[test]
fn people_promote_over_gates_and_to_the_end() {
    let mut gated = plan(&[100, 2_500, 9_500]);
    gated.stages[1].gate = true;
    let mut story = Story::of(gated);
    let plan = story.plan.clone();
    story.rollout.promote(&plan, &fine(1)).unwrap();
    story.check(Phase::Progressing, 2, 2_500);
    let crowded = Seen { others_bp: 1, ..fine(2) };
    assert!(story.rollout.promote_fully(Some(&plan), &crowded).is_err());
    story.rollout.promote_fully(Some(&plan), &fine(3)).unwrap();
    story.check(Phase::Promoted, 3, 10_000);
}

#[test]
fn warming_up_means_one_percent_for_its_period() {
    let plan = plan(&[500, 10_000]);
    let rollout = Rollout::start(&plan, Some(seconds(60)), 0);
    let mut story = Story { plan, rollout };
    story.check(Phase::Progressing, 1, 100);
    assert!(story.rollout.is_warming(seconds(59)));
    assert_eq!(story.see(&fine(59)), None);
    assert_eq!(story.see(&fine(60)), Some(Change::WarmedUp));
    story.check(Phase::Progressing, 1, 500);
}

#[test]
fn an_edited_stage_applies_downwards_always_and_upwards_where_nothing_was_lowered() {
    let edited = |weights_bp: &[u16], lowered: bool| {
        let mut story = Story::of(plan(&[2_500, 10_000]));
        if lowered {
            story.see(&doubtful(1));
        }
        story.rollout.follow(&plan(&[2_500, 10_000]), &plan(weights_bp), &fine(2));
        story.rollout.weight_bp()
    };
    assert_eq!(edited(&[1_000, 10_000], false), 1_000);
    assert_eq!(edited(&[4_000, 10_000], false), 4_000);
    assert_eq!(edited(&[300, 10_000], true), 300);
    assert_eq!(edited(&[4_000, 10_000], true), 500);
}

#[test]
fn a_state_survives_being_written_down() {
    let mut story = Story::of(plan(&[2_500, 10_000]));
    story.see(&doubtful(10));
    let text = serde_json::to_string(&story.rollout).unwrap();
    assert_eq!(serde_json::from_str::<Rollout>(&text).unwrap(), story.rollout);
}

#[test]
fn a_cohort_that_is_condemned_alone_goes_alone_and_stays_away_until_a_retry() {
    let condemned = |now, cohort: &str| {
        let mut seen = Seen { condemned: Some(cohort.into()), ..fine(now) };
        seen.verdict.level = Level::Rollback;
        seen
    };
    let plan = plan(&[2_500, 10_000]);
    let life = Rollout::start(&plan, None, 0);
    let step = life.step(&plan, &condemned(10, "ios"));
    assert_eq!(step.change, Some(Change::CohortOut));
    assert_eq!(
        (step.rollout.weight_bp(), step.rollout.cohorts_out()),
        (2_500, &["ios".into()][..])
    );
    assert!(step.rollout.sentence(&plan).contains("rolled back for cohort ios"));
    let next = step.rollout.step(&plan, &fine(130)).rollout;
    assert_eq!((next.weight_bp(), next.cohorts_out().len()), (10_000, 1));
    // What is condemned although it is out already is the rest.
    let rest = step.rollout.step(&plan, &condemned(11, "ios"));
    assert_eq!(rest.change, Some(Change::RolledBack(Why::Evidence)));
    let retried = rest.rollout.retry(&plan, None, 0).unwrap();
    assert_eq!(retried.cohorts_out().len(), 0);
}

#[test]
fn too_few_users_hold_a_stage_that_has_lasted() {
    let plan = plan(&[2_500, 10_000]);
    let few = |now| Seen { obstacle: Some(Obstacle::TooFewUsers), ..fine(now) };
    let life = Rollout::start(&plan, None, 0);
    let early = life.step(&plan, &few(10)).rollout;
    assert_eq!((early.wait(), early.phase()), (Wait::Time, Phase::Progressing));
    let held = early.step(&plan, &few(130)).rollout;
    assert_eq!((held.stage(), held.phase()), (1, Phase::Holding));
    assert!(held.sentence(&plan).contains("too few users"));
}
