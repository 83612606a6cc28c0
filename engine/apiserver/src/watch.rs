//! WATCH: one request's cursor over a resource's changes.
//!
//! A watch is a state machine without a task of its own: the connection asks for the next chunk, and the cursor moves.
//! It reads the ring of recent changes; when it starts in the past or is overtaken it reads the store's history until
//! it meets the ring again. Nothing is queued per watcher, so a slow one holds one chunk and its position, no more.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use shipway_schema::Resource;
use shipway_store::{Commit, Event, EventKind, Range, Revision, StoreError, Watcher};
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::body::CHUNK;
use crate::cache::{Cache, Table};
use crate::commit::Place;
use crate::convert;
use crate::error::ApiError;
use crate::object::Object;
use crate::ring::Change;
use crate::select::Selection;
use crate::view::{View, failure};
use crate::webhook::Webhooks;

/// How many changes are taken from the ring at once.
const BATCH: usize = 64;
/// How often a quiet watch that asked for bookmarks gets one.
const BOOKMARK_EVERY: Duration = Duration::from_secs(50);

/// Where a watch begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Start {
    /// With the objects there are, then what happens.
    Objects {
        /// Say with a bookmark where the initial objects end.
        announce: bool,
    },
    /// With what happens from now on.
    Now,
    /// With what happened after a revision.
    After(Revision),
}

/// What a watch request asked for.
pub(crate) struct Options {
    pub(crate) selection: Selection,
    pub(crate) start: Start,
    pub(crate) bookmarks: bool,
    pub(crate) timeout: Duration,
}

/// A running watch.
pub(crate) struct Watch {
    cache: Arc<Cache>,
    webhooks: Arc<Webhooks>,
    table: Arc<Table>,
    resource: Arc<Resource>,
    view: View,
    selection: Selection,
    state: State,
    moved: watch::Receiver<u64>,
    /// Everything up to here has been delivered.
    delivered: Revision,
    bookmarks: bool,
    next_bookmark: Instant,
    deadline: Instant,
    stop: CancellationToken,
    /// Says that the kind is no longer what it was when the watch began.
    retired: CancellationToken,
}

enum State {
    /// Sending what was there at the start.
    Initial {
        objects: std::vec::IntoIter<Arc<Object>>,
        announce: bool,
        next: u64,
    },
    /// Reading what is no longer in the ring.
    History(Box<dyn Watcher>),
    /// Reading the ring from a number on.
    Live(u64),
    /// The ring begins behind what was delivered.
    Overtaken,
    /// Telling why the watch is over.
    Failed(ApiError),
    Ended,
}

/// What is about to be sent, in order; objects are still in the version they are stored in.
#[derive(Default)]
struct Batch {
    items: Vec<Item>,
    /// About how many bytes it makes.
    size: usize,
}

enum Item {
    Event(&'static str, Arc<Object>),
    Bookmark(Revision, bool),
    Failure(ApiError),
}

impl Batch {
    fn event(&mut self, kind: &'static str, object: &Arc<Object>) {
        self.size += object.len();
        self.items.push(Item::Event(kind, object.clone()));
    }

    fn bookmark(&mut self, revision: Revision, ends_initial: bool) {
        self.items.push(Item::Bookmark(revision, ends_initial));
    }
}

enum Wake {
    Changed,
    Bookmark,
    Over,
}

impl Watch {
    /// Places the cursor. The cache must have reached the revision asked for.
    pub(crate) fn begin(
        cache: Arc<Cache>,
        webhooks: Arc<Webhooks>,
        place: &Place,
        view: View,
        options: Options,
        [stop, retired]: [CancellationToken; 2],
    ) -> Self {
        let now = Instant::now();
        let mut watch = Self {
            moved: place.table.changes(),
            cache,
            webhooks,
            table: place.table.clone(),
            resource: place.resource.clone(),
            view,
            selection: options.selection,
            state: State::Ended,
            delivered: 0,
            bookmarks: options.bookmarks,
            next_bookmark: now + BOOKMARK_EVERY,
            deadline: now + options.timeout,
            stop,
            retired,
        };
        match options.start {
            Start::Objects { announce } => watch.begin_with_objects(announce),
            Start::Now => {
                let (revision, next) = watch.table.edge(watch.cache.revision());
                watch.delivered = revision;
                watch.state = State::Live(next);
            }
            Start::After(revision) => {
                watch.delivered = revision;
                watch.state = watch.table.position(revision).map_or(State::Overtaken, State::Live);
            }
        }
        watch
    }

