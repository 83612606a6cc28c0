//! A real directory: its lock, its modes, what lies around in it, and the thread that makes segments.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use super::{assert_same, put, wait, workload};
use crate::tests::model::Model;
use crate::{Log, Options, Range, Store, StoreError, Txn};

fn options() -> Options {
    Options { segment_bytes: 4 << 10, ring_commits: 4, ..Options::default() }
}

#[test]
fn a_log_comes_back_as_it_was_left_across_many_segments() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("made/on/demand");
    let mut model = Model::new();
    for seed in 0..3 {
        let log = Log::open(&path, options()).unwrap();
        assert_same(&*log, &model);
        for batch in workload(seed, 60) {
            for txn in batch {
                assert_eq!(wait(log.txn(txn.clone())).unwrap(), model.apply(&txn));
            }
        }
        assert_same(&*log, &model);
    }
    let segments = fs::read_dir(&path).unwrap().count();
    assert!(segments > 6, "only {segments} files");
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o700);
}

#[test]
fn a_second_log_in_the_same_directory_is_refused_until_the_first_is_gone() {
    let directory = tempfile::tempdir().unwrap();
    let log = Log::open(directory.path(), options()).unwrap();
    let refused = Log::open(directory.path(), options());
    assert!(matches!(&refused, Err(StoreError::Locked { directory: named }) if named == directory.path()));
    drop(log);
    Log::open(directory.path(), options()).unwrap();
}

#[test]
fn what_a_crash_or_a_user_left_lying_around_is_removed_or_ignored() {
    let directory = tempfile::tempdir().unwrap();
    put(&*Log::open(directory.path(), options()).unwrap(), "a", "1");
    let unfinished = directory.path().join("00000009.log.tmp");
    fs::write(&unfinished, "half a segment").unwrap();
    fs::write(directory.path().join("notes.txt"), "mine").unwrap();
    let log = Log::open(directory.path(), options()).unwrap();
    assert_eq!(wait(log.range(Range::all())).unwrap().count, 1);
    assert!(!unfinished.exists() && directory.path().join("notes.txt").exists());
}

#[test]
fn an_operation_larger_than_a_segment_fits_and_comes_back() {
    let directory = tempfile::tempdir().unwrap();
    let log = Log::open(directory.path(), options()).unwrap();
    put(&*log, "before", "1");
    wait(log.txn(Txn::new().put("large", vec![5; 100_000]))).unwrap();
    put(&*log, "after", "1");
    drop(log);
    let log = Log::open(directory.path(), options()).unwrap();
    assert_eq!(wait(log.range(Range::key("large"))).unwrap().items[0].value, vec![5; 100_000]);
    assert_eq!(wait(log.range(Range::all())).unwrap().count, 3);
}
