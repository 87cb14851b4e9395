//! A request's way through the proxy, from its head to its answer. Start reading here.
//!
//! [`handle`] returns a response, never an error: every [`ProxyError`] becomes an answer in one
//! place.

use std::{convert::Infallible, net::IpAddr, rc::Rc, sync::Arc, time::Duration};

use http::{HeaderMap, HeaderValue, Request, Response, StatusCode, Uri, header, request::Parts};
use hyper::{
    body::{Body as _, Incoming},
    upgrade::OnUpgrade,
};

use super::{
    body::{CallEnd, RequestBody, ResponseBody, Stall, Upload},
    connection::{ConnectionState, InFlight},
    error::ProxyError,
    forward::{self, Exchange, Patience},
    grpc, headers,
    observe::{Observation, Observed},
    probe,
    second::SecondLook,
    settings::ListenerSettings,
    target::Target,
    upgrade,
    upstream::To,
    worker::{View, Worker},
};
use crate::routing::{
    self, Arm, ArmIndex, Assignment, CohortId, Harm, Judged, RequestHead, Route, RouteId, Service,
};

pub(super) const BASELINE: ArmIndex = ArmIndex(0);

/// What the requests of one client connection share.
#[derive(Debug)]
pub(super) struct Client {
    pub(super) worker: Rc<Worker>,
    pub(super) settings: Arc<ListenerSettings>,
    pub(super) state: Rc<ConnectionState>,
    pub(super) peer: IpAddr,
    /// The peer's address as it is written into X-Forwarded-For.
    pub(super) peer_text: HeaderValue,
    pub(super) peer_trusted: bool,
    /// What the client is called by its certificate.
    pub(super) identity: Option<HeaderValue>,
}

impl Client {
    /// Says in the field that is meant for it who the client is by its certificate.
    pub(super) fn identify(&self, headers: &mut HeaderMap) {
        let field = self.settings.tls.as_ref().and_then(|tls| tls.client_header.as_ref());
        if let Some((field, identity)) = field.zip(self.identity.as_ref()) {
            headers.insert(field, identity.clone());
        }
    }
}

/// The route, the cohort and the arm of a request.
pub(super) struct Routed {
    pub(super) view: Rc<View>,
    pub(super) route: RouteId,
    cohort: CohortId,
    pub(super) assignment: Assignment,
    /// What a drill does to its answer.
    pub(super) harm: Option<Harm>,
    /// Whether it is a probe of its arm.
    pub(super) is_probe: bool,
    /// The stream of HTTP/2 that it came on, if that is to become a tunnel.
    pub(super) extended: Option<OnUpgrade>,
    /// What it asks for as a gRPC call.
    pub(super) call: Option<grpc::Call>,
}

impl Routed {
    pub(super) fn route(&self) -> &Route {
        self.view.table.routes.route_at(self.route)
    }

    pub(super) fn service(&self) -> &Service {
        self.view.table.routes.service(self.route().service)
    }
}

/// A request on its way to its arm.
struct Underway {
    routed: Routed,
    request: Request<RequestBody>,
    upload: Option<Rc<Upload>>,
    observation: Observation,
    /// What the baseline would get if the arm failed.
    replay: Option<Box<forward::Copy>>,
    /// What another endpoint of the arm would get if the first one broke off.
    retry: Option<Box<forward::Copy>>,
}

/// Answers one request. All that needs no waiting is done before the future is made, which keeps
/// the future small; and the codec takes it as it is, since another around it would hold it twice:
/// it is moved several times before it is polled.
pub(super) fn handle(
    client: Rc<Client>,
    request: Request<Incoming>,
) -> impl Future<Output = Result<Response<ResponseBody>, Infallible>> {
    let in_flight = client.state.request();
    let call = grpc::Call::of(&request, client.worker.clock);
    let begun = begin(&client, request, call);
    async move {
        let (error, in_flight) = match begun {
            Ok(underway) => match exchange(&client, underway, in_flight).await {
                Ok(response) => return Ok(secured(&client, response)),
                Err(ended) => ended,
            },
            Err(error) => (error, in_flight),
        };
        if let Some(reason) = error.shed() {
            client.worker.shed(reason);
        }
        tracing::debug!(%error, status = error.status().as_u16(), "answered by the proxy");
        let response =
            if call.is_some() { error.answer_call(in_flight) } else { error.answer(in_flight) };
        Ok(secured(&client, response))
    }
}

