//! What every object store must do, asked of the directory store and of the fake.

use docket::model::Timestamp;
use docket::objects::directory::Directory;
use docket::sync::sum;
use docket::world::{Body, Objects, StoreError, StoreErrorKind, Swap};
use tokio::io::AsyncReadExt as _;

fn bytes(text: &[u8]) -> Body {
    Box::pin(std::io::Cursor::new(text.to_vec()))
}

async fn put<O: Objects>(store: &O, key: &str, text: &[u8]) -> Result<(), StoreError> {
    store.put_new(key, bytes(text), text.len() as u64, sum(text)).await
}

async fn get<O: Objects>(store: &O, key: &str) -> Result<Vec<u8>, StoreError> {
    let (meta, mut body) = store.get(key).await?;
    let mut text = Vec::new();
    body.read_to_end(&mut text).await.unwrap();
    assert_eq!((meta.key.as_str(), meta.size), (key, text.len() as u64));
    Ok(text)
}

fn kind<T>(result: Result<T, StoreError>) -> StoreErrorKind {
    result.map(|_| ()).unwrap_err().kind
}

async fn keys<O: Objects>(store: &O, prefix: &str) -> Vec<String> {
    store.list(prefix).await.unwrap().into_iter().map(|meta| meta.key).collect()
}

/// The promises of the door, one after the other, on an empty store.
async fn keeps_its_promises<O: Objects>(store: &O) {
    // Absence is proven, not guessed.
    assert_eq!(store.head("u/c/x").await.unwrap(), None);
    assert_eq!(kind(store.get("u/c/x").await), StoreErrorKind::NotFound);
    assert_eq!(keys(store, "u/").await, Vec::<String>::new());
    store.delete("u/c/x").await.unwrap();

    // An object is what was announced, and stays so.
    let odd = "u/c/files/ein Brief, 2 §%41+.txt@012345";
    put(store, odd, b"hello").await.unwrap();
    put(store, odd, b"hello").await.unwrap();
    assert_eq!(kind(put(store, odd, b"hallo!").await), StoreErrorKind::Invalid);
    assert_eq!(get(store, odd).await.unwrap(), b"hello");
    put(store, "u/c/files/empty", b"").await.unwrap();
    assert_eq!(get(store, "u/c/files/empty").await.unwrap(), b"");
    for (text, size) in [(&b"short"[..], 9), (b"long", 2)] {
        let ended = store.put_new("u/c/torn", bytes(text), size, sum(text)).await;
        assert_eq!(kind(ended), StoreErrorKind::SourceChanged);
    }
    let ended = store.put_new("u/c/torn", bytes(b"same"), 4, sum(b"else")).await;
    assert_eq!(kind(ended), StoreErrorKind::SourceChanged);
    assert_eq!(store.head("u/c/torn").await.unwrap(), None);
    let big = vec![7; 3_000_000];
    put(store, "u/c/files/big", &big).await.unwrap();
    assert!(get(store, "u/c/files/big").await.unwrap() == big);

    // A listing is complete, sorted, and by prefix.
    put(store, "u/c2/files/a", b"other").await.unwrap();
    let mine = ["u/c/files/big", odd, "u/c/files/empty"];
    assert_eq!(keys(store, "u/c/").await, mine);
    assert_eq!(keys(store, "u/c").await.len(), 4);
    assert_eq!(keys(store, "u/c/files/e").await, [odd, "u/c/files/empty"]);

    swaps_on_condition(store).await;
    store.delete("u/c/files/big").await.unwrap();
    assert_eq!(store.head("u/c/files/big").await.unwrap(), None);
}

async fn swaps_on_condition<O: Objects>(store: &O) {
    let key = "u/c/manifest.json";
    let at = std::cell::Cell::new(1_795_464_250_123);
    let now = || Timestamp::from_timestamp_millis(at.get());
    let swap = async |text: &[u8], expected: Option<&str>| {
        at.set(at.get() + 1);
        store.put_if(key, text.to_vec(), expected, now().unwrap()).await.unwrap()
    };
    assert_eq!(swap(b"[1]", Some("nothing")).await, Swap::Lost);
    let Swap::Done(first) = swap(b"[1]", None).await else { panic!("lost") };
    assert_eq!(swap(b"[2]", None).await, Swap::Lost);
    assert_eq!(swap(b"[1]", None).await, Swap::Done(first.clone()), "a lost answer");
    let Swap::Done(second) = swap(b"[2]", Some(&first)).await else { panic!("lost") };
    // A second has many states: the store tells their order.
    assert_eq!(store.head(key).await.unwrap().unwrap().modified, now());
    assert_eq!(store.get(key).await.unwrap().0.modified, now());
    assert_eq!(swap(b"[3]", Some(&first)).await, Swap::Lost);
    assert_eq!(get(store, key).await.unwrap(), b"[2]");
    assert_eq!(store.head(key).await.unwrap().unwrap().etag, second);
    assert_eq!(store.list(key).await.unwrap()[0].etag, second);
}

#[tokio::test]
async fn the_directory_store_keeps_its_promises() {
    let temp = tempfile::tempdir().unwrap();
    keeps_its_promises(&Directory::open(temp.path(), "").unwrap()).await;
    keeps_its_promises(&Directory::open(temp.path(), "some/prefix").unwrap()).await;
}

#[cfg(feature = "testing")]
#[tokio::test(start_paused = true)]
async fn the_fake_store_keeps_its_promises() {
    use docket::testing::{clock::FakeClock, store::MemoryStore};
    keeps_its_promises(&MemoryStore::new(FakeClock::new(1))).await;
}
