//! fanotify as the kernel has it: what `libc` lacks, and the few calls that need `unsafe`.
//!
//! Source: fanotify_init(2), fanotify_mark(2), fanotify(7), include/uapi/linux/fanotify.h of
//! Linux 6.14 for FAN_PRE_ACCESS and the errno in a denial.

#![expect(unsafe_code, reason = "fanotify has no safe wrapper; five calls, each said why it holds")]

use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd, RawFd};
use std::time::Duration;

use rustix::io::Errno;

/// An `open()` asks for permission.
const FAN_OPEN_PERM: u64 = libc::FAN_OPEN_PERM;
/// An access to contents asks for permission; truncate(2) raises it, which opens nothing.
const FAN_PRE_ACCESS: u64 = 0x0010_0000;
/// Answers.
const FAN_ALLOW: u32 = libc::FAN_ALLOW;
const FAN_DENY: u32 = libc::FAN_DENY;
/// Length of an event without further information.
const EVENT: usize = size_of::<libc::fanotify_event_metadata>();

/// The first descriptor that a service manager passes on. Source: sd_listen_fds(3).
pub(super) const FIRST_PASSED: RawFd = 3;

/// What kind of group it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Class {
    /// Kernel 6.14 and later: a denial may say why.
    PreContent,
    /// Before that: a denial is EPERM.
    Content,
}

/// Makes a group: of the best class this kernel has.
pub(super) fn init() -> io::Result<(OwnedFd, Class)> {
    match init_class(libc::FAN_CLASS_PRE_CONTENT) {
        Ok(group) => Ok((group, Class::PreContent)),
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => {
            Ok((init_class(libc::FAN_CLASS_CONTENT)?, Class::Content))
        }
        Err(error) => Err(error),
    }
}

