//! Drops what a schema does not know.

use serde_json::{Map, Value};

use crate::path::Path;
use crate::tree::{Kind, Schema};

/// Removes unknown fields, and `null` where it is no value of its own. Returns the path of each unknown field, in the
/// order of the document, such as `spec.template.spec.containers[0].imagee`.
pub fn prune(schema: &Schema, value: &mut Value) -> Vec<String> {
    let mut pruning = Pruning { unknown: Vec::new(), nulls: false };
    pruning.walk(schema, value, &Path::Root);
    pruning.unknown
}

/// Removes unknown fields and leaves every `null` where it is: an applied configuration owns its field by it.
pub fn prune_unknown(schema: &Schema, value: &mut Value) -> Vec<String> {
    let mut pruning = Pruning { unknown: Vec::new(), nulls: true };
    pruning.walk(schema, value, &Path::Root);
    pruning.unknown
}

struct Pruning {
    unknown: Vec<String>,
    /// Whether `null` stays where it is no value of its own.
    nulls: bool,
}

impl Pruning {
    fn walk(&mut self, schema: &Schema, value: &mut Value, path: &Path<'_>) {
        match (schema.kind(), value) {
            (Kind::Object, Value::Object(object)) => self.fields(schema, object, path),
            (Kind::Map, Value::Object(object)) => {
                let Some(inner) = schema.inner() else { return };
                if !self.nulls && !inner.nullable() {
                    object.retain(|_, value| !value.is_null());
                }
                for (key, value) in object {
                    self.walk(&inner, value, &path.field(key));
                }
            }
            (Kind::List, Value::Array(items)) => {
                let Some(inner) = schema.inner() else { return };
                for (index, item) in items.iter_mut().enumerate() {
                    self.walk(&inner, item, &path.index(index));
                }
            }
            _ => {}
        }
    }

    fn fields(&mut self, schema: &Schema, object: &mut Map<String, Value>, path: &Path<'_>) {
        object.retain(|name, value| {
            let path = path.field(name);
            let Some(field) = schema.field(name) else {
                if schema.preserves_unknown() || (schema.is_embedded_resource() && is_type_meta(name)) {
                    return true;
                }
                self.unknown.push(path.to_string());
                return false;
            };
            if value.is_null() && !field.nullable() && field.kind() != Kind::Any {
                return self.nulls;
            }
            self.walk(&field, value, &path);
            true
        });
    }
}

fn is_type_meta(name: &str) -> bool {
    matches!(name, "apiVersion" | "kind" | "metadata")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;
    use crate::registry::shared;

    #[test]
    fn unknown_fields_are_dropped_and_named() {
        let registry = shared();
        let deployment = registry.of_kind("apps/v1", "Deployment").expect("served");
        let mut value = json!({
            "apiVersion": "apps/v1", "kind": "Deployment", "foo": 1,
            "metadata": { "name": "a", "creationTimestamp": null, "labels": { "any": "key" } },
            "spec": { "template": { "spec": { "containers": [{ "name": "c", "imagee": "x" }] } }, "paused": null },
        });
        let unknown = prune(deployment.schema(), &mut value);
        assert_eq!(unknown, ["foo", "spec.template.spec.containers[0].imagee"]);
        assert_eq!(
            value,
            json!({
                "apiVersion": "apps/v1", "kind": "Deployment",
                "metadata": { "name": "a", "labels": { "any": "key" } },
                "spec": { "template": { "spec": { "containers": [{ "name": "c" }] } } },
            })
        );
    }

    #[test]
    fn null_stays_where_it_says_whose_a_field_is() {
        let deployment = shared().of_kind("apps/v1", "Deployment").expect("served");
        let mut value = json!({ "foo": null, "metadata": { "labels": { "a": null } }, "spec": { "paused": null } });
        assert_eq!(prune_unknown(deployment.schema(), &mut value), ["foo"]);
        assert_eq!(value, json!({ "metadata": { "labels": { "a": null } }, "spec": { "paused": null } }));
        prune(deployment.schema(), &mut value);
        assert_eq!(value, json!({ "metadata": { "labels": {} }, "spec": {} }));
    }

    #[test]
    fn raw_json_is_kept_whole() {
        let registry = shared();
        let pod = registry.of_kind("v1", "Pod").expect("served");
        let fields = json!({ "f:metadata": { "f:labels": { ".": {}, "f:a": {} } } });
        let mut value = json!({ "metadata": { "managedFields": [{ "manager": "m", "fieldsV1": fields }] } });
        assert!(prune(pod.schema(), &mut value).is_empty());
        assert_eq!(value["metadata"]["managedFields"][0]["fieldsV1"], fields);
    }

    #[test]
    fn a_custom_schema_keeps_what_it_says_to_keep() {
        let schema = Schema::from_json(&json!({
            "type": "object",
            "properties": {
                "open": { "type": "object", "properties": { "a": { "type": "string" } }, "x-kubernetes-preserve-unknown-fields": true },
                "maybe": { "type": "string", "nullable": true },
            },
        }))
        .expect("a schema");
        let mut value = json!({ "open": { "a": "1", "b": 2 }, "maybe": null, "shut": 1 });
        assert_eq!(prune(&schema, &mut value), ["shut"]);
        assert_eq!(value, json!({ "open": { "a": "1", "b": 2 }, "maybe": null }));
    }

    /// Documents that use a pod's names in many wrong ways.
    fn podlike() -> impl Strategy<Value = Value> {
        let names =
            prop::sample::select(vec!["metadata", "spec", "status", "containers", "name", "labels", "ports", "x"]);
        let leaf =
            prop_oneof![Just(Value::Null), any::<i32>().prop_map(Value::from), "[a-z]{0,4}".prop_map(Value::from)];
        leaf.prop_recursive(5, 48, 5, move |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                prop::collection::vec((names.clone(), inner), 0..5).prop_map(|all| Value::Object(
                    all.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
                )),
            ]
        })
    }

    proptest! {
        #[test]
        fn pruning_twice_changes_nothing_more(mut value in podlike()) {
            let registry = shared();
            let pod = registry.of_kind("v1", "Pod").expect("served");
            prune(pod.schema(), &mut value);
            let once = value.clone();
            prop_assert!(prune(pod.schema(), &mut value).is_empty());
            prop_assert_eq!(once, value);
        }
    }
}
