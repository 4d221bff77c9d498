//! What `docket doctor` sees without asking the operator.
#![expect(clippy::disallowed_methods, reason = "the shell: it looks at modes and ports")]

use std::io;
use std::net::TcpListener;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::Path;

use crate::config::{Config, Store};
use crate::operator::handle::Finding;
use crate::plan::MinFree;

/// All local checks.
pub(super) fn checks(config: &Config, runs: bool) -> Vec<Finding> {
    let mut found = vec![configuration(config), kernel()];
    found.push(openat2());
    found.push(fanotify());
    found.push(specs(config));
    found.push(private("state", &config.state, true));
    found.push(private("workspaces", &config.workspaces, false));
    found.push(socket(config, runs));
    found.push(ports(config));
    found.push(space(config));
    found.push(rootfs());
    if let Store::Directory(path) = &config.store {
        found.push(store(path));
    }
    found
}

pub(super) fn ok(check: &str, message: impl Into<String>) -> Finding {
    finding(check, "ok", message, "")
}

pub(super) fn finding(check: &str, level: &str, message: impl Into<String>, hint: &str) -> Finding {
    Finding {
        check: check.to_owned(),
        level: level.to_owned(),
        message: message.into(),
        hint: hint.to_owned(),
    }
}

fn configuration(config: &Config) -> Finding {
    match &config.file {
        Some(file) => ok("config", format!("{} is fine", file.display())),
        None => {
            ok("config", "no docket.yaml here: the defaults are checked, with variables and flags")
        }
    }
}

fn kernel() -> Finding {
    match std::fs::read_to_string("/proc/sys/kernel/osrelease") {
        Ok(version) => ok("kernel", version.trim().to_owned()),
        Err(error) => finding("kernel", "warn", error.to_string(), "mount /proc"),
    }
}

/// openat2 with RESOLVE_BENEATH and RESOLVE_NO_SYMLINKS: without it no workspace is touched.
fn openat2() -> Finding {
    use rustix::fs::{CWD, Mode, OFlags, ResolveFlags};
    let flags = OFlags::PATH | OFlags::CLOEXEC;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
    match rustix::fs::openat2(CWD, ".", flags, Mode::empty(), resolve) {
        Ok(_) => ok("openat2", "the kernel resolves paths without following links"),
        Err(error) => finding(
            "openat2",
            "fail",
            error.to_string(),
            "use a kernel from 5.6 on, and a seccomp profile that lets openat2 through",
        ),
    }
}

fn fanotify() -> Finding {
    let hint = "large files will not be fetched on opening: they become `.stub` files; run as \
                root on a kernel with CONFIG_FANOTIFY_ACCESS_PERMISSIONS";
    let root = rustix::process::geteuid().is_root();
    let known = std::path::Path::new("/proc/sys/fs/fanotify").try_exists().unwrap_or(false);
    match (root, known) {
        (true, true) => ok("fanotify", "the kernel has it, and docket may use it"),
        (false, _) => finding("fanotify", "warn", "it needs root", hint),
        (true, false) => finding("fanotify", "warn", "the kernel does not show it", hint),
    }
}

fn specs(config: &Config) -> Finding {
    if let Some(remote) = &config.git.remote {
        return repository(config, &remote.to_string());
    }
    let shown = config.specs.display();
    match std::fs::metadata(&config.specs) {
        Ok(found) if !found.is_dir() => {
            finding("specs", "fail", format!("{shown} is not a directory"), "set `specs:`")
        }
        Ok(found) if found.mode() & 0o022 != 0 && !config.allow.writable_specs => finding(
            "specs",
            "fail",
            format!("{shown} can be written by others (mode {:o})", found.mode() & 0o7777),
            "chmod go-w it, or set allow.writableSpecs",
        ),
        Ok(_) => ok("specs", format!("{shown} is there")),
        Err(error) if error.kind() == io::ErrorKind::NotFound => finding(
            "specs",
            "warn",
            format!("{shown} is not there yet"),
            "make it, or set `specs:`",
        ),
        Err(error) => finding("specs", "fail", format!("{shown}: {error}"), "set `specs:`"),
    }
}

/// A repository: the program that asks it, and whose signature counts.
fn repository(config: &Config, remote: &str) -> Finding {
    let version = match crate::git::version() {
        Ok(version) => version,
        Err(why) => return finding("specs", "fail", format!("{remote}: {why}"), "install git"),
    };
    let Some(verify) = &config.git.verify else {
        return ok("specs", format!("{remote}, asked by {version}"));
    };
    let shown = verify.display();
    let hint = "name a file of allowed signers or a GnuPG home with `git.verify`";
    match std::fs::metadata(verify) {
        Ok(found) if found.mode() & 0o022 != 0 => finding(
            "specs",
            "fail",
            format!("git.verify: {shown} can be written by others, so anybody could sign"),
            "chmod go-w it",
        ),
        Ok(_) => ok("specs", format!("{remote}, asked by {version}, signed by one of {shown}")),
        Err(error) => finding("specs", "fail", format!("git.verify: {shown}: {error}"), hint),
    }
}

