//! The pods, by who controls them and by where they are: nobody goes through all of a cluster's pods for a few.

use std::collections::{BTreeMap, HashMap};
use std::hash::Hash;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use kube::ResourceExt;
use kube::runtime::reflector::Store;
use shipway_driver::{Change, Shared};

use crate::Key;
use crate::world::{find, key};

/// The cache of pods and an index over it; cheap to clone.
#[derive(Clone)]
pub(crate) struct Pods {
    shared: Shared<Pod>,
    index: Arc<Mutex<Index>>,
}

#[derive(Default)]
struct Index {
    by_namespace: HashMap<String, BTreeMap<String, Arc<Pod>>>,
    by_owner: HashMap<Owner, BTreeMap<String, Arc<Pod>>>,
}

/// Who controls a pod.
#[derive(Clone, PartialEq, Eq, Hash)]
enum Owner {
    Uid(String),
    /// Nobody, in this namespace.
    None(String),
}

impl Pods {
    /// Indexes the pods of a cache that somebody drives.
    pub(crate) fn new(shared: &Shared<Pod>) -> Self {
        let index = Arc::<Mutex<Index>>::default();
        let kept = index.clone();
        // The first to listen: whoever hears of a change after us finds it in the index.
        shared.listen(move |change| lock(&kept).take(change));
        Self { shared: shared.clone(), index }
    }

    /// The cache.
    pub(crate) fn store(&self) -> Store<Pod> {
        self.shared.store()
    }

    /// The same, with whoever listens.
    pub(crate) fn shared(&self) -> &Shared<Pod> {
        &self.shared
    }

    /// Tells of what is there and of every later change.
    pub(crate) fn listen(&self, listener: impl Fn(&Change<Pod>) + Send + 'static) {
        self.shared.listen(listener);
    }

    pub(crate) fn get(&self, key: &Key) -> Option<Arc<Pod>> {
        find(&self.store(), key)
    }

    /// The pods that the object with this uid controls, by name.
    pub(crate) fn of(&self, owner: &str) -> Vec<Arc<Pod>> {
        all(&lock(&self.index).by_owner, &Owner::Uid(owner.to_owned()))
    }

    /// The pods of a namespace that nobody controls, by name.
    pub(crate) fn orphans(&self, namespace: &str) -> Vec<Arc<Pod>> {
        all(&lock(&self.index).by_owner, &Owner::None(namespace.to_owned()))
    }

    /// The pods of a namespace, by name.
    pub(crate) fn in_namespace(&self, namespace: &str) -> Vec<Arc<Pod>> {
        all(&lock(&self.index).by_namespace, &namespace.to_owned())
    }
}

impl Index {
    fn take(&mut self, change: &Change<Pod>) {
        let pod = change.object();
        let (namespace, name) = key(&**pod);
        self.remove(&namespace, &name);
        if matches!(change, Change::Applied(_)) {
            self.by_owner.entry(owner(pod)).or_default().insert(name.clone(), pod.clone());
            self.by_namespace.entry(namespace).or_default().insert(name, pod.clone());
        }
    }

    fn remove(&mut self, namespace: &String, name: &str) {
        let Some(before) = take(&mut self.by_namespace, namespace, name) else { return };
        take(&mut self.by_owner, &owner(&before), name);
    }
}

fn owner(pod: &Pod) -> Owner {
    let controller = pod.owner_references().iter().find(|owner| owner.controller == Some(true));
    controller.map_or_else(
        || Owner::None(pod.namespace().unwrap_or_default()),
        |controller| Owner::Uid(controller.uid.clone()),
    )
}

fn take<K: Eq + Hash>(map: &mut HashMap<K, BTreeMap<String, Arc<Pod>>>, key: &K, name: &str) -> Option<Arc<Pod>> {
    let pods = map.get_mut(key)?;
    let pod = pods.remove(name);
    if pods.is_empty() {
        map.remove(key);
    }
    pod
}

fn all<K: Eq + Hash>(map: &HashMap<K, BTreeMap<String, Arc<Pod>>>, key: &K) -> Vec<Arc<Pod>> {
    map.get(key).into_iter().flat_map(BTreeMap::values).cloned().collect()
}

fn lock(index: &Mutex<Index>) -> MutexGuard<'_, Index> {
    index.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Since when the pod is ready; none where it is not.
pub(crate) fn ready_since(pod: &Pod) -> Option<Timestamp> {
    let conditions = pod.status.as_ref()?.conditions.as_ref()?;
    let ready = conditions.iter().find(|condition| condition.type_ == "Ready" && condition.status == "True")?;
    Some(ready.last_transition_time.as_ref().map_or(Timestamp::UNIX_EPOCH, |time| time.0))
}

/// How long until a ready pod is available, which it is once it was ready for that many seconds; none where it is not ready.
pub(crate) fn until_available(pod: &Pod, min_ready: i32, now: Timestamp) -> Option<Duration> {
    let due = ready_since(pod)?.saturating_add(SignedDuration::from_secs(min_ready.into())).unwrap_or(now);
    Some(Duration::try_from(due.duration_since(now)).unwrap_or_default())
}

/// Whether the pod has ended and will not run again.
pub(crate) fn is_finished(pod: &Pod) -> bool {
    let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
    matches!(phase, Some("Succeeded" | "Failed"))
}

/// Whether the pod is being deleted.
pub(crate) fn is_ending(pod: &Pod) -> bool {
    pod.metadata.deletion_timestamp.is_some()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn pod(name: &str, owner: Option<&str>) -> Arc<Pod> {
        let owners =
            owner.map(|uid| json!([{"apiVersion": "v1", "kind": "K", "name": "k", "uid": uid, "controller": true}]));
        let object = json!({"metadata": {"name": name, "namespace": "n", "ownerReferences": owners}});
        Arc::new(serde_json::from_value(object).unwrap())
    }

    #[test]
    fn a_pod_is_found_under_its_owner_of_now() {
        let mut index = Index::default();
        let names = |pods: Vec<Arc<Pod>>| pods.iter().map(|pod| pod.name_any()).collect::<Vec<_>>();
        let of = |index: &Index, uid: &str| names(all(&index.by_owner, &Owner::Uid(uid.to_owned())));
        let free = |index: &Index| names(all(&index.by_owner, &Owner::None("n".to_owned())));
        index.take(&Change::Applied(pod("b", Some("x"))));
        index.take(&Change::Applied(pod("a", Some("x"))));
        index.take(&Change::Applied(pod("c", None)));
        assert_eq!((of(&index, "x"), free(&index)), (vec!["a".to_owned(), "b".to_owned()], vec!["c".to_owned()]));
        index.take(&Change::Applied(pod("a", None)));
        index.take(&Change::Applied(pod("c", Some("y"))));
        assert_eq!(
            (of(&index, "x"), of(&index, "y"), free(&index)),
            (vec!["b".into()], vec!["c".into()], vec!["a".into()])
        );
        for name in ["a", "b", "c"] {
            index.take(&Change::Deleted(pod(name, None)));
        }
        assert!(index.by_owner.is_empty() && index.by_namespace.is_empty());
    }
}
