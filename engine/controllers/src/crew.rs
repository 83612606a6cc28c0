//! One owner and the pods it controls: whose they are, and how it makes and ends them.

use std::fmt::Debug;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Pod, PodTemplateSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta};
use kube::api::{DeleteParams, Patch, PatchParams, PostParams, Preconditions};
use kube::runtime::reflector::{self, Store};
use kube::{Api, Resource, ResourceExt};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::json;
use shipway_driver::{Change, EventKind, Queue};
use tokio::sync::OnceCell;

use crate::Key;
use crate::owned::{self, Chooser, Unseen, controller_reference, ignore_stale, is_stale};
use crate::pods::is_ending;
use crate::world::{World, controller_of, key};

/// One look at an owner's pods.
pub(crate) struct Crew<K> {
    world: World,
    /// What this controller did to pods and the watch has not shown yet.
    unseen: Arc<Unseen>,
    pub(crate) owner: Arc<K>,
    pub(crate) key: Key,
    pods: Api<Pod>,
    /// Whether the owner was still there when it was asked for, once a look.
    is_there: OnceCell<bool>,
}

impl<K> Crew<K>
where
    K: Resource<DynamicType = (), Scope = k8s_openapi::NamespaceResourceScope> + Clone + Debug + DeserializeOwned,
{
    pub(crate) fn new(world: &World, unseen: &Arc<Unseen>, owner: Arc<K>) -> Self {
        let key = key(&*owner);
        let pods = Api::namespaced(world.client.clone(), &key.0);
        Self { world: world.clone(), unseen: unseen.clone(), owner, key, pods, is_there: OnceCell::new() }
    }

    /// Whether something that was done for this owner is not in the watch yet: what is seen now is not what there is.
    pub(crate) fn is_behind(&self) -> bool {
        self.unseen.awaits(&self.key)
    }

    /// The pods that the owner controls, also finished and ending ones. Orphans that its selector matches and `eligible`
    /// lets in are taken over, pods that the selector matches no more are let go.
    pub(crate) async fn claim(
        &self,
        selector: &LabelSelector,
        eligible: impl Fn(&Pod) -> bool,
    ) -> Result<Vec<Arc<Pod>>, kube::Error> {
        let own = self.world.pods.of(self.owner.meta().uid.as_deref().unwrap_or_default());
        if self.owner.meta().deletion_timestamp.is_some() {
            return Ok(own);
        }
        let chooser = Chooser::of(selector);
        let (mut mine, strays): (Vec<_>, Vec<_>) =
            own.into_iter().partition(|pod| is_ending(pod) || chooser.takes(&**pod));
        for pod in strays {
            self.release(&pod).await?;
        }
        let mut orphans = self.world.pods.orphans(&self.key.0);
        orphans.retain(|pod| !is_ending(pod) && eligible(pod) && chooser.takes(&**pod));
        if !orphans.is_empty() && self.is_still_there().await? {
            for pod in orphans {
                if self.adopt(&pod).await? {
                    mine.push(pod);
                }
            }
        }
        Ok(mine)
    }

    /// Asks the API itself, once a look: see [`owned::is_still_there`].
    pub(crate) async fn is_still_there(&self) -> Result<bool, kube::Error> {
        let ask = || owned::is_still_there(&self.world.client, &*self.owner);
        self.is_there.get_or_try_init(ask).await.copied()
    }

    async fn adopt(&self, pod: &Pod) -> Result<bool, kube::Error> {
        let reference = controller_reference(&*self.owner);
        let patch = json!({ "metadata": { "uid": pod.metadata.uid, "ownerReferences": [reference] } });
        match self.pods.patch(&pod.name_any(), &PatchParams::default(), &Patch::Strategic(patch)).await {
            Ok(_) => Ok(true),
            Err(error) if is_stale(&error) => Ok(false),
            Err(error) => Err(error),
        }
    }

    async fn release(&self, pod: &Pod) -> Result<(), kube::Error> {
        let reference = json!({ "$patch": "delete", "uid": self.owner.meta().uid });
        let patch = json!({ "metadata": { "uid": pod.metadata.uid, "ownerReferences": [reference] } });
        ignore_stale(self.pods.patch(&pod.name_any(), &PatchParams::default(), &Patch::Strategic(patch)).await)
    }

    /// A pod of the template, not made yet and without a name of its own.
    pub(crate) fn pod(&self, template: &PodTemplateSpec) -> Pod {
        let of_template = template.metadata.clone().unwrap_or_default();
        let metadata = ObjectMeta {
            generate_name: Some(format!("{}-", self.key.1)),
            namespace: Some(self.key.0.clone()),
            labels: of_template.labels,
            annotations: of_template.annotations,
            finalizers: of_template.finalizers,
            owner_references: controller_reference(&*self.owner).map(|reference| vec![reference]),
            ..ObjectMeta::default()
        };
        Pod { metadata, spec: template.spec.clone(), status: None }
    }

    /// Makes a pod and tells of it in an event; none where the owner is gone.
    pub(crate) async fn create(&self, pod: &Pod) -> Result<Option<Pod>, kube::Error> {
        let made = self.make(pod).await;
        match &made {
            Ok(None) => {}
            Ok(Some(made)) => {
                self.tell(EventKind::Normal, "SuccessfulCreate", &format!("Created pod: {}", made.name_any()));
            }
            // A namespace that is going takes nothing in, which is no news.
            Err(error) if is_terminating(error) => {}
            Err(error) => self.tell(EventKind::Warning, "FailedCreate", &format!("Error creating: {}", said(error))),
        }
        made
    }

    /// Makes a pod; none where the owner is gone.
    pub(crate) async fn make(&self, pod: &Pod) -> Result<Option<Pod>, kube::Error> {
        if !self.is_still_there().await? {
            return Ok(None);
        }
        let made = self.pods.create(&PostParams::default(), pod).await?;
        self.unseen.made(&self.key, &made);
        Ok(Some(made))
    }

    /// Deletes a pod and tells of it in an event. One that is gone already is fine.
    pub(crate) async fn delete(&self, pod: &Pod) -> Result<(), kube::Error> {
        let name = pod.name_any();
        match self.end(pod).await {
            Ok(true) => self.tell(EventKind::Normal, "SuccessfulDelete", &format!("Deleted pod: {name}")),
            Ok(false) => {}
            Err(error) => {
                self.tell(EventKind::Warning, "FailedDelete", &format!("Error deleting: {}", said(&error)));
                return Err(error);
            }
        }
        Ok(())
    }

    /// Deletes a pod; whether it was there.
    pub(crate) async fn end(&self, pod: &Pod) -> Result<bool, kube::Error> {
        let preconditions = Some(Preconditions { uid: pod.metadata.uid.clone(), resource_version: None });
        let parameters = DeleteParams { preconditions, ..DeleteParams::default() };
        match self.pods.delete(&pod.name_any(), &parameters).await {
            Ok(_) => {
                let is_gone = |now: Arc<Pod>| is_ending(&now) || now.metadata.uid != pod.metadata.uid;
                let seen = || self.world.pods.get(&key(pod)).is_none_or(is_gone);
                self.unseen.deleted(&self.key, pod, seen);
                Ok(true)
            }
            Err(error) if is_stale(&error) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Writes these fields of the owner's status.
    pub(crate) async fn write_status(&self, status: &impl Serialize) -> Result<(), kube::Error> {
        let owners: Api<K> = Api::namespaced(self.world.client.clone(), &self.key.0);
        let patch = Patch::Merge(json!({ "status": status }));
        ignore_stale(owners.patch_status(&self.key.1, &PatchParams::default(), &patch).await)
    }

    /// Records an event about the owner.
    pub(crate) fn tell(&self, kind: EventKind, reason: &str, message: &str) {
        self.world.recorder.event(&self.owner.object_ref(&()), kind, reason, message);
    }
}

/// What the API said, without the wrapping.
pub(crate) fn said(error: &kube::Error) -> String {
    match error {
        kube::Error::Api(status) => status.message.clone(),
        other => other.to_string(),
    }
}

/// Whether the API refused because the namespace is being deleted.
pub(crate) fn is_terminating(error: &kube::Error) -> bool {
    let kube::Error::Api(status) = error else { return false };
    let mut causes = status.details.iter().flat_map(|details| &details.causes);
    status.code == 403 && causes.any(|cause| cause.reason == "NamespaceTerminating")
}

/// Wakes the owner of that kind when one of its pods changes; a pod without a controller wakes all owners of its namespace,
/// one of whom may take it over or have lost it.
pub(crate) fn wake_owners<K>(world: &World, kind: &'static str, queue: &Arc<Queue<Key>>, owners: Store<K>)
where
    K: Resource<DynamicType = ()> + reflector::Lookup<DynamicType = ()> + Clone + Send + Sync + 'static,
{
    let queue = queue.clone();
    world.pods.listen(move |change| {
        let pod = change.object();
        let ending = is_ending(pod) || matches!(change, Change::Deleted(_));
        if let Some(owner) = controller_of(&**pod, kind) {
            queue.add(owner);
        } else if !ending && pod.owner_references().iter().all(|owner| owner.controller != Some(true)) {
            let namespace = &pod.metadata.namespace;
            let near = owners.state().into_iter().filter(|owner| owner.meta().namespace == *namespace);
            near.for_each(|owner| queue.add(key(&*owner)));
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_namespace_that_goes_excuses_a_refusal() {
        let refused = |reason: &str| {
            let details = json!({"causes": [{"reason": reason, "message": "", "field": "metadata.namespace"}]});
            let status =
                json!({"status": "Failure", "message": "", "reason": "Forbidden", "code": 403, "details": details});
            is_terminating(&kube::Error::Api(Box::new(serde_json::from_value(status).unwrap())))
        };
        assert!(refused("NamespaceTerminating"));
        assert!(!refused("Other"));
    }
}
