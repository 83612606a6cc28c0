//! What the tests of patches share: a schema with one of each kind of field, and generators of documents.

use proptest::prelude::*;
use serde_json::{Map, Value, json};

use crate::tree::Schema;

/// A schema like a Deployment's, with every kind of merge in it.
pub(super) fn deployment() -> Schema {
    let text = json!({"type": "string"});
    let labels = json!({"type": "object", "additionalProperties": text});
    let port = json!({"type": "object", "properties": {
        "containerPort": {"type": "integer"}, "protocol": {"type": "string", "default": "TCP"}, "name": text,
    }});
    let ports = json!({"type": "array", "items": port, "x-kubernetes-list-type": "map",
        "x-kubernetes-list-map-keys": ["containerPort", "protocol"],
        "x-kubernetes-patch-strategy": "merge", "x-kubernetes-patch-merge-key": "containerPort"});
    let container = json!({"type": "object", "properties": {
        "name": text, "image": text, "args": {"type": "array", "items": text}, "ports": ports,
    }});
    let containers = json!({"type": "array", "items": container, "x-kubernetes-list-type": "map",
        "x-kubernetes-list-map-keys": ["name"],
        "x-kubernetes-patch-strategy": "merge", "x-kubernetes-patch-merge-key": "name"});
    let pod = json!({"type": "object", "properties": {
        "containers": containers, "nodeSelector": {"type": "object", "additionalProperties": text, "x-kubernetes-map-type": "atomic"},
    }});
    let metadata = json!({"type": "object", "properties": {
        "name": text, "uid": text, "resourceVersion": text, "labels": labels, "annotations": labels,
        "finalizers": {"type": "array", "items": text, "x-kubernetes-list-type": "set", "x-kubernetes-patch-strategy": "merge"},
        "managedFields": {"type": "array", "items": {"type": "object"}},
    }});
    let selector = json!({"type": "object", "properties": {"matchLabels": labels}, "x-kubernetes-map-type": "atomic"});
    let mut disruption = selector.clone();
    disruption["x-kubernetes-patch-strategy"] = json!("replace");
    let rolling = json!({"type": "object", "properties": {"maxSurge": {"x-kubernetes-int-or-string": true}}});
    let spec = json!({"type": "object", "properties": {
        "replicas": {"type": "integer"}, "paused": {"type": "boolean"}, "selector": selector, "disruption": disruption,
        "strategy": {"type": "object", "properties": {"type": text, "rollingUpdate": rolling}, "x-kubernetes-patch-strategy": "retainKeys"},
        "template": {"type": "object", "properties": {"metadata": metadata, "spec": pod}},
    }});
    let schema = json!({"type": "object", "properties": {
        "apiVersion": text, "kind": text, "metadata": metadata, "spec": spec, "raw": {"type": "object"},
        "free": {"type": "object", "x-kubernetes-preserve-unknown-fields": true},
        "status": {"type": "object", "properties": {"replicas": {"type": "integer"}}},
    }});
    Schema::from_json(&schema).expect("the schema of the tests is well-formed")
}

/// A deployment that has nothing but containers.
pub(super) fn workload(containers: &Value) -> Value {
    json!({"spec": {"template": {"spec": {"containers": containers}}}})
}

/// Any JSON, small and shallow, with names that mean something to patches.
pub(super) fn any_json() -> impl Strategy<Value = Value> {
    let scalar = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        (-2i64..3).prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        prop::sample::select(vec!["", "a", "delete", "replace", "merge", "\u{e9}"]).prop_map(Value::from),
    ];
    let names = prop::sample::select(vec![
        "a",
        "name",
        "spec",
        "metadata",
        "containers",
        "ports",
        "containerPort",
        "finalizers",
        "labels",
        "$patch",
        "$retainKeys",
        "$setElementOrder/containers",
        "$setElementOrder/finalizers",
        "$deleteFromPrimitiveList/finalizers",
        "managedFields",
        "template",
        "free",
        "raw",
        "f:spec",
        "",
        "\u{e9}",
    ]);
    scalar.prop_recursive(5, 40, 5, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::vec((names.clone(), inner), 0..5).prop_map(object),
        ]
    })
}

/// Something like a deployment, in which now and then a value is anything at all.
pub(super) fn near_deployment() -> impl Strategy<Value = Value> {
    let containers = prop_oneof![4 => container_list(any_json().boxed()), 1 => any_json()];
    let finalizers = prop_oneof![4 => text_list(), 1 => any_json()];
    let directives = prop_oneof![3 => Just(Map::new()), 1 => any_json().prop_map(|value| value.as_object().cloned().unwrap_or_default())];
    (valid_deployment(), containers, finalizers, directives).prop_map(
        |(mut object, containers, finalizers, directives)| {
            object["metadata"]["finalizers"] = finalizers;
            object["spec"]["template"]["spec"]["containers"] = containers;
            if let Some(fields) = object["spec"]["template"]["spec"].as_object_mut() {
                fields.extend(directives);
            }
            object
        },
    )
}

