//! Schemas that are structural, are not, and are hostile.

use proptest::prelude::*;
use serde_json::json;

use super::*;

fn problems(spec: &Value) -> Vec<String> {
    let schema = json!({ "type": "object", "properties": { "spec": spec } });
    check(&schema, &Path::Root.field("s")).iter().map(ToString::to_string).collect()
}

#[test]
fn what_is_not_structural_is_named() {
    for (spec, message) in [
        (json!({}), "s.properties[spec].type: Required value: must not be empty for specified object fields"),
        (
            json!({ "type": "object", "properties": { "a": {} } }),
            "s.properties[spec].properties[a].type: Required value: must not be empty for specified object fields",
        ),
        (json!({ "type": "array" }), "s.properties[spec].items: Required value: must be specified"),
        (
            json!({ "type": "array", "items": {} }),
            "s.properties[spec].items.type: Required value: must not be empty for specified array items",
        ),
        (
            json!({ "type": "wrong" }),
            r#"s.properties[spec].type: Unsupported value: "wrong": supported values: "array", "boolean", "integer", "number", "object", "string""#,
        ),
        (json!({ "type": "object", "$ref": "#/a" }), "s.properties[spec].$ref: Forbidden: $ref is not supported"),
        (
            json!({ "type": "object", "additionalProperties": false }),
            "s.properties[spec].additionalProperties: Forbidden: additionalProperties cannot be set to false",
        ),
        (
            json!({ "type": "object", "properties": { "a": { "type": "string" } }, "anyOf": [{ "properties": { "a": { "type": "string" } } }] }),
            "s.properties[spec].anyOf[0].properties[a].type: Forbidden: must be empty to be structural",
        ),
        (
            json!({ "type": "object", "not": { "properties": { "a": { "minLength": 1 } } } }),
            "s.properties[spec].not.properties[a]: Required value: because it is defined in s.properties[spec].not.properties[a]",
        ),
        (
            json!({ "type": "string", "default": 1 }),
            r#"s.properties[spec].default: Invalid value: "integer": s.properties[spec].default in body must be of type string: "integer""#,
        ),
        (
            json!({ "type": "object", "default": { "a": 1 } }),
            r#"s.properties[spec].default: Invalid value: {"a":1}: must not have unknown field "a""#,
        ),
        (
            json!({ "type": "string", "x-kubernetes-list-type": "set" }),
            r#"s.properties[spec].type: Invalid value: "string": must be array if x-kubernetes-list-type is specified"#,
        ),
        (
            json!({ "type": "array", "items": { "type": "string" }, "x-kubernetes-list-type": "map" }),
            "s.properties[spec].x-kubernetes-list-map-keys: Required value: must not be empty if x-kubernetes-list-type is map",
        ),
    ] {
        assert_eq!(problems(&spec), [message], "{spec}");
    }
    assert!(problems(&json!({ "type": "string", "pattern": "(" }))[0].contains("must be a valid regular expression"));
}

#[test]
fn what_operators_write_is_structural() {
    for spec in [
        json!({ "x-kubernetes-int-or-string": true, "anyOf": [{ "type": "integer" }, { "type": "string" }], "pattern": "^[0-9]+$" }),
        json!({ "x-kubernetes-preserve-unknown-fields": true }),
        json!({ "type": "object", "x-kubernetes-preserve-unknown-fields": true, "x-kubernetes-embedded-resource": true }),
        json!({ "type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["type"],
            "items": { "type": "object", "required": ["type"], "properties": { "type": { "type": "string" } } } }),
        json!({ "type": "object", "properties": { "a": { "type": "object", "default": {}, "properties": { "b": { "type": "integer", "default": 1 } } } } }),
        json!({ "type": "object", "additionalProperties": { "type": "string" } }),
        json!({ "type": "object", "properties": { "a": { "type": "string" } }, "oneOf": [{ "required": ["a"] }, { "not": { "required": ["a"] } }] }),
    ] {
        assert_eq!(problems(&spec), Vec::<String>::new(), "{spec}");
    }
}

fn hostile() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(json!(null)),
        Just(json!("object")),
        Just(json!("array")),
        Just(json!(-1)),
        Just(json!(true)),
        Just(json!("("))
    ];
    leaf.prop_recursive(5, 48, 6, |inner| {
        let keys = prop::sample::select(vec![
            "type",
            "properties",
            "items",
            "additionalProperties",
            "default",
            "allOf",
            "not",
            "pattern",
            "enum",
            "a",
            "x-kubernetes-list-type",
            "x-kubernetes-list-map-keys",
            "required",
            "x-kubernetes-validations",
            "minimum",
        ]);
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..3).prop_map(Value::from),
            prop::collection::vec((keys, inner), 0..5).prop_map(|pairs| Value::Object(
                pairs.into_iter().map(|(key, value)| (key.to_owned(), value)).collect()
            )),
        ]
    })
}

proptest! {
    #[test]
    fn hostile_schemas_are_refused_or_usable(schema in hostile(), value in hostile()) {
        if check(&schema, &Path::Root).is_empty() {
            let tree = super::super::testing::schema(&schema);
            let mut value = value;
            prune(&tree, &mut value);
            apply_defaults(&tree, &mut value);
            values::check(&tree, &value, None);
        }
    }
}
