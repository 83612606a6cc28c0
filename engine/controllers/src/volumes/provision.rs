//! Volumes of our own class: a folder on one node, written down as a local volume that only that node can reach.

use k8s_openapi::api::core::v1::{Node, ObjectReference, PersistentVolume, PersistentVolumeClaim};
use k8s_openapi::api::storage::v1::StorageClass;
use kube::api::PostParams;
use kube::runtime::reflector::Store;
use kube::{Api, Client, Resource, ResourceExt};
use serde_json::json;

use super::PROVISIONED_BY;
use super::claim::LOCAL;
use crate::world::find;

/// The class that every cluster has: the name under which such a class is known elsewhere.
const CLASS: &str = "local-path";
/// Which node keeps a volume's folder; that node watches for it.
const NODE: &str = "shipway.dev/node";
/// Held by a volume until its node has removed the folder.
pub(super) const FOLDER: &str = "shipway.dev/folder";
/// Where a node says that it keeps such folders, and where it is taken to when it does not.
const FOLDERS: &str = "shipway.dev/volumes";
const ELSEWHERE: &str = "/var/lib/shipway/volumes";
const HOSTNAME: &str = "kubernetes.io/hostname";

/// Makes the class, unless there is one of the name.
pub(super) async fn ensure_class(client: &Client) -> Result<(), kube::Error> {
    let class = json!({
        "metadata": {"name": CLASS, "annotations": {"storageclass.kubernetes.io/is-default-class": "true"}},
        "provisioner": LOCAL,
        "reclaimPolicy": "Delete",
        "volumeBindingMode": "WaitForFirstConsumer",
        "allowVolumeExpansion": true,
    });
    let class: StorageClass = serde_json::from_value(class).expect("it is a class");
    let api: Api<StorageClass> = Api::all(client.clone());
    match api.create(&PostParams::default(), &class).await {
        Err(kube::Error::Api(status)) if status.code == 409 => Ok(()),
        other => other.map(drop),
    }
}

/// The volume for a claim, on a node. Its name follows from the claim, so that it is made once.
pub(super) fn volume(claim: &PersistentVolumeClaim, class: &StorageClass, node: &Node) -> PersistentVolume {
    let name = format!("pvc-{}", claim.metadata.uid.as_deref().unwrap_or_default());
    let folders = node.annotations().get(FOLDERS).map_or(ELSEWHERE, String::as_str);
    let host = node.labels().get(HOSTNAME).cloned().unwrap_or_else(|| node.name_any());
    let held = ObjectReference { field_path: None, ..claim.object_ref(&()) };
    let spec = claim.spec.as_ref();
    let size = spec.and_then(|spec| spec.resources.as_ref()?.requests.as_ref()?.get("storage"));
    let expression = json!({"key": HOSTNAME, "operator": "In", "values": [host]});
    let volume = json!({
        "metadata": {
            "name": name,
            "labels": {NODE: node.name_any()},
            "annotations": {PROVISIONED_BY: LOCAL},
            "finalizers": [FOLDER],
        },
        "spec": {
            "capacity": {"storage": size},
            "accessModes": spec.and_then(|spec| spec.access_modes.as_ref()),
            "persistentVolumeReclaimPolicy": class.reclaim_policy.as_deref().unwrap_or("Delete"),
            "storageClassName": class.name_any(),
            "volumeMode": "Filesystem",
            "claimRef": held,
            "local": {"path": format!("{folders}/{name}")},
            "nodeAffinity": {"required": {"nodeSelectorTerms": [{"matchExpressions": [expression]}]}},
        },
    });
    serde_json::from_value(volume).expect("it is a volume")
}

/// Whether a volume waits for a node that is gone to remove its folder.
pub(super) fn is_forsaken(volume: &PersistentVolume, nodes: &Store<Node>) -> bool {
    let node = volume.labels().get(NODE).and_then(|name| find(nodes, &(String::new(), name.clone())));
    volume.metadata.deletion_timestamp.is_some() && volume.finalizers().iter().any(|it| it == FOLDER) && node.is_none()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::volumes::matching::{best, is_reachable};
    use crate::volumes::testing::{claim, class, node};
    use std::sync::Arc;

    #[test]
    fn what_is_made_is_for_this_claim_on_this_node_alone() {
        let (wish, class) = (json!({"storageClassName": "local-path"}), class("local-path", LOCAL, "Immediate"));
        let claim = claim("c", "3Gi", &wish);
        let mut here = node("a");
        here.annotations_mut().insert(FOLDERS.to_owned(), "/srv/volumes".to_owned());
        let made = volume(&claim, &class, &here);
        assert_eq!(made.spec.as_ref().unwrap().local.as_ref().unwrap().path, "/srv/volumes/pvc-c-uid");
        assert!(is_reachable(&made, &here) && !is_reachable(&made, &node("b")));
        assert_eq!(
            best(&[Arc::new(made)], &claim, true, Some(&here)).map(|it| it.name_any()),
            Some("pvc-c-uid".into())
        );
    }
}
