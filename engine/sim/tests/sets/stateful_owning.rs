//! Whose a pod is.

use k8s_openapi::api::apps::v1::{ControllerRevision, StatefulSet};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use serde_json::{Value, json};
use shipway_sim::Cluster;

use crate::fixture::{names, pods, stateful, status, up};

fn pod(name: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": "default", "labels": {"app": "web"}},
        "spec": {"containers": [{"name": "main", "image": "app:1"}]}})
}

async fn is_owned(cluster: &Cluster, name: &str) -> bool {
    cluster.get::<Pod>(name).await.unwrap().metadata.owner_references.is_some_and(|owners| !owners.is_empty())
}

#[test]
fn an_orphan_of_the_right_name_is_taken_over_and_labelled() {
    Cluster::builder().run(async |cluster| {
        cluster.apply(pod("web-0")).await;
        cluster.apply(pod("web-x")).await;
        cluster.settle().await;
        cluster.apply(stateful(&json!({"replicas": 1, "updateStrategy": {"type": "OnDelete"}}))).await;
        cluster.settle().await;
        assert_eq!(names(&cluster).await, ["web-0", "web-x"]);
        assert!(is_owned(&cluster, "web-0").await && !is_owned(&cluster, "web-x").await);
        let taken: Pod = cluster.get("web-0").await.unwrap();
        assert_eq!(taken.metadata.labels.unwrap()["apps.kubernetes.io/pod-index"], "0");
    });
}

#[test]
fn a_pod_that_the_selector_matches_no_more_is_let_go_and_keeps_its_name_while_it_is_there() {
    Cluster::builder().run(async |cluster| {
        up(&cluster, &json!({"replicas": 2})).await;
        cluster.patch::<Pod>("web-1", json!({"metadata": {"labels": {"app": "other"}}})).await;
        cluster.run_for(crate::fixture::MINUTE).await;
        assert!(!is_owned(&cluster, "web-1").await);
        assert_eq!(names(&cluster).await, ["web-0"]);
        cluster.delete::<Pod>("web-1").await;
        let back = async |cluster: &Cluster| names(cluster).await == ["web-0", "web-1"];
        cluster.until("there is a new one", crate::fixture::MINUTE, back).await;
    });
}

#[test]
fn pods_outlive_a_set_that_was_deleted_alone_and_belong_to_the_next() {
    Cluster::builder().run(async |cluster| {
        up(&cluster, &json!({})).await;
        let uids = async || pods(&cluster, "web").await.into_iter().map(|pod| pod.metadata.uid).collect::<Vec<_>>();
        let before = uids().await;
        cluster.delete_with::<StatefulSet>("web", json!({"propagationPolicy": "Orphan"})).await;
        cluster.settle().await;
        assert_eq!(before, uids().await);
        assert!(!is_owned(&cluster, "web-0").await);
        up(&cluster, &json!({})).await;
        assert_eq!(before, uids().await, "none was replaced");
        assert!(is_owned(&cluster, "web-0").await);
    });
}

#[test]
fn a_deleted_set_takes_pods_and_revisions_along() {
    Cluster::builder().run(async |cluster| {
        up(&cluster, &json!({})).await;
        cluster.delete::<StatefulSet>("web").await;
        cluster.settle().await;
        assert!(names(&cluster).await.is_empty());
        assert!(cluster.list::<ControllerRevision>("default", "").await.is_empty());
    });
}

#[test]
fn two_sets_keep_out_of_each_others_way() {
    Cluster::builder().run(async |cluster| {
        up(&cluster, &json!({})).await;
        let mut other = stateful(&json!({"replicas": 2}));
        other["metadata"]["name"] = json!("web-1");
        cluster.apply(other).await;
        cluster.settle().await;
        assert_eq!(names(&cluster).await, ["web-0", "web-1", "web-1-0", "web-1-1", "web-2"]);
        assert_eq!(status(&cluster).await.replicas, 3);
    });
}

#[test]
fn a_disruption_budget_expects_as_many_pods_as_the_set_asks_for() {
    Cluster::builder().run(async |cluster| {
        let budget = json!({"apiVersion": "policy/v1", "kind": "PodDisruptionBudget",
            "metadata": {"name": "web", "namespace": "default"},
            "spec": {"maxUnavailable": 1, "selector": {"matchLabels": {"app": "web"}}}});
        cluster.apply(budget).await;
        up(&cluster, &json!({})).await;
        let status = async || cluster.get::<PodDisruptionBudget>("web").await.unwrap().status.unwrap();
        let counts = status().await;
        assert_eq!(
            (counts.expected_pods, counts.desired_healthy, counts.disruptions_allowed),
            (Some(3), Some(2), Some(1))
        );
        cluster.patch::<Pod>("web-2", json!({"metadata": {"annotations": {"sim/ready": "false"}}})).await;
        cluster.scale::<StatefulSet>("web", 5).await;
        cluster.settle().await;
        let counts = status().await;
        assert_eq!((counts.expected_pods, counts.disruptions_allowed), (Some(5), Some(0)), "two are not even there");
    });
}
