//! Volumes: what makes a pod wait, which nodes its volumes open, and what is done for its claims.

use super::*;
use crate::Step;

fn claim(name: &str, more: Value) -> (crate::Key, Value) {
    let base = json!({ "metadata": { "name": name, "namespace": "default", "uid": name }, "spec": {
        "accessModes": ["ReadWriteOnce"], "storageClassName": "local", "resources": { "requests": { "storage": "1Gi" } } } });
    (("default".to_owned(), name.to_owned()), over(base, &more))
}

fn volume(name: &str, on: &str, size: &str) -> Value {
    json!({ "metadata": { "name": name }, "status": { "phase": "Available" }, "spec": {
        "accessModes": ["ReadWriteOnce"], "storageClassName": "local", "capacity": { "storage": size },
        "nodeAffinity": { "required": { "nodeSelectorTerms": [
            { "matchExpressions": [{ "key": "kubernetes.io/hostname", "operator": "In", "values": [on] }] }] } } } })
}

fn class(name: &str, provisioner: &str, mode: &str) -> Value {
    json!({ "metadata": { "name": name }, "provisioner": provisioner, "volumeBindingMode": mode })
}

fn using(claims: &[&str]) -> Arc<Wanted> {
    let volumes: Vec<Value> =
        claims.iter().map(|name| json!({ "name": name, "persistentVolumeClaim": { "claimName": name } })).collect();
    pod("p", json!({ "spec": { "volumes": volumes } }))
}

fn bound(to: &str) -> Value {
    json!({ "spec": { "volumeName": to }, "status": { "phase": "Bound" } })
}

impl Cluster {
    fn claim(mut self, name: &str, more: Value) -> Self {
        let (key, claim) = claim(name, more);
        self.volumes.set_claim(key, Some(Arc::new(serde_json::from_value(claim).unwrap())));
        self
    }

    fn volume(mut self, name: &str, on: &str, size: &str) -> Self {
        let volume = serde_json::from_value(volume(name, on, size)).unwrap();
        self.volumes.set_volume(name, Some(Arc::new(volume)));
        self
    }

    fn class(mut self, provisioner: &str, mode: &str) -> Self {
        let class = serde_json::from_value(class("local", provisioner, mode)).unwrap();
        self.volumes.set_class("local", Some(Arc::new(class)));
        self
    }

    fn steps(&mut self, pod: &Arc<Wanted>) -> (String, Vec<(String, Step)>) {
        let choice = choose(pod, &mut self.snapshot, &self.volumes).unwrap();
        (choice.node, choice.steps)
    }
}

fn two() -> Cluster {
    Cluster::of(["a", "b"].map(|name| node(name, json!({}))))
}

#[test]
fn claims_that_no_node_could_help_make_the_pod_wait() {
    let late = |cluster: Cluster| cluster.class("example.com/disk", "WaitForFirstConsumer");
    let cases = [
        (two(), "persistentvolumeclaim \"data\" not found"),
        (two().claim("data", json!({})), "pod has unbound immediate PersistentVolumeClaims"),
        (
            two().class("example.com/disk", "Immediate").claim("data", json!({})),
            "pod has unbound immediate PersistentVolumeClaims",
        ),
        (
            late(two()).claim("data", json!({ "metadata": { "deletionTimestamp": "2026-01-01T00:00:00Z" } })),
            "persistentvolumeclaim \"data\" is being deleted",
        ),
        (
            two().claim("data", json!({ "spec": { "volumeName": "v" }, "status": { "phase": "Lost" } })),
            "persistentvolumeclaim \"data\" bound to non-existent persistentvolume \"v\"",
        ),
    ];
    for (mut cluster, why) in cases {
        assert_eq!(cluster.choose(&using(&["data"])).unwrap_err(), format!("0/2 nodes are available: {why}."));
    }
}

#[test]
fn a_bound_volume_opens_the_nodes_that_reach_it() {
    let mut cluster = two().claim("data", bound("v")).volume("v", "b", "1Gi");
    assert_eq!(cluster.steps(&using(&["data"])), ("b".to_owned(), Vec::new()));
    let mut cluster = two().claim("data", bound("v")).volume("v", "c", "1Gi");
    let words = "0/2 nodes are available: 2 node(s) didn't match PersistentVolume's node affinity.";
    assert_eq!(cluster.choose(&using(&["data"])).unwrap_err(), words);
    let mut cluster = two().claim("data", bound("v"));
    let words = "0/2 nodes are available: 2 node(s) unavailable due to one or more pvc(s) bound to non-existent pv(s).";
    assert_eq!(cluster.choose(&using(&["data"])).unwrap_err(), words);
}

