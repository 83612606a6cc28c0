//! What the cluster does for itself: nodes that come and go, storage, owners and what they own, endpoints for older clients.
#![allow(clippy::unwrap_used)]

#[path = "infra/accounts.rs"]
mod accounts;
#[path = "infra/garbage.rs"]
mod garbage;
#[path = "infra/nodes.rs"]
mod nodes;
#[path = "infra/quotas.rs"]
mod quotas;
#[path = "infra/services.rs"]
mod services;
#[path = "infra/volumes.rs"]
mod volumes;

use std::time::Duration;

use k8s_openapi::api::core::v1::{Event, Pod};
use serde_json::{Value, json};
use shipway_sim::Cluster;

const MINUTE: Duration = Duration::from_mins(1);

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// A pod on a node, with more in its specification.
#[expect(clippy::needless_pass_by_value, reason = "the calls write json! in place")]
fn pod(name: &str, node: &str, more: Value) -> Value {
    let mut pod = json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "labels": {"app": name}},
        "spec": {"containers": [{"name": "main", "image": "app:1"}]},
    });
    if !node.is_empty() {
        pod["spec"]["nodeName"] = node.into();
    }
    for (field, value) in more.as_object().into_iter().flatten() {
        pod["spec"][field] = value.clone();
    }
    pod
}

fn holds(pod: &Pod, kind: &str) -> bool {
    let conditions = pod.status.iter().flat_map(|status| status.conditions.iter().flatten());
    conditions.into_iter().any(|it| it.type_ == kind && it.status == "True")
}

fn uid(pod: &Pod) -> String {
    pod.metadata.uid.clone().unwrap()
}

/// Whether an event with that reason and part of a message is there.
async fn told(cluster: &Cluster, reason: &str, part: &str) -> bool {
    let events: Vec<Event> = cluster.list("", "").await;
    let is = |event: &&Event| {
        event.reason.as_deref() == Some(reason) && event.message.as_deref().unwrap_or_default().contains(part)
    };
    events.iter().any(|event| is(&event))
}

/// Waits until a pod is ready; returns it.
async fn ready(cluster: &Cluster, name: &str) -> Pod {
    let ready = async |cluster: &Cluster| {
        let pod: Option<Pod> = cluster.get(name).await;
        pod.is_some_and(|pod| holds(&pod, "Ready"))
    };
    cluster.until(&format!("{name} is ready"), MINUTE, ready).await;
    cluster.get(name).await.unwrap()
}
