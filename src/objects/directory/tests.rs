//! The directory store does what the door promises.
#![expect(clippy::disallowed_methods, reason = "tests lay files out and look at them")]

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::PathBuf;

use tokio::io::AsyncReadExt as _;

use super::Directory;
use crate::model::{Sha256, Timestamp};
use crate::sync::sum;
use crate::world::{Body, Objects as _, StoreError, StoreErrorKind, Swap};

struct Home {
    temp: tempfile::TempDir,
    store: Directory,
}

fn home() -> Home {
    let temp = tempfile::tempdir().unwrap();
    let store = Directory::open(&temp.path().join("deep/store"), "").unwrap();
    Home { temp, store }
}

fn bytes(text: &[u8]) -> Body {
    Box::pin(std::io::Cursor::new(text.to_vec()))
}

impl Home {
    async fn put(&self, key: &str, text: &[u8]) -> Result<(), StoreError> {
        self.store.put_new(key, bytes(text), text.len() as u64, sum(text)).await
    }

    async fn get(&self, key: &str) -> Result<Vec<u8>, StoreError> {
        let (meta, mut body) = self.store.get(key).await?;
        let mut text = Vec::new();
        body.read_to_end(&mut text).await.unwrap();
        assert_eq!(meta.size, text.len() as u64);
        Ok(text)
    }

    async fn keys(&self, prefix: &str) -> Vec<String> {
        let found = self.store.list(prefix).await.unwrap();
        found.into_iter().map(|meta| meta.key).collect()
    }

    fn root(&self) -> PathBuf {
        self.temp.path().join("deep/store")
    }
}

fn kind<T>(result: Result<T, StoreError>) -> StoreErrorKind {
    match result {
        Ok(_) => panic!("it should have failed"),
        Err(error) => error.kind,
    }
}

#[tokio::test]
async fn an_object_is_a_plain_file_that_only_its_owner_reads() {
    let home = home();
    home.put("ann/one/files/a b.txt@00", b"hello").await.unwrap();
    let file = home.root().join("ann/one/files/a b.txt@00");
    assert_eq!(fs::read(&file).unwrap(), b"hello");
    assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    for directory in ["", "ann", "ann/one", "ann/one/files"] {
        let mode = fs::metadata(home.root().join(directory)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o700, "{directory}");
    }
    assert_eq!(home.get("ann/one/files/a b.txt@00").await.unwrap(), b"hello");
}

#[tokio::test]
async fn an_object_is_never_overwritten() {
    let home = home();
    home.put("a/b", b"first").await.unwrap();
    home.put("a/b", b"first").await.unwrap();
    assert_eq!(kind(home.put("a/b", b"other").await), StoreErrorKind::Invalid);
    assert_eq!(kind(home.put("a/b", b"longer text").await), StoreErrorKind::Invalid);
    assert_eq!(home.get("a/b").await.unwrap(), b"first");
}

#[tokio::test]
async fn two_who_write_the_same_key_at_once_leave_one_whole_object() {
    let home = home();
    let big = [vec![1_u8; 700_000], vec![2_u8; 700_000]];
    let (one, two) = tokio::join!(home.put("a/b", &big[0]), home.put("a/b", &big[1]));
    let winner = usize::from(one.is_err());
    assert_eq!(one.is_ok(), two.is_err());
    assert_eq!(home.get("a/b").await.unwrap(), big[winner]);
}

#[tokio::test]
async fn bytes_that_are_not_those_announced_leave_nothing() {
    let home = home();
    let cases: [(&[u8], u64, Sha256); 3] =
        [(b"short", 9, sum(b"short")), (b"long", 2, sum(b"long")), (b"same", 4, sum(b"else"))];
    for (text, size, said) in cases {
        let put = home.store.put_new("a/b", bytes(text), size, said).await;
        assert_eq!(kind(put), StoreErrorKind::SourceChanged);
    }
    let broken: Body = Box::pin(tokio_util::io::StreamReader::new(futures_util::stream::iter([
        Ok(bytes::Bytes::from_static(b"ab")),
        Err(std::io::Error::other("gone")),
    ])));
    let put = home.store.put_new("a/b", broken, 4, sum(b"abcd")).await;
    assert_eq!(kind(put), StoreErrorKind::SourceChanged);
    assert_eq!(home.store.head("a/b").await.unwrap(), None);
    assert_eq!(home.keys("").await, Vec::<String>::new());
    assert_eq!(fs::read_dir(home.root().join(".docket-staging")).unwrap().count(), 0);
}

