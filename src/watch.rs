//! The watched directory: notify says where to look first, scans are the truth.
//!
//! A file renamed in, or closed from writing, is read at once; any other after two equal looks. A
//! vanished file counts after two looks two seconds apart. A root that is missing, unreadable or
//! another and empty is trouble, never an empty listing.
#![expect(clippy::disallowed_methods, reason = "the shell: it reads the watched directory")]

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::MetadataExt as _;
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
    root: PathBuf,
    identity: Option<(u64, u64)>,
    known: BTreeMap<String, Known>,
    seen: BTreeMap<String, (Stamp, Instant)>,
    hinted: BTreeSet<PathBuf>,
    next: Option<Duration>,
}

/// Watches a directory in a thread of its own until the receiver is dropped. The sender asks for
/// a rescan.
pub fn spawn(root: PathBuf) -> (mpsc::Receiver<Sources>, mpsc::Sender<()>) {
    let (tell, told) = mpsc::channel(4);
    let (ask, asked) = mpsc::channel(4);
    std::thread::Builder::new()
        .name("watch".to_owned())
        .spawn(move || watch(root, &tell, asked))
        .map_or_else(|error| tracing::error!(%error, "the watcher did not start"), drop);
    (told, ask)
}

enum Hint {
    Whole(Vec<PathBuf>),
    Look,
}

fn watch(root: PathBuf, tell: &mpsc::Sender<Sources>, mut asked: mpsc::Receiver<()>) {
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
    let mut watcher = watcher(&root, hint.clone());
    let mut memory = Memory {
        root,
        identity: None,
        known: BTreeMap::new(),
        seen: BTreeMap::new(),
        hinted: BTreeSet::new(),
        next: None,
    };
    let mut last = None;
    let mut watched = None;
    loop {
        let sources = memory.scan();
        if memory.identity != watched {
            watcher = self::watcher(&memory.root, hint.clone());
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
    fn take(&mut self, hint: Hint) {
        if let Hint::Whole(paths) = hint {
            self.hinted.extend(paths);
        }
    }

    /// One scan. `None`: nothing can be told yet (the very first looks).
    fn scan(&mut self) -> Option<Sources> {
        self.next = None;
        let root = self.root.display().to_string();
        let trouble = |why: String| {
            Some(Sources { root: root.clone(), trouble: Some(why), files: BTreeMap::new() })
        };
        let identity = match std::fs::metadata(&self.root) {
            Ok(meta) if meta.is_dir() => (meta.dev(), meta.ino()),
            Ok(_) => return trouble(format!("{root} is not a directory")),
            Err(error) => {
                self.next = Some(Duration::from_secs(1));
                return trouble(format!("{root} cannot be looked at: {error}"));
            }
        };
        let mut found = BTreeMap::new();
        if let Err(error) = walk(&self.root, &self.root, 0, &mut found) {
            self.next = Some(Duration::from_secs(1));
            return trouble(format!("{root} cannot be listed: {error}"));
        }
        if self.identity.is_some_and(|before| before != identity) && found.is_empty() {
            self.next = Some(Duration::from_secs(1));
            return trouble(format!("{root} is another directory now, and empty"));
        }
        self.identity = Some(identity);
        let settled = self.settle(found);
        self.hinted.clear();
        if !settled && self.known.is_empty() {
            return None;
        }
        let files = self.known.iter().map(|(path, known)| (path.clone(), known.file.clone()));
        Some(Sources { root, trouble: None, files: files.collect() })
    }

    /// Takes in what is whole, and lets go what is gone. Whether every file was settled.
    fn settle(&mut self, found: BTreeMap<String, (PathBuf, Stamp)>) -> bool {
        let now = Instant::now();
        let mut settled = true;
        for (shown, (path, stamp)) in &found {
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
                let known = Known { stamp: *stamp, file: read(path, shown), missing_since: None };
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

fn read(path: &Path, shown: &str) -> SourceFile {
    match std::fs::metadata(path) {
        Ok(meta) if meta.len() > FILE_MAX as u64 => SourceFile::Invalid(vec![format!(
            "{shown}:1:1: the file has {} bytes; at most {FILE_MAX} are read",
            meta.len()
        )]),
        Ok(_) => match std::fs::read(path) {
            Ok(contents) => read_source(shown, &contents),
            Err(error) => SourceFile::Unreadable(error.to_string()),
        },
        Err(error) => SourceFile::Unreadable(error.to_string()),
    }
}

/// Regular files under the root; links are followed only if they end inside it, as the swaps of
/// mounted ConfigMaps do.
fn walk(
    root: &Path,
    dir: &Path,
    depth: u32,
    found: &mut BTreeMap<String, (PathBuf, Stamp)>,
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
            match walk(root, &path, depth + 1, found) {
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => (),
                other => other?,
            }
            continue;
        }
        if !is_ours(name) {
            continue;
        }
        if kind.is_symlink() {
            let inside = std::fs::canonicalize(&path)
                .and_then(|to| Ok(to.starts_with(std::fs::canonicalize(root)?)));
            if !inside.unwrap_or_default() {
                continue;
            }
        } else if !kind.is_file() {
            continue;
        }
        let Ok(meta) = std::fs::metadata(&path) else { continue };
        if meta.is_file() {
            let shown = path.strip_prefix(root).unwrap_or(&path).display().to_string();
            found.insert(shown, (path, stamp(&meta)));
        }
    }
    Ok(())
}
