//! Named places where docket can be told to die, so that a test can walk them all.
//!
//! `DOCKET_CRASH=before-create:2` aborts `docket run` the second time that it is about to make a
//! container: no destructor runs, nothing is flushed, as with kill -9 at that very place. Without
//! the variable a place costs one look at a value that never changes. `DOCKET_CRASH=panic:before-create:2`
//! fails an assertion there instead.

use std::fmt;
use std::future::Future;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

/// Something that changes the world, or asks it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Writing a new session's record: from then on a teardown is owed.
    Admit,
    /// Writing a port into a record.
    LeasePort,
    /// Any batch into the ledger.
    Commit,
    /// Removing a record.
    DropRecord,
    /// Writing the copy of a record beside the workspaces.
    PutCopy,
    /// Removing it.
    DropCopy,
    /// Writing or removing the copy of an applied object.
    KeepApplied,
    /// Making a workspace's directory.
    MakeWorkspace,
    /// Making the folders of its spec.
    MakeFolders,
    /// Making the directories of the store's tree.
    MakeTree,
    /// Giving a file of the store its place.
    WriteFile,
    /// Making placeholders.
    PlaceStubs,
    /// Giving a conflict copy its name.
    RenameFile,
    /// Removing a file that was removed in the store.
    RemoveFile,
    /// Moving a workspace to the trash.
    Trash,
    /// Removing it from there.
    EmptyTrash,
    /// Staging a secret file.
    StageSecret,
    /// Removing a session's secrets.
    DropSecrets,
    /// Looking up an image, which may pull it.
    ResolveImage,
    /// Making docket's own network.
    EnsureNetwork,
    /// Making a container.
    Create,
    /// Starting it.
    Start,
    /// Asking whether it is healthy.
    Probe,
    /// Changing its limits in place.
    Update,
    /// Pausing it.
    Pause,
    /// Letting it go on.
    Unpause,
    /// Stopping it.
    Stop,
    /// Removing it.
    Remove,
    /// Storing an object.
    PutObject,
    /// Swapping a manifest, or another object that is written over.
    SwapManifest,
}

/// All of them with their names, in the order of a session's life.
const EFFECTS: &[(Effect, &str)] = &[
    (Effect::Admit, "admit"),
    (Effect::LeasePort, "lease-port"),
    (Effect::Commit, "commit"),
    (Effect::PutCopy, "put-copy"),
    (Effect::KeepApplied, "keep-applied"),
    (Effect::MakeWorkspace, "make-workspace"),
    (Effect::MakeFolders, "make-folders"),
    (Effect::WriteFile, "write-file"),
    (Effect::PlaceStubs, "place-stubs"),
    (Effect::ResolveImage, "resolve-image"),
    (Effect::StageSecret, "stage-secret"),
    (Effect::EnsureNetwork, "ensure-network"),
    (Effect::Create, "create"),
    (Effect::Start, "start"),
    (Effect::Probe, "probe"),
    (Effect::PutObject, "put-object"),
    (Effect::SwapManifest, "swap-manifest"),
    (Effect::Update, "update"),
    (Effect::Pause, "pause"),
    (Effect::Unpause, "unpause"),
    (Effect::MakeTree, "make-tree"),
    (Effect::RenameFile, "rename-file"),
    (Effect::RemoveFile, "remove-file"),
    (Effect::Stop, "stop"),
    (Effect::Remove, "remove"),
    (Effect::Trash, "trash"),
    (Effect::EmptyTrash, "empty-trash"),
    (Effect::DropSecrets, "drop-secrets"),
    (Effect::DropCopy, "drop-copy"),
    (Effect::DropRecord, "drop-record"),
];

/// Effects with a moment in which they are half done.
const HALVES: &[Effect] = &[
    Effect::Commit,       // handed to the store, not synced
    Effect::WriteFile,    // its bytes are in staging, its name is not
    Effect::PutObject,    // a directory store: the same
    Effect::SwapManifest, // a directory store: the same
    Effect::Create,       // made, not compared with what was asked for
    Effect::Trash,        // renamed, not synced
];

/// On which side of an effect a place is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// Nothing of it is done.
    Before,
    /// Some of it is.
    Amid,
    /// It is done, or failed, and nobody knows yet.
    After,
}

/// A place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Point(Side, Effect);

