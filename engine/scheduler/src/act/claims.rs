//! Claims that get their volume with the pod's node: says for which node, or which volume, and waits until they are bound.

use std::time::Duration;

use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim};
use kube::Api;
use kube::api::{Patch, PatchParams};
use serde_json::json;

use super::{ActError, Hand};
use crate::choose::Choice;
use crate::volumes::{SELECTED_NODE, Step, bound_to, can_reach, selected_node};
use crate::wanted::Wanted;

/// How long volumes may take to come to be; then another node may be chosen.
const PATIENCE: Duration = Duration::from_mins(10);

/// How it stands with a pod's claims.
enum Progress {
    Done,
    Pending,
    Failed(String),
}

impl Hand {
    /// Returns when all of the pod's claims are bound to volumes that the node can reach.
    pub(super) async fn settle_claims(&self, pod: &Wanted, choice: &Choice) -> Result<(), ActError> {
        if choice.steps.is_empty() {
            return Ok(());
        }
        let mut storage = self.hub.watched.subscribe();
        for (claim, step) in &choice.steps {
            match step {
                Step::Provision => self.select_node(pod, claim, &choice.node).await?,
                Step::Use(volume) => self.give_volume(pod, claim, volume).await?,
            }
        }
        let waiting = async {
            let mut selected = false;
            loop {
                match self.progress(pod, choice, &mut selected) {
                    Progress::Done => return Ok(()),
                    Progress::Failed(why) => return Err(ActError::Volumes(why)),
                    Progress::Pending => {}
                }
                if storage.changed().await.is_err() {
                    return Err(ActError::Volumes("nobody watches claims any more".to_owned()));
                }
            }
        };
        let waited = tokio::time::timeout(PATIENCE, waiting).await;
        waited.unwrap_or_else(|_| Err(ActError::Volumes("timed out waiting for the condition".to_owned())))
    }

    async fn select_node(&self, pod: &Wanted, claim: &str, node: &str) -> Result<(), ActError> {
        let claims: Api<PersistentVolumeClaim> = Api::namespaced(self.client.clone(), pod.namespace());
        let patch = json!({ "metadata": { "annotations": { SELECTED_NODE: node } } });
        claims.patch(claim, &PatchParams::default(), &Patch::Merge(patch)).await?;
        Ok(())
    }

    /// Keeps a volume for a claim, unless somebody changed it meanwhile.
    async fn give_volume(&self, pod: &Wanted, claim: &str, volume: &str) -> Result<(), ActError> {
        let key = (pod.namespace().to_owned(), claim.to_owned());
        let known = self.hub.look(|state| {
            let version = state.volumes.volume(volume)?.metadata.resource_version.clone();
            Some((state.volumes.claim(&key)?.metadata.uid.clone(), version))
        });
        let gone = || ActError::Volumes(format!("persistentvolume \"{volume}\" is gone"));
        let (uid, version) = known.ok_or_else(gone)?;
        let reference = json!({
            "apiVersion": "v1", "kind": "PersistentVolumeClaim", "namespace": key.0, "name": key.1, "uid": uid,
        });
        let patch = json!({ "metadata": { "resourceVersion": version }, "spec": { "claimRef": reference } });
        let volumes: Api<PersistentVolume> = Api::all(self.client.clone());
        volumes.patch(volume, &PatchParams::default(), &Patch::Merge(patch)).await?;
        Ok(())
    }

    /// How far the claims are. `selected` is whether the chosen node was seen at them: if it is gone later, whoever makes
    /// volumes could not make one there.
    fn progress(&self, pod: &Wanted, choice: &Choice, selected: &mut bool) -> Progress {
        self.hub.look(|state| {
            let mut done = true;
            let mut all_selected = true;
            for (name, step) in &choice.steps {
                let Some(claim) = state.volumes.claim(&(pod.namespace().to_owned(), name.clone())) else {
                    return Progress::Failed(format!("persistentvolumeclaim \"{name}\" not found"));
                };
                let is_selected = *step != Step::Provision || selected_node(claim) == Some(choice.node.as_str());
                all_selected &= is_selected;
                match bound_to(claim).and_then(|volume| state.volumes.volume(volume)) {
                    None if *selected && !is_selected => {
                        return Progress::Failed(format!(
                            "no volume could be made for claim \"{name}\" on {}",
                            choice.node
                        ));
                    }
                    None => done = false,
                    Some(volume) => {
                        let node = state.snapshot.node_named(&choice.node);
                        if !node.is_some_and(|node| can_reach(volume, node)) {
                            return Progress::Failed(format!(
                                "the volume of claim \"{name}\" is not to be had on {}",
                                choice.node
                            ));
                        }
                    }
                }
            }
            *selected |= all_selected;
            if done { Progress::Done } else { Progress::Pending }
        })
    }
}
