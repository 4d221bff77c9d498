//! The watched directory: notify says where to look first, scans are the truth.
//!
//! A file renamed in, or closed from writing, is read at once; any other after two equal looks. A
//! vanished file counts after two looks two seconds apart. A root that is missing, unreadable,
//! writable by others or another and empty is trouble, never an empty listing; which root the last
//! files were in is kept in a note, so that this holds over restarts. The first listing waits for
//! every file: one that is not whole yet is not one that is gone.
#![expect(clippy::disallowed_methods, reason = "the shell: it reads the watched directory")]

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read as _;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use notify::event::{AccessKind, AccessMode, EventKind, ModifyKind, RenameMode};
use notify::{Config, RecommendedWatcher, RecursiveMode, Watcher as _};
use tokio::sync::mpsc;

use crate::spec::{FILE_MAX, SourceFile, Sources, read_source};

/// Two looks this far apart that are equal make a file whole.
const SETTLE: Duration = Duration::from_millis(250);
/// Two looks this far apart that miss a file make it gone.
const VANISH: Duration = Duration::from_secs(2);
/// A scan is made at least this often, whatever notify says.
const RESCAN: Duration = Duration::from_secs(15);
/// The first listing waits this long for files that keep changing.
const FIRST: Duration = Duration::from_secs(5);
/// Mode bits that let others write.
const OTHERS_WRITE: u32 = 0o022;

/// What is watched, and how.
#[derive(Clone, Debug)]
pub struct Watched {
    /// The directory.
    pub root: PathBuf,
    /// Where its identity is kept over restarts; `None`: nowhere.
    pub note: Option<PathBuf>,
    /// Whether specs that others can write are read all the same.
    pub writable: bool,
}

type Stamp = (u64, u64, i64, i64, i64, i64);

#[derive(Debug)]
struct Known {
    stamp: Stamp,
    file: SourceFile,
    missing_since: Option<Instant>,
}

/// What a watcher remembers between two scans.
#[derive(Debug)]
struct Memory {
    watched: Watched,
    identity: Option<(u64, u64)>,
    /// Since when the first listing is awaited; `None` once it was made.
    first: Option<Instant>,
    known: BTreeMap<String, Known>,
    seen: BTreeMap<String, (Stamp, Instant)>,
    hinted: BTreeSet<PathBuf>,
    next: Option<Duration>,
}

/// Watches a directory in a thread of its own until the receiver is dropped. The sender asks for
/// a rescan.
pub fn spawn(watched: Watched) -> (mpsc::Receiver<Sources>, mpsc::Sender<()>) {
    let (tell, told) = mpsc::channel(4);
    let (ask, asked) = mpsc::channel(4);
    std::thread::Builder::new()
        .name("watch".to_owned())
        .spawn(move || watch(watched, &tell, asked))
        .map_or_else(|error| tracing::error!(%error, "the watcher did not start"), drop);
    (told, ask)
}

enum Hint {
    Whole(Vec<PathBuf>),
    Look,
}

fn watch(what: Watched, tell: &mpsc::Sender<Sources>, mut asked: mpsc::Receiver<()>) {
    let (hint, hints) = std::sync::mpsc::channel();
    let asks = hint.clone();
    let forward = std::thread::Builder::new().name("watch-asks".to_owned()).spawn(move || {
        while asked.blocking_recv().is_some() {
            if asks.send(Hint::Look).is_err() {
                return;
            }
        }
    });
    if let Err(error) = forward {
        tracing::warn!(%error, "rescans cannot be asked for");
    }
    let mut watcher = watcher(&what.root, hint.clone());
    let mut memory = Memory::new(what);
    let mut last = None;
    let mut watched = None;
    loop {
        let sources = memory.scan();
        if memory.identity != watched {
            watcher = self::watcher(&memory.watched.root, hint.clone());
            watched = memory.identity;
        }
        if let Some(sources) = sources
            && last.as_ref() != Some(&sources)
        {
            if tell.blocking_send(sources.clone()).is_err() {
                return;
            }
            last = Some(sources);
        }
        let wait = memory.next.unwrap_or(RESCAN);
        match hints.recv_timeout(wait) {
            Ok(first) => memory.take(first),
            Err(std::sync::mpsc::RecvTimeoutError::Timeout) => (),
            Err(std::sync::mpsc::RecvTimeoutError::Disconnected) => return,
        }
        while let Ok(more) = hints.try_recv() {
            memory.take(more);
        }
        if tell.is_closed() {
            drop(watcher);
            return;
        }
    }
}

