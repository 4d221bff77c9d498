//! Which files containers hold open: a descriptor from before its file was marked is never asked
//! about again, and reads zeros.

use std::collections::BTreeSet;
use std::path::Path;

use rustix::fs::{FileType, stat};

use crate::model::ContainerId;

/// Device and inode of every regular file that a process of these containers has open.
///
/// # Errors
/// `/proc` cannot be listed: nothing is known then. A process that ends meanwhile holds nothing.
pub(super) fn held_open(containers: &[ContainerId]) -> std::io::Result<BTreeSet<(u64, u64)>> {
    let mut all = BTreeSet::new();
    if containers.is_empty() {
        return Ok(all);
    }
    for process in std::fs::read_dir("/proc")? {
        let process = process?;
        let is_process = process.file_name().as_encoded_bytes().iter().all(u8::is_ascii_digit);
        if is_process && is_inside(&process.path(), containers) {
            all.extend(files_of(&process.path()));
        }
    }
    Ok(all)
}

/// Whether a process is in the control group of one of these containers, whichever driver made it.
fn is_inside(process: &Path, containers: &[ContainerId]) -> bool {
    let groups = std::fs::read_to_string(process.join("cgroup")).unwrap_or_default();
    containers.iter().any(|id| groups.contains(&id.0))
}

fn files_of(process: &Path) -> Vec<(u64, u64)> {
    let Ok(descriptors) = std::fs::read_dir(process.join("fd")) else { return Vec::new() };
    let looks = descriptors.flatten().filter_map(|descriptor| stat(descriptor.path()).ok());
    let files = looks.filter(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile);
    files.map(|stat| (stat.st_dev, stat.st_ino)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A process' own files, by whatever its control group is called.
    #[test]
    fn files_that_are_open_are_found_by_the_group_of_who_holds_them() {
        let file = tempfile::tempfile().unwrap();
        let stat = rustix::fs::fstat(&file).unwrap();
        let me = Path::new("/proc/self");
        assert!(files_of(me).contains(&(stat.st_dev, stat.st_ino)));
        drop(file);
        assert!(!files_of(me).contains(&(stat.st_dev, stat.st_ino)));
        let absent = ContainerId("0123456789abcdef0123456789abcdef".to_owned());
        assert!(!is_inside(me, std::slice::from_ref(&absent)));
        assert!(held_open(&[absent]).unwrap().is_empty());
        assert!(held_open(&[]).unwrap().is_empty());
    }
}
