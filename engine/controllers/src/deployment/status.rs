//! The status of a deployment, with the conditions that `kubectl rollout status` and `kubectl wait` look at.

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::apps::v1::{Deployment, DeploymentCondition, DeploymentStatus, ReplicaSet};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use kube::ResourceExt;

use super::plan::{self, Bounds};
use super::{available, is_paused, replicas};

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
    let all_available = sum(available);
    let ending: Option<i32> = owned.iter().map(|set| set.status.as_ref()?.terminating_replicas).sum();
    let mut status = DeploymentStatus {
        observed_generation: deployment.metadata.generation,
        replicas: Some(sum(pods)),
        updated_replicas: Some(current.map_or(0, pods)),
        ready_replicas: Some(sum(|set| set.status.as_ref().and_then(|status| status.ready_replicas).unwrap_or(0))),
        available_replicas: Some(all_available),
        unavailable_replicas: Some((sum(replicas) - all_available).max(0)),
        terminating_replicas: ending,
        ..before.clone()
    };
    let (progressing, again) = progressing(deployment, current, &before, &status, now);
    let said = [Some(availability(deployment, all_available)), progressing, failure(current, owned)];
    let known = before.conditions.as_deref();
    status.conditions = Some(said.into_iter().flatten().map(|wanted| keep_times(wanted, known, now)).collect());
    (status, again)
}

fn availability(deployment: &Deployment, available: i32) -> DeploymentCondition {
    let wanted = plan::wanted(deployment);
    let enough = available >= wanted - Bounds::of(deployment, wanted).unavailable;
    let (reason, message) = if enough {
        ("MinimumReplicasAvailable", "Deployment has minimum availability.")
    } else {
        ("MinimumReplicasUnavailable", "Deployment does not have minimum availability.")
    };
    condition("Available", enough, reason, message.to_owned())
}

/// What a replica set tells of pods that it cannot make; that of the current revision comes first.
fn failure(current: Option<&ReplicaSet>, owned: &[Arc<ReplicaSet>]) -> Option<DeploymentCondition> {
    let sets = current.into_iter().chain(owned.iter().map(|set| &**set));
    let mut told = sets.flat_map(|set| set.status.iter().flat_map(|status| status.conditions.iter().flatten()));
    let told = told.find(|told| told.type_ == "ReplicaFailure" && told.status == "True")?;
    let (reason, message) = (told.reason.clone().unwrap_or_default(), told.message.clone().unwrap_or_default());
    Some(condition("ReplicaFailure", true, &reason, message))
}

/// Whether the rollout is done, goes on, rests, or has stood still for longer than its deadline. Nothing is said of a
/// deployment that has no deadline.
fn progressing(
    deployment: &Deployment,
    current: Option<&ReplicaSet>,
    before: &DeploymentStatus,
    status: &DeploymentStatus,
    now: Timestamp,
) -> (Option<DeploymentCondition>, Option<Duration>) {
    let deadline = deployment.spec.as_ref().and_then(|spec| spec.progress_deadline_seconds);
    let Some(deadline) = deadline.filter(|deadline| *deadline != i32::MAX) else { return (None, None) };
    let deadline = SignedDuration::from_secs(deadline.into());
    let known = before.conditions.iter().flatten().find(|condition| condition.type_ == "Progressing");
    let reason = known.and_then(|known| known.reason.as_deref()).unwrap_or("");
    let news = is_paused(deployment)
        .then(|| condition_of("Unknown", "DeploymentPaused", "Deployment is paused".to_owned()))
        .or_else(|| current.and_then(|current| turn(deployment, current, known, before, status)));
    let fresh = |mut condition: DeploymentCondition| {
        condition.last_update_time = Some(Time(now));
        let ends = matches!(condition.reason.as_deref(), Some("NewReplicaSetAvailable" | "DeploymentPaused"));
        (Some(condition), Duration::try_from(deadline).ok().filter(|_| !ends))
    };
    match (news, known) {
        (Some(news), _) if news.reason.as_deref() == Some("ReplicaSetUpdated") => fresh(news),
        (Some(news), _) if news.reason.as_deref() == Some(reason) => (Some(news), None),
        (Some(news), _) => fresh(news),
        (None, Some(known)) if matches!(reason, "NewReplicaSetAvailable" | "ProgressDeadlineExceeded") => {
            (Some(known.clone()), None)
        }
        (None, known) => {
            let since = known.and_then(|known| known.last_update_time.as_ref()).map_or(now, |time| time.0);
            let left = since.saturating_add(deadline).unwrap_or(now).duration_since(now);
            match Duration::try_from(left) {
                Ok(left) if !left.is_zero() => (known.cloned(), Some(left)),
                _ => {
                    let message = format!("{} has timed out progressing.", named(current));
                    (Some(condition("Progressing", false, "ProgressDeadlineExceeded", message)), None)
                }
            }
        }
    }
}

