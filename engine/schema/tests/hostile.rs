//! Bodies of a few megabytes that ask for far more work than they are long.
//!
//! Each takes well under a second in a release build. What grows with the square of its input takes many minutes, so
//! that the bound may be generous: other tests run at the same time.

use std::time::{Duration, Instant};

use serde_json::{Map, Value, json};
use shipway_schema::patch::{Manager, PatchError, apply, json_patch, merge_patch, strategic, track_update};
use shipway_schema::selector::{FieldSelector, LabelSelector};
use shipway_schema::{Registry, Schema};

const BOUND: Duration = Duration::from_secs(30);
const NOW: &str = "2026-01-01T00:00:00Z";
const MANY: usize = 100_000;

fn timed<T>(what: &str, run: impl FnOnce() -> T) -> T {
    let started = Instant::now();
    let done = run();
    assert!(started.elapsed() < BOUND, "{what} took {:?}", started.elapsed());
    done
}

fn fields(count: usize, value: &Value) -> Value {
    (0..count).map(|at| (format!("k{at}"), value.clone())).collect::<Map<_, _>>().into()
}

fn names(count: usize) -> Vec<String> {
    (0..count).map(|at| format!("k{at}")).collect()
}

fn manager() -> Manager {
    Manager { name: "me".to_owned(), api_version: "v1".to_owned(), subresource: None }
}

fn config_map() -> Schema {
    Registry::builtin().of_kind("v1", "ConfigMap").expect("built in").schema().clone()
}

#[test]
fn deleting_many_fields_is_one_pass() {
    let (live, nulls) = (json!({"data": fields(2 * MANY, &json!("x"))}), json!({"data": fields(MANY, &Value::Null)}));
    let mut merged = live.clone();
    timed("a merge patch", || merge_patch(&mut merged, &nulls)).expect("it merges");
    let mut patched = live;
    timed("a strategic patch", || strategic(&config_map(), &mut patched, &nulls)).expect("it merges");
    assert_eq!((merged["data"].as_object().map(Map::len), patched), (Some(MANY), merged));
}

#[test]
fn directives_with_many_words_are_looked_up() {
    let live = json!({"data": fields(MANY, &json!("x")), "metadata": {"finalizers": names(MANY)}});
    let patch =
        json!({"data": {"$retainKeys": names(MANY)}, "metadata": {"$deleteFromPrimitiveList/finalizers": names(MANY)}});
    let mut after = live.clone();
    timed("the directives", || strategic(&config_map(), &mut after, &patch)).expect("it merges");
    assert_eq!(after, json!({"data": live["data"], "metadata": {"finalizers": []}}));
}

#[test]
fn json_patches_that_shift_or_move_too_much_are_refused() {
    let live = json!({"list": vec![0; 10 * MANY], "big": {"x": vec![0; 10 * MANY]}});
    let remove = json!({"op": "remove", "path": "/list/0"});
    let insert = json!({"op": "add", "path": "/list/0", "value": 1});
    let there = json!({"op": "move", "from": "/big/x", "path": "/big/y"});
    let back = json!({"op": "move", "from": "/big/y", "path": "/big/x"});
    for operations in [[&remove, &remove], [&insert, &insert], [&there, &back]] {
        let patch: Vec<&Value> = operations.into_iter().cycle().take(10_000).collect();
        let mut after = live.clone();
        let refused = timed("a JSON patch", || json_patch(&mut after, &json!(patch)));
        assert!(matches!(refused, Err(PatchError::TooMuchWork { .. })), "{refused:?}");
        assert_eq!(after, live);
    }
}

#[test]
fn any_number_of_managers_can_be_sent() {
    let entry = |at: usize| {
        json!({"manager": format!("m{at}"), "operation": if at.is_multiple_of(2) { "Apply" } else { "Update" }, "time": NOW,
            "apiVersion": "v1", "fieldsType": "FieldsV1", "fieldsV1": {"f:data": {(format!("f:k{}", at % 10)): {}}}})
    };
    let entries: Vec<Value> = (0..20_000).map(entry).collect();
    let mut new = json!({"metadata": {"managedFields": entries}, "data": fields(10, &json!("x"))});
    let schema = config_map();
    timed("an update", || track_update(&schema, Some(&json!({"data": {}})), &mut new, &manager(), NOW));
    let live = json!({"metadata": {"managedFields": entries}, "data": fields(10, &json!("x"))});
    let config = json!({"data": {"k0": "y"}});
    let refused = timed("an apply", || apply(&schema, Some(&live), &config, &manager(), false, NOW));
    assert!(matches!(refused, Err(PatchError::Conflicts(_))));
}

#[test]
fn conflicts_below_a_long_key_do_not_multiply_it() {
    let schema = json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true});
    let schema = Schema::from_json(&json!({"type": "object", "properties": {"free": schema}})).expect("a schema");
    let below = |value: u8| json!({"free": {("k".repeat(1 << 20)): fields(MANY / 10, &json!(value))}});
    let live = apply(&schema, None, &below(1), &manager(), false, NOW).expect("nobody else owns it");
    let other = Manager { name: "other".to_owned(), ..manager() };
    let Err(PatchError::Conflicts(conflicts)) =
        timed("it", || apply(&schema, Some(&live), &below(2), &other, false, NOW))
    else {
        panic!("another value is a conflict");
    };
    assert!(conflicts.iter().map(|conflict| conflict.field.len()).sum::<usize>() < 4 << 20);
}

#[test]
fn selectors_with_many_terms_are_read_once() {
    let terms = |term: &str| names(MANY).iter().map(|name| format!("{name}{term}")).collect::<Vec<_>>().join(",");
    timed("label selectors", || LabelSelector::parse(&terms(" in (a,b)"))).expect("it is a selector");
    timed("field selectors", || FieldSelector::parse(&terms("=a"))).expect("it is a selector");
}
