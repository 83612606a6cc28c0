//! Changing what a running container is given: whether the node has room for it, and what has to be done
//! (https://kubernetes.io/docs/tasks/configure-pod-container/resize-container-resources/). Pure but for the account of what
//! the node's pods are allotted, which tells when it changes.

use std::collections::{BTreeMap, HashMap};

use k8s_openapi::api::core::v1::{Container, Pod, ResourceRequirements};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use tokio::sync::watch;

use crate::amount::{self, Allocatable};
use crate::observed::{Observed, Role};
use crate::pod;

/// What can be changed.
const KINDS: [&str; 2] = ["cpu", "memory"];

/// Why a change waits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Pending {
    /// Until other pods have gone.
    Deferred(String),
    /// For ever: the whole node is too small.
    Infeasible(String),
}

impl Pending {
    /// The condition's reason and message.
    pub(crate) fn words(&self) -> (&'static str, &str) {
        match self {
            Self::Deferred(message) => ("Deferred", message),
            Self::Infeasible(message) => ("Infeasible", message),
        }
    }
}

/// Thousandths of a processor and bytes of memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Amounts {
    cpu: u64,
    memory: u64,
}

impl Amounts {
    fn of(resources: Option<&ResourceRequirements>) -> Self {
        let get = |kind: &str| resources.and_then(|it| requested(it, kind));
        Self {
            cpu: get("cpu").and_then(amount::milli).unwrap_or(0),
            memory: get("memory").and_then(amount::units).unwrap_or(0),
        }
    }

    fn and(self, other: Self) -> Self {
        Self { cpu: self.cpu.saturating_add(other.cpu), memory: self.memory.saturating_add(other.memory) }
    }

    /// What a pod is allotted while its containers proper run.
    pub(crate) fn allotted(observed: &Observed) -> Self {
        let running = observed.containers.iter().filter(|it| matches!(it.role, Role::Main | Role::Sidecar));
        running.fold(Self::default(), |sum, it| sum.and(Self::of(it.allotted.as_ref())))
    }

    /// What a pod asks for by now.
    fn wanted(pod: &Pod, observed: &Observed) -> Self {
        let running = observed.containers.iter().filter(|it| matches!(it.role, Role::Main | Role::Sidecar));
        running.fold(Self::default(), |sum, it| sum.and(Self::of(of_spec(pod, &it.name))))
    }
}

fn of_spec<'a>(pod: &'a Pod, name: &str) -> Option<&'a ResourceRequirements> {
    pod::container(pod, name)?.resources.as_ref()
}

fn requested<'a>(resources: &'a ResourceRequirements, kind: &str) -> Option<&'a Quantity> {
    let of = |list: &'a Option<BTreeMap<String, Quantity>>| list.as_ref().and_then(|list| list.get(kind));
    of(&resources.requests).or_else(|| of(&resources.limits))
}

/// The account of what the pods of this node are allotted.
#[derive(Clone, Debug)]
pub(crate) struct Room {
    allocatable: Amounts,
    taken: watch::Sender<HashMap<String, Amounts>>,
}

impl Room {
    pub(crate) fn new(allocatable: Allocatable) -> Self {
        let allocatable = Amounts { cpu: allocatable.cpu_milli, memory: allocatable.memory };
        Self { allocatable, taken: watch::Sender::new(HashMap::new()) }
    }

    /// Tells when the account changes.
    pub(crate) fn changes(&self) -> watch::Receiver<HashMap<String, Amounts>> {
        self.taken.subscribe()
    }

    /// Notes what a pod has.
    pub(crate) fn note(&self, uid: &str, amounts: Amounts) {
        self.taken.send_if_modified(|taken| taken.insert(uid.to_owned(), amounts) != Some(amounts));
    }

    /// The pod has nothing any more.
    pub(crate) fn release(&self, uid: &str) {
        self.taken.send_if_modified(|taken| taken.remove(uid).is_some());
    }

    /// Gives a pod what it wants instead of what it had, if there is room.
    fn ask(&self, uid: &str, wanted: Amounts) -> Result<(), Pending> {
        let mut answer = Ok(());
        self.taken.send_if_modified(|taken| {
            let others = taken.iter().filter(|(other, _)| *other != uid).map(|(_, amounts)| *amounts);
            let others = others.fold(Amounts::default(), Amounts::and);
            let before = taken.get(uid).copied().unwrap_or_default();
            answer = self.judge(before, wanted, others);
            answer.is_ok() && taken.insert(uid.to_owned(), wanted) != Some(wanted)
        });
        answer
    }

    fn judge(&self, before: Amounts, wanted: Amounts, others: Amounts) -> Result<(), Pending> {
        let kinds = [
            ("cpu", before.cpu, wanted.cpu, others.cpu, self.allocatable.cpu),
            ("memory", before.memory, wanted.memory, others.memory, self.allocatable.memory),
        ];
        for (kind, _, wanted, _, all) in kinds {
            if wanted > all {
                let message = format!("Node didn't have enough capacity: {kind}, requested: {wanted}, capacity: {all}");
                return Err(Pending::Infeasible(message));
            }
        }
        // Who wants less is given it however full the node is.
        let short = kinds
            .into_iter()
            .find(|(_, before, wanted, others, all)| wanted > before && wanted.saturating_add(*others) > *all);
        short.map_or(Ok(()), |(kind, _, wanted, used, all)| {
            Err(Pending::Deferred(format!(
                "Node didn't have enough resource: {kind}, requested: {wanted}, used: {used}, capacity: {all}"
            )))
        })
    }
}

