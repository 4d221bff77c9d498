//! The wall around rusoto: builds with its requests and signatures, sends by our own transport,
//! and shows its parsers only what passed the guard.
//!
//! 1. rusoto builds a request (or we do, where it has no field for a header) in path style.
//! 2. Each attempt is addressed, signed and sent anew: a body that can be sent again, fresh
//!    credentials, a fresh date.
//! 3. The answer is judged here. rusoto sees a checked success or nothing; the caller gets the
//!    [`Failure`] itself, whose kind says what may be done.

use std::fmt;
use std::future::Future;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use chrono::Utc;
use futures_util::{StreamExt as _, TryStreamExt as _};
use hyper::body::Incoming;
use hyper::{HeaderMap, Request, Response};
use rusoto_core::request::{DispatchSignedRequestFuture, HttpResponse};
use rusoto_core::signature::{SignedRequest, SignedRequestPayload};
use rusoto_core::{
    ByteStream, Client, DispatchSignedRequest, HttpDispatchError, Region, RusotoError,
};
use rusoto_s3::S3Client;

use crate::model::{Sha256, Timestamp};
use crate::objects::s3::Limits;
use crate::objects::s3::answer::{self, Failure};
use crate::objects::s3::credentials::Credentials;
use crate::objects::s3::list::Encoding;
use crate::objects::s3::name::Place;
use crate::objects::s3::pace::{Pace, Turn};
use crate::objects::s3::retry::{Attempts, Patience, Shared};
use crate::objects::s3::sign;
use crate::objects::s3::transport::{Transport, TransportError};
use crate::world::StoreErrorKind;

/// Longest document of a store: 1000 keys of 1 KiB, each percent-encoded.
const DOCUMENT_MAX: usize = 16 << 20;
/// Longest answer whose body says nothing.
const REFUSAL_MAX: usize = 256 << 10;
/// Hashing a body longer than this for its signature is not done on the async threads.
const SIGN_INLINE_MAX: usize = 256 << 10;
/// The headers that rusoto's readers and ours may see; the others could only make them panic.
const HEADERS: [&str; 7] = [
    "etag",
    "content-length",
    "content-range",
    "last-modified",
    SUM_HEADER,
    TIME_HEADER,
    "x-amz-request-id",
];
/// Where an object's sha256 is kept beside it.
pub(super) const SUM_HEADER: &str = "x-amz-meta-docket-sha256";
/// Where it is kept when an object was written: the store itself tells whole seconds only.
pub(super) const TIME_HEADER: &str = "x-amz-meta-docket-written";

/// What a good answer looks like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// A document with this root.
    Xml(&'static str),
    /// Headers only.
    Bare,
    /// An object's bytes.
    Stream,
    /// The rest of an object's bytes, for who holds memory for them: it does not wait for a turn.
    Rest,
}

/// Everything that requests to one store share.
pub(super) struct Wall {
    pub(super) place: Place,
    pub(super) limits: Limits,
    /// How this server encodes keys in listings, once it showed.
    pub(super) encoding: OnceLock<Encoding>,
    /// Whether the bucket was seen; see [`crate::objects::s3::list::see_bucket`].
    pub(super) bucket_seen: AtomicBool,
    /// Ids of uploads in parts that this process works on.
    under_way: Mutex<std::collections::BTreeSet<String>>,
    transport: Transport,
    credentials: Credentials,
    shared: Shared,
    pace: Pace,
}

impl fmt::Debug for Wall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Wall").field("place", &self.place).finish_non_exhaustive()
    }
}

impl Wall {
    pub(super) fn new(
        place: Place,
        limits: Limits,
        transport: Transport,
        credentials: Credentials,
        pace: Pace,
    ) -> Wall {
        let (shared, encoding) = (Shared::new(), OnceLock::new());
        let bucket_seen = AtomicBool::new(false);
        let under_way = Mutex::default();
        Wall {
            place,
            limits,
            encoding,
            bucket_seen,
            under_way,
            transport,
            credentials,
            shared,
            pace,
        }
    }

