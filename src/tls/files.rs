//! Whether files changed since they were last looked at, by what the system says about them.

use std::{
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

/// Files that are watched by asking.
#[derive(Debug)]
pub struct Files {
    paths: Vec<PathBuf>,
    seen: Vec<Option<Stamp>>,
}

/// What changes when a file's content does; links are followed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stamp {
    modified: (i64, i64),
    length: u64,
    inode: (u64, u64),
}

impl Stamp {
    /// None where there is no such file.
    fn of(path: &Path) -> Option<Self> {
        let it = std::fs::metadata(path).ok()?;
        Some(Self {
            modified: (it.mtime(), it.mtime_nsec()),
            length: it.len(),
            inode: (it.dev(), it.ino()),
        })
    }
}

impl Files {
    /// Looks at the files for the first time.
    #[must_use]
    pub fn new(paths: Vec<PathBuf>) -> Self {
        let seen = paths.iter().map(|path| Stamp::of(path)).collect();
        Self { paths, seen }
    }

    /// Whether any of them changed, came or went since the last look, which this one replaces.
    pub fn changed(&mut self) -> bool {
        let now: Vec<_> = self.paths.iter().map(|path| Stamp::of(path)).collect();
        let changed = now != self.seen;
        self.seen = now;
        changed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_is_replaced_removed_or_made_has_changed_once() {
        let dir = tempfile::tempdir().unwrap();
        let (path, other) = (dir.path().join("a.pem"), dir.path().join("b.pem"));
        std::fs::write(&path, "one").unwrap();
        let mut files = Files::new(vec![path.clone(), other.clone()]);
        assert!(!files.changed());
        std::fs::write(&other, "two").unwrap();
        assert!(files.changed());
        std::fs::rename(&other, &path).unwrap();
        assert!(files.changed());
        assert!(!files.changed());
        std::fs::remove_file(&path).unwrap();
        assert!(files.changed());
        assert!(!files.changed());
    }
}
