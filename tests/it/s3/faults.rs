//! FAULTS.md 19 to 26, as far as the door alone is concerned: a real server behind a proxy that
//! breaks what passes.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use docket::model::Timestamp;
use docket::objects::s3::{Limits, S3, S3Config};
use docket::world::{Objects, StoreErrorKind, Swap};
use tokio::io::AsyncReadExt as _;

use super::servers::{self, Server};
use super::wire::{Asked, Fault, Reply, Wire, answer, entry, error, object, page};
use super::{body, config, keys, limits, noise, soon, store_at, sum};

async fn put(store: &S3, key: &str, bytes: &[u8]) -> Result<(), docket::world::StoreError> {
    soon(store.put_new(key, body(bytes), bytes.len() as u64, sum(bytes))).await
}

async fn read(store: &S3, key: &str) -> std::io::Result<Vec<u8>> {
    let (_, mut body) = soon(store.get(key)).await.map_err(std::io::Error::other)?;
    let mut bytes = Vec::new();
    soon(body.read_to_end(&mut bytes)).await.map(|_| bytes)
}

/// Where a server has an object.
async fn with_object(server: &'static Server, bytes: &[u8]) -> (String, S3) {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    let prefix = format!("f{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
    let straight = server.store_below(&server.endpoint, &prefix, limits());
    put(&straight, "ann/one/k", bytes).await.unwrap();
    (prefix, straight)
}

