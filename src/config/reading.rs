//! One reading of a file: where every value stood, and all that is wrong with it. Shared by whoever
//! reads and whoever compiles; ends as the list of problems.

use std::{borrow::Cow, cell::RefCell};

use super::{
    problem::{MAX_PROBLEMS, Problem},
    yaml::Place,
};

/// Where a value was written: an index into the spots of its [`Reading`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Spot(pub(super) u32);

/// One reading of a tree: where everything stood, and what was wrong.
pub(super) struct Reading<'t> {
    pub(super) env: &'t dyn Fn(&str) -> Option<String>,
    spots: RefCell<Vec<SpotEntry<'t>>>,
    problems: RefCell<Vec<Problem>>,
    interpolated: RefCell<Vec<String>>,
}

struct SpotEntry<'t> {
    parent: Spot,
    step: Step<'t>,
    place: Place,
}

/// A step of a path.
pub(super) enum Step<'t> {
    /// The document.
    Root,
    /// Into a map.
    Key(Cow<'t, str>),
    /// Into a list.
    Index(usize),
}

impl<'t> Reading<'t> {
    /// A reading in which `${NAME}` is looked up by `env`.
    pub(super) fn new(env: &'t dyn Fn(&str) -> Option<String>) -> Self {
        let root = SpotEntry { parent: Spot(0), step: Step::Root, place: Place::START };
        Self {
            env,
            spots: RefCell::new(vec![root]),
            problems: RefCell::default(),
            interpolated: RefCell::default(),
        }
    }

    /// Notes a problem with what stands at `spot`.
    pub(super) fn problem(&self, spot: Spot, message: impl Into<String>, help: Option<String>) {
        let spots = self.spots.borrow();
        let Some(entry) = spots.get(spot.0 as usize) else { return };
        self.problem_at(entry.place, path(&spots, spot), message.into(), help);
    }

    /// Whether anything was wrong.
    pub(super) fn has_problems(&self) -> bool {
        !self.problems.borrow().is_empty()
    }

    /// Whether so many problems were noted that no more are kept.
    pub(super) fn is_full(&self) -> bool {
        self.problems.borrow().len() >= MAX_PROBLEMS
    }

    /// The line of a spot.
    pub(super) fn line(&self, spot: Spot) -> u32 {
        self.spots.borrow().get(spot.0 as usize).map_or(0, |entry| entry.place.line)
    }

    /// The path of a spot, such as `routes[3].match`.
    pub(super) fn path(&self, spot: Spot) -> String {
        path(&self.spots.borrow(), spot)
    }

    /// What the interpolated scalars came to, in the order in which they were read.
    pub(super) fn interpolated(&self) -> std::cell::Ref<'_, Vec<String>> {
        self.interpolated.borrow()
    }

    /// Notes what an interpolated scalar came to.
    pub(super) fn interpolate(&self, text: &str) {
        self.interpolated.borrow_mut().push(text.to_owned());
    }

    /// Ends the reading.
    pub(super) fn into_problems(self) -> Vec<Problem> {
        self.problems.into_inner()
    }

    /// Notes a problem at a place under a path.
    pub(super) fn problem_at(
        &self,
        place: Place,
        path: String,
        message: String,
        help: Option<String>,
    ) {
        let mut problems = self.problems.borrow_mut();
        if problems.len() < MAX_PROBLEMS {
            let Place { line, column, .. } = place;
            problems.push(Problem { line, column, path, message, help });
        }
    }

    /// Notes where something stands, under what stands at `parent`.
    pub(super) fn spot(&self, parent: Spot, step: Step<'t>, place: Place) -> Spot {
        let mut spots = self.spots.borrow_mut();
        spots.push(SpotEntry { parent, step, place });
        Spot(u32::try_from(spots.len() - 1).unwrap_or(u32::MAX))
    }
}

fn path(spots: &[SpotEntry<'_>], mut spot: Spot) -> String {
    let mut steps = Vec::new();
    while let Some(entry) = spots.get(spot.0 as usize) {
        match &entry.step {
            Step::Root => break,
            Step::Key(key) if key.contains(['.', ' ', '[']) => steps.push(format!(".\"{key}\"")),
            Step::Key(key) => steps.push(format!(".{key}")),
            Step::Index(index) => steps.push(format!("[{index}]")),
        }
        spot = entry.parent;
    }
    let path: String = steps.iter().rev().map(String::as_str).collect();
    path.strip_prefix('.').map_or(path.clone(), str::to_owned)
}
