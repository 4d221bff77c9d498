//! Contents on their way out. Nothing is sent that cannot be sent again: a body is read piece by
//! piece into memory, of which all uploads together get a fixed amount, and each piece is signed
//! by its hash, so that the store refuses what arrives otherwise.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use rusoto_s3::S3 as _;
use sha2::Digest as _;
use tokio::io::AsyncReadExt as _;
use tokio::sync::OwnedSemaphorePermit;
use tokio::task::JoinSet;

use crate::model::Sha256;
use crate::objects::s3::answer::Failure;
use crate::objects::s3::wall::{Again, Answer, SUM_HEADER, Wall};
use crate::objects::s3::{Looked, S3, download};
use crate::world::{Body, PIECE, Pieces, StoreErrorKind};

/// S3's own limit.
const PARTS_MAX: u64 = 10_000;
/// From this size on it is worth a question whether the key is taken before the bytes are sent.
const ASK_FIRST: u64 = 1 << 20;
/// Hashing more than this is not done on the async threads.
const INLINE: usize = 256 << 10;
/// Bytes that are read and summed at once.
const NEAR: usize = 256 << 10;

/// Where the bytes of an upload in parts come from.
enum From {
    /// One after the other.
    Begin(Source),
    /// Each piece by itself, its sum known.
    Anywhere(Arc<dyn Pieces>),
}

/// A part on its way.
struct Part {
    wall: Arc<Wall>,
    /// Without its bytes.
    request: Again,
    pieces: Arc<dyn Pieces>,
}

impl Part {
    /// The ETag it got.
    async fn send(self, index: usize, at: u64, length: usize) -> Result<String, Failure> {
        let Part { wall, request, pieces } = self;
        let read = move || {
            let mut piece = Vec::with_capacity(length);
            let mut hash = sha2::Sha256::new();
            // Little at a time: what was just read is summed while it is near.
            while piece.len() < length {
                let from = piece.len();
                piece.resize(length.min(from + NEAR), 0);
                let chunk = &mut piece[from..];
                let read = pieces.read(at + from as u64, chunk);
                read.map_err(|error| changed(&error.to_string()))?;
                hash.update(&*chunk);
            }
            let sum = Sha256(hash.finalize().into());
            if pieces.sums().pieces.get(index) != Some(&sum) {
                return Err(changed("the sum of a part is another"));
            }
            Ok((Bytes::from(piece), sum))
        };
        let (bytes, sum) = tokio::task::spawn_blocking(read).await.map_err(|_| ended_early())??;
        wall.put_part(request.with(bytes, sum)).await
    }
}

impl Wall {
    /// Sends a part; the ETag it got.
    async fn put_part(self: &Arc<Self>, request: Again) -> Result<String, Failure> {
        let etag = self.tell(request).await?.etag();
        etag.ok_or_else(|| {
            Failure::new(StoreErrorKind::Corrupt, "a part was taken without an ETag")
        })
    }
}

/// A body that is read once, and its sum as it is read.
struct Source {
    body: Body,
    hash: Hashing,
}

/// A sum on its way.
enum Hashing {
    Here(sha2::Sha256),
    /// A large piece is hashed while the next is read.
    Apart(tokio::task::JoinHandle<sha2::Sha256>),
}

impl Hashing {
    /// When what was given so far is counted.
    async fn done(self) -> Result<sha2::Sha256, Failure> {
        match self {
            Hashing::Here(hash) => Ok(hash),
            Hashing::Apart(task) => task.await.map_err(|_| {
                Failure::new(StoreErrorKind::Unavailable, "hashing a part ended early")
            }),
        }
    }
}

impl Source {
    fn new(body: Body) -> Source {
        Source { body, hash: Hashing::Here(sha2::Sha256::new()) }
    }

    /// Exactly the next `length` bytes.
    async fn take(&mut self, length: usize) -> Result<Bytes, Failure> {
        let mut piece = BytesMut::with_capacity(length);
        let mut limited = (&mut self.body).take(length as u64);
        while piece.len() < length {
            let read = limited.read_buf(&mut piece).await;
            if read.map_err(|error| changed(&error.to_string()))? == 0 {
                return Err(changed("it is shorter than announced"));
            }
        }
        let piece = piece.freeze();
        let before = std::mem::replace(&mut self.hash, Hashing::Here(sha2::Sha256::new()));
        let mut hash = before.done().await?;
        self.hash = if length > INLINE {
            let piece = piece.clone();
            Hashing::Apart(tokio::task::spawn_blocking(move || {
                hash.update(&piece);
                hash
            }))
        } else {
            hash.update(&piece);
            Hashing::Here(hash)
        };
        Ok(piece)
    }

