//! Persistent volumes: claims find theirs or have one made, and what becomes of a volume when its claim is gone.
//!
//! A volume of our own class is a folder on one node. It is made and removed by that node; here it is only written down.
//! Which volume, which phase and what is next are pure ([`claim`], [`volume`], [`matching`]); this writes it.

mod claim;
pub(crate) mod ephemeral;
mod matching;
mod provision;
#[cfg(test)]
mod testing;
mod used;
mod volume;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use k8s_openapi::api::core::v1::{Node, ObjectReference, PersistentVolume, PersistentVolumeClaim, Pod};
use k8s_openapi::api::storage::v1::StorageClass;
use kube::api::{DeleteParams, Patch, PatchParams, Preconditions};
use kube::{Api, Resource, ResourceExt};
use serde_json::{Value, json};
use shipway_driver::{Change, EventKind, Queue, Shared};
use tokio_util::sync::CancellationToken;

use self::claim::{Picture, Step, Told};
use crate::Key;
use crate::owned::is_stale;
use crate::world::{World, find, key};

/// Who made a volume.
const PROVISIONED_BY: &str = "pv.kubernetes.io/provisioned-by";
/// Where the scheduler wants a claim's volume.
const SELECTED_NODE: &str = "volume.kubernetes.io/selected-node";
/// Who is to make a claim's volume, under its name and its former one.
const PROVISIONER: [&str; 2] =
    ["volume.kubernetes.io/storage-provisioner", "volume.beta.kubernetes.io/storage-provisioner"];

/// What is to be looked at.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Work {
    Claim(Key),
    Volume(String),
    /// Our own storage class.
    Class,
}

#[derive(Clone)]
struct Volumes {
    world: World,
    claims: Shared<PersistentVolumeClaim>,
    volumes: Shared<PersistentVolume>,
    classes: Shared<StorageClass>,
    nodes: Shared<Node>,
    /// The reason that was last told of a claim, so that it is told once.
    told: Arc<Mutex<HashMap<Key, &'static str>>>,
}

/// Binds, makes and reclaims volumes until stopped.
pub(crate) async fn run(world: World, stop: CancellationToken) {
    let queue = Arc::new(Queue::new());
    let volumes = Volumes {
        claims: world.cache(),
        volumes: world.cache(),
        classes: world.cache(),
        nodes: world.cache(),
        told: Arc::default(),
        world: world.clone(),
    };
    volumes.listen(&queue);
    queue.add(Work::Class);
    world.reconcile(queue, 2, stop, move |_, work| volumes.clone().look_after(work)).await;
}

impl Volumes {
    fn listen(&self, queue: &Arc<Queue<Work>>) {
        let (wake, volumes) = (queue.clone(), self.volumes.store());
        self.claims.listen(move |change| {
            let claim = change.object();
            wake.add(Work::Claim(key(&**claim)));
            let held =
                |volume: &PersistentVolume| {
                    volume.spec.as_ref().and_then(|spec| spec.claim_ref.as_ref()).is_some_and(|held| {
                        held.name == claim.metadata.name && held.namespace == claim.metadata.namespace
                    })
                };
            volumes.state().iter().filter(|it| held(it)).for_each(|it| wake.add(Work::Volume(it.name_any())));
        });
        let (wake, claims) = (queue.clone(), self.claims.store());
        self.volumes.listen(move |change| {
            let volume = change.object();
            wake.add(Work::Volume(volume.name_any()));
            match volume.spec.as_ref().and_then(|spec| spec.claim_ref.as_ref()) {
                Some(held) => {
                    let name = |name: &Option<String>| name.clone().unwrap_or_default();
                    wake.add(Work::Claim((name(&held.namespace), name(&held.name))));
                }
                // Whoever waits may want it; who had it hears that it is gone.
                None => wake_claims(&claims.state(), &wake, |_| true),
            }
        });
        let (wake, claims) = (queue.clone(), self.claims.store());
        self.classes.listen(move |change| {
            let name = change.object().name_any();
            wake_claims(&claims.state(), &wake, |claim| matching::class_of(claim) == name);
        });
        let (wake, claims, nodes) = (queue.clone(), self.claims.store(), self.volumes.store());
        self.nodes.listen(move |change| {
            wake_claims(&claims.state(), &wake, |_| true);
            if let Change::Deleted(_) = change {
                nodes.state().iter().for_each(|volume| wake.add(Work::Volume(volume.name_any())));
            }
        });
        let wake = queue.clone();
        self.world.pods.listen(move |change| {
            let (pod, namespace) = (change.object(), change.object().namespace().unwrap_or_default());
            used::claims(pod).for_each(|name| wake.add(Work::Claim((namespace.clone(), name))));
        });
    }

