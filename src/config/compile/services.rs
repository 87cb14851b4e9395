//! Services, canaries and their plans, compiled. The services come out twice: as the workers need
//! them and as the control plane needs them, in the same order.

use std::{collections::HashMap, sync::Arc};

use http::HeaderName;
use sha2::{Digest, Sha256};

use super::{
    Compiling,
    rollouts::{Plans, of_risk},
    routes::compile_slo,
    upstreams::Upstreams,
};
use crate::{
    config::{
        file,
        given::{Given, Name, Named},
        reading::Spot,
        values::Text,
    },
    rollout::{CanaryPlan, Plan, Risk, ServicePlan, SessionPolicy, Slo},
    routing::{
        Arm, ArmIndex, CohortPolicy, Condition, HeaderOps, Override, Salt, Service, Upstream,
    },
};

/// What services refer to.
pub(super) struct Known<'k> {
    pub(super) cohorts: &'k [(Arc<str>, Condition)],
    pub(super) plans: &'k Plans,
}

/// Most canaries: arms are counted in 8 bits, and the baseline is one of them.
const MOST_CANARIES: usize = u8::MAX as usize - 1;

pub(super) fn compile(
    named: &Given<Named<file::Service>>,
    known: &Known<'_>,
    upstreams: &mut Upstreams,
    compiling: &Compiling<'_, '_>,
) -> (Vec<Service>, Vec<ServicePlan>) {
    // By name, so that 1,000 services that each name a cohort do not search 1,000 cohorts each.
    let cohort_ids: HashMap<&str, usize> = std::iter::once(("default", 0))
        .chain(known.cohorts.iter().enumerate().map(|(index, (name, _))| (&**name, index + 1)))
        .collect();
    let mut services = Vec::new();
    let mut plans = Vec::new();
    for (name, service) in named.get().map_or(&[] as &[_], |named| named) {
        compiling.check_name(&name.text, name.spot);
        let absent = file::Service::default();
        let (written, spot) = service.located().unwrap_or((&absent, service.spot()));
        if service.get().is_some() && written.baseline.is_absent() {
            compiling.missing(spot, "baseline", "write it like `baseline: 127.0.0.1:9001`");
        }
        let (arms, canaries) = compile_arms(&name.text, written, known.plans, upstreams, compiling);
        let (policies, cohort_slos) = compile_cohorts(written, &arms, &cohort_ids, compiling);
        plans.push(ServicePlan {
            service: name.text.as_str().into(),
            canaries,
            sessions_on_rollback: compile_sessions(&written.sessions_on_rollback, compiling),
            cohort_slos,
        });
        services.push(compile_service(name, written, arms, policies, compiling));
    }
    (services, plans)
}

fn compile_service(
    name: &Name,
    written: &file::Service,
    arms: Vec<Arm>,
    cohorts: Vec<CohortPolicy>,
    compiling: &Compiling<'_, '_>,
) -> Service {
    let assign_by = compiling.keys(&written.assign_by);
    let salt = match written.salt.located() {
        Some((Text(salt), spot)) => {
            if salt.is_empty() {
                compiling.problem(spot, "an empty salt");
            }
            salt
        }
        None => {
            if !assign_by.is_empty() {
                compiling.salt_left_at_default(&name.text);
            }
            &name.text
        }
    };
    Service {
        name: name.text.as_str().into(),
        toggles: toggles(&arms),
        arms,
        assign_by,
        salt: Salt::derive(salt),
        override_by: compile_override(&written.override_by, compiling),
        cohorts,
        arm_header: written.arm_header.get().is_some_and(|flag| flag.0),
    }
}

/// What any arm sets or adds: no client may say it itself.
fn toggles(arms: &[Arm]) -> Vec<HeaderName> {
    let mut names: Vec<HeaderName> = Vec::new();
    for arm in arms {
        for (name, _) in arm.request_headers.set.iter().chain(&arm.request_headers.add) {
            if !names.contains(name) {
                names.push(name.clone());
            }
        }
    }
    names
}

fn compile_arms(
    service: &str,
    written: &file::Service,
    plans: &Plans,
    upstreams: &mut Upstreams,
    compiling: &Compiling<'_, '_>,
) -> (Vec<Arm>, Vec<CanaryPlan>) {
    let baseline = upstreams.resolve(&written.baseline, &format!("{service}/baseline"), compiling);
    let mut arms = vec![Arm {
        name: "baseline".into(),
        version: "".into(),
        upstream: baseline,
        request_headers: HeaderOps::default(),
    }];
    let mut canary_plans = Vec::new();
    let canaries = written.canaries.get().map_or(&[] as &[_], |canaries| canaries);
    if canaries.len() > MOST_CANARIES {
        compiling.problem(written.canaries.spot(), format!("more than {MOST_CANARIES} canaries"));
    }
    let plan_of_service = service_plan(written, plans, compiling);
    for (name, canary) in canaries.iter().take(MOST_CANARIES) {
        compiling.check_free_name(&name.text, name.spot);
        let Some((canary, spot)) = canary.located() else { continue };
        if canary.upstream.is_absent() {
            compiling.missing(spot, "upstream", "write it like `upstream: 127.0.0.1:9002`");
        }
        let in_place = format!("{service}/{}", name.text);
        let upstream = upstreams.resolve(&canary.upstream, &in_place, compiling);
        let request_headers = compiling.header_ops(&canary.request_headers);
        let version = match canary.version.located() {
            Some((Text(version), spot)) => {
                check_version(version, spot, compiling);
                version.as_str().into()
            }
            None => definition_hash(upstreams.upstream(upstream), &request_headers).into(),
        };
        let plan = match plans.resolve(&canary.rollout, compiling) {
            Some(own) => own,
            None => plan_of_service.clone(),
        };
        canary_plans.push(CanaryPlan {
            canary: name.text.as_str().into(),
            version: Arc::clone(&version),
            plan: Some(plan),
            warmup: upstreams
                .upstream(upstream)
                .and_then(|upstream| upstream.warmup)
                .map(|warmup| warmup.period),
        });
        arms.push(Arm { name: name.text.as_str().into(), version, upstream, request_headers });
    }
    (arms, canary_plans)
}

