//! The status of a deployment, with the conditions that `kubectl rollout status` and `kubectl wait` look at.

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::apps::v1::{Deployment, DeploymentCondition, DeploymentStatus, ReplicaSet};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use kube::ResourceExt;

use super::{available, replicas};

/// The status as it should be, and when it changes by time alone.
pub(super) fn of(
    deployment: &Deployment,
    current: Option<&ReplicaSet>,
    owned: &[Arc<ReplicaSet>],
    now: Timestamp,
) -> (DeploymentStatus, Option<Duration>) {
    let before = deployment.status.clone().unwrap_or_default();
    let sum = |count: fn(&ReplicaSet) -> i32| owned.iter().map(|set| count(set)).sum::<i32>();
    let pods = |set: &ReplicaSet| set.status.as_ref().map_or(0, |status| status.replicas);
    let total = sum(|set| set.status.as_ref().map_or(0, |status| status.replicas));
    let all_available = sum(available);
    let wanted = sum(replicas);
    let mut status = DeploymentStatus {
        observed_generation: deployment.metadata.generation,
        replicas: Some(total),
        updated_replicas: Some(current.map_or(0, pods)),
        ready_replicas: Some(sum(|set| set.status.as_ref().and_then(|status| status.ready_replicas).unwrap_or(0))),
        available_replicas: Some(all_available),
        unavailable_replicas: Some((wanted - all_available).max(0)),
        ..before.clone()
    };
    let (progressing, again) = progressing(deployment, current, &before, &status, now);
    let available = availability(deployment, all_available);
    status.conditions =
        Some([available, progressing].map(|wanted| keep_times(wanted, before.conditions.as_deref(), now)).into());
    (status, again)
}

fn availability(deployment: &Deployment, available: i32) -> DeploymentCondition {
    let spec = deployment.spec.as_ref();
    let wanted = spec.and_then(|spec| spec.replicas).unwrap_or(1);
    let rolling = spec.and_then(|spec| spec.strategy.as_ref()?.rolling_update.as_ref()?.max_unavailable.clone());
    let allowed = match rolling {
        Some(k8s_openapi::apimachinery::pkg::util::intstr::IntOrString::Int(count)) => count,
        Some(k8s_openapi::apimachinery::pkg::util::intstr::IntOrString::String(text)) => {
            wanted * text.trim_end_matches('%').parse().unwrap_or(0) / 100
        }
        None => 0,
    };
    let enough = available >= wanted - allowed;
    let (reason, message) = if enough {
        ("MinimumReplicasAvailable", "Deployment has minimum availability.")
    } else {
        ("MinimumReplicasUnavailable", "Deployment does not have minimum availability.")
    };
    condition("Available", enough, reason, message.to_owned())
}

/// Whether the rollout is done, goes on, or has stood still for longer than its deadline.
fn progressing(
    deployment: &Deployment,
    current: Option<&ReplicaSet>,
    before: &DeploymentStatus,
    status: &DeploymentStatus,
    now: Timestamp,
) -> (DeploymentCondition, Option<Duration>) {
    let spec = deployment.spec.as_ref();
    let wanted = spec.and_then(|spec| spec.replicas).unwrap_or(1);
    let name = current.map(ResourceExt::name_any).unwrap_or_default();
    let is_done = status.updated_replicas == Some(wanted)
        && status.replicas == Some(wanted)
        && status.available_replicas.is_some_and(|available| available >= wanted);
    if is_done {
        let message = format!("ReplicaSet \"{name}\" has successfully progressed.");
        return (condition("Progressing", true, "NewReplicaSetAvailable", message), None);
    }
    let known = before.conditions.iter().flatten().find(|condition| condition.type_ == "Progressing");
    let moved = counts(before) != counts(status);
    let was_done = known.is_none_or(|known| known.reason.as_deref() == Some("NewReplicaSetAvailable"));
    let since = known.and_then(|known| known.last_update_time.as_ref()).map(|time| time.0);
    let deadline = spec.and_then(|spec| spec.progress_deadline_seconds).unwrap_or(600);
    let due = since.and_then(|since| since.checked_add(SignedDuration::from_secs(deadline.into())).ok());
    let updating = format!("ReplicaSet \"{name}\" is progressing.");
    match due {
        Some(due) if !moved && !was_done && due <= now => {
            let message = format!("ReplicaSet \"{name}\" has timed out progressing.");
            (condition("Progressing", false, "ProgressDeadlineExceeded", message), None)
        }
        Some(due) if !moved && !was_done => {
            let left = Duration::try_from(due.duration_since(now)).unwrap_or_default();
            (condition("Progressing", true, "ReplicaSetUpdated", updating), Some(left))
        }
        _ => {
            let mut fresh = condition("Progressing", true, "ReplicaSetUpdated", updating);
            fresh.last_update_time = Some(Time(now));
            (fresh, Some(Duration::from_secs(u64::try_from(deadline).unwrap_or(600))))
        }
    }
}

