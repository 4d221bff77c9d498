//! What the pieces of a large file add up to, found in the reading that sums the whole of it, and
//! kept until it is sent: what is sent then needs one sum more, of each piece, and not two.
//!
//! The two sums of one reading are made beside each other, on threads of their own, as long as not
//! many files are read at once: a processor takes as long for each as for all else.

use std::collections::VecDeque;
use std::fs::File;
use std::io::Read as _;
use std::os::unix::fs::FileExt as _;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};

use rustix::io::Errno;
use sha2::Digest as _;

use super::About;
use super::beneath::{Fault, stamp_fd};
use super::read::CHUNK;
use crate::model::{Sha256, Stamp};
use crate::world::{PIECE, PieceSums, Pieces};

/// Sums of pieces that are kept, of all files together: 2 MiB.
const KEPT: usize = 64 << 10;
/// More pieces than this an upload does not have. Source: S3.
const MOST: u64 = 10_000;
/// Files that are summed on threads of their own, at once.
const LANES: usize = 2;
/// Buffers between the reading of a file and its sums.
const AHEAD: usize = 4;

/// The sums of files that were read and not yet sent.
#[derive(Debug, Default)]
pub(super) struct Summed {
    kept: Mutex<VecDeque<(Stamp, Arc<PieceSums>)>>,
    busy: AtomicUsize,
}

impl Summed {
    /// Keeps what a file in this state adds up to; the oldest make room.
    pub(super) fn keep(&self, stamp: Stamp, sums: PieceSums) {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.retain(|(of, _)| of.ino != stamp.ino);
        kept.push_back((stamp, Arc::new(sums)));
        let mut all: usize = kept.iter().map(|(_, sums)| sums.pieces.len()).sum();
        while all > KEPT
            && let Some((_, oldest)) = kept.pop_front()
        {
            all -= oldest.pieces.len();
        }
    }

    /// What a file in this state adds up to, if it is still known.
    pub(super) fn of(&self, stamp: Stamp) -> Option<Arc<PieceSums>> {
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.iter().find(|(of, _)| *of == stamp).map(|(_, sums)| Arc::clone(sums))
    }

    /// Whether a file of this size is worth it.
    pub(super) fn is_for(size: u64) -> bool {
        (PIECE as u64 + 1..=PIECE as u64 * MOST).contains(&size)
    }

    /// Both sums of exactly `size` bytes; `None` if there are more or fewer.
    pub(super) fn sum(
        &self,
        content: &mut File,
        size: u64,
        buffer: &mut [u8],
        stop: &AtomicBool,
    ) -> Result<Option<PieceSums>, Errno> {
        let mut reading = Reading { content, size, total: 0, stop };
        let lane = Lane(&self.busy);
        let (whole, pieces) = if self.busy.fetch_add(1, Ordering::Relaxed) < LANES {
            beside(&mut reading)?
        } else {
            let mut pieces = OfPieces::default();
            let mut whole = sha2::Sha256::new();
            while let Some(read) = reading.next(buffer)? {
                whole.update(&buffer[..read]);
                pieces.update(&buffer[..read]);
            }
            (whole, pieces)
        };
        drop(lane);
        let whole = Sha256(whole.finalize().into());
        let sums = PieceSums { whole, size, pieces: pieces.finish() };
        Ok((reading.total == size).then_some(sums))
    }
}

/// One of those who read at once.
struct Lane<'a>(&'a AtomicUsize);

impl Drop for Lane<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A file that is read from its begin to its end.
struct Reading<'a> {
    content: &'a mut File,
    size: u64,
    total: u64,
    stop: &'a AtomicBool,
}

impl Reading<'_> {
    /// The next bytes; `None` at the end, or when there are more than there should be.
    fn next(&mut self, buffer: &mut [u8]) -> Result<Option<usize>, Errno> {
        loop {
            if self.stop.load(Ordering::Relaxed) {
                return Err(Errno::CANCELED);
            }
            let read = match self.content.read(buffer) {
                Ok(read) => read,
                Err(e) if e.kind() == std::io::ErrorKind::Interrupted => continue,
                Err(e) => return Err(Errno::from_io_error(&e).unwrap_or(Errno::IO)),
            };
            self.total += read as u64;
            return Ok((read > 0 && self.total <= self.size).then_some(read));
        }
    }
}

/// The sums of pieces on their way.
#[derive(Default)]
struct OfPieces {
    done: Vec<Sha256>,
    sum: sha2::Sha256,
    /// Bytes in `sum`.
    filled: usize,
}

impl OfPieces {
    fn update(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let (now, later) = bytes.split_at(bytes.len().min(PIECE - self.filled));
            self.sum.update(now);
            self.filled += now.len();
            bytes = later;
            if self.filled == PIECE {
                self.end();
            }
        }
    }

    fn end(&mut self) {
        self.done.push(Sha256(std::mem::take(&mut self.sum).finalize().into()));
        self.filled = 0;
    }

    fn finish(mut self) -> Vec<Sha256> {
        if self.filled > 0 {
            self.end();
        }
        self.done
    }
}

