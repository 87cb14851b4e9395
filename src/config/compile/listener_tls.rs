//! TLS of listeners, compiled: the files are read and checked here, so that nothing is put in force
//! that would fail in every handshake.

use std::{
    path::PathBuf,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use http::{HeaderName, HeaderValue};

use super::Compiling;
use crate::{
    config::{
        file::{self, ClientAuth},
        given::Given,
        reading::Spot,
        values::{Text, Time},
    },
    proxy::ListenerTls,
    tls::{Clients, Identity, NameRule, Problem, Server, Validity},
};

pub(super) fn compile(
    tls: &Given<file::ListenerTls>,
    compiling: &Compiling<'_, '_>,
) -> Option<ListenerTls> {
    let (tls, spot) = tls.located()?;
    if tls.certificates.is_absent() {
        let help = "write `certificates: [{ cert: shop.crt, key: shop.key }]`";
        compiling.missing(spot, "certificates", help);
    }
    let mut certificates = Vec::new();
    for (pair, spot) in compiling.items(&tls.certificates).iter().filter_map(Given::located) {
        if pair.cert.is_absent() || pair.key.is_absent() {
            compiling.problem(spot, "a certificate needs both `cert` and `key`");
        }
        let files = compiling.path(&pair.cert).zip(compiling.path(&pair.key));
        certificates.extend(files.and_then(|files| load(&files, pair, compiling)));
    }
    let clients = compile_clients(tls, compiling);
    if let Err(problem) = Server::new(&certificates, clients.as_ref(), None) {
        compiling.problem(spot, problem.to_string());
    }
    let client_header = client_header(tls, compiling);
    Some(ListenerTls { certificates, clients, client_header, hsts: hsts(&tls.hsts, compiling) })
}

/// Reads a certificate; one whose time is over is shown all the same.
fn load(
    (cert, key): &(PathBuf, PathBuf),
    pair: &file::Certificate,
    compiling: &Compiling<'_, '_>,
) -> Option<Identity> {
    let identity = match Identity::load(cert, key) {
        Ok(identity) => identity,
        Err(problem) => {
            // Both may stand in one file.
            let about_key = matches!(problem, Problem::NoKey(_) | Problem::Mismatch { .. })
                || cert != key && problem.file() == Some(key);
            let spot = if about_key { pair.key.spot() } else { pair.cert.spot() };
            compiling.problem(spot, problem.to_string());
            return None;
        }
    };
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let day =
        |seconds| humantime::format_rfc3339_seconds(UNIX_EPOCH + Duration::from_secs(seconds));
    let spot = pair.cert.spot();
    match identity.validity(now) {
        Validity::Valid => {}
        Validity::From(seconds) => compiling
            .advise(spot, &format!("{} is valid only from {} on", cert.display(), day(seconds))),
        Validity::Expired(seconds) => compiling.advise(
            spot,
            &format!("{} has expired at {}: clients refuse it", cert.display(), day(seconds)),
        ),
    }
    Some(identity)
}

fn compile_clients(tls: &file::ListenerTls, compiling: &Compiling<'_, '_>) -> Option<Clients> {
    let names: Vec<NameRule> = compiling
        .items(&tls.client_names)
        .iter()
        .filter_map(Given::located)
        .filter_map(|(Text(text), spot)| name_rule(text, spot, compiling))
        .collect();
    if tls.client_ca.is_absent() {
        let of_no_use = [
            tls.client_auth.located().map(|(_, spot)| spot),
            tls.client_names.located().map(|(_, spot)| spot),
            tls.client_header.located().map(|(_, spot)| spot),
        ];
        for spot in of_no_use.into_iter().flatten() {
            let help = "name the certificates of their issuers by `client_ca`";
            compiling.problem_with_help(spot, "without `client_ca` no client is asked", help);
        }
    }
    let path = compiling.path(&tls.client_ca)?;
    match Clients::load(&path) {
        Ok(mut clients) => {
            clients.names = names;
            clients.optional = tls.client_auth.get() == Some(&ClientAuth::Optional);
            Some(clients)
        }
        Err(problem) => {
            compiling.problem(tls.client_ca.spot(), problem.to_string());
            None
        }
    }
}

fn name_rule(text: &str, spot: Spot, compiling: &Compiling<'_, '_>) -> Option<NameRule> {
    let rule = NameRule::parse(text);
    if rule.is_none() {
        compiling.problem_with_help(
            spot,
            format!("`{text}` is no rule for names"),
            "write it like a.example.com, *.example.com, spiffe://example.com/a or \
             spiffe://example.com/*",
        );
    }
    rule
}

fn client_header(tls: &file::ListenerTls, compiling: &Compiling<'_, '_>) -> Option<HeaderName> {
    let (Text(text), spot) = tls.client_header.located()?;
    compiling.free_header(text, spot)
}

fn hsts(time: &Given<Time>, compiling: &Compiling<'_, '_>) -> Option<HeaderValue> {
    time.get()?;
    let seconds = compiling.time(time, Duration::ZERO).as_secs();
    HeaderValue::from_str(&format!("max-age={seconds}")).ok()
}
