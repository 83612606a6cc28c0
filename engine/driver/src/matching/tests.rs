//! Selectors, affinities and tolerations, as tables of what they choose.

use serde_json::{Value, json};

use super::*;

fn labels(pairs: &[(&str, &str)]) -> Labels {
    pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
}

fn node() -> Node {
    let labels = json!({ "zone": "a", "disk": "fast", "cores": "8", "odd": "x8" });
    serde_json::from_value(json!({ "metadata": { "name": "n1", "labels": labels } })).unwrap()
}

#[test]
fn a_label_selector_chooses_by_all_of_its_requirements() {
    let here = labels(&[("app", "web"), ("tier", "front")]);
    let one = |key: &str, operator: &str, values: &[&str]| json!({ "matchExpressions": [{ "key": key, "operator": operator, "values": values }] });
    let cases: [(Value, bool); 13] = [
        (json!({}), true),
        (json!({ "matchLabels": { "app": "web" } }), true),
        (json!({ "matchLabels": { "app": "web", "tier": "back" } }), false),
        (json!({ "matchLabels": { "other": "web" } }), false),
        (one("app", "In", &["api", "web"]), true),
        (one("app", "In", &["api"]), false),
        (one("app", "NotIn", &["web"]), false),
        (one("none", "NotIn", &["web"]), true),
        (one("app", "Exists", &[]), true),
        (one("none", "Exists", &[]), false),
        (one("none", "DoesNotExist", &[]), true),
        (one("app", "Gt", &["1"]), false),
        (
            json!({ "matchLabels": { "app": "web" }, "matchExpressions": [{ "key": "tier", "operator": "DoesNotExist" }] }),
            false,
        ),
    ];
    for (selector, expected) in cases {
        let typed: LabelSelector = serde_json::from_value(selector.clone()).unwrap();
        assert_eq!(selects(&typed, &here), expected, "{selector}");
    }
}

#[test]
fn a_term_chooses_nodes_by_labels_and_by_name() {
    let label =
        |key: &str, operator: &str, values: &[&str]| json!([{ "key": key, "operator": operator, "values": values }]);
    let expression =
        |key: &str, operator: &str, values: &[&str]| json!({ "matchExpressions": label(key, operator, values) });
    let field = |operator: &str, values: &[&str]| json!({ "matchFields": label("metadata.name", operator, values) });
    let cases: [(Value, bool); 22] = [
        (json!({}), false),
        (expression("zone", "In", &["a", "b"]), true),
        (expression("zone", "In", &["b"]), false),
        (expression("zone", "NotIn", &["b"]), true),
        (expression("none", "NotIn", &["b"]), true),
        (expression("zone", "NotIn", &["a"]), false),
        (expression("disk", "Exists", &[]), true),
        (expression("none", "Exists", &[]), false),
        (expression("none", "DoesNotExist", &[]), true),
        (expression("disk", "DoesNotExist", &[]), false),
        (expression("cores", "Gt", &["7"]), true),
        (expression("cores", "Gt", &["8"]), false),
        (expression("cores", "Lt", &["9"]), true),
        (expression("cores", "Lt", &["8"]), false),
        (expression("odd", "Gt", &["1"]), false),
        (expression("cores", "Gt", &["x"]), false),
        (expression("cores", "Like", &["8"]), false),
        (field("In", &["n1"]), true),
        (field("In", &["n2"]), false),
        (field("NotIn", &["n1"]), false),
        (field("Exists", &[]), false),
        (json!({ "matchFields": [{ "key": "spec.podCIDR", "operator": "NotIn", "values": ["x"] }] }), false),
    ];
    for (term, expected) in cases {
        let typed: NodeSelectorTerm = serde_json::from_value(term.clone()).unwrap();
        assert_eq!(term_selects_node(&typed, &node()), expected, "{term}");
    }
}

