//! Finds values of another type than their schema's.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use serde_json::Value;

use crate::invalid::FieldError;
use crate::path::Path;
use crate::strategy::checks;
use crate::tree::{Kind, Schema};

/// One error for each value whose type or format is not what the schema says; `null` passes where pruning would drop it.
pub fn check_types(schema: &Schema, value: &Value) -> Vec<FieldError> {
    let mut errors = Vec::new();
    walk(schema, value, &Path::Root, &mut errors);
    errors
}

fn walk(schema: &Schema, value: &Value, path: &Path<'_>, errors: &mut Vec<FieldError>) {
    if value.is_null() && (schema.nullable() || !matches!(path, Path::Index(..) | Path::Root)) {
        return;
    }
    match (schema.kind(), value) {
        (Kind::Any, _) | (Kind::Boolean, Value::Bool(_)) | (Kind::Number, Value::Number(_)) => {}
        (Kind::Object | Kind::Map, Value::Object(object)) => {
            for (name, value) in object {
                if let Some(field) = schema.field(name) {
                    walk(&field, value, &path.field(name), errors);
                }
            }
        }
        (Kind::List, Value::Array(items)) => {
            let Some(inner) = schema.inner() else { return };
            for (index, item) in items.iter().enumerate() {
                walk(&inner, item, &path.index(index), errors);
            }
        }
        (Kind::Integer, Value::Number(number)) => match number.as_i64() {
            Some(number) if schema.format() == Some("int32") && i32::try_from(number).is_err() => {
                errors.push(FieldError::invalid(path, value, &format!("{path} in body must be of type int32")));
            }
            Some(_) => {}
            None => errors.push(FieldError::wrong_type(path, value, "integer")),
        },
        (Kind::String, Value::String(text)) => errors.extend(format_error(schema.format(), text, value, path)),
        (Kind::IntOrString, value) => errors.extend(int_or_string_error(schema.format(), value, path)),
        (kind, value) => errors.push(FieldError::wrong_type(path, value, expected(kind))),
    }
}

fn expected(kind: Kind) -> &'static str {
    match kind {
        Kind::Any | Kind::Object | Kind::Map => "object",
        Kind::Boolean => "boolean",
        Kind::Integer => "integer",
        Kind::Number => "number",
        Kind::String => "string",
        Kind::IntOrString => "integer or string",
        Kind::List => "array",
    }
}

fn format_error(format: Option<&str>, text: &str, value: &Value, path: &Path<'_>) -> Option<FieldError> {
    let detail = match format {
        Some("date-time") if text.parse::<Timestamp>().is_err() => "must be a time such as 2006-01-02T15:04:05Z",
        Some("byte") if STANDARD.decode(text).is_err() => "must be base64",
        _ => return None,
    };
    Some(FieldError::invalid(path, value, detail))
}

fn int_or_string_error(format: Option<&str>, value: &Value, path: &Path<'_>) -> Option<FieldError> {
    let quantity = format == Some("quantity");
    match value {
        Value::Number(_) if quantity => None,
        Value::Number(number) if number.is_i64() => None,
        Value::String(text) if quantity => {
            checks::quantity(text).err().map(|problem| FieldError::invalid(path, value, &problem))
        }
        Value::String(_) => None,
        _ => Some(FieldError::wrong_type(path, value, expected(Kind::IntOrString))),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::registry::shared;

    #[test]
    fn each_value_of_the_wrong_type_is_named() {
        let registry = shared();
        let deployment = registry.of_kind("apps/v1", "Deployment").expect("served");
        let value = json!({
            "metadata": { "labels": { "a": 1 }, "creationTimestamp": "yesterday" },
            "spec": { "replicas": "three", "paused": 1, "template": { "spec": { "containers": { "name": "c" } } },
                      "minReadySeconds": 1.5, "revisionHistoryLimit": 3_000_000_000_u64 },
        });
        let errors = check_types(deployment.schema(), &value);
        let fields: Vec<&str> = errors.iter().map(|error| error.field.as_str()).collect();
        assert_eq!(
            fields,
            [
                "metadata.labels.a",
                "metadata.creationTimestamp",
                "spec.replicas",
                "spec.paused",
                "spec.template.spec.containers",
                "spec.minReadySeconds",
                "spec.revisionHistoryLimit",
            ]
        );
        assert_eq!(
            errors[2].message,
            r#"Invalid value: "string": spec.replicas in body must be of type integer: "three""#
        );
    }

    #[test]
    fn quantities_and_ports_take_both_forms() {
        let registry = shared();
        let pod = registry.of_kind("v1", "Pod").expect("served");
        let value = |limit: Value, port: Value| {
            json!({ "spec": { "containers": [
                { "resources": { "limits": { "cpu": limit } }, "livenessProbe": { "tcpSocket": { "port": port } } },
            ] } })
        };
        assert!(check_types(pod.schema(), &value(json!("500m"), json!("http"))).is_empty());
        assert!(check_types(pod.schema(), &value(json!(0.5), json!(80))).is_empty());
        let errors = check_types(pod.schema(), &value(json!("lots"), json!(true)));
        assert_eq!(errors[0].field, "spec.containers[0].resources.limits.cpu");
        assert_eq!(errors[1].field, "spec.containers[0].livenessProbe.tcpSocket.port");
    }

    #[test]
    fn bytes_are_base64_and_list_items_are_not_null() {
        let registry = shared();
        let secret = registry.of_kind("v1", "Secret").expect("served");
        assert_eq!(check_types(secret.schema(), &json!({ "data": { "a": "%%" } })).len(), 1);
        assert!(check_types(secret.schema(), &json!({ "data": { "a": "aGk=" }, "immutable": null })).is_empty());
        let pod = registry.of_kind("v1", "Pod").expect("served");
        assert_eq!(check_types(pod.schema(), &json!({ "spec": { "containers": [null] } })).len(), 1);
    }
}