fn watcher(root: &Path, hint: std::sync::mpsc::Sender<Hint>) -> Option<RecommendedWatcher> {
    let config = Config::default().with_follow_symlinks(false);
    let heed = move |event: notify::Result<notify::Event>| {
        let Ok(event) = event else {
            let _ended = hint.send(Hint::Look);
            return;
        };
        let whole = matches!(
            event.kind,
            EventKind::Access(AccessKind::Close(AccessMode::Write))
                | EventKind::Modify(ModifyKind::Name(RenameMode::To | RenameMode::Both))
        );
        let news = match event.kind {
            EventKind::Access(_) if !whole => return,
            _ if whole => Hint::Whole(event.paths),
            _ => Hint::Look,
        };
        let _ended = hint.send(news);
    };
    let mut watcher = RecommendedWatcher::new(heed, config).ok()?;
    if let Err(error) = watcher.watch(root, RecursiveMode::Recursive) {
        tracing::debug!(%error, "no hints from the watched directory");
    }
    Some(watcher)
}

fn stamp(meta: &std::fs::Metadata) -> Stamp {
    (meta.ino(), meta.size(), meta.mtime(), meta.mtime_nsec(), meta.ctime(), meta.ctime_nsec())
}

fn is_ours(name: &str) -> bool {
    let ignored = name.starts_with('.') || name.ends_with('~');
    let path = Path::new(name);
    let ext = path.extension().and_then(|ext| ext.to_str()).unwrap_or_default();
    !ignored && matches!(ext, "yaml" | "yml" | "json")
}

impl Memory {
    fn new(watched: Watched) -> Memory {
        let identity = watched.note.as_deref().and_then(noted);
        Memory {
            watched,
            identity,
            first: Some(Instant::now()),
            known: BTreeMap::new(),
            seen: BTreeMap::new(),
            hinted: BTreeSet::new(),
            next: None,
        }
    }

    fn take(&mut self, hint: Hint) {
        if let Hint::Whole(paths) = hint {
            self.hinted.extend(paths);
        }
    }

    /// One scan. `None`: nothing can be told yet (the very first looks).
    fn scan(&mut self) -> Option<Sources> {
        self.next = None;
        let root = self.watched.root.display().to_string();
        let found = match self.look(&root) {
            Ok(found) => found,
            Err(why) => {
                self.soon(Duration::from_secs(1));
                return Some(Sources { root, trouble: Some(why), files: BTreeMap::new() });
            }
        };
        let settled = self.settle(&found);
        self.hinted.clear();
        let files = self.known.iter().map(|(path, known)| (path.clone(), known.file.clone()));
        let mut files: BTreeMap<String, SourceFile> = files.collect();
        if let Some(began) = self.first {
            if !settled && began.elapsed() < FIRST {
                return None;
            }
            for path in self.seen.keys() {
                let changing = SourceFile::Unreadable("it keeps changing".to_owned());
                files.entry(path.clone()).or_insert(changing);
            }
            self.first = (!settled).then_some(began);
        }
        Some(Sources { root, trouble: None, files })
    }

    /// What lies under the root now, or why that cannot be told.
    fn look(&mut self, root: &str) -> Result<BTreeMap<String, Found>, String> {
        let meta = std::fs::metadata(&self.watched.root)
            .map_err(|error| format!("{root} cannot be looked at: {error}"))?;
        if !meta.is_dir() {
            return Err(format!("{root} is not a directory"));
        }
        if !self.watched.writable && meta.mode() & OTHERS_WRITE != 0 {
            return Err(writable_by_others(root, meta.mode()));
        }
        let mut found = BTreeMap::new();
        walk(&self.watched, &self.watched.root, 0, &mut found)
            .map_err(|error| format!("{root} cannot be listed: {error}"))?;
        let identity = (meta.dev(), meta.ino());
        if self.identity.is_some_and(|before| before != identity) && found.is_empty() {
            return Err(format!("{root} is another directory now, and empty"));
        }
        if self.identity != Some(identity) && !found.is_empty() {
            self.keep(identity);
        }
        if !found.is_empty() || self.identity.is_none() {
            self.identity = Some(identity);
        }
        Ok(found)
    }

