//! Taints that send pods away: a pod leaves a node when a taint of its with effect `NoExecute` is not tolerated, or has been
//! tolerated for as long as the pod says.

mod tolerated;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use k8s_openapi::api::core::v1::{Node, Pod, Taint};
use k8s_openapi::jiff::Timestamp;
use kube::api::{DeleteParams, Patch, PatchParams, Preconditions};
use kube::{Api, ResourceExt};
use serde_json::json;
use shipway_driver::{Change, EventKind, Queue};
use tokio_util::sync::CancellationToken;

use self::tolerated::{Stay, stay};
use crate::Key;
use crate::nodes::marks::{NO_EXECUTE, taints_of};
use crate::nodes::{node_of, reference};
use crate::owned::is_stale;
use crate::world::{World, find, key};

/// When a taint was first seen, by node, key, value and effect, for those that do not say when they were added.
type Seen = HashMap<String, Vec<(Taint, Timestamp)>>;

#[derive(Clone)]
struct Eviction {
    world: World,
    seen: Arc<Mutex<Seen>>,
    /// The pods that were given a time to leave.
    leaving: Arc<Mutex<HashMap<Key, Timestamp>>>,
}

/// Sends pods away until stopped.
pub(crate) async fn run(world: World, stop: CancellationToken) {
    let queue = Arc::new(Queue::<Key>::new());
    let nodes = world.cache::<Node>();
    let controller = Eviction { world: world.clone(), seen: Arc::default(), leaving: Arc::default() };
    let (wake, pods, noted) = (queue.clone(), world.pods.store(), controller.clone());
    nodes.listen(move |change| {
        let name = change.object().name_any();
        if noted.note_taints(change) {
            let on_it = pods.state().into_iter().filter(|pod| node_of(pod) == Some(&name));
            on_it.for_each(|pod| wake.add(key(&*pod)));
        }
    });
    let (wake, store) = (queue.clone(), nodes.store());
    world.pods.listen(move |change| {
        let pod = change.object();
        let node = node_of(pod).and_then(|name| find(&store, &(String::new(), name.to_owned())));
        if node.is_some_and(|node| expelling(&node).next().is_some()) {
            wake.add(key(&**pod));
        }
    });
    world.reconcile(queue, 4, stop, move |_, pod| controller.clone().judge(pod)).await;
}

fn expelling(node: &Node) -> impl Iterator<Item = &Taint> {
    taints_of(node).iter().filter(|taint| taint.effect == NO_EXECUTE)
}

impl Eviction {
    /// Whether the node's taints with effect changed.
    fn note_taints(&self, change: &Change<Node>) -> bool {
        let node = change.object();
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let before = seen.remove(&node.name_any()).unwrap_or_default();
        if matches!(change, Change::Deleted(_)) {
            return !before.is_empty();
        }
        let now = Timestamp::now();
        let known = |taint: &Taint| before.iter().find(|(known, _)| known == taint).map(|(_, since)| *since);
        let after: Vec<_> = expelling(node)
            .map(|taint| (taint.clone(), known(taint).unwrap_or_else(|| since(taint).unwrap_or(now))))
            .collect();
        let changed = after != before;
        if !after.is_empty() {
            seen.insert(node.name_any(), after);
        }
        changed
    }

    async fn judge(self, key: Key) -> Result<Option<Duration>, kube::Error> {
        let pod = self.world.pods.get(&key).filter(|pod| pod.metadata.deletion_timestamp.is_none());
        let taints = pod.as_ref().and_then(|pod| {
            let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
            seen.get(node_of(pod)?).cloned()
        });
        let (Some(pod), Some(taints)) = (pod, taints) else {
            self.stays(&key);
            return Ok(None);
        };
        let now = Timestamp::now();
        let stay = stay(&pod, &taints);
        match stay {
            Stay::ForEver => {
                self.stays(&key);
                Ok(None)
            }
            Stay::Until(end) if end > now => {
                self.leaving().insert(key, end);
                Ok(Some(Duration::try_from(end.duration_since(now)).unwrap_or_default()))
            }
            Stay::Until(_) => {
                self.leaving().remove(&key);
                self.evict(&pod).await.map(|()| None)
            }
        }
    }

    fn leaving(&self) -> std::sync::MutexGuard<'_, HashMap<Key, Timestamp>> {
        self.leaving.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells of a pod that was about to leave and need not any more.
    fn stays(&self, key: &Key) {
        let was_leaving = self.leaving().remove(key).is_some();
        if let Some(pod) = self.world.pods.get(key).filter(|_| was_leaving)
            && pod.metadata.deletion_timestamp.is_none()
        {
            let message = format!("Cancelling deletion of Pod {}/{}", key.0, key.1);
            self.world.recorder.event(&reference(&pod), EventKind::Normal, "TaintManagerEviction", &message);
        }
    }

    async fn evict(&self, pod: &Pod) -> Result<(), kube::Error> {
        let (namespace, name) = key(pod);
        let message = format!("Marking for deletion Pod {namespace}/{name}");
        self.world.recorder.event(&reference(pod), EventKind::Normal, "TaintManagerEviction", &message);
        let api: Api<Pod> = Api::namespaced(self.world.client.clone(), &namespace);
        let words = ("DeletionByTaintManager", "Taint manager: deleting due to NoExecute taint");
        let patch = disrupted(pod, words, None);
        let told = api.patch_status(&name, &PatchParams::default(), &patch).await;
        let preconditions = Some(Preconditions { uid: pod.metadata.uid.clone(), resource_version: None });
        let gone = match told {
            Ok(_) => api.delete(&name, &DeleteParams { preconditions, ..DeleteParams::default() }).await.map(drop),
            Err(error) => Err(error),
        };
        match gone {
            Err(error) if !is_stale(&error) => Err(error),
            _ => Ok(()),
        }
    }
}

/// When a taint was added, where it says so.
fn since(taint: &Taint) -> Option<Timestamp> {
    taint.time_added.as_ref().map(|time| time.0)
}

/// A patch of a pod's status that says why it is ended, and its phase where that is known.
pub(crate) fn disrupted(pod: &Pod, (reason, message): (&str, &str), phase: Option<&str>) -> Patch<serde_json::Value> {
    let now = format!("{:.0}", Timestamp::now());
    let condition = json!({"type": "DisruptionTarget", "status": "True", "reason": reason, "message": message,
        "lastTransitionTime": now});
    let mut patch = json!({"metadata": {"uid": pod.metadata.uid}, "status": {"conditions": [condition]}});
    if let Some(phase) = phase {
        patch["status"]["phase"] = phase.into();
    }
    Patch::Strategic(patch)
}
