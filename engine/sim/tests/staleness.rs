//! What controllers do while their watches are behind: after a restart of the API server each watch comes back in its own
//! time, and until then what it shows is not what there is.

use std::time::Duration;

use k8s_openapi::api::apps::v1::{DaemonSet, Deployment, ReplicaSet, StatefulSet};
use k8s_openapi::api::core::v1::Pod;
use kube::Resource;
use serde_json::{Value, json};
use shipway_sim::{Cluster, Part};

fn set(name: &str) -> Value {
    json!({
        "apiVersion": "apps/v1", "kind": "ReplicaSet", "metadata": {"name": name},
        "spec": {
            "replicas": 3,
            "selector": {"matchLabels": {"app": name}},
            "template": {
                "metadata": {"labels": {"app": name}},
                "spec": {"containers": [{"name": "main", "image": "app:1"}]},
            },
        },
    })
}

/// Has the server away for a while; when this returns it is back, and not all watches are.
async fn interrupt(cluster: &Cluster) {
    cluster.stop_part(Part::ApiServer).await;
    cluster.run_for(Duration::from_secs(20)).await;
    cluster.start_part(Part::ApiServer).await;
    cluster.run_for(Duration::from_secs(4)).await;
}

#[test]
fn pods_that_the_watch_does_not_show_yet_are_not_made_again() {
    for seed in 1..=2 {
        Cluster::builder().nodes(2).seed(seed).run(async |cluster| {
            for name in ["a", "b", "c"] {
                interrupt(&cluster).await;
                cluster.apply(set(name)).await;
                let selector = format!("app={name}");
                let few = async |cluster: &Cluster| cluster.pods(&selector).await.len() <= 3;
                cluster.always("never more pods than asked for", Duration::from_mins(2), few).await;
                assert_eq!(cluster.pods(&selector).await.len(), 3);
            }
        });
    }
}

#[test]
fn pods_that_came_and_went_before_the_watch_was_back_are_made_again_soon() {
    for seed in 1..=3 {
        Cluster::builder().nodes(2).seed(seed).run(async |cluster| {
            for name in ["a", "b", "c"] {
                interrupt(&cluster).await;
                cluster.apply(set(name)).await;
                let selector = format!("app={name}");
                for _ in 0..4 {
                    cluster.run_for(Duration::from_millis(300)).await;
                    for pod in cluster.pods(&selector).await {
                        let name = pod.metadata.name.unwrap_or_default();
                        cluster.delete_with::<Pod>(&name, json!({"gracePeriodSeconds": 0})).await;
                    }
                }
                let all = async |cluster: &Cluster| cluster.pods(&selector).await.len() == 3;
                cluster.until("the pods are there again", Duration::from_secs(90), all).await;
            }
        });
    }
}

/// Deletes objects of a kind that own pods while the watch of them is behind.
fn delete_behind_its_watch<K>(object: impl Fn(&str) -> Value + Send + Sync)
where
    K: Resource<DynamicType = (), Scope: 'static>,
{
    for seed in 1..=2 {
        Cluster::builder().nodes(2).seed(seed).run(async |cluster| {
            for name in ["a", "b", "c"] {
                let selector = format!("app={name}");
                cluster.apply(object(name)).await;
                cluster.settle().await;
                let known: Vec<_> = cluster.pods(&selector).await.into_iter().map(|pod| pod.metadata.uid).collect();
                assert!(!known.is_empty());
                interrupt(&cluster).await;
                cluster.delete::<K>(name).await;
                let old = async |cluster: &Cluster| {
                    cluster.pods(&selector).await.iter().all(|pod| known.contains(&pod.metadata.uid))
                };
                cluster.always("no new pods", Duration::from_mins(2), old).await;
                assert!(cluster.pods(&selector).await.is_empty());
            }
        });
    }
}

/// The same as the replica set, of another kind.
fn of_kind(name: &str, kind: &str) -> Value {
    let mut object = set(name);
    object["kind"] = kind.into();
    match kind {
        "StatefulSet" => object["spec"]["serviceName"] = name.into(),
        "DaemonSet" => drop(object["spec"].as_object_mut().map(|spec| spec.remove("replicas"))),
        _ => {}
    }
    object
}

#[test]
fn a_replica_set_whose_deletion_the_watch_does_not_show_yet_makes_no_pods() {
    delete_behind_its_watch::<ReplicaSet>(set);
}

#[test]
fn a_stateful_set_whose_deletion_the_watch_does_not_show_yet_makes_no_pods() {
    delete_behind_its_watch::<StatefulSet>(|name| of_kind(name, "StatefulSet"));
}

#[test]
fn a_daemon_set_whose_deletion_the_watch_does_not_show_yet_makes_no_pods() {
    delete_behind_its_watch::<DaemonSet>(|name| of_kind(name, "DaemonSet"));
}

#[test]
fn a_deployment_whose_deletion_the_watch_does_not_show_yet_makes_no_pods() {
    delete_behind_its_watch::<Deployment>(|name| of_kind(name, "Deployment"));
}