    fn begin_with_objects(&mut self, announce: bool) {
        let snapshot = self.cache.snapshot(&self.table, self.selection.namespace.as_deref(), None);
        self.delivered = snapshot.revision;
        self.state = State::Initial { objects: snapshot.objects.into_iter(), announce, next: snapshot.next };
    }

    /// The next events as the client reads them, one line each; `None` ends the reply.
    pub(crate) async fn next(&mut self) -> Option<Bytes> {
        loop {
            let mut lines = Batch::default();
            match std::mem::replace(&mut self.state, State::Ended) {
                State::Initial { objects, announce, next } => self.initial(objects, announce, next, &mut lines),
                State::History(watcher) => self.history(watcher, &mut lines).await,
                State::Live(number) => self.live(number, &mut lines).await,
                State::Overtaken => self.state = self.open_history().await,
                State::Failed(error) => lines.items.push(Item::Failure(error)),
                State::Ended => return None,
            }
            if !lines.items.is_empty() {
                return Some(self.write(lines).await.into());
            }
        }
    }

    /// Writes a batch in the version that the watch speaks.
    async fn write(&mut self, batch: Batch) -> Vec<u8> {
        let mut lines = Vec::new();
        let events = batch.items.iter().filter_map(|item| match item {
            Item::Event(_, object) => Some(object.clone()),
            _ => None,
        });
        let shown = convert::all(&self.webhooks, &self.resource, events.collect()).await;
        let mut shown = match shown {
            Ok(shown) => shown.into_iter(),
            Err(error) => {
                self.state = State::Ended;
                failure(&mut lines, &error);
                return lines;
            }
        };
        for item in batch.items {
            match item {
                Item::Event(kind, object) => self.view.event(&mut lines, kind, &shown.next().unwrap_or(object)),
                Item::Bookmark(revision, ends_initial) => self.view.bookmark(&mut lines, revision, ends_initial),
                Item::Failure(error) => failure(&mut lines, &error),
            }
        }
        lines
    }

    fn initial(&mut self, mut objects: std::vec::IntoIter<Arc<Object>>, announce: bool, next: u64, lines: &mut Batch) {
        for object in objects.by_ref() {
            if self.selection.matches(&self.resource, &object) {
                lines.event("ADDED", &object);
            }
            if lines.size >= CHUNK {
                self.state = State::Initial { objects, announce, next };
                return;
            }
        }
        if announce {
            lines.bookmark(self.delivered, true);
        }
        self.state = State::Live(next);
    }

    async fn live(&mut self, number: u64, lines: &mut Batch) {
        if self.stop.is_cancelled() || Instant::now() >= self.deadline {
            return self.end(lines);
        }
        self.moved.mark_unchanged();
        let applied = self.cache.revision();
        let Some((changes, complete)) = self.table.read_changes(number, BATCH, applied) else {
            self.state = State::Overtaken;
            return;
        };
        let taken = self.deliver_some(&changes, lines);
        self.delivered = match changes.get(taken) {
            // Cut between two revisions: everything before the next one has been delivered.
            Some(next) => next.revision - 1,
            None => self.delivered.max(complete),
        };
        self.state = State::Live(number + taken as u64);
        if changes.is_empty() && self.retired.is_cancelled() {
            return self.end(lines);
        }
        if changes.is_empty() {
            self.idle(lines).await;
        }
    }

    /// Delivers changes until the chunk is full, whole revisions only. Returns how many.
    fn deliver_some(&mut self, changes: &[Arc<Change>], lines: &mut Batch) -> usize {
        let mut last = 0;
        for (at, change) in changes.iter().enumerate() {
            if lines.size >= CHUNK && change.revision > last {
                return at;
            }
            self.deliver(change, lines);
            last = change.revision;
        }
        changes.len()
    }

    /// Waits for a change; sends a bookmark when it is time for one; ends the watch when its time is up.
    async fn idle(&mut self, lines: &mut Batch) {
        match self.wake().await {
            Wake::Changed => {}
            Wake::Bookmark => {
                lines.bookmark(self.delivered, false);
                self.next_bookmark = Instant::now() + BOOKMARK_EVERY;
            }
            Wake::Over => self.end(lines),
        }
    }

