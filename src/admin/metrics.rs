//! The metric families of `/metrics`, written from one snapshot.
//!
//! Labels come from the configuration or from closed sets, never from a request. Every family is
//! there from the first scrape on, with its series at 0.

use std::{
    collections::BTreeMap,
    time::{SystemTime, UNIX_EPOCH},
};

use super::exposition::{Exposition, Format, Kind};
use crate::{
    measure::{EndpointState, OVERHEAD_BUCKETS, Outcome, RescueResult, ShedReason, Totals},
    rollout::{DecisionKind, Phase, Snapshot},
};

/// The whole scrape.
pub(super) fn render(snapshot: &Snapshot, format: Format) -> String {
    let mut out = Exposition::new(format);
    requests(&mut out, snapshot);
    durations(&mut out, snapshot);
    weights(&mut out, snapshot);
    rollouts(&mut out, snapshot);
    sessions(&mut out, snapshot);
    connections(&mut out, snapshot);
    accounting(&mut out, snapshot);
    configuration(&mut out, snapshot);
    out.finish()
}

fn requests(out: &mut Exposition, snapshot: &Snapshot) {
    // The versions of a canary have recorders of their own and share one series.
    let mut series: BTreeMap<(&str, &str, &str), Totals> = BTreeMap::new();
    for view in &snapshot.recorders {
        let labels = &view.labels;
        series.entry((&labels.route, &labels.cohort, &labels.arm)).or_default().add(&view.totals);
    }
    let mut family = out.family(
        "haldane_requests_total",
        Kind::Counter,
        "Requests that ended, by route, cohort, arm of the assignment and outcome.",
    );
    for ((route, cohort, arm), totals) in &series {
        for outcome in Outcome::ALL {
            let labels = [
                ("route", *route),
                ("cohort", *cohort),
                ("arm", *arm),
                ("outcome", outcome.label()),
            ];
            family.count(&labels, totals.ended(outcome));
        }
    }
    let mut family = out.family(
        "haldane_requests_in_flight",
        Kind::Gauge,
        "Requests that are assigned and have not ended.",
    );
    for ((route, cohort, arm), totals) in &series {
        let labels = [("route", *route), ("cohort", *cohort), ("arm", *arm)];
        family.value(&labels, totals.in_flight() as f64);
    }
}

fn durations(out: &mut Exposition, snapshot: &Snapshot) {
    let bounds = Snapshot::DURATION_BOUNDS_US.map(|bound_us| bound_us as f64 / 1e6);
    let mut family = out.family(
        "haldane_request_duration_seconds",
        Kind::Histogram,
        "Time from the arrival of a request to the last byte of its answer.",
    );
    for view in &snapshot.durations {
        let labels = [("route", &*view.route), ("arm", &*view.arm)];
        family.histogram(&labels, &bounds, &view.buckets, view.sum_us as f64 / 1e6);
    }
    let bounds: [f64; OVERHEAD_BUCKETS - 1] =
        std::array::from_fn(|bucket| (1_u64 << bucket) as f64 / 1e6);
    out.family(
        "haldane_proxy_overhead_seconds",
        Kind::Histogram,
        "Time that requests spent in the proxy itself, neither waiting for a connection nor for \
         the upstream.",
    )
    .histogram(&[], &bounds, &snapshot.overhead, snapshot.overhead_sum_us as f64 / 1e6);
}

fn weights(out: &mut Exposition, snapshot: &Snapshot) {
    let mut family = out.family(
        "haldane_canary_weight",
        Kind::Gauge,
        "The share of a cohort's traffic that a canary is given, from 0 to 1.",
    );
    for view in &snapshot.weights {
        let labels =
            [("service", &*view.service), ("canary", &*view.canary), ("cohort", &*view.cohort)];
        family.value(&labels, f64::from(view.weight_bp) / 1e4);
    }
    let mut family = out.family(
        "haldane_canary_weight_actual",
        Kind::Gauge,
        "The canary's share of the requests of the last 60 s, forced ones left out; NaN without \
         any.",
    );
    for view in &snapshot.canaries {
        let labels = [("service", &*view.service), ("canary", &*view.canary)];
        family.value(&labels, view.weight_actual.unwrap_or(f64::NAN));
    }
}

