//! Filling a placeholder that somebody opens, through the descriptor that came with the event:
//! no path is used, and nothing done here raises another event.
//!
//! The order is what keeps zeros from readers: space first, all bytes, length and sum verified,
//! synced to disk, times as they were, and only then is the inode no placeholder any more. Killed
//! anywhere before, it still is one, and is filled again from the start.

use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::fs::FileExt as _;

use rustix::fs::{
    FallocateFlags, Stat, Timespec, Timestamps, UTIME_OMIT, fallocate, fdatasync, fgetxattr,
    fremovexattr, fstat, fstatvfs, futimens,
};
use rustix::io::Errno;
use sha2::Digest as _;
use tokio::io::AsyncReadExt as _;
use tokio::sync::mpsc;

use super::beneath::{XATTR_STUB, stamp_of, timespec};
use super::lazy::Wire;
use super::read::CHUNK;
use crate::model::{Sha256, Space, Stub};
use crate::plan::NoRoom;
use crate::world::{Body, Marks};

/// Chunks between the body and the disk.
const AHEAD: usize = 4;

/// Why a placeholder could not be filled.
#[derive(Debug, thiserror::Error)]
pub enum FillError {
    /// No space or quota for it.
    #[error("no space left for it")]
    NoSpace,
    /// A bound is in the way.
    #[error("{0}")]
    NoRoom(NoRoom),
    /// The bytes broke off: another try may bring them.
    #[error("the bytes broke off: {0}")]
    Broken(std::io::Error),
    /// What came is not what was announced.
    #[error("{0}")]
    Corrupt(String),
    /// The system refuses.
    #[error("the file system refuses: {0}")]
    Io(std::io::Error),
}

impl From<Errno> for FillError {
    fn from(errno: Errno) -> FillError {
        match errno {
            Errno::NOSPC | Errno::DQUOT => FillError::NoSpace,
            errno => FillError::Io(errno.into()),
        }
    }
}

/// What a descriptor of a placeholder says of it; `None`: it is an ordinary file.
///
/// # Errors
/// The system's: nothing is known then.
pub fn stub_of(file: &OwnedFd) -> std::io::Result<Option<Stub>> {
    let mut value = [0u8; 4096];
    match fgetxattr(file, XATTR_STUB, &mut value) {
        Ok(length) => match Stub::parse(&value[..length]) {
            Some(stub) => Ok(Some(stub)),
            None => Err(std::io::Error::other("what it stands for cannot be read")),
        },
        Err(Errno::NODATA) => Ok(None),
        Err(errno) => Err(errno.into()),
    }
}

/// Which inode a descriptor names.
///
/// # Errors
/// The system's.
pub fn inode_of(file: &OwnedFd) -> std::io::Result<(u64, u64)> {
    let stat = fstat(file)?;
    Ok((stat.st_dev, stat.st_ino))
}

/// Space on the file system of a descriptor.
///
/// # Errors
/// The system's.
pub fn space_of(file: &OwnedFd) -> std::io::Result<Space> {
    let stat = fstatvfs(file)?;
    let bytes = |blocks: u64| blocks.saturating_mul(stat.f_frsize);
    Ok(Space { total: bytes(stat.f_blocks), free: bytes(stat.f_bavail) })
}

/// Fills a placeholder with its object's bytes, as far as its size goes: a tenant who made it
/// shorter or longer meant that. Afterwards it is an ordinary file without a mark.
///
/// # Errors
/// [`FillError`]; it is still a placeholder then.
pub async fn fill(
    file: OwnedFd,
    stub: Stub,
    mut body: Body,
    marks: std::sync::Arc<dyn Marks>,
) -> Result<(), FillError> {
    let (give, take) = mpsc::channel(AHEAD);
    let size = stub.size;
    let writing =
        tokio::task::spawn_blocking(move || Filling::begin(file, stub)?.run(take, &*marks));
    let ended = pass_on(&mut body, size, &give).await;
    drop(give);
    let written = writing.await.map_err(|error| FillError::Io(std::io::Error::other(error)))?;
    match ended {
        Err(error) => Err(FillError::Broken(error)),
        Ok(()) => written,
    }
}

/// The next bytes, or that there are no more: a body that broke off says neither.
enum Part {
    Bytes(Vec<u8>),
    End,
}

