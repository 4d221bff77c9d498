//! One operator an (engine, installation), whatever their states and workspaces: two would take
//! each other's containers for left-overs. A lock in `/run/docket` that dies with its holder.
#![expect(clippy::disallowed_methods, reason = "the shell: a lock file of this machine")]

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::Path;

use rustix::fs::OFlags;
use rustix::io::Errno;
use sha2::{Digest as _, Sha256};

/// Gone after a boot, as every holder is.
const HERE: &str = "/run/docket";

/// Takes the lock. `None`: this machine has no place for it, which is told and is no hindrance.
///
/// # Errors
/// Who has it.
pub(super) fn take(engine: &str, installation: &str, about: &str) -> Result<Option<File>, String> {
    take_in(Path::new(HERE), engine, installation, about)
}

fn take_in(
    dir: &Path,
    engine: &str,
    installation: &str,
    about: &str,
) -> Result<Option<File>, String> {
    let mut file = match open(dir, engine, installation) {
        Ok(file) => file,
        Err(error) => {
            tracing::warn!(
                %error,
                "no lock in {}: take care that no other docket has this installation",
                dir.display()
            );
            return Ok(None);
        }
    };
    match crate::lock::lock_soon(&file) {
        Ok(()) => (),
        Err(Errno::WOULDBLOCK) => {
            let mut holder = String::new();
            let _nothing_more_to_say = (&mut file).take(4096).read_to_string(&mut holder);
            let holder = match holder.trim() {
                "" => "a process that did not say its name",
                holder => holder,
            };
            return Err(format!(
                "installation `{installation}` on {engine} is held by another operator: {holder}"
            ));
        }
        Err(errno) => {
            tracing::warn!(error = %errno, "the lock of the installation could not be taken");
            return Ok(None);
        }
    }
    let told = file
        .set_len(0)
        .and_then(|()| file.write_all(format!("pid {} {about}\n", std::process::id()).as_bytes()));
    if let Err(error) = told {
        tracing::warn!(%error, "the lock does not say who holds it");
    }
    Ok(Some(file))
}

fn open(dir: &Path, engine: &str, installation: &str) -> std::io::Result<File> {
    DirBuilder::new().mode(0o700).recursive(true).create(dir)?;
    // One socket has several names: /var/run is a link to /run.
    let path = engine.strip_prefix("unix://").unwrap_or(engine);
    let engine = std::fs::canonicalize(path)
        .map_or_else(|_| engine.to_owned(), |path| path.display().to_string());
    let digest = Sha256::digest(format!("{engine}\n{installation}"));
    let short: String = digest.iter().take(8).map(|byte| format!("{byte:02x}")).collect();
    let flags = i32::try_from(OFlags::NOFOLLOW.bits()).unwrap_or_default();
    OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .custom_flags(flags)
        .open(dir.join(format!("{installation}-{short}.lock")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_second_operator_of_an_installation_is_told_who_the_first_is() {
        let dir = tempfile::tempdir().unwrap();
        let take = |engine: &str, name: &str| take_in(dir.path(), engine, name, "state /srv/a");
        let first = take("unix:///var/run/x.sock", "one").unwrap();
        let refused = take("unix:///var/run/x.sock", "one").unwrap_err();
        assert!(refused.contains("state /srv/a"), "{refused}");
        assert!(take("unix:///var/run/x.sock", "two").unwrap().is_some());
        assert!(take("unix:///var/run/y.sock", "one").unwrap().is_some());
        drop(first);
        assert!(take("unix:///var/run/x.sock", "one").unwrap().is_some());
    }

    #[test]
    fn one_socket_under_two_names_is_one_engine() {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("socket");
        std::fs::write(&socket, "").unwrap();
        let link = dir.path().join("link");
        std::os::unix::fs::symlink(&socket, &link).unwrap();
        let take = |path: &Path| {
            take_in(&dir.path().join("run"), &format!("unix://{}", path.display()), "one", "a")
        };
        let _first = take(&socket).unwrap().unwrap();
        take(&link).unwrap_err();
    }
}