    /// Whether this process works on an upload in parts.
    pub(super) fn is_under_way(&self, id: &str) -> bool {
        self.under_way.lock().unwrap_or_else(PoisonError::into_inner).contains(id)
    }

    pub(super) fn note_under_way(&self, id: &str, begun: bool) {
        let mut all = self.under_way.lock().unwrap_or_else(PoisonError::into_inner);
        let _known = if begun { all.insert(id.to_owned()) } else { all.remove(id) };
    }

    pub(super) fn patience(&self) -> Patience {
        self.limits.patience()
    }

    /// How often a failed stream may be taken up again, out of the same budget.
    pub(super) fn retry_after(
        &self,
        attempts: &mut Attempts,
        failure: &Failure,
    ) -> Option<Duration> {
        attempts.after(failure, &self.shared)
    }

    /// Makes a call of rusoto's client through the wall. Its panics on odd values end here.
    pub(super) async fn ask<T, E, F>(
        self: &Arc<Self>,
        answer: Answer,
        call: impl FnOnce(S3Client) -> F,
    ) -> Result<T, Failure>
    where
        F: Future<Output = Result<T, RusotoError<E>>>,
    {
        let verdict = Arc::default();
        let door = Door { wall: Arc::clone(self), answer, verdict: Arc::clone(&verdict) };
        // Without credentials: signing is done by the door, once an attempt.
        let client = Client::new_not_signing(door);
        let client = S3Client::new_with_client(client, self.place.region.clone());
        let asked = crate::contain::contained_while(call(client)).await;
        let failed = verdict.lock().unwrap_or_else(PoisonError::into_inner).take();
        match (asked, failed) {
            (Ok(Ok(good)), _) => Ok(good),
            (_, Some(failure)) => Err(failure),
            (Ok(Err(error)), None) => Err(Failure::new(StoreErrorKind::Corrupt, what(error))),
            (Err(_), None) => {
                let text = "the answer has a value that cannot be read";
                Err(Failure::new(StoreErrorKind::Corrupt, text))
            }
        }
    }

    /// Sends a hand-built request; the answer's headers.
    pub(super) async fn tell(self: &Arc<Self>, request: Again) -> Result<Headers, Failure> {
        self.attempt_all(&request, Answer::Bare).await.map(|good| good.headers)
    }

    /// All attempts of a request. Small calls have a deadline over all of it.
    async fn attempt_all(&self, request: &Again, answer: Answer) -> Result<Good, Failure> {
        request.check()?;
        let attempts = self.attempts(request, answer);
        if matches!(answer, Answer::Stream | Answer::Rest) || request.body.len() > SIGN_INLINE_MAX {
            return attempts.await;
        }
        // A store takes its time to put many parts together.
        let long = answer == Answer::Xml("CompleteMultipartUploadResult");
        let within = self.limits.total * if long { 5 } else { 1 };
        tokio::time::timeout(within, attempts).await.unwrap_or_else(|_| {
            let text = format!("no answer within {} s", within.as_secs_f32());
            Err(Failure::new(StoreErrorKind::Unavailable, text))
        })
    }

    async fn attempts(&self, request: &Again, answer: Answer) -> Result<Good, Failure> {
        let mut attempts = Attempts::new(self.patience());
        let mut fresh_credentials = true;
        loop {
            self.shared.keep_peace().await;
            let failure = match self.attempt(request, answer).await {
                Ok(good) => {
                    self.shared.refund();
                    return Ok(good);
                }
                Err(failure) => failure,
            };
            if failure.is_stale_credentials() && self.credentials.forget() && fresh_credentials {
                fresh_credentials = false;
                continue;
            }
            let Some(wait) = attempts.after(&failure, &self.shared) else { return Err(failure) };
            tracing::debug!(
                method = %request.method, why = %failure.message, ?wait, "store request again"
            );
            tokio::time::sleep(wait).await;
        }
    }

