//! Which nodes a daemon set's pods run on, and what becomes of pods and nodes.

use std::time::Duration;

use k8s_openapi::api::apps::v1::DaemonSet;
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::ResourceExt;
use serde_json::{Value, json};
use shipway_sim::{Cluster, NodeOptions, Part};

use crate::fixture::{MINUTE, agent, daemon, daemon_status, daemon_up, is_ending, node, pods, template, told};

/// The nodes that have a pod of the set, in order.
async fn places(cluster: &Cluster) -> Vec<String> {
    let pods = pods(cluster, "agent").await;
    let mut places: Vec<_> = pods.iter().filter(|pod| !is_ending(pod)).map(|pod| node(pod).to_owned()).collect();
    places.sort();
    places
}

async fn taint(cluster: &Cluster, node: &str, taints: &Value) {
    cluster.patch::<Node>(node, json!({"spec": {"taints": taints}})).await;
    cluster.settle().await;
}

async fn label(cluster: &Cluster, node: &str, value: Option<&str>) {
    cluster.patch::<Node>(node, json!({"metadata": {"labels": {"disk": value}}})).await;
    cluster.settle().await;
}

/// A template of the agent with these fields of a pod.
fn with(spec: &Value) -> Value {
    let mut template = agent("app:1");
    for (name, value) in spec.as_object().unwrap() {
        template["spec"][name] = value.clone();
    }
    json!({"template": template})
}

#[test]
fn every_node_has_one_pod_and_a_new_node_gets_one() {
    Cluster::builder().nodes(3).run(async |cluster| {
        daemon_up(&cluster, &json!({})).await;
        assert_eq!(places(&cluster).await, ["node-0", "node-1", "node-2"]);
        cluster.add_node(NodeOptions::default());
        cluster.settle().await;
        cluster.run_for(Duration::from_secs(20)).await;
        assert_eq!(places(&cluster).await, ["node-0", "node-1", "node-2", "node-3"]);
        let status = daemon_status(&cluster).await;
        assert_eq!((status.desired_number_scheduled, status.number_ready), (4, 4));
        assert_eq!((status.number_available, status.number_unavailable), (Some(4), Some(0)));
    });
}

