//! Why a request was not answered by its upstream, and the one place that turns this into an
//! answer, a counter and a blame.

use std::borrow::Cow;

use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode, header};
use http_body_util::Full;

use super::{
    body::ResponseBody,
    connection::InFlight,
    drill, grpc,
    upstream::{BrokenOff, ConnectError},
};
use crate::{
    measure::{Outcome, ShedReason},
    routing::{Harm, HostProblem, PathProblem},
};

/// Why a request was not answered by its upstream.
#[derive(Debug, thiserror::Error)]
pub(super) enum ProxyError {
    #[error("{0}")]
    BadRequest(&'static str),
    #[error(transparent)]
    Path(#[from] PathProblem),
    #[error(transparent)]
    Host(#[from] HostProblem),
    #[error("CONNECT is not served here")]
    Connect,
    #[error("no route matches this request")]
    NoRoute,
    #[error("no connection to the upstream: {0}")]
    NoConnection(ConnectError),
    #[error("the proxy has no room for another connection to this upstream")]
    Overload,
    #[error("the upstream broke off: {0}")]
    Upstream(BrokenOff),
    #[error("the upstream broke the protocol: {0}")]
    Protocol(&'static str),
    #[error("the upstream did not answer in time")]
    Timeout,
    #[error("the client broke off its request")]
    Client,
    #[error("a drill: {0:?}")]
    Drill(Harm),
    #[error("only https is served")]
    Redirect(HeaderValue),
}

/// What follows from an error.
struct Consequence {
    status: StatusCode,
    /// Counted as refused by the proxy, for this reason.
    shed: Option<ShedReason>,
    /// How the request ends, where it had been assigned to an arm.
    outcome: Outcome,
}

impl ProxyError {
    fn consequence(&self) -> Consequence {
        let (status, shed, outcome) = match self {
            Self::BadRequest(_) | Self::Path(_) | Self::Host(_) => {
                (StatusCode::BAD_REQUEST, Some(ShedReason::BadRequest), Outcome::Local)
            }
            Self::Connect => {
                (StatusCode::METHOD_NOT_ALLOWED, Some(ShedReason::Method), Outcome::Local)
            }
            Self::NoRoute => (StatusCode::NOT_FOUND, Some(ShedReason::NoRoute), Outcome::Local),
            Self::NoConnection(_) | Self::Upstream(_) | Self::Protocol(_) => {
                (StatusCode::BAD_GATEWAY, None, Outcome::Failed)
            }
            Self::Overload => {
                (StatusCode::SERVICE_UNAVAILABLE, Some(ShedReason::Overload), Outcome::Local)
            }
            Self::Timeout => (StatusCode::GATEWAY_TIMEOUT, None, Outcome::Hung),
            Self::Client => (StatusCode::BAD_REQUEST, None, Outcome::Aborted),
            Self::Drill(Harm::Errors) => (StatusCode::SERVICE_UNAVAILABLE, None, Outcome::Failed),
            Self::Drill(Harm::Latency(_) | Harm::Hang) => {
                (StatusCode::GATEWAY_TIMEOUT, None, Outcome::Hung)
            }
            Self::Redirect(_) => (StatusCode::PERMANENT_REDIRECT, None, Outcome::Local),
        };
        Consequence { status, shed, outcome }
    }

    /// The outcome of a request that was assigned and then met this error.
    pub(super) fn outcome(&self) -> Outcome {
        self.consequence().outcome
    }

    /// The reason under which the proxy counts its refusal, if it was one.
    pub(super) fn shed(&self) -> Option<ShedReason> {
        self.consequence().shed
    }

    /// The status of the answer.
    pub(super) fn status(&self) -> StatusCode {
        self.consequence().status
    }

    /// The text for the client: it names the cause and nothing of the inside.
    fn text(&self) -> Cow<'static, str> {
        let text = match self {
            Self::BadRequest(reason) => reason,
            Self::Path(problem) => return problem.to_string().into(),
            Self::Host(problem) => return problem.to_string().into(),
            Self::Connect => "CONNECT is not served here",
            Self::NoRoute => "no route matches this request",
            Self::NoConnection(_) => "no connection to the upstream",
            Self::Overload => "no room for another connection to the upstream",
            Self::Upstream(_) => "the upstream broke off",
            Self::Protocol(_) => "the upstream broke the protocol",
            Self::Timeout => "the upstream did not answer in time",
            Self::Client => "the request broke off",
            Self::Drill(_) => "this failure is a drill",
            Self::Redirect(_) => "only https is served",
        };
        text.into()
    }

    /// The answer to a gRPC call: its status and nothing else.
    pub(super) fn answer_call(&self, in_flight: InFlight) -> Response<ResponseBody> {
        let mut response =
            Response::new(ResponseBody::Local { body: Full::default(), _in_flight: in_flight });
        *response.headers_mut() = grpc::status(self.code(), &format!("haldane: {}", self.text()));
        let grpc = HeaderValue::from_static("application/grpc");
        response.headers_mut().insert(header::CONTENT_TYPE, grpc);
        if let Self::Drill(harm) = self {
            drill::mark(response.headers_mut(), *harm);
        }
        response
    }

    /// As gRPC maps HTTP to its own codes, but that a timeout is told from other failures.
    fn code(&self) -> grpc::Code {
        match self {
            Self::BadRequest(_) | Self::Path(_) | Self::Host(_) | Self::Connect => {
                grpc::Code::Internal
            }
            Self::NoRoute | Self::Redirect(_) => grpc::Code::Unimplemented,
            Self::NoConnection(_)
            | Self::Overload
            | Self::Upstream(_)
            | Self::Protocol(_)
            | Self::Drill(Harm::Errors) => grpc::Code::Unavailable,
            Self::Timeout | Self::Drill(Harm::Latency(_) | Harm::Hang) => {
                grpc::Code::DeadlineExceeded
            }
            Self::Client => grpc::Code::Cancelled,
        }
    }

    /// The answer: a line of text, with its length.
    pub(super) fn answer(&self, in_flight: InFlight) -> Response<ResponseBody> {
        let body = Bytes::from(format!("haldane: {}\n", self.text()));
        let length = body.len();
        let mut response =
            Response::new(ResponseBody::Local { body: Full::new(body), _in_flight: in_flight });
        *response.status_mut() = self.status();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
        headers.insert(header::CONTENT_LENGTH, HeaderValue::from(length));
        if let Self::Drill(harm) = self {
            drill::mark(headers, *harm);
        }
        if let Self::Redirect(location) = self {
            headers.insert(header::LOCATION, location.clone());
        }
        if matches!(self, Self::Connect) {
            headers.insert(
                header::ALLOW,
                HeaderValue::from_static("GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS, TRACE"),
            );
        }
        response
    }
}

impl From<ConnectError> for ProxyError {
    fn from(error: ConnectError) -> Self {
        // The proxy's own lack of descriptors or ports is not the upstream's fault.
        if error.is_own() {
            return Self::Overload;
        }
        match error {
            ConnectError::Overloaded => Self::Overload,
            ConnectError::Io(_)
            | ConnectError::Timeout
            | ConnectError::NoAddress
            | ConnectError::Handshake(_)
            | ConnectError::Http2(_)
            | ConnectError::NotHttp1
            | ConnectError::NotHttp2
            | ConnectError::NotAgreed
            | ConnectError::Tls(_)
            | ConnectError::TlsFiles
            | ConnectError::NoServerName
            | ConnectError::Joined(_)
            | ConnectError::Retired
            | ConnectError::NoEndpoint => Self::NoConnection(error),
        }
    }
}
