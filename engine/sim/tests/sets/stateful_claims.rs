//! The storage of each pod: made before it, kept or taken away by the retention policy.

use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod};
use kube::ResourceExt;
use serde_json::{Value, json};
use shipway_sim::Cluster;

use crate::fixture::{MINUTE, stateful, told};

/// A set in which nobody waits for others: the claims here are bound by nobody.
fn with_claims(replicas: i32, policy: &Value) -> Value {
    let spec = json!({"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}});
    let template = json!({"metadata": {"name": "data", "labels": {"tier": "disk"}}, "spec": spec});
    let mut set = stateful(&json!({
        "replicas": replicas, "podManagementPolicy": "Parallel", "volumeClaimTemplates": [template],
        "persistentVolumeClaimRetentionPolicy": policy,
    }));
    set["spec"]["template"]["spec"]["containers"][0]["volumeMounts"] = json!([{"name": "data", "mountPath": "/data"}]);
    set
}

fn policy(deleted: &str, scaled: &str) -> Value {
    json!({"whenDeleted": deleted, "whenScaled": scaled})
}

async fn claims(cluster: &Cluster) -> Vec<String> {
    let claims: Vec<PersistentVolumeClaim> = cluster.list("default", "app=web").await;
    claims.iter().filter(|claim| claim.metadata.deletion_timestamp.is_none()).map(ResourceExt::name_any).collect()
}

async fn owner(cluster: &Cluster, claim: &str) -> Option<String> {
    let claim: PersistentVolumeClaim = cluster.get(claim).await.unwrap();
    claim.owner_references().first().map(|owner| owner.kind.clone())
}

#[test]
fn each_pod_has_a_claim_of_each_template() {
    Cluster::builder().run(async |cluster| {
        cluster.apply(with_claims(2, &policy("Retain", "Retain"))).await;
        cluster.settle().await;
        assert_eq!(claims(&cluster).await, ["data-web-0", "data-web-1"]);
        let claim: PersistentVolumeClaim = cluster.get("data-web-1").await.unwrap();
        assert_eq!((claim.labels()["app"].as_str(), claim.labels()["tier"].as_str()), ("web", "disk"));
        let pod: Pod = cluster.get("web-1").await.unwrap();
        let volume = &pod.spec.unwrap().volumes.unwrap()[0];
        let named = volume.persistent_volume_claim.as_ref().unwrap().claim_name.as_str();
        assert_eq!((volume.name.as_str(), named), ("data", "data-web-1"));
        let told = told(&cluster, "SuccessfulCreate").await;
        assert!(told.contains(&"create Claim data-web-0 Pod web-0 in StatefulSet web success".to_owned()), "{told:?}");
    });
}

#[test]
fn a_claim_that_is_there_is_taken_up() {
    Cluster::builder().run(async |cluster| {
        let claim = json!({"apiVersion": "v1", "kind": "PersistentVolumeClaim",
            "metadata": {"name": "data-web-0", "namespace": "default"},
            "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "7Gi"}}}});
        let before = cluster.apply(claim).await;
        cluster.apply(with_claims(1, &policy("Retain", "Retain"))).await;
        cluster.settle().await;
        let after: PersistentVolumeClaim = cluster.get("data-web-0").await.unwrap();
        assert_eq!(after.metadata.uid.as_deref(), before["metadata"]["uid"].as_str());
        assert!(cluster.get::<Pod>("web-0").await.is_some());
    });
}

#[test]
fn claims_stay_when_the_set_shrinks_or_goes() {
    Cluster::builder().run(async |cluster| {
        cluster.apply(with_claims(2, &policy("Retain", "Retain"))).await;
        cluster.settle().await;
        cluster.scale::<StatefulSet>("web", 1).await;
        cluster.settle().await;
        assert_eq!(claims(&cluster).await, ["data-web-0", "data-web-1"]);
        assert_eq!(owner(&cluster, "data-web-1").await, None);
        cluster.delete::<StatefulSet>("web").await;
        cluster.settle().await;
        assert_eq!(claims(&cluster).await, ["data-web-0", "data-web-1"]);
    });
}

#[test]
fn claims_go_with_the_set_where_that_is_said() {
    Cluster::builder().run(async |cluster| {
        cluster.apply(with_claims(2, &policy("Delete", "Retain"))).await;
        cluster.settle().await;
        assert_eq!(owner(&cluster, "data-web-0").await.as_deref(), Some("StatefulSet"));
        cluster.scale::<StatefulSet>("web", 1).await;
        cluster.settle().await;
        assert_eq!(claims(&cluster).await, ["data-web-0", "data-web-1"], "not by scaling");
        cluster.delete::<StatefulSet>("web").await;
        cluster.settle().await;
        assert!(claims(&cluster).await.is_empty());
    });
}

#[test]
fn claims_go_with_pods_that_scaling_takes_where_that_is_said() {
    Cluster::builder().run(async |cluster| {
        cluster.apply(with_claims(3, &policy("Retain", "Delete"))).await;
        cluster.settle().await;
        assert_eq!(owner(&cluster, "data-web-2").await, None);
        cluster.scale::<StatefulSet>("web", 1).await;
        cluster.settle().await;
        assert_eq!(claims(&cluster).await, ["data-web-0"]);
        cluster.delete::<StatefulSet>("web").await;
        cluster.settle().await;
        assert_eq!(claims(&cluster).await, ["data-web-0"], "not by deleting the set");
    });
}

#[test]
fn a_pod_that_is_replaced_keeps_its_claim_under_every_policy() {
    for (deleted, scaled) in [("Retain", "Delete"), ("Delete", "Delete"), ("Delete", "Retain")] {
        Cluster::builder().run(async |cluster| {
            cluster.apply(with_claims(2, &policy(deleted, scaled))).await;
            cluster.settle().await;
            let before: PersistentVolumeClaim = cluster.get("data-web-1").await.unwrap();
            let pod: Pod = cluster.get("web-1").await.unwrap();
            cluster.delete::<Pod>("web-1").await;
            cluster.settle().await;
            let after: PersistentVolumeClaim = cluster.get("data-web-1").await.unwrap();
            assert_eq!(before.metadata.uid, after.metadata.uid, "{deleted} {scaled}");
            assert_ne!(cluster.get::<Pod>("web-1").await.unwrap().metadata.uid, pod.metadata.uid);
        });
    }
}

#[test]
fn scaled_up_again_a_pod_gets_a_claim_of_its_own() {
    Cluster::builder().run(async |cluster| {
        cluster.apply(with_claims(2, &policy("Delete", "Delete"))).await;
        cluster.settle().await;
        let before: PersistentVolumeClaim = cluster.get("data-web-1").await.unwrap();
        cluster.scale::<StatefulSet>("web", 1).await;
        cluster.run_for(std::time::Duration::from_millis(200)).await;
        cluster.scale::<StatefulSet>("web", 2).await;
        let both = async |cluster: &Cluster| {
            let pod: Option<Pod> = cluster.get("web-1").await;
            pod.is_some_and(|pod| pod.metadata.deletion_timestamp.is_none()) && claims(cluster).await.len() == 2
        };
        cluster.until("pod and claim are there", MINUTE, both).await;
        cluster.settle().await;
        let after: PersistentVolumeClaim = cluster.get("data-web-1").await.unwrap();
        assert_ne!(before.metadata.uid, after.metadata.uid);
        assert_eq!(owner(&cluster, "data-web-1").await.as_deref(), Some("StatefulSet"));
    });
}

#[test]
fn the_policy_may_change() {
    Cluster::builder().run(async |cluster| {
        cluster.apply(with_claims(1, &policy("Retain", "Retain"))).await;
        cluster.settle().await;
        for (deleted, expected) in [("Delete", Some("StatefulSet")), ("Retain", None)] {
            cluster.apply(with_claims(1, &policy(deleted, "Retain"))).await;
            cluster.settle().await;
            assert_eq!(owner(&cluster, "data-web-0").await.as_deref(), expected);
        }
    });
}
