//! What a `CustomResourceDefinition` itself must satisfy, and what it says when it does not say it.

mod versions;

use std::collections::HashSet;

use serde_json::{Value, json};

use super::{rules, structural};
use crate::invalid::FieldError;
use crate::lookup;
use crate::path::Path;
use crate::strategy::{Generations, Strategy, checks, metadata, status};
use crate::tree::Schema;

const APPROVAL: &str = "api-approved.kubernetes.io";
const IMMUTABLE: &str = "field is immutable";

/// `apiextensions.k8s.io/v1` `CustomResourceDefinition`
pub(crate) struct Definition;

impl Strategy for Definition {
    fn default(&self, object: &mut Value) {
        let Some(spec) = object.get_mut("spec").filter(|spec| spec.is_object()) else { return };
        let kind = lookup::text(spec, "names.kind").to_owned();
        if let Some(names) = spec.get_mut("names").filter(|names| names.is_object() && !kind.is_empty()) {
            lookup::fill_zero(names, "singular", kind.to_lowercase());
            lookup::fill_zero(names, "listKind", format!("{kind}List"));
        }
        lookup::fill(spec, "conversion", json!({ "strategy": "None" }));
        if let Some(service) =
            lookup::at_mut(spec, "conversion.webhook.clientConfig.service").filter(|value| value.is_object())
        {
            lookup::fill(service, "port", 443);
        }
        if spec.get("preserveUnknownFields") == Some(&Value::Bool(false)) {
            lookup::remove(spec, "preserveUnknownFields");
        }
    }

    fn prepare_create(&self, object: &mut Value) {
        let status = json!({ "conditions": [], "acceptedNames": { "plural": "", "kind": "" }, "storedVersions": [] });
        lookup::set(object, "status", status);
        remember_storage(object);
    }

    fn prepare_update(&self, object: &mut Value, _old: &Value) {
        remember_storage(object);
    }

    fn generations(&self) -> Generations {
        Generations::Of(&["spec"])
    }

    fn validate_below(&self, _: &str, object: &Value, _: &Value) -> Vec<FieldError> {
        let mut errors = status::conditions(object);
        let spec = object.get("spec").unwrap_or(&Value::Null);
        trimmed_versions(object, spec, &mut errors);
        stored_versions(object, spec, &mut errors);
        errors
    }

    fn validate(&self, object: &Value, old: Option<&Value>) -> Vec<FieldError> {
        let mut errors = Vec::new();
        metadata::validate(object, old, checks::dns_subdomain, &mut errors);
        let spec = object.get("spec").unwrap_or(&Value::Null);
        group(object, spec, &mut errors);
        names(object, spec, &mut errors);
        all_versions(spec, &mut errors);
        versions::conversion(spec, &mut errors);
        stored_versions(object, spec, &mut errors);
        if let Some(old) = old.and_then(|old| old.get("spec").map(|spec| (old, spec))) {
            unchanged(spec, old.1, super::is_established(old.0), &mut errors);
        }
        let before = |name: &str| {
            let mut versions = old.map_or(&[] as &[Value], |old| lookup::list(old, "spec.versions")).iter();
            versions.find(|version| lookup::text(version, "name") == name)?.get("schema")
        };
        schemas(spec, before, &mut errors);
        errors
    }
}

/// Adds the version that objects are written in to those that they may be found in.
fn remember_storage(object: &mut Value) {
    let versions = lookup::list(object, "spec.versions");
    let storage = versions.iter().find(|version| lookup::flag(version, "storage"));
    let Some(storage) = storage.map(|storage| lookup::text(storage, "name").to_owned()) else { return };
    let Some(status) = lookup::make_object(object, "status") else { return };
    let stored = status.entry("storedVersions").or_insert_with(|| json!([]));
    if let Some(stored) = stored.as_array_mut().filter(|stored| !stored.contains(&storage.as_str().into())) {
        stored.push(storage.into());
    }
}

fn text_rule(path: &Path<'_>, text: &str, rule: impl Fn(&str) -> Result<(), String>, errors: &mut Vec<FieldError>) {
    if text.is_empty() {
        errors.push(FieldError::required(path, ""));
    } else if let Err(problem) = rule(text) {
        errors.push(FieldError::invalid(path, &text.into(), &problem));
    }
}

