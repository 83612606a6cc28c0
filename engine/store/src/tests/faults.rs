//! The disk refuses something: what was answered stays true, nothing is retried, reads go on.

use std::io::ErrorKind;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;

use super::model::Model;
use super::{assert_same, open, put, small, wait, workload};
use crate::sim::{Fault, SimDisk};
use crate::{Log, Options, Range, Store, StoreError, Txn};

#[test]
fn any_failed_operation_ends_writing_and_costs_nothing_that_was_acknowledged() {
    let batches = workload(3, 24);
    for at in 0.. {
        let disk = SimDisk::default();
        let Ok(log) = open(&disk) else { unreachable!("the first start has no fault") };
        let first = disk.operations();
        disk.fault_at(first + at, Fault::Error(ErrorKind::TimedOut));
        let mut model = Model::new();
        let failed = batches.iter().find_map(|batch| {
            let before = model.clone();
            model.apply_all(batch);
            log.batch(batch).err().map(|error| (error, before))
        });
        let Some((error, acknowledged)) = failed else {
            if disk.operations() <= first + at {
                assert!(at > 80, "the workload has to touch the disk often enough to mean something");
                return;
            }
            // Only making the next segment failed, and it is not needed any more.
            continue;
        };
        assert!(matches!(error, StoreError::Poisoned { .. }), "{error}");
        assert!(matches!(wait(log.txn(Txn::new().put("x", "y"))), Err(StoreError::Poisoned { .. })));
        assert!(matches!(log.batch(&[Txn::new()]), Err(StoreError::Poisoned { .. })));
        assert!(matches!(log.failed().now_or_never(), Some(StoreError::Poisoned { .. })));
        assert_same(&*log, &acknowledged);
        drop(log);
        // The kernel may now believe that pages are clean which never got to the disk.
        let killed = disk.after_kill();
        let log = open(&killed).unwrap();
        let shown = if log.revision() == acknowledged.head() { &acknowledged } else { &model };
        assert_same(&*log, shown);
        drop(log);
        assert_same(&*open(&killed.after_power_cut(at)).unwrap(), shown);
    }
}

#[test]
fn without_room_for_a_segment_writes_are_refused_and_reads_go_on_until_there_is_room() {
    let disk = SimDisk::default();
    let log = open(&disk).unwrap();
    disk.set_space(Some(disk.used()));
    let mut model = Model::new();
    let txn = Txn::new().put("a", vec![1; 100]);
    let refused = loop {
        match wait(log.txn(txn.clone())) {
            Ok(answer) => assert_eq!(answer, model.apply(&txn)),
            Err(error) => break error,
        }
    };
    assert!(model.head() > 10, "both segments that there was room for are used");
    assert!(matches!(&refused, StoreError::Full { .. }));
    assert_eq!(refused.to_string().lines().count(), 1);
    assert!(matches!(wait(log.txn(txn.clone())), Err(StoreError::Full { .. })));
    assert_same(&*log, &model);
    assert!(log.failed().now_or_never().is_none(), "nothing is broken");
    disk.set_space(None);
    assert_eq!(wait(log.txn(txn.clone())).unwrap(), model.apply(&txn));
    drop(log);
    assert_same(&*open(&disk.after_power_cut(0)).unwrap(), &model);
}

#[test]
fn a_full_disk_under_a_frame_ends_writing_until_the_next_start() {
    let disk = SimDisk::default();
    let log = open(&disk).unwrap();
    put(&*log, "a", "1");
    disk.fault_at(disk.operations(), Fault::Error(ErrorKind::StorageFull));
    for _ in 0..2 {
        assert!(matches!(wait(log.txn(Txn::new().put("a", "2"))), Err(StoreError::Full { .. })));
    }
    assert_eq!(&wait(log.range(Range::key("a"))).unwrap().items[0].value[..], b"1");
    drop(log);
    let log = open(&disk).unwrap();
    put(&*log, "a", "3");
}

#[test]
fn a_panic_in_a_commit_ends_writing_and_leaves_nobody_waiting() {
    for inline_below in [Duration::MAX, Duration::ZERO] {
        let disk = SimDisk::default();
        let log = Log::open_on(Arc::new(disk.clone()), Options { inline_below, ..small() }).unwrap();
        put(&*log, "a", "1");
        disk.fault_at(disk.operations(), Fault::Panic);
        let write = || wait(log.txn(Txn::new().put("a", "2")));
        // On the caller's thread it is the caller's panic; on the log's own it is an answer.
        let first = std::panic::catch_unwind(std::panic::AssertUnwindSafe(write));
        assert!(matches!(first, Err(_) | Ok(Err(StoreError::Poisoned { .. }))));
        assert_eq!(first.is_err(), inline_below == Duration::MAX);
        assert!(matches!(write(), Err(StoreError::Poisoned { .. })));
        assert_eq!(&wait(log.range(Range::key("a"))).unwrap().items[0].value[..], b"1");
        drop(log);
        put(&*open(&disk.after_kill()).unwrap(), "a", "3");
    }
}

#[test]
fn a_failed_compare_is_answered_without_touching_the_disk() {
    let disk = SimDisk::default();
    let log = open(&disk).unwrap();
    let revision = put(&*log, "a", "1");
    let before = disk.operations();
    let answer = wait(log.txn(Txn::new().when("a", 0).put("a", "2"))).unwrap();
    assert!(!answer.succeeded);
    assert_eq!(answer.current[0].as_ref().unwrap().mod_revision, revision);
    assert!(wait(log.txn(Txn::new().delete("absent"))).unwrap().succeeded);
    assert_eq!((log.revision(), disk.operations()), (revision, before));
}

#[test]
fn two_logs_never_share_a_disk() {
    let disk = SimDisk::default();
    let log = open(&disk).unwrap();
    assert!(matches!(open(&disk), Err(StoreError::Locked { .. })));
    drop(log);
    open(&disk).unwrap();
}
