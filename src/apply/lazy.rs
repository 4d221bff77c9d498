//! Files that come when they are opened: each open that waits is answered here.
//!
//! 1. The gate hands over a descriptor. What it stands for is on its inode.
//! 2. The first to open a file begins its fetching; others of the same inode wait with it.
//! 3. A store that cannot be reached is asked again as long as somebody may still wait. What is
//!    proven wrong (no such object, other bytes) is told at once.
//! 4. Everybody who waits is answered. The gate ends each wait at its own deadline; the fetching
//!    goes on, and the next open finds it done or further.

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, ReadBuf};
use tokio::sync::Semaphore;
use tokio::time::Instant;

use crate::gate::{Answer, Opened, Opens};
use crate::model::Stub;
use crate::plan::NoRoom;
use crate::workspace::{CANARY, FillError, fill, inode_of, space_of, stub_of};
use crate::world::{Body, Content, Marks, Meter, Objects, StoreError, StoreErrorKind, Timed};

use super::rooms::Rooms;

/// Files filled at the same time; each holds a thread and a megabyte.
const ABREAST: usize = 32;
/// Waits between attempts at a store that cannot be reached: doubled up to the last.
const PAUSES: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));
/// Files whose last failure is remembered.
const REMEMBERED: usize = 1000;

/// Why files did not come, by full key, for those who ask.
#[derive(Clone, Debug, Default)]
pub struct Failures(Arc<Mutex<BTreeMap<String, String>>>);

impl Failures {
    /// Why the object of this key did not come last time.
    pub fn of(&self, key: &str) -> Option<String> {
        self.locked().get(key).cloned()
    }

    /// Notes it, or that it is over.
    pub(super) fn set(&self, key: &str, why: Option<String>) {
        let mut all = self.locked();
        match why {
            None => drop(all.remove(key)),
            Some(_) if all.len() >= REMEMBERED && !all.contains_key(key) => (),
            Some(why) => drop(all.insert(key.to_owned(), why)),
        }
    }

    fn locked(&self) -> MutexGuard<'_, BTreeMap<String, String>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How many bytes came so far of files on their way, by full key, for those who ask.
#[derive(Clone, Debug, Default)]
pub struct Coming(Arc<Mutex<BTreeMap<String, u64>>>);

impl Coming {
    /// Of all whose keys begin so.
    pub fn beneath(&self, prefix: &str) -> u64 {
        let all = self.locked();
        let from = all.range(prefix.to_owned()..);
        from.take_while(|(key, _)| key.starts_with(prefix)).map(|(_, bytes)| bytes).sum()
    }

    /// Counts what is read of a body, as long as it lives.
    fn counted(&self, key: &str, body: Body) -> Body {
        self.locked().insert(key.to_owned(), 0);
        Box::pin(Counted { coming: self.clone(), key: key.to_owned(), body })
    }

    fn locked(&self) -> MutexGuard<'_, BTreeMap<String, u64>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

struct Counted {
    coming: Coming,
    key: String,
    body: Body,
}

impl Content for Counted {}

impl AsyncRead for Counted {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        let before = buffer.filled().len();
        let polled = self.body.as_mut().poll_read(context, buffer);
        let more = (buffer.filled().len() - before) as u64;
        if more > 0
            && let Some(bytes) = self.coming.locked().get_mut(&self.key)
        {
            *bytes += more;
        }
        polled
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.coming.locked().remove(&self.key);
    }
}

/// What fills placeholders.
pub struct Filler<O> {
    objects: Arc<O>,
    marks: Arc<dyn Marks>,
    rooms: Rooms,
    failures: Failures,
    coming: Coming,
    /// What the canary stands for.
    canary: Vec<u8>,
    abreast: Semaphore,
    /// Who waits, by inode; an entry is there exactly as long as the file is being fetched.
    waiting: Mutex<BTreeMap<(u64, u64), Waiting>>,
    meter: Arc<Meter>,
}

impl<O> std::fmt::Debug for Filler<O> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Filler").finish_non_exhaustive()
    }
}

/// Those who opened one file.
#[derive(Debug)]
struct Waiting {
    opens: Vec<Opened>,
    /// When the last of them is given up by the gate.
    until: Instant,
}

impl<O: Objects> Filler<O> {
    /// A filler from this store.
    pub fn new(
        objects: Arc<O>,
        marks: Arc<dyn Marks>,
        rooms: Rooms,
        failures: Failures,
        coming: Coming,
        canary: Vec<u8>,
        meter: Arc<Meter>,
    ) -> Filler<O> {
        let abreast = Semaphore::new(ABREAST);
        let waiting = Mutex::default();
        Filler { objects, marks, rooms, failures, coming, canary, abreast, waiting, meter }
    }

    /// Answers opens until there will be no more.
    pub async fn serve(self, mut opens: Opens) {
        let this = Arc::new(self);
        while let Some(opened) = opens.recv().await {
            this.meet(opened);
        }
    }

