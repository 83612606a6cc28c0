//! One cached watch a kind for all controllers; the first who asks for a kind starts it.

use std::any::{Any, TypeId};
use std::collections::HashMap;
use std::fmt::Debug;
use std::sync::{Arc, Mutex, PoisonError};

use futures::StreamExt;
use futures::future::{BoxFuture, join_all};
use futures::stream::FuturesUnordered;
use kube::runtime::reflector::Lookup;
use kube::{Api, Client, Resource};
use serde::de::DeserializeOwned;
use shipway_driver::Shared;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

/// A watch to drive, which nobody drives yet.
type Watch = BoxFuture<'static, ()>;
/// Waits until a cache has shown what there is.
type Ready = Arc<dyn Fn() -> BoxFuture<'static, ()> + Send + Sync>;

/// The caches; cheap to clone.
#[derive(Clone)]
pub(crate) struct Caches {
    client: Client,
    stop: CancellationToken,
    new: mpsc::UnboundedSender<Watch>,
    known: Arc<Mutex<Known>>,
}

#[derive(Default)]
struct Known {
    caches: HashMap<TypeId, Box<dyn Any + Send>>,
    ready: Vec<Ready>,
}

impl Caches {
    /// The caches and the future that keeps them up to date.
    pub(crate) fn new(client: Client, stop: &CancellationToken) -> (Self, impl Future<Output = ()> + Send + use<>) {
        let (new, asked) = mpsc::unbounded_channel();
        (Self { client, stop: stop.clone(), new, known: Arc::default() }, watch(asked, stop.clone()))
    }

    /// The cache of a kind.
    pub(crate) fn of<K>(&self) -> Shared<K>
    where
        K: Resource<DynamicType = ()> + Lookup<DynamicType = ()> + Clone + Debug + DeserializeOwned,
        K: Send + Sync + 'static,
    {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let found = known.caches.get(&TypeId::of::<K>()).and_then(|cache| cache.downcast_ref::<Shared<K>>());
        if let Some(cache) = found {
            return cache.clone();
        }
        let (cache, watching) = Shared::new(Api::all(self.client.clone()), |_| (), self.stop.clone());
        // Nobody receives any more once everything is stopped.
        let _ = self.new.send(Box::pin(watching));
        known.ready.push(ready(&cache));
        known.caches.insert(TypeId::of::<K>(), Box::new(cache.clone()));
        cache
    }

    /// Counts somebody else's cache among those that must be complete.
    pub(crate) fn await_too<K>(&self, cache: &Shared<K>)
    where
        K: Resource<DynamicType = ()> + Lookup<DynamicType = ()> + Clone + Debug + DeserializeOwned,
        K: Send + Sync + 'static,
    {
        self.known.lock().unwrap_or_else(PoisonError::into_inner).ready.push(ready(cache));
    }

    /// Waits until every cache that was asked for has shown what there is to all who listen, so that nobody acts on half a
    /// picture: what controllers keep beside a cache, such as whose each pod is, comes after it.
    pub(crate) async fn are_complete(&self) {
        let ready = self.known.lock().unwrap_or_else(PoisonError::into_inner).ready.clone();
        join_all(ready.iter().map(|ready| ready())).await;
    }
}

fn ready<K>(cache: &Shared<K>) -> Ready
where
    K: Resource<DynamicType = ()> + Lookup<DynamicType = ()> + Clone + Debug + DeserializeOwned,
    K: Send + Sync + 'static,
{
    let cache = cache.clone();
    Arc::new(move || {
        let cache = cache.clone();
        // Never where everything is stopped before.
        Box::pin(async move { cache.is_complete().await })
    })
}

/// Drives every watch that is asked for, until stopped.
async fn watch(mut asked: mpsc::UnboundedReceiver<Watch>, stop: CancellationToken) {
    let mut watches = FuturesUnordered::new();
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            Some(watch) = asked.recv() => watches.push(watch),
            Some(()) = watches.next() => {}
            else => return,
        }
    }
}
