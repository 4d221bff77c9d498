//! The object store: immutable contents under keys, and one conditional write.

use std::future::Future;

use super::Body;
use crate::model::{Sha256, Timestamp};

/// What went wrong with a store call, by what may be done about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StoreErrorKind {
    /// Nobody answers, time-out, 5xx, 429: try again later.
    Unavailable,
    /// 403, no such bucket, bad credentials: trying again as is will not help.
    Denied,
    /// The object is proven not to be there.
    NotFound,
    /// What came is not what was announced: wrong length, wrong hash, unreadable answer.
    Corrupt,
    /// The bytes given to `put` were not those announced (the file changed while it was read).
    SourceChanged,
    /// The key, the path or the store's configuration is not valid.
    Invalid,
}

/// A failed store call.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{operation} `{key}` failed: {message}")]
pub struct StoreError {
    /// What may be done about it.
    pub kind: StoreErrorKind,
    /// Which call, e.g. `get`.
    pub operation: &'static str,
    /// Which key.
    pub key: String,
    /// The store's own words, one line, nothing secret.
    pub message: String,
}

/// What the store says of an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ObjectMeta {
    /// Full key.
    pub key: String,
    /// Bytes.
    pub size: u64,
    /// Opaque version of the contents.
    pub etag: String,
    /// When it was written.
    pub modified: Option<Timestamp>,
}

/// How a conditional write ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Swap {
    /// Written; its new ETag.
    Done(String),
    /// The condition did not hold: somebody else wrote. Nothing was changed.
    Lost,
}

/// An object store. Keys are full keys: `{user}/{case}/...` (the configured prefix is the
/// store's own business).
pub trait Objects: Send + Sync + 'static {
    /// Whether the object is there, and what is known of it. `Ok(None)` is proven absence.
    fn head(
        &self,
        key: &str,
    ) -> impl Future<Output = Result<Option<ObjectMeta>, StoreError>> + Send;
    /// The contents; [`StoreErrorKind::NotFound`] if proven absent. The body ends in an error if
    /// it is shorter or longer than announced.
    fn get(&self, key: &str)
    -> impl Future<Output = Result<(ObjectMeta, Body), StoreError>> + Send;
    /// Writes a new immutable object of exactly `size` bytes with this sum. If the key is taken
    /// it is left as it is and that is success if size (and, where the store can tell, content)
    /// agree, else [`StoreErrorKind::Invalid`].
    fn put_new(
        &self,
        key: &str,
        body: Body,
        size: u64,
        sha256: Sha256,
    ) -> impl Future<Output = Result<(), StoreError>> + Send;
    /// Writes a small object if the current one has this ETag (`None`: if there is none). A lost
    /// answer is found out by comparing contents: our own bytes there are `Done`. `at`: what is
    /// said of it from then on as the time it was written, to the millisecond, however coarse the
    /// store's own clock is.
    fn put_if(
        &self,
        key: &str,
        bytes: Vec<u8>,
        expected: Option<&str>,
        at: Timestamp,
    ) -> impl Future<Output = Result<Swap, StoreError>> + Send;
    /// Everything whose key begins with `prefix`, complete, sorted by key.
    fn list(
        &self,
        prefix: &str,
    ) -> impl Future<Output = Result<Vec<ObjectMeta>, StoreError>> + Send;
    /// Whether the store itself decides [`Objects::put_if`]. If not, docket reads, compares and
    /// writes, which is safe only while nobody else writes to the case.
    fn is_conditional(&self) -> impl Future<Output = Result<bool, StoreError>> + Send;
    /// Removes an object; absent is success. Only `docket gc` calls this.
    fn delete(&self, key: &str) -> impl Future<Output = Result<(), StoreError>> + Send;
}

/// A store that several hold is the same store.
impl<T: Objects> Objects for std::sync::Arc<T> {
    async fn head(&self, key: &str) -> Result<Option<ObjectMeta>, StoreError> {
        (**self).head(key).await
    }

    async fn get(&self, key: &str) -> Result<(ObjectMeta, Body), StoreError> {
        (**self).get(key).await
    }

    async fn put_new(
        &self,
        key: &str,
        body: Body,
        size: u64,
        sha256: Sha256,
    ) -> Result<(), StoreError> {
        (**self).put_new(key, body, size, sha256).await
    }

    async fn put_if(
        &self,
        key: &str,
        bytes: Vec<u8>,
        expected: Option<&str>,
        at: Timestamp,
    ) -> Result<Swap, StoreError> {
        (**self).put_if(key, bytes, expected, at).await
    }

    async fn list(&self, prefix: &str) -> Result<Vec<ObjectMeta>, StoreError> {
        (**self).list(prefix).await
    }

    async fn is_conditional(&self) -> Result<bool, StoreError> {
        (**self).is_conditional().await
    }

    async fn delete(&self, key: &str) -> Result<(), StoreError> {
        (**self).delete(key).await
    }
}
