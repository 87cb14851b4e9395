//! What the admin address answers: one function per endpoint, read top to bottom.
//!
//! Reads come from the latest snapshot and ask nobody. Writes become one command to the control
//! thread, whose answer is awaited. Who may write is decided in `access`.

use std::{path::PathBuf, sync::Arc};

use axum::{
    Json, Router,
    body::Bytes,
    extract::{DefaultBodyLimit, Extension, Path, State},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use http::{HeaderMap, StatusCode, Uri, header};
use serde::Serialize;
use serde_json::Value;
use tokio::sync::{mpsc, oneshot, watch};

use super::{
    access,
    exposition::Format,
    masking, metrics, page,
    problem::Problem,
    query,
    request::{self, Verb},
    server::Peer,
};
use crate::rollout::{
    Command, Handle, NoReport, ReadError, Refused, Report, ReportForm, RolloutStatus, Snapshot,
    Wanted, history,
};

/// Largest body of a write, in bytes.
const BODY_BYTES: usize = 64 * 1024;

/// What the admin server shows and steers.
#[derive(Clone, Debug)]
pub struct Parts {
    /// The control thread.
    pub handle: Handle,
    /// Whether listeners, configuration and journal are in force and nothing is draining.
    pub ready: watch::Receiver<bool>,
    /// The text of the configuration in force, before `${…}` was filled in.
    pub config_text: watch::Receiver<Arc<str>>,
    /// Takes requests to load the configuration again.
    pub reload: mpsc::Sender<Reload>,
}

/// A request to load the configuration again; answered with what is wrong with it, if anything.
pub type Reload = oneshot::Sender<Result<(), Vec<String>>>;

#[derive(Clone)]
struct Admin {
    parts: Parts,
    token_file: Option<Arc<PathBuf>>,
}

/// Everything the admin address answers.
pub(super) fn router(parts: Parts, token_file: Option<PathBuf>) -> Router {
    let admin = Admin { parts, token_file: token_file.map(Arc::new) };
    Router::new()
        .merge(page::router())
        .route("/livez", get(async || "alive\n"))
        .route("/readyz", get(readyz))
        .route("/metrics", get(scrape))
        .route("/api/v1/status", get(status))
        .route("/api/v1/services/{service}", get(service))
        .route("/api/v1/services/{service}/report", get(report))
        .route("/api/v1/services/{service}/{verb}", post(act))
        .route("/api/v1/journal", get(journal))
        .route("/api/v1/config", get(config))
        .route("/api/v1/reload", post(reload))
        .fallback(async || Problem::new(StatusCode::NOT_FOUND, "There is nothing at this path."))
        .method_not_allowed_fallback(async || {
            Problem::new(StatusCode::METHOD_NOT_ALLOWED, "This path does not take this method.")
        })
        .layer(DefaultBodyLimit::max(BODY_BYTES))
        .with_state(admin)
}

impl Admin {
    fn snapshot(&self) -> Arc<Snapshot> {
        self.parts.handle.snapshot()
    }

    async fn check_write(&self, headers: &HeaderMap, peer: Peer) -> Result<(), Problem> {
        let token = match self.token_file.clone() {
            Some(path) => Some(
                tokio::task::spawn_blocking(move || access::read_token(&path))
                    .await
                    .expect("reading a file does not panic")?,
            ),
            None => None,
        };
        access::check_write(headers, peer.0, token.as_deref())
    }
}

async fn readyz(State(admin): State<Admin>) -> Response {
    if *admin.parts.ready.borrow() {
        "ready\n".into_response()
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, "not ready: starting or draining\n").into_response()
    }
}

async fn scrape(State(admin): State<Admin>, headers: HeaderMap) -> Response {
    let accept = headers.get(header::ACCEPT).and_then(|value| value.to_str().ok()).unwrap_or("");
    let format = Format::accepted(accept);
    let text = metrics::render(&admin.snapshot(), format);
    ([(header::CONTENT_TYPE, format.content_type())], text).into_response()
}

async fn status(State(admin): State<Admin>) -> Response {
    Json(&*admin.snapshot().status).into_response()
}