/// A server with an object in it, a store that reaches it through faults.
async fn behind(
    server: &'static Server,
    bytes: &[u8],
    fault: impl Fn(&Asked) -> Fault + Send + Sync + 'static,
) -> (Wire, S3, S3) {
    let (prefix, straight) = with_object(server, bytes).await;
    let wire = Wire::before(server.address(), fault).await;
    let broken = server.store_below(&wire.endpoint, &prefix, limits());
    (wire, straight, broken)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fault_19_nobody_there_is_unavailable_soon() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let closed = taken.local_addr().unwrap();
    drop(taken);
    for endpoint in [format!("http://{closed}"), "http://no-such-host.invalid".to_owned()] {
        let store = store_at(&endpoint);
        let begun = Instant::now();
        assert_eq!(soon(store.list("")).await.unwrap_err().kind, StoreErrorKind::Unavailable);
        let error = soon(store.head("k")).await.unwrap_err();
        assert_eq!(error.kind, StoreErrorKind::Unavailable);
        assert!(begun.elapsed() < Duration::from_secs(20), "{:?}: {error}", begun.elapsed());
        let lost = put(&store, "k", b"x").await.unwrap_err();
        assert_eq!(lost.kind, StoreErrorKind::Unavailable, "{lost}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fault_20_a_passing_refusal_is_waited_out() {
    let refusals = [error(503, "SlowDown"), error(500, "InternalError"), answer(429, &[], "")];
    for server in servers::all() {
        let refusals = refusals.clone();
        let (_wire, _, store) = behind(server, b"contents", move |asked| match asked.number % 4 {
            last @ 0..3 => Fault::Instead(refusals[last].clone()),
            _ => Fault::Pass,
        })
        .await;
        assert_eq!(read(&store, "ann/one/k").await.unwrap(), b"contents");
        put(&store, "ann/one/new", b"new").await.unwrap();
        assert_eq!(soon(store.list("ann/")).await.unwrap().len(), 2);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fault_20_retry_after_is_honoured_by_everybody() {
    let wire = Wire::answering(|asked| {
        let wait = asked.number == 0;
        let refusal = answer(503, &[("retry-after", "1")], "");
        Reply::Send(if wait { refusal } else { object(b"x") })
    })
    .await;
    let store = store_at(&wire.endpoint);
    let begun = Instant::now();
    soon(store.get("k")).await.unwrap();
    assert!(begun.elapsed() >= Duration::from_secs(1), "{:?}", begun.elapsed());
    // One that asks for more than a call can wait is not waited for.
    let refusal = answer(503, &[("retry-after", "7200")], "");
    let wire = Wire::answering(move |_| Reply::Send(refusal.clone())).await;
    let store = store_at(&wire.endpoint);
    let failed = soon(store.get("k")).await.err().unwrap();
    assert_eq!((failed.kind, wire.count()), (StoreErrorKind::Unavailable, 1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fault_20_one_budget_keeps_many_files_from_a_storm() {
    let wire = Wire::answering(|_| Reply::Send(error(503, "SlowDown"))).await;
    let store = store_at(&wire.endpoint);
    let calls: Vec<_> = (0..300)
        .map(|n| {
            let store = store.clone();
            tokio::spawn(async move { store.get(&format!("k{n}")).await.is_err() })
        })
        .collect();
    for call in calls {
        assert!(soon(call).await.unwrap());
    }
    // Four attempts each would be 1200; the budget has 100 retries.
    assert_eq!(wire.count(), 400);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fault_21_what_is_denied_is_asked_once() {
    for (status, code) in
        [(403, "AccessDenied"), (403, "SignatureDoesNotMatch"), (400, "ExpiredToken")]
    {
        let wire = Wire::answering(move |_| Reply::Send(error(status, code))).await;
        let store = store_at(&wire.endpoint);
        let failed = soon(store.get("k")).await.err().unwrap();
        assert_eq!((failed.kind, wire.count()), (StoreErrorKind::Denied, 1), "{failed}");
        assert!(failed.to_string().contains(code), "{failed}");
    }
    // A real server that checks signatures.
    let server = servers::strict();
    let wrong = super::env(&[
        ("AWS_ACCESS_KEY_ID", super::KEY),
        ("AWS_SECRET_ACCESS_KEY", "not the secret"),
    ]);
    let store = S3::with(&config(&server.endpoint, &server.bucket, "p"), limits(), wrong);
    let failed = soon(store.unwrap().list("")).await.unwrap_err();
    assert_eq!(failed.kind, StoreErrorKind::Denied, "{failed}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fault_22_a_cut_body_is_taken_up_where_it_ended() {
    for server in servers::all() {
        let bytes = noise(900_000, 11);
        let (wire, _, store) = behind(server, &bytes, |asked| match asked.number {
            0..3 => Fault::CutBody(200_000),
            _ => Fault::Pass,
        })
        .await;
        assert!(read(&store, "ann/one/k").await.unwrap() == bytes, "{}", server.name);
        let ranges: Vec<Option<String>> =
            wire.asked().iter().map(|asked| asked.header("range").map(str::to_owned)).collect();
        assert_eq!(ranges[0], None);
        assert_eq!(ranges[1].as_deref(), Some("bytes=200000-"));
        assert!(wire.asked()[1..].iter().all(|asked| asked.header("if-match").is_some()));
    }
}

/// Each holds what the others wait for: the one turn, or the memory for one body.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fault_22_bodies_that_are_cut_while_others_wait_are_taken_up() {
    let server = servers::strict();
    let bytes = noise(900_000, 14);
    let (prefix, _) = with_object(server, &bytes).await;
    let wire = Wire::before(server.address(), |asked| match asked.header("range") {
        None => Fault::CutBody(200_000),
        Some(_) => Fault::Pass,
    })
    .await;
    let config = S3Config { max_concurrent: 1, ..config(&wire.endpoint, &server.bucket, &prefix) };
    let limits = Limits { memory_in: 512 << 10, ..limits() };
    let store = S3::with(&config, limits, keys()).unwrap();
    let reads = (0..4).map(|_| read(&store, "ann/one/k"));
    for read in futures_util::future::join_all(reads).await {
        assert!(read.unwrap() == bytes);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fault_22_a_body_that_stays_cut_ends_in_an_error() {
    for server in servers::all() {
        let (_wire, _, store) = behind(server, &noise(9000, 12), |_| Fault::CutBody(0)).await;
        let error = read(&store, "ann/one/k").await.unwrap_err();
        assert!(error.to_string().contains("cut after 0 of 9000"), "{error}");
    }
    // Neither is a range believed that is another one, nor an object that became another.
    for second in [
        answer(200, &[("etag", "\"e1\"")], "456789"),
        answer(206, &[("etag", "\"e1\""), ("content-range", "bytes 2-7/8")], "456789"),
        answer(206, &[("etag", "\"e2\""), ("content-range", "bytes 3-8/9")], "345678"),
        error_412(),
    ] {
        let wire = Wire::answering(move |asked| match asked.number {
            0 => {
                Reply::Cut(b"HTTP/1.1 200 X\r\ncontent-length: 9\r\netag: \"e1\"\r\n\r\n012".into())
            }
            _ => Reply::Send(second.clone()),
        })
        .await;
        let failed = read(&store_at(&wire.endpoint), "k").await.unwrap_err();
        assert_eq!(failed.kind(), std::io::ErrorKind::InvalidData, "{failed}");
    }
}

fn error_412() -> Vec<u8> {
    error(412, "PreconditionFailed")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fault_22_wrong_bytes_of_a_small_object_do_not_pass() {
    for server in servers::all() {
        let (_wire, _, store) = behind(server, &noise(5000, 13), |_| Fault::FlipAnswer).await;
        let error = read(&store, "ann/one/k").await.unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::InvalidData, "{}: {error}", server.name);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fault_23_slow_is_not_dead_and_dead_is_not_waited_for() {
    let bytes = b"twenty bytes, slowly";
    let wire = Wire::answering(move |asked| match asked.target.as_str() {
        "/bucket/p/slow" => Reply::Slow(object(bytes), bytes.len(), Duration::from_millis(100)),
        "/bucket/p/dead" if asked.header("range").is_some() => Reply::Stall(Vec::new()),
        "/bucket/p/dead" => {
            let head = b"HTTP/1.1 200 X\r\ncontent-length: 9\r\netag: \"e1\"\r\n\r\n01";
            Reply::Stall(head.to_vec())
        }
        _ => Reply::Send(object(b"quick")),
    })
    .await;
    // Twenty bytes take two seconds: more than may pass without any, or for a small call.
    let limits = Limits {
        idle: Duration::from_secs(1),
        total: Duration::from_millis(1500),
        attempts: 2,
        ..limits()
    };
    let store = S3::with(&config(&wire.endpoint, "bucket", "p"), limits, keys()).unwrap();
    let quick = async {
        for _ in 0..20 {
            assert_eq!(read(&store, "quick").await.unwrap(), b"quick");
        }
    };
    let begun = Instant::now();
    let (slow, dead, ()) = tokio::join!(read(&store, "slow"), read(&store, "dead"), quick);
    assert_eq!(slow.unwrap(), bytes);
    assert_eq!(dead.unwrap_err().kind(), std::io::ErrorKind::ConnectionAborted);
    assert!(begun.elapsed() < Duration::from_secs(20), "{:?}", begun.elapsed());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fault_24_a_lost_answer_to_a_write_is_found_out() {
    for server in servers::all() {
        // The first answer to each kind of write is lost; the server has done it.
        let lost = AtomicUsize::new(0);
        let (wire, straight, store) = behind(server, b"x", move |asked| {
            let write = asked.method == "PUT" && !asked.is_trial();
            if write && lost.fetch_add(1, Ordering::SeqCst).is_multiple_of(2) {
                Fault::LoseAnswer
            } else {
                Fault::Pass
            }
        })
        .await;
        put(&store, "ann/one/new", b"new").await.unwrap();
        let first = soon(store.put_if("ann/one/m", b"one".to_vec(), None, Timestamp::UNIX_EPOCH))
            .await
            .unwrap();
        let Swap::Done(first) = first else { panic!("{}: our own write", server.name) };
        let second =
            soon(store.put_if("ann/one/m", b"two".to_vec(), Some(&first), Timestamp::UNIX_EPOCH))
                .await
                .unwrap();
        assert!(matches!(second, Swap::Done(_)), "{}: our own write", server.name);
        assert_eq!(read(&straight, "ann/one/new").await.unwrap(), b"new");
        assert_eq!(read(&straight, "ann/one/m").await.unwrap(), b"two");
        let writes = wire.asked().into_iter();
        let writes = writes.filter(|asked| asked.method == "PUT" && !asked.is_trial()).count();
        assert!(writes >= 4, "{}: no answer was lost", server.name);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fault_24_a_lost_answer_to_a_completion_is_found_out() {
    for server in servers::all() {
        let (wire, straight, store) = behind(server, b"x", |asked| {
            let completes = asked.method == "POST" && asked.target.contains("uploadId=");
            if completes { Fault::LoseAnswer } else { Fault::Pass }
        })
        .await;
        let bytes = noise(6 << 20, 21);
        put(&store, "ann/one/large", &bytes).await.unwrap();
        assert!(read(&straight, "ann/one/large").await.unwrap() == bytes, "{}", server.name);
        assert!(wire.asked().iter().any(|asked| asked.method == "POST"));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fault_24_an_upload_that_is_given_up_is_aborted() {
    for server in servers::all() {
        let (wire, straight, store) = behind(server, b"x", |asked| {
            let second = asked.target.contains("partNumber=2");
            if second { Fault::Instead(error(403, "AccessDenied")) } else { Fault::Pass }
        })
        .await;
        let bytes = noise(11 << 20, 22);
        let failed = put(&store, "ann/one/large", &bytes).await.unwrap_err();
        assert_eq!(failed.kind, StoreErrorKind::Denied, "{}: {failed}", server.name);
        assert_eq!(soon(straight.head("ann/one/large")).await.unwrap(), None);
        let aborts =
            |wire: &Wire| wire.asked().iter().filter(|asked| asked.method == "DELETE").count();
        assert_eq!(aborts(&wire), 1, "{}", server.name);
        // One whose caller lost interest, too.
        let (wire, _, store) = behind(server, b"x", |asked| {
            let second = asked.target.contains("partNumber=2");
            if second { Fault::Trickle(Duration::from_secs(100)) } else { Fault::Pass }
        })
        .await;
        let uploading = tokio::spawn(async move { put(&store, "ann/one/large", &bytes).await });
        until("a part was sent", || {
            wire.asked().iter().any(|asked| asked.target.contains("partNumber="))
        })
        .await;
        uploading.abort();
        until("the upload is aborted", || aborts(&wire) == 1).await;
    }
}

/// Waits for something to become true.
async fn until(what: &str, holds: impl Fn() -> bool) {
    let end = Instant::now() + Duration::from_secs(30);
    while !holds() {
        assert!(Instant::now() < end, "not within 30 s: {what}");
        tokio::task::yield_now().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fault_25_another_write_in_between_is_not_overwritten() {
    for server in servers::all() {
        let store = server.store();
        let first = soon(store.put_if("ann/one/m", b"one".to_vec(), None, Timestamp::UNIX_EPOCH))
            .await
            .unwrap();
        let Swap::Done(first) = first else { panic!("nobody was there") };
        let theirs = soon(store.put_if(
            "ann/one/m",
            b"theirs".to_vec(),
            Some(&first),
            Timestamp::UNIX_EPOCH,
        ))
        .await;
        assert!(matches!(theirs.unwrap(), Swap::Done(_)));
        let ours =
            soon(store.put_if("ann/one/m", b"ours".to_vec(), Some(&first), Timestamp::UNIX_EPOCH))
                .await;
        assert_eq!(ours.unwrap(), Swap::Lost, "{}", server.name);
        assert_eq!(read(&store, "ann/one/m").await.unwrap(), b"theirs");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fault_26_a_listing_that_lacks_something_is_refused() {
    let whole = format!("<IsTruncated>false</IsTruncated>{}", entry("p/k"));
    for (why, inner) in [
        ("fewer than it says", format!("<KeyCount>2</KeyCount>{whole}")),
        ("no end", entry("p/k")),
        ("more, and not where", format!("<IsTruncated>true</IsTruncated>{}", entry("p/k"))),
        (
            "the same again and again",
            format!(
                "<IsTruncated>true</IsTruncated><NextContinuationToken>t</NextContinuationToken>{}",
                entry("p/k")
            ),
        ),
        ("another's", whole.replace("p/k", "q/k")),
        ("no keys", whole.replace("<Key>p/k</Key>", "")),
    ] {
        let bytes = answer(200, &[], page(&inner));
        let wire = Wire::answering(move |_| Reply::Send(bytes.clone())).await;
        let failed = soon(store_at(&wire.endpoint).list("")).await.unwrap_err();
        assert_eq!(failed.kind, StoreErrorKind::Corrupt, "{why}: {failed}");
    }
    // The second page is lost: no half listing.
    let wire = Wire::answering(|asked| {
        let more = "<IsTruncated>true</IsTruncated><NextContinuationToken>t\
                    </NextContinuationToken>";
        let first = !asked.target.contains("continuation-token");
        Reply::Send(if first {
            answer(200, &[], page(&format!("{more}{}", entry("p/k"))))
        } else {
            error(503, "SlowDown")
        })
    })
    .await;
    let failed = soon(store_at(&wire.endpoint).list("")).await.unwrap_err();
    assert_eq!(failed.kind, StoreErrorKind::Unavailable, "{failed}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn uploads_that_a_killed_operator_left_are_aborted_once_they_are_old() {
    use rusoto_s3::S3 as _;
    let old = chrono::Utc::now() + chrono::Duration::hours(25);
    let day = Duration::from_hours(24);
    let server = servers::all().iter().find(|server| server.name == "moto").unwrap();
    let store = server.store_below(&server.endpoint, "stale/p", limits());
    let plain = server.plain();
    let begin = async |key: &str| {
        let request = rusoto_s3::CreateMultipartUploadRequest {
            bucket: server.bucket.clone(),
            key: key.to_owned(),
            ..Default::default()
        };
        plain.create_multipart_upload(request).await.unwrap();
    };
    begin("stale/p/ann/one/files/large@0123456789ab").await;
    begin("stale/p/ann/one/files/not docket's").await;
    begin("elsewhere/ann/one/files/large@0123456789ab").await;
    assert_eq!(soon(store.abort_stale(old, day)).await.unwrap(), 1);
    assert_eq!(soon(store.abort_stale(old, day)).await.unwrap(), 0, "it is gone");
    let request = rusoto_s3::ListMultipartUploadsRequest {
        bucket: server.bucket.clone(),
        ..Default::default()
    };
    let left = plain.list_multipart_uploads(request).await.unwrap().uploads.unwrap();
    let left: Vec<String> = left.into_iter().filter_map(|upload| upload.key).collect();
    assert!(left.contains(&"stale/p/ann/one/files/not docket's".to_owned()), "{left:?}");
    assert!(left.contains(&"elsewhere/ann/one/files/large@0123456789ab".to_owned()), "{left:?}");
    // A server that cannot list them keeps them, and that is no fault.
    soon(servers::strict().store().abort_stale(old, day)).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn uploads_that_may_still_be_under_way_are_left_alone() {
    let begun = |hour: u32, id: &str| {
        format!(
            "<Upload><Key>p/ann/one/files/x@0123456789ab</Key><UploadId>{id}</UploadId>\
             <Initiated>2026-11-24T{hour:02}:00:00.000Z</Initiated></Upload>"
        )
    };
    let page = format!(
        "<ListMultipartUploadsResult><IsTruncated>false</IsTruncated>{}{}\
         </ListMultipartUploadsResult>",
        begun(1, "old"),
        begun(3, "young")
    );
    let wire = Wire::answering(move |asked| match asked.method.as_str() {
        "DELETE" => Reply::Send(answer(204, &[], "")),
        "GET" => Reply::Send(answer(200, &[], page.as_bytes())),
        _ => Reply::Send(answer(200, &[], "")),
    })
    .await;
    let now = "2026-11-25T02:00:00Z".parse().unwrap();
    let store = store_at(&wire.endpoint);
    assert_eq!(soon(store.abort_stale(now, Duration::from_hours(24))).await.unwrap(), 1);
    let asked = wire.asked();
    let ended: Vec<_> = asked.iter().filter(|asked| asked.method == "DELETE").collect();
    assert!(ended.len() == 1 && ended[0].target.contains("uploadId=old"), "{ended:?}");
}
