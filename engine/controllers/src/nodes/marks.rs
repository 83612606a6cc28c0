//! What a node is marked with: conditions that nobody knows any more, and the taints that follow from its conditions. Pure.

use k8s_openapi::api::core::v1::{Node, NodeCondition, Taint};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;

pub(crate) const NOT_READY: &str = "node.kubernetes.io/not-ready";
pub(crate) const UNREACHABLE: &str = "node.kubernetes.io/unreachable";
/// Keeps new pods away.
const NO_SCHEDULE: &str = "NoSchedule";
/// Sends those away that are there.
pub(crate) const NO_EXECUTE: &str = "NoExecute";
const UNSCHEDULABLE: &str = "node.kubernetes.io/unschedulable";

/// The conditions that only the node itself can tell.
const OWN: [&str; 4] = ["Ready", "MemoryPressure", "DiskPressure", "PIDPressure"];

/// Condition, status, and the taint that they mean.
const MEANINGS: [(&str, &str, &str); 6] = [
    ("Ready", "False", NOT_READY),
    ("Ready", "Unknown", UNREACHABLE),
    ("MemoryPressure", "True", "node.kubernetes.io/memory-pressure"),
    ("DiskPressure", "True", "node.kubernetes.io/disk-pressure"),
    ("PIDPressure", "True", "node.kubernetes.io/pid-pressure"),
    ("NetworkUnavailable", "True", "node.kubernetes.io/network-unavailable"),
];

fn conditions(node: &Node) -> &[NodeCondition] {
    node.status.as_ref().and_then(|status| status.conditions.as_deref()).unwrap_or_default()
}

/// The status of one condition; empty where it has none.
pub(crate) fn condition<'a>(node: &'a Node, kind: &str) -> &'a str {
    conditions(node).iter().find(|condition| condition.type_ == kind).map_or("", |condition| &condition.status)
}

/// The taints of a node.
pub(crate) fn taints_of(node: &Node) -> &[Taint] {
    node.spec.as_ref().and_then(|spec| spec.taints.as_deref()).unwrap_or_default()
}

/// The conditions of a node that is silent; none when they say so already.
pub(crate) fn silenced(node: &Node, now: Timestamp) -> Option<Vec<NodeCondition>> {
    let mut after = conditions(node).to_vec();
    for kind in OWN {
        match after.iter_mut().find(|condition| condition.type_ == kind) {
            Some(known) if known.status == "Unknown" => {}
            Some(known) => {
                "Unknown".clone_into(&mut known.status);
                known.reason = Some("NodeStatusUnknown".to_owned());
                known.message = Some("Kubelet stopped posting node status.".to_owned());
                known.last_transition_time = Some(Time(now));
            }
            None => after.push(NodeCondition {
                type_: kind.to_owned(),
                status: "Unknown".to_owned(),
                reason: Some("NodeStatusNeverUpdated".to_owned()),
                message: Some("Kubelet never posted node status.".to_owned()),
                last_heartbeat_time: node.metadata.creation_timestamp.clone(),
                last_transition_time: Some(Time(now)),
            }),
        }
    }
    (after != conditions(node)).then_some(after)
}

/// The taints that a node should have; none when it has them. `evict`: whether pods may be sent away from it.
pub(crate) fn tainted(node: &Node, evict: bool, now: Timestamp) -> Option<Vec<Taint>> {
    let mut wanted: Vec<(&str, &str)> = Vec::new();
    for (kind, status, taint) in MEANINGS {
        if condition(node, kind) == status {
            wanted.push((taint, NO_SCHEDULE));
            if kind == "Ready" && evict {
                wanted.push((taint, NO_EXECUTE));
            }
        }
    }
    if node.spec.as_ref().is_some_and(|spec| spec.unschedulable == Some(true)) {
        wanted.push((UNSCHEDULABLE, NO_SCHEDULE));
    }
    let before = taints_of(node);
    let is = |taint: &Taint, (key, effect): (&str, &str)| taint.key == key && taint.effect == effect;
    let mut after: Vec<Taint> =
        before.iter().filter(|taint| !is_ours(taint) || wanted.iter().any(|one| is(taint, *one))).cloned().collect();
    for one in wanted {
        if !after.iter().any(|taint| is(taint, one)) {
            let (key, effect) = (one.0.to_owned(), one.1.to_owned());
            after.push(Taint { key, effect, value: None, time_added: Some(Time(now)) });
        }
    }
    (after != before).then_some(after)
}

