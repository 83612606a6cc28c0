//! What exists, of every kind: the metadata that deletion by owner and by namespace needs.
//!
//! One metadata watch per kind that the API lists, also of those that come later. Nothing but names, uids, owners, finalizers and the deletion mark is
//! kept of an object.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::core::{ApiResource, DynamicObject, PartialObjectMeta};
use kube::discovery::{ApiGroup, Discovery, Scope, verbs};
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Client, ResourceExt};
use shipway_driver::{Meter, Queue, Recorder};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

/// Kinds that nobody owns anything through and whose objects come and go by the thousand.
const LEFT_OUT: [&str; 1] = ["Event"];

/// What defines other kinds: group and kind.
const DEFINITIONS: [(&str, &str); 2] =
    [("apiextensions.k8s.io", "CustomResourceDefinition"), ("apiregistration.k8s.io", "APIService")];
/// How long changes of definitions are gathered before the kinds are listed again.
const SETTLING: Duration = Duration::from_millis(200);

/// One object, as far as deletion is concerned.
#[derive(Clone, Debug)]
pub(crate) struct Item {
    pub(crate) resource: Arc<ApiResource>,
    pub(crate) namespace: Option<String>,
    pub(crate) name: String,
    pub(crate) uid: String,
    pub(crate) owners: Vec<OwnerReference>,
    pub(crate) finalizers: Vec<String>,
    pub(crate) deleting: bool,
}

/// The shared stock; cheap to clone.
#[derive(Clone)]
pub(crate) struct Inventory {
    pub(crate) client: Client,
    /// The uids that the garbage collector should look at.
    pub(crate) garbage: Arc<Queue<String>>,
    /// The namespaces in which something changed that matters to their end.
    pub(crate) namespaces: Arc<Queue<String>>,
    stock: Arc<Mutex<Stock>>,
    kinds: Arc<Mutex<Vec<Watched>>>,
    complete: CancellationToken,
    pub(crate) recorder: Recorder,
    /// What the queue of whoever acts is counted with.
    pub(crate) meter: Meter,
    /// Told when other kinds may be served than before.
    others: Arc<Notify>,
}

/// A kind that is watched, and whether its objects live in namespaces.
pub(crate) type Watched = (Arc<ApiResource>, Scope);

#[derive(Default)]
struct Stock {
    items: HashMap<String, Item>,
    /// The uids of what an owner's uid owns.
    dependents: HashMap<String, HashSet<String>>,
    /// The uids in a namespace.
    in_namespace: HashMap<String, HashSet<String>>,
}

impl Inventory {
    /// The inventory and the future that keeps it.
    pub(crate) fn new(
        client: &Client,
        meter: Meter,
        stop: &CancellationToken,
    ) -> (Self, impl Future<Output = ()> + Send + use<>) {
        let inventory = Self {
            client: client.clone(),
            garbage: Arc::new(Queue::new()),
            namespaces: Arc::new(Queue::new()),
            stock: Arc::default(),
            kinds: Arc::default(),
            complete: CancellationToken::new(),
            recorder: Recorder::new(client.clone(), "garbage-collector-controller", ""),
            meter,
            others: Arc::default(),
        };
        (inventory.clone(), inventory.keep(stop.clone()))
    }

    /// The same inventory for a controller that acts with a client of its own.
    pub(crate) fn acting(&self, client: Client, meter: Meter) -> Self {
        Self { client, meter, ..self.clone() }
    }

    fn stock(&self) -> MutexGuard<'_, Stock> {
        self.stock.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until every kind has been listed once.
    pub(crate) async fn is_complete(&self) {
        self.complete.cancelled().await;
    }

    /// The object with that uid.
    pub(crate) fn item(&self, uid: &str) -> Option<Item> {
        self.stock().items.get(uid).cloned()
    }

    /// The namespaced kinds that can be listed and deleted.
    pub(crate) fn namespaced_kinds(&self) -> Vec<Arc<ApiResource>> {
        let kinds = self.kinds.lock().unwrap_or_else(PoisonError::into_inner);
        kinds.iter().filter(|(_, scope)| *scope == Scope::Namespaced).map(|(kind, _)| kind.clone()).collect()
    }

    /// The served kind of that group and name.
    pub(crate) fn kind(&self, group: &str, kind: &str) -> Option<Watched> {
        let kinds = self.kinds.lock().unwrap_or_else(PoisonError::into_inner);
        kinds.iter().find(|(known, _)| known.group == group && known.kind == kind).cloned()
    }

    /// The objects that name `uid` as an owner.
    pub(crate) fn dependents(&self, uid: &str) -> Vec<Item> {
        let stock = self.stock();
        let uids = stock.dependents.get(uid).into_iter().flatten();
        uids.filter_map(|uid| stock.items.get(uid).cloned()).collect()
    }

