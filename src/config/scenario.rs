//! Scenario files of the simulator: one scenario, or a sweep of them, a cell for each combination
//! of the values that `sweep` lists.
//!
//! ```yaml
//! sweep:
//!   weight: [1%, 5%]
//!   canary.errors: [2%, 5%]
//! ```

use std::path::Path;

use serde::Deserialize;

use super::{
    Problems, compile,
    file::scenario as written,
    parse,
    problem::Problem,
    reader::At,
    reading::Reading,
    yaml::{Kind, Node},
};
use crate::lab::Scenario;

/// Most cells of a sweep.
const MOST_CELLS: usize = 1000;

/// A scenario of a file, and which cell of its sweep it is.
#[derive(Clone, Debug, PartialEq)]
pub struct Cell {
    /// Path and value of what the sweep sets; empty where there is no sweep.
    pub set: Vec<(String, String)>,
    /// The scenario.
    pub scenario: Scenario,
}

/// Compiles the text of a scenario file.
///
/// # Errors
/// Everything that is wrong with it, at once; in a sweep, with its first wrong cell.
pub fn compile_scenario(
    text: &str,
    path: &Path,
    env: &dyn Fn(&str) -> Option<String>,
) -> Result<Vec<Cell>, Problems> {
    let problems = |list| Problems::new(path.to_owned(), text, list);
    let mut tree = parse(text, path)?;
    let axes = take_sweep(&mut tree).map_err(|problem| problems(vec![problem]))?;
    let mut cells = Vec::new();
    for choice in choices(&axes) {
        let mut tree = tree.clone();
        let mut set = Vec::new();
        for (axis, value) in axes.iter().zip(choice) {
            let value = &axis.values[value];
            set_at(&mut tree, axis, value).map_err(|problem| problems(vec![problem]))?;
            set.push((axis.path.clone(), shown(value)));
        }
        let reading = Reading::new(env);
        let scenario =
            written::Scenario::deserialize(At::root(&reading, &tree)).unwrap_or_default();
        let base = path.parent().unwrap_or(Path::new(""));
        match compile::compile_scenario(&scenario, &reading, base) {
            Some(scenario) => cells.push(Cell { set, scenario }),
            None => return Err(problems(reading.into_problems())),
        }
    }
    Ok(cells)
}

/// One key of the sweep.
struct Axis<'t> {
    path: String,
    key: Node<'t>,
    values: Vec<Node<'t>>,
}

fn take_sweep<'t>(tree: &mut Node<'t>) -> Result<Vec<Axis<'t>>, Problem> {
    let Kind::Map(entries) = &mut tree.kind else { return Ok(Vec::new()) };
    let is_sweep = |(key, _): &(Node<'_>, Node<'_>)| is_text(key, "sweep");
    let Some(place) = entries.iter().position(is_sweep) else { return Ok(Vec::new()) };
    let (_, sweep) = entries.remove(place);
    let help = "write it like { weight: [1%, 5%], canary.errors: [1%, 2%] }";
    let Kind::Map(axes) = &sweep.kind else {
        return Err(problem_at(&sweep, "sweep", "expected a map of paths to lists", help));
    };
    let mut list = Vec::new();
    for (key, values) in axes {
        let Kind::List(values) = &values.kind else {
            return Err(problem_at(values, "sweep", "expected a list of values", help));
        };
        if values.is_empty() {
            return Err(problem_at(key, "sweep", "an empty list of values", help));
        }
        list.push(Axis { path: shown(key), key: key.clone(), values: values.clone() });
    }
    if list.iter().map(|axis| axis.values.len()).product::<usize>() > MOST_CELLS {
        return Err(problem_at(&sweep, "sweep", "more than 1000 cells", help));
    }
    Ok(list)
}