fn group(object: &Value, spec: &Value, errors: &mut Vec<FieldError>) {
    let root = Path::Root.field("spec");
    let group = lookup::text(spec, "group");
    text_rule(&root.field("group"), group, checks::dns_subdomain, errors);
    if !group.is_empty() && !group.contains('.') {
        errors.push(FieldError::invalid(
            &root.field("group"),
            &group.into(),
            "should be a domain with at least one dot",
        ));
    }
    let protected = ["k8s.io", "kubernetes.io"].iter().any(|own| group == *own || group.ends_with(&format!(".{own}")));
    let annotations = object.get("metadata").and_then(|metadata| metadata.get("annotations"));
    let approved = annotations.and_then(|own| own.get(APPROVAL)).and_then(Value::as_str).unwrap_or("");
    if protected
        && !(approved.starts_with("unapproved") || approved.starts_with("https://") || approved.starts_with("http://"))
    {
        let metadata = Path::Root.field("metadata");
        let at = metadata.field("annotations");
        let detail = format!(
            "protected groups must have approval annotation {APPROVAL:?}, see https://github.com/kubernetes/enhancements/pull/1111"
        );
        errors.push(FieldError::required(&at.key(APPROVAL), &detail));
    }
    match spec.get("scope").and_then(Value::as_str) {
        Some("Cluster" | "Namespaced") => {}
        None | Some("") => errors.push(FieldError::required(&root.field("scope"), "")),
        Some(other) => {
            errors.push(FieldError::not_supported(&root.field("scope"), &other.into(), &["Cluster", "Namespaced"]));
        }
    }
    if lookup::flag(spec, "preserveUnknownFields") {
        let detail =
            "cannot set to true, set x-kubernetes-preserve-unknown-fields to true in spec.versions[*].schema instead";
        errors.push(FieldError::invalid(&root.field("preserveUnknownFields"), &true.into(), detail));
    }
}

fn names(object: &Value, spec: &Value, errors: &mut Vec<FieldError>) {
    let root = Path::Root.field("spec");
    let path = root.field("names");
    let text = |key: &str| lookup::at(spec, "names").map_or("", |names| lookup::text(names, key));
    let label = |text: &str| checks::dns1035_label(&text.to_lowercase());
    text_rule(&path.field("plural"), text("plural"), checks::dns1035_label, errors);
    text_rule(&path.field("singular"), text("singular"), checks::dns1035_label, errors);
    text_rule(&path.field("kind"), text("kind"), label, errors);
    text_rule(&path.field("listKind"), text("listKind"), label, errors);
    if !text("kind").is_empty() && text("kind") == text("listKind") {
        let detail = "kind and listKind may not be the same";
        errors.push(FieldError::invalid(&path.field("listKind"), &text("listKind").into(), detail));
    }
    for key in ["shortNames", "categories"] {
        let list = path.field(key);
        for (index, name) in lookup::list(spec, &format!("names.{key}")).iter().enumerate() {
            text_rule(&list.index(index), name.as_str().unwrap_or(""), checks::dns1035_label, errors);
        }
    }
    let expected = format!("{}.{}", text("plural"), lookup::text(spec, "group"));
    let name = lookup::text(object, "metadata.name");
    if name != expected {
        let metadata = Path::Root.field("metadata");
        errors.push(FieldError::invalid(
            &metadata.field("name"),
            &name.into(),
            r#"must be spec.names.plural+"."+spec.group"#,
        ));
    }
}

fn all_versions(spec: &Value, errors: &mut Vec<FieldError>) {
    let root = Path::Root.field("spec");
    let list = root.field("versions");
    let versions = lookup::list(spec, "versions");
    if versions.is_empty() {
        return errors.push(FieldError::required(&list, "must have at least one version"));
    }
    let mut seen = HashSet::new();
    for (index, version) in versions.iter().enumerate() {
        let path = list.index(index);
        let name = lookup::text(version, "name");
        text_rule(&path.field("name"), name, checks::dns1035_label, errors);
        if !seen.insert(name) {
            errors.push(FieldError::invalid(&list, &name.into(), "must contain unique version names"));
        }
        if !lookup::text(version, "deprecationWarning").is_empty() && !lookup::flag(version, "deprecated") {
            let at = path.field("deprecationWarning");
            errors.push(FieldError::invalid(
                &at,
                &version["deprecationWarning"],
                "can only be set for deprecated versions",
            ));
        }
        versions::columns(version, &path, errors);
        versions::scale(version, &path, errors);
        versions::selectable(version, &path, errors);
    }
    let storage = versions.iter().filter(|version| lookup::flag(version, "storage")).count();
    if storage != 1 {
        errors.push(FieldError::invalid(
            &list,
            &storage.into(),
            "must have exactly one version marked as storage version",
        ));
    }
}