fn rollouts(out: &mut Exposition, snapshot: &Snapshot) {
    let mut family =
        out.family("haldane_evidence", Kind::Gauge, "The odds against a canary: the e-value.");
    for view in &snapshot.canaries {
        let labels = [("service", &*view.service), ("canary", &*view.canary)];
        family.value(&labels, view.evidence);
    }
    let mut family = out.family(
        "haldane_rollout_phase",
        Kind::Gauge,
        "1 for the phase that a rollout is in, 0 for all others.",
    );
    for view in &snapshot.canaries {
        for phase in Phase::ALL {
            let labels =
                [("service", &*view.service), ("canary", &*view.canary), ("phase", phase.label())];
            family.value(&labels, f64::from(u8::from(view.phase == phase)));
        }
    }
    placebos(out, snapshot);
    let mut family = out.family(
        "haldane_slo_burn_rate",
        Kind::Gauge,
        "How fast an arm uses what an objective allows over its window: 1 uses it up exactly.",
    );
    for view in &snapshot.objectives {
        let labels = [
            ("service", &*view.service),
            ("scope", &*view.scope),
            ("objective", &*view.objective),
            ("arm", &*view.arm),
        ];
        family.value(&labels, view.burn_rate);
    }
    let mut family = out.family(
        "haldane_decisions_total",
        Kind::Counter,
        "Decisions about a rollout since the start of the process.",
    );
    for view in &snapshot.canaries {
        for (kind, count) in DecisionKind::ALL.into_iter().zip(view.decisions) {
            let labels =
                [("service", &*view.service), ("canary", &*view.canary), ("action", kind.label())];
            family.count(&labels, count);
        }
    }
}

fn placebos(out: &mut Exposition, snapshot: &Snapshot) {
    let mut family = out.family(
        "haldane_placebo_evidence",
        Kind::Gauge,
        "The largest odds of the day against a baseline endpoint that is taken for a canary, by \
         length of blocks.",
    );
    for view in &snapshot.placebos {
        for (seconds, odds) in &view.evidence {
            let block = format!("{seconds}s");
            family.value(&[("service", &*view.service), ("block", &block)], *odds);
        }
    }
    let mut family = out.family(
        "haldane_placebo_alarms_total",
        Kind::Counter,
        "How often endpoints of a baseline turned out to differ so much that promotion stops.",
    );
    for view in &snapshot.placebos {
        family.count(&[("service", &*view.service)], view.alarms);
    }
}

fn sessions(out: &mut Exposition, snapshot: &Snapshot) {
    let mut family = out.family(
        "haldane_sessions_moved_total",
        Kind::Counter,
        "Users with a key that were on a canary and came back to the baseline.",
    );
    for (service, count) in &snapshot.sessions_moved {
        family.count(&[("service", &**service)], *count);
    }
}

