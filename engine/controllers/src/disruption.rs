//! Disruption budgets: how many of a budget's pods may be evicted now.
//!
//! Evictions take from `disruptionsAllowed` and note the pod in `disruptedPods`; here everything is counted anew, and a pod
//! that was evicted and is still there after a while counts again. Pods of controllers that ask for no number, or of kinds
//! that are not known here, are expected in the number in which they are there.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet, StatefulSet};
use k8s_openapi::api::core::v1::{Pod, ReplicationController};
use k8s_openapi::api::policy::v1::{PodDisruptionBudget, PodDisruptionBudgetSpec, PodDisruptionBudgetStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use k8s_openapi::jiff::Timestamp;
use kube::api::PostParams;
use kube::core::{Selector, SelectorExt};
use kube::runtime::reflector::{self, Store};
use kube::{Api, Resource, ResourceExt};
use serde::de::DeserializeOwned;
use shipway_driver::{Queue, Shared};
use tokio_util::sync::CancellationToken;

use crate::owned::ignore_stale;
use crate::share::{Round, share};
use crate::world::World;

/// How long an evicted pod may stay before it counts as there again.
const GRACE: Duration = Duration::from_mins(2);

/// Keeps the status of all budgets true, until stopped.
pub(crate) async fn run(world: World, stop: CancellationToken) {
    // Namespaces whose budgets are to be counted.
    let queue = Arc::new(Queue::new());
    let (budgets, deployments) = (world.cache::<PodDisruptionBudget>(), world.cache::<Deployment>());
    let sets = world.cache::<ReplicaSet>();
    let (controllers, stateful) = (world.cache::<ReplicationController>(), world.cache::<StatefulSet>());
    wake_namespace(&controllers, &queue);
    wake_namespace(&stateful, &queue);
    wake_namespace(&budgets, &queue);
    wake_namespace(&deployments, &queue);
    wake_namespace(&sets, &queue);
    let woken = queue.clone();
    world.pods.listen(move |change| woken.add(change.object().namespace().unwrap_or_default()));
    let seen = Seen {
        budgets: budgets.store(),
        deployments: deployments.store(),
        sets: sets.store(),
        controllers: controllers.store(),
        stateful: stateful.store(),
    };
    world.reconcile(queue, 1, stop, move |world, namespace| settle(world, seen.clone(), namespace)).await;
}

fn wake_namespace<K>(cache: &Shared<K>, queue: &Arc<Queue<String>>)
where
    K: Resource<DynamicType = ()> + reflector::Lookup<DynamicType = ()> + Clone + Debug + DeserializeOwned,
    K: Send + Sync + 'static,
{
    let queue = queue.clone();
    cache.listen(move |change| queue.add(change.object().meta().namespace.clone().unwrap_or_default()));
}

/// What this controller reads.
#[derive(Clone)]
struct Seen {
    budgets: Store<PodDisruptionBudget>,
    deployments: Store<Deployment>,
    sets: Store<ReplicaSet>,
    controllers: Store<ReplicationController>,
    stateful: Store<StatefulSet>,
}

/// Counts all budgets of a namespace.
async fn settle(world: World, seen: Seen, namespace: String) -> Result<Option<Duration>, kube::Error> {
    let own = |it: &Option<String>| it.as_deref() == Some(namespace.as_str());
    let budgets: Vec<Arc<PodDisruptionBudget>> =
        seen.budgets.state().into_iter().filter(|budget| own(&budget.metadata.namespace)).collect();
    if budgets.is_empty() {
        return Ok(None);
    }
    let pods = world.pods.in_namespace(&namespace);
    let scales = scales(&seen, &namespace);
    let api: Api<PodDisruptionBudget> = Api::namespaced(world.client.clone(), &namespace);
    let mut again: Option<Duration> = None;
    for budget in budgets {
        let (status, later) = counted(&budget, &pods, &scales, Timestamp::now());
        again = [again, later].into_iter().flatten().min();
        if budget.status.as_ref() == Some(&status) {
            continue;
        }
        let wanted = PodDisruptionBudget { status: Some(status), ..PodDisruptionBudget::clone(&budget) };
        // Where an eviction came first, its change wakes us.
        ignore_stale(api.replace_status(&budget.name_any(), &PostParams::default(), &wanted).await)?;
    }
    Ok(again)
}

/// How many pods each object that makes pods stands for, by its uid: who is asked for them, and how many.
fn scales(seen: &Seen, namespace: &str) -> BTreeMap<String, (String, i32)> {
    let mut scales = scales_of_deployments(seen, namespace);
    scales.extend(scales_alone(&seen.controllers, namespace, |it| it.spec.as_ref()?.replicas));
    scales.extend(scales_alone(&seen.stateful, namespace, |it| it.spec.as_ref()?.replicas));
    scales
}

/// The same for a kind whose objects are asked themselves.
fn scales_alone<K>(store: &Store<K>, namespace: &str, replicas: fn(&K) -> Option<i32>) -> Vec<(String, (String, i32))>
where
    K: Resource<DynamicType = ()> + reflector::Lookup<DynamicType = ()> + Clone + 'static,
{
    let own = store.state().into_iter().filter(|it| it.meta().namespace.as_deref() == Some(namespace));
    own.filter_map(|it| {
        let uid = it.meta().uid.clone()?;
        Some((uid.clone(), (uid, replicas(&it).unwrap_or(1))))
    })
    .collect()
}

/// The same for replica sets; those of one deployment count together.
fn scales_of_deployments(seen: &Seen, namespace: &str) -> BTreeMap<String, (String, i32)> {
    let deployments = scales_alone(&seen.deployments, namespace, |it| it.spec.as_ref()?.replicas);
    let deployments: BTreeMap<String, (String, i32)> = deployments.into_iter().collect();
    let sets = seen.sets.state();
    let own = sets.iter().filter(|set| set.metadata.namespace.as_deref() == Some(namespace));
    own.filter_map(|set| {
        let uid = set.metadata.uid.clone()?;
        let owner = set.metadata.owner_references.iter().flatten().find(|owner| owner.controller == Some(true));
        let above = owner.and_then(|owner| deployments.get(&owner.uid)).cloned();
        let alone = || (uid.clone(), set.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(1));
        let asked = above.unwrap_or_else(alone);
        Some((uid, asked))
    })
    .collect()
}

/// The status of a budget, and when to look again.
fn counted(
    budget: &PodDisruptionBudget,
    pods: &[Arc<Pod>],
    scales: &BTreeMap<String, (String, i32)>,
    now: Timestamp,
) -> (PodDisruptionBudgetStatus, Option<Duration>) {
    let spec = budget.spec.clone().unwrap_or_default();
    let selector = spec.selector.clone().and_then(|selector| Selector::try_from(selector).ok());
    let none = BTreeMap::new();
    let is_meant = |pod: &&Arc<Pod>| {
        let labels = pod.metadata.labels.as_ref().unwrap_or(&none);
        selector.as_ref().is_some_and(|selector| selector.matches(labels))
    };
    let pods: Vec<&Arc<Pod>> = pods.iter().filter(is_meant).collect();
    let before = budget.status.clone().unwrap_or_default();
    let (disrupted, again) = unconfirmed(&before, &pods, now);
    let healthy = pods.iter().filter(|pod| {
        pod.metadata.deletion_timestamp.is_none() && !disrupted.contains_key(&pod.name_any()) && is_ready(pod)
    });
    let current = count(healthy.count());
    let (expected, desired) = wanted(&spec, &pods, scales);
    let allowed = if expected > 0 { (current - desired).max(0) } else { 0 };
    let status = PodDisruptionBudgetStatus {
        conditions: Some(conditions(budget, &before, allowed, now)),
        current_healthy: Some(current),
        desired_healthy: Some(desired),
        disrupted_pods: (!disrupted.is_empty()).then_some(disrupted),
        disruptions_allowed: Some(allowed),
        expected_pods: Some(expected),
        observed_generation: budget.metadata.generation,
    };
    (status, again)
}

fn is_ready(pod: &Pod) -> bool {
    let conditions = pod.status.iter().filter_map(|status| status.conditions.as_ref()).flatten();
    conditions.into_iter().any(|one| one.type_ == "Ready" && one.status == "True")
}

/// The evicted pods whose end has not been seen yet, and when the first of them is given up.
fn unconfirmed(
    before: &PodDisruptionBudgetStatus,
    pods: &[&Arc<Pod>],
    now: Timestamp,
) -> (BTreeMap<String, Time>, Option<Duration>) {
    let mut again: Option<Duration> = None;
    let mut kept = BTreeMap::new();
    for (name, since) in before.disrupted_pods.iter().flatten() {
        let there = pods.iter().any(|pod| pod.name_any() == *name && pod.metadata.deletion_timestamp.is_none());
        let gone = Duration::try_from(now.duration_since(since.0)).unwrap_or_default();
        if let Some(left) = GRACE.checked_sub(gone).filter(|left| there && !left.is_zero()) {
            again = Some(again.map_or(left, |again| again.min(left)));
            kept.insert(name.clone(), since.clone());
        }
    }
    (kept, again)
}

/// How many pods there should be, and how many of them have to be healthy.
fn wanted(spec: &PodDisruptionBudgetSpec, pods: &[&Arc<Pod>], scales: &BTreeMap<String, (String, i32)>) -> (i32, i32) {
    match (&spec.max_unavailable, &spec.min_available) {
        (Some(most), _) => {
            let expected = asked_for(pods, scales);
            (expected, (expected - rounded(most, expected)).max(0))
        }
        (None, Some(IntOrString::Int(least))) => (count(pods.len()), *least),
        (None, Some(part)) => {
            let expected = asked_for(pods, scales);
            (expected, rounded(part, expected))
        }
        (None, None) => (0, 0),
    }
}

fn rounded(part: &IntOrString, all: i32) -> i32 {
    share(part, all, Round::Up).unwrap_or(0)
}

/// What the controllers of the pods are asked for. Pods that nobody controls are not expected.
fn asked_for(pods: &[&Arc<Pod>], scales: &BTreeMap<String, (String, i32)>) -> i32 {
    let mut asked: BTreeMap<&str, i32> = BTreeMap::new();
    for pod in pods {
        let Some(owner) = pod.owner_references().iter().find(|owner| owner.controller == Some(true)) else { continue };
        match scales.get(&owner.uid) {
            Some((who, replicas)) => drop(asked.insert(who, *replicas)),
            None => *asked.entry(&owner.uid).or_default() += 1,
        }
    }
    asked.values().sum()
}

fn count(number: usize) -> i32 {
    i32::try_from(number).unwrap_or(i32::MAX)
}

/// `DisruptionAllowed`, with the time of its last turn.
fn conditions(
    budget: &PodDisruptionBudget,
    before: &PodDisruptionBudgetStatus,
    allowed: i32,
    now: Timestamp,
) -> Vec<Condition> {
    const KIND: &str = "DisruptionAllowed";
    let (status, reason) = if allowed > 0 { ("True", "SufficientPods") } else { ("False", "InsufficientPods") };
    let (own, mut others): (Vec<Condition>, Vec<Condition>) =
        before.conditions.clone().unwrap_or_default().into_iter().partition(|one| one.type_ == KIND);
    let since = own.into_iter().find(|one| one.status == status).map(|one| one.last_transition_time);
    others.push(Condition {
        type_: KIND.to_owned(),
        status: status.to_owned(),
        reason: reason.to_owned(),
        message: String::new(),
        last_transition_time: since.unwrap_or_else(|| Time(Timestamp::from_second(now.as_second()).unwrap_or(now))),
        observed_generation: budget.metadata.generation,
    });
    others
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn budget(spec: &Value, status: &Value) -> PodDisruptionBudget {
        let mut spec = spec.clone();
        spec["selector"] = json!({"matchLabels": {"app": "web"}});
        serde_json::from_value(json!({"metadata": {"name": "q", "generation": 2}, "spec": spec, "status": status}))
            .unwrap()
    }

    fn pod(name: &str, owner: &str, ready: &str) -> Arc<Pod> {
        let reference = json!([{"apiVersion": "v1", "kind": "K", "name": "n", "uid": owner, "controller": true}]);
        let references = if owner.is_empty() { json!([]) } else { reference };
        let pod = json!({"metadata": {"name": name, "labels": {"app": "web"}, "ownerReferences": references},
            "status": {"conditions": [{"type": "Ready", "status": ready}]}});
        Arc::new(serde_json::from_value(pod).unwrap())
    }

    fn numbers(spec: &Value, pods: &[Arc<Pod>]) -> [i32; 4] {
        let scales =
            BTreeMap::from([("new".to_owned(), ("all".to_owned(), 4)), ("old".to_owned(), ("all".to_owned(), 4))]);
        let (status, _) = counted(&budget(spec, &json!(null)), pods, &scales, Timestamp::UNIX_EPOCH);
        [status.expected_pods, status.current_healthy, status.desired_healthy, status.disruptions_allowed]
            .map(Option::unwrap)
    }

    #[test]
    fn what_may_go_follows_from_what_is_asked_for_and_what_is_healthy() {
        let pods =
            [pod("a", "new", "True"), pod("b", "new", "True"), pod("c", "old", "True"), pod("d", "old", "False")];
        let table = [
            (json!({"minAvailable": 2}), [4, 3, 2, 1]),
            (json!({"minAvailable": 5}), [4, 3, 5, 0]),
            (json!({"minAvailable": "30%"}), [4, 3, 2, 1]),
            (json!({"maxUnavailable": 1}), [4, 3, 3, 0]),
            (json!({"maxUnavailable": "50%"}), [4, 3, 2, 1]),
            (json!({"maxUnavailable": 9}), [4, 3, 0, 3]),
            (json!({}), [0, 3, 0, 0]),
        ];
        for (spec, expected) in table {
            assert_eq!(numbers(&spec, &pods), expected, "{spec}");
        }
        assert_eq!(
            numbers(&json!({"maxUnavailable": 1}), &[pod("a", "", "True")]),
            [0, 1, 0, 0],
            "nobody asked for it"
        );
        assert_eq!(numbers(&json!({"maxUnavailable": 1}), &[pod("a", "other", "True")]), [1, 1, 0, 1]);
        assert_eq!(numbers(&json!({"minAvailable": 1}), &[]), [0, 0, 1, 0]);
    }

    #[test]
    fn an_evicted_pod_counts_as_gone_for_a_while() {
        let now = Timestamp::from_second(1_000_000).unwrap();
        let since = |seconds: i64| Time(Timestamp::from_second(1_000_000 - seconds).unwrap());
        let status = json!({"disruptionsAllowed": 0, "currentHealthy": 0, "desiredHealthy": 0, "expectedPods": 0,
            "disruptedPods": {"a": since(20), "b": since(200), "gone": since(1)}});
        let pods = [pod("a", "", "True"), pod("b", "", "True"), pod("c", "", "True")];
        let (status, again) = counted(&budget(&json!({"minAvailable": 1}), &status), &pods, &BTreeMap::new(), now);
        assert_eq!((status.current_healthy, status.disruptions_allowed), (Some(2), Some(1)));
        assert_eq!(status.disrupted_pods.unwrap().keys().collect::<Vec<_>>(), ["a"]);
        assert_eq!((again, status.observed_generation), (Some(Duration::from_secs(100)), Some(2)));
    }

    #[test]
    fn nothing_new_is_nothing_to_write() {
        let pods = [pod("a", "new", "True")];
        let first = budget(&json!({"minAvailable": 0}), &json!(null));
        let (status, _) = counted(&first, &pods, &BTreeMap::new(), Timestamp::UNIX_EPOCH);
        let again = PodDisruptionBudget { status: Some(status.clone()), ..first };
        assert_eq!(counted(&again, &pods, &BTreeMap::new(), Timestamp::from_second(50).unwrap()).0, status);
        let condition = &status.conditions.unwrap()[0];
        assert_eq!((condition.status.as_str(), condition.reason.as_str()), ("True", "SufficientPods"));
    }
}
