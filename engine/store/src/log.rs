//! [`Log`]: the store in a directory of this machine.
//!
//! Reads and lone writes run on the caller's thread: a read is memory (old revisions: a few reads of the page cache), and
//! a lone write is one fdatasync, about 100 microseconds where that is quick. Where it is slow, or when several write at
//! once, a thread of the log does it.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::path::Path;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use async_trait::async_trait;

use crate::committer::Committer;
use crate::disk::DiskLock;
use crate::files::Files;
use crate::recovery::{create, recover};
use crate::ring::Ring;
use crate::shared::Shared;
use crate::spare::Spares;
use crate::watch::LogWatcher;
use crate::writer::Writer;
use crate::{Directory, Disk, Range, Ranged, Revision, Store, StoreError, Txn, TxnResult, Watcher};

/// How a log is laid out and run. None of it has to be the same the next time.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// The size of new segments in bytes.
    pub segment_bytes: usize,
    /// How many of the newest commits stay in memory for watchers.
    pub ring_commits: usize,
    /// How many bytes of keys and values these may hold.
    pub ring_bytes: usize,
    /// A caller does its own sync only if the last one took less than this. Zero: the log's thread does all of them.
    pub inline_below: Duration,
    /// Whether a thread makes the next segment ahead of need. Without, the commit that opens a segment makes the one after.
    pub background: bool,
    /// The identity of a new log; `None` draws one at random.
    pub identity: Option<u64>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            segment_bytes: 8 << 20,
            ring_commits: 4096,
            ring_bytes: 8 << 20,
            inline_below: Duration::from_millis(2),
            background: true,
            identity: None,
        }
    }
}

/// A store that is an append-only log in a directory. Dropping it stops its threads and releases the directory.
#[derive(Debug)]
pub struct Log {
    shared: Arc<Shared>,
    committer: Arc<Committer>,
    thread: Option<JoinHandle<()>>,
    // After the committer, which owns the writer: the directory is free only when nothing writes to it any more.
    _lock: Box<dyn DiskLock>,
}

impl Log {
    /// Opens the log in `dir`, making it when there is none. Reads all of it, so the time grows with the log.
    pub fn open(dir: &Path, options: Options) -> Result<Arc<Self>, StoreError> {
        Self::open_on(Arc::new(Directory::open(dir)?), options)
    }

    /// Opens the log on a disk.
    pub fn open_on(disk: Arc<dyn Disk>, options: Options) -> Result<Arc<Self>, StoreError> {
        let lock = disk.lock()?;
        let ring = || Ring::new(options.ring_commits, options.ring_bytes);
        let found = match recover(&*disk, ring())? {
            Some(found) => found,
            None => create(&disk, options.identity.unwrap_or_else(random), options.segment_bytes, ring())?,
        };
        let log = found.active.identity.log;
        let shared = Arc::new(Shared::new(found.state, Files::new(Arc::clone(&disk)), log));
        let spares = Spares::new(Arc::clone(&disk), log, options.segment_bytes, found.spares, options.background)?;
        let directory = disk.path("");
        let writer = Writer::new(disk, found.active, found.end, found.sequence, spares);
        let committer = Arc::new(Committer::new(Arc::clone(&shared), writer, options.inline_below));
        let thread = start(&committer).map_err(|e| StoreError::io("start a thread for", &directory, e))?;
        Ok(Arc::new(Self { shared, committer, thread: Some(thread), _lock: lock }))
    }

    /// Waits until the log takes no more writes, and says why. Reads go on, but the process should end and start again:
    /// what the disk did not take is never retried.
    pub async fn failed(&self) -> StoreError {
        self.committer.wait_failed().await
    }

    /// Commits a batch of a known composition.
    #[cfg(test)]
    pub(crate) fn batch(&self, txns: &[Txn]) -> Result<Vec<TxnResult>, StoreError> {
        self.committer.commit_batch(txns)
    }
}

fn start(committer: &Arc<Committer>) -> std::io::Result<JoinHandle<()>> {
    let committer = Arc::clone(committer);
    std::thread::Builder::new().name("store-commit".into()).spawn(move || committer.serve())
}

/// A number that no other log has. The standard library seeds its hash maps from the operating system.
fn random() -> u64 {
    RandomState::new().build_hasher().finish()
}

impl Drop for Log {
    fn drop(&mut self) {
        self.committer.stop();
        if self.thread.take().is_some_and(|thread| thread.join().is_err()) {
            tracing::error!("the thread that commits to the log panicked");
        }
        self.shared.close();
    }
}

#[async_trait]
impl Store for Log {
    fn revision(&self) -> Revision {
        self.shared.head()
    }

    async fn range(&self, range: Range) -> Result<Ranged, StoreError> {
        self.shared.range(&range)
    }

    async fn txn(&self, txn: Txn) -> Result<TxnResult, StoreError> {
        self.committer.commit(txn).await
    }

    async fn watch(&self, range: Range, from: Revision) -> Result<Box<dyn Watcher>, StoreError> {
        Ok(Box::new(LogWatcher::new(&self.shared, range, from)?))
    }
}
