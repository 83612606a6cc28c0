//! Nodes keep to their own objects: a node registers itself, and changes pods that are bound to it, and those but little.

use serde_json::Value;

use super::{Operation, Request};
use crate::error::ApiError;
use crate::meta;

/// What a node may not do, whatever the object will look like.
pub(super) fn restrict(request: &Request<'_>) -> Result<(), ApiError> {
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
