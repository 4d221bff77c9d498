//! The walk of a workspace: what is there, and what is there and not looked into, with its reason.
//!
//! One directory is open at a time and waiting ones are kept as paths, so depth costs neither
//! stack nor descriptors. Each directory is opened beneath the workspace without links, so a path
//! that changed its meaning leads nowhere else. Nothing is opened but regular files that must be
//! hashed, and those only after a look through an O_PATH descriptor.
//!
//! What a skipped path means: nothing is known of it nor of anything beneath it that is not in
//! `entries`. A walk that ends at a limit says so of every base entry it did not come to.

use std::collections::BTreeMap;
use std::io::Read as _;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use globset::{GlobBuilder, GlobSet, GlobSetBuilder};
use rustix::fs::{FileType, RawDir, SeekFrom, Stat, fstat, seek};
use rustix::io::Errno;
use rustix::time::{ClockId, clock_gettime};
use sha2::Digest as _;

use super::beneath::{
    Fault, file_type, link_text, open_dir, open_path, permissions, reopen, stamp_fd, stamp_of,
    stat_at,
};
use super::lazy::Meeting;
use super::pieces::Summed;
use super::place::is_file;
use super::read::CHUNK;
use crate::model::{
    Base, BaseEntry, LocalEntry, LocalKind, RelPath, Scan, Sha256, SkipReason, Stamp, WorkspaceSpec,
};
use crate::world::{PieceSums, ScanMode, WorkspaceErrorKind as Kind};

/// Walks in a row before a tree that keeps changing is taken as it was last seen.
const WALKS: u32 = 3;
/// Readings of a file before it is called torn.
const READINGS: u32 = 3;
/// Threads that hash beside each other.
const HASHERS: usize = 2;
/// Directories, special and excluded entries a walk takes besides `limits.files`, at least.
const OTHERS: u64 = 100_000;
/// Names beyond the limit that are reported one by one.
const REPORTED: u64 = 1000;
/// Longest one walk waits for files to come to rest; what changes after that is torn at once.
const SETTLING: Duration = Duration::from_secs(2);
/// Coarsest step of a file's times (a kernel tick at 100 Hz). Source: kernel, `current_time()`.
const TIME_STEP: Duration = Duration::from_millis(10);

/// A glob that cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{glob}` is not a glob: {why}")]
pub struct BadGlob {
    /// The glob.
    pub glob: String,
    /// What is wrong with it.
    pub why: String,
}

/// Paths that are not synced, by globs over raw bytes. A glob without `/` is about names at any
/// depth; with one it is about paths from the top of the workspace. `*` does not cross `/`, `**`
/// does. A directory that matches is left out with all that is in it.
#[derive(Clone, Debug)]
pub struct Excludes(GlobSet);

impl Excludes {
    /// Reads globs.
    ///
    /// # Errors
    /// [`BadGlob`] names the first that cannot be read.
    pub fn new(globs: &[String]) -> Result<Excludes, BadGlob> {
        let bad = |glob: &str, why: globset::Error| {
            let why = why.kind().to_string();
            BadGlob { glob: glob.to_owned(), why }
        };
        let mut set = GlobSetBuilder::new();
        for glob in globs {
            let text = glob.trim_end_matches('/');
            let text = if text.contains('/') {
                text.trim_start_matches('/').to_owned()
            } else {
                format!("**/{text}")
            };
            let built = GlobBuilder::new(&text).literal_separator(true).build();
            set.add(built.map_err(|why| bad(glob, why))?);
        }
        let set = set.build().map_err(|why| bad(&globs.join(", "), why))?;
        Ok(Excludes(set))
    }

    /// Whether a path itself matches; its parents are asked before it.
    pub fn covers(&self, path: &RelPath) -> bool {
        !self.0.is_empty() && self.0.is_match(Path::new(path.as_os_str()))
    }
}

