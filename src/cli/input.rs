//! Spec files named on the command line: a file, a directory, or `-` for stdin.
#![expect(clippy::disallowed_methods, reason = "the shell: files that a person named")]

use std::io::Read as _;
use std::path::{Path, PathBuf};

use crate::api::NamedFile;

use super::exit::Failure;

/// Largest spec file, as INTERFACE, section 1, has it.
const LARGEST: u64 = 64 * 1024;
/// Nobody keeps specs deeper.
const DEEPEST: usize = 32;

/// Reads files; of a directory, what the operator would read there. One that cannot be read
/// fails them all.
pub(super) fn named(paths: &[PathBuf]) -> Result<Vec<NamedFile>, Failure> {
    let mut files = Vec::new();
    each(paths, &mut |file| {
        files.push(file?);
        Ok(())
    })?;
    Ok(files)
}

/// Reads what can be read, and tells what cannot.
pub(super) fn readable(paths: &[PathBuf]) -> (Vec<NamedFile>, Vec<String>) {
    let mut files = Vec::new();
    let mut complaints = Vec::new();
    for path in paths {
        let mut found = Vec::new();
        let walked = each(std::slice::from_ref(path), &mut |file| {
            match file {
                Ok(file) => files.push(file),
                Err(failure) => found.push(failure.message),
            }
            Ok(())
        });
        complaints.append(&mut found);
        complaints.extend(walked.err().map(|failure| failure.message));
    }
    (files, complaints)
}

type Take<'a> = dyn FnMut(Result<NamedFile, Failure>) -> Result<(), Failure> + 'a;

fn each(paths: &[PathBuf], take: &mut Take<'_>) -> Result<(), Failure> {
    for path in paths {
        if path.as_os_str() == "-" {
            take(content("-", std::io::stdin()))?;
        } else if is_directory(path)? {
            below(path, Path::new(""), 0, &mut |relative, file| {
                take(content(&path.join(relative).display().to_string(), file))
            })?;
        } else {
            take(one(path))?;
        }
    }
    Ok(())
}

/// A directory as the operator would see it: names relative to it.
pub(super) fn directory(root: &Path) -> Result<Vec<NamedFile>, Failure> {
    if !is_directory(root)? {
        return Err(Failure::input(format!("{}: not a directory", root.display())));
    }
    let mut files = Vec::new();
    below(root, Path::new(""), 0, &mut |relative, file| {
        let shown = relative.display().to_string();
        files.push(NamedFile { text: capped(&shown, file)?, name: shown });
        Ok(())
    })?;
    Ok(files)
}

fn is_directory(path: &Path) -> Result<bool, Failure> {
    let found = std::fs::metadata(path).map_err(|error| unreadable(path, &error))?;
    Ok(found.is_dir())
}

fn unreadable(path: &Path, error: &std::io::Error) -> Failure {
    Failure::input(format!("{}: cannot be read: {error}", path.display()))
}

/// A file that a person named: also a pipe (`<(...)`), which is read to its end.
fn one(path: &Path) -> Result<NamedFile, Failure> {
    let file = std::fs::File::open(path).map_err(|error| unreadable(path, &error))?;
    content(&path.display().to_string(), file)
}

fn content(name: &str, from: impl std::io::Read) -> Result<NamedFile, Failure> {
    Ok(NamedFile { text: capped(name, from)?, name: name.to_owned() })
}

fn capped(name: &str, from: impl std::io::Read) -> Result<String, Failure> {
    let mut bytes = Vec::new();
    from.take(LARGEST + 1)
        .read_to_end(&mut bytes)
        .map_err(|error| Failure::input(format!("{name}: cannot be read: {error}")))?;
    if bytes.len() as u64 > LARGEST {
        return Err(Failure::input(format!("{name}:1:1: larger than 64 KiB")));
    }
    String::from_utf8(bytes).map_err(|_| Failure::input(format!("{name}:1:1: not UTF-8 text")))
}

type Visit<'a> = dyn FnMut(&Path, std::fs::File) -> Result<(), Failure> + 'a;

/// Spec files below a directory in the order of their names; links are followed as the operator
/// follows them: not at all.
fn below(root: &Path, at: &Path, depth: usize, visit: &mut Visit<'_>) -> Result<(), Failure> {
    let here = root.join(at);
    let mut entries = std::fs::read_dir(&here)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(|error| unreadable(&here, &error))?;
    entries.sort_by_key(std::fs::DirEntry::file_name);
    for entry in entries {
        let name = entry.file_name();
        let Some(text) = name.to_str().filter(|text| !is_ignored(text)) else { continue };
        let relative = at.join(text);
        let kind = entry.file_type().map_err(|error| unreadable(&relative, &error))?;
        if kind.is_dir() && depth < DEEPEST {
            below(root, &relative, depth + 1, visit)?;
        } else if kind.is_file() && is_spec(text) {
            let path = root.join(&relative);
            let file = std::fs::File::open(&path).map_err(|error| unreadable(&path, &error))?;
            visit(&relative, file)?;
        }
    }
    Ok(())
}

fn is_spec(name: &str) -> bool {
    [".yaml", ".yml", ".json"].iter().any(|end| name.ends_with(end))
}

fn is_ignored(name: &str) -> bool {
    name.starts_with('.') || ["~", ".swp", ".tmp"].iter().any(|end| name.ends_with(end))
}
