//! Claims and volumes.

use k8s_openapi::api::core::v1::{Node, PersistentVolume, PersistentVolumeClaim, Pod};
use k8s_openapi::api::storage::v1::StorageClass;
use serde_json::{Value, json};
use shipway_sim::Cluster;

use super::{MINUTE, pod, ready, seconds, told};

fn volume(name: &str, size: &str, more: &Value) -> Value {
    let mut spec =
        json!({"capacity": {"storage": size}, "accessModes": ["ReadWriteOnce"], "hostPath": {"path": "/data"}});
    for (field, value) in more.as_object().into_iter().flatten() {
        spec[field] = value.clone();
    }
    json!({"apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": name}, "spec": spec})
}

fn claim(name: &str, size: &str, more: &Value) -> Value {
    let mut spec = json!({"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": size}}});
    for (field, value) in more.as_object().into_iter().flatten() {
        spec[field] = value.clone();
    }
    json!({"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": name}, "spec": spec})
}

fn uses(name: &str) -> Value {
    json!({"volumes": [{"name": "data", "persistentVolumeClaim": {"claimName": name}}]})
}

async fn claim_phase(cluster: &Cluster, name: &str) -> String {
    let claim: PersistentVolumeClaim = cluster.get(name).await.unwrap();
    claim.status.and_then(|status| status.phase).unwrap_or_default()
}

async fn phase(cluster: &Cluster, name: &str) -> String {
    let volume: Option<PersistentVolume> = cluster.get(&format!("/{name}")).await;
    volume.map_or_else(|| "gone".to_owned(), |volume| volume.status.and_then(|status| status.phase).unwrap_or_default())
}

async fn volume_of(cluster: &Cluster, name: &str) -> PersistentVolume {
    let bound = async |cluster: &Cluster| claim_phase(cluster, name).await == "Bound";
    cluster.until(&format!("{name} is bound"), seconds(5), bound).await;
    let claim: PersistentVolumeClaim = cluster.get(name).await.unwrap();
    cluster.get(&format!("/{}", claim.spec.unwrap().volume_name.unwrap())).await.unwrap()
}

#[test]
fn a_volume_waits_for_a_claim_that_it_suits() {
    Cluster::builder().run(async |cluster| {
        cluster.apply(volume("v", "5Gi", &json!({}))).await;
        cluster.run_for(seconds(1)).await;
        assert_eq!(phase(&cluster, "v").await, "Available");
        cluster.apply(claim("large", "9Gi", &json!({"storageClassName": ""}))).await;
        cluster.apply(claim("c", "3Gi", &json!({"storageClassName": ""}))).await;
        assert_eq!(volume_of(&cluster, "c").await.metadata.name.as_deref(), Some("v"));
        assert_eq!(
            (phase(&cluster, "v").await, claim_phase(&cluster, "large").await),
            ("Bound".into(), "Pending".into())
        );
        let claim: PersistentVolumeClaim = cluster.get("c").await.unwrap();
        assert_eq!(claim.status.unwrap().capacity.unwrap()["storage"].0, "5Gi");
        assert!(told(&cluster, "FailedBinding", "no persistent volumes available for this claim").await);
        cluster.apply(volume("w", "9Gi", &json!({}))).await;
        assert_eq!(volume_of(&cluster, "large").await.metadata.name.as_deref(), Some("w"));
    });
}

#[test]
fn a_volume_that_was_set_aside_is_for_one_claim_only() {
    Cluster::builder().run(async |cluster| {
        let held = json!({"claimRef": {"namespace": "default", "name": "mine"}});
        cluster.apply(volume("v", "5Gi", &held)).await;
        cluster.apply(claim("other", "1Gi", &json!({"storageClassName": ""}))).await;
        cluster.run_for(seconds(2)).await;
        assert_eq!(claim_phase(&cluster, "other").await, "Pending");
        cluster.apply(claim("mine", "1Gi", &json!({"storageClassName": ""}))).await;
        assert_eq!(volume_of(&cluster, "mine").await.metadata.name.as_deref(), Some("v"));
    });
}

#[test]
fn a_claim_that_names_a_volume_gets_that_one() {
    Cluster::builder().run(async |cluster| {
        cluster.apply(volume("small", "1Gi", &json!({}))).await;
        cluster.apply(volume("large", "9Gi", &json!({}))).await;
        cluster.apply(claim("c", "1Gi", &json!({"storageClassName": "", "volumeName": "large"}))).await;
        assert_eq!(volume_of(&cluster, "c").await.metadata.name.as_deref(), Some("large"));
        assert_eq!(phase(&cluster, "small").await, "Available");
    });
}

#[test]
fn every_cluster_has_a_class_that_is_the_default() {
    Cluster::builder().run(async |cluster| {
        let class: StorageClass = cluster.get("/local-path").await.unwrap();
        assert_eq!(class.volume_binding_mode.as_deref(), Some("WaitForFirstConsumer"));
        cluster.apply(claim("c", "1Gi", &json!({}))).await;
        let claim: PersistentVolumeClaim = cluster.get("c").await.unwrap();
        assert_eq!(claim.spec.unwrap().storage_class_name.as_deref(), Some("local-path"));
        assert_eq!(claim.metadata.finalizers.unwrap(), ["kubernetes.io/pvc-protection"]);
    });
}

