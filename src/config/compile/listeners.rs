//! Listeners, compiled.

use std::{collections::HashMap, net::SocketAddr, sync::Arc};

use super::{Compiling, listener_tls};
use crate::{
    config::{
        file,
        given::{Given, Many},
        reading::Spot,
        values::Text,
    },
    proxy::{Limits, Listen, ListenerSettings},
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
    let https = https_port(list);
    let mut listeners = Vec::new();
    let mut names = HashMap::new();
    let mut addresses = HashMap::new();
    for (listener, spot) in compiling.items(list).iter().filter_map(Given::located) {
        let Some(settings) = compile_one(listener, spot, https, compiling) else { continue };
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
    reserve_fields(&mut listeners);
    listeners
}

/// Where https is: the port of a listener with TLS, the usual one before others.
fn https_port(list: &Given<Many<file::Listener>>) -> u16 {
    const USUAL: u16 = 443;
    let listeners = list.get().map_or(&[] as &[_], |list| list);
    let ports: Vec<u16> = listeners
        .iter()
        .filter_map(Given::get)
        .filter(|listener| listener.tls.get().is_some())
        .filter_map(|listener| listener.address.get()?.0.parse::<SocketAddr>().ok())
        .map(|address| address.port())
        .filter(|port| *port != 0)
        .collect();
    if ports.contains(&USUAL) { USUAL } else { ports.first().copied().unwrap_or(USUAL) }
}

/// What one listener tells the upstream of its clients, a client of another must not say.
fn reserve_fields(listeners: &mut [ListenerSettings]) {
    let tls = listeners.iter().filter_map(|listener| listener.tls.as_ref());
    let fields: Vec<_> = tls.filter_map(|tls| tls.client_header.clone()).collect();
    for listener in listeners {
        listener.reserved_fields.clone_from(&fields);
    }
}

fn compile_one(
    listener: &file::Listener,
    spot: Spot,
    https: u16,
    compiling: &Compiling<'_, '_>,
) -> Option<ListenerSettings> {
    let limits = compile_limits(&listener.limits, compiling);
    let tls = listener_tls::compile(&listener.tls, compiling);
    let trusted_proxies = compiling.networks(&listener.trusted_proxies);
    let proxy_protocol = listener.proxy_protocol.get().is_some_and(|flag| flag.0);
    let forwarded = listener.forwarded.get().is_some_and(|flag| flag.0);
    let redirects = listener.redirect.get().is_some();
    if redirects && listener.tls.get().is_some() {
        compiling.problem(listener.redirect.spot(), "a listener with TLS is https already");
    }
    if !redirects && let Some((_, spot)) = listener.redirect_port.located() {
        compiling.problem(spot, "of use only with `redirect: https`");
    }
    let redirect_port = compiling.number(&listener.redirect_port, 1, https);
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
        redirect_https: redirects.then_some(redirect_port),
        forwarded,
        reserved_fields: Vec::new(),
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
