//! Pods that are held for a job that is not there any more: nobody will count them, so they are let go.

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::api::{Patch, PatchParams};
use kube::runtime::reflector::Store;
use kube::{Api, ResourceExt};
use serde_json::json;
use shipway_driver::{Change, Queue, Shared};
use tokio_util::sync::CancellationToken;

use super::pods::{TRACKING, is_tracked};
use crate::Key;
use crate::owned::is_stale;
use crate::world::{World, find, key};

/// Lets such pods go, until stopped.
pub(super) async fn run(world: World, jobs: Shared<Job>, stop: CancellationToken) {
    let queue = Arc::new(Queue::new());
    let (wake, known) = (queue.clone(), jobs.store());
    world.pods.listen(move |change| {
        let pod = change.object();
        if matches!(change, Change::Applied(_)) && is_tracked(pod) && !is_known(&known, pod) {
            wake.add(key(&**pod));
        }
    });
    let (wake, pods) = (queue.clone(), world.pods.clone());
    jobs.listen(move |change| {
        if let Change::Deleted(job) = change {
            pods.of(job.metadata.uid.as_deref().unwrap_or_default()).iter().for_each(|pod| wake.add(key(&**pod)));
        }
    });
    let jobs = jobs.store();
    world.reconcile(queue, 2, stop, move |world, key| reconcile(world, jobs.clone(), key)).await;
}

async fn reconcile(world: World, jobs: Store<Job>, pod: Key) -> Result<Option<Duration>, kube::Error> {
    let Some(pod) = world.pods.get(&pod).filter(|pod| is_tracked(pod) && !is_known(&jobs, pod)) else {
        return Ok(None);
    };
    // The watch of jobs may be behind that of pods.
    if let Some(owner) = controller(&pod)
        && is_there(&world, &pod, owner).await?
    {
        return Ok(None);
    }
    release(&Api::namespaced(world.client.clone(), &pod.namespace().unwrap_or_default()), &pod).await.map(|_| None)
}

fn controller(pod: &Pod) -> Option<&OwnerReference> {
    pod.owner_references().iter().find(|owner| owner.controller == Some(true))
}

/// Whether the pod is somebody's of whom we know, or not ours to judge.
fn is_known(jobs: &Store<Job>, pod: &Pod) -> bool {
    let Some(owner) = controller(pod) else { return false };
    if owner.kind != "Job" || !owner.api_version.starts_with("batch/") {
        return true;
    }
    let key = (pod.namespace().unwrap_or_default(), owner.name.clone());
    find(jobs, &key).is_some_and(|job| job.metadata.uid.as_ref() == Some(&owner.uid))
}

async fn is_there(world: &World, pod: &Pod, owner: &OwnerReference) -> Result<bool, kube::Error> {
    let jobs: Api<Job> = Api::namespaced(world.client.clone(), &pod.namespace().unwrap_or_default());
    let job = jobs.get_metadata_opt(&owner.name).await?;
    Ok(job.is_some_and(|job| job.metadata.uid.as_ref() == Some(&owner.uid)))
}

/// Takes the job's finalizer off a pod; the pod as it is then, unless it is gone.
pub(super) async fn release(pods: &Api<Pod>, pod: &Pod) -> Result<Option<Pod>, kube::Error> {
    mark(pods, pod, &json!({ "$deleteFromPrimitiveList/finalizers": [TRACKING] })).await
}

/// Puts the job's finalizer on a pod.
pub(super) async fn track(pods: &Api<Pod>, pod: &Pod) -> Result<Option<Pod>, kube::Error> {
    mark(pods, pod, &json!({ "finalizers": [TRACKING] })).await
}

async fn mark(pods: &Api<Pod>, pod: &Pod, change: &serde_json::Value) -> Result<Option<Pod>, kube::Error> {
    let mut patch = json!({ "metadata": change });
    patch["metadata"]["uid"] = json!(pod.metadata.uid);
    match pods.patch(&pod.name_any(), &PatchParams::default(), &Patch::Strategic(patch)).await {
        Ok(pod) => Ok(Some(pod)),
        Err(error) if is_stale(&error) => Ok(None),
        Err(error) => Err(error),
    }
}
