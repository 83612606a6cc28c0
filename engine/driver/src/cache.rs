//! One list and watch of a kind: keeps the newest state in a store and tells of every change, also of objects that
//! went away while the watch was broken.
//!
//! The store is updated before the change is told, so that the callee may look at it. What nobody here reads, the books
//! of who owns which field, is not kept: they are often larger than the object.

use std::collections::HashSet;
use std::fmt::Debug;
use std::hash::Hash;
use std::sync::Arc;

use futures::StreamExt;
use futures::stream::BoxStream;
use kube::runtime::reflector::{self, Lookup, ObjectRef, Store};
use kube::runtime::watcher;
use kube::{Api, Resource};
use serde::de::DeserializeOwned;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::watched::{Text, watch};

/// What happened to an object.
#[derive(Clone, Debug)]
pub enum Change<K> {
    /// It is there, new or changed.
    Applied(Arc<K>),
    /// It is gone; this is its last known state.
    Deleted(Arc<K>),
}

impl<K> Change<K> {
    /// The object in question.
    pub fn object(&self) -> &Arc<K> {
        match self {
            Self::Applied(object) | Self::Deleted(object) => object,
        }
    }
}

/// How far a cache has come: what happened until then has been told to everybody.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// The newest revision that the watch has shown.
    pub revision: u64,
    /// When the newest complete list was asked for: it shows what was written before.
    pub listed: Option<Instant>,
}

/// The revision of an object; they can be compared within a kind. Zero where it has none.
pub fn revision<K: Resource>(object: &K) -> u64 {
    object.meta().resource_version.as_deref().and_then(|text| text.parse().ok()).unwrap_or(0)
}

/// Drops what is not to be kept of an object.
pub type Trim<K> = fn(&mut K);

/// Watches `api` until stopped. The future must be driven; the store fills as it runs.
///
/// A broken watch is taken up again with back-off; `on_change` then hears of everything that is there and of
/// everything that went away meanwhile, so a level-triggered reader misses nothing.
pub fn cached<K>(
    api: Api<K>,
    config: watcher::Config,
    stop: CancellationToken,
    on_change: impl Fn(&Change<K>) + Send + 'static,
) -> (Store<K>, impl Future<Output = ()> + Send)
where
    K: Resource + Lookup + Clone + DeserializeOwned + Debug + Send + Sync + 'static,
    <K as Resource>::DynamicType: Default,
    <K as Lookup>::DynamicType: Default + Eq + Hash + Clone + Send + Sync,
{
    trimmed(api, config, stop, |_| {}, on_change, |_| {})
}

/// The same, keeping of each object only what `trim` leaves, and telling after each change how far it has come.
pub(crate) fn trimmed<K>(
    api: Api<K>,
    config: watcher::Config,
    stop: CancellationToken,
    trim: Trim<K>,
    on_change: impl Fn(&Change<K>) + Send + 'static,
    on_progress: impl Fn(Progress) + Send + 'static,
) -> (Store<K>, impl Future<Output = ()> + Send)
where
    K: Resource + Lookup + Clone + DeserializeOwned + Debug + Send + Sync + 'static,
    <K as Resource>::DynamicType: Default,
    <K as Lookup>::DynamicType: Default + Eq + Hash + Clone + Send + Sync,
{
    let (store, writer) = reflector::store::<K>();
    let (progress, begun) = (Progress::default(), None);
    let mirror = Mirror { store: store.clone(), writer, trim, on_change, on_progress, progress, begun };
    let path = api.resource_url().to_owned();
    (store, mirror.run(watch(api.into_client(), path, config), stop))
}

struct Mirror<K, F, P>
where
    K: Lookup + Clone + 'static,
    <K as Lookup>::DynamicType: Eq + Hash + Clone,
{
    store: Store<K>,
    writer: reflector::store::Writer<K>,
    trim: Trim<K>,
    on_change: F,
    on_progress: P,
    progress: Progress,
    /// When the list that comes in was asked for.
    begun: Option<Instant>,
}

impl<K, F, P> Mirror<K, F, P>
where
    K: Resource + Lookup + Clone + DeserializeOwned + Debug + Send + Sync + 'static,
    <K as Lookup>::DynamicType: Default + Eq + Hash + Clone + Send + Sync,
    F: Fn(&Change<K>),
    P: Fn(Progress),
{
    async fn run(
        mut self,
        mut events: BoxStream<'static, watcher::Result<watcher::Event<Text>>>,
        stop: CancellationToken,
    ) {
        loop {
            let event = tokio::select! {
                () = stop.cancelled() => return,
                event = events.next() => event,
            };
            match event {
                Some(Ok(watcher::Event::Init)) => {
                    // Told before the list is asked for.
                    self.begun = Some(Instant::now());
                    self.writer.apply_watcher_event(&watcher::Event::Init);
                }
                Some(Ok(watcher::Event::InitApply(text))) => {
                    if let Some(object) = self.decode(&text) {
                        self.writer.apply_watcher_event(&watcher::Event::InitApply(object));
                    }
                }
                Some(Ok(watcher::Event::InitDone)) => self.take_relist(),
                Some(Ok(watcher::Event::Apply(text))) => {
                    if let Some(object) = self.decode(&text) {
                        self.take(object);
                    }
                }
                Some(Ok(watcher::Event::Delete(text))) => self.remove(&text),
                Some(Err(error)) => tracing::debug!(%error, kind = std::any::type_name::<K>(), "watch broke, retrying"),
                None => return,
            }
        }
    }

    /// An object that cannot be read is left out: it must not end the watch of all others.
    fn decode(&self, text: &Text) -> Option<K> {
        match serde_json::from_str::<K>(&text.json) {
            Ok(mut object) => {
                object.meta_mut().managed_fields = None;
                (self.trim)(&mut object);
                Some(object)
            }
            Err(error) => {
                let name = text.metadata.name.as_deref().unwrap_or_default();
                tracing::warn!(%error, name, kind = std::any::type_name::<K>(), "an object cannot be read");
                None
            }
        }
    }

    fn take(&mut self, object: K) {
        let reference = ObjectRef::from_obj(&object);
        let revision = revision(&object);
        self.writer.apply_watcher_event(&watcher::Event::Apply(object));
        if let Some(kept) = self.store.get(&reference) {
            (self.on_change)(&Change::Applied(kept));
        }
        self.proceed(Progress { revision, ..self.progress });
    }

    fn proceed(&mut self, progress: Progress) {
        self.progress = progress;
        (self.on_progress)(progress);
    }

    fn remove(&mut self, text: &Text) {
        let Some(object) = self.decode(text) else { return };
        let revision = revision(&object);
        let event = watcher::Event::Delete(object);
        self.writer.apply_watcher_event(&event);
        if let watcher::Event::Delete(object) = event {
            (self.on_change)(&Change::Deleted(Arc::new(object)));
        }
        self.proceed(Progress { revision, ..self.progress });
    }

    fn take_relist(&mut self) {
        let before = self.store.state();
        self.writer.apply_watcher_event(&watcher::Event::InitDone);
        let after = self.store.state();
        let present: HashSet<ObjectRef<K>> = after.iter().map(|object| ObjectRef::from_obj(&**object)).collect();
        for gone in before.into_iter().filter(|object| !present.contains(&ObjectRef::from_obj(&**object))) {
            (self.on_change)(&Change::Deleted(gone));
        }
        let revision = after.iter().map(|object| revision(&**object)).max().unwrap_or(0);
        for object in after {
            (self.on_change)(&Change::Applied(object));
        }
        self.proceed(Progress { revision, listed: self.begun });
    }
}
