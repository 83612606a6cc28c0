//! What is decided about a write beyond its own fields: namespaces must be there, nodes keep to their own objects, pods
//! get a service account.

use bytes::Bytes;
use serde_json::{Value, json};
use shipway_schema::Resource;
use shipway_store::Revision;

use crate::cache::Cache;
use crate::clock;
use crate::commit::Place;
use crate::error::{About, ApiError};
use crate::identity::Identity;
use crate::meta;

/// Namespaces that cannot be deleted.
const IMMORTAL: [&str; 3] = ["default", "kube-system", "kube-public"];

/// Makes sure that a namespace takes new objects. Returns the key and revision that must still hold when the object is
/// written, so that nothing slips into a namespace that begins to go away meanwhile.
pub(crate) fn namespace_guard(
    cache: &Cache,
    namespaces: &crate::cache::Table,
    place: &Place,
) -> Result<Option<(Bytes, Revision)>, ApiError> {
    let Some(namespace) = &place.namespace else { return Ok(None) };
    let missing =
        || ApiError::NotFound(About { group: String::new(), resource: "namespaces".into(), name: namespace.clone() });
    let live = namespaces.get(namespace).ok_or_else(missing)?;
    if meta::is_terminating(&live.value()) {
        return Err(ApiError::NamespaceTerminating(place.about(), namespace.clone()));
    }
    debug_assert!(live.revision <= cache.revision());
    Ok(Some((format!("{}{namespace}", namespaces.prefix).into(), live.revision)))
}

/// Fills in what admission decides about a new object.
pub(crate) fn default(resource: &Resource, object: &mut Value) {
    if is(resource, "", "Pod") && object["spec"].is_object() {
        let spec = &mut object["spec"];
        let given = spec["serviceAccountName"].as_str().or_else(|| spec["serviceAccount"].as_str());
        let account = given.filter(|name| !name.is_empty()).unwrap_or("default").to_owned();
        spec["serviceAccountName"] = account.as_str().into();
        spec["serviceAccount"] = account.into();
    }
}

/// A node may register only itself.
pub(crate) fn check_create(identity: &Identity, place: &Place) -> Result<(), ApiError> {
    match identity.as_node() {
        Some(node) if is(place.resource(), "", "Node") && place.name != node => {
            Err(ApiError::Forbidden(place.about(), format!("node {node:?} can only create a Node named like itself")))
        }
        Some(node) if is(place.resource(), "coordination.k8s.io", "Lease") && place.name != node => {
            Err(ApiError::Forbidden(place.about(), format!("node {node:?} can only create a Lease named like itself")))
        }
        _ => Ok(()),
    }
}

/// A node may change and delete only pods that are bound to it.
pub(crate) fn check_change(identity: &Identity, place: &Place, old: &Value) -> Result<(), ApiError> {
    match identity.as_node() {
        Some(node) if is(place.resource(), "", "Pod") && old["spec"]["nodeName"] != *node => {
            let text = format!("node {node:?} can only change pods with spec.nodeName set to itself");
            Err(ApiError::Forbidden(place.about(), text))
        }
        _ => Ok(()),
    }
}

/// Beside its status a node may change nothing of a pod but its annotations.
pub(crate) fn check_changed(identity: &Identity, place: &Place, old: &Value, new: &Value) -> Result<(), ApiError> {
    let Some(node) = identity.as_node().filter(|_| is(place.resource(), "", "Pod")) else { return Ok(()) };
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
    Err(ApiError::Forbidden(
        place.about(),
        format!("node {node:?} can only change the annotations and status of a pod"),
    ))
}

/// Namespaces that everything rests on stay.
pub(crate) fn check_delete(place: &Place) -> Result<(), ApiError> {
    if is(place.resource(), "", "Namespace") && IMMORTAL.contains(&place.name.as_str()) {
        return Err(ApiError::Forbidden(place.about(), "this namespace may not be deleted".into()));
    }
    Ok(())
}

/// What a deletion says about itself in the object, beyond its metadata.
pub(crate) fn mark_terminating(resource: &Resource, object: &mut Value) {
    if is(resource, "apiextensions.k8s.io", "CustomResourceDefinition") {
        shipway_schema::custom::begin_removal(object, &clock::text(clock::now()));
    }
    if is(resource, "", "Namespace") {
        match object["status"].as_object_mut() {
            Some(status) => {
                status.insert("phase".into(), "Terminating".into());
            }
            None => object["status"] = json!({"phase": "Terminating"}),
        }
    }
}

pub(crate) fn is(resource: &Resource, group: &str, kind: &str) -> bool {
    resource.group == group && resource.kind == kind
}
