//! Who leaves for whom, and what is said when that would not help.

use k8s_openapi::api::policy::v1::PodDisruptionBudget;

use super::*;
use crate::{Preemption, is_out_of_question, preempt};

fn sized(name: &str, priority: i32, cpu: &str) -> Arc<Wanted> {
    pod(name, over(asking(json!({ "cpu": cpu })), &json!({ "spec": { "priority": priority } })))
}

fn since(name: &str, hour: u8) -> Arc<Wanted> {
    let started = json!({ "status": { "startTime": format!("2026-01-01T{hour:02}:00:00Z") } });
    pod(name, over(asking(json!({ "cpu": "4" })), &started))
}

fn budget(app: &str, allowed: i32) -> PodDisruptionBudget {
    serde_json::from_value(json!({
        "metadata": { "name": app, "namespace": "default" },
        "spec": { "selector": { "matchLabels": { "app": app } } },
        "status": { "disruptionsAllowed": allowed, "currentHealthy": 1, "desiredHealthy": 1, "expectedPods": 1 },
    }))
    .unwrap()
}

fn leave(
    cluster: &mut Cluster,
    pod: &Arc<Wanted>,
    budgets: &[PodDisruptionBudget],
) -> Result<(String, Vec<String>), String> {
    let found = preempt(pod, &mut cluster.snapshot, &cluster.volumes, budgets);
    let names = |found: Preemption| (found.node, found.victims.iter().map(|victim| victim.key().1).collect());
    found.map(names).map_err(|unfit| unfit.to_string())
}

fn nodes(names: &[&str]) -> Cluster {
    Cluster::of(names.iter().map(|name| node(name, json!({}))))
}

#[test]
fn as_few_leave_as_possible_the_least_important_first() {
    let there = [sized("a", 1, "1"), sized("b", 2, "1"), sized("c", 3, "2")];
    let mut cluster = nodes(&["n"]).with("n", there);
    let cases: [(&str, &[&str]); 4] = [("1", &["a"]), ("2", &["b", "a"]), ("3", &["c", "a"]), ("4", &["c", "b", "a"])];
    for (cpu, expected) in cases {
        let (_, victims) = leave(&mut cluster, &sized("p", 10, cpu), &[]).unwrap();
        assert_eq!(victims, expected, "{cpu}");
        assert_eq!(cluster.snapshot.node(0).pods().len(), 3, "nothing is changed by asking");
    }
}

#[test]
fn nobody_leaves_for_an_equal() {
    let mut cluster = nodes(&["n"]).with("n", [sized("a", 10, "4")]);
    let words = "0/1 nodes are available: 1 No preemption victims found for incoming pod.";
    assert_eq!(leave(&mut cluster, &sized("p", 10, "1"), &[]).unwrap_err(), words);
    assert!(leave(&mut cluster, &sized("p", 11, "1"), &[]).is_ok());
}

#[test]
fn it_is_said_where_it_would_not_help() {
    let tainted = node("t", json!({ "spec": { "taints": [{ "key": "k", "effect": "NoSchedule" }] } }));
    let mut cluster =
        Cluster::of([tainted, node("n", json!({}))]).with("n", [sized("a", 20, "3"), sized("b", 0, "500m")]);
    let words = "0/2 nodes are available: 1 Insufficient cpu, 1 Preemption is not helpful for scheduling.";
    assert_eq!(leave(&mut cluster, &sized("p", 10, "2"), &[]).unwrap_err(), words);
    let words = "0/2 nodes are available: 2 Preemption is not helpful for scheduling.";
    assert_eq!(leave(&mut cluster, &sized("p", 10, "5"), &[]).unwrap_err(), words, "larger than any node");
}

