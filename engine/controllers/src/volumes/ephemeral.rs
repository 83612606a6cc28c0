//! Claims that belong to one pod: a volume of kind `ephemeral` has a claim made for it, which goes with the pod.

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod, Volume};
use kube::api::{ObjectMeta, PostParams};
use kube::{Api, ResourceExt};
use shipway_driver::{Change, EventKind, Queue};
use tokio_util::sync::CancellationToken;

use crate::Key;
use crate::nodes::reference;
use crate::owned::{controller_reference, is_controlled_by, is_stale};
use crate::pods::{is_ending, is_finished};
use crate::world::{World, controller_of, find, key};

/// Makes such claims until stopped.
pub(crate) async fn run(world: World, stop: CancellationToken) {
    let queue = Arc::new(Queue::<Key>::new());
    let wake = queue.clone();
    world.pods.listen(move |change| {
        let pod = change.object();
        if wanted(pod).next().is_some() && !is_finished(pod) && !is_ending(pod) {
            wake.add(key(&**pod));
        }
    });
    let wake = queue.clone();
    let claims = world.cache::<PersistentVolumeClaim>();
    claims.listen(move |change| {
        if let Change::Deleted(claim) = change
            && let Some(pod) = controller_of(&**claim, "Pod")
        {
            wake.add(pod);
        }
    });
    let claims = claims.store();
    world
        .reconcile(queue, 2, stop, move |world, key| {
            let claims = claims.clone();
            async move {
                let pod = world.pods.get(&key).filter(|pod| !is_finished(pod) && !is_ending(pod));
                for claim in pod.iter().flat_map(|pod| wanted(pod)) {
                    let found = find(&claims, &(key.0.clone(), claim.name_any()));
                    make(&world, &claim, found.as_deref()).await?;
                }
                Ok(None::<Duration>)
            }
        })
        .await;
}

async fn make(
    world: &World,
    claim: &PersistentVolumeClaim,
    found: Option<&PersistentVolumeClaim>,
) -> Result<(), kube::Error> {
    let owner = claim.owner_references().first();
    if let Some(found) = found {
        let pod = owner.and_then(|owner| world.pods.get(&(found.namespace().unwrap_or_default(), owner.name.clone())));
        if let Some(pod) = pod.filter(|_| !is_controlled_by(found, owner.map(|owner| owner.uid.as_str()))) {
            let message = format!("PVC \"{}\" was not created for the pod", claim.name_any());
            world.recorder.event(&reference(&pod), EventKind::Warning, "FailedBinding", &message);
        }
        return Ok(());
    }
    let api: Api<PersistentVolumeClaim> = Api::namespaced(world.client.clone(), &claim.namespace().unwrap_or_default());
    match api.create(&PostParams::default(), claim).await {
        Err(error) if !is_stale(&error) => Err(error),
        _ => Ok(()),
    }
}

/// The claims that a pod's volumes describe.
fn wanted(pod: &Pod) -> impl Iterator<Item = PersistentVolumeClaim> {
    let volumes = pod.spec.iter().flat_map(|spec| spec.volumes.iter().flatten());
    volumes.filter_map(|volume| claim(pod, volume))
}

fn claim(pod: &Pod, volume: &Volume) -> Option<PersistentVolumeClaim> {
    let template = volume.ephemeral.as_ref()?.volume_claim_template.as_ref()?;
    let given = template.metadata.clone().unwrap_or_default();
    let metadata = ObjectMeta {
        name: Some(format!("{}-{}", pod.name_any(), volume.name)),
        namespace: pod.namespace(),
        labels: given.labels,
        annotations: given.annotations,
        owner_references: controller_reference(pod).map(|owner| vec![owner]),
        ..ObjectMeta::default()
    };
    Some(PersistentVolumeClaim { metadata, spec: Some(template.spec.clone()), status: None })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_claim_is_the_pods_and_as_the_template_says() {
        let spec = json!({"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}});
        let template = json!({"metadata": {"labels": {"a": "b"}}, "spec": spec});
        let volumes = json!([
            {"name": "scratch", "ephemeral": {"volumeClaimTemplate": template}},
            {"name": "tmp", "emptyDir": {}},
        ]);
        let pod: Pod = serde_json::from_value(json!({
            "metadata": {"name": "p", "namespace": "n", "uid": "u"}, "spec": {"containers": [], "volumes": volumes},
        }))
        .unwrap();
        let made: Vec<_> = wanted(&pod).collect();
        assert_eq!(made.len(), 1);
        assert_eq!((made[0].name_any(), made[0].labels()["a"].as_str()), ("p-scratch".to_owned(), "b"));
        assert!(is_controlled_by(&made[0], Some("u")));
    }
}
