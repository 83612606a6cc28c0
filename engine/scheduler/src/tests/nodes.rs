//! What decides about a node by itself: names, cordons, taints, selectors, affinity, preferences, images, ports.

use super::*;

fn affinity(terms: Value) -> Value {
    json!({ "spec": { "affinity": { "nodeAffinity":
        { "requiredDuringSchedulingIgnoredDuringExecution": { "nodeSelectorTerms": terms } } } } })
}

#[test]
fn one_node_takes_a_pod_or_says_why_not() {
    let cordoned = || json!({ "spec": { "unschedulable": true } });
    let tainted = |effect: &str| json!({ "spec": { "taints": [{ "key": "k", "value": "v", "effect": effect }] } });
    let tolerating = |toleration: Value| json!({ "spec": { "tolerations": [toleration] } });
    let fast = || json!({ "metadata": { "labels": { "disk": "fast", "cores": "8" } } });
    let by = |key: &str, operator: &str, values: Value| {
        affinity(json!([{ "matchExpressions": [{ "key": key, "operator": operator, "values": values }] }]))
    };
    let ok = || Ok("n".to_owned());
    let unselected = || told("node(s) didn't match Pod's node affinity/selector");
    let untolerated = || told("node(s) had untolerated taint(s)");
    let cordon = json!({ "key": "node.kubernetes.io/unschedulable", "operator": "Exists", "effect": "NoSchedule" });
    let cases = [
        ("an empty node", json!({}), json!({}), ok()),
        ("a cordoned node", cordoned(), json!({}), told("node(s) were unschedulable")),
        ("a cordon is tolerated as a taint", cordoned(), tolerating(cordon), ok()),
        ("NoSchedule", tainted("NoSchedule"), json!({}), untolerated()),
        ("NoExecute", tainted("NoExecute"), json!({}), untolerated()),
        ("PreferNoSchedule is a wish", tainted("PreferNoSchedule"), json!({}), ok()),
        ("a toleration", tainted("NoSchedule"), tolerating(json!({ "key": "k", "value": "v" })), ok()),
        ("of another value", tainted("NoSchedule"), tolerating(json!({ "key": "k", "value": "w" })), untolerated()),
        ("of everything", tainted("NoExecute"), tolerating(json!({ "operator": "Exists" })), ok()),
        ("a selector that matches", fast(), json!({ "spec": { "nodeSelector": { "disk": "fast" } } }), ok()),
        (
            "a selector that does not",
            json!({}),
            json!({ "spec": { "nodeSelector": { "disk": "fast" } } }),
            unselected(),
        ),
        ("an affinity that matches", fast(), by("disk", "In", json!(["fast"])), ok()),
        ("an affinity that does not", fast(), by("disk", "NotIn", json!(["fast"])), unselected()),
        ("more than a number", fast(), by("cores", "Gt", json!(["4"])), ok()),
        ("less than a number", fast(), by("cores", "Lt", json!(["4"])), unselected()),
        ("an affinity without a term", fast(), affinity(json!([])), unselected()),
    ];
    for (what, more_node, more_pod, expected) in cases {
        assert_eq!(Cluster::of([node("n", more_node)]).choose(&pod("p", more_pod)), expected, "{what}");
    }
}

#[test]
fn a_pod_that_names_its_node_goes_there_and_nowhere_else() {
    let named = |name: &str| {
        affinity(json!([{ "matchFields": [{ "key": "metadata.name", "operator": "In", "values": [name] }] }]))
    };
    let mut cluster = Cluster::of(["a", "b", "c"].map(|name| node(name, json!({}))));
    assert_eq!(cluster.choose(&pod("p", named("b"))).unwrap(), "b");
    let why = cluster.choose(&pod("p", named("z"))).unwrap_err();
    assert_eq!(why, "0/3 nodes are available: 3 node(s) didn't satisfy plugin(s) [NodeAffinity].");
}

#[test]
fn without_nodes_a_pod_is_told_so() {
    assert_eq!(Cluster::default().choose(&pod("p", json!({}))).unwrap_err(), "no nodes available to schedule pods");
}

