//! Uploads in parts that nobody will ever finish: those of an operator that was killed. Their
//! parts cost space and are seen in no listing of objects.

use std::time::Duration;

use rusoto_s3::S3 as _;

use crate::model::Timestamp;
use crate::objects::s3::answer::Failure;
use crate::objects::s3::upload::Begun;
use crate::objects::s3::wall::Answer;
use crate::objects::s3::{S3, error, list, time};
use crate::world::{StoreError, StoreErrorKind};

/// Pages of a listing that are looked at in one go; the rest the next time.
const PAGES: u32 = 100;

impl S3 {
    /// Aborts unfinished uploads below the store's prefix that docket began, that are not under way
    /// in this process, and that are older than this. How many it were; a server that cannot list
    /// them keeps them.
    ///
    /// # Errors
    /// [`StoreError`] of the listing; what cannot be aborted is logged.
    pub async fn abort_stale(&self, now: Timestamp, older: Duration) -> Result<u64, StoreError> {
        let stale = match self.stale(now, older).await {
            Ok(stale) => stale,
            Err(failure) if failure.is_not_implemented() => return Ok(0),
            Err(failure) => return Err(error("list uploads", "")(failure)),
        };
        let count = stale.len() as u64;
        for begun in stale {
            begun.abort().await;
        }
        Ok(count)
    }

    async fn stale(&self, now: Timestamp, older: Duration) -> Result<Vec<Begun>, Failure> {
        list::see_bucket(&self.wall).await?;
        let prefix = self.wall.place.full_prefix("");
        let prefix = prefix.map_err(|text| Failure::new(StoreErrorKind::Invalid, text))?;
        let (mut found, mut markers) = (Vec::new(), (None, None));
        for _ in 0..PAGES {
            let request = rusoto_s3::ListMultipartUploadsRequest {
                bucket: self.wall.place.bucket.clone(),
                prefix: Some(prefix.clone()),
                key_marker: markers.0.take(),
                upload_id_marker: markers.1.take(),
                ..Default::default()
            };
            let page = self
                .wall
                .ask(Answer::Xml("ListMultipartUploadsResult"), |client| async move {
                    client.list_multipart_uploads(request).await
                })
                .await?;
            for upload in page.uploads.unwrap_or_default() {
                let (Some(key), Some(id)) = (upload.key, upload.upload_id) else { continue };
                let begun = upload.initiated.and_then(|text| time(&text));
                let age = begun.and_then(|begun| (now - begun).to_std().ok());
                let ours = self.wall.place.relative(&key).is_some_and(is_ours);
                if ours && age.is_some_and(|age| age >= older) && !self.wall.is_under_way(&id) {
                    found.push(Begun::of_another(&self.wall, key, id));
                }
            }
            if page.is_truncated != Some(true) {
                break;
            }
            markers = (page.next_key_marker, page.next_upload_id_marker);
        }
        Ok(found)
    }
}

/// Whether a key is one that docket gives: `...@{12 or 64 hex digits}` in somebody's case.
fn is_ours(key: &str) -> bool {
    let hex = |text: &str| text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
    let sum = key.rsplit_once('@').map(|(_, sum)| sum);
    let inside = key.split('/').nth(2).is_some_and(|part| matches!(part, "files" | "long"));
    inside && sum.is_some_and(|sum| matches!(sum.len(), 12 | 64) && hex(sum))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_keys_that_docket_gives_are_its_own() {
        assert!(is_ours("ann/one/files/a b.pdf@0123456789ab"));
        assert!(is_ours(&format!("ann/one/long/{0}@{0}", "0f".repeat(32))));
        for other in ["ann/one/files/a.pdf", "ann/one/x@0123456789ab", "ann/one/files/a@0123", "a"]
        {
            assert!(!is_ours(other), "{other}");
        }
    }
}
