//! An S3 server that costs next to nothing, so that the clients are what is measured: objects in
//! memory, one thread, in a process of its own. It keeps what the clients rely on: lengths, ranges,
//! conditions, complete listings, uploads in parts, MD5 as the ETag of what came in one piece. It
//! checks neither signatures nor sums; the tests' servers do that.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{Request, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, Response, StatusCode};
use axum::serve::ListenerExt as _;
use base64::Engine as _;
use http_body_util::BodyExt as _;
use md5::Digest as _;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};

/// A frame smaller than this is copied: what it is cut from would be kept with it.
const COPIED: usize = 32 << 10;
/// As AWS does.
const PAGE: usize = 1000;
const UNRESERVED: &AsciiSet =
    &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~').remove(b'/');

/// What came, as it came.
#[derive(Clone, Default)]
struct Content {
    frames: Vec<Bytes>,
    size: u64,
}

impl Content {
    fn push(&mut self, frame: Bytes) {
        self.size += frame.len() as u64;
        self.frames.push(if frame.len() < COPIED { Bytes::copy_from_slice(&frame) } else { frame });
    }

    /// The bytes from `from` up to `to`.
    fn cut(&self, from: u64, to: u64) -> Vec<Bytes> {
        let (mut at, mut cut) = (0, Vec::new());
        for frame in &self.frames {
            let (begins, ends) = (at, at + frame.len() as u64);
            at = ends;
            let (low, high) = (from.max(begins), to.min(ends));
            if low < high {
                cut.push(frame.slice((low - begins) as usize..(high - begins) as usize));
            }
        }
        cut
    }
}

struct Object {
    content: Content,
    etag: String,
    modified: chrono::DateTime<chrono::Utc>,
    /// Content type and metadata.
    headers: Vec<(HeaderName, HeaderValue)>,
}

struct Upload {
    key: String,
    headers: Vec<(HeaderName, HeaderValue)>,
    parts: BTreeMap<u32, (String, Content)>,
}

#[derive(Default)]
struct Bucket {
    objects: BTreeMap<String, Arc<Object>>,
    uploads: BTreeMap<String, Upload>,
}

#[derive(Default)]
struct Store {
    buckets: BTreeMap<String, Bucket>,
    serial: u64,
}

type Shared = Arc<Mutex<Store>>;

/// An answer that is no success.
struct Refusal(StatusCode, &'static str);

type Answer = Result<Response<Body>, Refusal>;

const NO_BUCKET: Refusal = Refusal(StatusCode::NOT_FOUND, "NoSuchBucket");
const NO_KEY: Refusal = Refusal(StatusCode::NOT_FOUND, "NoSuchKey");
const NO_UPLOAD: Refusal = Refusal(StatusCode::NOT_FOUND, "NoSuchUpload");
const NOT_HELD: Refusal = Refusal(StatusCode::PRECONDITION_FAILED, "PreconditionFailed");
const MALFORMED: Refusal = Refusal(StatusCode::BAD_REQUEST, "InvalidRequest");
const UNKNOWN: Refusal = Refusal(StatusCode::NOT_IMPLEMENTED, "NotImplemented");

/// Serves on a port of its own, which it prints, until stdin ends.
pub fn serve() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        println!("{}", listener.local_addr().unwrap());
        let listener = listener.tap_io(|stream| stream.set_nodelay(true).unwrap());
        let app = Router::new().fallback(answer).with_state(Shared::default());
        tokio::spawn(async move { axum::serve(listener, app).await });
        let (tell, ended) = tokio::sync::oneshot::channel();
        std::thread::spawn(move || {
            let _ended = std::io::copy(&mut std::io::stdin(), &mut std::io::sink());
            tell.send(())
        });
        let _over = ended.await;
    });
}

async fn answer(State(store): State<Shared>, request: Request) -> Response<Body> {
    let (head, body) = request.into_parts();
    let bare = head.method == Method::HEAD;
    match route(&store, &head, body).await {
        Ok(answer) => answer,
        Err(Refusal(status, code)) => {
            let text = format!("<Error><Code>{code}</Code><Message>{code}</Message></Error>");
            let text = if bare { String::new() } else { text };
            let answer =
                Response::builder().status(status).header("content-type", "application/xml");
            answer.body(Body::from(text)).unwrap()
        }
    }
}

