//! Upstreams, compiled: the named ones, then those that services write in place.

use std::{
    collections::HashMap,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use super::{Compiling, routes::compile_statuses};
use crate::{
    config::{
        file,
        given::{Given, Named},
        reading::Spot,
        values::{Count, Text},
    },
    routing::{
        Balancing, Eject, Endpoint, HealthCheck, HealthQuestion, Http2, Policy, Protocol, Upstream,
        UpstreamId, UpstreamTls, Warmup,
    },
    tls::{Problem, client_config},
};

/// All upstreams, by id and by name.
pub(super) struct Upstreams {
    list: Vec<Entry>,
    by_name: HashMap<String, UpstreamId>,
}

struct Entry {
    upstream: Arc<Upstream>,
    used: bool,
}

impl Upstreams {
    pub(super) fn compile(
        named: &Given<Named<file::Upstream>>,
        compiling: &Compiling<'_, '_>,
    ) -> Self {
        let mut upstreams = Self { list: Vec::new(), by_name: HashMap::new() };
        for (name, upstream) in named.get().map_or(&[] as &[_], |named| named) {
            compiling.check_name(&name.text, name.spot);
            let compiled = match upstream.located() {
                Some((upstream, spot)) => compile_one(upstream, spot, &name.text, compiling),
                // Unreadable, and noted; the name stands, so that its users are not blamed.
                None => Upstream::bare(&name.text),
            };
            upstreams.add(compiled, false);
        }
        upstreams
    }

    /// The upstream that an arm names, or writes in place as `service/arm`.
    pub(super) fn resolve(
        &mut self,
        given: &Given<file::UpstreamOrName>,
        in_place: &str,
        compiling: &Compiling<'_, '_>,
    ) -> UpstreamId {
        let id = match given.located() {
            None => None,
            Some((file::UpstreamOrName::InPlace(upstream), spot)) => {
                Some(self.add(compile_one(upstream, spot, in_place, compiling), true))
            }
            Some((file::UpstreamOrName::Text(Text(text)), spot)) => {
                self.by_text(text, spot, compiling)
            }
        };
        let id = id.unwrap_or_default();
        if let Some(entry) = self.list.get_mut(id.0 as usize) {
            entry.used = true;
        }
        id
    }

    pub(super) fn upstream(&self, id: UpstreamId) -> Option<&Upstream> {
        self.list.get(id.0 as usize).map(|entry| &*entry.upstream)
    }

    pub(super) fn unused(&self) -> impl Iterator<Item = &str> {
        self.list.iter().filter(|entry| !entry.used).map(|entry| &*entry.upstream.name)
    }

    pub(super) fn into_list(self) -> Vec<Arc<Upstream>> {
        self.list.into_iter().map(|entry| entry.upstream).collect()
    }

    /// An endpoint is its own name, so that both arms may share one upstream and its connections.
    fn by_text(
        &mut self,
        text: &str,
        spot: Spot,
        compiling: &Compiling<'_, '_>,
    ) -> Option<UpstreamId> {
        if let Some(id) = self.by_name.get(text) {
            return Some(*id);
        }
        if text.contains(':') {
            let endpoint = compile_endpoint(text, spot, compiling)?;
            let upstream = Upstream { endpoints: vec![endpoint], ..Upstream::bare(text) };
            return Some(self.add(upstream, true));
        }
        let names = self.by_name.keys().map(String::as_str).filter(|name| !name.contains(':'));
        let mut names: Vec<&str> = names.collect();
        names.sort_unstable();
        let message = format!("no upstream is named `{text}`, and an endpoint has a `:`");
        compiling.unknown(spot, message, text, names.into_iter());
        None
    }

    fn add(&mut self, upstream: Upstream, used: bool) -> UpstreamId {
        let id = UpstreamId(u32::try_from(self.list.len()).unwrap_or(u32::MAX));
        self.by_name.insert(upstream.name.to_string(), id);
        self.list.push(Entry { upstream: Arc::new(upstream), used });
        id
    }
}

fn compile_one(
    written: &file::Upstream,
    spot: Spot,
    name: &str,
    compiling: &Compiling<'_, '_>,
) -> Upstream {
    if written.endpoints.is_absent() {
        compiling.missing(spot, "endpoints", "write it like `endpoints: [\"10.0.0.1:9001\"]`");
    }
    let endpoints = compiling.items(&written.endpoints).iter().filter_map(Given::located);
    let endpoints =
        endpoints.filter_map(|(Text(text), spot)| compile_endpoint(text, spot, compiling));
    let mut upstream = Upstream { endpoints: endpoints.collect(), ..Upstream::bare(name) };
    upstream.protocol = match written.protocol.get() {
        None | Some(file::Protocol::Auto) => Protocol::Auto,
        Some(file::Protocol::Http1) => Protocol::Http1,
        Some(file::Protocol::H2) => Protocol::H2,
    };
    upstream.replicas =
        written.replicas.get().map(|Count(_)| compiling.number(&written.replicas, 1, 1));
    upstream.tls = compile_tls(&written.tls, &upstream.endpoints, compiling);
    upstream.warmup = written.warmup.get().map(|warmup| Warmup {
        connections: compiling.number(&warmup.connections, 0, 8),
        period: compiling.time(&warmup.period, Duration::from_secs(60)),
    });
    if let Some(pool) = written.pool.get() {
        compile_pool(pool, &mut upstream, compiling);
    }
    if let Some(h2) = written.h2.get() {
        let default = Http2::default();
        upstream.h2 = Http2 {
            streams: compiling.number(&h2.streams, 1, default.streams),
            ping_interval: compiling.time(&h2.ping_interval, default.ping_interval),
            ping_timeout: compiling.time(&h2.ping_timeout, default.ping_timeout),
        };
    }
    upstream.health = compile_health_check(&written.health_check, compiling);
    let grpc = |health: &HealthCheck| matches!(health.ask, HealthQuestion::Grpc(_));
    let in_the_clear = upstream.protocol == Protocol::Auto && upstream.tls.is_none();
    if upstream.health.as_ref().is_some_and(grpc)
        && (in_the_clear || upstream.protocol == Protocol::Http1)
    {
        let spot = written.health_check.spot();
        compiling.problem_with_help(spot, "gRPC needs HTTP/2", "write `protocol: h2`");
    }
    compile_balancing(written, &mut upstream.balancing, compiling);
    upstream
}

fn compile_balancing(
    written: &file::Upstream,
    balancing: &mut Balancing,
    compiling: &Compiling<'_, '_>,
) {
    if let Some(balance) = written.balance.get() {
        balancing.policy = match balance {
            file::Balance::PeakEwma => Policy::PeakEwma,
            file::Balance::LeastRequest => Policy::LeastRequest,
            file::Balance::RoundRobin => Policy::RoundRobin,
        };
    }
    balancing.resolve_every = compiling.time(&written.resolve_every, balancing.resolve_every);
    balancing.slow_start =
        written.slow_start.get().map(|_| compiling.time(&written.slow_start, Duration::ZERO));
    balancing.eject = written.eject.get().map(|eject| Eject {
        failures: compiling.number(&eject.failures, 1, 5),
        period: compiling.time(&eject.period, Duration::from_secs(10)),
        at_most: eject.at_most.get().map_or(0.5, |part| part.share()),
    });
    let most = written.pool.get().map(|pool| &pool.max_requests);
    balancing.max_requests =
        most.and_then(|most| most.get().map(|_| compiling.number(most, 1, u32::MAX)));
}

fn compile_health_check(
    check: &Given<file::HealthCheck>,
    compiling: &Compiling<'_, '_>,
) -> Option<HealthCheck> {
    let (check, spot) = check.located()?;
    let ask = match (check.path.located(), check.grpc.get()) {
        (Some(_), Some(_)) => {
            compiling.problem(spot, "either `path` or `grpc`, not both");
            return None;
        }
        (Some((Text(path), spot)), None) => {
            if !path.starts_with('/') {
                compiling.problem(spot, format!("`{path}` does not begin with `/`"));
            }
            let mut good = compile_statuses(&check.statuses, compiling);
            if check.statuses.is_absent() {
                good.add(200, 399);
            }
            HealthQuestion::Path { path: path.as_str().into(), good }
        }
        (None, Some(Text(service))) => HealthQuestion::Grpc(service.as_str().into()),
        (None, None) => {
            if check.path.is_absent() {
                compiling.missing(spot, "path", "write it like `path: /healthz`");
            }
            return None;
        }
    };
    Some(HealthCheck {
        ask,
        interval: compiling.time(&check.interval, Duration::from_secs(5)),
        timeout: compiling.time(&check.timeout, Duration::from_secs(1)),
        healthy: compiling.number(&check.healthy, 1, 2),
        unhealthy: compiling.number(&check.unhealthy, 1, 3),
    })
}

fn compile_pool(pool: &file::Pool, upstream: &mut Upstream, compiling: &Compiling<'_, '_>) {
    upstream.max_connections = compiling.number(&pool.max, 1, upstream.max_connections);
    let idle = upstream.idle_connections.min(upstream.max_connections);
    upstream.idle_connections = compiling.number(&pool.idle, 0, idle);
    if upstream.idle_connections > upstream.max_connections {
        let max = upstream.max_connections;
        compiling.problem(pool.idle.spot(), format!("more idle connections than `max` ({max})"));
    }
    upstream.idle_timeout = compiling.time(&pool.idle_timeout, upstream.idle_timeout);
    upstream.connect_timeout = compiling.time(&pool.connect_timeout, upstream.connect_timeout);
}

fn compile_tls(
    tls: &Given<file::UpstreamTls>,
    endpoints: &[Endpoint],
    compiling: &Compiling<'_, '_>,
) -> Option<UpstreamTls> {
    let (tls, spot) = tls.located()?;
    if tls.cert.is_absent() != tls.key.is_absent() {
        compiling.problem(spot, "a certificate needs both `cert` and `key`");
    }
    let compiled = UpstreamTls {
        server_name: tls.server_name.get().map(|name| name.0.as_str().into()),
        ca: compiling.path(&tls.ca),
        identity: compiling.path(&tls.cert).zip(compiling.path(&tls.key)),
    };
    match tls.server_name.located() {
        Some((Text(name), spot)) if !is_server_name(name) => {
            compiling.problem(spot, format!("`{name}` is neither a host name nor an address"));
        }
        None if endpoints.iter().any(|it| matches!(it, Endpoint::Unix(_))) => {
            compiling.missing(spot, "server_name", "a Unix socket has no name to verify");
        }
        Some(_) | None => {}
    }
    match client_config(compiled.ca.as_deref(), compiled.identity.as_ref()) {
        // Another machine may have them.
        Err(problem @ Problem::NoSystemRoots) => compiling.advise(spot, &problem.to_string()),
        Err(problem) => compiling.problem(spot, problem.to_string()),
        Ok(_) => {}
    }
    Some(compiled)
}

fn is_server_name(name: &str) -> bool {
    name.parse::<IpAddr>().is_ok() || is_host_name(name)
}

fn compile_endpoint(text: &str, spot: Spot, compiling: &Compiling<'_, '_>) -> Option<Endpoint> {
    if let Some(path) = text.strip_prefix("unix:") {
        if path.is_empty() {
            compiling.problem(spot, "`unix:` without a path");
            return None;
        }
        return Some(Endpoint::Unix(compiling.base.join(path)));
    }
    let endpoint = match text.parse::<SocketAddr>() {
        Ok(address) => (address.port() != 0).then_some(Endpoint::Address(address)),
        Err(_) => text.rsplit_once(':').and_then(|(name, port)| {
            let port = port.parse().ok().filter(|port| *port != 0)?;
            is_host_name(name).then(|| Endpoint::Name(name.into(), port))
        }),
    };
    if endpoint.is_none() {
        let help = if text.contains("://") {
            "write host:port alone, without a scheme; TLS is said by `tls`"
        } else {
            "write it like 10.0.0.1:9001, checkout.internal:9001 or unix:/run/checkout.sock"
        };
        compiling.problem_with_help(spot, format!("`{text}` is not an endpoint"), help);
    }
    endpoint
}

fn is_host_name(name: &str) -> bool {
    let label = |label: &str| {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
        !label.is_empty() && label.len() <= 63 && label.bytes().all(plain)
    };
    let name = name.strip_suffix('.').unwrap_or(name);
    // Digits and dots alone are an address that failed to parse.
    let numeric = name.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
    name.len() <= 253 && !numeric && name.split('.').all(label)
}
