//! How a daemon set goes from one template to the next.

use std::collections::BTreeMap;
use std::time::Duration;

use k8s_openapi::api::apps::v1::DaemonSet;
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use serde_json::{Value, json};
use shipway_sim::Cluster;

use crate::fixture::{
    MINUTE, agent, daemon, daemon_status, daemon_up, image, is_ending, is_ready, node, pods, rolling, template,
};

async fn images(cluster: &Cluster) -> Vec<String> {
    pods(cluster, "agent").await.iter().map(|pod| image(pod).to_owned()).collect()
}

/// How many nodes have a pod that is ready and stays.
async fn served(cluster: &Cluster) -> usize {
    let pods = pods(cluster, "agent").await;
    let mut nodes: Vec<_> = pods.iter().filter(|pod| is_ready(pod) && !is_ending(pod)).map(node).collect();
    nodes.sort_unstable();
    nodes.dedup();
    nodes.len()
}

fn spec(bounds: &Value, template: &Value) -> Value {
    json!({"updateStrategy": rolling(bounds), "template": template})
}

/// Updates from `app:1` to `app:2` on six nodes and never leaves so many unserved; at some moment as many are.
fn plays_within(bounds: &Value, unserved: usize) {
    Cluster::builder().nodes(6).run(async |cluster| {
        daemon_up(&cluster, &spec(bounds, &agent("app:1"))).await;
        cluster.apply(daemon(&spec(bounds, &agent("app:2")))).await;
        let most = async |cluster: &Cluster| served(cluster).await == 6 - unserved;
        cluster.until("as many as may be are away", MINUTE, most).await;
        let within = async |cluster: &Cluster| served(cluster).await >= 6 - unserved;
        cluster.always("enough nodes are served", Duration::from_mins(2), within).await;
        assert_eq!(images(&cluster).await, ["app:2"; 6]);
        assert_eq!(daemon_status(&cluster).await.updated_number_scheduled, Some(6));
    });
}

#[test]
fn one_node_at_a_time_is_updated() {
    plays_within(&json!({"maxUnavailable": 1}), 1);
}

#[test]
fn several_nodes_at_a_time_may_be_updated() {
    plays_within(&json!({"maxUnavailable": 3}), 3);
}

#[test]
fn a_share_of_the_nodes_is_rounded_up() {
    plays_within(&json!({"maxUnavailable": "20%"}), 2);
}

#[test]
fn a_surge_leaves_no_node_unserved_and_none_with_more_than_two() {
    Cluster::builder().nodes(4).run(async |cluster| {
        let bounds = json!({"maxSurge": 1, "maxUnavailable": 0});
        daemon_up(&cluster, &spec(&bounds, &agent("app:1"))).await;
        cluster.apply(daemon(&spec(&bounds, &agent("app:2")))).await;
        let within = async |cluster: &Cluster| {
            let mut by_node = BTreeMap::<String, usize>::new();
            for pod in pods(cluster, "agent").await.iter().filter(|pod| !node(pod).is_empty() && !is_ending(pod)) {
                *by_node.entry(node(pod).to_owned()).or_default() += 1;
            }
            served(cluster).await == 4 && by_node.values().filter(|count| **count > 1).count() <= 1
        };
        cluster.always("all are served, one has two", MINUTE, within).await;
        assert_eq!(images(&cluster).await, ["app:2"; 4]);
    });
}

#[test]
fn on_delete_only_deleted_pods_are_updated() {
    Cluster::builder().nodes(2).run(async |cluster| {
        let spec = |image: &str| json!({"updateStrategy": {"type": "OnDelete"}, "template": agent(image)});
        daemon_up(&cluster, &spec("app:1")).await;
        daemon_up(&cluster, &spec("app:2")).await;
        assert_eq!(images(&cluster).await, ["app:1"; 2]);
        assert_eq!(daemon_status(&cluster).await.updated_number_scheduled, Some(0));
        let first = pods(&cluster, "agent").await.remove(0).name_any();
        cluster.delete::<Pod>(&first).await;
        cluster.settle().await;
        let mut images = images(&cluster).await;
        images.sort();
        assert_eq!(images, ["app:1", "app:2"]);
    });
}

#[test]
fn a_broken_update_stops_at_what_may_be_unavailable() {
    Cluster::builder().nodes(4).run(async |cluster| {
        let bounds = json!({"maxUnavailable": 2});
        daemon_up(&cluster, &spec(&bounds, &agent("app:1"))).await;
        let broken = template("agent", "app:2", &json!({"sim/waiting": "ImagePullBackOff"}));
        daemon_up(&cluster, &spec(&bounds, &broken)).await;
        assert_eq!(served(&cluster).await, 2);
        let status = daemon_status(&cluster).await;
        assert_eq!((status.updated_number_scheduled, status.number_unavailable), (Some(2), Some(2)));
        // The next one replaces what is broken first.
        daemon_up(&cluster, &spec(&bounds, &agent("app:3"))).await;
        assert_eq!((images(&cluster).await, served(&cluster).await), (vec!["app:3".to_owned(); 4], 4));
    });
}

#[test]
fn an_update_waits_for_availability() {
    Cluster::builder().nodes(2).run(async |cluster| {
        let slow = |image: &str| json!({"minReadySeconds": 30, "template": agent(image)});
        daemon_up(&cluster, &slow("app:1")).await;
        // What is not available yet would be replaced at once.
        cluster.run_for(Duration::from_mins(1)).await;
        let began = cluster.elapsed();
        cluster.apply(daemon(&slow("app:2"))).await;
        let done = async |cluster: &Cluster| {
            let status = daemon_status(cluster).await;
            status.updated_number_scheduled == Some(2) && status.number_available == Some(2)
        };
        cluster.until("both are updated", Duration::from_mins(3), done).await;
        let took = cluster.elapsed().saturating_sub(began).as_secs();
        assert!(took >= 60, "{took}");
    });
}

#[test]
fn ready_and_available_are_counted_apart() {
    Cluster::builder().run(async |cluster| {
        cluster.apply(daemon(&json!({"minReadySeconds": 60}))).await;
        cluster.run_for(Duration::from_secs(30)).await;
        let early = daemon_status(&cluster).await;
        assert_eq!((early.number_ready, early.number_available, early.number_unavailable), (1, Some(0), Some(1)));
        cluster.run_for(MINUTE).await;
        assert_eq!(daemon_status(&cluster).await.number_available, Some(1));
    });
}

#[test]
fn the_status_follows_the_generation() {
    Cluster::builder().run(async |cluster| {
        daemon_up(&cluster, &json!({})).await;
        daemon_up(&cluster, &json!({"template": agent("app:2")})).await;
        let set: DaemonSet = cluster.get("agent").await.unwrap();
        assert_eq!(set.status.unwrap().observed_generation, set.metadata.generation);
    });
}
