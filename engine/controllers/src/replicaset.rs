//! ReplicaSet: as many pods of a template as asked for.

use std::cmp::Reverse;
use std::sync::Arc;
use std::time::Duration;

use futures::{StreamExt, TryStreamExt};
use k8s_openapi::api::apps::v1::{ReplicaSet, ReplicaSetStatus};
use k8s_openapi::api::core::v1::{Pod, PodTemplateSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use kube::api::{DeleteParams, Patch, PatchParams, PostParams, Preconditions};
use kube::{Api, Resource, ResourceExt};
use serde_json::json;
use shipway_driver::EventKind;
use tokio_util::sync::CancellationToken;

use crate::Key;
use crate::owned::{
    Expected, UNSEEN_LIMIT, controller_reference, is_controlled_by, is_orphan, is_stale, selector_matches,
};
use crate::world::{World, controller_of, find};

/// How many pods are made or deleted at once.
const AT_ONCE: usize = 16;

/// Keeps all replica sets as they should be, until stopped.
pub(crate) async fn run(world: World, stop: CancellationToken) {
    let queue = world.queues.replica_sets.clone();
    world.reconcile(queue, 4, stop, reconcile).await;
}

async fn reconcile(world: World, key: Key) -> Result<Option<Duration>, kube::Error> {
    let Some(set) = find(&world.replica_sets, &key) else { return Ok(None) };
    if world.queues.unseen_pods.awaits(&key) {
        return Ok(Some(UNSEEN_LIMIT));
    }
    let keeper = Keeper { pods: Api::namespaced(world.client.clone(), &key.0), world, key, set };
    let pods = keeper.claim().await?;
    if pods.is_empty()
        && let Some(owner) = controller_of(&*keeper.set, "Deployment")
    {
        // It may wait for the last one to be gone, which changes no status.
        keeper.world.queues.deployments.add(owner);
    }
    if keeper.set.metadata.deletion_timestamp.is_none() {
        keeper.scale(&pods).await?;
    }
    keeper.write_status(&pods).await
}

/// One look at one replica set.
struct Keeper {
    world: World,
    key: Key,
    set: Arc<ReplicaSet>,
    pods: Api<Pod>,
}

impl Keeper {
    /// The active pods of the set; takes over orphans that its selector matches.
    async fn claim(&self) -> Result<Vec<Arc<Pod>>, kube::Error> {
        let uid = self.set.metadata.uid.as_deref();
        let Some(spec) = &self.set.spec else { return Ok(Vec::new()) };
        let mut mine = Vec::new();
        for pod in self.world.pods.state() {
            if pod.metadata.namespace != self.set.metadata.namespace || is_finished(&pod) {
                continue;
            }
            if is_controlled_by(&*pod, uid) {
                mine.push(pod);
            } else if is_orphan(&*pod)
                && pod.metadata.deletion_timestamp.is_none()
                && self.set.metadata.deletion_timestamp.is_none()
                && selector_matches(&spec.selector, &*pod)
            {
                self.adopt(&pod).await?;
            }
        }
        mine.retain(|pod| pod.metadata.deletion_timestamp.is_none());
        Ok(mine)
    }

    async fn adopt(&self, pod: &Pod) -> Result<(), kube::Error> {
        let reference = controller_reference(&*self.set);
        let patch = json!({ "metadata": { "uid": pod.metadata.uid, "ownerReferences": [reference] } });
        match self.pods.patch(&pod.name_any(), &PatchParams::default(), &Patch::Strategic(patch)).await {
            Err(error) if !is_stale(&error) => Err(error),
            _ => Ok(()),
        }
    }

    async fn scale(&self, pods: &[Arc<Pod>]) -> Result<(), kube::Error> {
        let wanted = usize::try_from(self.wanted()).unwrap_or(0);
        if pods.len() < wanted {
            return self.create(wanted - pods.len()).await;
        }
        let mut surplus: Vec<_> = pods.to_vec();
        surplus.sort_by_key(|pod| deletion_rank(pod));
        surplus.truncate(pods.len() - wanted);
        futures::stream::iter(surplus).map(Ok).try_for_each_concurrent(AT_ONCE, |pod| self.delete(pod)).await
    }

    fn wanted(&self) -> i32 {
        self.set.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(1)
    }

    async fn create(&self, count: usize) -> Result<(), kube::Error> {
        let Some(pod) = self.set.spec.as_ref().and_then(|spec| self.pod(spec.template.as_ref()?)) else {
            return Ok(());
        };
        // One first: where the API refuses it, it would refuse them all.
        self.create_one(&pod).await?;
        futures::stream::iter(1..count).map(Ok).try_for_each_concurrent(AT_ONCE, |_| self.create_one(&pod)).await
    }

    fn pod(&self, template: &PodTemplateSpec) -> Option<Pod> {
        let of_template = template.metadata.clone().unwrap_or_default();
        let metadata = ObjectMeta {
            generate_name: Some(format!("{}-", self.key.1)),
            namespace: self.set.namespace(),
            labels: of_template.labels,
            annotations: of_template.annotations,
            finalizers: of_template.finalizers,
            owner_references: Some(vec![controller_reference(&*self.set)?]),
            ..ObjectMeta::default()
        };
        Some(Pod { metadata, spec: template.spec.clone(), status: None })
    }

    async fn create_one(&self, pod: &Pod) -> Result<(), kube::Error> {
        let about = self.set.object_ref(&());
        match self.pods.create(&PostParams::default(), pod).await {
            Ok(created) => {
                let uid = created.metadata.uid.clone().unwrap_or_default();
                let seen = || find(&self.world.pods, &(self.key.0.clone(), created.name_any())).is_some();
                self.world.queues.unseen_pods.expect(&self.key, &uid, Expected::Created, seen);
                let message = format!("Created pod: {}", created.name_any());
                self.world.recorder.event(&about, EventKind::Normal, "SuccessfulCreate", &message);
                Ok(())
            }
            Err(error) => {
                let message = format!("Error creating: {error}");
                self.world.recorder.event(&about, EventKind::Warning, "FailedCreate", &message);
                Err(error)
            }
        }
    }

    async fn delete(&self, pod: Arc<Pod>) -> Result<(), kube::Error> {
        let name = pod.name_any();
        let preconditions = Some(Preconditions { uid: pod.metadata.uid.clone(), resource_version: None });
        match self.pods.delete(&name, &DeleteParams { preconditions, ..DeleteParams::default() }).await {
            Ok(_) => {
                let uid = pod.metadata.uid.clone().unwrap_or_default();
                let key = (self.key.0.clone(), name.clone());
                let seen = || find(&self.world.pods, &key).is_none_or(|pod| pod.metadata.deletion_timestamp.is_some());
                self.world.queues.unseen_pods.expect(&self.key, &uid, Expected::Deleted, seen);
                let message = format!("Deleted pod: {name}");
                self.world.recorder.event(&self.set.object_ref(&()), EventKind::Normal, "SuccessfulDelete", &message);
                Ok(())
            }
            Err(error) if is_stale(&error) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Writes the status where it changed; says when a ready pod becomes available.
    async fn write_status(&self, pods: &[Arc<Pod>]) -> Result<Option<Duration>, kube::Error> {
        let min_ready = self.set.spec.as_ref().and_then(|spec| spec.min_ready_seconds).unwrap_or(0);
        let (status, again) = status(&self.set, pods, min_ready, Timestamp::now());
        if self.set.status.as_ref() == Some(&status) {
            return Ok(again);
        }
        let sets: Api<ReplicaSet> = Api::namespaced(self.world.client.clone(), &self.key.0);
        let patch = Patch::Merge(json!({ "status": status }));
        match sets.patch_status(&self.key.1, &PatchParams::default(), &patch).await {
            Err(error) if !is_stale(&error) => Err(error),
            _ => Ok(again),
        }
    }
}

fn status(set: &ReplicaSet, pods: &[Arc<Pod>], min_ready: i32, now: Timestamp) -> (ReplicaSetStatus, Option<Duration>) {
    let template = set.spec.as_ref().and_then(|spec| spec.template.as_ref()?.metadata.as_ref()?.labels.as_ref());
    let fully_labeled =
        |pod: &&Arc<Pod>| template.into_iter().flatten().all(|(key, value)| pod.labels().get(key) == Some(value));
    let mut again = None;
    let mut available = 0;
    for since in pods.iter().filter_map(|pod| ready_since(pod)) {
        let left = since.saturating_add(SignedDuration::from_secs(min_ready.into())).unwrap_or(now).duration_since(now);
        match Duration::try_from(left) {
            Ok(left) if !left.is_zero() => again = Some(again.map_or(left, |again: Duration| again.min(left))),
            _ => available += 1,
        }
    }
    let count = |count: usize| i32::try_from(count).unwrap_or(i32::MAX);
    let before = set.status.clone().unwrap_or_default();
    let status = ReplicaSetStatus {
        replicas: count(pods.len()),
        fully_labeled_replicas: Some(count(pods.iter().filter(fully_labeled).count())),
        ready_replicas: Some(count(pods.iter().filter(|pod| ready_since(pod).is_some()).count())),
        available_replicas: Some(available),
        observed_generation: set.metadata.generation,
        ..before
    };
    (status, again)
}

/// Since when the pod is ready; none where it is not.
pub(crate) fn ready_since(pod: &Pod) -> Option<Timestamp> {
    let conditions = pod.status.as_ref()?.conditions.as_ref()?;
    let ready = conditions.iter().find(|condition| condition.type_ == "Ready" && condition.status == "True")?;
    Some(ready.last_transition_time.as_ref().map_or(Timestamp::UNIX_EPOCH, |time| time.0))
}

pub(crate) fn is_finished(pod: &Pod) -> bool {
    let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
    matches!(phase, Some("Succeeded" | "Failed"))
}

/// Lowest goes first: unassigned, not yet running, not ready, cheaper to delete, restarted more often, younger.
fn deletion_rank(pod: &Pod) -> (bool, u8, bool, i64, Reverse<i32>, Reverse<Option<Timestamp>>) {
    let status = pod.status.as_ref();
    let assigned = pod.spec.as_ref().is_some_and(|spec| spec.node_name.is_some());
    let phase = match status.and_then(|status| status.phase.as_deref()) {
        Some("Running") => 2,
        Some("Unknown") => 1,
        _ => 0,
    };
    let cost = pod.annotations().get("controller.kubernetes.io/pod-deletion-cost");
    let cost = cost.and_then(|cost| cost.parse().ok()).unwrap_or(0);
    let statuses = status.and_then(|status| status.container_statuses.as_ref());
    let restarts = statuses.into_iter().flatten().map(|status| status.restart_count).max().unwrap_or(0);
    let created = pod.metadata.creation_timestamp.as_ref().map(|time| time.0);
    (assigned, phase, ready_since(pod).is_some(), cost, Reverse(restarts), Reverse(created))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(name: &str, node: Option<&str>, ready: Option<&str>) -> Arc<Pod> {
        let conditions = ready.map(|since| json!([{ "type": "Ready", "status": "True", "lastTransitionTime": since }]));
        let object = json!({
            "metadata": { "name": name, "labels": { "a": "b" }, "creationTimestamp": "2026-01-01T00:00:00Z" },
            "spec": { "nodeName": node, "containers": [] },
            "status": { "phase": "Running", "conditions": conditions },
        });
        Arc::new(serde_json::from_value(object).unwrap())
    }

    #[test]
    fn what_serves_nobody_is_deleted_first() {
        let mut pods = [
            pod("ready", Some("n"), Some("2026-01-01T00:00:00Z")),
            pod("unassigned", None, None),
            pod("not-ready", Some("n"), None),
        ];
        pods.sort_by_key(|pod| deletion_rank(pod));
        assert_eq!(pods.map(|pod| pod.name_any()), ["unassigned", "not-ready", "ready"]);
    }

    #[test]
    fn a_pod_is_available_once_it_was_ready_long_enough() {
        let set: ReplicaSet = serde_json::from_value(json!({
            "metadata": { "generation": 4 },
            "spec": { "selector": {}, "template": { "metadata": { "labels": { "a": "b" } } } },
        }))
        .unwrap();
        let pods = [pod("x", Some("n"), Some("2026-01-01T00:00:00Z")), pod("y", Some("n"), None)];
        let now = "2026-01-01T00:00:04Z".parse().unwrap();
        let (early, again) = status(&set, &pods, 10, now);
        assert_eq!((early.ready_replicas, early.available_replicas), (Some(1), Some(0)));
        assert_eq!(again, Some(Duration::from_secs(6)));
        let (late, again) = status(&set, &pods, 4, now);
        assert_eq!((late.available_replicas, again), (Some(1), None));
        assert_eq!((late.replicas, late.fully_labeled_replicas, late.observed_generation), (2, Some(2), Some(4)));
    }
}
