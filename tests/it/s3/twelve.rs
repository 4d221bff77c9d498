//! The twelve things that rusoto does wrong (DEPENDENCIES.md), each seen from outside the wall.
//! The credentials (12) have a file of their own.

use std::time::{Duration, Instant};

use docket::model::Timestamp;
use docket::objects::s3::{Limits, S3};
use docket::world::{Objects, StoreErrorKind, Swap};
use rusoto_s3::S3 as _;
use tokio::io::AsyncReadExt as _;

use super::wire::{Asked, Fault, Reply, Wire, answer, entry, error, object, page};
use super::{body, config, env, keys, limits, noise, servers, soon, store_at, sum};

/// A bucket that is there and refuses conditions as it should, so that the first write can go on.
fn as_a_bucket(asked: &Asked) -> Option<Reply> {
    let condition = asked.header("if-match").or(asked.header("if-none-match"));
    if asked.is_bucket() {
        return Some(Reply::Send(b"HTTP/1.1 200 X\r\ncontent-length: 0\r\n\r\n".to_vec()));
    }
    asked.is_trial().then(|| match condition {
        Some(_) => Reply::Send(error(412, "PreconditionFailed")),
        None => Reply::Send(answer(200, &[("etag", "\"t\"")], "")),
    })
}

/// A server that answers everything but trials with the same bytes.
async fn saying(bytes: Vec<u8>) -> (Wire, S3) {
    let wire = Wire::answering(move |asked| {
        as_a_bucket(asked).unwrap_or_else(|| Reply::Send(bytes.clone()))
    })
    .await;
    let store = store_at(&wire.endpoint);
    (wire, store)
}

