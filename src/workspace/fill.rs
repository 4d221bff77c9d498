//! Filling a placeholder that somebody opens, through the descriptor that came with the event:
//! no path is used, and nothing done here raises another event.
//!
//! The order is what keeps zeros from readers: space first, all bytes, length and sum verified,
//! synced to disk, times as they were, and only then is the inode no placeholder any more. Killed
//! anywhere before, it still is one, and is filled again from the start.

use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::fs::FileExt as _;

use bytes::Bytes;
use rustix::fs::{
    FallocateFlags, Stat, Timespec, Timestamps, UTIME_OMIT, fallocate, fdatasync, fgetxattr,
    fremovexattr, fstat, fstatvfs, futimens,
};
use rustix::io::Errno;
use sha2::Digest as _;
use tokio::io::AsyncReadExt as _;
use tokio::sync::{mpsc, oneshot};

use super::beneath::{XATTR_STUB, stamp_of, timespec};
use super::flush::begin_writeback;
use super::lazy::Wire;
use super::read::CHUNK;
use crate::model::{Sha256, Space, Stub};
use crate::plan::NoRoom;
use crate::world::{Body, Marks};

/// Chunks between the body and the disk.
const AHEAD: usize = 4;
/// Bytes after which the disk is given what was written so far.
const STRETCH: u64 = 4 << 20;

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
/// Fetching, summing and writing go on beside each other, and what is written goes to the disk
/// meanwhile, so that little is left to wait for at the end.
///
/// # Errors
/// [`FillError`]; it is still a placeholder then.
pub async fn fill(
    file: OwnedFd,
    stub: Stub,
    mut body: Body,
    marks: std::sync::Arc<dyn Marks>,
) -> Result<(), FillError> {
    let (to_disk, chunks) = mpsc::channel(AHEAD);
    let mut giving = Giving { to_disk, to_sum: None, size: stub.size };
    let summing = match stub.sha256 {
        None => Summing::Unasked,
        Some(_) if stub.size <= CHUNK as u64 => Summing::Here(sha2::Sha256::new()),
        Some(_) => {
            let (to_sum, summed) = mpsc::channel(AHEAD);
            giving.to_sum = Some(to_sum);
            let (tell, sum) = oneshot::channel();
            tokio::task::spawn_blocking(move || {
                let _a_writer_that_failed_does_not_ask = tell.send(sum_of(summed));
            });
            Summing::Beside(sum)
        }
    };
    let writing = tokio::task::spawn_blocking(move || {
        Filling::begin(file, stub, summing)?.run(chunks, &*marks)
    });
    let ended = giving.pass_on(&mut body).await;
    drop(giving);
    let written = writing.await.map_err(|error| FillError::Io(std::io::Error::other(error)))?;
    match ended {
        Err(error) => Err(FillError::Broken(error)),
        Ok(()) => written,
    }
}

/// How the sum of what comes is taken.
enum Summing {
    /// Nobody knows what it should be.
    Unasked,
    /// By whoever writes: a small file is not worth a second thread.
    Here(sha2::Sha256),
    /// By a thread of its own, which tells it when all has come.
    Beside(oneshot::Receiver<Sha256>),
}

impl Summing {
    fn update(&mut self, chunk: &[u8]) {
        if let Summing::Here(sum) = self {
            sum.update(chunk);
        }
    }

    /// `None`: it was not taken.
    fn finish(self) -> Option<Sha256> {
        match self {
            Summing::Unasked => None,
            Summing::Here(sum) => Some(Sha256(sum.finalize().into())),
            Summing::Beside(sum) => sum.blocking_recv().ok(),
        }
    }
}

/// The next bytes, or that there are no more: a body that broke off says neither.
enum Part {
    Bytes(Bytes),
    End,
}

/// A body on its way to the disk, and beside that to its sum.
struct Giving {
    to_disk: mpsc::Sender<Part>,
    to_sum: Option<mpsc::Sender<Bytes>>,
    size: u64,
}

impl Giving {
    /// Passes a body on, and one byte more than announced, so that a longer one is found out.
    async fn pass_on(&self, body: &mut Body) -> std::io::Result<()> {
        let mut left = self.size.saturating_add(1);
        loop {
            let room = CHUNK.min(usize::try_from(left).unwrap_or(CHUNK));
            let mut chunk = Vec::with_capacity(room);
            let mut limited = (&mut *body).take(room as u64);
            while chunk.len() < room && limited.read_buf(&mut chunk).await? > 0 {}
            left -= chunk.len() as u64;
            let ended = chunk.len() < room || left == 0;
            let chunk = Bytes::from(chunk);
            if let Some(to_sum) = &self.to_sum {
                let _it_is_missed_then = to_sum.send(chunk.clone()).await;
            }
            if self.to_disk.send(Part::Bytes(chunk)).await.is_err() {
                return Ok(()); // The other side has its reason, and tells it.
            }
            if ended {
                let _it_has_its_reason = self.to_disk.send(Part::End).await;
                return Ok(());
            }
        }
    }
}

