//! An object store in memory: immutable contents, one conditional write, and a memory of every
//! content it ever took, by sum.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use sha2::Digest as _;
use tokio::io::AsyncReadExt as _;

use crate::model::{Sha256, Timestamp};
use crate::testing::clock::FakeClock;
use crate::world::{Body, Clock as _, ObjectMeta, Objects, StoreError, StoreErrorKind, Swap};

/// A store. Clones are the same store.
#[derive(Clone, Debug)]
pub struct MemoryStore {
    clock: FakeClock,
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
struct State {
    objects: BTreeMap<String, Object>,
    serial: u64,
    down: Option<StoreErrorKind>,
}

#[derive(Clone, Debug)]
struct Object {
    bytes: Bytes,
    sum: Sha256,
    meta: ObjectMeta,
}

/// sha256 of bytes.
pub fn sum_of(bytes: &[u8]) -> Sha256 {
    Sha256(sha2::Sha256::digest(bytes).into())
}

impl MemoryStore {
    /// An empty store.
    pub fn new(clock: FakeClock) -> MemoryStore {
        MemoryStore { clock, state: Arc::default() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// From now on every call fails like this; `None`: it works again.
    pub fn fail_with(&self, kind: Option<StoreErrorKind>) {
        self.state().down = kind;
    }

    /// Whether a content is stored under any key below `prefix`.
    pub fn holds(&self, prefix: &str, sum: Sha256) -> bool {
        let state = self.state();
        let mut below = state.objects.range(prefix.to_owned()..);
        below.any(|(key, object)| key.starts_with(prefix) && object.sum == sum)
    }

    /// The bytes under a key.
    pub fn bytes(&self, key: &str) -> Option<Bytes> {
        self.state().objects.get(key).map(|object| object.bytes.clone())
    }

    /// Keys below a prefix.
    pub fn keys(&self, prefix: &str) -> Vec<String> {
        let state = self.state();
        state.objects.keys().filter(|key| key.starts_with(prefix)).cloned().collect()
    }

    /// Somebody else writes an object.
    pub fn put_by_hand(&self, key: &str, bytes: Vec<u8>) {
        let now = self.clock.now();
        let mut state = self.state();
        let object = state.object(key, bytes, now);
        state.objects.insert(key.to_owned(), object);
    }

    fn up(&self, operation: &'static str, key: &str) -> Result<(), StoreError> {
        match self.state().down {
            None => Ok(()),
            Some(kind) => Err(fail(kind, operation, key, "it is out of order")),
        }
    }
}

impl State {
    fn object(&mut self, key: &str, bytes: Vec<u8>, now: crate::model::Timestamp) -> Object {
        self.serial += 1;
        let meta = ObjectMeta {
            key: key.to_owned(),
            size: bytes.len() as u64,
            etag: format!("etag-{}", self.serial),
            modified: Some(now),
        };
        Object { sum: sum_of(&bytes), bytes: Bytes::from(bytes), meta }
    }
}

fn fail(
    kind: StoreErrorKind,
    operation: &'static str,
    key: &str,
    message: impl Into<String>,
) -> StoreError {
    StoreError { kind, operation, key: key.to_owned(), message: message.into() }
}

impl Objects for MemoryStore {
    async fn head(&self, key: &str) -> Result<Option<ObjectMeta>, StoreError> {
        self.up("head", key)?;
        Ok(self.state().objects.get(key).map(|object| object.meta.clone()))
    }

    async fn get(&self, key: &str) -> Result<(ObjectMeta, Body), StoreError> {
        self.up("get", key)?;
        let state = self.state();
        let object = state
            .objects
            .get(key)
            .ok_or_else(|| fail(StoreErrorKind::NotFound, "get", key, "no such object"))?;
        Ok((object.meta.clone(), Box::pin(std::io::Cursor::new(object.bytes.clone()))))
    }

    async fn put_new(
        &self,
        key: &str,
        mut body: Body,
        size: u64,
        sha256: Sha256,
    ) -> Result<(), StoreError> {
        self.up("put", key)?;
        let mut bytes = Vec::new();
        if let Err(error) = body.read_to_end(&mut bytes).await {
            return Err(fail(StoreErrorKind::SourceChanged, "put", key, error.to_string()));
        }
        if bytes.len() as u64 != size || sum_of(&bytes) != sha256 {
            let text = "the bytes are not those announced";
            return Err(fail(StoreErrorKind::SourceChanged, "put", key, text));
        }
        let now = self.clock.now();
        let mut state = self.state();
        match state.objects.get(key) {
            Some(there) if there.sum == sha256 => Ok(()),
            Some(_) => Err(fail(StoreErrorKind::Invalid, "put", key, "the key is taken")),
            None => {
                let object = state.object(key, bytes, now);
                state.objects.insert(key.to_owned(), object);
                Ok(())
            }
        }
    }

    async fn put_if(
        &self,
        key: &str,
        bytes: Vec<u8>,
        expected: Option<&str>,
        at: Timestamp,
    ) -> Result<Swap, StoreError> {
        self.up("swap", key)?;
        let mut state = self.state();
        let there = state.objects.get(key);
        if let Some(there) = there.filter(|there| there.bytes == bytes) {
            return Ok(Swap::Done(there.meta.etag.clone()));
        }
        if there.map(|there| there.meta.etag.as_str()) != expected {
            return Ok(Swap::Lost);
        }
        let object = state.object(key, bytes, at);
        let etag = object.meta.etag.clone();
        state.objects.insert(key.to_owned(), object);
        Ok(Swap::Done(etag))
    }

    async fn list(&self, prefix: &str) -> Result<Vec<ObjectMeta>, StoreError> {
        self.up("list", prefix)?;
        let state = self.state();
        Ok(state
            .objects
            .range(prefix.to_owned()..)
            .take_while(|(key, _)| key.starts_with(prefix))
            .map(|(_, object)| object.meta.clone())
            .collect())
    }

    async fn is_conditional(&self) -> Result<bool, StoreError> {
        Ok(true)
    }

    async fn delete(&self, key: &str) -> Result<(), StoreError> {
        self.up("delete", key)?;
        self.state().objects.remove(key);
        Ok(())
    }
}
