//! What can go wrong in the store, in words that name what was tried on what.
//!
//! Errors are cheap to clone because one failed sync answers every writer of its batch.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::Revision;

/// The failure cases of a store.
#[derive(Debug, Clone, thiserror::Error)]
pub enum StoreError {
    /// The revision asked for is older than what the store still keeps.
    #[error("revision {requested} has been compacted; the oldest revision kept is {compacted}")]
    Compacted {
        /// The revision asked for.
        requested: Revision,
        /// The oldest revision that can be read.
        compacted: Revision,
    },
    /// The revision asked for does not exist yet.
    #[error("revision {requested} is in the future; the newest revision is {current}")]
    FutureRevision {
        /// The revision asked for.
        requested: Revision,
        /// The newest revision.
        current: Revision,
    },
    /// The log does not say what was once written to it. The store refuses to start rather than drop what was acknowledged.
    #[error("the log is damaged at byte {offset} of {}: {detail}; restore this directory from a backup", .file.display())]
    Corrupt {
        /// The damaged file.
        file: PathBuf,
        /// Where in it, in bytes from its beginning.
        offset: u64,
        /// What is wrong there.
        detail: String,
    },
    /// The log was written by a release whose format this one does not read.
    #[error("{} has log format {found}, but this release reads format {supported}; use the release that wrote it", .file.display())]
    Format {
        /// The file that says so.
        file: PathBuf,
        /// The version found.
        found: u32,
        /// The version that this code reads and writes.
        supported: u32,
    },
    /// Another process (or another `Log` in this one) uses the directory.
    #[error("the store in {} is in use by another process; stop that one first", .directory.display())]
    Locked {
        /// The directory of the log.
        directory: PathBuf,
    },
    /// The file system of the directory has no advisory locks, so two engines could not be kept apart.
    #[error("the file system of {} offers no flock ({source}); put the store on a local file system", .directory.display())]
    NoLocks {
        /// The directory of the log.
        directory: PathBuf,
        /// What the kernel answered.
        source: Arc<io::Error>,
    },
    /// No space is left. Reads go on; nothing of this write will be seen unless the disk says so at the next start.
    #[error("no space left on the file system of {}: free some, writes are refused until then", .directory.display())]
    Full {
        /// The directory of the log.
        directory: PathBuf,
    },
    /// An earlier write or sync failed. It is never retried: the process has to start again and read back what is on disk.
    #[error("the store takes no more writes: {reason}")]
    Poisoned {
        /// The first failure.
        reason: String,
    },
    /// The operating system refused something.
    #[error("cannot {doing} {}: {source}", .path.display())]
    Io {
        /// What was tried, as a verb.
        doing: &'static str,
        /// On what.
        path: PathBuf,
        /// What the kernel answered.
        source: Arc<io::Error>,
    },
    /// A transaction wrote or compared a key of no bytes.
    #[error("a key must not be empty")]
    EmptyKey,
    /// A transaction named the same key in two operations, which would give one revision two states.
    #[error("key {key:?} is written twice in one transaction")]
    DuplicateKey {
        /// The key, as text where it is text.
        key: String,
    },
    /// A transaction is larger than [`crate::MAX_TXN_BYTES`].
    #[error("a transaction of {bytes} bytes is over the limit of {limit} bytes")]
    TooLarge {
        /// Its size.
        bytes: usize,
        /// The limit.
        limit: usize,
    },
    /// The store was closed while the call waited.
    #[error("the store was closed")]
    Closed,
}

impl StoreError {
    /// Wraps an operating system error; a lack of space becomes [`StoreError::Full`] of the directory that `path` is in.
    pub(crate) fn io(doing: &'static str, path: &Path, source: io::Error) -> Self {
        match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                Self::Full { directory: path.parent().unwrap_or(path).to_owned() }
            }
            _ => Self::Io { doing, path: path.to_owned(), source: Arc::new(source) },
        }
    }

    /// A damaged place of the log.
    pub(crate) fn corrupt(file: &Path, offset: u64, detail: impl Into<String>) -> Self {
        Self::Corrupt { file: file.to_owned(), offset, detail: detail.into() }
    }
}
