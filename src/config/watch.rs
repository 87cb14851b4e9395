//! Watches the configuration file and says when its content is another one. Reads and judges
//! nothing: whoever is told loads the file.
//!
//! The directory is watched, since editors and `mv` put a new file in the place of the old one; and
//! the content is compared every two seconds, since a bind mount or a link to elsewhere may change
//! without any event in the directory. Events only make the comparison come sooner.

use std::{
    fs::File,
    io::{self, Read},
    path::{Path, PathBuf},
    thread,
    time::Duration,
};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded, select};
use notify::{Event, EventKind, RecommendedWatcher, RecursiveMode, Watcher, event};
use sha2::{Digest, Sha256};
use tokio::sync::mpsc;

use super::MAX_BYTES;

/// How often the content is compared without any event.
const POLL: Duration = Duration::from_secs(2);
/// The content is compared once no event has come for this long: editors write in several steps.
const QUIET: Duration = Duration::from_millis(50);
/// A directory that is never quiet is looked at after this many waits anyway.
const MOST_WAITS: u32 = 10;

/// A running watch; ends when dropped.
#[derive(Debug)]
pub struct Watch {
    changes: mpsc::Receiver<()>,
    _stop: Sender<()>,
}

impl Watch {
    /// Watches the file for content other than what it holds now.
    ///
    /// # Errors
    /// When no thread can be started. Where the system cannot watch directories, the content is
    /// still compared.
    pub fn start(path: &Path) -> io::Result<Self> {
        Self::spawn(path, Seen::of(path))
    }

    /// Watches the file for content other than `text`, which was read from it before: what changed
    /// in between is not missed.
    ///
    /// # Errors
    /// As [`Watch::start`].
    pub fn since(path: &Path, text: &str) -> io::Result<Self> {
        Self::spawn(path, Seen::Content(Sha256::digest(text).into()))
    }

    fn spawn(path: &Path, seen: Seen) -> io::Result<Self> {
        let (stop, stopped) = bounded(0);
        let (changed, changes) = mpsc::channel(1);
        let (wake, woken) = bounded(1);
        let watcher = watch_directory(path, wake);
        let watching = Watching { path: path.to_owned(), seen, changed };
        thread::Builder::new().name("config-watch".to_owned()).spawn(move || {
            // Events end with the watcher, which lives as long as the loop.
            let _watcher = watcher;
            watching.run(&stopped, &woken);
        })?;
        Ok(Self { changes, _stop: stop })
    }

    /// Waits until the content is another one. Changes that come before anybody waits are one
    /// change. `None` if the watch has ended.
    pub async fn changed(&mut self) -> Option<()> {
        self.changes.recv().await
    }
}

fn watch_directory(path: &Path, wake: Sender<()>) -> Option<RecommendedWatcher> {
    let directory = match path.parent() {
        Some(parent) if parent != Path::new("") => parent,
        Some(_) | None => Path::new("."),
    };
    let on_event = move |event: notify::Result<Event>| {
        // Reading the file makes events too; answering those would never end.
        let ours = |event: &Event| match event.kind {
            EventKind::Access(event::AccessKind::Close(mode)) => mode != event::AccessMode::Write,
            EventKind::Access(_) => true,
            EventKind::Any
            | EventKind::Create(_)
            | EventKind::Modify(_)
            | EventKind::Remove(_)
            | EventKind::Other => false,
        };
        if !event.as_ref().is_ok_and(ours) {
            // Full means that the loop will look anyway.
            let _ = wake.try_send(());
        }
    };
    let watcher = notify::recommended_watcher(on_event).and_then(|mut watcher| {
        watcher.watch(directory, RecursiveMode::NonRecursive)?;
        Ok(watcher)
    });
    watcher
        .inspect_err(|error| {
            tracing::warn!(%error, directory = %directory.display(), "directory cannot be watched; \
                the configuration is compared every {POLL:?} instead");
        })
        .ok()
}

struct Watching {
    path: PathBuf,
    seen: Seen,
    changed: mpsc::Sender<()>,
}

/// What was found at the path.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Seen {
    /// Content with this SHA-256.
    Content([u8; 32]),
    /// Nothing that can be read.
    Nothing,
}

impl Seen {
    fn of(path: &Path) -> Self {
        let mut bytes = Vec::new();
        // One byte more than is ever loaded, so that growing beyond the bound is a change.
        let read =
            File::open(path).and_then(|file| file.take(MAX_BYTES + 1).read_to_end(&mut bytes));
        match read {
            Ok(_) => Self::Content(Sha256::digest(&bytes).into()),
            Err(_) => Self::Nothing,
        }
    }
}

impl Watching {
    fn run(mut self, stopped: &Receiver<()>, woken: &Receiver<()>) {
        let mut gone_before = false;
        loop {
            let woke = select! {
                recv(stopped) -> _ => return,
                // A watcher that could not be made has dropped its end: then only time passes.
                recv(woken) -> event => event.is_ok() || stopped.recv_timeout(POLL) == Err(RecvTimeoutError::Timeout),
                default(POLL) => true,
            };
            if !woke {
                return;
            }
            settle(woken);
            let now = Seen::of(&self.path);
            // Between the two steps of a replacement there is no file; one that stays away is told.
            let just_gone = now == Seen::Nothing && !gone_before;
            gone_before = now == Seen::Nothing;
            if now == self.seen || just_gone {
                continue;
            }
            self.seen = now;
            // Full: a change that nobody has taken yet says the same.
            if let Err(mpsc::error::TrySendError::Closed(())) = self.changed.try_send(()) {
                return;
            }
        }
    }
}

