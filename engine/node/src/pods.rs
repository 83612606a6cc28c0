//! The pods of this node: one watch, one task a pod. What is on this machine when the engine starts is taken up; what has
//! no object any more is taken down.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};

use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::runtime::watcher;
use shipway_driver::{Change, cached};
use tokio::sync::{Notify, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::error::NodeError;
use crate::jobs::Shared;
use crate::machine::Host;
use crate::worker::{Desired, attend};
use crate::{collect, evict, pod};

/// Pods by uid, and whether their objects are there.
type Waiting = HashMap<String, (Arc<Pod>, bool)>;

/// The newest state of each pod that has changed since it was last looked at; holds at most one entry a pod.
#[derive(Clone, Default)]
struct Mailbox(Arc<(Mutex<Waiting>, Notify)>);

impl Mailbox {
    fn put(&self, change: &Change<Pod>) {
        let (pod, there) = match change {
            Change::Applied(pod) => (pod, true),
            Change::Deleted(pod) => (pod, false),
        };
        let mut waiting = self.0.0.lock().unwrap_or_else(PoisonError::into_inner);
        waiting.insert(pod::uid(pod).to_owned(), (pod.clone(), there));
        self.0.1.notify_one();
    }

    async fn take(&self) -> Vec<(Arc<Pod>, bool)> {
        loop {
            let waiting = std::mem::take(&mut *self.0.0.lock().unwrap_or_else(PoisonError::into_inner));
            if !waiting.is_empty() {
                return waiting.into_values().collect();
            }
            self.0.1.notified().await;
        }
    }
}

/// Hands each pod to its task.
struct Pods {
    shared: Arc<Shared<Host>>,
    stop: CancellationToken,
    /// What the runtime had when the engine started and no task has taken up yet.
    adopted: HashMap<String, shipway_container::Pod>,
    workers: HashMap<String, watch::Sender<Desired>>,
    /// By namespace and name: a new object of that name means that the former one is gone.
    names: HashMap<(String, String), String>,
    tasks: JoinSet<String>,
    /// Pods whose task has ended while others keep the object.
    finished: HashSet<String>,
}

/// Runs the pods of node `name` until stopped. Containers go on when it returns.
pub(crate) async fn run(shared: Arc<Shared<Host>>, name: &str, stop: CancellationToken) -> Result<(), NodeError> {
    let adopted = shared.machine.runtime.adopt().await.map_err(|error| NodeError::Runtime(error.to_string()))?;
    let mailbox = Mailbox::default();
    let api: Api<Pod> = Api::all(shared.client.clone());
    let config = watcher::Config::default().fields(&format!("spec.nodeName={name}"));
    let inbox = mailbox.clone();
    let (store, watching) = cached(api, config, stop.clone(), move |change| inbox.put(change));
    let mut pods = Pods {
        shared,
        stop: stop.clone(),
        adopted: adopted.into_iter().map(|pod| (pod.uid().to_owned(), pod)).collect(),
        workers: HashMap::new(),
        names: HashMap::new(),
        tasks: JoinSet::new(),
        finished: HashSet::new(),
    };
    let collecting = collect::run(pods.shared.clone(), store.clone(), stop.clone());
    let evicting = evict::run(pods.shared.clone(), store.clone(), stop.clone());
    let handling = async {
        if store.wait_until_ready().await.is_err() {
            return;
        }
        let known = store.state().iter().map(|pod| pod::uid(pod).to_owned()).collect();
        pods.clear_strangers(&known);
        pods.serve(&mailbox).await;
    };
    tokio::join!(watching, handling, collecting, evicting);
    Ok(())
}

impl Pods {
    async fn serve(&mut self, mailbox: &Mailbox) {
        loop {
            tokio::select! {
                () = self.stop.cancelled() => break,
                changes = mailbox.take() => changes.into_iter().for_each(|(pod, there)| self.take(&pod, there)),
                Some(ended) = self.tasks.join_next() => self.take_ended(ended),
            }
        }
        while let Some(ended) = self.tasks.join_next().await {
            self.take_ended(ended);
        }
    }

    fn take(&mut self, pod: &Arc<Pod>, there: bool) {
        let uid = pod::uid(pod).to_owned();
        let name = (pod::namespace(pod).to_owned(), pod::name(pod).to_owned());
        if !there {
            self.finished.remove(&uid);
            if self.names.get(&name) == Some(&uid) {
                self.names.remove(&name);
            }
            return self.tell(&uid, Desired::Gone);
        }
        if let Some(former) = self.names.insert(name, uid.clone()).filter(|former| *former != uid) {
            self.finished.remove(&former);
            self.tell(&former, Desired::Gone);
        }
        if self.workers.contains_key(&uid) {
            self.tell(&uid, Desired::Present(pod.clone()));
        } else if !self.finished.contains(&uid) {
            self.begin(uid, pod.clone());
        }
    }

    fn tell(&self, uid: &str, desired: Desired) {
        if let Some(worker) = self.workers.get(uid) {
            worker.send_replace(desired);
        }
    }

    fn begin(&mut self, uid: String, pod: Arc<Pod>) {
        let (sender, desired) = watch::channel(Desired::Present(pod.clone()));
        self.workers.insert(uid.clone(), sender);
        let (shared, stop, sandbox) = (self.shared.clone(), self.stop.clone(), self.adopted.remove(&uid));
        self.tasks.spawn(async move {
            attend(shared, pod, desired, sandbox, stop).await;
            uid
        });
    }

    fn take_ended(&mut self, ended: Result<String, tokio::task::JoinError>) {
        match ended {
            Ok(uid) => {
                if self.workers.remove(&uid).is_some_and(|worker| matches!(*worker.borrow(), Desired::Present(_))) {
                    self.finished.insert(uid);
                }
            }
            Err(error) => tracing::error!(%error, "the task of a pod ended badly"),
        }
    }

    /// Takes down what is on this machine without an object, and the files of pods that are gone.
    fn clear_strangers(&mut self, known: &HashSet<String>) {
        let strangers: Vec<String> = self.adopted.keys().filter(|uid| !known.contains(*uid)).cloned().collect();
        let mut clearing = JoinSet::new();
        for uid in strangers {
            let (shared, sandbox) = (self.shared.clone(), self.adopted.remove(&uid));
            clearing.spawn(async move {
                let mut stranger = Pod::default();
                stranger.metadata.uid = Some(uid);
                shared.take_down(&stranger, sandbox.as_ref()).await;
                shared.remove_volumes(&stranger).await;
                shared.detach(&stranger).await;
            });
        }
        // Listed now: what comes while this works is not a stranger's.
        let addresses = self.shared.machine.network.attached().into_iter().filter(|uid| !known.contains(uid));
        let addresses: Vec<String> = addresses.collect();
        let folders = leftovers(&self.shared.home, known);
        let shared = self.shared.clone();
        self.tasks.spawn(async move {
            while let Some(cleared) = clearing.join_next().await {
                if let Err(error) = cleared {
                    tracing::error!(%error, "what a pod without an object left was not taken down");
                }
            }
            for uid in addresses {
                if let Err(error) = shared.machine.network.detach(&uid).await {
                    tracing::warn!(uid, %error, "an address without a pod was not given back");
                }
            }
            let remove = move || folders?.iter().try_for_each(std::fs::remove_dir_all);
            let removed = tokio::task::spawn_blocking(remove).await;
            if let Ok(Err(error)) = removed {
                tracing::warn!(%error, "files of pods that are gone were not all removed");
            }
            String::new()
        });
    }
}

/// The folders of pods that no object stands for.
fn leftovers(home: &std::path::Path, known: &HashSet<String>) -> std::io::Result<Vec<std::path::PathBuf>> {
    let mut found = Vec::new();
    let stranger = |name: &str| name.len() == 36 && !known.contains(name);
    for (folder, uid_of) in [("pods", whole as fn(&str) -> &str), ("logs/pods", after_last_underscore)] {
        let entries = match std::fs::read_dir(home.join(folder)) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
            entries => entries?,
        };
        for entry in entries {
            let entry = entry?;
            if entry.file_name().to_str().is_some_and(|name| stranger(uid_of(name))) {
                found.push(entry.path());
            }
        }
    }
    Ok(found)
}

fn whole(name: &str) -> &str {
    name
}

fn after_last_underscore(name: &str) -> &str {
    name.rsplit('_').next().unwrap_or(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_folders_of_pods_without_an_object_are_removed() {
        let home = tempfile::tempdir().expect("a folder");
        let (kept, gone) = ("0b1f6a8e-7a52-4ed5-9c1c-2f8e5c0a7f10", "1b1f6a8e-7a52-4ed5-9c1c-2f8e5c0a7f10");
        let folders = [format!("pods/{kept}"), format!("pods/{gone}"), "pods/other".to_owned()];
        let logs = [format!("logs/pods/n_p_{kept}"), format!("logs/pods/n_p_{gone}")];
        for folder in folders.iter().chain(&logs) {
            std::fs::create_dir_all(home.path().join(folder).join("x")).expect("made");
        }
        let found = leftovers(home.path(), &HashSet::from([kept.to_owned()])).expect("listed");
        found.iter().try_for_each(std::fs::remove_dir_all).expect("removed");
        let there: Vec<bool> = folders.iter().chain(&logs).map(|folder| home.path().join(folder).exists()).collect();
        assert_eq!(there, [true, false, true, true, false]);
    }
}
