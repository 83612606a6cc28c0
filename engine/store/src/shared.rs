//! What readers, watchers and the committer share: the published state, which never runs ahead of the disk.
//!
//! One writer at a time publishes; the lock is held for memory work only, never across a read or sync of the disk.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard};

use crate::files::Files;
use crate::frame::Written;
use crate::index::{Found, Index, Place, Version};
use crate::ring::Ring;
use crate::store::{Commit, Event};
use crate::watch::Waiter;
use crate::{KeyValue, Range, Ranged, Revision, StoreError};

/// The revision of a store in which nothing has been written.
pub(crate) const EMPTY: Revision = 1;
/// A place in the log is remembered about every so many bytes, to find a revision without reading a whole segment.
const MARK: u32 = 64 << 10;
/// Keys looked at under one hold of the lock.
const CHUNK: usize = 1024;

/// The published state.
#[derive(Debug)]
pub(crate) struct State {
    /// The newest revision.
    pub(crate) head: Revision,
    /// The oldest revision that can be read. Nothing is compacted yet, so this is that of the empty store.
    pub(crate) compacted: Revision,
    /// The keys.
    pub(crate) index: Index,
    /// The newest commits.
    pub(crate) ring: Ring,
    /// Where frames begin, by their first revision: the first of each segment, and some in between.
    pub(crate) marks: BTreeMap<Revision, Place>,
}

impl State {
    /// The state of an empty store.
    pub(crate) fn new(ring: Ring) -> Self {
        Self { head: EMPTY, compacted: EMPTY, index: Index::default(), ring, marks: BTreeMap::new() }
    }

    /// Notes that the frame of `revision` lies at `place`, if that helps to find it.
    pub(crate) fn mark(&mut self, revision: Revision, place: Place) {
        let near = |last: &Place| last.segment == place.segment && place.offset - last.offset < MARK;
        if !self.marks.last_key_value().is_some_and(|(_, last)| near(last)) {
            self.marks.insert(revision, place);
        }
    }

    /// Takes in one commit that is durable. `written` says where its values are in the frame at `frame`.
    fn apply(&mut self, commit: &Arc<Commit>, frame: Place, written: &[Written]) {
        for (event, written) in commit.events.iter().zip(written) {
            self.index.apply(&event.kv.key, version(event, frame, *written), event.kv.value.clone());
        }
        self.head = commit.revision;
        self.ring.push(Arc::clone(commit));
    }

    /// The revision to read at.
    fn resolve(&self, asked: Option<Revision>) -> Result<Revision, StoreError> {
        match asked.unwrap_or(0) {
            0 => Ok(self.head),
            requested if requested > self.head => Err(StoreError::FutureRevision { requested, current: self.head }),
            requested if requested < self.compacted => {
                Err(StoreError::Compacted { requested, compacted: self.compacted })
            }
            requested => Ok(requested),
        }
    }
}

fn version(event: &Event, frame: Place, written: Written) -> Version {
    let KeyValue { mod_revision, create_revision, version: changes, .. } = event.kv;
    let place = Place { segment: frame.segment, offset: frame.offset + written.offset };
    let length = u32::try_from(event.kv.value.len()).expect("a value is smaller than its transaction");
    Version { mod_revision, create_revision, changes, place, length, crc: written.crc }
}

/// The state, the files behind it and those who wait for it to change.
#[derive(Debug)]
pub(crate) struct Shared {
    state: RwLock<State>,
    head: AtomicU64,
    pub(crate) files: Files,
    /// The identity of the log, for the checksums of frames read back.
    pub(crate) log: u64,
    waiters: Mutex<BTreeMap<u64, Arc<Waiter>>>,
    next_waiter: AtomicU64,
    closed: AtomicBool,
}

impl Shared {
    /// Shares a recovered state.
    pub(crate) fn new(state: State, files: Files, log: u64) -> Self {
        Self {
            head: AtomicU64::new(state.head),
            state: RwLock::new(state),
            files,
            log,
            waiters: Mutex::default(),
            next_waiter: AtomicU64::new(0),
            closed: AtomicBool::new(false),
        }
    }

    /// The newest revision.
    pub(crate) fn head(&self) -> Revision {
        self.head.load(Ordering::Acquire)
    }

    /// The state, to read. Do not do I/O under it.
    pub(crate) fn state(&self) -> Result<RwLockReadGuard<'_, State>, StoreError> {
        self.state.read().map_err(|_| half_applied())
    }

    /// Makes durable commits visible and wakes those who wait for them. Only the holder of the writer calls this.
    pub(crate) fn publish(&self, commits: Vec<Commit>, frame: Place, written: &[Written]) -> Result<(), StoreError> {
        let commits: Vec<Arc<Commit>> = commits.into_iter().map(Arc::new).collect();
        let Some(first) = commits.first().map(|commit| commit.revision) else { return Ok(()) };
        let mut state = self.state.write().map_err(|_| half_applied())?;
        state.mark(first, frame);
        let mut rest = written;
        for commit in &commits {
            let (mine, others) = rest.split_at(commit.events.len());
            state.apply(commit, frame, mine);
            rest = others;
        }
        self.head.store(state.head, Ordering::Release);
        drop(state);
        for waiter in self.waiters().values() {
            waiter.published(&commits);
        }
        Ok(())
    }

    /// Reads a range in chunks at one revision, so that a long list holds up no commit. Values no longer in memory are read
    /// from the log, on this thread.
    pub(crate) fn range(&self, range: &Range) -> Result<Ranged, StoreError> {
        let (head, revision) = {
            let state = self.state()?;
            (state.head, state.resolve(range.revision)?)
        };
        let limit = if range.limit == 0 { usize::MAX } else { range.limit };
        let mut ranged = Ranged { revision: head, items: Vec::new(), more: false, count: 0 };
        let mut resume = None;
        loop {
            let mut chunk = Vec::new();
            let wanted = limit - ranged.items.len();
            resume = self.state()?.index.scan(range, revision, resume.as_ref(), CHUNK, |found| {
                ranged.count += 1;
                if chunk.len() < wanted {
                    chunk.push(found);
                }
            });
            for found in chunk {
                ranged.items.push(self.load(found)?);
            }
            if resume.is_none() {
                ranged.more = ranged.count > ranged.items.len();
                return Ok(ranged);
            }
        }
    }

    /// The value that goes with a state that was found.
    pub(crate) fn load(&self, found: Found) -> Result<KeyValue, StoreError> {
        match found {
            Found::Memory(kv) => Ok(kv),
            Found::Log(key, version) => Ok(version.with(key, self.files.value(&version)?)),
        }
    }

    /// Adds one who waits; returns the ticket to remove it with.
    pub(crate) fn enter(&self, waiter: Arc<Waiter>) -> u64 {
        let ticket = self.next_waiter.fetch_add(1, Ordering::Relaxed);
        self.waiters().insert(ticket, waiter);
        ticket
    }

    /// Removes one who waited.
    pub(crate) fn leave(&self, ticket: u64) {
        self.waiters().remove(&ticket);
    }

    /// Whether the log behind this was dropped.
    pub(crate) fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Acquire)
    }

    /// Ends every watch, after it has delivered what there is.
    pub(crate) fn close(&self) {
        self.closed.store(true, Ordering::Release);
        for waiter in self.waiters().values() {
            waiter.wake();
        }
    }

    fn waiters(&self) -> MutexGuard<'_, BTreeMap<u64, Arc<Waiter>>> {
        // Nothing under this lock leaves the map half changed.
        self.waiters.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn half_applied() -> StoreError {
    StoreError::Poisoned { reason: "a panic interrupted the publication of a commit".into() }
}
