//! The state directory: made private, locked by one, swept of what was left half done.

use std::fs::{self, DirBuilder, File};
use std::io::{self, Read as _};
use std::os::unix::fs::{DirBuilderExt as _, FileExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use rustix::fs::{FallocateFlags, fallocate, fstatvfs};
use rustix::io::Errno;

use super::fault::Fault;
use crate::lock::lock_soon;

/// Where the store is.
pub(super) const DB: &str = "db";
/// Where a new store is made before it gets its name.
const MAKING: &str = "db.making";
/// What a disk is tried with.
const PROBE: &str = "probe";
/// Space that is left alone, so that sled never meets a full disk in the middle of a write.
const RESERVE: u64 = 2 * 1024 * 1024;

/// The locked state directory.
#[derive(Debug)]
pub(super) struct Home {
    path: PathBuf,
    dir: File,
    _lock: File,
}

impl Home {
    /// Makes the directory if it is not there, and takes its lock.
    ///
    /// # Errors
    /// [`Fault::System`] that names the process that has it, or the failed call.
    pub(super) fn take(path: &Path) -> Result<Home, Fault> {
        let io = Fault::at(path);
        let missing =
            matches!(fs::symlink_metadata(path), Err(e) if e.kind() == io::ErrorKind::NotFound);
        if missing {
            DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(&io)?;
            let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
            sync(parent.unwrap_or(Path::new(".")))?;
        }
        let lock = lock(path)?;
        let dir = File::open(path).map_err(io)?;
        Ok(Home { path: path.to_owned(), dir, _lock: lock })
    }

    /// Where the store is.
    pub(super) fn db(&self) -> PathBuf {
        self.path.join(DB)
    }

    /// Whether there is a store. An error is not an answer.
    pub(super) fn has_db(&self) -> Result<bool, Fault> {
        let path = self.db();
        match fs::metadata(&path) {
            Ok(_) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(Fault::at(&path)(error)),
        }
    }

    /// Removes what an end in the middle of opening left: sled takes a half-written snapshot for
    /// a whole one.
    pub(super) fn sweep(&self) -> Result<(), Fault> {
        self.drop_making()?;
        // Two megabytes at most, which the next trial takes again: nothing to fail for.
        let _absent = fs::remove_file(self.path.join(PROBE));
        let db = self.db();
        let entries = match fs::read_dir(&db) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            // It is a file, or something else that is no store: opening it tells.
            Err(error) if error.kind() == io::ErrorKind::NotADirectory => return Ok(()),
            Err(error) => return Err(Fault::at(&db)(error)),
        };
        for entry in entries {
            let path = entry.map_err(Fault::at(&db))?.path();
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            if name.starts_with("snap.") && name.ends_with(".generating") {
                fs::remove_file(&path).map_err(Fault::at(&path))?;
            }
        }
        Ok(())
    }

    /// Makes a store beside its place and gives it its name once it is whole and durable.
    pub(super) fn make_db(
        &self,
        fill: impl FnOnce(&Path) -> Result<(), Fault>,
    ) -> Result<(), Fault> {
        let making = self.make(fill)?;
        fs::rename(&making, self.db()).map_err(Fault::at(&making))?;
        self.sync()
    }

    /// Makes a store beside the one there is and changes their places, in one step. The old one
    /// is left for [`Home::drop_making`].
    pub(super) fn remake_db(
        &self,
        fill: impl FnOnce(&Path) -> Result<(), Fault>,
    ) -> Result<(), Fault> {
        let making = self.make(fill)?;
        let exchange = rustix::fs::RenameFlags::EXCHANGE;
        rustix::fs::renameat_with(&self.dir, MAKING, &self.dir, DB, exchange)
            .map_err(|errno| Fault::at(&making)(errno.into()))?;
        self.sync()
    }

    fn make(&self, fill: impl FnOnce(&Path) -> Result<(), Fault>) -> Result<PathBuf, Fault> {
        self.sweep()?;
        let making = self.path.join(MAKING);
        DirBuilder::new().mode(0o700).create(&making).map_err(Fault::at(&making))?;
        fill(&making)?;
        sync_store(&making)?;
        Ok(making)
    }

    /// Removes what was made or replaced and has no use.
    pub(super) fn drop_making(&self) -> Result<(), Fault> {
        let making = self.path.join(MAKING);
        match fs::remove_dir_all(&making) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(Fault::at(&making)(error)),
            _ => Ok(()),
        }
    }

    /// Moves a damaged store out of the way, whole, for people to look at. Returns where to.
    pub(super) fn move_aside(&self) -> Result<PathBuf, Fault> {
        let stamp = chrono::Utc::now().format("%Y%m%dT%H%M%SZ");
        for number in 0..1000 {
            let name = match number {
                0 => format!("broken-{stamp}"),
                _ => format!("broken-{stamp}-{number}"),
            };
            let to = self.path.join(name);
            match rustix::fs::renameat_with(
                &self.dir,
                DB,
                &self.dir,
                to.file_name().unwrap_or_default(),
                rustix::fs::RenameFlags::NOREPLACE,
            ) {
                Ok(()) => {
                    self.sync()?;
                    return Ok(to);
                }
                Err(Errno::EXIST) => (),
                Err(errno) => return Err(Fault::at(&to)(errno.into())),
            }
        }
        Err(Fault::System(format!("{}: too many broken-{stamp}", self.path.display())))
    }

    /// Makes renames in the directory durable.
    pub(super) fn sync(&self) -> Result<(), Fault> {
        self.dir.sync_all().map_err(Fault::at(&self.path))
    }

    /// Whether `bytes` more fit with a reserve.
    pub(super) fn has_space(&self, bytes: u64) -> Result<(), Fault> {
        let there = fstatvfs(&self.dir).map_err(|errno| Fault::at(&self.path)(errno.into()))?;
        let blocks =
            if rustix::process::geteuid().is_root() { there.f_bfree } else { there.f_bavail };
        let free = blocks.saturating_mul(there.f_frsize);
        if free < bytes.saturating_add(RESERVE) {
            let need = bytes.saturating_add(RESERVE) / 1024;
            return Err(Fault::Space(format!(
                "{}: {} KiB free, {need} KiB needed: free some space there",
                self.path.display(),
                free / 1024,
            )));
        }
        Ok(())
    }

    /// Whether the disk takes writes again: tried on a file of its own, so that a failing store
    /// is not given up before.
    pub(super) fn try_disk(&self) -> Result<(), Fault> {
        let path = self.path.join(PROBE);
        let io = Fault::at(&path);
        let file = File::options()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&path)
            .map_err(&io)?;
        let tried = match fallocate(&file, FallocateFlags::empty(), 0, RESERVE) {
            Ok(()) | Err(Errno::OPNOTSUPP) => file.sync_all(),
            Err(errno) => Err(errno.into()),
        };
        fs::remove_file(&path).map_err(&io)?;
        tried.map_err(io)
    }
}

