//! The store as one would write it with no disk to think of: a full copy of the keys for each revision.
//!
//! And the property that the log cannot be told apart from it.

use std::collections::BTreeMap;

use bytes::Bytes;
use proptest::prelude::*;

use super::{assert_same, open, wait};
use crate::sim::SimDisk;
use crate::{Commit, Event, EventKind, KeyValue, Op, Range, Revision, Store, Txn, TxnResult};

type Keys = BTreeMap<Bytes, KeyValue>;

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Model {
    /// The first is revision 1.
    revisions: Vec<Keys>,
}

impl Model {
    pub(super) fn new() -> Self {
        Self { revisions: vec![Keys::new()] }
    }

    pub(super) fn head(&self) -> Revision {
        self.revisions.len() as Revision
    }

    fn keys(&self, revision: Revision) -> &Keys {
        &self.revisions[usize::try_from(revision).unwrap() - 1]
    }

    pub(super) fn range(&self, range: &Range, revision: Revision) -> Vec<KeyValue> {
        self.keys(revision).values().filter(|kv| range.contains(&kv.key)).cloned().collect()
    }

    pub(super) fn apply(&mut self, txn: &Txn) -> TxnResult {
        let newest = self.keys(self.head());
        let current: Vec<_> = txn.compares.iter().map(|compare| newest.get(compare.key()).cloned()).collect();
        if !txn.compares.iter().zip(&current).all(|(compare, kv)| compare.holds(kv.as_ref())) {
            return TxnResult { succeeded: false, revision: self.head(), current };
        }
        let mut keys = newest.clone();
        let revision = self.head() + 1;
        for op in &txn.then {
            match op {
                Op::Delete { key } => drop(keys.remove(key)),
                Op::Put { key, value } => {
                    let fresh = KeyValue {
                        key: key.clone(),
                        value: value.clone(),
                        create_revision: revision,
                        mod_revision: revision,
                        version: 0,
                    };
                    let kv = keys.entry(key.clone()).or_insert(fresh);
                    (kv.value, kv.mod_revision, kv.version) = (value.clone(), revision, kv.version + 1);
                }
            }
        }
        if &keys != newest {
            self.revisions.push(keys);
        }
        TxnResult { succeeded: true, revision: self.head(), current: Vec::new() }
    }

    pub(super) fn apply_all(&mut self, txns: &[Txn]) -> Vec<TxnResult> {
        txns.iter().map(|txn| self.apply(txn)).collect()
    }

    /// What changed from revision to revision. Events of one commit are in the order of their keys.
    pub(super) fn commits(&self) -> Vec<Commit> {
        (2..=self.head()).map(|revision| self.commit(revision)).collect()
    }

    fn commit(&self, revision: Revision) -> Commit {
        let (before, after) = (self.keys(revision - 1), self.keys(revision));
        let keys: std::collections::BTreeSet<&Bytes> = before.keys().chain(after.keys()).collect();
        let event = |key: &Bytes| {
            let previous = before.get(key).cloned();
            match after.get(key) {
                Some(kv) if kv.mod_revision == revision => {
                    Some(Event { kind: EventKind::Put, kv: kv.clone(), previous })
                }
                None if previous.is_some() => {
                    let kv = KeyValue::tombstone(key.clone(), revision);
                    Some(Event { kind: EventKind::Delete, kv, previous })
                }
                _ => None,
            }
        };
        Commit { revision, events: keys.into_iter().filter_map(event).collect() }
    }
}

fn key() -> impl Strategy<Value = Bytes> {
    prop::sample::select(vec!["a", "a\0", "aa", "ab", "b", "c"]).prop_map(Bytes::from)
}

fn op(key: Bytes) -> impl Strategy<Value = Op> {
    prop::option::weighted(0.7, prop::collection::vec(any::<u8>(), 0..120)).prop_map(move |value| match value {
        Some(value) => Op::Put { key: key.clone(), value: value.into() },
        None => Op::Delete { key: key.clone() },
    })
}

prop_compose! {
    /// Operations in the order of their keys, as the model's commits have them.
    fn txn()(keys in prop::collection::btree_set(key(), 1..4), compared in prop::collection::vec((key(), 0..30u64), 0..2))
        (ops in keys.into_iter().map(op).collect::<Vec<_>>(), compared in Just(compared)) -> Txn {
        compared.into_iter().fold(Txn { compares: Vec::new(), then: ops }, |txn, (key, is)| txn.when(key, is))
    }
}

#[derive(Debug, Clone)]
enum Step {
    Batch(Vec<Txn>),
    /// A compare with the revision that the key really has, as a client that has just read it would send.
    Swap(Bytes, Bytes),
    Read(Range, u64),
    Reopen,
}

fn step() -> impl Strategy<Value = Step> {
    let range = (key(), prop::option::of(key()), 0..4usize).prop_map(|(start, end, limit)| Range {
        start,
        end,
        revision: None,
        limit,
    });
    prop_oneof![
        8 => prop::collection::vec(txn(), 1..4).prop_map(Step::Batch),
        4 => (key(), prop::collection::vec(any::<u8>(), 0..20)).prop_map(|(key, value)| Step::Swap(key, value.into())),
        6 => (range, any::<u64>()).prop_map(|(range, at)| Step::Read(range, at)),
        1 => Just(Step::Reopen),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, ..ProptestConfig::default() })]

    #[test]
    fn the_log_cannot_be_told_apart_from_a_map_of_each_revision(steps in prop::collection::vec(step(), 1..50)) {
        let disk = SimDisk::default();
        let (mut log, mut model) = (open(&disk).unwrap(), Model::new());
        for step in steps {
            match step {
                Step::Batch(txns) => {
                    let expected = model.apply_all(&txns);
                    prop_assert_eq!(log.batch(&txns).unwrap(), expected);
                }
                Step::Swap(key, value) => {
                    let known = model.keys(model.head()).get(&key).map_or(0, |kv| kv.mod_revision);
                    let txn = Txn::new().when(key.clone(), known).put(key, value);
                    let answer = wait(log.txn(txn.clone())).unwrap();
                    prop_assert!(answer.succeeded);
                    prop_assert_eq!(answer, model.apply(&txn));
                }
                Step::Read(range, at) => {
                    let revision = at % model.head() + 1;
                    let expected = model.range(&range, revision);
                    let ranged = wait(log.range(range.clone().at(revision))).unwrap();
                    prop_assert_eq!(ranged.count, expected.len());
                    prop_assert_eq!(ranged.revision, model.head());
                    let shown = if range.limit == 0 { expected.len() } else { range.limit.min(expected.len()) };
                    prop_assert_eq!(ranged.more, shown < expected.len());
                    prop_assert_eq!(&ranged.items[..], &expected[..shown]);
                }
                Step::Reopen => {
                    drop(log);
                    log = open(&disk).unwrap();
                }
            }
        }
        assert_same(&*log, &model);
    }
}