/// What the containers are to be given from now on, by name; none where nothing changes.
pub(crate) type Allotment = BTreeMap<String, Option<ResourceRequirements>>;

/// Compares what the pod asks for with what its containers are allotted.
pub(crate) fn consider(pod: &Pod, observed: &Observed, room: &Room) -> Option<Result<Allotment, Pending>> {
    let resizable = observed.containers.iter().filter(|it| matches!(it.role, Role::Main | Role::Sidecar));
    let changed: Allotment = resizable
        .filter(|it| !same(it.allotted.as_ref(), of_spec(pod, &it.name)))
        .map(|it| (it.name.clone(), of_spec(pod, &it.name).cloned()))
        .collect();
    if changed.is_empty() {
        room.note(pod::uid(pod), Amounts::allotted(observed));
        return observed.pending.is_some().then_some(Ok(changed));
    }
    Some(room.ask(pod::uid(pod), Amounts::wanted(pod, observed)).map(|()| changed))
}

/// Whether two say the same of what can be changed.
pub(crate) fn same(one: Option<&ResourceRequirements>, other: Option<&ResourceRequirements>) -> bool {
    KINDS.iter().all(|kind| amounts_of(one, kind) == amounts_of(other, kind))
}

/// Request and limit of a kind, in one unit.
pub(crate) fn amounts_of(resources: Option<&ResourceRequirements>, kind: &str) -> (Option<u64>, Option<u64>) {
    let of = |list: Option<&BTreeMap<String, Quantity>>| list.and_then(|list| list.get(kind)).and_then(amount::milli);
    let limit = of(resources.and_then(|it| it.limits.as_ref()));
    (of(resources.and_then(|it| it.requests.as_ref())).or(limit), limit)
}

/// Whether the change asks for another run of the container.
pub(crate) fn restarts(
    container: &Container,
    from: Option<&ResourceRequirements>,
    to: Option<&ResourceRequirements>,
) -> bool {
    let policies = container.resize_policy.as_deref().unwrap_or_default();
    let restarting = policies.iter().filter(|policy| policy.restart_policy == "RestartContainer");
    restarting
        .into_iter()
        .any(|policy| amounts_of(from, &policy.resource_name) != amounts_of(to, &policy.resource_name))
}

#[cfg(test)]
mod tests {
    use super::*;
    use jiff::Timestamp;
    use serde_json::{Value, json};

    fn pod(uid: &str, resources: Value) -> Pod {
        let policy = json!([{"resourceName": "memory", "restartPolicy": "RestartContainer"}]);
        let container = json!({"name": "c", "resources": resources, "resizePolicy": policy});
        serde_json::from_value(json!({"metadata": {"name": uid, "uid": uid}, "spec": {"containers": [container]}}))
            .expect("a pod")
    }

    fn cpu(amount: &str) -> Value {
        json!({"requests": {"cpu": amount}})
    }

    fn room() -> Room {
        Room::new(Allocatable { cpu_milli: 2000, memory: 1 << 30, storage: 0 })
    }

    fn asks(room: &Room, before: &Pod, after: &Pod) -> Option<Result<Allotment, Pending>> {
        consider(after, &Observed::fresh(before, Timestamp::UNIX_EPOCH), room)
    }

    #[test]
    fn what_fits_is_given_what_does_not_waits_and_what_never_will_is_said() {
        let room = room();
        let (one, other) = (pod("one", cpu("500m")), pod("other", cpu("1")));
        assert_eq!(asks(&room, &one, &one), None);
        assert_eq!(asks(&room, &other, &other), None);
        let given = asks(&room, &one, &pod("one", cpu("1"))).expect("a change").expect("there is room");
        assert_eq!(given.keys().collect::<Vec<_>>(), ["c"]);
        let word = |answer: Option<Result<Allotment, Pending>>| answer.expect("a change").expect_err("no room");
        let mut changes = room.changes();
        changes.mark_unchanged();
        assert_eq!(word(asks(&room, &one, &pod("one", cpu("1500m")))).words().0, "Deferred");
        assert_eq!(word(asks(&room, &one, &pod("one", cpu("3")))).words().0, "Infeasible");
        assert!(!changes.has_changed().expect("it is there"), "nothing was given");
        room.release("other");
        assert!(changes.has_changed().expect("it is there"));
        asks(&room, &one, &pod("one", cpu("1500m"))).expect("a change").expect("there is room now");
    }

    #[test]
    fn a_container_runs_anew_only_for_what_its_policy_names() {
        let (old, new) =
            (json!({"requests": {"cpu": "1", "memory": "1Gi"}}), json!({"requests": {"cpu": "2", "memory": "1024Mi"}}));
        let pod = pod("p", old.clone());
        let container = pod::container(&pod, "c").expect("it is there");
        let parse = |value: &Value| serde_json::from_value::<ResourceRequirements>(value.clone()).expect("resources");
        assert!(!restarts(container, Some(&parse(&old)), Some(&parse(&new))), "only the processor changes");
        assert!(restarts(container, Some(&parse(&old)), Some(&parse(&cpu("1")))), "the memory does");
        assert!(same(
            Some(&parse(&json!({"limits": {"cpu": "1"}}))),
            Some(&parse(&json!({"limits": {"cpu": "1000m"}, "requests": {"cpu": 1}})))
        ));
    }
}
