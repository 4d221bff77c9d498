//! A gate under a service manager. What must not be lost with gate and operator lies with the manager: the group of
//! marks, and whether all is marked. It hands both to the next gate, and nothing is let through meanwhile.
//!
//! Source: sd_notify(3) and sd_listen_fds(3), systemd's store of descriptors.

use std::cell::Cell;
use std::ffi::OsString;
use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::time::Duration;

use rustix::fs::MemfdFlags;
use rustix::net::{
    AddressFamily, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketAddrUnix,
    SocketFlags, SocketType, sendmsg_addr, socket_with,
};

use super::abi;

/// What the group is called in the manager's store.
const GROUP: &str = "group";
/// There: everything that must be marked is marked.
const GUARDED: &str = "guarded";

/// What a service manager says to the process that it starts, as it stands in the environment.
#[derive(Clone, Debug, Default)]
pub struct Environment {
    /// `NOTIFY_SOCKET`.
    pub notify: Option<OsString>,
    /// `WATCHDOG_USEC`.
    pub watchdog: Option<Duration>,
    /// `LISTEN_FDNAMES`, if `LISTEN_PID` is this process: descriptors from the third on.
    pub names: Vec<String>,
}

/// The way to the manager, and what it kept.
#[derive(Debug)]
pub struct Keeper {
    way: Option<(OwnedFd, SocketAddrUnix)>,
    /// Between two signs of life.
    every: Option<Duration>,
    last: Cell<Duration>,
    /// The group of a gate that was here before.
    pub(super) group: Option<OwnedFd>,
    /// An operator said of it that all is marked.
    pub(super) guarded: bool,
}

impl Keeper {
    /// Takes what the manager handed over. To be called once, before anything is opened.
    ///
    /// # Errors
    /// The manager's socket cannot be addressed.
    pub fn new(environment: &Environment) -> io::Result<Keeper> {
        let (mut group, mut guarded) = (None, false);
        for (descriptor, name) in (abi::FIRST_PASSED..).zip(&environment.names) {
            let Some(passed) = abi::passed(descriptor) else { continue };
            match name.as_str() {
                GROUP => group = Some(passed),
                GUARDED => guarded = true,
                _ => (),
            }
        }
        let way = environment.notify.as_ref().map(|path| {
            let flags = SocketFlags::CLOEXEC;
            let socket = socket_with(AddressFamily::UNIX, SocketType::DGRAM, flags, None)?;
            io::Result::Ok((socket, address(path.as_bytes())?))
        });
        let every = environment.watchdog.map(|within| within / 4);
        let guarded = guarded && group.is_some();
        Ok(Keeper { way: way.transpose()?, every, last: Cell::default(), group, guarded })
    }

    /// Whether a gate was here before.
    pub fn is_kept(&self) -> bool {
        self.group.is_some()
    }

    pub(super) fn say(&self, words: &str) {
        self.send(words, None);
    }

    /// A sign of life, no oftener than it is wanted.
    pub(super) fn alive(&self, now: Duration) {
        if self.every.is_some_and(|every| now.saturating_sub(self.last.get()) >= every) {
            self.last.set(now);
            self.say("WATCHDOG=1");
        }
    }

    /// Lets the manager keep the group; what it has already, it does not take twice.
    pub(super) fn keep(&self, group: &OwnedFd, guarded: bool) {
        self.store(GROUP, group.as_fd());
        if !guarded {
            return;
        }
        // Any descriptor will do: that it is there is what it says.
        match rustix::fs::memfd_create(GUARDED, MemfdFlags::CLOEXEC) {
            Ok(sign) => {
                self.forget(GUARDED);
                self.store(GUARDED, sign.as_fd());
            }
            Err(errno) => tracing::warn!(%errno, "the next gate will not know that all is marked"),
        }
    }

    /// Takes back what the manager keeps under a name.
    pub(super) fn forget(&self, name: &str) {
        self.say(&format!("FDSTOREREMOVE=1\nFDNAME={name}"));
    }

    /// Takes everything back.
    pub(super) fn forget_all(&self) {
        self.forget(GUARDED);
        self.forget(GROUP);
    }

    fn store(&self, name: &str, fd: BorrowedFd<'_>) {
        // Looked at by us alone: without FDPOLL=0 it would be dropped if it ever reports an error.
        self.send(&format!("FDSTORE=1\nFDNAME={name}\nFDPOLL=0"), Some(fd));
    }

    fn send(&self, words: &str, fd: Option<BorrowedFd<'_>>) {
        let Some((socket, address)) = &self.way else { return };
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut beside = SendAncillaryBuffer::new(&mut space);
        let fds = fd.as_ref().map(std::slice::from_ref);
        if let Some(fds) = fds {
            beside.push(SendAncillaryMessage::ScmRights(fds));
        }
        let parts = [IoSlice::new(words.as_bytes())];
        if let Err(errno) = sendmsg_addr(socket, address, &parts, &mut beside, SendFlags::NOSIGNAL)
        {
            tracing::warn!(%errno, words, "the service manager was not told");
        }
    }
}

/// A path, or a name in the abstract namespace, which begins with `@`.
fn address(path: &[u8]) -> io::Result<SocketAddrUnix> {
    Ok(match path.strip_prefix(b"@") {
        Some(name) => SocketAddrUnix::new_abstract_name(name)?,
        None => SocketAddrUnix::new(path)?,
    })
}
