//! Content on their way: bytes one after the other, and for a large file that was just summed
//! also what its pieces add up to, so that whoever sends it need not sum the whole of it again.

use std::io;
use std::pin::Pin;
use std::sync::Arc;

use tokio::io::AsyncRead;

use crate::model::Sha256;

/// Bytes on their way in or out; never held in memory as a whole.
pub type Body = Pin<Box<dyn Content>>;

/// Bytes of a piece; the last one has the rest. Source: the smallest part of an upload that S3 takes.
pub const PIECE: usize = 5 << 20;

/// Bytes that come one after the other.
pub trait Content: AsyncRead + Send {
    /// The same bytes by pieces, where their sums are known.
    fn pieces(&self) -> Option<Arc<dyn Pieces>> {
        None
    }
}

impl<T: AsRef<[u8]> + Unpin + Send> Content for io::Cursor<T> {}
impl Content for tokio::io::DuplexStream {}
impl<R: AsyncRead + Send> Content for tokio::io::Take<R> {}
impl<A: AsyncRead + Send, B: AsyncRead + Send> Content for tokio::io::Chain<A, B> {}
impl<S, B> Content for tokio_util::io::StreamReader<S, B> where Self: AsyncRead + Send {}

/// What a content adds up to, as a whole and piece by piece: all of it of the same bytes, read once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PieceSums {
    /// Of the whole.
    pub whole: Sha256,
    /// Bytes of the whole.
    pub size: u64,
    /// Of each [`PIECE`], in their order.
    pub pieces: Vec<Sha256>,
}

/// A content whose pieces can be read in any order, several at once. What is read may be other
/// bytes than were summed: each piece is to be compared with its sum.
pub trait Pieces: Send + Sync {
    /// What was summed.
    fn sums(&self) -> &PieceSums;
    /// Fills `into` with the bytes from `at` on. Blocks.
    ///
    /// # Errors
    /// There are not so many, or they cannot be read.
    fn read(&self, at: u64, into: &mut [u8]) -> io::Result<()>;
    /// Whether the file still is as it was when it was summed, as far as that can be told without
    /// reading it: neither written to nor made longer. Blocks.
    ///
    /// # Errors
    /// It is not.
    fn unchanged(&self) -> io::Result<()>;
}