fn connections(out: &mut Exposition, snapshot: &Snapshot) {
    let mut family = out.family(
        "haldane_upstream_connections",
        Kind::Gauge,
        "Connections to upstreams, by what they are doing.",
    );
    for view in &snapshot.upstreams {
        let states =
            [("idle", view.idle), ("in_use", view.in_use), ("connecting", view.connecting)];
        for (state, count) in states {
            family.value(&[("upstream", &*view.upstream), ("state", state)], f64::from(count));
        }
    }
    let mut family = out.family(
        "haldane_upstream_endpoints",
        Kind::Gauge,
        "Endpoints of upstreams, by how they stand on the worker that thinks the least of them.",
    );
    for view in &snapshot.endpoints {
        for state in EndpointState::ALL {
            let labels = [("upstream", &*view.upstream), ("state", state.label())];
            family.value(&labels, f64::from(view.states[state.index()]));
        }
    }
    let mut family = out.family(
        "haldane_upstream_panic",
        Kind::Gauge,
        "1 where no endpoint of an upstream is fit, so that all of them get requests.",
    );
    for view in &snapshot.endpoints {
        family.value(&[("upstream", &*view.upstream)], f64::from(u8::from(view.panics)));
    }
    out.family("haldane_client_connections", Kind::Gauge, "Open connections of clients.")
        .value(&[], snapshot.open_connections as f64);
    let mut family = out.family(
        "haldane_shed_total",
        Kind::Counter,
        "Requests and connections that the proxy refused of its own accord.",
    );
    for reason in ShedReason::ALL {
        family.count(&[("reason", reason.label())], snapshot.shed[reason.index()]);
    }
    let mut family = out.family(
        "haldane_rescues_total",
        Kind::Counter,
        "Requests that failed on a canary and may be replayed on the baseline, by what came of it.",
    );
    for rescues in &snapshot.rescues {
        for result in RescueResult::ALL {
            let labels = [("service", &*rescues.service), ("result", result.label())];
            family.count(&labels, rescues.counts[result.index()]);
        }
    }
    let mut family = out.family(
        "haldane_retries_total",
        Kind::Counter,
        "Requests that an endpoint broke off and that may be repeated on another one of the same \
         arm, by what came of it.",
    );
    for retries in &snapshot.retries {
        for result in RescueResult::ALL {
            let labels = [("upstream", &*retries.upstream), ("result", result.label())];
            family.count(&labels, retries.counts[result.index()]);
        }
    }
    out.family(
        "haldane_accept_pauses_total",
        Kind::Counter,
        "Times that a worker paused accepting connections.",
    )
    .count(&[], snapshot.accept_pauses);
}

fn accounting(out: &mut Exposition, snapshot: &Snapshot) {
    out.family(
        "haldane_control_lateness_seconds",
        Kind::Gauge,
        "How late the control thread woke up at worst within the last second.",
    )
    .value(&[], snapshot.control_lateness.as_secs_f64());
    out.family("haldane_journal_writable", Kind::Gauge, "1 while the journal takes writes.")
        .value(&[], f64::from(u8::from(snapshot.journal_writable)));
    for (name, help, count) in [
        ("haldane_journal_bytes_total", "Bytes written to the journal.", snapshot.journal.bytes),
        (
            "haldane_journal_lost_blocks_total",
            "Blocks that found no room on their way to the journal.",
            snapshot.journal.lost_blocks,
        ),
        (
            "haldane_journal_stalls_total",
            "Writes to the journal that took longer than a second.",
            snapshot.journal.stalls,
        ),
        (
            "haldane_journal_failures_total",
            "Attempts to write to the journal that failed.",
            snapshot.journal.failures,
        ),
    ] {
        out.family(name, Kind::Counter, help).count(&[], count);
    }
    out.family("haldane_events_total", Kind::Counter, "Events that were counted.")
        .count(&[], snapshot.counters.events);
    let counters = &snapshot.counters;
    let losses = [
        ("unknown_recorder", counters.unknown_recorder),
        ("past_every_deadline", counters.past_every_deadline),
        ("slot_evicted", counters.slots_evicted),
        ("buffer_overflow", counters.overflows),
        ("late_worker", counters.late_workers),
        ("void_block", counters.void_blocks),
        ("spilled_recorder", counters.spilled_recorders),
        ("unit_dropped", counters.units_dropped),
    ];
    let mut family = out.family(
        "haldane_accounting_losses_total",
        Kind::Counter,
        "What could not become evidence, by reason.",
    );
    for (reason, count) in losses {
        family.count(&[("reason", reason)], count);
    }
}

