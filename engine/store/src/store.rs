//! The seam between the engine and whatever keeps its state.
//!
//! The API server and the etcd gateway hold an `Arc<dyn Store>` and know nothing else. One suite of tests runs over every
//! implementation.

use std::sync::Arc;

use async_trait::async_trait;

use crate::{KeyValue, Range, Ranged, Revision, StoreError, Txn, TxnResult};

/// What happened to a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EventKind {
    /// It was created or changed. Created when `kv.create_revision == kv.mod_revision`.
    Put,
    /// It was removed.
    Delete,
}

/// One change of one key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// What happened.
    pub kind: EventKind,
    /// The key as the change left it; for a deletion only its key and `mod_revision`.
    pub kv: KeyValue,
    /// The key as it stood before; `None` when it was absent. Always filled, also when read back from the log.
    pub previous: Option<KeyValue>,
}

/// All changes of one revision, in the order of the transaction. Never split.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Commit {
    /// The revision that they made.
    pub revision: Revision,
    /// The changes; never empty.
    pub events: Vec<Event>,
}

/// A store of keys with revisions, strictly serializable: each read and write sees all that was answered before it began.
#[async_trait]
pub trait Store: Send + Sync + 'static {
    /// The newest revision that is durable and visible.
    fn revision(&self) -> Revision;

    /// The keys of a range, newest or as they stood at an older revision.
    async fn range(&self, range: Range) -> Result<Ranged, StoreError>;

    /// Compares and writes atomically. Dropping the future leaves open whether it happened, as a lost connection would.
    async fn txn(&self, txn: Txn) -> Result<TxnResult, StoreError>;

    /// Every commit of revision `from` or later that touches the range, those of the past first. A `from` in the future
    /// waits for it. To go on after a `range`, watch from its `revision + 1`.
    async fn watch(&self, range: Range, from: Revision) -> Result<Box<dyn Watcher>, StoreError>;
}

/// A cursor over the commits of a range.
#[async_trait]
pub trait Watcher: Send {
    /// The next commit, with the events of the range only: in order, each once, without a gap. May be dropped at any
    /// moment and called again. An error is final only for [`StoreError::Closed`] and [`StoreError::Compacted`].
    async fn next(&mut self) -> Result<Arc<Commit>, StoreError>;
}