    fn end(&mut self, lines: &mut Batch) {
        if self.bookmarks {
            lines.bookmark(self.delivered, false);
        }
        self.state = State::Ended;
    }

    async fn wake(&mut self) -> Wake {
        let next_bookmark = if self.bookmarks { self.next_bookmark } else { self.deadline };
        tokio::select! {
            changed = self.moved.changed() => if changed.is_ok() { Wake::Changed } else { Wake::Over },
            () = self.stop.cancelled() => Wake::Over,
            // What has happened before is still told.
            () = self.retired.cancelled() => Wake::Changed,
            () = tokio::time::sleep_until(self.deadline) => Wake::Over,
            () = tokio::time::sleep_until(next_bookmark), if self.bookmarks => self.quiet(),
        }
    }

    /// A bookmark may name the newest revision only if nothing came in meanwhile.
    fn quiet(&mut self) -> Wake {
        let applied = self.cache.revision();
        if let State::Live(number) = self.state
            && let Some((changes, complete)) = self.table.read_changes(number, 1, applied)
            && changes.is_empty()
        {
            self.delivered = self.delivered.max(complete);
            return Wake::Bookmark;
        }
        Wake::Changed
    }

    async fn open_history(&mut self) -> State {
        // All keys, so that the history reaches the ring even when this resource is quiet.
        match self.cache.store().watch(Range::all(), self.delivered + 1).await {
            Ok(watcher) => State::History(watcher),
            Err(error) => State::Failed(too_old(error, self.delivered)),
        }
    }

    async fn history(&mut self, mut watcher: Box<dyn Watcher>, lines: &mut Batch) {
        let next = tokio::select! {
            next = watcher.next() => next,
            () = self.stop.cancelled() => return,
            () = tokio::time::sleep_until(self.deadline) => return,
        };
        match next {
            Ok(commit) => {
                if let Err(error) = self.replay(&commit, lines) {
                    self.state = State::Failed(error);
                    return;
                }
                self.delivered = commit.revision;
                // Asked first: a position taken before the cache has this commit would deliver it once more.
                let applied = self.cache.revision();
                self.state = match self.table.position(commit.revision) {
                    Some(number) if applied >= commit.revision => State::Live(number),
                    _ => State::History(watcher),
                };
            }
            Err(error) => self.state = State::Failed(too_old(error, self.delivered)),
        }
    }

    fn replay(&mut self, commit: &Commit, lines: &mut Batch) -> Result<(), ApiError> {
        for event in &commit.events {
            let key = std::str::from_utf8(&event.kv.key).unwrap_or_default();
            let Some(key) = key.strip_prefix(&*self.table.prefix).map(str::to_owned) else { continue };
            if let Some(change) = change(&key, event, commit.revision)? {
                self.deliver(&change, lines);
            }
        }
        Ok(())
    }

    /// Writes a change as this watcher sees it: an object that enters or leaves the selection appears or disappears.
    fn deliver(&mut self, change: &Change, lines: &mut Batch) {
        let resource = &self.resource;
        let selects = |object: &Object| self.selection.matches(resource, object);
        let now = !change.deleted && selects(&change.object);
        let before = change.previous.as_ref().filter(|previous| selects(previous));
        match (before, now) {
            (None, true) => lines.event("ADDED", &change.object),
            (Some(_), true) => lines.event("MODIFIED", &change.object),
            (Some(_), false) if change.deleted => lines.event("DELETED", &change.object),
            (Some(previous), false) => lines.event("DELETED", &Arc::new(previous.restamped(change.revision))),
            (None, false) => {}
        }
    }
}

/// An event of the store's history as a change.
fn change(key: &str, event: &Event, revision: Revision) -> Result<Option<Change>, ApiError> {
    let read = |kv| crate::cache::read(key, kv).map(Arc::new);
    let previous = event.previous.as_ref().map(read).transpose()?;
    let (object, deleted) = match (event.kind, &previous) {
        (EventKind::Put, _) => (read(&event.kv)?, false),
        (EventKind::Delete, Some(previous)) => (Arc::new(previous.restamped(revision)), true),
        (EventKind::Delete, None) => return Ok(None),
    };
    Ok(Some(Change { revision, object, previous, deleted }))
}

fn too_old(error: StoreError, revision: Revision) -> ApiError {
    match error {
        StoreError::Compacted { .. } => {
            ApiError::Expired { message: format!("too old resource version: {revision}"), resume: None }
        }
        other => other.into(),
    }
}
