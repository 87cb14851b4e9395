//! The composition root: from a compiled configuration to bound sockets and running threads, and
//! back. The only place that knows every part.

mod reload;

use std::{
    io,
    net::{SocketAddr, TcpListener},
    path::PathBuf,
    sync::Arc,
    thread::JoinHandle,
    time::Duration,
};

use anyhow::Context;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::{
    sync::{mpsc, watch},
    time::Instant,
};

use crate::{
    admin,
    config::Compiled,
    proxy::{self, Listener, ListenerSettings, Proxy},
    rollout, shutdown,
};

/// Requests to reload that wait at most; more are refused.
const RELOADS_WAITING: usize = 16;

/// How a proxy is started.
#[derive(Clone, Debug)]
pub struct Options {
    /// Number of worker threads, at least one.
    pub workers: usize,
    /// The file that the configuration came from: watched, and read again on request. Without it
    /// reloads are refused.
    pub config_path: Option<PathBuf>,
    /// The text of the configuration, for `GET /api/v1/config`.
    pub config_text: Arc<str>,
    /// Looks up `${NAME}`.
    pub env: fn(&str) -> Option<String>,
}

impl Options {
    /// One worker per core, the process's environment, no file.
    #[must_use]
    pub fn new() -> Self {
        Self {
            workers: std::thread::available_parallelism().map_or(1, std::num::NonZero::get),
            config_path: None,
            config_text: "".into(),
            env: |name| std::env::var(name).ok(),
        }
    }
}

impl Default for Options {
    fn default() -> Self {
        Self::new()
    }
}

/// A running proxy.
#[derive(Debug)]
pub struct Running {
    proxy: Arc<Proxy>,
    control: rollout::Running,
    admin: SocketAddr,
    admin_thread: JoinHandle<()>,
    reload_thread: JoinHandle<()>,
    trigger: shutdown::Trigger,
    /// Ends the admin server, after everything else.
    admin_trigger: shutdown::Trigger,
    ready: watch::Sender<bool>,
    drain: watch::Receiver<Duration>,
}

/// Starts a proxy: control plane first (it replays the journal), then the sockets, then the
/// workers, then readiness. Blocks for as long as the journal needs.
///
/// # Errors
/// What could not be bound, made or read, in words for an operator.
pub fn start(compiled: Compiled, options: Options) -> anyhow::Result<Running> {
    raise_file_limit();
    let started = Instant::now();
    for advice in &compiled.advice {
        tracing::info!("{advice}");
    }
    let admin_listener = bind_admin(&compiled)?;
    let admin_addr = admin_listener.local_addr().context("the admin address")?;
    let workers = options.workers.max(1);
    let control = rollout::start(rollout::Start {
        settings: compiled.rollout.clone(),
        routes: compiled.routes.clone(),
        config_hash: compiled.hash.clone(),
        workers,
        started,
    })?;
    // The journal is replayed: now the sockets may open.
    let listeners = match bind_all(&compiled.proxy.listeners, &[]) {
        Ok(listeners) => listeners,
        Err(error) => {
            control.stop();
            return Err(error);
        }
    };
    let (trigger, watcher) = shutdown::channel();
    let inputs = proxy::Inputs {
        started,
        table: Arc::clone(&control.table),
        links: control
            .links
            .iter()
            .map(|link| proxy::Link {
                batches: link.batches.clone(),
                empties: link.empties.clone(),
            })
            .collect(),
        shutdown: watcher.clone(),
        resolver: proxy::Resolver::system(),
    };
    let proxy = Arc::new(Proxy::start(listeners, inputs).context("cannot start the workers")?);
    let (ready, ready_watch) = watch::channel(false);
    let (drain, drain_watch) = watch::channel(compiled.proxy.drain);
    let (text, text_watch) = watch::channel(Arc::clone(&options.config_text));
    let (requests, reloads) = mpsc::channel(RELOADS_WAITING);
    let (admin_trigger, mut admin_watcher) = shutdown::channel();
    let parts = admin::Parts {
        handle: control.handle.clone(),
        ready: ready_watch,
        config_text: text_watch,
        reload: requests,
    };
    let until_stopped = async move {
        admin_watcher.wait().await;
    };
    let admin_thread = admin::spawn(admin_listener, compiled.admin.clone(), parts, until_stopped)
        .context("cannot start the admin server")?;
    let reloader = reload::Reloader {
        current: compiled,
        refused: None,
        options,
        proxy: Arc::clone(&proxy),
        handle: control.handle.clone(),
        text,
        drain,
    };
    let reload_thread = reloader.spawn(reloads, watcher).context("cannot watch for changes")?;
    ready.send_replace(true);
    Ok(Running {
        proxy,
        control,
        admin: admin_addr,
        admin_thread,
        reload_thread,
        trigger,
        admin_trigger,
        ready,
        drain: drain_watch,
    })
}

