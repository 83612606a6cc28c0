//! Values against schemas, with the words that `kubectl` shows.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::super::testing;
use super::*;

fn problems(schema: &Value, value: &Value) -> Vec<String> {
    let schema = testing::schema(&json!({ "type": "object", "properties": { "spec": schema } }));
    check(&schema, &json!({ "spec": value }), None).iter().map(ToString::to_string).collect()
}

#[test]
fn each_constraint_is_worded_as_clients_know_it() {
    for (schema, value, message) in [
        (
            json!({ "type": "integer" }),
            json!("x"),
            r#"spec: Invalid value: "string": spec in body must be of type integer: "string""#,
        ),
        (
            json!({ "type": "string", "enum": ["a", "b"] }),
            json!("c"),
            r#"spec: Unsupported value: "c": supported values: "a", "b""#,
        ),
        (
            json!({ "type": "string", "pattern": "^a+$" }),
            json!("b"),
            r#"spec: Invalid value: "b": spec in body should match '^a+$'"#,
        ),
        (
            json!({ "type": "integer", "minimum": 1 }),
            json!(0),
            "spec: Invalid value: 0: spec in body should be greater than or equal to 1",
        ),
        (
            json!({ "type": "integer", "minimum": 1, "exclusiveMinimum": true }),
            json!(1),
            "spec: Invalid value: 1: spec in body should be greater than 1",
        ),
        (
            json!({ "type": "number", "maximum": 1.5 }),
            json!(2),
            "spec: Invalid value: 2: spec in body should be less than or equal to 1.5",
        ),
        (
            json!({ "type": "integer", "multipleOf": 5 }),
            json!(7),
            "spec: Invalid value: 7: spec in body should be a multiple of 5",
        ),
        (
            json!({ "type": "string", "minLength": 2 }),
            json!("é"),
            r#"spec: Invalid value: "é": spec in body should be at least 2 chars long"#,
        ),
        (json!({ "type": "string", "maxLength": 2 }), json!("abc"), "spec: Too long: may not be more than 2 bytes"),
        (
            json!({ "type": "array", "items": { "type": "string" }, "maxItems": 1 }),
            json!(["a", "b"]),
            "spec: Too many: 2: must have at most 1 items",
        ),
        (
            json!({ "type": "array", "items": { "type": "string" }, "minItems": 1 }),
            json!([]),
            "spec: Invalid value: []: spec in body should have at least 1 items",
        ),
        (json!({ "type": "object", "required": ["a"] }), json!({}), "spec.a: Required value"),
        (
            json!({ "type": "string", "format": "ipv4" }),
            json!("x"),
            r#"spec: Invalid value: "x": spec in body must be of type ipv4: "x""#,
        ),
        (
            json!({ "type": "array", "items": { "type": "string" }, "x-kubernetes-list-type": "set" }),
            json!(["a", "a"]),
            r#"spec[1]: Duplicate value: "a""#,
        ),
        (
            json!({ "type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["n"],
                "items": { "type": "object", "properties": { "n": { "type": "string" }, "v": { "type": "integer" } } } }),
            json!([{ "n": "a", "v": 1 }, { "n": "a", "v": 2 }]),
            r#"spec[1]: Duplicate value: {"n":"a"}"#,
        ),
        (
            json!({ "type": "integer", "not": { "enum": [3] } }),
            json!(3),
            r#"spec: Invalid value: 3: "spec" must not validate the schema (not)"#,
        ),
        (
            json!({ "type": "object", "properties": { "a": { "type": "string" }, "b": { "type": "string" } }, "oneOf": [{ "required": ["a"] }, { "required": ["b"] }] }),
            json!({ "a": "1", "b": "2" }),
            r#"spec: Invalid value: {"a":"1","b":"2"}: "spec" must validate one and only one schema (oneOf). Found 2 valid alternatives"#,
        ),
        (
            json!({ "x-kubernetes-int-or-string": true }),
            json!(true),
            r#"spec: Invalid value: "boolean": spec in body must be of type integer,string: "boolean""#,
        ),
    ] {
        assert_eq!(problems(&schema, &value), [message], "{schema} {value}");
    }
}

#[test]
fn good_values_pass() {
    for (schema, value) in [
        (json!({ "type": "string", "nullable": true }), Value::Null),
        (json!({ "type": "integer" }), json!(2.0)),
        (json!({ "type": "number", "multipleOf": 0.1 }), json!(0.3)),
        (json!({ "type": "object", "additionalProperties": { "type": "integer" } }), json!({ "any": 1 })),
        (
            json!({ "x-kubernetes-int-or-string": true, "anyOf": [{ "type": "integer" }, { "type": "string" }] }),
            json!("50%"),
        ),
        (json!({ "type": "integer", "allOf": [{ "minimum": 1 }, { "maximum": 3 }] }), json!(2)),
        (json!({ "x-kubernetes-preserve-unknown-fields": true }), json!([1, "a"])),
    ] {
        assert_eq!(problems(&schema, &value), Vec::<String>::new(), "{schema} {value}");
    }
}

#[test]
fn what_an_update_leaves_alone_is_not_judged_again() {
    let schema = testing::schema(&json!({ "type": "object", "properties": {
        "a": { "type": "string", "maxLength": 1 },
        "b": { "type": "string" },
        "l": { "type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["n"],
            "items": { "type": "object", "properties": { "n": { "type": "string" }, "v": { "type": "integer", "minimum": 1 } } } },
    } }));
    let old = json!({ "a": "long", "b": "1", "l": [{ "n": "x", "v": 0 }, { "n": "y", "v": 1 }] });
    let mut new = json!({ "a": "long", "b": "2", "l": [{ "n": "y", "v": 1 }, { "n": "x", "v": 0 }] });
    assert_eq!(check(&schema, &new, Some(&old)), []);
    assert_eq!(check(&schema, &new, None).len(), 2);
    new["l"][1]["v"] = json!(-1);
    new["a"] = json!("other");
    let fields: Vec<String> = check(&schema, &new, Some(&old)).into_iter().map(|error| error.field).collect();
    assert_eq!(fields, ["a", "l[1].v"]);
}

proptest! {
    #[test]
    fn hostile_values_are_judged_in_bounds(depth in 0..60_usize, width in 0..200_usize) {
        let schema = testing::schema(&json!({ "type": "object", "properties": {
            "l": { "type": "array", "items": { "type": "integer", "maximum": 0 } },
        } }));
        let mut value = json!(1);
        for _ in 0..depth {
            value = json!([value]);
        }
        let value = json!({ "l": vec![value; width] });
        let errors = check(&schema, &value, None);
        prop_assert!(errors.len() <= ENOUGH);
        prop_assert_eq!(errors.is_empty(), width == 0);
    }
}

#[test]
fn many_alternatives_over_a_large_value_are_tried_without_words() {
    let branches: Vec<Value> = (0..5000).map(|n| json!({ "minProperties": 1_000_000 + n })).collect();
    let schema =
        testing::schema(&json!({ "type": "object", "x-kubernetes-preserve-unknown-fields": true, "anyOf": branches }));
    let value = json!({ "text": "x".repeat(1_000_000) });
    let errors = check(&schema, &value, None);
    assert_eq!(errors.len(), 1);
    assert_eq!(errors[0].message, r#"Invalid value: "object": "" must validate at least one schema (anyOf)"#);
}