/// What a walk goes by.
#[derive(Clone, Debug)]
pub(super) struct Rules {
    pub excludes: Excludes,
    pub max_files: u64,
    pub max_file_size: u64,
    /// What the workspace may take of the disk; 0: no bound.
    pub quota: u64,
    pub max_depth: usize,
    pub mode: ScanMode,
    /// How placeholders are met.
    pub lazy: Meeting,
}

impl Rules {
    pub fn new(spec: &WorkspaceSpec, mode: ScanMode, lazy: Meeting) -> Result<Rules, BadGlob> {
        Ok(Rules {
            lazy,
            excludes: Excludes::new(&spec.sync_exclude)?,
            max_files: spec.max_files,
            max_file_size: spec.max_file_size,
            quota: spec.quota,
            max_depth: usize::try_from(spec.max_depth).unwrap_or(usize::MAX),
            mode,
        })
    }
}

/// What a walk needs of a base, which it cannot borrow: all but the keys.
pub(super) fn needed(base: &Base) -> Base {
    let files = base.files.iter().map(|(path, entry)| {
        let BaseEntry { sha256, size, mode, mtime_ns, stamp, placed, .. } = *entry;
        let storage_key = String::new();
        let entry = BaseEntry { sha256, size, mode, mtime_ns, storage_key, stamp, placed };
        (path.clone(), entry)
    });
    Base { etag: None, files: files.collect(), tree: base.tree.clone() }
}

/// Contents already read in this scan, so that a second walk does not read them again.
type Known = BTreeMap<RelPath, (Stamp, Sha256)>;

/// Walks, and walks again if the tree changed its shape meanwhile.
pub(super) fn scan(
    case: &OwnedFd,
    rules: &Rules,
    base: &Base,
    summed: &Summed,
    stop: &AtomicBool,
) -> Result<Scan, Fault> {
    let mut known = Known::new();
    for walk in 1.. {
        let mut found = Walk::new(case, rules, base, stop).run()?;
        let last = walk == WALKS;
        let reader =
            Reader { case, rules, base, stop, known: &known, summed, settled: AtomicU64::new(0) };
        let (read, raced) = hash(&reader, &mut found)?;
        found.raced |= raced;
        known.extend(read);
        if last || !found.raced {
            found.confess(base);
            let entries = found.entries.into_iter().collect();
            return Ok(Scan { entries, skipped: found.skipped, bytes: found.bytes });
        }
    }
    Err(Fault::new(Kind::Io, "the walk did not end"))
}

/// What one walk came to.
#[derive(Default)]
struct Found {
    entries: Vec<(RelPath, LocalEntry)>,
    skipped: BTreeMap<RelPath, SkipReason>,
    /// Regular files whose contents must be read.
    unread: Vec<RelPath>,
    /// A limit ended the walk before the tree did.
    cut: bool,
    /// Something was there, and at its turn it was not.
    raced: bool,
    /// Bytes on disk of regular files.
    bytes: u64,
}

impl Found {
    /// A walk that was cut knows nothing of what it did not come to.
    fn confess(&mut self, base: &Base) {
        self.entries.sort_by(|a, b| a.0.cmp(&b.0));
        if !self.cut {
            return;
        }
        let remembered = base.files.keys();
        let remembered = remembered.chain(base.tree.directories.keys());
        for path in remembered.chain(base.tree.symlinks.keys()) {
            if self.entries.binary_search_by(|(at, _)| at.cmp(path)).is_err() {
                self.skipped.entry(path.clone()).or_insert(SkipReason::TooMany);
            }
        }
    }
}

struct Walk<'a> {
    case: &'a OwnedFd,
    rules: &'a Rules,
    base: &'a Base,
    stop: &'a AtomicBool,
    found: Found,
    /// Directories to come, with their depth; `None` is the top.
    waiting: Vec<(Option<RelPath>, usize)>,
    /// Directories that are not synced; what they take of the disk counts all the same.
    left_out: Vec<RelPath>,
    files: u64,
    others: u64,
    over: u64,
}

