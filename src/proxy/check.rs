//! One health check: a request of the proxy's own, and whether its answer is good.

use std::pin::pin;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use http::{HeaderMap, HeaderValue, Method, Request, StatusCode, Uri, header};
use http_body_util::{BodyExt as _, Full, Limited};

use super::{
    body::RequestBody,
    forward::{self, Exchange},
    upstream::{Pool, Site, To},
    worker::Worker,
};
use crate::routing::{Endpoint, HealthCheck, HealthQuestion};

/// The method of `grpc.health.v1` that asks once.
const GRPC_CHECK: &str = "/grpc.health.v1.Health/Check";

/// `SERVING` of its `ServingStatus`.
const SERVING: u64 = 1;

/// Most bytes that are read of a gRPC answer.
const LONGEST: usize = 1024;

/// Bytes before a gRPC message: whether it is compressed, and its length.
const PREFIX: usize = 5;

/// Whether an upstream answers well in time: one of its endpoints, or whichever gets the request.
pub(super) async fn is_well(
    worker: &Worker,
    pool: &Pool,
    site: Option<&Site>,
    check: &HealthCheck,
) -> bool {
    let to = match site {
        Some(site) => To::only(pool, site),
        None => Some(To::any(pool)),
    };
    let Some(to) = to else { return false };
    let first = || pool.spec().endpoints.first();
    let Some(endpoint) = site.map(|site| &site.endpoint).or_else(first) else { return false };
    let Some(request) = question(&check.ask, endpoint) else { return false };
    let deadline = worker.deadlines.after(worker.clock.now(), check.timeout);
    match forward::exchange(to, request, None, deadline, None).await {
        Ok(exchange) => is_good(&check.ask, exchange).await,
        Err(failure) => {
            tracing::debug!(upstream = %pool.spec().name, error = %failure.error, "a check failed");
            false
        }
    }
}

fn question(ask: &HealthQuestion, endpoint: &Endpoint) -> Option<Request<RequestBody>> {
    let host = match endpoint {
        Endpoint::Address(address) => address.to_string(),
        Endpoint::Name(name, port) => format!("{name}:{port}"),
        Endpoint::Unix(_) => "localhost".to_owned(),
    };
    let mut request = Request::new(RequestBody::Empty);
    let path = match ask {
        HealthQuestion::Path { path, .. } => path,
        HealthQuestion::Grpc(_) => GRPC_CHECK,
    };
    *request.uri_mut() = Uri::try_from(path).ok()?;
    let fields = request.headers_mut();
    fields.insert(header::HOST, HeaderValue::try_from(host).ok()?);
    fields.insert(header::USER_AGENT, HeaderValue::from_static("haldane"));
    if let HealthQuestion::Grpc(service) = ask {
        let message = grpc_request(service);
        fields.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
        fields.insert(header::TE, HeaderValue::from_static("trailers"));
        fields.insert(header::CONTENT_LENGTH, HeaderValue::from(message.len()));
        *request.method_mut() = Method::POST;
        *request.body_mut() = RequestBody::Own(Full::new(message));
    }
    Some(request)
}

async fn is_good(ask: &HealthQuestion, exchange: Exchange) -> bool {
    let status = exchange.response.status();
    match ask {
        HealthQuestion::Path { good, .. } => {
            forward::let_go(exchange);
            good.contain(status)
        }
        HealthQuestion::Grpc(_) => status == StatusCode::OK && serves(exchange).await,
    }
}

/// Whether a gRPC answer says that the service serves.
async fn serves(exchange: Exchange) -> bool {
    let Exchange { response, lease, mut deadline, .. } = exchange;
    let (head, body) = response.into_parts();
    let whole = deadline.bound(pin!(Limited::new(body, LONGEST).collect())).await;
    let Ok(Ok(whole)) = whole else { return false };
    lease.give_back();
    let ok = is_ok(whole.trailers().unwrap_or(&head.headers));
    ok && serving_status(whole.to_bytes()) == Some(SERVING)
}

fn is_ok(fields: &HeaderMap) -> bool {
    fields.get("grpc-status").is_some_and(|status| status == "0")
}

/// `HealthCheckRequest { string service = 1 }` with its prefix.
fn grpc_request(service: &str) -> Bytes {
    let mut message = BytesMut::new();
    if !service.is_empty() {
        message.put_u8(1 << 3 | 2);
        put_varint(&mut message, service.len() as u64);
        message.put_slice(service.as_bytes());
    }
    let mut whole = BytesMut::with_capacity(PREFIX + message.len());
    whole.put_u8(0);
    whole.put_u32(message.len() as u32);
    whole.put_slice(&message);
    whole.freeze()
}

fn put_varint(into: &mut BytesMut, mut number: u64) {
    while number >= 0x80 {
        into.put_u8(number as u8 | 0x80);
        number >>= 7;
    }
    into.put_u8(number as u8);
}

/// The status in a `HealthCheckResponse { ServingStatus status = 1 }` with its prefix; 0 where it is
/// left out, as protobuf leaves out what is 0.
fn serving_status(mut whole: Bytes) -> Option<u64> {
    if whole.len() < PREFIX || whole.get_u8() != 0 {
        return None;
    }
    let length = whole.get_u32() as usize;
    if whole.len() != length {
        return None;
    }
    let mut status = 0;
    while whole.has_remaining() {
        let tag = take_varint(&mut whole)?;
        match (tag >> 3, tag & 7) {
            (1, 0) => status = take_varint(&mut whole)?,
            (_, 0) => {
                take_varint(&mut whole)?;
            }
            (_, 1) => whole.try_get_u64().map(drop).ok()?,
            (_, 2) => {
                let length = usize::try_from(take_varint(&mut whole)?).ok()?;
                (length <= whole.len()).then(|| whole.advance(length))?;
            }
            (_, 5) => whole.try_get_u32().map(drop).ok()?,
            (_, _) => return None,
        }
    }
    Some(status)
}

fn take_varint(from: &mut Bytes) -> Option<u64> {
    let mut number = 0;
    for shift in (0..64).step_by(7) {
        let byte = from.try_get_u8().ok()?;
        number |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Some(number);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_question_is_the_message_that_protobuf_writes() {
        assert_eq!(&grpc_request("")[..], [0, 0, 0, 0, 0]);
        assert_eq!(&grpc_request("shop")[..], b"\0\0\0\0\x06\x0a\x04shop");
        let long = grpc_request(&"x".repeat(200));
        assert_eq!(&long[..8], [0, 0, 0, 0, 203, 0x0a, 0xc8, 0x01]);
    }

    fn check(answer: &'static [u8], expected: Option<u64>) {
        assert_eq!(serving_status(Bytes::from_static(answer)), expected, "{answer:?}");
    }

    #[test]
    fn the_status_is_found_among_what_is_not_known() {
        check(b"\0\0\0\0\x02\x08\x01", Some(SERVING));
        check(b"\0\0\0\0\x02\x08\x02", Some(2));
        check(b"\0\0\0\0\0", Some(0));
        check(b"\0\0\0\0\x06\x12\x02hi\x08\x01", Some(SERVING));
        check(b"\x01\0\0\0\x02\x08\x01", None);
        check(b"\0\0\0\0\x03\x08\x01", None);
        check(b"\0\0\0\0\x02\x08\x81", None);
        check(b"\0\0", None);
    }

    proptest! {
        #[test]
        fn no_answer_brings_it_down(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            let _ = serving_status(Bytes::from(bytes));
        }
    }
}
