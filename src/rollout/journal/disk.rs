//! The disk as the journal's writer needs it: bytes at a place of a file. It decides nothing, and
//! it is what tests put a failing disk in place of.

use std::{
    fs::{self, File, OpenOptions},
    io,
    os::unix::fs::{FileExt, MetadataExt},
    path::{Path, PathBuf},
};

/// Where a write goes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Spot<'a> {
    pub(super) path: &'a Path,
    /// The length of what is whole; what is behind it is left from a failed write.
    pub(super) length: u64,
    /// Whether the file is made for this write, so that its name must be durable too.
    pub(super) new: bool,
}

/// Something to write to.
pub(super) trait Disk: Send + 'static {
    /// Puts lines behind what is whole; with `sync` they are durable afterwards.
    fn write(&mut self, spot: Spot<'_>, lines: &[u8], sync: bool) -> io::Result<()>;
    /// Deletes a file.
    fn remove(&mut self, path: &Path) -> io::Result<()>;
}

/// The real disk. One file is open at a time, and none after a failure: what an error says of a
/// descriptor need not hold for a new one.
#[derive(Debug, Default)]
pub(super) struct Files {
    open: Option<(PathBuf, File)>,
}

impl Disk for Files {
    fn write(&mut self, spot: Spot<'_>, lines: &[u8], sync: bool) -> io::Result<()> {
        let file = match self.open.take() {
            Some((path, file)) if path == spot.path => file,
            Some(_) | None => open(spot)?,
        };
        file.write_all_at(lines, spot.length)?;
        if sync {
            file.sync_data()?;
            if file.metadata()?.nlink() == 0 {
                return Err(io::Error::other("the file was deleted"));
            }
        }
        if spot.new {
            let directory = spot.path.parent().unwrap_or(Path::new("."));
            File::open(directory)?.sync_all()?;
        }
        self.open = Some((spot.path.to_owned(), file));
        Ok(())
    }

    fn remove(&mut self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }
}

/// Opens a file and cuts what a failed write left behind.
fn open(spot: Spot<'_>) -> io::Result<File> {
    let file = OpenOptions::new().create(true).truncate(false).write(true).open(spot.path)?;
    let length = file.metadata()?.len();
    if length < spot.length {
        return Err(io::Error::other("the file is shorter than what was written to it"));
    }
    file.set_len(spot.length)?;
    Ok(file)
}
