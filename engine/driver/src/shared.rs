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
    /// Cancelled once everybody was told of a whole list.
    complete: CancellationToken,
}

impl<K> Clone for Shared<K>
where
    K: Lookup + Clone + 'static,
    <K as Lookup>::DynamicType: Eq + Hash + Clone,
{
    fn clone(&self) -> Self {
        Self {
            store: self.store.clone(),
            listeners: self.listeners.clone(),
            followers: self.followers.clone(),
            complete: self.complete.clone(),
        }
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
        let (listeners, followers, complete) =
            (Listeners::<K>::default(), Followers::default(), CancellationToken::new());
        let (told, following, whole) = (listeners.clone(), followers.clone(), complete.clone());
        let on_change = move |change: &Change<K>| lock(&told).iter().for_each(|listener| listener(change));
        let on_progress = move |progress: Progress| {
            lock(&following).iter().for_each(|follower| follower(progress));
            if progress.listed.is_some() {
                whole.cancel();
            }
        };
        let (store, watching) = trimmed(api, watcher::Config::default(), stop, trim, on_change, on_progress);
        (Self { store, listeners, followers, complete }, watching)
    }

    /// The objects. To wait for them there is [`Shared::is_complete`]: of several tasks that wait until the store itself is ready
    /// only the last one is woken.
    pub fn store(&self) -> Store<K> {
        self.store.clone()
    }

    /// Waits until there was a whole list and every listener has heard of all of it: what they keep is complete then, while the
    /// store is a moment earlier.
    pub async fn is_complete(&self) {
        self.complete.cancelled().await;
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

#[cfg(test)]
mod tests {
    use std::convert::Infallible;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use http::{Request, Response};
    use k8s_openapi::api::core::v1::ConfigMap;
    use kube::client::Body;
    use serde_json::json;
    use tower::service_fn;

    use super::*;

    #[tokio::test]
    async fn it_is_complete_when_the_last_listener_has_heard_of_all() {
        let server = service_fn(|request: Request<Body>| async move {
            if request.uri().query().is_some_and(|query| query.contains("watch=")) {
                std::future::pending::<()>().await;
            }
            let item = |name: &str| json!({"metadata": {"name": name, "namespace": "n", "resourceVersion": "5"}});
            let list = json!({"kind": "ConfigMapList", "apiVersion": "v1", "metadata": {"resourceVersion": "7"},
                "items": [item("a"), item("b")]});
            Ok::<_, Infallible>(Response::new(Body::from(list.to_string().into_bytes())))
        });
        let api: Api<ConfigMap> = Api::all(kube::Client::new(server, "n"));
        let (shared, watching) = Shared::new(api, |_| (), CancellationToken::new());
        let heard = Arc::new(AtomicUsize::new(0));
        let (ours, cache, progress) = (heard.clone(), shared.clone(), Arc::<Mutex<Option<Progress>>>::default());
        shared.listen(move |_| {
            assert!(!cache.complete.is_cancelled(), "somebody has not heard of everything");
            ours.fetch_add(1, Ordering::Relaxed);
        });
        let noted = progress.clone();
        shared.follow(move |now| *lock(&noted) = Some(now));
        tokio::select! {
            () = watching => unreachable!("nobody stops it"),
            () = shared.is_complete() => {}
        }
        assert_eq!(heard.load(Ordering::Relaxed), 2);
        let came_to = lock(&progress).expect("told before");
        assert_eq!((came_to.revision, came_to.listed.is_some()), (5, true));
    }
}
