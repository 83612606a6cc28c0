//! Deployment: a template rolled out through replica sets, one per revision.

mod plan;
mod revision;
mod status;

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use k8s_openapi::jiff::Timestamp;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
use kube::runtime::reflector::Store;
use kube::{Api, Resource, ResourceExt};
use serde_json::json;
use shipway_driver::{Change, EventKind, Queue};
use tokio_util::sync::CancellationToken;

use crate::Key;
use crate::owned::{
    UNSEEN_LIMIT, Unseen, controller_reference, ignore_stale, is_controlled_by, is_orphan, is_stale, is_still_there,
};
use crate::world::{World, controller_of, find, wake};

/// The annotation that numbers revisions.
const REVISION: &str = "deployment.kubernetes.io/revision";
/// The label that tells the revisions' pods apart.
const TEMPLATE_HASH: &str = "pod-template-hash";

/// Keeps all deployments as they should be, until stopped.
pub(crate) async fn run(world: World, stop: CancellationToken) {
    let queue = Arc::new(Queue::new());
    let (deployments, sets) = (world.cache::<Deployment>(), world.cache::<ReplicaSet>());
    let unseen = Unseen::over(&sets, &queue);
    let seen = Seen { deployments: deployments.store(), sets: sets.store(), unseen };
    wake(&deployments, &queue);
    let woken = queue.clone();
    sets.listen(move |change| {
        if let Some(owner) = controller_of(&**change.object(), "Deployment") {
            woken.add(owner);
        }
    });
    let (woken, sets) = (queue.clone(), seen.sets.clone());
    world.pods.listen(move |change| {
        // Who recreates waits for the last old pod to be gone, which changes no status.
        if let Change::Deleted(pod) = change
            && let Some(set) = controller_of(&**pod, "ReplicaSet").and_then(|owner| find(&sets, &owner))
            && let Some(owner) = controller_of(&*set, "Deployment")
        {
            woken.add(owner);
        }
    });
    world.reconcile(queue, 2, stop, move |world, key| reconcile(world, seen.clone(), key)).await;
}

/// What this controller reads.
#[derive(Clone)]
struct Seen {
    deployments: Store<Deployment>,
    sets: Store<ReplicaSet>,
    /// Replica sets that were made and that the watch has not shown yet.
    unseen: Arc<Unseen>,
}

async fn reconcile(world: World, seen: Seen, key: Key) -> Result<Option<Duration>, kube::Error> {
    let Some(deployment) = find(&seen.deployments, &key) else { return Ok(None) };
    if deployment.metadata.deletion_timestamp.is_some() {
        return Ok(None);
    }
    if seen.unseen.awaits(&key) {
        return Ok(Some(UNSEEN_LIMIT));
    }
    let uid = deployment.metadata.uid.as_deref();
    let owned = seen.sets.state().into_iter().filter(|set| is_controlled_by(&**set, uid)).collect();
    let rollout = Rollout {
        sets: Api::namespaced(world.client.clone(), &key.0),
        deployments: Api::namespaced(world.client.clone(), &key.0),
        world,
        seen,
        key,
        deployment,
        owned,
    };
    rollout.step().await
}

/// One look at one deployment.
struct Rollout {
    world: World,
    seen: Seen,
    key: Key,
    deployment: Arc<Deployment>,
    sets: Api<ReplicaSet>,
    deployments: Api<Deployment>,
    /// The replica sets of this deployment.
    owned: Vec<Arc<ReplicaSet>>,
}

impl Rollout {
    async fn step(&self) -> Result<Option<Duration>, kube::Error> {
        let current = self.owned.iter().find(|set| revision::is_of(set, &self.deployment));
        let rescaled = is_paused(&self.deployment) || plan::is_rescaled(&self.deployment, &self.owned);
        let is_current = |set: &Arc<ReplicaSet>| current.is_some_and(|current| Arc::ptr_eq(current, set));
        let old: Vec<_> = self.owned.iter().filter(|set| !is_current(set)).cloned().collect();
        let changes = match current {
            _ if rescaled => plan::rescale(&self.deployment, current, &self.owned),
            Some(current) => plan::next(&self.deployment, current, &old, self.has_pods(&old)),
            None => return self.begin_revision().await.map(|()| None),
        };
        if let Some(current) = current {
            self.number(current).await?;
        }
        for (set, replicas) in changes {
            self.scale(&set, replicas).await?;
        }
        self.forget_old(&old).await?;
        self.write_status(current).await
    }

    /// Makes the replica set of the template as it is now.
    async fn begin_revision(&self) -> Result<(), kube::Error> {
        let number = revision::highest(&self.owned) + 1;
        let Some(set) =
            revision::replica_set(&self.deployment, number, plan::first_size(&self.deployment, &self.owned))
        else {
            return Ok(());
        };
        if !is_still_there(&self.world.client, &*self.deployment).await? {
            return Ok(());
        }
        match self.sets.create(&PostParams::default(), &set).await {
            Ok(made) => {
                self.seen.unseen.made(&self.key, &made);
                self.tell_scaled(&made, 0, replicas(&made));
                Ok(())
            }
            Err(error) if is_stale(&error) => self.settle_name(&set.name_any()).await,
            Err(error) => Err(error),
        }
    }

