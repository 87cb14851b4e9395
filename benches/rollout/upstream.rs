//! An upstream in the thread of its run: answers every request after a log-normal time, and can be
//! made worse between two requests. It says which arm it is, and remembers when it was asked last.

use std::{
    cell::{Cell, RefCell},
    f64::consts::TAU,
    io,
    net::SocketAddr,
    rc::Rc,
    time::Duration,
};

use memchr::memmem;
use tokio::{
    net::{TcpListener, TcpStream},
    task::{JoinHandle, JoinSet, spawn_local},
    time::{Instant, sleep_until},
};

use crate::{client::MARK, ports, wire::Connection};

/// Median of a healthy answer, in seconds.
const MEDIAN: f64 = 0.020;
/// Standard deviation of the logarithm of a healthy answer's time.
const SIGMA: f64 = 0.6;

/// How an upstream answers from now on.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Behaviour {
    /// Every answer takes this many times as long.
    pub(crate) slower: f64,
    /// This share of the answers is a 500.
    pub(crate) errors: f64,
    /// This share of the answers takes this many times as long.
    pub(crate) tail: (f64, f64),
}

impl Behaviour {
    pub(crate) const HEALTHY: Self = Self { slower: 1.0, errors: 0.0, tail: (0.0, 1.0) };

    pub(crate) const fn slower(factor: f64) -> Self {
        Self { slower: factor, ..Self::HEALTHY }
    }

    pub(crate) const fn errors(share: f64) -> Self {
        Self { errors: share, ..Self::HEALTHY }
    }

    pub(crate) const fn tail(share: f64, factor: f64) -> Self {
        Self { tail: (share, factor), ..Self::HEALTHY }
    }

    fn draw(&self, load: f64) -> Drawn {
        let tail = fastrand::f64() < self.tail.0;
        let fails = fastrand::f64() < self.errors;
        let factor = load * self.slower * if tail { self.tail.1 } else { 1.0 };
        let time = Duration::from_secs_f64(MEDIAN * (SIGMA * normal()).exp() * factor);
        Drawn { time, fails, worse: tail || fails || self.slower > 1.0 }
    }
}

/// One answer.
struct Drawn {
    time: Duration,
    fails: bool,
    /// Whether a healthy upstream would have answered better.
    worse: bool,
}

/// A standard normal number, by Box and Muller; 1 - u keeps the logarithm away from 0.
fn normal() -> f64 {
    (-2.0 * (1.0 - fastrand::f64()).ln()).sqrt() * (TAU * fastrand::f64()).cos()
}

/// What both arms share: a factor on every latency that wanders like load does.
#[derive(Debug)]
pub(crate) struct Load(Cell<f64>);

impl Load {
    /// How much of the logarithm is left after a second, as in the simulator.
    const MEMORY: f64 = 0.98;

    pub(crate) fn steady() -> Rc<Self> {
        Rc::new(Self(Cell::new(1.0)))
    }

    /// Wanders from now on, with this standard deviation of its logarithm.
    pub(crate) fn wander(self: &Rc<Self>, deviation: f64) {
        let load = Rc::clone(self);
        spawn_local(async move {
            let kick = deviation * (1.0 - Self::MEMORY * Self::MEMORY).sqrt();
            let mut log = deviation * normal();
            let mut second = tokio::time::interval(Duration::from_secs(1));
            loop {
                load.0.set(log.exp());
                second.tick().await;
                log = Self::MEMORY * log + kick * normal();
            }
        });
    }
}

/// A running upstream.
#[derive(Debug)]
pub(crate) struct Upstream {
    pub(crate) addr: SocketAddr,
    seen: Rc<Seen>,
    /// Takes connections and owns them; `None` once closed.
    accepting: RefCell<Option<JoinHandle<()>>>,
}

#[derive(Debug)]
struct Seen {
    arm: &'static str,
    load: Rc<Load>,
    behaviour: Cell<Behaviour>,
    last_request: Cell<Option<Instant>>,
    worse: Cell<u64>,
    first_worse: Cell<Option<Instant>>,
}

impl Upstream {
    pub(crate) fn start(arm: &'static str, load: &Rc<Load>) -> io::Result<Self> {
        let listener = ports::listen()?;
        let addr = listener.local_addr()?;
        listener.set_nonblocking(true)?;
        let listener = TcpListener::from_std(listener)?;
        let seen = Rc::new(Seen {
            arm,
            load: Rc::clone(load),
            behaviour: Cell::new(Behaviour::HEALTHY),
            last_request: Cell::default(),
            worse: Cell::default(),
            first_worse: Cell::default(),
        });
        let accepting = spawn_local(accept(listener, Rc::clone(&seen)));
        Ok(Self { addr, seen, accepting: RefCell::new(Some(accepting)) })
    }

    /// Answers like this from the next request on.
    pub(crate) fn become_(&self, behaviour: Behaviour) {
        self.seen.behaviour.set(behaviour);
    }

    /// Closes the listener and every connection: from now on it refuses.
    pub(crate) fn close(&self) {
        if let Some(accepting) = self.accepting.borrow_mut().take() {
            accepting.abort();
        }
    }

    /// When the last request of a client arrived.
    pub(crate) fn last_request(&self) -> Option<Instant> {
        self.seen.last_request.get()
    }

    /// How many answers were worse than a healthy upstream's.
    pub(crate) fn worse(&self) -> u64 {
        self.seen.worse.get()
    }

    /// When the first of them was sent.
    pub(crate) fn first_worse(&self) -> Option<Instant> {
        self.seen.first_worse.get()
    }
}

impl Drop for Upstream {
    fn drop(&mut self) {
        self.close();
    }
}

async fn accept(listener: TcpListener, seen: Rc<Seen>) {
    // Dropped with this task, and all connections with it.
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            Ok((stream, _)) = listener.accept() => {
                let seen = Rc::clone(&seen);
                connections.spawn_local(async move {
                    // A connection may be cut at any time, that is not the upstream's business.
                    let _ = serve(stream, &seen).await;
                });
            }
            Some(_) = connections.join_next(), if !connections.is_empty() => {}
        }
    }
}

async fn serve(stream: TcpStream, seen: &Seen) -> io::Result<()> {
    let mut connection = Connection::new(stream)?;
    while let Some(head) = connection.head().await? {
        let now = Instant::now();
        let drawn = seen.behaviour.get().draw(seen.load.0.get());
        // What the proxy asks by itself, to find out whether the upstream lives, is no traffic.
        let of_a_client = memmem::find(&head, MARK.as_bytes()).is_some();
        if of_a_client {
            seen.last_request.set(Some(now));
        }
        sleep_until(now + drawn.time).await;
        let line = if drawn.fails { "500 Internal Server Error" } else { "200 OK" };
        let arm = seen.arm;
        let answer = format!("HTTP/1.1 {line}\r\ncontent-length: 3\r\nx-arm: {arm}\r\n\r\nso\n");
        if of_a_client && drawn.worse {
            seen.worse.set(seen.worse.get() + 1);
            seen.first_worse.set(seen.first_worse.get().or_else(|| Some(Instant::now())));
        }
        connection.write(answer.as_bytes()).await?;
    }
    Ok(())
}
