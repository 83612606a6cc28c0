//! Whole looks at a stateful set, as tables.

use kube::ResourceExt;
use serde_json::{Value, json};

use super::*;

const NOW: i64 = 1_000_000;

/// `web-1:new,ready` and the like: revision, then `ready`, `fresh` (ready for two seconds), `pending`, `failed`,
/// `succeeded` and `ending`.
fn pod(text: &str) -> Arc<Pod> {
    let (name, marks) = text.split_once(':').unwrap();
    let marks: Vec<&str> = marks.split(',').collect();
    let has = |mark: &str| marks.contains(&mark);
    let since = Timestamp::from_second(if has("fresh") { NOW - 2 } else { NOW - 500 }).unwrap();
    let ready = json!([{"type": "Ready", "status": "True", "lastTransitionTime": since}]);
    let phase = match () {
        () if has("failed") => "Failed",
        () if has("succeeded") => "Succeeded",
        () if has("pending") => "Pending",
        () => "Running",
    };
    let conditions = (has("ready") || has("fresh")).then_some(ready);
    let ending = has("ending").then_some("2026-01-01T00:00:00Z");
    let metadata = json!({"name": name, "labels": {"controller-revision-hash": marks[0]}, "deletionTimestamp": ending});
    let status = json!({"phase": phase, "conditions": conditions});
    Arc::new(serde_json::from_value(json!({"metadata": metadata, "status": status})).unwrap())
}

fn set(spec: &Value) -> StatefulSet {
    let mut all = json!({"selector": {}, "template": {}, "replicas": 3,
        "updateStrategy": {"type": "RollingUpdate", "rollingUpdate": {"partition": 0}}});
    for (name, value) in spec.as_object().unwrap() {
        all[name] = value.clone();
    }
    serde_json::from_value(json!({"metadata": {"name": "web"}, "spec": all})).unwrap()
}

fn acts(spec: &Value, pods: &[&str]) -> Vec<String> {
    let pods: Vec<_> = pods.iter().map(|text| pod(text)).collect();
    let set = set(spec);
    let view = View::new(&set, &pods, "new", Timestamp::from_second(NOW).unwrap()).unwrap();
    let told = |act: Act| match act {
        Act::Create(ordinal, Which::Current) => format!("+{ordinal} old"),
        Act::Create(ordinal, Which::Update) => format!("+{ordinal}"),
        Act::Delete(pod) => format!("-{}", pod.name_any().strip_prefix("web-").unwrap()),
    };
    view.next().into_iter().map(told).collect()
}

fn check(table: &[(Value, &[&str], &[&str])]) {
    for (spec, pods, expected) in table {
        assert_eq!(acts(spec, pods), *expected, "{spec} {pods:?}");
    }
}

#[test]
fn in_order_each_pod_waits_for_the_one_before() {
    check(&[
        (json!({}), &[], &["+0"]),
        (json!({}), &["web-0:new,pending"], &[]),
        (json!({}), &["web-0:new"], &[]),
        (json!({}), &["web-0:new,ready"], &["+1"]),
        (json!({}), &["web-0:new,ready", "web-2:new,ready"], &["+1"]),
        (json!({}), &["web-0:new,ready", "web-1:new,ready", "web-2:new,ready"], &[]),
        (json!({"minReadySeconds": 5}), &["web-0:new,fresh"], &[]),
        (json!({"minReadySeconds": 2}), &["web-0:new,fresh"], &["+1"]),
        (json!({"replicas": 0}), &[], &[]),
    ]);
}

#[test]
fn ordinals_may_begin_above_zero() {
    let moved = json!({"replicas": 2, "ordinals": {"start": 5}});
    check(&[
        (moved.clone(), &[], &["+5"]),
        (moved.clone(), &["web-5:new,ready", "web-6:new,ready"], &[]),
        // What is below is as condemned as what is above.
        (moved.clone(), &["web-5:new,ready", "web-6:new,ready", "web-0:new,ready"], &["-0"]),
        (moved, &["web-5:new,ready", "web-6:new,ready", "web-0:new,ready", "web-7:new,ready"], &["-7"]),
    ]);
}

#[test]
fn in_parallel_nobody_waits() {
    let parallel = |replicas: i32| json!({"podManagementPolicy": "Parallel", "replicas": replicas});
    check(&[
        (parallel(3), &[], &["+0", "+1", "+2"]),
        (parallel(3), &["web-1:new,pending"], &["+0", "+2"]),
        (parallel(1), &["web-0:new,pending", "web-1:new,ready", "web-2:new"], &["-2", "-1"]),
        (parallel(1), &["web-1:new,ready"], &["+0", "-1"]),
    ]);
    assert_eq!(acts(&parallel(i32::MAX), &[]).len(), AT_MOST, "the rest comes with the next look");
}

#[test]
fn ended_pods_are_replaced_and_never_doubled() {
    check(&[
        (json!({}), &["web-0:new,failed"], &["-0"]),
        (json!({}), &["web-0:new,succeeded"], &["-0"]),
        (json!({}), &["web-0:new,failed,ending"], &[]),
        (json!({}), &["web-0:new,ready,ending"], &[]),
        (json!({}), &["web-0:new,ready", "web-1:new,ready,ending", "web-2:new,ready"], &[]),
        (json!({"podManagementPolicy": "Parallel"}), &["web-0:new,ready,ending", "web-1:new,failed"], &["-1", "+2"]),
    ]);
}

