//! What every object store promises, on every S3 server there is and on the store in memory.

use docket::model::Timestamp;
use docket::objects::s3::{S3, S3Config};
use docket::world::{Objects, StoreErrorKind, Swap};
use rusoto_s3::S3 as _;
use tokio::io::AsyncReadExt as _;

use super::servers::{self, Server};
use super::{body, config, keys, limits, noise, soon, sum};

/// Names that meet every escape on their way: URL, signature, XML, file system.
const ODD: [&str; 9] = [
    "ann/one/a b  c",
    "ann/one/a+b",
    "ann/one/a%20b",
    "ann/one/ümlaut-日本",
    "ann/one/<&>\"'",
    "ann/one/q?x=1&y#z",
    "ann/one/*~!()$,;:@=",
    "ann/one/.hidden",
    "ann/one/report.txt@0123456789ab",
];

async fn put<S: Objects>(store: &S, key: &str, bytes: &[u8]) {
    let put = store.put_new(key, body(bytes), bytes.len() as u64, sum(bytes));
    soon(put).await.unwrap_or_else(|error| panic!("{error}"));
}

pub async fn contents<S: Objects>(store: &S, key: &str) -> Vec<u8> {
    let (meta, mut body) = soon(store.get(key)).await.unwrap_or_else(|error| panic!("{error}"));
    let mut bytes = Vec::new();
    soon(body.read_to_end(&mut bytes)).await.unwrap();
    assert_eq!(meta.size, bytes.len() as u64);
    assert_eq!(meta.key, key);
    bytes
}

async fn listed<S: Objects>(store: &S, prefix: &str) -> Vec<String> {
    let all = soon(store.list(prefix)).await.unwrap_or_else(|error| panic!("{error}"));
    all.into_iter().map(|meta| meta.key).collect()
}

/// What is put comes back, whatever it is called and however long it is.
pub async fn what_is_put_comes_back<S: Objects>(store: &S) {
    for (number, length) in [0, 1, 4096, 300_000].into_iter().enumerate() {
        let key = format!("ann/one/files/{number}");
        let bytes = noise(length, number as u64);
        put(store, &key, &bytes).await;
        assert!(contents(store, &key).await == bytes, "{key}");
        let head = soon(store.head(&key)).await.unwrap().unwrap();
        assert_eq!((head.key.as_str(), head.size), (key.as_str(), length as u64));
        let listed = soon(store.list("ann/one/files/")).await.unwrap();
        let entry = listed.iter().find(|meta| meta.key == key).unwrap();
        assert_eq!(entry.size, head.size);
        // A server may list without ETags.
        assert!(entry.etag == head.etag || entry.etag.is_empty(), "{entry:?} {head:?}");
    }
    for key in ODD {
        put(store, key, key.as_bytes()).await;
        assert_eq!(contents(store, key).await, key.as_bytes());
    }
    let mut odd: Vec<String> = ODD.iter().map(|key| (*key).to_owned()).collect();
    odd.sort();
    let mut listed = listed(store, "ann/one/").await;
    listed.retain(|key| !key.starts_with("ann/one/files/"));
    assert_eq!(listed, odd);
}

/// Absence is proven, and only what was asked for is listed.
pub async fn absence_is_an_answer<S: Objects>(store: &S) {
    assert_eq!(soon(store.head("ann/one/nothing")).await.unwrap(), None);
    let error = soon(store.get("ann/one/nothing")).await.err().unwrap();
    assert_eq!(error.kind, StoreErrorKind::NotFound, "{error}");
    assert!(listed(store, "ann/one/").await.is_empty());
    soon(store.delete("ann/one/nothing")).await.unwrap();
    put(store, "ann/one/x", b"x").await;
    put(store, "ann/onerous/x", b"x").await;
    assert_eq!(listed(store, "ann/one/").await, ["ann/one/x"]);
    assert_eq!(listed(store, "ann/one").await, ["ann/one/x", "ann/onerous/x"]);
    soon(store.delete("ann/one/x")).await.unwrap();
    assert_eq!(soon(store.head("ann/one/x")).await.unwrap(), None);
    assert_eq!(listed(store, "").await, ["ann/onerous/x"]);
}

/// An immutable key keeps its first content.
pub async fn a_taken_key_is_left_as_it_is<S: Objects>(store: &S) {
    put(store, "ann/one/k", b"first").await;
    put(store, "ann/one/k", b"first").await;
    for other in [&b"other"[..], b"of another length"] {
        let put = store.put_new("ann/one/k", body(other), other.len() as u64, sum(other));
        assert_eq!(soon(put).await.unwrap_err().kind, StoreErrorKind::Invalid);
    }
    assert_eq!(contents(store, "ann/one/k").await, b"first");
}

/// Bytes that are not the announced ones never become an object.
pub async fn a_source_that_changed_is_not_stored<S: Objects>(store: &S, length: usize) {
    let bytes = noise(length, 7);
    let announced = length as u64;
    for (why, size, wrong) in [
        ("sum", announced, sum(b"something else")),
        ("shorter", announced + 1, sum(&bytes)),
        ("longer", announced - 1, sum(&bytes[..length - 1])),
    ] {
        let put = store.put_new("ann/one/torn", body(&bytes), size, wrong);
        let error = soon(put).await.unwrap_err();
        assert_eq!(error.kind, StoreErrorKind::SourceChanged, "{why}: {error}");
        assert_eq!(soon(store.head("ann/one/torn")).await.unwrap(), None, "{why}");
    }
}

