//! What the store promises, tried on a real directory and on a simulated disk.

mod by_hand;
mod crash;
mod damage;
mod directory;
mod faults;
mod history;
mod model;
mod races;
mod watching;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use fastrand::Rng;

use crate::sim::SimDisk;
use crate::tests::by_hand::by_hand;
use crate::tests::model::Model;
use crate::{Commit, Log, Options, Range, Revision, Store, StoreError, Txn};

/// Small segments and a small ring, so that rolls and reading back happen all the time; everything on the caller's thread.
fn small() -> Options {
    Options {
        segment_bytes: 1024,
        ring_commits: 3,
        ring_bytes: 1 << 20,
        inline_below: Duration::MAX,
        background: false,
        identity: Some(7),
    }
}

fn open(disk: &SimDisk) -> Result<Arc<Log>, StoreError> {
    Log::open_on(Arc::new(disk.clone()), small())
}

/// Runs a future on this thread.
fn wait<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
}

fn put(log: &dyn Store, key: &'static str, value: &'static str) -> Revision {
    wait(log.txn(Txn::new().put(key, value))).unwrap().revision
}

/// Batches of transactions over a few keys: puts, deletes, compares that hold and that do not, and one frame larger than a
/// segment.
fn workload(seed: u64, batches: usize) -> Vec<Vec<Txn>> {
    let mut rng = Rng::with_seed(seed);
    let key = |rng: &mut Rng| Bytes::from(format!("k{}", rng.u32(..6)));
    let batch = |number: usize, rng: &mut Rng| {
        if number == batches / 2 {
            return vec![Txn::new().put("large", vec![7; 3000])];
        }
        (0..rng.usize(1..4))
            .map(|_| match rng.u32(..8) {
                0 => Txn::new().delete(key(rng)),
                1 => Txn::new().when(key(rng), rng.u64(..8)).put("compared", "x"),
                2 => Txn::new().put("a", format!("{}", rng.u64(..))).put("b", "same").delete("k0"),
                _ => Txn::new().put(key(rng), vec![b'v'; rng.usize(..200)]),
            })
            .collect()
    };
    (0..batches).map(|number| batch(number, &mut rng)).collect()
}

/// All commits from a revision up to the head.
fn commits_since(log: &dyn Store, range: Range, from: Revision) -> Vec<Commit> {
    let mut watcher = wait(log.watch(range, from)).unwrap();
    // Everything published is ready at once; what is not ready is not there.
    std::iter::from_fn(|| by_hand(watcher.next()).settle()).map(|commit| Commit::clone(&commit.unwrap())).collect()
}

/// Every revision and every commit of a log is as the model has it.
fn assert_same(log: &dyn Store, model: &Model) {
    assert_eq!(log.revision(), model.head());
    for revision in 1..=model.head() {
        let ranged = wait(log.range(Range::all().at(revision))).unwrap();
        assert_eq!(ranged.items, model.range(&Range::all(), revision), "at revision {revision}");
    }
    assert_eq!(commits_since(log, Range::all(), 0), model.commits());
}
