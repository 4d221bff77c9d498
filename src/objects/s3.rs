//! Objects in S3, through rusoto and a wall around it.
//!
//! rusoto is not maintained any more; DEPENDENCIES.md lists what it does wrong. So it builds,
//! signs and parses, and nothing else: `wall` sends, judges and retries. Beside it:
//! 1. `upload`: every body in parts that can be sent again, each signed by its hash, in bounded
//!    memory.
//! 2. `download`: streams that are taken up again where they were cut, and end in an error
//!    if they are not what was announced.
//! 3. `conditional`: the one conditional write, also for servers that do not know it.
//! 4. `list`: complete, or an error.

mod answer;
mod conditional;
mod credentials;
mod download;
mod list;
mod name;
mod pace;
mod resolve;
mod retry;
mod sign;
mod stale;
mod throttle;
mod transport;
mod upload;
mod wall;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use chrono::Utc;
use rusoto_s3::S3 as _;
use tokio::sync::Semaphore;

use crate::model::{Sha256, Timestamp};
use crate::world::{Body, ObjectMeta, Objects, StoreError, StoreErrorKind, Swap};

use answer::Failure;
use conditional::Support;
pub use credentials::Lookup;
use name::Place;
use retry::Patience;
use wall::{Answer, Wall};

/// `store: s3://bucket/prefix` and the `s3:` keys of docket.yaml.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct S3Config {
    /// The bucket.
    pub bucket: String,
    /// What all keys begin with; may be empty.
    pub prefix: String,
    /// URL of another server than AWS; empty: AWS.
    pub endpoint: String,
    /// Region, also of the signature.
    pub region: String,
    /// `endpoint/bucket/key` instead of `bucket.endpoint/key`.
    pub path_style: bool,
    /// PEM file of certificate authorities to trust beside the machine's.
    pub ca_file: Option<PathBuf>,
    /// Bytes a second, each way, all transfers together; 0: no limit.
    pub max_bandwidth: u64,
    /// Requests at once, all sessions together; 0: as many as the server likes.
    pub max_concurrent: u32,
}

/// Times, sizes and counts; the defaults are for production.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Until a TCP connection stands.
    pub connect: Duration,
    /// Without any byte moving, either way.
    pub idle: Duration,
    /// A call without a large body, all attempts together.
    pub total: Duration,
    /// Attempts of one request.
    pub attempts: u32,
    /// Mean of the first wait between attempts; doubles, with full jitter.
    pub first_wait: Duration,
    /// Longest mean of a wait.
    pub longest_wait: Duration,
    /// No attempt of a request begins later than this after its first.
    pub elapsed: Duration,
    /// Bytes of a part; what is larger is uploaded in several. S3 wants at least 5 MiB.
    pub part: usize,
    /// Bytes of bodies in memory, all uploads together.
    pub memory: usize,
    /// Bytes of bodies in memory, all downloads together.
    pub memory_in: usize,
    /// Keys a page of a listing.
    pub page: u32,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            connect: Duration::from_secs(5),
            idle: Duration::from_secs(30),
            total: Duration::from_mins(2),
            attempts: 6,
            first_wait: Duration::from_millis(100),
            longest_wait: Duration::from_secs(10),
            elapsed: Duration::from_mins(1),
            part: 5 << 20,
            memory: 15 << 20,
            memory_in: 16 << 20,
            page: 1000,
        }
    }
}

impl Limits {
    fn patience(&self) -> Patience {
        Patience {
            attempts: self.attempts,
            first_wait: self.first_wait,
            longest_wait: self.longest_wait,
            elapsed: self.elapsed,
        }
    }
}

/// The store. Clones are the same store.
#[derive(Clone, Debug)]
pub struct S3 {
    wall: Arc<Wall>,
    /// KiB of bodies that may be in memory on their way out, and on their way in. Apart from each
    /// other: an upload waits for a turn with its memory in hand, a download for memory in its turn.
    memory: Arc<Semaphore>,
    memory_in: Arc<Semaphore>,
    support: Arc<tokio::sync::Mutex<Option<Support>>>,
}

impl S3 {
    /// A store by its configuration, with the process's environment for credentials. Nothing is
    /// asked yet. [`StoreErrorKind::Invalid`] says which setting is wrong.
    pub fn new(config: &S3Config) -> Result<S3, StoreError> {
        S3::with(config, Limits::default(), Arc::new(|name: &str| std::env::var(name).ok()))
    }

    /// A store with other limits and another place to look credentials up.
    pub fn with(config: &S3Config, limits: Limits, env: Lookup) -> Result<S3, StoreError> {
        let invalid = |text: String| StoreError {
            kind: StoreErrorKind::Invalid,
            operation: "open",
            key: format!("s3://{}/{}", config.bucket, config.prefix),
            message: text,
        };
        let place = Place::parse(config).map_err(invalid)?;
        let ca_file = config.ca_file.as_deref();
        let plain = place.is_plain_http();
        let transport = transport::Transport::new(ca_file, plain, limits.connect, limits.idle)
            .map_err(|error| invalid(error.to_string()))?
            .throttled(config.max_bandwidth);
        let pace = pace::Pace::new(config.max_concurrent as usize);
        let credentials = credentials::Credentials::new(env, &config.region);
        Ok(S3 {
            memory: Arc::new(Semaphore::new(limits.memory / 1024)),
            memory_in: Arc::new(Semaphore::new(limits.memory_in / 1024)),
            support: Arc::default(),
            wall: Arc::new(Wall::new(place, limits, transport, credentials, pace)),
        })
    }

    fn full(&self, operation: &'static str, key: &str) -> Result<String, StoreError> {
        self.wall
            .place
            .full(key)
            .map_err(|text| error(operation, key)(Failure::new(StoreErrorKind::Invalid, text)))
    }

