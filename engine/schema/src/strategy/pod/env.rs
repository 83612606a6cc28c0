//! What a container's environment must satisfy.

use serde_json::Value;

use super::super::checks;
use super::super::metadata::text_rule;
use crate::invalid::FieldError;
use crate::lookup;
use crate::path::Path;

/// The fields of a pod that a variable may take its value from; maps take a key in brackets.
const FIELDS: [&str; 9] = [
    "metadata.name",
    "metadata.namespace",
    "metadata.uid",
    "spec.nodeName",
    "spec.serviceAccountName",
    "status.hostIP",
    "status.hostIPs",
    "status.podIP",
    "status.podIPs",
];

const SOURCES: [&str; 5] = ["configMapKeyRef", "fieldRef", "fileKeyRef", "resourceFieldRef", "secretKeyRef"];

pub(super) fn validate(container: &Value, path: &Path<'_>, errors: &mut Vec<FieldError>) {
    let list = path.field("env");
    for (index, variable) in lookup::list(container, "env").iter().enumerate() {
        let path = list.index(index);
        match lookup::text(variable, "name") {
            "" => errors.push(FieldError::required(&path.field("name"), "")),
            name => text_rule(&path.field("name"), name, checks::env_name, errors),
        }
        if let Some(source) = lookup::at(variable, "valueFrom") {
            let has_value = !lookup::text(variable, "value").is_empty();
            value_from(source, has_value, &path.field("valueFrom"), errors);
        }
    }
    let list = path.field("envFrom");
    for (index, source) in lookup::list(container, "envFrom").iter().enumerate() {
        env_from(source, &list.index(index), errors);
    }
}

fn value_from(source: &Value, has_value: bool, path: &Path<'_>, errors: &mut Vec<FieldError>) {
    let given: Vec<&str> = SOURCES.into_iter().filter(|name| lookup::at(source, name).is_some()).collect();
    match given.as_slice() {
        [] => {
            let detail = "must specify one of: `fieldRef`, `resourceFieldRef`, `configMapKeyRef` or `secretKeyRef`";
            errors.push(FieldError::invalid(path, &"".into(), detail));
        }
        [_] if has_value => {
            errors.push(FieldError::invalid(path, &"".into(), "may not be specified when `value` is not empty"));
        }
        [name] => reference(name, &source[*name], &path.field(name), errors),
        _ => {
            let detail = "may not have more than one field specified at a time";
            errors.push(FieldError::invalid(path, &"".into(), detail));
        }
    }
}

fn reference(kind: &str, source: &Value, path: &Path<'_>, errors: &mut Vec<FieldError>) {
    let mut require = |field: &str| {
        if lookup::text(source, field).is_empty() {
            errors.push(FieldError::required(&path.field(field), ""));
        }
    };
    match kind {
        "configMapKeyRef" | "secretKeyRef" => {
            require("name");
            require("key");
        }
        "resourceFieldRef" => require("resource"),
        "fieldRef" => field_path(source, path, errors),
        _ => {}
    }
}

/// Checks a `fieldPath`.
fn field_path(source: &Value, path: &Path<'_>, errors: &mut Vec<FieldError>) {
    let path = path.field("fieldPath");
    let field = lookup::text(source, "fieldPath");
    let of_map = |map: &str| field.strip_prefix(map).and_then(|key| key.strip_prefix("['")?.strip_suffix("']"));
    if field.is_empty() {
        errors.push(FieldError::required(&path, ""));
    } else if let Some(key) = of_map("metadata.labels").or_else(|| of_map("metadata.annotations")) {
        text_rule(&path, &key.to_lowercase(), checks::qualified_name, errors);
    } else if !FIELDS.contains(&field) {
        errors.push(FieldError::not_supported(&path, &field.into(), &FIELDS));
    }
}

fn env_from(source: &Value, path: &Path<'_>, errors: &mut Vec<FieldError>) {
    match lookup::text(source, "prefix") {
        "" => {}
        prefix => text_rule(&path.field("prefix"), prefix, checks::env_name, errors),
    }
    let given: Vec<&str> =
        ["configMapRef", "secretRef"].into_iter().filter(|name| lookup::at(source, name).is_some()).collect();
    match given.as_slice() {
        [] => errors.push(FieldError::invalid(path, &"".into(), "must specify one of: `configMapRef` or `secretRef`")),
        [name] if lookup::text(&source[*name], "name").is_empty() => {
            errors.push(FieldError::required(&path.field(name).field("name"), ""));
        }
        [_] => {}
        _ => {
            let detail = "may not have more than one field specified at a time";
            errors.push(FieldError::invalid(path, &"".into(), detail));
        }
    }
}