#[test]
fn the_selector_and_one_term_of_the_affinity_have_to_hold() {
    let term = |zone: &str| json!({ "matchExpressions": [{ "key": "zone", "operator": "In", "values": [zone] }] });
    let spec = |labels: Value, terms: Value| {
        json!({ "containers": [], "nodeSelector": labels, "affinity": { "nodeAffinity":
            { "requiredDuringSchedulingIgnoredDuringExecution": { "nodeSelectorTerms": terms } } } })
    };
    let cases = [
        (json!({ "containers": [] }), true),
        (json!({ "containers": [], "nodeSelector": { "disk": "fast" } }), true),
        (json!({ "containers": [], "nodeSelector": { "disk": "slow" } }), false),
        (spec(json!({}), json!([term("b"), term("a")])), true),
        (spec(json!({}), json!([term("b"), term("c")])), false),
        (spec(json!({ "disk": "slow" }), json!([term("a")])), false),
        (spec(json!({}), json!([])), false),
    ];
    for (spec, expected) in cases {
        let typed: PodSpec = serde_json::from_value(spec.clone()).unwrap();
        assert_eq!(allows_node(&typed, &node()), expected, "{spec}");
    }
}

#[test]
fn nodes_are_named_only_where_every_term_names_them() {
    let by_name =
        |name: &str| json!({ "matchFields": [{ "key": "metadata.name", "operator": "In", "values": [name] }] });
    let by_zone = json!({ "matchExpressions": [{ "key": "zone", "operator": "In", "values": ["a"] }] });
    let selector = |terms: Value| serde_json::from_value(json!({ "nodeSelectorTerms": terms })).unwrap();
    let named: NodeSelector = selector(json!([by_name("a"), by_name("b")]));
    assert_eq!(named_nodes(&named), Some(vec!["a", "b"]));
    let open: NodeSelector = selector(json!([by_name("a"), by_zone]));
    assert_eq!(named_nodes(&open), None);
    let none: NodeSelector = selector(json!([]));
    assert_eq!(named_nodes(&none), None);
}

#[test]
fn a_toleration_is_for_a_key_a_value_and_an_effect() {
    let taint = |value: &str| json!({ "key": "k", "value": value, "effect": "NoSchedule" });
    let cases = [
        (json!({ "operator": "Exists" }), "v", true),
        (json!({ "operator": "Exists", "effect": "NoExecute" }), "v", false),
        (json!({ "key": "k", "operator": "Exists" }), "v", true),
        (json!({ "key": "other", "operator": "Exists" }), "v", false),
        (json!({ "key": "k", "value": "v" }), "v", true),
        (json!({ "key": "k", "operator": "Equal", "value": "v", "effect": "NoSchedule" }), "v", true),
        (json!({ "key": "k", "value": "w" }), "v", false),
        (json!({ "key": "k", "value": "v", "effect": "PreferNoSchedule" }), "v", false),
        (json!({ "key": "k" }), "", true),
        (json!({ "key": "k" }), "v", false),
        (json!({ "key": "k", "operator": "Gt", "value": "750" }), "950", true),
        (json!({ "key": "k", "operator": "Gt", "value": "950" }), "950", false),
        (json!({ "key": "k", "operator": "Lt", "value": "950" }), "800", true),
        (json!({ "key": "k", "operator": "Lt", "value": "-2" }), "-3", true),
        (json!({ "key": "k", "operator": "Lt", "value": "0950" }), "800", false),
        (json!({ "key": "k", "operator": "Gt", "value": "1" }), "+2", false),
        (json!({ "key": "k", "operator": "Near", "value": "v" }), "v", false),
    ];
    for (toleration, value, expected) in cases {
        let typed: Toleration = serde_json::from_value(toleration.clone()).unwrap();
        let taint: Taint = serde_json::from_value(taint(value)).unwrap();
        assert_eq!(tolerates(&typed, &taint), expected, "{toleration} of {value:?}");
    }
}

#[test]
fn the_first_untolerated_taint_of_the_asked_effects_is_told() {
    let taints: Vec<Taint> = serde_json::from_value(json!([
        { "key": "soft", "effect": "PreferNoSchedule" },
        { "key": "hard", "effect": "NoSchedule" },
        { "key": "out", "effect": "NoExecute" },
    ]))
    .unwrap();
    let hard: Vec<Toleration> = serde_json::from_value(json!([{ "key": "hard", "operator": "Exists" }])).unwrap();
    let found = |tolerations: &[Toleration], effects: &[&str]| {
        untolerated(&taints, tolerations, effects).map(|it| it.key.clone())
    };
    assert_eq!(found(&[], &["NoSchedule", "NoExecute"]).as_deref(), Some("hard"));
    assert_eq!(found(&hard, &["NoSchedule", "NoExecute"]).as_deref(), Some("out"));
    assert_eq!(found(&hard, &["NoSchedule"]), None);
    assert_eq!(found(&hard, &["PreferNoSchedule"]).as_deref(), Some("soft"));
}
