//! How large each replica set should be next: pure arithmetic.

use std::sync::Arc;

use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::{available, replicas};

/// A replica set and its next size.
pub(super) type Change = (Arc<ReplicaSet>, i32);

/// The sizes on the way to `current` alone. `old_pods` says whether pods of old revisions are left, even if going.
pub(super) fn next(
    deployment: &Deployment,
    current: &Arc<ReplicaSet>,
    old: &[Arc<ReplicaSet>],
    old_pods: bool,
) -> Vec<Change> {
    let wanted = wanted(deployment);
    if is_recreate(deployment) {
        let stop: Vec<Change> = old.iter().filter(|set| replicas(set) > 0).map(|set| (set.clone(), 0)).collect();
        return if stop.is_empty() && !old_pods { vec![(current.clone(), wanted)] } else { stop };
    }
    let bounds = Bounds::of(deployment, wanted);
    let total: i32 = old.iter().map(replicas_of).sum::<i32>() + replicas(current);
    if replicas(current) > wanted {
        return vec![(current.clone(), wanted)];
    }
    let room = (wanted + bounds.surge - total).max(0);
    let grown = wanted.min(replicas(current) + room);
    let mut changes = shrink(current, old, &bounds, total, wanted);
    if grown > replicas(current) {
        changes.push((current.clone(), grown));
    }
    changes
}

/// A paused deployment rolls nothing out, but its size is still kept.
pub(super) fn scale_paused(deployment: &Deployment, current: &Arc<ReplicaSet>, old: &[Arc<ReplicaSet>]) -> Vec<Change> {
    let rest: i32 = old.iter().map(replicas_of).sum();
    vec![(current.clone(), (wanted(deployment) - rest).max(0))]
}

/// The size with which a new revision begins.
pub(super) fn first_size(deployment: &Deployment, old: &[Arc<ReplicaSet>]) -> i32 {
    let wanted = wanted(deployment);
    let total: i32 = old.iter().map(replicas_of).sum();
    if is_recreate(deployment) {
        return if total == 0 && old.iter().all(|set| pods_of(set) == 0) { wanted } else { 0 };
    }
    wanted.min((wanted + Bounds::of(deployment, wanted).surge - total).max(0))
}

/// Takes from the old revisions what availability allows: first pods that serve nobody, then the others.
fn shrink(current: &ReplicaSet, old: &[Arc<ReplicaSet>], bounds: &Bounds, total: i32, wanted: i32) -> Vec<Change> {
    let least = wanted - bounds.unavailable;
    let starting = (replicas(current) - available(current)).max(0);
    let mut may_go = total - least - starting;
    let mut sizes: Vec<Change> = old.iter().map(|set| (set.clone(), replicas(set))).collect();
    for (set, size) in &mut sizes {
        let idle = (*size - available(set)).max(0);
        let gone = idle.min(may_go).max(0);
        *size -= gone;
        may_go -= gone;
    }
    let all_available: i32 = old.iter().map(|set| available(set)).sum::<i32>() + available(current);
    let mut may_go = may_go.min(all_available - least).max(0);
    for (_, size) in &mut sizes {
        let gone = (*size).min(may_go);
        *size -= gone;
        may_go -= gone;
    }
    sizes.into_iter().filter(|(set, size)| replicas(set) != *size).collect()
}

/// How far a rolling update may go beyond and below the wanted size.
struct Bounds {
    surge: i32,
    unavailable: i32,
}

impl Bounds {
    fn of(deployment: &Deployment, wanted: i32) -> Self {
        let strategy = deployment.spec.as_ref().and_then(|spec| spec.strategy.as_ref()?.rolling_update.as_ref());
        let surge = strategy.and_then(|strategy| strategy.max_surge.as_ref());
        let unavailable = strategy.and_then(|strategy| strategy.max_unavailable.as_ref());
        let surge = resolve(surge, wanted, true);
        let mut unavailable = resolve(unavailable, wanted, false).min(wanted);
        if surge == 0 && unavailable == 0 {
            unavailable = 1; // else nothing could ever move
        }
        Self { surge, unavailable }
    }
}

/// A count, or a percentage of `whole` rounded up or down; 25 % where nothing is said.
fn resolve(value: Option<&IntOrString>, whole: i32, up: bool) -> i32 {
    let percent = match value {
        Some(IntOrString::Int(count)) => return (*count).max(0),
        Some(IntOrString::String(text)) => text.trim_end_matches('%').parse::<i32>().unwrap_or(25),
        None => 25,
    };
    let scaled = i64::from(whole) * i64::from(percent.max(0)) + if up { 99 } else { 0 };
    i32::try_from(scaled / 100).unwrap_or(i32::MAX)
}

fn wanted(deployment: &Deployment) -> i32 {
    deployment.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(1)
}

fn is_recreate(deployment: &Deployment) -> bool {
    let strategy = deployment.spec.as_ref().and_then(|spec| spec.strategy.as_ref()?.type_.as_deref());
    strategy == Some("Recreate")
}

