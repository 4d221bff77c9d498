//! Which files containers hold open: a descriptor from before its file was marked is never asked
//! about again, and reads zeros.

use std::collections::BTreeSet;
use std::path::Path;

use rustix::fs::{FileType, stat};
use rustix::io::Errno;

use crate::model::ContainerId;

/// Device and inode of every regular file that a process of these containers has open.
///
/// # Errors
/// `/proc` cannot be listed, a process may not be looked at, which takes CAP_SYS_PTRACE, or none of
/// a container is seen, as in a process namespace of our own: nothing is known then. A process that
/// ends meanwhile holds nothing.
pub(super) fn held_open(containers: &[ContainerId]) -> std::io::Result<BTreeSet<(u64, u64)>> {
    let mut all = BTreeSet::new();
    let mut unseen: BTreeSet<_> = containers.iter().collect();
    if containers.is_empty() {
        return Ok(all);
    }
    for process in std::fs::read_dir("/proc")? {
        let process = process?;
        let is_process = process.file_name().as_encoded_bytes().iter().all(u8::is_ascii_digit);
        if is_process && let Some(container) = container_of(&process.path(), containers) {
            unseen.remove(container);
            all.extend(files_of(&process.path())?);
        }
    }
    match unseen.first() {
        None => Ok(all),
        Some(id) => Err(std::io::Error::other(format!("no process of container {id} is seen"))),
    }
}

/// In whose control group a process is, whichever driver made it.
fn container_of<'a>(process: &Path, containers: &'a [ContainerId]) -> Option<&'a ContainerId> {
    let groups = std::fs::read_to_string(process.join("cgroup")).unwrap_or_default();
    containers.iter().find(|id| groups.contains(&id.0))
}

fn files_of(process: &Path) -> std::io::Result<BTreeSet<(u64, u64)>> {
    let mut files = BTreeSet::new();
    let descriptors = match std::fs::read_dir(process.join("fd")) {
        Err(error) if has_ended(&error) => return Ok(files),
        descriptors => descriptors?,
    };
    for descriptor in descriptors {
        let looked = descriptor.and_then(|descriptor| Ok(stat(descriptor.path())?));
        match looked {
            Ok(stat) if FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile => {
                files.insert((stat.st_dev, stat.st_ino));
            }
            Ok(_) => (),
            // Closed meanwhile, or ended.
            Err(error) if has_ended(&error) => (),
            Err(error) => return Err(error),
        }
    }
    Ok(files)
}

fn has_ended(error: &std::io::Error) -> bool {
    let ended = [Errno::NOENT, Errno::SRCH];
    ended.iter().any(|errno| error.raw_os_error() == Some(errno.raw_os_error()))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Unknown is not nothing: who may not look says so.
    #[test]
    fn a_process_that_may_not_be_looked_at_is_an_error_and_one_that_ended_is_not() {
        let place = tempfile::tempdir().unwrap();
        assert!(files_of(place.path()).unwrap().is_empty(), "ended");
        std::fs::write(place.path().join("fd"), "").unwrap();
        assert!(files_of(place.path()).is_err());
    }

    /// A process' own files, by whatever its control group is called.
    #[test]
    fn files_that_are_open_are_found_by_the_group_of_who_holds_them() {
        let file = tempfile::tempfile().unwrap();
        let stat = rustix::fs::fstat(&file).unwrap();
        let me = Path::new("/proc/self");
        assert!(files_of(me).unwrap().contains(&(stat.st_dev, stat.st_ino)));
        drop(file);
        assert!(!files_of(me).unwrap().contains(&(stat.st_dev, stat.st_ino)));
        let absent = ContainerId("0123456789abcdef0123456789abcdef".to_owned());
        assert_eq!(container_of(me, std::slice::from_ref(&absent)), None);
        let error = held_open(&[absent]).unwrap_err().to_string();
        assert!(error.starts_with("no process of container 0123"), "{error}");
        assert!(held_open(&[]).unwrap().is_empty());
    }
}
