//! The proxy as a process: the release binary with a configuration file. Dropping it kills it, so
//! that no way out of a run, a panic included, leaves one behind.

use std::{
    fs::File,
    io,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    time::Duration,
};

use rustix::process::{Pid, Signal, kill_process};
use tokio::{
    task::spawn_blocking,
    time::{Instant, sleep},
};

use crate::ports;

/// How long a proxy may take to end after a SIGTERM.
const END: Duration = Duration::from_secs(20);

/// How to start the proxy.
#[derive(Clone, Debug)]
pub(crate) struct Program {
    pub(crate) binary: PathBuf,
    pub(crate) config: PathBuf,
    pub(crate) log: PathBuf,
}

impl Program {
    /// Starts it; it is not ready yet.
    pub(crate) async fn start(&self) -> io::Result<Proxy> {
        let program = self.clone();
        // Starting a process takes milliseconds, in which this thread's clients would be late.
        let started = spawn_blocking(move || {
            let log = File::options().create(true).append(true).open(&program.log)?;
            let mut command = Command::new(&program.binary);
            command.arg("run").arg("--config").arg(&program.config).args(["--workers", "2"]);
            ports::spawn(command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log))
        });
        Ok(Proxy(started.await.map_err(io::Error::other)??))
    }

    /// The last lines that it logged.
    pub(crate) fn last_words(&self) -> String {
        let log = std::fs::read(&self.log).unwrap_or_default();
        let log = String::from_utf8_lossy(&log);
        let lines: Vec<_> = log.lines().filter(|line| !line.trim().is_empty()).collect();
        lines[lines.len().saturating_sub(4)..].join(" / ")
    }

    /// Runs another verb of the binary to its end; what it said comes with it.
    pub(crate) async fn verb(
        &self,
        verb: &'static str,
        argument: &Path,
    ) -> io::Result<(ExitStatus, String)> {
        let (binary, argument) = (self.binary.clone(), argument.to_owned());
        let output = spawn_blocking(move || {
            let mut command = Command::new(binary);
            command.arg(verb).arg(argument).stdin(Stdio::null());
            ports::spawn(command.stdout(Stdio::piped()).stderr(Stdio::piped()))?.wait_with_output()
        });
        let output = output.await.map_err(io::Error::other)??;
        let said = [output.stdout, output.stderr].concat();
        Ok((output.status, String::from_utf8_lossy(&said).into_owned()))
    }
}

/// A running proxy.
#[derive(Debug)]
pub(crate) struct Proxy(Child);

impl Proxy {
    /// Whether it still runs.
    pub(crate) fn runs(&mut self) -> bool {
        matches!(self.0.try_wait(), Ok(None))
    }

    /// Ends it without a warning.
    pub(crate) async fn kill(mut self) -> io::Result<()> {
        self.0.kill()?;
        while self.runs() {
            sleep(Duration::from_millis(1)).await;
        }
        Ok(())
    }

    /// Ends it as an operator does.
    ///
    /// # Errors
    /// It did not end in time; then it is killed.
    pub(crate) async fn terminate(mut self) -> io::Result<()> {
        kill_process(Pid::from_child(&self.0), Signal::TERM)?;
        let end = Instant::now() + END;
        while self.runs() {
            if Instant::now() > end {
                return Err(io::ErrorKind::TimedOut.into());
            }
            sleep(Duration::from_millis(5)).await;
        }
        Ok(())
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        // Both fail where it has ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
