//! Reloading: a configuration read again and put in force as a whole, or not at all.
//!
//! Asked for by a change of the file, by SIGHUP, or by the admin API. A thread of its own compiles;
//! the control thread puts in force. Certificates that change while the configuration stays are
//! exchanged one by one: connections live on with those that they began with. Databases of countries
//! and keys of tokens that change make a new table of the same configuration.

use std::{io, path::PathBuf, sync::Arc, thread::JoinHandle, time::Duration};

use tokio::{
    runtime::Builder,
    signal::unix::{Signal, SignalKind, signal},
    sync::{mpsc, watch},
};

use super::{Options, bind_all};
use crate::{
    admin::Reload,
    config::{self, Compiled},
    proxy::{self, Proxy},
    rollout::{Handle, NewConfig},
    shutdown,
    tls::Source,
};

/// Puts new configurations in force.
pub(super) struct Reloader {
    /// The configuration in force.
    pub(super) current: Compiled,
    /// What is wrong with the file, if it was refused last.
    pub(super) refused: Option<String>,
    pub(super) options: Options,
    pub(super) proxy: Arc<Proxy>,
    pub(super) handle: Handle,
    /// The text of the configuration in force.
    pub(super) text: watch::Sender<Arc<str>>,
    /// How long a shutdown may take.
    pub(super) drain: watch::Sender<Duration>,
}

impl Reloader {
    /// Serves reloads until the shutdown.
    pub(super) fn spawn(
        mut self,
        mut requests: mpsc::Receiver<Reload>,
        mut shutdown: shutdown::Watcher,
    ) -> io::Result<JoinHandle<()>> {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let mut hangup = {
            let _inside = runtime.enter();
            signal(SignalKind::hangup())?
        };
        let text = &self.options.config_text;
        let path = self.options.config_path.as_deref();
        let watch = path.map(|path| config::Watch::since(path, text)).transpose()?;
        let serve = async move {
            let mut watch = watch;
            let (mut certificates, mut facts) = (Files::default(), Files::default());
            loop {
                certificates.watch(certificates_of(&self.current));
                facts.watch(self.current.facts.sources());
                tokio::select! {
                    biased;
                    _ = shutdown.wait() => return,
                    Some(request) = requests.recv() => {
                        let result = self.reload("the admin API").await;
                        // Whoever asked may be gone.
                        let _ = request.send(result);
                    }
                    () = changed(&mut watch) => self.reload_quietly("a change of the file").await,
                    () = changed(&mut certificates.watch) => self.renew(),
                    () = changed(&mut facts.watch) => self.renew_facts().await,
                    _ = hung_up(&mut hangup) => self.reload_quietly("SIGHUP").await,
                }
            }
        };
        std::thread::Builder::new().name("reload".to_owned()).spawn(move || runtime.block_on(serve))
    }

    /// A reload that nobody waits for: its result is in the log, the metrics and the status.
    async fn reload_quietly(&mut self, cause: &str) {
        // The problems were logged where they were found.
        let _ = self.reload(cause).await;
    }

    async fn reload(&mut self, cause: &str) -> Result<(), Vec<String>> {
        let result = self.try_reload().await;
        match &result {
            Ok(()) => {
                self.refused = None;
                tracing::info!(cause, hash = %self.current.hash, "configuration in force");
            }
            Err(problems) => {
                let problems = problems.join("\n");
                self.refused = Some(problems.clone());
                tracing::error!(cause, %problems, "configuration refused; nothing was changed");
                if let Err(error) = self.handle.reload_failed(problems) {
                    tracing::warn!(%error, "the control thread was not told");
                }
            }
        }
        result
    }

    /// Shows the certificates that are in the files now. One that is of no use leaves the one before
    /// in its place.
    fn renew(&mut self) {
        let mut renewed = self.current.proxy.listeners.clone();
        for listener in &mut renewed {
            for problem in listener.tls.iter_mut().flat_map(proxy::ListenerTls::renew) {
                let listener = &listener.name;
                tracing::error!(%listener, %problem, "not exchanged: the one before stays");
            }
        }
        if renewed == self.current.proxy.listeners {
            return;
        }
        match bind_all(&renewed, &self.proxy.listeners()) {
            Ok(listeners) => {
                self.proxy.set_listeners(listeners);
                self.current.proxy.listeners = renewed;
                tracing::info!("certificates exchanged");
            }
            Err(error) => tracing::error!(error = format!("{error:#}"), "not exchanged"),
        }
    }

