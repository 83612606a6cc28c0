//! The watches that keep the state up to date. Only pods and nodes are watched from the start; other kinds when the first
//! pod comes whose place depends on them.

use std::fmt::Debug;
use std::hash::Hash;
use std::sync::{Arc, Mutex, PoisonError};

use k8s_openapi::api::core::v1::{Namespace, Node, PersistentVolume, PersistentVolumeClaim, Pod, Service};
use k8s_openapi::api::storage::v1::StorageClass;
use kube::runtime::reflector::{Lookup, Store};
use kube::runtime::watcher;
use kube::{Api, Client, Resource};
use serde::de::DeserializeOwned;
use shipway_driver::{Change, Shared, cached};
use tokio::sync::{Notify, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::state::State;
use crate::wanted::Wanted;

/// How the state takes in a change.
type Take<K> = fn(&mut State, &Change<K>, Instant);

/// The state, and who is to hear that it changed.
#[derive(Default)]
pub(crate) struct Hub {
    state: Mutex<State>,
    /// Something changed that may make a pod ready.
    pub(crate) changed: Notify,
    /// Something changed that is watched beside pods, such as claims.
    pub(crate) watched: watch::Sender<()>,
}

impl Hub {
    /// Changes the state; must not wait.
    pub(crate) fn with<T>(&self, act: impl FnOnce(&mut State) -> T) -> T {
        let done = self.look(act);
        self.changed.notify_one();
        done
    }

    /// The same where nothing follows for the pods that wait.
    pub(crate) fn look<T>(&self, act: impl FnOnce(&mut State) -> T) -> T {
        act(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// What is watched so far.
pub(crate) struct Caches {
    client: Client,
    stop: CancellationToken,
    hub: Arc<Hub>,
    watching: JoinSet<()>,
    has_storage: bool,
    has_namespaces: bool,
    has_services: bool,
}

impl Caches {
    pub(crate) fn new(client: Client, stop: CancellationToken, hub: Arc<Hub>) -> Self {
        Self {
            client,
            stop,
            hub,
            watching: JoinSet::new(),
            has_storage: false,
            has_namespaces: false,
            has_services: false,
        }
    }

    /// Returns when all nodes and pods are known: a choice before that could give away what is taken.
    pub(crate) async fn know_cluster(&mut self, pods: &Shared<Pod>) {
        self.watch::<Node>(State::node_changed).await;
        // Of a cache that others wait for as well; its listeners have heard of all by then.
        pods.is_complete().await;
    }

    /// Returns when all is known that the choice for the pod depends on.
    pub(crate) async fn know_for(&mut self, pod: &Wanted) {
        if !self.has_storage && !pod.claims.is_empty() {
            self.has_storage = true;
            self.know_storage().await;
        }
        let (nodes, asked) =
            self.hub.look(|state| (state.snapshot.many_nodes(), state.snapshot.pulls().asked_for_namespaces()));
        let asks = || pod.pulls.iter().any(|pull| pull.term.who.asks_for_namespaces());
        if !self.has_namespaces && (asked || asks()) {
            self.has_namespaces = true;
            self.watch::<Namespace>(State::namespace_changed).await;
        }
        if !self.has_services && nodes > 1 && pod.spread.is_empty() && pod.siblings.is_none() {
            self.has_services = true;
            self.watch::<Service>(|state, service, _| state.service_changed(service)).await;
        }
    }

    async fn know_storage(&mut self) {
        self.watch::<StorageClass>(State::class_changed).await;
        self.watch::<PersistentVolume>(State::volume_changed).await;
        self.watch::<PersistentVolumeClaim>(State::claim_changed).await;
    }

    /// Watches a kind from now on; returns when all that is there was told.
    async fn watch<K>(&mut self, take: Take<K>)
    where
        K: Resource + Lookup + Clone + DeserializeOwned + Debug + Send + Sync + 'static,
        <K as Resource>::DynamicType: Default,
        <K as Lookup>::DynamicType: Default + Eq + Hash + Clone + Send + Sync,
    {
        let hub = self.hub.clone();
        let (store, watching) =
            cached::<K>(Api::all(self.client.clone()), watcher::Config::default(), self.stop.clone(), move |change| {
                hub.with(|state| take(state, change, Instant::now()));
                hub.watched.send_replace(());
            });
        self.watching.spawn(watching);
        load(&self.hub, &store, take).await;
    }
}

/// Takes in all that a cache holds once it is complete: what the cache tells by itself may come a moment later.
async fn load<K>(hub: &Hub, store: &Store<K>, take: Take<K>)
where
    K: Lookup + Clone + 'static,
    <K as Lookup>::DynamicType: Eq + Hash + Clone,
{
    if store.wait_until_ready().await.is_ok() {
        // Read under the lock: the cache changes before it tells, so nothing here is older than what was told.
        hub.with(|state| {
            store.state().into_iter().for_each(|object| take(state, &Change::Applied(object), Instant::now()));
        });
    }
}
