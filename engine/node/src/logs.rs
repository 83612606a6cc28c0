//! Which runs of which containers there are, for whoever reads their logs.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};

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
    /// Why nothing was begun yet.
    pub(crate) waiting: Option<String>,
}

type Table = BTreeMap<String, RunsOf>;

struct Entry {
    pod: Pod,
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
        let entry = entries.entry(key(pod)).or_insert_with(|| new_entry(pod));
        if entry.pod.metadata.uid != pod.metadata.uid {
            *entry = new_entry(pod);
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
}

fn key(pod: &Pod) -> (String, String) {
    (pod::namespace(pod).to_owned(), pod::name(pod).to_owned())
}

fn new_entry(pod: &Pod) -> Entry {
    // Only who it is matters for its logs.
    let mut known = Pod::default();
    known.metadata.uid.clone_from(&pod.metadata.uid);
    known.metadata.name.clone_from(&pod.metadata.name);
    known.metadata.namespace.clone_from(&pod.metadata.namespace);
    Entry { pod: known, runs: watch::Sender::default() }
}

fn runs_of(observed: &Observed, container: &crate::observed::Container) -> RunsOf {
    let begun = if container.phase == Phase::Starting { container.runs.saturating_sub(1) } else { container.runs };
    let newest = begun.checked_sub(1);
    let again = matches!(container.phase, Phase::Ended { restart: Some(_), .. });
    let waiting = newest.is_none().then(|| crate::status::waiting_reason(observed, container));
    let previous = if again { newest } else { newest.and_then(|newest| newest.checked_sub(1)) };
    RunsOf { newest, previous, running: container.running(), waiting }
}

/// Resolves when this run does not run any more.
pub(crate) async fn ended(mut runs: watch::Receiver<Table>, container: String, run: u32) {
    let over = |table: &Table| table.get(&container).is_none_or(|runs| runs.newest != Some(run) || !runs.running);
    // An error says that the pod is gone, and its runs with it.
    drop(runs.wait_for(over).await);
}
