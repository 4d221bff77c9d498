//! Contents on their way in: streamed, taken up again where a connection broke, and never ended
//! as if they were whole when they are not.

use std::io;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::StreamExt as _;
use rusoto_core::ByteStream;
use rusoto_s3::S3 as _;
use sha2::Digest as _;
use tokio_util::io::StreamReader;

use crate::model::Sha256;
use crate::objects::s3::answer::Failure;
use crate::objects::s3::retry::Attempts;
use crate::objects::s3::wall::{Answer, Wall};
use crate::objects::s3::{error, list, meta, written};
use crate::world::{Body, ObjectMeta, StoreErrorKind};

/// What a body on its way in may hold in buffers: the connection's, and one or two of whoever
/// takes it.
pub(super) const BUFFERED_KIB: u64 = 512;

/// An object whose first byte is about to come.
pub(super) struct Opened {
    /// Size is that of the whole object.
    pub(super) meta: ObjectMeta,
    /// The sum that we noted beside it when we wrote it.
    pub(super) sum: Option<Sha256>,
    stream: ByteStream,
    /// The right to its buffers.
    pub(super) memory: Option<tokio::sync::OwnedSemaphorePermit>,
}

/// Asks for an object from byte `at` on; `etag`: only if it is still this version.
pub(super) async fn open(
    wall: &Arc<Wall>,
    key: &str,
    full: &str,
    at: u64,
    etag: Option<&str>,
) -> Result<Opened, Failure> {
    let request = rusoto_s3::GetObjectRequest {
        bucket: wall.place.bucket.clone(),
        key: full.to_owned(),
        if_match: etag.map(|etag| format!("\"{etag}\"")),
        range: (at > 0).then(|| format!("bytes={at}-")),
        ..Default::default()
    };
    let answer = if etag.is_some() { Answer::Rest } else { Answer::Stream };
    let asked = wall.ask(answer, |client| async move { client.get_object(request).await }).await;
    let got = match asked {
        Err(failure) if failure.kind == StoreErrorKind::NotFound => {
            list::see_bucket(wall).await?;
            return Err(failure);
        }
        asked => asked?,
    };
    let mut meta = meta(key, got.content_length, got.e_tag, got.last_modified)?;
    meta.modified = written(got.metadata.as_ref()).or(meta.modified);
    if at > 0 {
        let size = at + meta.size;
        let expected = format!("bytes {at}-{}/{size}", size - 1);
        if got.content_range.as_deref() != Some(expected.as_str()) {
            let text = "the answer is not the range that was asked for";
            return Err(Failure::new(StoreErrorKind::Corrupt, text));
        }
        meta.size = size;
    }
    let sum = got.metadata.as_ref().and_then(|all| all.get("docket-sha256"));
    let sum = sum.and_then(|text| Sha256::parse(text));
    let stream = got.body.unwrap_or_else(|| ByteStream::from(Vec::new()));
    Ok(Opened { meta, sum, stream, memory: None })
}

/// The body of an opened object. Ends in an error, which holds a [`crate::world::StoreError`], if it is not the
/// announced number of bytes or, for one that docket wrote in one piece, not the noted sum.
pub(super) fn body(wall: &Arc<Wall>, full: String, opened: Opened) -> Body {
    // A large one is hashed by whoever asked for it; a manifest may have no other witness.
    let small = opened.meta.size <= wall.limits.part as u64;
    let reading = Reading {
        wall: Arc::clone(wall),
        full,
        hash: opened.sum.filter(|_| small).map(|sum| (sha2::Sha256::new(), sum)),
        meta: opened.meta,
        at: 0,
        stream: opened.stream,
        _memory: opened.memory,
        attempts: Attempts::new(wall.patience()),
    };
    let stream = futures_util::stream::try_unfold(reading, |mut reading| async move {
        match reading.next().await {
            Ok(bytes) => Ok(bytes.map(|bytes| (bytes, reading))),
            Err(failure) => Err(reading.error(failure)),
        }
    });
    Box::pin(StreamReader::new(Box::pin(stream)))
}

struct Reading {
    wall: Arc<Wall>,
    full: String,
    meta: ObjectMeta,
    hash: Option<(sha2::Sha256, Sha256)>,
    at: u64,
    stream: ByteStream,
    _memory: Option<tokio::sync::OwnedSemaphorePermit>,
    attempts: Attempts,
}

impl Reading {
    async fn next(&mut self) -> Result<Option<Bytes>, Failure> {
        loop {
            let broken = match self.stream.next().await {
                Some(Ok(bytes)) if bytes.is_empty() => continue,
                Some(Ok(bytes)) => return self.take(bytes).map(Some),
                _ if self.at == self.meta.size => return self.finish().map(|()| None),
                None => "the body is shorter than announced".to_owned(),
                Some(Err(error)) => error.to_string(),
            };
            self.take_up_again(broken).await?;
        }
    }

    fn take(&mut self, bytes: Bytes) -> Result<Bytes, Failure> {
        self.at += bytes.len() as u64;
        if self.at > self.meta.size {
            let text = "the body is longer than announced";
            return Err(Failure::new(StoreErrorKind::Corrupt, text));
        }
        self.attempts.progressed();
        if let Some((hash, _)) = &mut self.hash {
            hash.update(&bytes);
        }
        Ok(bytes)
    }

    fn finish(&mut self) -> Result<(), Failure> {
        let Some((hash, noted)) = self.hash.take() else { return Ok(()) };
        if Sha256(hash.finalize().into()) == noted {
            return Ok(());
        }
        let text = "the contents are not those that were written";
        Err(Failure::new(StoreErrorKind::Corrupt, text))
    }

    async fn take_up_again(&mut self, broken: String) -> Result<(), Failure> {
        let text = format!("cut after {} of {} bytes: {broken}", self.at, self.meta.size);
        let failure = Failure::passing(StoreErrorKind::Unavailable, text);
        let Some(wait) = self.wall.retry_after(&mut self.attempts, &failure) else {
            return Err(failure);
        };
        // Its turn goes back before another is asked for.
        self.stream = ByteStream::from(Vec::new());
        tokio::time::sleep(wait).await;
        let etag = Some(self.meta.etag.as_str());
        let opened = open(&self.wall, &self.meta.key, &self.full, self.at, etag).await;
        let opened = opened.map_err(|failure| {
            if failure.is_precondition() {
                Failure::new(StoreErrorKind::Corrupt, "the object was replaced while it was read")
            } else {
                failure
            }
        })?;
        if opened.meta.size != self.meta.size || opened.meta.etag != self.meta.etag {
            let text = "the object was replaced while it was read";
            return Err(Failure::new(StoreErrorKind::Corrupt, text));
        }
        self.stream = opened.stream;
        Ok(())
    }

    fn error(&self, failure: Failure) -> io::Error {
        let kind = match failure.kind {
            StoreErrorKind::Corrupt => io::ErrorKind::InvalidData,
            StoreErrorKind::Denied => io::ErrorKind::PermissionDenied,
            StoreErrorKind::NotFound => io::ErrorKind::NotFound,
            _ => io::ErrorKind::ConnectionAborted,
        };
        io::Error::new(kind, error("get", &self.meta.key)(failure))
    }
}
