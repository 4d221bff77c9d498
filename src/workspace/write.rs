//! Changing a tenant's files without losing an edit of theirs.
//!
//! A new file has no name until it gets its own, where nothing is (where the file system knows no
//! nameless files, it is made in staging and renamed). An old one is *exchanged* with one made in
//! staging: only what then lies there is compared with what the caller had seen, and what is not
//! the same goes back. Between these two steps a swapped-out file is named
//! `swap-{ino}-{size}-{mtime}-{new inode}-{n}`: after a crash there, the sweep at the next start
//! can tell a file that may go from one that must be kept.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::os::fd::{AsFd, AsRawFd as _, OwnedFd};
use std::sync::Arc;

use rustix::fs::{
    AtFlags, CWD, FallocateFlags, Mode, OFlags, RenameFlags, Stat, Timestamps, UTIME_OMIT,
    fallocate, fchmod, fchown, fstat, fsync, futimens, linkat, openat, renameat, renameat_with,
    unlinkat,
};
use rustix::io::Errno;
use sha2::Digest as _;
use tokio::io::AsyncReadExt as _;

use super::beneath::{
    Fault, is_placeholder, names, open_path, reopen, same_content, stamp_fd, stamp_of, stat_at,
    timespec,
};
use super::place::{ids, is_file, open_entry, open_parent};
use super::read::CHUNK;
use super::{Inner, Local, run};
use crate::model::{RelPath, Sha256, Stamp};
use crate::world::{Body, Expect, FileSpec, Place, SmallFile, WorkspaceErrorKind as Kind};

/// So many are synced one by one: it spares them the wait for what others wrote to the disk.
const FEW: usize = 4;

/// The directories that several files went into, open.
type Parents = BTreeMap<Option<RelPath>, Arc<std::fs::File>>;

/// Where a file goes, and what must be there.
pub(super) struct Target {
    pub place: Place,
    pub path: RelPath,
    pub expect: Expect,
}

/// A file on its way in; gone when it is dropped.
struct Staged {
    inner: Arc<Inner>,
    /// In staging; empty: it has no name anywhere.
    name: String,
    file: Arc<std::fs::File>,
    spec: FileSpec,
    written: u64,
    sum: sha2::Sha256,
}

/// Takes a body into a file. Threads are held only while bytes are written, not while they are
/// waited for. Content is on the disk before it gets its name, the name before this comes back.
pub(super) async fn write(
    local: &Local,
    target: Target,
    spec: &FileSpec,
    mut body: Body,
) -> Result<(Sha256, Stamp), Fault> {
    let (spec, expect) = (spec.clone(), target.expect);
    let mut chunk = next_chunk(&mut body, spec.size).await?;
    let mut staged: Option<Staged> = None;
    loop {
        let (ended, given, owned) = (chunk.ended, staged.take(), spec.clone());
        if ended {
            let complete = move |inner: &Arc<Inner>| {
                let mut staged = inner.staged(given, owned, expect)?;
                staged.append(&chunk.bytes)?;
                let sum = staged.complete()?;
                Ok((staged, sum))
            };
            let (staged, sum) = run(&local.quick, &local.inner, complete).await?;
            local.flush.synced(Arc::clone(&staged.file)).await?;
            let put = move |inner: &Arc<Inner>| {
                let case = inner.open_case(&target.place)?;
                staged.put_in_place(&case, &target, &mut Parents::new())
            };
            let (stamp, parent) = run(&local.quick, &local.inner, put).await?;
            local.flush.synced(parent).await?;
            return Ok((sum, stamp));
        }
        let append = move |inner: &Arc<Inner>| {
            let mut staged = inner.staged(given, owned, expect)?;
            staged.append(&chunk.bytes)?;
            Ok(staged)
        };
        staged = Some(run(&local.quick, &local.inner, append).await?);
        chunk = next_chunk(&mut body, spec.size).await?;
    }
}

