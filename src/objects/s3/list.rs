//! Listings: every page, every key, or an error. A listing that lacks something would look like
//! deletions.

use std::sync::Arc;

use percent_encoding::percent_decode_str;
use rusoto_s3::S3 as _;

use crate::objects::s3::answer::Failure;
use crate::objects::s3::meta;
use crate::objects::s3::wall::{Answer, Wall};
use crate::world::{ObjectMeta, StoreErrorKind};

/// Pages in a row that may hold nothing and yet promise more.
const EMPTY_PAGES_MAX: u32 = 100;

/// Everything below a full prefix, sorted, by the store's own keys.
pub(super) async fn all(wall: &Arc<Wall>, prefix: &str) -> Result<Vec<ObjectMeta>, Failure> {
    let mut found = Vec::new();
    let mut token: Option<String> = None;
    let mut empty = 0;
    loop {
        let page = page(wall, prefix, token.clone()).await?;
        let objects = objects(wall, prefix, &page)?;
        empty = if objects.is_empty() { empty + 1 } else { 0 };
        found.extend(objects);
        match (page.is_truncated, page.next_continuation_token) {
            (Some(false), _) => break,
            (Some(true), next) if next.is_some() && next != token && empty < EMPTY_PAGES_MAX => {
                token = next;
            }
            (Some(true), _) => return Err(corrupt("promises more and does not say where")),
            (None, _) => return Err(corrupt("does not say whether it is complete")),
        }
    }
    found.sort_by(|a: &ObjectMeta, b| a.key.cmp(&b.key));
    found.dedup_by(|a, b| a.key == b.key);
    Ok(found)
}

async fn page(
    wall: &Arc<Wall>,
    prefix: &str,
    token: Option<String>,
) -> Result<rusoto_s3::ListObjectsV2Output, Failure> {
    let request = rusoto_s3::ListObjectsV2Request {
        bucket: wall.place.bucket.clone(),
        prefix: Some(prefix.to_owned()),
        continuation_token: token,
        // A key with a control character cannot be written in XML otherwise.
        encoding_type: Some("url".to_owned()),
        max_keys: Some(i64::from(wall.limits.page)),
        ..Default::default()
    };
    wall.ask(Answer::Xml("ListBucketResult"), |client| async move {
        client.list_objects_v2(request).await
    })
    .await
}

fn objects(
    wall: &Wall,
    prefix: &str,
    page: &rusoto_s3::ListObjectsV2Output,
) -> Result<Vec<ObjectMeta>, Failure> {
    let contents = page.contents.as_deref().unwrap_or_default();
    if page.key_count.is_some_and(|count| usize::try_from(count) != Ok(contents.len())) {
        return Err(corrupt("has not as many entries as it says"));
    }
    let encoded = page.encoding_type.as_deref() == Some("url");
    contents
        .iter()
        .map(|object| {
            let key = object.key.as_deref().ok_or_else(|| corrupt("has an entry without key"))?;
            let key = if encoded { decoded(key)? } else { key.to_owned() };
            let known = wall.place.relative(&key).filter(|_| key.starts_with(prefix));
            let known = known.ok_or_else(|| corrupt("has a key that was not asked for"))?;
            meta(known, object.size, object.e_tag.clone(), object.last_modified.clone())
        })
        .collect()
}

/// Form encoding: a plus is a space, a plus sign is `%2B`.
fn decoded(key: &str) -> Result<String, Failure> {
    let key = key.replace('+', " ");
    let text = percent_decode_str(&key).decode_utf8();
    text.map(Into::into).map_err(|_| corrupt("has a key that is not UTF-8"))
}

fn corrupt(what: &str) -> Failure {
    Failure::new(StoreErrorKind::Corrupt, format!("the listing {what}"))
}
