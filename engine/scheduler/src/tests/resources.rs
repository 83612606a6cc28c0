//! Room: what counts as asked for, what is left, and which node it is best taken from.

use super::*;
use crate::Resources;

#[test]
fn what_a_pod_asks_for_all_in_all() {
    let container = |cpu: &str| json!({ "name": "c", "resources": { "requests": { "cpu": cpu } } });
    let sidecar =
        |cpu: &str| json!({ "name": "s", "restartPolicy": "Always", "resources": { "requests": { "cpu": cpu } } });
    let cases = [
        ("nothing", json!({ "containers": [{ "name": "c" }] }), 0),
        ("containers together", json!({ "containers": [container("100m"), container("200m")] }), 300),
        (
            "a larger init container",
            json!({ "containers": [container("100m")], "initContainers": [container("1")] }),
            1000,
        ),
        (
            "a smaller one",
            json!({ "containers": [container("2")], "initContainers": [container("1"), container("1")] }),
            2000,
        ),
        ("a sidecar stays", json!({ "containers": [container("1")], "initContainers": [sidecar("500m")] }), 1500),
        (
            "an init container beside a sidecar",
            json!({ "containers": [container("100m")], "initContainers": [sidecar("500m"), container("1")] }),
            1500,
        ),
        (
            "an init container before a sidecar",
            json!({ "containers": [container("100m")], "initContainers": [container("1"), sidecar("500m")] }),
            1000,
        ),
        ("overhead", json!({ "containers": [container("1")], "overhead": { "cpu": "250m" } }), 1250),
        (
            "the pod as a whole",
            json!({ "containers": [container("1")], "resources": { "requests": { "cpu": "3" } } }),
            3000,
        ),
        (
            "the pod as a whole and overhead",
            json!({ "containers": [], "resources": { "requests": { "cpu": "3" } }, "overhead": { "cpu": "1" } }),
            4000,
        ),
    ];
    for (what, spec, expected) in cases {
        let pod: Pod = serde_json::from_value(json!({ "metadata": {}, "spec": spec })).unwrap();
        assert_eq!(Resources::requested(&pod).cpu, expected, "{what}");
    }
}

#[test]
fn a_pod_that_shrinks_holds_what_it_has_until_it_is_smaller() {
    let pod: Pod = serde_json::from_value(json!({
        "metadata": {},
        "spec": { "containers": [{ "name": "c", "resources": { "requests": { "cpu": "1" } } }] },
        "status": { "containerStatuses": [{ "name": "c", "image": "", "imageID": "", "ready": true, "restartCount": 0,
            "allocatedResources": { "cpu": "2" } }] },
    }))
    .unwrap();
    assert_eq!(Resources::requested(&pod).cpu, 2000);
}

#[test]
fn each_kind_of_resource_is_counted() {
    let offers = json!({ "status": { "allocatable": {
        "cpu": "4", "memory": "8Gi", "ephemeral-storage": "10Gi", "hugepages-2Mi": "64Mi", "example.com/gpu": "2", "pods": "10" } } });
    let cases = [
        (json!({ "cpu": "3" }), json!({ "cpu": "1" }), None),
        (json!({ "cpu": "3" }), json!({ "cpu": "1001m" }), Some("cpu")),
        (json!({ "memory": "7Gi" }), json!({ "memory": "1025Mi" }), Some("memory")),
        (json!({ "ephemeral-storage": "10Gi" }), json!({ "ephemeral-storage": "1" }), Some("ephemeral-storage")),
        (json!({ "hugepages-2Mi": "64Mi" }), json!({ "hugepages-2Mi": "2Mi" }), Some("hugepages-2Mi")),
        (json!({ "example.com/gpu": "1" }), json!({ "example.com/gpu": "1" }), None),
        (json!({ "example.com/gpu": "2" }), json!({ "example.com/gpu": "1" }), Some("example.com/gpu")),
        (json!({}), json!({ "example.com/fpga": "1" }), Some("example.com/fpga")),
    ];
    for (there, asked, short) in cases {
        let mut cluster = Cluster::of([node("n", offers.clone())]).with("n", [pod("there", asking(there))]);
        let expected = short.map_or(Ok("n".to_owned()), |name| told(&format!("Insufficient {name}")));
        assert_eq!(cluster.choose(&pod("p", asking(asked.clone()))), expected, "{asked}");
    }
}

#[test]
fn a_node_that_lacks_several_things_says_each() {
    let mut cluster = Cluster::of([node("n", json!({}))]);
    let why = cluster.choose(&pod("p", asking(json!({ "cpu": "5", "memory": "9Gi" })))).unwrap_err();
    assert_eq!(why, "0/1 nodes are available: 1 Insufficient cpu, 1 Insufficient memory.");
}

#[test]
fn a_node_takes_so_many_pods() {
    let small = json!({ "status": { "allocatable": { "pods": "2" } } });
    let mut cluster = Cluster::of([node("n", small)]).with("n", ["a", "b"].map(|name| pod(name, json!({}))));
    assert_eq!(cluster.choose(&pod("p", json!({}))), told("Too many pods"));
    cluster.snapshot.remove(&("default".to_owned(), "a".to_owned()));
    assert!(cluster.choose(&pod("p", json!({}))).is_ok());
}

#[test]
fn the_emptier_node_is_better_and_the_one_that_stays_even() {
    let mut cluster = Cluster::of([node("a", json!({})), node("b", json!({}))])
        .with("a", [pod("there", asking(json!({ "cpu": "1", "memory": "2Gi" })))]);
    assert_eq!(cluster.choose(&pod("p", asking(json!({ "cpu": "1", "memory": "2Gi" })))).unwrap(), "b", "emptier");
    let mut cluster = Cluster::of([node("a", json!({})), node("b", json!({}))])
        .with("a", [pod("one", asking(json!({ "cpu": "2" })))])
        .with("b", [pod("two", asking(json!({ "memory": "4Gi" })))]);
    assert_eq!(cluster.choose(&pod("p", asking(json!({ "cpu": "1" })))).unwrap(), "b", "more even");
}

#[test]
fn an_amount_beyond_all_measure_does_not_wrap_around() {
    let huge = asking(json!({ "cpu": "9000000000000000", "memory": "9E" }));
    let mut cluster = Cluster::of([node("n", json!({}))]).with("n", [pod("a", huge.clone()), pod("b", huge.clone())]);
    assert!(cluster.choose(&pod("p", asking(json!({ "cpu": "1" })))).is_err());
    assert!(cluster.choose(&pod("q", huge)).is_err());
}
