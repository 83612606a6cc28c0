//! One cached watch per kind, shared by all controllers, and the queue of each.

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use k8s_openapi::api::core::v1::{Namespace, Pod, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::runtime::reflector::{ObjectRef, Store};
use kube::runtime::watcher;
use kube::{Api, Client, Resource, ResourceExt};
use shipway_driver::{Change, Queue, Recorder, Shared, cached, drive};
use tokio_util::sync::CancellationToken;

use crate::owned::Unseen;
use crate::{Key, endpoints};

/// What the controllers see and how they are woken; cheap to clone.
#[derive(Clone)]
pub(crate) struct World {
    pub(crate) client: Client,
    pub(crate) recorder: Recorder,
    pub(crate) deployments: Store<Deployment>,
    pub(crate) replica_sets: Store<ReplicaSet>,
    pub(crate) pods: Store<Pod>,
    pub(crate) services: Store<Service>,
    pub(crate) slices: Store<EndpointSlice>,
    pub(crate) queues: Arc<Queues>,
}

/// One queue a controller.
#[derive(Default)]
pub(crate) struct Queues {
    pub(crate) deployments: Arc<Queue<Key>>,
    pub(crate) replica_sets: Arc<Queue<Key>>,
    pub(crate) services: Arc<Queue<Key>>,
    pub(crate) namespaces: Arc<Queue<Key>>,
    /// Namespaces whose disruption budgets are to be counted.
    pub(crate) budgets: Arc<Queue<String>>,
    /// Pods that a replica set made or deleted and that the watch has not shown yet.
    pub(crate) unseen_pods: Unseen,
    /// Replica sets that a deployment made and that the watch has not shown yet.
    pub(crate) unseen_replica_sets: Unseen,
}

impl World {
    /// The world and the future that keeps it up to date.
    pub(crate) fn new(
        client: &Client,
        pods: &Shared<Pod>,
        stop: &CancellationToken,
    ) -> (Self, impl Future<Output = ()> + Send + use<>) {
        let queues = Arc::new(Queues::default());
        let all = watcher::Config::default;
        let wake = queues.clone();
        let (deployments, watch_deployments) =
            cached::<Deployment>(Api::all(client.clone()), all(), stop.clone(), move |change| {
                let deployment = change.object();
                wake.deployments.add(key(&**deployment));
                wake.budgets.add(deployment.namespace().unwrap_or_default());
            });
        let wake = queues.clone();
        let (replica_sets, watch_replica_sets) =
            cached::<ReplicaSet>(Api::all(client.clone()), all(), stop.clone(), move |change| wake.replica_set(change));
        let wake = queues.clone();
        let (services, watch_services) =
            cached::<Service>(Api::all(client.clone()), all(), stop.clone(), move |change| {
                wake.services.add(key(&**change.object()));
            });
        let (wake, known, sets) = (queues.clone(), services.clone(), replica_sets.clone());
        pods.listen(move |change| wake.pod(change, &known, &sets));
        let wake = queues.clone();
        let (slices, watch_slices) =
            cached::<EndpointSlice>(Api::all(client.clone()), all(), stop.clone(), move |change| {
                if let Some(service) = endpoints::service_of(change.object()) {
                    wake.services.add(service);
                }
            });
        let wake = queues.clone();
        let (_, watch_namespaces) = cached::<Namespace>(Api::all(client.clone()), all(), stop.clone(), move |change| {
            wake.namespaces.add(key(&**change.object()));
        });
        let recorder = Recorder::new(client.clone(), "controllers", "");
        let client = client.clone();
        let world = Self { client, recorder, deployments, replica_sets, pods: pods.store(), services, slices, queues };
        let watching = async {
            tokio::join!(watch_deployments, watch_replica_sets, watch_services, watch_slices, watch_namespaces);
        };
        (world, watching)
    }

    /// The same world for a controller that acts with a client of its own.
    pub(crate) fn acting(&self, client: Client) -> Self {
        Self { client, ..self.clone() }
    }

    /// Hands the keys of one queue to a controller until stopped, once the whole picture is there.
    pub(crate) async fn reconcile<F, Fut>(
        self,
        queue: Arc<Queue<Key>>,
        workers: usize,
        stop: CancellationToken,
        controller: F,
    ) where
        F: Fn(Self, Key) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<Option<Duration>, kube::Error>> + Send + 'static,
    {
        tokio::select! {
            () = stop.cancelled() => return,
            () = self.is_complete() => {}
        }
        drive(queue, workers, stop, move |key| controller(self.clone(), key)).await;
    }

    /// Waits until every watch has shown what there is, so that nobody acts on half a picture.
    pub(crate) async fn is_complete(&self) {
        let (deployments, replica_sets, pods, services, slices) = tokio::join!(
            self.deployments.wait_until_ready(),
            self.replica_sets.wait_until_ready(),
            self.pods.wait_until_ready(),
            self.services.wait_until_ready(),
            self.slices.wait_until_ready()
        );
        let ready = [deployments, replica_sets, pods, services, slices];
        if ready.iter().any(Result::is_err) {
            // The watches only end when everything is stopped.
            std::future::pending::<()>().await;
        }
    }
}

impl Queues {
    fn replica_set(&self, change: &Change<ReplicaSet>) {
        let set = change.object();
        self.unseen_replica_sets.saw(change.object().metadata.uid.as_deref());
        self.replica_sets.add(key(&**set));
        self.budgets.add(set.namespace().unwrap_or_default());
        if let Some(owner) = controller_of(&**set, "Deployment") {
            self.deployments.add(owner);
        }
    }

    fn pod(&self, change: &Change<Pod>, services: &Store<Service>, replica_sets: &Store<ReplicaSet>) {
        let pod = change.object();
        self.budgets.add(pod.namespace().unwrap_or_default());
        let deleting = pod.metadata.deletion_timestamp.is_some() || matches!(change, Change::Deleted(_));
        self.unseen_pods.saw_change(pod.metadata.uid.as_deref(), deleting);
        match controller_of(&**pod, "ReplicaSet") {
            Some(owner) => self.replica_sets.add(owner),
            None if deleting => {}
            // An orphan may be somebody's, or may have been: every replica set of the namespace looks.
            None => in_namespace(replica_sets, pod).for_each(|set| self.replica_sets.add(set)),
        }
        // All of the namespace: a pod that was relabelled leaves services which do not select it any more.
        in_namespace(services, pod).for_each(|service| self.services.add(service));
    }
}

/// The keys of the objects in the pod's namespace.
fn in_namespace<K>(store: &Store<K>, pod: &Pod) -> impl Iterator<Item = Key>
where
    K: Resource<DynamicType = ()> + kube::runtime::reflector::Lookup<DynamicType = ()> + Clone + 'static,
{
    let namespace = pod.metadata.namespace.clone();
    store.state().into_iter().filter(move |object| object.meta().namespace == namespace).map(|object| key(&*object))
}

/// Namespace and name.
pub(crate) fn key<K: Resource>(object: &K) -> Key {
    (object.namespace().unwrap_or_default(), object.name_any())
}

/// The object that a key names, from a store.
pub(crate) fn find<K>(store: &Store<K>, key: &Key) -> Option<Arc<K>>
where
    K: Resource<DynamicType = ()> + kube::runtime::reflector::Lookup<DynamicType = ()> + Clone + 'static,
{
    store.get(&ObjectRef::new(&key.1).within(&key.0))
}

/// The controlling owner of that kind.
pub(crate) fn controller_of<K: Resource>(object: &K, kind: &str) -> Option<Key> {
    let owner = object.owner_references().iter().find(|owner| owner.controller == Some(true))?;
    (owner.kind == kind).then(|| (object.namespace().unwrap_or_default(), owner.name.clone()))
}
