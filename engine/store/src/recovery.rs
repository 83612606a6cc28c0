//! Reads the log at the start: every frame up to the end, or a clear refusal.
//!
//! Frames must follow each other without a gap in sequence and revision. What does not validate at the very end of the log
//! is a write that a crash interrupted: it was never acknowledged and is wiped. Anything else that does not validate is
//! damage to what was acknowledged, and the store does not start. Before anybody sees a revision it is made durable: a
//! process that was killed may have left its last frame in the page cache only.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;

use crate::frame::{ALIGN, Frame, Record};
use crate::index::{Place, Version};
use crate::ring::Ring;
use crate::segment::{self, FIRST, Identity, Segment, UNFINISHED};
use crate::shared::State;
use crate::{Disk, StoreError};

/// What a log on disk holds.
#[derive(Debug)]
pub(crate) struct Recovered {
    /// All of its commits applied.
    pub(crate) state: State,
    /// The segment to go on in.
    pub(crate) active: Segment,
    /// Where in it.
    pub(crate) end: usize,
    /// The sequence of the next frame.
    pub(crate) sequence: u64,
    /// Empty segments after the active one.
    pub(crate) spares: VecDeque<Segment>,
}

/// Reads the log of a disk, wipes a torn tail, and makes durable all that it found. `None` when there is no log yet.
pub(crate) fn recover(disk: &dyn Disk, ring: Ring) -> Result<Option<Recovered>, StoreError> {
    let directory = disk.path("");
    let names = disk.list().map_err(|e| StoreError::io("list", &directory, e))?;
    for name in names.iter().filter(|name| name.ends_with(UNFINISHED)) {
        disk.remove(name).map_err(|e| StoreError::io("remove", &disk.path(name), e))?;
    }
    // Also the name of a segment may so far be in the page cache only.
    disk.sync_names().map_err(|e| StoreError::io("sync", &directory, e))?;
    let mut numbers: Vec<u32> = names.iter().filter_map(|name| segment::number(name)).collect();
    numbers.sort_unstable();
    if numbers.is_empty() {
        return Ok(None);
    }
    let mut scan = Scan { disk, state: State::new(ring), sequence: 1, log: None, torn: None, read: VecDeque::new() };
    for (expected, number) in (1..).zip(numbers) {
        if number != expected {
            return Err(StoreError::corrupt(&disk.path(&segment::name(expected)), 0, "this segment is missing"));
        }
        scan.segment(number)?;
    }
    scan.finish().map(Some)
}

/// A segment that was read.
#[derive(Debug)]
struct Read {
    segment: Segment,
    /// Where its last frame begins, if it has any.
    last: Option<usize>,
    /// Where its last frame ends.
    end: usize,
}

/// A tail that does not validate.
#[derive(Debug)]
struct Torn {
    number: u32,
    at: usize,
    length: usize,
}

struct Scan<'a> {
    disk: &'a dyn Disk,
    state: State,
    /// The sequence of the next frame.
    sequence: u64,
    /// The identity that all segments have to share.
    log: Option<u64>,
    torn: Option<Torn>,
    read: VecDeque<Read>,
}

