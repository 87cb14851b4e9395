//! Starting the workers, exchanging their listeners, and waiting for their end.

use std::{
    collections::HashMap,
    io,
    rc::Rc,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
};

use arc_swap::ArcSwap;
use tokio::{
    runtime::{Builder, LocalOptions},
    sync::watch,
    task::{AbortHandle, spawn_local},
    time::Instant,
};

use super::{
    accept::{Balance, accept},
    listen::Listener,
    lookout::{self, Lookout, Post},
    resolver::Resolver,
    worker::{Link, Place, Worker},
};
use crate::{routing::LiveTable, shutdown};

/// Tasks that run before the sockets are asked again. A worker runs all that is ready, as an event
/// loop does: asking more often only cuts what belongs together into smaller pieces.
const EVENT_INTERVAL: u32 = 512;

/// What the data plane is started with.
#[derive(Debug)]
pub struct Inputs {
    /// When the process started: ticks count from here.
    pub started: Instant,
    /// The table, stored by the control thread.
    pub table: Arc<ArcSwap<LiveTable>>,
    /// One link to the control thread for every worker.
    pub links: Vec<Link>,
    /// Ends the workers.
    pub shutdown: shutdown::Watcher,
    /// Finds the addresses of upstreams.
    pub resolver: Resolver,
}

/// The running workers.
#[derive(Debug)]
pub struct Proxy {
    listeners: watch::Sender<Vec<Listener>>,
    /// Whether the listeners are closed for good.
    closed: AtomicBool,
    workers: Vec<JoinHandle<()>>,
}

impl Proxy {
    /// Starts one worker for every link.
    ///
    /// # Errors
    ///
    /// The system's, if a thread or a runtime cannot be made.
    pub fn start(listeners: Vec<Listener>, inputs: Inputs) -> io::Result<Self> {
        let (sender, receiver) = watch::channel(listeners);
        let count = inputs.links.len();
        let balance = Balance::new(count);
        let mut workers = Vec::with_capacity(count);
        let (post, outlook) = lookout::post(inputs.resolver);
        let mut post = Some(post);
        let (ready, started_up) = crossbeam_channel::unbounded();
        for (index, link) in inputs.links.into_iter().enumerate() {
            let table = Arc::clone(&inputs.table);
            let listeners = receiver.clone();
            let (balance, shutdown) = (Arc::clone(&balance), inputs.shutdown.clone());
            let (started, ready) = (inputs.started, ready.clone());
            let place = Place { index, workers: count };
            let (post, outlook) = (post.take(), outlook.clone());
            let live = move || {
                // A runtime is bound to the thread that makes it.
                let runtime = Builder::new_current_thread()
                    .enable_all()
                    .event_interval(EVENT_INTERVAL)
                    .build_local(LocalOptions::default());
                let (runtime, made) = match runtime {
                    Ok(runtime) => (Some(runtime), Ok(())),
                    Err(error) => (None, Err(error)),
                };
                if ready.send(made).is_ok()
                    && let Some(runtime) = runtime
                {
                    let worker = Worker::new(place, started, &table, link, outlook);
                    runtime.block_on(run(worker, post, listeners, balance, shutdown));
                }
            };
            workers.push(thread::Builder::new().name(format!("worker-{index}")).spawn(live)?);
        }
        for made in started_up.iter().take(workers.len()) {
            made?;
        }
        Ok(Self { listeners: sender, closed: AtomicBool::new(false), workers })
    }

    /// The listeners in force.
    #[must_use]
    pub fn listeners(&self) -> Vec<Listener> {
        self.listeners.borrow().clone()
    }

    /// Puts other listeners in force. Sockets that stay go on accepting; connections are not cut.
    /// Once they were closed, nothing opens them again.
    pub fn set_listeners(&self, listeners: Vec<Listener>) {
        // Looked at under the channel's lock, as it is set: a reload cannot come in between.
        self.listeners.send_if_modified(|in_force| {
            let open = !self.closed.load(Ordering::Relaxed);
            if open {
                *in_force = listeners;
            }
            open
        });
    }

    /// Closes all listeners for good: whoever comes now is refused. Connections are not cut.
    pub fn close_listeners(&self) {
        self.listeners.send_modify(|in_force| {
            self.closed.store(true, Ordering::Relaxed);
            in_force.clear();
        });
    }

    /// Waits for the workers to end, after the shutdown has begun.
    pub fn join(self) {
        for worker in self.workers {
            if worker.join().is_err() {
                tracing::error!("a worker panicked");
            }
        }
    }
}

/// A worker's life: accept, tick, and after the shutdown drain.
async fn run(
    worker: Rc<Worker>,
    post: Option<Post>,
    mut listeners: watch::Receiver<Vec<Listener>>,
    balance: Arc<Balance>,
    mut shutdown: shutdown::Watcher,
) {
    let lookout = post.map(|post| Lookout::new(&worker, post));
    spawn_local(Rc::clone(&worker).follow_rosters());
    let ticking = spawn_local(Rc::clone(&worker).tick(lookout));
    let mut accepting: HashMap<usize, (Listener, AbortHandle)> = HashMap::new();
    let mut next_key = 0;
    let drain = loop {
        let wanted = listeners.borrow_and_update().clone();
        accepting.retain(|_, (listener, task)| {
            let stays = wanted
                .iter()
                .any(|it| it.same_socket(listener) && it.settings == listener.settings);
            if !stays {
                task.abort();
            }
            stays
        });
        for listener in wanted {
            if accepting.values().any(|(it, _)| it.same_socket(&listener)) {
                continue;
            }
            let task = spawn_local(accept(
                Rc::clone(&worker),
                listener.clone(),
                Arc::clone(&balance),
                shutdown.clone(),
            ));
            accepting.insert(next_key, (listener, task.abort_handle()));
            next_key += 1;
        }
        tokio::select! {
            drain = shutdown.wait() => break drain,
            changed = listeners.changed() => {
                if changed.is_err() {
                    break shutdown.wait().await;
                }
            }
        }
    };
    worker.draining.set(true);
    for (_, task) in accepting.into_values() {
        task.abort();
    }
    worker.connections.close_all();
    worker.drained(drain).await;
    ticking.abort();
    worker.hand_over(true);
}
