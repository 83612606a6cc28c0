//! What controllers do while their watches are behind: after a restart of the API server each watch comes back in its own
//! time, and until then what it shows is not what there is.

use std::time::Duration;

use k8s_openapi::api::apps::v1::ReplicaSet;
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
fn a_set_whose_deletion_the_watch_does_not_show_yet_makes_no_pods() {
    for seed in 1..=2 {
        Cluster::builder().nodes(2).seed(seed).run(async |cluster| {
            for name in ["a", "b", "c"] {
                let selector = format!("app={name}");
                cluster.apply(set(name)).await;
                cluster.settle().await;
                let known: Vec<_> = cluster.pods(&selector).await.into_iter().map(|pod| pod.metadata.uid).collect();
                interrupt(&cluster).await;
                cluster.delete::<ReplicaSet>(name).await;
                let old = async |cluster: &Cluster| {
                    cluster.pods(&selector).await.iter().all(|pod| known.contains(&pod.metadata.uid))
                };
                cluster.always("no new pods", Duration::from_mins(2), old).await;
                assert!(cluster.pods(&selector).await.is_empty());
            }
        });
    }
}
