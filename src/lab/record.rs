//! What became of one run, and how many runs are played at once.

use std::sync::{
    Mutex,
    atomic::{AtomicBool, AtomicU32, Ordering},
};

use super::rivals::Stopped;

/// What became of one run. Times are in seconds after its start.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Record {
    /// When it was rolled back, and at what price.
    pub rolled_back: Option<Stopped>,
    /// When the evidence first asked for caution.
    pub cautioned: Option<f64>,
    /// When it was promoted.
    pub promoted: Option<f64>,
    /// When a tripped breaker first took all weight.
    pub opened: Option<f64>,
    /// What the rivals did, in their order; empty where they were not asked.
    pub rivals: Vec<Option<Stopped>>,
}

/// Plays runs on so many threads; the result does not depend on their number. `done` is told of
/// every run that is over. Stops early, without a result, once `cancelled`.
pub fn play_all(
    runs: u32,
    threads: usize,
    cancelled: &AtomicBool,
    play: impl Fn(u32) -> Record + Sync,
    done: impl Fn() + Sync,
) -> Option<Vec<Record>> {
    let next = AtomicU32::new(0);
    let finished = Mutex::new(Vec::with_capacity(runs as usize));
    let work = || {
        while !cancelled.load(Ordering::Relaxed) {
            let run = next.fetch_add(1, Ordering::Relaxed);
            if run >= runs {
                return;
            }
            let record = play(run);
            if let Ok(mut finished) = finished.lock() {
                finished.push((run, record));
            }
            done();
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..threads.clamp(1, runs.max(1) as usize) {
            scope.spawn(work);
        }
    });
    let mut finished = finished.into_inner().ok()?;
    finished.sort_unstable_by_key(|(run, _)| *run);
    let records: Vec<Record> = finished.into_iter().map(|(_, record)| record).collect();
    (records.len() == runs as usize).then_some(records)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_number_of_threads_changes_nothing() {
        let play = |run: u32| Record { promoted: Some(f64::from(run)), ..Record::default() };
        let go = AtomicBool::new(false);
        let all = |threads| play_all(100, threads, &go, play, || {});
        assert_eq!(all(1), all(7));
        assert_eq!(all(2).map(|records| records[42].promoted), Some(Some(42.0)));
    }

    #[test]
    fn a_cancelled_simulation_has_no_result() {
        let stop = AtomicBool::new(true);
        assert_eq!(play_all(10, 2, &stop, |_| Record::default(), || {}), None);
    }
}
