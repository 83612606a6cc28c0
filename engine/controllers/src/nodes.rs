//! The life of nodes: one that is silent for longer than its lease is marked, and its pods count as not ready.
//!
//! What is written here is what others act upon: taints send pods away (`eviction`). Pods that their node has promised to
//! stop by itself are removed from here, once the promise has surely come due (docs/decisions/0013-leash.md).

mod life;
pub(crate) mod marks;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{Node, ObjectReference, Pod};
use k8s_openapi::jiff::Timestamp;
use kube::api::{DeleteParams, Patch, PatchParams, Preconditions};
use kube::{Api, ResourceExt};
use serde_json::json;
use shipway_driver::{Change, EventKind, Queue, Shared};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use self::life::Life;
use crate::owned::is_stale;
use crate::world::{World, find};

/// Where nodes renew their leases.
const LEASES: &str = "kube-node-lease";
/// The condition by which a node promises to stop a pod when its lease runs out.
const LEASHED: &str = "shipway.dev/Leashed";

/// What the controller knows beside the world.
#[derive(Clone)]
#[expect(clippy::struct_field_names, reason = "caches are called by what they hold")]
struct Nodes {
    world: World,
    nodes: Shared<Node>,
    leases: Shared<Lease>,
    lives: Arc<Mutex<HashMap<String, Life>>>,
    queue: Arc<Queue<String>>,
}

/// Watches over the nodes until stopped.
pub(crate) async fn run(world: World, stop: CancellationToken) {
    let queue = Arc::new(Queue::new());
    let (nodes, leases) = (world.cache::<Node>(), world.cache::<Lease>());
    let wake = queue.clone();
    nodes.listen(move |change| wake.add(change.object().name_any()));
    let wake = queue.clone();
    leases.listen(move |change| {
        let lease = change.object();
        if lease.metadata.namespace.as_deref() == Some(LEASES) {
            wake.add(lease.name_any());
        }
    });
    let wake = queue.clone();
    world.pods.listen(move |change| {
        if let Change::Applied(pod) = change
            && pod.metadata.deletion_timestamp.is_some()
            && let Some(node) = node_of(pod).filter(|_| is_leashed(pod))
        {
            wake.add(node.to_owned());
        }
    });
    let controller = Nodes { world: world.clone(), nodes, leases, lives: Arc::default(), queue: queue.clone() };
    world.reconcile(queue, 2, stop, move |_, name| controller.clone().look_after(name)).await;
}

impl Nodes {
    fn lives(&self) -> MutexGuard<'_, HashMap<String, Life>> {
        self.lives.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn look_after(self, name: String) -> Result<Option<Duration>, kube::Error> {
        let Some(mut node) = find(&self.nodes.store(), &(String::new(), name.clone())) else {
            self.lives().remove(&name);
            return Ok(None);
        };
        let lease = find(&self.leases.store(), &(LEASES.to_owned(), name.clone()));
        let mut left = self.observe(&node, lease.as_deref());
        if left.is_none() && marks::condition(&node, "Ready") != "Unknown" {
            // The watch may be behind: only the API knows that nothing came.
            let leases: Api<Lease> = Api::namespaced(self.world.client.clone(), LEASES);
            left = self.observe(&node, leases.get_opt(&name).await?.as_ref());
        }
        if left.is_none() {
            match self.silence(&node).await {
                Err(error) if is_stale(&error) => return Ok(Some(Duration::from_millis(50))),
                silenced => node = silenced?.unwrap_or(node),
            }
        }
        self.note_readiness(&node).await?;
        match self.taint(&node).await {
            // Somebody changed it; the watch brings it back.
            Err(error) if is_stale(&error) => return Ok(Some(Duration::from_millis(50))),
            tainted => tainted?,
        }
        if left.is_none() {
            self.remove_stopped(&name).await?;
        }
        Ok(left)
    }

    /// Takes note of what a node shows of itself; how long it may still be silent.
    fn observe(&self, node: &Node, lease: Option<&Lease>) -> Option<Duration> {
        let now = Instant::now();
        let mut lives = self.lives();
        let life = lives.entry(node.name_any()).or_insert_with(|| Life::new(now));
        life.observe(lease, node, now);
        life.left(now)
    }

    /// Marks the conditions of a node that is silent; gives the node as it is then.
    async fn silence(&self, node: &Node) -> Result<Option<Arc<Node>>, kube::Error> {
        let Some(conditions) = marks::silenced(node, Timestamp::now()) else { return Ok(None) };
        let patch = json!({"metadata": {"resourceVersion": node.metadata.resource_version},
            "status": {"conditions": conditions}});
        let api: Api<Node> = Api::all(self.world.client.clone());
        let patch = Patch::Merge(patch);
        let silenced = api.patch_status(&node.name_any(), &PatchParams::default(), &patch).await?;
        Ok(Some(Arc::new(silenced)))
    }

