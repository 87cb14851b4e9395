//! `haldane simulate`: plays the real judge and the real step over made-up traffic. Several files,
//! or a sweep in one, make a table; a single scenario is shown in full.

mod progress;
mod report;

use std::{
    fs,
    path::{Path, PathBuf},
    sync::atomic::AtomicBool,
};

use clap::Args;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::{
    arguments::Output,
    exit::{Exit, Failure},
};
use crate::{
    config::{self, Cell},
    lab::{self, Engine, Summary},
};
use progress::Progress;

#[derive(Args, Debug)]
pub(super) struct Arguments {
    /// Scenario files, or directories of them
    #[arg(required = true, value_name = "SCENARIO.yaml")]
    scenarios: Vec<PathBuf>,
    /// Number of independent rollouts, in place of the scenario's
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=10_000_000))]
    runs: Option<u32>,
    /// What all randomness is made of, in place of the scenario's
    #[arg(long, value_name = "S")]
    seed: Option<u64>,
    /// Threads to play on; all of the machine's where left out. The results are the same on any
    /// number
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    threads: Option<u16>,
    /// Let Flagger, Argo Rollouts and Kayenta judge the same requests
    #[arg(long)]
    rivals: bool,
    /// Write a plot of delays and false alarms; with several scenarios one file for each,
    /// numbered
    #[arg(long, value_name = "FILE.svg")]
    plot: Option<PathBuf>,
    /// Exit with 1 where a scenario's `expect` does not come out
    #[arg(long)]
    check: bool,
}

/// A scenario that was played.
struct Played {
    /// The file, and what its sweep sets.
    title: String,
    cell: Cell,
    engine: Engine,
    summary: Summary,
}

/// Plays the scenarios. Results go to standard output, progress to standard error.
pub(super) fn run(output: Output, arguments: &Arguments) -> Result<(), Failure> {
    let begin = Instant::now();
    // All files are read before the first is played: a slip in the last one shows at once.
    let mut cells = Vec::new();
    for path in files(&arguments.scenarios)? {
        for cell in load(&path, arguments)? {
            cells.push((title(&path, &cell), cell));
        }
    }
    let mut all = Vec::new();
    for (title, cell) in cells {
        let played = play(title, cell, arguments);
        if let Some(path) = &arguments.plot {
            plot(&numbered(path, all.len()), &played)?;
        }
        all.push(played);
    }
    match (output, all.as_slice()) {
        (Output::Json, [played]) => println!("{:#}", document(played)),
        (Output::Json, all) => {
            println!("{:#}", json!({ "scenarios": all.iter().map(listed).collect::<Vec<_>>() }));
        }
        (Output::Text, [played]) => print!("{}", report::one(played)),
        (Output::Text, all) => print!("{}", report::table(all)),
    }
    eprintln!("took {:.1} s on {} threads", begin.elapsed().as_secs_f64(), threads(arguments));
    let unmet = all.iter().filter(|played| !unmet(played).is_empty()).count();
    if arguments.check && unmet > 0 {
        let message = format!("{unmet} of {} scenarios did not come out as expected", all.len());
        return Err(Failure::new(Exit::Failed, message));
    }
    Ok(())
}

/// The files named, and the YAML files of directories named, in the order of their names.
fn files(named: &[PathBuf]) -> Result<Vec<PathBuf>, Failure> {
    let mut files = Vec::new();
    for path in named {
        if !path.is_dir() {
            files.push(path.clone());
            continue;
        }
        let entries = fs::read_dir(path)?.map(|entry| entry.map(|entry| entry.path()));
        let mut inside = entries.collect::<Result<Vec<_>, _>>()?;
        inside.retain(|path| path.extension().is_some_and(|end| end == "yaml" || end == "yml"));
        inside.sort();
        if inside.is_empty() {
            let message = format!("{} holds no scenario", path.display());
            return Err(Failure::new(Exit::InvalidConfig, message));
        }
        files.append(&mut inside);
    }
    Ok(files)
}