impl fmt::Display for Point {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let side = match self.0 {
            Side::Before => "before",
            Side::Amid => "amid",
            Side::After => "after",
        };
        let named = EFFECTS.iter().find(|(effect, _)| *effect == self.1);
        write!(f, "{side}-{}", named.map_or("", |(_, name)| name))
    }
}

/// Every place there is.
pub fn points() -> impl Iterator<Item = Point> {
    EFFECTS.iter().flat_map(|(effect, _)| {
        let half = HALVES.contains(effect).then_some(Point(Side::Amid, *effect));
        let before = Point(Side::Before, *effect);
        [before].into_iter().chain(half).chain([Point(Side::After, *effect)])
    })
}

/// Where to die, and when.
#[derive(Debug)]
struct Armed {
    point: Point,
    at: u64,
    /// Not the end of the process, but of what is being done.
    panics: bool,
    passed: AtomicU64,
}

static ARMED: OnceLock<Armed> = OnceLock::new();

/// Why `DOCKET_CRASH` says nothing.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unknown {
    /// There is no such place.
    #[error("DOCKET_CRASH: there is no place `{name}`; there are {}", names())]
    Point {
        /// What was asked for.
        name: String,
    },
    /// It is not `PLACE:NUMBER`.
    #[error("DOCKET_CRASH: `{0}` is not PLACE:NUMBER with a number from 1, as `before-create:1`")]
    Form(String),
}

fn names() -> String {
    points().map(|point| point.to_string()).collect::<Vec<_>>().join(", ")
}

fn parse(text: &str) -> Result<Armed, Unknown> {
    let form = || Unknown::Form(text.to_owned());
    let rest = text.strip_prefix("panic:");
    let (name, number) = rest.unwrap_or(text).split_once(':').ok_or_else(form)?;
    let at = number.parse().ok().filter(|at| *at > 0).ok_or_else(form)?;
    let point = points().find(|point| point.to_string() == name);
    let point = point.ok_or_else(|| Unknown::Point { name: name.to_owned() })?;
    Ok(Armed { point, at, panics: rest.is_some(), passed: AtomicU64::new(0) })
}

/// Takes the text of `DOCKET_CRASH`, once in the life of the process.
///
/// # Errors
/// The text names no place, or no number.
pub fn arm(text: &str) -> Result<(), Unknown> {
    let armed = parse(text)?;
    tracing::warn!(point = %armed.point, time = armed.at, "DOCKET_CRASH: it will end there");
    let _the_first_counts = ARMED.set(armed);
    Ok(())
}

/// Passes a place: the process ends there if it was told to.
pub fn point(side: Side, effect: Effect) {
    let Some(armed) = ARMED.get() else { return };
    if armed.point == Point(side, effect)
        && armed.passed.fetch_add(1, Ordering::SeqCst) + 1 == armed.at
    {
        assert!(!armed.panics, "DOCKET_CRASH: {} was passed {} times", armed.point, armed.at);
        tracing::error!(point = %armed.point, time = armed.at, "DOCKET_CRASH: aborting");
        std::process::abort();
    }
}

/// Carries out an effect between its two places.
pub async fn around<T>(effect: Effect, work: impl Future<Output = T>) -> T {
    point(Side::Before, effect);
    let done = work.await;
    point(Side::After, effect);
    done
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_place_has_a_name_of_its_own_and_is_found_by_it() {
        let all: Vec<Point> = points().collect();
        assert_eq!(all.len(), 2 * EFFECTS.len() + HALVES.len());
        for point in all {
            let armed = parse(&format!("{point}:3")).unwrap();
            assert_eq!((armed.point, armed.at, armed.panics), (point, 3, false));
            assert!(parse(&format!("panic:{point}:1")).unwrap().panics);
        }
    }

    #[test]
    fn a_place_that_is_none_is_refused_and_those_there_are_are_named() {
        let refused = parse("before-lunch:1").unwrap_err().to_string();
        assert!(refused.contains("no place `before-lunch`"), "{refused}");
        assert!(refused.contains("amid-put-object, after-put-object"), "{refused}");
        for odd in ["before-create", "before-create:", "before-create:0", "before-create:x", ""] {
            assert_eq!(parse(odd).unwrap_err(), Unknown::Form(odd.to_owned()));
        }
    }
}
