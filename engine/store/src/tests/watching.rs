//! Watches: in order, each commit once and whole, no gap, from any revision, with the previous state of each key.

use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;

use super::by_hand::by_hand;
use super::model::Model;
use super::{commits_since, open, put, small, wait, workload};
use crate::sim::SimDisk;
use crate::{Commit, Event, Log, Options, Range, Store, StoreError, Txn};

/// The model's commits with only the events of a range.
fn expected(model: &Model, range: &Range, from: u64) -> Vec<Commit> {
    let inside = |commit: Commit| {
        let events: Vec<Event> = commit.events.into_iter().filter(|event| range.contains(&event.kv.key)).collect();
        (!events.is_empty()).then_some(Commit { revision: commit.revision, events })
    };
    model.commits().into_iter().filter(|commit| commit.revision >= from).filter_map(inside).collect()
}

fn filled(disk: &SimDisk) -> (Arc<Log>, Model) {
    let log = open(disk).unwrap();
    let mut model = Model::new();
    for batch in workload(11, 40) {
        model.apply_all(&batch);
        log.batch(&batch).unwrap();
    }
    (log, model)
}

#[test]
fn a_watch_resumes_from_any_revision_with_nothing_lost_or_doubled() {
    let disk = SimDisk::default();
    let (log, model) = filled(&disk);
    let ranges = [Range::all(), Range::key("k1"), Range::prefix("k"), Range::between("b", "k3")];
    let check = |log: &Log| {
        for from in 0..=model.head() + 1 {
            for range in &ranges {
                assert_eq!(commits_since(log, range.clone(), from), expected(&model, range, from), "from {from}");
            }
        }
    };
    check(&log);
    drop(log);
    check(&open(&disk).unwrap());
}

#[test]
fn a_watch_of_a_future_revision_waits_for_it() {
    let log = open(&SimDisk::default()).unwrap();
    let mut watcher = wait(log.watch(Range::all(), 4)).unwrap();
    for expected in [None, None, Some(4)] {
        assert!(watcher.next().now_or_never().is_none());
        let revision = put(&*log, "a", "x");
        if let Some(expected) = expected {
            assert_eq!(revision, expected);
        }
    }
    assert_eq!(watcher.next().now_or_never().unwrap().unwrap().revision, 4);
    assert!(watcher.next().now_or_never().is_none());
}

#[test]
fn a_watcher_that_sleeps_is_woken_by_its_own_range_only_and_keeps_up_with_the_others() {
    let disk = SimDisk::default();
    let log = Log::open_on(Arc::new(disk.clone()), Options { segment_bytes: 1 << 20, ..small() }).unwrap();
    let mut watcher = wait(log.watch(Range::key("mine"), 0)).unwrap();
    let mut next = by_hand(watcher.next());
    assert!(!next.poll());
    for _ in 0..20 {
        put(&*log, "other", "x");
        assert!(!next.woken());
    }
    // The ring holds three commits. A watcher that had not kept up would now have to open the log.
    disk.fault_at(disk.operations() + 2, crate::sim::Fault::PowerCut);
    let revision = put(&*log, "mine", "1");
    wait(log.txn(Txn::new().put("other", "y"))).unwrap_err();
    assert!(disk.is_dead() && next.woken());
    let commit = next.result().unwrap();
    assert_eq!((commit.revision, commit.events.len()), (revision, 1));
}

#[test]
fn a_next_that_is_dropped_loses_nothing() {
    let log = open(&SimDisk::default()).unwrap();
    let mut watcher = wait(log.watch(Range::all(), 0)).unwrap();
    let mut seen = Vec::new();
    for round in 0..50 {
        assert!(watcher.next().now_or_never().is_none());
        let mut given_up = by_hand(watcher.next());
        assert!(!given_up.poll());
        for _ in 0..round % 5 {
            put(&*log, "a", "x");
        }
        drop(given_up);
        while let Some(commit) = watcher.next().now_or_never() {
            seen.push(commit.unwrap().revision);
        }
    }
    assert_eq!(seen, (2..=log.revision()).collect::<Vec<_>>());
}

#[test]
fn closing_the_store_ends_a_watch_after_what_there_was() {
    let log = open(&SimDisk::default()).unwrap();
    put(&*log, "a", "1");
    let mut watcher = wait(log.watch(Range::all(), 0)).unwrap();
    drop(log);
    assert_eq!(watcher.next().now_or_never().unwrap().unwrap().revision, 2);
    assert!(matches!(watcher.next().now_or_never(), Some(Err(StoreError::Closed))));
}

#[test]
fn a_sleeping_watch_is_woken_by_closing() {
    wait(async {
        let log = open(&SimDisk::default()).unwrap();
        let mut watcher = log.watch(Range::all(), 0).await.unwrap();
        let sleeping = tokio::spawn(async move { watcher.next().await.map(drop) });
        tokio::task::yield_now().await;
        drop(log);
        let ended = tokio::time::timeout(Duration::from_secs(5), sleeping).await.unwrap().unwrap();
        assert!(matches!(ended, Err(StoreError::Closed)));
    });
}

#[test]
fn damage_in_the_past_ends_a_watch_with_its_place_and_not_with_a_gap() {
    let disk = SimDisk::default();
    let (log, model) = filled(&disk);
    let name = crate::segment::name(2);
    let mut bytes = disk.contents(&name);
    bytes[crate::segment::FIRST + 40] ^= 1;
    disk.replace(&name, &bytes);
    let mut watcher = wait(log.watch(Range::all(), 0)).unwrap();
    let mut seen = Vec::new();
    let error = loop {
        match wait(watcher.next()) {
            Ok(commit) => seen.push(Commit::clone(&commit)),
            Err(error) => break error,
        }
    };
    assert!(matches!(error, StoreError::Corrupt { .. }));
    assert_eq!(seen, model.commits()[..seen.len()]);
    assert!(matches!(wait(watcher.next()), Err(StoreError::Corrupt { .. })), "asking again does not skip it");
}
