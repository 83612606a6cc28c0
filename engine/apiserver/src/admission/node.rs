//! Nodes keep to their own objects: a node registers itself, and changes pods that are bound to it, and those but little.
//! What others go by when they choose a node, its taints and the labels of the cluster, is not the node's to say.

use serde_json::Value;

use super::{Operation, Request};
use crate::error::ApiError;
use crate::meta;
use crate::nodes::KEEPER;

/// The only labels with a name of the project's that a node may set on itself, beside those under [`OWN`].
const LABELS: [&str; 11] = [
    "beta.kubernetes.io/arch",
    "beta.kubernetes.io/instance-type",
    "beta.kubernetes.io/os",
    "failure-domain.beta.kubernetes.io/region",
    "failure-domain.beta.kubernetes.io/zone",
    "kubernetes.io/arch",
    "kubernetes.io/hostname",
    "kubernetes.io/os",
    "node.kubernetes.io/instance-type",
    "topology.kubernetes.io/region",
    "topology.kubernetes.io/zone",
];
/// What a node takes away from a volume when its folder is gone.
const FOLDER: &str = "shipway.dev/folder";
/// Where labels are the node's own.
const OWN: [&str; 2] = ["kubelet.kubernetes.io", "node.kubernetes.io"];

/// What a node may not do, whatever the object will look like.
pub(crate) fn restrict(request: &Request<'_>) -> Result<(), ApiError> {
    let Some(node) = request.identity().as_node() else { return Ok(()) };
    match (request.operation, request.old) {
        (Operation::Create, _) if request.subresource.is_empty() => check_create(request, node),
        (Operation::Update | Operation::Delete, Some(old)) => check_change(request, node, old),
        _ => Ok(()),
    }
}

fn check_create(request: &Request<'_>, node: &str) -> Result<(), ApiError> {
    for (group, kind) in [("", "Node"), ("coordination.k8s.io", "Lease")] {
        if request.is(group, kind) && request.place.name != node {
            return Err(request.forbidden(format!("node {node:?} can only create a {kind} named like itself")));
        }
    }
    Ok(())
}

/// A node may change and delete only pods that are bound to it.
fn check_change(request: &Request<'_>, node: &str, old: &Value) -> Result<(), ApiError> {
    if request.is("", "Pod") && old["spec"]["nodeName"] != *node {
        let text = format!("node {node:?} can only change pods with spec.nodeName set to itself");
        return Err(request.forbidden(text));
    }
    Ok(())
}

/// A node may not set labels that are not its own, nor change its taints once it is there.
pub(super) fn check_own(request: &Request<'_>, new: &Value) -> Result<(), ApiError> {
    let Some(node) = request.identity().as_node() else { return Ok(()) };
    let old = request.old.unwrap_or(&Value::Null);
    if request.operation == Operation::Update && old["spec"]["taints"] != new["spec"]["taints"] {
        return Err(request.forbidden(format!("node {node:?} is not allowed to modify taints")));
    }
    let (before, after) = (&old["metadata"]["labels"], &new["metadata"]["labels"]);
    let keys = [before, after].into_iter().flat_map(|labels| labels.as_object().into_iter().flatten());
    let changed = keys.map(|(key, _)| key.as_str()).filter(|key| before.get(key) != after.get(key));
    let mut refused: Vec<&str> = changed.filter(|key| !is_own_label(key)).collect();
    refused.sort_unstable();
    refused.dedup();
    if refused.is_empty() {
        return Ok(());
    }
    let act = if request.operation == Operation::Create { "set the following" } else { "modify" };
    Err(request.forbidden(format!("node {node:?} is not allowed to {act} labels: {}", refused.join(", "))))
}

fn is_own_label(key: &str) -> bool {
    let domain = key.split_once('/').map_or("", |(domain, _)| domain);
    let below = |parent: &str| domain == parent || domain.strip_suffix(parent).is_some_and(|head| head.ends_with('.'));
    !(below("kubernetes.io") || below("k8s.io")) || LABELS.contains(&key) || OWN.into_iter().any(below)
}

/// Beside its status a node may change nothing of a pod but its annotations.
pub(super) fn check_changed(request: &Request<'_>, new: &Value) -> Result<(), ApiError> {
    let (Some(node), Some(old)) = (request.identity().as_node(), request.old) else { return Ok(()) };
    let bare = |pod: &Value| {
        let mut pod = pod.clone();
        for field in ["annotations", "managedFields"] {
            meta::metadata(&mut pod).shift_remove(field);
        }
        pod
    };
    if bare(old) == bare(new) {
        return Ok(());
    }
    Err(request.forbidden(format!("node {node:?} can only change the annotations and status of a pod")))
}

/// Of volumes a node may change only those whose folder it keeps, and only that it holds them no longer.
pub(super) fn check_volume(request: &Request<'_>, new: &Value) -> Result<(), ApiError> {
    let (Some(node), Some(old)) = (request.identity().as_node(), request.old) else { return Ok(()) };
    let bare = |volume: &Value| {
        let mut volume = volume.clone();
        for field in ["finalizers", "managedFields"] {
            meta::metadata(&mut volume).shift_remove(field);
        }
        volume
    };
    let kept = meta::finalizers(old).into_iter().filter(|name| *name != FOLDER);
    let only_ours = kept.eq(meta::finalizers(new).into_iter().filter(|name| *name != FOLDER));
    if old["metadata"]["labels"][KEEPER] == *node && only_ours && bare(old) == bare(new) {
        return Ok(());
    }
    Err(request.forbidden(format!("node {node:?} can only let go of volumes that it keeps")))
}