/// One service, as `GET /api/v1/services/NAME` shows it.
#[derive(Serialize)]
struct ServiceDocument<'a> {
    service: &'a str,
    rollouts: Vec<&'a RolloutStatus>,
    weights: Vec<CohortWeight<'a>>,
}

/// The weight of a canary in one cohort, as a share of 1.
#[derive(Serialize)]
struct CohortWeight<'a> {
    canary: &'a str,
    cohort: &'a str,
    weight: f64,
}

async fn service(
    State(admin): State<Admin>,
    Path(name): Path<String>,
) -> Result<Response, Problem> {
    let snapshot = admin.snapshot();
    if !snapshot.recorders.iter().any(|view| *view.labels.service == *name) {
        return Err(refusal(&Refused::UnknownService(name)));
    }
    let rollouts = snapshot.status.rollouts.iter().filter(|one| *one.service == *name).collect();
    let weights = snapshot
        .weights
        .iter()
        .filter(|one| *one.service == *name)
        .map(|one| CohortWeight {
            canary: &one.canary,
            cohort: &one.cohort,
            weight: f64::from(one.weight_bp) / 10_000.0,
        })
        .collect();
    Ok(Json(ServiceDocument { service: &name, rollouts, weights }).into_response())
}

async fn act(
    State(admin): State<Admin>,
    Extension(peer): Extension<Peer>,
    Path((service, verb)): Path<(String, String)>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Json<RolloutStatus>, Problem> {
    let Some(verb) = Verb::named(&verb) else {
        return Err(Problem::new(StatusCode::NOT_FOUND, format!("There is no verb {verb:?}.")));
    };
    admin.check_write(&headers, peer).await?;
    let asked = request::parse(verb, &body)?;
    let command = Command {
        service,
        canary: asked.canary,
        action: asked.action,
        reason: asked.reason,
        actor: format!("api {}", peer.0.ip()),
    };
    match admin.parts.handle.command(command).await {
        Ok(status) => Ok(Json(status)),
        Err(refused) => Err(refusal(&refused)),
    }
}

fn refusal(refused: &Refused) -> Problem {
    let status = match refused {
        Refused::UnknownService(_) | Refused::UnknownCanary(_) => StatusCode::NOT_FOUND,
        Refused::Forbidden(_) => StatusCode::CONFLICT,
        Refused::Journal | Refused::Busy | Refused::Stopped => StatusCode::SERVICE_UNAVAILABLE,
    };
    Problem::new(status, refused.to_string())
}

/// The last decisions; more than the snapshot holds, or those of one service, come from the disk.
async fn journal(State(admin): State<Admin>, uri: Uri) -> Result<Response, Problem> {
    let [service, canary, limit] = query::parameters(&uri, ["service", "canary", "limit"])?;
    let limit = match limit.map(|limit| limit.parse()) {
        None => Snapshot::RECENT,
        Some(Ok(limit)) => limit,
        Some(Err(_)) => {
            let detail = "limit is the number of decisions that are wanted.";
            return Err(Problem::new(StatusCode::BAD_REQUEST, detail));
        }
    };
    let wanted = Wanted { service, canary, limit: Some(limit) };
    if uri.query().is_none() {
        let snapshot = admin.snapshot();
        let decisions: Vec<_> = snapshot.recent.iter().map(|decision| &**decision).collect();
        return Ok(Json(serde_json::json!({ "decisions": decisions })).into_response());
    }
    let state_dir = admin.parts.handle.state_dir();
    let decisions = from_disk(move || history(&state_dir, &wanted)).await?;
    Ok(Json(serde_json::json!({ "decisions": decisions })).into_response())
}

/// A report is a page of its own: nothing in it runs, and it loads nothing.
const REPORT_POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; \
                             form-action 'none'; frame-ancestors 'none'";

async fn report(
    State(admin): State<Admin>,
    Path(service): Path<String>,
    uri: Uri,
) -> Result<Response, Problem> {
    let [canary, format] = query::parameters(&uri, ["canary", "format"])?;
    let (form, kind) = match format.as_deref() {
        None | Some("markdown") => (ReportForm::Markdown, "text/markdown; charset=utf-8"),
        Some("html") => (ReportForm::Html, "text/html; charset=utf-8"),
        Some(_) => {
            let detail = "format is markdown or html.";
            return Err(Problem::new(StatusCode::BAD_REQUEST, detail));
        }
    };
    let state_dir = admin.parts.handle.state_dir();
    let config = admin.parts.config_text.borrow().clone();
    let made = move || {
        let report = match Report::read(&state_dir, &service, canary.as_deref()) {
            Ok(report) => report,
            Err(NoReport::Journal(error)) => return Err(error),
            Err(NoReport::Unknown(sentence)) => return Ok(Err(sentence)),
        };
        let upstreams = upstreams(&config, &service, report.canary());
        Ok(Ok(report.with_upstreams(upstreams).render(form)))
    };
    match from_disk(made).await? {
        Ok(text) => {
            let headers = [
                (header::CONTENT_TYPE, kind),
                (header::CONTENT_SECURITY_POLICY, REPORT_POLICY),
                (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
            ];
            Ok((headers, text).into_response())
        }
        Err(sentence) => Err(Problem::new(StatusCode::NOT_FOUND, capital(&sentence))),
    }
}

/// What the configuration names as upstreams of baseline and canary, where it names them.
fn upstreams(config: &str, service: &str, canary: &str) -> Option<[String; 2]> {
    let config = masking::mask(config).ok()?;
    let service = config.get("services")?.get(service)?;
    let canary = service.get("canaries")?.get(canary)?;
    let name = |value: &Value| value.as_str().map(str::to_owned);
    Some([name(service.get("baseline")?)?, name(canary.get("upstream").unwrap_or(canary))?])
}

fn capital(sentence: &str) -> String {
    let mut letters = sentence.chars();
    let first = letters.next().map(|first| first.to_uppercase().collect::<String>());
    format!("{}{}.", first.unwrap_or_default(), letters.as_str())
}

/// Reads the journal where nobody waits for it but who asked.
async fn from_disk<T: Send + 'static>(
    read: impl FnOnce() -> Result<T, ReadError> + Send + 'static,
) -> Result<T, Problem> {
    let read = tokio::task::spawn_blocking(read).await.expect("reading a journal does not panic");
    read.map_err(|error| {
        tracing::error!(%error, "the journal cannot be read");
        let detail = format!("The journal cannot be read: {error}");
        Problem::new(StatusCode::INTERNAL_SERVER_ERROR, detail)
    })
}

/// The configuration, as `GET /api/v1/config` shows it.
#[derive(Serialize)]
struct ConfigDocument<'a> {
    hash: &'a str,
    last_reload_successful: bool,
    last_error: Option<&'a str>,
    config: Value,
}

