//! The workspace as the tenant sees it, and everything a tenant may do to it, kind or not.
//!
//! `act` is one operation, asked for over HTTP (`POST /do?op=symlink&from=/etc&path=exhibits/etc`)
//! or on the command line (`/app do op=symlink from=/etc path=exhibits/etc`). Relative paths
//! begin at the workspace, absolute ones are taken as they stand.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

use crate::http::Query;
use crate::os;

/// Where the workspace is.
pub struct Root {
    pub base: PathBuf,
}

impl Root {
    /// `{WORKSPACE_BASE}/active/{CASE_ID}` where that is a directory, as docket lays it out; else
    /// `WORKSPACE_BASE`; else the current directory.
    pub fn from_environment() -> Self {
        let base = PathBuf::from(std::env::var_os("WORKSPACE_BASE").unwrap_or_else(|| ".".into()));
        let case = std::env::var_os("CASE_ID").map(|case| base.join("active").join(case));
        Self { base: case.filter(|path| path.is_dir()).unwrap_or(base) }
    }

    pub fn resolve(&self, path: &Path) -> PathBuf {
        self.base.join(path)
    }

    pub fn shown(&self) -> impl std::fmt::Display {
        self.base.display()
    }
}

/// All regular files below `base`, relative to it, sorted; links are not followed.
pub fn list(base: &Path) -> io::Result<Vec<String>> {
    let mut found = Vec::new();
    let mut pending = vec![base.to_owned()];
    while let Some(folder) = pending.pop() {
        for entry in fs::read_dir(folder)? {
            let entry = entry?;
            let kind = entry.file_type()?;
            if kind.is_dir() {
                pending.push(entry.path());
            } else if kind.is_file() {
                let path = entry.path();
                let relative = path.strip_prefix(base).unwrap_or(&path);
                found.push(relative.to_string_lossy().into_owned());
            }
        }
    }
    found.sort();
    Ok(found)
}

pub fn read(root: &Root, query: &Query) -> io::Result<Vec<u8>> {
    fs::read(root.resolve(&query.path("path")?))
}

/// What reading a file in small pieces gave: its size, its FNV-1a sum, and how many of its blocks
/// of 4 KiB hold nothing but zeros.
pub fn check(root: &Root, query: &Query) -> io::Result<String> {
    let mut file = File::open(root.resolve(&query.path("path")?))?;
    let mut block = [0u8; 4096];
    let (mut size, mut sum, mut zeros) = (0u64, 0xcbf2_9ce4_8422_2325_u64, 0u64);
    loop {
        let mut filled = 0;
        while filled < block.len() {
            match file.read(&mut block[filled..])? {
                0 => break,
                read => filled += read,
            }
        }
        if filled == 0 {
            return Ok(format!("{size} {sum:016x} {zeros}\n"));
        }
        let content = &block[..filled];
        size += filled as u64;
        zeros += u64::from(content.iter().all(|byte| *byte == 0));
        for byte in content {
            sum = (sum ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }
}

/// Writes a file, making its folders.
pub fn write(path: &Path, content: &[u8], append: bool) -> io::Result<()> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    let mut options = OpenOptions::new();
    options.create(true);
    if append {
        options.append(true)
    } else {
        options.write(true).truncate(true)
    };
    options.open(path)?.write_all(content)
}

/// Overwrites from the first byte without cutting the file: a reader may see half of it.
pub fn overwrite_in_place(path: &Path, content: &[u8]) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).open(path)?;
    file.seek(SeekFrom::Start(0))?;
    for piece in content.chunks(4096) {
        file.write_all(piece)?;
    }
    Ok(())
}

/// One operation on the workspace. Says what it did.
pub fn act(root: &Root, query: &Query) -> io::Result<String> {
    let op = query.text("op")?;
    let path = root.resolve(&query.path("path")?);
    match op.as_str() {
        "mkdir" => fs::create_dir_all(&path)?,
        "rmdir" => fs::remove_dir(&path)?,
        "unlink" => fs::remove_file(&path)?,
        "remove-all" => remove_all(&path)?,
        "rename" => fs::rename(root.resolve(&query.path("from")?), &path)?,
        "swap" => swap(root, query, &path)?,
        "symlink" => symlink(query.path("from")?, &path)?,
        "link" => fs::hard_link(root.resolve(&query.path("from")?), &path)?,
        "mkfifo" => os::mkfifo(&path)?,
        "mknod" => os::mknod(&path, query.number("major", 1)?, query.number("minor", 3)?)?,
        "socket" => drop(UnixListener::bind(&path)?),
        "truncate" => File::options()
            .create(true)
            .write(true)
            .truncate(false)
            .open(&path)?
            .set_len(query.number("size", 0)?)?,
        "touch" => touch(query, &path)?,
        "chmod" => fs::set_permissions(&path, Permissions::from_mode(mode(query)?))?,
        "chown" => chown(&path, id(query, "uid")?, id(query, "gid")?)?,
        "many" => many(query, &path)?,
        "deep" => deep(query, &path)?,
        "mmap" => os::store_through_mmap(&path, query.get("content").unwrap_or(b"mapped"))?,
        "stat" => return stat(&path),
        other => return Err(io::Error::other(format!("op={other}: no such operation"))),
    }
    Ok(format!("{op} {}", path.display()))
}

