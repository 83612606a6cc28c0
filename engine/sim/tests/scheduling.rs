//! What the documentation says of where pods run, over the whole cluster: what is bound, told and asked to leave.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::time::Duration;

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{Event, Node, PersistentVolume, PersistentVolumeClaim, Pod};
use kube::ResourceExt;
use serde_json::{Value, json};
use shipway_sim::{Cluster, NodeOptions, Part};

const MINUTE: Duration = Duration::from_mins(1);
const ZONE: &str = "topology.kubernetes.io/zone";

/// A pod whose container asks for so much processor time; `more` is merged into its specification.
#[expect(clippy::needless_pass_by_value, reason = "the calls write json! in place")]
fn pod(name: &str, cpu: &str, more: Value) -> Value {
    let mut spec = json!({"containers": [
        {"name": "main", "image": "app:1", "resources": {"requests": {"cpu": cpu}}}]});
    spec.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "labels": {"app": "web"}}, "spec": spec})
}

/// Three replicas or more of it.
fn deployment(replicas: i32, more: Value) -> Value {
    let template = json!({"metadata": {"labels": {"app": "web"}}, "spec": pod("", "100m", more)["spec"]});
    json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web"}, "spec":
        {"replicas": replicas, "selector": {"matchLabels": {"app": "web"}}, "template": template}})
}

async fn get(cluster: &Cluster, name: &str) -> Pod {
    cluster.get(name).await.unwrap()
}

async fn node_of(cluster: &Cluster, name: &str) -> Option<String> {
    let pod: Option<Pod> = cluster.get(name).await;
    pod?.spec?.node_name
}

/// Status, reason and message of a pod's condition.
async fn told(cluster: &Cluster, name: &str, kind: &str) -> String {
    let conditions = get(cluster, name).await.status.unwrap().conditions.unwrap_or_default();
    let found = conditions.into_iter().find(|condition| condition.type_ == kind);
    found.map_or_else(String::new, |it| {
        format!("{} {} {}", it.status, it.reason.unwrap_or_default(), it.message.unwrap_or_default())
    })
}

/// The messages of the events of that reason about that object.
async fn events(cluster: &Cluster, about: &str, reason: &str) -> Vec<String> {
    let events: Vec<Event> = cluster.list("default", "").await;
    let meant =
        |event: &Event| event.involved_object.name.as_deref() == Some(about) && event.reason.as_deref() == Some(reason);
    events.into_iter().filter(meant).filter_map(|event| event.message).collect()
}

async fn per_node(cluster: &Cluster, selector: &str) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for pod in cluster.pods(selector).await {
        *counts.entry(pod.spec.unwrap().node_name.unwrap_or_default()).or_insert(0) += 1;
    }
    counts
}

fn with_cpu(cpu: &str) -> NodeOptions {
    NodeOptions { cpu: cpu.to_owned(), ..NodeOptions::default() }
}

#[test]
fn a_pod_that_does_not_fit_is_told_why_and_runs_when_there_is_room() {
    Cluster::builder().nodes(3).node(with_cpu("2")).run(async |cluster| {
        cluster.apply(pod("big", "4", json!({}))).await;
        cluster.settle().await;
        let words = "0/3 nodes are available: 3 Insufficient cpu. preemption: 0/3 nodes are available: \
                     3 Preemption is not helpful for scheduling.";
        assert_eq!(told(&cluster, "big", "PodScheduled").await, format!("False Unschedulable {words}"));
        assert_eq!(events(&cluster, "big", "FailedScheduling").await, [words]);
        let name = cluster.add_node(with_cpu("8"));
        cluster.until("it has a node", MINUTE, async |it| node_of(it, "big").await.as_ref() == Some(&name)).await;
        let words = format!("Successfully assigned default/big to {name}");
        cluster.until("it is said", MINUTE, async |it| events(it, "big", "Scheduled").await == [words.clone()]).await;
    });
}

#[test]
fn replicas_spread_over_nodes_by_themselves() {
    Cluster::builder().nodes(4).run(async |cluster| {
        cluster.apply(deployment(8, json!({}))).await;
        cluster.settle().await;
        assert_eq!(per_node(&cluster, "app=web").await.into_values().collect::<Vec<_>>(), [2, 2, 2, 2]);
    });
}

#[test]
fn a_gate_holds_a_pod_back_until_it_is_removed() {
    Cluster::builder().run(async |cluster| {
        cluster.apply(pod("held", "1", json!({"schedulingGates": [{"name": "example.com/wait"}]}))).await;
        cluster.settle().await;
        let words = "False SchedulingGated Scheduling is blocked due to non-empty scheduling gates";
        assert_eq!(told(&cluster, "held", "PodScheduled").await, words);
        assert_eq!(node_of(&cluster, "held").await, None);
        cluster.patch::<Pod>("held", json!({"spec": {"schedulingGates": null}})).await;
        cluster.until("it has a node", MINUTE, async |it| node_of(it, "held").await.is_some()).await;
    });
}

