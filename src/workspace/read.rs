//! Reading a tenant's file for upload: the bytes of one state of it, or an error.

use std::fs::File;
use std::io::Read as _;
use std::os::fd::OwnedFd;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use futures_util::TryStreamExt as _;
use rustix::fs::fstat;
use tokio::io::{AsyncRead, ReadBuf};

use super::About;
use super::beneath::{Fault, is_placeholder, open_path, reopen, stamp_fd, stamp_of};
use super::pieces::SummedFile;
use super::place::is_file;
use crate::model::{RelPath, Stamp};
use crate::world::{Body, Content, PieceSums, Pieces};

/// Bytes read at a time.
pub(super) const CHUNK: usize = 256 * 1024;

/// Opens a regular file that is as the caller last saw it.
pub(super) fn open(case: &OwnedFd, path: &RelPath, expected: Stamp) -> Result<File, Fault> {
    let entry = open_path(case, path.as_bytes())?;
    let stat = fstat(&entry)?;
    if !is_file(&stat) {
        return Err(Fault::changed("it is no regular file any more"));
    }
    if stamp_of(&stat) != expected {
        return Err(Fault::changed("it is not as it was last seen"));
    }
    if is_placeholder(&entry)? {
        return Err(Fault::changed("it is a placeholder: its content is not here"));
    }
    Ok(File::from(reopen(&entry)?))
}

/// All bytes of a small file that is as the caller last saw it, and still is after they were read.
pub(super) fn whole(case: &OwnedFd, path: &RelPath, expected: Stamp) -> Result<Vec<u8>, Fault> {
    let mut file = open(case, path, expected)?;
    let size = usize::try_from(expected.size).map_err(|_| Fault::changed("it is not small"))?;
    let mut bytes = vec![0; size];
    let short = match file.read_exact(&mut bytes) {
        Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => true,
        read => read.map(|()| false)?,
    };
    if short || stamp_fd(&file)? != expected {
        return Err(Fault::changed("it changed while it was read"));
    }
    Ok(bytes)
}

/// Where a body stands.
struct Reading {
    file: File,
    left: u64,
    expected: Stamp,
    about: About,
    /// The last look is still owed.
    open: bool,
}

/// The file's bytes, exactly `expected.size` of them. The last of them are given only if the file
/// is still the same, so that a reader who counts never completes a torn copy.
pub(super) fn body(
    file: File,
    expected: Stamp,
    about: About,
    sums: Option<Arc<PieceSums>>,
) -> Body {
    let pieces = sums.and_then(|sums| {
        // Its place in the file is shared, and is not used: pieces are read where they are.
        let file = file.try_clone().ok()?;
        let about = about.clone();
        Some(Arc::new(SummedFile { file, expected, about, sums }) as Arc<dyn Pieces>)
    });
    let reading = Reading { file, left: expected.size, expected, about, open: true };
    let stream = futures_util::stream::try_unfold(reading, |reading| async {
        if !reading.open {
            return Ok(None);
        }
        // No thread is held while the reader of the body is slow.
        tokio::task::spawn_blocking(move || reading.step()).await.map_err(std::io::Error::other)?
    });
    let bytes = tokio_util::io::StreamReader::new(Box::pin(stream.into_stream()));
    Box::pin(FileContent { bytes, pieces })
}

/// A file's bytes one after the other, or by pieces.
struct FileContent<R> {
    bytes: R,
    pieces: Option<Arc<dyn Pieces>>,
}

impl<R: AsyncRead + Unpin> AsyncRead for FileContent<R> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.bytes).poll_read(context, buffer)
    }
}

impl<R: AsyncRead + Unpin + Send> Content for FileContent<R> {
    fn pieces(&self) -> Option<Arc<dyn Pieces>> {
        self.pieces.clone()
    }
}

impl Reading {
    fn step(mut self) -> std::io::Result<Option<(Bytes, Reading)>> {
        let want = usize::try_from(self.left).unwrap_or(usize::MAX).min(CHUNK);
        let mut chunk = Vec::with_capacity(want);
        (&mut self.file).take(want as u64).read_to_end(&mut chunk)?;
        self.left -= chunk.len() as u64;
        let short = chunk.len() < want;
        if short || self.left == 0 {
            let now = stamp_fd(&self.file)?;
            if short || now != self.expected {
                let fault = Fault::changed("it changed while it was read");
                return Err(std::io::Error::other(self.about.error(fault)));
            }
            self.open = false;
        }
        if chunk.is_empty() { Ok(None) } else { Ok(Some((Bytes::from(chunk), self))) }
    }
}
