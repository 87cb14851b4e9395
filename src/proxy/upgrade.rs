//! Upgrades (RFC 9110, section 7.8; on HTTP/2 RFC 8441): which requests may ask for another
//! protocol, and what becomes of an answer that agrees. Only a 101 of the upstream switches; until
//! then no byte of the client goes on.

use bytes::Bytes;
use http::{
    HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Version, header, request::Parts,
};
use http_body_util::Full;
use hyper::{body::Incoming, ext::Protocol, upgrade::OnUpgrade};
use hyper_util::rt::TokioIo;
use tokio::task::spawn_local;

use super::{
    body::ResponseBody,
    connection::InFlight,
    error::ProxyError,
    forward::{self, Exchange},
    handle::{Client, Routed},
    headers,
    observe::Observation,
    tunnel::{Pulse, Tunnel},
};
use crate::{measure::Outcome, routing::Upgrades};

/// Makes of an extended CONNECT (RFC 8441, section 4) the request that an upstream of HTTP/1.1
/// knows; returns what its stream becomes if that upstream agrees. `key` is random: the upstream's
/// proof that it has read it is of no use to a client that never saw it, and goes no further.
pub(super) fn of_http2(
    request: &mut Request<Incoming>,
    key: impl FnOnce() -> u64,
) -> Option<OnUpgrade> {
    if *request.method() != Method::CONNECT {
        return None;
    }
    let protocol = request.extensions().get::<Protocol>()?;
    let protocol = HeaderValue::from_str(protocol.as_str()).ok()?;
    let stream = hyper::upgrade::on(&mut *request);
    *request.method_mut() = Method::GET;
    let fields = request.headers_mut();
    set(fields, protocol);
    fields.insert(header::SEC_WEBSOCKET_KEY, nonce(key()));
    Some(stream)
}

/// 16 bytes in base64, as RFC 6455, section 4.1 asks for, 60 bits of them random: enough to tell
/// one request from another.
fn nonce(key: u64) -> HeaderValue {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = [b'A'; 24];
    for (place, digit) in text.iter_mut().take(10).enumerate() {
        *digit = DIGITS[(key >> (6 * place) & 63) as usize];
    }
    text[22..].copy_from_slice(b"==");
    HeaderValue::from_bytes(&text).unwrap_or(HeaderValue::from_static("AAAAAAAAAAAAAAAAAAAAAA=="))
}

/// The protocol that a request asks for, if its route lets it switch: one known name, asked for by
/// HTTP/1.1 (RFC 9110: an Upgrade of HTTP/1.0 is ignored) or by an extended CONNECT, without a body.
pub(super) fn asked(
    parts: &Parts,
    bodyless: bool,
    extended: bool,
    upgrades: &Upgrades,
) -> Option<HeaderValue> {
    let asked = parts.headers.get(header::UPGRADE)?;
    let may = (parts.version == Version::HTTP_11 || extended)
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
    exchange.chosen.judged(switching.is_none());
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
    let tunnel = Tunnel {
        upstream,
        observation,
        chosen: exchange.chosen,
        pulse: Pulse::new(client.worker.clock, upgrades.idle_timeout),
        in_flight: client.state.request(),
    };
    if let Some(stream) = &routed.extended {
        parts.status = StatusCode::OK;
        parts.headers.remove(header::SEC_WEBSOCKET_ACCEPT);
        spawn_local(of_stream(stream.clone(), tunnel));
    } else {
        set(&mut parts.headers, protocol);
        client.state.switch(tunnel);
    }
    let body = ResponseBody::Local { body: Full::default(), _in_flight: in_flight };
    Response::from_parts(parts, body)
}

/// Answers an extended CONNECT whose upstream answers well without switching: passed on, its success
/// would mean that it had.
pub(super) fn not_switched(
    exchange: Exchange,
    observation: Option<Observation>,
    in_flight: InFlight,
) -> Response<ResponseBody> {
    let error = ProxyError::Protocol("it did not switch to the protocol that was asked for");
    exchange.chosen.judged(true);
    if let Some(mut observation) = observation {
        observation.head(true);
        observation.finish(error.outcome());
    }
    forward::let_go(exchange);
    error.answer(in_flight)
}

/// Carries bytes on a stream of HTTP/2. A client that has gone meanwhile has given up its request.
async fn of_stream(stream: OnUpgrade, tunnel: Tunnel) {
    if let Ok(stream) = stream.await {
        tunnel.run(TokioIo::new(stream), Bytes::new()).await;
    }
}
