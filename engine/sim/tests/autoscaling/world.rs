//! A deployment that is scaled, and what is said about it.

use std::time::Duration;

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::autoscaling::v2::{HorizontalPodAutoscaler, HorizontalPodAutoscalerStatus};
use k8s_openapi::api::core::v1::{Event, Pod};
use serde_json::{Value, json};
use shipway_sim::Cluster;

pub(crate) const MINUTE: Duration = Duration::from_mins(1);
pub(crate) const FLEETS: &str = "/apis/example.com/v1/namespaces/default/fleets";

/// A deployment of pods that request 100m each.
pub(crate) fn web(replicas: i32, annotations: &Value) -> Value {
    let container = json!({"name": "main", "image": "app", "resources": {"requests": {"cpu": "100m"}}});
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web"},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": {"app": "web"}},
            "template": {
                "metadata": {"labels": {"app": "web"}, "annotations": annotations},
                "spec": {"containers": [container], "terminationGracePeriodSeconds": 1},
            },
        },
    })
}

/// An autoscaler of that deployment.
pub(crate) fn scaler(least: i32, most: i32, metrics: &Value, behavior: &Value) -> Value {
    let target = json!({"apiVersion": "apps/v1", "kind": "Deployment", "name": "web"});
    let mut spec = json!({"minReplicas": least, "maxReplicas": most, "scaleTargetRef": target, "metrics": metrics});
    if !behavior.is_null() {
        spec["behavior"] = behavior.clone();
    }
    json!({"apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler", "metadata": {"name": "web"}, "spec": spec})
}

/// The metric of a share of the processor that is requested.
pub(crate) fn cpu(share: i32) -> Value {
    let target = json!({"type": "Utilization", "averageUtilization": share});
    json!({"type": "Resource", "resource": {"name": "cpu", "target": target}})
}

/// How many replicas are asked for.
pub(crate) async fn replicas(cluster: &Cluster) -> i32 {
    let web: Option<Deployment> = cluster.get("web").await;
    web.and_then(|web| web.spec?.replicas).unwrap_or(-1)
}

pub(crate) async fn status(cluster: &Cluster) -> HorizontalPodAutoscalerStatus {
    cluster.get::<HorizontalPodAutoscaler>("web").await.unwrap().status.unwrap()
}

/// Status and reason of a condition.
pub(crate) async fn condition(cluster: &Cluster, kind: &str) -> (String, String) {
    let all = status(cluster).await.conditions.unwrap_or_default();
    let one = all.into_iter().find(|one| one.type_ == kind);
    one.map(|one| (one.status, one.reason.unwrap_or_default())).unwrap_or_default()
}

/// The messages of the autoscaler's events of a reason, the oldest first.
pub(crate) async fn events(cluster: &Cluster, reason: &str) -> Vec<String> {
    let mut all: Vec<Event> = cluster.list("default", "").await;
    all.retain(|one| one.reason.as_deref() == Some(reason) && one.involved_object.name.as_deref() == Some("web"));
    all.sort_by_key(|one| one.first_timestamp.as_ref().map(|time| time.0));
    all.into_iter().filter_map(|one| one.message).collect()
}

/// Lets every pod use so much of the processor from now on.
pub(crate) async fn load(cluster: &Cluster, amount: &str) {
    annotate(cluster, "sim/cpu", amount).await;
}

/// Annotates every pod.
pub(crate) async fn annotate(cluster: &Cluster, key: &str, value: &str) {
    for pod in cluster.pods("app=web").await {
        let name = pod.metadata.name.unwrap();
        cluster.patch::<Pod>(&name, json!({"metadata": {"annotations": {key: value}}})).await;
    }
}

/// A kind that counts and labels in places of its own.
pub(crate) fn fleet_definition() -> Value {
    let part = |fields: Value| json!({"type": "object", "properties": fields});
    let count = json!({"type": "integer"});
    let properties = json!({"spec": part(json!({"count": count})), "status": part(json!({"count": count, "labels": {"type": "string"}}))});
    let scale = json!({"specReplicasPath": ".spec.count", "statusReplicasPath": ".status.count", "labelSelectorPath": ".status.labels"});
    json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition", "metadata": {"name": "fleets.example.com"},
        "spec": {
            "group": "example.com", "scope": "Namespaced",
            "names": {"plural": "fleets", "singular": "fleet", "kind": "Fleet", "listKind": "FleetList"},
            "versions": [{"name": "v1", "served": true, "storage": true, "subresources": {"scale": scale},
                "schema": {"openAPIV3Schema": {"type": "object", "properties": properties}}}],
        },
    })
}
