//! What a cluster is for: deployments come up, scale, roll over and heal, and a namespace takes all of it along.
#![allow(clippy::unwrap_used)]

use std::time::Duration;

use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use k8s_openapi::api::core::v1::{ConfigMap, Namespace, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use serde_json::{Value, json};
use shipway_sim::{Cluster, Part};

const MINUTE: Duration = Duration::from_mins(1);

fn deployment(namespace: &str, replicas: i32, image: &str) -> Value {
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web", "namespace": namespace},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": {"app": "web"}},
            "template": {
                "metadata": {"labels": {"app": "web"}, "annotations": {"sim/ready-after": "1s"}},
                "spec": {"containers": [{"name": "main", "image": image}]},
            },
        },
    })
}

async fn ready(cluster: &Cluster) -> i32 {
    let web: Option<Deployment> = cluster.get("web").await;
    web.and_then(|web| web.status?.ready_replicas).unwrap_or(0)
}

fn owner(pod: &Pod) -> &OwnerReference {
    &pod.metadata.owner_references.as_ref().unwrap()[0]
}

#[test]
fn a_deployment_comes_up_spread_over_the_nodes() {
    Cluster::builder().nodes(3).run(async |cluster| {
        cluster.apply(deployment("default", 3, "app:1")).await;
        cluster.until("three are ready", MINUTE, async |cluster| ready(cluster).await == 3).await;
        let pods = cluster.pods("app=web").await;
        let mut nodes: Vec<_> = pods.iter().map(|pod| pod.spec.as_ref().unwrap().node_name.clone().unwrap()).collect();
        nodes.sort();
        assert_eq!(nodes, ["node-0", "node-1", "node-2"]);
        assert_eq!(cluster.running_on("node-1").len(), 1);
    });
}

#[test]
fn a_deployment_scales_up_and_down() {
    Cluster::builder().run(async |cluster| {
        cluster.apply(deployment("default", 1, "app:1")).await;
        for count in [5, 2, 0] {
            cluster.scale::<Deployment>("web", count).await;
            cluster.settle().await;
            assert_eq!(cluster.pods("app=web").await.len(), usize::try_from(count).unwrap());
            assert_eq!(ready(&cluster).await, count);
        }
    });
}

#[test]
fn a_new_image_rolls_over_without_a_gap() {
    Cluster::builder().nodes(2).run(async |cluster| {
        cluster.apply(deployment("default", 4, "app:1")).await;
        cluster.settle().await;
        cluster.apply(deployment("default", 4, "app:2")).await;
        // A quarter more and a quarter less, which is what a deployment allows that says nothing.
        let within = async |cluster: &Cluster| ready(cluster).await >= 3 && cluster.pods("app=web").await.len() <= 5;
        cluster.always("at least three ready, at most five there", MINUTE, within).await;
        let pods = cluster.pods("app=web").await;
        assert!(pods.iter().all(|pod| pod.spec.as_ref().unwrap().containers[0].image.as_deref() == Some("app:2")));
        assert_eq!((pods.len(), ready(&cluster).await), (4, 4));
        let sets: Vec<ReplicaSet> = cluster.list("default", "app=web").await;
        assert_eq!(sets.len(), 2, "the former one is kept for a rollback");
    });
}

#[test]
fn a_deleted_pod_is_replaced() {
    Cluster::builder().run(async |cluster| {
        cluster.apply(deployment("default", 1, "app:1")).await;
        cluster.settle().await;
        let before = cluster.pods("app=web").await.remove(0);
        cluster.delete::<Pod>(before.metadata.name.as_deref().unwrap()).await;
        cluster.settle().await;
        let after = cluster.pods("app=web").await.remove(0);
        assert_ne!(before.metadata.uid, after.metadata.uid);
        assert_eq!(owner(&before).uid, owner(&after).uid);
        assert_eq!(ready(&cluster).await, 1);
    });
}

#[test]
fn a_namespace_takes_along_what_is_in_it() {
    Cluster::builder().run(async |cluster| {
        cluster.apply(json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "other"}})).await;
        cluster.apply(deployment("other", 2, "app:1")).await;
        let map = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "m", "namespace": "other"}});
        cluster.apply(map).await;
        cluster.settle().await;
        assert_eq!(cluster.list::<Pod>("other", "").await.len(), 2);
        cluster.delete::<Namespace>("other").await;
        let gone = async |cluster: &Cluster| cluster.get::<Namespace>("other").await.is_none();
        cluster.until("the namespace is gone", MINUTE, gone).await;
        assert!(cluster.list::<Pod>("", "app=web").await.is_empty());
        assert!(cluster.running_on("node-0").is_empty());
    });
}

#[test]
fn all_is_as_it_was_after_every_part_was_restarted() {
    Cluster::builder().nodes(2).run(async |cluster| {
        cluster.apply(deployment("default", 4, "app:1")).await;
        cluster.settle().await;
        let names = async || {
            let pods = cluster.pods("app=web").await;
            pods.iter().map(|pod| pod.metadata.uid.clone().unwrap()).collect::<Vec<_>>()
        };
        let before = names().await;
        for part in [Part::ApiServer, Part::Controllers, Part::Scheduler] {
            cluster.restart(part).await;
        }
        cluster.stop_node("node-0");
        cluster.start_node("node-0");
        cluster.settle().await;
        assert_eq!(before, names().await);
        cluster.scale::<Deployment>("web", 5).await;
        cluster.until("five are ready", MINUTE, async |cluster| ready(cluster).await == 5).await;
    });
}

#[test]
fn what_was_acknowledged_outlives_a_crash_of_the_server() {
    Cluster::builder().run(async |cluster| {
        for number in 0..20 {
            let name = format!("m{number}");
            cluster.apply(json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}})).await;
            if number % 5 == 0 {
                cluster.restart(Part::ApiServer).await;
            }
        }
        assert_eq!(cluster.list::<ConfigMap>("default", "").await.len(), 20 + 1, "and the root certificate");
    });
}

#[test]
fn a_pod_on_a_node_that_lost_power_starts_again_with_it() {
    Cluster::builder().run(async |cluster| {
        cluster.apply(deployment("default", 1, "app:1")).await;
        cluster.settle().await;
        cluster.kill_node("node-0");
        assert!(cluster.running_on("node-0").is_empty());
        cluster.run_for(Duration::from_secs(20)).await;
        cluster.start_node("node-0");
        let restarted = async |cluster: &Cluster| {
            let pods = cluster.pods("app=web").await;
            let status = pods.first().and_then(|pod| pod.status.as_ref()?.container_statuses.clone());
            status.is_some_and(|containers| containers[0].restart_count == 1 && containers[0].ready)
        };
        cluster.until("it runs again", MINUTE, restarted).await;
    });
}

#[test]
fn a_cluster_is_the_same_twice() {
    let story = || {
        Cluster::builder().nodes(2).seed(7).run(async |cluster| {
            cluster.apply(deployment("default", 3, "app:1")).await;
            cluster.settle().await;
            let pods = cluster.pods("app=web").await;
            let uid = |pod: &Pod| (pod.metadata.name.clone(), pod.metadata.resource_version.clone());
            (pods.iter().map(uid).collect::<Vec<_>>(), cluster.elapsed())
        })
    };
    let (one, two) = (story(), story());
    assert_eq!(one.1, two.1);
}
