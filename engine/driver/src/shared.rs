//! One cached watch that several parts of a process read: one decoding and one copy of a kind with many objects.

use std::fmt::Debug;
use std::hash::Hash;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use kube::runtime::reflector::{Lookup, Store};
use kube::runtime::watcher;
use kube::{Api, Resource};
use serde::de::DeserializeOwned;
use tokio_util::sync::CancellationToken;

use crate::cache::{Change, Progress, Trim, trimmed};

/// Whoever hears of changes.
type Listeners<K> = Arc<Mutex<Vec<Box<dyn Fn(&Change<K>) + Send>>>>;
/// Whoever hears how far the cache has come.
type Followers = Arc<Mutex<Vec<Box<dyn Fn(Progress) + Send>>>>;

/// A cache and whoever wants to hear of its changes; cheap to clone.
pub struct Shared<K>
where
    K: Lookup + Clone + 'static,
    <K as Lookup>::DynamicType: Eq + Hash + Clone,
{
    store: Store<K>,
    listeners: Listeners<K>,
    followers: Followers,
}

impl<K> Clone for Shared<K>
where
    K: Lookup + Clone + 'static,
    <K as Lookup>::DynamicType: Eq + Hash + Clone,
{
    fn clone(&self) -> Self {
        Self { store: self.store.clone(), listeners: self.listeners.clone(), followers: self.followers.clone() }
    }
}

impl<K> Shared<K>
where
    K: Resource + Lookup + Clone + DeserializeOwned + Debug + Send + Sync + 'static,
    <K as Resource>::DynamicType: Default,
    <K as Lookup>::DynamicType: Default + Eq + Hash + Clone + Send + Sync,
{
    /// The cache, which keeps what `trim` leaves, and the future that must be driven to keep it.
    pub fn new(api: Api<K>, trim: Trim<K>, stop: CancellationToken) -> (Self, impl Future<Output = ()> + Send) {
        let (listeners, followers) = (Listeners::<K>::default(), Followers::default());
        let (told, following) = (listeners.clone(), followers.clone());
        let on_change = move |change: &Change<K>| lock(&told).iter().for_each(|listener| listener(change));
        let on_progress = move |progress| lock(&following).iter().for_each(|follower| follower(progress));
        let (store, watching) = trimmed(api, watcher::Config::default(), stop, trim, on_change, on_progress);
        (Self { store, listeners, followers }, watching)
    }

    /// The objects.
    pub fn store(&self) -> Store<K> {
        self.store.clone()
    }

    /// Tells of what is there and of every later change.
    pub fn listen(&self, listener: impl Fn(&Change<K>) + Send + 'static) {
        let mut listeners = lock(&self.listeners);
        self.store.state().into_iter().for_each(|object| listener(&Change::Applied(object)));
        listeners.push(Box::new(listener));
    }

    /// Tells from now on how far the cache has come, each time after everybody was told of the changes until there.
    pub fn follow(&self, follower: impl Fn(Progress) + Send + 'static) {
        lock(&self.followers).push(Box::new(follower));
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
