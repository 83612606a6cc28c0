//! The objects that pods of this node refer to, each watched once however many pods show it, and only as long as one does.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::fmt::Debug;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use futures::StreamExt;
use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::core::v1::{ConfigMap, PersistentVolumeClaim, Secret};
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher::watch_object;
use kube::{Api, Client, Resource};
use serde::de::DeserializeOwned;
use tokio::sync::watch;
use tokio::task::AbortHandle;

use crate::references::Reference;

/// Namespace and object.
type Key = (String, Reference);

/// All watches; cheap to clone.
#[derive(Clone)]
pub(crate) struct Followed {
    client: Client,
    known: Arc<Mutex<HashMap<Key, Weak<Watch>>>>,
}

/// One watch, which ends with its last follower.
struct Watch {
    changes: watch::Sender<()>,
    task: AbortHandle,
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Hears of the changes of one object.
pub(crate) struct Follower {
    changes: watch::Receiver<()>,
    key: Key,
    watch: Option<Arc<Watch>>,
    all: Followed,
}

impl Followed {
    pub(crate) fn new(client: Client) -> Self {
        Self { client, known: Arc::default() }
    }

    /// Follows an object from now on. When it is not watched yet, its present state counts as a change.
    pub(crate) fn follow(&self, namespace: &str, reference: Reference) -> Follower {
        let key = (namespace.to_owned(), reference);
        let mut known = self.known();
        let watch = match known.entry(key.clone()) {
            Entry::Occupied(mut entry) => entry.get().upgrade().unwrap_or_else(|| {
                let watch = self.begin(&key);
                entry.insert(Arc::downgrade(&watch));
                watch
            }),
            Entry::Vacant(entry) => {
                let watch = self.begin(&key);
                entry.insert(Arc::downgrade(&watch));
                watch
            }
        };
        Follower { changes: watch.changes.subscribe(), key, watch: Some(watch), all: self.clone() }
    }

    fn begin(&self, (namespace, reference): &Key) -> Arc<Watch> {
        let changes = watch::Sender::new(());
        let (client, teller, namespace) = (self.client.clone(), changes.clone(), namespace.clone());
        let task = match reference.clone() {
            Reference::ConfigMap(name) => {
                tokio::spawn(run(Api::<ConfigMap>::namespaced(client, &namespace), name, teller))
            }
            Reference::Secret(name) => tokio::spawn(run(Api::<Secret>::namespaced(client, &namespace), name, teller)),
            Reference::Claim(name) => {
                tokio::spawn(run(Api::<PersistentVolumeClaim>::namespaced(client, &namespace), name, teller))
            }
        };
        Arc::new(Watch { changes, task: task.abort_handle() })
    }

    fn known(&self) -> MutexGuard<'_, HashMap<Key, Weak<Watch>>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Follower {
    /// Waits for the next change; several at once are one.
    pub(crate) async fn changed(&mut self) {
        if self.changes.changed().await.is_err() {
            // The watch holds the other end, and this holds the watch.
            std::future::pending::<()>().await;
        }
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        let mut known = self.all.known();
        self.watch = None;
        if known.get(&self.key).is_some_and(|watch| watch.strong_count() == 0) {
            known.remove(&self.key);
        }
    }
}

/// Tells of every change of one object, beginning with its present state.
async fn run<K>(api: Api<K>, name: String, changes: watch::Sender<()>)
where
    K: Resource<Scope = NamespaceResourceScope, DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + 'static,
{
    let mut states = std::pin::pin!(watch_object(api, &name).default_backoff());
    while let Some(state) = states.next().await {
        match state {
            Ok(_) => changes.send_replace(()),
            Err(error) => tracing::debug!(%error, name, "a watch broke, retrying"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{self, Answer};
    use serde_json::json;

    #[tokio::test]
    async fn an_object_is_watched_once_and_as_long_as_somebody_follows_it() {
        let (client, _) = testing::api(|_| Answer::Echo(json!({"items": [], "metadata": {"resourceVersion": "1"}})));
        let followed = Followed::new(client);
        let map = || Reference::ConfigMap("settings".to_owned());
        let (mut one, other) = (followed.follow("n", map()), followed.follow("n", map()));
        one.changed().await;
        let followers = followed.known().values().map(Weak::strong_count).collect::<Vec<_>>();
        assert_eq!(followers, [2]);
        let elsewhere = followed.follow("m", map());
        drop((one, elsewhere));
        assert_eq!(followed.known().keys().collect::<Vec<_>>(), [&("n".to_owned(), map())]);
        drop(other);
        assert!(followed.known().is_empty());
    }
}