#[test]
fn pods_of_other_schedulers_are_left_alone() {
    Cluster::builder().run(async |cluster| {
        cluster.apply(pod("others", "1", json!({"schedulerName": "other"}))).await;
        cluster.settle().await;
        assert_eq!(node_of(&cluster, "others").await, None);
        assert_eq!(told(&cluster, "others", "PodScheduled").await, "");
    });
}

#[test]
fn the_less_important_leave_for_the_more_important() {
    Cluster::builder().node(with_cpu("2")).run(async |cluster| {
        for (name, value) in [("low", 1), ("high", 1000)] {
            let class = json!({"apiVersion": "scheduling.k8s.io/v1", "kind": "PriorityClass", "metadata": {"name": name}, "value": value});
            cluster.apply(class).await;
        }
        cluster.apply(pod("small", "500m", json!({"priorityClassName": "low"}))).await;
        cluster.apply(pod("victim", "1500m", json!({"priorityClassName": "low", "terminationGracePeriodSeconds": 5}))).await;
        cluster.settle().await;
        assert!(node_of(&cluster, "victim").await.is_some());
        cluster.apply(pod("important", "1500m", json!({"priorityClassName": "high"}))).await;
        cluster
            .until("the victim is told", MINUTE, async |it| {
                let victim: Option<Pod> = it.get("victim").await;
                victim.is_none_or(|victim| victim.metadata.deletion_timestamp.is_some())
            })
            .await;
        cluster.until("it has the node", MINUTE, async |it| node_of(it, "important").await.is_some()).await;
        assert!(cluster.get::<Pod>("victim").await.is_none(), "it left");
        assert!(cluster.get::<Pod>("small").await.is_some(), "as few as possible");
        let uid = get(&cluster, "important").await.uid().unwrap();
        let words = format!("Preempted by pod {uid} on node node-0");
        cluster.until("it is said", MINUTE, async |it| events(it, "victim", "Preempted").await == [words.clone()]).await;
    });
}

#[test]
fn a_polite_pod_waits_for_its_turn() {
    Cluster::builder().node(with_cpu("2")).run(async |cluster| {
        let class = json!({"apiVersion": "scheduling.k8s.io/v1", "kind": "PriorityClass", "metadata": {"name": "polite"},
            "value": 1000, "preemptionPolicy": "Never"});
        cluster.apply(class).await;
        cluster.apply(pod("there", "2", json!({}))).await;
        cluster.settle().await;
        cluster.apply(pod("polite", "2", json!({"priorityClassName": "polite"}))).await;
        cluster.settle().await;
        let words = "False Unschedulable 0/1 nodes are available: 1 Insufficient cpu. \
                     preemption: not eligible due to preemptionPolicy=Never.";
        assert_eq!(told(&cluster, "polite", "PodScheduled").await, words);
        cluster.delete::<Pod>("there").await;
        cluster.until("it has the node", MINUTE, async |it| node_of(it, "polite").await.is_some()).await;
    });
}

#[test]
fn a_taint_that_is_removed_opens_the_node() {
    Cluster::builder().run(async |cluster| {
        let taints = json!([{"key": "dedicated", "value": "x", "effect": "NoSchedule"}]);
        cluster.patch::<Node>("node-0", json!({"spec": {"taints": taints}})).await;
        cluster.apply(pod("p", "1", json!({}))).await;
        cluster.settle().await;
        assert!(told(&cluster, "p", "PodScheduled").await.contains("1 node(s) had untolerated taint(s)"));
        cluster.patch::<Node>("node-0", json!({"spec": {"taints": null}})).await;
        cluster.until("it has the node", MINUTE, async |it| node_of(it, "p").await.is_some()).await;
    });
}

#[test]
fn zones_stay_even_while_replicas_come_and_go() {
    Cluster::builder().nodes(0).run(async |cluster| {
        for zone in ["a", "b", "c"] {
            let labels = vec![(ZONE.to_owned(), zone.to_owned())];
            cluster.add_node(NodeOptions { labels, ..NodeOptions::default() });
        }
        let constraint = json!([{"topologyKey": ZONE, "maxSkew": 1, "whenUnsatisfiable": "DoNotSchedule",
            "labelSelector": {"matchLabels": {"app": "web"}}}]);
        cluster.apply(deployment(6, json!({"topologySpreadConstraints": constraint}))).await;
        cluster.settle().await;
        assert_eq!(per_node(&cluster, "app=web").await.into_values().collect::<Vec<_>>(), [2, 2, 2]);
        cluster.scale::<Deployment>("web", 9).await;
        cluster.settle().await;
        assert_eq!(per_node(&cluster, "app=web").await.into_values().collect::<Vec<_>>(), [3, 3, 3]);
    });
}

