//! What a daemon set says of its nodes and pods.

use k8s_openapi::api::apps::v1::{DaemonSet, DaemonSetStatus};

use super::eligible::Fit;
use super::plan::View;
use crate::pods::ready_since;

/// The status as it should be. Of several pods on a node the first counts.
pub(super) fn of(set: &DaemonSet, view: &View<'_>) -> DaemonSetStatus {
    let before = set.status.clone().unwrap_or_default();
    let mut status = DaemonSetStatus {
        observed_generation: set.metadata.generation,
        collision_count: before.collision_count,
        conditions: before.conditions,
        ..DaemonSetStatus::default()
    };
    let (mut updated, mut available) = (0, 0);
    for (node, fit) in &view.nodes {
        let first = view.on(node).first();
        if *fit != Fit::Runs {
            status.number_misscheduled += i32::from(first.is_some());
            continue;
        }
        status.desired_number_scheduled += 1;
        let Some(pod) = first else { continue };
        status.current_number_scheduled += 1;
        status.number_ready += i32::from(ready_since(pod).is_some());
        available += i32::from(view.is_available(pod));
        updated += i32::from(view.is_new(pod));
    }
    status.updated_number_scheduled = Some(updated);
    status.number_available = Some(available);
    status.number_unavailable = Some(status.desired_number_scheduled - available);
    status
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::api::core::v1::Pod;
    use k8s_openapi::jiff::Timestamp;
    use serde_json::json;
    use std::sync::Arc;

    const NOW: i64 = 1_000_000;

    fn pod(node: &str, hash: &str, ready_for: Option<i64>) -> Arc<Pod> {
        let since = |seconds: i64| Timestamp::from_second(NOW - seconds).unwrap();
        let conditions =
            ready_for.map(|seconds| json!([{"type": "Ready", "status": "True", "lastTransitionTime": since(seconds)}]));
        let object = json!({
            "metadata": {"name": node, "labels": {"controller-revision-hash": hash}},
            "spec": {"nodeName": node, "containers": []},
            "status": {"phase": "Running", "conditions": conditions},
        });
        Arc::new(serde_json::from_value(object).unwrap())
    }

    #[test]
    fn nodes_are_counted_by_what_they_should_have_and_have() {
        let set: DaemonSet = serde_json::from_value(json!({
            "metadata": {"generation": 3},
            "spec": {"selector": {}, "template": {}, "minReadySeconds": 10},
            "status": {"collisionCount": 1, "currentNumberScheduled": 0, "numberMisscheduled": 0,
                "desiredNumberScheduled": 0, "numberReady": 0},
        }))
        .unwrap();
        let runs = ["a", "b", "c", "d"].map(|node| (node.to_owned(), Fit::Runs));
        let nodes = runs.into_iter().chain([("e".to_owned(), Fit::Stays), ("f".to_owned(), Fit::Refused)]).collect();
        let pods = [
            pod("a", "new", Some(60)),
            pod("b", "old", Some(5)),
            pod("c", "new", None),
            pod("e", "old", Some(60)),
            pod("gone", "old", Some(60)),
        ];
        let view = View::new(&set, nodes, &pods, "new", Timestamp::from_second(NOW).unwrap()).unwrap();
        let expected = json!({"observedGeneration": 3, "collisionCount": 1, "desiredNumberScheduled": 4,
            "currentNumberScheduled": 3, "numberMisscheduled": 1, "numberReady": 2, "numberAvailable": 1,
            "numberUnavailable": 3, "updatedNumberScheduled": 2});
        assert_eq!(json!(of(&set, &view)), expected);
    }
}