/// Puts small files in place. All contents are on the disk before any gets its name, all names
/// before this comes back: two syncs for all of them.
pub(super) async fn write_small(
    local: &Local,
    place: &Place,
    files: Vec<SmallFile>,
) -> Result<Vec<Result<(Sha256, Stamp), Fault>>, Fault> {
    let (place, case) = (place.clone(), place.clone());
    let stage = move |inner: &Arc<Inner>| {
        let staged = files.into_iter().map(|SmallFile { path, file, bytes, expect }| {
            let mut staged = inner.staged(None, file, expect)?;
            staged.append(&bytes)?;
            let sum = staged.complete()?;
            Ok((staged, sum, Target { place: place.clone(), path, expect }))
        });
        Ok(staged.collect::<Vec<Result<_, Fault>>>())
    };
    let staged = run(&local.quick, &local.inner, stage).await?;
    let written = staged.iter().flatten().map(|(staged, ..)| Arc::clone(&staged.file)).collect();
    let synced = synced(local, written).await;
    let put = move |inner: &Arc<Inner>| {
        let (case, mut parents) = (inner.open_case(&case)?, Parents::new());
        let put = staged.into_iter().map(|staged| {
            let (staged, sum, target) = staged?;
            synced.clone()?;
            let (stamp, _) = staged.put_in_place(&case, &target, &mut parents)?;
            Ok((sum, stamp))
        });
        let put = put.collect::<Vec<Result<_, Fault>>>();
        Ok((put, parents))
    };
    let (put, parents) = run(&local.quick, &local.inner, put).await?;
    let named = self::synced(local, parents.into_values().collect()).await;
    Ok(put.into_iter().map(|put| put.and_then(|done| named.clone().map(|()| done))).collect())
}

/// Comes back when all of these are on the disk.
async fn synced(local: &Local, files: Vec<Arc<std::fs::File>>) -> Result<(), Fault> {
    if files.len() > FEW {
        let first = files.into_iter().next();
        return match first {
            Some(file) => local.flush.all_synced(file).await,
            None => Ok(()),
        };
    }
    for file in files {
        local.flush.synced(file).await?;
    }
    Ok(())
}

struct Chunk {
    bytes: Vec<u8>,
    ended: bool,
}

/// The next bytes of a body; `ended` if there are no more after them.
async fn next_chunk(body: &mut Body, size: u64) -> Result<Chunk, Fault> {
    // One byte more than announced tells that a small body is at its end, or too long.
    let room = usize::try_from(size.saturating_add(1)).unwrap_or(CHUNK).min(CHUNK);
    let mut bytes = Vec::with_capacity(room);
    let mut limited = body.take(room as u64);
    while bytes.len() < room {
        let read = limited.read_buf(&mut bytes).await;
        let read =
            read.map_err(|e| Fault::new(Kind::Corrupt, format_args!("the bytes ended: {e}")))?;
        if read == 0 {
            return Ok(Chunk { bytes, ended: true });
        }
    }
    Ok(Chunk { bytes, ended: false })
}

impl Inner {
    /// The file being staged, or a new one.
    fn staged(
        self: &Arc<Self>,
        given: Option<Staged>,
        spec: FileSpec,
        expect: Expect,
    ) -> Result<Staged, Fault> {
        if let Some(staged) = given {
            return Ok(staged);
        }
        let nameless = if expect == Expect::Absent { self.nameless()? } else { None };
        let (name, file) =
            nameless.map_or_else(|| self.named(), |file| Ok((String::new(), file)))?;
        let (inner, file) = (Arc::clone(self), Arc::new(std::fs::File::from(file)));
        let staged = Staged { inner, name, file, spec, written: 0, sum: sha2::Sha256::new() };
        if staged.spec.size > CHUNK as u64 {
            // Too little space is better known now than after most of it was fetched.
            match fallocate(&*staged.file, FallocateFlags::KEEP_SIZE, 0, staged.spec.size) {
                Ok(()) | Err(Errno::OPNOTSUPP | Errno::NOSYS) => (),
                Err(errno) => return Err(errno.into()),
            }
        }
        Ok(staged)
    }

    /// A new file without a name; `None`: this file system has no such files.
    fn nameless(&self) -> Result<Option<OwnedFd>, Errno> {
        let flags = OFlags::WRONLY | OFlags::TMPFILE | OFlags::CLOEXEC;
        match openat(&self.staging, ".", flags, Mode::RUSR | Mode::WUSR) {
            Ok(file) => Ok(Some(file)),
            // Source: open(2). Kernels and file systems that do not know the flag see a directory.
            Err(Errno::OPNOTSUPP | Errno::ISDIR | Errno::INVAL | Errno::NOENT) => Ok(None),
            Err(errno) => Err(errno),
        }
    }

    /// A new file in staging.
    fn named(&self) -> Result<(String, OwnedFd), Errno> {
        let name = self.fresh_name("new");
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW;
        let mode = Mode::RUSR | Mode::WUSR;
        let file = openat(&self.staging, &*name, flags | OFlags::CLOEXEC, mode)?;
        Ok((name, file))
    }
}

impl Drop for Staged {
    fn drop(&mut self) {
        // What stays is swept at the next start.
        if self.name.is_empty() {
            return;
        }
        let _ = unlinkat(&self.inner.staging, &*self.name, AtFlags::empty());
    }
}

