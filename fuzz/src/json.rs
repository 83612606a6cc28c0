//! Targets that read JSON: the patch engines, ownership of fields, and custom schemas.
//!
//! An input is a list of documents; one that is not there counts as `null`.

use std::sync::{Arc, LazyLock};

use serde_json::{Value, json};
use shipway_schema::custom::{Document, resources};
use shipway_schema::patch::{self, MAX_DEPTH, Manager, track_update};
use shipway_schema::{Resource, Schema, apply_defaults, check_types, prune};

use super::targets::{depth, registry};

const NOW: &str = "2026-01-01T00:00:00Z";
const LATER: &str = "2026-01-02T00:00:00Z";

/// The shape of a Deployment, looked up once.
fn deployment() -> &'static Schema {
    static DEPLOYMENT: LazyLock<Schema> = LazyLock::new(|| {
        let resource = registry().of_kind("apps/v1", "Deployment").expect("deployments are built in");
        resource.schema().clone()
    });
    &DEPLOYMENT
}

fn manager(name: &str) -> Manager {
    Manager { name: name.to_owned(), api_version: "apps/v1".to_owned(), subresource: None }
}

/// Runs a patch; a refused one changes nothing, an accepted one leaves the object within its depth.
fn patched<E>(target: &Value, run: impl Fn(&mut Value) -> Result<(), E>) -> Option<Value> {
    let mut after = target.clone();
    if run(&mut after).is_err() {
        assert!(after == *target, "a refused patch changed its target");
        return None;
    }
    assert!(depth(&after) <= MAX_DEPTH.max(depth(target)), "a patch made its target too deep");
    Some(after)
}

/// `[target, operations]`.
pub fn json_patch(input: &Value) {
    patched(&input[0], |target| patch::json_patch(target, &input[1]));
}

/// `[target, patch]`: the second time changes nothing.
pub fn merge_patch(input: &Value) {
    let merge = |target: &mut Value| patch::merge_patch(target, &input[1]);
    if let Some(once) = patched(&input[0], merge) {
        assert_eq!(patched(&once, merge), Some(once));
    }
}

/// `[target, patch]` over a Deployment: no directive reaches the result.
pub fn strategic(input: &Value) {
    let schema = deployment();
    patched(&input[0], |target| patch::strategic(schema, target, &input[1]));
}

/// `[live, applied, force]` over a Deployment: where the live object is one that the server may hold, applying twice is
/// applying once.
pub fn apply(input: &Value) {
    let schema = deployment();
    let live = Some(&input[0]).filter(|live| !live.is_null());
    let force = input[2].as_bool().unwrap_or(false);
    let Ok(once) = patch::apply(schema, live, &input[1], &manager("me"), force, NOW) else { return };
    if fits(&input[1]).is_some() && live.is_none_or(|live| fits(live).as_ref() == Some(live)) {
        let twice = patch::apply(schema, Some(&once), &input[1], &manager("me"), false, LATER);
        assert_eq!(twice.as_ref(), Ok(&once));
    }
}

/// A value that is of the Deployment's types and says nothing unknown, as it is stored: without `null`.
fn fits(value: &Value) -> Option<Value> {
    let mut pruned = value.clone();
    (check_types(deployment(), value).is_empty() && prune(deployment(), &mut pruned).is_empty()).then_some(pruned)
}

/// `[fields, fields, old, new]`: what two managers own of an object that a third one writes. Reading what was written
/// and writing it again changes nothing.
pub fn field_set(input: &Value) {
    let entry = |name: &str, operation: &str, fields: &Value| {
        json!({"manager": name, "operation": operation, "apiVersion": "apps/v1", "time": NOW,
            "fieldsType": "FieldsV1", "fieldsV1": fields})
    };
    let (mut old, mut new) = (input[2].clone(), input[3].clone());
    if let Some(metadata) = old.get_mut("metadata").and_then(Value::as_object_mut) {
        let entries = json!([entry("a", "Apply", &input[0]), entry("b", "Update", &input[1])]);
        metadata.insert("managedFields".to_owned(), entries);
    }
    let schema = deployment();
    track_update(schema, Some(&old), &mut new, &manager("c"), NOW);
    let mut again = new.clone();
    track_update(schema, Some(&new), &mut again, &manager("c"), LATER);
    assert_eq!(again, new);
}

/// `[schema, document]`: a schema that is taken can be walked, and pruning twice is pruning once.
pub fn custom_schema(input: &Value) {
    let Ok(schema) = Schema::from_json(&input[0]) else { return };
    let mut document = input[1].clone();
    prune(&schema, &mut document);
    let once = document.clone();
    prune(&schema, &mut document);
    assert_eq!(document, once);
    apply_defaults(&schema, &mut document);
    check_types(&schema, &document);
    patch::apply(&schema, None, &document, &manager("me"), false, NOW).ok();
    patch::strategic(&schema, &mut document, &input[1]).ok();
}

/// `[definition, object, old]`: a definition that is taken can be used on any object, rules and all.
pub fn definition(input: &Value) {
    static DEFINITION: LazyLock<Arc<Resource>> = LazyLock::new(|| {
        let resource = registry().of_kind("apiextensions.k8s.io/v1", "CustomResourceDefinition");
        resource.expect("definitions are built in")
    });
    let (shape, strategy) = (DEFINITION.schema(), DEFINITION.strategy());
    let mut definition = input[0].clone();
    if !definition.is_object() || !check_types(shape, &definition).is_empty() {
        return;
    }
    prune(shape, &mut definition);
    strategy.default(&mut definition);
    strategy.prepare_create(&mut definition);
    if !strategy.validate(&definition, None).is_empty() {
        return;
    }
    let document: Document = Arc::new(definition.to_string().into_bytes());
    for resource in resources(&document) {
        let settled = |object: &Value| {
            let mut object = if object.is_object() { object.clone() } else { json!({}) };
            object["apiVersion"] = resource.api_version().into();
            resource.settle(&mut object);
            let once = object.clone();
            assert!(!resource.settle(&mut object) && object == once, "settling twice is not settling once");
            object
        };
        let (object, old) = (settled(&input[1]), settled(&input[2]));
        resource.strategy().validate(&object, None);
        resource.strategy().validate(&object, Some(&old));
        resource.strategy().validate(&object, Some(&object));
    }
}
