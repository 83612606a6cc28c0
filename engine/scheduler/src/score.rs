//! Which of the nodes that could take a pod should: the one with fewer of its siblings, then the emptier one.

use k8s_openapi::api::core::v1::{Pod, PodSpec};

use crate::snapshot::{NodeInfo, Resources};

/// What one sibling on the node weighs against an empty node's 100.
const SIBLING: i64 = 100;

/// Higher is better.
pub(crate) fn score(pod: &Pod, node: &NodeInfo) -> i64 {
    let siblings = node.pods().iter().filter(|other| are_siblings(pod, other)).count();
    let free = pod.spec.as_ref().map_or(0, |spec| share_left(spec, node));
    free - SIBLING * i64::try_from(siblings).unwrap_or(i64::MAX / SIBLING)
}

/// Whether the same controller made both.
fn are_siblings(pod: &Pod, other: &Pod) -> bool {
    let owner = |pod: &Pod| {
        let owners = pod.metadata.owner_references.iter().flatten();
        owners.filter(|owner| owner.controller == Some(true)).map(|owner| owner.uid.clone()).next()
    };
    pod.metadata.namespace == other.metadata.namespace && owner(pod).is_some() && owner(pod) == owner(other)
}

/// The share of processor and memory that stays unrequested with the pod on the node, 0 to 100.
fn share_left(spec: &PodSpec, node: &NodeInfo) -> i64 {
    let wanted = Resources::requested(spec);
    let share = |resource: &str| {
        let all = node.allocatable().get(resource);
        let left = all - node.requested().get(resource) - wanted.get(resource);
        if all == 0 { 0 } else { i64::try_from(left.max(0) * 100 / all).unwrap_or(0) }
    };
    i64::midpoint(share("cpu"), share("memory"))
}
