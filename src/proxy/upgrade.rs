//! Upgrades (RFC 9110, section 7.8): which requests may ask for another protocol, and what becomes
//! of an answer that agrees. Only a 101 switches; until then no byte of the client goes on.

use http::request::Parts;
use http::{HeaderMap, HeaderValue, Method, Response, Version, header};
use http_body_util::Full;

use super::{
    body::ResponseBody,
    connection::InFlight,
    error::ProxyError,
    forward::Exchange,
    handle::{Client, Routed},
    headers,
    observe::Observation,
    tunnel::{Pulse, Tunnel},
};
use crate::{measure::Outcome, routing::Upgrades};

/// The protocol that a request asks for, if its route lets it switch: one known name, asked for by
/// HTTP/1.1 (RFC 9110: an Upgrade of HTTP/1.0 is ignored) without a body.
pub(super) fn asked(parts: &Parts, bodyless: bool, upgrades: &Upgrades) -> Option<HeaderValue> {
    let asked = parts.headers.get(header::UPGRADE)?;
    let may = parts.version == Version::HTTP_11
        && parts.method == Method::GET
        && bodyless
        && parts.headers.get_all(header::UPGRADE).iter().count() == 1
        && names_upgrade(&parts.headers)
        && upgrades.allow(asked.as_bytes());
    may.then(|| asked.clone())
}

fn names_upgrade(fields: &HeaderMap) -> bool {
    let tokens = fields.get_all(header::CONNECTION).iter();
    tokens
        .flat_map(|value| value.as_bytes().split(|byte| *byte == b','))
        .any(|token| token.trim_ascii().eq_ignore_ascii_case(b"upgrade"))
}

/// Makes a head ask for, or agree to, another protocol on its next hop.
pub(super) fn set(fields: &mut HeaderMap, protocol: HeaderValue) {
    fields.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
    fields.insert(header::UPGRADE, protocol);
}

/// Whether a head asks for another protocol on its next hop.
pub(super) fn is_set(fields: &HeaderMap) -> bool {
    fields.contains_key(header::UPGRADE)
}

/// Answers a request whose upstream has switched: the client's connection becomes a tunnel as soon
/// as it has been told so.
pub(super) fn switch(
    client: &Client,
    routed: &Routed,
    exchange: Exchange,
    mut observation: Option<Observation>,
    in_flight: InFlight,
) -> Response<ResponseBody> {
    let upgrades = &routed.route().upgrades;
    let (mut parts, _) = exchange.response.into_parts();
    let agreed = parts.headers.remove(header::UPGRADE);
    let agreed = agreed.filter(|protocol| upgrades.allow(protocol.as_bytes()));
    let switching = agreed.zip(exchange.lease.into_switching());
    if let Some(observation) = &mut observation {
        observation.head(switching.is_none());
    }
    let Some((protocol, upstream)) = switching else {
        let error = ProxyError::Protocol("it switched to a protocol that nobody asked for");
        if let Some(observation) = observation {
            observation.finish(Outcome::Failed);
        }
        return error.answer(in_flight);
    };
    if let Some(observation) = &mut observation {
        observation.switches();
    }
    headers::strip_hop_by_hop(&mut parts.headers);
    headers::apply(&mut parts.headers, &routed.route().response_headers);
    set(&mut parts.headers, protocol);
    client.state.switch(Tunnel {
        upstream,
        observation,
        pulse: Pulse::new(client.worker.clock, upgrades.idle_timeout),
        in_flight: client.state.request(),
    });
    let body = ResponseBody::Local { body: Full::default(), _in_flight: in_flight };
    Response::from_parts(parts, body)
}