    /// A replica set has the name already: an orphan of this template is taken over, anybody else's makes the next
    /// try take another name.
    async fn settle_name(&self, name: &str) -> Result<(), kube::Error> {
        let Some(present) = self.sets.get_opt(name).await? else { return Ok(()) };
        if is_orphan(&present) && revision::is_of(&present, &self.deployment) {
            let reference = controller_reference(&*self.deployment);
            let patch = json!({ "metadata": { "uid": present.metadata.uid, "ownerReferences": [reference] } });
            return self.sets.patch(name, &PatchParams::default(), &Patch::Strategic(patch)).await.map(|_| ());
        }
        if present.metadata.deletion_timestamp.is_some()
            || is_controlled_by(&present, self.deployment.metadata.uid.as_deref())
        {
            return Ok(()); // the watch brings it, or its end
        }
        let collisions = self.deployment.status.as_ref().and_then(|status| status.collision_count).unwrap_or(0);
        let patch = Patch::Merge(json!({ "status": { "collisionCount": collisions + 1 } }));
        self.deployments.patch_status(&self.key.1, &PatchParams::default(), &patch).await.map(|_| ())
    }

    /// Gives the current revision the highest number, also when an older template came back, and what the deployment is
    /// annotated with.
    async fn number(&self, current: &ReplicaSet) -> Result<(), kube::Error> {
        let highest = revision::highest(&self.owned);
        let own = revision::number(current);
        let wanted = if own == highest && own > 0 { own } else { highest + 1 };
        let lacking = revision::lacking(&self.deployment, current, wanted);
        let min_ready = |spec: Option<i32>| spec.unwrap_or(0);
        let of_set = min_ready(current.spec.as_ref().and_then(|spec| spec.min_ready_seconds));
        let asked = min_ready(self.deployment.spec.as_ref().and_then(|spec| spec.min_ready_seconds));
        if !lacking.is_empty() || of_set != asked {
            let patch = json!({ "metadata": { "annotations": lacking }, "spec": { "minReadySeconds": asked } });
            self.sets.patch(&current.name_any(), &PatchParams::default(), &Patch::Merge(patch)).await?;
        }
        if self.deployment.annotations().get(REVISION) != Some(&wanted.to_string()) {
            let patch = json!({ "metadata": { "annotations": { REVISION: wanted.to_string() } } });
            self.deployments.patch(&self.key.1, &PatchParams::default(), &Patch::Merge(patch)).await?;
        }
        Ok(())
    }

    async fn scale(&self, set: &ReplicaSet, wanted: i32) -> Result<(), kube::Error> {
        let notes = plan::notes(&self.deployment);
        if replicas(set) == wanted && notes.iter().all(|(key, value)| set.annotations().get(key) == Some(value)) {
            return Ok(());
        }
        let patch = json!({
            "metadata": { "resourceVersion": set.metadata.resource_version, "annotations": notes },
            "spec": { "replicas": wanted },
        });
        match self.sets.patch(&set.name_any(), &PatchParams::default(), &Patch::Merge(patch)).await {
            Ok(_) => {
                self.tell_scaled(set, replicas(set), wanted);
                Ok(())
            }
            // The watch brings the newer state, and with it this deployment's next look.
            Err(error) if is_stale(&error) => Ok(()),
            Err(error) => Err(error),
        }
    }

    fn tell_scaled(&self, set: &ReplicaSet, from: i32, to: i32) {
        if from == to {
            return;
        }
        let direction = if to > from { "up" } else { "down" };
        let message = format!("Scaled {direction} replica set {} from {from} to {to}", set.name_any());
        let about = self.deployment.object_ref(&());
        self.world.recorder.event(&about, EventKind::Normal, "ScalingReplicaSet", &message);
    }

    /// Whether any pod of these replica sets is left, also one that is going.
    fn has_pods(&self, sets: &[Arc<ReplicaSet>]) -> bool {
        sets.iter().any(|set| !self.world.pods.of(set.metadata.uid.as_deref().unwrap_or_default()).is_empty())
    }

    /// Deletes empty replica sets beyond the history limit, oldest first.
    async fn forget_old(&self, old: &[Arc<ReplicaSet>]) -> Result<(), kube::Error> {
        let limit = self.deployment.spec.as_ref().and_then(|spec| spec.revision_history_limit).unwrap_or(10);
        let is_empty = |set: &&Arc<ReplicaSet>| {
            let pods = set.status.as_ref().map_or(0, |status| status.replicas);
            replicas(set) == 0 && pods == 0 && set.metadata.deletion_timestamp.is_none()
        };
        let mut empty: Vec<_> = old.iter().filter(is_empty).collect();
        empty.sort_by_key(|set| revision::number(set));
        let surplus = empty.len().saturating_sub(usize::try_from(limit).unwrap_or(0));
        for set in empty.into_iter().take(surplus) {
            ignore_stale(self.sets.delete(&set.name_any(), &DeleteParams::default()).await)?;
        }
        Ok(())
    }

    async fn write_status(&self, current: Option<&Arc<ReplicaSet>>) -> Result<Option<Duration>, kube::Error> {
        let (status, again) = status::of(&self.deployment, current.map(|set| &**set), &self.owned, Timestamp::now());
        if self.deployment.status.as_ref() == Some(&status) {
            return Ok(again);
        }
        let patch = Patch::Merge(json!({ "status": status }));
        ignore_stale(self.deployments.patch_status(&self.key.1, &PatchParams::default(), &patch).await)?;
        Ok(again)
    }
}

/// Whether nothing is to be rolled out for now.
fn is_paused(deployment: &Deployment) -> bool {
    deployment.spec.as_ref().and_then(|spec| spec.paused) == Some(true)
}

/// The size that a replica set should have.
pub(crate) fn replicas(set: &ReplicaSet) -> i32 {
    set.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(1)
}

/// How many of its pods are available.
pub(crate) fn available(set: &ReplicaSet) -> i32 {
    set.status.as_ref().and_then(|status| status.available_replicas).unwrap_or(0)
}
