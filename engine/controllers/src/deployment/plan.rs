//! How large each replica set should be next: pure arithmetic.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt;

use super::{available, replicas};
use crate::share::{Round, share};

/// The annotation in which a replica set remembers the deployment's size.
pub(super) const DESIRED: &str = "deployment.kubernetes.io/desired-replicas";
/// The annotation in which it remembers how many pods there may be with the surge.
pub(super) const MOST: &str = "deployment.kubernetes.io/max-replicas";

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

/// Whether another size is asked for than when the sets last got theirs: then all of them follow, and nothing is rolled out.
pub(super) fn is_rescaled(deployment: &Deployment, sets: &[Arc<ReplicaSet>]) -> bool {
    let wanted = wanted(deployment);
    let active: Vec<_> = sets.iter().filter(|set| replicas(set) > 0).collect();
    // Who stops everything first has no proportions to keep.
    let applies = active.len() == 1 || !is_recreate(deployment);
    applies && active.iter().any(|set| noted(set, DESIRED).is_some_and(|desired| desired != wanted))
}

/// The sizes after the deployment's own has changed: a rollout that is half done keeps its proportions. `sets` are all,
/// `current` among them.
pub(super) fn rescale(
    deployment: &Deployment,
    current: Option<&Arc<ReplicaSet>>,
    sets: &[Arc<ReplicaSet>],
) -> Vec<Change> {
    let wanted = wanted(deployment);
    let active: Vec<&Arc<ReplicaSet>> = sets.iter().filter(|set| replicas(set) > 0).collect();
    match active.as_slice() {
        [] => current
            .or_else(|| sets.iter().max_by_key(|set| created(set)))
            .map(|set| (set.clone(), wanted))
            .into_iter()
            .collect(),
        [only] => vec![((*only).clone(), wanted)],
        _ if current.is_some_and(|current| is_saturated(current, wanted)) => {
            let old = active.into_iter().filter(|set| !current.is_some_and(|current| Arc::ptr_eq(current, set)));
            old.map(|set| (set.clone(), 0)).collect()
        }
        _ if is_recreate(deployment) => Vec::new(),
        _ => proportional(deployment, active, wanted),
    }
}

/// Whether a set is all that is asked for, and works.
fn is_saturated(set: &ReplicaSet, wanted: i32) -> bool {
    replicas(set) == wanted && noted(set, DESIRED) == Some(wanted) && available(set) == wanted
}

/// Gives each set its share of what is added or taken; what rounding leaves goes to the first.
fn proportional(deployment: &Deployment, mut sets: Vec<&Arc<ReplicaSet>>, wanted: i32) -> Vec<Change> {
    let total: i32 = sets.iter().map(|set| replicas(set)).sum();
    let most = if wanted > 0 { wanted + Bounds::of(deployment, wanted).surge } else { 0 };
    let missing = most - total;
    // Growing, the largest gets most, among equals the newest; shrinking, the oldest goes first.
    sets.sort_by_key(|set| (Reverse(replicas(set)), created(set)));
    if missing > 0 {
        sets.sort_by_key(|set| (Reverse(replicas(set)), Reverse(created(set))));
    }
    let mut left = missing;
    let mut changes: Vec<Change> = Vec::new();
    for set in sets {
        let part = part(deployment, set, most);
        let part = if missing > 0 { part.clamp(0, left.max(0)) } else { part.clamp(left.min(0), 0) };
        left -= part;
        changes.push((set.clone(), replicas(set) + part));
    }
    if let Some((_, size)) = changes.first_mut() {
        *size = (*size + left).max(0);
    }
    changes
}

/// How much a set grows with a deployment that may have `most` pods, where it knew how many those were before.
fn part(deployment: &Deployment, set: &ReplicaSet, most: i32) -> i32 {
    let before = noted(set, MOST).or_else(|| deployment.status.as_ref()?.replicas).unwrap_or(0);
    if before <= 0 {
        return 0;
    }
    let (size, most, before) = (i64::from(replicas(set)), i64::from(most), i64::from(before));
    let grown = (2 * size * most + before) / (2 * before);
    i32::try_from(grown - size).unwrap_or(0)
}

/// What a set remembers of the deployment's size: [`DESIRED`] or [`MOST`].
fn noted(set: &ReplicaSet, key: &str) -> Option<i32> {
    set.annotations().get(key)?.parse().ok()
}

/// What a set should remember, so that a later change of size is noticed and shared out.
pub(super) fn notes(deployment: &Deployment) -> BTreeMap<String, String> {
    let wanted = wanted(deployment);
    let most = wanted.saturating_add(Bounds::of(deployment, wanted).surge);
    [(DESIRED, wanted), (MOST, most)].map(|(key, number)| (key.to_owned(), number.to_string())).into()
}

