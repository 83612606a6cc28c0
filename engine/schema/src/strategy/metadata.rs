//! What every object's `metadata` must satisfy.

use serde_json::Value;

use super::{IMMUTABLE, checks};
use crate::invalid::FieldError;
use crate::lookup;
use crate::path::Path;

/// The most bytes that all annotations of an object may have together.
const ANNOTATIONS_LIMIT: usize = 256 * 1024;

/// Checks name, labels, annotations, owners and finalizers.
pub(crate) fn validate(
    object: &Value,
    old: Option<&Value>,
    rule: fn(&str) -> Result<(), String>,
    errors: &mut Vec<FieldError>,
) {
    let path = Path::Root.field("metadata");
    let empty = Value::Null;
    let metadata = object.get("metadata").unwrap_or(&empty);
    let name = lookup::text(metadata, "name");
    if name.is_empty() {
        errors.push(FieldError::required(&path.field("name"), "name or generateName is required"));
    } else if old.is_none() {
        text_rule(&path.field("name"), name, rule, errors);
    }
    if let Some(old) = old.and_then(|old| old.get("metadata")) {
        for field in ["name", "namespace", "uid"] {
            let value = lookup::at(metadata, field);
            if value.is_some() && value != lookup::at(old, field) {
                errors.push(FieldError::invalid(&path.field(field), &metadata[field], IMMUTABLE));
            }
        }
    }
    labels(metadata, &path, errors);
    annotations(metadata, &path, errors);
    owners(metadata, &path.field("ownerReferences"), errors);
    for (index, finalizer) in lookup::list(metadata, "finalizers").iter().enumerate() {
        let finalizer = finalizer.as_str().unwrap_or("");
        text_rule(&path.field("finalizers").index(index), finalizer, checks::qualified_name, errors);
    }
}

/// Reports what a rule says about a text.
pub(super) fn text_rule(
    path: &Path<'_>,
    text: &str,
    rule: impl Fn(&str) -> Result<(), String>,
    errors: &mut Vec<FieldError>,
) {
    if let Err(problem) = rule(text) {
        errors.push(FieldError::invalid(path, &text.into(), &problem));
    }
}

/// Checks `labels` of `metadata`, which may be a pod template's.
pub(super) fn labels(metadata: &Value, path: &Path<'_>, errors: &mut Vec<FieldError>) {
    label_map(metadata.get("labels"), &path.field("labels"), errors);
}

/// Checks a map of labels.
pub(super) fn label_map(labels: Option<&Value>, path: &Path<'_>, errors: &mut Vec<FieldError>) {
    for (key, value) in labels.and_then(Value::as_object).into_iter().flatten() {
        text_rule(path, key, checks::qualified_name, errors);
        text_rule(path, value.as_str().unwrap_or(""), checks::label_value, errors);
    }
}

/// Checks `annotations` of `metadata`, which may be a pod template's.
pub(super) fn annotations(metadata: &Value, path: &Path<'_>, errors: &mut Vec<FieldError>) {
    let path = path.field("annotations");
    let mut size = 0;
    for (key, value) in lookup::entries(metadata, "annotations") {
        // Upper case is allowed in the prefix of an annotation's key.
        text_rule(&path, key, |key| checks::qualified_name(&key.to_lowercase()), errors);
        size += key.len() + value.as_str().map_or(0, str::len);
    }
    if size > ANNOTATIONS_LIMIT {
        errors.push(FieldError::too_long(&path, ANNOTATIONS_LIMIT));
    }
}

fn owners(metadata: &Value, path: &Path<'_>, errors: &mut Vec<FieldError>) {
    let mut controllers = 0;
    for (index, owner) in lookup::list(metadata, "ownerReferences").iter().enumerate() {
        let path = path.index(index);
        for field in ["apiVersion", "kind", "name", "uid"] {
            if lookup::text(owner, field).is_empty() {
                errors.push(FieldError::invalid(&path.field(field), &"".into(), "must not be empty"));
            }
        }
        controllers += u32::from(lookup::flag(owner, "controller"));
    }
    if controllers > 1 {
        let detail = "Only one reference can have Controller set to true";
        errors.push(FieldError::invalid(path, &metadata["ownerReferences"], detail));
    }
}

/// Checks `matchLabels` and `matchExpressions`.
pub(super) fn label_selector(selector: &Value, path: &Path<'_>, errors: &mut Vec<FieldError>) {
    label_map(selector.get("matchLabels"), &path.field("matchLabels"), errors);
    for (index, term) in lookup::list(selector, "matchExpressions").iter().enumerate() {
        let list = path.field("matchExpressions");
        let path = list.index(index);
        text_rule(&path.field("key"), lookup::text(term, "key"), checks::qualified_name, errors);
        let values = lookup::list(term, "values");
        match lookup::text(term, "operator") {
            "In" | "NotIn" if values.is_empty() => {
                let detail = "must be specified when `operator` is 'In' or 'NotIn'";
                errors.push(FieldError::required(&path.field("values"), detail));
            }
            "Exists" | "DoesNotExist" if !values.is_empty() => {
                let detail = "may not be specified when `operator` is 'Exists' or 'DoesNotExist'";
                errors.push(FieldError::forbidden(&path.field("values"), detail));
            }
            "In" | "NotIn" | "Exists" | "DoesNotExist" => {}
            other => errors.push(FieldError::invalid(
                &path.field("operator"),
                &other.into(),
                "not a valid selector operator",
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use crate::strategy::testing::{admit, errors, valid};

    fn account(metadata: &serde_json::Value) -> serde_json::Value {
        json!({ "apiVersion": "v1", "kind": "ServiceAccount", "metadata": metadata })
    }

    #[test]
    fn a_name_is_required_and_follows_the_kinds_rule() {
        assert_eq!(errors(account(&json!({}))), ["metadata.name: Required value: name or generateName is required"]);
        let found = errors(account(&json!({ "name": "Not_Good" })));
        assert!(
            found[0].starts_with(r#"metadata.name: Invalid value: "Not_Good": a lowercase RFC 1123 subdomain"#),
            "{found:?}"
        );
    }

    #[test]
    fn labels_annotations_and_owners_are_checked() {
        let found = errors(account(&json!({
            "name": "a",
            "labels": { "bad key": "v", "k": "-bad-" },
            "annotations": { "example.com/": "x" },
            "ownerReferences": [{ "apiVersion": "v1", "kind": "Pod", "name": "p", "uid": "" }],
            "finalizers": ["example.com/ok", "not ok"],
        })));
        let fields: Vec<&str> = found.iter().map(|error| error.split(": ").next().expect("a field")).collect();
        assert_eq!(
            fields,
            [
                "metadata.labels",
                "metadata.labels",
                "metadata.annotations",
                "metadata.ownerReferences[0].uid",
                "metadata.finalizers[1]",
            ]
        );
        let big = account(&json!({ "name": "a", "annotations": { "a": "x".repeat(300_000) } }));
        assert_eq!(errors(big), ["metadata.annotations: Too long: may not be more than 262144 bytes"]);
    }

    #[test]
    fn identity_never_changes() {
        let old = valid(account(&json!({ "name": "a", "namespace": "n", "uid": "1" })));
        let found = admit(account(&json!({ "name": "a", "namespace": "m", "uid": "1" })), Some(&old)).1;
        assert_eq!(found, [r#"metadata.namespace: Invalid value: "m": field is immutable"#]);
    }
}
