//! Reads commits of the past back from the log, for watchers that are behind the ring.
//!
//! Goes frame by frame, checks each one again, and asks the index for what a key was before. Only published frames are
//! ever asked for, so a frame that does not read back as it was written is damage, not a write in progress.

use bytes::Bytes;

use crate::frame::{Frame, HEAD, Head, Record};
use crate::index::Place;
use crate::segment::Identity;
use crate::shared::Shared;
use crate::store::{Commit, Event, EventKind};
use crate::{KeyValue, Range, Revision, StoreError};

/// Where one reader of the past is.
#[derive(Debug, Default)]
pub(crate) struct Replay {
    /// The place after the frame read last, and the revision that would begin there unless the segment ends.
    after: Option<(Revision, Place)>,
}

impl Replay {
    /// The commits of `range` in the frame that holds `revision`, from that revision on, and the first revision after the
    /// frame. The revision must be published.
    pub(crate) fn read(
        &mut self,
        shared: &Shared,
        range: &Range,
        revision: Revision,
    ) -> Result<(Vec<Commit>, Revision), StoreError> {
        let (place, head) = self.find(shared, revision)?;
        let bytes = shared.files.read(place, head.size())?;
        let seed = Identity { log: shared.log, number: place.segment }.seed();
        let commits = Frame::parse(&bytes, seed).and_then(|frame| frame.commits());
        let commits = commits.ok_or_else(|| damaged(shared, place))?;
        let mut read = Vec::new();
        for (number, records) in (head.first_revision..).zip(commits) {
            if number >= revision {
                let inside = records.iter().filter(|record| range.contains(record.key));
                let events = inside.map(|record| event(shared, record, number)).collect::<Result<Vec<_>, _>>()?;
                if !events.is_empty() {
                    read.push(Commit { revision: number, events });
                }
            }
        }
        let next = head.last_revision() + 1;
        self.after = Some((next, behind(shared, place, head)?));
        Ok((read, next))
    }

    /// The frame that holds a revision: the one after the last, or found from the nearest mark before it.
    fn find(&self, shared: &Shared, revision: Revision) -> Result<(Place, Head), StoreError> {
        let mut place = {
            let state = shared.state()?;
            match (state.marks.get(&revision), self.after) {
                // The first frame of a segment always has a mark, so this is how a reader gets to the next segment.
                (Some(mark), _) => *mark,
                (None, Some((next, place))) if next == revision => place,
                (None, _) => *state
                    .marks
                    .range(..=revision)
                    .next_back()
                    .map(|(_, mark)| mark)
                    .ok_or(StoreError::Compacted { requested: revision, compacted: state.compacted })?,
            }
        };
        loop {
            let head = Head::read(&shared.files.read(place, HEAD)?).ok_or_else(|| damaged(shared, place))?;
            if (head.first_revision..=head.last_revision()).contains(&revision) {
                return Ok((place, head));
            }
            if head.first_revision > revision {
                return Err(damaged(shared, place));
            }
            place = behind(shared, place, head)?;
        }
    }
}

/// The place right after a frame.
fn behind(shared: &Shared, place: Place, head: Head) -> Result<Place, StoreError> {
    let size = u32::try_from(head.size()).ok();
    let offset = size.and_then(|size| place.offset.checked_add(size)).ok_or_else(|| damaged(shared, place))?;
    Ok(Place { offset, ..place })
}

fn damaged(shared: &Shared, place: Place) -> StoreError {
    StoreError::corrupt(&shared.files.path(place.segment), place.offset.into(), "a frame no longer reads as written")
}

fn event(shared: &Shared, record: &Record<'_>, revision: Revision) -> Result<Event, StoreError> {
    let found = shared.state()?.index.at(record.key, revision - 1);
    let previous = found.map(|found| shared.load(found)).transpose()?;
    let key = Bytes::copy_from_slice(record.key);
    Ok(match &record.put {
        None => Event { kind: EventKind::Delete, kv: KeyValue::tombstone(key, revision), previous },
        Some(put) => {
            let value = Bytes::copy_from_slice(put.value);
            let (create_revision, version) = (put.create_revision, put.version);
            let kv = KeyValue { key, value, create_revision, mod_revision: revision, version };
            Event { kind: EventKind::Put, kv, previous }
        }
    })
}