impl Scan<'_> {
    fn segment(&mut self, number: u32) -> Result<(), StoreError> {
        let path = self.disk.path(&segment::name(number));
        let file = self.disk.open(&segment::name(number)).map_err(|e| StoreError::io("open", &path, e))?;
        let size = file.size().map_err(|e| StoreError::io("measure", &path, e))?;
        let size = u32::try_from(size)
            .map_err(|_| StoreError::corrupt(&path, 0, "the segment is larger than any that was written"))?
            as usize;
        let mut bytes = vec![0; size];
        file.read_at(&mut bytes, 0).map_err(|e| StoreError::io("read", &path, e))?;
        let identity = Identity::decode(&path, &bytes)?;
        if identity.number != number || *self.log.get_or_insert(identity.log) != identity.log {
            return Err(StoreError::corrupt(&path, 0, "this segment is another one than its name says"));
        }
        let (last, end) = self.frames(identity, &bytes)?;
        self.tail(identity, &bytes, end)?;
        self.read.push_back(Read { segment: Segment { identity, file, size }, last, end });
        Ok(())
    }

    /// Applies the frames of a segment; returns where the last one begins and where it ends.
    fn frames(&mut self, identity: Identity, bytes: &[u8]) -> Result<(Option<usize>, usize), StoreError> {
        let (mut last, mut at) = (None, FIRST);
        while let Some(frame) = bytes.get(at..).and_then(|rest| Frame::parse(rest, identity.seed())) {
            if let Some(torn) = &self.torn {
                return Err(self.corrupt(torn.number, torn.at, "the frame here is bad, but later ones are good"));
            }
            let head = frame.head;
            if head.sequence != self.sequence || head.first_revision != self.state.head + 1 {
                return Err(self.corrupt(identity.number, at, "frames before this one are missing"));
            }
            let offset = u32::try_from(at).expect("the segment's size fits 32 bits");
            self.replay(&frame, Place { segment: identity.number, offset })
                .ok_or_else(|| self.corrupt(identity.number, at, "the frame contradicts those before it"))?;
            self.sequence += 1;
            last = Some(at);
            at += head.size();
        }
        Ok((last, at))
    }

    /// Applies one frame. `None` when it cannot have been written after those before it.
    fn replay(&mut self, frame: &Frame<'_>, place: Place) -> Option<()> {
        self.state.mark(frame.head.first_revision, place);
        for records in frame.commits()? {
            let revision = self.state.head + 1;
            for record in &records {
                self.record(record, revision, place)?;
            }
            self.state.head = revision;
        }
        Some(())
    }

    fn record(&mut self, record: &Record<'_>, revision: u64, frame: Place) -> Option<()> {
        let before = self.state.index.newest(record.key);
        if before.as_ref().is_some_and(|kv| kv.mod_revision >= revision) {
            return None;
        }
        let offset = u32::try_from(record.offset).ok()?.checked_add(frame.offset)?;
        let mut version = Version {
            mod_revision: revision,
            create_revision: 0,
            changes: 0,
            place: Place { offset, ..frame },
            length: 0,
            crc: 0,
        };
        let mut value = Bytes::new();
        if let Some(put) = &record.put {
            let expected = before.map_or((revision, 1), |kv| (kv.create_revision, kv.version + 1));
            (version.create_revision, version.changes) = (put.create_revision, put.version);
            if expected != (put.create_revision, put.version) {
                return None;
            }
            version.length = u32::try_from(put.value.len()).ok()?;
            version.crc = crc32c::crc32c(put.value);
            value = Bytes::copy_from_slice(put.value);
        } else {
            before?;
        }
        self.state.index.apply(&Bytes::copy_from_slice(record.key), version, value);
        Some(())
    }

    /// Judges what follows the last frame of a segment: zeros, a torn write, or damage.
    fn tail(&mut self, identity: Identity, bytes: &[u8], end: usize) -> Result<(), StoreError> {
        let rest = bytes.get(end..).unwrap_or_default();
        let Some(last) = rest.iter().rposition(|byte| *byte != 0) else { return Ok(()) };
        if let Some(torn) = &self.torn {
            // Two writes were begun after the same frame. Only one can have been in flight.
            return Err(self.corrupt(
                torn.number,
                torn.at,
                "the frame here is bad, but something was written after it",
            ));
        }
        if self.valid_later(rest, identity.seed()) {
            return Err(self.corrupt(identity.number, end, "the frame here is bad, but later ones are good"));
        }
        self.torn = Some(Torn { number: identity.number, at: end, length: last + 1 });
        Ok(())
    }

    /// Whether a frame that can only have been written after the bad one is in the rest of a segment. One with a lower
    /// sequence would be a copy inside a value.
    fn valid_later(&self, rest: &[u8], seed: u32) -> bool {
        let mut places = (ALIGN..rest.len()).step_by(ALIGN);
        places.any(|at| Frame::parse(&rest[at..], seed).is_some_and(|frame| frame.head.sequence > self.sequence))
    }

    /// Wipes the torn tail, makes the rest durable and finds the segment to go on in.
    fn finish(mut self) -> Result<Recovered, StoreError> {
        if let Some(torn) = &self.torn {
            self.wipe(torn)?;
        }
        let active = self.read.iter().rposition(|read| read.last.is_some()).unwrap_or(0);
        let spares = self.read.split_off(active + 1).into_iter().map(|read| read.segment).collect();
        let Read { segment: active, last, end } = self.read.pop_back().expect("at least one segment was read");
        self.settle(&active, last, end)?;
        Ok(Recovered { state: self.state, active, end, sequence: self.sequence, spares })
    }

    fn wipe(&self, torn: &Torn) -> Result<(), StoreError> {
        let path = self.disk.path(&segment::name(torn.number));
        let (file, at, bytes) = (path.display(), torn.at, torn.length);
        tracing::warn!(%file, at, bytes, "dropping an unfinished write at the end of the log");
        let read = self.read.iter().find(|read| read.segment.identity.number == torn.number);
        let file = &read.expect("the torn segment was read").segment.file;
        file.write_at(&vec![0; torn.length], torn.at as u64)
            .map_err(|e| StoreError::io("wipe the end of", &path, e))?;
        file.sync().map_err(|e| StoreError::io("sync", &path, e))
    }

    /// Writes the last frame once more and syncs. After a failed sync the kernel may hold pages for clean that never
    /// reached the disk; writing them again is the only way to be sure. Only the last frame can be in that state.
    fn settle(&self, active: &Segment, last: Option<usize>, end: usize) -> Result<(), StoreError> {
        let path = self.disk.path(&segment::name(active.identity.number));
        if let Some(last) = last {
            let mut frame = vec![0; end - last];
            active.file.read_at(&mut frame, last as u64).map_err(|e| StoreError::io("read", &path, e))?;
            active.file.write_at(&frame, last as u64).map_err(|e| StoreError::io("write", &path, e))?;
        }
        active.file.sync().map_err(|e| StoreError::io("sync", &path, e))
    }

    fn corrupt(&self, number: u32, at: usize, detail: &str) -> StoreError {
        StoreError::corrupt(&self.disk.path(&segment::name(number)), at as u64, detail)
    }
}

/// A log that has nothing in it yet.
pub(crate) fn create(disk: &Arc<dyn Disk>, log: u64, size: usize, ring: Ring) -> Result<Recovered, StoreError> {
    let never = std::sync::atomic::AtomicBool::new(false);
    let active = segment::make(&**disk, Identity { log, number: 1 }, size, &never)?;
    Ok(Recovered { state: State::new(ring), active, end: FIRST, sequence: 1, spares: VecDeque::new() })
}
