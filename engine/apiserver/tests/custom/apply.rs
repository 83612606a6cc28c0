//! Defaults, `null` and rules, as an operator's typed client meets them.

use serde_json::{Value, json};

use crate::common::{CONFIG_MAPS, Cluster, DEPLOYMENTS, config_map, deployment};
use crate::define;

const FOOS: &str = "/apis/example.dev/v1/namespaces/default/foos";

/// What is derived from a struct with fields that may be null, have defaults, or both, and rules on some of them.
fn definition() -> Value {
    let text = json!({ "type": "string" });
    let maybe = json!({ "type": "string", "nullable": true });
    let with = |base: &Value, key: &str, value: Value| {
        let mut schema = base.clone();
        schema[key] = value;
        schema
    };
    let rules = |rules: Value| ("x-kubernetes-validations", rules);
    let (key, checked) = rules(json!([
        { "rule": "self != 'illegal'", "messageExpression": "'string cannot be illegal'", "reason": "FieldValueForbidden" },
        { "rule": "self != 'not legal'", "reason": "FieldValueInvalid" },
    ]));
    let numbers = json!({ "type": "array", "items": { "type": "integer", "format": "uint32", "minimum": 0 } });
    let inner = json!({ "type": "object", "nullable": true, "required": ["field"],
        "x-kubernetes-validations": [{ "rule": "self == oldSelf", "message": "is immutable" }],
        "properties": { "other": maybe, "field": with(&text, key, json!([
            { "rule": "self != 'not legal'" }, { "rule": "self != 'not that'" },
            { "rule": "self != 'also not that'", "message": "some pretty good reason" }])) } });
    let once = json!([{ "rule": "oldSelf.optMap(o, o == self).orValue(true)", "optionalOldSelf": true, "message": "Immutable after creation" }]);
    let properties = json!({
        "nonNullable": text, "nonNullableWithDefault": with(&text, "default", json!("default_value")),
        "nullableSkipped": maybe, "nullable": maybe,
        "nullableWithDefault": with(&maybe, "default", json!("default_nullable")),
        "noDefault": with(&maybe, "default", Value::Null),
        "listable": with(&numbers, "default", json!([])),
        "setListable": with(&with(&numbers, "default", json!([])), "x-kubernetes-list-type", json!("set")),
        "checked": with(&with(&maybe, "default", json!("legal")), key, checked),
        "immutable": with(&maybe, key, once), "inner": inner,
        "flag": { "type": "boolean", "default": true },
    });
    let spec = json!({ "type": "object", "required": ["nonNullable"], "properties": properties,
        "x-kubernetes-validations": [{ "rule": "self.nonNullable == oldSelf.nonNullable" }] });
    let schema = json!({ "type": "object", "required": ["spec"], "properties": { "spec": spec },
        "x-kubernetes-validations": [{ "rule": "self.metadata.name != 'forbidden'" }] });
    json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition", "metadata": { "name": "foos.example.dev" },
        "spec": { "group": "example.dev", "scope": "Namespaced",
            "names": { "kind": "Foo", "plural": "foos", "singular": "foo", "shortNames": [], "categories": [] },
            "versions": [{ "name": "v1", "served": true, "storage": true, "schema": { "openAPIV3Schema": schema },
                "subresources": {}, "additionalPrinterColumns": [] }] },
    })
}

fn foo(name: &str, spec: Value) -> Value {
    let mut object = json!({ "apiVersion": "example.dev/v1", "kind": "Foo", "metadata": { "name": name } });
    object["spec"] = spec;
    object
}

#[tokio::test]
async fn null_is_kept_where_it_is_a_value_and_filled_in_where_it_is_none() {
    let cluster = Cluster::new().await;
    define(&cluster, &definition()).await;
    let sent = json!({ "nonNullable": "", "nonNullableWithDefault": null, "nullable": null, "nullableWithDefault": null,
        "listable": [], "setListable": [], "checked": null, "immutable": null, "inner": null, "flag": false });
    let mut expected = sent.clone();
    expected["nonNullableWithDefault"] = "default_value".into();
    assert_eq!(cluster.post(FOOS, &foo("bar", sent)).await.ok()["spec"], expected);
    let sent = json!({ "nonNullable": "a required field", "listable": [2], "setListable": [2] });
    let made = cluster.post(FOOS, &foo("baz", sent)).await.ok();
    let expected = json!({ "nonNullable": "a required field", "listable": [2], "setListable": [2], "checked": "legal",
        "nonNullableWithDefault": "default_value", "nullableWithDefault": "default_nullable", "flag": true });
    assert_eq!(made["spec"], expected);
    let (code, text) = cluster.post(FOOS, &foo("qux", json!({}))).await.failure();
    assert_eq!(code, 422);
    assert!(
        text.contains("Foo.example.dev \"qux\" is invalid") && text.contains("spec.nonNullable: Required value"),
        "{text}"
    );
    let (_, text) = cluster.post(FOOS, &foo("forbidden", json!({ "nonNullable": "" }))).await.failure();
    assert!(text.contains("failed rule: self.metadata.name != 'forbidden'"), "{text}");
}

