//! What controllers and scheduler read of pods, of which there may be many: the rest is not kept in their cache.

use k8s_openapi::api::core::v1::{Container, Pod, Volume};

/// What `kubectl apply` remembers: the whole manifest once more.
const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";

/// Drops what only the node reads.
pub(crate) fn slim(pod: &mut Pod) {
    let own = |key: &String, _: &mut String| key.contains("kubernetes.io/") && key != LAST_APPLIED;
    pod.metadata.annotations.iter_mut().for_each(|annotations| annotations.retain(own));
    pod.metadata.annotations.take_if(|annotations| annotations.is_empty());
    let Some(spec) = &mut pod.spec else { return };
    if let Some(volumes) = &mut spec.volumes {
        volumes.retain(claims);
        volumes.shrink_to_fit();
    }
    spec.containers.iter_mut().chain(spec.init_containers.iter_mut().flatten()).for_each(slim_container);
}

/// Whether where the pod may run depends on the volume.
fn claims(volume: &Volume) -> bool {
    volume.persistent_volume_claim.is_some() || volume.ephemeral.is_some() || volume.csi.is_some()
}

fn slim_container(container: &mut Container) {
    let Container { name, image, ports, resources, restart_policy, .. } = std::mem::take(container);
    *container = Container { name, image, ports, resources, restart_policy, ..Container::default() };
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const COST: &str = "controller.kubernetes.io/pod-deletion-cost";

    #[test]
    fn what_decides_about_a_pod_is_kept() {
        let mut pod: Pod = serde_json::from_value(json!({
            "metadata": {"name": "a", "labels": {"app": "a"}, "annotations": {LAST_APPLIED: "{}", "note": "1", COST: "1"}},
            "spec": {
                "nodeSelector": {"disk": "fast"},
                "volumes": [{"name": "data", "persistentVolumeClaim": {"claimName": "data"}}, {"name": "tmp", "emptyDir": {}}],
                "containers": [{"name": "c", "env": [{"name": "A", "value": "1"}], "ports": [{"containerPort": 80}],
                    "resources": {"requests": {"cpu": "1"}}}],
            },
        }))
        .unwrap();
        slim(&mut pod);
        let kept = json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": "a", "labels": {"app": "a"}, "annotations": {COST: "1"}},
            "spec": {
                "nodeSelector": {"disk": "fast"},
                "volumes": [{"name": "data", "persistentVolumeClaim": {"claimName": "data"}}],
                "containers": [{"name": "c", "ports": [{"containerPort": 80}], "resources": {"requests": {"cpu": "1"}}}],
            },
        });
        assert_eq!(serde_json::to_value(&pod).unwrap(), kept);
    }
}
