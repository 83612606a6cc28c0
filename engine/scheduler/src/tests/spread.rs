//! Even spreading: constraints that must hold, those that are wishes, and what happens without any.

use super::*;

const ZONE: &str = "topology.kubernetes.io/zone";
const HOST: &str = "kubernetes.io/hostname";

fn constraint(topology: &str, more: Value) -> Value {
    let base = json!({ "topologyKey": topology, "maxSkew": 1, "whenUnsatisfiable": "DoNotSchedule",
        "labelSelector": { "matchLabels": { "app": "web" } } });
    over(base, &more)
}

fn spread(constraints: Value) -> Value {
    json!({ "spec": { "topologySpreadConstraints": constraints } })
}

fn many(names: &str) -> Vec<Arc<Wanted>> {
    names.split_whitespace().map(|name| pod(name, json!({}))).collect()
}

/// Zones a, b and c of one node each, with two, one and one pods.
fn cluster() -> Cluster {
    Cluster::of([zoned("a1", "a"), zoned("b1", "b"), zoned("c1", "c")])
        .with("a1", many("p1 p2"))
        .with("b1", many("p3"))
        .with("c1", many("p4"))
}

#[test]
fn a_constraint_closes_the_fuller_domains() {
    let cases: [(&str, Value, &[&str]); 11] = [
        ("skew of one", json!({}), &["b1", "c1"]),
        ("skew of two", json!({ "maxSkew": 2 }), &["a1", "b1", "c1"]),
        ("a selector of nobody", json!({ "labelSelector": { "matchLabels": { "app": "none" } } }), &["a1", "b1", "c1"]),
        ("enough domains", json!({ "minDomains": 3 }), &["b1", "c1"]),
        ("too few domains", json!({ "minDomains": 4 }), &[]),
        ("too few domains and a wide skew", json!({ "minDomains": 4, "maxSkew": 2 }), &["b1", "c1"]),
        ("a wish", json!({ "whenUnsatisfiable": "ScheduleAnyway" }), &["a1", "b1", "c1"]),
        ("label keys of its own", json!({ "matchLabelKeys": ["app"] }), &["b1", "c1"]),
        ("label keys that nobody shares", json!({ "matchLabelKeys": ["version"] }), &["a1", "b1", "c1"]),
        ("a topology that no node has", json!({ "topologyKey": "rack" }), &[]),
        ("everybody", json!({ "labelSelector": {} }), &["b1", "c1"]),
    ];
    for (what, more, expected) in cases {
        let asked =
            over(spread(json!([constraint(ZONE, more)])), &json!({ "metadata": { "labels": { "version": "2" } } }));
        assert_eq!(cluster().open(&pod("p", asked)), expected, "{what}");
    }
}

#[test]
fn both_refusals_have_their_words() {
    let mut cluster = Cluster::of([zoned("a1", "a")]).with("a1", many("p1"));
    let uneven = spread(json!([constraint(ZONE, json!({ "minDomains": 2 }))]));
    assert_eq!(cluster.choose(&pod("p", uneven)), told("node(s) didn't match pod topology spread constraints"));
    let nowhere = spread(json!([constraint("rack", json!({}))]));
    let words = "node(s) didn't match pod topology spread constraints (missing required label)";
    assert_eq!(cluster.choose(&pod("p", nowhere)), told(words));
}

#[test]
fn a_pod_that_is_not_counted_itself_may_go_where_the_most_are() {
    let other =
        over(spread(json!([constraint(ZONE, json!({}))])), &json!({ "metadata": { "labels": { "app": "other" } } }));
    assert_eq!(cluster().open(&pod("p", other)), ["a1", "b1", "c1"]);
}

#[test]
fn pods_that_leave_and_pods_elsewhere_do_not_count() {
    let leaving = json!({ "metadata": { "deletionTimestamp": "2026-01-01T00:00:00Z" } });
    let far = json!({ "metadata": { "namespace": "far" } });
    let mut cluster = Cluster::of([zoned("a1", "a"), zoned("b1", "b")])
        .with("a1", [pod("l1", leaving.clone()), pod("l2", leaving), pod("f1", far.clone()), pod("f2", far)]);
    assert_eq!(cluster.open(&pod("p", spread(json!([constraint(ZONE, json!({}))])))), ["a1", "b1"]);
}