/// Takes `{state}/lock`, which dies with its holder and says who that is.
fn lock(state: &Path) -> Result<File, Fault> {
    let path = state.join("lock");
    let mut options = File::options();
    options.read(true).write(true).create(true).truncate(false).mode(0o600);
    options.custom_flags(rustix::fs::OFlags::NOFOLLOW.bits().cast_signed());
    let mut file = options.open(&path).map_err(Fault::at(&path))?;
    match lock_soon(&file) {
        Ok(()) => (),
        Err(Errno::WOULDBLOCK) => {
            let mut text = String::new();
            let _unreadable = (&mut file).take(64).read_to_string(&mut text);
            let holder = match text.trim() {
                "" => "a process that did not say its number".to_owned(),
                pid => format!("process {pid}"),
            };
            return Err(Fault::System(format!(
                "{} is held by {holder}: one docket a state directory",
                state.display()
            )));
        }
        Err(errno) => return Err(Fault::at(&path)(errno.into())),
    }
    // The lock is what counts. On a full disk its text may be of the holder before.
    let text = format!("{}\n", std::process::id());
    let _unwritten = file.write_all_at(text.as_bytes(), 0);
    let _uncut = file.set_len(text.len() as u64);
    Ok(file)
}

/// Makes a file or directory durable.
pub(super) fn sync(path: &Path) -> Result<(), Fault> {
    let file = File::open(path).map_err(Fault::at(path))?;
    file.sync_all().map_err(Fault::at(path))
}

/// Makes everything of a store durable: sled syncs none of it.
pub(super) fn sync_store(db: &Path) -> Result<(), Fault> {
    for path in entries(db)? {
        if path.is_dir() {
            for blob in entries(&path)? {
                sync(&blob)?;
            }
        }
        sync(&path)?;
    }
    sync(db)
}

fn entries(dir: &Path) -> Result<Vec<PathBuf>, Fault> {
    let io = Fault::at(dir);
    let entries = fs::read_dir(dir).map_err(&io)?;
    entries.map(|entry| entry.map(|entry| entry.path()).map_err(&io)).collect()
}
