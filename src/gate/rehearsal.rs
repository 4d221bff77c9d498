//! A gate without a kernel, for the fuzzer: bytes are what the operator's side sends and when
//! opens come and time passes; every open must be answered once, and none twice.

use std::collections::BTreeSet;
use std::time::Duration;

use rustix::net::{AddressFamily, SendFlags, SocketFlags, SocketType, send, socketpair};

use super::table::Table;
use super::wire::{self, LONGEST, Message};

/// Plays what the bytes say: each step is an opcode, some with what belongs to it.
///
/// # Panics
/// If an open is lost, answered twice or answered by a message that is none, or if a message is
/// not read as it was written.
pub fn rehearse(bytes: &[u8]) {
    let pair = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None);
    assert!(pair.is_ok(), "no pair of sockets: {pair:?}");
    let Ok((near, far)) = pair else { return };
    let mut table = Table::new(u64::from(bytes.len() as u32) << 8);
    let mut now = Duration::ZERO;
    let (mut opens, mut answered) = (0_u64, BTreeSet::new());
    let mut handed = Vec::new();
    let mut rest = bytes;
    while let [step, more @ ..] = rest {
        rest = more;
        match step % 6 {
            0 => {
                table.add(opens, now + Duration::from_secs(u64::from(*step)));
                opens += 1;
            }
            1 => {
                let until = usize::from(step / 6);
                let mut taken = 0;
                table.hand(|id, _| {
                    taken += 1;
                    handed.push(id);
                    taken <= until
                });
            }
            2 => table.unhand(),
            3 => {
                now += Duration::from_secs(u64::from(*step));
                for open in table.late(now) {
                    assert!(answered.insert(open), "answered twice");
                }
                assert!(table.next_deadline(now).is_none_or(|left| left > Duration::ZERO));
            }
            4 => {
                // An answer to an open that was handed over, also to one that was answered before.
                let Some(id) = handed.get(usize::from(step / 6) % handed.len().max(1)) else {
                    continue;
                };
                let message = Message::Answer { id: *id, code: u32::from(*step) };
                assert!(wire::send(&near, message, None).is_ok());
                answered.extend(take(&mut table, heard(&far)));
            }
            _ => {
                let (packet, left) = more.split_at(usize::from(step / 6).min(more.len()));
                rest = left;
                if packet.is_empty() || send(&near, packet, SendFlags::NOSIGNAL).is_err() {
                    continue;
                }
                let message = heard(&far);
                assert!(message.is_none() || packet.len() <= LONGEST, "a message cut short");
                answered.extend(take(&mut table, message));
            }
        }
        assert_eq!(opens, answered.len() as u64 + table.len() as u64, "an open is lost");
    }
}

fn heard(far: &std::os::fd::OwnedFd) -> Option<Message> {
    let (message, fd) = wire::receive(far).ok().flatten()?;
    assert!(fd.is_none());
    Some(message)
}

fn take(table: &mut Table<u64>, message: Option<Message>) -> Option<u64> {
    match message {
        Some(Message::Answer { id, .. }) => table.take(id),
        _ => None,
    }
}
