//! The `file:` store: objects are files beneath one directory, each under its own key, so that
//! people can look at them and drop files in by hand.
//!
//! 1. A key is its path. One that is no path (empty, `.` or `..` components, too long), or whose
//!    parent is an object, is refused as invalid: docket's choice of keys then takes the next.
//! 2. Everything is opened beneath the root without following links.
//! 3. An object is written beside the others out of sight, synced, and linked under its name only
//!    if that is free; the directory is synced after it. Half an object is never seen.
//! 4. The conditional write holds a lock on the object's directory, and the ETag is the file's
//!    identity: (inode, size, mtime, ctime).
//! 5. A call that is dropped may still finish.

mod files;

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use tokio::io::AsyncReadExt as _;

use crate::model::{Sha256, Timestamp};
use crate::world::{Body, ObjectMeta, Objects, StoreError, StoreErrorKind, Swap};

/// Bytes on their way at a time.
const CHUNK: usize = 256 * 1024;

/// A store in a directory. Clones are the same store.
#[derive(Clone, Debug)]
pub struct Directory {
    /// What the configuration names. Whatever directory stands there is the store.
    path: PathBuf,
    /// Before every key; empty or ending in `/`.
    prefix: String,
    /// The directory that stood there last.
    inner: Arc<Mutex<Arc<Inner>>>,
}

#[derive(Debug)]
struct Inner {
    root: OwnedFd,
    /// Where objects are written before they have a name.
    staging: OwnedFd,
    /// Before every key; empty or ending in `/`.
    prefix: String,
    serial: AtomicU64,
}

/// What went wrong, without the call and the key.
#[derive(Debug)]
struct Fault {
    kind: StoreErrorKind,
    message: String,
}

impl Fault {
    #[expect(clippy::needless_pass_by_value, reason = "errors and texts alike")]
    fn new(kind: StoreErrorKind, message: impl ToString) -> Fault {
        Fault { kind, message: message.to_string() }
    }
}

/// Something on its way into a new object.
enum Piece {
    Bytes(Bytes),
    /// All of it came. Without it nothing is put in place.
    End,
}

impl Directory {
    /// Opens the store at `root`, making the directory (0700) if it is missing. Every key is
    /// beneath `prefix`.
    ///
    /// # Errors
    /// [`StoreError`]: the directory cannot be made or opened, or the prefix is no path.
    pub fn open(root: &Path, prefix: &str) -> Result<Directory, StoreError> {
        let named = |fault| error("open", &root.display().to_string(), fault);
        let prefix = prefix.trim_matches('/');
        if !prefix.is_empty() {
            files::check(prefix).map_err(named)?;
        }
        let prefix = if prefix.is_empty() { String::new() } else { format!("{prefix}/") };
        let (root_fd, staging) = files::open_root(root).map_err(named)?;
        let serial = AtomicU64::new(0);
        let inner = Inner { root: root_fd, staging, prefix: prefix.clone(), serial };
        let inner = Arc::new(Mutex::new(Arc::new(inner)));
        Ok(Directory { path: root.to_owned(), prefix, inner })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The directory that stands at the path now: it may have been moved, mounted or put back.
    /// One that is not there is not made anew: a missing store is not an empty one.
    fn today(&self) -> Result<Arc<Inner>, Fault> {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        if !files::stands_at(&inner.root, &self.path)? {
            let (root, staging) = files::open_root(&self.path)?;
            let path = self.path.display();
            tracing::warn!(%path, "another directory stands here: it is the store from now on");
            let serial = AtomicU64::new(inner.serial.load(Ordering::Relaxed));
            *inner = Arc::new(Inner { root, staging, prefix: self.prefix.clone(), serial });
        }
        Ok(Arc::clone(&inner))
    }

    async fn run<T: Send + 'static>(
        &self,
        operation: &'static str,
        key: &str,
        work: impl FnOnce(&Inner, &str) -> Result<T, Fault> + Send + 'static,
    ) -> Result<T, StoreError> {
        let this = self.clone();
        let full = format!("{}{key}", self.prefix);
        let done = tokio::task::spawn_blocking(move || work(&*this.today()?, &full)).await;
        done.unwrap_or_else(|cut| Err(Fault::new(StoreErrorKind::Unavailable, cut)))
            .map_err(|fault| error(operation, key, fault))
    }
}

fn error(operation: &'static str, key: &str, fault: Fault) -> StoreError {
    StoreError { kind: fault.kind, operation, key: key.to_owned(), message: fault.message }
}

impl Objects for Directory {
    async fn head(&self, key: &str) -> Result<Option<ObjectMeta>, StoreError> {
        let name = key.to_owned();
        self.run("head", key, move |inner, full| {
            let found = inner.open(full)?;
            Ok(found.map(|(_, seen)| seen.meta(name)))
        })
        .await
    }

