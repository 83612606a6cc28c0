//! Slices by the service that they are of: nobody goes through all of a cluster's slices for those of one service.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};

use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::ResourceExt;
use shipway_driver::{Change, Queue, Shared};

use crate::Key;
use crate::world::key;

/// By name.
pub(super) type Named = BTreeMap<String, Arc<EndpointSlice>>;

/// The slices that one controller keeps; cheap to clone.
#[derive(Clone, Default)]
pub(super) struct Slices(Arc<Mutex<Index>>);

#[derive(Default)]
struct Index {
    of: HashMap<Key, Named>,
    /// The service of each slice.
    service: HashMap<Key, Key>,
}

impl Slices {
    /// Those of a cache that `whose` says the service of; a change of one puts its service into the queue.
    pub(super) fn over(
        cache: &Shared<EndpointSlice>,
        whose: fn(&EndpointSlice) -> Option<Key>,
        queue: &Arc<Queue<Key>>,
    ) -> Self {
        let slices = Self::default();
        let (kept, queue) = (slices.clone(), queue.clone());
        cache.listen(move |change| {
            let (slice, service) = (change.object(), whose(change.object()));
            let now = service.clone().filter(|_| matches!(change, Change::Applied(_)));
            let before = kept.0.lock().unwrap_or_else(PoisonError::into_inner).set(slice, now);
            before.into_iter().chain(service).for_each(|service| queue.add(service));
        });
        slices
    }

    /// Those of a service.
    pub(super) fn of(&self, service: &Key) -> Named {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).of.get(service).cloned().unwrap_or_default()
    }
}

impl Index {
    /// Puts a slice where it belongs, if anywhere. Where it was before.
    fn set(&mut self, slice: &Arc<EndpointSlice>, service: Option<Key>) -> Option<Key> {
        let (own, name) = (key(&**slice), slice.name_any());
        let before = self.service.remove(&own);
        if let Some(before) = &before
            && let Some(named) = self.of.get_mut(before)
        {
            named.remove(&name);
            if named.is_empty() {
                self.of.remove(before);
            }
        }
        if let Some(service) = service {
            self.of.entry(service.clone()).or_default().insert(name, slice.clone());
            self.service.insert(own, service);
        }
        before
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_slice_is_found_under_its_service_of_now() {
        let service = |name: &str| ("n".to_owned(), name.to_owned());
        let slice: EndpointSlice = serde_json::from_value(json!({
            "metadata": {"name": "s", "namespace": "n"}, "addressType": "IPv4", "endpoints": [],
        }))
        .unwrap();
        let (slice, mut index) = (Arc::new(slice), Index::default());
        assert_eq!(index.set(&slice, Some(service("a"))), None);
        assert_eq!(index.of[&service("a")].len(), 1);
        assert_eq!(index.set(&slice, Some(service("b"))), Some(service("a")));
        assert!(!index.of.contains_key(&service("a")) && index.of[&service("b")].contains_key("s"));
        assert_eq!(index.set(&slice, None), Some(service("b")));
        assert!(index.of.is_empty() && index.service.is_empty());
    }
}