async fn route(store: &Shared, head: &Parts, body: Body) -> Answer {
    let path = percent_decode_str(head.uri.path()).decode_utf8().map_err(|_| MALFORMED)?;
    let (bucket, key) = path.trim_start_matches('/').split_once('/').unwrap_or((&path[1..], ""));
    let query = Query::of(head.uri.query().unwrap_or_default())?;
    if !head.headers.contains_key("authorization") {
        return Err(Refusal(StatusCode::FORBIDDEN, "AccessDenied"));
    }
    let content = whole(&head.headers, body).await?;
    let mut store = store.lock().unwrap();
    let method = head.method.as_str();
    if bucket.is_empty() {
        return if method == "GET" { list_buckets(&store) } else { Err(UNKNOWN) };
    }
    if key.is_empty() {
        return match method {
            "PUT" => {
                store.buckets.entry(bucket.to_owned()).or_default();
                Ok(Response::default())
            }
            // With all that is in it: the bench begins anew.
            "DELETE" => {
                store.buckets.remove(bucket).ok_or(NO_BUCKET)?;
                Ok(status(StatusCode::NO_CONTENT))
            }
            "HEAD" => store.buckets.get(bucket).ok_or(NO_BUCKET).map(|_| Response::default()),
            "GET" if query.has("location") => Ok(xml("<LocationConstraint/>".to_owned())),
            "GET" if query.has("uploads") => {
                Ok(xml("<ListMultipartUploadsResult><IsTruncated>false</IsTruncated>\
                 </ListMultipartUploadsResult>"
                    .to_owned()))
            }
            "GET" => list(store.buckets.get(bucket).ok_or(NO_BUCKET)?, &query),
            _ => Err(UNKNOWN),
        };
    }
    store.serial += 1;
    let serial = store.serial;
    let bucket = store.buckets.get_mut(bucket).ok_or(NO_BUCKET)?;
    match (method, query.get("uploadId")) {
        ("POST", None) if query.has("uploads") => begin(bucket, key, &head.headers, serial),
        ("PUT", Some(id)) => put_part(bucket, id, &query, &head.headers, content, serial),
        ("POST", Some(id)) => complete(bucket, id, &content),
        ("DELETE", Some(id)) => {
            bucket.uploads.remove(id).ok_or(NO_UPLOAD)?;
            Ok(status(StatusCode::NO_CONTENT))
        }
        ("PUT", None) => put(bucket, key, &head.headers, content),
        ("HEAD" | "GET", None) => get(bucket, key, &head.headers, method == "HEAD"),
        ("DELETE", None) => {
            bucket.objects.remove(key);
            Ok(status(StatusCode::NO_CONTENT))
        }
        _ => Err(UNKNOWN),
    }
}

/// A request's parameters.
struct Query(BTreeMap<String, String>);

impl Query {
    fn of(text: &str) -> Result<Query, Refusal> {
        let mut all = BTreeMap::new();
        for pair in text.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let value = value.replace('+', " ");
            let value = percent_decode_str(&value).decode_utf8().map_err(|_| MALFORMED)?;
            all.insert(name.to_owned(), value.into_owned());
        }
        Ok(Query(all))
    }

    fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }

    fn has(&self, name: &str) -> bool {
        self.0.contains_key(name)
    }
}

/// All of a body, exactly as long as announced.
async fn whole(headers: &HeaderMap, mut body: Body) -> Result<Content, Refusal> {
    if headers.contains_key("x-amz-copy-source") || headers.contains_key("x-amz-trailer") {
        return Err(UNKNOWN);
    }
    let mut content = Content::default();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|_| Refusal(StatusCode::BAD_REQUEST, "IncompleteBody"))?;
        if let Ok(bytes) = frame.into_data() {
            content.push(bytes);
        }
    }
    let said = headers.get("content-length").and_then(|said| said.to_str().ok()?.parse().ok());
    if said.is_some_and(|said: u64| said != content.size) {
        return Err(Refusal(StatusCode::BAD_REQUEST, "IncompleteBody"));
    }
    Ok(content)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The MD5 that the client says, else the content's.
fn md5_of(headers: &HeaderMap, content: &Content) -> Result<String, Refusal> {
    if let Some(said) = headers.get("content-md5") {
        let said = base64::prelude::BASE64_STANDARD.decode(said.as_bytes());
        return said.map(|sum| hex(&sum)).map_err(|_| MALFORMED);
    }
    let mut sum = md5::Md5::new();
    content.frames.iter().for_each(|frame| sum.update(frame));
    Ok(hex(&sum.finalize()))
}

fn kept(headers: &HeaderMap) -> Vec<(HeaderName, HeaderValue)> {
    let keep =
        |name: &HeaderName| name == "content-type" || name.as_str().starts_with("x-amz-meta-");
    headers.iter().filter(|(name, _)| keep(name)).map(|(n, v)| (n.clone(), v.clone())).collect()
}

fn bare(etag: &HeaderValue) -> &str {
    etag.to_str().unwrap_or_default().trim_matches('"')
}

