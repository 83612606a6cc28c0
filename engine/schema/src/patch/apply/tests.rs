//! Each rule of server-side apply: ownership, conflict, force, sharing, transfer, removal; and its laws.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::patch::fixture::{any_json, deployment, near_deployment, valid_deployment, workload};
use crate::patch::track::track_update;

const NOW: &str = "2026-01-01T00:00:00Z";
const LATER: &str = "2026-01-02T00:00:00Z";

fn manager(name: &str) -> Manager {
    Manager { name: name.to_owned(), api_version: "apps/v1".to_owned(), subresource: None }
}

fn try_apply(live: Option<&Value>, applied: &Value, name: &str, force: bool) -> Result<Value, PatchError> {
    apply(&deployment(), live, applied, &manager(name), force, NOW)
}

fn applied(live: Option<&Value>, config: &Value, name: &str) -> Value {
    try_apply(live, config, name, false).unwrap_or_else(|wrong| panic!("{name} applying {config}: {wrong}"))
}

fn updated(old: Option<&Value>, new: &Value, name: &str) -> Value {
    let mut new = new.clone();
    track_update(&deployment(), old, &mut new, &manager(name), NOW);
    new
}

fn owned(object: &Value, name: &str) -> Vec<String> {
    let managed = Managed::of(object).expect("readable managers");
    let entries = managed.entries.iter().filter(|entry| entry.manager == name);
    entries.flat_map(|entry| entry.set.paths()).collect()
}

fn bare(object: &Value) -> Value {
    let mut object = object.clone();
    strip_managed(&mut object);
    object
}

fn conflicts_of(result: Result<Value, PatchError>) -> Vec<String> {
    match result {
        Err(PatchError::Conflicts(conflicts)) => {
            conflicts.iter().map(|conflict| format!("{} {}", conflict.manager, conflict.field)).collect()
        }
        other => panic!("expected conflicts, got {other:?}"),
    }
}

#[test]
fn applying_to_nothing_creates_the_object_and_owns_what_is_named() {
    let config = json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web", "labels": {"a": "b"}}, "spec": {"replicas": 2}});
    let object = applied(None, &config, "me");
    assert_eq!(bare(&object), config);
    let entry = json!({"manager": "me", "operation": "Apply", "apiVersion": "apps/v1", "time": NOW, "fieldsType": "FieldsV1",
        "fieldsV1": {"f:metadata": {"f:labels": {"f:a": {}}}, "f:spec": {"f:replicas": {}}}});
    assert_eq!(object["metadata"]["managedFields"], json!([entry]));
}

#[test]
fn applying_the_same_again_changes_nothing_not_even_the_time() {
    let config = json!({"metadata": {"name": "web"}, "spec": {"replicas": 2}});
    let object = applied(None, &config, "me");
    let again = apply(&deployment(), Some(&object), &config, &manager("me"), false, LATER);
    assert_eq!(again, Ok(object));
}

#[test]
fn the_time_changes_with_the_set_and_with_a_value() {
    let object = applied(None, &json!({"spec": {"replicas": 2}}), "me");
    for config in [json!({"spec": {"replicas": 3}}), json!({"spec": {"replicas": 2, "paused": true}})] {
        let after = apply(&deployment(), Some(&object), &config, &manager("me"), false, LATER).unwrap();
        assert_eq!(after["metadata"]["managedFields"][0]["time"], LATER);
    }
}

#[test]
fn another_value_for_a_field_of_another_manager_is_a_conflict() {
    let live = applied(
        None,
        &workload(&json!([{"name": "web", "image": "1", "ports": [{"containerPort": 80, "name": "x"}]}])),
        "a",
    );
    let config = workload(&json!([{"name": "web", "image": "2", "ports": [{"containerPort": 80, "name": "y"}]}]));
    let at = "a .spec.template.spec.containers[name=\"web\"]";
    let expected = [format!("{at}.image"), format!("{at}.ports[containerPort=80,protocol=\"TCP\"].name")];
    assert_eq!(conflicts_of(try_apply(Some(&live), &config, "b", false)), expected);
}

#[test]
fn conflicts_say_who_wrote_how_and_when() {
    let live = updated(None, &json!({"spec": {"replicas": 1}}), "kubectl-edit");
    let one = try_apply(Some(&live), &json!({"spec": {"replicas": 2}}), "b", false).unwrap_err();
    assert_eq!(
        one.to_string(),
        "apply failed with 1 conflict: conflict with \"kubectl-edit\" using apps/v1 at 2026-01-01T00:00:00Z: .spec.replicas"
    );
    let live = applied(Some(&live), &json!({"spec": {"paused": true}}), "a");
    let two = try_apply(Some(&live), &json!({"spec": {"replicas": 2, "paused": false}}), "b", false).unwrap_err();
    let text = two.to_string();
    assert!(text.starts_with("apply failed with 2 conflicts: conflicts with \"a\":\n- .spec.paused\n"), "{text}");
}

