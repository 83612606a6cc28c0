//! Whole looks at a daemon set, as tables.

use serde_json::{Value, json};

use super::super::eligible::pin;
use super::*;

const NOW: i64 = 1_000_000;

/// `a1:new,ready` and the like: the node is the first letter; then revision and marks: `ready`, `fresh` (ready for two
/// seconds), `failed`, `succeeded`, `ending`, `waiting` (not bound yet), `young`.
fn pod(text: &str) -> Arc<Pod> {
    let (name, marks) = text.split_once(':').unwrap();
    let marks: Vec<&str> = marks.split(',').collect();
    let has = |mark: &str| marks.contains(&mark);
    let since = Timestamp::from_second(if has("fresh") { NOW - 2 } else { NOW - 500 }).unwrap();
    let ready = json!([{"type": "Ready", "status": "True", "lastTransitionTime": since}]);
    let phase = match () {
        () if has("failed") => "Failed",
        () if has("succeeded") => "Succeeded",
        () => "Running",
    };
    let created = if has("young") { "2026-02-01T00:00:00Z" } else { "2026-01-01T00:00:00Z" };
    let object = json!({
        "metadata": {"name": name, "labels": {REVISION_HASH: marks[0]}, "creationTimestamp": created,
            "deletionTimestamp": has("ending").then_some("2026-01-01T00:00:00Z")},
        "spec": {"containers": [], "nodeName": (!has("waiting")).then_some(&name[..1])},
        "status": {"phase": phase, "conditions": (has("ready") || has("fresh")).then_some(ready)},
    });
    let pod: Pod = serde_json::from_value(object).unwrap();
    Arc::new(if has("waiting") { pin(pod, &name[..1]) } else { pod })
}

fn set(spec: &Value) -> DaemonSet {
    let mut all = json!({"selector": {}, "template": {}});
    for (name, value) in spec.as_object().unwrap() {
        all[name] = value.clone();
    }
    serde_json::from_value(json!({"metadata": {"name": "agent"}, "spec": all})).unwrap()
}

/// `a b? c!`: one that fits, one that takes no new pods, one that takes none.
fn nodes(text: &str) -> BTreeMap<String, Fit> {
    let fit = |node: &str| match node.strip_suffix('!') {
        Some(node) => (node.to_owned(), Fit::Refused),
        None => node.strip_suffix('?').map_or((node.to_owned(), Fit::Runs), |node| (node.to_owned(), Fit::Stays)),
    };
    text.split_whitespace().map(fit).collect()
}

fn acts(spec: &Value, on: &str, pods: &[&str], held: bool) -> Vec<String> {
    let pods: Vec<_> = pods.iter().map(|text| pod(text)).collect();
    let set = set(spec);
    let view = View::new(&set, nodes(on), &pods, "new", Timestamp::from_second(NOW).unwrap()).unwrap();
    let told = |act: Act| match act {
        Act::Create(node) => format!("+{node}"),
        Act::Delete(pod, Why::Surplus) => format!("-{}", pod.name_any()),
        Act::Delete(pod, why) => format!("-{} {why:?}", pod.name_any()),
    };
    view.next(&|_| held.then_some(Duration::from_secs(1))).into_iter().map(told).collect()
}

fn check(spec: &Value, table: &[(&str, &[&str], &[&str])]) {
    for (on, pods, expected) in table {
        assert_eq!(acts(spec, on, pods, false), *expected, "{spec} {on} {pods:?}");
    }
}

#[test]
fn every_node_that_fits_gets_one_pod() {
    check(
        &json!({}),
        &[
            ("a b", &[], &["+a", "+b"]),
            ("a b!", &[], &["+a"]),
            ("a b?", &[], &["+a"]),
            ("a b", &["a1:new,ready"], &["+b"]),
            ("a b", &["a1:new,waiting"], &["+b"]),
            ("a", &["a1:new,ready,ending"], &[]),
            ("a", &["a1:new,failed,ending"], &["+a"]),
        ],
    );
}

#[test]
fn pods_leave_nodes_that_fit_no_more() {
    check(
        &json!({}),
        &[
            ("a!", &["a1:new,ready"], &["-a1"]),
            ("a!", &["a1:new,ready,ending"], &[]),
            // A taint against new pods leaves the old ones where they are.
            ("a?", &["a1:new,ready"], &[]),
            // A node that is gone takes its pods along, but not those that never came.
            ("", &["a1:new,ready"], &[]),
            ("", &["a1:new,waiting"], &["-a1"]),
        ],
    );
}

#[test]
fn of_several_pods_the_oldest_stays() {
    check(
        &json!({}),
        &[
            ("a", &["a1:new,ready,young", "a2:new,ready"], &["-a1"]),
            ("a", &["a1:new,waiting", "a2:new,young"], &["-a1"]),
            ("a", &["a1:new,ready", "a2:new,ready", "a3:new,ready"], &["-a2", "-a3"]),
        ],
    );
}

