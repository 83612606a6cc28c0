//! Reading at revisions, and the meaning of create revision, version and deletion.

use super::{commits_since, open, put, small, wait};
use crate::sim::SimDisk;
use crate::{EventKind, Log, Range, Store, StoreError, Txn};

#[test]
fn a_key_that_comes_back_after_its_deletion_begins_anew() {
    let log = open(&SimDisk::default()).unwrap();
    assert_eq!(log.revision(), 1);
    assert_eq!(put(&*log, "a", "1"), 2);
    put(&*log, "a", "2");
    wait(log.txn(Txn::new().delete("a"))).unwrap();
    put(&*log, "a", "3");
    let at = |revision| wait(log.range(Range::key("a").at(revision))).unwrap().items;
    assert!(at(1).is_empty() && at(4).is_empty());
    let states: Vec<_> = [2, 3, 5].map(|revision| at(revision).remove(0)).into();
    let numbers: Vec<_> = states.iter().map(|kv| (kv.create_revision, kv.mod_revision, kv.version)).collect();
    assert_eq!(numbers, [(2, 2, 1), (2, 3, 2), (5, 5, 1)]);
    let deletion = &commits_since(&*log, Range::all(), 4)[0].events[0];
    assert_eq!((deletion.kind, deletion.kv.mod_revision, deletion.kv.version), (EventKind::Delete, 4, 0));
    assert_eq!(&deletion.previous.as_ref().unwrap().value[..], b"2");
}

#[test]
fn a_revision_in_the_future_is_refused_with_the_newest_one() {
    let log = open(&SimDisk::default()).unwrap();
    put(&*log, "a", "1");
    let refused = wait(log.range(Range::all().at(3)));
    assert!(matches!(refused, Err(StoreError::FutureRevision { requested: 3, current: 2 })));
    assert_eq!(wait(log.range(Range::all().at(0))).unwrap().count, 1);
}

#[test]
fn a_long_list_is_whole_and_its_limit_counts_the_rest() {
    let log = Log::open_on(std::sync::Arc::new(SimDisk::default()), small()).unwrap();
    let txns: Vec<Txn> = (0..2500).map(|n| Txn::new().put(format!("/k/{n:05}"), format!("{n}"))).collect();
    log.batch(&txns).unwrap();
    let revision = log.revision();
    log.batch(&(0..2500).step_by(2).map(|n| Txn::new().delete(format!("/k/{n:05}"))).collect::<Vec<_>>()).unwrap();
    let newest = wait(log.range(Range::prefix("/k/").limit(1030))).unwrap();
    assert_eq!((newest.items.len(), newest.count, newest.more), (1030, 1250, true));
    let older = wait(log.range(Range::prefix("/k/").at(revision))).unwrap();
    assert_eq!((older.items.len(), older.count, older.more), (2500, 2500, false));
    assert!(older.items.iter().enumerate().all(|(n, kv)| kv.value == n.to_string()));
    let rest = wait(log.range(Range::between("/k/01000", "/k/01010"))).unwrap();
    assert_eq!(rest.count, 5);
}

#[test]
fn a_value_that_rots_on_disk_is_noticed_when_it_is_read_back() {
    let disk = SimDisk::default();
    let log = open(&disk).unwrap();
    put(&*log, "a", "precious");
    put(&*log, "a", "newer");
    let name = crate::segment::name(1);
    let mut bytes = disk.contents(&name);
    let at = bytes.windows(8).position(|window| window == b"precious").unwrap();
    bytes[at] ^= 1;
    disk.replace(&name, &bytes);
    let read = wait(log.range(Range::key("a").at(2)));
    assert!(matches!(read, Err(StoreError::Corrupt { offset, .. }) if offset == at as u64));
}