    /// Whether the namespace holds nothing any more, as far as the watches have shown.
    pub(crate) fn is_empty(&self, namespace: &str) -> bool {
        self.stock().in_namespace.get(namespace).is_none_or(HashSet::is_empty)
    }

    /// A client for the objects of an item's kind.
    pub(crate) fn api(&self, item: &Item) -> Api<DynamicObject> {
        match &item.namespace {
            Some(namespace) => Api::namespaced_with(self.client.clone(), namespace, &*item.resource),
            None => Api::all_with(self.client.clone(), &*item.resource),
        }
    }

    async fn keep(self, stop: CancellationToken) {
        let kinds = tokio::select! {
            () = stop.cancelled() => return,
            kinds = self.discover() => kinds,
        };
        let missing = Arc::new(Mutex::new(kinds.len()));
        let mut stops: HashMap<String, CancellationToken> = HashMap::new();
        let mut watches = FuturesUnordered::new();
        let mut served = kinds;
        loop {
            for (kind, _) in &served {
                let name = identity(kind);
                if let Entry::Vacant(place) = stops.entry(name) {
                    let own = place.insert(stop.child_token()).clone();
                    watches.push(self.watch(kind.clone(), missing.clone(), own));
                }
            }
            self.kinds.lock().unwrap_or_else(PoisonError::into_inner).clone_from(&served);
            self.forget_unserved(&mut stops, &served);
            tokio::select! {
                () = stop.cancelled() => return,
                Some(()) = watches.next() => continue,
                () = self.others.notified() => {}
            }
            // Definitions come in groups, and are served a moment after they are there.
            tokio::time::sleep(SETTLING).await;
            served = tokio::select! {
                () = stop.cancelled() => return,
                kinds = self.discover() => kinds,
            };
        }
    }

    /// Ends the watches of kinds that are not served any more; their objects are gone with them.
    fn forget_unserved(&self, watched: &mut HashMap<String, CancellationToken>, served: &[Watched]) {
        let names: HashSet<String> = served.iter().map(|(kind, _)| identity(kind)).collect();
        watched.retain(|name, watch| {
            let stays = names.contains(name);
            if !stays {
                watch.cancel();
            }
            stays
        });
        let gone: Vec<String> = {
            let stock = self.stock();
            let of_gone = stock.items.values().filter(|item| !names.contains(&identity(&item.resource)));
            of_gone.map(|item| item.uid.clone()).collect()
        };
        for uid in &gone {
            self.remove(Some(uid));
        }
    }

    /// The kinds whose objects can be listed, watched and deleted.
    async fn discover(&self) -> Vec<Watched> {
        loop {
            match Discovery::new(self.client.clone()).run_aggregated().await {
                Ok(discovery) => {
                    let kinds = discovery.groups().flat_map(ApiGroup::recommended_resources);
                    let watched = kinds.filter(|(kind, capabilities)| {
                        let needed = [verbs::LIST, verbs::WATCH, verbs::DELETE];
                        needed.iter().all(|verb| capabilities.supports_operation(verb))
                            && !LEFT_OUT.contains(&kind.kind.as_str())
                    });
                    return watched.map(|(kind, capabilities)| (Arc::new(kind), capabilities.scope)).collect();
                }
                Err(error) => {
                    tracing::warn!(%error, "the kinds cannot be listed, trying again");
                    tokio::time::sleep(Duration::from_secs(1)).await;
                }
            }
        }
    }

    async fn watch(&self, kind: Arc<ApiResource>, missing: Arc<Mutex<usize>>, stop: CancellationToken) {
        let api: Api<PartialObjectMeta<DynamicObject>> = Api::all_with(self.client.clone(), &*kind);
        let mut events = std::pin::pin!(watcher(api, watcher::Config::default()).default_backoff());
        let mut listed: Option<HashSet<String>> = None;
        let mut first = true;
        loop {
            let event = tokio::select! {
                () = stop.cancelled() => return,
                event = events.next() => event,
            };
            match event {
                Some(Ok(watcher::Event::Init)) => listed = Some(HashSet::new()),
                Some(Ok(watcher::Event::InitApply(object))) => {
                    if let (Some(listed), Some(uid)) = (&mut listed, &object.metadata.uid) {
                        listed.insert(uid.clone());
                    }
                    self.put(&kind, &object);
                }
                Some(Ok(watcher::Event::InitDone)) => {
                    self.remove_unlisted(&kind, &listed.take().unwrap_or_default());
                    if std::mem::take(&mut first) {
                        self.one_less(&missing);
                    } else {
                        self.note_kinds(&kind);
                    }
                }
                Some(Ok(watcher::Event::Apply(object))) => {
                    self.put(&kind, &object);
                    self.note_kinds(&kind);
                }
                Some(Ok(watcher::Event::Delete(object))) => {
                    self.remove(object.metadata.uid.as_deref());
                    self.note_kinds(&kind);
                }
                Some(Err(error)) => tracing::debug!(%error, kind = kind.kind, "metadata watch broke, retrying"),
                None => return,
            }
        }
    }

