//! The recent changes of one resource, numbered without a gap, for watchers to read at their own pace.
//!
//! Bounded by count and by bytes; what falls out is still in the store. A watcher is only a number into this ring, so
//! a slow one costs nothing.

use std::collections::VecDeque;
use std::sync::Arc;

use shipway_store::Revision;

use crate::object::Object;

/// At most so many changes are kept per resource.
const CHANGES: usize = 4096;
/// At most so many bytes of objects are kept per resource.
const BYTES: usize = 4 * 1024 * 1024;

/// One object's step from a revision to the next.
pub(crate) struct Change {
    pub(crate) revision: Revision,
    /// The object after the change; for a deletion its last state under the deletion's revision.
    pub(crate) object: Arc<Object>,
    /// The object before the change; none when it was created.
    pub(crate) previous: Option<Arc<Object>>,
    pub(crate) deleted: bool,
}

/// Changes in the order of their revisions.
pub(crate) struct Ring {
    changes: VecDeque<Arc<Change>>,
    /// The number of the oldest change kept.
    first: u64,
    /// Every change after this revision is in the ring.
    floor: Revision,
    bytes: usize,
}

impl Ring {
    /// An empty ring of a resource whose state is known at `floor`.
    pub(crate) fn new(floor: Revision) -> Self {
        Self { changes: VecDeque::new(), first: 0, floor, bytes: 0 }
    }

    pub(crate) fn push(&mut self, change: Arc<Change>) {
        self.bytes += change.object.len();
        self.changes.push_back(change);
        while self.changes.len() > CHANGES || (self.bytes > BYTES && self.changes.len() > 1) {
            let Some(oldest) = self.changes.pop_front() else { break };
            self.bytes -= oldest.object.len();
            self.floor = oldest.revision;
            self.first += 1;
        }
    }

    /// The number that the next change will get.
    pub(crate) fn end(&self) -> u64 {
        self.first + self.changes.len() as u64
    }

    /// The number of the first change after a revision; `None` when some of them are no longer here.
    pub(crate) fn after(&self, revision: Revision) -> Option<u64> {
        let skipped = self.changes.partition_point(|change| change.revision <= revision);
        (revision >= self.floor).then_some(self.first + skipped as u64)
    }

    /// About `limit` changes from a number on, whole revisions only; `None` when the first of them is no longer here.
    pub(crate) fn from(&self, number: u64, limit: usize) -> Option<Vec<Arc<Change>>> {
        if number > self.end() {
            return None;
        }
        let skip = usize::try_from(number.checked_sub(self.first)?).ok()?;
        let mut taken: Vec<Arc<Change>> = Vec::new();
        for change in self.changes.range(skip..) {
            if taken.len() >= limit && taken.last().is_some_and(|last| last.revision < change.revision) {
                break;
            }
            taken.push(change.clone());
        }
        Some(taken)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn change(revision: Revision, size: usize) -> Arc<Change> {
        let pad = "x".repeat(size);
        let stored =
            format!(r#"{{"apiVersion":"v1","kind":"ConfigMap","metadata":{{"name":"a"}},"data":{{"k":"{pad}"}}}}"#);
        let object = Arc::new(Object::stored("n/a", stored, revision).unwrap());
        Arc::new(Change { revision, object, previous: None, deleted: false })
    }

    #[test]
    fn a_position_is_found_by_revision_until_it_falls_out() {
        let mut ring = Ring::new(10);
        for revision in [12, 15, 15, 20] {
            ring.push(change(revision, 1));
        }
        assert_eq!((ring.after(9), ring.after(10), ring.after(14)), (None, Some(0), Some(1)));
        assert_eq!((ring.after(15), ring.after(30)), (Some(3), Some(4)));
        let revisions = |number, limit| -> Option<Vec<Revision>> {
            Some(ring.from(number, limit)?.iter().map(|change| change.revision).collect())
        };
        assert_eq!(revisions(0, 2), Some(vec![12, 15, 15]), "a revision is never split");
        assert_eq!(revisions(3, 9), Some(vec![20]));
        assert_eq!((revisions(4, 9), revisions(5, 9)), (Some(vec![]), None));
    }

    #[test]
    fn count_and_bytes_are_bounded() {
        let mut ring = Ring::new(0);
        for revision in 1..=5000 {
            ring.push(change(revision, 1));
        }
        assert_eq!((ring.changes.len(), ring.end()), (CHANGES, 5000));
        assert!(ring.from(0, 1).is_none() && ring.after(5000 - CHANGES as u64).is_some());
        for revision in 5001..=5010 {
            ring.push(change(revision, BYTES / 4));
        }
        assert!(ring.bytes <= BYTES && ring.changes.len() == 3);
    }
}
