//! The verbs that steer a rollout: one POST each, and the canary's status afterwards.

use std::fmt::Write;

use serde_json::{Value, json};

use super::{
    arguments::{Global, Output, Target},
    client::{Answer, Client},
    exit::{Exit, Failure},
    status::{self, RolloutStatus},
};

/// What is asked of a rollout: the last part of the path, and what the body says beside `canary`.
#[derive(Debug)]
pub(super) struct Action {
    verb: &'static str,
    body: Value,
}

impl Action {
    /// A verb that needs nothing but its reason.
    pub(super) fn plain(verb: &'static str, reason: &str) -> Self {
        Self { verb, body: json!({ "reason": reason }) }
    }

    /// The same with one more member of the body.
    pub(super) fn with(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.body[name] = value.into();
        self
    }
}

/// Does it to one rollout.
pub(super) async fn one(global: &Global, target: &Target, action: &Action) -> Result<(), Failure> {
    let client = Client::new(global)?;
    let answer = send(&client, target, action).await?;
    print(global, &[answer])
}

/// Does it to every rollout of the proxy that is not idle. All are tried, whatever happens to one.
pub(super) async fn all(global: &Global, action: &Action) -> Result<(), Failure> {
    let client = Client::new(global)?;
    let mut done = Vec::new();
    let mut refused = Vec::new();
    for rollout in status::fetch(&client).await?.rollouts {
        let target = Target {
            service: rollout.service.to_string(),
            canary: Some(rollout.canary.to_string()),
        };
        match send(&client, &target, action).await {
            Ok(answer) => done.push(answer),
            Err(failure) => {
                refused.push(format!("{}/{}: {}", rollout.service, rollout.canary, failure.message))
            }
        }
    }
    print(global, &done)?;
    if refused.is_empty() {
        Ok(())
    } else {
        Err(Failure::new(Exit::Failed, refused.join("\nhaldane: ")))
    }
}

/// Asks it of one rollout.
pub(super) async fn send(
    client: &Client,
    target: &Target,
    action: &Action,
) -> Result<Answer, Failure> {
    let path = format!("/api/v1/services/{}/{}", escaped(&target.service), action.verb);
    let mut body = action.body.clone();
    if let Some(canary) = &target.canary {
        body["canary"] = canary.as_str().into();
    }
    client.post(&path, &body).await
}

/// A name as one segment of a path, or as a value behind its question mark.
pub(super) fn escaped(name: &str) -> String {
    let mut segment = String::new();
    for byte in name.bytes() {
        if byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte) {
            segment.push(char::from(byte));
        } else {
            write!(segment, "%{byte:02X}").expect("writing into a String cannot fail");
        }
    }
    segment
}

fn print(global: &Global, answers: &[Answer]) -> Result<(), Failure> {
    for answer in answers {
        match global.output {
            Output::Json => println!("{}", String::from_utf8_lossy(&answer.body)),
            Output::Text => {
                let rollout: RolloutStatus = serde_json::from_slice(&answer.body)
                    .map_err(|error| status::unreadable(&error))?;
                print!("{}", status::render(std::slice::from_ref(&rollout)));
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_cannot_leave_its_segment() {
        assert_eq!(escaped("shop-1"), "shop-1");
        assert_eq!(escaped("a/b c?é"), "a%2Fb%20c%3F%C3%A9");
    }
}
