//! What controllers and scheduler read of pods, of which there may be many: the rest is not kept in their cache.

use k8s_openapi::api::core::v1::{Container, Pod, Volume};

/// What `kubectl apply` remembers: the whole manifest once more.
const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";

/// Who looks at the images of a pod that has no node yet.
const SCHEDULER: &str = "default-scheduler";

/// Drops what only the node reads.
pub fn slim(pod: &mut Pod) {
    let own = |key: &String, _: &mut String| key.contains("kubernetes.io/") && key != LAST_APPLIED;
    pod.metadata.annotations.iter_mut().for_each(|annotations| annotations.retain(own));
    pod.metadata.annotations.take_if(|annotations| annotations.is_empty());
    let Some(spec) = &mut pod.spec else { return };
    if let Some(volumes) = &mut spec.volumes {
        volumes.retain(claims);
        volumes.shrink_to_fit();
    }
    let waits = spec.node_name.is_none() && spec.scheduler_name.as_deref().is_none_or(|name| name == SCHEDULER);
    for containers in std::iter::once(&mut spec.containers).chain(&mut spec.init_containers) {
        containers.retain(|container| waits || asks(container));
        containers.shrink_to_fit();
        containers.iter_mut().for_each(slim_container);
    }
}

/// Whether the container asks for anything that a node may lack, or has a port that a service may name. One is 2 kB.
fn asks(container: &Container) -> bool {
    let resources = container.resources.as_ref();
    let requests = resources.is_some_and(|it| it.requests.as_ref().is_some_and(|requests| !requests.is_empty()));
    let claims = resources.is_some_and(|it| it.claims.as_ref().is_some_and(|claims| !claims.is_empty()));
    requests || claims || container.ports.as_ref().is_some_and(|ports| !ports.is_empty())
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
                "nodeName": "n",
                "nodeSelector": {"disk": "fast"},
                "volumes": [{"name": "data", "persistentVolumeClaim": {"claimName": "data"}}, {"name": "tmp", "emptyDir": {}}],
                "containers": [{"name": "c", "env": [{"name": "A", "value": "1"}], "ports": [{"containerPort": 80}],
                    "resources": {"requests": {"cpu": "1"}}}, {"name": "idle", "resources": {}}],
                "initContainers": [{"name": "first"}],
            },
        }))
        .unwrap();
        slim(&mut pod);
        let kept = json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": "a", "labels": {"app": "a"}, "annotations": {COST: "1"}},
            "spec": {
                "nodeName": "n",
                "nodeSelector": {"disk": "fast"},
                "volumes": [{"name": "data", "persistentVolumeClaim": {"claimName": "data"}}],
                "containers": [{"name": "c", "ports": [{"containerPort": 80}], "resources": {"requests": {"cpu": "1"}}}],
                "initContainers": [],
            },
        });
        assert_eq!(serde_json::to_value(&pod).unwrap(), kept);
    }
    #[test]
    fn the_images_of_a_pod_are_kept_until_it_has_a_node() {
        let images = |spec: serde_json::Value| {
            let mut pod: Pod = serde_json::from_value(json!({"metadata": {"name": "a"}, "spec": spec})).unwrap();
            slim(&mut pod);
            let containers = pod.spec.unwrap_or_default().containers;
            containers.into_iter().filter_map(|container| container.image).collect::<Vec<_>>()
        };
        let containers = json!([{"name": "c", "image": "i"}]);
        assert_eq!(images(json!({"containers": containers})), ["i"]);
        assert_eq!(images(json!({"containers": containers, "nodeName": "n"})), [""; 0]);
        assert_eq!(images(json!({"containers": containers, "schedulerName": "other"})), [""; 0]);
    }
}
