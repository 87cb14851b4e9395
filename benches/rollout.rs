//! What a rollout promises, measured from outside: the binary as it is released, real sockets, real
//! time. `cargo bench --bench rollout -- [ROW…] [--runs N] [--parallel P] [--binary PATH]` prints a
//! table and fails where fewer than 18 of 20 runs of a row kept a limit.
//!
//! Upstreams and clients of a run share one thread, which is idle nearly always; a run whose clients
//! were late all the same does not count. `--test` plays one short run.

#[path = "rollout/admin.rs"]
mod admin;
#[path = "rollout/arguments.rs"]
mod arguments;
#[path = "rollout/child.rs"]
mod child;
#[path = "rollout/client.rs"]
mod client;
#[path = "rollout/disk.rs"]
mod disk;
#[path = "rollout/ports.rs"]
mod ports;
#[path = "rollout/rows/mod.rs"]
mod rows;
#[path = "rollout/scene.rs"]
mod scene;
#[path = "rollout/schedule.rs"]
mod schedule;
#[path = "rollout/table.rs"]
mod table;
#[path = "rollout/upstream.rs"]
mod upstream;
#[path = "rollout/users.rs"]
mod users;
#[path = "rollout/watch.rs"]
mod watch;
#[path = "rollout/wire.rs"]
mod wire;

use std::process::ExitCode;

use arguments::Arguments;
use rows::Row;
use schedule::Schedule;

fn main() -> ExitCode {
    let arguments = match Arguments::read(std::env::args().skip(1)) {
        Ok(arguments) => arguments,
        Err(problem) => {
            eprintln!("{problem}\n{}", arguments::usage());
            return ExitCode::from(2);
        }
    };
    let (rows, left_out) = possible(&arguments.rows);
    let schedule = Schedule {
        rows: &rows,
        runs: arguments.runs,
        parallel: arguments.parallel,
        binary: &arguments.binary,
    };
    announce(&schedule);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.expect("a runtime needs only a few file descriptors");
    let Ok(all) = runtime.block_on(schedule.play()) else {
        eprintln!("stopped");
        return ExitCode::from(130);
    };
    println!("{}", table::head());
    let mut enough = true;
    for (row, runs) in rows.iter().zip(&all) {
        let (lines, holds) = table::lines(row, runs);
        print!("{lines}");
        enough &= holds;
    }
    for (row, hindrance) in left_out {
        println!("{:<17} LEFT OUT: {hindrance}", row.name);
    }
    if enough { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Parts the rows that can be played here from those that cannot, and why not.
fn possible(rows: &[&'static Row]) -> (Vec<&'static Row>, Vec<(&'static Row, String)>) {
    let mut left_out = Vec::new();
    let mut possible = Vec::new();
    for row in rows {
        match (row.hindrance)() {
            Some(hindrance) => left_out.push((*row, hindrance)),
            None => possible.push(*row),
        }
    }
    (possible, left_out)
}

/// Says what is going to be played, and how long that takes.
fn announce(schedule: &Schedule<'_>) {
    eprintln!("{}, {} runs a row", schedule.binary.display(), schedule.runs);
    for row in schedule.rows {
        let minutes = schedule.row_seconds(row) / 60.0;
        eprintln!("{:<17} {:>5.1} min  {}", row.name, minutes, row.says);
    }
    eprintln!("{:<17} {:>5.1} min", "about", schedule.estimate().as_secs_f64() / 60.0);
}
