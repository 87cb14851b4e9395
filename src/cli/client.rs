//! Talks to the admin address of a running proxy: one request, one connection.

use std::{path::Path, time::Duration};

use bytes::Bytes;
use http::{Method, Request, StatusCode, Uri, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use serde::Deserialize;
use tokio::{net::TcpStream, time::timeout};

use super::{
    arguments::Global,
    exit::{Exit, Failure},
};

/// Longest time to connect.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Longest time for an answer; a write waits until it is in force.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(40);
/// Largest answer that is read, in bytes.
const ANSWER_BYTES: usize = 64 * 1024 * 1024;

/// A client of one admin address.
#[derive(Debug)]
pub(super) struct Client {
    authority: String,
    host: String,
    port: u16,
    token: Option<String>,
}

/// An answer that was read to its end.
#[derive(Debug)]
pub(super) struct Answer {
    /// Its status.
    pub(super) status: StatusCode,
    /// Its body.
    pub(super) body: Bytes,
}

/// What we read of a problem document.
#[derive(Deserialize)]
struct Problem {
    detail: String,
    #[serde(default)]
    problems: Vec<String>,
}

impl Client {
    /// The client for the address and token that the command line names.
    ///
    /// # Errors
    /// When the address is not one that can be asked, or the token cannot be read.
    pub(super) fn new(global: &Global) -> Result<Self, Failure> {
        let usage = |what: &str| {
            Failure::new(
                Exit::Usage,
                format!("--admin {}: {what}; expected http://HOST:PORT", global.admin),
            )
        };
        let uri: &Uri = &global.admin;
        if uri.scheme_str() != Some("http") {
            return Err(usage("the admin address speaks plain HTTP"));
        }
        let authority = uri.authority().ok_or_else(|| usage("there is no host"))?;
        let host = authority.host().trim_start_matches('[').trim_end_matches(']').to_owned();
        let token = global.token_file.as_deref().map(read_token).transpose()?;
        Ok(Self {
            authority: authority.to_string(),
            host,
            port: authority.port_u16().unwrap_or(80),
            token,
        })
    }

    /// Reads a path.
    ///
    /// # Errors
    /// When there is no answer.
    pub(super) async fn get(&self, path: &str) -> Result<Answer, Failure> {
        self.send(Method::GET, path, Bytes::new()).await
    }

    /// Writes to a path, and takes any answer but a success for a failure.
    ///
    /// # Errors
    /// When there is no answer, or the proxy refuses.
    pub(super) async fn post(
        &self,
        path: &str,
        body: &serde_json::Value,
    ) -> Result<Answer, Failure> {
        let answer = self.send(Method::POST, path, body.to_string().into()).await?;
        if answer.status.is_success() { Ok(answer) } else { Err(self.refusal(&answer)) }
    }

    async fn send(&self, method: Method, path: &str, body: Bytes) -> Result<Answer, Failure> {
        match timeout(ANSWER_TIMEOUT, self.exchange(method, path, body)).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(Fault::Connect(error))) => Err(self.unreachable(&error)),
            Ok(Err(Fault::Exchange(error))) => Err(Failure::new(
                Exit::Unreachable,
                format!("http://{} did not answer properly: {error}", self.authority),
            )),
            Err(_) => Err(Failure::new(
                Exit::Unreachable,
                format!("http://{} did not answer within 40 s", self.authority),
            )),
        }
    }

    async fn exchange(&self, method: Method, path: &str, body: Bytes) -> Result<Answer, Fault> {
        let connect = TcpStream::connect((self.host.as_str(), self.port));
        let stream = timeout(CONNECT_TIMEOUT, connect)
            .await
            .map_err(|_| Fault::Connect("no connection within 5 s".to_owned()))?
            .map_err(|error| Fault::Connect(error.to_string()))?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        let mut request = Request::builder()
            .method(method)
            .uri(path)
            .header(header::HOST, &self.authority)
            .header(header::CONTENT_TYPE, "application/json")
            .header(header::CONNECTION, "close");
        if let Some(token) = &self.token {
            request = request.header(header::AUTHORIZATION, format!("Bearer {token}"));
        }
        let request =
            request.body(Full::new(body)).map_err(|error| Fault::Exchange(error.to_string()))?;
        let driving = tokio::spawn(connection);
        let response = sender.send_request(request).await?;
        let status = response.status();
        let body = Limited::new(response.into_body(), ANSWER_BYTES)
            .collect()
            .await
            .map_err(|error| Fault::Exchange(error.to_string()))?
            .to_bytes();
        driving.abort();
        Ok(Answer { status, body })
    }

    fn unreachable(&self, error: &str) -> Failure {
        Failure::new(
            Exit::Unreachable,
            format!(
                "cannot reach http://{}: {error}. Is the proxy running? Its admin address is \
                 admin.address of its configuration; give it here by --admin or HALDANE_ADMIN.",
                self.authority
            ),
        )
    }

    /// What a problem document says, as a failure.
    pub(super) fn refusal(&self, answer: &Answer) -> Failure {
        let (exit, advice) = match answer.status {
            StatusCode::UNAUTHORIZED => {
                (Exit::Failed, " Give the file with the token by --token-file.")
            }
            StatusCode::BAD_REQUEST | StatusCode::UNPROCESSABLE_ENTITY => (Exit::Usage, ""),
            _ => (Exit::Failed, ""),
        };
        let message = match serde_json::from_slice::<Problem>(&answer.body) {
            Ok(problem) => {
                let list: String =
                    problem.problems.iter().map(|one| format!("\n  {one}")).collect();
                format!("{}{advice}{list}", problem.detail)
            }
            Err(_) => format!("http://{} answered {}", self.authority, answer.status),
        };
        Failure::new(exit, message)
    }
}

fn read_token(path: &Path) -> Result<String, Failure> {
    let text = std::fs::read_to_string(path).map_err(|error| {
        Failure::new(Exit::Usage, format!("--token-file {}: {error}", path.display()))
    })?;
    Ok(text.trim_end().to_owned())
}

enum Fault {
    Connect(String),
    Exchange(String),
}

impl From<hyper::Error> for Fault {
    fn from(error: hyper::Error) -> Self {
        Self::Exchange(error.to_string())
    }
}
