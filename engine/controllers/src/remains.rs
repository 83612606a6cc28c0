//! Pods that nobody looks after any more: those of nodes that are gone, those that were to go before they had a node, those
//! of nodes that somebody has declared out of service, and finished ones beyond what is kept.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use k8s_openapi::api::core::v1::{Node, Pod};
use k8s_openapi::jiff::Timestamp;
use kube::api::{DeleteParams, PatchParams, Preconditions};
use kube::{Api, ResourceExt};
use shipway_driver::{Change, Queue, Shared};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::Key;
use crate::eviction::disrupted;
use crate::nodes::marks::{condition, taints_of};
use crate::nodes::node_of;
use crate::owned::is_stale;
use crate::pods::is_finished;
use crate::world::{World, find, key};

/// How long a node may be gone before its pods are: it may be registering again.
const QUARANTINE: Duration = Duration::from_secs(40);
/// How many finished pods are kept, as documented for `--terminated-pod-gc-threshold`.
const FINISHED_MAX: usize = 12_500;
/// By this taint somebody vouches that nothing runs on a node any more.
const OUT_OF_SERVICE: &str = "node.kubernetes.io/out-of-service";

/// What is to be looked at.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Work {
    Pod(Key),
    /// Whether there are too many finished pods.
    Finished,
}

/// Finished pods by age.
#[derive(Default)]
struct Finished {
    by_age: BTreeSet<(Timestamp, Key)>,
    ages: HashMap<Key, Timestamp>,
}

#[derive(Clone)]
struct Remains {
    world: World,
    nodes: Shared<Node>,
    finished: Arc<Mutex<Finished>>,
    /// Since when nodes that pods name are known to be gone.
    gone: Arc<Mutex<HashMap<String, Instant>>>,
}

/// Removes them until stopped.
pub(crate) async fn run(world: World, stop: CancellationToken) {
    let queue = Arc::new(Queue::new());
    let nodes = world.cache::<Node>();
    let (finished, gone) = (Arc::<Mutex<Finished>>::default(), Arc::<Mutex<HashMap<String, Instant>>>::default());
    let back = gone.clone();
    let (wake, pods) = (queue.clone(), world.pods.store());
    nodes.listen(move |change| {
        let node = change.object();
        if matches!(change, Change::Applied(_)) {
            back.lock().unwrap_or_else(PoisonError::into_inner).remove(&node.name_any());
        }
        if matches!(change, Change::Deleted(_)) || is_out_of_service(node) {
            let name = node.name_any();
            let on_it = pods.state().into_iter().filter(|pod| node_of(pod) == Some(&name));
            on_it.for_each(|pod| wake.add(Work::Pod(key(&*pod))));
        }
    });
    let (wake, count, store) = (queue.clone(), finished.clone(), nodes.store());
    world.pods.listen(move |change| {
        let pod = change.object();
        let mut count = count.lock().unwrap_or_else(PoisonError::into_inner);
        count.note(pod, matches!(change, Change::Applied(_)));
        if count.by_age.len() > FINISHED_MAX {
            wake.add(Work::Finished);
        }
        let known = node_of(pod).is_some_and(|name| find(&store, &(String::new(), name.to_owned())).is_some());
        if !known || pod.metadata.deletion_timestamp.is_some() {
            wake.add(Work::Pod(key(&**pod)));
        }
    });
    let remains = Remains { world: world.clone(), nodes, finished, gone };
    world.reconcile(queue, 2, stop, move |_, work| remains.clone().clear(work)).await;
}

impl Finished {
    fn note(&mut self, pod: &Pod, there: bool) {
        let key = key(pod);
        if let Some(age) = self.ages.remove(&key) {
            self.by_age.remove(&(age, key.clone()));
        }
        if there && is_finished(pod) && pod.metadata.deletion_timestamp.is_none() {
            let age = pod.metadata.creation_timestamp.as_ref().map_or(Timestamp::UNIX_EPOCH, |time| time.0);
            self.ages.insert(key.clone(), age);
            self.by_age.insert((age, key));
        }
    }

    /// The oldest of those beyond what is kept.
    fn surplus(&self, keep: usize) -> Vec<Key> {
        let surplus = self.by_age.len().saturating_sub(keep);
        self.by_age.iter().take(surplus).map(|(_, key)| key.clone()).collect()
    }
}

/// What is to be done about a pod.
#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    /// Others look after it.
    Keep,
    /// Its node is gone.
    Orphan,
    /// It was to go, and no node will see to it.
    Unseen,
    /// It was to go, and its node is out of service.
    OutOfService,
}

fn judge(pod: &Pod, node: Option<&Node>) -> Verdict {
    let ending = pod.metadata.deletion_timestamp.is_some();
    match (node_of(pod), node) {
        (None, _) if ending => Verdict::Unseen,
        (Some(_), None) => Verdict::Orphan,
        (Some(_), Some(node)) if ending && is_out_of_service(node) => Verdict::OutOfService,
        _ => Verdict::Keep,
    }
}

/// Somebody's word counts only for a node that is not ready.
fn is_out_of_service(node: &Node) -> bool {
    condition(node, "Ready") != "True" && taints_of(node).iter().any(|taint| taint.key == OUT_OF_SERVICE)
}

impl Remains {
    async fn clear(self, work: Work) -> Result<Option<Duration>, kube::Error> {
        match work {
            Work::Pod(key) => self.clear_one(&key).await,
            Work::Finished => {
                let surplus = self.finished.lock().unwrap_or_else(PoisonError::into_inner).surplus(FINISHED_MAX);
                for key in surplus {
                    if let Some(pod) = self.world.pods.get(&key) {
                        self.remove(&pod, None).await?;
                    }
                }
                Ok(None)
            }
        }
    }

