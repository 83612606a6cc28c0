//! Frames: how a batch of commits lies in a segment.
//!
//! Little-endian: magic, CRC32C of all that follows (seeded by the segment's identity, so a frame of another file never
//! passes), batch sequence, first revision, count of commits, length of the payload; then per commit its operations. Padded
//! with zeros to 32 bytes, so that a frame's head never straddles a sector. Knows nothing of files.

use bytes::Bytes;

use crate::Commit;
use crate::store::{Event, EventKind};

/// Bytes of a frame's head.
pub(crate) const HEAD: usize = 32;
/// Frames begin at multiples of this.
pub(crate) const ALIGN: usize = 32;

const MAGIC: u32 = u32::from_le_bytes(*b"SWFB");
const PUT: u8 = 1;
const DELETE: u8 = 2;

/// The head of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Head {
    /// Counts the batches of the log, from 1.
    pub(crate) sequence: u64,
    /// The revision of the first commit; the others follow by one.
    pub(crate) first_revision: u64,
    /// How many commits; at least one.
    pub(crate) count: u32,
    /// Bytes of the payload, without padding.
    pub(crate) length: u32,
}

impl Head {
    /// Reads a head without looking at the checksum.
    pub(crate) fn read(bytes: &[u8]) -> Option<Self> {
        let mut cursor = Cursor { bytes, at: 0 };
        let magic = cursor.u32()?;
        let _crc = cursor.u32()?;
        let head = Self {
            sequence: cursor.u64()?,
            first_revision: cursor.u64()?,
            count: cursor.u32()?,
            length: cursor.u32()?,
        };
        (magic == MAGIC && head.count > 0).then_some(head)
    }

    /// Bytes of the whole frame.
    pub(crate) fn size(self) -> usize {
        (HEAD + self.length as usize).next_multiple_of(ALIGN)
    }

    /// The revision of the last commit.
    pub(crate) fn last_revision(self) -> u64 {
        self.first_revision + u64::from(self.count) - 1
    }
}

/// A frame whose checksum holds.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Frame<'a> {
    /// Its head.
    pub(crate) head: Head,
    bytes: &'a [u8],
}

/// One operation as the log has it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Record<'a> {
    /// The key.
    pub(crate) key: &'a [u8],
    /// What was written; `None` for a deletion.
    pub(crate) put: Option<Put<'a>>,
    /// Where in the frame the value begins (for a deletion: where the record ends).
    pub(crate) offset: usize,
}

/// The written part of a put.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Put<'a> {
    /// The revision that created the key.
    pub(crate) create_revision: u64,
    /// Changes since then.
    pub(crate) version: u64,
    /// The value.
    pub(crate) value: &'a [u8],
}

impl<'a> Frame<'a> {
    /// The frame at the beginning of `bytes`, if a whole one with a right checksum is there.
    pub(crate) fn parse(bytes: &'a [u8], seed: u32) -> Option<Self> {
        let head = Head::read(bytes)?;
        let bytes = bytes.get(..head.size())?;
        let expected = u32::from_le_bytes(bytes[4..8].try_into().expect("four bytes"));
        (crc32c::crc32c_append(seed, &bytes[8..]) == expected).then_some(Self { head, bytes })
    }

    /// Its commits in order, each with its operations. `None` when the payload does not add up.
    pub(crate) fn commits(&self) -> Option<Vec<Vec<Record<'a>>>> {
        let end = HEAD + self.head.length as usize;
        let mut cursor = Cursor { bytes: self.bytes.get(..end)?, at: HEAD };
        let mut commits = Vec::new();
        for _ in 0..self.head.count {
            let operations = cursor.u32()?;
            commits.push((0..operations).map(|_| cursor.record()).collect::<Option<Vec<_>>>()?);
        }
        (cursor.at == end).then_some(commits)
    }
}

/// Reads numbers and byte strings off a slice; `None` past its end.
struct Cursor<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Cursor<'a> {
    fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let end = self.at.checked_add(length)?;
        let taken = self.bytes.get(self.at..end)?;
        self.at = end;
        Some(taken)
    }

    fn u32(&mut self) -> Option<u32> {
        Some(u32::from_le_bytes(self.take(4)?.try_into().ok()?))
    }

    fn u64(&mut self) -> Option<u64> {
        Some(u64::from_le_bytes(self.take(8)?.try_into().ok()?))
    }

    fn string(&mut self) -> Option<&'a [u8]> {
        let length = self.u32()? as usize;
        self.take(length)
    }

    fn record(&mut self) -> Option<Record<'a>> {
        let kind = self.take(1)?[0];
        let key = self.string()?;
        let put = match kind {
            PUT => Some(Put { create_revision: self.u64()?, version: self.u64()?, value: self.string()? }),
            DELETE => None,
            _ => return None,
        };
        let offset = self.at - put.as_ref().map_or(0, |put| put.value.len());
        Some(Record { key, put, offset })
    }
}

/// Where in its frame an event's value went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Written {
    /// Offset of the value from the frame's beginning.
    pub(crate) offset: u32,
    /// CRC32C of the value alone, checked when it is read back by itself.
    pub(crate) crc: u32,
}

/// Builds one frame after the other in one buffer.
#[derive(Debug, Default)]
pub(crate) struct Builder {
    buffer: Vec<u8>,
    written: Vec<Written>,
    count: u32,
    length: u32,
}

/// A buffer that one large batch made is given back.
const KEEP: usize = 2 << 20;

