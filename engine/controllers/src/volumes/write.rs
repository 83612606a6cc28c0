//! What is written of claims and volumes, each time against the version that was decided on.

use k8s_openapi::api::core::v1::{Node, PersistentVolume, PersistentVolumeClaim};
use k8s_openapi::api::storage::v1::StorageClass;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams, Preconditions};
use kube::{Api, Resource, ResourceExt};
use serde_json::{Value, json};
use shipway_driver::EventKind;

use super::claim::{self, Told};
use super::{PROVISIONER, Volumes, matching, provision, reference, volume};

impl Volumes {
    /// Writes on both sides what is missing, the volume first: it decides between two claims.
    pub(super) async fn bind(
        &self,
        claim: &PersistentVolumeClaim,
        volume: &PersistentVolume,
    ) -> Result<(), kube::Error> {
        let held = volume.spec.as_ref().and_then(|spec| spec.claim_ref.as_ref());
        let mut held_by = volume.clone();
        if held.and_then(|held| held.uid.as_ref()) != claim.metadata.uid.as_ref() {
            let mut patch = json!({"metadata": {"resourceVersion": volume.metadata.resource_version},
                "spec": {"claimRef": reference(claim)}});
            if held.is_none() {
                patch["metadata"]["annotations"] = json!({volume::BY_CONTROLLER: "yes"});
            }
            let api: Api<PersistentVolume> = Api::all(self.world.client.clone());
            held_by = api.patch(&volume.name_any(), &PatchParams::default(), &Patch::Merge(patch)).await?;
        }
        self.set_phase(&held_by, "Bound").await?;
        let spec = held_by.spec.clone().unwrap_or_default();
        let mut notes = json!({claim::BOUND: "yes"});
        if claim.spec.as_ref().is_none_or(|spec| spec.volume_name.is_none()) {
            notes[volume::BY_CONTROLLER] = "yes".into();
        }
        let patch = json!({
            "metadata": {"resourceVersion": claim.metadata.resource_version, "annotations": notes},
            "spec": {"volumeName": volume.name_any()},
        });
        let api: Api<PersistentVolumeClaim> = self.claim_api(claim);
        let written = api.patch(&claim.name_any(), &PatchParams::default(), &Patch::Merge(patch)).await?;
        let status = json!({"phase": "Bound", "accessModes": spec.access_modes, "capacity": spec.capacity});
        self.write_status(&written, &status).await
    }

    pub(super) async fn provision(
        &self,
        claim: &PersistentVolumeClaim,
        class: &StorageClass,
        node: &Node,
    ) -> Result<(), kube::Error> {
        let wanted = provision::volume(claim, class, node);
        let name = wanted.name_any();
        let api: Api<PersistentVolume> = Api::all(self.world.client.clone());
        self.annotate_provisioner(claim, claim::LOCAL).await?;
        match api.create(&PostParams::default(), &wanted).await {
            // It was made before; the watch brings it.
            Err(kube::Error::Api(status)) if status.code == 409 => return Ok(()),
            other => drop(other?),
        }
        let message = format!("Successfully provisioned volume {name}");
        let told = Told { warning: false, reason: "ProvisioningSucceeded", message };
        self.tell(claim, &told);
        Ok(())
    }

    pub(super) async fn ask(&self, claim: &PersistentVolumeClaim, whom: &str) -> Result<(), kube::Error> {
        let message = format!(
            "Waiting for a volume to be created either by the external provisioner '{whom}' or manually by the system \
             administrator. If volume creation is delayed, please verify that the provisioner is running and correctly \
             registered."
        );
        self.tell(claim, &Told { warning: false, reason: "ExternalProvisioning", message });
        self.annotate_provisioner(claim, whom).await
    }

    async fn annotate_provisioner(&self, claim: &PersistentVolumeClaim, whom: &str) -> Result<(), kube::Error> {
        if PROVISIONER.iter().all(|note| claim.annotations().get(*note).is_some_and(|known| known == whom)) {
            return Ok(());
        }
        let notes: serde_json::Map<String, Value> =
            PROVISIONER.iter().map(|note| ((*note).to_owned(), whom.into())).collect();
        let patch = json!({"metadata": {"uid": claim.metadata.uid, "annotations": notes}});
        let api = self.claim_api(claim);
        api.patch(&claim.name_any(), &PatchParams::default(), &Patch::Merge(patch)).await.map(drop)
    }