fn init_class(class: libc::c_uint) -> io::Result<OwnedFd> {
    let flags = class
        | libc::FAN_CLOEXEC
        | libc::FAN_NONBLOCK
        | libc::FAN_UNLIMITED_QUEUE
        | libc::FAN_UNLIMITED_MARKS;
    let events = libc::O_RDWR | libc::O_LARGEFILE | libc::O_CLOEXEC;
    // SAFETY: takes two numbers and no pointer.
    let fd = unsafe { libc::fanotify_init(flags, events.cast_unsigned()) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel just made this descriptor for us, and nobody else knows its number.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Marks the inode of a descriptor (an O_PATH one will do). `Ok(false)`: marked, but truncate(2)
/// will not wait, as the kernel or the file system does not take FAN_PRE_ACCESS.
pub(super) fn mark(group: BorrowedFd<'_>, inode: BorrowedFd<'_>) -> io::Result<bool> {
    match change(group, libc::FAN_MARK_ADD, FAN_OPEN_PERM | FAN_PRE_ACCESS, inode) {
        Ok(()) => Ok(true),
        Err(error) if matches!(error.raw_os_error(), Some(libc::EINVAL | libc::EOPNOTSUPP)) => {
            change(group, libc::FAN_MARK_ADD, FAN_OPEN_PERM, inode).map(|()| false)
        }
        Err(error) => Err(error),
    }
}

/// Takes the mark from an inode; none is success.
pub(super) fn unmark(group: BorrowedFd<'_>, inode: BorrowedFd<'_>) -> io::Result<()> {
    match change(group, libc::FAN_MARK_REMOVE, FAN_OPEN_PERM | FAN_PRE_ACCESS, inode) {
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(()),
        Err(error) if matches!(error.raw_os_error(), Some(libc::EINVAL | libc::EOPNOTSUPP)) => {
            match change(group, libc::FAN_MARK_REMOVE, FAN_OPEN_PERM, inode) {
                Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(()),
                result => result,
            }
        }
        result => result,
    }
}

fn change(
    group: BorrowedFd<'_>,
    what: libc::c_uint,
    mask: u64,
    inode: BorrowedFd<'_>,
) -> io::Result<()> {
    // The link is our own descriptor's: exactly that inode, whatever its names are by now.
    let path = CString::new(format!("/proc/self/fd/{}", inode.as_raw_fd()))?;
    // SAFETY: `path` is a NUL-terminated string that lives until the call returns.
    let result = unsafe {
        libc::fanotify_mark(group.as_raw_fd(), what, mask, libc::AT_FDCWD, path.as_ptr())
    };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Reads the events that wait; each descriptor is the file that somebody wants to open. None if
/// nothing waits.
pub(super) fn read(group: BorrowedFd<'_>, buffer: &mut [u8]) -> io::Result<Vec<OwnedFd>> {
    let length = match rustix::io::read(group, &mut *buffer) {
        Ok(length) => length,
        Err(Errno::AGAIN | Errno::INTR) => return Ok(Vec::new()),
        Err(errno) => return Err(errno.into()),
    };
    let mut files = Vec::new();
    let mut rest = &buffer[..length];
    while let Some((length, fd)) = next_event(rest) {
        if fd >= 0 {
            // SAFETY: the kernel put this descriptor into our table with this very read.
            files.push(unsafe { OwnedFd::from_raw_fd(fd) });
        }
        rest = &rest[length..];
    }
    Ok(files)
}

/// Length and descriptor of the first event of a batch.
fn next_event(batch: &[u8]) -> Option<(usize, RawFd)> {
    let field = |from: usize| batch.get(from..from + 4)?.try_into().ok();
    let length = u32::from_ne_bytes(field(0)?) as usize;
    let fd = i32::from_ne_bytes(field(16)?);
    (length >= EVENT && length <= batch.len()).then_some((length, fd))
}

/// What the opener is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Response {
    Allow,
    Deny(Errno),
}

impl Response {
    /// As it is written; the errno where the class can say it.
    pub(super) fn code(self, class: Class) -> u32 {
        match (self, class) {
            (Response::Allow, _) => FAN_ALLOW,
            (Response::Deny(_), Class::Content) => FAN_DENY,
            (Response::Deny(errno), Class::PreContent) => {
                FAN_DENY | (errno.raw_os_error().cast_unsigned() & 0xff) << 24
            }
        }
    }
}

/// Answers an event by the number its descriptor had when it was read. The kernel compares the
/// number only, so the descriptor may, and should, be closed before: nobody can execute a file
/// that is open for writing.
pub(super) fn respond(group: BorrowedFd<'_>, number: RawFd, code: u32) -> io::Result<()> {
    let mut message = [0u8; size_of::<libc::fanotify_response>()];
    message[..4].copy_from_slice(&number.to_ne_bytes());
    message[4..].copy_from_slice(&code.to_ne_bytes());
    rustix::io::write(group, &message).map(drop).map_err(Into::into)
}

/// Waits until one of these can be read, or for so long.
pub(super) fn wait(fds: &[BorrowedFd<'_>], atmost: Duration) -> io::Result<Vec<bool>> {
    let mut polled: Vec<libc::pollfd> = fds
        .iter()
        .map(|fd| libc::pollfd { fd: fd.as_raw_fd(), events: libc::POLLIN, revents: 0 })
        .collect();
    let millis = i32::try_from(atmost.as_millis()).unwrap_or(i32::MAX);
    // SAFETY: `polled` is an array of that many entries and outlives the call.
    let found = unsafe { libc::poll(polled.as_mut_ptr(), polled.len() as libc::nfds_t, millis) };
    if found < 0 {
        let error = io::Error::last_os_error();
        if error.kind() != io::ErrorKind::Interrupted {
            return Err(error);
        }
        return Ok(vec![false; fds.len()]);
    }
    Ok(polled.iter().map(|one| one.revents != 0).collect())
}

/// Takes a descriptor that the process was started with. `None`: there is none of that number.
/// Nobody else may have taken it.
pub(super) fn passed(number: RawFd) -> Option<OwnedFd> {
    // SAFETY: takes numbers only; of a number that is no descriptor it says so.
    let is_there = unsafe { libc::fcntl(number, libc::F_SETFD, libc::FD_CLOEXEC) } == 0;
    // SAFETY: it is open, and ours since before anything else of this process was opened.
    is_there.then(|| unsafe { OwnedFd::from_raw_fd(number) })
}

/// How many inodes a group has marked.
pub(super) fn marked(group: impl AsFd) -> io::Result<usize> {
    let number = group.as_fd().as_raw_fd();
    let text = std::fs::read_to_string(format!("/proc/self/fdinfo/{number}"))?;
    Ok(text.lines().filter(|line| line.starts_with("fanotify ino:")).count())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_that_is_cut_short_ends() {
        let mut event = vec![0u8; EVENT];
        event[..4].copy_from_slice(&(EVENT as u32).to_ne_bytes());
        event[16..20].copy_from_slice(&7i32.to_ne_bytes());
        assert_eq!(next_event(&event), Some((EVENT, 7)));
        assert_eq!(next_event(&event[..EVENT - 1]), None);
        assert_eq!(next_event(&[]), None);
        event[..4].copy_from_slice(&3u32.to_ne_bytes());
        assert_eq!(next_event(&event), None);
    }

    #[test]
    fn a_denial_says_why_where_the_kernel_takes_it() {
        let io = Response::Deny(Errno::IO);
        assert_eq!(io.code(Class::PreContent), 2 | 5 << 24);
        assert_eq!(io.code(Class::Content), 2);
        assert_eq!(Response::Allow.code(Class::PreContent), 1);
    }
}