/// Passes a body on, and one byte more than announced, so that a longer one is found out.
async fn pass_on(body: &mut Body, size: u64, give: &mpsc::Sender<Part>) -> std::io::Result<()> {
    let mut left = size.saturating_add(1);
    loop {
        let room = CHUNK.min(usize::try_from(left).unwrap_or(CHUNK));
        let mut chunk = Vec::with_capacity(room);
        let mut limited = (&mut *body).take(room as u64);
        while limited.read_buf(&mut chunk).await? > 0 {}
        left -= chunk.len() as u64;
        let ended = chunk.len() < room || left == 0;
        if give.send(Part::Bytes(chunk)).await.is_err() {
            return Ok(()); // The other side has its reason, and tells it.
        }
        if ended {
            let _it_has_its_reason = give.send(Part::End).await;
            return Ok(());
        }
    }
}

/// A placeholder that is being written.
struct Filling {
    file: std::fs::File,
    stub: Stub,
    before: Stat,
    /// As much as is written.
    want: u64,
}

impl Filling {
    fn begin(file: OwnedFd, stub: Stub) -> Result<Filling, FillError> {
        let before = fstat(&file)?;
        let omit = Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT };
        let begun = timespec(Wire::Begun.atime_ns(&stub));
        futimens(&file, &Timestamps { last_access: begun, last_modification: omit })?;
        let want = stub.size.min(u64::try_from(before.st_size).unwrap_or_default());
        if want > 0 {
            match fallocate(&file, FallocateFlags::empty(), 0, want) {
                Ok(()) | Err(Errno::OPNOTSUPP | Errno::NOSYS) => (),
                Err(errno) => return Err(errno.into()),
            }
        }
        Ok(Filling { file: file.into(), stub, before, want })
    }

    fn run(self, mut take: mpsc::Receiver<Part>, marks: &dyn Marks) -> Result<(), FillError> {
        let mut sum = sha2::Sha256::new();
        let mut came = 0u64;
        loop {
            let chunk = match take.blocking_recv() {
                Some(Part::Bytes(chunk)) => chunk,
                Some(Part::End) => break,
                None => {
                    return Err(FillError::Broken(std::io::ErrorKind::UnexpectedEof.into()));
                }
            };
            let room = usize::try_from(self.want.saturating_sub(came)).unwrap_or(usize::MAX);
            let part = &chunk[..chunk.len().min(room)];
            self.file.write_all_at(part, came).map_err(written)?;
            sum.update(&chunk);
            came += chunk.len() as u64;
        }
        self.verify(came, Sha256(sum.finalize().into()))?;
        fdatasync(&self.file)?;
        self.restore_time()?;
        fremovexattr(&self.file, XATTR_STUB)?;
        if let Err(error) = marks.unmark(self.file.as_fd()) {
            // Later opens are asked about, and find an ordinary file.
            tracing::debug!(%error, "a mark stays on a file that is filled");
        }
        Ok(())
    }

    fn verify(&self, came: u64, sum: Sha256) -> Result<(), FillError> {
        let size = self.stub.size;
        if came < size {
            let error = std::io::Error::other(format!("{came} of {size} bytes came"));
            return Err(FillError::Broken(error));
        }
        if came > size {
            return Err(FillError::Corrupt(format!("more than {size} bytes came")));
        }
        match self.stub.sha256 {
            Some(said) if said != sum => Err(FillError::Corrupt(format!(
                "its sha256 is {} and should be {}",
                sum.hex(),
                said.hex()
            ))),
            _ => Ok(()),
        }
    }

    /// The modification time as it was before docket began to write.
    fn restore_time(&self) -> Result<(), Errno> {
        let interrupted = Wire::of(&self.stub, &self.before) == Wire::Begun;
        let mtime_ns =
            if interrupted { self.stub.mtime_ns } else { stamp_of(&self.before).mtime_ns };
        let omit = Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT };
        let times = Timestamps { last_access: omit, last_modification: timespec(mtime_ns) };
        futimens(&self.file, &times)
    }
}

fn written(error: std::io::Error) -> FillError {
    match Errno::from_io_error(&error) {
        Some(errno) => errno.into(),
        None => FillError::Io(error),
    }
}
