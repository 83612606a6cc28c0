//! Which runs of which containers there are, for whoever reads their logs or what they use.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use tokio::sync::watch;

use crate::observed::{Observed, Phase};
use crate::pod;

/// The runs of one container.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct RunsOf {
    /// The newest run that was begun.
    pub(crate) newest: Option<u32>,
    /// The run before it, or the newest one if it has ended and waits to be started again.
    pub(crate) previous: Option<u32>,
    pub(crate) running: bool,
    /// When the newest run began, while it runs.
    pub(crate) since: Option<Timestamp>,
    /// Why nothing was begun yet.
    pub(crate) waiting: Option<String>,
}

type Table = BTreeMap<String, RunsOf>;

/// A pod and what runs of it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Present {
    pub(crate) uid: String,
    pub(crate) namespace: String,
    pub(crate) name: String,
    pub(crate) start_time: Timestamp,
    /// The containers that run: name, run and since when.
    pub(crate) containers: Vec<(String, u32, Timestamp)>,
}

struct Entry {
    pod: Pod,
    start_time: Timestamp,
    runs: watch::Sender<Table>,
}

/// The runs of every pod of the node.
#[derive(Clone, Default)]
pub(crate) struct Runs(Arc<Mutex<HashMap<(String, String), Entry>>>);

impl Runs {
    /// Takes note of a pod's runs.
    pub(crate) fn update(&self, pod: &Pod, observed: &Observed) {
        let table: Table =
            observed.containers.iter().map(|each| (each.name.clone(), runs_of(observed, each))).collect();
        let mut entries = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let entry = entries.entry(key(pod)).or_insert_with(|| new_entry(pod, observed));
        if entry.pod.metadata.uid != pod.metadata.uid {
            *entry = new_entry(pod, observed);
        }
        entry.runs.send_if_modified(|known| {
            let changed = *known != table;
            *known = table;
            changed
        });
    }

    /// Forgets a pod; those who follow its logs come to their end.
    pub(crate) fn remove(&self, pod: &Pod) {
        let mut entries = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if entries.get(&key(pod)).is_some_and(|entry| entry.pod.metadata.uid == pod.metadata.uid) {
            entries.remove(&key(pod));
        }
    }

    /// The pod of that name and its runs.
    pub(crate) fn find(&self, namespace: &str, name: &str) -> Option<(Pod, watch::Receiver<Table>)> {
        let entries = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let entry = entries.get(&(namespace.to_owned(), name.to_owned()))?;
        Some((entry.pod.clone(), entry.runs.subscribe()))
    }

    /// Every pod of which something runs.
    pub(crate) fn present(&self) -> Vec<Present> {
        let entries = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        entries.values().map(present).filter(|pod| !pod.containers.is_empty()).collect()
    }
}

fn key(pod: &Pod) -> (String, String) {
    (pod::namespace(pod).to_owned(), pod::name(pod).to_owned())
}

fn present(entry: &Entry) -> Present {
    let running = |(name, runs): (&String, &RunsOf)| Some((name.clone(), runs.newest?, runs.since?));
    Present {
        uid: pod::uid(&entry.pod).to_owned(),
        namespace: pod::namespace(&entry.pod).to_owned(),
        name: pod::name(&entry.pod).to_owned(),
        start_time: entry.start_time,
        containers: entry.runs.borrow().iter().filter_map(running).collect(),
    }
}

fn new_entry(pod: &Pod, observed: &Observed) -> Entry {
    // Only who it is matters.
    let mut known = Pod::default();
    known.metadata.uid.clone_from(&pod.metadata.uid);
    known.metadata.name.clone_from(&pod.metadata.name);
    known.metadata.namespace.clone_from(&pod.metadata.namespace);
    Entry { pod: known, start_time: observed.start_time, runs: watch::Sender::default() }
}

fn runs_of(observed: &Observed, container: &crate::observed::Container) -> RunsOf {
    let begun = if container.phase == Phase::Starting { container.runs.saturating_sub(1) } else { container.runs };
    let newest = begun.checked_sub(1);
    let again = matches!(container.phase, Phase::Ended { restart: Some(_), .. });
    let waiting = newest.is_none().then(|| crate::status::waiting_reason(observed, container));
    let previous = if again { newest } else { newest.and_then(|newest| newest.checked_sub(1)) };
    let since = match container.phase {
        Phase::Running { since, .. } => Some(since),
        _ => None,
    };
    RunsOf { newest, previous, running: container.running(), since, waiting }
}

/// Resolves when this run does not run any more.
pub(crate) async fn ended(mut runs: watch::Receiver<Table>, container: String, run: u32) {
    let over = |table: &Table| table.get(&container).is_none_or(|runs| runs.newest != Some(run) || !runs.running);
    // An error says that the pod is gone, and its runs with it.
    drop(runs.wait_for(over).await);
}