impl Staged {
    fn append(&mut self, bytes: &[u8]) -> Result<(), Fault> {
        self.written += bytes.len() as u64;
        if self.written > self.spec.size {
            let said = self.spec.size;
            return Err(Fault::new(Kind::Corrupt, format_args!("more than {said} bytes came")));
        }
        self.sum.update(bytes);
        Ok((&*self.file).write_all(bytes)?)
    }

    /// Whole and as it should be, with owner, mode and time.
    fn complete(&mut self) -> Result<Sha256, Fault> {
        let sum = Sha256(std::mem::take(&mut self.sum).finalize().into());
        self.verify(sum)?;
        let (uid, gid) = ids(self.spec.owner);
        fchown(&*self.file, uid, gid)?;
        fchmod(&*self.file, Mode::from_raw_mode(self.spec.mode & 0o777))?;
        set_mtime(&*self.file, self.spec.mtime_ns)?;
        Ok(sum)
    }

    /// Gives it its name; the directory that holds it is to be synced.
    fn put_in_place(
        mut self,
        case: &OwnedFd,
        target: &Target,
        parents: &mut Parents,
    ) -> Result<(Stamp, Arc<std::fs::File>), Fault> {
        crate::crash::point(crate::crash::Side::Amid, crate::crash::Effect::WriteFile);
        let before = stamp_fd(&*self.file)?;
        let above = target.path.parent();
        let known = parents.get(&above).cloned();
        let parent = match known.as_ref().map(|parent| self.put(parent, target)) {
            Some(Ok(())) => known,
            Some(Err(fault)) if fault.kind != Kind::NotFound => return Err(fault),
            // It is not known yet, or was removed meanwhile.
            _ => None,
        };
        let parent = match parent {
            Some(parent) => parent,
            None => {
                let opened = Arc::new(std::fs::File::from(self.open_above(case, target)?));
                self.put(&opened, target)?;
                parents.insert(above, Arc::clone(&opened));
                opened
            }
        };
        // If the tenant wrote to it in this moment, the stamp given must not cover that.
        let after = stamp_fd(&*self.file)?;
        let stamp = if same_content(before, after) { after } else { before };
        Ok((stamp, parent))
    }

    /// The directory it goes into; one that holds nothing yet is made.
    fn open_above(&self, case: &OwnedFd, target: &Target) -> Result<OwnedFd, Fault> {
        match target.expect {
            Expect::Absent => {
                self.inner.ensure_path(case, target.path.parent().as_ref(), self.spec.owner)
            }
            Expect::Stamp(_) | Expect::Placeholder => {
                open_parent(case, &target.path).map_err(vanished)
            }
        }
    }

    fn verify(&self, sum: Sha256) -> Result<(), Fault> {
        let FileSpec { size, sha256, .. } = self.spec;
        let corrupt = |message: String| Err(Fault::new(Kind::Corrupt, message));
        if self.written != size {
            return corrupt(format!("{} of {size} bytes came", self.written));
        }
        match sha256 {
            Some(said) if said != sum => {
                corrupt(format!("its sha256 is {} and should be {}", sum.hex(), said.hex()))
            }
            _ => Ok(()),
        }
    }

    /// Gives it a name where nothing is.
    fn name(&mut self, parent: &std::fs::File, name: &[u8]) -> Result<(), Errno> {
        if self.name.is_empty() {
            return match linkat(&*self.file, "", parent, name, AtFlags::EMPTY_PATH) {
                // Not everybody may do it by the descriptor itself. Source: linkat(2).
                Err(Errno::NOENT) => {
                    let link = format!("/proc/self/fd/{}", self.file.as_raw_fd());
                    linkat(CWD, &*link, parent, name, AtFlags::SYMLINK_FOLLOW)
                }
                linked => linked,
            };
        }
        let flags = RenameFlags::NOREPLACE;
        renameat_with(&self.inner.staging, &*self.name, parent, name, flags)?;
        self.name.clear();
        Ok(())
    }

