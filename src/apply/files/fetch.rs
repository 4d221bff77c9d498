//! Content on their way in. Small ones come whole and are put in place many at once; large ones
//! flow to the disk one by one.

use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncReadExt as _, ReadBuf};
use tokio::sync::SemaphorePermit;

use super::abreast::{Abreast, SMALL};
use super::come::{How, Order, is_replaced};
use super::remote::broken;
use super::{FILE_MODE, FilesError, Outcome, Work, entry_of};
use crate::model::{BaseEntry, ManifestEntry, Progress, RelPath, Scan, Sha256, Stamp};
use crate::plan::{NoRoom, Room};
use crate::sync::Plan;
use crate::world::{
    Body, Clock, Content, Expect, FileSpec, ObjectMeta, Objects, SmallFile, StoreErrorKind,
    WorkspaceError, WorkspaceErrorKind, Workspaces,
};

/// Small files that are put in place at once, at most; and so many that it is worth it while more
/// are coming.
const BATCH: usize = 512;
const SOME: usize = 64;

/// A small file that is here and not in its place yet.
struct Arrived<'t> {
    file: FileSpec,
    bytes: Vec<u8>,
    held: SemaphorePermit<'t>,
}

/// What ended of a run of fetches.
enum Coming<'o, 't> {
    /// A small file is in memory.
    Arrived(Box<(Order<'o>, Result<Arrived<'t>, FilesError>)>),
    /// A large one is in its place, or never will be.
    Came(Box<Order<'o>>, Result<BaseEntry, FilesError>),
    /// Small ones are in their places, or never will be.
    Landed(Vec<(Order<'o>, Result<BaseEntry, FilesError>)>),
}

impl<W: Workspaces, O: Objects, C: Clock> Work<'_, W, O, C> {
    /// Smallest first, many beside each other. What fails or has no room is noted; the others go
    /// on, unless the store cannot be reached or the disk is full.
    pub(super) async fn fetch_orders(
        &self,
        plan: &Plan,
        scan: &Scan,
        mut orders: Vec<Order<'_>>,
        outcome: &mut Outcome,
        progress: &(dyn Fn(Progress) + Sync),
    ) -> Result<(), FilesError> {
        orders.sort_by_key(|order| order.row.size.unwrap_or_default());
        let mut done = Progress {
            files_total: orders.len() as u64,
            bytes_total: orders
                .iter()
                .filter_map(|order| order.row.size)
                .fold(0, u64::saturating_add),
            ..Progress::default()
        };
        progress(done);
        let mut ledge = Ledge::new(self.room(scan.bytes).await);
        let mut waiting = orders.into_iter().peekable();
        let (mut arrived, mut landing) = (Vec::new(), 0_usize);
        let mut coming = Abreast::new(self.bounds.turns);
        loop {
            while let Some(order) = waiting.peek() {
                if let Some(error) = self.too_large(order) {
                    outcome.uncome.push((order.path.clone(), error));
                    waiting.next();
                    continue;
                }
                let alone = coming.is_idle() && arrived.is_empty();
                let Some(held) = self.hold(order, alone).await else { break };
                if !coming.has_room().await {
                    break;
                }
                match coming.meanwhile(ledge.grant(self, order.growth(), alone)).await {
                    Ok(true) => match (waiting.next(), held) {
                        (Some(order), Some(held)) => coming.begin(self.fetch_small(order, held)),
                        (Some(order), None) => coming.begin(self.fetch_large(order)),
                        (None, _) => break,
                    },
                    Ok(false) => break,
                    Err(why) => {
                        let path = order.path.clone();
                        outcome.uncome.push((path.clone(), FilesError::NoRoom { path, why }));
                        waiting.next();
                    }
                }
            }
            // What is here does not wait for what is slow to come.
            let enough = match landing {
                0 if waiting.peek().is_none() => 1,
                0 => SOME,
                _ => BATCH,
            };
            if arrived.len() >= enough || !(arrived.is_empty() || coming.has_transfers()) {
                landing += 1;
                coming.aside(self.land(std::mem::take(&mut arrived)));
            }
            let landed = match coming.next().await {
                None => return Ok(()),
                Some(Coming::Arrived(come)) => match *come {
                    (order, Ok(file)) => {
                        arrived.push((order, file));
                        continue;
                    }
                    (order, Err(error)) => vec![(order, Err(error))],
                },
                Some(Coming::Landed(landed)) => {
                    landing -= 1;
                    landed
                }
                Some(Coming::Came(order, come)) => vec![(*order, come)],
            };
            for (order, come) in landed {
                ledge.landed(order.growth(), come.is_ok());
                let path = order.path;
                match come {
                    Ok(entry) => {
                        done.files += 1;
                        done.bytes += entry.size;
                        progress(done);
                        outcome.agreed.insert(path.clone(), entry);
                        coming.meanwhile(self.drop_stub(plan, path)).await;
                    }
                    Err(error) if is_replaced(&error) => return Err(error),
                    Err(error) => {
                        let hopeless = is_hopeless(&error);
                        outcome.uncome.push((path.clone(), error));
                        if hopeless {
                            return Ok(());
                        }
                    }
                }
            }
        }
    }

    /// Why an order is not to be carried out whatever room there is.
    fn too_large(&self, order: &Order<'_>) -> Option<FilesError> {
        let limit = self.spec.max_file_size;
        let size = order.row.size.filter(|size| *size > limit)?;
        Some(FilesError::TooLarge { path: order.path.clone(), size, limit })
    }

    /// The right to hold an order in memory: `Some(None)`: a large one needs none; `None`: not now.
    /// `alone`: nothing is under way, so it is waited for.
    async fn hold(&self, order: &Order<'_>, alone: bool) -> Option<Option<SemaphorePermit<'_>>> {
        let size = order.row.size.filter(|size| *size <= SMALL);
        let (Some(size), How::Write(_)) = (size, order.how) else { return Some(None) };
        let turns = self.bounds.turns;
        match turns.try_hold(size) {
            None if alone => turns.hold(size).await.map(Some),
            held => held.map(Some),
        }
    }

    async fn fetch_small<'o, 't>(
        &self,
        order: Order<'o>,
        held: SemaphorePermit<'t>,
    ) -> Coming<'o, 't> {
        let arrived = async {
            let (meta, body) = self.get(order.path, &order.row).await?;
            let mut bytes = Vec::with_capacity(meta.size as usize + 1);
            let read = body.take(meta.size + 1).read_to_end(&mut bytes).await;
            read.map_err(|error| self.cut(order.path, &order.row, &error))?;
            let file = self.file_of(&order.row, &meta);
            Ok(Arrived { file, bytes, held })
        };
        let arrived = arrived.await;
        Coming::Arrived(Box::new((order, arrived)))
    }

    /// Puts small files in place.
    async fn land<'o, 't>(&self, arrived: Vec<(Order<'o>, Arrived<'t>)>) -> Coming<'o, 't> {
        let (mut orders, mut files, mut held) = (Vec::new(), Vec::new(), Vec::new());
        for (order, arrived) in arrived {
            let expect = match order.how {
                How::Write(expect) => expect,
                How::Open => Expect::Absent,
            };
            let path = order.path.clone();
            files.push(SmallFile { path, file: arrived.file, bytes: arrived.bytes, expect });
            held.push(arrived.held);
            orders.push(order);
        }
        let written = self.workspaces.write_small(self.place, files).await;
        drop(held);
        let landed = orders.into_iter().zip(written).map(|(order, written)| {
            let entry = entry_written(order.path, &order.row, written);
            (order, entry)
        });
        Coming::Landed(landed.collect())
    }

    async fn fetch_large<'o, 't>(&self, order: Order<'o>) -> Coming<'o, 't> {
        let come = match order.how {
            How::Write(expect) => self.fetch(order.path, &order.row, expect).await,
            How::Open => self.open(order.path, &order.row).await,
        };
        Coming::Came(Box::new(order), come)
    }

    /// Fetches one file to the disk as it comes.
    pub(super) async fn fetch(
        &self,
        path: &RelPath,
        row: &ManifestEntry,
        expect: Expect,
    ) -> Result<BaseEntry, FilesError> {
        let (meta, body) = self.get(path, row).await?;
        let file = self.file_of(row, &meta);
        let broken = Arc::default();
        let body: Body = Box::pin(Watched { body, broken: Arc::clone(&broken) });
        let written = self.workspaces.write(self.place, path, &file, body, expect).await;
        let broken = broken.lock().unwrap_or_else(PoisonError::into_inner).take();
        match broken.filter(|_| written.is_err()) {
            Some(error) => Err(self.cut(path, row, &error)),
            None => entry_written(path, row, written),
        }
    }

    /// The contents of a row; what is said of it and what the store says must agree.
    async fn get(
        &self,
        path: &RelPath,
        row: &ManifestEntry,
    ) -> Result<(ObjectMeta, Body), FilesError> {
        let got = self.objects.get(&self.key(&row.storage_key)).await;
        let (meta, body) = got.map_err(|error| match error.kind {
            StoreErrorKind::NotFound => {
                FilesError::ObjectMissing { path: path.clone(), key: row.storage_key.clone() }
            }
            _ => error.into(),
        })?;
        match row.size.filter(|said| *said != meta.size) {
            Some(said) => {
                let message = format!("its object has {} bytes, its row says {said}", meta.size);
                Err(FilesError::Corrupt { path: path.clone(), message })
            }
            None => Ok((meta, body)),
        }
    }

    fn file_of(&self, row: &ManifestEntry, meta: &ObjectMeta) -> FileSpec {
        let written = meta.modified.unwrap_or_else(|| self.clock.now());
        FileSpec {
            size: meta.size,
            sha256: row.sha256,
            mode: row.mode.unwrap_or(FILE_MODE),
            mtime_ns: row.mtime_ns.or(written.timestamp_nanos_opt()).unwrap_or_default(),
            owner: self.owner,
        }
    }

    /// A body that did not come to its end.
    fn cut(&self, path: &RelPath, row: &ManifestEntry, error: &std::io::Error) -> FilesError {
        let error = broken("get", &self.key(&row.storage_key), error);
        let path = path.clone();
        match error.kind {
            StoreErrorKind::Corrupt => FilesError::Corrupt { path, message: error.message },
            _ => FilesError::Cut { path, error },
        }
    }
}

fn entry_written(
    path: &RelPath,
    row: &ManifestEntry,
    written: Result<(Sha256, Stamp), WorkspaceError>,
) -> Result<BaseEntry, FilesError> {
    match written {
        Ok((sha256, stamp)) => Ok(entry_of(row, sha256, stamp)),
        Err(error) if error.kind == WorkspaceErrorKind::Corrupt => {
            Err(FilesError::Corrupt { path: path.clone(), message: error.message })
        }
        Err(error) => Err(error.into()),
    }
}

/// A body, and the error it ended in: whoever writes it says only that it ended.
struct Watched {
    body: Body,
    broken: Arc<Mutex<Option<std::io::Error>>>,
}

impl Content for Watched {}

impl AsyncRead for Watched {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        let read = std::task::ready!(self.body.as_mut().poll_read(context, buffer));
        Poll::Ready(read.map_err(|error| {
            let told = std::io::Error::new(error.kind(), error.to_string());
            *self.broken.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
            told
        }))
    }
}

/// The room left to a run of fetches. The disk is looked at now and then, not for each small file.
struct Ledge {
    room: Room,
    /// Bytes used, of what is known to be here.
    here: u64,
    on_the_way: u64,
    /// Granted since the disk was looked at.
    unseen: u64,
}

/// The disk is looked at again after so many bytes.
const LOOK_EVERY: u64 = 16 << 20;

impl Ledge {
    fn new(room: Room) -> Ledge {
        Ledge { room, here: room.used, on_the_way: 0, unseen: 0 }
    }

    /// Whether so much more may be fetched now; `false`: look again when something has landed.
    async fn grant<W: Workspaces, O: Objects, C: Clock>(
        &mut self,
        work: &Work<'_, W, O, C>,
        more: u64,
        idle: bool,
    ) -> Result<bool, NoRoom> {
        let mut answer = self.room.admits(more);
        if self.unseen > 0 && (answer.is_err() || self.unseen >= LOOK_EVERY) {
            self.room = work.room(self.here).await.after(self.on_the_way);
            self.unseen = 0;
            answer = self.room.admits(more);
        }
        match answer {
            Ok(()) => {
                self.room = self.room.after(more);
                self.on_the_way += more;
                self.unseen += more;
                Ok(true)
            }
            // What is on its way may have its space already, or gives it back.
            Err(_) if !idle => Ok(false),
            Err(why) => Err(why),
        }
    }

    fn landed(&mut self, bytes: u64, came: bool) {
        self.on_the_way -= bytes;
        self.here += if came { bytes } else { 0 };
        self.unseen += 1;
    }
}

/// The next file would meet the same.
fn is_hopeless(error: &FilesError) -> bool {
    match error {
        FilesError::Store(error) => {
            matches!(error.kind, StoreErrorKind::Unavailable | StoreErrorKind::Denied)
        }
        FilesError::Workspace(error) => error.kind == WorkspaceErrorKind::NoSpace,
        _ => false,
    }
}