#[test]
fn force_takes_the_field_and_its_ownership() {
    let live = applied(None, &json!({"spec": {"replicas": 1, "paused": true}}), "a");
    let after = try_apply(Some(&live), &json!({"spec": {"replicas": 2}}), "b", true).unwrap();
    assert_eq!(bare(&after), json!({"spec": {"replicas": 2, "paused": true}, "metadata": {}}));
    assert_eq!(owned(&after, "a"), [".spec.paused"]);
    assert_eq!(owned(&after, "b"), [".spec.replicas"]);
}

#[test]
fn the_same_value_is_owned_together_and_stays_until_the_last_owner_goes() {
    let config = json!({"spec": {"replicas": 1}});
    let both = applied(Some(&applied(None, &config, "a")), &config, "b");
    assert_eq!(owned(&both, "a"), owned(&both, "b"));
    let one = applied(Some(&both), &json!({}), "a");
    assert_eq!(bare(&one)["spec"], json!({"replicas": 1}));
    assert_eq!(owned(&one, "a"), Vec::<String>::new());
    assert_eq!(bare(&applied(Some(&one), &json!({}), "b")).get("spec"), None);
}

#[test]
fn fields_no_longer_applied_are_removed_unless_somebody_else_owns_them() {
    let live = applied(None, &json!({"metadata": {"labels": {"a": "1", "b": "2"}}, "spec": {"replicas": 1}}), "a");
    let live = applied(Some(&live), &json!({"metadata": {"labels": {"b": "2"}}}), "b");
    let after = applied(Some(&live), &json!({"spec": {"replicas": 1}}), "a");
    assert_eq!(bare(&after), json!({"metadata": {"labels": {"b": "2"}}, "spec": {"replicas": 1}}));
}

#[test]
fn ownership_moves_to_whoever_updates_the_value() {
    let live = applied(None, &json!({"spec": {"replicas": 1, "paused": true}}), "a");
    let mut scaled = live.clone();
    scaled["spec"]["replicas"] = json!(5);
    let scaled = updated(Some(&live), &scaled, "scaler");
    assert_eq!(owned(&scaled, "a"), [".spec.paused"]);
    assert_eq!(owned(&scaled, "scaler"), [".spec.replicas"]);
    let again = conflicts_of(try_apply(Some(&scaled), &json!({"spec": {"replicas": 1, "paused": true}}), "a", false));
    assert_eq!(again, ["scaler .spec.replicas"]);
    // Giving the field up leaves the scaler's value in place.
    let after = applied(Some(&scaled), &json!({"spec": {"paused": true}}), "a");
    assert_eq!(bare(&after)["spec"], json!({"replicas": 5, "paused": true}));
}

#[test]
fn items_of_lists_with_keys_come_and_go_one_by_one() {
    let ports = |ports: Value| workload(&json!([{"name": "web", "ports": ports}]));
    let live = applied(None, &ports(json!([{"containerPort": 80}, {"containerPort": 81}])), "a");
    let live = applied(
        Some(&live),
        &ports(json!([{"containerPort": 81, "protocol": "TCP"}, {"containerPort": 80, "protocol": "UDP"}])),
        "b",
    );
    let after = applied(Some(&live), &ports(json!([{"containerPort": 80}])), "a");
    let left = json!([{"containerPort": 80}, {"containerPort": 81, "protocol": "TCP"}, {"containerPort": 80, "protocol": "UDP"}]);
    assert_eq!(bare(&after)["spec"]["template"]["spec"]["containers"][0]["ports"], left);
    let gone = applied(Some(&after), &json!({}), "a");
    let web = json!([{"name": "web", "ports": [{"containerPort": 81, "protocol": "TCP"}, {"containerPort": 80, "protocol": "UDP"}]}]);
    assert_eq!(bare(&gone)["spec"]["template"]["spec"]["containers"], web);
}

#[test]
fn an_item_that_is_given_up_takes_its_defaults_along() {
    let live = applied(None, &workload(&json!([{"name": "a"}, {"name": "b", "image": "1"}])), "me");
    let mut defaulted = live.clone();
    defaulted["spec"]["template"]["spec"]["containers"][1]["args"] = json!(["defaulted"]);
    let after = applied(Some(&defaulted), &workload(&json!([{"name": "a"}])), "me");
    assert_eq!(bare(&after)["spec"], workload(&json!([{"name": "a"}]))["spec"]);
}