    /// Nothing may be left, and the sum must be the announced one.
    async fn finish(mut self, sum: Sha256) -> Result<(), Failure> {
        let mut rest = [0; 1];
        let left = self.body.read(&mut rest).await;
        let hash = self.hash.done().await?;
        match left {
            Ok(0) if Sha256(hash.finalize().into()) == sum => Ok(()),
            Ok(0) => Err(changed("the sum is another")),
            Ok(_) => Err(changed("it is longer than announced")),
            Err(error) => Err(changed(&error.to_string())),
        }
    }
}

impl S3 {
    /// See [`crate::world::Objects::put_new`].
    pub(super) async fn upload(
        &self,
        key: &str,
        full: &str,
        body: Body,
        size: u64,
        sum: Sha256,
    ) -> Result<(), Failure> {
        let part = self.part(size);
        if part > self.wall.limits.memory as u64 {
            let text = format!("{size} bytes need parts of {part}, more than may be in memory");
            return Err(Failure::new(StoreErrorKind::Invalid, text));
        }
        let support = self.support().await?;
        if (size >= ASK_FIRST || !support.if_none_match)
            && let Some(found) = self.look(key, full).await?
        {
            return self.agree(key, full, &found, size, sum).await;
        }
        let pieces = body.pieces().filter(|pieces| {
            let sums = pieces.sums();
            (sums.whole, sums.size, part) == (sum, size, PIECE as u64)
        });
        let mut source = Source::new(body);
        if size > part {
            let source = pieces.map_or(From::Begin(source), From::Anywhere);
            return self.upload_parts(key, full, source, size, sum).await;
        }
        let _memory = self.memory(size as usize).await?;
        let bytes = source.take(size as usize).await?;
        source.finish(sum).await?;
        self.upload_whole(key, full, bytes, sum, support.if_none_match).await
    }

    /// Bytes of a part of an object: a very large one has larger ones.
    fn part(&self, size: u64) -> u64 {
        (self.wall.limits.part as u64).max(size.div_ceil(PARTS_MAX))
    }

    async fn upload_whole(
        &self,
        key: &str,
        full: &str,
        bytes: Bytes,
        sum: Sha256,
        conditional: bool,
    ) -> Result<(), Failure> {
        let size = bytes.len() as u64;
        let request = Again::new("PUT", &self.wall.place, full, Bytes::new());
        let mut request = request.with(bytes, sum).header(SUM_HEADER, &sum.hex());
        if conditional {
            request = request.header("if-none-match", "*");
        }
        match self.wall.tell(request).await {
            Ok(headers) if headers.etag().is_some() => Ok(()),
            Ok(_) => self.verify(key, full, size, sum).await,
            // Taken: by another content, or by our own first attempt whose answer was lost.
            Err(failure) if failure.is_precondition() => self.verify(key, full, size, sum).await,
            Err(failure) => Err(failure),
        }
    }

    /// What is there must be what we have.
    async fn verify(&self, key: &str, full: &str, size: u64, sum: Sha256) -> Result<(), Failure> {
        match self.look(key, full).await? {
            Some(found) => self.agree(key, full, &found, size, sum).await,
            None => Err(Failure::new(StoreErrorKind::Corrupt, "what was written is not there")),
        }
    }

    async fn agree(
        &self,
        key: &str,
        full: &str,
        found: &Looked,
        size: u64,
        sum: Sha256,
    ) -> Result<(), Failure> {
        let there = match found.sum {
            _ if found.meta.size != size => None,
            Some(noted) => Some(noted),
            None => Some(self.sum_of(key, full).await?),
        };
        if there == Some(sum) {
            return Ok(());
        }
        Err(Failure::new(StoreErrorKind::Invalid, "the key is taken by another content"))
    }