#[tokio::test]
async fn a_conditional_write_needs_what_it_expects() {
    let home = home();
    let swap = async |text: &[u8], expected: Option<&str>| {
        home.store
            .put_if("a/manifest.json", text.to_vec(), expected, Timestamp::UNIX_EPOCH)
            .await
            .unwrap()
    };
    assert_eq!(swap(b"1", Some("x")).await, Swap::Lost);
    let Swap::Done(first) = swap(b"1", None).await else { panic!("lost") };
    assert_eq!(home.store.head("a/manifest.json").await.unwrap().unwrap().etag, first);
    assert_eq!(swap(b"2", None).await, Swap::Lost);
    // The same bytes again: an answer that was lost.
    assert_eq!(swap(b"1", None).await, Swap::Done(first.clone()));
    let Swap::Done(second) = swap(b"2", Some(&first)).await else { panic!("lost") };
    assert_ne!(first, second);
    assert_eq!(swap(b"3", Some(&first)).await, Swap::Lost);
    assert_eq!(home.get("a/manifest.json").await.unwrap(), b"2");
    assert_eq!(home.store.list("a/").await.unwrap()[0].etag, second);
}

#[tokio::test]
async fn of_many_who_swap_at_once_one_wins() {
    let home = home();
    let Swap::Done(etag) =
        home.store.put_if("m", b"0".to_vec(), None, Timestamp::UNIX_EPOCH).await.unwrap()
    else {
        panic!("lost")
    };
    let racers =
        (1..=16_u8).map(|n| home.store.put_if("m", vec![n], Some(&etag), Timestamp::UNIX_EPOCH));
    let ended = futures_util::future::join_all(racers).await;
    let won = ended.into_iter().filter(|end| matches!(end, Ok(Swap::Done(_)))).count();
    assert_eq!(won, 1);
}

#[tokio::test]
async fn a_listing_is_complete_and_sorted_and_by_prefix() {
    let home = home();
    for key in ["a/b", "a/b!", "a/bc/d", "a/c", "ab", "z/y/x"] {
        home.put(key, key.as_bytes()).await.unwrap();
    }
    assert_eq!(home.keys("").await, ["a/b", "a/b!", "a/bc/d", "a/c", "ab", "z/y/x"]);
    assert_eq!(home.keys("a/b").await, ["a/b", "a/b!", "a/bc/d"]);
    assert_eq!(home.keys("a/").await, ["a/b", "a/b!", "a/bc/d", "a/c"]);
    assert_eq!(home.keys("z/y/").await, ["z/y/x"]);
    assert_eq!(home.keys("nobody/").await, Vec::<String>::new());
    home.store.delete("a/b").await.unwrap();
    home.store.delete("a/b").await.unwrap();
    assert_eq!(home.keys("a/b").await, ["a/b!", "a/bc/d"]);
}

#[tokio::test]
async fn a_key_that_is_no_path_is_refused() {
    let home = home();
    let long = "x".repeat(256);
    for key in ["", "/a", "a//b", "a/", "a/../b", "./a", "a\0b", &long, ".docket-staging/x"] {
        assert_eq!(kind(home.put(key, b"x").await), StoreErrorKind::Invalid, "{key:?}");
    }
    home.put("a/b", b"x").await.unwrap();
    assert_eq!(kind(home.put("a/b/c", b"x").await), StoreErrorKind::Invalid);
    assert_eq!(kind(home.put("a", b"x").await), StoreErrorKind::Invalid);
    assert_eq!(home.store.head("a/b/c").await.unwrap(), None);
}

