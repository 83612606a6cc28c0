//! Who owns what after creates, updates and writes of the status.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::patch::fixture::{any_json, deployment, near_deployment, valid_deployment};

const NOW: &str = "2026-01-01T00:00:00Z";
const LATER: &str = "2026-01-02T00:00:00Z";

fn manager(name: &str) -> Manager {
    Manager { name: name.to_owned(), api_version: "apps/v1".to_owned(), subresource: None }
}

fn tracked(old: Option<&Value>, new: &Value, manager: &Manager, now: &str) -> Value {
    let mut new = new.clone();
    track_update(&deployment(), old, &mut new, manager, now);
    new
}

fn with(object: &Value, pointer: &str, value: Value) -> Value {
    let mut object = object.clone();
    *object.pointer_mut(pointer).expect("the place is there") = value;
    object
}

fn entries(object: &Value) -> Vec<(String, Vec<String>)> {
    let managed = Managed::of(object).expect("readable managers");
    managed.entries.iter().map(|entry| (entry.manager.clone(), entry.set.paths())).collect()
}

fn created() -> Value {
    let object = json!({"apiVersion": "apps/v1", "kind": "D", "metadata": {"name": "web", "uid": "u", "labels": {"a": "1"}}, "spec": {"replicas": 1, "paused": true}});
    tracked(None, &object, &manager("creator"), NOW)
}

#[test]
fn the_creator_owns_all_but_what_the_server_keeps() {
    let fields = json!({
        "f:metadata": {"f:labels": {".": {}, "f:a": {}}},
        "f:spec": {".": {}, "f:paused": {}, "f:replicas": {}},
    });
    let entry = json!({"manager": "creator", "operation": "Update", "apiVersion": "apps/v1", "time": NOW, "fieldsType": "FieldsV1", "fieldsV1": fields});
    assert_eq!(created()["metadata"]["managedFields"], json!([entry]));
}

#[test]
fn a_changed_field_moves_and_a_removed_one_goes() {
    let old = created();
    let mut new = with(&old, "/spec/replicas", json!(2));
    new["spec"].as_object_mut().unwrap().shift_remove("paused");
    let new = tracked(Some(&old), &new, &manager("other"), LATER);
    let creator = [".metadata.labels", ".metadata.labels.a", ".spec"].map(str::to_owned).to_vec();
    assert_eq!(
        entries(&new),
        [("creator".to_owned(), creator), ("other".to_owned(), vec![".spec.replicas".to_owned()])]
    );
    assert_eq!(new["metadata"]["managedFields"][1]["time"], LATER);
}

#[test]
fn a_write_that_changes_nothing_changes_no_entry() {
    let old = created();
    assert_eq!(tracked(Some(&old), &old, &manager("other"), LATER), old);
}

#[test]
fn a_client_that_sends_no_entries_loses_none() {
    let old = created();
    let mut new = old.clone();
    strip_managed(&mut new);
    assert_eq!(tracked(Some(&old), &new, &manager("other"), LATER), old);
    let broken = with(&old, "/metadata/managedFields", json!([{"operation": "Odd"}]));
    assert_eq!(tracked(Some(&old), &broken, &manager("other"), LATER), old);
}

#[test]
fn a_client_may_send_entries_of_its_own() {
    let old = created();
    let new = with(&old, "/metadata/managedFields/0/manager", json!("renamed"));
    assert_eq!(tracked(Some(&old), &new, &manager("other"), LATER), new);
}

#[test]
fn an_empty_list_or_an_empty_entry_ends_the_tracking() {
    let old = created();
    for reset in [json!([]), json!([{}])] {
        let new = tracked(Some(&old), &with(&old, "/metadata/managedFields", reset), &manager("other"), LATER);
        assert_eq!(managed_fields(&new), None);
        let later = tracked(Some(&new), &with(&new, "/spec/replicas", json!(9)), &manager("other"), LATER);
        assert_eq!(managed_fields(&later), None);
    }
}

#[test]
fn a_subresource_has_an_entry_of_its_own_and_cannot_reset() {
    let old = created();
    let mut new = with(&old, "/metadata/managedFields", json!([]));
    new["status"] = json!({"replicas": 1});
    let status = Manager { subresource: Some("status".to_owned()), ..manager("creator") };
    let new = tracked(Some(&old), &new, &status, NOW);
    let entries = new["metadata"]["managedFields"].as_array().unwrap();
    assert_eq!(entries[1]["subresource"], "status");
    assert_eq!(entries[1]["fieldsV1"], json!({"f:status": {".": {}, "f:replicas": {}}}));
    assert_eq!(entries[0], old["metadata"]["managedFields"][0]);
}

proptest! {
    #[test]
    fn nothing_makes_it_panic(
        old in prop::option::of(prop_oneof![any_json(), near_deployment()]),
        new in prop_oneof![any_json(), near_deployment()],
    ) {
        let mut new = new;
        track_update(&deployment(), old.as_ref(), &mut new, &manager("me"), NOW);
    }

    #[test]
    fn after_any_write_every_field_has_just_one_updater(first in valid_deployment(), second in valid_deployment()) {
        let old = tracked(None, &first, &manager("a"), NOW);
        // An object of which nothing is owned is not tracked.
        if managed_fields(&old).is_none() {
            return Ok(());
        }
        let new = tracked(Some(&old), &second, &manager("b"), LATER);
        let managed = Managed::of(&new).unwrap();
        let empty = json!({});
        let mut bare = new.clone();
        strip_managed(&mut bare);
        let all = without_unowned(compare(Some(&deployment()), Some(&empty), Some(&bare)).added);
        prop_assert_eq!(all.difference(&managed.all()).paths(), Vec::<String>::new());
        if let [a, b] = managed.entries.as_slice() {
            prop_assert!(a.set.intersection(&b.set).is_empty());
        }
    }
}
