//! Namespaces: nothing is made in one that is not there or goes away, and those that everything rests on stay.

use bytes::Bytes;
use serde_json::{Value, json};
use shipway_schema::Resource;
use shipway_store::Revision;

use super::{Request, is};
use crate::cache::{Cache, Table};
use crate::clock;
use crate::commit::Place;
use crate::error::{About, ApiError};

/// Namespaces that cannot be deleted.
const IMMORTAL: [&str; 3] = ["default", "kube-system", "kube-public"];

/// Makes sure that a namespace takes new objects. Returns the key and revision that must still hold when the object is
/// written, so that nothing slips into a namespace that begins to go away meanwhile.
pub(crate) fn namespace_guard(
    cache: &Cache,
    namespaces: &Table,
    place: &Place,
) -> Result<Option<(Bytes, Revision)>, ApiError> {
    let Some(namespace) = &place.namespace else { return Ok(None) };
    let missing =
        || ApiError::NotFound(About { group: String::new(), resource: "namespaces".into(), name: namespace.clone() });
    let live = namespaces.get(namespace).ok_or_else(missing)?;
    if live.terminating {
        return Err(ApiError::NamespaceTerminating(place.about(), namespace.clone()));
    }
    debug_assert!(live.revision <= cache.revision());
    Ok(Some((format!("{}{namespace}", namespaces.prefix).into(), live.revision)))
}

/// Namespaces that everything rests on stay.
pub(super) fn check_delete(request: &Request<'_>) -> Result<(), ApiError> {
    if request.is("", "Namespace") && IMMORTAL.contains(&request.place.name.as_str()) {
        return Err(request.forbidden("this namespace may not be deleted"));
    }
    Ok(())
}

/// What a deletion says about itself in the object, beyond its metadata.
pub(crate) fn mark_terminating(resource: &Resource, object: &mut Value) {
    if is(resource, "", "Namespace") {
        match object["status"].as_object_mut() {
            Some(status) => {
                status.insert("phase".into(), "Terminating".into());
            }
            None => object["status"] = json!({"phase": "Terminating"}),
        }
    }
    if is(resource, "apiextensions.k8s.io", "CustomResourceDefinition") {
        shipway_schema::custom::begin_removal(object, &clock::text(clock::now()));
    }
}
