//! How a schema says that lists merge: `x-kubernetes-list-type` and `x-kubernetes-list-map-keys`.

use std::collections::HashSet;

use serde_json::Value;

use super::super::report::Report;
use super::{flag, text};
use crate::invalid::FieldError;
use crate::lookup;
use crate::path::Path;

pub(super) fn check(schema: &Value, path: &Path<'_>, errors: &mut Report) {
    let kind = schema.get("x-kubernetes-list-type").and_then(Value::as_str);
    let keys = lookup::list(schema, "x-kubernetes-list-map-keys");
    if kind.is_some() && text(schema, "type") != "array" {
        let detail = "must be array if x-kubernetes-list-type is specified";
        errors.push(FieldError::invalid(&path.field("type"), &text(schema, "type").into(), detail));
    }
    let at = path.field("x-kubernetes-list-map-keys");
    match kind {
        None | Some("atomic" | "set") if !keys.is_empty() => {
            errors.push(FieldError::forbidden(&at, "must only be specified if x-kubernetes-list-type is map"));
        }
        Some("map") if keys.is_empty() => {
            errors.push(FieldError::required(&at, "must not be empty if x-kubernetes-list-type is map"));
        }
        Some("map") => map_keys(schema, keys, path, errors),
        Some("set") => {
            let items = schema.get("items").unwrap_or(&Value::Null);
            let atomic = text(items, "x-kubernetes-map-type") == "atomic"
                || matches!(items.get("x-kubernetes-list-type").and_then(Value::as_str), None | Some("atomic"))
                    && text(items, "type") == "array";
            if flag(items, "nullable") {
                errors.push(FieldError::forbidden(
                    &path.field("items").field("nullable"),
                    "cannot be nullable when x-kubernetes-list-type is \"set\"",
                ));
            }
            if matches!(text(items, "type"), "object" | "array") && !atomic {
                let detail = "must be atomic as item of a list with x-kubernetes-list-type=set";
                let named = text(items, "x-kubernetes-map-type").into();
                errors.push(FieldError::invalid(&path.field("items").field("x-kubernetes-map-type"), &named, detail));
            }
        }
        None | Some("atomic") => {}
        Some(other) => {
            let at = path.field("x-kubernetes-list-type");
            errors.push(FieldError::not_supported(&at, &other.into(), &["atomic", "map", "set"]));
        }
    }
}

fn map_keys(schema: &Value, keys: &[Value], path: &Path<'_>, errors: &mut Report) {
    let items = schema.get("items").unwrap_or(&Value::Null);
    if text(items, "type") != "object" {
        let detail = "must be object if parent array's x-kubernetes-list-type is map";
        errors.push(FieldError::invalid(&path.field("items").field("type"), &text(items, "type").into(), detail));
        return;
    }
    let list = path.field("x-kubernetes-list-map-keys");
    let required = lookup::list(items, "required");
    let mut seen = HashSet::new();
    for (index, key) in keys.iter().enumerate() {
        let at = list.index(index);
        let name = key.as_str().unwrap_or("");
        if !seen.insert(name) {
            errors.push(FieldError::duplicate(&at, key));
        }
        let Some(property) = items.get("properties").and_then(|own| own.get(name)) else {
            errors.push(FieldError::invalid(&at, key, "entries must all be names of item properties"));
            continue;
        };
        if matches!(text(property, "type"), "array" | "object") {
            errors.push(FieldError::invalid(&at, key, "entries must all be names of scalar item properties"));
        }
        if property.get("default").is_none() && !required.contains(key) {
            let detail =
                "this property is in x-kubernetes-list-map-keys, so it must have a default or be a required property";
            errors.push(FieldError::required(
                &path.field("items").field("properties").key(name).field("default"),
                detail,
            ));
        }
    }
}