    async fn get(&self, key: &str) -> Result<(ObjectMeta, Body), StoreError> {
        let name = key.to_owned();
        let (meta, file, first) = self
            .run("get", key, move |inner, full| {
                let (file, seen) = inner
                    .open(full)?
                    .ok_or_else(|| Fault::new(StoreErrorKind::NotFound, "no such object"))?;
                let mut reading = files::Reading::new(file, seen.size);
                let first = reading.step()?;
                Ok((seen.meta(name), reading, first))
            })
            .await?;
        Ok((meta, body(first, file)))
    }

    async fn put_new(
        &self,
        key: &str,
        body: Body,
        size: u64,
        sha256: Sha256,
    ) -> Result<(), StoreError> {
        let there =
            self.run("put", key, move |inner, full| inner.is_there(full, size, sha256)).await?;
        if there {
            return Ok(());
        }
        let (send, pieces) = tokio::sync::mpsc::channel(4);
        let write =
            self.run("put", key, move |inner, full| inner.put_new(full, pieces, size, sha256));
        let (written, read) = tokio::join!(write, give(body, size, send));
        match (written, read) {
            // The source broke: what the writer says of it follows from that.
            (_, Err(fault)) => Err(error("put", key, fault)),
            (written, Ok(())) => written,
        }
    }

    async fn put_if(
        &self,
        key: &str,
        bytes: Vec<u8>,
        expected: Option<&str>,
        at: Timestamp,
    ) -> Result<Swap, StoreError> {
        let expected = expected.map(str::to_owned);
        let swap =
            move |inner: &Inner, full: &str| inner.put_if(full, &bytes, expected.as_deref(), at);
        self.run("swap", key, swap).await
    }

    async fn list(&self, prefix: &str) -> Result<Vec<ObjectMeta>, StoreError> {
        self.run("list", prefix, |inner, full| {
            let mut found = inner.list(full)?;
            for meta in &mut found {
                meta.key.drain(..inner.prefix.len());
            }
            Ok(found)
        })
        .await
    }

    async fn is_conditional(&self) -> Result<bool, StoreError> {
        Ok(true)
    }

    async fn delete(&self, key: &str) -> Result<(), StoreError> {
        self.run("delete", key, Inner::delete).await
    }
}

/// Hands a body over piece by piece. A writer that is gone has said why itself.
async fn give(body: Body, size: u64, to: tokio::sync::mpsc::Sender<Piece>) -> Result<(), Fault> {
    let room = usize::try_from(size.saturating_add(1)).unwrap_or(CHUNK).min(CHUNK);
    // One byte more than announced tells that it is too long.
    let mut body = body.take(size.saturating_add(1));
    loop {
        let mut chunk = Vec::with_capacity(room);
        while chunk.len() < room {
            let read = body.read_buf(&mut chunk).await;
            if read.map_err(|e| Fault::new(StoreErrorKind::SourceChanged, e))? == 0 {
                break;
            }
        }
        let last = chunk.len() < room;
        if !chunk.is_empty() && to.send(Piece::Bytes(Bytes::from(chunk))).await.is_err() {
            return Ok(());
        }
        if last {
            let _the_writer_is_gone = to.send(Piece::End).await;
            return Ok(());
        }
    }
}

/// An object's bytes; an error at the end if there are not as many as announced. Each chunk is
/// read while the one before it is used; no thread is held meanwhile.
fn body(first: Option<Bytes>, reading: files::Reading) -> Body {
    let begun = (first, step(reading));
    let stream = futures_util::stream::try_unfold(begun, |(first, next)| async {
        if let Some(first) = first {
            return Ok(Some((first, (None, next))));
        }
        let (chunk, reading) = next.await.map_err(std::io::Error::other)??;
        Ok::<_, std::io::Error>(chunk.map(|chunk| (chunk, (None, step(reading)))))
    });
    Box::pin(tokio_util::io::StreamReader::new(Box::pin(stream)))
}

type Step = tokio::task::JoinHandle<std::io::Result<(Option<Bytes>, files::Reading)>>;

/// Begins to read the next chunk.
fn step(mut reading: files::Reading) -> Step {
    tokio::task::spawn_blocking(move || {
        let chunk = reading.step().map_err(|fault| std::io::Error::other(fault.message))?;
        Ok((chunk, reading))
    })
}

/// What is known of an object's file.
#[derive(Clone, Copy, Debug)]
struct Seen {
    ino: u64,
    size: u64,
    mtime_ns: i64,
    ctime_ns: i64,
}

impl Seen {
    /// Hashing would read a whole object to look at it; an inode's change time cannot be set.
    fn etag(&self) -> String {
        format!("{:x}-{:x}-{:x}-{:x}", self.ino, self.size, self.mtime_ns, self.ctime_ns)
    }

    fn meta(&self, key: String) -> ObjectMeta {
        let modified = Some(Timestamp::from_timestamp_nanos(self.mtime_ns));
        ObjectMeta { key, size: self.size, etag: self.etag(), modified }
    }
}

#[cfg(test)]
mod tests;
