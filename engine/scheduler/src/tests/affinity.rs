//! Company: affinity to and from other pods, required and preferred, in domains of several sizes.

use super::*;

const ZONE: &str = "topology.kubernetes.io/zone";
const HOST: &str = "kubernetes.io/hostname";
const REQUIRED: &str = "requiredDuringSchedulingIgnoredDuringExecution";
const PREFERRED: &str = "preferredDuringSchedulingIgnoredDuringExecution";

fn term(topology: &str, app: &str) -> Value {
    json!({ "topologyKey": topology, "labelSelector": { "matchLabels": { "app": app } } })
}

fn required(kind: &str, terms: Value) -> Value {
    json!({ "spec": { "affinity": { kind: { REQUIRED: terms } } } })
}

fn preferred(kind: &str, weight: i32, term: Value) -> Value {
    json!({ "spec": { "affinity": { kind: { PREFERRED: [{ "weight": weight, "podAffinityTerm": term }] } } } })
}

fn labelled(name: &str, app: &str) -> Arc<Wanted> {
    pod(name, json!({ "metadata": { "labels": { "app": app } } }))
}

/// Nodes a1 and a2 in zone a, b1 in zone b; a database on a1.
fn cluster() -> Cluster {
    Cluster::of([zoned("a1", "a"), zoned("a2", "a"), zoned("b1", "b")]).with("a1", [labelled("db", "db")])
}

#[test]
fn required_terms_open_and_close_domains() {
    let with = |terms: Value| required("podAffinity", terms);
    let without = |terms: Value| required("podAntiAffinity", terms);
    let cases: [(&str, Value, &[&str]); 12] = [
        ("with, on the node", with(json!([term(HOST, "db")])), &["a1"]),
        ("with, in the zone", with(json!([term(ZONE, "db")])), &["a1", "a2"]),
        ("with nobody there", with(json!([term(ZONE, "none")])), &[]),
        ("with its own kind, as the first", with(json!([term(ZONE, "web")])), &["a1", "a2", "b1"]),
        ("with in a topology that no node has", with(json!([term("rack", "web")])), &[]),
        ("with pods that all terms are about", with(json!([term(ZONE, "db"), term(HOST, "web")])), &[]),
        ("without, on the node", without(json!([term(HOST, "db")])), &["a2", "b1"]),
        ("without, in the zone", without(json!([term(ZONE, "db")])), &["b1"]),
        ("without in a topology that no node has", without(json!([term("rack", "db")])), &["a1", "a2", "b1"]),
        ("without a selector nobody is meant", without(json!([{ "topologyKey": ZONE }])), &["a1", "a2", "b1"]),
        ("without everybody", without(json!([{ "topologyKey": ZONE, "labelSelector": {} }])), &["b1"]),
        (
            "in a namespace where nobody is",
            without(json!([{ "topologyKey": ZONE, "labelSelector": {}, "namespaces": ["other"] }])),
            &["a1", "a2", "b1"],
        ),
    ];
    for (what, more, expected) in cases {
        assert_eq!(cluster().open(&pod("p", more)), expected, "{what}");
    }
}

#[test]
fn each_refusal_has_its_words() {
    let mut cluster = Cluster::of([zoned("a1", "a")]).with("a1", [labelled("db", "db")]);
    let with = required("podAffinity", json!([term(ZONE, "none")]));
    assert_eq!(cluster.choose(&pod("p", with)), told("node(s) didn't match pod affinity rules"));
    let without = required("podAntiAffinity", json!([term(ZONE, "db")]));
    assert_eq!(cluster.choose(&pod("p", without)), told("node(s) didn't match pod anti-affinity rules"));
    let alone = required("podAntiAffinity", json!([term(ZONE, "web")]));
    cluster.snapshot.place(&pod("alone", over(alone, &json!({ "metadata": { "labels": { "app": "alone" } } }))), "a1");
    let refused = told("node(s) didn't satisfy existing pods anti-affinity rules");
    assert_eq!(cluster.choose(&pod("p", json!({}))), refused, "what holds for one holds for the other");
    cluster.snapshot.remove(&("default".to_owned(), "alone".to_owned()));
    assert!(cluster.choose(&pod("p", json!({}))).is_ok());
}

