//! What wakes whom, as a table.

use std::sync::Arc;

use serde_json::{Value, json};

use Filter::{Affinity, Ports, Resources, Spread, Taints, Volumes};
use Happening as It;

use super::*;

#[expect(clippy::needless_pass_by_value, reason = "the calls write json! in place")]
fn pod(more: Value) -> Wanted {
    let mut object = json!({ "metadata": { "name": "p", "namespace": "default", "labels": { "app": "web" } }, "spec": { "containers": [] } });
    object["spec"].as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    Wanted::of(Arc::new(serde_json::from_value(object).unwrap()))
}

fn by(filter: Filter) -> Filters {
    let mut filters = Filters::default();
    filters.add(filter);
    filters
}

#[test]
fn only_what_could_help_wakes() {
    let node = |spec: Value, cpu: &str| -> Node {
        let node = json!({ "metadata": { "name": "n" }, "spec": spec, "status": { "allocatable": { "cpu": cpu } } });
        serde_json::from_value(node).unwrap()
    };
    let (open, small) = (node(json!({}), "4"), node(json!({}), "1"));
    let tainted = node(json!({ "taints": [{ "key": "k", "effect": "NoSchedule" }] }), "4");
    let asks = pod(json!({ "containers": [{ "name": "c", "resources": { "requests": { "cpu": "2" } } }] }));
    let term = json!([{ "topologyKey": "zone", "labelSelector": { "matchLabels": { "app": "web" } } }]);
    let with =
        pod(json!({ "affinity": { "podAffinity": { "requiredDuringSchedulingIgnoredDuringExecution": term } } }));
    let claims = pod(json!({ "volumes": [{ "name": "v", "persistentVolumeClaim": { "claimName": "c" } }] }));
    let other = pod(json!({}));
    let cases: [(&str, It<'_>, &Wanted, Filter, bool); 17] = [
        ("a node with room", It::Node(&open), &asks, Resources, true),
        ("a node that is too small", It::Node(&small), &asks, Resources, false),
        ("a node without the taint", It::Node(&open), &asks, Taints, true),
        ("a node with a taint", It::Node(&tainted), &asks, Taints, false),
        ("a node with a taint, for who is spread", It::Node(&tainted), &asks, Spread, true),
        ("a node that is gone, for who is spread", It::Domains, &asks, Spread, true),
        ("a node that is gone, for who is too large", It::Domains, &asks, Resources, false),
        ("a pod that left", It::Left(&other, Some(&open)), &asks, Resources, true),
        ("a pod that left its ports", It::Left(&other, Some(&open)), &asks, Ports, true),
        ("a pod that left where this one may not go", It::Left(&other, Some(&tainted)), &asks, Resources, false),
        ("a pod that left, for who is tainted away", It::Left(&other, Some(&open)), &asks, Taints, false),
        ("a pod that left the claim", It::Left(&claims, Some(&open)), &claims, Volumes, true),
        ("a pod that left another claim", It::Left(&other, Some(&open)), &claims, Volumes, false),
        ("a pod that this one has to be with", It::Placed(&other), &with, Affinity, true),
        ("a pod that takes room", It::Placed(&other), &asks, Resources, false),
        ("a volume", It::Storage, &claims, Volumes, true),
        ("a volume, for who wants none", It::Storage, &asks, Resources, false),
    ];
    for (what, happening, pod, refused_by, expected) in cases {
        assert_eq!(happening.helps(pod, by(refused_by), &Namespaces::new()), expected, "{what}");
    }
}