#[test]
fn nodes_that_the_pod_may_not_use_count_only_where_asked() {
    let tainted = json!({ "metadata": { "labels": { ZONE: "c" } }, "spec": { "taints": [{ "key": "k", "effect": "NoSchedule" }] } });
    let build = || {
        Cluster::of([zoned("a1", "a"), zoned("b1", "b"), node("c1", tainted.clone())])
            .with("a1", many("p1"))
            .with("b1", many("p2"))
    };
    let asked = |more: Value| pod("p", spread(json!([constraint(ZONE, more)])));
    assert_eq!(build().open(&asked(json!({}))), [""; 0], "the tainted zone counts and is empty");
    assert_eq!(build().open(&asked(json!({ "nodeTaintsPolicy": "Honor" }))), ["a1", "b1"]);
    let selecting = |policy: &str| {
        let asked = spread(json!([constraint(ZONE, json!({ "nodeAffinityPolicy": policy }))]));
        pod("p", over(asked, &json!({ "spec": { "nodeSelector": { HOST: "a1" } } })))
    };
    assert_eq!(build().open(&selecting("Honor")), ["a1"], "only the selected zone counts");
    assert_eq!(build().open(&selecting("Ignore")), [""; 0]);
}

#[test]
fn constraints_of_two_topologies_hold_together() {
    let mut cluster = Cluster::of([zoned("a1", "a"), zoned("a2", "a"), zoned("b1", "b")])
        .with("a1", many("p1"))
        .with("b1", many("p2"));
    let both = spread(json!([constraint(ZONE, json!({})), constraint(HOST, json!({}))]));
    assert_eq!(cluster.open(&pod("p", both)), ["a2"], "zones are even and a2 is the empty node");
}

#[test]
fn replicas_end_up_even() {
    let mut cluster = Cluster::of([zoned("a1", "a"), zoned("a2", "a"), zoned("b1", "b"), zoned("c1", "c")]);
    let asked = spread(json!([constraint(ZONE, json!({}))]));
    let mut zones = [0, 0, 0];
    for number in 0..9 {
        let chosen = cluster.place(&pod(&format!("p{number}"), asked.clone())).unwrap();
        zones[usize::from(chosen.as_bytes()[0] - b'a')] += 1;
    }
    assert_eq!(zones, [3, 3, 3]);
}

#[test]
fn a_wish_prefers_the_emptier_domain() {
    let wish = spread(json!([constraint(ZONE, json!({ "whenUnsatisfiable": "ScheduleAnyway" }))]));
    assert_ne!(cluster().choose(&pod("p", wish)).unwrap(), "a1");
}

#[test]
fn pods_of_one_set_or_one_service_spread_by_themselves() {
    let owned = json!({ "metadata": { "ownerReferences": [
        { "apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "r", "uid": "r", "controller": true }] } });
    let large = json!({ "status": { "allocatable": { "cpu": "64", "memory": "64Gi" } } });
    let mut cluster = Cluster::of([node("a", large.clone()), node("b", json!({}))]);
    assert_eq!(cluster.place(&pod("one", owned.clone())).unwrap(), "a", "the emptier node");
    assert_eq!(cluster.place(&pod("two", owned)).unwrap(), "b", "away from its sibling");
    let mut cluster = Cluster::of([node("a", large), node("b", json!({}))]).with("a", many("p1 p2"));
    assert_eq!(cluster.choose(&pod("p", json!({}))).unwrap(), "a");
    let selector = [("app".to_owned(), "web".to_owned())].into();
    cluster.snapshot.set_service(("default".to_owned(), "web".to_owned()), Some(selector));
    assert_eq!(cluster.choose(&pod("p", json!({}))).unwrap(), "b", "away from who serves the same");
}
