//! What webhooks and policies make of an object, made fit to be stored.

use serde_json::Value;
use shipway_schema::{Resource, Schema, apply_defaults, check_types, prune};

use super::{Request, rules};
use crate::{meta, scale};

/// Why a change is not made.
pub(super) enum Unfit {
    /// It cannot be applied.
    Edit(String),
    /// What it leads to is no object of the kind, or another one.
    Result(String),
}

impl Unfit {
    pub(super) fn into_text(self) -> String {
        match self {
            Self::Edit(text) | Self::Result(text) => text,
        }
    }
}

/// The object after an edit of what the request carries, shown in another version where one is given. A strict change
/// may not leave unknown fields; else they are dropped.
pub(super) fn change(
    request: &Request<'_>,
    object: &Value,
    other: Option<&Resource>,
    strict: bool,
    edit: impl FnOnce(&mut Value) -> Result<(), String>,
) -> Result<Value, Unfit> {
    let own = request.place.resource();
    if request.subresource == "scale" {
        let mut shown = rules::shown(request, object, other).into_owned();
        edit(&mut shown).map_err(Unfit::Edit)?;
        let mut next = object.clone();
        scale::put(&mut next, &own.scale.spec_replicas, shown["spec"]["replicas"].clone());
        return Ok(next);
    }
    let mut next = rules::shown(request, object, other).into_owned();
    edit(&mut next).map_err(Unfit::Edit)?;
    if request.kind()[2] != *own.kind {
        return Ok(next);
    }
    if other.is_some() {
        next = rules::convert(own, &next);
    }
    settle(own, object, &mut next, strict).map_err(Unfit::Result)?;
    Ok(next)
}

/// The shape of what a request carries.
pub(super) fn shape(request: &Request<'_>, other: Option<&Resource>) -> Option<Schema> {
    let own = request.place.resource();
    let [_, _, kind] = request.kind();
    if kind == *own.kind {
        return Some(other.unwrap_or(own).schema().clone());
    }
    request.call.server.registry().virtual_definition(&kind)
}

fn settle(resource: &Resource, old: &Value, new: &mut Value, strict: bool) -> Result<(), String> {
    check_identity(old, new)?;
    if let Some(first) = check_types(resource.schema(), new).first() {
        return Err(first.to_string());
    }
    if let Some(first) = prune(resource.schema(), new).first().filter(|_| strict) {
        return Err(format!("strict decoding error: unknown field {first:?}"));
    }
    apply_defaults(resource.schema(), new);
    resource.strategy().default(new);
    Ok(())
}

/// It has to stay the same object.
fn check_identity(old: &Value, new: &Value) -> Result<(), String> {
    if !new.is_object() || !new["metadata"].is_object() {
        return Err("what is left is no object".into());
    }
    for field in ["apiVersion", "kind"] {
        if old[field] != new[field] {
            return Err(format!("{field} may not be changed"));
        }
    }
    for field in ["name", "namespace", "uid", "creationTimestamp", "deletionTimestamp", "generation"] {
        if meta::text(old, field) != meta::text(new, field) {
            return Err(format!("metadata.{field} may not be changed"));
        }
    }
    Ok(())
}
