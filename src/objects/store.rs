//! The store that the configuration names: a directory or S3, behind one type.

use crate::crash::{self, Effect};
use crate::model::{Sha256, Timestamp};
use crate::world::{Body, ObjectMeta, Objects, StoreError, Swap};

use super::directory::Directory;
use super::s3::S3;

/// One of the stores.
#[derive(Debug)]
pub enum Store {
    /// `file:/path`.
    Directory(Directory),
    /// `s3://bucket/prefix`.
    S3(Box<S3>),
}

macro_rules! either {
    ($self:ident, $store:ident => $call:expr) => {
        match $self {
            Store::Directory($store) => $call,
            Store::S3($store) => $call,
        }
    };
}

impl Objects for Store {
    async fn head(&self, key: &str) -> Result<Option<ObjectMeta>, StoreError> {
        either!(self, store => store.head(key).await)
    }

    async fn get(&self, key: &str) -> Result<(ObjectMeta, Body), StoreError> {
        either!(self, store => store.get(key).await)
    }

    async fn put_new(
        &self,
        key: &str,
        body: Body,
        size: u64,
        sha256: Sha256,
    ) -> Result<(), StoreError> {
        crash::around(Effect::PutObject, async {
            either!(self, store => store.put_new(key, body, size, sha256).await)
        })
        .await
    }

    async fn put_if(
        &self,
        key: &str,
        bytes: Vec<u8>,
        expected: Option<&str>,
        at: Timestamp,
    ) -> Result<Swap, StoreError> {
        crash::around(Effect::SwapManifest, async {
            either!(self, store => store.put_if(key, bytes, expected, at).await)
        })
        .await
    }

    async fn list(&self, prefix: &str) -> Result<Vec<ObjectMeta>, StoreError> {
        either!(self, store => store.list(prefix).await)
    }

    async fn delete(&self, key: &str) -> Result<(), StoreError> {
        either!(self, store => store.delete(key).await)
    }
    async fn is_conditional(&self) -> Result<bool, StoreError> {
        either!(self, store => store.is_conditional().await)
    }
}
