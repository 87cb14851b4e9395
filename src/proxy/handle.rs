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

/// Answers one request.
pub(super) async fn handle(
    client: Rc<Client>,
    request: Request<Incoming>,
) -> Response<ResponseBody> {
    let mut in_flight = Some(client.state.request());
    match serve(&client, request, &mut in_flight).await {
        Ok(response) => response,
        Err(error) => {
            if let Some(reason) = error.shed() {
                client.worker.shed(reason);
            }
            tracing::debug!(%error, status = error.status().as_u16(), "answered by the proxy");
            error.answer(in_flight.take())
        }
    }
}

async fn serve(
    client: &Client,
    request: Request<Incoming>,
    in_flight: &mut Option<InFlight>,
) -> Result<Response<ResponseBody>, ProxyError> {
    let arrived = client.worker.clock.now();
    let (parts, body) = request.into_parts();
    let target = Target::read(&parts, &client.settings.limits)?;
    let routed = route(client, &parts, &target)?;
    let mut observation = observe(client, &routed, arrived);
    match exchange(client, &routed, (parts, body), target, &mut observation).await {
        Ok(exchange) => Ok(answer(client, &routed, exchange, observation, in_flight.take())),
        Err(error) => {
            observation.finish(error.outcome());
            Err(error)
        }
    }
}

/// Finds the route, the cohort and the arm.
fn route(client: &Client, parts: &Parts, target: &Target) -> Result<Routed, ProxyError> {
    let view = client.worker.view();
    let table = &view.table;
    let trusted = &client.settings.trusted_proxies;
    let host = target.host_name();
    let head = RequestHead {
        method: &parts.method,
        host: &host,
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
    drop(host);
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

/// Sends the request to its arm and waits for the head of the answer.
async fn exchange(
    client: &Client,
    routed: &Routed,
    (mut parts, body): (Parts, Incoming),
    target: Target,
    observation: &mut Observation,
) -> Result<Exchange, ProxyError> {
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
    forward::prepare(&mut parts, target, client, &forward::Way { route, service, arm }, &body)?;
    let request = Request::from_parts(parts, body);
    let deadline = client.worker.deadlines.after(observation.arrived(), route.timeout);
    let pool = routed.view.pool(arm.upstream);
    forward::exchange(pool, request, upload, deadline, observation).await
}

/// Makes the client's answer from the upstream's.
fn answer(
    client: &Client,
    routed: &Routed,
    exchange: Exchange,
    mut observation: Observation,
    in_flight: Option<InFlight>,
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
