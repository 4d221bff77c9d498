//! The watched directory: notify says where to look first, listings are the truth.
//!
//! 1. `hints` tells names that were touched; each is looked at on its own and at once.
//! 2. `disk` lists everything after a quiet moment, at least every 15 s, and whenever asked.
//! 3. `settle` decides which of what was seen may be read, and which is gone.
//! 4. What was read is parsed here, off the runtime's threads, and told as a whole listing.
//!
//! A root that is missing, unreadable, open to others, or another one and empty is trouble, never
//! an empty listing.
#![expect(clippy::disallowed_methods, reason = "the shell: it has the clock and the root's marker")]

mod disk;
mod hints;
mod settle;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender};
use std::time::{Duration, Instant, SystemTime};

use notify::RecommendedWatcher;
use tokio::sync::mpsc;

use crate::spec::{
    BEING_WRITTEN, FILE_MAX, NO_REVISION, Object, Shared, SourceFile, Sources, read_source,
};
use disk::{Found, Identity, Root};
use hints::Hint;
use settle::{Look, Tracker};

/// A listing is made at least this often, whatever notify says.
const RELIST: Duration = Duration::from_secs(15);
/// While there is trouble, and while there are no hints.
const RELIST_BLIND: Duration = Duration::from_secs(1);
/// After a hint: a listing when nothing more came for so long ...
const QUIET: Duration = Duration::from_millis(250);
/// ... and at the latest after this.
const QUIET_MAX: Duration = Duration::from_secs(2);
/// A listing may take one part in so many of the time.
const SHARE: u32 = 50;
/// The same where hints come in for what cannot be looked at by its name.
const SHARE_HINTED: u32 = 4;
/// At the start, a file that nothing was written to for so long is whole.
const OLD: Duration = Duration::from_secs(2);

/// What is watched, and how.
#[derive(Clone, Debug)]
pub struct Options {
    /// The directory.
    pub root: PathBuf,
    /// `allow.writableSpecs`: take specs that others can write.
    pub writable: bool,
    /// A file that remembers which directory it was, over restarts: an unmounted directory looks
    /// like an empty one.
    pub marker: Option<PathBuf>,
    /// The root is a link to a revision, a directory that never changes: another one is read at
    /// once and as a whole.
    pub revisions: bool,
}

/// Watches a directory in a thread of its own until either end is dropped. The sender asks for a
/// listing now; every changed listing comes out of the receiver.
pub fn spawn(options: Options) -> (mpsc::Receiver<Sources>, mpsc::Sender<()>) {
    let (tell, told) = mpsc::channel(4);
    let (ask, mut asked) = mpsc::channel(4);
    let (hint, hints) = std::sync::mpsc::channel();
    let asks = hint.clone();
    let forward = move || {
        while asked.blocking_recv().is_some() {
            if asks.send(Hint::Everywhere).is_err() {
                return;
            }
        }
        let _ended_already = asks.send(Hint::Stop);
    };
    let watch = move || Watch::new(options, tell, hint).run(&hints);
    for (name, spawned) in [
        ("watch-asks", std::thread::Builder::new().name("watch-asks".to_owned()).spawn(forward)),
        ("watch", std::thread::Builder::new().name("watch".to_owned()).spawn(watch)),
    ] {
        if let Err(error) = spawned {
            tracing::error!(%error, "thread {name} did not start");
        }
    }
    (told, ask)
}

struct Watch {
    options: Options,
    tell: mpsc::Sender<Sources>,
    hint: Sender<Hint>,
    watcher: Option<RecommendedWatcher>,
    began: Instant,
    tracker: Tracker,
    files: Shared<SourceFile>,
    /// Names that were there at the first listing and could not be read yet.
    unread: BTreeSet<String>,
    /// The directory that was listed last, and the one of the last run.
    identity: Option<Identity>,
    watched: Option<Identity>,
    trouble: Option<String>,
    listed: bool,
    /// The revision that stands behind the root, and the one that was listed last.
    revision: String,
    listed_revision: Option<String>,
    changed: bool,
    list_at: Duration,
    first_hint: Option<Duration>,
    /// Before this no listing is made, hint or not ...
    not_before: Duration,
    /// ... nor before this for a hint whose name was looked at already.
    calm_from: Duration,
}

