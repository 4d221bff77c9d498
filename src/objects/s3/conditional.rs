//! The one conditional write. Servers that know `If-Match` and `If-None-Match` on PUT decide it;
//! for the others we read, compare and write, which is safe only under the session's lease, and
//! say so once. Which it is, is tried out: a server that does not know a header ignores it.

use bytes::Bytes;
use sha2::Digest as _;
use tokio::io::AsyncReadExt as _;

use crate::model::{Sha256, Timestamp};
use crate::objects::s3::answer::Failure;
use crate::objects::s3::wall::{Again, SUM_HEADER, TIME_HEADER};
use crate::objects::s3::{S3, download, list};
use crate::world::{StoreErrorKind, Swap};

/// Where it is tried out, under the store's prefix; a name that no user can have.
pub(super) const TRIAL_KEY: &str = ".docket/conditional-writes";
const TRIAL: &[u8] = b"docket tries here whether this store knows conditional writes\n";
/// An ETag that no content has.
const NO_ETAG: &str = "\"00000000000000000000000000000000\"";

/// Which conditions on PUT the server keeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Support {
    /// `If-None-Match: *`.
    pub(super) if_none_match: bool,
    /// `If-Match: "etag"`.
    pub(super) if_match: bool,
}

impl S3 {
    /// Whether the server itself decides conditional writes; if not, docket reads, compares and
    /// writes. For `docket doctor`.
    pub async fn knows_conditional_writes(&self) -> Result<bool, crate::world::StoreError> {
        let support = self.support().await;
        let support = support.map_err(super::error("try", TRIAL_KEY))?;
        Ok(support.if_match && support.if_none_match)
    }

    /// Tried out with the first write; a failure to try is not remembered.
    pub(super) async fn support(&self) -> Result<Support, Failure> {
        let mut known = self.support.lock().await;
        if let Some(support) = *known {
            return Ok(support);
        }
        // Some servers make a bucket of whatever is written to.
        list::see_bucket(&self.wall).await?;
        let full = self.wall.place.full(TRIAL_KEY);
        let full = full.map_err(|text| Failure::new(StoreErrorKind::Invalid, text))?;
        let put = |condition: Option<(&str, &str)>| {
            let bytes = Bytes::from_static(TRIAL);
            let request = Again::new("PUT", &self.wall.place, &full, bytes);
            match condition {
                Some((name, value)) => request.header(name, value),
                None => request,
            }
        };
        self.wall.tell(put(None)).await?;
        let support = Support {
            if_none_match: kept(self.wall.tell(put(Some(("if-none-match", "*")))).await)?,
            if_match: kept(self.wall.tell(put(Some(("if-match", NO_ETAG)))).await)?,
        };
        if !(support.if_match && support.if_none_match) {
            tracing::warn!(
                if_match = support.if_match,
                if_none_match = support.if_none_match,
                "this store does not know conditional writes: docket reads, compares and writes; \
                 let nobody else write to its prefix"
            );
        }
        *known = Some(support);
        Ok(support)
    }

    /// See [`crate::world::Objects::put_if`].
    pub(super) async fn swap(
        &self,
        key: &str,
        full: &str,
        bytes: Bytes,
        expected: Option<&str>,
        at: Timestamp,
    ) -> Result<Swap, Failure> {
        let support = self.support().await?;
        let sum = Sha256(sha2::Sha256::digest(&bytes).into());
        let request = Again::new("PUT", &self.wall.place, full, Bytes::new())
            .with(bytes.clone(), sum)
            .header(SUM_HEADER, &sum.hex())
            .header(TIME_HEADER, &at.to_rfc3339_opts(chrono::SecondsFormat::Millis, true));
        let request = match expected {
            None if support.if_none_match => request.header("if-none-match", "*"),
            Some(etag) if support.if_match => request.header("if-match", &format!("\"{etag}\"")),
            _ => return self.compare_and_write(key, full, &bytes, expected, request).await,
        };
        let failure = match self.wall.tell(request).await {
            Ok(headers) => match headers.etag() {
                Some(etag) => return Ok(Swap::Done(etag)),
                None => Failure::new(StoreErrorKind::Corrupt, "written without an ETag"),
            },
            Err(failure) => failure,
        };
        let gone = failure.kind == StoreErrorKind::NotFound && expected.is_some();
        let decided = failure.is_precondition() || gone;
        let lost_answer =
            matches!(failure.kind, StoreErrorKind::Unavailable | StoreErrorKind::Corrupt);
        if !decided && !lost_answer {
            return Err(failure);
        }
        // The condition may have failed on our own first attempt, whose answer was lost.
        match self.there(key, full).await {
            Ok(Some((etag, there))) if there == bytes => Ok(Swap::Done(etag)),
            Ok(_) if decided => Ok(Swap::Lost),
            Err(unseen) if decided => Err(unseen),
            _ => Err(failure),
        }
    }

    async fn compare_and_write(
        &self,
        key: &str,
        full: &str,
        bytes: &Bytes,
        expected: Option<&str>,
        request: Again,
    ) -> Result<Swap, Failure> {
        let before = self.there(key, full).await?;
        match &before {
            Some((etag, there)) if there == bytes => return Ok(Swap::Done(etag.clone())),
            before if before.as_ref().map(|(etag, _)| etag.as_str()) != expected => {
                return Ok(Swap::Lost);
            }
            _ => {}
        }
        let written = self.wall.tell(request).await;
        match (self.there(key, full).await, written) {
            (Ok(Some((etag, there))), _) if there == *bytes => Ok(Swap::Done(etag)),
            (_, Err(failure)) | (Err(failure), Ok(_)) => Err(failure),
            (Ok(_), Ok(_)) => Ok(Swap::Lost),
        }
    }

    /// The small object that is there now: its ETag and contents.
    async fn there(&self, key: &str, full: &str) -> Result<Option<(String, Vec<u8>)>, Failure> {
        let opened = match download::open(&self.wall, key, full, 0, None).await {
            Ok(opened) => opened,
            Err(failure) if failure.kind == StoreErrorKind::NotFound => return Ok(None),
            Err(failure) => return Err(failure),
        };
        let etag = opened.meta.etag.clone();
        let mut bytes = Vec::new();
        let mut body = download::body(&self.wall, full.to_owned(), opened);
        let read = body.read_to_end(&mut bytes).await;
        read.map_err(|error| Failure::new(StoreErrorKind::Unavailable, error.to_string()))?;
        Ok(Some((etag, bytes)))
    }
}

/// Whether a write under a condition that cannot hold was refused, as it should be.
fn kept(answer: Result<super::wall::Headers, Failure>) -> Result<bool, Failure> {
    match answer {
        Ok(_) => Ok(false),
        Err(failure) if failure.is_precondition() => Ok(true),
        Err(failure) if failure.is_not_implemented() => Ok(false),
        Err(failure) => Err(failure),
    }
}
