//! Listeners, compiled.

use std::{collections::HashMap, path::PathBuf, sync::Arc};

use super::Compiling;
use crate::{
    config::{
        file,
        given::{Given, Many},
        reading::Spot,
        values::Text,
    },
    proxy::{Limits, Listen, ListenerSettings, ListenerTls},
};

pub(super) fn compile(
    list: &Given<Many<file::Listener>>,
    compiling: &Compiling<'_, '_>,
) -> Vec<ListenerSettings> {
    if list.is_absent() {
        compiling.missing(
            Spot::default(),
            "listeners",
            "write `listeners: [{ address: \"0.0.0.0:8080\" }]`",
        );
    }
    let mut listeners = Vec::new();
    let mut names = HashMap::new();
    let mut addresses = HashMap::new();
    for (listener, spot) in compiling.items(list).iter().filter_map(Given::located) {
        let Some(settings) = compile_one(listener, spot, compiling) else { continue };
        let line = compiling.reading.line(spot);
        if let Some(first) = names.insert(settings.name.clone(), line) {
            let message = format!("the name `{}` is taken, see line {first}", settings.name);
            compiling.problem(spot, message);
        }
        let any_port = matches!(&settings.address, Listen::Tcp(address) if address.port() == 0);
        if let Some(first) = addresses.insert(settings.address.clone(), line).filter(|_| !any_port)
        {
            compiling.problem(spot, format!("the address is taken, see line {first}"));
        }
        listeners.push(settings);
    }
    listeners
}

fn compile_one(
    listener: &file::Listener,
    spot: Spot,
    compiling: &Compiling<'_, '_>,
) -> Option<ListenerSettings> {
    let limits = compile_limits(&listener.limits, compiling);
    let tls = compile_tls(&listener.tls, compiling);
    let trusted_proxies = compiling.networks(&listener.trusted_proxies);
    let proxy_protocol = listener.proxy_protocol.get().is_some_and(|flag| flag.0);
    if proxy_protocol {
        compiling.not_yet("the PROXY protocol", listener.proxy_protocol.spot());
    }
    if listener.redirect.get().is_some() {
        compiling.not_yet("redirecting listeners", listener.redirect.spot());
        if tls.is_some() {
            compiling.problem(listener.redirect.spot(), "a listener with TLS is https already");
        }
    }
    if let Some((Text(name), spot)) = listener.name.located() {
        compiling.check_name(name, spot);
    }
    let Some((Text(text), address_spot)) = listener.address.located() else {
        if listener.address.is_absent() {
            compiling.missing(spot, "address", "write it like `address: 0.0.0.0:8080`");
        }
        return None;
    };
    let address = compile_address(text, address_spot, compiling)?;
    let name: Arc<str> = listener.name.get().map_or(text.as_str(), |name| &name.0).into();
    Some(ListenerSettings {
        name,
        address,
        tls,
        trusted_proxies,
        proxy_protocol,
        redirect_https: listener.redirect.get().is_some(),
        limits,
    })
}

fn compile_address(text: &str, spot: Spot, compiling: &Compiling<'_, '_>) -> Option<Listen> {
    if let Some(path) = text.strip_prefix("unix:") {
        if path.is_empty() {
            compiling.problem(spot, "`unix:` without a path");
            return None;
        }
        return Some(Listen::Unix(compiling.base.join(path)));
    }
    let address = text.parse().ok().map(Listen::Tcp);
    if address.is_none() {
        let help = match text.rsplit_once(':') {
            Some(("" | "*", port)) => format!("write 0.0.0.0:{port} or \"[::]:{port}\""),
            Some(("localhost", port)) => format!("write 127.0.0.1:{port}"),
            Some(_) | None => {
                "write it like 0.0.0.0:8080, \"[::]:8080\" or unix:/run/haldane.sock".to_owned()
            }
        };
        compiling.problem_with_help(spot, format!("`{text}` is not an address to listen on"), help);
    }
    address
}

fn compile_tls(
    tls: &Given<file::ListenerTls>,
    compiling: &Compiling<'_, '_>,
) -> Option<ListenerTls> {
    let (tls, spot) = tls.located()?;
    compiling.not_yet("TLS of listeners", spot);
    if tls.certificates.is_absent() {
        let help = "write `certificates: [{ cert: shop.crt, key: shop.key }]`";
        compiling.missing(spot, "certificates", help);
    }
    let mut certificates: Vec<(PathBuf, PathBuf)> = Vec::new();
    for (pair, spot) in compiling.items(&tls.certificates).iter().filter_map(Given::located) {
        if pair.cert.is_absent() || pair.key.is_absent() {
            compiling.problem(spot, "a certificate needs both `cert` and `key`");
        }
        certificates.extend(compiling.path(&pair.cert).zip(compiling.path(&pair.key)));
    }
    Some(ListenerTls { certificates, client_ca: compiling.path(&tls.client_ca) })
}

fn compile_limits(limits: &Given<file::Limits>, compiling: &Compiling<'_, '_>) -> Limits {
    let default = Limits::default();
    let Some(limits) = limits.get() else { return default };
    let header_bytes = match limits.header_size.located() {
        None => default.header_bytes,
        // The parser needs room for a read; a gigabyte of header is no bound at all.
        Some((size, spot)) => match u32::try_from(size.0) {
            Ok(bytes) if (8 * 1024..=16 << 20).contains(&bytes) => bytes,
            Ok(_) | Err(_) => {
                compiling.problem(spot, "out of bounds: from 8KiB to 16MiB");
                default.header_bytes
            }
        },
    };
    Limits {
        header_bytes,
        header_fields: compiling.number(&limits.header_fields, 1, default.header_fields),
        header_timeout: compiling.time(&limits.header_timeout, default.header_timeout),
        idle_timeout: compiling.time(&limits.idle_timeout, default.idle_timeout),
        body_timeout: compiling.time(&limits.body_timeout, default.body_timeout),
        connections: compiling.number(&limits.connections, 1, default.connections),
        h2_streams: compiling.number(&limits.h2_streams, 1, default.h2_streams),
        reject_escaped_slashes: limits
            .reject_escaped_slashes
            .get()
            .map_or(default.reject_escaped_slashes, |flag| flag.0),
    }
}