/// One conditional write.
pub async fn a_swap_holds_its_condition<S: Objects>(store: &S) {
    let key = "ann/one/manifest.json";
    let at = std::cell::Cell::new(1_795_464_250_123);
    let now = || Timestamp::from_timestamp_millis(at.get());
    let swap = async |bytes: &[u8], expected: Option<&str>| {
        at.set(at.get() + 1);
        soon(store.put_if(key, bytes.to_vec(), expected, now().unwrap())).await.unwrap()
    };
    assert_eq!(swap(b"x", Some("0123")).await, Swap::Lost, "nothing to replace");
    let Swap::Done(first) = swap(b"one", None).await else { panic!("nobody was there") };
    assert_eq!(soon(store.head(key)).await.unwrap().unwrap().etag, first);
    assert_eq!(swap(b"two", None).await, Swap::Lost);
    assert_eq!(swap(b"one", None).await, Swap::Done(first.clone()), "our own bytes are there");
    let Swap::Done(second) = swap(b"two", Some(&first)).await else { panic!("it was current") };
    // A second has many states: the store tells their order.
    assert_eq!(soon(store.head(key)).await.unwrap().unwrap().modified, now());
    assert_eq!(soon(store.get(key)).await.unwrap().0.modified, now());
    assert_eq!(swap(b"three", Some(&first)).await, Swap::Lost);
    assert_eq!(contents(store, key).await, b"two");
    let Swap::Done(_) = swap(b"", Some(&second)).await else { panic!("it was current") };
    assert_eq!(contents(store, key).await, b"");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_servers_keep_the_contract() {
    for server in servers::all() {
        println!("{} at {}", server.name, server.endpoint);
        what_is_put_comes_back(&server.store()).await;
        absence_is_an_answer(&server.store()).await;
        a_taken_key_is_left_as_it_is(&server.store()).await;
        a_source_that_changed_is_not_stored(&server.store(), 1000).await;
        a_swap_holds_its_condition(&server.store()).await;
    }
}

/// The signature covers the host's name: the strict server knows which one it was.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bucket_in_the_hosts_name_keeps_the_contract() {
    let server = servers::strict();
    let port = server.endpoint.rsplit(':').next().unwrap();
    let store = |part: &str| {
        let prefix = format!("v{}/{part}", std::process::id());
        let config = S3Config {
            path_style: false,
            ..config(&format!("http://localhost:{port}"), &server.bucket, &prefix)
        };
        S3::with(&config, limits(), keys()).unwrap()
    };
    what_is_put_comes_back(&store("comes back")).await;
    absence_is_an_answer(&store("absence")).await;
    a_taken_key_is_left_as_it_is(&store("taken")).await;
    a_swap_holds_its_condition(&store("swap")).await;
    let bytes = noise((11 << 20) + 7, 5);
    put(&store("parts"), "ann/one/large", &bytes).await;
    assert!(contents(&store("parts"), "ann/one/large").await == bytes);
    // And it was the same bucket.
    let prefix = format!("v{}/parts", std::process::id());
    let seen = server.store_below(&server.endpoint, &prefix, limits());
    assert_eq!(listed(&seen, "").await, ["ann/one/large"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn large_objects_go_in_parts_and_come_back_whole() {
    for server in servers::all() {
        let store = server.store();
        let bytes = noise((12 << 20) + 345, 3);
        put(&store, "ann/one/large", &bytes).await;
        assert!(contents(&store, "ann/one/large").await == bytes, "{}", server.name);
        // Again: found by a question, nothing is sent.
        put(&store, "ann/one/large", &bytes).await;
        let other = noise((12 << 20) + 345, 4);
        let taken = store.put_new("ann/one/large", body(&other), other.len() as u64, sum(&other));
        assert_eq!(soon(taken).await.unwrap_err().kind, StoreErrorKind::Invalid);
        a_source_that_changed_is_not_stored(&store, 11 << 20).await;
        no_upload_is_left(server, &["ann/one/large", "ann/one/torn"]).await;
    }
}

/// An upload that was given up leaves nothing that costs money; other tests' own are not ours.
pub async fn no_upload_is_left(server: &Server, keys: &[&str]) {
    let request = rusoto_s3::ListMultipartUploadsRequest {
        bucket: server.bucket.clone(),
        ..Default::default()
    };
    match server.plain().list_multipart_uploads(request).await {
        Ok(left) => {
            let left = left.uploads.unwrap_or_default().into_iter().filter_map(|left| left.key);
            let left = left.filter(|left| keys.iter().any(|key| left.ends_with(key)));
            assert_eq!(left.collect::<Vec<_>>(), [""; 0], "{}", server.name);
        }
        // s3s-fs cannot tell.
        Err(error) => assert_eq!(server.name, "s3s", "{error:?}"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_listing_has_all_its_pages() {
    for server in servers::all() {
        let limits = docket::objects::s3::Limits { page: 7, ..super::limits() };
        let store = server.store_with(&server.endpoint, limits);
        let keys: Vec<String> = (0..25).map(|n| format!("ann/one/files/{n:02}")).collect();
        for key in &keys {
            put(&store, key, key.as_bytes()).await;
        }
        assert_eq!(listed(&store, "ann/one/").await, keys, "{}", server.name);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stores_with_different_prefixes_do_not_see_each_other() {
    for server in servers::all() {
        let root = format!("x{}", std::process::id());
        let at = |prefix: &str| {
            let prefix = format!("{root}/{prefix}");
            server.store_below(&server.endpoint, &prefix, super::limits())
        };
        let (one, longer) = (at("a"), at("ab"));
        put(&one, "k", b"one").await;
        put(&longer, "k", b"longer").await;
        assert_eq!(contents(&one, "k").await, b"one");
        assert_eq!(listed(&one, "").await, ["k"], "{}", server.name);
    }
}