    fn put(&mut self, parent: &std::fs::File, target: &Target) -> Result<(), Fault> {
        let name = target.path.file_name();
        let Some(seen) = Seen::now(parent, name, target.expect).map_err(vanished)? else {
            return match self.name(parent, name) {
                Ok(()) => Ok(()),
                Err(Errno::EXIST) => Err(Fault::changed("there is something already")),
                Err(errno) => Err(errno.into()),
            };
        };
        let staging = &self.inner.staging;
        let swap = seen.swap_name(&self.inner, fstat(&*self.file)?.st_ino);
        renameat(staging, &*self.name, staging, &*swap)?;
        self.name = swap;
        let exchange = || renameat_with(staging, &*self.name, parent, name, RenameFlags::EXCHANGE);
        exchange().map_err(vanished)?;
        if seen.is_at(staging, &self.name) {
            return Ok(()); // Dropping unlinks what was replaced.
        }
        let back = exchange();
        let ours = stamp_fd(&*self.file).map(|stamp| stamp.ino).ok();
        let staged = stat_at(staging, self.name.as_bytes()).map(|stat| stat.st_ino).ok();
        if back.is_err() || ours != staged {
            // The tenant was here again: what they had goes back to where nothing is, or is kept.
            let theirs = std::mem::take(&mut self.name);
            let flags = RenameFlags::NOREPLACE;
            if renameat_with(&self.inner.staging, &*theirs, parent, name, flags).is_err() {
                self.inner.keep(&self.inner.staging, &theirs)?;
            }
        }
        Err(Fault::changed("it changed at the moment it was to be replaced"))
    }
}

/// A path that is not there any more is not what the caller saw.
fn vanished(fault: impl Into<Fault>) -> Fault {
    let fault = fault.into();
    if fault.kind == Kind::NotFound { Fault::changed("it is not there any more") } else { fault }
}

fn set_mtime(file: impl AsFd, mtime_ns: i64) -> Result<(), Errno> {
    let omit = rustix::fs::Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT };
    let times = Timestamps { last_access: omit, last_modification: timespec(mtime_ns) };
    futimens(file, &times)
}

/// What was at a path when it was looked at, as expected.
struct Seen {
    stamp: Stamp,
    placeholder: bool,
}

impl Seen {
    /// Looks; `None`: nothing is to be there, which the rename itself will tell.
    fn now(parent: impl AsFd, name: &[u8], expect: Expect) -> Result<Option<Seen>, Fault> {
        let placeholder = match expect {
            Expect::Absent => return Ok(None),
            Expect::Stamp(_) => false,
            Expect::Placeholder => true,
        };
        let entry = open_path(parent, name)?;
        let stat = fstat(&entry)?;
        let seen = Seen { stamp: stamp_of(&stat), placeholder };
        match expect {
            _ if !is_file(&stat) => Err(Fault::changed("it is no regular file any more")),
            Expect::Stamp(stamp) if stamp != seen.stamp => {
                Err(Fault::changed("it is not as it was last seen"))
            }
            Expect::Placeholder if !is_placeholder(&entry)? => {
                Err(Fault::changed("it is no placeholder any more"))
            }
            _ => Ok(Some(seen)),
        }
    }

    /// Whether this very file, unchanged but for its place, is under a name in staging.
    fn is_at(&self, staging: &OwnedFd, name: &str) -> bool {
        let look = || {
            let entry = open_path(staging, name.as_bytes())?;
            let stat = fstat(&entry)?;
            let same = is_file(&stat) && same_content(stamp_of(&stat), self.stamp);
            Ok::<_, Errno>(same && is_placeholder(&entry)? == self.placeholder)
        };
        look().unwrap_or(false)
    }

    fn swap_name(&self, inner: &Inner, new_ino: u64) -> String {
        let Stamp { ino, size, mtime_ns, .. } = self.stamp;
        inner.fresh_name(&format!("swap-{ino}-{size}-{}-{new_ino}", mtime_ns.cast_unsigned()))
    }
}

/// Whether a file under a swap name may go: it is the new one, or the old one as it was seen.
fn may_go(name: &str, stat: &Stat) -> bool {
    let mut numbers = name.split('-').skip(1).map(str::parse::<u64>);
    let mut number = || numbers.next().and_then(Result::ok);
    let (Some(ino), Some(size), Some(mtime), Some(new)) = (number(), number(), number(), number())
    else {
        return false;
    };
    let now = stamp_of(stat);
    is_file(stat)
        && (now.ino == new || (now.ino, now.size, now.mtime_ns) == (ino, size, mtime.cast_signed()))
}

impl Inner {
    /// Clears what a killed operator left in staging. An edit of a tenant that was caught between
    /// two steps is kept.
    pub(super) fn sweep_staging(&self) -> Result<(), Fault> {
        for name in names(&self.staging, usize::MAX)? {
            let stat = stat_at(&self.staging, &name)?;
            let text = String::from_utf8_lossy(&name).into_owned();
            if text.starts_with("swap-") && !may_go(&text, &stat) {
                self.keep(&self.staging, &text)?;
                continue;
            }
            let dir = super::beneath::file_type(&stat) == rustix::fs::FileType::Directory;
            let flags = if dir { AtFlags::REMOVEDIR } else { AtFlags::empty() };
            unlinkat(&self.staging, &*name, flags)?;
        }
        Ok(())
    }