/// Reads here and makes the two sums on a thread each.
fn beside(reading: &mut Reading<'_>) -> Result<(sha2::Sha256, OfPieces), Errno> {
    let (spare, emptied) = channel();
    let (to_whole, whole) = sync_channel(AHEAD);
    let (to_pieces, pieces) = sync_channel(AHEAD);
    let spare_too = spare.clone();
    std::thread::scope(|scope| {
        let whole = scope.spawn(move || {
            let mut sum = sha2::Sha256::new();
            each(whole, &spare, |bytes| sum.update(bytes));
            sum
        });
        let pieces = scope.spawn(move || {
            let mut sums = OfPieces::default();
            each(pieces, &spare_too, |bytes| sums.update(bytes));
            sums
        });
        let fed = feed(reading, &emptied, [to_whole, to_pieces]);
        let (whole, pieces) = (whole.join(), pieces.join());
        fed?;
        match (whole, pieces) {
            (Ok(whole), Ok(pieces)) => Ok((whole, pieces)),
            _ => Err(Errno::IO),
        }
    })
}

/// Takes what comes; the last to be done with a buffer gives it back.
fn each(coming: Receiver<Arc<Vec<u8>>>, spare: &Sender<Vec<u8>>, mut take: impl FnMut(&[u8])) {
    for bytes in coming {
        take(&bytes);
        if let Some(buffer) = Arc::into_inner(bytes) {
            let _the_reader_is_done = spare.send(buffer);
        }
    }
}

fn feed(
    reading: &mut Reading<'_>,
    emptied: &Receiver<Vec<u8>>,
    to: [SyncSender<Arc<Vec<u8>>>; 2],
) -> Result<(), Errno> {
    let mut free = vec![Vec::new(); AHEAD];
    loop {
        let mut buffer = match free.pop() {
            Some(buffer) => buffer,
            None => emptied.recv().map_err(|_| Errno::IO)?,
        };
        buffer.resize(CHUNK, 0);
        let Some(read) = reading.next(&mut buffer)? else { return Ok(()) };
        buffer.truncate(read);
        let full = Arc::new(buffer);
        for to in &to {
            to.send(Arc::clone(&full)).map_err(|_| Errno::IO)?;
        }
        // Both are done with it already, and left it here.
        free.extend(Arc::into_inner(full));
    }
}

/// A file of a tenant's that was summed, to be read by pieces.
pub(super) struct SummedFile {
    pub file: File,
    pub expected: Stamp,
    pub about: About,
    pub sums: Arc<PieceSums>,
}

impl SummedFile {
    fn changed(&self) -> std::io::Error {
        let fault = Fault::changed("it changed while it was read");
        std::io::Error::other(self.about.clone().error(fault))
    }
}

impl Pieces for SummedFile {
    fn sums(&self) -> &PieceSums {
        &self.sums
    }

    fn read(&self, at: u64, into: &mut [u8]) -> std::io::Result<()> {
        match self.file.read_exact_at(into, at) {
            Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => Err(self.changed()),
            read => read,
        }
    }

    fn unchanged(&self) -> std::io::Result<()> {
        if stamp_fd(&self.file)? == self.expected { Ok(()) } else { Err(self.changed()) }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    fn sums(bytes: &[u8], size: u64, summed: &Summed) -> Option<PieceSums> {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(bytes).unwrap();
        std::io::Seek::rewind(&mut file).unwrap();
        let mut buffer = vec![0; 100_000];
        summed.sum(&mut file, size, &mut buffer, &AtomicBool::new(false)).unwrap()
    }

    #[test]
    fn both_sums_are_right_on_threads_of_their_own_and_on_one() {
        let summed = Summed::default();
        for length in [PIECE + 1, 2 * PIECE, 3 * PIECE + 12_345] {
            let bytes: Vec<u8> = (0..length).map(|n| (n * 31 + n / 4099) as u8).collect();
            let sum = |bytes: &[u8]| Sha256(sha2::Sha256::digest(bytes).into());
            let right = PieceSums {
                whole: sum(&bytes),
                size: length as u64,
                pieces: bytes.chunks(PIECE).map(sum).collect(),
            };
            for busy in [0, LANES] {
                summed.busy.store(busy, Ordering::Relaxed);
                assert_eq!(sums(&bytes, length as u64, &summed).as_ref(), Some(&right));
                assert_eq!(sums(&bytes, length as u64 - 1, &summed), None);
                assert_eq!(sums(&bytes, length as u64 + 1, &summed), None);
                assert_eq!(summed.busy.load(Ordering::Relaxed), busy);
            }
        }
    }

    #[test]
    fn the_oldest_sums_make_room_and_another_state_of_a_file_has_none() {
        let summed = Summed::default();
        let stamp = |ino, ctime_ns| Stamp { ino, size: 1, mtime_ns: 0, ctime_ns };
        let sums = || PieceSums {
            whole: Sha256([0; 32]),
            size: 1,
            pieces: vec![Sha256([1; 32]); KEPT / 2],
        };
        for ino in 1..=3 {
            summed.keep(stamp(ino, 0), sums());
        }
        let known = [1, 2, 3].map(|ino| summed.of(stamp(ino, 0)).is_some());
        assert_eq!(known, [false, true, true]);
        assert_eq!(summed.of(stamp(2, 1)), None);
    }
}