    /// The sum of an object that somebody else wrote.
    async fn sum_of(&self, key: &str, full: &str) -> Result<Sha256, Failure> {
        let opened = download::open(&self.wall, key, full, 0, None).await?;
        let mut body = download::body(&self.wall, full.to_owned(), opened);
        let mut hash = sha2::Sha256::new();
        let mut chunk = vec![0; 64 << 10];
        loop {
            let read = body.read(&mut chunk).await;
            let read =
                read.map_err(|error| Failure::new(StoreErrorKind::Unavailable, error.to_string()))?;
            if read == 0 {
                return Ok(Sha256(hash.finalize().into()));
            }
            hash.update(&chunk[..read]);
        }
    }

    async fn upload_parts(
        &self,
        key: &str,
        full: &str,
        source: From,
        size: u64,
        sum: Sha256,
    ) -> Result<(), Failure> {
        let id = self.begin_parts(full, sum).await?;
        self.wall.note_under_way(&id, true);
        let mut begun =
            Begun { wall: Arc::clone(&self.wall), full: full.to_owned(), id, owed: true };
        let sent = match source {
            From::Begin(source) => self.send_parts(&begun, source, size, sum).await,
            From::Anywhere(pieces) => self.send_pieces(&begun, pieces).await,
        };
        let done = match sent {
            Ok(parts) => match begun.complete(parts).await {
                Ok(()) => self.verify(key, full, size, sum).await,
                // The answer may have been lost after the store did it.
                Err(failure) => {
                    let there = self.verify(key, full, size, sum).await;
                    there.map_err(|_| failure)
                }
            },
            Err(failure) => Err(failure),
        };
        begun.owed = false;
        if done.is_err() {
            begun.abort().await;
        }
        self.wall.note_under_way(&begun.id, false);
        done
    }

    async fn begin_parts(&self, full: &str, sum: Sha256) -> Result<String, Failure> {
        let request = rusoto_s3::CreateMultipartUploadRequest {
            bucket: self.wall.place.bucket.clone(),
            key: full.to_owned(),
            metadata: Some(HashMap::from([("docket-sha256".to_owned(), sum.hex())])),
            ..Default::default()
        };
        let begun = self
            .wall
            .ask(Answer::Xml("InitiateMultipartUploadResult"), |client| async move {
                client.create_multipart_upload(request).await
            })
            .await?;
        begun
            .upload_id
            .filter(|id| !id.is_empty())
            .ok_or_else(|| Failure::new(StoreErrorKind::Corrupt, "the store gave no upload id"))
    }

    async fn send_parts(
        &self,
        begun: &Begun,
        mut source: Source,
        size: u64,
        sum: Sha256,
    ) -> Result<Vec<(i64, String)>, Failure> {
        let mut sending: JoinSet<Result<(i64, String), Failure>> = JoinSet::new();
        let mut parts = Vec::new();
        let mut left = size;
        let mut number = 0;
        while left > 0 {
            let length = left.min(self.part(size)) as usize;
            let memory = self.memory(length).await?;
            let bytes = source.take(length).await?;
            left -= length as u64;
            number += 1;
            let (wall, request) = (Arc::clone(&begun.wall), begun.part(number, bytes));
            sending.spawn(async move {
                let etag = wall.put_part(request).await;
                drop(memory);
                Ok((number, etag?))
            });
            while let Some(sent) = sending.try_join_next() {
                parts.push(joined(sent)?);
            }
        }
        source.finish(sum).await?;
        while let Some(sent) = sending.join_next().await {
            parts.push(joined(sent)?);
        }
        parts.sort();
        Ok(parts)
    }

    /// Sends the parts of a content whose pieces are known: each is read, summed, compared and sent
    /// beside the others. What arrived is the whole that was summed if each part is its piece.
    async fn send_pieces(
        &self,
        begun: &Begun,
        pieces: Arc<dyn Pieces>,
    ) -> Result<Vec<(i64, String)>, Failure> {
        let mut sending: JoinSet<Result<(i64, String), Failure>> = JoinSet::new();
        let mut parts = Vec::new();
        let size = pieces.sums().size;
        for index in 0..pieces.sums().pieces.len() {
            let at = index as u64 * PIECE as u64;
            let length = (size - at).min(PIECE as u64) as usize;
            let memory = self.memory(length).await?;
            let part = Part {
                wall: Arc::clone(&begun.wall),
                request: begun.part(index as i64 + 1, Bytes::new()),
                pieces: Arc::clone(&pieces),
            };
            sending.spawn(async move {
                let etag = part.send(index, at, length).await;
                drop(memory);
                Ok((index as i64 + 1, etag?))
            });
            while let Some(sent) = sending.try_join_next() {
                parts.push(joined(sent)?);
            }
        }
        while let Some(sent) = sending.join_next().await {
            parts.push(joined(sent)?);
        }
        let last_look = tokio::task::spawn_blocking(move || pieces.unchanged()).await;
        let last_look = last_look.map_err(|_| ended_early())?;
        last_look.map_err(|error| changed(&error.to_string()))?;
        parts.sort();
        Ok(parts)
    }

