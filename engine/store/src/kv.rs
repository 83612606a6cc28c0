//! Keys, values and the ranges that select them.
//!
//! The words are etcd's: a key has the revision that created it, the revision that last changed it, and a version that
//! counts its changes since it was created.

use std::ops::Bound;

use bytes::Bytes;

/// The number of a commit: starts at 1 for an empty store, so the first change is revision 2, and never goes back.
pub type Revision = u64;

/// One key as it stood at some revision.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyValue {
    /// The key; never empty.
    pub key: Bytes,
    /// Its value; may be empty.
    pub value: Bytes,
    /// The revision that created the key. 0 in the event of a deletion.
    pub create_revision: Revision,
    /// The revision that last changed it.
    pub mod_revision: Revision,
    /// Changes since it was created, from 1. 0 in the event of a deletion.
    pub version: u64,
}

impl KeyValue {
    /// What the event of a deletion carries: the key and when it went.
    pub(crate) fn tombstone(key: Bytes, mod_revision: Revision) -> Self {
        Self { key, value: Bytes::new(), create_revision: 0, mod_revision, version: 0 }
    }
}

/// A selection of keys, optionally as they stood at an older revision.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Range {
    /// The first key.
    pub start: Bytes,
    /// The first key no longer in the range. `None` selects just `start`; a single zero byte means "to the very end".
    pub end: Option<Bytes>,
    /// The revision to read at; `None` and 0 read the newest. Ignored by a watch.
    pub revision: Option<Revision>,
    /// How many items to return at most; 0 returns all. Ignored by a watch.
    pub limit: usize,
}

/// Where a range begins and ends, as the standard library's maps take it.
pub(crate) type Bounds<'a> = (Bound<&'a [u8]>, Bound<&'a [u8]>);

/// The `end` that no key reaches, as in etcd's protocol.
const NO_END: &[u8] = b"\0";

impl Range {
    /// Just this key.
    pub fn key(key: impl Into<Bytes>) -> Self {
        Self { start: key.into(), end: None, revision: None, limit: 0 }
    }

    /// Every key that begins with `prefix`.
    pub fn prefix(prefix: impl Into<Bytes>) -> Self {
        let start = prefix.into();
        let end = after_prefix(&start);
        Self { start, end: Some(end), revision: None, limit: 0 }
    }

    /// The keys from `start` up to but without `end`.
    pub fn between(start: impl Into<Bytes>, end: impl Into<Bytes>) -> Self {
        Self { start: start.into(), end: Some(end.into()), revision: None, limit: 0 }
    }

    /// Every key.
    pub fn all() -> Self {
        Self::prefix(Bytes::new())
    }

    /// The same keys as they stood at `revision`.
    #[must_use]
    pub fn at(mut self, revision: Revision) -> Self {
        self.revision = Some(revision);
        self
    }

    /// At most `limit` of them.
    #[must_use]
    pub fn limit(mut self, limit: usize) -> Self {
        self.limit = limit;
        self
    }

    /// Whether `key` is selected.
    pub fn contains(&self, key: &[u8]) -> bool {
        match self.end.as_deref() {
            None => key == self.start,
            Some(NO_END) => key >= &self.start[..],
            Some(end) => key >= &self.start[..] && key < end,
        }
    }

    /// The range after `resume` (all of it for `None`), or nothing when it is empty by its bounds.
    pub(crate) fn bounds<'a>(&'a self, resume: Option<&'a Bytes>) -> Option<Bounds<'a>> {
        let first = resume.map_or(Bound::Included(&self.start[..]), |key| Bound::Excluded(&key[..]));
        let start = resume.map_or(&self.start[..], |key| &key[..]);
        let last = match self.end.as_deref() {
            None if resume.is_some() => return None,
            None => Bound::Included(&self.start[..]),
            Some(NO_END) => Bound::Unbounded,
            Some(end) if end <= start => return None,
            Some(end) => Bound::Excluded(end),
        };
        Some((first, last))
    }
}

/// The smallest key that is larger than every key that begins with `prefix`.
fn after_prefix(prefix: &[u8]) -> Bytes {
    let Some(last) = prefix.iter().rposition(|byte| *byte != 0xff) else { return Bytes::from_static(NO_END) };
    let mut end = prefix[..=last].to_vec();
    end[last] += 1;
    end.into()
}

/// What a range read returns.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ranged {
    /// The newest revision of the store when it was read (not the revision asked for).
    pub revision: Revision,
    /// The items, by key.
    pub items: Vec<KeyValue>,
    /// Whether the limit cut some off.
    pub more: bool,
    /// How many keys the range holds at that revision, whatever the limit.
    pub count: usize,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_ends_where_no_longer_key_can_begin_with_it() {
        assert_eq!(after_prefix(b"/a/"), &b"/a0"[..]);
        assert_eq!(after_prefix(b"a\xff\xff"), &b"b"[..]);
        assert_eq!(after_prefix(b"\xff"), NO_END);
        assert_eq!(after_prefix(b""), NO_END);
    }

    #[test]
    fn a_range_contains_what_its_bounds_say() {
        assert!(Range::key("a").contains(b"a") && !Range::key("a").contains(b"a\0"));
        assert!(Range::prefix("a").contains(b"a\xff\xff") && !Range::prefix("a").contains(b"b"));
        assert!(Range::all().contains(b"\xff\xff"));
        assert!(!Range::between("b", "a").contains(b"b"));
        assert!(Range::between("b", "a").bounds(None).is_none());
        assert!(Range::between("a", "a").bounds(None).is_none());
    }
}