fn sum_of(mut chunks: mpsc::Receiver<Bytes>) -> Sha256 {
    let mut sum = sha2::Sha256::new();
    while let Some(chunk) = chunks.blocking_recv() {
        sum.update(&chunk);
    }
    Sha256(sum.finalize().into())
}

/// A placeholder that is being written.
struct Filling {
    file: std::fs::File,
    stub: Stub,
    before: Stat,
    /// As much as is written.
    want: u64,
    /// How many bytes came.
    came: u64,
    summing: Summing,
}

impl Filling {
    fn begin(file: OwnedFd, stub: Stub, summing: Summing) -> Result<Filling, FillError> {
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
        Ok(Filling { file: file.into(), stub, before, want, came: 0, summing })
    }

    fn write(&mut self, mut chunks: mpsc::Receiver<Part>) -> Result<(), FillError> {
        let mut under_way = 0;
        loop {
            let chunk = match chunks.blocking_recv() {
                Some(Part::Bytes(chunk)) => chunk,
                Some(Part::End) => return Ok(()),
                None => {
                    return Err(FillError::Broken(std::io::ErrorKind::UnexpectedEof.into()));
                }
            };
            let room = usize::try_from(self.want.saturating_sub(self.came)).unwrap_or(usize::MAX);
            let part = &chunk[..chunk.len().min(room)];
            self.file.write_all_at(part, self.came).map_err(written)?;
            self.summing.update(&chunk);
            self.came += chunk.len() as u64;
            if self.came - under_way >= STRETCH {
                begin_writeback(&self.file, under_way, self.came - under_way);
                under_way = self.came;
            }
        }
    }

    fn run(mut self, chunks: mpsc::Receiver<Part>, marks: &dyn Marks) -> Result<(), FillError> {
        self.write(chunks)?;
        let sum = std::mem::replace(&mut self.summing, Summing::Unasked).finish();
        self.verify(sum)?;
        fdatasync(&self.file)?;
        self.restore_time()?;
        fremovexattr(&self.file, XATTR_STUB)?;
        if let Err(error) = marks.unmark(self.file.as_fd()) {
            // Later opens are asked about, and find an ordinary file.
            tracing::debug!(%error, "a mark stays on a file that is filled");
        }
        Ok(())
    }

