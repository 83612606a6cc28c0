//! The node's process: follows the pods that are bound to it, has the machine run them, reports what became of them.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use k8s_openapi::api::core::v1::{Pod, PodStatus};
use kube::api::{DeleteParams, Patch, PatchParams, Preconditions};
use kube::runtime::reflector::{ObjectRef, Store};
use kube::runtime::watcher;
use kube::{Api, Client};
use serde_json::{Value, json};
use shipway_driver::{Queue, cached, drive};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::leash::CONDITION;
use super::lock;
use super::machine::{Key, Machine};
use super::status::OWN;

/// How many pods are worked on at once.
const WORKERS: usize = 4;

/// Runs until it is dropped.
pub(super) async fn run(client: Client, name: String, machine: Arc<Mutex<Machine>>) {
    let queue = Arc::new(Queue::new());
    let config = watcher::Config::default().fields(&format!("spec.nodeName={name}"));
    let stop = CancellationToken::new();
    let told = queue.clone();
    let (pods, watching) = cached::<Pod>(Api::all(client.clone()), config, stop.clone(), move |change| {
        let meta = &change.object().metadata;
        told.add((meta.namespace.clone().unwrap_or_default(), meta.name.clone().unwrap_or_default()));
    });
    let (known, had) = (pods.clone(), machine.clone());
    let work = async {
        if pods.wait_until_ready().await.is_err() {
            return;
        }
        lock(&had).keys().into_iter().for_each(|key| queue.add(key));
        drive(queue.clone(), WORKERS, stop, move |key| reconcile(client.clone(), known.clone(), machine.clone(), key))
            .await;
    };
    tokio::join!(watching, work);
}

async fn reconcile(
    client: Client,
    pods: Store<Pod>,
    machine: Arc<Mutex<Machine>>,
    key: Key,
) -> Result<Option<Duration>, kube::Error> {
    let mut object = pods.get(&ObjectRef::new(&key.1).within(&key.0));
    let api: Api<Pod> = Api::namespaced(client, &key.0);
    let ask = object.as_ref().is_some_and(|pod| lock(&machine).must_ask(pod));
    if ask {
        object = api.get_opt(&key.1).await?.map(Arc::new);
    }
    let due = lock(&machine).step(&key, object.as_ref());
    if let Some((pod, status)) = due.publish {
        let patch = Patch::Merge(patch(&pod, &status));
        unless_gone(api.patch_status(&key.1, &PatchParams::default(), &patch).await)?;
        lock(&machine).published(pod.metadata.uid.as_deref().unwrap_or_default(), status);
    }
    if let Some(pod) = due.remove {
        let preconditions = Preconditions { uid: pod.metadata.uid.clone(), resource_version: None };
        let params = DeleteParams::default().grace_period(0).preconditions(preconditions);
        unless_gone(api.delete(&key.1, &params).await)?;
    }
    Ok(due.wake.map(|at| at.saturating_duration_since(Instant::now())))
}

/// A merge patch of the status, beside the conditions that others set. A pod of another uid refuses it.
fn patch(pod: &Pod, status: &PodStatus) -> Value {
    let before = pod.status.iter().flat_map(|status| status.conditions.iter().flatten());
    let others = before.into_iter().filter(|it| !OWN.contains(&it.type_.as_str()) && it.type_ != CONDITION);
    let conditions: Vec<_> = others.chain(status.conditions.iter().flatten()).collect();
    let mut body = json!(status);
    body["conditions"] = json!(conditions);
    json!({"metadata": {"uid": pod.metadata.uid}, "status": body})
}

/// The pod may have gone, or another one may have its name.
fn unless_gone<T>(result: Result<T, kube::Error>) -> Result<(), kube::Error> {
    match result {
        Err(kube::Error::Api(status)) if status.code == 404 || status.code == 409 => Ok(()),
        other => other.map(drop),
    }
}
