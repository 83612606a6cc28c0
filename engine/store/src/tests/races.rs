//! Many at once, on a real directory with real threads.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use crate::{Commit, Log, Options, Range, Revision, Store, Txn};

const WRITERS: u64 = 8;
const INCREMENTS: u64 = 60;

fn options() -> Options {
    // The default but for sizes: rolls, the background thread, both ways to commit, and watchers that fall behind.
    Options { segment_bytes: 16 << 10, ring_commits: 8, ..Options::default() }
}

/// Adds one to a counter by compare-and-swap until that has worked so many times; returns what each success made.
async fn increment(log: Arc<Log>, key: &'static str) -> Vec<(Revision, u64)> {
    let mut made = Vec::new();
    let mut known = log.range(Range::key(key)).await.unwrap().items.pop();
    while made.len() < usize::try_from(INCREMENTS).unwrap() {
        let number = known.as_ref().map_or(0, |kv| number(&kv.value)) + 1;
        let revision = known.as_ref().map_or(0, |kv| kv.mod_revision);
        let txn = Txn::new().when(key, revision).put(key, number.to_le_bytes().to_vec());
        let answer = log.txn(txn).await.unwrap();
        if answer.succeeded {
            made.push((answer.revision, number));
            assert!(log.revision() >= answer.revision, "what was answered can be read");
            tokio::task::yield_now().await;
            known = log.range(Range::key(key)).await.unwrap().items.pop();
        } else {
            known = answer.current.into_iter().next().unwrap();
        }
    }
    made
}

fn number(bytes: &[u8]) -> u64 {
    u64::from_le_bytes(bytes.try_into().unwrap())
}

/// Reads commits up to a revision, now and then more slowly than they come.
async fn follow(log: Arc<Log>, range: Range, until: Revision, slow: bool) -> Vec<Arc<Commit>> {
    let mut watcher = log.watch(range, 0).await.unwrap();
    let mut seen: Vec<Arc<Commit>> = Vec::new();
    while seen.last().is_none_or(|commit| commit.revision < until) {
        seen.push(watcher.next().await.unwrap());
        if slow && seen.len().is_multiple_of(20) {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }
    seen
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn racing_compare_and_swaps_have_one_order_that_every_watcher_sees() {
    let directory = tempfile::tempdir().unwrap();
    let log = Log::open(directory.path(), options()).unwrap();
    let last = 1 + WRITERS * INCREMENTS;
    let watchers: Vec<_> =
        [false, true, true].map(|slow| tokio::spawn(follow(log.clone(), Range::all(), last, slow))).into();
    let writers: Vec<_> = (0..WRITERS).map(|_| tokio::spawn(increment(log.clone(), "counter"))).collect();
    let mut made = BTreeMap::new();
    for writer in writers {
        for (revision, number) in writer.await.unwrap() {
            assert_eq!(made.insert(revision, number), None, "two writers made revision {revision}");
        }
    }
    assert_eq!(made, (1..=WRITERS * INCREMENTS).map(|n| (n + 1, n)).collect());
    for watcher in watchers {
        let seen = watcher.await.unwrap();
        let events = seen.iter().map(|commit| (commit.revision, number(&commit.events[0].kv.value)));
        assert!(events.eq(made.iter().map(|(revision, number)| (*revision, *number))));
        let mut before = None;
        for commit in &seen {
            assert_eq!(commit.events[0].previous, before);
            before = Some(commit.events[0].kv.clone());
        }
    }
    drop(log);
    let log = Log::open(directory.path(), options()).unwrap();
    assert_eq!(log.revision(), last);
    assert_eq!(number(&log.range(Range::key("counter")).await.unwrap().items[0].value), WRITERS * INCREMENTS);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn lists_under_load_show_one_revision_each() {
    // Both keys always change together, so a list that mixed two revisions would show two different values.
    let directory = tempfile::tempdir().unwrap();
    let log = Log::open(directory.path(), options()).unwrap();
    let writer = tokio::spawn({
        let log = log.clone();
        async move {
            for n in 0..400u64 {
                let value = n.to_le_bytes().to_vec();
                log.txn(Txn::new().put("a", value.clone()).put("z", value)).await.unwrap();
            }
        }
    });
    let mut lists = 0;
    while !writer.is_finished() {
        let at = log.revision();
        for range in [Range::all(), Range::all().at(at)] {
            let ranged = log.range(range).await.unwrap();
            if let [a, z] = &ranged.items[..] {
                assert_eq!((&a.value, a.mod_revision), (&z.value, z.mod_revision));
                lists += 1;
            }
        }
        tokio::task::yield_now().await;
    }
    writer.await.unwrap();
    assert!(lists > 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn callers_that_go_away_do_not_hold_up_the_others() {
    let directory = tempfile::tempdir().unwrap();
    let log = Log::open(directory.path(), Options { inline_below: Duration::ZERO, ..options() }).unwrap();
    for round in 0..200u64 {
        let gone = log.txn(Txn::new().put("gone", round.to_le_bytes().to_vec()));
        drop(futures::poll!(Box::pin(gone)));
        log.txn(Txn::new().put("here", round.to_le_bytes().to_vec())).await.unwrap();
    }
    let here = log.range(Range::key("here")).await.unwrap();
    assert_eq!((number(&here.items[0].value), here.items[0].version), (199, 200));
}
