//! How soon a failed pod of a node is replaced: each time after twice the time before.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// After the first failure; the pod itself is replaced at once.
const FIRST: Duration = Duration::from_secs(1);
/// No node waits longer.
const LONGEST: Duration = Duration::from_mins(15);

/// What failed where, by the uid of the set and the name of the node. What has not failed for long is forgotten.
#[derive(Default)]
pub(super) struct Backoff(Mutex<HashMap<(String, String), Failed>>);

struct Failed {
    at: Instant,
    wait: Duration,
}

impl Backoff {
    fn entries(&self) -> MutexGuard<'_, HashMap<(String, String), Failed>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How long the set's pod on that node is not to be replaced yet.
    pub(super) fn held(&self, set: &str, node: &str) -> Option<Duration> {
        let entries = self.entries();
        let failed = entries.get(&(set.to_owned(), node.to_owned()))?;
        failed.wait.checked_sub(failed.at.elapsed()).filter(|left| !left.is_zero())
    }

    /// A failed pod of the set is being replaced on that node.
    pub(super) fn failed(&self, set: &str, node: &str) {
        let mut entries = self.entries();
        entries.retain(|_, failed| failed.at.elapsed() < 2 * LONGEST);
        let at = Instant::now();
        let entry = entries.entry((set.to_owned(), node.to_owned()));
        entry
            .and_modify(|failed| *failed = Failed { at, wait: (2 * failed.wait).min(LONGEST) })
            .or_insert(Failed { at, wait: FIRST });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_wait_doubles_and_is_forgotten_after_long_peace() {
        let backoff = Backoff::default();
        let mut waits = Vec::new();
        assert_eq!(backoff.held("set", "a"), None);
        for _ in 0..12 {
            backoff.failed("set", "a");
            let wait = backoff.held("set", "a").unwrap();
            tokio::time::advance(wait).await;
            assert_eq!(backoff.held("set", "a"), None);
            waits.push(wait.as_secs());
        }
        assert_eq!(waits, [1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 900, 900]);
        assert_eq!(backoff.held("set", "b"), None, "another node is another matter");
        tokio::time::advance(2 * LONGEST).await;
        backoff.failed("set", "a");
        assert_eq!(backoff.held("set", "a"), Some(FIRST));
    }
}