#[test]
fn a_pod_says_which_node_it_is_for_and_is_bound_by_the_scheduler() {
    Cluster::builder().run(async |cluster| {
        cluster.stop_part(Part::Scheduler).await;
        daemon_up(&cluster, &json!({})).await;
        let pod = pods(&cluster, "agent").await.remove(0);
        assert_eq!(node(&pod), "");
        let spec = json!(pod.spec.unwrap());
        let required = &spec["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"];
        let term = json!({"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["node-0"]}]});
        assert_eq!(*required, json!({"nodeSelectorTerms": [term]}));
        let status = daemon_status(&cluster).await;
        assert_eq!((status.current_number_scheduled, status.number_ready), (1, 0));
        cluster.start_part(Part::Scheduler).await;
        cluster.settle().await;
        assert_eq!(places(&cluster).await, ["node-0"]);
    });
}

#[test]
fn a_node_selector_limits_the_nodes_and_labels_may_change() {
    Cluster::builder().nodes(2).run(async |cluster| {
        daemon_up(&cluster, &with(&json!({"nodeSelector": {"disk": "fast"}}))).await;
        assert!(places(&cluster).await.is_empty());
        assert_eq!(daemon_status(&cluster).await.desired_number_scheduled, 0);
        label(&cluster, "node-1", Some("fast")).await;
        assert_eq!(places(&cluster).await, ["node-1"]);
        label(&cluster, "node-1", None).await;
        assert!(places(&cluster).await.is_empty());
    });
}

#[test]
fn a_required_affinity_limits_the_nodes() {
    Cluster::builder().nodes(3).run(async |cluster| {
        let expression = json!({"key": "kubernetes.io/hostname", "operator": "NotIn", "values": ["node-1"]});
        let terms = json!({"nodeSelectorTerms": [{"matchExpressions": [expression]}]});
        let affinity = json!({"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": terms}});
        daemon_up(&cluster, &with(&json!({"affinity": affinity}))).await;
        assert_eq!(places(&cluster).await, ["node-0", "node-2"]);
    });
}

#[test]
fn a_taint_against_scheduling_keeps_the_pods_that_are_there() {
    Cluster::builder().nodes(2).run(async |cluster| {
        daemon_up(&cluster, &json!({})).await;
        taint(&cluster, "node-1", &json!([{"key": "own", "effect": "NoSchedule"}])).await;
        assert_eq!(places(&cluster).await, ["node-0", "node-1"]);
        let status = daemon_status(&cluster).await;
        assert_eq!((status.desired_number_scheduled, status.number_misscheduled), (1, 1));
        let pod = pods(&cluster, "agent").await.into_iter().find(|pod| node(pod) == "node-1").unwrap();
        cluster.delete::<Pod>(&pod.name_any()).await;
        cluster.settle().await;
        assert_eq!(places(&cluster).await, ["node-0"], "none comes again");
    });
}

#[test]
fn a_taint_against_execution_ends_pods_that_do_not_tolerate_it() {
    Cluster::builder().nodes(2).run(async |cluster| {
        daemon_up(&cluster, &json!({})).await;
        let mut tolerant = daemon(&with(&json!({"tolerations": [{"key": "own", "operator": "Exists"}]})));
        tolerant["metadata"]["name"] = json!("tolerant");
        tolerant["spec"]["selector"] = json!({"matchLabels": {"app": "tolerant"}});
        tolerant["spec"]["template"]["metadata"]["labels"] = json!({"app": "tolerant"});
        cluster.apply(tolerant).await;
        cluster.settle().await;
        taint(&cluster, "node-1", &json!([{"key": "own", "effect": "NoExecute"}])).await;
        assert_eq!(places(&cluster).await, ["node-0"]);
        assert_eq!(pods(&cluster, "tolerant").await.len(), 2);
        taint(&cluster, "node-1", &json!(null)).await;
        assert_eq!(places(&cluster).await, ["node-0", "node-1"]);
    });
}

#[test]
fn daemons_run_on_cordoned_nodes() {
    Cluster::builder().nodes(2).run(async |cluster| {
        let cordon = json!([{"key": "node.kubernetes.io/unschedulable", "effect": "NoSchedule"}]);
        cluster.patch::<Node>("node-1", json!({"spec": {"unschedulable": true, "taints": cordon}})).await;
        daemon_up(&cluster, &json!({})).await;
        assert_eq!(places(&cluster).await, ["node-0", "node-1"]);
    });
}

#[test]
fn daemons_tolerate_what_is_wrong_with_their_nodes() {
    Cluster::builder().run(async |cluster| {
        daemon_up(&cluster, &json!({})).await;
        let pod = pods(&cluster, "agent").await.remove(0);
        let mut tolerated: Vec<_> =
            pod.spec.unwrap().tolerations.unwrap().into_iter().filter_map(|it| it.key).collect();
        tolerated.sort();
        tolerated.dedup();
        let expected =
            ["disk-pressure", "memory-pressure", "not-ready", "pid-pressure", "unreachable", "unschedulable"];
        assert_eq!(tolerated, expected.map(|name| format!("node.kubernetes.io/{name}")));
    });
}

#[test]
fn a_deleted_pod_is_replaced_once_it_is_gone() {
    Cluster::builder().run(async |cluster| {
        let slow = template("agent", "app:1", &json!({"sim/stop-after": "20s"}));
        daemon_up(&cluster, &json!({"template": slow})).await;
        let before = pods(&cluster, "agent").await.remove(0);
        cluster.delete::<Pod>(&before.name_any()).await;
        cluster.always("one at most", MINUTE, async |cluster| pods(cluster, "agent").await.len() <= 1).await;
        let after = pods(&cluster, "agent").await.remove(0);
        assert_ne!(before.metadata.uid, after.metadata.uid);
    });
}

#[test]
fn failed_pods_are_replaced_with_back_off_and_told_of() {
    Cluster::builder().run(async |cluster| {
        daemon_up(&cluster, &json!({})).await;
        let mut waits = Vec::new();
        for _ in 0..4 {
            let began = cluster.elapsed();
            let before = pods(&cluster, "agent").await.remove(0);
            let failed = json!({"status": {"phase": "Failed"}});
            cluster.patch_part::<Pod>(&before.name_any(), "status", failed).await;
            let replaced = async |cluster: &Cluster| {
                let pods = pods(cluster, "agent").await;
                pods.first().is_some_and(|pod| pod.metadata.uid != before.metadata.uid && !node(pod).is_empty())
            };
            cluster.until("it is replaced", MINUTE, replaced).await;
            waits.push(cluster.elapsed().saturating_sub(began).as_secs());
        }
        assert!(waits[0] < 1 && waits[3] >= 2 && waits.is_sorted(), "{waits:?}");
        let told = told(&cluster, "FailedDaemonPod").await;
        assert!(told[0].contains("on node node-0, will try to kill it"), "{told:?}");
    });
}

#[test]
fn a_succeeded_pod_is_replaced() {
    Cluster::builder().run(async |cluster| {
        daemon_up(&cluster, &json!({})).await;
        let before = pods(&cluster, "agent").await.remove(0);
        cluster.patch_part::<Pod>(&before.name_any(), "status", json!({"status": {"phase": "Succeeded"}})).await;
        cluster.settle().await;
        assert_ne!(before.metadata.uid, pods(&cluster, "agent").await.remove(0).metadata.uid);
        assert_eq!(told(&cluster, "SucceededDaemonPod").await.len(), 1);
    });
}

#[test]
fn of_two_pods_on_a_node_the_older_stays() {
    Cluster::builder().run(async |cluster| {
        daemon_up(&cluster, &json!({})).await;
        let before = pods(&cluster, "agent").await.remove(0);
        cluster.run_for(Duration::from_secs(5)).await;
        let second = json!({"apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": "second", "namespace": "default", "labels": {"app": "agent"}},
            "spec": {"nodeName": "node-0", "containers": [{"name": "main", "image": "app:1"}]}});
        cluster.apply(second).await;
        cluster.settle().await;
        let after = pods(&cluster, "agent").await;
        assert_eq!(after.iter().map(|pod| pod.metadata.uid.clone()).collect::<Vec<_>>(), [before.metadata.uid]);
    });
}

