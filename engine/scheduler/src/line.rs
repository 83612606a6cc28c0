//! The pods that wait for a node: those to be tried now in the order of their priority, those that have to let some time
//! pass, and those that fit nowhere and are left alone until something happens that could help them.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::reason::Filters;
use crate::wanted::{Key, Wanted};

/// How long a pod lets others go first after its first failure; each further one doubles it.
const FIRST_WAIT: Duration = Duration::from_secs(1);
/// It waits no longer than this.
const LONGEST_WAIT: Duration = Duration::from_secs(10);

/// Where in line: more important ones first, then who came first.
type Turn = (Reverse<i32>, u64);

#[derive(Debug)]
enum Place {
    Ready(Turn),
    /// Ready when that time comes.
    Waits((Instant, u64)),
    /// Nothing but a change can help; these filters refused it.
    Parked(Filters),
    /// Being tried.
    Out,
}

#[derive(Debug)]
struct Entry {
    pod: Arc<Wanted>,
    place: Place,
    failures: u32,
    /// Until when others go first.
    patient_until: Option<Instant>,
}

/// All pods that wait.
#[derive(Debug, Default)]
pub(crate) struct Line {
    entries: HashMap<Key, Entry>,
    ready: BTreeMap<Turn, Key>,
    waiting: BTreeMap<(Instant, u64), Key>,
    parked: BTreeSet<Key>,
    tickets: u64,
}

impl Line {
    /// Takes in a pod, or what it is now. One that waits is tried anew only if what it asks for changed.
    pub(crate) fn put(&mut self, pod: Arc<Wanted>, now: Instant) {
        let key = pod.key();
        let Some(entry) = self.entries.get_mut(&key).filter(|entry| entry.pod.uid() == pod.uid()) else {
            self.remove(&key);
            self.entries.insert(key.clone(), Entry { pod, place: Place::Out, failures: 0, patient_until: None });
            return self.make_ready(&key);
        };
        let differs = asks_differently(&entry.pod, &pod);
        entry.pod = pod;
        let is_out = matches!(entry.place, Place::Out);
        let is_parked = matches!(entry.place, Place::Parked(_));
        if differs && !is_out {
            if is_parked {
                return self.resume(&key, now);
            }
            if matches!(entry.place, Place::Ready(_)) {
                self.make_ready(&key);
            }
        }
    }

    /// Forgets a pod.
    pub(crate) fn remove(&mut self, key: &Key) {
        if let Some(entry) = self.entries.remove(key) {
            self.leave(key, &entry.place);
        }
    }

    /// The next pod to try.
    pub(crate) fn next(&mut self, now: Instant) -> Option<Arc<Wanted>> {
        while let Some(((due, _), key)) = self.waiting.first_key_value() {
            if *due > now {
                break;
            }
            let key = key.clone();
            self.make_ready(&key);
        }
        let (_, key) = self.ready.pop_first()?;
        let entry = self.entries.get_mut(&key)?;
        entry.place = Place::Out;
        Some(entry.pod.clone())
    }

    /// The same pod as it is now, if it still is being tried.
    pub(crate) fn taken(&self, pod: &Wanted) -> Option<Arc<Wanted>> {
        let entry = self.entries.get(&pod.key())?;
        let is_same = matches!(entry.place, Place::Out) && entry.pod.uid() == pod.uid();
        is_same.then(|| entry.pod.clone())
    }

    /// When the next pod becomes ready by itself.
    pub(crate) fn next_due(&self) -> Option<Instant> {
        self.waiting.first_key_value().map(|((due, _), _)| *due)
    }

    /// Leaves a pod alone until something happens that could help against these filters.
    pub(crate) fn park(&mut self, key: &Key, refused_by: Filters, now: Instant) {
        if let Some(entry) = self.entries.get_mut(key) {
            entry.fail(now);
            let before = std::mem::replace(&mut entry.place, Place::Parked(refused_by));
            self.leave(key, &before);
            self.parked.insert(key.clone());
        }
    }

    /// Has a pod tried again after its wait.
    pub(crate) fn retry(&mut self, key: &Key, now: Instant) {
        if let Some(entry) = self.entries.get_mut(key) {
            entry.fail(now);
            self.resume(key, now);
        }
    }

    /// Has those parked pods tried again that `helps` says so of.
    pub(crate) fn wake(&mut self, now: Instant, helps: impl Fn(&Wanted, Filters) -> bool) {
        let woken = |key: &&Key| {
            let entry = self.entries.get(*key);
            entry.is_some_and(|entry| matches!(entry.place, Place::Parked(filters) if helps(&entry.pod, filters)))
        };
        let keys: Vec<Key> = self.parked.iter().filter(woken).cloned().collect();
        for key in &keys {
            self.resume(key, now);
        }
    }

    pub(crate) fn has(&self, key: &Key) -> bool {
        self.entries.contains_key(key)
    }

    /// Whether no pod is parked, so that nothing that happens matters to any.
    pub(crate) fn is_indifferent(&self) -> bool {
        self.parked.is_empty()
    }

    /// Ready, now or when the wait is over.
    fn resume(&mut self, key: &Key, now: Instant) {
        let Some(entry) = self.entries.get_mut(key) else { return };
        match entry.patient_until.filter(|until| *until > now) {
            None => self.make_ready(key),
            Some(until) => {
                self.tickets += 1;
                let place = (until, self.tickets);
                let before = std::mem::replace(&mut entry.place, Place::Waits(place));
                self.leave(key, &before);
                self.waiting.insert(place, key.clone());
            }
        }
    }

    fn make_ready(&mut self, key: &Key) {
        let Some(entry) = self.entries.get_mut(key) else { return };
        self.tickets += 1;
        let turn = (Reverse(entry.pod.priority()), self.tickets);
        let before = std::mem::replace(&mut entry.place, Place::Ready(turn));
        self.leave(key, &before);
        self.ready.insert(turn, key.clone());
    }

    fn leave(&mut self, key: &Key, place: &Place) {
        match place {
            Place::Ready(turn) => drop(self.ready.remove(turn)),
            Place::Waits(due) => drop(self.waiting.remove(due)),
            Place::Parked(_) => drop(self.parked.remove(key)),
            Place::Out => {}
        }
    }
}

impl Entry {
    fn fail(&mut self, now: Instant) {
        let wait = FIRST_WAIT.saturating_mul(1 << self.failures.min(8)).min(LONGEST_WAIT);
        self.failures = self.failures.saturating_add(1);
        self.patient_until = Some(now + wait);
    }
}

/// Whether another answer is possible for what the pod is now. What it was told about itself does not count.
fn asks_differently(before: &Wanted, now: &Wanted) -> bool {
    before.pod.spec != now.pod.spec
        || before.pod.metadata.labels != now.pod.metadata.labels
        || before.requests != now.requests
}

#[cfg(test)]
mod tests;