fn put(bucket: &mut Bucket, key: &str, headers: &HeaderMap, content: Content) -> Answer {
    let there = bucket.objects.get(key);
    if headers.contains_key("if-none-match") && there.is_some() {
        return Err(NOT_HELD);
    }
    if let Some(wanted) = headers.get("if-match")
        && there.ok_or(NO_KEY)?.etag != bare(wanted)
    {
        return Err(NOT_HELD);
    }
    let etag = md5_of(headers, &content)?;
    let answer = Response::builder().header("etag", format!("\"{etag}\""));
    let (modified, headers) = (chrono::Utc::now(), kept(headers));
    bucket.objects.insert(key.to_owned(), Arc::new(Object { content, etag, modified, headers }));
    Ok(answer.body(Body::empty()).unwrap())
}

fn get(bucket: &Bucket, key: &str, headers: &HeaderMap, bare_answer: bool) -> Answer {
    let object = bucket.objects.get(key).ok_or(NO_KEY)?;
    if headers.get("if-match").is_some_and(|wanted| bare(wanted) != object.etag) {
        return Err(NOT_HELD);
    }
    let size = object.content.size;
    let range = headers.get("range").and_then(|range| range_of(range.to_str().ok()?, size));
    let (from, to) = range.unwrap_or((0, size));
    let mut answer = Response::builder()
        .header("etag", format!("\"{}\"", object.etag))
        .header("last-modified", object.modified.format("%a, %d %b %Y %H:%M:%S GMT").to_string())
        .header("accept-ranges", "bytes")
        .header("content-length", to - from);
    if range.is_some() {
        answer = answer
            .status(StatusCode::PARTIAL_CONTENT)
            .header("content-range", format!("bytes {from}-{}/{size}", to - 1));
    }
    for (name, value) in &object.headers {
        answer = answer.header(name, value);
    }
    let frames = object.content.cut(from, to);
    let body = match frames.len() {
        _ if bare_answer => Body::empty(),
        0 => Body::empty(),
        1 => Body::from(frames.into_iter().next().unwrap_or_default()),
        _ => Body::from_stream(futures_util::stream::iter(
            frames.into_iter().map(Ok::<_, std::convert::Infallible>),
        )),
    };
    Ok(answer.body(body).unwrap())
}

fn range_of(text: &str, size: u64) -> Option<(u64, u64)> {
    let (from, to) = text.strip_prefix("bytes=")?.split_once('-')?;
    if from.is_empty() {
        return Some((size.saturating_sub(to.parse().ok()?), size));
    }
    let to = if to.is_empty() { size } else { to.parse::<u64>().ok()?.saturating_add(1).min(size) };
    Some((from.parse().ok()?, to)).filter(|(from, to)| from < to)
}

fn begin(bucket: &mut Bucket, key: &str, headers: &HeaderMap, serial: u64) -> Answer {
    let id = format!("upload-{serial}");
    let upload = Upload { key: key.to_owned(), headers: kept(headers), parts: BTreeMap::new() };
    bucket.uploads.insert(id.clone(), upload);
    let root = "InitiateMultipartUploadResult";
    Ok(xml(format!("<{root}><Key>{}</Key><UploadId>{id}</UploadId></{root}>", escaped(key))))
}

/// The ETag of a part is nobody's business: hashing it would make the server what is measured.
fn put_part(
    bucket: &mut Bucket,
    id: &str,
    query: &Query,
    headers: &HeaderMap,
    content: Content,
    serial: u64,
) -> Answer {
    let upload = bucket.uploads.get_mut(id).ok_or(NO_UPLOAD)?;
    let number = query.get("partNumber").and_then(|n| n.parse().ok()).ok_or(MALFORMED)?;
    let etag = match headers.get("content-md5") {
        Some(_) => md5_of(headers, &content)?,
        None => format!("{serial:032x}"),
    };
    let answer = Response::builder().header("etag", format!("\"{etag}\""));
    upload.parts.insert(number, (etag, content));
    Ok(answer.body(Body::empty()).unwrap())
}

