//! The second look at what an arm made of a request, for the few that need one: an answer that a
//! drill hurts, the outcome of a probe, a failure that another endpoint of the arm may make good or
//! that the baseline may rescue.

use std::{mem, rc::Rc, time::Duration};

use http::Response;

use super::{
    body::{RequestBody, ResponseBody, Upload},
    connection::InFlight,
    drill,
    error::ProxyError,
    forward::{self, Copy, Exchange, Failure},
    handle::{self, BASELINE, Client, Routed},
    observe::Observation,
    upstream::To,
};
use crate::{
    measure::{Outcome, RescueResult},
    routing::Probe,
};

/// A request whose arm has answered or failed.
pub(super) struct SecondLook {
    pub(super) routed: Routed,
    pub(super) attempt: Result<Exchange, Failure>,
    /// When it arrived, since the start of the process.
    pub(super) arrived: Duration,
    /// None once the request is counted.
    pub(super) observation: Option<Observation>,
    /// What another endpoint of the arm gets if the first one broke off; none: it gets nothing.
    pub(super) retry: Option<Box<Copy>>,
    /// What the baseline gets if the arm failed; none: it gets nothing.
    pub(super) replay: Option<Box<Copy>>,
    /// Whether the request has no body.
    pub(super) bodyless: bool,
}

/// A request on its way to the baseline.
struct Rescue {
    replay: Box<Copy>,
    body: RequestBody,
    upload: Option<Rc<Upload>>,
    left: Duration,
}

type Answered = Result<Response<ResponseBody>, (ProxyError, InFlight)>;

impl SecondLook {
    /// Hurts the answer, tells how the probe went, has a failure rescued; and answers.
    pub(super) async fn take(mut self, client: &Client, in_flight: InFlight) -> Answered {
        let mut hurt = None;
        if let (Some(harm), Ok(_)) = (self.routed.harm, &self.attempt) {
            hurt = Some(harm);
            self = self.hurt().await;
        }
        let outcome = self.outcome();
        self.tell(client, outcome);
        self.repeat(client, outcome).await;
        let outcome = self.outcome();
        let mut answered = match self.rescue(client, outcome) {
            Some(rescue) => {
                self.charge(outcome);
                rescue.answer(client, self.routed, in_flight).await
            }
            None => self.answer(client, outcome, in_flight),
        };
        if let (Some(harm), Ok(response)) = (hurt, &mut answered) {
            drill::mark(response.headers_mut(), harm);
        }
        answered
    }

    async fn hurt(self) -> Self {
        let attempt = match (self.routed.harm, self.attempt) {
            (Some(harm), Ok(exchange)) => drill::hurt(harm, exchange).await,
            (_, attempt) => attempt,
        };
        Self { attempt, ..self }
    }

    /// What is known of the request's outcome before the body of its answer.
    fn outcome(&self) -> Outcome {
        match &self.attempt {
            Ok(Exchange { response, .. }) => {
                let route = self.routed.route();
                if handle::has_failed(route, response.status(), response.headers()) {
                    Outcome::Failed
                } else {
                    Outcome::Ok
                }
            }
            Err(failure) => failure.error.outcome(),
        }
    }

    fn tell(&self, client: &Client, outcome: Outcome) {
        let ok = match outcome {
            Outcome::Ok => true,
            Outcome::Failed | Outcome::Hung => false,
            // Says nothing about the arm.
            Outcome::Aborted | Outcome::Local => return,
        };
        if self.routed.is_probe {
            let service = self.routed.route().service;
            let probe = Probe { service, arm: self.routed.assignment.arm };
            client.worker.probes.tell(&self.routed.view, probe, ok);
        }
    }

    /// The rescue, if there is to be one: the arm is to blame, what was sent can be sent again,
    /// time and budget are left. A probe does not ask the budget: there is one a second.
    fn rescue(&mut self, client: &Client, outcome: Outcome) -> Option<Rescue> {
        let is_probe = self.routed.is_probe;
        if outcome != Outcome::Failed && !(is_probe && outcome == Outcome::Hung) {
            return None;
        }
        let replay = self.replay.take()?;
        let (body, upload) = self.body()?;
        let now = client.worker.clock.now();
        let left = (self.arrived + self.routed.route().timeout).checked_sub(now)?;
        let rescuer = self.routed.view.rescuer(self.routed.route().service)?;
        (is_probe || rescuer.repeats.may_repeat()).then_some(Rescue { replay, body, upload, left })
    }