fn configuration(out: &mut Exposition, snapshot: &Snapshot) {
    let config = &snapshot.config;
    out.family(
        "haldane_config_last_reload_successful",
        Kind::Gauge,
        "1 if the last configuration that was loaded is in force, 0 if it was refused.",
    )
    .value(&[], f64::from(u8::from(config.last_reload_successful)));
    out.family(
        "haldane_config_last_reload_success_timestamp_seconds",
        Kind::Gauge,
        "When a configuration was last put in force, in seconds since 1970.",
    )
    .value(&[], unix_seconds(config.last_success));
    out.family("haldane_config_info", Kind::Gauge, "The configuration in force.")
        .value(&[("hash", &*config.hash)], 1.0);
    out.family("haldane_build_info", Kind::Gauge, "The running binary.")
        .value(&[("version", env!("CARGO_PKG_VERSION"))], 1.0);
}

fn unix_seconds(time: SystemTime) -> f64 {
    time.duration_since(UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64())
}

#[cfg(test)]
mod tests {
    use std::{sync::Arc, time::Duration};

    use super::*;
    use crate::{
        measure::{Counters, Rescues, Retries, UpstreamConnections},
        rollout::{
            CanaryView, ConfigView, DurationView, EndpointsView, PlaceboView, RecorderLabels,
            RecorderView, Status, WeightView,
        },
    };

    fn recorder(version: &str, started: u64) -> RecorderView {
        let labels = RecorderLabels {
            service: "shop".into(),
            route: "cart".into(),
            cohort: "default".into(),
            arm: "v2".into(),
            version: version.into(),
        };
        let mut totals = Totals::default();
        totals.started = started;
        RecorderView { labels: Arc::new(labels), totals }
    }

    fn snapshot() -> Snapshot {
        Snapshot {
            at: UNIX_EPOCH,
            status: Arc::new(Status::default()),
            recorders: vec![recorder("1", 3), recorder("2", 4)],
            durations: vec![DurationView {
                route: "cart".into(),
                arm: "v2".into(),
                buckets: [1; Snapshot::DURATION_BOUNDS_US.len() + 1],
                sum_us: 1_500_000,
            }],
            overhead: [2; OVERHEAD_BUCKETS],
            overhead_sum_us: 10,
            weights: vec![WeightView {
                service: "shop".into(),
                canary: "v2".into(),
                cohort: "default".into(),
                weight_bp: 500,
            }],
            canaries: vec![CanaryView {
                service: "shop".into(),
                canary: "v2".into(),
                phase: Phase::Paused,
                weight_actual: None,
                evidence: 1.0,
                decisions: [0; DecisionKind::ALL.len()],
            }],
            objectives: Vec::new(),
            placebos: vec![PlaceboView {
                service: "shop".into(),
                evidence: vec![(5, 1.5)],
                block_seconds: 5,
                alarm: true,
                alarms: 2,
            }],
            sessions_moved: Vec::new(),
            upstreams: vec![UpstreamConnections {
                upstream: "shop-v2".into(),
                idle: 3,
                in_use: 2,
                connecting: 1,
            }],
            endpoints: vec![EndpointsView {
                upstream: "shop-v2".into(),
                states: [2, 0, 0, 0, 1, 0],
                panics: false,
            }],
            shed: [0; ShedReason::ALL.len()],
            rescues: vec![Rescues { service: "shop".into(), counts: [3, 2, 1] }],
            retries: vec![Retries { upstream: "shop-v2".into(), counts: [5, 0, 0] }],
            accept_pauses: 0,
            open_connections: 9,
            control_lateness: Duration::from_millis(2),
            counters: Counters::default(),
            config: ConfigView {
                hash: "abc".into(),
                last_reload_successful: true,
                last_success: UNIX_EPOCH + Duration::from_secs(5),
                last_error: None,
            },
            journal: crate::rollout::JournalCounts::default(),
            journal_writable: true,
            recent: Vec::new(),
        }
    }

