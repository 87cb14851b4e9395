//! `haldane run`: the proxy, from its configuration until a signal ends it.

use std::sync::Arc;

use tokio::signal::unix::{SignalKind, signal};
use tracing::level_filters::LevelFilter;

use super::{
    arguments,
    exit::{Exit, Failure},
    logging,
};
use crate::{app, config};

/// Runs until SIGTERM or SIGINT, then drains. SIGHUP loads the configuration again.
pub(super) fn run(arguments: &arguments::Run) -> Result<(), Failure> {
    logging::start(arguments.log, LevelFilter::INFO);
    let path = &arguments.config;
    let text: Arc<str> = std::fs::read_to_string(path)
        .map_err(|error| {
            let path = path.display();
            Failure::new(Exit::InvalidConfig, format!("{path}: {error}; name it by --config"))
        })?
        .into();
    let mut options = app::Options::new();
    options.config_path = Some(path.clone());
    options.config_text = Arc::clone(&text);
    if let Some(workers) = arguments.workers {
        options.workers = usize::from(workers);
    }
    let compiled = config::compile_text(&text, path, &options.env)
        .map_err(|problems| Failure::new(Exit::InvalidConfig, problems.to_string()))?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    // Before the proxy starts: a signal while it does must not kill it half-way.
    let (mut terminate, mut interrupt) = {
        let _inside = runtime.enter();
        (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?)
    };
    let running = app::start(compiled, options)
        .map_err(|error| Failure::new(Exit::Failed, format!("cannot start: {error:#}")))?;
    for address in running.listeners() {
        tracing::info!(%address, "listening");
    }
    tracing::info!(address = %running.admin(), "admin");
    runtime.block_on(async {
        tokio::select! {
            _ = terminate.recv() => tracing::info!("SIGTERM: draining"),
            _ = interrupt.recv() => tracing::info!("SIGINT: draining"),
        }
    });
    running.shutdown();
    tracing::info!("stopped");
    Ok(())
}
