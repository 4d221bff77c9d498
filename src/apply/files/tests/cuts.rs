//! A sync that is cut off anywhere, or whose store fails at any call, loses nothing and is
//! finished by the next one.

use std::collections::BTreeSet;
use std::fs;
use std::pin::pin;
use std::task::Poll;

use super::home::{Home, Spy, store};
use crate::apply::files::{FilesError, Found};
use crate::world::ScanMode;

/// Drops a future after so many polls; its outcome if it was done by then.
async fn cut<T>(future: impl Future<Output = T>, polls: usize) -> Option<T> {
    let mut future = pin!(future);
    let mut left = polls;
    std::future::poll_fn(|context| {
        if left == 0 {
            return Poll::Ready(None);
        }
        left -= 1;
        future.as_mut().poll(context).map(Some)
    })
    .await
}

/// Two workspaces of one case with a change of every kind under way.
async fn busy(store: &Spy) -> (Home, Home) {
    let (mut a, mut b) = (Home::new(store).await, Home::new(store).await);
    for at in ["edited-a", "edited-b", "both", "gone-a", "gone-b", "touched", "turned"] {
        a.write(at, &format!("old {at}"));
    }
    a.sync().await;
    b.sync().await;
    b.write("edited-b", "new from b");
    b.write("both", "both from b");
    b.write("dir/new-b", "added by b");
    b.remove("gone-b");
    b.remove("turned");
    b.write("turned/into", "a directory");
    b.sync().await;
    a.write("edited-a", "new from a");
    a.write("both", "both from a!");
    a.write("new-a", "added by a");
    a.write("dir-a/deep", "added by a, deeper");
    a.remove("gone-a");
    let touched = fs::File::options().write(true).open(a.dir.join("touched")).unwrap();
    touched.set_modified(std::time::SystemTime::UNIX_EPOCH).unwrap();
    (a, b)
}

/// Everything anybody wrote and nobody deleted.
const KEPT: [&str; 8] = [
    "new from a",
    "new from b",
    "both from a!",
    "both from b",
    "added by a",
    "added by b",
    "added by a, deeper",
    "a directory",
];

async fn finished(a: &mut Home, b: &mut Home, store: &Spy, why: &str) {
    a.sync().await;
    b.sync().await;
    a.sync().await;
    assert_eq!(a.files(), b.files(), "{why}");
    assert_eq!(a.files(), store.manifest(), "{why}");
    let held: BTreeSet<String> = a.files().into_values().collect();
    for text in KEPT {
        assert!(held.contains(text), "{why}: `{text}` is lost: {:?}", a.files());
    }
    assert!(!held.contains("old gone-a") && !held.contains("old gone-b"), "{why}");
    assert_eq!(a.files().len(), KEPT.len() + 1, "{why}: {:?}", a.files());
    assert!(!a.dir.join("turned").is_file(), "{why}");
}

#[tokio::test]
async fn a_sync_whose_store_fails_at_any_call_is_finished_by_the_next() {
    for after in [false, true] {
        for nth in 0.. {
            let (_temp, store) = store();
            let (mut a, mut b) = busy(&store).await;
            store.calls();
            store.fail(Some(nth), after);
            let ended = a.try_sync(ScanMode::Checksum).await;
            store.fail(None, false);
            let calls = store.calls().len();
            finished(&mut a, &mut b, &store, &format!("call {nth}, after {after}")).await;
            if calls <= nth {
                ended.unwrap();
                assert!(nth > 10, "only {nth} calls were made");
                break;
            }
        }
    }
}

#[tokio::test]
async fn a_sync_that_is_cut_off_anywhere_is_finished_by_the_next() {
    for polls in 1.. {
        let (_temp, store) = store();
        let (mut a, mut b) = busy(&store).await;
        let done: Option<Result<Found, FilesError>> = cut(a.try_sync(ScanMode::Quick), polls).await;
        finished(&mut a, &mut b, &store, &format!("after {polls} polls")).await;
        if let Some(ended) = done {
            ended.unwrap();
            assert!(polls > 10, "it took only {polls} polls");
            break;
        }
    }
}

#[tokio::test]
async fn a_hydration_that_is_cut_off_anywhere_is_finished_by_the_next() {
    for polls in 1.. {
        let (_temp, store) = store();
        let mut source = Home::new(&store).await;
        for n in 0..20 {
            source.write(&format!("d{}/f{n}", n % 3), &format!("content {n}"));
        }
        source.sync().await;
        let mut home = Home::new(&store).await;
        let done = cut(home.try_hydrate(), polls).await;
        home.try_hydrate().await.unwrap();
        home.sync().await;
        assert_eq!(home.files(), source.files(), "after {polls} polls");
        assert_eq!(home.files(), store.manifest(), "after {polls} polls");
        if done.is_some() {
            break;
        }
    }
}