/// Tells browsers to stay with TLS, where the listener is to; the upstream's own word goes first.
fn secured(client: &Client, mut response: Response<ResponseBody>) -> Response<ResponseBody> {
    if let Some(hsts) = client.settings.tls.as_ref().and_then(|tls| tls.hsts.as_ref()) {
        let field = response.headers_mut().entry(header::STRICT_TRANSPORT_SECURITY);
        field.or_insert_with(|| hsts.clone());
    }
    response
}

/// From the head to a request that may be sent: target, route, cohort, arm, header rules.
fn begin(
    client: &Client,
    mut request: Request<Incoming>,
    call: Option<grpc::Call>,
) -> Result<Box<Underway>, ProxyError> {
    let arrived = client.worker.clock.now();
    let extended = upgrade::of_http2(&mut request, || client.worker.coin());
    let (mut parts, body) = request.into_parts();
    let target = Target::read(&parts, &client.settings.limits)?;
    if let Some(port) = client.settings.redirect_https {
        return Err(redirect(port, &target, &parts.uri));
    }
    if !client.settings.reserved_fields.is_empty() {
        headers::take_away(&mut parts.headers, &client.settings.reserved_fields);
        client.identify(&mut parts.headers);
    }
    let mut routed = Routed { call, extended, ..route(client, &parts, &target)? };
    let upgrades = &routed.route().upgrades;
    let may_switch = routed.extended.is_some();
    let upgrade = upgrade::asked(&parts, body.is_end_stream(), may_switch, upgrades);
    if may_switch && upgrade.is_none() {
        return Err(ProxyError::Connect);
    }
    if client.worker.probes.wanted()
        && !upgrade::is_set(&parts.headers)
        && body.is_end_stream()
        && parts.method.is_idempotent()
    {
        become_probe(client, &mut routed);
    }
    let mut observation = observe(client, &routed, arrived);
    if let Some(ends) = call.and_then(|call| call.ends) {
        let fails = routed.route().failed_when.grpc >> grpc::Code::DeadlineExceeded as u32 & 1 == 1;
        observation.expires(ends.about, fails);
    }
    let (route, service) = (routed.route(), routed.service());
    let arm = &service.arms[usize::from(routed.assignment.arm.0)];
    let (body, upload) = if body.is_end_stream() {
        (RequestBody::Empty, None)
    } else {
        let upload = Rc::new(Upload::default());
        let stall = stall(client, call);
        (RequestBody::Client { body, upload: Rc::clone(&upload), stall }, Some(upload))
    };
    // What has switched cannot be sent again.
    let rescuer = if upgrade.is_some() { None } else { rescuer(&routed, &parts) };
    let way = forward::Way { route, service, arm, rescuer, upgrade };
    let replay = match forward::prepare(&mut parts, target, client, &way, &body) {
        Ok(replay) => replay.map(Box::new),
        Err(error) => {
            observation.finish(error.outcome());
            return Err(error);
        }
    };
    let request = Request::from_parts(parts, body);
    let retry = retry(&routed, &request);
    Ok(Box::new(Underway { routed, request, upload, observation, replay, retry }))
}

/// The same URL with https.
fn redirect(port: u16, target: &Target, uri: &Uri) -> ProxyError {
    const USUAL: u16 = 443;
    let host = target.host_name();
    let port = if port == USUAL { String::new() } else { format!(":{port}") };
    let path = match uri.path_and_query() {
        Some(path) if path.as_str() != "*" => path.as_str(),
        Some(_) | None => "/",
    };
    match HeaderValue::from_str(&format!("https://{host}{port}{path}")) {
        Ok(location) => ProxyError::Redirect(location),
        Err(_) => ProxyError::BadRequest("the target is malformed"),
    }
}