    /// Lets countries and claims come from what is in the files now. One that is of no use leaves
    /// the one before in its place.
    async fn renew_facts(&mut self) {
        let (mut files, mut facts) =
            (self.current.facts.clone(), self.current.routes.facts().clone());
        for problem in files.renew(&mut facts) {
            tracing::error!(%problem, "not exchanged: what was there before stays in force");
        }
        if facts == *self.current.routes.facts() {
            return;
        }
        let mut routes = self.current.routes.clone();
        routes.set_facts(facts);
        let new = NewConfig {
            routes: routes.clone(),
            settings: self.current.rollout.clone(),
            config_hash: self.current.hash.clone(),
        };
        if let Err(refused) = self.handle.apply(new).await {
            tracing::error!(%refused, "countries and keys not exchanged");
            return;
        }
        (self.current.routes, self.current.facts) = (routes, files);
        tracing::info!("countries and keys exchanged");
        // The file of the configuration is as wrong as before.
        if let Some(problems) = &self.refused
            && let Err(error) = self.handle.reload_failed(problems.clone())
        {
            tracing::warn!(%error, "the control thread was not told");
        }
    }

    async fn try_reload(&mut self) -> Result<(), Vec<String>> {
        let Some(path) = &self.options.config_path else {
            return Err(vec!["this proxy runs without a configuration file".to_owned()]);
        };
        let text = config::read(path).map_err(|problems| vec![problems.to_string()])?;
        let compiled = config::compile_text(&text, path, &self.options.env)
            .map_err(|problems| vec![problems.to_string()])?;
        let restart = config::needs_restart(&self.current, &compiled);
        if !restart.is_empty() {
            return Err(restart);
        }
        let bound = self.proxy.listeners();
        let listeners = bind_all(&compiled.proxy.listeners, &bound)
            .map_err(|error| vec![format!("{error:#}")])?;
        let new = NewConfig {
            routes: compiled.routes.clone(),
            settings: compiled.rollout.clone(),
            config_hash: compiled.hash.clone(),
        };
        self.handle.apply(new).await.map_err(|refused| vec![refused.to_string()])?;
        self.proxy.set_listeners(listeners);
        self.drain.send_replace(compiled.proxy.drain);
        self.text.send_replace(text.into());
        self.current = compiled;
        Ok(())
    }
}

/// A watch over files that the configuration names.
#[derive(Default)]
struct Files {
    paths: Vec<PathBuf>,
    watch: Option<config::Watch>,
}

impl Files {
    /// Watches these, unless they are watched already: then a change that was seen and could not
    /// be used is not told again.
    fn watch<'s>(&mut self, sources: impl Iterator<Item = &'s Source>) {
        let sources: Vec<_> = sources.collect();
        let paths: Vec<_> = sources.iter().map(|source| source.path.clone()).collect();
        if paths == self.paths {
            return;
        }
        self.watch = if sources.is_empty() {
            None
        } else {
            config::Watch::sources(sources)
                .inspect_err(|error| tracing::error!(%error, ?paths, "files are not watched"))
                .ok()
        };
        self.paths = paths;
    }
}

fn certificates_of(compiled: &Compiled) -> impl Iterator<Item = &Source> {
    let tls = compiled.proxy.listeners.iter().filter_map(|listener| listener.tls.as_ref());
    tls.flat_map(proxy::ListenerTls::sources)
}

/// Ready when the file has changed; never, where there is none or its watch has ended.
async fn changed(watch: &mut Option<config::Watch>) {
    let running = match watch {
        Some(watch) => watch.changed().await.is_some(),
        None => false,
    };
    if !running {
        std::future::pending().await
    }
}

async fn hung_up(hangup: &mut Signal) {
    if hangup.recv().await.is_none() {
        std::future::pending::<()>().await;
    }
}
