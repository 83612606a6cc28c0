//! Whether a custom resource's schema is structural: every value it describes has one type, said in one place, so that
//! documents can be pruned, filled in and merged without trying alternatives.

mod lists;

use serde_json::{Map, Value};

use super::report::Report;
use super::values;
use crate::invalid::FieldError;
use crate::lookup;
use crate::path::Path;
use crate::tree::Schema;
use crate::walk::{apply_defaults, prune};

/// Keywords that have no place in a structural schema, with what upstream says about them.
const FORBIDDEN: [(&str, &str); 8] = [
    ("$ref", "$ref is not supported"),
    ("additionalItems", "additionalItems is not supported"),
    ("definitions", "definitions is not supported"),
    ("dependencies", "dependencies is not supported"),
    ("patternProperties", "patternProperties is not supported"),
    ("id", "id is not supported"),
    ("$schema", "$schema is not supported"),
    ("externalDocs", "externalDocs is not supported"),
];
/// What only the outer schema may say, not one that refines it.
const OUTER: [&str; 12] = [
    "type",
    "default",
    "additionalProperties",
    "nullable",
    "title",
    "description",
    "x-kubernetes-preserve-unknown-fields",
    "x-kubernetes-embedded-resource",
    "x-kubernetes-int-or-string",
    "x-kubernetes-list-type",
    "x-kubernetes-list-map-keys",
    "x-kubernetes-map-type",
];
const TYPES: [&str; 6] = ["array", "boolean", "integer", "number", "object", "string"];
const STRUCTURAL: &str = "must be empty to be structural";
/// Where a schema stands, for what is said about a missing type.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Level {
    Root,
    Field,
    Items,
    Values,
}

/// What is wrong with the schema of a version.
pub(super) fn check(schema: &Value, path: &Path<'_>) -> Vec<FieldError> {
    let mut report = Report::new();
    walk(schema, Level::Root, path, &mut report);
    root(schema, path, &mut report);
    report.finish(path)
}

fn flag(schema: &Value, key: &str) -> bool {
    schema.get(key).and_then(Value::as_bool).unwrap_or(false)
}

fn text<'a>(schema: &'a Value, key: &str) -> &'a str {
    schema.get(key).and_then(Value::as_str).unwrap_or("")
}

fn root(schema: &Value, path: &Path<'_>, errors: &mut Report) {
    if text(schema, "type") != "object" {
        errors.push(FieldError::invalid(
            &path.field("type"),
            &text(schema, "type").into(),
            "must be object at the root",
        ));
    }
    if flag(schema, "nullable") {
        errors.push(FieldError::forbidden(&path.field("nullable"), "nullable cannot be true at the root"));
    }
    let properties = path.field("properties");
    let metadata = properties.key("metadata");
    for key in schema.pointer("/properties/metadata").and_then(Value::as_object).into_iter().flat_map(Map::keys) {
        if !matches!(
            key.as_str(),
            "type" | "description" | "properties" | "title" | "required" | "x-kubernetes-validations"
        ) {
            let detail =
                "must not specify anything other than name and generateName, but metadata is implicitly specified";
            errors.push(FieldError::forbidden(&metadata.field(key), detail));
        }
    }
    let inner = schema.pointer("/properties/metadata/properties").and_then(Value::as_object);
    for key in inner.into_iter().flat_map(Map::keys).filter(|key| !matches!(key.as_str(), "name" | "generateName")) {
        let at = metadata.field("properties");
        let detail = "must not specify anything other than name and generateName, but metadata is implicitly specified";
        errors.push(FieldError::forbidden(&at.key(key), detail));
    }
}

fn walk(schema: &Value, level: Level, path: &Path<'_>, errors: &mut Report) {
    if errors.is_full() {
        return;
    }
    if !schema.is_object() {
        return errors.push(FieldError::invalid(path, schema, "must be an object"));
    }
    forbidden(schema, path, errors);
    typed(schema, level, path, errors);
    extensions(schema, path, errors);
    bounds(schema, path, errors);
    default(schema, path, errors);
    if !flag(schema, "x-kubernetes-int-or-string") || !says_either(schema) {
        refinements(schema, schema, path, errors);
    }
    for (name, inner) in schema.get("properties").and_then(Value::as_object).into_iter().flatten() {
        walk(inner, Level::Field, &path.field("properties").key(name), errors);
    }
    match schema.get("items") {
        Some(Value::Array(_)) => {
            errors.push(FieldError::forbidden(&path.field("items"), "items must be a schema object and not an array"));
        }
        Some(inner) => walk(inner, Level::Items, &path.field("items"), errors),
        None if text(schema, "type") == "array" => {
            errors.push(FieldError::required(&path.field("items"), "must be specified"));
        }
        None => {}
    }
    if let Some(inner) = schema.get("additionalProperties").filter(|inner| inner.is_object()) {
        walk(inner, Level::Values, &path.field("additionalProperties"), errors);
    }
}