fn created(set: &ReplicaSet) -> Option<Timestamp> {
    set.metadata.creation_timestamp.as_ref().map(|time| time.0)
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
pub(super) struct Bounds {
    surge: i32,
    pub(super) unavailable: i32,
}

impl Bounds {
    /// A quarter each, where nothing is said; nothing, where everything is stopped first.
    pub(super) fn of(deployment: &Deployment, wanted: i32) -> Self {
        if is_recreate(deployment) {
            return Self { surge: 0, unavailable: 0 };
        }
        let rolling = deployment.spec.as_ref().and_then(|spec| spec.strategy.as_ref()?.rolling_update.as_ref());
        let quarter = IntOrString::String("25%".to_owned());
        let bound = |part: Option<&IntOrString>, round| {
            share(part.unwrap_or(&quarter), wanted, round).or_else(|| share(&quarter, wanted, round)).unwrap_or(0)
        };
        let surge = bound(rolling.and_then(|rolling| rolling.max_surge.as_ref()), Round::Up);
        let unavailable = bound(rolling.and_then(|rolling| rolling.max_unavailable.as_ref()), Round::Down).min(wanted);
        // Else nothing could ever move.
        let unavailable = if surge == 0 && unavailable == 0 { 1 } else { unavailable };
        Self { surge, unavailable }
    }
}

/// The size that is asked for.
pub(super) fn wanted(deployment: &Deployment) -> i32 {
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
    }

    /// Sets of a deployment that had `before` pods and `surge` more: name, size and available pods.
    fn remembered(before: i32, surge: i32, sets: &[(&str, i32, i32)]) -> Vec<Arc<ReplicaSet>> {
        let age = |place: usize| json!(format!("2026-01-0{}T00:00:00Z", place + 1));
        let made = sets.iter().enumerate().map(|(place, (name, size, up))| {
            let mut made = ReplicaSet::clone(&set(name, *size, *up));
            made.metadata.creation_timestamp = serde_json::from_value(age(place)).unwrap();
            let notes = [(DESIRED, before), (MOST, before + surge)];
            made.annotations_mut().extend(notes.map(|(key, number)| (key.to_owned(), number.to_string())));
            Arc::new(made)
        });
        made.collect()
    }

    #[test]
    fn a_rollout_that_is_half_done_keeps_its_proportions() {
        // Wanted, surge, size before, the sets (the last is the current one), and what becomes of them.
        type Case<'a> = (i32, i32, i32, &'a [(&'a str, i32, i32)], &'a [(&'a str, i32)]);
        let table: &[Case<'_>] = &[
            // The example of the documentation: 10 + 3, 8 old and 5 new, to 15: 11 and 7.
            (15, 3, 10, &[("old", 8, 8), ("new", 5, 0)], &[("old", 11), ("new", 7)]),
            (20, 0, 10, &[("old", 5, 5), ("new", 5, 0)], &[("new", 10), ("old", 10)]),
            (5, 0, 10, &[("old", 5, 5), ("new", 5, 0)], &[("old", 2), ("new", 3)]),
            (0, 1, 10, &[("old", 6, 5), ("new", 5, 0)], &[("old", 0), ("new", 0)]),
            (12, 0, 10, &[("new", 10, 10)], &[("new", 12)]),
            (4, 0, 0, &[("old", 0, 0), ("new", 0, 0)], &[("new", 4)]),
            (11, 0, 10, &[("a", 3, 3), ("b", 3, 3), ("c", 4, 0)], &[("c", 5), ("b", 3), ("a", 3)]),
            (3, 1, 3, &[("old", 1, 1), ("new", 3, 3)], &[("old", 0)]),
        ];
        for (wanted, surge, before, sets, expected) in table {
            let deployment = deployment(*wanted, &rolling(&json!(surge), &json!(1)));
            let sets = remembered(*before, *surge, sets);
            let expected: Vec<_> = expected.iter().map(|(name, size)| ((*name).to_owned(), *size)).collect();
            assert_eq!(sizes(&rescale(&deployment, sets.last(), &sets)), expected, "{wanted} of {before}");
        }
    }

    #[test]
    fn another_size_is_noticed_by_what_the_sets_remember() {
        let sets = remembered(3, 1, &[("old", 1, 1), ("new", 2, 2)]);
        assert!(!is_rescaled(&deployment(3, &json!({})), &sets));
        assert!(is_rescaled(&deployment(4, &json!({})), &sets));
        assert!(!is_rescaled(&deployment(4, &json!({})), &[set("made earlier", 3, 3)]));
        let notes = notes(&deployment(4, &rolling(&json!("50%"), &json!(0))));
        assert_eq!((notes[DESIRED].as_str(), notes[MOST].as_str()), ("4", "6"));
    }
}