impl Builder {
    /// Lays out the commits of a batch. They have to be sealed before they are written.
    pub(crate) fn fill(&mut self, commits: &[Commit]) {
        self.buffer.clear();
        self.buffer.shrink_to(KEEP);
        self.buffer.resize(HEAD, 0);
        self.written.clear();
        for commit in commits {
            self.number(commit.events.len());
            for event in &commit.events {
                self.event(event);
            }
        }
        self.count = narrow(commits.len());
        self.length = narrow(self.buffer.len() - HEAD);
        self.buffer.resize(self.buffer.len().next_multiple_of(ALIGN), 0);
    }

    fn event(&mut self, event: &Event) {
        let put = event.kind == EventKind::Put;
        self.buffer.push(if put { PUT } else { DELETE });
        self.string(&event.kv.key);
        let mut crc = 0;
        if put {
            self.buffer.extend_from_slice(&event.kv.create_revision.to_le_bytes());
            self.buffer.extend_from_slice(&event.kv.version.to_le_bytes());
            self.string(&event.kv.value);
            crc = crc32c::crc32c(&event.kv.value);
        }
        let offset = self.buffer.len() - event.kv.value.len();
        self.written.push(Written { offset: narrow(offset), crc });
    }

    fn number(&mut self, number: usize) {
        self.buffer.extend_from_slice(&narrow(number).to_le_bytes());
    }

    fn string(&mut self, string: &Bytes) {
        self.number(string.len());
        self.buffer.extend_from_slice(string);
    }

    /// Bytes of the frame being built.
    pub(crate) fn size(&self) -> usize {
        self.buffer.len()
    }

    /// Fills in the head for the place that the frame goes to, and returns its bytes.
    pub(crate) fn seal(&mut self, seed: u32, sequence: u64, first_revision: u64) -> &[u8] {
        self.buffer[..4].copy_from_slice(&MAGIC.to_le_bytes());
        self.buffer[8..16].copy_from_slice(&sequence.to_le_bytes());
        self.buffer[16..24].copy_from_slice(&first_revision.to_le_bytes());
        self.buffer[24..28].copy_from_slice(&self.count.to_le_bytes());
        self.buffer[28..32].copy_from_slice(&self.length.to_le_bytes());
        let crc = crc32c::crc32c_append(seed, &self.buffer[8..]);
        self.buffer[4..8].copy_from_slice(&crc.to_le_bytes());
        &self.buffer
    }

    /// Where the values of the events went, in the order of the events.
    pub(crate) fn written(&self) -> &[Written] {
        &self.written
    }
}

/// Every length in a frame fits 32 bits: transactions are at most [`crate::MAX_TXN_BYTES`], batches little more.
fn narrow(length: usize) -> u32 {
    u32::try_from(length).expect("a batch is bounded far below 4 GiB")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::KeyValue;

    fn event(key: Vec<u8>, value: Option<Vec<u8>>, number: u64) -> Event {
        let kind = if value.is_some() { EventKind::Put } else { EventKind::Delete };
        let mut kv = KeyValue::tombstone(key.into(), number);
        if let Some(value) = value {
            (kv.value, kv.create_revision, kv.version) = (value.into(), number, number);
        }
        Event { kind, kv, previous: None }
    }

    prop_compose! {
        fn commits()(raw in prop::collection::vec(prop::collection::vec(
            (prop::collection::vec(any::<u8>(), 1..9), prop::option::of(prop::collection::vec(any::<u8>(), 0..40))), 1..4), 1..5))
            -> Vec<Commit> {
            (7..).zip(raw).map(|(revision, ops)| Commit {
                revision,
                events: ops.into_iter().map(|(key, value)| event(key, value, revision)).collect(),
            }).collect()
        }
    }

    proptest! {
        #[test]
        fn a_frame_reads_back_as_it_was_written(commits in commits(), seed: u32) {
            let mut builder = Builder::default();
            builder.fill(&commits);
            let written = builder.written().to_vec();
            let bytes = builder.seal(seed, 3, 7).to_vec();
            prop_assert_eq!(bytes.len() % ALIGN, 0);
            let frame = Frame::parse(&bytes, seed).expect("a sealed frame parses");
            prop_assert_eq!(frame.head.last_revision(), 6 + commits.len() as u64);
            prop_assert!(Frame::parse(&bytes, seed ^ 1).is_none(), "a frame of another segment must not pass");
            let read = frame.commits().expect("the payload adds up");
            let events: Vec<&Event> = commits.iter().flat_map(|c| &c.events).collect();
            let records: Vec<&Record> = read.iter().flatten().collect();
            prop_assert_eq!(events.len(), records.len());
            for ((event, record), written) in events.iter().zip(records).zip(written) {
                prop_assert_eq!(&event.kv.key[..], record.key);
                prop_assert_eq!(written.offset as usize, record.offset);
                prop_assert_eq!(record.put.is_some(), event.kind == EventKind::Put);
                if let Some(put) = &record.put {
                    prop_assert_eq!(put.value, &event.kv.value[..]);
                    prop_assert_eq!(&bytes[record.offset..record.offset + put.value.len()], put.value);
                    prop_assert_eq!((put.create_revision, put.version), (event.kv.create_revision, event.kv.version));
                }
            }
        }

        #[test]
        fn no_bytes_make_the_parser_panic(mut bytes in prop::collection::vec(any::<u8>(), 0..200), seed: u32) {
            if bytes.len() >= 4 {
                bytes[..4].copy_from_slice(&MAGIC.to_le_bytes());
            }
            prop_assert!(Frame::parse(&bytes, seed).is_none());
            let head = Head { sequence: 1, first_revision: 2, count: 3, length: u32::try_from(bytes.len().saturating_sub(HEAD)).unwrap() };
            let _ = Frame { head, bytes: &bytes }.commits();
        }
    }
}
