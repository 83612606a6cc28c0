//! A work queue of keys: a key waits at most once, is handed to one worker at a time, and comes back when it was added
//! again meanwhile. Its size is bounded by the number of distinct keys.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::fmt::{Debug, Display};
use std::hash::Hash;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::FutureExt as _;
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::meter::Meter;

/// The first retry of a failed key comes after this time; each further one after twice the time before.
const FIRST_RETRY: Duration = Duration::from_millis(5);
/// No retry waits longer than this.
const LONGEST_RETRY: Duration = Duration::from_secs(30);

/// A deduplicating queue with delays and back-off per key.
pub struct Queue<K> {
    state: Mutex<State<K>>,
    changed: Notify,
}

struct State<K> {
    ready: VecDeque<K>,
    /// The keys in `ready`, and since when.
    waiting: HashMap<K, Instant>,
    /// The keys handed out and not yet done.
    active: HashSet<K>,
    /// The active keys that were added again.
    again: HashSet<K>,
    delayed: BTreeMap<(Instant, u64), K>,
    due: HashMap<K, (Instant, u64)>,
    failures: HashMap<K, u32>,
    sequence: u64,
    meter: Option<Meter>,
}

impl<K: Clone + Eq + Hash> Default for Queue<K> {
    fn default() -> Self {
        Self::new()
    }
}

impl<K: Clone + Eq + Hash> Queue<K> {
    /// An empty queue.
    pub fn new() -> Self {
        Self {
            state: Mutex::new(State {
                ready: VecDeque::new(),
                waiting: HashMap::new(),
                active: HashSet::new(),
                again: HashSet::new(),
                delayed: BTreeMap::new(),
                due: HashMap::new(),
                failures: HashMap::new(),
                sequence: 0,
                meter: None,
            }),
            changed: Notify::new(),
        }
    }

    fn state(&self) -> MutexGuard<'_, State<K>> {
        // No code path leaves the state half changed, so a panicking worker does not spoil it.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts with `meter` from now on.
    pub fn measure(&self, meter: Meter) {
        let mut state = self.state();
        meter.begin(state.ready.len());
        state.meter = Some(meter);
    }

    fn worked(&self, time: Duration) {
        self.state().meter.iter().for_each(|meter| meter.worked(time));
    }

    /// Hands `key` out as soon as a worker is free; does nothing if it waits already.
    pub fn add(&self, key: K) {
        self.state().make_ready(key);
        self.changed.notify_one();
    }

    /// Hands `key` out after `delay`, unless it is due earlier already.
    pub fn add_after(&self, key: K, delay: Duration) {
        let at = Instant::now() + delay;
        self.state().delay(key, at);
        self.changed.notify_one();
    }

    /// Hands `key` out again after its back-off, which doubles with every call until [`Queue::forget`].
    pub fn retry(&self, key: K) {
        let delay = {
            let mut state = self.state();
            let failures = state.failures.entry(key.clone()).or_insert(0);
            *failures = failures.saturating_add(1);
            let failures = *failures;
            state.meter.iter().for_each(Meter::retried);
            FIRST_RETRY.saturating_mul(1 << (failures - 1).min(16)).min(LONGEST_RETRY)
        };
        self.add_after(key, delay);
    }

    /// Resets the back-off of `key`.
    pub fn forget(&self, key: &K) {
        self.state().failures.remove(key);
    }

    /// Ends the work on `key` that [`Queue::next`] began.
    pub fn done(&self, key: &K) {
        let mut state = self.state();
        state.active.remove(key);
        if state.again.remove(key) {
            state.make_ready(key.clone());
            drop(state);
            self.changed.notify_one();
        }
    }

    /// The next key to work on; pending while there is none.
    pub async fn next(&self) -> K {
        loop {
            let changed = self.changed.notified();
            let (key, due) = self.state().take();
            if let Some(key) = key {
                // Another key may be ready too, whose notification this call took.
                self.changed.notify_one();
                return key;
            }
            match due {
                Some(due) => tokio::select! {
                    () = changed => {}
                    () = tokio::time::sleep_until(due) => {}
                },
                None => changed.await,
            }
        }
    }
}

impl<K: Clone + Eq + Hash> State<K> {
    fn make_ready(&mut self, key: K) {
        if self.active.contains(&key) {
            self.again.insert(key);
        } else if !self.waiting.contains_key(&key) {
            self.waiting.insert(key.clone(), Instant::now());
            self.ready.push_back(key);
            self.meter.iter().for_each(Meter::added);
        }
    }

    fn delay(&mut self, key: K, at: Instant) {
        if let Some(place) = self.due.get(&key).copied() {
            if place.0 <= at {
                return;
            }
            self.delayed.remove(&place);
        }
        self.sequence += 1;
        self.due.insert(key.clone(), (at, self.sequence));
        self.delayed.insert((at, self.sequence), key);
    }

    /// Takes the next ready key, or says when the first delayed one is due.
    fn take(&mut self) -> (Option<K>, Option<Instant>) {
        let now = Instant::now();
        while let Some(entry) = self.delayed.first_entry().filter(|entry| entry.key().0 <= now) {
            let key = entry.remove();
            self.due.remove(&key);
            self.make_ready(key);
        }
        let key = self.ready.pop_front();
        if let Some(key) = &key {
            let since = self.waiting.remove(key).unwrap_or(now);
            self.meter.iter().for_each(|meter| meter.taken(now.saturating_duration_since(since)));
            self.active.insert(key.clone());
        }
        (key, self.delayed.first_key_value().map(|((at, _), _)| *at))
    }
}

