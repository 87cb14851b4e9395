//! The clients of a run: open loop, so that a slow answer does not keep the next request from being
//! sent. They measure their own lateness, because a client that cannot keep up proves nothing.

use std::{
    cell::{Cell, RefCell},
    collections::BTreeMap,
    io,
    net::SocketAddr,
    rc::Rc,
    time::Duration,
};

use tokio::{
    net::TcpStream,
    task::{JoinHandle, spawn_local},
    time::{Instant, sleep_until, timeout},
};

use crate::{
    users::{Move, Users},
    wire::{Answer, Connection, field},
};

/// A field that every request of a client carries.
pub(crate) const MARK: &str = "x-load:";

/// Most requests under way at once; what is due beyond that fails.
const IN_FLIGHT: usize = 2048;
/// After this long without an answer a request has failed.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(15);
/// Over this time the rate grows to its full height.
const RAMP: Duration = Duration::from_secs(3);
/// The slowest that a client's own lateness is told apart, in ms.
const LATEST_MS: usize = 1000;

/// Who sends.
#[derive(Debug)]
pub(crate) struct Load {
    /// Requests per second on average; the gaps are exponential.
    pub(crate) rate: f64,
    /// Whom the requests come from; `None`: nobody in particular.
    pub(crate) users: Option<Users>,
}

/// Clients that are sending.
#[derive(Debug)]
pub(crate) struct Client {
    shared: Rc<Shared>,
    sending: JoinHandle<()>,
}

#[derive(Debug)]
struct Shared {
    target: SocketAddr,
    users: Option<RefCell<Users>>,
    idle: RefCell<Vec<Connection>>,
    under_way: Cell<usize>,
    tally: RefCell<Tally>,
}

/// What came back so far.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    /// Requests whose end is known.
    pub(crate) ended: u64,
    /// Answers of 500 and more, by status.
    pub(crate) failed: BTreeMap<u16, u64>,
    /// Requests without an answer.
    pub(crate) unanswered: u64,
    /// Answers by the arm that says it gave them.
    pub(crate) arms: BTreeMap<String, u64>,
    /// How late requests were sent, in ms; the last also counts what was later.
    lateness_ms: Vec<u64>,
}

impl Tally {
    /// All that failed, with or without an answer.
    pub(crate) fn failures(&self) -> u64 {
        self.failed.values().sum::<u64>() + self.unanswered
    }

    /// The lateness that 99 % of the requests did not exceed.
    pub(crate) fn lateness_p99(&self) -> Duration {
        let all: u64 = self.lateness_ms.iter().sum();
        let mut below = 0;
        let ms = self.lateness_ms.iter().position(|count| {
            below += count;
            below * 100 >= all * 99
        });
        Duration::from_millis(ms.unwrap_or(0) as u64)
    }

    fn late(&mut self, by: Duration) {
        self.lateness_ms.resize(LATEST_MS + 1, 0);
        self.lateness_ms
            [usize::try_from(by.as_millis()).map_or(LATEST_MS, |ms| ms.min(LATEST_MS))] += 1;
    }
}

impl Client {
    /// Begins to send.
    pub(crate) fn start(target: SocketAddr, load: Load) -> Self {
        let shared = Rc::new(Shared {
            target,
            users: load.users.map(RefCell::new),
            idle: RefCell::default(),
            under_way: Cell::default(),
            tally: RefCell::default(),
        });
        let sending = spawn_local(send(Rc::clone(&shared), load.rate));
        Self { shared, sending }
    }

    /// What came back so far.
    pub(crate) fn tally(&self) -> Tally {
        self.shared.tally.borrow().clone()
    }

    /// Users who changed their arm so far.
    pub(crate) fn moves(&self) -> Vec<Move> {
        self.shared.users.as_ref().map(|users| users.borrow().moves().to_vec()).unwrap_or_default()
    }

    /// Sends nothing more, and waits for the answers that are under way.
    pub(crate) async fn stop(&self) {
        self.sending.abort();
        let end = Instant::now() + ANSWER_TIMEOUT;
        while self.shared.under_way.get() > 0 && Instant::now() < end {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        self.sending.abort();
    }
}

async fn send(shared: Rc<Shared>, rate: f64) {
    let began = Instant::now();
    let mut due = began;
    loop {
        // Slowly at first: many connections at once cost the machine more than it has beside others.
        let ramp = ((due - began).as_secs_f64() / RAMP.as_secs_f64()).clamp(0.1, 1.0);
        due += Duration::from_secs_f64(-(1.0 - fastrand::f64()).ln() / (rate * ramp));
        sleep_until(due).await;
        if shared.under_way.get() >= IN_FLIGHT {
            let mut tally = shared.tally.borrow_mut();
            tally.ended += 1;
            tally.unanswered += 1;
            continue;
        }
        shared.under_way.set(shared.under_way.get() + 1);
        let shared = Rc::clone(&shared);
        spawn_local(async move {
            shared.tally.borrow_mut().late(due.elapsed());
            let user = shared.users.as_ref().map(|users| users.borrow().anybody());
            let sent = Instant::now();
            let answer = timeout(ANSWER_TIMEOUT, shared.exchange(user)).await;
            shared.record(user, sent, answer.ok().and_then(Result::ok).as_ref());
            shared.under_way.set(shared.under_way.get() - 1);
        });
    }
}

impl Shared {
    async fn exchange(&self, user: Option<usize>) -> io::Result<Answer> {
        let cookie = user.map_or(String::new(), |user| format!("cookie: uid=u{user}\r\n"));
        let request = format!("GET /shop HTTP/1.1\r\nhost: shop\r\n{MARK} 1\r\n{cookie}\r\n");
        let idle = self.idle.borrow_mut().pop();
        let kept = match idle {
            Some(connection) => self.exchange_on(connection, request.as_bytes()).await?,
            None => None,
        };
        if let Some(answer) = kept {
            return Ok(answer);
        }
        // None idle, or closed by the proxy in the moment of use, as it may: a new one.
        let connection = Connection::new(TcpStream::connect(self.target).await?)?;
        let answer = self.exchange_on(connection, request.as_bytes()).await?;
        answer.ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
    }

    /// `None` where the connection was closed before the first byte of an answer.
    async fn exchange_on(
        &self,
        mut connection: Connection,
        request: &[u8],
    ) -> io::Result<Option<Answer>> {
        if connection.write(request).await.is_err() {
            return Ok(None);
        }
        let answer = match connection.answer().await {
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => None,
            answer => answer?,
        };
        if answer.as_ref().is_some_and(|answer| answer.keeps) {
            self.idle.borrow_mut().push(connection);
        }
        Ok(answer)
    }

    fn record(&self, user: Option<usize>, sent: Instant, answer: Option<&Answer>) {
        let mut tally = self.tally.borrow_mut();
        tally.ended += 1;
        let Some(answer) = answer else {
            tally.unanswered += 1;
            return;
        };
        if answer.status >= 500 {
            *tally.failed.entry(answer.status).or_default() += 1;
        }
        let Some(arm) = field(&answer.head, "x-arm") else { return };
        match tally.arms.get_mut(arm) {
            Some(count) => *count += 1,
            None => drop(tally.arms.insert(arm.to_owned(), 1)),
        }
        if let (Some(users), Some(user)) = (&self.users, user) {
            users.borrow_mut().answered(user, arm, sent);
        }
    }
}
