//! Plays runs on threads of their own, as many at a time as the machine is said to bear, the longest
//! first. It judges nothing but whether a run's clients kept their times.

use std::{
    cell::Cell,
    collections::VecDeque,
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
    rc::Rc,
    thread,
    time::Duration,
};

use tokio::{
    runtime,
    signal::unix::{Signal, SignalKind, signal},
    sync::{mpsc, watch},
    task::LocalSet,
    time::{MissedTickBehavior, interval},
};

use crate::{
    rows::{Findings, Row, Run},
    table::{self, Runs},
};

/// A run is repeated when 99 % of its requests were not sent within this of their time.
const LATE: Duration = Duration::from_millis(20);
/// Repeated runs of a row at most, as a multiple of its runs.
const REPEATS: usize = 2;

/// What is played, and how much of it at a time.
pub(crate) struct Schedule<'a> {
    pub(crate) rows: &'a [&'static Row],
    pub(crate) runs: usize,
    pub(crate) parallel: f64,
    pub(crate) binary: &'a Path,
}

/// Between the starts of two runs at least.
const APART: Duration = Duration::from_millis(500);

/// Somebody asked it to stop.
#[derive(Debug)]
pub(crate) struct Stopped;

/// A run of a row.
#[derive(Clone, Copy)]
struct Turn {
    place: usize,
    number: usize,
}

struct Ended {
    turn: Turn,
    played: Result<Findings, String>,
    lateness: Duration,
}

impl Schedule<'_> {
    /// About how long it all takes.
    pub(crate) fn estimate(&self) -> Duration {
        let all: f64 = self.rows.iter().map(|row| self.row_seconds(row)).sum();
        let longest = self.rows.iter().map(|row| row.seconds).fold(0.0, f64::max);
        Duration::from_secs_f64(all.max(longest))
    }

    /// About how long a row would take alone, if it filled the machine.
    pub(crate) fn row_seconds(&self, row: &Row) -> f64 {
        row.seconds * row.cost * self.runs as f64 / self.parallel
    }

    /// Plays everything; gives the runs of every row. All threads have ended on return.
    pub(crate) async fn play(&self) -> Result<Vec<Runs>, Stopped> {
        let mut waiting = self.turns();
        let mut all: Vec<Runs> = self.rows.iter().map(|_| Runs::default()).collect();
        let (stop, stopped) = watch::channel(false);
        let (ends, mut ended) = mpsc::unbounded_channel();
        let mut threads = Vec::new();
        let mut busy = 0.0;
        let mut playing = 0;
        let mut signals = [SignalKind::interrupt(), SignalKind::terminate()].map(signal);
        let mut starts = interval(APART);
        starts.set_missed_tick_behavior(MissedTickBehavior::Delay);
        while playing > 0 || !waiting.is_empty() {
            tokio::select! {
                _ = starts.tick(), if self.fitting(&waiting, busy).is_some() => {
                    let place = self.fitting(&waiting, busy);
                    if let Some(turn) = place.and_then(|place| waiting.remove(place)) {
                        busy += self.rows[turn.place].cost;
                        playing += 1;
                        threads.push(self.start(turn, ends.clone(), stopped.clone()));
                    }
                }
                Some(end) = ended.recv() => {
                    busy -= self.rows[end.turn.place].cost;
                    playing -= 1;
                    if let Some(again) = self.settle(end, &mut all) {
                        waiting.push_back(again);
                    }
                }
                () = any(&mut signals) => {
                    let _ = stop.send(true);
                    break;
                }
            }
        }
        let was_stopped = *stopped.borrow();
        for thread in threads {
            // What it had to say it has said.
            let _ = thread.join();
        }
        if was_stopped { Err(Stopped) } else { Ok(all) }
    }

    fn turns(&self) -> VecDeque<Turn> {
        let mut places: Vec<_> = (0..self.rows.len()).collect();
        places.sort_by(|a, b| self.rows[*b].seconds.total_cmp(&self.rows[*a].seconds));
        let turns = |place| (0..self.runs).map(move |number| Turn { place, number });
        places.into_iter().flat_map(turns).collect()
    }

    /// The first that still fits; one always does on an idle machine.
    fn fitting(&self, waiting: &VecDeque<Turn>, busy: f64) -> Option<usize> {
        let fits =
            |turn: &Turn| busy < 0.01 || busy + self.rows[turn.place].cost <= self.parallel + 0.01;
        waiting.iter().position(fits)
    }

    fn start(
        &self,
        turn: Turn,
        ends: mpsc::UnboundedSender<Ended>,
        mut stopped: watch::Receiver<bool>,
    ) -> thread::JoinHandle<()> {
        let row = self.rows[turn.place];
        let binary = self.binary.to_owned();
        thread::spawn(move || {
            let played = catch_unwind(AssertUnwindSafe(|| play(row, turn, binary, &mut stopped)));
            let (played, lateness) = played
                .unwrap_or_else(|_| (Err("the bench itself panicked".to_owned()), Duration::ZERO));
            // Nobody listens any more once it is stopped.
            let _ = ends.send(Ended { turn, played, lateness });
        })
    }

    /// Files a run; gives it back where it does not count.
    fn settle(&self, end: Ended, all: &mut [Runs]) -> Option<Turn> {
        let Ended { turn, played, lateness } = end;
        let row = self.rows[turn.place];
        let runs = &mut all[turn.place];
        let late = lateness.as_millis();
        if lateness > LATE && runs.voided < REPEATS * self.runs {
            runs.voided += 1;
            eprintln!("{} {}: clients {late} ms late: repeated", row.name, turn.number + 1);
            return Some(turn);
        }
        let said = table::run(row, &played);
        eprintln!("{} {}: {said} (clients {late} ms late)", row.name, turn.number + 1);
        let too_late = || Err(format!("clients {late} ms late, too often"));
        runs.played.push(if lateness > LATE { too_late() } else { played });
        None
    }
}

fn play(
    row: &Row,
    turn: Turn,
    binary: PathBuf,
    stopped: &mut watch::Receiver<bool>,
) -> (Result<Findings, String>, Duration) {
    let runtime = match runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return (Err(format!("no runtime: {error}")), Duration::ZERO),
    };
    let lateness = Rc::new(Cell::new(Duration::ZERO));
    let run = Run { binary, number: turn.number, lateness: Rc::clone(&lateness) };
    let local = LocalSet::new();
    let played = local.block_on(&runtime, async {
        tokio::select! {
            played = (row.play)(run) => played,
            _ = stopped.wait_for(|stop| *stop) => Err("stopped".to_owned()),
        }
    });
    (played, lateness.get())
}

/// Waits for any of the signals that could be listened to.
async fn any(signals: &mut [std::io::Result<Signal>; 2]) {
    let [first, second] = signals;
    tokio::select! {
        Some(()) = heard(first) => {}
        Some(()) = heard(second) => {}
    }
}

async fn heard(signal: &mut std::io::Result<Signal>) -> Option<()> {
    match signal {
        Ok(signal) => signal.recv().await,
        Err(_) => std::future::pending().await,
    }
}