fn load(path: &Path, arguments: &Arguments) -> Result<Vec<Cell>, Failure> {
    let cells = config::load_scenario(path, &|name| std::env::var(name).ok());
    let mut cells =
        cells.map_err(|problems| Failure::new(Exit::InvalidConfig, problems.to_string()))?;
    for cell in &mut cells {
        cell.scenario.runs = arguments.runs.unwrap_or(cell.scenario.runs);
        cell.scenario.seed = arguments.seed.unwrap_or(cell.scenario.seed);
    }
    Ok(cells)
}

fn title(path: &Path, cell: &Cell) -> String {
    let name = path.file_stem().map_or_else(String::new, |stem| stem.to_string_lossy().into());
    cell.set.iter().fold(name, |title, (path, value)| format!("{title} {path}={value}"))
}

fn play(title: String, cell: Cell, arguments: &Arguments) -> Played {
    let rivals = arguments.rivals;
    let engine = Engine::of(&cell.scenario, rivals);
    let progress = Progress::new(&title, cell.scenario.runs);
    let go = AtomicBool::new(false);
    let summary =
        lab::play(&cell.scenario, rivals, threads(arguments), &go, || progress.one_more());
    progress.end();
    let summary = summary.expect("nothing cancels this");
    Played { title, cell, engine, summary }
}

fn threads(arguments: &Arguments) -> usize {
    let all = || std::thread::available_parallelism().map_or(1, usize::from);
    arguments.threads.map_or_else(all, usize::from)
}

/// The document of one scenario.
fn document(played: &Played) -> Value {
    let mut document = played.summary.to_json();
    document["engine"] = played.engine.word().into();
    document["seed"] = played.cell.scenario.seed.into();
    let unmet = unmet(played);
    document["expected"] = unmet.is_empty().into();
    document["unmet"] = unmet.into();
    document
}

/// The document of one scenario among several.
fn listed(played: &Played) -> Value {
    let mut document = document(played);
    document["scenario"] = played.title.as_str().into();
    document
}

/// What was expected and did not come out.
fn unmet(played: &Played) -> Vec<String> {
    lab::expect::unmet(&played.cell.scenario.expect, &played.summary)
}

fn plot(path: &Path, played: &Played) -> Result<(), Failure> {
    let svg = lab::plot::svg(&played.title, &played.cell.scenario, &played.summary);
    fs::write(path, svg)
        .map_err(|error| Failure::new(Exit::Failed, format!("{}: {error}", path.display())))
}

/// The first plot has the name as given, the second `name-2.svg`.
fn numbered(path: &Path, before: usize) -> PathBuf {
    if before == 0 {
        return path.to_owned();
    }
    let stem = path.file_stem().map_or_else(String::new, |stem| stem.to_string_lossy().into());
    let end = path.extension().map_or_else(|| "svg".into(), |end| end.to_string_lossy());
    path.with_file_name(format!("{stem}-{}.{end}", before + 1))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::lab::{Rate, Scenario};

    #[test]
    fn every_shipped_scenario_can_be_played() {
        let shipped = Path::new(env!("CARGO_MANIFEST_DIR")).join("config/scenarios");
        let files = files(&[shipped]).unwrap();
        assert!(files.len() >= 40, "{} scenarios", files.len());
        for path in files {
            let cells = config::load_scenario(&path, &|_| None);
            let cells = cells.unwrap_or_else(|problems| panic!("{problems}"));
            let ends = [cells.first(), cells.last().filter(|_| cells.len() > 1)];
            for cell in ends.into_iter().flatten() {
                let mut scenario = cell.scenario.clone();
                scenario.runs = 1;
                scenario.duration = scenario.duration.min(Duration::from_secs(10));
                slow_down(&mut scenario);
                let go = AtomicBool::new(false);
                let summary = lab::play(&scenario, false, 1, &go, || {}).unwrap();
                assert_eq!(summary.haldane.rolled_back.runs, 1, "{}", path.display());
            }
        }
    }

    /// Few requests are enough to see that a scenario plays.
    fn slow_down(scenario: &mut Scenario) {
        if let Rate::Steps(steps) = &mut scenario.rate {
            steps.iter_mut().for_each(|(_, rps)| *rps = rps.min(100.0));
        }
    }

    #[test]
    fn plots_of_several_scenarios_are_numbered() {
        let path = Path::new("out/plot.svg");
        assert_eq!(numbered(path, 0), path);
        assert_eq!(numbered(path, 2), Path::new("out/plot-3.svg"));
    }
}
