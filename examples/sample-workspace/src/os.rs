//! The few calls that the standard library does not have. All `unsafe` of this package is here.

use std::ffi::{CString, c_char, c_int, c_uint, c_void};
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

const SIGINT: c_int = 2;
const SIGTERM: c_int = 15;
const SIG_BLOCK: c_int = 0;
const AT_FDCWD: c_int = -100;
const RENAME_EXCHANGE: c_uint = 2;
const S_IFCHR: c_uint = 0o020_000;
const PROT_READ_WRITE: c_int = 3;
const MAP_SHARED: c_int = 1;
const O_DIRECTORY: c_int = 0o200_000;

/// glibc's `sigset_t`: 1024 bits.
type SignalSet = [u64; 16];

unsafe extern "C" {
    fn sigemptyset(set: *mut SignalSet) -> c_int;
    fn sigaddset(set: *mut SignalSet, signal: c_int) -> c_int;
    fn pthread_sigmask(how: c_int, set: *const SignalSet, old: *mut SignalSet) -> c_int;
    fn sigwait(set: *const SignalSet, signal: *mut c_int) -> c_int;
    #[link_name = "mkfifo"]
    fn c_mkfifo(path: *const c_char, mode: c_uint) -> c_int;
    #[link_name = "mknod"]
    fn c_mknod(path: *const c_char, mode: c_uint, device: u64) -> c_int;
    fn renameat2(
        from_dir: c_int,
        from: *const c_char,
        to_dir: c_int,
        to: *const c_char,
        flags: c_uint,
    ) -> c_int;
    fn mkdirat(dir: c_int, path: *const c_char, mode: c_uint) -> c_int;
    fn openat(dir: c_int, path: *const c_char, flags: c_int, ...) -> c_int;
    fn mmap(
        at: *mut c_void,
        length: usize,
        protection: c_int,
        flags: c_int,
        fd: c_int,
        offset: i64,
    ) -> *mut c_void;
    fn munmap(at: *mut c_void, length: usize) -> c_int;
}

fn term_and_int() -> SignalSet {
    let mut set = [0; 16];
    // SAFETY: `set` is as large as glibc's sigset_t, and both calls only write to it.
    unsafe {
        sigemptyset(&raw mut set);
        sigaddset(&raw mut set, SIGTERM);
        sigaddset(&raw mut set, SIGINT);
    }
    set
}

/// Blocks SIGTERM and SIGINT in this thread and all later ones: as process 1 a blocked signal is
/// kept, one without a handler is dropped.
pub fn block_term() {
    let set = term_and_int();
    // SAFETY: `set` is initialised; the old mask is not asked for.
    unsafe { pthread_sigmask(SIG_BLOCK, &raw const set, std::ptr::null_mut()) };
}

/// Sleeps until SIGTERM or SIGINT comes, and says which.
pub fn wait_for_signal() -> i32 {
    let set = term_and_int();
    let mut signal = 0;
    // SAFETY: both pointers are to live locals.
    unsafe { sigwait(&raw const set, &raw mut signal) };
    signal
}

pub fn mkfifo(path: &Path) -> io::Result<()> {
    let path = c_path(path)?;
    // SAFETY: `path` ends in NUL and lives through the call.
    check(unsafe { c_mkfifo(path.as_ptr(), 0o644) })
}

/// A character device.
pub fn mknod(path: &Path, major: u64, minor: u64) -> io::Result<()> {
    let path = c_path(path)?;
    // SAFETY: as in `mkfifo`.
    check(unsafe { c_mknod(path.as_ptr(), S_IFCHR | 0o666, (major << 8) | minor) })
}

/// Exchanges two names in one step.
pub fn exchange(one: &Path, other: &Path) -> io::Result<()> {
    let (one, other) = (c_path(one)?, c_path(other)?);
    // SAFETY: both end in NUL and live through the call.
    check(unsafe { renameat2(AT_FDCWD, one.as_ptr(), AT_FDCWD, other.as_ptr(), RENAME_EXCHANGE) })
}

/// Makes `steps` directories, each inside the one before.
pub fn dig(path: &Path, steps: u64) -> io::Result<()> {
    let mut here: OwnedFd = File::open(path)?.into();
    for _ in 0..steps {
        // SAFETY: `here` is open and the name ends in NUL.
        check(unsafe { mkdirat(here.as_raw_fd(), c"directory".as_ptr(), 0o755) })?;
        // SAFETY: as above.
        let next = unsafe { openat(here.as_raw_fd(), c"directory".as_ptr(), O_DIRECTORY) };
        check(next)?;
        // SAFETY: `next` was just opened and belongs to nobody else.
        here = unsafe { OwnedFd::from_raw_fd(next) };
    }
    Ok(())
}

/// Stores into a file through shared memory, the way that moves no modification time twice.
pub fn store_through_mmap(path: &Path, content: &[u8]) -> io::Result<()> {
    let file = File::options().read(true).write(true).open(path)?;
    let length = usize::try_from(file.metadata()?.len()).map_err(io::Error::other)?;
    if content.is_empty() || content.len() > length {
        return Err(io::Error::other("the file must be at least as long as the content"));
    }
    // SAFETY: a fresh mapping of an open file, checked before use, unmapped below; the copy
    // stays within it because `content` is not longer than the file.
    unsafe {
        let at =
            mmap(std::ptr::null_mut(), length, PROT_READ_WRITE, MAP_SHARED, file.as_raw_fd(), 0);
        if at.addr() == usize::MAX {
            return Err(io::Error::last_os_error());
        }
        at.cast::<u8>().copy_from_nonoverlapping(content.as_ptr(), content.len());
        check(munmap(at, length))
    }
}

/// What the kernel says of this process: ids, capabilities, seccomp, limits.
pub fn who_am_i() -> String {
    let wanted = ["Uid", "Gid", "Groups", "CapPrm", "CapEff", "CapBnd", "NoNewPrivs", "Seccomp"];
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mut lines: Vec<String> = status
        .lines()
        .filter(|line| line.split_once(':').is_some_and(|(name, _)| wanted.contains(&name)))
        .map(|line| line.split_whitespace().collect::<Vec<_>>().join(" "))
        .collect();
    lines.push(format!("Pid: {}", std::process::id()));
    let hostname = std::fs::read_to_string("/etc/hostname").unwrap_or_default();
    lines.push(format!("Hostname: {}", hostname.trim()));
    lines.push(format!("Version: {}", std::env::var("VERSION").unwrap_or_default()));
    lines.join("\n") + "\n"
}

fn c_path(path: &Path) -> io::Result<CString> {
    CString::new(path.as_os_str().as_bytes()).map_err(io::Error::other)
}

fn check(answer: c_int) -> io::Result<()> {
    if answer < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