    /// When it ceases to be ready its pods do; when it changes either way, all others are looked at.
    async fn note_readiness(&self, node: &Node) -> Result<(), kube::Error> {
        let (name, ready) = (node.name_any(), marks::condition(node, "Ready") == "True");
        let before = self.lives().get_mut(&name).map(|life| std::mem::replace(&mut life.ready, ready));
        if before != Some(ready) {
            let others = self.nodes.store().state();
            others.iter().map(|other| other.name_any()).filter(|it| *it != name).for_each(|it| self.queue.add(it));
        }
        if before == Some(true) && !ready {
            let about = ObjectReference {
                kind: Some("Node".to_owned()),
                name: Some(name.clone()),
                uid: node.metadata.uid.clone(),
                ..ObjectReference::default()
            };
            let message = format!("Node {name} status is now: NodeNotReady");
            self.world.recorder.event(&about, EventKind::Normal, "NodeNotReady", &message);
        }
        // What is silent says nothing else of its pods; one that only is not ready goes on telling of them itself.
        if (before == Some(true) && !ready) || marks::condition(node, "Ready") == "Unknown" {
            for pod in self.pods_on(&name) {
                self.mark_not_ready(&pod).await?;
            }
        }
        Ok(())
    }

    fn pods_on(&self, name: &str) -> Vec<Arc<Pod>> {
        let mut pods = self.world.pods.store().state();
        pods.retain(|pod| node_of(pod) == Some(name));
        pods
    }

    async fn mark_not_ready(&self, pod: &Pod) -> Result<(), kube::Error> {
        if !has_condition(pod, "Ready") {
            return Ok(());
        }
        let now = format!("{:.0}", Timestamp::now());
        let condition = json!({"type": "Ready", "status": "False", "reason": "NodeNotReady",
            "message": "Node is not ready", "lastTransitionTime": now});
        let patch = json!({"metadata": {"uid": pod.metadata.uid}, "status": {"conditions": [condition]}});
        let api: Api<Pod> = Api::namespaced(self.world.client.clone(), &pod.namespace().unwrap_or_default());
        match api.patch_status(&pod.name_any(), &PatchParams::default(), &Patch::Strategic(patch)).await {
            Err(error) if is_stale(&error) => Ok(()),
            Err(error) => Err(error),
            Ok(_) => {
                let about = reference(pod);
                self.world.recorder.event(&about, EventKind::Warning, "NodeNotReady", "Node is not ready");
                Ok(())
            }
        }
    }

    async fn taint(&self, node: &Node) -> Result<(), kube::Error> {
        // When no node is ready, what is lost is more likely we than all of them; and there is nowhere to go.
        let evict = self.lives().values().any(|life| life.ready);
        let Some(taints) = marks::tainted(node, evict, Timestamp::now()) else { return Ok(()) };
        let patch =
            json!({"metadata": {"resourceVersion": node.metadata.resource_version}, "spec": {"taints": taints}});
        let api: Api<Node> = Api::all(self.world.client.clone());
        api.patch(&node.name_any(), &PatchParams::default(), &Patch::Merge(patch)).await.map(drop)
    }

    /// Removes the pods that are to go and that the node has stopped itself by now. The taint is on the node before we look
    /// at the lease a last time: had the node come back later than that, it would see the taint and start nothing.
    async fn remove_stopped(&self, name: &str) -> Result<(), kube::Error> {
        let ending = |pod: &&Arc<Pod>| pod.metadata.deletion_timestamp.is_some() && is_leashed(pod);
        let pods = self.pods_on(name);
        let mut pods = pods.iter().filter(ending).peekable();
        if pods.peek().is_none() {
            return Ok(());
        }
        let nodes: Api<Node> = Api::all(self.world.client.clone());
        let node = nodes.get_opt(name).await?;
        let marked = |node: &Node| marks::taints_of(node).iter().any(|taint| taint.key == marks::UNREACHABLE);
        let leases: Api<Lease> = Api::namespaced(self.world.client.clone(), LEASES);
        let lease = leases.get_opt(name).await?;
        let last = self.lives().get(name).is_some_and(|life| life.is_last(lease.as_ref()));
        if !last || !node.as_ref().is_some_and(marked) {
            return Ok(());
        }
        for pod in pods {
            let preconditions = Some(Preconditions { uid: pod.metadata.uid.clone(), resource_version: None });
            let parameters =
                DeleteParams { grace_period_seconds: Some(0), preconditions, ..DeleteParams::background() };
            let api: Api<Pod> = Api::namespaced(self.world.client.clone(), &pod.namespace().unwrap_or_default());
            match api.delete(&pod.name_any(), &parameters).await {
                Err(error) if !is_stale(&error) => return Err(error),
                _ => {}
            }
        }
        Ok(())
    }
}

/// The node that a pod is bound to.
pub(crate) fn node_of(pod: &Pod) -> Option<&str> {
    pod.spec.as_ref()?.node_name.as_deref().filter(|name| !name.is_empty())
}

/// What an event about a pod names.
pub(crate) fn reference(pod: &Pod) -> ObjectReference {
    ObjectReference {
        api_version: Some("v1".to_owned()),
        kind: Some("Pod".to_owned()),
        name: pod.metadata.name.clone(),
        namespace: pod.metadata.namespace.clone(),
        uid: pod.metadata.uid.clone(),
        ..ObjectReference::default()
    }
}

fn has_condition(pod: &Pod, kind: &str) -> bool {
    let conditions = pod.status.iter().flat_map(|status| status.conditions.iter().flatten());
    conditions.into_iter().any(|condition| condition.type_ == kind && condition.status == "True")
}

fn is_leashed(pod: &Pod) -> bool {
    has_condition(pod, LEASHED)
}