    #[track_caller]
    fn check(line: &str) {
        let text = render(&snapshot(), Format::Prometheus);
        assert!(text.lines().any(|found| found == line), "{line} is not in\n{text}");
    }

    #[test]
    fn every_outcome_has_a_series_before_any_request_ends() {
        for outcome in Outcome::ALL {
            let outcome = outcome.label();
            check(&format!(
                "haldane_requests_total{{route=\"cart\",cohort=\"default\",arm=\"v2\",\
                 outcome=\"{outcome}\"}} 0"
            ));
        }
    }

    #[test]
    fn the_versions_of_a_canary_are_one_series() {
        check("haldane_requests_in_flight{route=\"cart\",cohort=\"default\",arm=\"v2\"} 7");
    }

    #[test]
    fn a_rollout_is_in_exactly_one_phase() {
        check("haldane_rollout_phase{service=\"shop\",canary=\"v2\",phase=\"paused\"} 1");
        check("haldane_rollout_phase{service=\"shop\",canary=\"v2\",phase=\"caution\"} 0");
        check("haldane_canary_weight_actual{service=\"shop\",canary=\"v2\"} NaN");
    }

    #[test]
    fn a_placebo_shows_its_evidence_and_its_alarms() {
        check("haldane_placebo_evidence{service=\"shop\",block=\"5s\"} 1.5");
        check("haldane_placebo_alarms_total{service=\"shop\"} 2");
    }

    #[test]
    fn rescues_have_a_series_for_every_result() {
        check("haldane_rescues_total{service=\"shop\",result=\"rescued\"} 3");
        check("haldane_rescues_total{service=\"shop\",result=\"failed\"} 2");
        check("haldane_rescues_total{service=\"shop\",result=\"out_of_budget\"} 1");
    }

    #[test]
    fn endpoints_have_a_series_for_every_state() {
        check("haldane_upstream_endpoints{upstream=\"shop-v2\",state=\"ready\"} 2");
        check("haldane_upstream_endpoints{upstream=\"shop-v2\",state=\"ejected\"} 0");
        check("haldane_upstream_endpoints{upstream=\"shop-v2\",state=\"unhealthy\"} 1");
        check("haldane_upstream_panic{upstream=\"shop-v2\"} 0");
        check("haldane_retries_total{upstream=\"shop-v2\",result=\"rescued\"} 5");
    }

    #[test]
    fn histograms_end_with_the_bucket_that_holds_everything() {
        check("haldane_proxy_overhead_seconds_bucket{le=\"+Inf\"} 48");
        check("haldane_proxy_overhead_seconds_bucket{le=\"1e-6\"} 2");
        check("haldane_request_duration_seconds_bucket{route=\"cart\",arm=\"v2\",le=\"+Inf\"} 17");
        check("haldane_request_duration_seconds_sum{route=\"cart\",arm=\"v2\"} 1.5");
    }

    #[test]
    fn every_family_of_the_contract_is_there() {
        let text = render(&snapshot(), Format::Prometheus);
        for name in [
            "haldane_requests_total",
            "haldane_request_duration_seconds",
            "haldane_proxy_overhead_seconds",
            "haldane_canary_weight",
            "haldane_canary_weight_actual",
            "haldane_evidence",
            "haldane_rollout_phase",
            "haldane_decisions_total",
            "haldane_upstream_connections",
            "haldane_shed_total",
            "haldane_control_lateness_seconds",
            "haldane_config_last_reload_successful",
            "haldane_config_last_reload_success_timestamp_seconds",
            "haldane_config_info",
            "haldane_build_info",
        ] {
            assert_eq!(text.matches(&format!("# TYPE {name} ")).count(), 1, "{name}");
            assert_eq!(text.matches(&format!("# HELP {name} ")).count(), 1, "{name}");
        }
    }
}