#[test]
fn one_pod_a_node_and_the_rest_wait_for_another_node() {
    Cluster::builder().nodes(2).run(async |cluster| {
        let term = json!([{"topologyKey": "kubernetes.io/hostname", "labelSelector": {"matchLabels": {"app": "web"}}}]);
        let alone = json!({"affinity": {"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": term}}});
        cluster.apply(deployment(3, alone)).await;
        cluster.settle().await;
        assert_eq!(per_node(&cluster, "app=web").await.get("").copied(), Some(1));
        cluster.add_node(NodeOptions::default());
        cluster.settle().await;
        assert_eq!(per_node(&cluster, "app=web").await.into_values().collect::<Vec<_>>(), [1, 1, 1]);
    });
}

#[test]
fn a_scheduler_that_crashes_in_the_middle_takes_up_what_is_left() {
    Cluster::builder().nodes(3).node(with_cpu("2")).run(async |cluster| {
        cluster.apply(deployment(40, json!({}))).await;
        for _ in 0..3 {
            cluster.run_for(Duration::from_millis(20)).await;
            cluster.restart(Part::Scheduler).await;
        }
        cluster.settle().await;
        let bound = per_node(&cluster, "app=web").await;
        assert_eq!(bound.values().sum::<usize>(), 40);
        assert!(!bound.contains_key(""), "all have a node: {bound:?}");
        assert!(bound.values().all(|many| *many <= 20), "no node has more than it offers: {bound:?}");
    });
}

#[test]
fn a_late_claim_gets_a_volume_of_the_node_that_the_pod_gets() {
    Cluster::builder().nodes(3).run(async |cluster| {
        cluster.apply(json!({"apiVersion": "storage.k8s.io/v1", "kind": "StorageClass", "metadata": {"name": "late"},
            "provisioner": "kubernetes.io/no-provisioner", "volumeBindingMode": "WaitForFirstConsumer"})).await;
        cluster.apply(json!({"apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": "v"}, "spec": {
            "capacity": {"storage": "1Gi"}, "accessModes": ["ReadWriteOnce"], "storageClassName": "late",
            "local": {"path": "/disk"}, "nodeAffinity": {"required": {"nodeSelectorTerms": [{"matchExpressions": [
                {"key": "kubernetes.io/hostname", "operator": "In", "values": ["node-1"]}]}]}}}})).await;
        cluster.apply(json!({"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": "data"}, "spec": {
            "accessModes": ["ReadWriteOnce"], "storageClassName": "late", "resources": {"requests": {"storage": "1Gi"}}}})).await;
        let volumes = json!([{"name": "data", "persistentVolumeClaim": {"claimName": "data"}}]);
        cluster.apply(pod("p", "1", json!({"volumes": volumes}))).await;
        let given = async |it: &Cluster| {
            let volume: PersistentVolume = it.get("v").await.unwrap();
            volume.spec.unwrap().claim_ref.is_some_and(|claim| claim.name.as_deref() == Some("data"))
        };
        cluster.until("the volume is kept for the claim", MINUTE, given).await;
        // Where nobody binds claims, the test does.
        let claim: PersistentVolumeClaim = cluster.get("data").await.unwrap();
        if claim.spec.unwrap().volume_name.is_none() {
            assert_eq!(node_of(&cluster, "p").await, None, "not before its volume is bound");
            cluster.patch::<PersistentVolumeClaim>("data", json!({"spec": {"volumeName": "v"}})).await;
            cluster.patch_part::<PersistentVolumeClaim>("data", "status", json!({"status": {"phase": "Bound"}})).await;
        }
        cluster.until("it has its node", MINUTE, async |it| node_of(it, "p").await.as_deref() == Some("node-1")).await;
    });
}

#[test]
fn a_pod_waits_for_a_claim_that_is_not_there_yet() {
    Cluster::builder().run(async |cluster| {
        let volumes = json!([{"name": "data", "persistentVolumeClaim": {"claimName": "data"}}]);
        cluster.apply(pod("p", "1", json!({"volumes": volumes}))).await;
        cluster.settle().await;
        let told = told(&cluster, "p", "PodScheduled").await;
        assert!(told.contains("0/1 nodes are available: persistentvolumeclaim \"data\" not found."), "{told}");
    });
}