impl<'a> Walk<'a> {
    fn new(case: &'a OwnedFd, rules: &'a Rules, base: &'a Base, stop: &'a AtomicBool) -> Self {
        let waiting = vec![(None, 0)];
        let found = Found::default();
        let left_out = Vec::new();
        Walk { case, rules, base, stop, found, waiting, left_out, files: 0, others: 0, over: 0 }
    }

    fn run(mut self) -> Result<Found, Fault> {
        let mut buffer = vec![MaybeUninit::uninit(); 64 * 1024];
        while let Some((path, depth)) = self.waiting.pop() {
            check_stop(self.stop)?;
            let opened = open_dir(self.case, path.as_ref().map_or(b".", RelPath::as_bytes));
            let listed = opened.and_then(|dir| self.list(&dir, path.as_ref(), depth, &mut buffer));
            match (listed, path) {
                (Ok(()), _) => (),
                (Err(errno), None) => return Err(errno.into()),
                (Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP), Some(_)) => {
                    self.found.raced = true;
                }
                (Err(errno), Some(path)) => self.skip(path, unreadable(errno)),
            }
            if self.found.cut && self.over >= REPORTED {
                break;
            }
        }
        self.count_left_out(&mut buffer)?;
        // A directory that could not be read is not an entry, whatever its parent said.
        let Found { entries, skipped, .. } = &mut self.found;
        if !skipped.is_empty() {
            entries.retain(|(path, _)| !skipped.contains_key(path));
        }
        Ok(self.found)
    }

    /// Adds up what lies in directories that are not synced, as far as one walk may go: a tenant
    /// could fill the disk there unseen.
    fn count_left_out(&mut self, buffer: &mut [MaybeUninit<u8>]) -> Result<(), Fault> {
        let mut left = OTHERS;
        while let Some(path) = self.left_out.pop() {
            check_stop(self.stop)?;
            let Ok(dir) = open_dir(self.case, path.as_bytes()) else { continue };
            let mut listing = RawDir::new(dir.as_fd(), buffer);
            while let Some(Ok(entry)) = listing.next() {
                let name = entry.file_name().to_bytes();
                if name == b"." || name == b".." {
                    continue;
                }
                let Some(rest) = left.checked_sub(1) else { return Ok(()) };
                left = rest;
                let Ok(stat) = stat_at(&dir, name) else { continue };
                self.found.bytes += on_disk(&stat);
                if file_type(&stat) == FileType::Directory
                    && let Ok(below) = path.join(name)
                {
                    self.left_out.push(below);
                }
            }
        }
        Ok(())
    }

    fn skip(&mut self, path: RelPath, reason: SkipReason) {
        self.found.skipped.insert(path, reason);
    }

    fn list(
        &mut self,
        dir: &OwnedFd,
        path: Option<&RelPath>,
        depth: usize,
        buffer: &mut [MaybeUninit<u8>],
    ) -> Result<(), Errno> {
        let mut listing = RawDir::new(dir.as_fd(), buffer);
        while let Some(entry) = listing.next() {
            let entry = entry?;
            let name = entry.file_name().to_bytes();
            if name == b"." || name == b".." {
                continue;
            }
            let joined = match path {
                Some(path) => path.join(name),
                None => RelPath::parse(name),
            };
            match (joined, path) {
                (Ok(at), _) => self.meet(dir, name, at, depth + 1),
                // The path is too long to be said: all that is known is where it begins.
                (Err(_), Some(path)) => self.skip(path.clone(), SkipReason::TooDeep),
                (Err(_), None) => return Err(Errno::INVAL),
            }
            if self.found.cut && self.over >= REPORTED {
                break;
            }
        }
        Ok(())
    }

    /// One name in an open directory.
    fn meet(&mut self, dir: &OwnedFd, name: &[u8], path: RelPath, depth: usize) {
        let stat = match stat_at(dir, name) {
            Ok(stat) => stat,
            Err(Errno::NOENT) => return,
            Err(errno) => return self.skip(path, unreadable(errno)),
        };
        let excluded = self.rules.excludes.covers(&path);
        let kind = file_type(&stat);
        self.found.bytes += on_disk(&stat);
        let counted = matches!(kind, FileType::RegularFile | FileType::Symlink) && !excluded;
        if !self.within_limits(counted) {
            self.found.cut = true;
            self.over += 1;
            return self.skip(path, SkipReason::TooMany);
        }
        let too_deep = kind == FileType::Directory && depth > self.rules.max_depth;
        if kind == FileType::Directory && (excluded || too_deep) {
            self.left_out.push(path.clone());
        }
        if excluded {
            return self.skip(path, SkipReason::Excluded);
        }
        match kind {
            FileType::RegularFile => self.meet_file(path, &stat),
            FileType::Directory if too_deep => self.skip(path, SkipReason::TooDeep),
            FileType::Directory => {
                self.waiting.push((Some(path.clone()), depth));
                self.keep(path, LocalKind::Directory, &stat);
            }
            FileType::Symlink => match link_text(dir, name) {
                Ok(text) => self.keep(path, LocalKind::Symlink(text), &stat),
                Err(Errno::NOENT | Errno::INVAL) => self.found.raced = true,
                Err(errno) => self.skip(path, unreadable(errno)),
            },
            _ => self.skip(path, SkipReason::Special),
        }
    }

    fn within_limits(&mut self, counted: bool) -> bool {
        if counted {
            self.files += 1;
            self.files <= self.rules.max_files
        } else {
            self.others += 1;
            self.others <= self.rules.max_files.max(OTHERS)
        }
    }

    /// An unchanged stamp is unchanged content, unless everything is to be read.
    fn meet_file(&mut self, path: RelPath, stat: &Stat) {
        let stamp = stamp_of(stat);
        let base = self.base.files.get(&path);
        match base.filter(|base| base.stamp == Some(stamp)).and_then(|base| base.sha256) {
            Some(sum) if self.rules.mode == ScanMode::Quick => {
                self.keep(path, LocalKind::File { sha256: Some(sum), stamp }, stat);
            }
            _ => self.found.unread.push(path),
        }
    }

    fn keep(&mut self, path: RelPath, kind: LocalKind, stat: &Stat) {
        self.found.entries.push((path, LocalEntry { kind, mode: permissions(stat) }));
    }
}