fn service_plan(
    written: &file::Service,
    plans: &Plans,
    compiling: &Compiling<'_, '_>,
) -> Arc<Plan> {
    let risk = match written.risk.get() {
        None | Some(file::Risk::Medium) => Risk::Medium,
        Some(file::Risk::Low) => Risk::Low,
        Some(file::Risk::High) => Risk::High,
    };
    plans.resolve(&written.rollout, compiling).unwrap_or_else(|| Arc::new(of_risk(risk)))
}

fn check_version(version: &str, spot: Spot, compiling: &Compiling<'_, '_>) {
    const LONGEST: usize = 128;
    let blank = version.trim().is_empty() || version.chars().any(char::is_control);
    if blank || version.len() > LONGEST {
        compiling.problem_with_help(
            spot,
            format!("`{version}` cannot be a version"),
            format!("any text of 1 to {LONGEST} bytes"),
        );
    }
}

/// Names a canary's definition: where its requests go and with which header. Pool sizes, health
/// checks and the upstream's name may change without it being another version.
fn definition_hash(upstream: Option<&Upstream>, headers: &HeaderOps) -> String {
    let mut hash = Sha256::new();
    if let Some(Upstream { endpoints, protocol, tls, .. }) = upstream {
        hash.update(format!("{endpoints:?} {protocol:?} {tls:?}"));
    }
    let HeaderOps { remove, set, add } = headers;
    hash.update(format!("{remove:?} "));
    for (name, value) in set.iter().chain(add) {
        // By its bytes: the debug form of a sensitive value hides it.
        hash.update(format!("{name} {:?} ", value.as_bytes()));
    }
    hash.finalize().iter().take(6).map(|byte| format!("{byte:02x}")).collect()
}

fn compile_sessions(
    sessions: &Given<file::Sessions>,
    compiling: &Compiling<'_, '_>,
) -> SessionPolicy {
    match sessions.located() {
        None | Some((file::Sessions::Word(file::SessionsWord::Move), _)) => SessionPolicy::Move,
        Some((file::Sessions::Drain(drain), spot)) => {
            if drain.drain.is_absent() {
                compiling.missing(spot, "drain", "write `move` or `{ drain: 5m }`");
            }
            SessionPolicy::Drain(compiling.time(&drain.drain, std::time::Duration::ZERO))
        }
    }
}

fn compile_override(
    given: &Given<file::Override>,
    compiling: &Compiling<'_, '_>,
) -> Option<Override> {
    let (written, spot) = given.located()?;
    let from = compiling.networks(&written.from);
    if written.from.is_absent() {
        compiling.missing(spot, "from", "say whom to believe, as in `from: [10.0.0.0/8]`");
    }
    if let Some(everyone) = from.iter().find(|network| network.prefix_len() == 0) {
        compiling.advise(spot, &format!("from {everyone}: every client may choose its arm"));
    }
    let Some((Text(header), header_spot)) = written.header.located() else {
        if written.header.is_absent() {
            compiling.missing(spot, "header", "write it like `header: x-canary`");
        }
        return None;
    };
    Some(Override { header: compiling.header_name(header, header_spot)?, from })
}

fn compile_cohorts(
    written: &file::Service,
    arms: &[Arm],
    ids: &HashMap<&str, usize>,
    compiling: &Compiling<'_, '_>,
) -> (Vec<CohortPolicy>, Vec<(Arc<str>, Slo)>) {
    let mut policies = Vec::new();
    let mut slos = Vec::new();
    for (name, cohort) in written.cohorts.get().map_or(&[] as &[_], |cohorts| cohorts) {
        let Some(&id) = ids.get(name.text.as_str()) else {
            let mut names: Vec<&str> = ids.keys().copied().collect();
            names.sort_unstable();
            let message = format!("no cohort is named `{}`", name.text);
            compiling.unknown(name.spot, message, &name.text, names.into_iter());
            continue;
        };
        let Some((cohort, spot)) = cohort.located() else { continue };
        let policy = CohortPolicy {
            pin: compile_pin(&cohort.pin, arms, compiling),
            max_weight_bp: compiling.weight(&cohort.max_weight),
        };
        if policy.pin.is_some() && policy.max_weight_bp.is_some() {
            compiling.problem(spot, "a pinned cohort has no weight: either `pin` or `max_weight`");
        }
        if policies.len() <= id {
            policies.resize(id + 1, CohortPolicy::default());
        }
        policies[id] = policy;
        if cohort.slo.get().is_some() {
            slos.push((name.text.as_str().into(), compile_slo(&cohort.slo, compiling)));
        }
    }
    (policies, slos)
}

fn compile_pin(pin: &Given<Text>, arms: &[Arm], compiling: &Compiling<'_, '_>) -> Option<ArmIndex> {
    let (Text(pin), spot) = pin.located()?;
    let index = arms.iter().position(|arm| *arm.name == **pin);
    if index.is_none() {
        let names = arms.iter().map(|arm| &*arm.name);
        compiling.unknown(spot, format!("no arm is named `{pin}`"), pin, names);
    }
    index.and_then(|index| u8::try_from(index).ok()).map(ArmIndex)
}
