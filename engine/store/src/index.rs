//! The keys: for each its newest value in memory, and where in the log every older state of it lies.
//!
//! About 200 bytes a key and 40 a change. An entry is never removed yet, also not a deleted key's: its past can still be
//! asked for. Compaction will cut histories from their old end, which is why nothing here assumes that they begin at 1.

use std::collections::BTreeMap;

use bytes::Bytes;

use crate::{KeyValue, Range, Revision};

/// A place in the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Place {
    /// The number of the segment.
    pub(crate) segment: u32,
    /// Bytes from the beginning of its file.
    pub(crate) offset: u32,
}

/// One state in the life of a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Version {
    /// The revision that brought it about.
    pub(crate) mod_revision: Revision,
    /// The revision that created the key; 0 when this is its deletion.
    pub(crate) create_revision: Revision,
    /// Changes since then (the key's version); 0 when this is its deletion.
    pub(crate) changes: u64,
    /// Where its value lies.
    pub(crate) place: Place,
    /// Bytes of the value.
    pub(crate) length: u32,
    /// CRC32C of the value.
    pub(crate) crc: u32,
}

#[derive(Debug)]
struct Entry {
    /// The value of the newest version; empty after a deletion.
    value: Bytes,
    /// By `mod_revision`; never empty.
    history: Vec<Version>,
}

/// A state of a key that was found, with the value or with where to read it.
#[derive(Debug)]
pub(crate) enum Found {
    /// The newest one.
    Memory(KeyValue),
    /// An older one.
    Log(Bytes, Version),
}

/// All keys.
#[derive(Debug, Default)]
pub(crate) struct Index {
    keys: BTreeMap<Bytes, Entry>,
}

impl Entry {
    /// The state at `revision`, unless the key was absent then.
    fn at(&self, key: &Bytes, revision: Revision) -> Option<Found> {
        let newer = self.history.partition_point(|version| version.mod_revision <= revision);
        let version = *self.history.get(newer.checked_sub(1)?)?;
        if version.changes == 0 {
            return None;
        }
        if newer < self.history.len() {
            return Some(Found::Log(key.clone(), version));
        }
        Some(Found::Memory(version.with(key.clone(), self.value.clone())))
    }
}

impl Version {
    /// The key as this version has it.
    pub(crate) fn with(self, key: Bytes, value: Bytes) -> KeyValue {
        KeyValue {
            key,
            value,
            create_revision: self.create_revision,
            mod_revision: self.mod_revision,
            version: self.changes,
        }
    }
}

impl Index {
    /// The newest state of a key, unless it is absent.
    pub(crate) fn newest(&self, key: &[u8]) -> Option<KeyValue> {
        match self.at(key, Revision::MAX)? {
            Found::Memory(kv) => Some(kv),
            Found::Log(..) => unreachable!("no version is newer than the newest"),
        }
    }

    /// The state of a key at a revision, unless it was absent.
    pub(crate) fn at(&self, key: &[u8], revision: Revision) -> Option<Found> {
        let (key, entry) = self.keys.get_key_value(key)?;
        entry.at(key, revision)
    }

    /// Calls `each` with the next keys of a range after `resume` that are there at `revision`. Looks at `most` keys (at
    /// least one) and returns the last one when there may be more.
    pub(crate) fn scan(
        &self,
        range: &Range,
        revision: Revision,
        resume: Option<&Bytes>,
        most: usize,
        mut each: impl FnMut(Found),
    ) -> Option<Bytes> {
        for (seen, (key, entry)) in self.keys.range::<[u8], _>(range.bounds(resume)?).enumerate() {
            if let Some(found) = entry.at(key, revision) {
                each(found);
            }
            if seen + 1 >= most {
                return Some(key.clone());
            }
        }
        None
    }

    /// Adds the newest state of a key.
    pub(crate) fn apply(&mut self, key: &Bytes, version: Version, value: Bytes) {
        if let Some(entry) = self.keys.get_mut(key) {
            debug_assert!(entry.history.last().is_some_and(|last| last.mod_revision < version.mod_revision));
            entry.history.push(version);
            entry.value = value;
        } else {
            self.keys.insert(key.clone(), Entry { value, history: vec![version] });
        }
    }
}
