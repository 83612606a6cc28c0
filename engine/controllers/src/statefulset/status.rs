//! What a stateful set says of its pods.

use std::sync::Arc;

use k8s_openapi::api::apps::v1::{StatefulSet, StatefulSetStatus};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::jiff::Timestamp;

use super::identity::{ordinal, revision};
use crate::pods::{is_ending, until_available};

/// The names of the revision before and of the one that is coming.
#[derive(Clone, Copy)]
pub(super) struct Revisions<'a> {
    pub(super) current: &'a str,
    pub(super) update: &'a str,
}

/// The status as it should be.
pub(super) fn of(set: &StatefulSet, pods: &[Arc<Pod>], revisions: Revisions<'_>, now: Timestamp) -> StatefulSetStatus {
    let spec = set.spec.as_ref();
    let min_ready = spec.and_then(|spec| spec.min_ready_seconds).unwrap_or(0);
    let pods: Vec<_> = pods.iter().filter(|pod| ordinal(set, pod).is_some()).collect();
    let sum = |is: &dyn Fn(&Pod) -> bool| count(pods.iter().filter(|pod| is(pod)).count());
    let of_revision = |name: &str| sum(&|pod| !is_ending(pod) && revision(pod) == name);
    let before = set.status.clone().unwrap_or_default();
    let mut status = StatefulSetStatus {
        observed_generation: set.metadata.generation,
        replicas: count(pods.len()),
        ready_replicas: Some(sum(&|pod| until_available(pod, 0, now).is_some())),
        available_replicas: Some(sum(&|pod| until_available(pod, min_ready, now).is_some_and(|left| left.is_zero()))),
        current_replicas: Some(of_revision(revisions.current)),
        updated_replicas: Some(of_revision(revisions.update)),
        current_revision: Some(revisions.current.to_owned()),
        update_revision: Some(revisions.update.to_owned()),
        collision_count: Some(before.collision_count.unwrap_or(0)),
        conditions: before.conditions,
    };
    let wanted = Some(spec.and_then(|spec| spec.replicas).unwrap_or(1));
    let strategy = spec.and_then(|spec| spec.update_strategy.as_ref()?.type_.as_deref());
    let is_complete = status.updated_replicas == wanted && status.ready_replicas == wanted;
    if strategy != Some("OnDelete") && is_complete && Some(status.replicas) == wanted {
        status.current_revision.clone_from(&status.update_revision);
        status.current_replicas = status.updated_replicas;
    }
    status
}

fn count(count: usize) -> i32 {
    i32::try_from(count).unwrap_or(i32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    const NOW: i64 = 1_000_000;

    fn pod(name: &str, revision: &str, ready_for: Option<i64>, ending: bool) -> Arc<Pod> {
        let since = |seconds: i64| Timestamp::from_second(NOW - seconds).unwrap();
        let conditions =
            ready_for.map(|seconds| json!([{"type": "Ready", "status": "True", "lastTransitionTime": since(seconds)}]));
        let object = json!({
            "metadata": {"name": name, "labels": {"controller-revision-hash": revision},
                "deletionTimestamp": ending.then_some("2026-01-01T00:00:00Z")},
            "status": {"phase": "Running", "conditions": conditions},
        });
        Arc::new(serde_json::from_value(object).unwrap())
    }

    fn status(strategy: &str, replicas: i32, pods: &[Arc<Pod>]) -> Value {
        let set: StatefulSet = serde_json::from_value(json!({
            "metadata": {"name": "web", "generation": 7},
            "spec": {"selector": {}, "template": {}, "replicas": replicas, "minReadySeconds": 10,
                "updateStrategy": {"type": strategy}},
            "status": {"replicas": 0, "collisionCount": 2},
        }))
        .unwrap();
        let revisions = Revisions { current: "old", update: "new" };
        json!(of(&set, pods, revisions, Timestamp::from_second(NOW).unwrap()))
    }

    #[test]
    fn pods_are_counted_by_health_and_revision() {
        let pods = [
            pod("web-0", "old", Some(60), false),
            pod("web-1", "new", Some(5), false),
            pod("web-2", "new", None, false),
            pod("web-3", "old", Some(60), true),
            pod("other", "old", Some(60), false),
        ];
        let expected = json!({"observedGeneration": 7, "replicas": 4, "readyReplicas": 3, "availableReplicas": 2,
            "currentReplicas": 1, "updatedReplicas": 2, "currentRevision": "old", "updateRevision": "new",
            "collisionCount": 2});
        assert_eq!(status("RollingUpdate", 3, &pods), expected);
    }

    #[test]
    fn a_complete_update_makes_its_revision_the_current_one() {
        let pods = [pod("web-0", "new", Some(60), false), pod("web-1", "new", Some(5), false)];
        let done = status("RollingUpdate", 2, &pods);
        assert_eq!((&done["currentRevision"], &done["currentReplicas"]), (&json!("new"), &json!(2)));
        assert_eq!(status("OnDelete", 2, &pods)["currentRevision"], "old");
        assert_eq!(status("RollingUpdate", 3, &pods)["currentRevision"], "old", "one is missing");
        let more = [pods[0].clone(), pods[1].clone(), pod("web-2", "old", Some(60), true)];
        assert_eq!(status("RollingUpdate", 2, &more)["currentRevision"], "old", "one is still going");
    }
}
