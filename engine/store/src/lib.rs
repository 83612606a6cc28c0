//! The engine's only state: revisions, transactions and watches, with the meaning that etcd gives these words.
//!
//! [`Store`] is the seam; [`Log`] is our implementation of it: an append-only log with group commit, an index of keys in
//! memory, and watchers that are cursors into the log. Promises: what is acknowledged is on disk; what can be read or
//! watched is on disk; a watch sees each commit once, whole and in order. It knows nothing of Kubernetes, of objects or
//! of HTTP. Compaction, leases and an external etcd are not here yet.

mod committer;
mod disk;
mod error;
mod evaluate;
mod files;
mod frame;
mod index;
mod kv;
mod log;
mod recovery;
mod replay;
mod ring;
mod segment;
mod shared;
#[cfg(any(test, feature = "sim"))]
mod sim;
mod spare;
mod store;
#[cfg(test)]
mod tests;
mod txn;
mod watch;
mod writer;

pub use disk::{Directory, Disk, DiskFile, DiskLock};
pub use error::StoreError;
pub use kv::{KeyValue, Range, Ranged, Revision};
pub use log::{Log, Options};
#[cfg(any(test, feature = "sim"))]
pub use sim::{Fault, SimDisk};
pub use store::{Commit, Event, EventKind, Store, Watcher};
pub use txn::{Compare, MAX_TXN_BYTES, Op, Txn, TxnResult};