fn counts(status: &DeploymentStatus) -> [i32; 4] {
    [status.replicas, status.updated_replicas, status.ready_replicas, status.available_replicas]
        .map(|count| count.unwrap_or(0))
}

fn condition(type_: &str, holds: bool, reason: &str, message: String) -> DeploymentCondition {
    DeploymentCondition {
        type_: type_.to_owned(),
        status: if holds { "True" } else { "False" }.to_owned(),
        reason: Some(reason.to_owned()),
        message: Some(message),
        last_transition_time: None,
        last_update_time: None,
    }
}

/// Keeps the times of a condition that says what it said before.
fn keep_times(
    mut wanted: DeploymentCondition,
    before: Option<&[DeploymentCondition]>,
    now: Timestamp,
) -> DeploymentCondition {
    let known = before.into_iter().flatten().find(|condition| condition.type_ == wanted.type_);
    let same = |known: &&DeploymentCondition| known.reason == wanted.reason && known.message == wanted.message;
    let transition = known.filter(|known| known.status == wanted.status).and_then(|it| it.last_transition_time.clone());
    let update = known.filter(same).and_then(|known| known.last_update_time.clone());
    wanted.last_update_time = wanted.last_update_time.or(update).or(Some(Time(now)));
    wanted.last_transition_time = transition.or(Some(Time(now)));
    wanted
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn deployment(status: &DeploymentStatus) -> Deployment {
        serde_json::from_value(json!({
            "metadata": { "generation": 2 },
            "spec": { "replicas": 2, "selector": {}, "template": {}, "progressDeadlineSeconds": 60 },
            "status": status,
        }))
        .unwrap()
    }

    fn set(pods: i32, available: i32) -> Arc<ReplicaSet> {
        let status = json!({ "replicas": pods, "readyReplicas": available, "availableReplicas": available });
        let object =
            json!({ "metadata": { "name": "r" }, "spec": { "replicas": 2, "selector": {} }, "status": status });
        Arc::new(serde_json::from_value(object).unwrap())
    }

    fn reason(status: &DeploymentStatus, type_: &str) -> String {
        let condition = status.conditions.iter().flatten().find(|condition| condition.type_ == type_).unwrap();
        format!("{} {}", condition.status, condition.reason.as_deref().unwrap())
    }

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_000_000 + second).unwrap()
    }

    #[test]
    fn a_rollout_progresses_ends_and_then_rests() {
        let sets = [set(2, 0)];
        let (first, again) = of(&deployment(&DeploymentStatus::default()), Some(&sets[0]), &sets, at(0));
        assert_eq!(reason(&first, "Progressing"), "True ReplicaSetUpdated");
        assert_eq!(reason(&first, "Available"), "False MinimumReplicasUnavailable");
        assert_eq!(again, Some(Duration::from_mins(1)));
        let sets = [set(2, 2)];
        let (done, again) = of(&deployment(&first), Some(&sets[0]), &sets, at(5));
        assert_eq!(reason(&done, "Progressing"), "True NewReplicaSetAvailable");
        assert_eq!((reason(&done, "Available").as_str(), again), ("True MinimumReplicasAvailable", None));
        let (rest, _) = of(&deployment(&done), Some(&sets[0]), &sets, at(500));
        assert_eq!(rest, done, "nothing changes, so nothing is written");
    }

    #[test]
    fn a_rollout_that_stands_still_exceeds_its_deadline() {
        let sets = [set(2, 1)];
        let (first, _) = of(&deployment(&DeploymentStatus::default()), Some(&sets[0]), &sets, at(0));
        let (still, again) = of(&deployment(&first), Some(&sets[0]), &sets, at(20));
        assert_eq!(
            (reason(&still, "Progressing").as_str(), again),
            ("True ReplicaSetUpdated", Some(Duration::from_secs(40)))
        );
        let (late, _) = of(&deployment(&still), Some(&sets[0]), &sets, at(60));
        assert_eq!(reason(&late, "Progressing"), "False ProgressDeadlineExceeded");
    }
}