    /// A change of this kind may mean that other kinds are served.
    fn note_kinds(&self, kind: &ApiResource) {
        if DEFINITIONS.contains(&(kind.group.as_str(), kind.kind.as_str())) {
            self.others.notify_one();
        }
    }

    fn one_less(&self, missing: &Mutex<usize>) {
        let mut missing = missing.lock().unwrap_or_else(PoisonError::into_inner);
        // Those that came later wait for nobody, and nobody for them.
        *missing = missing.saturating_sub(1);
        if *missing == 0 {
            self.complete.cancel();
        }
    }

    fn put(&self, kind: &Arc<ApiResource>, object: &PartialObjectMeta<DynamicObject>) {
        let Some(uid) = object.metadata.uid.clone() else { return };
        let item = Item {
            resource: kind.clone(),
            namespace: object.namespace(),
            name: object.name_any(),
            uid: uid.clone(),
            owners: object.owner_references().to_vec(),
            finalizers: object.finalizers().to_vec(),
            deleting: object.metadata.deletion_timestamp.is_some(),
        };
        // Only owned or ending objects are of interest to the collector.
        let interesting = !item.owners.is_empty() || item.deleting;
        let mut owners: Vec<String> = item.owners.iter().map(|owner| owner.uid.clone()).collect();
        let before = self.stock().put(item);
        // A foreground deletion waits for its dependents, also for one that is not its dependent any more.
        owners.extend(before.into_iter().flat_map(|before| before.owners).map(|owner| owner.uid));
        for owner in owners {
            self.wake_ending(&owner);
        }
        if interesting {
            self.garbage.add(uid);
        }
    }

    fn wake_ending(&self, owner: &str) {
        if self.stock().items.get(owner).is_some_and(|owner| owner.deleting) {
            self.garbage.add(owner.to_owned());
        }
    }

    fn remove(&self, uid: Option<&str>) {
        let Some(uid) = uid else { return };
        let (item, dependents) = {
            let mut stock = self.stock();
            let item = stock.remove(uid);
            (item, stock.dependents.get(uid).cloned().unwrap_or_default())
        };
        for dependent in dependents {
            self.garbage.add(dependent);
        }
        let Some(item) = item else { return };
        for owner in &item.owners {
            self.wake_ending(&owner.uid);
        }
        if let Some(namespace) = item.namespace
            && self.is_empty(&namespace)
        {
            self.namespaces.add(namespace);
        }
    }

    fn remove_unlisted(&self, kind: &ApiResource, listed: &HashSet<String>) {
        let gone: Vec<String> = {
            let stock = self.stock();
            let of_kind = stock.items.values().filter(|item| {
                item.resource.kind == kind.kind && item.resource.group == kind.group && !listed.contains(&item.uid)
            });
            of_kind.map(|item| item.uid.clone()).collect()
        };
        for uid in &gone {
            self.remove(Some(uid));
        }
    }
}

/// What tells one watched kind from another. The version counts: the former one may be served no more.
fn identity(kind: &ApiResource) -> String {
    format!("{}/{}", kind.api_version, kind.plural)
}

impl Stock {
    /// Takes the item in; gives what it was before.
    fn put(&mut self, item: Item) -> Option<Item> {
        let before = self.remove(&item.uid);
        for owner in &item.owners {
            self.dependents.entry(owner.uid.clone()).or_default().insert(item.uid.clone());
        }
        if let Some(namespace) = &item.namespace {
            self.in_namespace.entry(namespace.clone()).or_default().insert(item.uid.clone());
        }
        self.items.insert(item.uid.clone(), item);
        before
    }

    fn remove(&mut self, uid: &str) -> Option<Item> {
        let item = self.items.remove(uid)?;
        for owner in &item.owners {
            discard(&mut self.dependents, &owner.uid, uid);
        }
        if let Some(namespace) = &item.namespace {
            discard(&mut self.in_namespace, namespace, uid);
        }
        Some(item)
    }
}

fn discard(index: &mut HashMap<String, HashSet<String>>, key: &str, uid: &str) {
    if let Some(uids) = index.get_mut(key) {
        uids.remove(uid);
        if uids.is_empty() {
            index.remove(key);
        }
    }
}
