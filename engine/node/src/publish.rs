//! What the node writes to a pod's object: its status when it changed, the ports found, its removal.

use k8s_openapi::api::core::v1::{Pod, PodCondition, PodStatus};
use kube::Api;
use kube::api::{DeleteParams, Patch, PatchParams, Preconditions};
use serde_json::{Value, json};

use crate::error::{NodeError, is_conflict, is_not_found};
use crate::{pod, status};

/// What became of a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Written {
    Done,
    /// There is no such pod any more, or another one of the same name.
    Gone,
}

fn api(client: &kube::Client, pod: &Pod) -> Api<Pod> {
    Api::namespaced(client.clone(), pod::namespace(pod))
}

/// Writes `status` into the pod's object, beside the conditions that others set.
pub(crate) async fn write_status(client: &kube::Client, pod: &Pod, status: &PodStatus) -> Result<Written, NodeError> {
    let patch = Patch::Merge(status_patch(pod, status));
    let result = api(client, pod).patch_status(pod::name(pod), &PatchParams::default(), &patch).await;
    settle(result.map(drop), || format!("write the status of pod {}/{}", pod::namespace(pod), pod::name(pod)))
}

/// A merge patch: fields that have no value any more are taken away, and a pod of another uid refuses it.
fn status_patch(pod: &Pod, status: &PodStatus) -> Value {
    let scheduled = scheduled(status);
    let own = status.conditions.as_deref().unwrap_or_default();
    // One of the kinds that several may set is ours now.
    let foreign = status::foreign_conditions(pod).filter(|it| own.iter().all(|ours| ours.type_ != it.type_));
    let mut conditions: Vec<&PodCondition> = foreign.chain(own).collect();
    if conditions.iter().all(|condition| condition.type_ != scheduled.type_) {
        conditions.insert(0, &scheduled);
    }
    let mut body = serde_json::to_value(status).expect("a status is JSON");
    for field in ["reason", "message", "podIP", "podIPs"] {
        if body.get(field).is_none() {
            body[field] = Value::Null;
        }
    }
    body["conditions"] = json!(conditions);
    let mut metadata = json!({"uid": pod.metadata.uid});
    // Whoever opens a gate writes conditions too; neither may overwrite the other.
    let gates = pod.spec.as_ref().and_then(|spec| spec.readiness_gates.as_ref());
    if gates.is_some_and(|gates| !gates.is_empty()) {
        metadata["resourceVersion"] = json!(pod.metadata.resource_version);
    }
    json!({"metadata": metadata, "status": body})
}

/// What a scheduler would have said of a pod that was created for this node.
fn scheduled(status: &PodStatus) -> PodCondition {
    PodCondition {
        type_: "PodScheduled".to_owned(),
        status: "True".to_owned(),
        last_transition_time: status.start_time.clone(),
        ..PodCondition::default()
    }
}

/// Writes one annotation.
pub(crate) async fn annotate(client: &kube::Client, pod: &Pod, key: &str, value: &str) -> Result<Written, NodeError> {
    let patch = json!({"metadata": {"uid": pod.metadata.uid, "annotations": {key: value}}});
    let result = api(client, pod).patch(pod::name(pod), &PatchParams::default(), &Patch::Merge(patch)).await;
    settle(result.map(drop), || format!("annotate pod {}/{}", pod::namespace(pod), pod::name(pod)))
}

/// Removes the object of a pod that has ended here.
pub(crate) async fn remove(client: &kube::Client, pod: &Pod) -> Result<Written, NodeError> {
    let params = DeleteParams {
        grace_period_seconds: Some(0),
        preconditions: Some(Preconditions { uid: pod.metadata.uid.clone(), resource_version: None }),
        ..DeleteParams::default()
    };
    let result = api(client, pod).delete(pod::name(pod), &params).await;
    match settle(result.map(drop), || format!("remove pod {}/{}", pod::namespace(pod), pod::name(pod))) {
        // Another pod has the name; ours is gone.
        Err(NodeError::Api { source, .. }) if is_conflict(&source) => Ok(Written::Gone),
        other => other,
    }
}

/// Whether the API still wants the pod to run here; an error says why not.
pub(crate) async fn is_wanted(client: &kube::Client, pod: &Pod) -> Result<(), String> {
    let found = api(client, pod).get_opt(pod::name(pod)).await.map_err(|error| error.to_string())?;
    let same = found.filter(|found| found.metadata.uid == pod.metadata.uid);
    if same.is_some_and(|found| found.metadata.deletion_timestamp.is_none()) {
        return Ok(());
    }
    Err("the pod was deleted while its node was silent".to_owned())
}

fn settle(result: Result<(), kube::Error>, what: impl FnOnce() -> String) -> Result<Written, NodeError> {
    match result {
        Ok(()) => Ok(Written::Done),
        Err(error) if is_not_found(&error) => Ok(Written::Gone),
        Err(error) => Err(NodeError::api(what(), error)),
    }
}
