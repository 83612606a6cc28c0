//! Each directive and each kind of list, what kubectl expects of their order, and what is refused.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::patch::fixture::{any_json, deployment, near_deployment, workload};

fn patched(target: &Value, patch: &Value) -> Result<Value, PatchError> {
    let mut target = target.clone();
    strategic(&deployment(), &mut target, patch).map(|()| target)
}

fn assert_patched(table: &[(Value, Value, Value)]) {
    for (target, patch, expected) in table {
        assert_eq!(patched(target, patch).as_ref(), Ok(expected), "{patch} on {target}");
    }
}

fn assert_refused(table: &[(Value, Value, &str)]) {
    for (target, patch, part) in table {
        let mut after = target.clone();
        let wrong = strategic(&deployment(), &mut after, patch).expect_err("refused").to_string();
        assert!(wrong.contains(part), "{patch} gave {wrong:?}");
        assert_eq!(after, *target);
    }
}

fn names(object: &Value) -> String {
    let containers = object["spec"]["template"]["spec"]["containers"].as_array().expect("a list");
    containers.iter().map(|container| container["name"].as_str().expect("a name")).collect()
}

fn containers(names: &str) -> Value {
    json!(names.chars().map(|name| json!({"name": name.to_string()})).collect::<Vec<_>>())
}

#[test]
fn objects_merge_scalars_replace_and_nulls_delete() {
    let live = json!({"spec": {"replicas": 1, "paused": true}, "metadata": {"labels": {"a": "b", "c": "d"}}});
    let patch = json!({"spec": {"replicas": 2, "paused": null}, "metadata": {"labels": {"c": null, "e": "f"}}});
    let expected = json!({"spec": {"replicas": 2}, "metadata": {"labels": {"a": "b", "e": "f"}}});
    assert_patched(&[(live, patch, expected)]);
}

#[test]
fn unknown_fields_merge_like_a_merge_patch() {
    let live = json!({"odd": {"a": {"b": 1}, "l": [1, 2], "s": "x"}});
    let patch = json!({"odd": {"a": {"c": 2}, "l": [3], "s": {"t": null, "u": 1}}});
    assert_patched(&[(live, patch, json!({"odd": {"a": {"b": 1, "c": 2}, "l": [3], "s": {"u": 1}}}))]);
}

#[test]
fn lists_of_objects_merge_by_their_key() {
    let live =
        workload(&json!([{"name": "a", "image": "1", "ports": [{"containerPort": 1, "name": "x"}]}, {"name": "b"}]));
    let patch = workload(&json!([{"name": "a", "image": "2", "ports": [{"containerPort": 1, "name": "y"}]}]));
    let expected =
        workload(&json!([{"name": "a", "image": "2", "ports": [{"containerPort": 1, "name": "y"}]}, {"name": "b"}]));
    assert_patched(&[(live, patch, expected)]);
}

#[test]
fn lists_that_do_not_merge_are_replaced() {
    let live = workload(&json!([{"name": "a", "args": ["1", "2"]}]));
    let patch = workload(&json!([{"name": "a", "args": ["3"]}]));
    assert_patched(&[(live, patch.clone(), patch)]);
}

#[test]
fn lists_of_scalars_merge_without_duplicates() {
    let live = json!({"metadata": {"finalizers": ["a", "b", "a"]}});
    let patch = json!({"metadata": {"finalizers": ["c", "b"]}});
    assert_patched(&[(live, patch, json!({"metadata": {"finalizers": ["c", "a", "b"]}}))]);
}