/// A gRPC call may be silent for as long as its ends like; pings tell whether they are there.
fn stall(client: &Client, call: Option<grpc::Call>) -> Stall {
    let deadlines = &client.worker.deadlines;
    match call {
        Some(_) => Stall::never(deadlines),
        None => Stall::new(deadlines, client.settings.limits.body_timeout),
    }
}

/// The arm that gets the request if its own fails.
fn rescuer<'a>(routed: &'a Routed, parts: &Parts) -> Option<&'a Arm> {
    if !routed.route().rescue {
        return None;
    }
    if let Some(rescuer) = routed.view.rescuer(routed.route().service) {
        rescuer.repeats.request();
    }
    let may_be = routed.assignment.arm != BASELINE && parts.method.is_idempotent();
    may_be.then(|| &routed.service().arms[usize::from(BASELINE.0)])
}

/// What another endpoint of the arm gets if the first one breaks off.
fn retry(routed: &Routed, request: &Request<RequestBody>) -> Option<Box<forward::Copy>> {
    let may_be = routed.route().retries > 0 && request.method().is_idempotent();
    if !may_be || routed.is_probe {
        return None;
    }
    let arm = &routed.service().arms[usize::from(routed.assignment.arm.0)];
    let pool = routed.view.pool(arm.upstream);
    pool.repeats.request();
    // Of one endpoint there is no other.
    if pool.is_single() { None } else { forward::Copy::of(request).map(Box::new) }
}

/// Makes a request for the baseline the probe of an arm, if one waits for it. It is no evidence.
fn become_probe(client: &Client, routed: &mut Routed) {
    let diverted = client.worker.probes.divert(routed.route(), &routed.assignment);
    if let Some(arm) = diverted.filter(|arm| usize::from(arm.0) < routed.service().arms.len()) {
        routed.assignment = Assignment { arm, unit: 0, excluded: true };
        routed.is_probe = true;
        let asks = &routed.view.table.asks;
        let coin = client.worker.coin();
        routed.harm = asks.harm(routed.route().service, arm, routed.cohort, coin);
    }
}

/// Sends the request to its arm and makes the client's answer from the upstream's.
async fn exchange(
    client: &Client,
    underway: Box<Underway>,
    in_flight: InFlight,
) -> Result<Response<ResponseBody>, (ProxyError, InFlight)> {
    let Underway { routed, request, upload, mut observation, replay, retry } = *underway;
    let route = routed.route();
    let arm = &routed.service().arms[usize::from(routed.assignment.arm.0)];
    let limit = if routed.is_probe { probe::patience(route) } else { route.timeout };
    let patience = Patience::new(&client.worker, observation.arrived(), limit, routed.call);
    let pool = routed.view.pool(arm.upstream);
    let bodyless = upload.is_none();
    let attempt =
        forward::exchange(To::any(pool), request, upload, patience, Some(&mut observation)).await;
    if replay.is_some() || retry.is_some() || routed.harm.is_some() {
        let (arrived, observation) = (observation.arrived(), Some(observation));
        let second = SecondLook { routed, attempt, arrived, observation, retry, replay, bodyless };
        // Few requests come here: the others should not carry its state.
        return Box::pin(second.take(client, in_flight)).await;
    }
    match attempt {
        Ok(exchange) => Ok(answer(client, &routed, exchange, Some(observation), in_flight)),
        Err(failure) => {
            observation.finish(failure.error.outcome());
            Err((failure.error, in_flight))
        }
    }
}

/// Finds the route, the cohort and the arm.
fn route(client: &Client, parts: &Parts, target: &Target) -> Result<Routed, ProxyError> {
    let view = client.worker.view();
    let table = &view.table;
    let trusted = &client.settings.trusted_proxies;
    let head = RequestHead {
        method: &parts.method,
        host: target.host_name(),
        path: target.path(&parts.uri),
        query: parts.uri.query(),
        headers: &parts.headers,
        client_ip: match (client.peer_trusted, client.settings.forwarded) {
            (false, _) => client.peer,
            (true, false) => headers::client_ip(client.peer, trusted, &parts.headers),
            (true, true) => headers::client_ip_by_standard(client.peer, trusted, &parts.headers),
        },
    };
    let route = table.routes.route(&head).ok_or(ProxyError::NoRoute)?;
    let cohort = table.routes.cohort(&head);
    let service = table.routes.route_at(route).service;
    let coin = client.worker.coin();
    let assignment = routing::assign(
        table.routes.service(service),
        table.dials.of(service),
        cohort,
        &head,
        coin,
    );
    let harm = if table.asks.hurts.is_empty() {
        None
    } else {
        table.asks.harm(service, assignment.arm, cohort, coin)
    };
    let (is_probe, extended, call) = (false, None, None);
    Ok(Routed { view, route, cohort, assignment, harm, is_probe, extended, call })
}