#[test]
fn namespaces_are_chosen_by_name_or_by_label() {
    let far = json!({ "metadata": { "namespace": "far", "labels": { "app": "db" } } });
    let mut cluster = Cluster::of([zoned("a1", "a"), zoned("b1", "b")]).with("a1", [pod("db", far)]);
    let labels = [("team".to_owned(), "x".to_owned())].into();
    cluster.snapshot.set_namespace("far", Some(labels));
    let cases: [(&str, Value, &[&str]); 5] = [
        ("only its own", json!({}), &["a1", "b1"]),
        ("by name", json!({ "namespaces": ["far"] }), &["b1"]),
        ("all", json!({ "namespaceSelector": {} }), &["b1"]),
        ("by label", json!({ "namespaceSelector": { "matchLabels": { "team": "x" } } }), &["b1"]),
        ("by another label", json!({ "namespaceSelector": { "matchLabels": { "team": "y" } } }), &["a1", "b1"]),
    ];
    for (what, more, expected) in cases {
        let without = required("podAntiAffinity", json!([over(term(ZONE, "db"), &more)]));
        assert_eq!(cluster.open(&pod("p", without)), expected, "{what}");
    }
    cluster.snapshot.set_namespace("far", Some([("team".to_owned(), "y".to_owned())].into()));
    let team = json!({ "namespaceSelector": { "matchLabels": { "team": "x" } } });
    let without = required("podAntiAffinity", json!([over(term(ZONE, "db"), &team)]));
    assert_eq!(cluster.open(&pod("p", without)), ["a1", "b1"], "after the label of the namespace changed");
}

#[test]
fn label_keys_compare_with_the_pods_own_values() {
    let version = |name: &str, version: &str| pod(name, json!({ "metadata": { "labels": { "version": version } } }));
    let mut cluster = Cluster::of([zoned("a1", "a"), zoned("b1", "b")])
        .with("a1", [version("old", "1")])
        .with("b1", [version("new", "2")]);
    let asked = |keys: &str| {
        let without =
            required("podAntiAffinity", json!([over(term(ZONE, "web"), &json!({ keys: ["version", "absent"] }))]));
        pod("p", over(without, &json!({ "metadata": { "labels": { "version": "2" } } })))
    };
    assert_eq!(cluster.open(&asked("matchLabelKeys")), ["a1"]);
    assert_eq!(cluster.open(&asked("mismatchLabelKeys")), ["b1"]);
}

#[test]
fn preferred_terms_draw_and_push() {
    let cases = [
        ("drawn to the database", preferred("podAffinity", 100, term(ZONE, "db")), ["a1", "a2"]),
        ("pushed from it", preferred("podAntiAffinity", 100, term(ZONE, "db")), ["b1", "b1"]),
    ];
    for (what, more, expected) in cases {
        let chosen = cluster().choose(&pod("p", more)).unwrap();
        assert!(expected.contains(&chosen.as_str()), "{what}: {chosen}");
    }
}

#[test]
fn what_placed_pods_prefer_counts_too() {
    let shy = over(
        preferred("podAntiAffinity", 100, term(ZONE, "web")),
        &json!({ "metadata": { "labels": { "app": "shy" } } }),
    );
    let mut cluster = Cluster::of([zoned("a1", "a"), zoned("b1", "b")]).with("a1", [pod("shy", shy)]);
    assert_eq!(cluster.choose(&pod("p", json!({}))).unwrap(), "b1");
    let host = over(
        required("podAffinity", json!([term(ZONE, "web")])),
        &json!({ "metadata": { "labels": { "app": "host" } } }),
    );
    let mut cluster = Cluster::of([zoned("a1", "a"), zoned("b1", "b")]).with("b1", [pod("host", host)]);
    assert_eq!(cluster.choose(&pod("p", json!({}))).unwrap(), "b1", "who had to be with it would like it near");
}

#[test]
fn one_pod_a_node_by_anti_affinity_to_its_own_kind() {
    let mut cluster = Cluster::of(["a", "b", "c"].map(|name| node(name, json!({}))));
    let own = required("podAntiAffinity", json!([term(HOST, "web")]));
    let mut taken: Vec<String> =
        (0..3).map(|number| cluster.place(&pod(&format!("p{number}"), own.clone())).unwrap()).collect();
    taken.sort();
    assert_eq!(taken, ["a", "b", "c"]);
    let why = cluster.place(&pod("p3", own)).unwrap_err();
    assert_eq!(why, "0/3 nodes are available: 3 node(s) didn't match pod anti-affinity rules.");
}