    /// Notes which root had files.
    fn keep(&self, (dev, ino): (u64, u64)) {
        let Some(note) = &self.watched.note else { return };
        let beside = note.with_extension("new");
        let kept = std::fs::write(&beside, format!("{dev} {ino}\n"))
            .and_then(|()| std::fs::rename(&beside, note));
        if let Err(error) = kept {
            tracing::warn!(%error, "which directory the specs are in could not be noted");
        }
    }

    /// Takes in what is whole, and lets go what is gone. Whether every file was settled.
    fn settle(&mut self, found: &BTreeMap<String, Found>) -> bool {
        let now = Instant::now();
        let mut settled = true;
        for (shown, Found { path, stamp, refused }) in found {
            if let Some(known) = self.known.get_mut(shown) {
                known.missing_since = None;
                if known.stamp == *stamp {
                    continue;
                }
            }
            let twice = self
                .seen
                .get(shown)
                .is_some_and(|(before, at)| before == stamp && now - *at >= SETTLE);
            if twice || self.hinted.contains(path) {
                let file = match refused {
                    Some(why) => SourceFile::Unreadable(why.clone()),
                    None => read(path, shown),
                };
                let known = Known { stamp: *stamp, file, missing_since: None };
                self.known.insert(shown.clone(), known);
                self.seen.remove(shown);
            } else {
                let again = self.seen.get(shown).is_none_or(|(before, _)| before != stamp);
                if again {
                    self.seen.insert(shown.clone(), (*stamp, now));
                }
                self.soon(SETTLE + Duration::from_millis(10));
                settled = false;
            }
        }
        let mut gone = Vec::new();
        let mut missing = false;
        for (shown, known) in &mut self.known {
            if found.contains_key(shown) {
                continue;
            }
            let since = *known.missing_since.get_or_insert(now);
            if now - since >= VANISH {
                gone.push(shown.clone());
            } else {
                missing = true;
            }
        }
        if missing {
            self.soon(Duration::from_millis(500));
        }
        for shown in gone {
            self.known.remove(&shown);
        }
        self.seen.retain(|shown, _| found.contains_key(shown));
        settled
    }

    fn soon(&mut self, wait: Duration) {
        self.next = Some(self.next.map_or(wait, |next| next.min(wait)));
    }
}

/// Reads at most what a spec file may have. Never waits: what is a FIFO by now has no writer.
fn read(path: &Path, shown: &str) -> SourceFile {
    let flags = rustix::fs::OFlags::NONBLOCK.union(rustix::fs::OFlags::NOCTTY);
    let flags = i32::try_from(flags.bits()).unwrap_or_default();
    let bytes =
        std::fs::OpenOptions::new().read(true).custom_flags(flags).open(path).and_then(|file| {
            if !file.metadata()?.is_file() {
                return Err(std::io::Error::other("it is not a regular file"));
            }
            let mut bytes = Vec::new();
            file.take(FILE_MAX as u64 + 1).read_to_end(&mut bytes)?;
            Ok(bytes)
        });
    match bytes {
        Ok(bytes) if bytes.len() > FILE_MAX => SourceFile::Invalid(vec![format!(
            "{shown}:1:1: the file is too large; at most {FILE_MAX} bytes are read"
        )]),
        Ok(bytes) => read_source(shown, &bytes),
        Err(error) => SourceFile::Unreadable(error.to_string()),
    }
}

fn writable_by_others(shown: &str, mode: u32) -> String {
    format!(
        "{shown} can be written by others (mode {:o}): chmod go-w it, or set allow.writableSpecs",
        mode & 0o7777
    )
}