/// Waits for the events to end.
fn settle(woken: &Receiver<()>) {
    for _ in 0..MOST_WAITS {
        if woken.recv_timeout(QUIET).is_err() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use tempfile::TempDir;

    use super::*;

    /// Longer than any change takes to be seen on a busy machine.
    const PATIENCE: Duration = Duration::from_secs(30);

    struct Watched {
        directory: TempDir,
        watch: Watch,
    }

    impl Watched {
        fn file(&self) -> PathBuf {
            self.directory.path().join("haldane.yaml")
        }
    }

    fn watched() -> Watched {
        let directory = TempDir::new().unwrap();
        let path = directory.path().join("haldane.yaml");
        fs::write(&path, "version: 1").unwrap();
        let watch = Watch::start(&path).unwrap();
        Watched { directory, watch }
    }

    #[track_caller]
    fn expect_change(watch: &mut Watch) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        let change =
            runtime.block_on(async { tokio::time::timeout(PATIENCE, watch.changed()).await });
        assert_eq!(change, Ok(Some(())));
    }

    #[test]
    fn a_write_in_place_is_seen() {
        let mut watched = watched();
        fs::write(watched.file(), "version: 2").unwrap();
        expect_change(&mut watched.watch);
        fs::write(watched.file(), "version: 3").unwrap();
        expect_change(&mut watched.watch);
    }

    #[test]
    fn a_file_moved_over_it_as_editors_do_is_seen() {
        let mut watched = watched();
        let beside = watched.directory.path().join(".haldane.yaml.swp");
        fs::write(&beside, "version: 2").unwrap();
        fs::rename(beside, watched.file()).unwrap();
        expect_change(&mut watched.watch);
    }

    #[test]
    fn a_file_taken_away_and_put_back_is_one_change() {
        let mut watched = watched();
        fs::remove_file(watched.file()).unwrap();
        fs::write(watched.file(), "version: 2").unwrap();
        expect_change(&mut watched.watch);
    }

    #[cfg(unix)]
    #[test]
    fn a_swapped_link_to_a_directory_as_in_kubernetes_is_seen() {
        use std::os::unix::fs::symlink;

        let directory = TempDir::new().unwrap();
        let at = |name: &str| directory.path().join(name);
        for (version, text) in [("..one", "version: 1"), ("..two", "version: 2")] {
            fs::create_dir(at(version)).unwrap();
            fs::write(at(version).join("haldane.yaml"), text).unwrap();
        }
        symlink("..one", at("..data")).unwrap();
        symlink("..data/haldane.yaml", at("haldane.yaml")).unwrap();
        let mut watch = Watch::start(&at("haldane.yaml")).unwrap();
        symlink("..two", at("..data_tmp")).unwrap();
        fs::rename(at("..data_tmp"), at("..data")).unwrap();
        expect_change(&mut watch);
    }

    #[cfg(unix)]
    #[test]
    fn a_change_behind_a_link_to_elsewhere_is_seen_without_any_event() {
        let (here, elsewhere) = (TempDir::new().unwrap(), TempDir::new().unwrap());
        let target = elsewhere.path().join("target.yaml");
        fs::write(&target, "version: 1").unwrap();
        let link = here.path().join("haldane.yaml");
        std::os::unix::fs::symlink(&target, &link).unwrap();
        let mut watch = Watch::start(&link).unwrap();
        fs::write(&target, "version: 2").unwrap();
        expect_change(&mut watch);
    }

    #[test]
    fn what_changed_between_loading_and_watching_is_seen() {
        let directory = TempDir::new().unwrap();
        let path = directory.path().join("haldane.yaml");
        fs::write(&path, "version: 2").unwrap();
        let mut watch = Watch::since(&path, "version: 1").unwrap();
        expect_change(&mut watch);
    }

    #[test]
    fn the_same_content_written_again_is_no_change() {
        let mut watched = watched();
        // Moved into place: no moment shows an empty file.
        let put = |text: &str| {
            let beside = watched.directory.path().join("beside");
            fs::write(&beside, text).unwrap();
            fs::rename(beside, watched.file()).unwrap();
        };
        put("version: 1");
        // The next change is the first that is told, and the only one.
        put("version: 2");
        expect_change(&mut watched.watch);
        assert!(watched.watch.changes.try_recv().is_err());
    }

    #[test]
    fn the_thread_ends_with_the_watch() {
        let directory = TempDir::new().unwrap();
        let path = directory.path().join("haldane.yaml");
        let (stop, stopped) = bounded(0);
        let (_wake, woken) = bounded(1);
        let (changed, _changes) = mpsc::channel(1);
        let watching = Watching { seen: Seen::of(&path), path, changed };
        let thread = thread::spawn(move || watching.run(&stopped, &woken));
        drop(stop);
        thread.join().unwrap();
    }
}