#[test]
fn scaling_down_goes_from_the_highest_ordinal_and_waits() {
    let one = || json!({"replicas": 1});
    check(&[
        (one(), &["web-0:new,ready", "web-1:new,ready", "web-2:new,ready"], &["-2"]),
        (one(), &["web-0:new,ready", "web-1:new,ready", "web-2:new,ready,ending"], &[]),
        (one(), &["web-0:new,ready", "web-1:new,ready"], &["-1"]),
        // Not while a pod that stays is unwell.
        (one(), &["web-0:new", "web-1:new,ready"], &[]),
        (one(), &["web-1:new,ready"], &["+0"]),
        // The broken one goes when it is the only one that is broken.
        (one(), &["web-0:new,ready", "web-1:new,ready", "web-2:new"], &["-2"]),
        (one(), &["web-0:new,ready", "web-1:new", "web-2:new"], &[]),
    ]);
}

#[test]
fn updating_goes_from_the_highest_ordinal_down_to_the_partition() {
    let all = |partition: i32| json!({"updateStrategy": {"rollingUpdate": {"partition": partition}}});
    let on_delete = json!({"updateStrategy": {"type": "OnDelete"}});
    check(&[
        (all(0), &["web-0:old,ready", "web-1:old,ready", "web-2:old,ready"], &["-2"]),
        (all(0), &["web-0:old,ready", "web-1:old,ready", "web-2:old,ready,ending"], &[]),
        (all(0), &["web-0:old,ready", "web-1:old,ready"], &["+2"]),
        (all(0), &["web-0:old,ready", "web-1:old,ready", "web-2:new"], &[]),
        (all(0), &["web-0:old,ready", "web-1:old,ready", "web-2:new,ready"], &["-1"]),
        (all(2), &["web-0:old,ready", "web-1:old,ready", "web-2:new,ready"], &[]),
        // A pod below the partition that was deleted comes back as it was.
        (all(2), &["web-0:old,ready", "web-2:new,ready"], &["+1 old"]),
        (all(5), &["web-0:old,ready", "web-1:old,ready", "web-2:old,ready"], &[]),
        (on_delete.clone(), &["web-0:old,ready", "web-1:old,ready", "web-2:old,ready"], &[]),
        (on_delete, &["web-0:old,ready", "web-2:old,ready"], &["+1"]),
        // Scaling comes first.
        (json!({"replicas": 1}), &["web-0:old,ready", "web-1:old,ready"], &["-1"]),
        (json!({"replicas": 1}), &["web-0:old,ready", "web-1:old,ready,ending"], &[]),
    ]);
}

#[test]
fn the_partition_counts_from_the_first_ordinal() {
    let spec = json!({"replicas": 2, "ordinals": {"start": 5}, "updateStrategy": {"rollingUpdate": {"partition": 1}}});
    check(&[(spec.clone(), &["web-5:old,ready", "web-6:old,ready"], &["-6"]), (spec, &[], &["+5 old"])]);
}

#[test]
fn a_broken_revision_stops_the_update_until_its_pod_is_gone() {
    let pods = ["web-0:old,ready", "web-1:old,ready", "web-2:broken,pending"];
    check(&[(json!({}), &pods, &[]), (json!({}), &pods[..2], &["+2"])]);
}

#[test]
fn several_pods_may_be_unavailable_at_once() {
    let most = |most: Value, policy: &str| {
        json!({"replicas": 4, "podManagementPolicy": policy,
            "updateStrategy": {"rollingUpdate": {"partition": 0, "maxUnavailable": most}}})
    };
    let old = &["web-0:old,ready", "web-1:old,ready", "web-2:old,ready", "web-3:old,ready"];
    let mixed = &["web-0:old", "web-1:old,ready", "web-2:old,ready", "web-3:new,pending"];
    check(&[
        (most(json!(2), "OrderedReady"), old, &["-3", "-2"]),
        (most(json!("75%"), "OrderedReady"), old, &["-3", "-2", "-1"]),
        (most(json!("10%"), "OrderedReady"), old, &["-3"]),
        (most(json!(2), "Parallel"), old, &["-3", "-2"]),
        // In parallel what is broken is replaced at once and the rest stays within the bound.
        (most(json!(2), "Parallel"), mixed, &["-0"]),
        (most(json!(3), "Parallel"), mixed, &["-0", "-2"]),
        (most(json!(9), "Parallel"), mixed, &["-0", "-2", "-1"]),
    ]);
}

#[test]
fn the_next_look_comes_when_a_pod_becomes_available() {
    let set = set(&json!({"minReadySeconds": 5}));
    let pods = [pod("web-0:new,ready"), pod("web-1:new,fresh"), pod("web-2:new,pending")];
    let view = View::new(&set, &pods, "new", Timestamp::from_second(NOW).unwrap()).unwrap();
    assert_eq!(view.again(), Some(Duration::from_secs(3)));
}