    async fn attempt(&self, request: &Again, answer: Answer) -> Result<Good, Failure> {
        let mut turn = match answer {
            Answer::Rest => self.pace.turn_now(),
            _ => self.pace.turn().await.ok_or_else(|| internal("no turns"))?,
        };
        let keys = self.credentials.get(&self.transport).await?;
        let signed = request.address(&self.place).sign(keys).await?;
        let response = self.transport.send(signed).await.map_err(|error| {
            if matches!(error, TransportError::Stalled(_)) {
                self.pace.refused();
            }
            transport_failure(&error)
        })?;
        turn.moved(request.body.len());
        let good = self.judge(request, answer, response, turn).await;
        if good.as_ref().is_err_and(Failure::is_too_much) {
            self.pace.refused();
        }
        good
    }

    async fn judge(
        &self,
        request: &Again,
        answer: Answer,
        response: Response<Incoming>,
        turn: Turn,
    ) -> Result<Good, Failure> {
        let (head, body) = response.into_parts();
        let status = head.status.as_u16();
        if !head.status.is_success() {
            let retry_after = retry_after(&head.headers);
            let body = self.transport.whole(body, REFUSAL_MAX).await.unwrap_or_default();
            let bare = request.method == "HEAD";
            return Err(answer::classify(status, &body, bare, retry_after));
        }
        let headers = Headers::read(&head.headers)?;
        let body = match answer {
            Answer::Stream | Answer::Rest => {
                let stream = self.transport.stream(body, Some(turn));
                ByteStream::new(stream.map_err(std::io::Error::other).boxed())
            }
            Answer::Bare => {
                let whole = self.transport.whole(body, REFUSAL_MAX).await;
                answer::no_error_inside(&whole.map_err(|error| transport_failure(&error))?)?;
                ByteStream::from(Vec::new())
            }
            Answer::Xml(root) => {
                let whole = self.transport.whole(body, DOCUMENT_MAX).await;
                let whole = whole.map_err(|error| transport_failure(&error))?;
                ByteStream::from(answer::whole_document(&whole, root)?.to_vec())
            }
        };
        Ok(Good { status, headers, body })
    }
}

/// A checked success.
struct Good {
    status: u16,
    headers: Headers,
    body: ByteStream,
}

