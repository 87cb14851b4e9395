//! `haldane healthcheck`: for container images without a shell or an HTTP client.

use super::{
    arguments::Global,
    client::Client,
    exit::{Exit, Failure},
};

/// Succeeds if the running proxy says that it is ready.
pub(super) async fn run(global: &Global) -> Result<(), Failure> {
    let answer = Client::new(global)?.get("/readyz").await?;
    let text = String::from_utf8_lossy(&answer.body);
    if answer.status.is_success() {
        println!("{}", text.trim_end());
        Ok(())
    } else {
        Err(Failure::new(Exit::Failed, text.trim_end()))
    }
}
