//! Amounts of resources: read from objects, summed over a pod.

use std::collections::BTreeMap;

use serde_json::Value;
use shipway_schema::quantity::Quantity;

/// Amounts by the name of the resource.
pub(super) type Amounts = BTreeMap<String, Quantity>;

/// Reads amounts; what is no amount has been refused elsewhere.
pub(super) fn amounts(value: &Value) -> Amounts {
    let entries = value.as_object().into_iter().flatten();
    entries.filter_map(|(name, amount)| Some((name.clone(), Quantity::from_value(amount).ok()?))).collect()
}

/// Adds to an amount; stays where it is at the end of the range.
pub(super) fn add(sum: &mut Amounts, name: &str, amount: &Quantity) {
    let before = sum.get(name).copied().unwrap_or(Quantity::ZERO);
    sum.insert(name.to_owned(), before.checked_add(amount).unwrap_or(before));
}

/// The containers of a pod that are made one after the other or together, ephemeral ones left out.
pub(super) fn containers(spec: &Value) -> impl Iterator<Item = &Value> {
    ["containers", "initContainers"].into_iter().flat_map(|list| spec[list].as_array().into_iter().flatten())
}

/// What a pod needs at most at one time: all containers and sidecars together, or one of those that run before them.
/// `field` is `requests` or `limits`; the pod's own amounts, where it has any, and its overhead count.
pub(super) fn of_pod(spec: &Value, field: &str) -> Amounts {
    let own = |container: &Value| amounts(&container["resources"][field]);
    let mut sum = Amounts::new();
    for container in spec["containers"].as_array().into_iter().flatten() {
        add_all(&mut sum, &own(container));
    }
    let (mut sidecars, mut peak) = (Amounts::new(), Amounts::new());
    for container in spec["initContainers"].as_array().into_iter().flatten() {
        let mut needed = own(container);
        if container["restartPolicy"] == "Always" {
            add_all(&mut sidecars, &needed);
            add_all(&mut sum, &needed);
            needed = Amounts::new();
        }
        add_all(&mut needed, &sidecars);
        at_least(&mut peak, &needed);
    }
    at_least(&mut sum, &peak);
    for (name, amount) in amounts(&spec["resources"][field]) {
        sum.insert(name, amount);
    }
    for (name, amount) in amounts(&spec["overhead"]) {
        if field == "requests" || sum.contains_key(&name) {
            add(&mut sum, &name, &amount);
        }
    }
    sum
}

fn add_all(sum: &mut Amounts, more: &Amounts) {
    for (name, amount) in more {
        add(sum, name, amount);
    }
}

fn at_least(sum: &mut Amounts, least: &Amounts) {
    for (name, amount) in least {
        if sum.get(name).is_none_or(|own| own < amount) {
            sum.insert(name.clone(), *amount);
        }
    }
}

/// Whether no container asks for or is bound to any amount of CPU or memory.
pub(super) fn is_best_effort(spec: &Value) -> bool {
    let none = |resources: &Value| {
        ["requests", "limits"].into_iter().all(|field| {
            let own = amounts(&resources[field]);
            ["cpu", "memory"].into_iter().all(|name| own.get(name).is_none_or(Quantity::is_zero))
        })
    };
    containers(spec).all(|container| none(&container["resources"])) && none(&spec["resources"])
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_pod_needs_its_peak() {
        let container = |cpu: &str| json!({"resources": {"requests": {"cpu": cpu}}});
        let cpu = |spec: Value| of_pod(&spec, "requests")["cpu"].to_milli();
        assert_eq!(cpu(json!({"containers": [container("1"), container("500m")]})), 1500);
        assert_eq!(
            cpu(json!({"containers": [container("1")], "initContainers": [container("3"), container("2")]})),
            3000
        );
        let mut sidecar = container("1");
        sidecar["restartPolicy"] = "Always".into();
        assert_eq!(cpu(json!({"containers": [container("1")], "initContainers": [sidecar, container("2")]})), 3000);
        assert_eq!(cpu(json!({"containers": [container("1")], "overhead": {"cpu": "100m"}})), 1100);
    }

    #[test]
    fn best_effort_asks_for_nothing() {
        assert!(is_best_effort(&json!({"containers": [{"name": "a"}]})));
        assert!(is_best_effort(&json!({"containers": [{"resources": {"requests": {"ephemeral-storage": "1Gi"}}}]})));
        assert!(!is_best_effort(&json!({"containers": [{"resources": {"limits": {"memory": "1Gi"}}}]})));
    }
}