fn replicas_of(set: &Arc<ReplicaSet>) -> i32 {
    replicas(set)
}

fn pods_of(set: &ReplicaSet) -> i32 {
    set.status.as_ref().map_or(0, |status| status.replicas)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn deployment(replicas: i32, strategy: &Value) -> Deployment {
        let spec = json!({ "replicas": replicas, "selector": {}, "template": {}, "strategy": strategy });
        serde_json::from_value(json!({ "spec": spec })).unwrap()
    }

    fn set(name: &str, replicas: i32, available: i32) -> Arc<ReplicaSet> {
        let status = json!({ "replicas": replicas, "availableReplicas": available });
        let object =
            json!({ "metadata": { "name": name }, "spec": { "replicas": replicas, "selector": {} }, "status": status });
        Arc::new(serde_json::from_value(object).unwrap())
    }

    fn rolling(surge: &Value, unavailable: &Value) -> Value {
        json!({ "type": "RollingUpdate", "rollingUpdate": { "maxSurge": surge, "maxUnavailable": unavailable } })
    }

    fn sizes(changes: &[Change]) -> Vec<(String, i32)> {
        changes.iter().map(|(set, size)| (set.metadata.name.clone().unwrap(), *size)).collect()
    }

    #[test]
    fn percentages_round_up_for_surge_and_down_for_unavailable() {
        let percent = IntOrString::String("25%".to_owned());
        assert_eq!((resolve(Some(&percent), 3, true), resolve(Some(&percent), 3, false)), (1, 0));
        assert_eq!(resolve(None, 10, true), 3);
        assert_eq!(resolve(Some(&IntOrString::Int(2)), 10, true), 2);
    }

    /// Plays a whole rollout, with pods becoming available one at a time, and looks at the bounds after every step.
    fn play(replicas_wanted: i32, strategy: &Value, surge: i32, unavailable: i32) {
        let deployment = deployment(replicas_wanted, strategy);
        let (mut new, mut old) = (set("new", 0, 0), set("old", replicas_wanted, replicas_wanted));
        for _ in 0..100 {
            let changes = next(&deployment, &new, std::slice::from_ref(&old), true);
            let before = (replicas(&new), replicas(&old));
            for (changed, size) in changes {
                let target = if changed.metadata.name.as_deref() == Some("new") { &mut new } else { &mut old };
                let name = target.metadata.name.clone().unwrap();
                *target = set(&name, size, available(target).min(size));
            }
            let (total, up) = (replicas(&new) + replicas(&old), available(&new) + available(&old));
            assert!(total <= replicas_wanted + surge, "{total} pods");
            assert!(up >= replicas_wanted - unavailable, "{up} available");
            if available(&new) < replicas(&new) {
                new = set("new", replicas(&new), available(&new) + 1);
            } else if before == (replicas(&new), replicas(&old)) {
                break;
            }
        }
        assert_eq!((replicas(&new), available(&new), replicas(&old)), (replicas_wanted, replicas_wanted, 0));
    }

    #[test]
    fn a_rolling_update_ends_and_never_leaves_its_bounds() {
        for wanted in [1, 2, 3, 7, 10] {
            play(wanted, &rolling(&json!(1), &json!(0)), 1, 0);
            play(wanted, &rolling(&json!(0), &json!(1)), 0, 1);
            play(wanted, &rolling(&json!("100%"), &json!(0)), wanted, 0);
            play(wanted, &rolling(&json!("50%"), &json!("50%")), (wanted + 1) / 2, wanted / 2);
        }
    }

    #[test]
    fn old_pods_that_never_worked_make_room_first() {
        let deployment = deployment(3, &rolling(&json!(1), &json!(0)));
        let changes = next(&deployment, &set("new", 1, 1), &[set("old", 3, 2)], true);
        assert_eq!(sizes(&changes), [("old".to_owned(), 2)]);
    }

    #[test]
    fn recreate_waits_until_the_last_old_pod_is_gone() {
        let deployment = deployment(2, &json!({ "type": "Recreate" }));
        let (new, old) = (set("new", 0, 0), set("old", 2, 2));
        assert_eq!(sizes(&next(&deployment, &new, &[old], true)), [("old".to_owned(), 0)]);
        let old = [set("old", 0, 0)];
        assert!(next(&deployment, &new, &old, true).is_empty());
        assert_eq!(sizes(&next(&deployment, &new, &old, false)), [("new".to_owned(), 2)]);
    }

    #[test]
    fn scaling_down_takes_from_the_current_revision_at_once() {
        let deployment = deployment(1, &rolling(&json!(1), &json!(0)));
        assert_eq!(sizes(&next(&deployment, &set("new", 5, 5), &[], false)), [("new".to_owned(), 1)]);
        assert_eq!(sizes(&scale_paused(&deployment, &set("new", 5, 5), &[])), [("new".to_owned(), 1)]);
    }
}
