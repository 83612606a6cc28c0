//! Sets to test with, and what the tests ask about their pods.

use std::time::Duration;

use k8s_openapi::api::apps::v1::{ControllerRevision, DaemonSet, DaemonSetStatus, StatefulSet, StatefulSetStatus};
use k8s_openapi::api::core::v1::{Event, Pod};
use kube::ResourceExt;
use serde_json::{Value, json};
use shipway_sim::Cluster;

pub(crate) const MINUTE: Duration = Duration::from_mins(1);
pub(crate) const HASH: &str = "controller-revision-hash";

/// A stateful set `web` of three with image `app:1`, ready a second after their start, with these fields instead.
pub(crate) fn stateful(spec: &Value) -> Value {
    set("StatefulSet", "web", &json!({"replicas": 3, "serviceName": "web"}), spec)
}

/// A daemon set `agent` with image `app:1`, ready a second after their start, with these fields instead.
pub(crate) fn daemon(spec: &Value) -> Value {
    set("DaemonSet", "agent", &json!({}), spec)
}

fn set(kind: &str, name: &str, base: &Value, spec: &Value) -> Value {
    let mut all = json!({
        "selector": {"matchLabels": {"app": name}},
        "template": template(name, "app:1", &json!({"sim/ready-after": "1s"})),
    });
    for (field, value) in base.as_object().into_iter().chain(spec.as_object()).flatten() {
        all[field] = value.clone();
    }
    json!({"apiVersion": "apps/v1", "kind": kind, "metadata": {"name": name, "namespace": "default"}, "spec": all})
}

/// A template of that image whose containers do what the annotations say.
pub(crate) fn template(name: &str, image: &str, annotations: &Value) -> Value {
    json!({
        "metadata": {"labels": {"app": name}, "annotations": annotations},
        "spec": {"containers": [{"name": "main", "image": image}]},
    })
}

/// The template of `web` with another image.
pub(crate) fn web(image: &str) -> Value {
    template("web", image, &json!({"sim/ready-after": "1s"}))
}

/// The template of `agent` with another image.
pub(crate) fn agent(image: &str) -> Value {
    template("agent", image, &json!({"sim/ready-after": "1s"}))
}

/// A rolling update with these bounds.
pub(crate) fn rolling(bounds: &Value) -> Value {
    json!({"type": "RollingUpdate", "rollingUpdate": bounds})
}

pub(crate) async fn pods(cluster: &Cluster, app: &str) -> Vec<Pod> {
    cluster.pods(&format!("app={app}")).await
}

pub(crate) async fn names(cluster: &Cluster) -> Vec<String> {
    pods(cluster, "web").await.iter().map(ResourceExt::name_any).collect()
}

pub(crate) fn is_ready(pod: &Pod) -> bool {
    let conditions = pod.status.iter().flat_map(|status| status.conditions.iter().flatten());
    conditions.into_iter().any(|one| one.type_ == "Ready" && one.status == "True")
}

pub(crate) fn is_ending(pod: &Pod) -> bool {
    pod.metadata.deletion_timestamp.is_some()
}

pub(crate) fn image(pod: &Pod) -> &str {
    pod.spec.as_ref().unwrap().containers[0].image.as_deref().unwrap()
}

pub(crate) fn node(pod: &Pod) -> &str {
    pod.spec.as_ref().unwrap().node_name.as_deref().unwrap_or_default()
}

pub(crate) async fn status(cluster: &Cluster) -> StatefulSetStatus {
    cluster.get::<StatefulSet>("web").await.and_then(|set| set.status).unwrap_or_default()
}

pub(crate) async fn daemon_status(cluster: &Cluster) -> DaemonSetStatus {
    cluster.get::<DaemonSet>("agent").await.and_then(|set| set.status).unwrap_or_default()
}

/// The revisions of a set by number.
pub(crate) async fn history(cluster: &Cluster, app: &str) -> Vec<ControllerRevision> {
    let mut revisions: Vec<ControllerRevision> = cluster.list("default", &format!("app={app}")).await;
    revisions.sort_by_key(|one| one.revision);
    revisions
}

/// The messages of the events of that reason.
pub(crate) async fn told(cluster: &Cluster, reason: &str) -> Vec<String> {
    let mut events: Vec<Event> = cluster.list("default", "").await;
    events.retain(|event| event.reason.as_deref() == Some(reason));
    let mut messages: Vec<_> = events.into_iter().filter_map(|event| event.message).collect();
    messages.sort();
    messages
}

/// Applies a stateful set and waits until all of it is ready.
pub(crate) async fn up(cluster: &Cluster, spec: &Value) {
    cluster.apply(stateful(spec)).await;
    cluster.settle().await;
}

/// Applies a daemon set and waits until all of it is ready.
pub(crate) async fn daemon_up(cluster: &Cluster, spec: &Value) {
    cluster.apply(daemon(spec)).await;
    cluster.settle().await;
}