/// Whoever has rewritten all objects may take versions off the list, but not the one that objects are written in.
fn trimmed_versions(object: &Value, spec: &Value, errors: &mut Vec<FieldError>) {
    let status = Path::Root.field("status");
    let path = status.field("storedVersions");
    let stored = lookup::list(object, "status.storedVersions");
    if stored.is_empty() {
        return errors.push(FieldError::invalid(
            &path,
            &stored.to_vec().into(),
            "must have at least one stored version",
        ));
    }
    let storage = lookup::list(spec, "versions").iter().find(|version| lookup::flag(version, "storage"));
    let Some(name) = storage.map(|storage| lookup::text(storage, "name")) else { return };
    if !stored.iter().any(|each| each == name) {
        let detail = format!("must have the storage version {name}");
        errors.push(FieldError::invalid(&path, &stored.to_vec().into(), &detail));
    }
}

/// A version that objects may still be stored in cannot go.
fn stored_versions(object: &Value, spec: &Value, errors: &mut Vec<FieldError>) {
    let status = Path::Root.field("status");
    let list = status.field("storedVersions");
    let versions = lookup::list(spec, "versions");
    for (index, stored) in lookup::list(object, "status.storedVersions").iter().enumerate() {
        let name = stored.as_str().unwrap_or("");
        if !versions.iter().any(|version| lookup::text(version, "name") == name) {
            let detail = format!(
                "missing from spec.versions; {name} was previously a storage version, and must remain in spec.versions until a \
                 storage migration ensures no data remains persisted in {name} and removes {name} from status.storedVersions"
            );
            errors.push(FieldError::invalid(&list.index(index), stored, &detail));
        }
    }
}

fn unchanged(spec: &Value, old: &Value, established: bool, errors: &mut Vec<FieldError>) {
    let root = Path::Root.field("spec");
    let names = root.field("names");
    let fixed = [("group", root.field("group"), true), ("names.plural", names.field("plural"), true)];
    let settled = [("scope", root.field("scope"), established), ("names.kind", names.field("kind"), established)];
    for (key, path, fixed) in fixed.into_iter().chain(settled) {
        let value = lookup::at(spec, key).unwrap_or(&Value::Null);
        if fixed && lookup::at(old, key) != Some(value) {
            errors.push(FieldError::invalid(&path, value, IMMUTABLE));
        }
    }
}

/// Checks the schemas that changed; one that was accepted before stays accepted.
fn schemas<'a>(spec: &Value, before: impl Fn(&str) -> Option<&'a Value>, errors: &mut Vec<FieldError>) {
    let root = Path::Root.field("spec");
    let list = root.field("versions");
    for (index, version) in lookup::list(spec, "versions").iter().enumerate() {
        let item = list.index(index);
        let given = item.field("schema");
        let path = given.field("openAPIV3Schema");
        let schema = version.pointer("/schema/openAPIV3Schema").filter(|schema| !schema.is_null());
        let Some(schema) = schema else {
            errors.push(FieldError::required(&path, "schemas are required"));
            continue;
        };
        if before(lookup::text(version, "name")).is_some_and(|before| Some(before) == version.get("schema")) {
            continue;
        }
        let found = structural::check(schema, &path);
        let sound = found.is_empty();
        errors.extend(found);
        if sound {
            match Schema::custom(schema) {
                Ok(tree) => errors.extend(rules::check_definition(&tree, &path)),
                Err(error) => errors.push(FieldError::invalid(&path, &Value::Null, &error.to_string())),
            }
        }
    }
}

#[cfg(test)]
mod tests;
