//! The choice of a node, as a pure function.

use std::collections::HashMap;
use std::sync::Arc;

use crate::{Snapshot, choose};
use k8s_openapi::api::core::v1::{Node, Pod};
use serde_json::{Value, json};

#[expect(clippy::needless_pass_by_value, reason = "the calls write json! in place")]
fn node(name: &str, cpu: &str, memory: &str, spec: Value) -> Arc<Node> {
    let object = json!({
        "metadata": { "name": name, "labels": { "kubernetes.io/hostname": name } },
        "spec": spec,
        "status": { "allocatable": { "cpu": cpu, "memory": memory, "pods": "3" } },
    });
    Arc::new(serde_json::from_value(object).unwrap())
}

#[expect(clippy::needless_pass_by_value, reason = "the calls write json! in place")]
fn pod(name: &str, on: Option<&str>, cpu: &str, more: Value) -> Arc<Pod> {
    let mut spec = json!({
        "nodeName": on,
        "containers": [{ "name": "c", "image": "i", "resources": { "requests": { "cpu": cpu, "memory": "64Mi" } } }],
    });
    spec.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    let owner = json!([{ "apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "r", "uid": "r", "controller": true }]);
    let object = json!({ "metadata": { "name": name, "uid": name, "ownerReferences": owner }, "spec": spec });
    Arc::new(serde_json::from_value(object).unwrap())
}

fn place(pod: &Pod, nodes: &[Arc<Node>], pods: &[Arc<Pod>]) -> Result<String, String> {
    choose(pod, &Snapshot::new(nodes.to_vec(), pods, &HashMap::new())).map_err(|unfit| unfit.to_string())
}

#[test]
fn siblings_spread_over_the_nodes() {
    let nodes = [node("a", "8", "8Gi", json!({})), node("b", "2", "1Gi", json!({}))];
    let new = pod("new", None, "100m", json!({}));
    assert_eq!(place(&new, &nodes, &[]).unwrap(), "a", "the emptier node");
    let sibling = [pod("old", Some("a"), "100m", json!({}))];
    assert_eq!(place(&new, &nodes, &sibling).unwrap(), "b", "away from the sibling");
}

#[test]
fn a_pod_that_fits_nowhere_is_told_why_by_how_many_nodes() {
    let nodes = [
        node("a", "1", "8Gi", json!({})),
        node("b", "1", "8Gi", json!({})),
        node("c", "8", "8Gi", json!({ "unschedulable": true })),
        node("d", "8", "8Gi", json!({ "taints": [{ "key": "k", "value": "v", "effect": "NoSchedule" }] })),
    ];
    let why = place(&pod("big", None, "2", json!({})), &nodes, &[]).unwrap_err();
    assert!(why.starts_with("0/4 nodes are available: 2 Insufficient cpu"), "{why}");
    assert!(why.contains("1 node(s) were unschedulable") && why.contains("untolerated taint {k: v}"), "{why}");
}

#[test]
fn a_toleration_opens_a_tainted_node() {
    let nodes = [node("d", "8", "8Gi", json!({ "taints": [{ "key": "k", "value": "v", "effect": "NoSchedule" }] }))];
    for toleration in [json!({ "operator": "Exists" }), json!({ "key": "k", "value": "v", "effect": "NoSchedule" })] {
        let new = pod("new", None, "1", json!({ "tolerations": [toleration] }));
        assert_eq!(place(&new, &nodes, &[]).unwrap(), "d");
    }
    let wrong = pod("new", None, "1", json!({ "tolerations": [{ "key": "k", "value": "other" }] }));
    assert!(place(&wrong, &nodes, &[]).is_err());
}

#[test]
fn requests_ports_selectors_and_the_number_of_pods_are_counted() {
    let nodes = [node("a", "1", "1Gi", json!({}))];
    let filled = [pod("one", Some("a"), "900m", json!({}))];
    assert!(place(&pod("new", None, "200m", json!({})), &nodes, &filled).unwrap_err().contains("Insufficient cpu"));
    assert!(place(&pod("new", None, "100m", json!({})), &nodes, &filled).is_ok());
    let port =
        json!({ "containers": [{ "name": "c", "image": "i", "ports": [{ "containerPort": 80, "hostPort": 80 }] }] });
    let taken = [pod("one", Some("a"), "0", port.clone())];
    assert!(place(&pod("new", None, "0", port), &nodes, &taken).unwrap_err().contains("free ports"));
    let elsewhere = json!({ "nodeSelector": { "kubernetes.io/hostname": "b" } });
    assert!(place(&pod("new", None, "0", elsewhere), &nodes, &[]).unwrap_err().contains("affinity/selector"));
    let three: Vec<_> = ["x", "y", "z"].map(|name| pod(name, Some("a"), "0", json!({}))).into();
    assert!(place(&pod("new", None, "0", json!({})), &nodes, &three).unwrap_err().contains("Too many pods"));
}

#[test]
fn a_binding_that_the_watch_has_not_shown_yet_counts() {
    let nodes = vec![node("a", "1", "1Gi", json!({}))];
    let assumed = HashMap::from([("one".to_owned(), "a".to_owned())]);
    let pods = [pod("one", None, "900m", json!({}))];
    let snapshot = Snapshot::new(nodes, &pods, &assumed);
    assert!(choose(&pod("new", None, "200m", json!({})), &snapshot).is_err());
}
