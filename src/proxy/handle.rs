//! A request's way through the proxy, from its head to its answer. Start reading here.
//!
//! [`handle`] returns a response, never an error: every [`ProxyError`] becomes an answer in one
//! place.

use std::{net::IpAddr, rc::Rc, sync::Arc, time::Duration};

use http::{HeaderValue, Request, Response, request::Parts};
use hyper::body::{Body as _, Incoming};

use super::{
    body::{GrpcFailures, RequestBody, ResponseBody, Stall, Upload},
    connection::{ConnectionState, InFlight},
    error::ProxyError,
    forward::{self, Exchange},
    headers,
    observe::{Observation, Observed},
    settings::ListenerSettings,
    target::Target,
    worker::{View, Worker},
};
use crate::routing::{self, Assignment, CohortId, Judged, RequestHead, RouteId};

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
}

/// The route, the cohort and the arm of a request.
struct Routed {
    view: Rc<View>,
    route: RouteId,
    cohort: CohortId,
    assignment: Assignment,
}

/// A request on its way to its arm.
struct Underway {
    routed: Routed,
    request: Request<RequestBody>,
    upload: Option<Rc<Upload>>,
    observation: Observation,
}

/// Answers one request. All that needs no waiting is done before the future is made, which keeps
/// the future small.
pub(super) fn handle(
    client: Rc<Client>,
    request: Request<Incoming>,
) -> impl Future<Output = Response<ResponseBody>> {
    let in_flight = client.state.request();
    let begun = begin(&client, request);
    async move {
        let (error, in_flight) = match begun {
            Ok(underway) => match exchange(&client, underway, in_flight).await {
                Ok(response) => return response,
                Err(ended) => ended,
            },
            Err(error) => (error, in_flight),
        };
        if let Some(reason) = error.shed() {
            client.worker.shed(reason);
        }
        tracing::debug!(%error, status = error.status().as_u16(), "answered by the proxy");
        error.answer(in_flight)
    }
}

/// From the head to a request that may be sent: target, route, cohort, arm, header rules.
fn begin(client: &Client, request: Request<Incoming>) -> Result<Underway, ProxyError> {
    let arrived = client.worker.clock.now();
    let (mut parts, body) = request.into_parts();
    let target = Target::read(&parts, &client.settings.limits)?;
    let routed = route(client, &parts, &target)?;
    let observation = observe(client, &routed, arrived);
    let table = &routed.view.table;
    let route = table.routes.route_at(routed.route);
    let service = table.routes.service(route.service);
    let arm = &service.arms[usize::from(routed.assignment.arm.0)];
    let (body, upload) = if body.is_end_stream() {
        (RequestBody::Empty, None)
    } else {
        let upload = Rc::new(Upload::default());
        let stall = Stall::new(&client.worker.deadlines, client.settings.limits.body_timeout);
        (RequestBody::Client { body, upload: Rc::clone(&upload), stall }, Some(upload))
    };
    let way = forward::Way { route, service, arm };
    if let Err(error) = forward::prepare(&mut parts, target, client, &way, &body) {
        observation.finish(error.outcome());
        return Err(error);
    }
    let request = Request::from_parts(parts, body);
    Ok(Underway { routed, request, upload, observation })
}

/// Sends the request to its arm and makes the client's answer from the upstream's.
async fn exchange(
    client: &Client,
    underway: Underway,
    in_flight: InFlight,
) -> Result<Response<ResponseBody>, (ProxyError, InFlight)> {
    let Underway { routed, request, upload, mut observation } = underway;
    let table = &routed.view.table;
    let route = table.routes.route_at(routed.route);
    let arm = &table.routes.service(route.service).arms[usize::from(routed.assignment.arm.0)];
    let deadline = client.worker.deadlines.after(observation.arrived(), route.timeout);
    let pool = routed.view.pool(arm.upstream);
    match forward::exchange(pool, request, upload, deadline, &mut observation).await {
        Ok(exchange) => Ok(answer(client, &routed, exchange, observation, in_flight)),
        Err(error) => {
            observation.finish(error.outcome());
            Err((error, in_flight))
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
        client_ip: if client.peer_trusted {
            headers::client_ip(client.peer, trusted, &parts.headers)
        } else {
            client.peer
        },
    };
    let route = table.routes.route(&head).ok_or(ProxyError::NoRoute)?;
    let cohort = table.routes.cohort(&head);
    let service = table.routes.route_at(route).service;
    let assignment = routing::assign(
        table.routes.service(service),
        table.dials.of(service),
        cohort,
        &head,
        client.worker.coin(),
    );
    Ok(Routed { view, route, cohort, assignment })
}

fn observe(client: &Client, routed: &Routed, arrived: Duration) -> Observation {
    let route = routed.view.table.routes.route_at(routed.route);
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

/// Makes the client's answer from the upstream's.
fn answer(
    client: &Client,
    routed: &Routed,
    exchange: Exchange,
    mut observation: Observation,
    in_flight: InFlight,
) -> Response<ResponseBody> {
    let table = &routed.view.table;
    let route = table.routes.route_at(routed.route);
    let service = table.routes.service(route.service);
    let (mut parts, body) = exchange.response.into_parts();
    let grpc = GrpcFailures::of(&route.failed_when, &parts.headers);
    let failed = route.failed_when.status(parts.status) || grpc.fails(&parts.headers);
    observation.head(failed);
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
        observation: Some(observation),
        lease: Some(exchange.lease),
        upload: exchange.upload,
        failed_when: grpc,
        total: (route.judged == Judged::Total).then_some(exchange.deadline),
        stall: Stall::new(&client.worker.deadlines, client.settings.limits.body_timeout),
        _in_flight: in_flight,
    };
    if download.body.is_end_stream() {
        download.complete();
    }
    Response::from_parts(parts, ResponseBody::Upstream(Box::new(download)))
}
