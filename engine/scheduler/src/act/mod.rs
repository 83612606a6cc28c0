//! What is done about a choice: bind the pod, or say in its condition and in an event why it waits, or ask others to leave.

mod claims;

use std::sync::Arc;

use k8s_openapi::api::core::v1::{Binding, ObjectReference, Pod};
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use k8s_openapi::jiff::Timestamp;
use kube::api::{Api, DeleteParams, ListParams, Patch, PatchParams, PostParams, Preconditions};
use kube::{Client, Resource, ResourceExt};
use serde_json::{Value, json};
use shipway_driver::{EventKind, Recorder};
use tokio::time::Instant;

use crate::caches::Hub;
use crate::choose::Choice;
use crate::preempt::Preemption;
use crate::reason::Unfit;
use crate::state::{NAME, NoPreemption};
use crate::wanted::Wanted;

/// What keeps a choice from being carried out.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ActError {
    /// The API refused it.
    #[error(transparent)]
    Api(#[from] kube::Error),
    /// The pod's volumes did not come to be.
    #[error("binding volumes: {0}")]
    Volumes(String),
}

/// Acts through the API; cheap to clone.
#[derive(Clone)]
pub(crate) struct Hand {
    pub(crate) client: Client,
    pub(crate) recorder: Recorder,
    pub(crate) hub: Arc<Hub>,
}

impl Hand {
    /// Binds the pod to the chosen node, after its claims. Where that fails the pod is tried again later.
    pub(crate) async fn bind(&self, pod: &Wanted, choice: &Choice) {
        let done = match self.settle_claims(pod, choice).await {
            Ok(()) => self.bind_now(&pod.pod, &choice.node).await,
            Err(error) => Err(error),
        };
        match done {
            Ok(()) => {
                let (namespace, name) = pod.key();
                let message = format!("Successfully assigned {namespace}/{name} to {}", choice.node);
                self.recorder.event(&pod.pod.object_ref(&()), EventKind::Normal, "Scheduled", &message);
            }
            Err(error) => {
                tracing::debug!(pod = ?pod.key(), node = choice.node, %error, "not bound, trying again later");
                if let ActError::Volumes(_) = &error {
                    let about = pod.pod.object_ref(&());
                    self.recorder.event(&about, EventKind::Warning, "FailedScheduling", &error.to_string());
                }
                self.hub.with(|state| state.forget(pod, Instant::now()));
            }
        }
    }

    async fn bind_now(&self, pod: &Pod, node: &str) -> Result<(), ActError> {
        let metadata =
            ObjectMeta { name: Some(pod.name_any()), uid: pod.metadata.uid.clone(), ..ObjectMeta::default() };
        let target = ObjectReference {
            kind: Some("Node".to_owned()),
            name: Some(node.to_owned()),
            ..ObjectReference::default()
        };
        let binding = Binding { metadata, target };
        let (pods, name, how) = (self.pods(pod), pod.name_any(), PostParams::default());
        let bound = pods.create_subresource::<_, Value>("binding", &name, &how, &binding);
        bound.await.map(|_| ()).map_err(ActError::from)
    }

    /// Says why the pod waits, and for which node if others were asked to leave one for it.
    pub(crate) async fn explain(&self, pod: &Wanted, unfit: &Unfit, nominated: Option<&str>) {
        let message = unfit.to_string();
        self.recorder.event(&pod.pod.object_ref(&()), EventKind::Warning, "FailedScheduling", &message);
        let known = condition(&pod.pod, "PodScheduled");
        let is_told = known.is_some_and(|(status, reason, told)| {
            status == "False" && reason == "Unschedulable" && told == message.as_str()
        });
        if is_told && (nominated == pod.nominated() || nominated.is_none() && !unfit.gives_up) {
            return;
        }
        let mut status = json!({ "conditions": [scheduled("Unschedulable", &message)] });
        if nominated.is_some() || unfit.gives_up && pod.nominated().is_some() {
            status["nominatedNodeName"] = nominated.map_or(Value::Null, Value::from);
        }
        self.patch_status(&pod.pod, &status).await;
    }

