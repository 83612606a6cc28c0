//! The promises of server-side apply as data: see `cases.yaml` for what a case says.

use serde_json::{Map, Value, json};

use super::*;
use crate::patch::merge::merge_patch;
use crate::patch::track::track_update;
use crate::registry::shared;

static CASES: &str = include_str!("cases.yaml");

/// A custom resource with one of each kind of field.
fn widget() -> Schema {
    let text = json!({"type": "string"});
    let keyed = |item: Value| json!({"type": "array", "items": item, "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["id"]});
    let set = |item: &str| json!({"type": "array", "items": {"type": item}, "x-kubernetes-list-type": "set"});
    let map = |inner: &Value| json!({"type": "object", "additionalProperties": inner});
    let inner = json!({"type": "object", "properties": {"id": text, "v": {"type": "integer"}}});
    let outer = json!({"type": "object", "properties": {"id": {"type": "integer"}, "inner": keyed(inner)}});
    let spec = json!({"type": "object", "properties": {
        "name": text, "size": {"type": "integer"}, "maybe": {"type": "string", "nullable": true},
        "nested": {"type": "object", "properties": {"x": text, "y": text}},
        "outer": keyed(outer), "set": set("number"), "maps": map(&map(&text)), "sets": map(&set("string")),
        "free": {"type": "object", "x-kubernetes-preserve-unknown-fields": true},
    }});
    Schema::from_json(&json!({"type": "object", "properties": {"spec": spec}})).expect("the schema is well-formed")
}

fn schema_of(name: &str) -> Schema {
    let (version, kind) = match name {
        "deployment" => ("apps/v1", "Deployment"),
        "service" => ("v1", "Service"),
        "configmap" => ("v1", "ConfigMap"),
        "pod" => ("v1", "Pod"),
        _ => return widget(),
    };
    shared().of_kind(version, kind).expect("the kind is built in").schema().clone()
}

fn text<'a>(value: &'a Value, name: &str) -> Option<&'a str> {
    value.get(name).and_then(Value::as_str)
}

fn at_second(step: usize) -> String {
    format!("2026-01-01T00:00:{step:02}Z")
}

/// One case while it runs.
struct Case<'a> {
    name: &'a str,
    schema: Schema,
    version: &'a str,
    live: Option<Value>,
}

impl Case<'_> {
    fn step(&mut self, number: usize, step: &Value) {
        let manager = Manager {
            name: text(step, "by").expect("a step has a manager").to_owned(),
            api_version: text(step, "version").unwrap_or(self.version).to_owned(),
            subresource: text(step, "through").map(str::to_owned),
        };
        let now = at_second(number);
        let Some(config) = step.get("apply") else {
            return self.update(step, &manager, &now);
        };
        let force = step["force"].as_bool().unwrap_or(false);
        let result = apply(&self.schema, self.live.as_ref(), config, &manager, force, &now);
        let place = format!("{}, step {number}", self.name);
        match (result, step.get("conflicts"), text(step, "refused")) {
            (Err(PatchError::Conflicts(found)), Some(expected), None) => {
                let found = found.iter().map(|one| format!("{}: {}", one.message(), one.field)).collect::<Vec<_>>();
                assert_eq!(json!(found), *expected, "{place}");
            }
            (Err(error), None, Some(expected)) => assert_eq!(error.to_string(), expected, "{place}"),
            (Ok(mut object), None, None) => {
                if let Some(defaults) = step.get("defaulted") {
                    merge_patch(&mut object, defaults).expect("defaults merge");
                }
                self.live = Some(object);
            }
            (result, ..) => panic!("{place}: {result:?}"),
        }
    }

    fn update(&mut self, step: &Value, manager: &Manager, now: &str) {
        let mut new = step.get("update").cloned().unwrap_or_else(|| {
            let mut new = self.live.clone().expect("there is something to merge into");
            merge_patch(&mut new, step.get("merge").expect("a step is an apply, an update or a merge"))
                .expect("merges");
            new
        });
        track_update(&self.schema, self.live.as_ref(), &mut new, manager, now);
        self.live = Some(new);
    }

    fn check(&self, case: &Value) {
        let mut object = self.live.clone().unwrap_or_else(|| json!({}));
        let entries = managed_fields(&object).and_then(Value::as_array).cloned().unwrap_or_default();
        strip_managed(&mut object);
        // What held nothing but the entries is no field of the case.
        if object["metadata"].as_object().is_some_and(Map::is_empty) && case["object"].get("metadata").is_none() {
            object.as_object_mut().expect("an object").shift_remove("metadata");
        }
        assert_eq!(object, case["object"], "{}", self.name);
        let by_owner = |field: &str| -> Value {
            let owner = |entry: &Value| {
                let words = ["operation", "manager", "subresource"].map(|name| text(entry, name));
                words.into_iter().flatten().collect::<Vec<_>>().join(" ")
            };
            entries.iter().map(|entry| (owner(entry), entry[field].clone())).collect()
        };
        if let Some(owned) = case.get("owned") {
            assert_eq!(by_owner("fieldsV1"), *owned, "{}", self.name);
        }
        if let Some(count) = case.get("entries") {
            assert_eq!(json!(entries.len()), *count, "{}", self.name);
        }
        for (owner, step) in case["times"].as_object().into_iter().flatten() {
            let step = usize::try_from(step.as_u64().expect("a step")).expect("a small number");
            assert_eq!(by_owner("time")[owner], at_second(step), "{}: {owner}", self.name);
        }
        for (owner, version) in case["versions"].as_object().into_iter().flatten() {
            assert_eq!(by_owner("apiVersion")[owner], *version, "{}: {owner}", self.name);
        }
    }
}

#[test]
fn every_case_ends_as_it_should() {
    let cases: Vec<Value> = serde_saphyr::from_str(CASES).expect("the cases are well-formed");
    assert!(cases.len() >= 60, "only {} cases are left", cases.len());
    for case in &cases {
        let name = text(case, "name").expect("a case has a name");
        let schema = text(case, "schema").expect("a case has a schema");
        let version = if schema == "deployment" { "apps/v1" } else { "v1" };
        let mut run = Case { name, schema: schema_of(schema), version, live: case.get("live").cloned() };
        for (number, step) in case["steps"].as_array().expect("a case has steps").iter().enumerate() {
            run.step(number, step);
        }
        run.check(case);
    }
}
