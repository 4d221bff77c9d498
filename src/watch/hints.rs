//! What notify tells, boiled down to where to look first. Nothing is concluded from it: hints
//! may be lost, doubled or wrong, and the next look at the disk decides.

use std::path::Path;
use std::sync::mpsc::Sender;

use notify::event::{AccessKind, AccessMode, CreateKind, EventKind, ModifyKind, RenameMode};
use notify::{Config, Event, RecommendedWatcher, RecursiveMode, Watcher as _};

use super::disk::relative;

/// Where to look.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Hint {
    /// At this name, relative to the root.
    At {
        /// The name.
        path: String,
        /// `Some(true)`: renamed in or closed from writing. `Some(false)`: written to.
        whole: Option<bool>,
    },
    /// Everywhere: directories changed, or hints were lost.
    Everywhere,
    /// Everywhere, and the root itself may be another one.
    Root,
    /// Nobody listens any more.
    Stop,
}

/// Watches the root for hints. `None`: none can be had, and the regular listing has to do.
pub(super) fn watcher(root: &Path, tell: Sender<Hint>) -> Option<RecommendedWatcher> {
    let base = root.to_path_buf();
    // It follows links by default: one to /usr/share would make thousands of watches.
    let config = Config::default().with_follow_symlinks(false);
    let heed = move |event: notify::Result<Event>| {
        let hints = event.map_or_else(|_| vec![Hint::Everywhere], |event| read(&base, &event));
        for hint in hints {
            let _nobody_listens = tell.send(hint);
        }
    };
    let made = RecommendedWatcher::new(heed, config).and_then(|mut watcher| {
        watcher.watch(root, RecursiveMode::Recursive)?;
        Ok(watcher)
    });
    made.inspect_err(|error| tracing::debug!(%error, "no hints from {}", root.display())).ok()
}

fn read(root: &Path, event: &Event) -> Vec<Hint> {
    if event.need_rescan() {
        return vec![Hint::Everywhere];
    }
    let whole = match event.kind {
        EventKind::Access(AccessKind::Close(AccessMode::Write))
        | EventKind::Modify(ModifyKind::Name(RenameMode::To)) => Some(true),
        // Reading makes these, and so would feed itself. A rename is told by its two halves.
        EventKind::Access(_) | EventKind::Modify(ModifyKind::Name(RenameMode::Both)) => {
            return Vec::new();
        }
        EventKind::Create(CreateKind::File) | EventKind::Modify(ModifyKind::Data(_)) => Some(false),
        EventKind::Modify(ModifyKind::Metadata(_) | ModifyKind::Name(RenameMode::From))
        | EventKind::Remove(_) => None,
        _ => return vec![Hint::Everywhere],
    };
    event.paths.iter().map(|path| place(root, path, whole)).collect()
}

fn place(root: &Path, path: &Path, whole: Option<bool>) -> Hint {
    match relative(root, path) {
        Some(path) if path.is_empty() => Hint::Root,
        // `..data`: files behind links were swapped.
        Some(path) if !path.starts_with("..") => Hint::At { path, whole },
        _ => Hint::Everywhere,
    }
}