    async fn look_after(self, work: Work) -> Result<Option<Duration>, kube::Error> {
        let done = match work {
            Work::Claim(key) => self.look_after_claim(&key).await,
            Work::Volume(name) => self.look_after_volume(&name).await,
            Work::Class => provision::ensure_class(&self.world.client).await,
        };
        match done {
            // Decided on something that has changed meanwhile; the watch shows it in a moment.
            Err(error) if is_stale(&error) => Ok(Some(Duration::from_millis(50))),
            other => other.map(|()| None),
        }
    }

    async fn look_after_claim(&self, key: &Key) -> Result<(), kube::Error> {
        let Some(claim) = find(&self.claims.store(), key) else {
            self.told.lock().unwrap_or_else(PoisonError::into_inner).remove(key);
            return Ok(());
        };
        let pods = self.world.pods.in_namespace(&key.0);
        if used::may_go(&claim, &pods) {
            return self.release(&*claim, &Api::namespaced(self.world.client.clone(), &key.0), used::CLAIM).await;
        }
        let wants = |pod: &&Arc<Pod>| used::wants(pod, &key.1);
        let class = find(&self.classes.store(), &(String::new(), matching::class_of(&claim).to_owned()));
        let node = self.node_for(&claim, class.as_deref(), &pods);
        let waiting = pods.iter().filter(wants).find(|pod| crate::nodes::node_of(pod).is_none());
        let waiting = waiting.map(|pod| pod.name_any());
        let all = self.volumes.store().state();
        let picture = Picture {
            claim: &claim,
            volumes: &all,
            class: class.as_deref(),
            node: node.as_deref(),
            waiting: waiting.as_deref(),
        };
        match claim::step(&picture) {
            Step::Rest => Ok(()),
            Step::Bind(volume) => self.bind(&claim, &volume).await,
            Step::Provision(_) => match (&class, &node) {
                (Some(class), Some(node)) => self.provision(&claim, class, node).await,
                _ => Ok(()),
            },
            Step::Ask(whom) => self.ask(&claim, &whom).await,
            Step::Grow(volume) => self.grow(&claim, &volume).await,
            Step::Wait(told) => {
                self.tell(&claim, &told);
                Ok(())
            }
            Step::Lost(told) => {
                self.tell(&claim, &told);
                self.write_status(&claim, &json!({"phase": "Lost"})).await
            }
        }
    }

    /// Where the volume has to be: where the scheduler says, or where a pod that wants it is; for a class that does not wait,
    /// else anywhere.
    fn node_for(
        &self,
        claim: &PersistentVolumeClaim,
        class: Option<&StorageClass>,
        pods: &[Arc<Pod>],
    ) -> Option<Arc<Node>> {
        let name = claim.name_any();
        let selected = claim.annotations().get(SELECTED_NODE).cloned();
        let of_pod = || {
            let mut there =
                pods.iter().filter(|pod| used::wants(pod, &name)).filter_map(|pod| crate::nodes::node_of(pod));
            there.next().map(str::to_owned)
        };
        if let Some(name) = selected.or_else(of_pod) {
            return find(&self.nodes.store(), &(String::new(), name));
        }
        let at_once = class?.volume_binding_mode.as_deref() != Some("WaitForFirstConsumer");
        let mut nodes = self.nodes.store().state();
        nodes.retain(|node| at_once && crate::nodes::marks::condition(node, "Ready") == "True");
        nodes.into_iter().min_by_key(|node| node.name_any())
    }

    fn tell(&self, claim: &PersistentVolumeClaim, told: &Told) {
        let before = self.told.lock().unwrap_or_else(PoisonError::into_inner).insert(key(claim), told.reason);
        if before != Some(told.reason) {
            let kind = if told.warning { EventKind::Warning } else { EventKind::Normal };
            self.world.recorder.event(&reference(claim), kind, told.reason, &told.message);
        }
    }

