//! Forwarding: the request as the upstream sees it, and its exchange for an answer.
//!
//! A request goes out a second time only if the upstream cannot have taken the first: nothing of it
//! was written, or the upstream had closed the connection before it arrived.

use std::{
    future::poll_fn,
    pin::{Pin, pin},
    rc::Rc,
    task::{Poll, ready},
    time::Duration,
};

use http::{
    HeaderMap, HeaderValue, Method, Request, Response, Uri, Version, header, request::Parts,
    uri::PathAndQuery,
};
use http_body_util::BodyExt as _;
use hyper::body::Body as _;
use tokio::task::spawn_local;

use super::{
    body::{RequestBody, Upload},
    clock::Clock,
    deadline::{Deadline, Deadlines, Elapsed},
    error::ProxyError,
    grpc,
    handle::Client,
    headers::{self, Forwarding},
    observe::Observation,
    target::Target,
    upgrade,
    upstream::{AnswerBody, Chosen, Lease, Lost, SendError, To},
    worker::Worker,
};
use crate::{
    measure::Tick,
    routing::{Arm, Rewrite, Route, Service},
};

/// After this many failures on pooled connections a request gets a new connection.
const POOLED_ATTEMPTS: u32 = 3;

/// After this many attempts that the upstream did not take, the request fails.
const MAX_ATTEMPTS: u32 = 6;

/// Most bytes that are read of an answer that nobody gets, to keep its connection.
const REST: usize = 64 * 1024;

/// About as many fields as forwarding adds: one growth of the map instead of several.
const ADDED_FIELDS: usize = 5;

/// The rules that a request is forwarded by.
pub(super) struct Way<'a> {
    pub(super) route: &'a Route,
    pub(super) service: &'a Service,
    pub(super) arm: &'a Arm,
    /// Who gets the request if `arm` fails, so that a copy is to be kept.
    pub(super) rescuer: Option<&'a Arm>,
    /// The protocol that the client wants to switch to.
    pub(super) upgrade: Option<HeaderValue>,
}

/// How long the head of an answer is waited for.
#[derive(Debug)]
pub(super) struct Patience {
    deadline: Deadline,
    call: Option<CallPatience>,
}

/// A gRPC call has the route's timeout from the end of its request on: until then its client, which
/// may stream for hours, is not waiting.
#[derive(Debug)]
struct CallPatience {
    timeout: Duration,
    /// When its client gives up.
    last: Option<Duration>,
    deadlines: Rc<Deadlines>,
    clock: Clock,
}

impl From<Deadline> for Patience {
    fn from(deadline: Deadline) -> Self {
        Self { deadline, call: None }
    }
}

impl Patience {
    /// With a request that arrived at `arrived`, on a route with this timeout.
    pub(super) fn new(
        worker: &Worker,
        arrived: Duration,
        timeout: Duration,
        call: Option<grpc::Call>,
    ) -> Self {
        let (deadlines, clock) = (&worker.deadlines, worker.clock);
        let last = call.and_then(|call| call.ends).map(|ends| ends.at);
        let limit = last.map_or(timeout, |last| timeout.min(last.saturating_sub(arrived)));
        let call =
            call.map(|_| CallPatience { timeout, last, deadlines: Rc::clone(deadlines), clock });
        Self { deadline: deadlines.after(arrived, limit), call }
    }

    /// Whether it was the client that gave no more time.
    fn was_the_clients(&self) -> bool {
        let call = self.call.as_ref();
        call.is_some_and(|call| call.last.is_some_and(|last| last <= call.clock.now()))
    }

    /// Waits for `future`, which is about a request whose body comes by `upload`.
    async fn bound<F: Future>(
        &mut self,
        upload: Option<&Upload>,
        mut future: Pin<&mut F>,
    ) -> Result<F::Output, Elapsed> {
        poll_fn(|cx| {
            if let Poll::Ready(output) = future.as_mut().poll(cx) {
                return Poll::Ready(Ok(output));
            }
            loop {
                let elapsed = ready!(self.deadline.poll_expired(cx));
                let call = self.call.as_ref().zip(upload);
                match call.and_then(|(call, upload)| call.longer(upload)) {
                    Some(deadline) => self.deadline = deadline,
                    None => return Poll::Ready(Err(elapsed)),
                }
            }
        })
        .await
    }
}

