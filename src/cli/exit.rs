//! How the binary ends: exit codes, and the sentence that goes with a bad one.

use std::process::ExitCode;

/// The exit codes; scripts rely on them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Exit {
    /// Failed at run time.
    Failed = 1,
    /// The command line, or what it asks for, makes no sense.
    Usage = 2,
    /// The configuration is invalid.
    InvalidConfig = 3,
    /// The admin address cannot be reached.
    Unreachable = 4,
    /// Rolled back or degraded; only when waited for.
    Degraded = 5,
    /// What was waited for did not come in time.
    TimedOut = 6,
}

/// Why a verb did not do what it was asked.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Failure {
    /// The code to exit with.
    pub(super) exit: Exit,
    /// What went wrong and what to do next, for standard error.
    pub(super) message: String,
}

impl Failure {
    /// A failure with this code.
    pub(super) fn new(exit: Exit, message: impl Into<String>) -> Self {
        Self { exit, message: message.into() }
    }

    /// Says it on standard error and gives the code.
    pub(super) fn report(&self) -> ExitCode {
        eprintln!("haldane: {}", self.message);
        ExitCode::from(self.exit as u8)
    }
}

impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Self {
        Self::new(Exit::Failed, error.to_string())
    }
}