#[test]
fn what_nobody_owns_stays_beside_what_somebody_owns() {
    let live = applied(None, &json!({"spec": {"replicas": 1, "paused": true}}), "me");
    let mut defaulted = live.clone();
    defaulted["spec"]["strategy"] = json!({"type": "RollingUpdate"});
    let after = applied(Some(&defaulted), &json!({"spec": {"replicas": 1}}), "me");
    assert_eq!(bare(&after)["spec"], json!({"replicas": 1, "strategy": {"type": "RollingUpdate"}}));
}

#[test]
fn sets_are_owned_by_value() {
    let finalizers = |names: Value| json!({"metadata": {"finalizers": names}});
    let live = applied(None, &finalizers(json!(["a", "b"])), "one");
    let live = applied(Some(&live), &finalizers(json!(["b", "c"])), "two");
    assert_eq!(bare(&live), finalizers(json!(["a", "b", "c"])));
    let after = applied(Some(&live), &json!({}), "one");
    assert_eq!(bare(&after), finalizers(json!(["b", "c"])));
}

#[test]
fn atomic_maps_are_owned_and_replaced_as_a_whole() {
    let node = |labels: Value| json!({"spec": {"template": {"spec": {"nodeSelector": labels}}}});
    let live = applied(None, &node(json!({"a": "1"})), "one");
    assert_eq!(owned(&live, "one"), [".spec.template.spec.nodeSelector"]);
    let conflicts = conflicts_of(try_apply(Some(&live), &node(json!({"b": "2"})), "two", false));
    assert_eq!(conflicts, ["one .spec.template.spec.nodeSelector"]);
    let forced = try_apply(Some(&live), &node(json!({"b": "2"})), "two", true).unwrap();
    assert_eq!(bare(&forced)["spec"], node(json!({"b": "2"}))["spec"]);
}

#[test]
fn a_null_owns_the_field_and_takes_its_value_out() {
    let live = applied(None, &json!({"spec": {"replicas": 1}}), "a");
    assert_eq!(
        conflicts_of(try_apply(Some(&live), &json!({"spec": {"replicas": null}}), "b", false)),
        ["a .spec.replicas"]
    );
    let after = try_apply(Some(&live), &json!({"spec": {"replicas": null}}), "b", true).unwrap();
    assert_eq!(bare(&after)["spec"], json!({}));
    assert_eq!(owned(&after, "b"), [".spec.replicas"]);
}

#[test]
fn what_was_never_tracked_belongs_to_before_first_apply() {
    let live = json!({"metadata": {"name": "web"}, "spec": {"replicas": 1, "paused": true}});
    let conflicts = conflicts_of(try_apply(Some(&live), &json!({"spec": {"replicas": 2}}), "me", false));
    assert_eq!(conflicts, ["before-first-apply .spec.replicas"]);
    let after = applied(Some(&live), &json!({"spec": {"replicas": 1}}), "me");
    assert_eq!(owned(&after, "before-first-apply"), [".spec", ".spec.paused", ".spec.replicas"]);
}

#[test]
fn one_name_is_another_manager_for_each_operation_and_subresource() {
    let live = updated(None, &json!({"spec": {"replicas": 1}}), "me");
    assert_eq!(
        conflicts_of(try_apply(Some(&live), &json!({"spec": {"replicas": 2}}), "me", false)),
        ["me .spec.replicas"]
    );
    let status = Manager { subresource: Some("status".to_owned()), ..manager("me") };
    let config = json!({"status": {"replicas": 1}});
    let live = apply(&deployment(), Some(&live), &config, &status, false, NOW).unwrap();
    let entries = live["metadata"]["managedFields"].as_array().unwrap();
    assert_eq!((entries.len(), &entries[0]["subresource"]), (2, &json!("status")));
}

#[test]
fn a_new_version_of_the_configuration_replaces_the_entry() {
    let live = applied(None, &json!({"spec": {"replicas": 1}}), "me");
    let newer = Manager { api_version: "apps/v2".to_owned(), ..manager("me") };
    let after = apply(&deployment(), Some(&live), &json!({"spec": {"paused": true}}), &newer, false, NOW).unwrap();
    assert_eq!(after["metadata"]["managedFields"].as_array().unwrap().len(), 1);
    assert_eq!(after["spec"], json!({"paused": true}));
}