    /// The body to be sent again: none, or one of which nothing was read.
    fn body(&mut self) -> Option<(RequestBody, Option<Rc<Upload>>)> {
        let body = match &mut self.attempt {
            Err(Failure { unsent: Some(request), .. }) => {
                mem::replace(request.body_mut(), RequestBody::Empty)
            }
            Err(_) | Ok(_) if self.bodyless => RequestBody::Empty,
            Err(_) | Ok(_) => return None,
        };
        let upload = body.upload().map(Rc::clone);
        Some((body, upload))
    }

    /// Repeats a request that an endpoint broke off on another one of the same arm, if it may be.
    /// The arm is charged with the failure before; what comes of the repetition is not counted.
    async fn repeat(&mut self, client: &Client, outcome: Outcome) {
        let Some(retry) = self.retry.take() else { return };
        let route = self.routed.route();
        let arm = &self.routed.service().arms[usize::from(self.routed.assignment.arm.0)];
        let pool = Rc::clone(self.routed.view.pool(arm.upstream));
        let end = self.arrived + route.timeout;
        for _ in 0..route.retries {
            let Err(Failure { error: ProxyError::Upstream(_), lost: Some(lost), .. }) =
                &self.attempt
            else {
                return;
            };
            let now = client.worker.clock.now();
            let Some(left) = end.checked_sub(now) else { return };
            let Some(to) = To::other(&pool, lost.clone()) else { return };
            if !pool.repeats.may_repeat() {
                return;
            }
            if let Some(observation) = self.observation.take() {
                observation.finish(outcome);
            }
            let deadline = client.worker.deadlines.after(now, left);
            let request = Copy::clone(&retry).into_request(RequestBody::Empty);
            self.attempt = forward::exchange(to, request, None, deadline, None).await;
            let answered = self.attempt.is_ok();
            let result = if answered { RescueResult::Rescued } else { RescueResult::Failed };
            pool.repeats.count(result);
        }
    }

    /// Counts the failure against the arm, if that was not done, and leaves its answer.
    fn charge(&mut self, outcome: Outcome) {
        let left = ProxyError::Timeout.into();
        if let Ok(exchange) = mem::replace(&mut self.attempt, Err(left)) {
            if let Some(observation) = &mut self.observation {
                observation.head(true);
            }
            exchange.chosen.judged(true);
            forward::let_go(exchange);
        }
        if let Some(observation) = self.observation.take() {
            observation.finish(outcome);
        }
    }

    /// Answers as the arm did.
    fn answer(self, client: &Client, outcome: Outcome, in_flight: InFlight) -> Answered {
        let Self { routed, attempt, observation, .. } = self;
        match attempt {
            Ok(exchange) => Ok(handle::answer(client, &routed, exchange, observation, in_flight)),
            Err(failure) => {
                if let Some(observation) = observation {
                    observation.finish(outcome);
                }
                Err((failure.error, in_flight))
            }
        }
    }
}

impl Rescue {
    /// Sends the request to the baseline and answers as it does, uncounted.
    async fn answer(self, client: &Client, mut routed: Routed, in_flight: InFlight) -> Answered {
        let Self { replay, body, upload, left } = self;
        let baseline = &routed.service().arms[usize::from(BASELINE.0)];
        let pool = Rc::clone(routed.view.pool(baseline.upstream));
        let deadline = client.worker.deadlines.after(client.worker.clock.now(), left);
        let request = replay.into_request(body);
        let attempt = forward::exchange(To::any(&pool), request, upload, deadline, None).await;
        let route = routed.route();
        let rescued = attempt.as_ref().is_ok_and(|Exchange { response, .. }| {
            !handle::has_failed(route, response.status(), response.headers())
        });
        let result = if rescued { RescueResult::Rescued } else { RescueResult::Failed };
        if let Some(rescuer) = routed.view.rescuer(route.service) {
            rescuer.repeats.count(result);
        }
        routed.assignment.arm = BASELINE;
        match attempt {
            Ok(exchange) => Ok(handle::answer(client, &routed, exchange, None, in_flight)),
            Err(failure) => Err((failure.error, in_flight)),
        }
    }
}