    async fn clear_one(&self, key: &Key) -> Result<Option<Duration>, kube::Error> {
        let Some(pod) = self.world.pods.get(key) else { return Ok(None) };
        let node = node_of(&pod).and_then(|name| find(&self.nodes.store(), &(String::new(), name.to_owned())));
        match judge(&pod, node.as_deref()) {
            Verdict::Keep => Ok(None),
            Verdict::Unseen => self.remove(&pod, None).await,
            Verdict::OutOfService => {
                let words = "PodGC: node is out of service";
                self.remove(&pod, Some(words)).await
            }
            Verdict::Orphan => self.remove_orphan(&pod).await,
        }
    }

    /// The node has to be gone for a while, and for the API itself.
    async fn remove_orphan(&self, pod: &Pod) -> Result<Option<Duration>, kube::Error> {
        let name = node_of(pod).unwrap_or_default();
        let nodes: Api<Node> = Api::all(self.world.client.clone());
        if nodes.get_opt(name).await?.is_some() {
            return Ok(None);
        }
        let since = {
            let mut gone = self.gone.lock().unwrap_or_else(PoisonError::into_inner);
            gone.entry(name.to_owned()).or_insert_with(Instant::now).elapsed()
        };
        if since < QUARANTINE {
            return Ok(Some(QUARANTINE.saturating_sub(since)));
        }
        self.remove(pod, Some("PodGC: node no longer exists")).await
    }

    async fn remove(&self, pod: &Pod, why: Option<&str>) -> Result<Option<Duration>, kube::Error> {
        let api: Api<Pod> = Api::namespaced(self.world.client.clone(), &pod.namespace().unwrap_or_default());
        if let Some(why) = why {
            // Whoever made it sees a pod that failed, and not one that vanished.
            let phase = (!is_finished(pod)).then_some("Failed");
            let patch = disrupted(pod, ("DeletionByPodGC", why), phase);
            match api.patch_status(&pod.name_any(), &PatchParams::default(), &patch).await {
                Err(error) if is_stale(&error) => return Ok(None),
                other => drop(other?),
            }
        }
        let preconditions = Some(Preconditions { uid: pod.metadata.uid.clone(), resource_version: None });
        let parameters = DeleteParams { grace_period_seconds: Some(0), preconditions, ..DeleteParams::background() };
        match api.delete(&pod.name_any(), &parameters).await {
            Err(error) if !is_stale(&error) => Err(error),
            _ => Ok(None),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn pod(name: &str, node: Option<&str>, ending: bool, phase: &str, second: u32) -> Pod {
        let created = format!("2026-01-01T00:00:{second:02}Z");
        let going = ending.then_some("2026-01-01T00:00:00Z");
        serde_json::from_value(json!({
            "metadata": {"name": name, "namespace": "n", "creationTimestamp": created, "deletionTimestamp": going},
            "spec": {"containers": [], "nodeName": node}, "status": {"phase": phase},
        }))
        .unwrap()
    }

    fn node(ready: &str, taint: Option<&str>) -> Node {
        let taints: Vec<_> = taint.iter().map(|key| json!({"key": key, "effect": "NoExecute"})).collect();
        let status = json!({"conditions": [{"type": "Ready", "status": ready}]});
        serde_json::from_value(json!({"metadata": {"name": "a"}, "spec": {"taints": taints}, "status": status}))
            .unwrap()
    }

    #[test]
    fn a_pod_is_removed_only_where_nobody_else_will() {
        let (well, lost) = (node("True", None), node("Unknown", None));
        let declared = |ready| node(ready, Some(OUT_OF_SERVICE));
        let table = [
            (Some("a"), false, Some(well.clone()), Verdict::Keep),
            (Some("a"), true, Some(well), Verdict::Keep),
            (Some("a"), true, Some(lost), Verdict::Keep),
            (Some("a"), true, Some(declared("Unknown")), Verdict::OutOfService),
            (Some("a"), false, Some(declared("Unknown")), Verdict::Keep),
            (Some("a"), true, Some(declared("True")), Verdict::Keep),
            (Some("a"), false, None, Verdict::Orphan),
            (Some("a"), true, None, Verdict::Orphan),
            (None, false, None, Verdict::Keep),
            (Some(""), true, None, Verdict::Unseen),
        ];
        for (bound, ending, node, expected) in table {
            let pod = pod("p", bound, ending, "Running", 0);
            assert_eq!(judge(&pod, node.as_ref()), expected, "{bound:?} {ending}");
        }
    }

    #[test]
    fn of_finished_pods_the_oldest_go_first_and_only_beyond_what_is_kept() {
        let mut finished = Finished::default();
        for (name, phase, second) in
            [("b", "Failed", 2), ("a", "Succeeded", 1), ("r", "Running", 0), ("c", "Failed", 3)]
        {
            finished.note(&pod(name, Some("n"), false, phase, second), true);
        }
        let names = |keep| finished.surplus(keep).into_iter().map(|key| key.1).collect::<Vec<_>>();
        assert_eq!(
            (names(3), names(2), names(0)),
            (vec![], vec!["a".to_owned()], vec!["a".into(), "b".into(), "c".into()])
        );
        finished.note(&pod("a", Some("n"), false, "Succeeded", 1), false);
        finished.note(&pod("b", Some("n"), true, "Failed", 2), true);
        assert_eq!(finished.surplus(0), [("n".to_owned(), "c".to_owned())]);
    }
}
