//! Transactions: compare, then write, as one revision.

use std::collections::HashSet;

use bytes::Bytes;

use crate::{KeyValue, Revision, StoreError};

/// The largest transaction: the sum of its keys and values and a little for each operation.
pub const MAX_TXN_BYTES: usize = 64 << 20;

/// A condition on the newest state of one key.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Compare {
    /// The key was last changed by exactly this revision; 0 says that the key is absent.
    ModRevision {
        /// The key.
        key: Bytes,
        /// The revision it must have.
        is: Revision,
    },
}

impl Compare {
    /// The key it looks at.
    pub fn key(&self) -> &Bytes {
        match self {
            Self::ModRevision { key, .. } => key,
        }
    }

    /// Whether it holds for the key's state.
    pub(crate) fn holds(&self, state: Option<&KeyValue>) -> bool {
        match self {
            Self::ModRevision { is, .. } => state.map_or(0, |kv| kv.mod_revision) == *is,
        }
    }
}

/// One write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Op {
    /// Creates the key or replaces its value. Always a change, even when the value is the same.
    Put {
        /// The key.
        key: Bytes,
        /// Its new value. Kept as given: a slice of a larger buffer keeps that buffer alive.
        value: Bytes,
    },
    /// Removes the key; no change when it is absent.
    Delete {
        /// The key.
        key: Bytes,
    },
}

impl Op {
    /// The key it writes.
    pub fn key(&self) -> &Bytes {
        match self {
            Self::Put { key, .. } | Self::Delete { key } => key,
        }
    }

    /// About what it takes in the log.
    fn size(&self) -> usize {
        const RECORD: usize = 32;
        match self {
            Self::Put { key, value } => RECORD + key.len() + value.len(),
            Self::Delete { key } => RECORD + key.len(),
        }
    }
}

/// When all compares hold, all writes happen in one revision; else none does.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Txn {
    /// What must hold. None: the writes happen in any case.
    pub compares: Vec<Compare>,
    /// What is then written. No key twice.
    pub then: Vec<Op>,
}

impl Txn {
    /// An empty transaction.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds the condition that `key` was last changed by `revision` (0: is absent).
    #[must_use]
    pub fn when(mut self, key: impl Into<Bytes>, revision: Revision) -> Self {
        self.compares.push(Compare::ModRevision { key: key.into(), is: revision });
        self
    }

    /// Adds a write of `key`.
    #[must_use]
    pub fn put(mut self, key: impl Into<Bytes>, value: impl Into<Bytes>) -> Self {
        self.then.push(Op::Put { key: key.into(), value: value.into() });
        self
    }

    /// Adds a deletion of `key`.
    #[must_use]
    pub fn delete(mut self, key: impl Into<Bytes>) -> Self {
        self.then.push(Op::Delete { key: key.into() });
        self
    }

    /// About what it takes in the log.
    pub(crate) fn size(&self) -> usize {
        self.then.iter().map(Op::size).sum()
    }

    /// Refuses what no log may hold, before it costs anybody anything.
    pub(crate) fn check(&self) -> Result<(), StoreError> {
        let mut keys = self.compares.iter().map(Compare::key).chain(self.then.iter().map(Op::key));
        if keys.any(Bytes::is_empty) {
            return Err(StoreError::EmptyKey);
        }
        let bytes = self.size();
        if bytes > MAX_TXN_BYTES {
            return Err(StoreError::TooLarge { bytes, limit: MAX_TXN_BYTES });
        }
        let mut seen = HashSet::with_capacity(self.then.len());
        match self.then.iter().find(|op| !seen.insert(op.key())) {
            Some(op) => Err(StoreError::DuplicateKey { key: String::from_utf8_lossy(op.key()).into_owned() }),
            None => Ok(()),
        }
    }
}

/// The answer to a transaction. Whatever it says was durable before it was said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TxnResult {
    /// Whether the compares held.
    pub succeeded: bool,
    /// The revision that the writes made; the newest revision when nothing was written.
    pub revision: Revision,
    /// The state of each compared key, in the order of the compares, when one did not hold; else empty.
    pub current: Vec<Option<KeyValue>>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_transaction_that_names_a_key_twice_or_not_at_all_is_refused() {
        assert!(
            matches!(Txn::new().put("a", "1").delete("a").check(), Err(StoreError::DuplicateKey { key }) if key == "a")
        );
        assert!(matches!(Txn::new().put("", "1").check(), Err(StoreError::EmptyKey)));
        assert!(matches!(Txn::new().when("", 0).check(), Err(StoreError::EmptyKey)));
        let huge = Txn::new().put("a", vec![0; MAX_TXN_BYTES]);
        assert!(matches!(huge.check(), Err(StoreError::TooLarge { .. })));
        assert!(Txn::new().when("a", 1).put("a", "1").delete("b").check().is_ok());
    }
}
