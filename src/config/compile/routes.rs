//! Routes, compiled: in the order of the file, each with its condition.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::Duration,
};

use http::HeaderValue;

use super::{Compiling, matching};
use crate::{
    config::{
        file,
        given::{Given, Many},
        reading::Spot,
        values::Text,
    },
    rollout::Slo,
    routing::{
        Condition, FailedWhen, Judged, RecorderGrid, Rewrite, Route, Service, ServiceId, Statuses,
        Upgrades,
    },
};

/// After this long without an answer a request is hung, unless the route says otherwise.
const TIMEOUT: Duration = Duration::from_secs(10);
/// Counting reaches back this far; a longer timeout is kept, and judged at this age.
const LONGEST_JUDGED: Duration = Duration::from_secs(30);

pub(super) fn compile(
    list: &Given<Many<file::Route>>,
    services: &[Service],
    compiling: &Compiling<'_, '_>,
) -> (Vec<(Condition, Route)>, Vec<Slo>) {
    let service_ids: HashMap<&str, usize> =
        services.iter().enumerate().map(|(index, service)| (&*service.name, index)).collect();
    let mut names = RouteNames::of(list, compiling);
    let mut routes = Vec::new();
    let mut slos = Vec::new();
    for (route, spot) in compiling.items(list).iter().filter_map(Given::located) {
        let service = compile_service(route, spot, &service_ids, compiling);
        let service_name = route.service.get().map_or("", |service| &service.0);
        let name = match route.name.get() {
            Some(Text(name)) => name.as_str().into(),
            None => names.numbered(service_name),
        };
        let condition = matching::compile(&route.matching, &name, compiling);
        slos.push(compile_slo(&route.slo, compiling));
        routes.push((condition, compile_one(route, name, service, compiling)));
    }
    (routes, slos)
}

/// The names of routes: those written, and those made of their service's.
struct RouteNames {
    taken: HashSet<String>,
    numbers: HashMap<String, usize>,
}

impl RouteNames {
    fn of(list: &Given<Many<file::Route>>, compiling: &Compiling<'_, '_>) -> Self {
        let mut lines: HashMap<&str, u32> = HashMap::new();
        let routes = list.get().map_or(&[] as &[_], |list| list).iter().filter_map(Given::get);
        for (Text(name), spot) in routes.filter_map(|route| route.name.located()) {
            compiling.check_name(name, spot);
            if let Some(first) = lines.insert(name, compiling.reading.line(spot)) {
                compiling.problem(spot, format!("the name `{name}` is taken, see line {first}"));
            }
        }
        Self { taken: lines.into_keys().map(str::to_owned).collect(), numbers: HashMap::new() }
    }

    /// `shop`, then `shop-2`, `shop-3`; names that are written are passed over.
    fn numbered(&mut self, service: &str) -> Arc<str> {
        let number = self.numbers.entry(service.to_owned()).or_default();
        loop {
            *number += 1;
            let name = match *number {
                1 => service.to_owned(),
                number => format!("{service}-{number}"),
            };
            if self.taken.insert(name.clone()) {
                return name.into();
            }
        }
    }
}

fn compile_service(
    route: &file::Route,
    spot: Spot,
    ids: &HashMap<&str, usize>,
    compiling: &Compiling<'_, '_>,
) -> ServiceId {
    let Some((Text(name), service_spot)) = route.service.located() else {
        if route.service.is_absent() {
            compiling.missing(spot, "service", "say where the route leads");
        }
        return ServiceId::default();
    };
    let id = ids.get(name.as_str());
    if id.is_none() {
        let mut names: Vec<&str> = ids.keys().copied().collect();
        names.sort_unstable();
        let message = format!("no service is named `{name}`");
        compiling.unknown(service_spot, message, name, names.into_iter());
    }
    ServiceId(id.and_then(|id| u32::try_from(*id).ok()).unwrap_or_default())
}