/// The answer's headers that anybody may see.
#[derive(Clone, Debug, Default)]
pub(super) struct Headers(Vec<(&'static str, String)>);

impl Headers {
    fn read(all: &HeaderMap) -> Result<Headers, Failure> {
        let mut kept = Vec::new();
        for name in HEADERS {
            let Some(value) = all.get(name) else { continue };
            // Others have been seen to send Latin-1: not for us to read.
            let Ok(text) = value.to_str() else { continue };
            if name == "content-length" && text.parse::<i64>().is_err() {
                let text = "the answer's length is not a number";
                return Err(Failure::passing(StoreErrorKind::Corrupt, text));
            }
            kept.push((name, text.to_owned()));
        }
        Ok(Headers(kept))
    }

    /// The object's version, if the answer names one.
    pub(super) fn etag(&self) -> Option<String> {
        let found = self.0.iter().find(|(name, _)| *name == "etag");
        found.map(|(_, value)| bare_etag(value)).filter(|etag| !etag.is_empty())
    }
}

/// An ETag without the quotes that some answers have and others lack.
pub(super) fn bare_etag(text: &str) -> String {
    text.trim().trim_matches('"').to_owned()
}

/// rusoto's side of the wall: takes its requests, gives back checked answers.
struct Door {
    wall: Arc<Wall>,
    answer: Answer,
    verdict: Arc<Mutex<Option<Failure>>>,
}

impl DispatchSignedRequest for Door {
    fn dispatch(&self, request: SignedRequest, _: Option<Duration>) -> DispatchSignedRequestFuture {
        let wall = Arc::clone(&self.wall);
        let verdict = Arc::clone(&self.verdict);
        let answer = self.answer;
        Box::pin(async move {
            let asked = match Again::of(request) {
                Ok(request) => wall.attempt_all(&request, answer).await,
                Err(failure) => Err(failure),
            };
            asked.and_then(response).map_err(|failure| {
                let text = failure.message.clone();
                *verdict.lock().unwrap_or_else(PoisonError::into_inner) = Some(failure);
                HttpDispatchError::new(text)
            })
        })
    }
}

fn response(good: Good) -> Result<HttpResponse, Failure> {
    let status = good.status.try_into().map_err(|_| internal("an odd status"))?;
    let headers = good.headers.0.into_iter();
    let headers = headers.filter_map(|(name, value)| Some((name.parse().ok()?, value))).collect();
    Ok(HttpResponse { status, body: good.body, headers })
}

/// A request that can be sent any number of times.
#[derive(Clone)]
pub(super) struct Again {
    method: String,
    service: String,
    region: Region,
    path: String,
    headers: std::collections::BTreeMap<String, Vec<Vec<u8>>>,
    params: rusoto_core::signature::Params,
    body: Bytes,
    /// Of the body, where it is known.
    sum: Option<Sha256>,
}

impl Again {
    /// A request that rusoto does not know how to build.
    pub(super) fn new(method: &str, place: &Place, full_key: &str, body: Bytes) -> Again {
        Again {
            method: method.to_owned(),
            service: "s3".to_owned(),
            region: place.region.clone(),
            path: format!("/{}/{full_key}", place.bucket),
            headers: std::collections::BTreeMap::new(),
            params: std::collections::BTreeMap::new(),
            body,
            sum: None,
        }
    }

    /// With a body whose sum is known: whoever says so has just found it out.
    #[must_use]
    pub(super) fn with(self, body: Bytes, sum: Sha256) -> Again {
        Again { body, sum: Some(sum), ..self }
    }

    /// With a header.
    #[must_use]
    pub(super) fn header(mut self, name: &str, value: &str) -> Again {
        self.headers.insert(name.to_ascii_lowercase(), vec![value.as_bytes().to_vec()]);
        self
    }

    /// With a parameter.
    #[must_use]
    pub(super) fn param(mut self, name: &str, value: &str) -> Again {
        self.params.insert(name.to_owned(), Some(value.to_owned()));
        self
    }

    fn of(request: SignedRequest) -> Result<Again, Failure> {
        let body = match request.payload {
            None => Bytes::new(),
            Some(SignedRequestPayload::Buffer(bytes)) => bytes,
            Some(SignedRequestPayload::Stream(_)) => {
                return Err(internal("a body that can be sent once only"));
            }
        };
        // What the first signature depended on is made anew for each attempt.
        let mut headers = request.headers;
        headers.remove("host");
        headers.remove("content-length");
        Ok(Again {
            method: request.method,
            service: request.service,
            region: request.region,
            path: request.path,
            headers,
            params: request.params,
            body,
            sum: None,
        })
    }

    /// The signature covers header values with their white space folded; servers fold differently.
    fn check(&self) -> Result<(), Failure> {
        for (name, values) in &self.headers {
            let plain = |value: &Vec<u8>| {
                value.iter().all(|byte| (b' '..=b'~').contains(byte))
                    && !value.windows(2).any(|pair| pair == b"  ")
                    && value.first() != Some(&b' ')
                    && value.last() != Some(&b' ')
            };
            if !values.iter().all(plain) {
                let text = format!("header {name} has a value that cannot be signed");
                return Err(Failure::new(StoreErrorKind::Invalid, text));
            }
        }
        Ok(())
    }

    /// Addressed to the store: the bucket in the path or in the host's name.
    fn address(&self, place: &Place) -> Addressed {
        let mut signed = SignedRequest::new(&self.method, &self.service, &self.region, &self.path);
        signed.headers.clone_from(&self.headers);
        signed.params.clone_from(&self.params);
        if !self.body.is_empty() {
            signed.set_payload(Some(self.body.clone()));
        }
        if !place.path_style
            && let Some(rest) = self.path.strip_prefix(&format!("/{}", place.bucket))
        {
            let host = signed.hostname();
            signed.set_hostname(Some(format!("{}.{host}", place.bucket)));
            signed.path = if rest.is_empty() { "/".to_owned() } else { rest.to_owned() };
        }
        Addressed { signed, body: self.body.clone(), sum: self.sum }
    }
}

struct Addressed {
    signed: SignedRequest,
    body: Bytes,
    sum: Option<Sha256>,
}

impl Addressed {
    /// The signature covers the body's sha256: what arrives otherwise is refused by the store.
    async fn sign(
        self,
        keys: rusoto_credential::AwsCredentials,
    ) -> Result<Request<Bytes>, Failure> {
        let Addressed { mut signed, body, sum } = self;
        let sum = match sum {
            Some(sum) => sum,
            None if body.len() > SIGN_INLINE_MAX => {
                let body = body.clone();
                let summing = tokio::task::spawn_blocking(move || sign::sum(&body));
                summing.await.map_err(|_| internal("signing ended"))?
            }
            None => sign::sum(&body),
        };
        sign::sign(&mut signed, &keys, sum, now());
        let query = signed.canonical_query_string();
        let question = if query.is_empty() { "" } else { "?" };
        let uri = format!(
            "{}://{}{}{question}{query}",
            signed.scheme(),
            signed.hostname(),
            signed.canonical_uri()
        );
        let mut request = Request::builder().method(signed.method()).uri(uri);
        for (name, values) in signed.headers() {
            for value in values {
                request = request.header(name, value.as_slice());
            }
        }
        request.body(body).map_err(|_| {
            Failure::new(StoreErrorKind::Invalid, "the key cannot be written as a URL")
        })
    }
}

/// When a signature is made.
#[expect(clippy::disallowed_methods, reason = "the store compares it with its own clock")]
fn now() -> Timestamp {
    Utc::now()
}

fn transport_failure(error: &TransportError) -> Failure {
    let kind = match error {
        TransportError::TooLong(_) => StoreErrorKind::Corrupt,
        _ => StoreErrorKind::Unavailable,
    };
    Failure::passing(kind, answer::words(&error.to_string()))
}

fn internal(what: &str) -> Failure {
    Failure::new(StoreErrorKind::Unavailable, format!("docket's own mistake: {what}"))
}

/// rusoto's own words, which may hold a whole page.
fn what<E>(error: RusotoError<E>) -> String {
    match error {
        RusotoError::ParseError(text) | RusotoError::Validation(text) => answer::words(&text),
        _ => "the answer cannot be understood".to_owned(),
    }
}

/// Seconds; the form with a date is not used by stores.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get("retry-after")?.to_str().ok()?;
    text.trim().parse().ok().map(Duration::from_secs)
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;
    use crate::objects::s3::S3Config;

    fn url(path_style: bool, endpoint: &str, key: &str) -> String {
        let place = Place::parse(&S3Config {
            bucket: "bucket".to_owned(),
            prefix: String::new(),
            endpoint: endpoint.to_owned(),
            region: "eu-west-1".to_owned(),
            path_style,
            ca_file: None,
            max_bandwidth: 0,
            max_concurrent: 0,
        });
        let place = place.unwrap();
        let request = Again::new("PUT", &place, key, Bytes::from_static(b"x")).param("a b", "c/d");
        let keys = rusoto_credential::AwsCredentials::new("K", "S", None, None);
        let signed = request.address(&place).sign(keys).now_or_never().unwrap().unwrap();
        let host = signed.headers()["host"].to_str().unwrap();
        assert_eq!(signed.uri().authority().unwrap().as_str(), host);
        signed.uri().to_string()
    }

    #[test]
    fn the_bucket_is_in_the_path_or_in_the_name_of_the_host() {
        let at = "http://localhost:9000";
        assert_eq!(url(true, at, "a b/c"), "http://localhost:9000/bucket/a%20b/c?a%20b=c%2Fd");
        assert_eq!(url(false, at, "a/c"), "http://bucket.localhost:9000/a/c?a%20b=c%2Fd");
        let amazon = "https://bucket.s3.eu-west-1.amazonaws.com/bucket/k?a%20b=c%2Fd";
        assert_eq!(url(false, "", "bucket/k"), amazon);
    }
}