    /// Keeps something of a tenant in the trash, under a name no session's removal touches.
    pub(super) fn keep(&self, from: &OwnedFd, name: &str) -> Result<(), Fault> {
        for number in 0..10_000 {
            let kept = format!("kept-{number}");
            match renameat_with(from, name, &self.trash, &*kept, RenameFlags::NOREPLACE) {
                Ok(()) => {
                    tracing::warn!(
                        file = kept,
                        "what a tenant moved under our hands is kept in the trash"
                    );
                    return Ok(());
                }
                Err(Errno::EXIST) => (),
                Err(errno) => return Err(errno.into()),
            }
        }
        Err(Fault::new(Kind::Io, "the trash is full of kept files"))
    }

    pub(super) fn rename(
        &self,
        place: &Place,
        from: &RelPath,
        to: &RelPath,
        expected: Stamp,
    ) -> Result<Stamp, Fault> {
        let case = self.open_case(place)?;
        let source = open_parent(&case, from)?;
        let target = open_parent(&case, to)?;
        let (name, new_name) = (from.file_name(), to.file_name());
        Seen::now(&source, name, Expect::Stamp(expected))?;
        let flags = RenameFlags::NOREPLACE;
        match renameat_with(&source, name, &target, new_name, flags) {
            Ok(()) => (),
            Err(Errno::EXIST) => return Err(Fault::changed("the new name is taken")),
            Err(errno) => return Err(errno.into()),
        }
        let now = stat_at(&target, new_name).map(|stat| stamp_of(&stat));
        if let Ok(now) = now
            && same_content(now, expected)
        {
            fsync(&target)?;
            return Ok(now);
        }
        // Whatever was moved goes back, unless the tenant made a new one there: both stay.
        let _ = renameat_with(&target, new_name, &source, name, flags);
        Err(Fault::changed("it changed at the moment it was to be renamed"))
    }

    pub(super) fn remove_file(
        &self,
        place: &Place,
        path: &RelPath,
        expect: Expect,
    ) -> Result<(), Fault> {
        let case = self.open_case(place)?;
        let absent = |fault: Fault| match fault.kind {
            Kind::NotFound => Ok(()),
            _ => Err(fault),
        };
        let parent = match open_parent(&case, path) {
            Ok(parent) => parent,
            Err(fault) => return absent(fault),
        };
        let name = path.file_name();
        let seen = match Seen::now(&parent, name, expect) {
            Ok(Some(seen)) => seen,
            Ok(None) => {
                return match stat_at(&parent, name) {
                    Err(Errno::NOENT) => Ok(()),
                    Err(errno) => Err(errno.into()),
                    Ok(_) => Err(Fault::changed("there is something")),
                };
            }
            Err(fault) => return absent(fault),
        };
        let swap = seen.swap_name(self, 0);
        let flags = RenameFlags::NOREPLACE;
        match renameat_with(&parent, name, &self.staging, &*swap, flags) {
            Err(Errno::NOENT) => return Ok(()),
            result => result?,
        }
        if seen.is_at(&self.staging, &swap) {
            unlinkat(&self.staging, &*swap, AtFlags::empty())?;
            return Ok(fsync(&parent)?);
        }
        if renameat_with(&self.staging, &*swap, &parent, name, flags).is_err() {
            self.keep(&self.staging, &swap)?;
        }
        Err(Fault::changed("it changed at the moment it was to be removed"))
    }
}

/// Sets permission bits and modification time of a file that is still as it was seen.
pub(super) fn set_meta(
    case: &OwnedFd,
    path: &RelPath,
    (mode, mtime_ns): (u32, i64),
    expected: Stamp,
) -> Result<Stamp, Fault> {
    let (parent, entry) = open_entry(case, path)?;
    let stat = fstat(&entry)?;
    if !is_file(&stat) || stamp_of(&stat) != expected {
        return Err(Fault::changed("it is not as it was last seen"));
    }
    if is_placeholder(&entry)? {
        return Err(Fault::changed("it is a placeholder"));
    }
    let file = reopen(&entry)?;
    fchmod(&file, Mode::from_raw_mode(mode & 0o777))?;
    if !same_content(stamp_fd(&file)?, expected) {
        return Err(Fault::changed("it changed at the moment its mode was set"));
    }
    set_mtime(&file, mtime_ns)?;
    let now = stamp_fd(&file)?;
    if now.size != expected.size {
        return Err(Fault::changed("it changed at the moment its time was set"));
    }
    drop(parent);
    Ok(now)
}
