//! What is in use does not go: a claim while a pod has it, a volume while a claim has it. Pure.

use std::sync::Arc;

use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim, Pod, Volume};
use kube::ResourceExt;

use crate::nodes::node_of;
use crate::pods::is_finished;

/// The finalizers, which admission gives to every new claim and volume.
pub(super) const CLAIM: &str = "kubernetes.io/pvc-protection";
pub(super) const VOLUME: &str = "kubernetes.io/pv-protection";

/// The claims that a pod names, those made for it included.
pub(super) fn claims(pod: &Pod) -> impl Iterator<Item = String> {
    let name = pod.name_any();
    let volumes = pod.spec.iter().flat_map(|spec| spec.volumes.iter().flatten());
    volumes.filter_map(move |volume| claim_of(volume, &name))
}

fn claim_of(volume: &Volume, pod: &str) -> Option<String> {
    let named = volume.persistent_volume_claim.as_ref().map(|claim| claim.claim_name.clone());
    named.or_else(|| volume.ephemeral.as_ref().map(|_| format!("{pod}-{}", volume.name)))
}

/// Whether the pod is to have the claim and has not come to its end.
pub(super) fn wants(pod: &Pod, claim: &str) -> bool {
    !is_finished(pod) && claims(pod).any(|name| name == claim)
}

/// Whether nothing but our finalizer keeps a claim that is to go.
pub(super) fn may_go(claim: &PersistentVolumeClaim, pods: &[Arc<Pod>]) -> bool {
    let name = claim.name_any();
    claim.metadata.deletion_timestamp.is_some()
        && claim.finalizers().iter().any(|it| it == CLAIM)
        && !pods.iter().any(|pod| node_of(pod).is_some() && wants(pod, &name))
}

/// Whether nothing but our finalizer keeps a volume that is to go.
pub(super) fn volume_may_go(volume: &PersistentVolume) -> bool {
    let phase = volume.status.as_ref().and_then(|status| status.phase.as_deref());
    volume.metadata.deletion_timestamp.is_some()
        && volume.finalizers().iter().any(|it| it == VOLUME)
        && phase != Some("Bound")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::volumes::testing::{claim, volume};
    use serde_json::{Value, json};

    fn pod(volumes: &Value, node: Option<&str>, phase: &str) -> Arc<Pod> {
        let spec = json!({"containers": [], "nodeName": node, "volumes": volumes});
        let object = json!({"metadata": {"name": "p"}, "spec": spec, "status": {"phase": phase}});
        Arc::new(serde_json::from_value(object).unwrap())
    }

    fn going<K: kube::Resource>(object: &mut K, finalizer: &str) {
        object.finalizers_mut().push(finalizer.to_owned());
        object.meta_mut().deletion_timestamp = serde_json::from_value(json!("2026-01-01T00:00:00Z")).unwrap();
    }

    #[test]
    fn a_claim_stays_as_long_as_a_pod_on_a_node_has_it() {
        let has = json!([{"name": "v", "persistentVolumeClaim": {"claimName": "c"}}]);
        let other = json!([{"name": "v", "persistentVolumeClaim": {"claimName": "d"}}, {"name": "e", "emptyDir": {}}]);
        let mut wanted = claim("c", "1Gi", &json!({}));
        assert!(!may_go(&wanted, &[]), "nobody asked it to");
        going(&mut wanted, CLAIM);
        for (pods, expected) in [
            (vec![], true),
            (vec![pod(&has, Some("a"), "Running")], false),
            (vec![pod(&has, None, "Pending")], true),
            (vec![pod(&has, Some("a"), "Succeeded")], true),
            (vec![pod(&other, Some("a"), "Running")], true),
        ] {
            assert_eq!(may_go(&wanted, &pods), expected, "{pods:?}");
        }
        let made = json!([{"name": "scratch", "ephemeral": {"volumeClaimTemplate": {"spec": {}}}}]);
        assert_eq!(claims(&pod(&made, None, "Pending")).collect::<Vec<_>>(), ["p-scratch"]);
    }

    #[test]
    fn a_volume_stays_as_long_as_it_is_bound() {
        let mut volume = PersistentVolume::clone(&volume("v", "1Gi", &json!({})));
        going(&mut volume, VOLUME);
        assert!(volume_may_go(&volume));
        volume.status = Some(serde_json::from_value(json!({"phase": "Bound"})).unwrap());
        assert!(!volume_may_go(&volume));
    }
}