#[test]
fn the_node_is_chosen_where_it_hurts_the_least() {
    let cases = [
        ("lower priority", vec![sized("a", 5, "4")], vec![sized("b", 1, "4")], "y"),
        ("fewer", vec![sized("a", 1, "4")], vec![sized("b", 1, "2"), sized("c", 1, "2")], "x"),
        (
            "a smaller sum",
            vec![sized("a", 5, "2"), sized("b", 5, "2")],
            vec![sized("c", 5, "2"), sized("d", 1, "2")],
            "y",
        ),
        ("who began lately", vec![since("a", 1)], vec![since("b", 5)], "y"),
    ];
    for (what, on_x, on_y, expected) in cases {
        let mut cluster = nodes(&["x", "y"]).with("x", on_x).with("y", on_y);
        assert_eq!(leave(&mut cluster, &sized("p", 10, "4"), &[]).unwrap().0, expected, "{what}");
    }
}

#[test]
fn budgets_are_respected_while_there_is_another_way() {
    let labelled = |name: &str, app: &str, priority: i32| {
        let labels = json!({ "metadata": { "labels": { "app": app } } });
        pod(name, over(over(asking(json!({ "cpu": "2" })), &labels), &json!({ "spec": { "priority": priority } })))
    };
    let there = || [labelled("kept", "kept", 1), labelled("free", "free", 5)];
    let mut cluster = nodes(&["n"]).with("n", there());
    let asked = sized("p", 10, "2");
    assert_eq!(leave(&mut cluster, &asked, &[]).unwrap().1, ["kept"], "the less important");
    assert_eq!(leave(&mut cluster, &asked, &[budget("kept", 0)]).unwrap().1, ["free"], "but not against its budget");
    assert_eq!(leave(&mut cluster, &asked, &[budget("kept", 1)]).unwrap().1, ["kept"], "which may allow it");
    let all = sized("p", 10, "4");
    assert_eq!(leave(&mut cluster, &all, &[budget("kept", 0)]).unwrap().1.len(), 2, "in the end it comes last");
    let mut cluster =
        nodes(&["x", "y"]).with("x", [labelled("kept", "kept", 1)]).with("y", [labelled("free", "free", 5)]);
    let full = sized("p", 10, "3");
    assert_eq!(leave(&mut cluster, &full, &[budget("kept", 0)]).unwrap().0, "y");
}

#[test]
fn anti_affinity_and_ports_can_be_cleared_too() {
    let term =
        json!([{ "topologyKey": "kubernetes.io/hostname", "labelSelector": { "matchLabels": { "app": "web" } } }]);
    let alone = json!({ "spec": { "priority": 10, "affinity": { "podAntiAffinity":
        { "requiredDuringSchedulingIgnoredDuringExecution": term } } } });
    let mut cluster =
        nodes(&["n"]).with("n", [pod("a", json!({})), pod("b", json!({ "metadata": { "labels": { "app": "x" } } }))]);
    assert_eq!(leave(&mut cluster, &pod("p", alone), &[]).unwrap().1, ["a"]);
    let port = |priority: i32| json!({ "spec": { "priority": priority, "containers": [{ "name": "c", "ports": [{ "containerPort": 80, "hostPort": 80 }] }] } });
    let mut cluster = nodes(&["n"]).with("n", [pod("a", port(0)), pod("b", json!({}))]);
    assert_eq!(leave(&mut cluster, &pod("p", port(10)), &[]).unwrap().1, ["a"]);
}

#[test]
fn some_pods_do_not_ask_others_to_leave() {
    let cluster = nodes(&["n"]);
    let polite = pod("p", json!({ "spec": { "priority": 10, "preemptionPolicy": "Never" } }));
    assert_eq!(is_out_of_question(&polite, &cluster.snapshot), Some("not eligible due to preemptionPolicy=Never."));
    let leaving = pod("a", json!({ "metadata": { "deletionTimestamp": "2026-01-01T00:00:00Z" } }));
    let cluster = cluster.with("n", [leaving]);
    let waiting = pod("p", json!({ "spec": { "priority": 10 }, "status": { "nominatedNodeName": "n" } }));
    let words = "not eligible due to a terminating pod on the nominated node.";
    assert_eq!(is_out_of_question(&waiting, &cluster.snapshot), Some(words));
    assert_eq!(is_out_of_question(&pod("q", json!({ "spec": { "priority": 10 } })), &cluster.snapshot), None);
}

