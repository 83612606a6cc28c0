//! Watches pods and nodes, binds what can be placed, and explains what cannot.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::future::BoxFuture;
use k8s_openapi::api::core::v1::{Binding, Node, ObjectReference, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::{Api, Patch, PatchParams, PostParams};
use kube::runtime::reflector::{ObjectRef, Store};
use kube::runtime::watcher;
use kube::{Client, Resource, ResourceExt};
use serde_json::json;
use shipway_driver::{Change, EventKind, Queue, Recorder, Shared, cached, drive};
use tokio_util::sync::CancellationToken;

use crate::snapshot::is_finished;
use crate::{Snapshot, Unfit, choose};

/// The name by which pods ask for this scheduler.
const NAME: &str = "default-scheduler";

/// Namespace and name of a pod.
type Key = (String, String);

/// Schedules the pods of a cache, which somebody else drives, until stopped.
pub fn run(client: Client, pods: Shared<Pod>, stop: CancellationToken) -> BoxFuture<'static, ()> {
    Box::pin(work(client, pods, stop))
}

async fn work(client: Client, pods: Shared<Pod>, stop: CancellationToken) {
    let queue = Arc::new(Queue::new());
    let waiting = Arc::new(Mutex::new(Waiting::default()));
    let (told, parked) = (queue.clone(), waiting.clone());
    pods.listen(move |change| pod_changed(change, &told, &parked));
    let (told, parked) = (queue.clone(), waiting.clone());
    let (nodes, watch_nodes) =
        cached::<Node>(Api::all(client.clone()), watcher::Config::default(), stop.clone(), move |_| {
            lock(&parked).retry_all(&told);
        });
    let recorder = Recorder::new(client.clone(), NAME, "");
    let scheduler = Arc::new(Scheduler { client, pods: pods.store(), nodes, waiting, recorder });
    let scheduling = drive(queue, 1, stop, move |key| {
        let scheduler = scheduler.clone();
        async move { scheduler.schedule(key).await }
    });
    tokio::join!(watch_nodes, scheduling);
}

/// What is known beside the watches.
#[derive(Default)]
struct Waiting {
    /// Pods that fit nowhere; looked at again when something changes that could help.
    unfit: HashSet<Key>,
    /// Node by pod uid, of bindings that the watch has not shown yet.
    placed: HashMap<String, String>,
}

impl Waiting {
    fn retry_all(&mut self, queue: &Queue<Key>) {
        self.unfit.drain().for_each(|key| queue.add(key));
    }
}

fn lock(waiting: &Mutex<Waiting>) -> MutexGuard<'_, Waiting> {
    waiting.lock().unwrap_or_else(PoisonError::into_inner)
}

fn pod_changed(change: &Change<Pod>, queue: &Queue<Key>, waiting: &Mutex<Waiting>) {
    let pod = change.object();
    let gone = matches!(change, Change::Deleted(_));
    let bound = is_bound(pod);
    let mut waiting = lock(waiting);
    if (bound || gone)
        && let Some(uid) = &pod.metadata.uid
    {
        waiting.placed.remove(uid);
    }
    if gone {
        waiting.unfit.remove(&key(pod));
    }
    if bound && (gone || is_finished(pod)) {
        waiting.retry_all(queue);
    }
    drop(waiting);
    if !gone && is_ours(pod) {
        queue.add(key(pod));
    }
}

fn key(pod: &Pod) -> Key {
    (pod.namespace().unwrap_or_default(), pod.name_any())
}

fn is_bound(pod: &Pod) -> bool {
    pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref()).is_some_and(|node| !node.is_empty())
}

/// Whether the pod waits for this scheduler.
fn is_ours(pod: &Pod) -> bool {
    let spec = pod.spec.as_ref();
    let scheduler = spec.and_then(|spec| spec.scheduler_name.as_deref()).unwrap_or(NAME);
    let gated = spec.is_some_and(|spec| spec.scheduling_gates.as_ref().is_some_and(|gates| !gates.is_empty()));
    scheduler == NAME && !gated && !is_bound(pod) && !is_finished(pod) && pod.metadata.deletion_timestamp.is_none()
}

struct Scheduler {
    client: Client,
    pods: Store<Pod>,
    nodes: Store<Node>,
    waiting: Arc<Mutex<Waiting>>,
    recorder: Recorder,
}

impl Scheduler {
    async fn schedule(&self, key: Key) -> Result<Option<Duration>, kube::Error> {
        let reference = ObjectRef::<Pod>::new(&key.1).within(&key.0);
        let Some(pod) = self.pods.get(&reference).filter(|pod| is_ours(pod)) else { return Ok(None) };
        let uid = pod.metadata.uid.clone().unwrap_or_default();
        let placed = lock(&self.waiting).placed.clone();
        if placed.contains_key(&uid) {
            return Ok(None);
        }
        let snapshot = Snapshot::new(self.nodes.state(), &self.pods.state(), &placed);
        match choose(&pod, &snapshot) {
            Ok(node) => self.bind(&pod, &uid, node).await?,
            Err(unfit) => {
                lock(&self.waiting).unfit.insert(key);
                self.explain(&pod, &unfit).await?;
            }
        }
        Ok(None)
    }

    async fn bind(&self, pod: &Pod, uid: &str, node: String) -> Result<(), kube::Error> {
        let pods: Api<Pod> = Api::namespaced(self.client.clone(), &pod.namespace().unwrap_or_default());
        let metadata =
            ObjectMeta { name: Some(pod.name_any()), uid: pod.metadata.uid.clone(), ..ObjectMeta::default() };
        let target =
            ObjectReference { kind: Some("Node".to_owned()), name: Some(node.clone()), ..ObjectReference::default() };
        let binding = Binding { metadata, target };
        lock(&self.waiting).placed.insert(uid.to_owned(), node.clone());
        let bound: Result<serde_json::Value, _> =
            pods.create_subresource("binding", &pod.name_any(), &PostParams::default(), &binding).await;
        if let Err(error) = bound {
            lock(&self.waiting).placed.remove(uid);
            return if is_gone(&error) { Ok(()) } else { Err(error) };
        }
        let message = format!("Successfully assigned {}/{} to {node}", key(pod).0, pod.name_any());
        self.recorder.event(&pod.object_ref(&()), EventKind::Normal, "Scheduled", &message);
        Ok(())
    }

    /// Says in the pod's condition and in an event why it waits.
    async fn explain(&self, pod: &Pod, unfit: &Unfit) -> Result<(), kube::Error> {
        let message = unfit.to_string();
        let known = pod.status.iter().flat_map(|status| status.conditions.iter().flatten());
        if known.into_iter().any(|it| it.type_ == "PodScheduled" && it.message.as_deref() == Some(message.as_str())) {
            return Ok(());
        }
        self.recorder.event(&pod.object_ref(&()), EventKind::Warning, "FailedScheduling", &message);
        let pods: Api<Pod> = Api::namespaced(self.client.clone(), &pod.namespace().unwrap_or_default());
        let condition = json!({
            "type": "PodScheduled",
            "status": "False",
            "reason": "Unschedulable",
            "message": message,
            "lastTransitionTime": k8s_openapi::jiff::Timestamp::now(),
        });
        let patch = Patch::Strategic(json!({ "status": { "conditions": [condition] } }));
        match pods.patch_status(&pod.name_any(), &PatchParams::default(), &patch).await {
            Err(error) if !is_gone(&error) => Err(error),
            _ => Ok(()),
        }
    }
}

/// Whether the pod went away or was bound by somebody else meanwhile.
fn is_gone(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if status.code == 404 || status.code == 409)
}