fn is_ours(taint: &Taint) -> bool {
    let of_condition = MEANINGS.iter().any(|(kind, _, key)| {
        *key == taint.key && (taint.effect == NO_SCHEDULE || (taint.effect == NO_EXECUTE && *kind == "Ready"))
    });
    of_condition || (taint.key == UNSCHEDULABLE && taint.effect == NO_SCHEDULE)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn node(conditions: &[(&str, &str)], spec: &Value) -> Node {
        let conditions: Vec<Value> =
            conditions.iter().map(|(kind, status)| json!({"type": kind, "status": status})).collect();
        let object = json!({"metadata": {"name": "a"}, "spec": spec, "status": {"conditions": conditions}});
        serde_json::from_value(object).unwrap()
    }

    fn short(taints: &[Taint]) -> Vec<String> {
        taints.iter().map(|taint| format!("{}:{}", taint.key.rsplit('/').next().unwrap(), taint.effect)).collect()
    }

    #[test]
    fn taints_follow_from_conditions() {
        /// Conditions, the specification, whether it is known, and the taints.
        type Case<'a> = (&'a [(&'a str, &'a str)], Value, bool, &'a [&'a str]);
        let table: [Case<'_>; 8] = [
            (&[("Ready", "True")], json!({}), true, &[]),
            (&[("Ready", "False")], json!({}), true, &["not-ready:NoSchedule", "not-ready:NoExecute"]),
            (&[("Ready", "Unknown")], json!({}), true, &["unreachable:NoSchedule", "unreachable:NoExecute"]),
            (&[("Ready", "Unknown")], json!({}), false, &["unreachable:NoSchedule"]),
            (&[("Ready", "True"), ("MemoryPressure", "True")], json!({}), true, &["memory-pressure:NoSchedule"]),
            (
                &[("DiskPressure", "True"), ("PIDPressure", "True")],
                json!({}),
                true,
                &["disk-pressure:NoSchedule", "pid-pressure:NoSchedule"],
            ),
            (&[("NetworkUnavailable", "True")], json!({}), true, &["network-unavailable:NoSchedule"]),
            (&[("Ready", "True")], json!({"unschedulable": true}), true, &["unschedulable:NoSchedule"]),
        ];
        for (conditions, spec, evict, expected) in table {
            let mut node = node(conditions, &spec);
            let made = tainted(&node, evict, Timestamp::UNIX_EPOCH);
            assert_eq!(short(made.as_deref().unwrap_or_default()), expected, "{conditions:?}");
            if let Some(made) = made {
                node.spec.get_or_insert_default().taints = Some(made);
                assert_eq!(tainted(&node, evict, Timestamp::now()), None, "it is settled: {conditions:?}");
            }
        }
    }

    #[test]
    fn taints_of_others_stay_and_ours_go_when_their_reason_does() {
        let taints = json!([
            {"key": "node.kubernetes.io/unreachable", "effect": "NoExecute"},
            {"key": "node.kubernetes.io/unreachable", "effect": "NoSchedule"},
            {"key": "node.kubernetes.io/unschedulable", "effect": "NoSchedule"},
            {"key": "node.kubernetes.io/disk-pressure", "effect": "NoExecute"},
            {"key": "gpu", "value": "yes", "effect": "NoExecute"},
        ]);
        let node = node(&[("Ready", "True")], &json!({"taints": taints}));
        let left = tainted(&node, true, Timestamp::now()).unwrap();
        assert_eq!(short(&left), ["disk-pressure:NoExecute", "gpu:NoExecute"]);
    }

    #[test]
    fn a_silent_node_is_unknown_in_all_that_only_it_can_tell() {
        let mut node =
            node(&[("Ready", "True"), ("DiskPressure", "False"), ("NetworkUnavailable", "False")], &json!({}));
        let made = silenced(&node, Timestamp::UNIX_EPOCH).unwrap();
        let told: Vec<_> =
            made.iter().map(|one| (one.type_.as_str(), one.status.as_str(), one.reason.as_deref())).collect();
        assert_eq!(
            told,
            [
                ("Ready", "Unknown", Some("NodeStatusUnknown")),
                ("DiskPressure", "Unknown", Some("NodeStatusUnknown")),
                ("NetworkUnavailable", "False", None),
                ("MemoryPressure", "Unknown", Some("NodeStatusNeverUpdated")),
                ("PIDPressure", "Unknown", Some("NodeStatusNeverUpdated")),
            ]
        );
        node.status.get_or_insert_default().conditions = Some(made);
        assert_eq!(silenced(&node, Timestamp::now()), None);
    }
}
