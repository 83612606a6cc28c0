//! The newest commits, shared by all watchers.
//!
//! Bounded by number and by bytes. What falls out is read back from the log, so a slow watcher costs nothing here.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::store::Event;
use crate::{Commit, Revision};

/// Consecutive commits up to the newest one; may be empty.
#[derive(Debug)]
pub(crate) struct Ring {
    commits: VecDeque<Arc<Commit>>,
    bytes: usize,
    most_commits: usize,
    most_bytes: usize,
}

impl Ring {
    /// A ring of at most so many commits and about so many bytes of keys and values.
    pub(crate) fn new(most_commits: usize, most_bytes: usize) -> Self {
        Self { commits: VecDeque::new(), bytes: 0, most_commits, most_bytes }
    }

    /// Adds the newest commit and drops the oldest ones beyond the bounds.
    pub(crate) fn push(&mut self, commit: Arc<Commit>) {
        debug_assert!(self.commits.back().is_none_or(|last| last.revision + 1 == commit.revision));
        self.bytes += size(&commit);
        self.commits.push_back(commit);
        while self.commits.len() > self.most_commits || self.bytes > self.most_bytes {
            let Some(oldest) = self.commits.pop_front() else { return };
            self.bytes -= size(&oldest);
        }
    }

    /// The commits from `revision` on, or `None` when that one is no longer here.
    pub(crate) fn since(&self, revision: Revision) -> Option<impl Iterator<Item = &Arc<Commit>>> {
        let first = self.commits.front()?.revision;
        let skip = usize::try_from(revision.checked_sub(first)?).ok()?;
        (skip < self.commits.len()).then(|| self.commits.range(skip..))
    }
}

/// What a commit keeps alive: its keys and values, also the previous ones.
fn size(commit: &Commit) -> usize {
    const EVENT: usize = std::mem::size_of::<Event>();
    let values = |event: &Event| {
        let previous = event.previous.as_ref().map_or(0, |kv| kv.value.len());
        EVENT + event.kv.key.len() + event.kv.value.len() + previous
    };
    commit.events.iter().map(values).sum()
}