    pub(super) async fn grow(
        &self,
        claim: &PersistentVolumeClaim,
        volume: &PersistentVolume,
    ) -> Result<(), kube::Error> {
        let size = claim.spec.as_ref().and_then(|spec| spec.resources.as_ref()?.requests.as_ref()?.get("storage"));
        if matching::capacity(volume) < matching::requested(claim) {
            let patch = json!({"metadata": {"resourceVersion": volume.metadata.resource_version},
                "spec": {"capacity": {"storage": size}}});
            let api: Api<PersistentVolume> = Api::all(self.world.client.clone());
            api.patch(&volume.name_any(), &PatchParams::default(), &Patch::Merge(patch)).await?;
        }
        self.write_status(claim, &json!({"capacity": {"storage": size}})).await?;
        let about = reference(claim);
        self.world.recorder.event(&about, EventKind::Normal, "VolumeResizeSuccessful", "Resize volume succeeded");
        Ok(())
    }

    fn claim_api(&self, claim: &PersistentVolumeClaim) -> Api<PersistentVolumeClaim> {
        Api::namespaced(self.world.client.clone(), &claim.namespace().unwrap_or_default())
    }

    pub(super) async fn write_status(&self, claim: &PersistentVolumeClaim, status: &Value) -> Result<(), kube::Error> {
        let before = serde_json::to_value(&claim.status).unwrap_or_default();
        let same = status.as_object().is_some_and(|all| all.iter().all(|(field, value)| before[field] == *value));
        if same {
            return Ok(());
        }
        let patch = json!({"metadata": {"resourceVersion": claim.metadata.resource_version}, "status": status});
        let api = self.claim_api(claim);
        api.patch_status(&claim.name_any(), &PatchParams::default(), &Patch::Merge(patch)).await.map(drop)
    }

    pub(super) async fn set_phase(&self, volume: &PersistentVolume, phase: &str) -> Result<(), kube::Error> {
        if volume.status.as_ref().and_then(|status| status.phase.as_deref()) == Some(phase) {
            return Ok(());
        }
        let now = format!("{:.0}", k8s_openapi::jiff::Timestamp::now());
        let patch = json!({"metadata": {"resourceVersion": volume.metadata.resource_version},
            "status": {"phase": phase, "lastPhaseTransitionTime": now}});
        let api: Api<PersistentVolume> = Api::all(self.world.client.clone());
        api.patch_status(&volume.name_any(), &PatchParams::default(), &Patch::Merge(patch)).await.map(drop)
    }

    pub(super) async fn delete(&self, volume: &PersistentVolume) -> Result<(), kube::Error> {
        let phase = volume.status.as_ref().and_then(|status| status.phase.as_deref());
        if phase != Some("Released") {
            // The change brings us back.
            return self.set_phase(volume, "Released").await;
        }
        if volume.metadata.deletion_timestamp.is_some() {
            return Ok(());
        }
        let preconditions = Some(Preconditions { uid: volume.metadata.uid.clone(), resource_version: None });
        let parameters = DeleteParams { preconditions, ..DeleteParams::background() };
        let api: Api<PersistentVolume> = Api::all(self.world.client.clone());
        api.delete(&volume.name_any(), &parameters).await.map(drop)
    }

    /// Takes a finalizer away.
    pub(super) async fn release<K>(&self, object: &K, api: &Api<K>, finalizer: &str) -> Result<(), kube::Error>
    where
        K: Resource + Clone + serde::de::DeserializeOwned + std::fmt::Debug,
    {
        let left: Vec<_> = object.finalizers().iter().filter(|it| *it != finalizer).collect();
        let patch = json!({"metadata": {"resourceVersion": object.meta().resource_version, "finalizers": left}});
        api.patch(&object.name_any(), &PatchParams::default(), &Patch::Merge(patch)).await.map(drop)
    }
}