/// What is new about a rollout: it begins, goes on after a pause, has moved or is done.
fn turn(
    deployment: &Deployment,
    current: &ReplicaSet,
    known: Option<&DeploymentCondition>,
    before: &DeploymentStatus,
    status: &DeploymentStatus,
) -> Option<DeploymentCondition> {
    let name = named(Some(current));
    let going = |reason, message| Some(condition("Progressing", true, reason, message));
    let wanted = Some(plan::wanted(deployment));
    let is_done = status.updated_replicas == wanted && status.replicas == wanted && status.available_replicas >= wanted;
    if is_done {
        return going("NewReplicaSetAvailable", format!("{name} has successfully progressed."));
    }
    let (reason, message) =
        known.map_or(("", ""), |known| (known.reason.as_deref().unwrap_or(""), known.message.as_deref().unwrap_or("")));
    if reason == "DeploymentPaused" {
        return Some(condition_of("Unknown", "DeploymentResumed", "Deployment is resumed".to_owned()));
    }
    let of_another = message.contains('"') && !message.contains(&format!("{:?}", current.name_any()));
    if known.is_none() || of_another {
        return going("NewReplicaSetCreated", format!("Created new replica set {:?}", current.name_any()));
    }
    // What was rolled out once stays so, whatever becomes of its pods.
    let is_over = reason == "NewReplicaSetAvailable" && status.replicas == status.updated_replicas;
    let moved = !is_over && has_moved(before, status);
    moved.then(|| condition("Progressing", true, "ReplicaSetUpdated", format!("{name} is progressing.")))
}

/// Whether there are more new pods, fewer old ones, or more that work.
fn has_moved(before: &DeploymentStatus, status: &DeploymentStatus) -> bool {
    let number = |count: Option<i32>| count.unwrap_or(0);
    let old = |status: &DeploymentStatus| number(status.replicas) - number(status.updated_replicas);
    number(status.updated_replicas) > number(before.updated_replicas)
        || old(status) < old(before)
        || number(status.ready_replicas) > number(before.ready_replicas)
        || number(status.available_replicas) > number(before.available_replicas)
}

fn named(set: Option<&ReplicaSet>) -> String {
    format!("ReplicaSet {:?}", set.map(ResourceExt::name_any).unwrap_or_default())
}

