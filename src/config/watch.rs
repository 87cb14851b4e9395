//! Watches files and says when the content of one is another. Reads and judges nothing: whoever is
//! told loads them.
//!
//! Directories are watched, since editors and `mv` put a new file in the place of the old one; and
//! the files are looked at every two seconds, since a bind mount or a link to elsewhere may change
//! without any event in the directory. Events only make the comparison come sooner.

use std::{
    collections::BTreeSet,
    fs::{self, File},
    io::{self, Read},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    thread,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded, select};
use notify::{Event, EventKind, RecommendedWatcher, RecursiveMode, Watcher, event};
use sha2::{Digest, Sha256};
use tokio::sync::mpsc;

use crate::tls::Source;

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
        Self::spawn(vec![Watched::new(path, Seen::of(path))])
    }

    /// Watches the file for content other than `text`, which was read from it before: what changed
    /// in between is not missed.
    ///
    /// # Errors
    /// As [`Watch::start`].
    pub fn since(path: &Path, text: &str) -> io::Result<Self> {
        Self::spawn(vec![Watched::new(path, Seen::Content(Sha256::digest(text).into()))])
    }

    /// Watches files for content other than what they held when they were read.
    ///
    /// # Errors
    /// As [`Watch::start`].
    pub fn sources<'s>(sources: impl IntoIterator<Item = &'s Source>) -> io::Result<Self> {
        let watched = |source: &Source| Watched::new(&source.path, Seen::Content(source.digest));
        Self::spawn(sources.into_iter().map(watched).collect())
    }

    fn spawn(files: Vec<Watched>) -> io::Result<Self> {
        let (stop, stopped) = bounded(0);
        let (changed, changes) = mpsc::channel(1);
        let (wake, woken) = bounded(1);
        let watcher = watch_directories(&files, wake);
        let watching = Watching { files, changed };
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

fn watch_directories(files: &[Watched], wake: Sender<()>) -> Option<RecommendedWatcher> {
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
    let instead = |error: &notify::Error| {
        tracing::warn!(%error, "cannot be watched; content is compared every {POLL:?} instead");
    };
    let mut watcher = notify::recommended_watcher(on_event).inspect_err(instead).ok()?;
    let directories: BTreeSet<&Path> = files.iter().map(|file| directory(&file.path)).collect();
    for directory in directories {
        // The error names the directory.
        let _ = watcher.watch(directory, RecursiveMode::NonRecursive).inspect_err(instead);
    }
    Some(watcher)
}

fn directory(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if parent != Path::new("") => parent,
        Some(_) | None => Path::new("."),
    }
}

struct Watching {
    files: Vec<Watched>,
    changed: mpsc::Sender<()>,
}

/// One file.
struct Watched {
    path: PathBuf,
    seen: Seen,
    /// Whether nothing was there at the last look.
    gone: bool,
    /// What the file system said when the content was compared last.
    stamp: Option<Stamp>,
}

impl Watched {
    fn new(path: &Path, seen: Seen) -> Self {
        Self { path: path.to_owned(), seen, gone: false, stamp: None }
    }

    /// Looks again. Whether what is there is something else.
    fn has_changed(&mut self) -> bool {
        let stamp = Stamp::of(&self.path);
        if stamp.is_some() && stamp == self.stamp {
            return false;
        }
        self.stamp = stamp;
        let now = Seen::of(&self.path);
        // Between the two steps of a replacement there is no file; one that stays away is told.
        let just_gone = now == Seen::Nothing && !self.gone;
        self.gone = now == Seen::Nothing;
        if now == self.seen || just_gone {
            return false;
        }
        self.seen = now;
        true
    }
}

/// What the file system says about content that is the same as long as this is.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Stamp {
    file: (u64, u64),
    length: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Stamp {
    /// The stamp of a file that has been quiet for a while. Just after a change another one may
    /// come that leaves no trace, since the clocks of file systems are coarse.
    fn of(path: &Path) -> Option<Self> {
        let metadata = fs::metadata(path).ok()?;
        let changed = UNIX_EPOCH + Duration::from_secs(u64::try_from(metadata.ctime()).ok()?);
        let quiet = SystemTime::now().duration_since(changed).ok()?;
        (quiet > POLL).then(|| Self {
            file: (metadata.dev(), metadata.ino()),
            length: metadata.len(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        })
    }
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
        match digest(path) {
            Ok(digest) => Self::Content(digest),
            Err(_) => Self::Nothing,
        }
    }
}

/// The SHA-256 of a file, which may be too large for memory.
fn digest(path: &Path) -> io::Result<[u8; 32]> {
    let mut file = File::open(path)?;
    let mut hash = Sha256::new();
    let mut buffer = vec![0; 64 << 10];
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(hash.finalize().into()),
            length => hash.update(&buffer[..length]),
        }
    }
}

impl Watching {
    fn run(mut self, stopped: &Receiver<()>, woken: &Receiver<()>) {
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
            let changes = self.files.iter_mut().filter_map(|it| it.has_changed().then_some(()));
            if changes.count() == 0 {
                continue;
            }
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
    use tempfile::TempDir;

    use super::*;

    /// Longer than any change takes to be seen on a busy machine.
    const PATIENCE: Duration = Duration::from_secs(30);

    struct Scene {
        directory: TempDir,
        watch: Watch,
    }

    impl Scene {
        fn file(&self) -> PathBuf {
            self.directory.path().join("haldane.yaml")
        }
    }

    fn watched() -> Scene {
        let directory = TempDir::new().unwrap();
        let path = directory.path().join("haldane.yaml");
        fs::write(&path, "version: 1").unwrap();
        let watch = Watch::start(&path).unwrap();
        Scene { directory, watch }
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
    fn each_of_several_files_is_seen() {
        let (here, there) = (TempDir::new().unwrap(), TempDir::new().unwrap());
        let paths = [here.path().join("a"), here.path().join("b"), there.path().join("c")];
        for path in &paths {
            fs::write(path, "before").unwrap();
        }
        let digest = Sha256::digest("before").into();
        let sources = paths.clone().map(|path| Source { path, digest });
        let mut watch = Watch::sources(&sources).unwrap();
        for path in &paths {
            fs::write(path, "after").unwrap();
            expect_change(&mut watch);
        }
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
        let watching = Watching { files: vec![Watched::new(&path, Seen::of(&path))], changed };
        let thread = thread::spawn(move || watching.run(&stopped, &woken));
        drop(stop);
        thread.join().unwrap();
    }
}