impl Watch {
    fn new(options: Options, tell: mpsc::Sender<Sources>, hint: Sender<Hint>) -> Watch {
        let identity = options.marker.as_ref().and_then(|marker| remembered(marker));
        Watch {
            options,
            tell,
            hint,
            watcher: None,
            began: Instant::now(),
            tracker: Tracker::default(),
            files: Shared::default(),
            unread: BTreeSet::new(),
            identity,
            watched: None,
            trouble: None,
            listed: false,
            revision: String::new(),
            listed_revision: None,
            changed: false,
            list_at: Duration::ZERO,
            first_hint: None,
            not_before: Duration::ZERO,
            calm_from: Duration::ZERO,
        }
    }

    fn now(&self) -> Duration {
        self.began.elapsed()
    }

    fn run(mut self, hints: &Receiver<Hint>) {
        let mut touched = BTreeMap::new();
        loop {
            match self.open() {
                Ok(root) => self.look(&root, &std::mem::take(&mut touched)),
                Err(trouble) => self.stand(&trouble),
            }
            if !self.report() {
                return;
            }
            // In trouble nothing settles and nothing vanishes.
            let due = self.tracker.next().filter(|_| self.trouble.is_none());
            let next = due.map_or(self.list_at, |at| at.min(self.list_at));
            match hints.recv_timeout(next.saturating_sub(self.now())) {
                Ok(hint) => {
                    let more = std::iter::once(hint).chain(hints.try_iter());
                    if !self.heed(more, &mut touched) {
                        return;
                    }
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
        }
    }

    /// Sorts hints into names to look at and a listing to make. False: it is over.
    fn heed(
        &mut self,
        hints: impl Iterator<Item = Hint>,
        touched: &mut BTreeMap<String, bool>,
    ) -> bool {
        let now = self.now();
        for hint in hints {
            match hint {
                Hint::At { path, whole } => {
                    let entry = touched.entry(path).or_default();
                    // The newest word counts: closed and then written to again is not whole.
                    *entry = whole.unwrap_or(*entry);
                    let first = *self.first_hint.get_or_insert(now);
                    let soon = (now + QUIET).min(first + QUIET_MAX).max(self.calm_from);
                    self.list_at = self.list_at.min(soon);
                }
                Hint::Everywhere => self.soon(now),
                Hint::Root => {
                    self.watched = None;
                    self.soon(now);
                }
                Hint::Stop => return false,
            }
        }
        true
    }

    fn soon(&mut self, now: Duration) {
        self.list_at = self.list_at.min(now.max(self.not_before));
    }

    /// The root as it is now, watched for hints.
    fn open(&mut self) -> Result<Root, String> {
        let root = self.open_root().map_err(|error| {
            self.watched = None;
            match error.kind() {
                std::io::ErrorKind::NotFound if self.options.revisions => NO_REVISION.to_owned(),
                _ => format!("cannot be opened: {error}"),
            }
        })?;
        if self.watched != Some(root.identity) {
            // Watched before it is listed, or what comes between would be missed. A revision never
            // changes.
            let hint = self.hint.clone();
            let watched = (!self.options.revisions).then_some(&self.options.root);
            self.watcher = watched.and_then(|root| hints::watcher(root, hint));
            self.watched = Some(root.identity);
            self.list_at = Duration::ZERO;
        }
        match root.exposed() {
            Some(exposed) => Err(exposed),
            None => Ok(root),
        }
    }

    fn open_root(&mut self) -> std::io::Result<Root> {
        let mut path = self.options.root.clone();
        if self.options.revisions {
            // The link is followed once: its name and what is listed are of one revision.
            let to = std::fs::read_link(&path)?;
            self.revision = to.to_string_lossy().into_owned();
            path.set_file_name(to);
        }
        Root::open(&path, self.options.writable)
    }

    /// There is trouble: nothing is concluded, everything known is kept.
    fn stand(&mut self, trouble: &str) {
        let now = self.now();
        self.list_at = now + RELIST_BLIND;
        let trouble = format!("{} {trouble}", self.options.root.display());
        self.changed |= self.trouble.as_ref() != Some(&trouble);
        self.trouble = Some(trouble);
    }

    fn look(&mut self, root: &Root, touched: &BTreeMap<String, bool>) {
        for (name, whole) in touched {
            match root.look(name) {
                Found::Spec(look) => self.seen(root, name, look, *whole),
                Found::Directory => self.soon(self.now()),
                Found::Nothing if self.tracker.knows(name) => self.missed(name),
                Found::Nothing if disk::is_hidden(name) => (),
                // It may have been a directory: what was in it is gone with it.
                Found::Nothing => self.soon(self.now() + QUIET),
            }
        }
        if self.list_at <= self.now() || self.trouble.is_some() {
            return self.list(root);
        }
        for name in self.tracker.due(self.now()) {
            match root.look(&name) {
                Found::Spec(look) => self.seen(root, &name, look, false),
                Found::Directory => self.soon(self.now()),
                Found::Nothing => self.missed(&name),
            }
        }
    }

    fn list(&mut self, root: &Root) {
        let began = self.now();
        let all = match root.list() {
            Ok(all) => all,
            Err(error) => return self.stand(&format!("cannot be listed: {error}")),
        };
        let is_another = self.identity.is_some_and(|before| before != root.identity);
        if all.is_empty() && is_another && !self.options.revisions {
            return self.stand(
                "is another directory than before, and empty: put a spec there, or mount it",
            );
        }
        self.adopt(root.identity);
        self.changed |= self.trouble.take().is_some() || !self.listed;
        let swapped =
            self.options.revisions && self.listed_revision.as_ref() != Some(&self.revision);
        self.changed |= swapped;
        for (name, look) in &all {
            let whole = swapped || !self.listed && is_old(look);
            if !self.listed {
                self.unread.insert(name.clone());
            }
            self.seen(root, name, look.clone(), whole);
        }
        let known: Vec<String> = self.tracker.names().map(str::to_owned).collect();
        for name in known.iter().filter(|name| !all.contains_key(*name)) {
            if swapped {
                self.tracker.forget(name);
                self.files.remove(name);
                self.unread.remove(name);
            } else {
                self.missed(name);
            }
        }
        self.listed = true;
        self.listed_revision = Some(self.revision.clone());
        self.first_hint = None;
        let took = self.now().saturating_sub(began);
        let calm = self.watcher.is_some() || self.options.revisions;
        let every = if calm { RELIST } else { RELIST_BLIND };
        self.calm_from = self.now() + took * SHARE;
        self.list_at = self.now() + every.max(took * SHARE);
        self.not_before = self.now() + took * SHARE_HINTED;
    }

    /// Remembers which directory it is, for the next run too.
    fn adopt(&mut self, identity: Identity) {
        if self.identity == Some(identity) {
            return;
        }
        self.identity = Some(identity);
        let Some(marker) = &self.options.marker else { return };
        let text = format!("{} {} {}\n", identity.0, identity.1, identity.2);
        let half = marker.with_extension("tmp");
        let written = std::fs::write(&half, text).and_then(|()| std::fs::rename(&half, marker));
        if let Err(error) = written {
            tracing::warn!(%error, "{} cannot be written", marker.display());
        }
    }

    fn seen(&mut self, root: &Root, name: &str, look: Look, whole: bool) {
        self.changed |= self.tracker.is_missing(name);
        if !self.tracker.seen(name, &look, whole, self.now()) {
            return;
        }
        let (file, look) = match look {
            Look::Refused(why) => (SourceFile::Unreadable(why.clone()), Look::Refused(why)),
            Look::File(stamp) if stamp.size > FILE_MAX as u64 => {
                let size = stamp.size;
                let why = format!("{name}:1:1: the file has {size} bytes, at most 64 KiB are read");
                (SourceFile::Invalid(vec![why]), Look::File(stamp))
            }
            Look::File(stamp) => match root.read(name) {
                Ok(Some((stamp, contents))) => (read_source(name, &contents), Look::File(stamp)),
                // It changes: it has to settle.
                Ok(None) => return self.tracker.again(name, Look::File(stamp), self.now()),
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                    return self.missed(name);
                }
                Err(error) => (SourceFile::Unreadable(error.to_string()), Look::File(stamp)),
            },
        };
        self.tracker.took(name, look);
        self.changed |= self.unread.remove(name) || self.files.get(name) != Some(&file);
        self.files.insert(name, file);
    }

    fn missed(&mut self, name: &str) {
        if self.tracker.missed(name, self.now()) {
            self.changed |= self.files.remove(name).is_some() | self.unread.remove(name);
        }
    }

    /// Tells the listing if it changed. False: nobody listens.
    fn report(&mut self) -> bool {
        if self.tell.is_closed() {
            return false;
        }
        if !std::mem::take(&mut self.changed) {
            return true;
        }
        let root = self.options.root.display().to_string();
        let files = if self.trouble.is_some() { Shared::default() } else { self.listing() };
        let revision = self.listed_revision.clone().unwrap_or_default();
        let trouble = self.trouble.clone();
        self.tell.blocking_send(Sources { root, trouble, revision, files }).is_ok()
    }

    /// What is known, which the listing before shares with it but for what changed.
    fn listing(&self) -> Shared<SourceFile> {
        let mut files = self.files.clone();
        for name in self.unread.iter().filter(|name| !self.files.contains_key(name)) {
            // Its sessions are neither wanted anew nor gone.
            files.insert(name, SourceFile::Unreadable(BEING_WRITTEN.to_owned()));
        }
        let mut missing = self.tracker.missing();
        missing.retain(|name| self.files.contains_key(name));
        if !missing.is_empty() {
            leave_out_moved(&mut files, &missing);
        }
        files
    }
}

/// Which directory it was in the last run.
fn remembered(marker: &Path) -> Option<Identity> {
    let text = std::fs::read_to_string(marker).ok()?;
    let mut numbers = text.split_whitespace().map(str::parse);
    let mut next = || numbers.next()?.ok();
    Some((next()?, next()?, next()?))
}

/// A file that was renamed is missing under its old name for two seconds: what stands under
/// another name by now is not there twice.
fn leave_out_moved(files: &mut Shared<SourceFile>, missing: &BTreeSet<&str>) {
    let objects_of = |file: &SourceFile| match file {
        SourceFile::Parsed { objects, .. } => Some(Arc::clone(objects)),
        SourceFile::Invalid(_) | SourceFile::Unreadable(_) => None,
    };
    let of_missing = missing.iter().filter_map(|name| objects_of(files.get(name)?));
    let sought: BTreeSet<_> = of_missing.flat_map(|all| keys(&all)).collect();
    let others = files.iter().filter(|(name, _)| !missing.contains(name));
    let elsewhere: BTreeSet<_> = others
        .filter_map(|(_, file)| objects_of(file))
        .flat_map(|all| keys(&all))
        .filter(|key| sought.contains(key))
        .collect();
    if elsewhere.is_empty() {
        return;
    }
    for name in missing {
        if let Some(SourceFile::Parsed { objects, .. }) = files.get_mut(name) {
            Arc::make_mut(objects).retain(|object| !elsewhere.contains(&key(object)));
        }
    }
}

fn keys(objects: &[Object]) -> Vec<(u8, String)> {
    objects.iter().map(key).collect()
}

fn key(object: &Object) -> (u8, String) {
    match object {
        Object::Session(session) => (0, session.name.to_string()),
        Object::Class(class) => (1, class.name.to_string()),
    }
}

/// Whether nothing was written to it for a while: nobody can set back a file's ctime.
fn is_old(look: &Look) -> bool {
    let Look::File(stamp) = look else { return false };
    let Ok(wall) = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH) else { return false };
    let newest = stamp.ctime.0.max(stamp.mtime.0);
    let age = i64::try_from(wall.as_secs()).unwrap_or_default() - newest;
    age > OLD.as_secs() as i64
}