#[test]
fn patch_directives_replace_delete_and_merge_objects() {
    let live = json!({"spec": {"strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1}}}});
    let strategy = |patch: Value| json!({"spec": {"strategy": patch}});
    assert_patched(&[
        (
            live.clone(),
            strategy(json!({"$patch": "replace", "type": "Recreate"})),
            strategy(json!({"type": "Recreate"})),
        ),
        (live.clone(), strategy(json!({"$patch": "delete"})), strategy(json!({}))),
        (
            live.clone(),
            strategy(json!({"$patch": "merge", "type": "X"})),
            strategy(json!({"type": "X", "rollingUpdate": {"maxSurge": 1}})),
        ),
        (json!({"spec": {}}), strategy(json!({"$patch": "delete"})), json!({"spec": {}})),
        (json!({"spec": {}}), strategy(json!({"$patch": "replace", "type": "X"})), strategy(json!({"type": "X"}))),
        (live, json!({"$patch": "replace", "kind": "X"}), json!({"kind": "X"})),
    ]);
}

#[test]
fn patch_directives_delete_items_and_replace_lists() {
    let live = workload(&containers("abc"));
    assert_patched(&[
        (live.clone(), workload(&json!([{"$patch": "delete", "name": "b"}])), workload(&containers("ac"))),
        (live.clone(), workload(&json!([{"$patch": "delete", "name": "z"}])), live.clone()),
        (live.clone(), workload(&json!([{"$patch": "replace"}, {"name": "x"}])), workload(&containers("x"))),
        (live.clone(), workload(&json!([{"$patch": "merge", "name": "x"}])), workload(&containers("xabc"))),
        (live, workload(&json!([{"$patch": "replace"}])), workload(&json!([]))),
    ]);
}

#[test]
fn retain_keys_drops_what_it_does_not_name() {
    let live = json!({"spec": {"strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1}}}});
    let patch = json!({"spec": {"strategy": {"$retainKeys": ["type"], "type": "Recreate"}}});
    assert_patched(&[(live, patch, json!({"spec": {"strategy": {"type": "Recreate"}}}))]);
}

#[test]
fn delete_from_primitive_list_deletes_values() {
    let live = json!({"metadata": {"finalizers": ["a", "b"]}});
    let patch = json!({"metadata": {"$deleteFromPrimitiveList/finalizers": ["a", "z"], "finalizers": ["c"], "$setElementOrder/finalizers": ["b", "c"]}});
    assert_patched(&[
        (live, patch, json!({"metadata": {"finalizers": ["b", "c"]}})),
        (json!({}), json!({"metadata": {"$deleteFromPrimitiveList/finalizers": ["a"]}}), json!({"metadata": {}})),
    ]);
}

#[test]
fn set_element_order_puts_patch_items_in_order_and_keeps_the_place_of_others() {
    let table = [
        // live, order, patch items, result
        ("ab", "ba", "", "ba"),
        ("abc", "cb", "", "acb"),
        ("ab", "abn", "n", "abn"),
        ("ab", "nab", "n", "nab"),
        ("axb", "ba", "", "xba"),
        ("xab", "ba", "", "xba"),
        ("abx", "ba", "", "bax"),
        ("sab", "anb", "n", "sanb"),
        ("", "ba", "ba", "ba"),
        ("ab", "", "n", "abn"),
    ];
    for (live, order, items, expected) in table {
        let mut patch = workload(&containers(items));
        let spec = patch["spec"]["template"]["spec"].as_object_mut().expect("an object");
        spec.insert("$setElementOrder/containers".to_owned(), containers(order));
        if items.is_empty() {
            spec.shift_remove("containers");
        }
        assert_eq!(names(&patched(&workload(&containers(live)), &patch).unwrap()), expected, "{live} {order} {items}");
    }
}

#[test]
fn without_an_order_new_items_come_before_the_live_ones_after_them() {
    for (live, items, expected) in [("ab", "z", "zab"), ("abc", "c", "abc"), ("ab", "bz", "abz"), ("abc", "ca", "bca")]
    {
        let after = patched(&workload(&containers(live)), &workload(&containers(items))).unwrap();
        assert_eq!(names(&after), expected, "{live} {items}");
    }
}

#[test]
fn directives_and_nulls_do_not_reach_new_values() {
    let item = json!({"name": "a", "image": null, "ports": [{"$patch": "delete", "containerPort": 1}, {"containerPort": 2, "name": null}],
        "$setElementOrder/ports": [{"containerPort": 2}], "env": {"$retainKeys": ["x"], "x": 1}});
    let expected = json!({"name": "a", "ports": [{"containerPort": 2}], "env": {"x": 1}});
    assert_patched(&[
        (json!({}), workload(&json!([item])), workload(&json!([expected]))),
        (
            json!({}),
            json!({"odd": [{"$patch": "delete"}, {"a": null, "$retainKeys": []}, null]}),
            json!({"odd": [{}, null]}),
        ),
    ]);
}

#[test]
fn objects_with_the_replace_strategy_are_replaced() {
    let live = json!({"spec": {"disruption": {"matchLabels": {"a": "b"}}}});
    let patch = json!({"spec": {"disruption": {"matchLabels": {"c": "d"}}}});
    assert_patched(&[(live, patch.clone(), patch)]);
}

#[test]
fn malformed_patches_are_refused_and_name_the_field() {
    let live = workload(&containers("ab"));
    let spec = |spec: Value| json!({"spec": {"template": {"spec": spec}}});
    assert_refused(&[
        (live.clone(), json!([]), "must be a JSON object, not a list"),
        (live.clone(), workload(&json!("x")), "spec.template.spec.containers: must be a list, not a string"),
        (live.clone(), workload(&json!({})), "spec.template.spec.containers: must be a list, not an object"),
        (live.clone(), workload(&json!([1])), "spec.template.spec.containers[0]: must be an object, not a number"),
        (
            live.clone(),
            workload(&json!([{"image": "x"}])),
            "spec.template.spec.containers[0]: the merge key name is missing",
        ),
        (live.clone(), workload(&json!([{"$patch": "delete"}])), "containers[0]: the merge key name is missing"),
        (
            live.clone(),
            workload(&json!([{"name": "n", "ports": "x"}])),
            "containers[0].ports: must be a list, not a string",
        ),
        (live.clone(), json!({"spec": 1}), "spec: must be an object, not a number"),
        (live.clone(), json!({"spec": {"$patch": "grow"}}), "spec: unknown directive \"grow\""),
        (live.clone(), json!({"$patch": {}}), "patch: unknown directive {}"),
        (live.clone(), spec(json!({"$setElementOrder/containers": 1})), "must be a list, not a number"),
        (live.clone(), spec(json!({"$setElementOrder/containers": [{}]})), "the merge key name is missing"),
        (live.clone(), spec(json!({"$setElementOrder/containers": ["a"]})), "the merge key name is missing"),
        (
            live.clone(),
            spec(json!({"$setElementOrder/containers": containers("ab"), "containers": containers("ba")})),
            "containers: the items are not in the order",
        ),
        (live.clone(), spec(json!({"$retainKeys": "x"})), "spec.template.spec.$retainKeys: must be a list"),
        (
            live.clone(),
            spec(json!({"$retainKeys": ["x"], "containers": []})),
            "spec.template.spec.containers: is set by the patch",
        ),
        (
            live.clone(),
            json!({"metadata": {"finalizers": [{}]}}),
            "metadata.finalizers[0]: must be a string, a number or a boolean",
        ),
        (
            live,
            json!({"metadata": {"$deleteFromPrimitiveList/finalizers": "a"}}),
            "metadata[$deleteFromPrimitiveList/finalizers]: must be a list",
        ),
    ]);
}

proptest! {
    #[test]
    fn no_patch_makes_it_panic_and_a_refused_one_changes_nothing(
        target in prop_oneof![any_json(), near_deployment()],
        patch in prop_oneof![any_json(), near_deployment()],
    ) {
        let mut after = target.clone();
        if strategic(&deployment(), &mut after, &patch).is_err() {
            prop_assert_eq!(after, target);
        }
    }
}
