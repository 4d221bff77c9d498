//! What gate and operator say to each other: one message a packet over a SOCK_SEQPACKET socket,
//! descriptors beside it by SCM_RIGHTS. Both are the same binary or an older one that still
//! lives, so messages are few, fixed, and versioned by the first.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd as _, OwnedFd};

use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketAddrUnix, SocketFlags, SocketType, bind, connect,
    listen, recvmsg, sendmsg, socket_with,
};

use super::abi::Class;

/// The name of the socket in `.docket`.
pub(super) const SOCKET: &str = "gate.sock";
/// The version of these messages.
const VERSION: u8 = 1;
/// Longest message.
pub(super) const LONGEST: usize = 32;

/// A message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Message {
    /// Operator: I am the operator now; the descriptor that comes with the answer is the group.
    Serve,
    /// Anybody: end.
    Exit,
    /// Gate: welcome. `guarded`: an operator said before that all is marked.
    Welcome { guarded: bool, class: Class },
    /// Operator: everything that must be marked is marked.
    Guarded,
    /// Operator: the descriptor that comes with this is the group that my marks are in.
    Adopt,
    /// Gate: somebody opens the file whose descriptor comes with this.
    Opened { id: u64 },
    /// Operator: what the opener is told, as the kernel takes it.
    Answer { id: u64, code: u32 },
}

impl Message {
    fn render(self) -> Vec<u8> {
        let mut bytes = vec![VERSION];
        match self {
            Message::Serve => bytes.push(b'S'),
            Message::Exit => bytes.push(b'X'),
            Message::Welcome { guarded, class } => {
                bytes.extend([b'W', u8::from(guarded), u8::from(class == Class::PreContent)]);
            }
            Message::Guarded => bytes.push(b'G'),
            Message::Adopt => bytes.push(b'T'),
            Message::Opened { id } => {
                bytes.push(b'O');
                bytes.extend(id.to_ne_bytes());
            }
            Message::Answer { id, code } => {
                bytes.push(b'A');
                bytes.extend(id.to_ne_bytes());
                bytes.extend(code.to_ne_bytes());
            }
        }
        bytes
    }

    fn parse(bytes: &[u8]) -> Option<Message> {
        let number = |bytes: &[u8]| bytes.try_into().ok().map(u64::from_ne_bytes);
        match bytes {
            [VERSION, b'S'] => Some(Message::Serve),
            [VERSION, b'X'] => Some(Message::Exit),
            [VERSION, b'G'] => Some(Message::Guarded),
            [VERSION, b'T'] => Some(Message::Adopt),
            [VERSION, b'W', guarded, pre] => {
                let class = if *pre == 1 { Class::PreContent } else { Class::Content };
                Some(Message::Welcome { guarded: *guarded == 1, class })
            }
            [VERSION, b'O', id @ ..] => number(id).map(|id| Message::Opened { id }),
            [VERSION, b'A', rest @ ..] if rest.len() == 12 => Some(Message::Answer {
                id: number(&rest[..8])?,
                code: u32::from_ne_bytes(rest[8..].try_into().ok()?),
            }),
            _ => None,
        }
    }
}

/// The address of the socket in a directory, without a limit on the directory's path.
fn address(docket: impl AsFd) -> io::Result<SocketAddrUnix> {
    let number = docket.as_fd().as_raw_fd();
    Ok(SocketAddrUnix::new(format!("/proc/self/fd/{number}/{SOCKET}"))?)
}

fn socket() -> io::Result<OwnedFd> {
    let flags = SocketFlags::CLOEXEC;
    Ok(socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?)
}

/// Listens in a directory, in place of a socket that is there.
pub(super) fn listen_in(docket: impl AsFd) -> io::Result<OwnedFd> {
    use rustix::fs::{AtFlags, Mode, chmodat, unlinkat};
    let docket = docket.as_fd();
    match unlinkat(docket, SOCKET, AtFlags::empty()) {
        Ok(()) | Err(rustix::io::Errno::NOENT) => (),
        Err(errno) => return Err(errno.into()),
    }
    let listening = socket()?;
    bind(&listening, &address(docket)?)?;
    // The directory is root's alone, so nobody came in between.
    chmodat(docket, SOCKET, Mode::RUSR | Mode::WUSR, AtFlags::empty())?;
    listen(&listening, 8)?;
    Ok(listening)
}

/// Connects to the gate of a directory.
pub(super) fn connect_in(docket: impl AsFd) -> io::Result<OwnedFd> {
    let connection = socket()?;
    connect(&connection, &address(docket)?)?;
    Ok(connection)
}

/// Sends a message; never in parts.
pub(super) fn send(to: impl AsFd, message: Message, fd: Option<&OwnedFd>) -> io::Result<()> {
    send_with(to, message, fd, SendFlags::NOSIGNAL)
}

/// Sends a message with a descriptor, unless the other side is too busy to take it.
pub(super) fn offer(to: impl AsFd, message: Message, fd: &OwnedFd) -> io::Result<()> {
    send_with(to, message, Some(fd), SendFlags::NOSIGNAL | SendFlags::DONTWAIT)
}

fn send_with(
    to: impl AsFd,
    message: Message,
    fd: Option<&OwnedFd>,
    flags: SendFlags,
) -> io::Result<()> {
    let bytes = message.render();
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut beside = SendAncillaryBuffer::new(&mut space);
    let fds = fd.as_ref().map(|fd| [fd.as_fd()]);
    if let Some(fds) = &fds {
        beside.push(SendAncillaryMessage::ScmRights(fds));
    }
    let parts = [IoSlice::new(&bytes)];
    loop {
        match sendmsg(&to, &parts, &mut beside, flags) {
            Err(rustix::io::Errno::INTR) => (),
            result => return result.map(drop).map_err(Into::into),
        }
    }
}

/// Receives a message; `None`: the other side is gone, or says what we do not know.
pub(super) fn receive(from: impl AsFd) -> io::Result<Option<(Message, Option<OwnedFd>)>> {
    let mut bytes = [0u8; LONGEST];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut beside = RecvAncillaryBuffer::new(&mut space);
    let length = loop {
        let mut parts = [IoSliceMut::new(&mut bytes)];
        match recvmsg(&from, &mut parts, &mut beside, RecvFlags::CMSG_CLOEXEC) {
            Ok(received) => break received.bytes,
            Err(rustix::io::Errno::INTR) => (),
            Err(rustix::io::Errno::CONNRESET) => return Ok(None),
            Err(errno) => return Err(errno.into()),
        }
    };
    let mut fd = None;
    for message in beside.drain() {
        if let RecvAncillaryMessage::ScmRights(mut fds) = message {
            fd = fds.next();
        }
    }
    Ok(Message::parse(&bytes[..length]).map(|message| (message, fd)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_message_is_read_as_it_was_written() {
        for message in [
            Message::Serve,
            Message::Exit,
            Message::Guarded,
            Message::Adopt,
            Message::Welcome { guarded: true, class: Class::PreContent },
            Message::Welcome { guarded: false, class: Class::Content },
            Message::Opened { id: 1 << 40 },
            Message::Answer { id: 3, code: 1 },
        ] {
            let bytes = message.render();
            assert!(bytes.len() <= LONGEST);
            assert_eq!(Message::parse(&bytes), Some(message));
            assert_eq!(Message::parse(&bytes[..1]), None);
        }
        assert_eq!(Message::parse(&[]), None);
    }
}
