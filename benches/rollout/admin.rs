//! The admin address as a person or a script uses it: status, commands, the journal's decisions.
//! Documents are read by the names that are promised, and by nothing else.

use std::{
    io,
    net::SocketAddr,
    time::{Duration, SystemTime},
};

use serde_json::{Value, json};
use tokio::{net::TcpStream, time::timeout};

use crate::wire::{Answer, Connection};

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// An admin address.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Admin(pub(crate) SocketAddr);

/// A kept connection to it.
#[derive(Debug, Default)]
pub(crate) struct Line(Option<Connection>);

impl Admin {
    /// Reads a path.
    pub(crate) async fn get(self, path: &str) -> io::Result<Answer> {
        Line::default().get(self, path).await
    }

    /// Posts a document.
    pub(crate) async fn post(self, path: &str, document: &Value) -> io::Result<Answer> {
        let body = document.to_string();
        let length = body.len();
        let host = self.0;
        let request = format!(
            "POST {path} HTTP/1.1\r\nhost: {host}\r\ncontent-type: application/json\r\n\
             content-length: {length}\r\n\r\n{body}"
        );
        Line::default().exchange(self, &request).await
    }

    /// Acts on the rollout of `canary` of the service `shop`, and gives the status of the answer.
    pub(crate) async fn act(self, verb: &str, canary: &str, more: &Value) -> io::Result<u16> {
        let mut body = json!({ "canary": canary, "reason": "measured by the bench" });
        for (key, value) in more.as_object().into_iter().flatten() {
            body[key] = value.clone();
        }
        Ok(self.post(&format!("/api/v1/services/shop/{verb}"), &body).await?.status)
    }

    /// The latest decisions, the oldest first.
    pub(crate) async fn decisions(self) -> io::Result<Vec<Decision>> {
        let answer = self.get("/api/v1/journal").await?;
        let document: Value = serde_json::from_slice(&answer.body)?;
        let mut decisions: Vec<_> =
            document["decisions"].as_array().into_iter().flatten().filter_map(decision).collect();
        decisions.sort_by_key(|decision| decision.seq);
        Ok(decisions)
    }
}

impl Line {
    /// Reads a path over the kept connection, or over a new one.
    pub(crate) async fn get(&mut self, admin: Admin, path: &str) -> io::Result<Answer> {
        let host = admin.0;
        self.exchange(admin, &format!("GET {path} HTTP/1.1\r\nhost: {host}\r\n\r\n")).await
    }

    async fn exchange(&mut self, admin: Admin, request: &str) -> io::Result<Answer> {
        let exchange = async {
            if let Some(mut kept) = self.0.take() {
                let answer = match kept.write(request.as_bytes()).await {
                    Ok(()) => kept.answer().await,
                    Err(error) => Err(error),
                };
                if let Ok(Some(answer)) = answer {
                    self.0 = answer.keeps.then_some(kept);
                    return Ok(answer);
                }
            }
            let mut connection = Connection::new(TcpStream::connect(admin.0).await?)?;
            connection.write(request.as_bytes()).await?;
            let answer = connection.answer().await?.ok_or(io::ErrorKind::UnexpectedEof)?;
            self.0 = answer.keeps.then_some(connection);
            Ok(answer)
        };
        timeout(PATIENCE, exchange).await.map_err(|_| io::ErrorKind::TimedOut)?
    }
}

/// A decision of the journal, as far as it is looked at.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Decision {
    pub(crate) seq: u64,
    pub(crate) time: SystemTime,
    pub(crate) canary: String,
    /// The weight afterwards, as a share of 1.
    pub(crate) weight: f64,
}

/// A line of the journal as a decision; `None` for every other kind of line.
pub(crate) fn decision(line: &Value) -> Option<Decision> {
    // A line may name its kind around the record.
    let record = line.get("decision").filter(|it| it.is_object()).unwrap_or(line);
    let time = humantime::parse_rfc3339(record.get("time")?.as_str()?).ok()?;
    Some(Decision {
        seq: record.get("seq")?.as_u64()?,
        time,
        canary: record.get("canary")?.as_str()?.to_owned(),
        weight: record.get("weight_bp")?.as_f64()? / 10_000.0,
    })
}