/// A deployment that its schema accepts, with few distinct values so that two of them meet.
pub(super) fn valid_deployment() -> impl Strategy<Value = Value> {
    let metadata = (maybe(text_map()), maybe(text_list())).prop_map(|(labels, finalizers)| {
        compact(vec![("name", Some(json!("web"))), ("labels", labels), ("finalizers", finalizers)])
    });
    let pod = (maybe(container_list(text_list().boxed())), maybe(text_map()))
        .prop_map(|(containers, selector)| compact(vec![("containers", containers), ("nodeSelector", selector)]));
    let template = maybe(pod).prop_map(|pod| compact(vec![("spec", pod)]));
    let spec = (maybe((1i64..3).prop_map(Value::from)), maybe(any::<bool>().prop_map(Value::from)), maybe(template))
        .prop_map(|(replicas, paused, template)| {
            compact(vec![("replicas", replicas), ("paused", paused), ("template", template)])
        });
    (metadata, maybe(spec), maybe(free_map())).prop_map(|(metadata, spec, free)| {
        compact(vec![
            ("apiVersion", Some(json!("apps/v1"))),
            ("kind", Some(json!("Deployment"))),
            ("metadata", Some(metadata)),
            ("spec", spec),
            ("free", free),
        ])
    })
}

/// JSON pointers that sometimes hit something.
pub(super) fn json_pointer() -> impl Strategy<Value = String> {
    let token = prop::sample::select(vec![
        "a",
        "name",
        "spec",
        "0",
        "1",
        "-",
        "01",
        "~0",
        "~1",
        "~",
        "",
        "99999999999999999999",
    ]);
    prop::collection::vec(token, 0..4).prop_map(|tokens| tokens.iter().flat_map(|token| ["/", token]).collect())
}

fn maybe(inner: impl Strategy<Value = Value>) -> impl Strategy<Value = Option<Value>> {
    prop::option::of(inner)
}

fn compact(fields: Vec<(&str, Option<Value>)>) -> Value {
    object(fields.into_iter().filter_map(|(name, value)| Some((name, value?))).collect())
}

fn object(fields: Vec<(&str, Value)>) -> Value {
    Value::Object(fields.into_iter().map(|(name, value)| (name.to_owned(), value)).collect())
}

fn text() -> impl Strategy<Value = Value> {
    prop::sample::select(vec!["x", "y"]).prop_map(Value::from)
}

fn key() -> impl Strategy<Value = &'static str> {
    prop::sample::select(vec!["a", "b", "c"])
}

fn text_map() -> impl Strategy<Value = Value> {
    prop::collection::vec((key(), text()), 0..3).prop_map(object)
}

fn free_map() -> impl Strategy<Value = Value> {
    prop::collection::vec((key(), prop_oneof![text(), text_map(), text_list()]), 0..3).prop_map(object)
}

fn text_list() -> impl Strategy<Value = Value> {
    prop::collection::btree_set(key(), 0..3).prop_map(|set| json!(set)).prop_shuffle_list()
}

fn container_list(args: BoxedStrategy<Value>) -> impl Strategy<Value = Value> {
    let port = (1i64..3, prop::option::of(prop::sample::select(vec!["TCP", "UDP"]))).prop_map(|(number, protocol)| {
        compact(vec![("containerPort", Some(json!(number))), ("protocol", protocol.map(Value::from))])
    });
    let ports = prop::collection::vec(port, 0..3).prop_map(|ports| {
        unique(ports, |port| format!("{}{}", port["containerPort"], port.get("protocol").unwrap_or(&json!("TCP"))))
    });
    let container = (key(), maybe(text()), maybe(args), maybe(ports)).prop_map(|(name, image, args, ports)| {
        compact(vec![("name", Some(json!(name))), ("image", image), ("args", args), ("ports", ports)])
    });
    prop::collection::vec(container, 0..4)
        .prop_map(|containers| unique(containers, |container| container["name"].to_string()))
}

fn unique(items: Vec<Value>, key: impl Fn(&Value) -> String) -> Value {
    let mut seen = std::collections::HashSet::new();
    Value::Array(items.into_iter().filter(|item| seen.insert(key(item))).collect())
}

/// Shuffling for strategies of JSON lists.
trait ShuffleList: Strategy<Value = Value> + Sized {
    fn prop_shuffle_list(self) -> impl Strategy<Value = Value> {
        self.prop_map(|list| list.as_array().cloned().unwrap_or_default()).prop_shuffle().prop_map(Value::from)
    }
}

impl<S: Strategy<Value = Value>> ShuffleList for S {}
