//! File systems of their own for a state directory: one that fills up, one that turns read-only,
//! one that stalls. They need root, and are taken away when they are dropped.

use std::{
    fs,
    io::{self, BufRead, BufReader, Write},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use tempfile::TempDir;

use crate::ports;

/// A mounted file system; whoever uses it must be gone before it is.
#[derive(Debug)]
pub(crate) struct Disk {
    mount: PathBuf,
    _dir: TempDir,
}

impl Disk {
    /// In memory, and small.
    pub(crate) fn small() -> io::Result<Self> {
        Self::mounted(|_, mount| {
            run(Command::new("mount").args(["-t", "tmpfs", "-o", "size=4m", "tmpfs"]).arg(mount))
        })
    }

    /// ext4 in a file.
    pub(crate) fn in_a_file() -> io::Result<Self> {
        Self::mounted(|dir, mount| {
            let image = dir.join("image");
            fs::File::create(&image)?.set_len(64 << 20)?;
            run(Command::new("mkfs.ext4").args(["-q", "-F"]).arg(&image))?;
            let mut command = Command::new("mount");
            run(command.args(["-o", "loop,errors=remount-ro"]).arg(&image).arg(mount))
        })
    }

    fn mounted(mount: impl FnOnce(&Path, &Path) -> io::Result<String>) -> io::Result<Self> {
        let dir = tempfile::Builder::new().prefix("haldane-bench-disk").tempdir()?;
        let at = dir.path().join("mount");
        fs::create_dir(&at)?;
        mount(dir.path(), &at)?;
        Ok(Self { mount: at, _dir: dir })
    }

    pub(crate) fn state_dir(&self) -> PathBuf {
        self.mount.join("state")
    }

    /// Fills it to the last byte.
    pub(crate) fn fill(&self) -> io::Result<()> {
        let mut file = fs::File::create(self.mount.join("filling"))?;
        for size in [64 << 10, 1] {
            let piece = vec![0_u8; size];
            while file.write(&piece).is_ok_and(|written| written > 0) {}
        }
        Ok(())
    }

    /// Makes it read-only under the files that are open, as the kernel does after an error.
    pub(crate) fn turn_read_only(&self) -> io::Result<()> {
        let source = run(Command::new("findmnt").args(["-no", "SOURCE"]).arg(&self.mount))?;
        let device = source.trim().trim_start_matches("/dev/");
        fs::write(format!("/sys/fs/ext4/{device}/trigger_fs_error"), "1")
    }

    /// Lets every write wait for this many seconds; it has begun on return.
    pub(crate) fn stall(&self, seconds: u32) -> io::Result<Stall> {
        // A process of its own that no signal of the terminal reaches: it goes on in any case.
        let script = format!(
            "trap '' INT TERM; fsfreeze -f \"$0\" && echo begun && sleep {seconds}; fsfreeze -u \"$0\""
        );
        let mut command = Command::new("sh");
        command.args(["-c", &script]).arg(&self.mount).stdin(Stdio::null());
        let mut child = ports::spawn(command.stdout(Stdio::piped()))?;
        let mut line = String::new();
        let said = child.stdout.take().map(|out| BufReader::new(out).read_line(&mut line));
        let stall = Stall(child);
        match said {
            Some(Ok(_)) if line == "begun\n" => Ok(stall),
            _ => Err(io::Error::other("the file system cannot be frozen")),
        }
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let gone = run(Command::new("umount").arg(&self.mount))
            .or_else(|_| run(Command::new("umount").arg("--lazy").arg(&self.mount)));
        if let Err(error) = gone {
            eprintln!("{} stays mounted: {error}", self.mount.display());
        }
    }
}

/// A stall that is under way; dropping it waits for its end.
#[derive(Debug)]
pub(crate) struct Stall(Child);

impl Stall {
    /// Whether it has ended.
    pub(crate) fn is_over(&mut self) -> bool {
        !matches!(self.0.try_wait(), Ok(None))
    }
}

impl Drop for Stall {
    fn drop(&mut self) {
        let _ = self.0.wait();
    }
}

/// Runs a command to its end; gives what it printed.
fn run(command: &mut Command) -> io::Result<String> {
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let output = ports::spawn(command)?.wait_with_output()?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(io::Error::other(format!("{:?}: {}", command.get_program(), said.trim())))
}