/// The identity that [`Memory::keep`] noted.
fn noted(note: &Path) -> Option<(u64, u64)> {
    let text = std::fs::read_to_string(note).ok()?;
    let (dev, ino) = text.trim().split_once(' ')?;
    Some((dev.parse().ok()?, ino.parse().ok()?))
}

/// A file under the root.
#[derive(Clone, Debug)]
struct Found {
    path: PathBuf,
    stamp: Stamp,
    /// Why it is not read.
    refused: Option<String>,
}

/// Spec files under the root. Links are followed only if they end inside it, as the swaps of
/// mounted `ConfigMap`s do; one that does not is a file that cannot be read, not one that is gone.
fn walk(
    watched: &Watched,
    dir: &Path,
    depth: u32,
    found: &mut BTreeMap<String, Found>,
) -> std::io::Result<()> {
    if depth > 32 {
        return Ok(());
    }
    for entry in std::fs::read_dir(dir)? {
        let entry = entry?;
        let name = entry.file_name();
        let Some(name) = name.to_str() else { continue };
        let path = entry.path();
        let kind = entry.file_type()?;
        if kind.is_dir() && !name.starts_with('.') {
            match walk(watched, &path, depth + 1, found) {
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => (),
                other => other?,
            }
            continue;
        }
        if !is_ours(name) {
            continue;
        }
        if let Some(file) = judge(watched, path.clone(), kind) {
            let shown = path.strip_prefix(&watched.root).unwrap_or(&path).display().to_string();
            found.insert(shown, file);
        }
    }
    Ok(())
}