fn forbidden(schema: &Value, path: &Path<'_>, errors: &mut Report) {
    for (key, detail) in FORBIDDEN {
        if schema.get(key).is_some_and(|value| !value.is_null()) {
            errors.push(FieldError::forbidden(&path.field(key), detail));
        }
    }
    if flag(schema, "uniqueItems") {
        let detail = "uniqueItems cannot be set to true since the runtime complexity becomes quadratic";
        errors.push(FieldError::forbidden(&path.field("uniqueItems"), detail));
    }
    match schema.get("additionalProperties") {
        Some(Value::Bool(false)) => {
            let detail = "additionalProperties cannot be set to false";
            errors.push(FieldError::forbidden(&path.field("additionalProperties"), detail));
        }
        Some(given)
            if !given.is_null()
                && schema.get("properties").and_then(Value::as_object).is_some_and(|own| !own.is_empty()) =>
        {
            let detail = "additionalProperties and properties are mutual exclusive";
            errors.push(FieldError::forbidden(&path.field("additionalProperties"), detail));
        }
        _ => {}
    }
}

fn typed(schema: &Value, level: Level, path: &Path<'_>, errors: &mut Report) {
    let (either, open) =
        (flag(schema, "x-kubernetes-int-or-string"), flag(schema, "x-kubernetes-preserve-unknown-fields"));
    let at = path.field("type");
    match schema.get("type") {
        Some(Value::String(named)) if !named.is_empty() => {
            if !TYPES.contains(&named.as_str()) {
                errors.push(FieldError::not_supported(&at, &named.as_str().into(), &TYPES));
            }
            if either {
                let detail = "must be empty if x-kubernetes-int-or-string is true";
                errors.push(FieldError::invalid(&at, &named.as_str().into(), detail));
            }
        }
        Some(Value::Array(_)) => errors.push(FieldError::invalid(&at, &schema["type"], "must be a single type")),
        _ if either || (open && level != Level::Root) => {}
        _ => {
            let of = match level {
                Level::Root => "at the root",
                Level::Field => "for specified object fields",
                Level::Items => "for specified array items",
                Level::Values => "for specified map values",
            };
            errors.push(FieldError::required(&at, &format!("must not be empty {of}")));
        }
    }
    for (key, fits) in [("properties", "object"), ("additionalProperties", "object"), ("items", "array")] {
        let named = text(schema, "type");
        if schema.get(key).is_some_and(|value| !value.is_null()) && !named.is_empty() && named != fits {
            errors.push(FieldError::forbidden(&path.field(key), &format!("may only be set if type is {fits}")));
        }
    }
}

fn extensions(schema: &Value, path: &Path<'_>, errors: &mut Report) {
    let named = text(schema, "type");
    if flag(schema, "x-kubernetes-embedded-resource") {
        if named != "object" {
            let detail = "must be object if x-kubernetes-embedded-resource is true";
            errors.push(FieldError::invalid(&path.field("type"), &named.into(), detail));
        }
        if schema.get("properties").is_none() && !flag(schema, "x-kubernetes-preserve-unknown-fields") {
            let detail = "must not be empty if x-kubernetes-embedded-resource is true without x-kubernetes-preserve-unknown-fields";
            errors.push(FieldError::required(&path.field("properties"), detail));
        }
    }
    if schema.get("x-kubernetes-preserve-unknown-fields").is_some_and(|value| *value == false) {
        let at = path.field("x-kubernetes-preserve-unknown-fields");
        errors.push(FieldError::invalid(&at, &false.into(), "must be true or undefined"));
    }
    match schema.get("x-kubernetes-map-type").and_then(Value::as_str) {
        None => {}
        Some("granular" | "atomic") if named == "object" => {}
        Some("granular" | "atomic") => {
            let detail = "must be object if x-kubernetes-map-type is specified";
            errors.push(FieldError::invalid(&path.field("type"), &named.into(), detail));
        }
        Some(other) => {
            let at = path.field("x-kubernetes-map-type");
            errors.push(FieldError::not_supported(&at, &other.into(), &["atomic", "granular"]));
        }
    }
    lists::check(schema, path, errors);
}