/// Everything below a directory, or one file; the directory itself stays if it is the workspace.
fn remove_all(path: &Path) -> io::Result<()> {
    if !fs::symlink_metadata(path)?.is_dir() {
        return fs::remove_file(path);
    }
    for entry in fs::read_dir(path)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            fs::remove_dir_all(entry.path())?;
        } else {
            fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

/// Exchanges two names over and over for `ms`, in the background: the race of a reader who walks.
fn swap(root: &Root, query: &Query, path: &Path) -> io::Result<()> {
    let other = root.resolve(&query.path("from")?);
    let path = path.to_owned();
    let end = Instant::now() + Duration::from_millis(query.number("ms", 0)?);
    os::exchange(&other, &path)?;
    std::thread::spawn(move || {
        while Instant::now() < end {
            if os::exchange(&other, &path).is_err() {
                break;
            }
        }
    });
    Ok(())
}

/// Sets the modification time, by default to the beginning of time, keeping the content.
fn touch(query: &Query, path: &Path) -> io::Result<()> {
    let file = File::options().create(true).append(true).open(path)?;
    let seconds = query.number("mtime", 0)?;
    file.set_modified(SystemTime::UNIX_EPOCH + Duration::from_secs(seconds))
}

fn many(query: &Query, path: &Path) -> io::Result<()> {
    fs::create_dir_all(path)?;
    let content = vec![b'm'; usize::try_from(query.number("bytes", 1)?).map_err(io::Error::other)?];
    for n in 0..query.number("n", 1)? {
        fs::write(path.join(format!("{n:06}")), &content)?;
    }
    Ok(())
}

/// A tree so deep that its paths are longer than a path may be: one step at a time.
fn deep(query: &Query, path: &Path) -> io::Result<()> {
    fs::create_dir_all(path)?;
    os::dig(path, query.number("n", 300)?)
}

fn stat(path: &Path) -> io::Result<String> {
    use std::os::unix::fs::MetadataExt;
    let meta = fs::symlink_metadata(path)?;
    Ok(format!(
        "mode={:o} uid={} gid={} size={} blocks={} mtime={}.{:09} nlink={} ino={}",
        meta.mode(),
        meta.uid(),
        meta.gid(),
        meta.size(),
        meta.blocks(),
        meta.mtime(),
        meta.mtime_nsec(),
        meta.nlink(),
        meta.ino()
    ))
}

fn mode(query: &Query) -> io::Result<u32> {
    u32::from_str_radix(&query.text("mode")?, 8).map_err(io::Error::other)
}

fn id(query: &Query, name: &str) -> io::Result<Option<u32>> {
    match query.get(name) {
        None => Ok(None),
        Some(_) => u32::try_from(query.number(name, 0)?).map(Some).map_err(io::Error::other),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hostile_tree_can_be_made_and_removed() {
        let base = std::env::temp_dir().join(format!("sample-workspace-{}", std::process::id()));
        fs::create_dir_all(&base).unwrap();
        let root = Root { base: base.clone() };
        for words in [
            "op=mkfifo&path=pipe",
            "op=symlink&from=/etc&path=etc",
            "op=mkdir&path=sub",
            "op=swap&from=etc&path=sub",
            "op=truncate&path=big&size=1099511627776",
            "op=link&from=big&path=again",
            "op=socket&path=socket",
            "op=deep&path=deep&n=300",
            "op=many&path=many&n=20",
            "op=touch&path=many/000000&mtime=12",
        ] {
            act(&root, &Query::parse(words)).unwrap();
        }
        assert!(fs::symlink_metadata(base.join("sub")).unwrap().is_symlink());
        assert!(stat(&base.join("many/000000")).unwrap().contains("mtime=12."));
        write(&base.join("mapped"), b"before", false).unwrap();
        act(&root, &Query::parse("op=mmap&path=mapped&content=after!")).unwrap();
        assert_eq!(fs::read(base.join("mapped")).unwrap(), b"after!");
        act(&root, &Query::parse("op=remove-all&path=.")).unwrap();
        assert_eq!(fs::read_dir(&base).unwrap().count(), 0);
        fs::remove_dir(&base).unwrap();
    }
}