async fn config(State(admin): State<Admin>) -> Result<Response, Problem> {
    let text = admin.parts.config_text.borrow().clone();
    let config = masking::mask(&text).map_err(|error| {
        tracing::error!(%error, "the configuration in force cannot be shown");
        Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "The configuration cannot be shown.")
    })?;
    let snapshot = admin.snapshot();
    let view = &snapshot.config;
    Ok(Json(ConfigDocument {
        hash: &view.hash,
        last_reload_successful: view.last_reload_successful,
        last_error: view.last_error.as_deref(),
        config,
    })
    .into_response())
}

async fn reload(
    State(admin): State<Admin>,
    Extension(peer): Extension<Peer>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    admin.check_write(&headers, peer).await?;
    let unavailable = || {
        Problem::new(StatusCode::SERVICE_UNAVAILABLE, "The proxy is busy or stopping, try again.")
    };
    let (answer, answered) = oneshot::channel();
    admin.parts.reload.try_send(answer).map_err(|_| unavailable())?;
    match answered.await.map_err(|_| unavailable())? {
        Ok(()) => {
            Ok(Json(serde_json::json!({ "hash": admin.snapshot().config.hash })).into_response())
        }
        Err(problems) => Err(Problem::new(
            StatusCode::UNPROCESSABLE_ENTITY,
            "The configuration was not put in force; the one of before still is.",
        )
        .with(problems)),
    }
}