fn observe(client: &Client, routed: &Routed, arrived: Duration) -> Observation {
    let route = routed.route();
    let Assignment { arm, unit, excluded } = routed.assignment;
    Observation::begin(
        &client.worker.events,
        Observed {
            recorder: route.recorders.at(routed.cohort, arm),
            epoch: routed.view.table.epoch,
            unit,
            excluded,
            first_byte_decides: route.judged == Judged::FirstByte,
            arrived,
        },
    )
}

/// Whether the head of an answer counts as a failure.
pub(super) fn has_failed(route: &Route, status: StatusCode, headers: &HeaderMap) -> bool {
    let statuses = grpc::Statuses::of(&route.failed_when, headers);
    route.failed_when.status(status) || statuses.fail(headers)
}

/// Makes the client's answer from the upstream's. An answer without an observation is not counted.
pub(super) fn answer(
    client: &Client,
    routed: &Routed,
    exchange: Exchange,
    mut observation: Option<Observation>,
    in_flight: InFlight,
) -> Response<ResponseBody> {
    if exchange.response.status() == StatusCode::SWITCHING_PROTOCOLS {
        return upgrade::switch(client, routed, exchange, observation, in_flight);
    }
    if routed.extended.is_some() && exchange.response.status().is_success() {
        return upgrade::not_switched(exchange, observation, in_flight);
    }
    let (route, service) = (routed.route(), routed.service());
    let (mut parts, body) = exchange.response.into_parts();
    let statuses = grpc::Statuses::of(&route.failed_when, &parts.headers);
    let failed = has_failed(route, parts.status, &parts.headers);
    if failed || routed.call.is_none() {
        // The status of a call mostly comes in its trailers.
        exchange.chosen.judged(failed);
    }
    if let Some(observation) = &mut observation {
        observation.head(failed);
        if !failed && (parts.status.is_client_error() || statuses.refuse(&parts.headers)) {
            observation.refuse();
        }
    }
    parts.version = http::Version::HTTP_11;
    headers::strip_hop_by_hop(&mut parts.headers);
    headers::apply(&mut parts.headers, &route.response_headers);
    if service.arm_header {
        let arm = &service.arms[usize::from(routed.assignment.arm.0)];
        if let Ok(name) = HeaderValue::from_str(&arm.name) {
            parts.headers.insert("x-haldane-arm", name);
        }
    }
    let mut download = super::body::Download {
        body,
        observation,
        lease: Some(exchange.lease),
        chosen: Some(exchange.chosen),
        upload: exchange.upload,
        statuses,
        total: (route.judged == Judged::Total).then_some(exchange.deadline),
        call: routed.call.map(|call| CallEnd {
            deadline: call.ends.map(|ends| {
                let now = client.worker.clock.now();
                client.worker.deadlines.after(now, ends.at.saturating_sub(now))
            }),
            over: false,
        }),
        stall: stall(client, routed.call),
        _in_flight: in_flight,
    };
    if download.body.is_end_stream() {
        download.complete();
    }
    Response::from_parts(parts, ResponseBody::Upstream(Box::new(download)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_future_of_a_request_is_small() {
        fn size<F, A>(_: F) -> usize
        where
            F: Fn(Rc<Client>, Request<Incoming>) -> A,
        {
            size_of::<A>()
        }
        // Each of an HTTP/2 connection's streams is a task, into which it is copied.
        assert!(size(handle) <= 4096, "{} bytes", size(handle));
    }
}