impl CallPatience {
    /// The next deadline, unless the last one is over.
    fn longer(&self, upload: &Upload) -> Option<Deadline> {
        let now = self.clock.now();
        // The moment is known to a tick.
        let since = upload.complete_since().map_or(now, |since| since + Tick::LENGTH);
        let at = since + self.timeout;
        let at = self.last.map_or(at, |last| last.min(at));
        let left = at.checked_sub(now).filter(|left| !left.is_zero())?;
        Some(self.deadlines.after(now, left))
    }
}

/// A request exchanged for the head of its answer.
#[derive(Debug)]
pub(super) struct Exchange {
    pub(super) response: Response<AnswerBody>,
    pub(super) lease: Lease,
    pub(super) upload: Option<Rc<Upload>>,
    pub(super) deadline: Deadline,
    pub(super) chosen: Chosen,
}

/// A request that came to nothing.
#[derive(Debug)]
pub(super) struct Failure {
    pub(super) error: ProxyError,
    /// The request, where nothing of it was sent.
    pub(super) unsent: Option<Box<Request<RequestBody>>>,
    /// The endpoint that broke off before it answered.
    pub(super) lost: Option<Lost>,
}

impl From<ProxyError> for Failure {
    fn from(error: ProxyError) -> Self {
        Self { error, unsent: None, lost: None }
    }
}