/// What a regular file takes of the disk: a sparse one less than it seems to have.
fn on_disk(stat: &Stat) -> u64 {
    if !is_file(stat) {
        return 0;
    }
    u64::try_from(stat.st_blocks).unwrap_or(0).saturating_mul(512) // Source: stat(2).
}

fn unreadable(errno: Errno) -> SkipReason {
    SkipReason::Unreadable(match errno {
        Errno::XDEV => "something is mounted there".to_owned(),
        errno => std::io::Error::from(errno).to_string(),
    })
}

fn check_stop(stop: &AtomicBool) -> Result<(), Fault> {
    if stop.load(Ordering::Relaxed) {
        return Err(Fault::new(Kind::Io, "nobody waits for the walk any more"));
    }
    Ok(())
}

/// Whether a file has a size and not one byte of data.
fn is_hollow(content: &std::fs::File, size: u64) -> Result<bool, Errno> {
    if size == 0 {
        return Ok(false);
    }
    match seek(content, SeekFrom::Data(0)) {
        Ok(_) => Ok(false),
        Err(Errno::NXIO) => Ok(true),
        // A file system that knows no holes.
        Err(Errno::INVAL) => Ok(false),
        Err(errno) => Err(errno),
    }
}

/// Waits until no write(2) to this file is under way. One moves the file's times as it begins, so
/// one that was halted in its midst for longer than a time step would not be seen by them: what is
/// written so far and what stood there before would be taken for one state. Those that begin
/// after this move the times.
///
/// Source: a write holds the inode's lock to its end, and llseek(2) for holes takes it (ext4, btrfs,
/// tmpfs); where it does not (xfs), read(2) does.
fn let_writers_end(content: &std::fs::File) -> Result<(), Errno> {
    match seek(content, SeekFrom::Hole(0)) {
        // Empty, or a file system that knows no holes.
        Ok(_) | Err(Errno::NXIO | Errno::INVAL) => (),
        Err(errno) => return Err(errno),
    }
    seek(content, SeekFrom::Start(0)).map(drop)
}

