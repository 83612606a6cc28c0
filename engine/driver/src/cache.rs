//! One list and watch of a kind: keeps the newest state in a store and tells of every change, also of objects that
//! went away while the watch was broken.
//!
//! The store is updated before the change is told, so that the callee may look at it. What nobody here reads, the books
//! of who owns which field, is not kept: they are often larger than the object.

use std::collections::HashSet;
use std::fmt::Debug;
use std::hash::Hash;
use std::sync::Arc;

use futures::{StreamExt, pin_mut};
use kube::runtime::reflector::{self, Lookup, ObjectRef, Store};
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Resource};
use serde::de::DeserializeOwned;
use tokio_util::sync::CancellationToken;

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
    trimmed(api, config, stop, |_| {}, on_change)
}

/// The same, keeping of each object only what `trim` leaves.
pub(crate) fn trimmed<K>(
    api: Api<K>,
    config: watcher::Config,
    stop: CancellationToken,
    trim: Trim<K>,
    on_change: impl Fn(&Change<K>) + Send + 'static,
) -> (Store<K>, impl Future<Output = ()> + Send)
where
    K: Resource + Lookup + Clone + DeserializeOwned + Debug + Send + Sync + 'static,
    <K as Resource>::DynamicType: Default,
    <K as Lookup>::DynamicType: Default + Eq + Hash + Clone + Send + Sync,
{
    let (store, writer) = reflector::store::<K>();
    let mirror = Mirror { store: store.clone(), writer, trim, on_change };
    (store, mirror.run(api, config, stop))
}

struct Mirror<K, F>
where
    K: Lookup + Clone + 'static,
    <K as Lookup>::DynamicType: Eq + Hash + Clone,
{
    store: Store<K>,
    writer: reflector::store::Writer<K>,
    trim: Trim<K>,
    on_change: F,
}

impl<K, F> Mirror<K, F>
where
    K: Resource + Lookup + Clone + DeserializeOwned + Debug + Send + Sync + 'static,
    <K as Lookup>::DynamicType: Default + Eq + Hash + Clone + Send + Sync,
    F: Fn(&Change<K>),
{
    async fn run(mut self, api: Api<K>, config: watcher::Config, stop: CancellationToken) {
        let trim = self.trim;
        let events = watcher(api, config).default_backoff().modify(move |object| {
            object.meta_mut().managed_fields = None;
            trim(object);
        });
        pin_mut!(events);
        loop {
            let event = tokio::select! {
                () = stop.cancelled() => return,
                event = events.next() => event,
            };
            match event {
                Some(Ok(event)) => self.take(&event),
                Some(Err(error)) => tracing::debug!(%error, kind = std::any::type_name::<K>(), "watch broke, retrying"),
                None => return,
            }
        }
    }

    fn take(&mut self, event: &watcher::Event<K>) {
        match event {
            watcher::Event::Init | watcher::Event::InitApply(_) => self.writer.apply_watcher_event(event),
            watcher::Event::InitDone => self.take_relist(event),
            watcher::Event::Apply(object) => {
                self.writer.apply_watcher_event(event);
                let kept = self.store.get(&ObjectRef::from_obj(object));
                (self.on_change)(&Change::Applied(kept.unwrap_or_else(|| Arc::new(object.clone()))));
            }
            watcher::Event::Delete(object) => {
                self.writer.apply_watcher_event(event);
                (self.on_change)(&Change::Deleted(Arc::new(object.clone())));
            }
        }
    }

    fn take_relist(&mut self, event: &watcher::Event<K>) {
        let before = self.store.state();
        self.writer.apply_watcher_event(event);
        let after = self.store.state();
        let present: HashSet<ObjectRef<K>> = after.iter().map(|object| ObjectRef::from_obj(&**object)).collect();
        for gone in before.into_iter().filter(|object| !present.contains(&ObjectRef::from_obj(&**object))) {
            (self.on_change)(&Change::Deleted(gone));
        }
        for object in after {
            (self.on_change)(&Change::Applied(object));
        }
    }
}
