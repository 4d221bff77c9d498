//! One operator a workspaces root: a lock that dies with its holder, and says who that is.

use std::io::{Read as _, Write as _};
use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::{Mode, OFlags, openat};
use rustix::io::Errno;

use super::{OpenError, Result};

/// Takes `.docket/lock`; holds it as long as the descriptor lives.
///
/// # Errors
/// [`OpenError::Held`] names who has it.
pub(super) fn take(docket: &OwnedFd, root: &Path, holder: &str) -> Result<OwnedFd> {
    let io = |source: std::io::Error| OpenError::Io { path: root.join(".docket/lock"), source };
    let open = |flags| {
        let flags = flags | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = openat(docket, "lock", flags, Mode::RUSR | Mode::WUSR);
        file.map(std::fs::File::from).map_err(|e| io(e.into()))
    };
    // Read-only, so that holding it never keeps the file system from being made read-only.
    let mut file = open(OFlags::RDONLY)?;
    match crate::lock::lock_soon(&file) {
        Ok(()) => (),
        Err(Errno::WOULDBLOCK) => {
            let mut text = String::new();
            let read = (&mut file).take(4096).read_to_string(&mut text);
            let holder = match (read, text.trim()) {
                (Ok(_), text) if !text.is_empty() => text.to_owned(),
                _ => "a process that did not say its name".to_owned(),
            };
            return Err(OpenError::Held { root: root.to_owned(), holder });
        }
        Err(errno) => return Err(io(errno.into())),
    }
    writeln!(open(OFlags::WRONLY | OFlags::TRUNC)?, "{holder}").map_err(io)?;
    Ok(file.into())
}