fn compile_one(
    route: &file::Route,
    name: Arc<str>,
    service: ServiceId,
    compiling: &Compiling<'_, '_>,
) -> Route {
    let timeout = compiling.time(&route.timeout, TIMEOUT);
    if timeout > LONGEST_JUDGED {
        compiling.advise(
            route.timeout.spot(),
            "counting reaches back 30s: a request that hangs longer is judged slow at that age",
        );
    }
    Route {
        name,
        service,
        timeout,
        judged: match route.latency.get() {
            None | Some(file::Latency::FirstByte) => Judged::FirstByte,
            Some(file::Latency::Total) => Judged::Total,
        },
        failed_when: compile_failed_when(&route.failed_when, compiling),
        rescue: route.rescue.get().is_some_and(|rescue| rescue.0),
        retries: compile_retry(&route.retry, compiling),
        upgrades: compile_upgrades(&route.upgrades, compiling),
        rewrite: compile_rewrite(route, compiling),
        request_headers: compiling.header_ops(&route.request_headers),
        response_headers: compiling.header_ops(&route.response_headers),
        recorders: RecorderGrid::default(),
    }
}

fn compile_retry(retry: &Given<file::Retry>, compiling: &Compiling<'_, '_>) -> u32 {
    match retry.get() {
        None => 0,
        Some(file::Retry::Flag(flag)) => u32::from(flag.0),
        Some(file::Retry::Attempts(most)) => compiling.number(&most.attempts, 0, 1),
    }
}

fn compile_upgrades(given: &Given<file::Upgrades>, compiling: &Compiling<'_, '_>) -> Upgrades {
    let mut upgrades = Upgrades::default();
    let written = match given.get() {
        None => return upgrades,
        Some(file::Upgrades::Word(file::UpgradesWord::None)) => {
            upgrades.protocols.clear();
            return upgrades;
        }
        Some(file::Upgrades::These(these)) => these,
    };
    upgrades.idle_timeout = compiling.time(&written.idle_timeout, upgrades.idle_timeout);
    if written.protocols.is_absent() {
        return upgrades;
    }
    upgrades.protocols.clear();
    for (Text(name), spot) in compiling.items(&written.protocols).iter().filter_map(Given::located)
    {
        let name = name.to_ascii_lowercase();
        if http::HeaderName::from_bytes(name.as_bytes()).is_err() {
            compiling.problem_with_help(
                spot,
                format!("`{name}` is not the name of a protocol"),
                "write it as clients write it in `Upgrade`, like `websocket`",
            );
        } else if matches!(&*name, "h2c" | "h2" | "tls") {
            compiling.problem_with_help(
                spot,
                format!("`{name}` cannot be switched to: its requests would pass by unseen"),
                "HTTP/2 needs no upgrade: clients speak it by prior knowledge or over TLS",
            );
        } else {
            upgrades.protocols.push(name.into());
        }
    }
    upgrades
}

fn compile_failed_when(list: &Given<Many<Text>>, compiling: &Compiling<'_, '_>) -> FailedWhen {
    if list.is_absent() {
        return FailedWhen::default();
    }
    FailedWhen::of(compile_statuses(list, compiling))
}

pub(super) fn compile_statuses(
    list: &Given<Many<Text>>,
    compiling: &Compiling<'_, '_>,
) -> Statuses {
    let mut all = Statuses::default();
    for (Text(text), spot) in compiling.items(list).iter().filter_map(Given::located) {
        match statuses(text) {
            Some((first, last)) => all.add(first, last),
            None => compiling.problem_with_help(
                spot,
                format!("`{text}` names no statuses"),
                "write it like 5xx, 429 or 500-504",
            ),
        }
    }
    all
}

