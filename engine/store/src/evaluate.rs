//! Decides what a batch of transactions does, before any of it is written.
//!
//! Each transaction sees what those before it in the batch will have done. Pure: reads the state, changes nothing.

use std::collections::HashMap;

use bytes::Bytes;

use crate::shared::State;
use crate::store::{Commit, Event, EventKind};
use crate::{KeyValue, Op, Revision, Txn, TxnResult};

/// What a batch comes to.
#[derive(Debug)]
pub(crate) struct Outcome {
    /// The commits to write, of consecutive revisions. Transactions that change nothing make none.
    pub(crate) commits: Vec<Commit>,
    /// The answer to each transaction, true only once the commits are durable.
    pub(crate) answers: Vec<TxnResult>,
}

/// Evaluates transactions one after the other against `state`.
pub(crate) fn evaluate<'a>(state: &State, txns: impl IntoIterator<Item = &'a Txn>) -> Outcome {
    let mut tentative = Tentative { state, changed: HashMap::new(), head: state.head };
    let mut outcome = Outcome { commits: Vec::new(), answers: Vec::new() };
    for txn in txns {
        let (answer, commit) = tentative.run(txn);
        outcome.answers.push(answer);
        outcome.commits.extend(commit);
    }
    outcome
}

/// The state as it will be after the transactions so far.
struct Tentative<'a> {
    state: &'a State,
    changed: HashMap<Bytes, Option<KeyValue>>,
    head: Revision,
}

impl Tentative<'_> {
    fn run(&mut self, txn: &Txn) -> (TxnResult, Option<Commit>) {
        let current: Vec<_> = txn.compares.iter().map(|compare| self.newest(compare.key())).collect();
        let succeeded = txn.compares.iter().zip(&current).all(|(compare, kv)| compare.holds(kv.as_ref()));
        if !succeeded {
            return (TxnResult { succeeded, revision: self.head, current }, None);
        }
        let revision = self.head + 1;
        // Kept for as long as watchers may ask for it, so of the size it needs.
        let mut events = Vec::with_capacity(txn.then.len());
        events.extend(txn.then.iter().filter_map(|op| self.event(op, revision)));
        let commit = (!events.is_empty()).then(|| Commit { revision, events });
        if let Some(commit) = &commit {
            self.head = revision;
            self.remember(commit);
        }
        (TxnResult { succeeded, revision: self.head, current: Vec::new() }, commit)
    }

    fn newest(&self, key: &Bytes) -> Option<KeyValue> {
        self.changed.get(key).cloned().unwrap_or_else(|| self.state.index.newest(key))
    }

    /// What an operation changes, if anything.
    fn event(&self, op: &Op, revision: Revision) -> Option<Event> {
        let previous = self.newest(op.key());
        match op {
            Op::Put { key, value } => {
                let (create_revision, version) =
                    previous.as_ref().map_or((revision, 1), |kv| (kv.create_revision, kv.version + 1));
                let (key, value) = (key.clone(), value.clone());
                let kv = KeyValue { key, value, create_revision, mod_revision: revision, version };
                Some(Event { kind: EventKind::Put, kv, previous })
            }
            Op::Delete { key } => {
                let kv = KeyValue::tombstone(key.clone(), revision);
                previous.is_some().then_some(Event { kind: EventKind::Delete, kv, previous })
            }
        }
    }

    fn remember(&mut self, commit: &Commit) {
        for event in &commit.events {
            let kv = (event.kind == EventKind::Put).then(|| event.kv.clone());
            self.changed.insert(event.kv.key.clone(), kv);
        }
    }
}