/// What reading one file came to.
enum Outcome {
    Entry(LocalEntry),
    Skip(SkipReason),
    /// It is not there any more, or is something else now.
    Gone,
}

/// Reads what the walk left to be read: the contents that were read now, and whether something was
/// gone at its turn.
fn hash(reader: &Reader<'_>, found: &mut Found) -> Result<(Known, bool), Fault> {
    let unread = std::mem::take(&mut found.unread);
    let next = AtomicUsize::new(0);
    let work = || {
        let mut buffer = vec![0; CHUNK];
        let mut outcomes = Vec::new();
        while let Some(path) = unread.get(next.fetch_add(1, Ordering::Relaxed)) {
            outcomes.push((path.clone(), reader.read(path, &mut buffer)?));
        }
        Ok::<_, Fault>(outcomes)
    };
    let helpers = if unread.len() > 1 { HASHERS - 1 } else { 0 };
    let all = std::thread::scope(|scope| {
        let others: Vec<_> = (0..helpers).map(|_| scope.spawn(work)).collect();
        let mut all = work()?;
        for other in others {
            let died = |_| Fault::new(Kind::Io, "a reading thread died");
            all.append(&mut other.join().map_err(died)??);
        }
        Ok::<_, Fault>(all)
    })?;
    let (mut read, mut gone) = (Known::new(), false);
    for (path, outcome) in all {
        match outcome {
            Outcome::Entry(entry) => {
                if let LocalKind::File { sha256: Some(sum), stamp } = entry.kind {
                    read.insert(path.clone(), (stamp, sum));
                }
                found.entries.push((path, entry));
            }
            Outcome::Skip(reason) => drop(found.skipped.insert(path, reason)),
            Outcome::Gone => gone = true,
        }
    }
    Ok((read, gone))
}

struct Reader<'a> {
    case: &'a OwnedFd,
    rules: &'a Rules,
    base: &'a Base,
    stop: &'a AtomicBool,
    known: &'a Known,
    summed: &'a Summed,
    /// Nanoseconds waited so far.
    settled: AtomicU64,
}

