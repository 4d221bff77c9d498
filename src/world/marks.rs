//! What holds opens of placeholders back until they are filled.

use std::os::fd::BorrowedFd;

/// Marks on inodes. Whoever opens a marked one waits.
pub trait Marks: Send + Sync + std::fmt::Debug {
    /// Marks the inode of a descriptor, which may be an O_PATH one. Marked already is success.
    ///
    /// # Errors
    /// The kernel or the file system refuses: EOPNOTSUPP, EINVAL, ENOSPC.
    fn mark(&self, inode: BorrowedFd<'_>) -> std::io::Result<()>;
    /// The same for one that is met again and again, and was most likely marked before.
    ///
    /// # Errors
    /// As [`Marks::mark`].
    fn see(&self, inode: BorrowedFd<'_>) -> std::io::Result<()> {
        self.mark(inode)
    }
    /// Takes the mark away. None is success.
    ///
    /// # Errors
    /// The kernel's.
    fn unmark(&self, inode: BorrowedFd<'_>) -> std::io::Result<()>;
}
