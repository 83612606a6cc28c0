//! Watchers: a cursor, a filter and a wake-up. There is no queue, so none can overflow and no watcher is ever dropped.
//!
//! A watcher takes from the ring what is there and from the log what is not. One that has nothing to read sleeps until a
//! commit touches its range; commits that do not touch it move its cursor on without waking it.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use async_trait::async_trait;
use tokio::sync::Notify;

use crate::replay::Replay;
use crate::shared::Shared;
use crate::{Commit, Event, Range, Revision, StoreError, Watcher};

/// The part of a watcher that the committer sees.
#[derive(Debug)]
pub(crate) struct Waiter {
    range: Range,
    wake: Notify,
    /// What the committer knows of the cursor: nothing before this revision is left for the watcher. Set by a watcher that
    /// has read everything; stays where a commit touches the range.
    idle: AtomicU64,
}

impl Waiter {
    fn new(range: Range) -> Self {
        Self { range, wake: Notify::new(), idle: AtomicU64::new(0) }
    }

    /// Wakes the watcher if one of these new commits touches its range, else moves it past them if it had read all before.
    /// Called for each batch in order, after the batch can be read.
    pub(crate) fn published(&self, commits: &[Arc<Commit>]) {
        let touches = |commit: &Arc<Commit>| commit.events.iter().any(|event| self.range.contains(&event.kv.key));
        if commits.iter().any(touches) {
            self.wake();
        } else if let (Some(first), Some(last)) = (commits.first(), commits.last()) {
            // Fails when the watcher has commits left to read, or has already read these.
            self.idle
                .compare_exchange(first.revision, last.revision + 1, Ordering::AcqRel, Ordering::Relaxed)
                .unwrap_or_else(|own| own);
        }
    }

    /// Wakes the watcher, also when it only starts to wait after this.
    pub(crate) fn wake(&self) {
        self.wake.notify_one();
    }
}

/// A watcher of the log.
#[derive(Debug)]
pub(crate) struct LogWatcher {
    shared: Arc<Shared>,
    waiter: Arc<Waiter>,
    ticket: u64,
    /// The first revision not yet looked at.
    next: Revision,
    /// Commits of the range from the one frame of the log that was read last; all before `next`.
    backlog: VecDeque<Arc<Commit>>,
    replay: Replay,
}

/// What a look at the state comes to.
enum Step {
    Deliver(Arc<Commit>),
    /// There is more, but others should have a turn.
    Again,
    Wait,
}

impl LogWatcher {
    /// A cursor at `from`. Fails when that is compacted.
    pub(crate) fn new(shared: &Arc<Shared>, range: Range, from: Revision) -> Result<Self, StoreError> {
        let compacted = shared.state()?.compacted;
        // The revision of the empty store has no commit, so nothing is missing for one who asks from 0.
        if from < compacted && compacted > crate::shared::EMPTY {
            return Err(StoreError::Compacted { requested: from, compacted });
        }
        let waiter = Arc::new(Waiter::new(range));
        let ticket = shared.enter(Arc::clone(&waiter));
        let next = from.max(compacted + 1);
        let shared = Arc::clone(shared);
        Ok(Self { shared, waiter, ticket, next, backlog: VecDeque::new(), replay: Replay::default() })
    }

    /// One look at the state. Moves the cursor only past what it returns or what does not touch the range.
    fn step(&mut self) -> Result<Step, StoreError> {
        if let Some(commit) = self.backlog.pop_front() {
            return Ok(Step::Deliver(commit));
        }
        self.next = self.next.max(self.waiter.idle.swap(0, Ordering::AcqRel));
        let state = self.shared.state()?;
        if self.next <= state.head {
            let Some(commits) = state.ring.since(self.next) else {
                drop(state);
                return self.read_log();
            };
            for commit in commits {
                self.next = commit.revision + 1;
                if let Some(commit) = within(&self.waiter.range, commit) {
                    return Ok(Step::Deliver(commit));
                }
            }
        }
        if self.shared.is_closed() {
            return Err(StoreError::Closed);
        }
        // Under the lock, so no commit is published between the look and this.
        self.waiter.idle.store(self.next, Ordering::Release);
        Ok(Step::Wait)
    }

    /// Takes in the frame of the log that holds the next revision.
    fn read_log(&mut self) -> Result<Step, StoreError> {
        let range = &self.waiter.range;
        let (commits, next) = self.replay.read(&self.shared, range, self.next)?;
        self.backlog.extend(commits.into_iter().map(Arc::new));
        self.next = next;
        Ok(self.backlog.pop_front().map_or(Step::Again, Step::Deliver))
    }
}

/// The commit with only the events of a range, if there are any; shared when they all are.
fn within(range: &Range, commit: &Arc<Commit>) -> Option<Arc<Commit>> {
    let inside = |event: &&Event| range.contains(&event.kv.key);
    match commit.events.iter().filter(inside).count() {
        0 => None,
        all if all == commit.events.len() => Some(Arc::clone(commit)),
        _ => {
            let events = commit.events.iter().filter(inside).cloned().collect();
            Some(Arc::new(Commit { revision: commit.revision, events }))
        }
    }
}

#[async_trait]
impl Watcher for LogWatcher {
    async fn next(&mut self) -> Result<Arc<Commit>, StoreError> {
        loop {
            match self.step()? {
                Step::Deliver(commit) => return Ok(commit),
                Step::Again => tokio::task::yield_now().await,
                Step::Wait => self.waiter.wake.notified().await,
            }
        }
    }
}

impl Drop for LogWatcher {
    fn drop(&mut self) {
        self.shared.leave(self.ticket);
    }
}