/// A name that a spec file has: to be read, refused, or (it vanished just now) nothing.
fn judge(watched: &Watched, path: PathBuf, kind: std::fs::FileType) -> Option<Found> {
    let own = std::fs::symlink_metadata(&path).ok()?;
    let refuse = |path: PathBuf, why: &str| {
        Some(Found { path, stamp: stamp(&own), refused: Some(why.to_owned()) })
    };
    if kind.is_symlink() {
        let inside = std::fs::canonicalize(&path)
            .and_then(|to| Ok(to.starts_with(std::fs::canonicalize(&watched.root)?)));
        match inside {
            Ok(true) => (),
            Ok(false) => return refuse(path, "a link that leads out of the directory"),
            Err(error) => return refuse(path, &format!("a link that leads nowhere: {error}")),
        }
    }
    let meta = match std::fs::metadata(&path) {
        Ok(meta) => meta,
        Err(error) => return refuse(path, &error.to_string()),
    };
    if !meta.is_file() {
        return refuse(path, "it is not a regular file");
    }
    if !watched.writable && meta.mode() & OTHERS_WRITE != 0 {
        let why = writable_by_others("it", meta.mode());
        return Some(Found { path, stamp: stamp(&meta), refused: Some(why) });
    }
    Some(Found { path, stamp: stamp(&meta), refused: None })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    const ONE: &str = "apiVersion: docket.dev/v1\nkind: Session\nspec: {user: a, case: b}\n";

    fn site() -> (tempfile::TempDir, Watched) {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("specs");
        std::fs::create_dir(&root).unwrap();
        std::fs::set_permissions(&root, PermissionsExt::from_mode(0o755)).unwrap();
        let watched = Watched { root, note: Some(dir.path().join("note")), writable: false };
        (dir, watched)
    }

    fn put(watched: &Watched, name: &str) {
        let path = watched.root.join(name);
        std::fs::write(&path, ONE).unwrap();
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o644)).unwrap();
    }

    /// Makes what was seen so far old enough to be taken.
    fn age(memory: &mut Memory) {
        for (_, at) in memory.seen.values_mut() {
            *at = at.checked_sub(SETTLE).unwrap();
        }
    }

    fn listing(memory: &mut Memory) -> Sources {
        memory.scan();
        age(memory);
        memory.scan().unwrap()
    }

    #[test]
    fn a_file_renamed_in_during_the_first_looks_does_not_make_the_others_gone() {
        let (_dir, watched) = site();
        put(&watched, "a.yaml");
        let mut memory = Memory::new(watched.clone());
        assert_eq!(memory.scan(), None);
        put(&watched, "b.yaml");
        memory.take(Hint::Whole(vec![watched.root.join("b.yaml")]));
        assert_eq!(memory.scan(), None, "a.yaml was not read yet");
        age(&mut memory);
        let files: Vec<String> = memory.scan().unwrap().files.into_keys().collect();
        assert_eq!(files, ["a.yaml", "b.yaml"]);
    }

    #[test]
    fn a_file_that_keeps_changing_from_the_start_is_unreadable_and_not_gone() {
        let (_dir, watched) = site();
        put(&watched, "a.yaml");
        let mut memory = Memory::new(watched);
        assert_eq!(memory.scan(), None);
        memory.first = Instant::now().checked_sub(FIRST);
        let sources = memory.scan().unwrap();
        assert!(matches!(sources.files["a.yaml"], SourceFile::Unreadable(_)), "{sources:?}");
        age(&mut memory);
        let sources = memory.scan().unwrap();
        assert!(matches!(sources.files["a.yaml"], SourceFile::Parsed { .. }), "{sources:?}");
    }

    #[test]
    fn another_and_empty_root_is_trouble_even_after_a_restart() {
        let (dir, watched) = site();
        put(&watched, "a.yaml");
        assert_eq!(listing(&mut Memory::new(watched.clone())).files.len(), 1);
        std::fs::rename(&watched.root, dir.path().join("away")).unwrap();
        std::fs::create_dir(&watched.root).unwrap();
        std::fs::set_permissions(&watched.root, PermissionsExt::from_mode(0o755)).unwrap();
        let mut memory = Memory::new(watched.clone());
        assert!(memory.scan().unwrap().trouble.is_some());
        put(&watched, "b.yaml");
        assert_eq!(listing(&mut memory).trouble, None);
        std::fs::remove_file(watched.root.join("b.yaml")).unwrap();
        assert_eq!(Memory::new(watched).scan().unwrap().trouble, None, "the same one, emptied");
    }

    #[test]
    fn specs_that_others_can_write_are_not_read_unless_that_is_allowed() {
        let (_dir, mut watched) = site();
        put(&watched, "a.yaml");
        put(&watched, "b.yaml");
        let mode = |name: &str, mode| {
            let path = watched.root.join(name);
            std::fs::set_permissions(path, PermissionsExt::from_mode(mode)).unwrap();
        };
        mode("a.yaml", 0o666);
        let sources = listing(&mut Memory::new(watched.clone()));
        assert!(matches!(sources.files["a.yaml"], SourceFile::Unreadable(_)), "{sources:?}");
        assert!(matches!(sources.files["b.yaml"], SourceFile::Parsed { .. }), "{sources:?}");
        mode("", 0o775);
        assert!(Memory::new(watched.clone()).scan().unwrap().trouble.is_some());
        watched.writable = true;
        let sources = listing(&mut Memory::new(watched));
        assert!(matches!(sources.files["a.yaml"], SourceFile::Parsed { .. }), "{sources:?}");
    }

    #[test]
    fn links_that_lead_out_fifos_and_dangling_links_are_unreadable_and_never_waited_for() {
        let (_dir, watched) = site();
        std::os::unix::fs::symlink("/etc/shadow", watched.root.join("out.yaml")).unwrap();
        std::os::unix::fs::symlink("nowhere", watched.root.join("gone.yaml")).unwrap();
        let fifo = watched.root.join("fifo.yaml");
        let mode = rustix::fs::Mode::RUSR;
        rustix::fs::mknodat(rustix::fs::CWD, &fifo, rustix::fs::FileType::Fifo, mode, 0).unwrap();
        let sources = listing(&mut Memory::new(watched));
        assert_eq!(sources.files.len(), 3);
        for (name, file) in &sources.files {
            assert!(matches!(file, SourceFile::Unreadable(_)), "{name}: {file:?}");
        }
        assert!(matches!(read(&fifo, "fifo.yaml"), SourceFile::Unreadable(_)));
    }
}
