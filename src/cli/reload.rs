//! `haldane reload`: asks the running proxy to load its configuration again, and waits for it.

use super::{
    arguments::{Global, Output},
    client::Client,
    exit::{Exit, Failure},
};

/// Succeeds when the configuration is in force.
pub(super) async fn run(global: &Global) -> Result<(), Failure> {
    let client = Client::new(global)?;
    let answer = client.post("/api/v1/reload", &serde_json::json!({})).await.map_err(refused)?;
    match global.output {
        Output::Text => eprintln!("The configuration was loaded and is in force."),
        Output::Json => println!("{}", String::from_utf8_lossy(&answer.body)),
    }
    Ok(())
}

/// What the proxy will not load is an invalid configuration, not a wrong command line.
fn refused(failure: Failure) -> Failure {
    match failure.exit {
        Exit::Usage => Failure { exit: Exit::InvalidConfig, ..failure },
        Exit::Failed
        | Exit::InvalidConfig
        | Exit::Unreachable
        | Exit::Degraded
        | Exit::TimedOut => failure,
    }
}