fn bounds(schema: &Value, path: &Path<'_>, errors: &mut Report) {
    let pattern = text(schema, "pattern");
    if let Err(error) = errors.compile(pattern) {
        let detail = format!("must be a valid regular expression, but isn't: {error}");
        errors.push(FieldError::invalid(&path.field("pattern"), &pattern.into(), &detail));
    }
    for key in ["minLength", "maxLength", "minItems", "maxItems", "minProperties", "maxProperties"] {
        if schema.get(key).and_then(Value::as_i64).is_some_and(|count| count < 0) {
            errors.push(FieldError::invalid(&path.field(key), &schema[key], "must be greater than or equal to 0"));
        }
    }
    if schema.get("multipleOf").and_then(Value::as_f64).is_some_and(|step| step <= 0.0) {
        errors.push(FieldError::invalid(&path.field("multipleOf"), &schema["multipleOf"], "must be greater than 0"));
    }
}

/// A default has to be a value that the schema takes as it is.
fn default(schema: &Value, path: &Path<'_>, errors: &mut Report) {
    let Some(default) = schema.get("default").filter(|default| !default.is_null() || flag(schema, "nullable")) else {
        return;
    };
    let at = path.field("default");
    let Ok(tree) = Schema::fragment(schema) else { return };
    let mut value = default.clone();
    for unknown in prune(&tree, &mut value) {
        errors.push(FieldError::invalid(&at, default, &format!("must not have unknown field {unknown:?}")));
    }
    apply_defaults(&tree, &mut value);
    errors.extend(values::check_at(&tree, &value, &at));
}

/// `anyOf` an integer and a string: the one refinement that may name types, beside `x-kubernetes-int-or-string`.
fn says_either(schema: &Value) -> bool {
    let any = |value: &Value| {
        let named: Vec<&str> = lookup::list(value, "anyOf").iter().map(|each| text(each, "type")).collect();
        named == ["integer", "string"]
    };
    any(schema) || lookup::list(schema, "allOf").first().is_some_and(any)
}

/// What refines a schema may only speak of what the schema itself describes.
fn refinements(outer: &Value, schema: &Value, path: &Path<'_>, errors: &mut Report) {
    for key in ["allOf", "anyOf", "oneOf"] {
        let list = path.field(key);
        for (index, branch) in lookup::list(schema, key).iter().enumerate() {
            refinement(outer, branch, &list.index(index), errors);
        }
    }
    if let Some(not) = schema.get("not").filter(|not| !not.is_null()) {
        refinement(outer, not, &path.field("not"), errors);
    }
}

fn refinement(outer: &Value, branch: &Value, path: &Path<'_>, errors: &mut Report) {
    if errors.is_full() {
        return;
    }
    for key in OUTER.iter().filter(|key| branch.get(**key).is_some_and(|value| !value.is_null())) {
        errors.push(FieldError::forbidden(&path.field(key), STRUCTURAL));
    }
    forbidden(branch, path, errors);
    bounds(branch, path, errors);
    refinements(outer, branch, path, errors);
    for (name, inner) in branch.get("properties").and_then(Value::as_object).into_iter().flatten() {
        let own = outer.get("properties").and_then(|own| own.get(name)).or_else(|| outer.get("additionalProperties"));
        let at = path.field("properties");
        match own {
            Some(own) => refinement(own, inner, &at.key(name), errors),
            None if matches!(name.as_str(), "metadata" | "apiVersion" | "kind") => {}
            None => {
                let detail = format!("because it is defined in {}", at.key(name));
                errors.push(FieldError::required(&at.key(name), &detail));
            }
        }
    }
    if let Some(inner) = branch.get("items").filter(|inner| inner.is_object()) {
        match outer.get("items") {
            Some(own) => refinement(own, inner, &path.field("items"), errors),
            None => errors.push(FieldError::required(&path.field("items"), "because it is defined in a refinement")),
        }
    }
}

#[cfg(test)]
mod tests;
