//! Which pods go first when there are too many.

use std::cmp::Reverse;
use std::collections::HashMap;

use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt;

use crate::pods::ready_since;

/// What tells pods apart; the lowest goes first.
pub(crate) type Rank =
    (bool, u8, bool, i64, Reverse<usize>, Reverse<Option<Timestamp>>, Reverse<i32>, Reverse<Option<Timestamp>>);

/// Unassigned, not yet running, not ready, cheaper to delete, with more company on its node, ready for a shorter time,
/// restarted more often, younger: in this order. `crowd` says how many pods each node has of the same owner.
pub(crate) fn of(pod: &Pod, crowd: &HashMap<String, usize>) -> Rank {
    let status = pod.status.as_ref();
    let node = pod.spec.as_ref().and_then(|spec| spec.node_name.as_ref());
    let phase = match status.and_then(|status| status.phase.as_deref()) {
        Some("Running") => 2,
        Some("Unknown") => 1,
        _ => 0,
    };
    let cost = pod.annotations().get("controller.kubernetes.io/pod-deletion-cost");
    let cost = cost.and_then(|cost| cost.parse().ok()).unwrap_or(0);
    let company = node.and_then(|node| crowd.get(node)).copied().unwrap_or(0);
    let statuses = status.and_then(|status| status.container_statuses.as_ref());
    let restarts = statuses.into_iter().flatten().map(|status| status.restart_count).max().unwrap_or(0);
    let created = pod.metadata.creation_timestamp.as_ref().map(|time| time.0);
    let ready = ready_since(pod);
    let tail = (Reverse(company), Reverse(ready), Reverse(restarts), Reverse(created));
    (node.is_some(), phase, ready.is_some(), cost, tail.0, tail.1, tail.2, tail.3)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn pod(name: &str, more: &Value) -> Pod {
        let ready = |since: &Value| json!([{"type": "Ready", "status": "True", "lastTransitionTime": since}]);
        let conditions = more.get("ready").map(ready);
        let restarts = more.get("restarts").cloned().unwrap_or(json!(0));
        let container = json!({"name": "c", "image": "", "imageID": "", "ready": true, "restartCount": restarts});
        let costs = more.get("cost").map(|cost| json!({"controller.kubernetes.io/pod-deletion-cost": cost}));
        let created = more.get("created").cloned().unwrap_or(json!("2026-01-01T00:00:00Z"));
        let object = json!({
            "metadata": {"name": name, "annotations": costs, "creationTimestamp": created},
            "spec": {"nodeName": more.get("node"), "containers": []},
            "status": {"phase": more.get("phase").cloned().unwrap_or(json!("Running")), "conditions": conditions,
                "containerStatuses": [container]},
        });
        serde_json::from_value(object).unwrap()
    }

    #[test]
    fn what_serves_least_is_deleted_first() {
        let crowd = HashMap::from([("full".to_owned(), 3), ("n".to_owned(), 1)]);
        let early = "2026-01-01T00:00:00Z";
        let late = "2026-01-02T00:00:00Z";
        // Each pair: who goes, who stays.
        let table = [
            (json!({}), json!({"node": "n"})),
            (json!({"node": "n", "phase": "Pending"}), json!({"node": "n", "phase": "Unknown"})),
            (json!({"node": "n", "phase": "Unknown"}), json!({"node": "n"})),
            (json!({"node": "n"}), json!({"node": "n", "ready": early})),
            (json!({"node": "n", "ready": early, "cost": "-5"}), json!({"node": "full", "ready": late})),
            (json!({"node": "full", "ready": early}), json!({"node": "n", "ready": late})),
            (json!({"node": "n", "ready": late}), json!({"node": "n", "ready": early})),
            (json!({"node": "n", "ready": early, "restarts": 2}), json!({"node": "n", "ready": early})),
            (json!({"node": "n", "created": late}), json!({"node": "n"})),
        ];
        for (goes, stays) in table {
            assert!(of(&pod("a", &goes), &crowd) < of(&pod("b", &stays), &crowd), "{goes} before {stays}");
        }
    }
}