#[test]
fn reasons_are_counted_and_sorted() {
    let mut cluster = Cluster::of([
        node("a", json!({ "status": { "allocatable": { "cpu": "1" } } })),
        node("b", json!({ "spec": { "unschedulable": true } })),
        node("c", json!({ "spec": { "taints": [{ "key": "k", "effect": "NoSchedule" }] } })),
        node("d", json!({ "spec": { "taints": [{ "key": "l", "effect": "NoSchedule" }] } })),
    ]);
    let why = cluster.choose(&pod("p", asking(json!({ "cpu": "2" })))).unwrap_err();
    assert_eq!(
        why,
        "0/4 nodes are available: 1 Insufficient cpu, 1 node(s) were unschedulable, 2 node(s) had untolerated taint(s)."
    );
}

#[test]
fn preferences_weigh_and_soft_taints_are_avoided() {
    let labelled = |name: &str, disk: &str| node(name, json!({ "metadata": { "labels": { "disk": disk } } }));
    let preferring = |weight: i32| {
        json!({ "spec": { "affinity": { "nodeAffinity": { "preferredDuringSchedulingIgnoredDuringExecution": [
        { "weight": weight, "preference": { "matchExpressions": [{ "key": "disk", "operator": "In", "values": ["fast"] }] } }
    ] } } } })
    };
    let mut cluster = Cluster::of([labelled("a", "slow"), labelled("b", "fast")]);
    assert_eq!(cluster.choose(&pod("p", preferring(1))).unwrap(), "b");
    let soft = json!({ "spec": { "taints": [{ "key": "k", "effect": "PreferNoSchedule" }] } });
    let mut cluster = Cluster::of([node("a", soft), node("b", json!({}))]);
    assert_eq!(cluster.choose(&pod("p", json!({}))).unwrap(), "b");
    let tolerating = json!({ "spec": { "tolerations": [{ "key": "k", "operator": "Exists" }] } });
    assert_eq!(cluster.choose(&pod("p", tolerating)).unwrap(), "a", "a tolerated one is none");
}

#[test]
fn a_node_that_has_the_image_is_liked() {
    let having = json!({ "status": { "images": [{ "names": ["i:latest"], "sizeBytes": 900_000_000 }] } });
    let mut cluster = Cluster::of([node("a", json!({})), node("b", having)]);
    assert_eq!(cluster.choose(&pod("p", json!({}))).unwrap(), "b");
}

#[test]
fn a_port_of_the_host_is_had_once() {
    let with = |port: Value| json!({ "spec": { "containers": [{ "name": "c", "ports": [port] }] } });
    let taken = told("node(s) didn't have free ports for the requested pod ports");
    let cases = [
        (json!({ "containerPort": 80, "hostPort": 80 }), Err(())),
        (json!({ "containerPort": 80, "hostPort": 81 }), Ok(())),
        (json!({ "containerPort": 80, "hostPort": 80, "protocol": "UDP" }), Ok(())),
        (json!({ "containerPort": 80, "hostPort": 80, "hostIP": "127.0.0.1" }), Err(())),
        (json!({ "containerPort": 80 }), Ok(())),
    ];
    for (port, expected) in cases {
        let there = pod("there", with(json!({ "containerPort": 80, "hostPort": 80 })));
        let mut cluster = Cluster::of([node("n", json!({}))]).with("n", [there]);
        let chosen = cluster.choose(&pod("p", with(port.clone())));
        assert_eq!(chosen, expected.map(|()| "n".to_owned()).or(taken.clone()), "{port}");
    }
    let one = |ip: &str| with(json!({ "containerPort": 80, "hostPort": 80, "hostIP": ip }));
    let mut cluster = Cluster::of([node("n", json!({}))]).with("n", [pod("there", one("10.0.0.1"))]);
    assert!(cluster.choose(&pod("p", one("10.0.0.2"))).is_ok(), "of two addresses");
}

#[test]
fn a_node_that_changed_is_judged_anew() {
    let mut cluster = Cluster::of([node("n", json!({}))]);
    let selecting = pod("p", json!({ "spec": { "nodeSelector": { "disk": "fast" } } }));
    assert!(cluster.choose(&selecting).is_err());
    cluster.snapshot.set_node(&node("n", json!({ "metadata": { "labels": { "disk": "fast" } } })));
    assert!(cluster.choose(&selecting).is_ok());
    cluster.snapshot.remove_node("n");
    assert!(cluster.choose(&selecting).is_err());
    cluster.snapshot.set_node(&node("m", json!({ "metadata": { "labels": { "disk": "fast" } } })));
    assert_eq!(cluster.choose(&selecting).unwrap(), "m");
}
