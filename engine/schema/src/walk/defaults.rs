//! Fills in what a schema says stands where nothing is given.

use serde_json::{Map, Value};

use crate::quantity::Quantity;
use crate::tree::{Kind, Schema};

/// Adds the schema's defaults wherever the object around them is there; what is given is never changed. A `null` that
/// is no value of its own counts as not given. Quantities take their canonical form: `0.5` is stored as `500m`.
pub fn apply_defaults(schema: &Schema, value: &mut Value) {
    match (schema.kind(), value) {
        (Kind::Object, Value::Object(object)) => fields(schema, object),
        (Kind::Map, Value::Object(object)) => {
            if let Some(inner) = schema.inner() {
                for value in object.values_mut() {
                    apply_defaults(&inner, value);
                }
            }
        }
        (Kind::List, Value::Array(items)) => {
            if let Some(inner) = schema.inner() {
                for item in items {
                    apply_defaults(&inner, item);
                }
            }
        }
        (Kind::IntOrString, value) if schema.format() == Some("quantity") => {
            if let Ok(quantity) = Quantity::from_value(value) {
                *value = Value::String(quantity.to_string());
            }
        }
        _ => {}
    }
}

fn fields(schema: &Schema, object: &mut Map<String, Value>) {
    for (name, default) in schema.defaults() {
        let given = object.get(name);
        let nullable = || schema.field(name).is_some_and(|field| field.nullable());
        if given.is_none() || (given.is_some_and(Value::is_null) && !nullable()) {
            object.insert(name.to_owned(), default.clone());
        }
    }
    for (name, value) in object {
        if let Some(field) = schema.field(name) {
            apply_defaults(&field, value);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;
    use crate::registry::shared;

    #[test]
    fn defaults_fill_only_what_is_missing() {
        let schema = Schema::from_json(&json!({
            "type": "object",
            "properties": {
                "size": { "type": "integer", "default": 3 },
                "color": { "type": "string", "default": "red", "nullable": true },
                "inner": { "type": "object", "properties": { "deep": { "type": "boolean", "default": true } } },
                "made": { "type": "object", "default": {}, "properties": { "deep": { "type": "boolean", "default": true } } },
            },
        }))
        .expect("a schema");
        let mut value = json!({ "size": null, "color": null });
        apply_defaults(&schema, &mut value);
        assert_eq!(value, json!({ "size": 3, "color": null, "made": { "deep": true } }));
    }

    #[test]
    fn port_protocols_and_quantities_take_their_stored_form() {
        let registry = shared();
        let pod = registry.of_kind("v1", "Pod").expect("served");
        let mut value = json!({ "spec": { "containers": [
            { "ports": [{ "containerPort": 80 }], "resources": { "limits": { "cpu": 0.5, "memory": "1024Mi" } } },
        ] } });
        apply_defaults(pod.schema(), &mut value);
        let container = &value["spec"]["containers"][0];
        assert_eq!(container["ports"][0]["protocol"], "TCP");
        assert_eq!(container["resources"]["limits"], json!({ "cpu": "500m", "memory": "1Gi" }));
    }

    proptest! {
        #[test]
        fn defaulting_twice_changes_nothing_more(ports in prop::collection::vec((any::<u16>(), prop::option::of("TCP|UDP")), 0..6)) {
            let registry = shared();
            let pod = registry.of_kind("v1", "Pod").expect("served");
            let ports: Vec<Value> = ports
                .into_iter()
                .map(|(port, protocol)| json!({ "containerPort": port, "protocol": protocol }))
                .collect();
            let mut value = json!({ "spec": { "containers": [{ "ports": ports }] } });
            apply_defaults(pod.schema(), &mut value);
            let once = value.clone();
            apply_defaults(pod.schema(), &mut value);
            prop_assert_eq!(once, value);
        }
    }
}