    /// Writes on both sides what is missing, the volume first: it decides between two claims.
    async fn bind(&self, claim: &PersistentVolumeClaim, volume: &PersistentVolume) -> Result<(), kube::Error> {
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

    async fn provision(
        &self,
        claim: &PersistentVolumeClaim,
        class: &StorageClass,
        node: &Node,
    ) -> Result<(), kube::Error> {
        let wanted = provision::volume(claim, class, node);
        let name = wanted.name_any();
        let api: Api<PersistentVolume> = Api::all(self.world.client.clone());
        self.annotate_provisioner(claim, claim::LOCAL).await?;
        match api.create(&kube::api::PostParams::default(), &wanted).await {
            // It was made before; the watch brings it.
            Err(kube::Error::Api(status)) if status.code == 409 => return Ok(()),
            other => drop(other?),
        }
        let message = format!("Successfully provisioned volume {name}");
        let told = Told { warning: false, reason: "ProvisioningSucceeded", message };
        self.tell(claim, &told);
        Ok(())
    }

    async fn ask(&self, claim: &PersistentVolumeClaim, whom: &str) -> Result<(), kube::Error> {
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

    async fn grow(&self, claim: &PersistentVolumeClaim, volume: &PersistentVolume) -> Result<(), kube::Error> {
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

    async fn write_status(&self, claim: &PersistentVolumeClaim, status: &Value) -> Result<(), kube::Error> {
        let before = serde_json::to_value(&claim.status).unwrap_or_default();
        let same = status.as_object().is_some_and(|all| all.iter().all(|(field, value)| before[field] == *value));
        if same {
            return Ok(());
        }
        let patch = json!({"metadata": {"resourceVersion": claim.metadata.resource_version}, "status": status});
        let api = self.claim_api(claim);
        api.patch_status(&claim.name_any(), &PatchParams::default(), &Patch::Merge(patch)).await.map(drop)
    }

    async fn set_phase(&self, volume: &PersistentVolume, phase: &str) -> Result<(), kube::Error> {
        if volume.status.as_ref().and_then(|status| status.phase.as_deref()) == Some(phase) {
            return Ok(());
        }
        let now = format!("{:.0}", k8s_openapi::jiff::Timestamp::now());
        let patch = json!({"metadata": {"resourceVersion": volume.metadata.resource_version},
            "status": {"phase": phase, "lastPhaseTransitionTime": now}});
        let api: Api<PersistentVolume> = Api::all(self.world.client.clone());
        api.patch_status(&volume.name_any(), &PatchParams::default(), &Patch::Merge(patch)).await.map(drop)
    }

    async fn look_after_volume(&self, name: &str) -> Result<(), kube::Error> {
        let Some(volume) = find(&self.volumes.store(), &(String::new(), name.to_owned())) else { return Ok(()) };
        let api: Api<PersistentVolume> = Api::all(self.world.client.clone());
        if used::volume_may_go(&volume) {
            return self.release(&*volume, &api, used::VOLUME).await;
        }
        if provision::is_forsaken(&volume, &self.nodes.store()) {
            return self.release(&*volume, &api, provision::FOLDER).await;
        }
        let claim = self.holder_of(&volume).await?;
        match volume::step(&volume, claim.as_deref()) {
            volume::Step::Is(phase) => self.set_phase(&volume, phase).await,
            volume::Step::Unbind => {
                let patch = json!({"metadata": {"resourceVersion": volume.metadata.resource_version,
                    "annotations": {volume::BY_CONTROLLER: null}}, "spec": {"claimRef": null}});
                api.patch(name, &PatchParams::default(), &Patch::Merge(patch)).await.map(drop)
            }
            volume::Step::Delete => self.delete(&volume).await,
            volume::Step::Fail => {
                self.set_phase(&volume, "Failed").await?;
                let (about, words) = (reference(&*volume), "No recycler plugin found for the volume!");
                self.world.recorder.event(&about, EventKind::Warning, "VolumeFailedRecycle", words);
                Ok(())
            }
        }
    }

    /// The claim of the name that a volume is held for. That it is gone only the API can tell.
    async fn holder_of(&self, volume: &PersistentVolume) -> Result<Option<Arc<PersistentVolumeClaim>>, kube::Error> {
        let Some(held) = volume.spec.as_ref().and_then(|spec| spec.claim_ref.as_ref()) else { return Ok(None) };
        let key = (held.namespace.clone().unwrap_or_default(), held.name.clone().unwrap_or_default());
        let known = find(&self.claims.store(), &key);
        if known.as_ref().is_some_and(|claim| claim.metadata.uid == held.uid) {
            return Ok(known);
        }
        let api: Api<PersistentVolumeClaim> = Api::namespaced(self.world.client.clone(), &key.0);
        Ok(api.get_opt(&key.1).await?.map(Arc::new))
    }

    async fn delete(&self, volume: &PersistentVolume) -> Result<(), kube::Error> {
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
    async fn release<K>(&self, object: &K, api: &Api<K>, finalizer: &str) -> Result<(), kube::Error>
    where
        K: Resource + Clone + serde::de::DeserializeOwned + std::fmt::Debug,
    {
        let left: Vec<_> = object.finalizers().iter().filter(|it| *it != finalizer).collect();
        let patch = json!({"metadata": {"resourceVersion": object.meta().resource_version, "finalizers": left}});
        api.patch(&object.name_any(), &PatchParams::default(), &Patch::Merge(patch)).await.map(drop)
    }
}

/// Puts claims that have no volume yet, or no good one, into the queue.
fn wake_claims(
    claims: &[Arc<PersistentVolumeClaim>],
    queue: &Queue<Work>,
    which: impl Fn(&PersistentVolumeClaim) -> bool,
) {
    let is_bound = |claim: &PersistentVolumeClaim| {
        claim.status.as_ref().is_some_and(|status| status.phase.as_deref() == Some("Bound"))
    };
    let waiting = claims.iter().filter(|claim| !is_bound(claim) && which(claim));
    waiting.for_each(|claim| queue.add(Work::Claim(key(&**claim))));
}

/// What an event or a binding names.
fn reference<K: Resource<DynamicType = ()>>(object: &K) -> ObjectReference {
    ObjectReference { field_path: None, ..object.object_ref(&()) }
}