/// All combinations of one value of each axis, the last axis fastest; one empty combination of no
/// axes.
fn choices(axes: &[Axis<'_>]) -> Vec<Vec<usize>> {
    let mut all = vec![Vec::new()];
    for axis in axes {
        let longer = |choice: Vec<usize>| {
            (0..axis.values.len()).map(move |value| {
                let mut choice = choice.clone();
                choice.push(value);
                choice
            })
        };
        all = all.into_iter().flat_map(longer).collect();
    }
    all
}

/// Puts a value at a path, making the maps on the way.
fn set_at<'t>(tree: &mut Node<'t>, axis: &Axis<'t>, value: &Node<'t>) -> Result<(), Problem> {
    let mut node = tree;
    for step in axis.path.split('.') {
        if matches!(node.kind, Kind::Null) {
            node.kind = Kind::Map(Vec::new());
        }
        let Kind::Map(entries) = &mut node.kind else {
            let message = format!("there is no `{}` to be set", axis.path);
            return Err(problem_at(&axis.key, "sweep", &message, "a path of keys, as in a.b"));
        };
        let place = entries.iter().position(|(key, _)| is_text(key, step)).unwrap_or_else(|| {
            let place = axis.key.place;
            let key = Node { place, kind: Kind::Text(step.to_owned().into()) };
            entries.push((key, Node { place, kind: Kind::Null }));
            entries.len() - 1
        });
        node = &mut entries[place].1;
    }
    *node = value.clone();
    Ok(())
}

fn is_text(node: &Node<'_>, text: &str) -> bool {
    matches!(&node.kind, Kind::Text(found) if found == text)
}

/// A value for people.
fn shown(node: &Node<'_>) -> String {
    match &node.kind {
        Kind::Null => "null".to_owned(),
        Kind::Text(text) => text.to_string(),
        Kind::List(items) => {
            format!("[{}]", items.iter().map(shown).collect::<Vec<_>>().join(", "))
        }
        Kind::Map(entries) => {
            let entry =
                |(key, value): &(Node<'_>, Node<'_>)| format!("{}: {}", shown(key), shown(value));
            format!("{{ {} }}", entries.iter().map(entry).collect::<Vec<_>>().join(", "))
        }
    }
}