#[test]
fn ended_pods_are_replaced_failed_ones_with_back_off() {
    check(&json!({}), &[("a", &["a1:new,failed"], &["-a1 Failed"]), ("a", &["a1:new,succeeded"], &["-a1 Succeeded"])]);
    assert!(acts(&json!({}), "a", &["a1:new,failed"], true).is_empty(), "not yet");
    assert_eq!(acts(&json!({}), "a", &["a1:new,succeeded"], true), ["-a1 Succeeded"]);
}

fn rolling(unavailable: &Value, surge: &Value) -> Value {
    let rolling = json!({"maxUnavailable": unavailable, "maxSurge": surge});
    json!({"updateStrategy": {"type": "RollingUpdate", "rollingUpdate": rolling}})
}

#[test]
fn an_update_takes_as_many_nodes_as_may_be_unavailable() {
    let old = &["a1:old,ready", "b1:old,ready", "c1:old,ready"][..];
    check(
        &rolling(&json!(1), &json!(0)),
        &[
            ("a b c", old, &["-a1"]),
            ("a b c", &["a1:old,ready,ending", "b1:old,ready", "c1:old,ready"], &[]),
            ("a b c", &["b1:old,ready", "c1:old,ready"], &["+a"]),
            ("a b c", &["a1:new", "b1:old,ready", "c1:old,ready"], &[]),
            ("a b c", &["a1:new,ready", "b1:old,ready", "c1:old,ready"], &["-b1"]),
            // What is broken is replaced in any case, and counts.
            ("a b c", &["a1:old", "b1:old", "c1:old,ready"], &["-a1", "-b1"]),
            ("a b c", &["a1:new", "b1:old", "c1:old,ready"], &["-b1"]),
            ("a b c", &["a1:new,ready", "b1:new,ready", "c1:new,ready"], &[]),
        ],
    );
    check(&rolling(&json!(2), &json!(0)), &[("a b c", old, &["-a1", "-b1"])]);
    check(&rolling(&json!("34%"), &json!(0)), &[("a b c", old, &["-a1", "-b1"])]);
    check(&rolling(&json!("100%"), &json!(0)), &[("a b c", old, &["-a1", "-b1", "-c1"])]);
}

#[test]
fn an_update_waits_until_new_pods_are_available() {
    let mut spec = rolling(&json!(1), &json!(0));
    spec["minReadySeconds"] = json!(5);
    check(
        &spec,
        &[("a b", &["a1:new,fresh", "b1:old,ready"], &[]), ("a b", &["a1:new,ready", "b1:old,ready"], &["-b1"])],
    );
}

#[test]
fn on_delete_updates_nothing_by_itself() {
    let on_delete = json!({"updateStrategy": {"type": "OnDelete"}});
    check(&on_delete, &[("a b", &["a1:old,ready", "b1:old"], &[]), ("a b", &["a1:old,ready"], &["+b"])]);
}

#[test]
fn a_surge_puts_new_pods_beside_old_ones() {
    check(
        &rolling(&json!(0), &json!(1)),
        &[
            ("a b", &["a1:old,ready", "b1:old,ready"], &["+a"]),
            ("a b", &["a1:old,ready", "a2:new", "b1:old,ready"], &[]),
            ("a b", &["a1:old,ready", "a2:new,ready", "b1:old,ready"], &["-a1"]),
            ("a b", &["a1:old,ready,ending", "a2:new,ready", "b1:old,ready"], &["+b"]),
            // Beside what does not work at once, and the old one goes.
            ("a b", &["a1:old", "b1:old,ready"], &["+a", "+b"]),
            ("a b", &["a1:old", "a2:new", "b1:new,ready"], &["-a1"]),
            // Never more than two.
            ("a", &["a1:old,ready", "a2:new", "a3:new,young", "a4:old,ready,young"], &["-a3", "-a4"]),
            ("a b", &["a1:new,ready", "b1:new,ready"], &[]),
        ],
    );
    let old = &["a1:old,ready", "b1:old,ready", "c1:old,ready"];
    check(&rolling(&json!(0), &json!("50%")), &[("a b c", old, &["+a", "+b"])]);
}

#[test]
fn the_next_look_comes_when_something_is_due() {
    let set = set(&json!({"minReadySeconds": 5}));
    let at = Timestamp::from_second(NOW).unwrap();
    let pods = [pod("a1:new,fresh"), pod("b1:new,failed")];
    let view = View::new(&set, nodes("a b"), &pods, "new", at).unwrap();
    assert_eq!(view.again(&|_| None), Some(Duration::from_secs(3)));
    assert_eq!(view.again(&|_| Some(Duration::from_secs(1))), Some(Duration::from_secs(1)));
}