#[test]
fn room_that_was_made_is_kept_for_whom_it_was_made() {
    let mut cluster = nodes(&["n"]);
    let waiting = sized("waiting", 10, "3");
    cluster.snapshot.nominate(&waiting, Some("n"));
    assert!(cluster.choose(&sized("small", 0, "1")).is_ok());
    assert_eq!(cluster.choose(&sized("large", 0, "2")), told("Insufficient cpu"));
    assert!(cluster.choose(&sized("higher", 20, "2")).is_ok(), "who is more important need not care");
    assert!(cluster.choose(&waiting).is_ok());
    cluster.snapshot.nominate(&waiting, None);
    assert!(cluster.choose(&sized("large", 0, "2")).is_ok());
}

#[test]
fn whoever_room_was_made_for_counts_as_there_for_rules_about_other_pods() {
    let topology = "kubernetes.io/hostname";
    let term = |app: &str| json!([{ "topologyKey": topology, "labelSelector": { "matchLabels": { "app": app } } }]);
    let rule = |kind: &str, app: &str| json!({ "spec": { "affinity": { kind: { "requiredDuringSchedulingIgnoredDuringExecution": term(app) } } } });
    let called = |name: &str, app: &str, more: Value| {
        let labels = json!({ "metadata": { "labels": { "app": app } }, "spec": { "priority": 5 } });
        pod(name, over(labels, &more))
    };
    let avoids = called("avoids", "a", rule("podAntiAffinity", "b"));
    let mut cluster = nodes(&["n", "m"]);
    cluster.snapshot.nominate(&avoids, Some("n"));
    assert_eq!(cluster.choose(&called("b", "b", json!({}))).unwrap(), "m", "whom it avoids stays away");
    assert_eq!(
        cluster.choose(&called("b", "b", rule("podAntiAffinity", "a"))).unwrap(),
        "m",
        "who avoids it goes elsewhere"
    );
    let spread = json!({ "spec": { "topologySpreadConstraints": [{ "maxSkew": 1, "topologyKey": topology,
        "whenUnsatisfiable": "DoNotSchedule", "labelSelector": { "matchLabels": { "app": "a" } } }] } });
    let mut full = nodes(&["n", "m"]).with("m", [sized("there", 20, "4")]);
    full.snapshot.nominate(&avoids, Some("n"));
    let words = "0/2 nodes are available: 1 Insufficient cpu, 1 node(s) didn't match pod topology spread constraints.";
    let wants = over(asking(json!({ "cpu": "1" })), &spread);
    assert_eq!(full.choose(&called("c", "a", wants)).unwrap_err(), words);
    // It is not there yet: nobody may count on it.
    let mut alone = nodes(&["n"]);
    alone.snapshot.nominate(&avoids, Some("n"));
    let words = "node(s) didn't match pod affinity rules";
    assert_eq!(alone.choose(&called("d", "d", rule("podAffinity", "a"))), told(words));
    let above = called("e", "b", json!({ "spec": { "priority": 6 } }));
    assert_eq!(alone.choose(&above).unwrap(), "n", "who is more important need not care");
    assert_eq!(alone.snapshot.nominated_to(&avoids.key()), Some("n"), "asking changes nothing");
    assert!(alone.snapshot.placed(&avoids.key()).is_none());
}

#[test]
fn the_node_that_was_cleared_is_taken_first() {
    let mut cluster = nodes(&["a", "b"]).with("b", [sized("there", 0, "1")]);
    let nominated = json!({ "status": { "nominatedNodeName": "b" } });
    assert_eq!(cluster.choose(&pod("p", nominated)).unwrap(), "b");
    let full = json!({ "spec": asking(json!({ "cpu": "4" }))["spec"], "status": { "nominatedNodeName": "b" } });
    assert_eq!(cluster.choose(&pod("p", full)).unwrap(), "a", "unless it does not fit there after all");
}
