//! `haldane replay`: verifies the chain of a journal, feeds what it recorded to the judge again,
//! and says whether every decision comes out the same.

use std::path::PathBuf;

use clap::Args;

use super::{
    arguments::Output,
    exit::{Exit, Failure},
    status::unreadable,
};
use crate::rollout::{Outcome, Replay, read_journal};

#[derive(Args, Debug)]
pub(super) struct Arguments {
    /// A file of a journal, its directory, or a state directory
    #[arg(value_name = "JOURNAL")]
    journal: PathBuf,
}

/// Replays a journal.
pub(super) fn run(output: Output, arguments: &Arguments) -> Result<(), Failure> {
    let mut replay = Replay::default();
    read_journal(&arguments.journal, |place, line| replay.take(place, &line))?;
    let outcome = replay.outcome();
    match output {
        Output::Json => {
            println!("{}", serde_json::to_string(outcome).map_err(|error| unreadable(&error))?);
        }
        Output::Text => print!("{}", text(outcome)),
    }
    if outcome.is_same() {
        return Ok(());
    }
    let message = match (outcome.different, outcome.untold) {
        (0, untold) => format!("{untold} decisions cannot be compared: what they go by is missing"),
        (different, 0) => format!("{different} decisions did not come out the same"),
        (different, untold) => format!(
            "{different} decisions did not come out the same, and {untold} cannot be compared"
        ),
    };
    Err(Failure::new(Exit::Failed, message))
}

fn text(outcome: &Outcome) -> String {
    let mut text = format!(
        "The chain of {} decisions is whole. {} inputs and {} steps were taken again.\n\
         Of the decisions, {} came of what was seen and came out the same.\n",
        outcome.decisions, outcome.inputs, outcome.steps, outcome.same
    );
    for difference in &outcome.differences {
        text += &format!("different: {difference}\n");
    }
    text
}