#[test]
fn a_claim_of_the_default_class_gets_a_folder_where_its_pod_runs() {
    Cluster::builder().nodes(2).run(async |cluster| {
        cluster.apply(claim("c", "2Gi", &json!({}))).await;
        cluster.run_for(seconds(10)).await;
        assert_eq!(claim_phase(&cluster, "c").await, "Pending");
        assert!(told(&cluster, "WaitForFirstConsumer", "waiting for first consumer").await);
        cluster.apply(pod("a", "node-1", uses("c"))).await;
        let made = volume_of(&cluster, "c").await;
        let spec = made.spec.unwrap();
        assert_eq!(made.metadata.labels.unwrap()["shipway.dev/node"], "node-1");
        assert!(spec.local.is_some() && json!(spec.node_affinity).to_string().contains("node-1"));
        assert_eq!(spec.persistent_volume_reclaim_policy.as_deref(), Some("Delete"));
        assert_eq!(spec.capacity.unwrap()["storage"].0, "2Gi");
        cluster.run_for(seconds(1)).await;
        assert!(told(&cluster, "ProvisioningSucceeded", "Successfully provisioned volume pvc-").await);
    });
}

#[test]
fn the_scheduler_says_where_a_volume_is_made_and_finds_it_again() {
    Cluster::builder().nodes(3).run(async |cluster| {
        cluster.apply(claim("c", "2Gi", &json!({}))).await;
        cluster.apply(pod("a", "", uses("c"))).await;
        let first = ready(&cluster, "a").await.spec.unwrap().node_name.unwrap();
        let made = volume_of(&cluster, "c").await;
        assert_eq!(made.metadata.labels.unwrap()["shipway.dev/node"], first);
        cluster.delete::<Pod>("a").await;
        for name in ["b", "d"] {
            cluster.apply(pod(name, "", uses("c"))).await;
            assert_eq!(ready(&cluster, name).await.spec.unwrap().node_name.unwrap(), first, "where the volume is");
        }
    });
}

#[test]
fn a_claim_goes_when_its_last_pod_has_and_takes_its_volume_along() {
    Cluster::builder().run(async |cluster| {
        cluster.apply(claim("c", "1Gi", &json!({}))).await;
        cluster.apply(pod("a", "node-0", uses("c"))).await;
        let name = volume_of(&cluster, "c").await.metadata.name.unwrap();
        ready(&cluster, "a").await;
        cluster.delete::<PersistentVolumeClaim>("c").await;
        let there = async |cluster: &Cluster| {
            cluster.get::<PersistentVolumeClaim>("c").await.is_some() && phase(cluster, &name).await == "Bound"
        };
        cluster.always("it is in use", MINUTE, there).await;
        cluster.delete::<Pod>("a").await;
        let released = async |cluster: &Cluster| {
            cluster.get::<PersistentVolumeClaim>("c").await.is_none() && phase(cluster, &name).await == "Released"
        };
        cluster.until("the claim is gone", seconds(40), released).await;
        cluster.run_for(seconds(1)).await;
        let volume: PersistentVolume = cluster.get(&format!("/{name}")).await.unwrap();
        assert!(volume.metadata.deletion_timestamp.is_some());
        assert_eq!(volume.metadata.finalizers.unwrap(), ["shipway.dev/folder"], "it waits for its node alone");
        cluster.patch::<PersistentVolume>(&format!("/{name}"), json!({"metadata": {"finalizers": null}})).await;
        assert_eq!(phase(&cluster, &name).await, "gone");
    });
}

