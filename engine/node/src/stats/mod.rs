//! What the node and its pods use, on a kubelet's paths: `/stats/summary` and `/metrics/resource`.
//!
//! Nothing is read while nobody asks. Rates need two readings: a few are kept for a minute, and who asks first waits a moment
//! for the second. However many ask, the machine is read about once a second.

mod reading;
mod resource;
mod summary;

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::time::Instant;

pub(crate) use reading::{Machine, Reading};
pub(crate) use resource::text as resource_text;
pub(crate) use summary::{Wanted, document as summary_document};

/// A reading that is not older than this is as good as a new one.
const FRESH: Duration = Duration::from_secs(1);
/// How long the first who asks waits for a second reading.
const GLANCE: Duration = Duration::from_millis(500);
/// What a rate is worked out over, when there is such a reading.
const WINDOW: Duration = Duration::from_secs(10);
/// Readings are kept so far apart.
const SPACING: Duration = Duration::from_secs(5);
/// Older readings say nothing about now.
const STALE: Duration = Duration::from_mins(1);
/// So many reach back over the window.
const MOST: usize = 4;

/// Reads the machine.
type Read = dyn Fn() -> Reading + Send + Sync;

/// The readings of this node. Clones share everything.
#[derive(Clone)]
pub(crate) struct Stats(Arc<Inner>);

struct Inner {
    read: Box<Read>,
    kept: Mutex<VecDeque<Arc<Reading>>>,
    /// One at a time reads.
    turn: Semaphore,
}

impl Stats {
    pub(crate) fn new(read: impl Fn() -> Reading + Send + Sync + 'static) -> Self {
        Self(Arc::new(Inner { read: Box::new(read), kept: Mutex::default(), turn: Semaphore::new(1) }))
    }

    /// The newest reading.
    pub(crate) async fn now(&self) -> Arc<Reading> {
        let _turn = self.0.turn.acquire().await.expect("the semaphore is never closed");
        match self.newest().filter(|newest| newest.taken.elapsed() < FRESH) {
            Some(newest) => newest,
            None => self.take().await,
        }
    }

    /// The newest reading and an earlier one, for rates.
    pub(crate) async fn pair(&self) -> (Arc<Reading>, Arc<Reading>) {
        let _turn = self.0.turn.acquire().await.expect("the semaphore is never closed");
        if let Some(newest) = self.newest().filter(|newest| newest.taken.elapsed() < FRESH)
            && let Some(earlier) = self.earlier(newest.taken)
        {
            return (earlier, newest);
        }
        if let Some(earlier) = self.earlier(Instant::now()) {
            return (earlier, self.take().await);
        }
        let earlier = self.take().await;
        tokio::time::sleep(GLANCE).await;
        (earlier, self.take().await)
    }

    fn newest(&self) -> Option<Arc<Reading>> {
        self.0.kept.lock().unwrap_or_else(PoisonError::into_inner).back().cloned()
    }

    fn earlier(&self, than: Instant) -> Option<Arc<Reading>> {
        let kept = self.0.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let ages: Vec<Duration> = kept.iter().map(|one| than.saturating_duration_since(one.taken)).collect();
        kept.get(chosen(&ages)?).cloned()
    }

    async fn take(&self) -> Arc<Reading> {
        let inner = self.0.clone();
        let reading =
            tokio::task::spawn_blocking(move || (inner.read)()).await.expect("reading counters does not panic");
        let reading = Arc::new(reading);
        keep(&mut self.0.kept.lock().unwrap_or_else(PoisonError::into_inner), reading.clone());
        reading
    }
}

/// Which of some readings, the oldest first, a rate is worked out from: the youngest that is a window old, else the oldest.
fn chosen(ages: &[Duration]) -> Option<usize> {
    let fits = |age: &Duration| (GLANCE..=STALE).contains(age);
    let wide = ages.iter().rposition(|age| *age >= WINDOW && fits(age));
    wide.or_else(|| ages.iter().position(fits))
}

/// Puts a reading behind the others: in place of the last one where that came close behind the one before it.
fn keep(kept: &mut VecDeque<Arc<Reading>>, reading: Arc<Reading>) {
    kept.retain(|one| reading.taken.saturating_duration_since(one.taken) <= STALE);
    let close = kept.len() >= 2 && kept[kept.len() - 1].taken - kept[kept.len() - 2].taken < SPACING;
    if close || kept.len() == MOST {
        let gone = if close { kept.len() - 1 } else { 0 };
        kept.remove(gone);
    }
    kept.push_back(reading);
}

#[cfg(test)]
mod tests;