    async fn memory(&self, bytes: usize) -> Result<OwnedSemaphorePermit, Failure> {
        let all = (self.wall.limits.memory / 1024) as u32;
        let permits = (bytes.div_ceil(1024) as u32).clamp(1, all);
        let permit = Arc::clone(&self.memory).acquire_many_owned(permits).await;
        permit.map_err(|_| Failure::new(StoreErrorKind::Unavailable, "the store is closed"))
    }
}

/// A multipart upload. Dropped before its end (whoever uploads gave up), it is aborted.
pub(super) struct Begun {
    wall: Arc<Wall>,
    full: String,
    id: String,
    /// Whether dropping it owes the store an abort.
    owed: bool,
}

impl Begun {
    /// One that somebody else began.
    pub(super) fn of_another(wall: &Arc<Wall>, full: String, id: String) -> Begun {
        Begun { wall: Arc::clone(wall), full, id, owed: false }
    }

    fn part(&self, number: i64, bytes: Bytes) -> Again {
        Again::new("PUT", &self.wall.place, &self.full, bytes)
            .param("partNumber", &number.to_string())
            .param("uploadId", &self.id)
    }

    async fn complete(&self, parts: Vec<(i64, String)>) -> Result<(), Failure> {
        let part = |(number, etag): (i64, String)| rusoto_s3::CompletedPart {
            e_tag: Some(format!("\"{etag}\"")),
            part_number: Some(number),
        };
        let request = rusoto_s3::CompleteMultipartUploadRequest {
            bucket: self.wall.place.bucket.clone(),
            key: self.full.clone(),
            upload_id: self.id.clone(),
            multipart_upload: Some(rusoto_s3::CompletedMultipartUpload {
                parts: Some(parts.into_iter().map(part).collect()),
            }),
            ..Default::default()
        };
        let done = self
            .wall
            .ask(Answer::Xml("CompleteMultipartUploadResult"), |client| async move {
                client.complete_multipart_upload(request).await
            })
            .await?;
        match done.e_tag {
            Some(etag) if !etag.is_empty() => Ok(()),
            _ => Err(Failure::new(StoreErrorKind::Corrupt, "completed without an ETag")),
        }
    }

    pub(super) async fn abort(&self) {
        let request = rusoto_s3::AbortMultipartUploadRequest {
            bucket: self.wall.place.bucket.clone(),
            key: self.full.clone(),
            upload_id: self.id.clone(),
            ..Default::default()
        };
        let asked = self
            .wall
            .ask(Answer::Bare, |client| async move { client.abort_multipart_upload(request).await })
            .await;
        match asked {
            Err(failure) if failure.kind != StoreErrorKind::NotFound => {
                tracing::warn!(
                    key = %self.full, why = %failure.message,
                    "an unfinished upload stays in the bucket; a lifecycle rule can remove it"
                );
            }
            _ => {}
        }
    }
}

impl Drop for Begun {
    fn drop(&mut self) {
        if !self.owed {
            return;
        }
        let begun = Begun {
            wall: Arc::clone(&self.wall),
            full: std::mem::take(&mut self.full),
            id: std::mem::take(&mut self.id),
            owed: false,
        };
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(async move {
                begun.abort().await;
                begun.wall.note_under_way(&begun.id, false);
            });
        }
    }
}

fn joined(
    sent: Result<Result<(i64, String), Failure>, tokio::task::JoinError>,
) -> Result<(i64, String), Failure> {
    sent.map_err(|_| ended_early())?
}

fn ended_early() -> Failure {
    Failure::new(StoreErrorKind::Unavailable, "a part's task ended early")
}

fn changed(why: &str) -> Failure {
    Failure::new(StoreErrorKind::SourceChanged, format!("the file changed while read: {why}"))
}