fn condition_of(status: &str, reason: &str, message: String) -> DeploymentCondition {
    DeploymentCondition { status: status.to_owned(), ..condition("Progressing", false, reason, message) }
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
        assert_eq!(reason(&first, "Progressing"), "True NewReplicaSetCreated");
        assert_eq!(reason(&first, "Available"), "False MinimumReplicasUnavailable");
        assert_eq!(again, Some(Duration::from_mins(1)));
        let half = [set(2, 1)];
        let (moved, again) = of(&deployment(&first), Some(&half[0]), &half, at(3));
        assert_eq!(
            (reason(&moved, "Progressing").as_str(), again),
            ("True ReplicaSetUpdated", Some(Duration::from_mins(1)))
        );
        let sets = [set(2, 2)];
        let (done, again) = of(&deployment(&moved), Some(&sets[0]), &sets, at(5));
        assert_eq!(reason(&done, "Progressing"), "True NewReplicaSetAvailable");
        assert_eq!((reason(&done, "Available").as_str(), again), ("True MinimumReplicasAvailable", None));
        let (rest, again) = of(&deployment(&done), Some(&sets[0]), &sets, at(500));
        assert_eq!((&rest, again), (&done, None), "nothing changes, so nothing is written");
        let (fallen, _) = of(&deployment(&rest), Some(&half[0]), &half, at(600));
        assert_eq!(reason(&fallen, "Progressing"), "True NewReplicaSetAvailable", "a pod that fails is no rollout");
        let mut next = ReplicaSet::clone(&set(1, 0));
        next.metadata.name = Some("r2".to_owned());
        let next = [sets[0].clone(), Arc::new(next)];
        let (begun, _) = of(&deployment(&rest), Some(&next[1]), &next, at(700));
        assert_eq!(reason(&begun, "Progressing"), "True NewReplicaSetCreated");
    }

    #[test]
    fn a_rollout_that_stands_still_exceeds_its_deadline() {
        let sets = [set(2, 1)];
        let (first, _) = of(&deployment(&DeploymentStatus::default()), Some(&sets[0]), &sets, at(0));
        let (still, again) = of(&deployment(&first), Some(&sets[0]), &sets, at(20));
        assert_eq!((&still, again), (&first, Some(Duration::from_secs(40))));
        let worse = [set(2, 0)];
        let (worse, again) = of(&deployment(&still), Some(&worse[0]), &worse, at(30));
        assert_eq!(again, Some(Duration::from_secs(30)), "a pod that fails is no progress");
        let (late, _) = of(&deployment(&worse), Some(&sets[0]), &[set(2, 0)], at(60));
        assert_eq!(reason(&late, "Progressing"), "False ProgressDeadlineExceeded");
        let (stays, again) = of(&deployment(&late), Some(&sets[0]), &[set(2, 0)], at(90));
        assert_eq!((&stays, again), (&late, None));
        let (moved, _) = of(&deployment(&late), Some(&sets[0]), &sets, at(99));
        assert_eq!(reason(&moved, "Progressing"), "True ReplicaSetUpdated");
    }

    #[test]
    fn a_pause_stops_the_clock_and_no_deadline_means_no_clock() {
        let sets = [set(2, 1)];
        let mut paused = deployment(&DeploymentStatus::default());
        paused.spec.as_mut().unwrap().paused = Some(true);
        let (rests, _) = of(&paused, Some(&sets[0]), &sets, at(0));
        assert_eq!(reason(&rests, "Progressing"), "Unknown DeploymentPaused");
        let (resumed, again) = of(&deployment(&rests), Some(&sets[0]), &sets, at(500));
        assert_eq!(reason(&resumed, "Progressing"), "Unknown DeploymentResumed");
        assert_eq!(again, Some(Duration::from_mins(1)));
        let (late, _) = of(&deployment(&resumed), Some(&sets[0]), &sets, at(560));
        assert_eq!(reason(&late, "Progressing"), "False ProgressDeadlineExceeded");
        let mut endless = deployment(&DeploymentStatus::default());
        endless.spec.as_mut().unwrap().progress_deadline_seconds = None;
        let (status, again) = of(&endless, Some(&sets[0]), &sets, at(0));
        assert!(again.is_none() && status.conditions.unwrap().iter().all(|one| one.type_ == "Available"));
    }

    #[test]
    fn pods_that_cannot_be_made_are_told_of() {
        let mut refused = ReplicaSet::clone(&set(0, 0));
        refused.status.as_mut().unwrap().conditions = serde_json::from_value(json!([
            {"type": "ReplicaFailure", "status": "True", "reason": "FailedCreate", "message": "forbidden: no"}]))
        .unwrap();
        let refused = [Arc::new(refused)];
        let (status, _) = of(&deployment(&DeploymentStatus::default()), Some(&refused[0]), &refused, at(0));
        assert_eq!(reason(&status, "ReplicaFailure"), "True FailedCreate");
        let (over, _) = of(&deployment(&status), Some(&refused[0]), &[set(2, 0)], at(1));
        assert_eq!(over.conditions.unwrap().len(), 3, "the current set still says so");
    }
}
