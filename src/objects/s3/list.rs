//! Listings: every page, every key, or an error. A listing that lacks something would look like
//! deletions.
//!
//! Keys are asked for percent-encoded, since XML cannot hold a control character. How a server
//! encodes is learned and not believed: one says it did and did not, so that `a%20b` and `a b`
//! would be one file. The first page on which it matters is asked for a second time as it is.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use percent_encoding::percent_decode_str;
use rusoto_s3::S3 as _;

use crate::objects::s3::answer::Failure;
use crate::objects::s3::conditional::TRIAL_KEY;
use crate::objects::s3::meta;
use crate::objects::s3::wall::{Answer, Wall};
use crate::world::{ObjectMeta, StoreErrorKind};

/// Pages in a row that may hold nothing and yet promise more.
const EMPTY_PAGES_MAX: u32 = 100;

/// What a server does that was asked for `encoding-type=url`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Encoding {
    /// Nothing.
    Plain,
    /// As in a path: a plus is a plus.
    Percent,
    /// As in a form: a plus is a space. Amazon's.
    Form,
}

impl Encoding {
    const ALL: [Encoding; 3] = [Encoding::Plain, Encoding::Percent, Encoding::Form];

    fn decode(self, text: &str) -> Option<String> {
        let spaced = match self {
            Encoding::Plain => return Some(text.to_owned()),
            Encoding::Percent => text.to_owned(),
            Encoding::Form => text.replace('+', " "),
        };
        percent_decode_str(&spaced).decode_utf8().ok().map(Into::into)
    }
}

/// Everything below a full prefix, sorted, by the store's own keys.
pub(super) async fn all(wall: &Arc<Wall>, prefix: &str) -> Result<Vec<ObjectMeta>, Failure> {
    let mut found = Vec::new();
    let mut token: Option<String> = None;
    let mut empty = 0;
    loop {
        let page = page(wall, prefix, token.clone(), true).await?;
        let keys = keys(wall, prefix, token.as_deref(), &page).await?;
        empty = if keys.is_empty() { empty + 1 } else { 0 };
        for (key, object) in keys.into_iter().zip(page.contents.unwrap_or_default()) {
            let known = wall.place.relative(&key).filter(|_| key.starts_with(prefix));
            let known = known.ok_or_else(|| corrupt("has a key that was not asked for"))?;
            // Some servers list without ETags: empty then, HEAD knows it.
            let etag = Some(object.e_tag.unwrap_or_default());
            found.push(meta(known, object.size, etag, object.last_modified)?);
        }
        match (page.is_truncated, page.next_continuation_token) {
            (Some(false), _) => break,
            (Some(true), next) if next.is_some() && next != token && empty < EMPTY_PAGES_MAX => {
                token = next;
            }
            (Some(true), _) => return Err(corrupt("promises more and does not say where")),
            (None, _) => return Err(corrupt("does not say whether it is complete")),
        }
    }
    if found.is_empty() {
        see_bucket(wall).await?;
    }
    found.sort_by(|a: &ObjectMeta, b| a.key.cmp(&b.key));
    found.dedup_by(|a, b| a.key == b.key);
    // The store's own.
    found.retain(|object| object.key != TRIAL_KEY);
    Ok(found)
}

/// Absence is believed if the bucket is there: some servers say of a missing bucket that the key
/// is missing, or list it as empty.
pub(super) async fn see_bucket(wall: &Arc<Wall>) -> Result<(), Failure> {
    if wall.bucket_seen.load(Ordering::Relaxed) {
        return Ok(());
    }
    let request =
        rusoto_s3::HeadBucketRequest { bucket: wall.place.bucket.clone(), ..Default::default() };
    let asked =
        wall.ask(Answer::Bare, |client| async move { client.head_bucket(request).await }).await;
    match asked {
        Ok(()) => wall.bucket_seen.store(true, Ordering::Relaxed),
        Err(failure) if failure.kind == StoreErrorKind::NotFound => {
            let text = "404 NoSuchBucket (create the bucket or correct `store`)";
            return Err(Failure::new(StoreErrorKind::Denied, text));
        }
        Err(failure) => return Err(failure),
    }
    Ok(())
}

async fn page(
    wall: &Arc<Wall>,
    prefix: &str,
    token: Option<String>,
    encoded: bool,
) -> Result<rusoto_s3::ListObjectsV2Output, Failure> {
    let request = rusoto_s3::ListObjectsV2Request {
        bucket: wall.place.bucket.clone(),
        prefix: Some(prefix.to_owned()),
        continuation_token: token,
        encoding_type: encoded.then(|| "url".to_owned()),
        max_keys: Some(i64::from(wall.limits.page)),
        ..Default::default()
    };
    wall.ask(Answer::Xml("ListBucketResult"), |client| async move {
        client.list_objects_v2(request).await
    })
    .await
}

/// The keys of a page, as they are.
async fn keys(
    wall: &Arc<Wall>,
    prefix: &str,
    token: Option<&str>,
    page: &rusoto_s3::ListObjectsV2Output,
) -> Result<Vec<String>, Failure> {
    let written = written(page)?;
    let matters = written.iter().any(|key| key.contains(['%', '+']));
    if !matters || page.encoding_type.as_deref() != Some("url") {
        return Ok(written.into_iter().map(str::to_owned).collect());
    }
    let decoded = |encoding: Encoding| -> Option<Vec<String>> {
        written.iter().map(|key| encoding.decode(key)).collect()
    };
    let learned = wall.encoding.get().copied();
    if let Some(encoding) = learned {
        return decoded(encoding).ok_or_else(|| corrupt("has a key that is not UTF-8"));
    }
    let plain = match self::page(wall, prefix, token.map(str::to_owned), false).await {
        Ok(plain) => plain,
        // As it is it cannot be read: encoding it did help, then.
        Err(failure) if failure.kind == StoreErrorKind::Corrupt => {
            return decoded(Encoding::Form).ok_or_else(|| corrupt("has a key that is not UTF-8"));
        }
        Err(failure) => return Err(failure),
    };
    let plain: Vec<String> = self::written(&plain)?.into_iter().map(str::to_owned).collect();
    let fits: Vec<Encoding> = Encoding::ALL
        .into_iter()
        .filter(|encoding| decoded(*encoding).as_ref() == Some(&plain))
        .collect();
    match fits[..] {
        [] => Err(Failure::new(StoreErrorKind::Unavailable, "objects came while they were listed")),
        [only] => {
            // Somebody else may have learned it at the same time: the same.
            let _ = wall.encoding.set(only);
            Ok(plain)
        }
        _ => Ok(plain),
    }
}

/// The keys of a page as they are written in it.
fn written(page: &rusoto_s3::ListObjectsV2Output) -> Result<Vec<&str>, Failure> {
    let contents = page.contents.as_deref().unwrap_or_default();
    if page.key_count.is_some_and(|count| usize::try_from(count) != Ok(contents.len())) {
        return Err(corrupt("has not as many entries as it says"));
    }
    let keys = contents.iter().map(|object| object.key.as_deref());
    keys.collect::<Option<_>>().ok_or_else(|| corrupt("has an entry without key"))
}

fn corrupt(what: &str) -> Failure {
    Failure::new(StoreErrorKind::Corrupt, format!("the listing {what}"))
}
