//! Many files, one sync to disk. Whoever must be sure that a file or a name will survive power
//! loss asks here; what is asked while a sync runs waits for the next one, which covers all of it.
//! So files cost less the more of them come at once, and a lone one is not kept waiting.

use std::fs::File;
use std::os::fd::{AsFd as _, AsRawFd as _};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustix::fs::{fsync, syncfs};
use rustix::io::Errno;
use tokio::sync::oneshot;

use super::beneath::Fault;
use crate::world::WorkspaceErrorKind;

/// So many are synced one by one: it spares them the wait for what others wrote to the disk.
const ONE_BY_ONE: usize = 4;

/// The syncs of one file system. Clones share them.
#[derive(Clone, Debug, Default)]
pub(super) struct Flush {
    queue: Arc<Mutex<Queue>>,
}

#[derive(Debug, Default)]
struct Queue {
    waiting: Vec<Ask>,
    /// Somebody takes what waits.
    running: bool,
}

#[derive(Debug)]
struct Ask {
    file: Arc<File>,
    /// It asks for everything on its file system.
    all: bool,
    tell: oneshot::Sender<Result<(), Errno>>,
}

impl Flush {
    /// Comes back when the file's (or directory's) contents are on the disk.
    pub(super) async fn synced(&self, file: Arc<File>) -> Result<(), Fault> {
        self.ask(file, false).await
    }

    /// Comes back when everything that was written before is on the disk that holds the file.
    pub(super) async fn all_synced(&self, file: Arc<File>) -> Result<(), Fault> {
        self.ask(file, true).await
    }

    async fn ask(&self, file: Arc<File>, all: bool) -> Result<(), Fault> {
        let (tell, hear) = oneshot::channel();
        let first = {
            let mut queue = self.queue();
            queue.waiting.push(Ask { file, all, tell });
            !std::mem::replace(&mut queue.running, true)
        };
        if first {
            let flush = self.clone();
            // Not in the asker's own future: that may be dropped, and others wait for it too.
            tokio::task::spawn_blocking(move || flush.run());
        }
        match hear.await {
            Ok(done) => Ok(done?),
            Err(_) => Err(Fault::new(WorkspaceErrorKind::Io, "the sync to disk was given up")),
        }
    }

    fn run(&self) {
        loop {
            let batch = {
                let mut queue = self.queue();
                let batch = std::mem::take(&mut queue.waiting);
                queue.running = !batch.is_empty();
                batch
            };
            if batch.is_empty() {
                return;
            }
            sync(batch);
        }
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Has the disk begin to write these bytes of a file. A hint: whether it was taken is told by the
/// sync that must follow.
#[expect(unsafe_code, reason = "rustix has no sync_file_range")]
pub(super) fn begin_writeback(file: &File, from: u64, length: u64) {
    let (Ok(from), Ok(length)) = (i64::try_from(from), i64::try_from(length)) else { return };
    // SAFETY: the call takes numbers only, and the descriptor is open as long as `file` is.
    let _the_sync_tells = unsafe {
        libc::sync_file_range(file.as_raw_fd(), from, length, libc::SYNC_FILE_RANGE_WRITE)
    };
}

fn sync(batch: Vec<Ask>) {
    let together = batch.len() > ONE_BY_ONE || batch.iter().any(|ask| ask.all);
    let whole = batch.first().filter(|_| together).map(|ask| syncfs(ask.file.as_fd()));
    for Ask { file, all, tell } in batch {
        let done = match whole {
            Some(Ok(())) => Ok(()),
            Some(failed) if all => failed,
            // An error of the whole says nothing about whose it is: each is asked by itself then.
            _ => fsync(&*file),
        };
        let _whoever_asked_is_gone = tell.send(done);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn many_and_one_are_synced_and_a_descriptor_that_cannot_be_is_told() {
        let directory = tempfile::tempdir().unwrap();
        let flush = Flush::default();
        let file = |n: u32| File::create(directory.path().join(n.to_string())).unwrap();
        let all: Vec<_> = (0..100)
            .map(|n| {
                let (flush, file) = (flush.clone(), Arc::new(file(n)));
                tokio::spawn(async move { flush.synced(file).await })
            })
            .collect();
        for one in all {
            assert_eq!(one.await.unwrap(), Ok(()));
        }
        assert_eq!(flush.all_synced(Arc::new(file(1))).await, Ok(()));
        let pipe = File::open("/dev/null").unwrap();
        assert!(flush.synced(Arc::new(pipe)).await.is_err(), "a device has nothing to sync");
        assert_eq!(flush.synced(Arc::new(file(0))).await, Ok(()));
    }
}
