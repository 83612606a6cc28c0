//! What a job reads off one of its pods.

use k8s_openapi::api::core::v1::{ContainerStatus, Pod};
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use kube::ResourceExt;

use crate::pods::{is_ending, is_finished};

/// The finalizer that keeps a pod until its job has counted it.
pub(super) const TRACKING: &str = "batch.kubernetes.io/job-tracking";
/// Label and annotation with the number of the completion that a pod works for.
pub(super) const INDEX: &str = "batch.kubernetes.io/job-completion-index";
/// How often the index failed before this pod.
pub(super) const FAILURES: &str = "batch.kubernetes.io/job-index-failure-count";
/// The same for failures that the failure policy lets pass.
pub(super) const IGNORED: &str = "batch.kubernetes.io/job-index-ignored-failure-count";

/// Whether the pod has not been counted yet.
pub(super) fn is_tracked(pod: &Pod) -> bool {
    pod.finalizers().iter().any(|finalizer| finalizer == TRACKING)
}

/// Whether it runs or is going to.
pub(super) fn is_active(pod: &Pod) -> bool {
    !is_finished(pod) && !is_ending(pod)
}

/// Whether it is on its way out and not there yet.
pub(super) fn is_terminating(pod: &Pod) -> bool {
    !is_finished(pod) && is_ending(pod)
}

pub(super) fn phase(pod: &Pod) -> &str {
    pod.status.as_ref().and_then(|status| status.phase.as_deref()).unwrap_or_default()
}

pub(super) fn has_succeeded(pod: &Pod) -> bool {
    phase(pod) == "Succeeded"
}

/// The index that the pod works for.
pub(super) fn index(pod: &Pod) -> Option<u32> {
    pod.annotations().get(INDEX)?.parse().ok()
}

/// How often the pod's index failed before it, counted and ignored.
pub(super) fn earlier_failures(pod: &Pod) -> (u32, u32) {
    let number = |name| pod.annotations().get(name).and_then(|text| text.parse().ok()).unwrap_or(0);
    (number(FAILURES), number(IGNORED))
}

pub(super) fn containers(pod: &Pod) -> impl Iterator<Item = &ContainerStatus> {
    pod.status.iter().filter_map(|status| status.container_statuses.as_ref()).flatten()
}

pub(super) fn init_containers(pod: &Pod) -> impl Iterator<Item = &ContainerStatus> {
    pod.status.iter().filter_map(|status| status.init_container_statuses.as_ref()).flatten()
}

/// How often its containers were started again.
pub(super) fn restarts(pod: &Pod) -> i64 {
    containers(pod).chain(init_containers(pod)).map(|container| i64::from(container.restart_count)).sum()
}

/// When the pod ended: as its containers say, or the end of its readiness, or the request to delete it.
pub(super) fn finished_at(pod: &Pod) -> Timestamp {
    of_containers(pod)
        .or_else(|| of_readiness(pod))
        .or_else(|| of_deletion(pod))
        .unwrap_or_else(|| pod.metadata.creation_timestamp.as_ref().map_or(Timestamp::UNIX_EPOCH, |created| created.0))
}

fn of_containers(pod: &Pod) -> Option<Timestamp> {
    let ends = containers(pod).map(|it| Some(it.state.as_ref()?.terminated.as_ref()?.finished_at.as_ref()?.0));
    ends.collect::<Option<Vec<_>>>()?.into_iter().max()
}

fn of_readiness(pod: &Pod) -> Option<Timestamp> {
    let conditions = pod.status.as_ref()?.conditions.as_ref()?;
    let ready = conditions.iter().find(|it| it.type_ == "Ready" && it.status == "False")?;
    Some(ready.last_transition_time.as_ref()?.0)
}

fn of_deletion(pod: &Pod) -> Option<Timestamp> {
    let grace = SignedDuration::from_secs(pod.metadata.deletion_grace_period_seconds.unwrap_or(0));
    pod.metadata.deletion_timestamp.as_ref()?.0.checked_sub(grace).ok()
}