fn complete(bucket: &mut Bucket, id: &str, listed: &Content) -> Answer {
    let upload = bucket.uploads.remove(id).ok_or(NO_UPLOAD)?;
    let text = String::from_utf8_lossy(&listed.frames.concat()).into_owned();
    let numbers =
        text.split("<PartNumber>").skip(1).map(|rest| rest.split('<').next()?.parse().ok());
    let numbers: Vec<u32> = numbers.collect::<Option<_>>().ok_or(MALFORMED)?;
    let (mut content, mut sum) = (Content::default(), md5::Md5::new());
    for number in &numbers {
        let (etag, part) =
            upload.parts.get(number).ok_or(Refusal(StatusCode::BAD_REQUEST, "InvalidPart"))?;
        let digits = (0..32).step_by(2).map(|at| u8::from_str_radix(&etag[at..at + 2], 16));
        sum.update(digits.collect::<Result<Vec<u8>, _>>().map_err(|_| MALFORMED)?);
        content.size += part.size;
        content.frames.extend(part.frames.iter().cloned());
    }
    let etag = format!("{}-{}", hex(&sum.finalize()), numbers.len());
    let (modified, headers, key) = (chrono::Utc::now(), upload.headers, upload.key);
    let root = "CompleteMultipartUploadResult";
    let text = format!("<{root}><Key>{}</Key><ETag>\"{etag}\"</ETag></{root}>", escaped(&key));
    bucket.objects.insert(key, Arc::new(Object { content, etag, modified, headers }));
    Ok(xml(text))
}

fn list_buckets(store: &Store) -> Answer {
    let mut text = "<ListAllMyBucketsResult><Buckets>".to_owned();
    for name in store.buckets.keys() {
        text += &format!(
            "<Bucket><Name>{name}</Name><CreationDate>2026-01-01T00:00:00.000Z</CreationDate></Bucket>"
        );
    }
    Ok(xml(text + "</Buckets></ListAllMyBucketsResult>"))
}

/// Both versions of the listing: they differ in the name of the page's beginning.
fn list(bucket: &Bucket, query: &Query) -> Answer {
    let two = query.get("list-type") == Some("2");
    let prefix = query.get("prefix").unwrap_or_default();
    let delimiter = query.get("delimiter").filter(|text| !text.is_empty());
    let encoded = query.get("encoding-type") == Some("url");
    let most = query.get("max-keys").and_then(|n| n.parse().ok()).unwrap_or(PAGE).min(PAGE);
    let after = ["continuation-token", "start-after", "marker"];
    let after = after.iter().find_map(|name| query.get(name)).unwrap_or_default();
    let written = |key: &str| {
        if encoded { utf8_percent_encode(key, UNRESERVED).to_string() } else { escaped(key) }
    };
    let (mut rows, mut folders, mut last, mut more) =
        (String::new(), Vec::new(), String::new(), false);
    let mut count = 0;
    let begin = after.max(prefix).to_owned();
    for (key, object) in bucket.objects.range(begin..) {
        let Some(rest) = key.strip_prefix(prefix) else { break };
        let folder = delimiter.and_then(|d| Some(format!("{prefix}{}{d}", rest.split_once(d)?.0)));
        let name = folder.as_deref().unwrap_or(key);
        if (!after.is_empty() && name <= after)
            || folder.as_ref().is_some_and(|f| folders.contains(f))
        {
            continue;
        }
        if count == most {
            more = true;
            break;
        }
        count += 1;
        name.clone_into(&mut last);
        match folder {
            Some(folder) => folders.push(folder),
            None => {
                rows += &format!(
                    "<Contents><Key>{}</Key><LastModified>{}</LastModified>\
                     <ETag>&quot;{}&quot;</ETag><Size>{}</Size>\
                     <StorageClass>STANDARD</StorageClass></Contents>",
                    written(key),
                    object.modified.format("%Y-%m-%dT%H:%M:%S%.3fZ"),
                    object.etag,
                    object.content.size
                );
            }
        }
    }
    for folder in folders {
        rows += &format!("<CommonPrefixes><Prefix>{}</Prefix></CommonPrefixes>", written(&folder));
    }
    let kind = if encoded { "<EncodingType>url</EncodingType>" } else { "" };
    let counted = if two { format!("<KeyCount>{count}</KeyCount>") } else { String::new() };
    let next = match (more, two) {
        (false, _) => String::new(),
        // Tokens are nobody's business: not encoded as keys are.
        (true, true) => {
            format!("<NextContinuationToken>{}</NextContinuationToken>", escaped(&last))
        }
        (true, false) => format!("<NextMarker>{}</NextMarker>", written(&last)),
    };
    Ok(xml(format!(
        "<ListBucketResult><Prefix>{}</Prefix><MaxKeys>{most}</MaxKeys>{counted}\
         <IsTruncated>{more}</IsTruncated>{kind}{next}{rows}</ListBucketResult>",
        written(prefix)
    )))
}

fn status(code: StatusCode) -> Response<Body> {
    Response::builder().status(code).body(Body::empty()).unwrap()
}

fn xml(text: String) -> Response<Body> {
    let text = format!("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n{text}");
    Response::builder().header("content-type", "application/xml").body(Body::from(text)).unwrap()
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}
