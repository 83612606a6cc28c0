//! ReplicaSet and ReplicationController: as many pods of a template as asked for.

mod kinds;
pub(crate) mod rank;
mod status;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use futures::{StreamExt, TryStreamExt};
use k8s_openapi::api::apps::v1::ReplicaSet;
use k8s_openapi::api::core::v1::{Pod, ReplicationController};
use k8s_openapi::jiff::Timestamp;
use kube::api::{Patch, PatchParams};
use kube::runtime::reflector::Store;
use kube::{Api, Resource, ResourceExt};
use serde_json::json;
use shipway_driver::Queue;
use tokio_util::sync::CancellationToken;

use crate::Key;
use crate::crew::{Crew, is_terminating, said, wake_owners};
use crate::owned::{UNSEEN_LIMIT, Unseen, ignore_stale, is_controlled_by};
use crate::pods::{is_ending, is_finished};
use crate::replicaset::kinds::Replicated;
use crate::replicaset::status::Failure;
use crate::world::{World, find, wake};

/// How many pods are made or deleted at once.
const AT_ONCE: usize = 16;

/// Keeps all replica sets as they should be, until stopped.
pub(crate) async fn run(world: World, stop: CancellationToken) {
    keep::<ReplicaSet>(world, stop).await;
}

/// Keeps all replication controllers as they should be, until stopped.
pub(crate) async fn run_replication_controllers(world: World, stop: CancellationToken) {
    keep::<ReplicationController>(world, stop).await;
}

async fn keep<K: Replicated>(world: World, stop: CancellationToken) {
    let queue = Arc::new(Queue::new());
    let unseen = Unseen::over(world.pods.shared(), &queue);
    let cache = world.cache::<K>();
    let sets = cache.store();
    wake(&cache, &queue);
    wake_owners(&world, K::KIND, &queue, sets.clone());
    let look = move |world: World, key| reconcile(world, sets.clone(), unseen.clone(), key);
    world.reconcile(queue, 4, stop, look).await;
}

async fn reconcile<K: Replicated>(
    world: World,
    sets: Store<K>,
    unseen: Arc<Unseen>,
    key: Key,
) -> Result<Option<Duration>, kube::Error> {
    let Some(set) = find(&sets, &key) else { return Ok(None) };
    let crew = Crew::new(&world, &unseen, set);
    if crew.is_behind() {
        return Ok(Some(UNSEEN_LIMIT));
    }
    Keeper { world, sets, crew }.look().await
}

/// One look at one replica set.
struct Keeper<K: Replicated> {
    world: World,
    sets: Store<K>,
    crew: Crew<K>,
}

impl<K: Replicated> Keeper<K> {
    async fn look(&self) -> Result<Option<Duration>, kube::Error> {
        let Some(asked) = self.crew.owner.asked() else { return Ok(None) };
        let mut pods = self.crew.claim(&asked.selector, |pod| !is_finished(pod)).await?;
        pods.retain(|pod| !is_finished(pod));
        let (ending, pods): (Vec<_>, Vec<_>) = pods.into_iter().partition(|pod| is_ending(pod));
        let mut scaled = Ok(());
        if self.crew.owner.meta().deletion_timestamp.is_none() {
            scaled = self.scale(&pods).await;
        }
        let failure = scaled.as_ref().err().map(|(failed, error)| Failure { failed, message: said(error) });
        let again = self.write_status(&pods, ending.len(), failure).await?;
        match scaled {
            Err((_, error)) if !is_terminating(&error) => Err(error),
            _ => Ok(again),
        }
    }

    /// Makes what is missing and deletes what is too much; a failure says which of both it was.
    async fn scale(&self, pods: &[Arc<Pod>]) -> Result<(), (&'static str, kube::Error)> {
        let wanted = self.crew.owner.asked().map_or(0, |asked| usize::try_from(asked.replicas).unwrap_or(0));
        if pods.len() < wanted {
            return self.create(wanted - pods.len()).await.map_err(|error| ("FailedCreate", error));
        }
        if pods.len() == wanted {
            return Ok(());
        }
        let crowd = self.crowd();
        let mut surplus = pods.to_vec();
        surplus.sort_by_cached_key(|pod| rank::of(pod, &crowd));
        surplus.truncate(pods.len() - wanted);
        let deleting = futures::stream::iter(surplus).map(Ok);
        let deleted = deleting.try_for_each_concurrent(AT_ONCE, |pod| async move { self.crew.delete(&pod).await });
        deleted.await.map_err(|error| ("FailedDelete", error))
    }

    /// How many pods of this set and of its siblings, which the same owner controls, each node has.
    fn crowd(&self) -> HashMap<String, usize> {
        let above = self.crew.owner.owner_references().iter().find(|owner| owner.controller == Some(true));
        let own = self.crew.owner.meta().uid.clone();
        let siblings = self.sets.state().into_iter().filter(|set| match above {
            Some(above) => is_controlled_by(&**set, Some(&above.uid)),
            None => set.meta().uid == own,
        });
        let mut crowd = HashMap::new();
        for pod in siblings.filter_map(|set| set.meta().uid.clone()).flat_map(|uid| self.world.pods.of(&uid)) {
            if let Some(node) = pod.spec.as_ref().and_then(|spec| spec.node_name.clone()).filter(|_| !is_finished(&pod))
            {
                *crowd.entry(node).or_default() += 1;
            }
        }
        crowd
    }

    async fn create(&self, count: usize) -> Result<(), kube::Error> {
        let Some(pod) = self.crew.owner.asked().and_then(|asked| Some(self.crew.pod(asked.template?))) else {
            return Ok(());
        };
        // One first: where the API refuses it, it would refuse them all.
        if self.crew.create(&pod).await?.is_none() {
            return Ok(());
        }
        let rest = futures::stream::iter(1..count).map(Ok);
        rest.try_for_each_concurrent(AT_ONCE, |_| async { self.crew.create(&pod).await.map(drop) }).await
    }

    /// Writes the status where it changed; says when a ready pod becomes available.
    async fn write_status(
        &self,
        pods: &[Arc<Pod>],
        ending: usize,
        failure: Option<Failure<'_>>,
    ) -> Result<Option<Duration>, kube::Error> {
        let (status, again) = status::of(&*self.crew.owner, pods, ending, failure, Timestamp::now());
        if self.crew.owner.status() == status {
            return Ok(again);
        }
        let sets: Api<K> = Api::namespaced(self.world.client.clone(), &self.crew.key.0);
        let mut patch = json!({ "status": status });
        if status.conditions.is_none() {
            patch["status"]["conditions"] = json!(null);
        }
        ignore_stale(sets.patch_status(&self.crew.key.1, &PatchParams::default(), &Patch::Merge(patch)).await)?;
        Ok(again)
    }
}