fn problem_at(node: &Node<'_>, path: &str, message: &str, help: &str) -> Problem {
    Problem {
        line: node.place.line,
        column: node.place.column,
        path: path.to_owned(),
        message: message.to_owned(),
        help: Some(help.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::lab::{Rate, Slower, Weighting};

    fn compile(text: &str) -> Result<Vec<Cell>, Problems> {
        compile_scenario(text, Path::new("scenario.yaml"), &|_| None)
    }

    fn accept(text: &str) -> Scenario {
        compile(text).unwrap_or_else(|problems| panic!("{problems}")).remove(0).scenario
    }

    fn refuse(text: &str) -> Vec<String> {
        let problems = compile(text).expect_err("it was accepted");
        let show = |problem: &Problem| {
            let Problem { line, column, path, message, .. } = problem;
            format!("{line}:{column} {path}: {message}")
        };
        problems.list().iter().map(show).collect()
    }

    #[test]
    fn every_key_of_the_contract_is_read() {
        let scenario = accept(
            "
seed: 7
runs: 200
duration: 30m
rps: [{ at: 0s, rps: 200 }, { at: 5m, rps: 800 }]
burst: { every: 60s, for: 5s, factor: 3 }
timeout: 10s
baseline: { median: 20ms, sigma: 0.6, errors: 0.1% }
slow: { share: 1%, between: [5s, 30s] }
canary:
  latency_factor: 1.2
  tail: { share: 1%, factor: 5 }
  errors: 1%
  hang: 0.5%
  after: 10m
  ramp: 20m
load_noise: 0.2
pods: { baseline: 10, canary: 1, pause: { every: 60s, for: 500ms } }
users: { count: 5000, zipf: 1.1 }
weight: 5%
flap: { between: [1%, 10%], every: 7s }
judge: { false_rollback: 0.1%, block: 1s }
",
        );
        assert_eq!((scenario.seed, scenario.runs), (7, 200));
        let seconds = Duration::from_secs;
        assert_eq!(scenario.rate, Rate::Steps(vec![(seconds(0), 200.0), (seconds(300), 800.0)]));
        assert_eq!(scenario.slow.unwrap().between, [seconds(5), seconds(30)]);
        assert_eq!(scenario.canary.tail.unwrap().slower, Slower::Factor(5.0));
        assert_eq!((scenario.canary.hang, scenario.canary.ramp), (0.005, seconds(1200)));
        assert_eq!(scenario.pods.unwrap().pause.unwrap().length, Duration::from_millis(500));
        let flap = Weighting::Flap { between: [100, 1000], every: seconds(7) };
        assert_eq!(scenario.weighting, flap);
        assert_eq!(scenario.judge_config().block_ticks, 10);
    }

    #[test]
    fn what_is_left_out_has_its_default() {
        assert_eq!(accept("seed: 1"), Scenario::default());
    }

    #[test]
    fn a_plan_is_read_as_in_the_configuration() {
        let Weighting::Plan(plan) = accept("rollout: { stages: [1%, 100%] }").weighting else {
            panic!("no plan");
        };
        assert_eq!(plan.stages.len(), 2);
        assert!(matches!(accept("rollout: low").weighting, Weighting::Plan(_)));
        let scenario = accept("rollout: { stages: [5%, 100%], judge: { block: 2s } }");
        assert_eq!(scenario.judge_config().block_ticks, 20);
    }

    #[test]
    fn all_problems_come_at_once_with_their_places() {
        let text = "seed: 1\nrun: 5\nweight: 5\nbaseline: { median: 20 }\nslow: { share: 1% }\n";
        assert_eq!(
            refuse(text),
            [
                "2:1 run: unknown key `run`",
                "3:9 weight: `5` is a bare number where a percentage is needed",
                "4:21 baseline.median: `20` is a bare number where a duration is needed",
                "5:7 slow: `between` is missing",
            ]
        );
    }

    #[test]
    fn contradictions_are_refused() {
        for (text, found) in [
            (
                "weight: 5%\nrollout: low",
                "1:9 weight: `weight` together with `rollout`: one of the two",
            ),
            ("rps: [{ at: 5s, rps: 1 }]", "1:13 rps[0].at: the first moment must be 0s"),
            (
                "canary: { tail: { share: 1%, factor: 2, latency: 1s } }",
                "1:50 canary.tail.latency: `latency` together with `factor`: one of the two",
            ),
            ("flaw: no_dedupe", "1:7 flaw: this flaw shows among sticky users alone: give `users`"),
            ("weight: 101%", "1:9 weight: a weight of 101%; at most 100%"),
            ("users: { count: 0 }", "1:17 users.count: `0` is too small, at least 1"),
            ("duration: 0s", "1:11 duration: no time at all; it must be longer than nothing"),
        ] {
            assert_eq!(refuse(text), [found], "{text}");
        }
    }

    #[test]
    fn a_sweep_has_a_cell_for_every_combination() {
        let cells = compile("seed: 3\nsweep:\n  weight: [1%, 5%]\n  canary.errors: [1%, 2%, 5%]\n");
        let cells = cells.unwrap();
        assert_eq!(cells.len(), 6);
        let set =
            [("weight".to_owned(), "1%".to_owned()), ("canary.errors".to_owned(), "2%".to_owned())];
        assert_eq!(cells[1].set, set);
        assert_eq!(cells[1].scenario.weighting, Weighting::Fixed(100));
        assert_eq!(cells[1].scenario.canary.errors, Some(0.02));
        assert_eq!(cells[5].scenario.seed, 3);
    }

    #[test]
    fn what_a_sweep_sets_is_complained_of_where_it_stands() {
        assert_eq!(refuse("sweep:\n  weight: [1%, 5]\n").len(), 1);
        assert!(refuse("sweep:\n  weight: [1%, 5]\n")[0].starts_with("2:16 weight:"));
        assert!(refuse("sweep: { wieght: [1%] }")[0].contains("unknown key"));
        assert_eq!(refuse("sweep: { weight: 5% }"), ["1:18 sweep: expected a list of values"]);
    }
}