#[test]
fn a_volume_for_one_pod_has_a_claim_that_goes_with_it() {
    Cluster::builder().run(async |cluster| {
        let spec = json!({"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}});
        let template = json!({"metadata": {"labels": {"for": "scratch"}}, "spec": spec});
        let volumes = json!([{"name": "scratch", "ephemeral": {"volumeClaimTemplate": template}}]);
        cluster.apply(pod("a", "", json!({"volumes": volumes}))).await;
        ready(&cluster, "a").await;
        let claim: PersistentVolumeClaim = cluster.get("a-scratch").await.unwrap();
        assert_eq!(claim.metadata.labels.unwrap()["for"], "scratch");
        volume_of(&cluster, "a-scratch").await;
        cluster.delete::<Pod>("a").await;
        let gone = async |cluster: &Cluster| cluster.get::<PersistentVolumeClaim>("a-scratch").await.is_none();
        cluster.until("the claim goes with the pod", MINUTE, gone).await;
    });
}

#[test]
fn what_is_to_be_retained_is_released_and_for_nobody_else() {
    Cluster::builder().run(async |cluster| {
        cluster.apply(volume("v", "5Gi", &json!({"persistentVolumeReclaimPolicy": "Retain"}))).await;
        cluster.apply(claim("c", "1Gi", &json!({"storageClassName": ""}))).await;
        volume_of(&cluster, "c").await;
        cluster.delete::<PersistentVolumeClaim>("c").await;
        cluster.until("released", seconds(5), async |cluster| phase(cluster, "v").await == "Released").await;
        cluster.apply(claim("d", "1Gi", &json!({"storageClassName": ""}))).await;
        cluster.run_for(seconds(5)).await;
        assert_eq!(
            (phase(&cluster, "v").await, claim_phase(&cluster, "d").await),
            ("Released".into(), "Pending".into())
        );
        cluster.patch::<PersistentVolume>("/v", json!({"spec": {"claimRef": null}})).await;
        assert_eq!(volume_of(&cluster, "d").await.metadata.name.as_deref(), Some("v"));
    });
}

#[test]
fn a_volume_that_nobody_can_recycle_fails() {
    Cluster::builder().run(async |cluster| {
        cluster.apply(volume("v", "5Gi", &json!({"persistentVolumeReclaimPolicy": "Recycle"}))).await;
        cluster.apply(claim("c", "1Gi", &json!({"storageClassName": ""}))).await;
        volume_of(&cluster, "c").await;
        cluster.delete::<PersistentVolumeClaim>("c").await;
        cluster.until("failed", seconds(5), async |cluster| phase(cluster, "v").await == "Failed").await;
    });
}

#[test]
fn a_claim_whose_volume_was_taken_away_is_lost() {
    Cluster::builder().run(async |cluster| {
        cluster.apply(volume("v", "5Gi", &json!({}))).await;
        cluster.apply(claim("c", "1Gi", &json!({"storageClassName": ""}))).await;
        volume_of(&cluster, "c").await;
        cluster.delete::<PersistentVolume>("/v").await;
        cluster.run_for(seconds(2)).await;
        assert_eq!((phase(&cluster, "v").await, claim_phase(&cluster, "c").await), ("Bound".into(), "Bound".into()));
        cluster.patch::<PersistentVolume>("/v", json!({"metadata": {"finalizers": null}})).await;
        cluster.until("lost", seconds(5), async |cluster| claim_phase(cluster, "c").await == "Lost").await;
        cluster.run_for(seconds(1)).await;
        assert!(told(&cluster, "ClaimLost", "Data on the volume is lost").await);
    });
}

#[test]
fn a_claim_of_the_default_class_grows() {
    Cluster::builder().run(async |cluster| {
        cluster.apply(claim("c", "1Gi", &json!({}))).await;
        cluster.apply(pod("a", "node-0", uses("c"))).await;
        volume_of(&cluster, "c").await;
        let larger = json!({"spec": {"resources": {"requests": {"storage": "3Gi"}}}});
        cluster.patch::<PersistentVolumeClaim>("c", larger).await;
        cluster.run_for(seconds(1)).await;
        let claim: PersistentVolumeClaim = cluster.get("c").await.unwrap();
        assert_eq!(claim.status.unwrap().capacity.unwrap()["storage"].0, "3Gi");
        assert_eq!(volume_of(&cluster, "c").await.spec.unwrap().capacity.unwrap()["storage"].0, "3Gi");
    });
}

#[test]
fn somebody_elses_class_is_left_to_them() {
    Cluster::builder().run(async |cluster| {
        let class = json!({"apiVersion": "storage.k8s.io/v1", "kind": "StorageClass", "metadata": {"name": "disk"},
            "provisioner": "example.com/disk"});
        cluster.apply(class).await;
        cluster.apply(claim("c", "1Gi", &json!({"storageClassName": "disk"}))).await;
        cluster.run_for(seconds(2)).await;
        let claim: PersistentVolumeClaim = cluster.get("c").await.unwrap();
        let notes = claim.metadata.annotations.unwrap();
        assert_eq!(notes["volume.kubernetes.io/storage-provisioner"], "example.com/disk");
        assert!(told(&cluster, "ExternalProvisioning", "example.com/disk").await);
    });
}

#[test]
fn the_volume_of_a_node_that_is_gone_for_good_goes_without_it() {
    Cluster::builder().nodes(2).run(async |cluster| {
        cluster.apply(claim("c", "1Gi", &json!({}))).await;
        cluster.apply(pod("a", "node-1", uses("c"))).await;
        ready(&cluster, "a").await;
        let name = volume_of(&cluster, "c").await.metadata.name.unwrap();
        cluster.kill_node("node-1");
        cluster.delete_with::<Pod>("a", json!({"gracePeriodSeconds": 0})).await;
        cluster.delete::<PersistentVolumeClaim>("c").await;
        let waits = async |cluster: &Cluster| phase(cluster, &name).await != "gone";
        cluster.always("a node that may come back has to remove the folder", MINUTE, waits).await;
        assert!(cluster.get::<PersistentVolumeClaim>("c").await.is_none());
        cluster.delete::<Node>("/node-1").await;
        cluster.until("nobody is waited for", seconds(5), async |cluster| phase(cluster, &name).await == "gone").await;
    });
}
