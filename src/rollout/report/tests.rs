//! Reports of recorded rollouts: what they say, and that they say it safely.

use std::path::Path;

use super::*;
use crate::rollout::{
    DecisionKind, Phase,
    recording::{Behaviour, Recording, USUAL},
    testing,
};

const BAD: Behaviour = Behaviour { failed: 0.02, slow: 3.0 };

fn recording(state_dir: &Path) -> Recording {
    Recording::begin(state_dir, testing::plan(&[500, 2_500, 5_000, 10_000], false).unwrap())
}

fn report(state_dir: &Path) -> Report {
    Report::read(state_dir, "shop", None).unwrap()
}

fn both(report: &Report) -> [String; 2] {
    [ReportForm::Markdown, ReportForm::Html].map(|form| report.render(form))
}

#[test]
fn a_rollback_is_told_with_its_cause_its_effect_and_its_cost() {
    let state_dir = tempfile::tempdir().unwrap();
    let mut recording = recording(state_dir.path());
    recording.seconds(120, USUAL, USUAL);
    recording.until(Phase::RolledBack, USUAL, BAD);
    recording.end();
    for text in both(&report(state_dir.path())) {
        for part in [
            "2.3.1",
            "rolled back",
            "excess bad requests",
            "evidence against it",
            "leading sign",
            "latency at p99",
            "canary beyond p99",
            "advance",
        ] {
            assert!(text.contains(part), "{part}: {text}");
        }
        assert!(!text.contains("NaN") && !text.contains("inf"), "{text}");
        assert!(!text.contains("Make it the baseline"));
    }
}

#[test]
fn a_promotion_comes_with_the_edit_that_makes_the_canary_the_baseline() {
    let state_dir = tempfile::tempdir().unwrap();
    let mut recording = recording(state_dir.path());
    recording.until(Phase::Promoted, USUAL, USUAL);
    recording.end();
    let report = report(state_dir.path());
    assert!(report.render(ReportForm::Markdown).contains("what canaries.v2.upstream says"));
    let upstreams = Some(["shop-v1".to_owned(), "shop-v2".to_owned()]);
    for text in both(&report.with_upstreams(upstreams)) {
        assert!(text.contains("    baseline: shop-v2    # before: shop-v1\n"), "{text}");
    }
}

#[test]
fn a_running_rollout_has_a_report_and_one_that_just_began_too() {
    let state_dir = tempfile::tempdir().unwrap();
    let mut recording = recording(state_dir.path());
    recording.snapshot();
    let text = both(&report(state_dir.path()));
    assert!(text[0].contains("It is going on: 5 % of the traffic"), "{}", text[0]);
    recording.seconds(20, USUAL, USUAL);
    recording.end();
    let text = both(&report(state_dir.path()));
    assert!(text[1].contains("progressing"));
    assert!(text.iter().all(|text| !text.contains("NaN")));
}

#[test]
fn what_people_wrote_is_text_and_nothing_else() {
    let state_dir = tempfile::tempdir().unwrap();
    let mut recording = recording(state_dir.path());
    let life = recording.life.clone();
    let reason = "<script>alert(1)</script> | a | table\nand \"more\"";
    recording.decide(DecisionKind::Pause, "a <b>person</b>", reason, &life);
    recording.end();
    let [markdown, html] = both(&report(state_dir.path()));
    assert!(!html.contains("<script") && !html.contains("<b>"), "{html}");
    assert!(html.contains("&lt;script&gt;"));
    let row = markdown.lines().find(|line| line.contains("alert")).unwrap();
    assert_eq!(row.matches(" | ").count(), 7, "{row}");
    assert!(!row.contains(" <b>"), "{row}");
}

#[test]
fn the_last_rollout_is_told_and_those_before_it_counted() {
    let state_dir = tempfile::tempdir().unwrap();
    for _ in 0..3 {
        let mut recording = recording(state_dir.path());
        recording.seconds(5, USUAL, USUAL);
        recording.end();
    }
    let report = report(state_dir.path());
    assert_eq!((report.earlier, report.decisions.len()), (2, 1));
    assert!(report.render(ReportForm::Markdown).contains("| rollouts before | 2 |"));
}

#[test]
fn what_the_journal_does_not_know_is_said_with_what_it_knows() {
    let state_dir = tempfile::tempdir().unwrap();
    recording(state_dir.path()).end();
    let unknown = |service: &str, canary: Option<&str>| {
        Report::read(state_dir.path(), service, canary).unwrap_err().to_string()
    };
    assert_eq!(unknown("shop", Some("v3")), "the journal has no rollout of shop/v3, but of v2");
    assert_eq!(unknown("cart", None), "the journal has no rollout of cart");
    assert!(Report::read(state_dir.path(), "shop", Some("v2")).is_ok());
}

#[test]
fn a_long_rollout_is_told_in_a_bounded_number_of_slices() {
    let mut series = Series::default();
    for second in 0..100_000 {
        series.note(second * 1000, second as f64, 0.0);
    }
    assert!(series.slices.len() <= 240 && series.width_ms == 512_000, "{}", series.width_ms);
    assert_eq!(series.slices.last().unwrap().odds_ln, Some(99_999.0));
    assert_eq!(series.slices[0].odds_ln, Some(511.0));
    assert!(series.rows(24).len() <= 24);
}

#[test]
fn numbers_are_written_for_people() {
    let shown = [0.0, 0.4, 59.0, 200.0, 7300.0, 200_000.0].map(story::duration);
    assert_eq!(shown, ["0 s", "0.4 s", "59 s", "3 min 20 s", "2 h 1 min", "2 d 7 h"]);
    assert_eq!(story::thousands(1_234_567), "1,234,567");
}
