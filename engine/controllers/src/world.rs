//! What controllers see and act through.

use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use kube::runtime::reflector::{self, ObjectRef, Store};
use kube::{Client, Resource, ResourceExt};
use serde::de::DeserializeOwned;
use shipway_driver::{Meter, Meters, Queue, Recorder, Shared};
use tokio_util::sync::CancellationToken;

use crate::Key;
use crate::caches::Caches;
use crate::pods::Pods;

/// What the controllers see and act through; cheap to clone.
#[derive(Clone)]
pub(crate) struct World {
    /// The controller's own client.
    pub(crate) client: Client,
    pub(crate) recorder: Recorder,
    pub(crate) pods: Pods,
    caches: Caches,
    meters: Meters,
    /// The controller's.
    name: Arc<str>,
}

impl World {
    /// The world and the future that keeps it up to date.
    pub(crate) fn new(
        client: &Client,
        pods: &Shared<Pod>,
        meters: &Meters,
        stop: &CancellationToken,
    ) -> (Self, impl Future<Output = ()> + Send + use<>) {
        let (caches, watching) = Caches::new(client.clone(), stop);
        caches.await_too(pods);
        let recorder = Recorder::new(client.clone(), "controllers", "");
        let (client, pods, meters, name) = (client.clone(), Pods::new(pods), meters.clone(), "controllers".into());
        (Self { client, recorder, pods, caches, meters, name }, watching)
    }

    /// The same world for the controller of that name, which acts with a client of its own.
    pub(crate) fn acting(&self, name: &str, client: Client) -> Self {
        let recorder = Recorder::new(client.clone(), name, "");
        Self { client, recorder, name: name.into(), ..self.clone() }
    }

    /// The cached watch of a kind, which all controllers share. To be asked for before [`World::reconcile`].
    pub(crate) fn cache<K>(&self) -> Shared<K>
    where
        K: Resource<DynamicType = ()> + reflector::Lookup<DynamicType = ()> + Clone + Debug + DeserializeOwned,
        K: Send + Sync + 'static,
    {
        self.caches.of()
    }

    /// Hands the keys of one queue to a controller until stopped, once the whole picture is there.
    pub(crate) async fn reconcile<K, F, Fut>(
        self,
        queue: Arc<Queue<K>>,
        workers: usize,
        stop: CancellationToken,
        controller: F,
    ) where
        K: Clone + Eq + std::hash::Hash + Debug + Send + Sync + 'static,
        F: Fn(Self, K) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<Option<Duration>, kube::Error>> + Send + 'static,
    {
        tokio::select! {
            () = stop.cancelled() => return,
            () = self.caches.are_complete() => {}
        }
        self.meter().drive(queue, workers, stop, move |key| controller(self.clone(), key)).await;
    }

    /// What the controller's queues are counted with, for those that need no more than their own watches.
    pub(crate) fn meter(&self) -> Meter {
        self.meters.of(&self.name)
    }
}

/// Puts the key of every object of a kind that changes into a queue.
pub(crate) fn wake<K>(cache: &Shared<K>, queue: &Arc<Queue<Key>>)
where
    K: Resource<DynamicType = ()> + reflector::Lookup<DynamicType = ()> + Clone + Debug + DeserializeOwned,
    K: Send + Sync + 'static,
{
    let queue = queue.clone();
    cache.listen(move |change| queue.add(key(&**change.object())));
}

/// Namespace and name.
pub(crate) fn key<K: Resource>(object: &K) -> Key {
    (object.namespace().unwrap_or_default(), object.name_any())
}

/// The object that a key names, from a store.
pub(crate) fn find<K>(store: &Store<K>, key: &Key) -> Option<Arc<K>>
where
    K: Resource<DynamicType = ()> + reflector::Lookup<DynamicType = ()> + Clone + 'static,
{
    store.get(&ObjectRef::new(&key.1).within(&key.0))
}

/// The controlling owner of that kind.
pub(crate) fn controller_of<K: Resource>(object: &K, kind: &str) -> Option<Key> {
    let owner = object.owner_references().iter().find(|owner| owner.controller == Some(true))?;
    (owner.kind == kind).then(|| (object.namespace().unwrap_or_default(), owner.name.clone()))
}