    /// Says that somebody holds the pod back.
    pub(crate) async fn tell_gated(&self, pod: &Pod) {
        if condition(pod, "PodScheduled").is_some_and(|(_, reason, _)| reason == "SchedulingGated") {
            return;
        }
        let message = "Scheduling is blocked due to non-empty scheduling gates";
        self.patch_status(pod, &json!({ "conditions": [scheduled("SchedulingGated", message)] })).await;
    }

    /// Asks others to leave a node for the pod, those with a disruption budget last.
    pub(crate) async fn preempt(&self, pod: &Arc<Wanted>, mut unfit: Unfit) {
        let budgets = Api::<PodDisruptionBudget>::all(self.client.clone());
        let budgets = match budgets.list(&ListParams::default()).await {
            Ok(list) => list.items,
            Err(error) => {
                tracing::debug!(%error, "cannot list disruption budgets, trying again later");
                return self.hub.with(|state| state.line.retry(&pod.key(), Instant::now()));
            }
        };
        let found = self.hub.look(|state| {
            // Meanwhile it may have been placed, changed or deleted.
            if !state.line.has(&pod.key()) {
                return Err(NoPreemption::Nothing);
            }
            let found = state.try_preemption(pod, &budgets)?;
            state.snapshot.nominate(pod, Some(&found.node));
            Ok(found)
        });
        match found {
            Ok(found) => {
                self.explain(pod, &unfit, Some(&found.node)).await;
                self.evict(pod, &found).await;
            }
            Err(NoPreemption::Nothing) => {}
            Err(why) => {
                why.tell(&mut unfit);
                self.explain(pod, &unfit, None).await;
            }
        }
    }

    async fn evict(&self, pod: &Wanted, found: &Preemption) {
        for victim in found.victims.iter().filter(|victim| !victim.is_leaving()) {
            let condition = json!({
                "type": "DisruptionTarget",
                "status": "True",
                "reason": "PreemptionByScheduler",
                "message": format!("{NAME}: preempting to accommodate a higher priority pod"),
                "lastTransitionTime": Timestamp::now(),
            });
            self.patch_status(&victim.pod, &json!({ "conditions": [condition] })).await;
            let same = Preconditions { uid: victim.pod.metadata.uid.clone(), resource_version: None };
            let gracefully = DeleteParams { preconditions: Some(same), ..DeleteParams::default() };
            match self.pods(&victim.pod).delete(&victim.pod.name_any(), &gracefully).await {
                Ok(_) => {
                    let message = format!("Preempted by pod {} on node {}", pod.uid(), found.node);
                    self.recorder.event(&victim.pod.object_ref(&()), EventKind::Normal, "Preempted", &message);
                }
                Err(error) => tracing::debug!(victim = ?victim.key(), %error, "not preempted"),
            }
        }
    }

    /// Patches what a pod is told; one that is gone needs to be told nothing, and what else fails is told with the next try.
    async fn patch_status(&self, pod: &Pod, status: &Value) {
        let patch = Patch::Strategic(json!({ "status": status }));
        if let Err(error) = self.pods(pod).patch_status(&pod.name_any(), &PatchParams::default(), &patch).await {
            tracing::debug!(pod = pod.name_any(), %error, "status not written");
        }
    }

    fn pods(&self, pod: &Pod) -> Api<Pod> {
        Api::namespaced(self.client.clone(), &pod.namespace().unwrap_or_default())
    }
}

fn scheduled(reason: &str, message: &str) -> Value {
    json!({
        "type": "PodScheduled",
        "status": "False",
        "reason": reason,
        "message": message,
        "lastTransitionTime": Timestamp::now(),
    })
}

/// Status, reason and message of a pod's condition.
fn condition<'a>(pod: &'a Pod, kind: &str) -> Option<(&'a str, &'a str, &'a str)> {
    let mut conditions = pod.status.as_ref()?.conditions.iter().flatten();
    let found = conditions.find(|condition| condition.type_ == kind)?;
    let text = |text: &'a Option<String>| text.as_deref().unwrap_or_default();
    Some((&found.status, text(&found.reason), text(&found.message)))
}