#[test]
fn pods_outlive_a_set_that_was_deleted_alone_and_belong_to_the_next() {
    Cluster::builder().nodes(2).run(async |cluster| {
        daemon_up(&cluster, &json!({})).await;
        let uids = async || pods(&cluster, "agent").await.into_iter().map(|pod| pod.metadata.uid).collect::<Vec<_>>();
        let before = uids().await;
        cluster.delete_with::<DaemonSet>("agent", json!({"propagationPolicy": "Orphan"})).await;
        cluster.settle().await;
        assert_eq!(before, uids().await);
        daemon_up(&cluster, &json!({})).await;
        assert_eq!(before, uids().await);
        cluster.delete::<DaemonSet>("agent").await;
        cluster.settle().await;
        assert!(pods(&cluster, "agent").await.is_empty());
    });
}

#[test]
fn a_pod_that_waits_for_a_node_that_is_gone_is_deleted() {
    Cluster::builder().nodes(2).run(async |cluster| {
        cluster.stop_part(Part::Scheduler).await;
        daemon_up(&cluster, &json!({})).await;
        assert_eq!(pods(&cluster, "agent").await.len(), 2);
        cluster.stop_node("node-1");
        cluster.delete::<Node>("node-1").await;
        cluster.settle().await;
        assert_eq!(pods(&cluster, "agent").await.len(), 1);
        assert_eq!(daemon_status(&cluster).await.desired_number_scheduled, 1);
    });
}

#[test]
fn controllers_that_crash_at_any_moment_leave_one_pod_a_node() {
    Cluster::builder().nodes(5).run(async |cluster| {
        cluster.apply(daemon(&json!({}))).await;
        for _ in 0..10 {
            cluster.run_for(Duration::from_millis(50)).await;
            cluster.restart(Part::Controllers).await;
        }
        cluster.settle().await;
        assert_eq!(places(&cluster).await, ["node-0", "node-1", "node-2", "node-3", "node-4"]);
    });
}

#[test]
fn what_was_done_is_told_in_events() {
    Cluster::builder().run(async |cluster| {
        daemon_up(&cluster, &json!({})).await;
        let pod = pods(&cluster, "agent").await.remove(0).name_any();
        assert!(pod.starts_with("agent-"));
        assert_eq!(told(&cluster, "SuccessfulCreate").await, [format!("Created pod: {pod}")]);
        label(&cluster, "node-0", Some("slow")).await;
        daemon_up(&cluster, &with(&json!({"nodeSelector": {"disk": "fast"}}))).await;
        assert_eq!(told(&cluster, "SuccessfulDelete").await, [format!("Deleted pod: {pod}")]);
    });
}
