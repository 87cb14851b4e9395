//! The operator's view: status, metrics and the few verbs that steer a rollout. Reads published
//! snapshots on a runtime of its own, so that no scrape can touch the latency that we judge by.

mod access;
mod api;
mod exposition;
mod masking;
mod metrics;
mod page;
mod problem;
mod query;
mod request;
mod server;
mod settings;

use std::{io, net::TcpListener, thread::JoinHandle};

pub use api::{Parts, Reload};
pub use server::bind;
pub use settings::Settings;

/// Serves the admin address on a thread of its own until `shutdown` is over. Readiness is one of
/// the parts: it ends before the draining begins, this after it.
///
/// # Errors
/// When the thread or its runtime cannot be made.
pub fn spawn(
    listener: TcpListener,
    settings: Settings,
    parts: Parts,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> io::Result<JoinHandle<()>> {
    server::spawn(listener, api::router(parts, settings.token_file), shutdown)
}