    /// HEAD. A refusal of it has no body: why, and whether it is the bucket that is missing, is
    /// asked again by GET.
    async fn look(&self, key: &str, full: &str) -> Result<Option<Looked>, Failure> {
        let request = rusoto_s3::HeadObjectRequest {
            bucket: self.wall.place.bucket.clone(),
            key: full.to_owned(),
            ..Default::default()
        };
        let asked = self
            .wall
            .ask(Answer::Bare, |client| async move { client.head_object(request).await })
            .await;
        match asked {
            Ok(found) => {
                let sum = found.metadata.as_ref().and_then(|all| all.get("docket-sha256"));
                let sum = sum.and_then(|text| Sha256::parse(text));
                let mut meta = meta(key, found.content_length, found.e_tag, found.last_modified)?;
                meta.modified = written(found.metadata.as_ref()).or(meta.modified);
                Ok(Some(Looked { meta, sum }))
            }
            Err(failure) if failure.kind == StoreErrorKind::NotFound || failure.is_mute() => {
                match download::open(&self.wall, key, full, 0, None).await {
                    Ok(opened) => Ok(Some(Looked { meta: opened.meta, sum: opened.sum })),
                    Err(failure) if failure.kind == StoreErrorKind::NotFound => Ok(None),
                    Err(failure) => Err(failure),
                }
            }
            Err(failure) => Err(failure),
        }
    }
}

/// What HEAD tells.
#[derive(Debug)]
struct Looked {
    meta: ObjectMeta,
    /// The sum that we noted beside the object when we wrote it.
    sum: Option<Sha256>,
}

impl Objects for S3 {
    async fn head(&self, key: &str) -> Result<Option<ObjectMeta>, StoreError> {
        let full = self.full("head", key)?;
        let found = self.look(key, &full).await.map_err(error("head", key))?;
        Ok(found.map(|found| found.meta))
    }

    async fn get(&self, key: &str) -> Result<(ObjectMeta, Body), StoreError> {
        let full = self.full("get", key)?;
        let opened = download::open(&self.wall, key, &full, 0, None).await;
        let mut opened = opened.map_err(error("get", key))?;
        let kib = (opened.meta.size / 1024 + 1).min(download::BUFFERED_KIB) as u32;
        let kib = kib.min((self.wall.limits.memory_in / 1024) as u32);
        opened.memory = Arc::clone(&self.memory_in).acquire_many_owned(kib).await.ok();
        Ok((opened.meta.clone(), download::body(&self.wall, full, opened)))
    }

    async fn put_new(
        &self,
        key: &str,
        body: Body,
        size: u64,
        sha256: Sha256,
    ) -> Result<(), StoreError> {
        let full = self.full("put", key)?;
        self.upload(key, &full, body, size, sha256).await.map_err(error("put", key))
    }

    async fn put_if(
        &self,
        key: &str,
        bytes: Vec<u8>,
        expected: Option<&str>,
        at: Timestamp,
    ) -> Result<Swap, StoreError> {
        let full = self.full("swap", key)?;
        self.swap(key, &full, bytes.into(), expected, at).await.map_err(error("swap", key))
    }

    async fn list(&self, prefix: &str) -> Result<Vec<ObjectMeta>, StoreError> {
        let full =
            self.wall.place.full_prefix(prefix).map_err(|text| {
                error("list", prefix)(Failure::new(StoreErrorKind::Invalid, text))
            })?;
        list::all(&self.wall, &full).await.map_err(error("list", prefix))
    }

    async fn is_conditional(&self) -> Result<bool, StoreError> {
        self.knows_conditional_writes().await
    }

    async fn delete(&self, key: &str) -> Result<(), StoreError> {
        let request = rusoto_s3::DeleteObjectRequest {
            bucket: self.wall.place.bucket.clone(),
            key: self.full("delete", key)?,
            ..Default::default()
        };
        let asked = self
            .wall
            .ask(Answer::Bare, |client| async move { client.delete_object(request).await })
            .await;
        match asked {
            Ok(_) => Ok(()),
            Err(failure) if failure.kind == StoreErrorKind::NotFound => Ok(()),
            Err(failure) => Err(error("delete", key)(failure)),
        }
    }
}

fn error(operation: &'static str, key: &str) -> impl FnOnce(Failure) -> StoreError {
    move |failure| StoreError {
        kind: failure.kind,
        operation,
        key: key.to_owned(),
        message: failure.message,
    }
}

/// An object's description; an answer that leaves out length or ETag is not believed.
fn meta(
    key: &str,
    length: Option<i64>,
    etag: Option<String>,
    modified: Option<String>,
) -> Result<ObjectMeta, Failure> {
    let lacks = |what: &str| {
        Failure::new(StoreErrorKind::Corrupt, format!("the answer does not tell the {what}"))
    };
    let size = length.and_then(|length| u64::try_from(length).ok()).ok_or_else(|| lacks("size"))?;
    let etag = etag.map(|etag| wall::bare_etag(&etag)).ok_or_else(|| lacks("ETag"))?;
    Ok(ObjectMeta { key: key.to_owned(), size, etag, modified: modified.and_then(|m| time(&m)) })
}

/// When docket wrote it, where that was noted beside it.
fn written(metadata: Option<&std::collections::HashMap<String, String>>) -> Option<Timestamp> {
    metadata?.get("docket-written").and_then(|text| time(text))
}

/// A header's time (RFC 2822) or a listing's (RFC 3339).
fn time(text: &str) -> Option<Timestamp> {
    let parsed = chrono::DateTime::parse_from_rfc3339(text)
        .or_else(|_| chrono::DateTime::parse_from_rfc2822(text));
    parsed.ok().map(|time| time.with_timezone(&Utc))
}