impl Running {
    /// The bound addresses of the TCP listeners, in the order of the configuration.
    #[must_use]
    pub fn listeners(&self) -> Vec<SocketAddr> {
        self.proxy.listeners().iter().filter_map(Listener::local_addr).collect()
    }

    /// The bound admin address.
    #[must_use]
    pub fn admin(&self) -> SocketAddr {
        self.admin
    }

    /// The control plane's handle.
    #[must_use]
    pub fn handle(&self) -> rollout::Handle {
        self.control.handle.clone()
    }

    /// Begins the shutdown: not ready, no new connections, and what is in flight may finish within
    /// the configured time.
    pub fn begin_shutdown(&self) {
        self.ready.send_replace(false);
        self.trigger.begin(*self.drain.borrow());
        // Whoever comes now is refused at once and goes elsewhere.
        self.proxy.close_listeners();
    }

    /// Shuts down and waits for the end: workers first, then what they have seen is counted and
    /// written, then the admin server.
    pub fn shutdown(self) {
        self.begin_shutdown();
        join("reload", self.reload_thread);
        if let Some(proxy) = Arc::into_inner(self.proxy) {
            proxy.join();
        }
        self.control.stop();
        self.admin_trigger.begin(Duration::ZERO);
        join("admin", self.admin_thread);
    }
}

fn join(name: &str, thread: JoinHandle<()>) {
    if thread.join().is_err() {
        tracing::error!(thread = name, "a thread panicked");
    }
}

fn bind_admin(compiled: &Compiled) -> anyhow::Result<TcpListener> {
    let address = compiled.admin.address;
    admin::bind(address).with_context(|| format!("cannot listen on the admin address {address}"))
}

/// Binds what is not bound yet; listeners whose address stays keep their socket.
fn bind_all(wanted: &[ListenerSettings], bound: &[Listener]) -> anyhow::Result<Vec<Listener>> {
    let mut listeners = Vec::with_capacity(wanted.len());
    let mut bound: Vec<&Listener> = bound.iter().collect();
    for settings in wanted {
        let settings = Arc::new(settings.clone());
        let same = |it: &&Listener| it.settings.address == settings.address;
        // Several may have left the choice of a port to the system.
        let namesake = bound.iter().position(|it| same(it) && it.settings.name == settings.name);
        let kept = namesake.or_else(|| bound.iter().position(same)).map(|at| bound.remove(at));
        listeners.push(match kept {
            Some(listener) => listener.with_settings(&settings)?,
            None => Listener::bind(&settings)?,
        });
    }
    Ok(listeners)
}

/// A proxy needs two descriptors for every request in flight: the soft limit is raised to the hard
/// one. A failure is no reason not to run; running out of descriptors pauses accepting.
fn raise_file_limit() {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    match setrlimit(Resource::Nofile, raised).map_err(io::Error::from) {
        Ok(()) => tracing::debug!(files = limit.maximum, "raised the limit of open files"),
        Err(error) => tracing::warn!(%error, "cannot raise the limit of open files"),
    }
}