#[test]
fn what_the_server_keeps_is_taken_from_the_live_object() {
    let live = applied(None, &json!({"metadata": {"name": "web"}, "spec": {"replicas": 1}}), "me");
    let mut stored = live.clone();
    stored["metadata"]["uid"] = json!("u");
    stored["metadata"]["resourceVersion"] = json!("7");
    let config = json!({"metadata": {"name": "web", "uid": "x", "resourceVersion": "1", "creationTimestamp": null}, "spec": {"replicas": 1}});
    assert_eq!(applied(Some(&stored), &config, "me"), stored);
}

#[test]
fn configurations_that_cannot_be_applied_are_refused() {
    let table = [
        (json!([]), "must be a JSON object, not a list"),
        (json!({"metadata": {"managedFields": []}}), "metadata.managedFields: must not be part"),
        (workload(&json!([{"image": "x"}])), "containers[0]: the merge key name is missing"),
        (workload(&json!([{"name": "a"}, {"name": "a"}])), "more than once"),
        (workload(&json!("x")), "spec.template.spec.containers: must be a list, not a string"),
    ];
    for (config, part) in table {
        let wrong = try_apply(None, &config, "me", true).expect_err("refused").to_string();
        assert!(wrong.contains(part), "{config} gave {wrong:?}");
    }
}

#[test]
fn managed_fields_that_cannot_be_read_count_as_none() {
    let live = json!({"metadata": {"managedFields": [{"fieldsType": "Odd"}]}, "spec": {"replicas": 1}});
    let after = applied(Some(&live), &json!({"spec": {"replicas": 1}}), "me");
    assert_eq!(owned(&after, "before-first-apply"), [".spec", ".spec.replicas"]);
}

/// Sorts the lists whose order carries no meaning.
fn sorted(value: &Value) -> Value {
    match value {
        Value::Object(fields) => fields.iter().map(|(name, inner)| (name.clone(), sorted(inner))).collect(),
        Value::Array(items) => {
            let mut items: Vec<Value> = items.iter().map(sorted).collect();
            items.sort_by_key(|item| item["name"].to_string() + &item.to_string());
            Value::Array(items)
        }
        scalar => scalar.clone(),
    }
}

proptest! {
    #[test]
    fn nothing_makes_it_panic(
        live in prop::option::of(prop_oneof![any_json(), near_deployment()]),
        config in prop_oneof![any_json(), near_deployment()],
        force: bool,
    ) {
        if let Ok(object) = try_apply(live.as_ref(), &config, "me", force) {
            prop_assert!(object.is_object() || live.is_some());
        }
    }

    #[test]
    fn applying_twice_is_applying_once(live in prop::option::of(valid_deployment()), config in valid_deployment()) {
        let live = live.map(|live| updated(None, &live, "creator"));
        let once = try_apply(live.as_ref(), &config, "me", true).unwrap();
        let twice = apply(&deployment(), Some(&once), &config, &manager("me"), false, LATER).unwrap();
        prop_assert_eq!(once, twice);
    }

    #[test]
    fn giving_everything_up_restores_the_original(live in valid_deployment(), config in valid_deployment()) {
        let live = updated(None, &live, "creator");
        if let Ok(with) = try_apply(Some(&live), &config, "me", false) {
            let without = applied(Some(&with), &json!({"metadata": {"name": "web"}}), "me");
            prop_assert_eq!(sorted(&bare(&without)), sorted(&bare(&live)));
            prop_assert_eq!(owned(&without, "me"), Vec::<String>::new());
            prop_assert_eq!(owned(&without, "creator"), owned(&live, "creator"));
        }
    }

    #[test]
    fn every_applied_field_is_owned_and_there(live in valid_deployment(), first in valid_deployment(), second in valid_deployment()) {
        let live = updated(None, &live, "creator");
        let live = try_apply(Some(&live), &first, "first", true).unwrap();
        let after = try_apply(Some(&live), &second, "second", true).unwrap();
        let owned = |name: &str| Managed::of(&after).unwrap().entries.into_iter().find(|entry| entry.manager == name).map(|entry| entry.set).unwrap_or_default();
        let schema = deployment();
        prop_assert_eq!(owned("second"), without_unowned(fields_of(Some(&schema), &second)));
        let present = with_parents(Some(&schema), &compare(Some(&schema), Some(&json!({})), Some(&bare(&after))).added);
        prop_assert!(owned("first").difference(&present).is_empty(), "{:?}", owned("first").difference(&present).paths());
    }
}