async fn put(store: &S3, bytes: &[u8]) -> Result<(), docket::world::StoreError> {
    soon(store.put_new("ann/one/k", body(bytes), bytes.len() as u64, sum(bytes))).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn point_1_a_broken_document_ends_in_an_error_and_not_in_a_busy_loop() {
    let whole = page(&format!("<IsTruncated>false</IsTruncated>{}", entry("p/k")));
    let html = "<html><head><title>502</title></head><body>Bad<br>Gateway</body></html>";
    let cuts = [whole.len() - 1, whole.len() / 2, whole.len() / 3, 60, 1, 0];
    let mut documents: Vec<String> = cuts.iter().map(|at| whole[..*at].to_owned()).collect();
    documents.extend([html, "<!DOCTYPE html><html></html>", "{}", "\u{1}"].map(str::to_owned));
    documents.push(whole.replace("</Key>", "</Kee>"));
    documents.push(whole.replace("p/k", "p/\u{1}"));
    for document in documents {
        let (_wire, store) = saying(answer(200, &[], &document)).await;
        let error = soon(store.list("")).await.unwrap_err();
        assert_eq!(error.kind, StoreErrorKind::Corrupt, "{document}: {error}");
        // An upload in parts reads documents too.
        let bytes = noise(6 << 20, 1);
        assert!(put(&store, &bytes).await.is_err(), "{document}");
    }
    // The one thread is alive.
    let (_wire, store) = saying(answer(200, &[], &whole)).await;
    assert_eq!(soon(store.list("")).await.unwrap().len(), 1);
}

/// Answers the requests of an upload in parts; the last two as a test wants them.
fn in_parts(asked: &Asked, complete: Vec<u8>, head: Vec<u8>) -> Reply {
    let created = "<InitiateMultipartUploadResult><Bucket>bucket</Bucket><Key>k</Key>\
                   <UploadId>u1</UploadId></InitiateMultipartUploadResult>";
    Reply::Send(match (asked.method.as_str(), asked.target.contains("uploadId=")) {
        ("HEAD", _) => head,
        ("GET", _) => error(404, "NoSuchKey"),
        ("POST", false) => answer(200, &[], created),
        ("POST", true) => complete,
        ("PUT", _) => answer(200, &[("etag", "\"part\"")], ""),
        _ => answer(204, &[], ""),
    })
}

async fn uploaded(complete: &str, head_after: bool) -> (Result<(), StoreErrorKind>, Vec<Asked>) {
    let bytes = noise((5 << 20) + 9, 2);
    let complete = answer(200, &[], complete);
    let length = bytes.len().to_string();
    let noted = sum(&bytes).hex();
    let completed = std::sync::atomic::AtomicBool::new(false);
    let wire = Wire::answering(move |asked| {
        use std::sync::atomic::Ordering::SeqCst;
        if asked.method == "POST" && asked.target.contains("uploadId=") {
            completed.store(true, SeqCst);
        }
        // HEAD's answer has the object's length and no body.
        let head = if completed.load(SeqCst) && head_after {
            format!(
                "HTTP/1.1 200 OK\r\ncontent-length: {length}\r\netag: \"e\"\r\n\
                 x-amz-meta-docket-sha256: {noted}\r\n\r\n"
            )
        } else {
            "HTTP/1.1 404 X\r\n\r\n".to_owned()
        };
        let made_up = in_parts(asked, complete.clone(), head.into_bytes());
        as_a_bucket(asked).unwrap_or(made_up)
    })
    .await;
    let done = put(&store_at(&wire.endpoint), &bytes).await;
    (done.map_err(|error| error.kind), wire.asked())
}

fn aborted(asked: &[Asked]) -> bool {
    asked.iter().any(|asked| asked.method == "DELETE" && asked.target.contains("uploadId=u1"))
}

const COMPLETED: &str = "<CompleteMultipartUploadResult><ETag>&quot;e-2&quot;</ETag>\
                         </CompleteMultipartUploadResult>";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn point_2_an_error_inside_a_success_is_an_error() {
    let inside = "<?xml version=\"1.0\"?><Error><Code>InternalError</Code></Error>";
    let (_wire, store) = saying(answer(200, &[], inside)).await;
    assert_eq!(soon(store.list("")).await.unwrap_err().kind, StoreErrorKind::Unavailable);
    assert_eq!(put(&store, b"x").await.unwrap_err().kind, StoreErrorKind::Unavailable);
    let (done, asked) = uploaded(inside, false).await;
    assert_eq!(done, Err(StoreErrorKind::Unavailable));
    assert!(aborted(&asked), "{asked:?}");
    // Neither is a completion believed that names no ETag, nor one after which nothing is there.
    let bare = "<CompleteMultipartUploadResult></CompleteMultipartUploadResult>";
    for words in [bare, COMPLETED] {
        let (done, asked) = uploaded(words, false).await;
        assert_eq!(done, Err(StoreErrorKind::Corrupt), "{words}");
        assert!(aborted(&asked), "{words}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn point_3_white_space_before_a_document_is_no_fault() {
    for space in ["", " ", "\n\n   \r\n"] {
        let words = format!("{space}<?xml version=\"1.0\"?>{COMPLETED}");
        let (done, asked) = uploaded(&words, true).await;
        assert_eq!(done, Ok(()));
        assert!(!aborted(&asked));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn point_4_odd_values_are_errors_and_not_panics() {
    let list = async |inner: &str| {
        let (_wire, store) = saying(answer(200, &[], page(inner))).await;
        soon(store.list("")).await
    };
    let whole = format!("<IsTruncated>false</IsTruncated>{}", entry("p/k"));
    assert_eq!(list(&whole).await.unwrap().len(), 1);
    for (good, odd) in [
        ("<Size>3</Size>", "<Size>three</Size>"),
        ("<Size>3</Size>", "<Size>-3</Size>"),
        ("<Size>3</Size>", "<Size>99999999999999999999</Size>"),
        ("<Size>3</Size>", ""),
        ("false", "perhaps"),
        ("<IsTruncated>", "<KeyCount>many</KeyCount><IsTruncated>"),
    ] {
        let error = list(&whole.replace(good, odd)).await.unwrap_err();
        assert_eq!(error.kind, StoreErrorKind::Corrupt, "{odd}: {error}");
    }
    // Headers that would make rusoto's readers panic are kept from them.
    let headers = "x-amz-missing-meta: some\r\nx-amz-delete-marker: perhaps\r\n\
                   x-amz-mp-parts-count: two\r\nx-amz-meta-odd: ";
    let mut odd = format!("HTTP/1.1 200 OK\r\ncontent-length: 1\r\netag: \"e\"\r\n{headers}");
    odd.push_str("\u{fc}\r\n\r\nx");
    let (_wire, store) = saying(odd.into_bytes()).await;
    let (meta, mut body) = soon(store.get("ann/one/k")).await.unwrap();
    let mut bytes = Vec::new();
    soon(body.read_to_end(&mut bytes)).await.unwrap();
    assert_eq!((meta.size, bytes), (1, b"x".to_vec()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn point_5_a_server_that_closes_idle_connections_fails_no_write() {
    // It answers, keeps the connection, and closes it as the next request comes.
    let wire = Wire::answering(|asked| match asked.number % 2 {
        _ if asked.is_trial() => as_a_bucket(asked).unwrap(),
        0 => Reply::Send(answer(200, &[("etag", "\"e\"")], "")),
        _ => Reply::Cut(Vec::new()),
    })
    .await;
    let store = store_at(&wire.endpoint);
    for _ in 0..50 {
        put(&store, &noise(3000, 5)).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn point_5_a_server_that_never_answers_costs_a_bounded_time() {
    let wire = Wire::answering(|_| Reply::Stall(Vec::new())).await;
    let limits = Limits { idle: Duration::from_millis(200), attempts: 2, ..limits() };
    let store = S3::with(&config(&wire.endpoint, "bucket", ""), limits, keys()).unwrap();
    let begun = Instant::now();
    assert_eq!(soon(store.head("k")).await.unwrap_err().kind, StoreErrorKind::Unavailable);
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
    assert_eq!(wire.count(), 2, "tried again once");
    // However many attempts are allowed, a small call has a deadline.
    let limits = Limits { total: Duration::from_millis(300), attempts: 1000, ..limits };
    let store = S3::with(&config(&wire.endpoint, "bucket", ""), limits, keys()).unwrap();
    let begun = Instant::now();
    assert_eq!(soon(store.head("k")).await.unwrap_err().kind, StoreErrorKind::Unavailable);
    assert!(begun.elapsed() < Duration::from_secs(3), "{:?}", begun.elapsed());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn point_6_a_body_longer_than_declared_is_not_cut_in_silence() {
    let (wire, store) = saying(answer(200, &[("etag", "\"e\"")], "")).await;
    let put = store.put_new("ann/one/k", body(b"four+"), 4, sum(b"four"));
    assert_eq!(soon(put).await.unwrap_err().kind, StoreErrorKind::SourceChanged);
    assert_eq!(wire.count(), 0, "nothing was sent");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn point_7_a_body_that_changed_on_its_way_is_refused_and_sent_again() {
    let server = servers::strict();
    let writes = std::sync::atomic::AtomicUsize::new(0);
    let wire = Wire::before(server.address(), move |asked| {
        let write = asked.method == "PUT" && !asked.is_trial();
        if write && writes.fetch_add(1, std::sync::atomic::Ordering::SeqCst).is_multiple_of(2) {
            Fault::FlipRequest
        } else {
            Fault::Pass
        }
    })
    .await;
    let store = server.store_with(&wire.endpoint, limits());
    for seed in 0..4 {
        let bytes = noise(5000, seed);
        let key = format!("ann/one/{seed}");
        soon(store.put_new(&key, body(&bytes), 5000, sum(&bytes))).await.unwrap();
        let (_, mut there) = soon(store.get(&key)).await.unwrap();
        let mut back = Vec::new();
        there.read_to_end(&mut back).await.unwrap();
        assert!(back == bytes);
    }
    let writes = wire.asked().into_iter().filter(|asked| asked.method == "PUT");
    assert_eq!(writes.filter(|asked| !asked.is_trial()).count(), 8, "each was refused once");
    assert!(wire.asked().iter().filter(|asked| asked.method == "PUT").all(|asked| {
        asked.header("x-amz-content-sha256") == Some(sum(&asked.body).hex().as_str())
    }));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn point_8_a_header_that_servers_fold_differently_is_never_signed() {
    let (wire, store) = saying(answer(200, &[("etag", "\"e\"")], "")).await;
    for odd in ["a   b", "\u{fc}", "a\r\nx-evil: 1"] {
        let swap =
            soon(store.put_if("ann/one/k", b"x".to_vec(), Some(odd), Timestamp::UNIX_EPOCH)).await;
        assert_eq!(swap.unwrap_err().kind, StoreErrorKind::Invalid, "{odd:?}");
    }
    assert_eq!(wire.count(), 0, "nothing was sent");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn point_9_what_rusoto_calls_unknown_has_a_kind() {
    use StoreErrorKind::{Denied, NotFound, Unavailable};
    for (status, code, kind) in [
        (404, "NoSuchKey", NotFound),
        (404, "NoSuchBucket", Denied),
        (403, "AccessDenied", Denied),
        (301, "PermanentRedirect", Denied),
        (503, "SlowDown", Unavailable),
    ] {
        let (_wire, store) = saying(error(status, code)).await;
        let failed = soon(store.get("k")).await.err().unwrap();
        assert_eq!(failed.kind, kind, "{failed}");
        assert!(failed.message.contains(code), "{failed}");
    }
    for server in servers::all() {
        // A HEAD's 404 has no body: a missing bucket must not look like a missing object.
        let wrong = docket::objects::s3::S3Config {
            bucket: "there-is-no-such-bucket".to_owned(),
            ..config(&server.endpoint, "x", "p")
        };
        let store = S3::with(&wrong, limits(), keys()).unwrap();
        assert_eq!(soon(store.head("k")).await.unwrap_err().kind, Denied, "{}", server.name);
        assert_eq!(soon(store.list("")).await.unwrap_err().kind, Denied, "{}", server.name);
        assert_eq!(put(&store, b"x").await.unwrap_err().kind, Denied, "{}", server.name);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn point_10_a_control_character_in_a_key_does_not_break_the_listing() {
    let written = |key: &str, encoded: bool| {
        let encoding = if encoded { "<EncodingType>url</EncodingType>" } else { "" };
        let inner = format!("<IsTruncated>false</IsTruncated>{encoding}{}", entry(key));
        Reply::Send(answer(200, &[], page(&inner)))
    };
    // A server as Amazon's: (key as it is, encoded), and the same for one that says it did.
    for (plain, encoded, expected) in [
        ("p/a\u{1}b", "p/a%01b", "a\u{1}b"),
        ("p/a b", "p/a+b", "a b"),
        ("p/a+b", "p/a%2Bb", "a+b"),
        ("p/a%20b", "p/a%20b", "a%20b"),
        ("p/a+b", "p/a+b", "a+b"),
        ("p/a+b c", "p/a+b%20c", "a+b c"),
    ] {
        let wire = Wire::answering(move |asked| {
            let wanted = asked.target.contains("encoding-type=url");
            written(if wanted { encoded } else { plain }, wanted)
        })
        .await;
        let store = store_at(&wire.endpoint);
        for _ in 0..2 {
            let listed = soon(store.list("")).await.unwrap();
            assert_eq!(listed[0].key, expected);
        }
    }
    for server in servers::all().iter().filter(|server| server.name != "s3s") {
        let store = server.store_below(&server.endpoint, "control", limits());
        put(&store, b"x").await.unwrap();
        let request = rusoto_s3::PutObjectRequest {
            bucket: server.bucket.clone(),
            key: "control/ann/one/a\u{1}b".to_owned(),
            body: Some(b"x".to_vec().into()),
            ..Default::default()
        };
        server.plain().put_object(request).await.unwrap();
        let listed = soon(store.list("ann/")).await.unwrap();
        let keys: Vec<&str> = listed.iter().map(|meta| meta.key.as_str()).collect();
        assert_eq!(keys, ["ann/one/a\u{1}b", "ann/one/k"], "{}", server.name);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn point_11_a_write_has_its_condition_on_the_wire() {
    let (wire, store) = saying(answer(200, &[("etag", "\"new\"")], "")).await;
    put(&store, b"x").await.unwrap();
    let swap = soon(store.put_if("ann/one/m", b"x".to_vec(), Some("old"), Timestamp::UNIX_EPOCH))
        .await
        .unwrap();
    assert_eq!(swap, Swap::Done("new".to_owned()));
    soon(store.put_if("ann/one/m", b"x".to_vec(), None, Timestamp::UNIX_EPOCH)).await.unwrap();
    let asked: Vec<Asked> = wire.asked().into_iter().filter(|asked| !asked.is_trial()).collect();
    assert_eq!(asked[0].header("if-none-match"), Some("*"));
    assert_eq!(asked[1].header("if-match"), Some("\"old\""));
    assert_eq!(asked[2].header("if-none-match"), Some("*"));
    for asked in &asked {
        let signed = asked.header("authorization").unwrap();
        assert!(signed.contains("if-match") || signed.contains("if-none-match"), "{signed}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn point_11_a_server_without_conditions_is_found_out_and_read_first() {
    // It ignores what it does not know, as older servers do; or it says so.
    for ignores in [true, false] {
        let there = std::sync::Mutex::new(b"old".to_vec());
        let wire = Wire::answering(move |asked| {
            let condition = asked.header("if-match").or(asked.header("if-none-match"));
            if asked.is_bucket() {
                return as_a_bucket(asked).unwrap();
            }
            if condition.is_some() && !ignores {
                return Reply::Send(error(501, "NotImplemented"));
            }
            let mut there = there.lock().unwrap();
            let etag = |bytes: &[u8]| format!("\"{}\"", &sum(bytes).hex()[..16]);
            if asked.method == "PUT" && !asked.is_trial() {
                there.clone_from(&asked.body);
            }
            let body = if asked.method == "PUT" { Vec::new() } else { there.clone() };
            Reply::Send(answer(200, &[("etag", &etag(&there))], body))
        })
        .await;
        let store = store_at(&wire.endpoint);
        assert!(!soon(store.knows_conditional_writes()).await.unwrap());
        let swap = async |bytes: &[u8], expected: Option<&str>| {
            soon(store.put_if("ann/one/m", bytes.to_vec(), expected, Timestamp::UNIX_EPOCH))
                .await
                .unwrap()
        };
        let old = sum(b"old").hex()[..16].to_owned();
        assert_eq!(swap(b"new", None).await, Swap::Lost);
        assert_eq!(swap(b"new", Some("another")).await, Swap::Lost);
        let Swap::Done(new) = swap(b"new", Some(&old)).await else { panic!("it was current") };
        assert_eq!(swap(b"newer", Some(&old)).await, Swap::Lost);
        assert_eq!(swap(b"new", Some(&old)).await, Swap::Done(new));
        let trials = wire.asked().iter().filter(|asked| asked.is_trial()).count();
        assert_eq!(trials, 4, "the bucket, the object and two conditions, once");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn point_11_which_server_decides_conditions_is_said() {
    for server in servers::all() {
        let knows = soon(server.store().knows_conditional_writes()).await.unwrap();
        println!("{}: conditional writes: {knows}", server.name);
        // A trial that failed is not remembered as an answer.
        let wire = Wire::before(server.address(), |asked| match asked.number {
            0..4 => Fault::Instead(error(503, "SlowDown")),
            _ => Fault::Pass,
        })
        .await;
        let store = server.store_with(&wire.endpoint, limits());
        assert!(soon(store.knows_conditional_writes()).await.is_err());
        assert_eq!(soon(store.knows_conditional_writes()).await.unwrap(), knows);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn point_12_a_credentials_error_is_not_kept() {
    let (wire, _) = saying(object(b"x")).await;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("credentials");
    let path = file.to_str().unwrap().to_owned();
    let config = config(&wire.endpoint, "bucket", "");
    let nowhere = folder.path().join("none").to_str().unwrap().to_owned();
    let looked = env(&[
        ("AWS_SHARED_CREDENTIALS_FILE", &path),
        ("AWS_CONFIG_FILE", &nowhere),
        ("AWS_EC2_METADATA_DISABLED", "true"),
    ]);
    let store = S3::with(&config, limits(), looked).unwrap();
    assert_eq!(soon(store.get("k")).await.err().unwrap().kind, StoreErrorKind::Denied);
    std::fs::write(&file, "[default]\naws_access_key_id = A1\naws_secret_access_key = s\n")
        .unwrap();
    assert!(soon(store.get("k")).await.is_ok());
    std::fs::write(&file, "[default]\naws_access_key_id=A22\naws_secret_access_key=s\n").unwrap();
    assert!(soon(store.get("k")).await.is_ok());
    let used: Vec<bool> = wire
        .asked()
        .iter()
        .map(|asked| asked.header("authorization").unwrap().contains("Credential=A22/"))
        .collect();
    assert_eq!(used, [false, true], "the file was read again when it changed");
}
