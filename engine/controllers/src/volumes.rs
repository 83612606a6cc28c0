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
mod write;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use k8s_openapi::api::core::v1::{Node, ObjectReference, PersistentVolume, PersistentVolumeClaim, Pod};
use k8s_openapi::api::storage::v1::StorageClass;
use kube::api::{Patch, PatchParams};
use kube::{Api, Resource, ResourceExt};
use serde_json::json;
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
#[expect(clippy::struct_field_names, reason = "caches are called by what they hold")]
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