/// A directory that only its owner may enter; made at the first start.
fn private(check: &str, path: &Path, needed: bool) -> Finding {
    let shown = path.display();
    match std::fs::symlink_metadata(path) {
        Ok(found) if !found.is_dir() => finding(
            check,
            "fail",
            format!("{shown} is not a directory"),
            "move it away, or name another",
        ),
        Ok(found) if found.mode() & 0o077 != 0 => finding(
            check,
            "warn",
            format!("{shown} can be entered by others (mode {:o})", found.mode() & 0o7777),
            "chmod 700 it",
        ),
        Ok(found) if found.uid() != rustix::process::geteuid().as_raw() => finding(
            check,
            "warn",
            format!("{shown} belongs to user {}", found.uid()),
            "run docket as its owner",
        ),
        Ok(_) => ok(check, format!("{shown} is there and private")),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            ok(check, format!("{shown} is not there yet: it is made at the first start"))
        }
        Err(error) => finding(
            check,
            if needed { "fail" } else { "warn" },
            format!("{shown}: {error}"),
            "run docket as the user that it belongs to",
        ),
    }
}

fn socket(config: &Config, runs: bool) -> Finding {
    let path = config.socket();
    let shown = path.display();
    match std::fs::symlink_metadata(&path) {
        _ if path.as_os_str().len() > 100 => finding(
            "socket",
            "fail",
            format!("{shown} is longer than a socket's path may be"),
            "use a shorter `state:`",
        ),
        Ok(found) if !found.file_type().is_socket() => {
            finding("socket", "fail", format!("{shown} is not a socket"), "move it away")
        }
        Ok(found) if found.mode() & 0o077 != 0 => finding(
            "socket",
            "fail",
            format!("{shown} can be used by others (mode {:o})", found.mode() & 0o7777),
            "restart docket",
        ),
        _ if runs => ok("socket", format!("an operator answers at {shown}")),
        Ok(_) => finding(
            "socket",
            "warn",
            format!("nobody answers at {shown}"),
            "start the operator: `docket run`",
        ),
        Err(_) => finding(
            "socket",
            "warn",
            "no operator runs here",
            "start one: `docket run`, or name its state directory with --state",
        ),
    }
}

/// How many ports of the range nobody listens on. A running operator's own are taken, so a few
/// are no trouble.
fn ports(config: &Config) -> Finding {
    let (first, last) = config.ports;
    let total = usize::from(last - first) + 1;
    let mut denied = None;
    let mut free = 0_usize;
    for port in first..=last {
        match TcpListener::bind((config.bind, port)) {
            Ok(_) => free += 1,
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => (),
            Err(error) => denied = Some(error),
        }
    }
    let message = format!("{free} of {total} ports {first}-{last} on {} are free", config.bind);
    match (free, denied) {
        (0, Some(error)) => {
            finding("ports", "fail", format!("{message}: {error}"), "set `bind:` or `ports:`")
        }
        (0, None) => finding("ports", "fail", message, "set another range with `ports:`"),
        (free, _) if free * 2 < total => finding(
            "ports",
            "warn",
            message,
            "if others than docket hold them, set another range with `ports:`",
        ),
        _ => ok("ports", message),
    }
}

/// The nearest directory that is there: what is not made yet will be made in it.
fn nearest_there(path: &Path) -> &Path {
    path.ancestors().find(|p| p.try_exists().unwrap_or(false)).unwrap_or(Path::new("/"))
}

fn space(config: &Config) -> Finding {
    let at = nearest_there(&config.workspaces);
    let found = match rustix::fs::statvfs(at) {
        Ok(found) => found,
        Err(error) => {
            return finding("space", "warn", format!("{}: {error}", at.display()), "look at it");
        }
    };
    let space = crate::model::Space {
        total: found.f_blocks * found.f_frsize,
        free: found.f_bavail * found.f_frsize,
    };
    let free = super::table::size(space.free);
    let message = format!("{free} of {} free for workspaces", super::table::size(space.total));
    let floor = match config.min_free {
        MinFree::Percent(share) => format!("{share}%"),
        MinFree::Bytes(bytes) => super::table::size(bytes),
    };
    if config.min_free.is_short(space) {
        finding(
            "space",
            "fail",
            format!("{message}, less than minFree ({floor}): nothing is hydrated or started"),
            "free space, or lower `minFree`",
        )
    } else {
        ok("space", message)
    }
}

/// Most storage drivers cannot bound what a container writes outside of its workspace; docket
/// asks none of them to.
fn rootfs() -> Finding {
    finding(
        "rootfs",
        "warn",
        "what a container writes beside its workspace and tmpfs has no limit of its size",
        "set readOnlyRootfs with tmpfs in the classes, or give the engine a file system of its own",
    )
}

fn store(path: &Path) -> Finding {
    use rustix::fs::{Access, AtFlags, CWD};
    let at = nearest_there(path);
    let shown = path.display();
    let all = Access::READ_OK | Access::WRITE_OK | Access::EXEC_OK;
    match rustix::fs::accessat(CWD, at, all, AtFlags::EACCESS) {
        Ok(()) if at == path => ok("store", format!("{shown} can be read and written")),
        Ok(()) => ok("store", format!("{shown} is not there yet: it is made at the first start")),
        Err(error) => {
            finding("store", "fail", format!("{}: {error}", at.display()), "set `store:`")
        }
    }
}
