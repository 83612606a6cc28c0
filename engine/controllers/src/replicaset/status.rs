//! The status of a replica set.

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::apps::v1::{ReplicaSetCondition, ReplicaSetStatus};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use kube::{Resource, ResourceExt};

use super::kinds::Replicated;
use crate::pods::ready_since;

/// The condition that tells of pods that cannot be made or deleted.
const FAILURE: &str = "ReplicaFailure";

/// What could not be done, and why.
pub(super) struct Failure<'a> {
    pub(super) failed: &'a str,
    pub(super) message: String,
}

/// The status as it should be, and when it changes by time alone. `ending` pods are not among `pods`.
pub(super) fn of<K: Replicated>(
    set: &K,
    pods: &[Arc<Pod>],
    ending: usize,
    failure: Option<Failure<'_>>,
    now: Timestamp,
) -> (ReplicaSetStatus, Option<Duration>) {
    let asked = set.asked();
    let template = asked.as_ref().and_then(|asked| asked.template?.metadata.as_ref()?.labels.as_ref());
    let fully_labeled =
        |pod: &&Arc<Pod>| template.into_iter().flatten().all(|(key, value)| pod.labels().get(key) == Some(value));
    let min_ready = asked.as_ref().map_or(0, |asked| asked.min_ready);
    let (available, again) = available(pods, min_ready, now);
    let before = set.status();
    let status = ReplicaSetStatus {
        replicas: count(pods.len()),
        fully_labeled_replicas: Some(count(pods.iter().filter(fully_labeled).count())),
        ready_replicas: Some(count(pods.iter().filter(|pod| ready_since(pod).is_some()).count())),
        available_replicas: Some(available),
        terminating_replicas: K::counts_ending().then(|| count(ending)),
        observed_generation: set.meta().generation,
        conditions: conditions(before.conditions, failure, now),
    };
    (status, again)
}

/// How many pods have been ready for long enough, and when the next one has.
pub(crate) fn available(pods: &[Arc<Pod>], min_ready: i32, now: Timestamp) -> (i32, Option<Duration>) {
    let mut again = None;
    let mut available = 0;
    for since in pods.iter().filter_map(|pod| ready_since(pod)) {
        let left = since.saturating_add(SignedDuration::from_secs(min_ready.into())).unwrap_or(now).duration_since(now);
        match Duration::try_from(left) {
            Ok(left) if !left.is_zero() => again = Some(again.map_or(left, |again: Duration| again.min(left))),
            _ => available += 1,
        }
    }
    (available, again)
}

fn conditions(
    before: Option<Vec<ReplicaSetCondition>>,
    failure: Option<Failure<'_>>,
    now: Timestamp,
) -> Option<Vec<ReplicaSetCondition>> {
    let (known, mut others): (Vec<_>, Vec<_>) =
        before.unwrap_or_default().into_iter().partition(|one| one.type_ == FAILURE);
    if let Some(Failure { failed, message }) = failure {
        let same = known.into_iter().find(|known| known.reason.as_deref() == Some(failed));
        others.push(same.unwrap_or_else(|| ReplicaSetCondition {
            type_: FAILURE.to_owned(),
            status: "True".to_owned(),
            reason: Some(failed.to_owned()),
            message: Some(message),
            last_transition_time: Some(Time(now)),
        }));
    }
    (!others.is_empty()).then_some(others)
}

fn count(count: usize) -> i32 {
    i32::try_from(count).unwrap_or(i32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::api::apps::v1::ReplicaSet;
    use serde_json::json;

    fn pod(ready: Option<&str>) -> Arc<Pod> {
        let conditions = ready.map(|since| json!([{"type": "Ready", "status": "True", "lastTransitionTime": since}]));
        let object = json!({"metadata": {"name": "p", "labels": {"a": "b"}}, "status": {"conditions": conditions}});
        Arc::new(serde_json::from_value(object).unwrap())
    }

    fn set(min_ready: i32, status: &ReplicaSetStatus) -> ReplicaSet {
        serde_json::from_value(json!({
            "metadata": {"generation": 4},
            "spec": {"selector": {}, "minReadySeconds": min_ready, "template": {"metadata": {"labels": {"a": "b"}}}},
            "status": status,
        }))
        .unwrap()
    }

    #[test]
    fn a_pod_is_available_once_it_was_ready_long_enough() {
        let pods = [pod(Some("2026-01-01T00:00:00Z")), pod(None)];
        let now = "2026-01-01T00:00:04Z".parse().unwrap();
        let none = ReplicaSetStatus::default();
        let (early, again) = of(&set(10, &none), &pods, 1, None, now);
        assert_eq!((early.ready_replicas, early.available_replicas), (Some(1), Some(0)));
        assert_eq!((again, early.terminating_replicas), (Some(Duration::from_secs(6)), Some(1)));
        let (late, again) = of(&set(4, &none), &pods, 0, None, now);
        assert_eq!((late.available_replicas, again), (Some(1), None));
        assert_eq!((late.replicas, late.fully_labeled_replicas, late.observed_generation), (2, Some(2), Some(4)));
    }

    #[test]
    fn a_failure_is_told_until_it_is_over() {
        let failure = |message: &str| Some(Failure { failed: "FailedCreate", message: message.to_owned() });
        let (at, later) = (Timestamp::from_second(10).unwrap(), Timestamp::from_second(20).unwrap());
        let (first, _) = of(&set(0, &ReplicaSetStatus::default()), &[], 0, failure("no"), at);
        let told = first.conditions.clone().unwrap();
        assert_eq!((told[0].type_.as_str(), told[0].message.as_deref()), ("ReplicaFailure", Some("no")));
        let (second, _) = of(&set(0, &first), &[], 0, failure("no"), later);
        assert_eq!(second, first, "nothing new, so nothing is written");
        let (over, _) = of(&set(0, &first), &[], 0, None, later);
        assert_eq!(over.conditions, None);
    }
}