/// Runs `reconcile` for the keys of `queue` with that many workers until stopped.
///
/// An answer of `Some(delay)` has the key looked at again after that time; an error is logged and retried with back-off.
pub async fn drive<K, F, Fut, E>(queue: Arc<Queue<K>>, workers: usize, stop: CancellationToken, reconcile: F)
where
    K: Clone + Eq + Hash + Debug + Send + Sync + 'static,
    F: Fn(K) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<Option<Duration>, E>> + Send + 'static,
    E: Display + Send + 'static,
{
    let reconcile = Arc::new(reconcile);
    let mut running = JoinSet::new();
    for _ in 0..workers {
        running.spawn(work(queue.clone(), stop.clone(), reconcile.clone()));
    }
    while running.join_next().await.is_some() {}
}

async fn work<K, F, Fut, E>(queue: Arc<Queue<K>>, stop: CancellationToken, reconcile: Arc<F>)
where
    K: Clone + Eq + Hash + Debug,
    F: Fn(K) -> Fut,
    Fut: Future<Output = Result<Option<Duration>, E>>,
    E: Display,
{
    loop {
        let key = tokio::select! {
            () = stop.cancelled() => return,
            key = queue.next() => key,
        };
        let begun = Instant::now();
        let reconciled = AssertUnwindSafe(reconcile(key.clone())).catch_unwind().await;
        queue.worked(begun.elapsed());
        match reconciled {
            Ok(Ok(again)) => {
                queue.forget(&key);
                if let Some(delay) = again {
                    queue.add_after(key.clone(), delay);
                }
            }
            Ok(Err(error)) => {
                tracing::debug!(?key, %error, "reconcile failed, retrying");
                queue.retry(key.clone());
            }
            // Desired state is level-triggered: nothing half done is in the way of the next try.
            Err(_) => {
                tracing::error!(?key, "reconcile panicked, retrying");
                queue.retry(key.clone());
            }
        }
        queue.done(&key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn now<T>(future: impl Future<Output = T>) -> Option<T> {
        futures::FutureExt::now_or_never(future)
    }

    #[tokio::test(start_paused = true)]
    async fn a_key_waits_at_most_once() {
        let queue = Queue::new();
        queue.add("a");
        queue.add("a");
        queue.add("b");
        assert_eq!(queue.next().await, "a");
        assert_eq!(queue.next().await, "b");
        assert_eq!(now(queue.next()), None);
    }

    #[tokio::test(start_paused = true)]
    async fn what_happens_to_keys_is_counted() {
        let (queue, meters) = (Queue::new(), crate::Meters::default());
        queue.add("early");
        queue.measure(meters.of("test"));
        queue.add("late");
        tokio::time::advance(Duration::from_secs(2)).await;
        assert_eq!(queue.next().await, "early");
        queue.retry("early");
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &meters.registry()).expect("a String takes any text");
        for line in [
            "workqueue_depth{name=\"test\"} 1",
            "workqueue_adds_total{name=\"test\"} 2",
            "workqueue_retries_total{name=\"test\"} 1",
            "workqueue_queue_duration_seconds_sum{name=\"test\"} 2.0",
        ] {
            assert!(text.lines().any(|it| it == line), "{line} is not in {text}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_key_added_while_active_comes_back_after_it_is_done() {
        let queue = Queue::new();
        queue.add("a");
        assert_eq!(queue.next().await, "a");
        queue.add("a");
        assert_eq!(now(queue.next()), None, "one worker at a time");
        queue.done(&"a");
        assert_eq!(queue.next().await, "a");
    }

    #[tokio::test(start_paused = true)]
    async fn the_earlier_of_two_delays_wins() {
        let queue = Queue::new();
        let start = Instant::now();
        queue.add_after("a", Duration::from_mins(1));
        queue.add_after("a", Duration::from_secs(1));
        queue.add_after("a", Duration::from_secs(5));
        assert_eq!(queue.next().await, "a");
        assert_eq!(start.elapsed().as_secs(), 1);
        queue.done(&"a");
        assert_eq!(now(queue.next()), None);
    }

    #[tokio::test(start_paused = true)]
    async fn retries_back_off_and_start_over_when_forgotten() {
        let queue = Queue::new();
        let mut waits = Vec::new();
        for _ in 0..3 {
            let start = Instant::now();
            queue.retry("a");
            queue.next().await;
            queue.done(&"a");
            waits.push(start.elapsed().as_millis());
        }
        assert!(waits[1] >= 2 * waits[0] && waits[2] >= 2 * waits[1], "{waits:?}");
        queue.forget(&"a");
        let start = Instant::now();
        queue.retry("a");
        queue.next().await;
        assert!(start.elapsed().as_millis() <= waits[0]);
    }

    #[tokio::test(start_paused = true)]
    async fn many_workers_share_the_keys_and_a_failed_key_is_tried_again() {
        let queue = Arc::new(Queue::new());
        let stop = CancellationToken::new();
        let seen = Arc::new(Mutex::new(HashMap::<u32, u32>::new()));
        (0..100).for_each(|key| queue.add(key));
        let (counted, ended) = (seen.clone(), stop.clone());
        let reconcile = move |key: u32| {
            let mut seen = counted.lock().unwrap();
            *seen.entry(key).or_default() += 1;
            let first = seen[&key] == 1;
            if seen.values().sum::<u32>() == 110 {
                ended.cancel();
            }
            std::future::ready(if key.is_multiple_of(10) && first { Err("again") } else { Ok(None) })
        };
        drive(queue, 4, stop, reconcile).await;
        let seen = seen.lock().unwrap();
        assert!((0..100).all(|key| seen[&key] == if key.is_multiple_of(10) { 2 } else { 1 }));
    }
}