    fn verify(&self, sum: Option<Sha256>) -> Result<(), FillError> {
        let came = self.came;
        let size = self.stub.size;
        if came < size {
            let error = std::io::Error::other(format!("{came} of {size} bytes came"));
            return Err(FillError::Broken(error));
        }
        if came > size {
            return Err(FillError::Corrupt(format!("more than {size} bytes came")));
        }
        match (self.stub.sha256, sum) {
            (None, _) => Ok(()),
            (Some(said), Some(sum)) if said == sum => Ok(()),
            (Some(said), sum) => Err(FillError::Corrupt(format!(
                "its sha256 is {} and should be {}",
                sum.map_or("not known".to_owned(), |sum| sum.hex()),
                said.hex()
            ))),
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

#[cfg(test)]
mod tests {
    use std::os::fd::BorrowedFd;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU32, Ordering};

    use rustix::fs::{XattrFlags, fsetxattr, ftruncate};

    use super::*;

    #[derive(Debug, Default)]
    struct Counted(AtomicU32);

    impl Marks for Counted {
        fn mark(&self, _: BorrowedFd<'_>) -> std::io::Result<()> {
            Ok(())
        }

        fn unmark(&self, _: BorrowedFd<'_>) -> std::io::Result<()> {
            self.0.fetch_add(1, Ordering::Relaxed);
            Ok(())
        }
    }

    fn content(size: usize) -> Vec<u8> {
        (0..size).map(|at| (at % 251) as u8 + 1).collect()
    }

    /// A placeholder of this content.
    fn placeholder(content: &[u8], summed: bool) -> (std::fs::File, Stub) {
        let sum = Sha256(sha2::Sha256::digest(content).into());
        let stub = Stub {
            key: "ann/one/k".to_owned(),
            size: content.len() as u64,
            mtime_ns: 1_700_000_000_000_000_000,
            sha256: summed.then_some(sum),
            deadline: std::time::Duration::from_secs(60),
        };
        let file = tempfile::tempfile().unwrap();
        ftruncate(&file, stub.size).unwrap();
        fsetxattr(&file, XATTR_STUB, stub.render().as_bytes(), XattrFlags::CREATE).unwrap();
        let times = Timestamps {
            last_access: timespec(Wire::Untouched.atime_ns(&stub)),
            last_modification: timespec(stub.mtime_ns),
        };
        futimens(&file, &times).unwrap();
        (file, stub)
    }

    async fn filled(file: &std::fs::File, stub: &Stub, body: Body) -> Result<u32, FillError> {
        let marks = Arc::new(Counted::default());
        let held: Arc<dyn Marks> = Arc::clone(&marks) as _;
        fill(file.try_clone().unwrap().into(), stub.clone(), body, held).await?;
        Ok(marks.0.load(Ordering::Relaxed))
    }

    fn body(bytes: Vec<u8>) -> Body {
        Box::pin(std::io::Cursor::new(bytes))
    }

    fn bytes_of(file: &std::fs::File, size: usize) -> Vec<u8> {
        let mut bytes = vec![0; size];
        file.read_exact_at(&mut bytes, 0).unwrap();
        bytes
    }

    /// Less than a chunk, chunks to the byte, and more than is given to the disk at a time.
    const SIZES: [usize; 6] = [0, 1, CHUNK - 1, CHUNK, CHUNK + 1, (9 << 20) + 7];

    #[tokio::test]
    async fn all_bytes_come_then_the_time_is_as_before_and_it_is_an_ordinary_file() {
        for size in SIZES {
            for summed in [true, false] {
                let all = content(size);
                let (file, stub) = placeholder(&all, summed);
                assert_eq!(filled(&file, &stub, body(all.clone())).await.unwrap(), 1);
                assert!(bytes_of(&file, size) == all, "{size} {summed}");
                assert!(stub_of(&file.try_clone().unwrap().into()).unwrap().is_none());
                assert_eq!(stamp_of(&fstat(&file).unwrap()).mtime_ns, stub.mtime_ns);
            }
        }
    }

    /// FAULTS 22: what is short, long, other or breaks off leaves a placeholder, which is filled
    /// by the next try.
    #[tokio::test]
    async fn f22_whatever_is_wrong_with_the_bytes_it_stays_a_placeholder() {
        for size in SIZES.into_iter().filter(|size| *size > 0) {
            let all = content(size);
            let mut other = all.clone();
            other[size - 1] ^= 1;
            let short = all[..size - 1].to_vec();
            let long = [all.clone(), vec![1]].concat();
            for (wrong, why) in [(other, "sha256"), (short, "broke off"), (long, "more than")] {
                let (file, stub) = placeholder(&all, true);
                let error = filled(&file, &stub, body(wrong)).await.unwrap_err();
                assert!(error.to_string().contains(why), "{size}: {error}");
                assert_eq!(
                    stub_of(&file.try_clone().unwrap().into()).unwrap().as_ref(),
                    Some(&stub),
                    "{size} {why}"
                );
                assert_eq!(filled(&file, &stub, body(all.clone())).await.unwrap(), 1);
                assert!(bytes_of(&file, size) == all, "{size} {why}");
                assert_eq!(stamp_of(&fstat(&file).unwrap()).mtime_ns, stub.mtime_ns);
            }
        }
    }

    #[tokio::test]
    async fn a_body_that_breaks_off_is_told_as_such_though_it_was_being_summed() {
        let all = content(3 * CHUNK);
        let (file, stub) = placeholder(&all, true);
        let (read, mut write) = tokio::io::duplex(CHUNK);
        let half = all[..2 * CHUNK].to_vec();
        tokio::spawn(async move {
            let _until_it_is_dropped = tokio::io::AsyncWriteExt::write_all(&mut write, &half).await;
        });
        let broken = filled(&file, &stub, Box::pin(read)).await;
        assert!(matches!(broken, Err(FillError::Broken(_))), "{broken:?}");
        let cut = std::io::Error::from(std::io::ErrorKind::ConnectionReset);
        let stream = futures_util::stream::iter([Ok(Bytes::from(all)), Err(cut)]);
        let reader = tokio_util::io::StreamReader::new(stream);
        let broken = filled(&file, &stub, Box::pin(reader)).await;
        assert!(matches!(broken, Err(FillError::Broken(_))), "{broken:?}");
        assert!(stub_of(&file.try_clone().unwrap().into()).unwrap().is_some());
    }

    #[tokio::test]
    async fn a_placeholder_its_tenant_made_shorter_or_longer_keeps_that_size() {
        let all = content(5 * CHUNK);
        for (size, kept) in [(CHUNK + 3, CHUNK + 3), (6 * CHUNK, 5 * CHUNK)] {
            let (file, stub) = placeholder(&all, true);
            ftruncate(&file, size as u64).unwrap();
            filled(&file, &stub, body(all.clone())).await.unwrap();
            assert_eq!(fstat(&file).unwrap().st_size, size as i64);
            assert!(bytes_of(&file, kept) == all[..kept]);
        }
    }
}