#[tokio::test]
async fn rules_speak_of_applied_objects_in_their_own_words() {
    let cluster = Cluster::new().await;
    define(&cluster, &definition()).await;
    cluster.post(FOOS, &foo("baz", json!({ "nonNullable": "a", "listable": [2], "setListable": [2] }))).await.ok();
    let apply = async |spec: Value| {
        let applied = json!({ "apiVersion": "example.dev/v1", "kind": "Foo", "spec": spec });
        cluster.patch(&format!("{FOOS}/baz?fieldManager=m&force=true"), "apply", &applied).await
    };
    let lists = apply(json!({ "listable": [3], "setListable": [3] })).await.ok();
    assert_eq!((&lists["spec"]["listable"], &lists["spec"]["setListable"]), (&json!([3]), &json!([2, 3])));
    for (spec, field, word) in [
        (json!({ "checked": "illegal" }), "spec.checked: Forbidden", "string cannot be illegal"),
        (json!({ "checked": "not legal" }), "spec.checked: Invalid value", "failed rule: self != 'not legal'"),
        (
            json!({ "inner": { "field": "not legal" } }),
            "spec.inner.field: Invalid value",
            "failed rule: self != 'not legal'",
        ),
        (
            json!({ "inner": { "field": "also not that" } }),
            "spec.inner.field: Invalid value",
            "some pretty good reason",
        ),
    ] {
        let (code, text) = apply(spec).await.failure();
        assert!(code == 422 && text.contains(field) && text.contains(word), "{text}");
    }
    apply(json!({ "inner": { "field": "legal" }, "immutable": "x" })).await.ok();
    let (_, text) =
        apply(json!({ "inner": { "field": "legal", "other": "different" }, "immutable": "x" })).await.failure();
    assert!(text.contains("spec.inner: Invalid value") && text.contains("is immutable"), "{text}");
    let (_, text) = apply(json!({ "inner": { "field": "legal" }, "immutable": "y" })).await.failure();
    assert!(text.contains("spec.immutable: Invalid value") && text.contains("Immutable after creation"), "{text}");
    apply(json!({ "checked": "legal", "inner": { "field": "legal" }, "immutable": "x" })).await.ok();
}

/// What a manager owns of an object.
fn owned(object: &Value, manager: &str) -> Value {
    let entries = object["metadata"]["managedFields"].as_array().unwrap();
    entries.iter().find(|entry| entry["manager"] == manager).map_or(Value::Null, |entry| entry["fieldsV1"].clone())
}

#[tokio::test]
async fn an_applied_null_owns_its_field_and_empties_it() {
    let cluster = Cluster::new().await;
    define(&cluster, &definition()).await;
    let apply = async |path: &str, manager: &str, object: &Value| {
        cluster.patch(&format!("{path}?fieldManager={manager}"), "apply", object).await
    };
    let path = format!("{FOOS}/a");
    let full =
        foo("a", json!({ "nonNullable": "x", "nullable": "x", "nonNullableWithDefault": "x", "nullableSkipped": "x" }));
    apply(&path, "one", &full).await.ok();
    // Another value than somebody else's is a conflict, whatever the value is.
    let empty = foo("a", json!({ "nullable": null, "nonNullableWithDefault": null }));
    let (code, text) = apply(&path, "two", &empty).await.failure();
    assert!(code == 409 && text.contains(".spec.nullable") && text.contains(".spec.nonNullableWithDefault"), "{text}");
    let forced = cluster.patch(&format!("{path}?fieldManager=two&force=true"), "apply", &empty).await.ok();
    assert_eq!(
        (&forced["spec"]["nullable"], &forced["spec"]["nonNullableWithDefault"]),
        (&Value::Null, &json!("default_value"))
    );
    assert_eq!(forced["spec"].as_object().unwrap().get("nullable"), Some(&Value::Null));
    assert_eq!(owned(&forced, "two"), json!({ "f:spec": { "f:nullable": {}, "f:nonNullableWithDefault": {} } }));
    assert_eq!(owned(&forced, "one"), json!({ "f:spec": { "f:nonNullable": {}, "f:nullableSkipped": {} } }));

    let path = format!("{DEPLOYMENTS}/web");
    let mut web = deployment("web");
    web["spec"]["revisionHistoryLimit"] = 3.into();
    apply(&path, "one", &web).await.ok();
    let empty = json!({ "apiVersion": "apps/v1", "kind": "Deployment", "spec": { "revisionHistoryLimit": null } });
    assert_eq!(apply(&path, "two", &empty).await.failure().0, 409);
    let forced = cluster.patch(&format!("{path}?fieldManager=two&force=true"), "apply", &empty).await.ok();
    assert_eq!(forced["spec"]["revisionHistoryLimit"], 10);
    assert_eq!(owned(&forced, "two"), json!({ "f:spec": { "f:revisionHistoryLimit": {} } }));

    let path = format!("{CONFIG_MAPS}/c");
    cluster.post(CONFIG_MAPS, &config_map("c", &json!({}), "1")).await.ok();
    let empty = json!({ "apiVersion": "v1", "kind": "ConfigMap", "data": { "k": null } });
    let forced = cluster.patch(&format!("{path}?fieldManager=two&force=true"), "apply", &empty).await.ok();
    assert_eq!(forced["data"].get("k"), None);
    // Outside of apply `null` is no value where the schema does not say so.
    let (_, text) = cluster
        .patch(&format!("{FOOS}/a"), "json", &json!([{ "op": "add", "path": "/spec/nonNullable", "value": null }]))
        .await
        .failure();
    assert!(text.contains("spec.nonNullable: Required value"), "{text}");
}