#[tokio::test]
async fn links_are_not_followed_and_not_listed() {
    let home = home();
    home.put("ann/one/files/a", b"mine").await.unwrap();
    let outside = home.temp.path().join("outside");
    fs::create_dir(&outside).unwrap();
    fs::write(outside.join("secret"), b"secret").unwrap();
    symlink(&outside, home.root().join("ann/one/files/dir")).unwrap();
    symlink(outside.join("secret"), home.root().join("ann/one/files/file")).unwrap();
    assert_eq!(home.keys("").await, ["ann/one/files/a"]);
    assert_eq!(home.store.head("ann/one/files/file").await.unwrap(), None);
    let through = home.store.get("ann/one/files/dir/secret").await;
    assert_eq!(kind(through), StoreErrorKind::NotFound);
    assert_eq!(kind(home.put("ann/one/files/dir/new", b"x").await), StoreErrorKind::Invalid);
    assert_eq!(kind(home.put("ann/one/files/file", b"x").await), StoreErrorKind::Invalid);
    assert_eq!(fs::read_dir(&outside).unwrap().count(), 1);
}

#[tokio::test]
async fn files_dropped_in_by_hand_are_objects() {
    let home = home();
    let folder = home.root().join("ann/one/files/sub");
    fs::create_dir_all(&folder).unwrap();
    fs::write(folder.join("b.txt"), b"by hand").unwrap();
    assert_eq!(home.keys("ann/one/files/").await, ["ann/one/files/sub/b.txt"]);
    assert_eq!(home.get("ann/one/files/sub/b.txt").await.unwrap(), b"by hand");
}

#[tokio::test]
async fn an_object_that_shrinks_while_it_is_read_ends_in_an_error() {
    let home = home();
    home.put("big", &vec![7; 1_000_000]).await.unwrap();
    let (_, mut body) = home.store.get("big").await.unwrap();
    let file = fs::File::options().write(true).open(home.root().join("big")).unwrap();
    file.set_len(300_000).unwrap();
    assert!(body.read_to_end(&mut Vec::new()).await.is_err());
}

#[tokio::test]
async fn a_store_that_was_removed_is_not_an_empty_one() {
    let home = home();
    home.put("a/b", b"x").await.unwrap();
    fs::remove_dir_all(home.root()).unwrap();
    assert_eq!(kind(home.store.list("").await), StoreErrorKind::Unavailable);
    assert_eq!(kind(home.store.head("a/b").await), StoreErrorKind::Unavailable);
    assert_eq!(kind(home.put("a/b", b"x").await), StoreErrorKind::Unavailable);
}

#[tokio::test]
async fn the_store_is_whatever_directory_stands_at_its_path() {
    let home = home();
    home.put("a/b", b"x").await.unwrap();
    let away = home.root().with_extension("away");
    fs::rename(home.root(), &away).unwrap();
    assert_eq!(kind(home.put("a/c", b"y").await), StoreErrorKind::Unavailable);
    assert_eq!(kind(home.store.head("a/b").await), StoreErrorKind::Unavailable);
    assert!(!home.root().exists(), "a missing store is not made anew");
    fs::create_dir(home.root()).unwrap();
    assert_eq!(home.store.head("a/b").await.unwrap(), None);
    home.put("a/c", b"y").await.unwrap();
    assert!(home.root().join("a/c").is_file() && !away.join("a/c").exists());
    fs::remove_dir_all(home.root()).unwrap();
    fs::rename(&away, home.root()).unwrap();
    assert!(home.store.head("a/b").await.unwrap().is_some());
}

#[tokio::test]
async fn a_prefix_keeps_two_stores_apart() {
    let temp = tempfile::tempdir().unwrap();
    let one = Directory::open(temp.path(), "/one/").unwrap();
    let two = Directory::open(temp.path(), "two").unwrap();
    one.put_new("a/b", bytes(b"1"), 1, sum(b"1")).await.unwrap();
    assert_eq!(two.list("").await.unwrap(), []);
    assert_eq!(one.list("a/").await.unwrap()[0].key, "a/b");
    assert!(temp.path().join("one/a/b").is_file());
    assert!(Directory::open(temp.path(), "../up").is_err());
}