#[test]
fn a_late_claim_gets_the_smallest_volume_of_the_node_or_one_is_made() {
    let late = |provisioner: &str| two().class(provisioner, "WaitForFirstConsumer").claim("data", json!({}));
    let step = |step: Step| vec![("data".to_owned(), step)];
    let mut cluster = late("kubernetes.io/no-provisioner")
        .volume("v1", "b", "5Gi")
        .volume("v2", "b", "2Gi")
        .volume("v3", "b", "512Mi");
    assert_eq!(cluster.steps(&using(&["data"])), ("b".to_owned(), step(Step::Use("v2".to_owned()))));
    let mut cluster = late("example.com/disk");
    assert_eq!(cluster.steps(&using(&["data"])).1, step(Step::Provision));
    let mut cluster = late("kubernetes.io/no-provisioner").volume("v", "b", "512Mi");
    let words = "0/2 nodes are available: 2 node(s) didn't find available persistent volumes to bind.";
    assert_eq!(cluster.choose(&using(&["data"])).unwrap_err(), words);
}

#[test]
fn a_volume_is_given_once() {
    let mut cluster = two().class("kubernetes.io/no-provisioner", "WaitForFirstConsumer");
    cluster = cluster.claim("one", json!({})).claim("two", json!({})).volume("v1", "a", "1Gi").volume("v2", "b", "1Gi");
    assert!(cluster.choose(&using(&["one", "two"])).is_err(), "no node has two");
    cluster = cluster.volume("v3", "b", "3Gi");
    let (node, steps) = cluster.steps(&using(&["one", "two"]));
    assert_eq!((node.as_str(), steps.len()), ("b", 2));
    assert_ne!(steps[0].1, steps[1].1);
    cluster.volumes.give("default", &steps);
    assert_eq!(cluster.steps(&using(&["one"])).0, "a", "what was given away is not offered again");
    cluster.volumes.take_back(&steps);
    cluster = cluster.volume("v1", "c", "1Gi");
    assert_eq!(cluster.steps(&using(&["one"])).0, "b");
}

#[test]
fn a_claim_whose_node_was_chosen_before_keeps_it() {
    let selected = json!({ "metadata": { "annotations": { "volume.kubernetes.io/selected-node": "b" } } });
    let mut cluster = two().class("example.com/disk", "WaitForFirstConsumer").claim("data", selected);
    assert_eq!(cluster.open(&using(&["data"])), ["b"]);
}

#[test]
fn a_class_makes_volumes_only_where_it_says() {
    let mut cluster = two().claim("data", json!({}));
    let topologies = json!([{ "matchLabelExpressions": [{ "key": "kubernetes.io/hostname", "values": ["b"] }] }]);
    let class =
        over(class("local", "example.com/disk", "WaitForFirstConsumer"), &json!({ "allowedTopologies": topologies }));
    cluster.volumes.set_class("local", Some(Arc::new(serde_json::from_value(class).unwrap())));
    assert_eq!(cluster.open(&using(&["data"])), ["b"]);
}

#[test]
fn a_claim_for_one_pod_is_for_one_pod() {
    let alone = over(bound("v"), &json!({ "spec": { "accessModes": ["ReadWriteOncePod"] } }));
    let mut cluster = two().claim("data", alone).volume("v", "a", "1Gi");
    assert!(cluster.choose(&using(&["data"])).is_ok());
    let other = pod(
        "other",
        json!({ "spec": { "volumes": [{ "name": "v", "persistentVolumeClaim": { "claimName": "data" } }] } }),
    );
    cluster.snapshot.place(&other, "a");
    let words = "0/2 nodes are available: 2 node has pod using PersistentVolumeClaim with the same name and ReadWriteOncePod access mode.";
    assert_eq!(cluster.choose(&using(&["data"])).unwrap_err(), words);
    cluster.snapshot.remove(&other.key());
    assert!(cluster.choose(&using(&["data"])).is_ok());
}
