//! Progress of a long simulation on standard error: a line now and then, none for a short one.

use std::{
    sync::atomic::{AtomicU32, AtomicU64, Ordering},
    time::Duration,
};

use tokio::time::Instant;

/// How often a line is written.
const EVERY: Duration = Duration::from_secs(2);

/// How far the runs of one scenario have come.
pub(super) struct Progress<'a> {
    title: &'a str,
    runs: u32,
    begin: Instant,
    done: AtomicU32,
    /// Lines written so far.
    lines: AtomicU64,
}

impl<'a> Progress<'a> {
    pub(super) fn new(title: &'a str, runs: u32) -> Self {
        let (done, lines) = (AtomicU32::new(0), AtomicU64::new(0));
        Self { title, runs, begin: Instant::now(), done, lines }
    }

    /// One more run is over.
    pub(super) fn one_more(&self) {
        let done = self.done.fetch_add(1, Ordering::Relaxed) + 1;
        let elapsed = self.begin.elapsed();
        let due = (elapsed.as_secs_f64() / EVERY.as_secs_f64()) as u64;
        let before = self.lines.load(Ordering::Relaxed);
        let mine = due > before
            && self
                .lines
                .compare_exchange(before, due, Ordering::Relaxed, Ordering::Relaxed)
                .is_ok();
        if mine {
            let left = elapsed.mul_f64(f64::from(self.runs - done) / f64::from(done));
            let (title, runs, left) = (self.title, self.runs, left.as_secs());
            eprintln!("{title}: {done} of {runs} runs, about {left} s left");
        }
    }

    /// All runs are over.
    pub(super) fn end(&self) {
        if self.lines.load(Ordering::Relaxed) > 0 {
            let seconds = self.begin.elapsed().as_secs_f64();
            eprintln!("{}: {} runs in {seconds:.1} s", self.title, self.runs);
        }
    }
}