impl Reader<'_> {
    fn read(&self, path: &RelPath, buffer: &mut [u8]) -> Result<Outcome, Fault> {
        check_stop(self.stop)?;
        match self.try_read(path, buffer) {
            Ok(outcome) => Ok(outcome),
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => Ok(Outcome::Gone),
            Err(Errno::CANCELED) => check_stop(self.stop).map(|()| Outcome::Gone),
            Err(errno) => Ok(Outcome::Skip(unreadable(errno))),
        }
    }

    fn try_read(&self, path: &RelPath, buffer: &mut [u8]) -> Result<Outcome, Errno> {
        for _ in 0..READINGS {
            let entry = open_path(self.case, path.as_bytes())?;
            let stat = fstat(&entry)?;
            if !is_file(&stat) {
                return Ok(Outcome::Gone);
            }
            let mode = permissions(&stat);
            let file = |stamp, sum| {
                let kind = LocalKind::File { sha256: Some(sum), stamp };
                Ok(Outcome::Entry(LocalEntry { kind, mode }))
            };
            let stamp = stamp_of(&stat);
            if let Some(kind) = self.rules.lazy.look(&entry, &stat)? {
                return Ok(Outcome::Entry(LocalEntry { kind, mode }));
            }
            if stamp.size > self.rules.max_file_size {
                return Ok(Outcome::Skip(SkipReason::TooLarge));
            }
            if self.rules.quota > 0
                && stamp.size > self.rules.quota
                && on_disk(&stat) < stamp.size / 2
            {
                return Ok(Outcome::Skip(SkipReason::Sparse));
            }
            match self.known.get(path) {
                Some((known, sum)) if *known == stamp => return file(stamp, *sum),
                _ => (),
            }
            if !self.settle(stamp) {
                break;
            }
            let mut content = std::fs::File::from(reopen(&entry)?);
            let_writers_end(&content)?;
            let (sum, pieces) = self.sums(&mut content, stamp.size, buffer)?;
            if let Some(sum) = sum
                && stamp_fd(&content)? == stamp
            {
                if let Some(pieces) = pieces {
                    self.summed.keep(stamp, pieces);
                }
                let stored = self.base.files.get(path);
                if stored.is_some_and(|entry| entry.sha256 != Some(sum))
                    && is_hollow(&content, stamp.size)?
                {
                    return Ok(Outcome::Skip(SkipReason::Hollow));
                }
                return file(stamp, sum);
            }
        }
        Ok(Outcome::Skip(SkipReason::Torn))
    }

    /// Waits until a file's last change is more than a time step ago: a change while it is read
    /// then moves its times for certain. `false`: this walk has waited enough.
    fn settle(&self, stamp: Stamp) -> bool {
        let now = clock_gettime(ClockId::Realtime);
        let now = now.tv_sec.saturating_mul(1_000_000_000).saturating_add(now.tv_nsec);
        // A change in the future is a clock that was set back: waiting would not help.
        let Ok(age) = u64::try_from(now.saturating_sub(stamp.ctime_ns)) else { return true };
        let rest = TIME_STEP.saturating_sub(Duration::from_nanos(age));
        if rest.is_zero() {
            return true;
        }
        let nanos = rest.as_nanos() as u64;
        if self.settled.fetch_add(nanos, Ordering::Relaxed) > SETTLING.as_nanos() as u64 {
            return false;
        }
        std::thread::sleep(rest);
        true
    }

    /// The sum of exactly `size` bytes, and of a large file those of its pieces; `None` if there
    /// are more or fewer.
    fn sums(
        &self,
        content: &mut std::fs::File,
        size: u64,
        buffer: &mut [u8],
    ) -> Result<(Option<Sha256>, Option<PieceSums>), Errno> {
        if !Summed::is_for(size) {
            return Ok((self.sum(content, size, buffer)?, None));
        }
        let pieces = self.summed.sum(content, size, buffer, self.stop)?;
        Ok((pieces.as_ref().map(|sums| sums.whole), pieces))
    }

    /// The sum of exactly `size` bytes; `None` if there are more or fewer.
    fn sum(
        &self,
        content: &mut std::fs::File,
        size: u64,
        buffer: &mut [u8],
    ) -> Result<Option<Sha256>, Errno> {
        let mut sum = sha2::Sha256::new();
        let mut total = 0;
        loop {
            let read = match content.read(buffer) {
                Ok(0) => break,
                Ok(read) => read,
                Err(e) if e.kind() == std::io::ErrorKind::Interrupted => continue,
                Err(e) => return Err(Errno::from_io_error(&e).unwrap_or(Errno::IO)),
            };
            total += read as u64;
            if total > size {
                return Ok(None);
            }
            if self.stop.load(Ordering::Relaxed) {
                return Err(Errno::CANCELED);
            }
            sum.update(&buffer[..read]);
        }
        Ok((total == size).then(|| Sha256(sum.finalize().into())))
    }
}