    /// Begins to fetch what is opened, unless that is under way.
    fn meet(self: &Arc<Self>, opened: Opened) {
        let (inode, stub) = match (inode_of(opened.file()), stub_of(opened.file())) {
            (Ok(inode), Ok(Some(stub))) => (inode, stub),
            // Filled meanwhile, or never a placeholder.
            (Ok(_), Ok(None)) => return self.pass(opened),
            (Err(error), _) | (_, Err(error)) => {
                tracing::warn!(%error, "an open is refused: what it is about cannot be told");
                return opened.answer(Answer::Broken);
            }
        };
        let until = Instant::now() + stub.deadline;
        let file = match opened.file().try_clone() {
            Ok(file) => file,
            Err(error) => {
                tracing::warn!(%error, "an open is refused");
                return opened.answer(Answer::Broken);
            }
        };
        if let Some(waiting) = self.waiting().get_mut(&inode) {
            waiting.until = waiting.until.max(until);
            return waiting.opens.push(opened);
        }
        self.waiting().insert(inode, Waiting { opens: vec![opened], until });
        let this = Arc::clone(self);
        tokio::spawn(async move {
            let began = Instant::now();
            let filled = this.fetch_within(inode, file, &stub).await;
            let result = if filled.is_ok() { "done" } else { "failed" };
            this.meter.took(Timed::Hydration, ("open", result), began.elapsed());
            let answer = match &filled {
                Ok(()) => Answer::Go,
                Err(FillError::NoSpace | FillError::NoRoom(NoRoom::Floor { .. })) => {
                    Answer::NoSpace
                }
                Err(FillError::NoRoom(NoRoom::Quota { .. })) => Answer::OverQuota,
                Err(_) => Answer::Broken,
            };
            if let Err(why) = &filled {
                tracing::warn!(key = %crate::model::escape_bytes(stub.key.as_bytes()), %why, "a file does not come");
            }
            this.failures.set(&stub.key, filled.err().map(|why| why.to_string()));
            let waited = this.waiting().remove(&inode);
            for opened in waited.into_iter().flat_map(|waiting| waiting.opens) {
                opened.answer(answer);
            }
        });
    }

    /// An ordinary file with a mark left on it.
    fn pass(&self, opened: Opened) {
        use std::os::fd::AsFd as _;
        if let Err(error) = self.marks.unmark(opened.file().as_fd()) {
            tracing::debug!(%error, "a mark stays on an ordinary file");
        }
        opened.answer(Answer::Go);
    }

    fn waiting(&self) -> MutexGuard<'_, BTreeMap<(u64, u64), Waiting>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Fetches a file if its workspace and the disk have room for it.
    async fn fetch_within(
        &self,
        inode: (u64, u64),
        file: OwnedFd,
        stub: &Stub,
    ) -> Result<(), FillError> {
        if stub.key == CANARY {
            return self.fetch(inode, file, stub).await;
        }
        let space = space_of(&file).map_err(FillError::Io)?;
        self.rooms.take(&stub.key, stub.size, Some(space)).map_err(FillError::NoRoom)?;
        let fetched = self.fetch(inode, file, stub).await;
        if fetched.is_err() {
            self.rooms.give_back(&stub.key, stub.size);
        }
        fetched
    }

    async fn fetch(&self, inode: (u64, u64), file: OwnedFd, stub: &Stub) -> Result<(), FillError> {
        let _permit = self.abreast.acquire().await;
        let mut pause = PAUSES.0;
        loop {
            let tried = self.try_fetch(&file, stub).await;
            let unreachable = matches!(tried, Err(FillError::Broken(_)));
            let left = self.waiting().get(&inode).map(|waiting| waiting.until);
            let again = left.is_some_and(|until| Instant::now() + pause < until);
            if !unreachable || !again {
                return tried;
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(PAUSES.1);
        }
    }

    async fn try_fetch(&self, file: &OwnedFd, stub: &Stub) -> Result<(), FillError> {
        let file = file.try_clone().map_err(FillError::Io)?;
        let body: Body = if stub.key == CANARY {
            Box::pin(std::io::Cursor::new(self.canary.clone()))
        } else {
            let (meta, body) = self.objects.get(&stub.key).await.map_err(store)?;
            if meta.size != stub.size {
                let (is, said) = (meta.size, stub.size);
                let why = format!("its object has {is} bytes, its row says {said}");
                return Err(FillError::Corrupt(why));
            }
            self.coming.counted(&stub.key, body)
        };
        fill(file, stub.clone(), body, Arc::clone(&self.marks)).await
    }
}

/// What a failed call of the store means for an open.
fn store(error: StoreError) -> FillError {
    let text = error.to_string();
    match error.kind {
        StoreErrorKind::Unavailable | StoreErrorKind::SourceChanged => {
            FillError::Broken(std::io::Error::other(text))
        }
        StoreErrorKind::NotFound => FillError::Corrupt("its object is not in the store".to_owned()),
        _ => FillError::Corrupt(text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_is_on_its_way_is_counted_as_long_as_it_is() {
        use tokio::io::AsyncReadExt as _;
        let coming = Coming::default();
        let body = |bytes: usize| -> Body { Box::pin(std::io::Cursor::new(vec![1; bytes])) };
        let mut one = coming.counted("ann/one/k", body(10));
        let mut other = coming.counted("ann/one-more/k", body(10));
        one.read_exact(&mut [0; 7]).await.unwrap();
        other.read_exact(&mut [0; 10]).await.unwrap();
        assert_eq!(coming.beneath("ann/one/"), 7);
        assert_eq!(coming.beneath("ann/"), 17);
        drop(one);
        assert_eq!(coming.beneath("ann/one/"), 0);
        assert_eq!(coming.beneath("ann/one-more/"), 10);
    }
}