/// Turns the client's head into the upstream's; returns the one that a rescuer would get.
pub(super) fn prepare(
    parts: &mut Parts,
    target: Target,
    client: &Client,
    way: &Way<'_>,
    body: &RequestBody,
) -> Result<Option<Copy>, ProxyError> {
    let fields = &mut parts.headers;
    fields.reserve(ADDED_FIELDS);
    headers::strip_hop_by_hop(fields);
    for name in &way.service.toggles {
        fields.remove(name);
    }
    let forwarding = Forwarding {
        peer: &client.peer_text,
        trusted: client.peer_trusted,
        proto: if client.settings.tls.is_some() { "https" } else { "http" },
        host: &target.authority,
        via: if parts.version == Version::HTTP_2 { "2 haldane" } else { "1.1 haldane" },
        standard: client.settings.forwarded.then_some(client.peer),
    };
    headers::set_forwarded(fields, &forwarding);
    // Once more, should the client have named it as one that ends at this hop.
    client.identify(fields);
    if parts.version == Version::HTTP_2 {
        headers::join_cookies(fields);
    }
    let rewrite = &way.route.rewrite;
    set_host(fields, &parts.uri, target.authority, rewrite.host.as_ref());
    headers::apply(fields, &way.route.request_headers);
    let mut rescuers = way.rescuer.map(|rescuer| {
        let mut fields = fields.clone();
        headers::apply(&mut fields, &rescuer.request_headers);
        fields
    });
    headers::apply(fields, &way.arm.request_headers);
    if let Some(protocol) = &way.upgrade {
        upgrade::set(fields, protocol.clone());
    }
    // The codec sends a body of unknown length for these methods only if it is told to.
    if body.size_hint().exact().is_none() && !body.is_end_stream() {
        for fields in std::iter::once(fields).chain(rescuers.as_mut()) {
            fields.remove(header::CONTENT_LENGTH);
            fields.insert(header::TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
        }
    }
    set_uri(&mut parts.uri, target.new_path.as_deref(), rewrite)?;
    parts.version = Version::HTTP_11;
    parts.extensions.clear();
    let copy = |headers| Copy { method: parts.method.clone(), uri: parts.uri.clone(), headers };
    Ok(rescuers.map(copy))
}

fn set_host(
    fields: &mut HeaderMap,
    uri: &Uri,
    authority: HeaderValue,
    rewritten: Option<&HeaderValue>,
) {
    match rewritten {
        Some(host) => {
            fields.insert(header::HOST, host.clone());
        }
        None if uri.authority().is_some() => {
            fields.insert(header::HOST, authority);
        }
        None => {}
    }
}

/// Origin form with the normalised and rewritten path; untouched where that is what it is already.
fn set_uri(uri: &mut Uri, new_path: Option<&str>, rewrite: &Rewrite) -> Result<(), ProxyError> {
    let path = new_path.unwrap_or_else(|| uri.path());
    let rewritten =
        rewrite.path_prefix.as_ref().and_then(|(from, to)| rewrite_prefix(path, from, to));
    if new_path.is_none() && rewritten.is_none() {
        if uri.authority().is_some() {
            let mut parts = std::mem::take(uri).into_parts();
            parts.scheme = None;
            parts.authority = None;
            *uri = Uri::from_parts(parts).map_err(|_| MALFORMED)?;
        }
        return Ok(());
    }
    let mut text = rewritten.unwrap_or_else(|| path.to_owned());
    if let Some(query) = uri.query() {
        text.push('?');
        text.push_str(query);
    }
    *uri = PathAndQuery::from_maybe_shared(bytes::Bytes::from(text)).map_err(|_| MALFORMED)?.into();
    Ok(())
}

const MALFORMED: ProxyError = ProxyError::BadRequest("the target is malformed");

const SWITCHED: ProxyError = ProxyError::Protocol("it switched protocols without being asked");
const NEVER_TAKES: ProxyError =
    ProxyError::Protocol("it closes every connection before it takes the request");

/// Replaces a prefix on a segment border.
fn rewrite_prefix(path: &str, from: &str, to: &str) -> Option<String> {
    let from = from.strip_suffix('/').unwrap_or(from);
    let rest = path.strip_prefix(from)?;
    if !rest.is_empty() && !rest.starts_with('/') {
        return None;
    }
    let to = to.strip_suffix('/').unwrap_or(to);
    let whole = format!("{to}{rest}");
    Some(if whole.is_empty() { "/".to_owned() } else { whole })
}

/// What is needed to send a request again, but for its body.
#[derive(Clone, Debug)]
pub(super) struct Copy {
    method: Method,
    uri: Uri,
    headers: HeaderMap,
}

impl Copy {
    /// Of a request without a body.
    pub(super) fn of(request: &Request<RequestBody>) -> Option<Self> {
        matches!(request.body(), RequestBody::Empty).then(|| Self {
            method: request.method().clone(),
            uri: request.uri().clone(),
            headers: request.headers().clone(),
        })
    }

    pub(super) fn into_request(self, body: RequestBody) -> Request<RequestBody> {
        let mut request = Request::new(body);
        *request.method_mut() = self.method;
        *request.uri_mut() = self.uri;
        *request.headers_mut() = self.headers;
        request
    }
}

/// Sends the request on a connection to where it goes and waits for the head of the answer.
pub(super) async fn exchange(
    mut to: To<'_>,
    mut request: Request<RequestBody>,
    upload: Option<Rc<Upload>>,
    patience: impl Into<Patience>,
    mut observation: Option<&mut Observation>,
) -> Result<Exchange, Failure> {
    let mut patience = patience.into();
    let mut attempts = 0;
    if let Some(observation) = &observation {
        observation.prepared();
    }
    let may_switch = upgrade::is_set(request.headers());
    loop {
        let leased = async {
            let chosen = match to.choose().await {
                Ok(chosen) => chosen,
                Err(error) => return Err((None, error)),
            };
            if let Some(observation) = &mut observation {
                observation.sent_to(chosen.number());
            }
            let leased = if may_switch {
                Box::pin(chosen.lease_alone()).await
            } else {
                chosen.lease(attempts >= POOLED_ATTEMPTS).await
            };
            match leased {
                Ok(lease) => Ok((chosen, lease)),
                Err(error) => Err((Some(chosen), error)),
            }
        };
        let leased = patience.bound(upload.as_deref(), pin!(leased)).await;
        let (mut chosen, mut lease) = match leased {
            Ok(Ok(leased)) => leased,
            // Nothing was sent. What the attempt has taken is not taken off the latency.
            Ok(Err((Some(chosen), error))) if to.goes_on(&chosen, &error) => continue,
            Ok(Err((_, error))) => {
                let unsent = Some(Box::new(request));
                return Err(Failure { error: error.into(), unsent, lost: None });
            }
            Err(_elapsed) => return Err(ProxyError::Timeout.into()),
        };
        if let (Some(wait), Some(observation)) = (lease.waited, &mut observation) {
            observation.waited(wait);
        }
        let copy = if lease.may_be_stale { Copy::of(&request) } else { None };
        let sent = patience.bound(upload.as_deref(), pin!(lease.send(request))).await;
        let failure = match sent {
            Ok(Ok(response)) if response.status().is_informational() && !may_switch => {
                return Err(SWITCHED.into());
            }
            Ok(Ok(response)) => {
                chosen.answered();
                let deadline = patience.deadline;
                return Ok(Exchange { response, lease, upload, deadline, chosen });
            }
            Ok(Err(failure)) => failure,
            // A client may give any endpoint too little time.
            Err(_elapsed) if patience.was_the_clients() => return Err(ProxyError::Timeout.into()),
            Err(_elapsed) => {
                chosen.failed();
                return Err(ProxyError::Timeout.into());
            }
        };
        drop(lease);
        let by_client = upload.as_deref().is_some_and(Upload::broken);
        let broke_off = matches!(failure, SendError::Failed(_)) && !by_client;
        let lost = broke_off.then(|| chosen.failed());
        attempts += 1;
        request = again(failure, copy, attempts).map_err(|failure| Failure {
            error: blame_client(failure.error, upload.as_deref()),
            lost,
            ..failure
        })?;
    }
}

/// The request to be sent again, or the error that ends it.
fn again(
    failure: SendError,
    copy: Option<Copy>,
    attempts: u32,
) -> Result<Request<RequestBody>, Failure> {
    match (failure, copy) {
        (SendError::Unsent(request), _) if attempts < MAX_ATTEMPTS => Ok(*request),
        (SendError::NeverTaken, Some(copy)) if attempts < MAX_ATTEMPTS => {
            Ok(copy.into_request(RequestBody::Empty))
        }
        (SendError::Unsent(request), _) => {
            Err(Failure { error: NEVER_TAKES, unsent: Some(request), lost: None })
        }
        (SendError::NeverTaken, _) => Err(NEVER_TAKES.into()),
        (SendError::Failed(error), _) => Err(ProxyError::Upstream(error).into()),
    }
}

/// Gives up an answer that nobody gets; its connection is kept if the rest is short.
pub(super) fn let_go(exchange: Exchange) {
    let Exchange { response, lease, upload, mut deadline, chosen } = exchange;
    let switched = response.status().is_informational();
    if switched || upload.is_some_and(|upload| !upload.complete()) {
        return;
    }
    let mut body = response.into_body();
    spawn_local(async move {
        let rest = async {
            let mut room = REST;
            while let Some(frame) = body.frame().await {
                let length = frame.ok()?.data_ref().map_or(0, bytes::Bytes::len);
                room = room.checked_sub(length)?;
            }
            Some(())
        };
        if let Ok(Some(())) = deadline.bound(pin!(rest)).await {
            lease.give_back();
        }
        drop(chosen);
    });
}

fn blame_client(error: ProxyError, upload: Option<&Upload>) -> ProxyError {
    if upload.is_some_and(Upload::broken) { ProxyError::Client } else { error }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(
        uri: &'static str,
        new_path: Option<&str>,
        prefix: Option<(&str, &str)>,
        expected: &str,
    ) {
        let mut uri = Uri::from_static(uri);
        let rewrite =
            Rewrite { host: None, path_prefix: prefix.map(|(from, to)| (from.into(), to.into())) };
        set_uri(&mut uri, new_path, &rewrite).unwrap();
        assert_eq!(uri.to_string(), expected);
        assert!(uri.authority().is_none());
    }

    #[test]
    fn the_upstream_gets_origin_form_with_the_normalised_path() {
        check("/a?b=1", None, None, "/a?b=1");
        check("http://shop:80/a?b=1", None, None, "/a?b=1");
        check("/x/../a?b=1", Some("/a"), None, "/a?b=1");
    }

    #[test]
    fn a_prefix_is_rewritten_on_segment_borders() {
        check("/api/v1?x", None, Some(("/api", "/")), "/v1?x");
        check("/api", None, Some(("/api", "/")), "/");
        check("/apis", None, Some(("/api", "/")), "/apis");
        check("/api/v1", None, Some(("/api/", "/internal/")), "/internal/v1");
        check("/v1", None, Some(("/", "/internal")), "/internal/v1");
    }
}