/// First and last status of `5xx`, `429` or `500-504`.
fn statuses(text: &str) -> Option<(u16, u16)> {
    let status = |text: &str| text.parse().ok().filter(|status| (100..=599).contains(status));
    if let Some(class) = text.strip_suffix("xx") {
        let class = class.parse().ok().filter(|class: &u16| (1..=5).contains(class))?;
        return Some((class * 100, class * 100 + 99));
    }
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let (first, last) = (status(first.trim())?, status(last.trim())?);
    (first <= last).then_some((first, last))
}

fn compile_rewrite(route: &file::Route, compiling: &Compiling<'_, '_>) -> Rewrite {
    let Some(rewrite) = route.rewrite.get() else { return Rewrite::default() };
    let host = rewrite.host.located().and_then(|(Text(host), spot)| {
        let authority: Option<http::uri::Authority> = host.parse().ok();
        if authority.as_ref().is_none_or(|authority| authority.as_str().contains('@')) {
            compiling.problem(spot, format!("`{host}` is not a host"));
            return None;
        }
        HeaderValue::from_str(host).ok()
    });
    Rewrite { host, path_prefix: compile_prefix(route, &rewrite.path_prefix, compiling) }
}

fn compile_prefix(
    route: &file::Route,
    given: &Given<file::PrefixRewrite>,
    compiling: &Compiling<'_, '_>,
) -> Option<(Arc<str>, Arc<str>)> {
    let (from, to, spot) = match given.located()? {
        (file::PrefixRewrite::FromTo(both), spot) => {
            if both.from.is_absent() || both.to.is_absent() {
                compiling.problem(spot, "a rewrite needs both `from` and `to`");
            }
            (both.from.get()?, both.to.get()?, spot)
        }
        (file::PrefixRewrite::To(to), spot) => {
            let prefixes = route.matching.get().and_then(|matching| matching.path_prefix.get());
            let Some([only]) = prefixes.map(|prefixes| &**prefixes) else {
                compiling.problem_with_help(
                    spot,
                    "what is to be replaced is not clear: the match has not exactly one `path_prefix`",
                    "write `path_prefix: { from: /old, to: /new }`",
                );
                return None;
            };
            (only.get()?, to, spot)
        }
    };
    for Text(path) in [from, to] {
        if !path.starts_with('/') {
            compiling.problem(spot, format!("the path `{path}` does not begin with `/`"));
        }
    }
    let trim = |text: &Text| match text.0.trim_end_matches('/') {
        "" => "/".into(),
        trimmed => trimmed.into(),
    };
    Some((trim(from), trim(to)))
}

pub(super) fn compile_slo(given: &Given<file::Slo>, compiling: &Compiling<'_, '_>) -> Slo {
    let Some(slo) = given.get() else { return Slo::default() };
    let mut latency: Vec<(f64, Duration)> = Vec::new();
    for (name, limit) in slo.latency.get().map_or(&[] as &[_], |limits| limits) {
        let limit = compiling.time(limit, Duration::MAX);
        match quantile(&name.text) {
            Some(quantile) => latency.push((quantile, limit)),
            None => compiling.problem_with_help(
                name.spot,
                format!("`{}` is not a quantile", name.text),
                "write it like p50, p99, p99.9 or p999",
            ),
        }
    }
    latency.sort_by(|left, right| left.0.total_cmp(&right.0));
    let errors = slo.errors.located().map(|(percent, spot)| {
        if percent.steps() >= 10_000 {
            compiling.problem(spot, format!("{percent} of the requests; it must be below 100%"));
        }
        percent.share()
    });
    let window = slo.window.get().map(|_| compiling.time(&slo.window, Duration::MAX));
    Slo { latency, errors, window }
}

/// `p99` is 0.99, `p999` and `p99.9` are 0.999.
fn quantile(name: &str) -> Option<f64> {
    let digits = name.strip_prefix('p')?.replacen('.', "", 1);
    let plain = (2..=5).contains(&digits.len()) && digits.bytes().all(|b| b.is_ascii_digit());
    let share = plain.then(|| format!("0.{digits}").parse::<f64>().ok()).flatten()?;
    (share > 0.0).then_some(share)
}
