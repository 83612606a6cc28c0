//! What an object counts for, in the names that quotas use.

use serde_json::Value;
use shipway_schema::Resource;
use shipway_schema::quantity::Quantity;

use super::super::resources::{Amounts, add, amounts, containers, of_pod};
use crate::admission::is;

/// Kinds of the core group that quotas count by their bare name as well.
const PLAIN: [&str; 7] =
    ["configmaps", "persistentvolumeclaims", "pods", "replicationcontrollers", "resourcequotas", "secrets", "services"];
/// Amounts that quotas know with and without `requests.`.
const BARE: [&str; 3] = ["cpu", "ephemeral-storage", "memory"];
const CLASS: &str = ".storageclass.storage.k8s.io/";

/// Whether an update of an object can make it count for more or less.
pub(super) fn varies(resource: &Resource) -> bool {
    resource.group.is_empty() && matches!(&*resource.kind, "Pod" | "Service" | "PersistentVolumeClaim")
}

/// What the object counts for.
pub(super) fn of(resource: &Resource, object: &Value) -> Amounts {
    let one = Quantity::from_units(1);
    let mut sum = Amounts::new();
    sum.insert(count_of(resource), one);
    if !resource.group.is_empty() {
        return sum;
    }
    match &*resource.kind {
        "Pod" if is_over(object) => {}
        "Pod" => {
            sum.insert("pods".into(), one);
            of_running(&object["spec"], &mut sum);
        }
        "Service" => {
            sum.insert("services".into(), one);
            of_service(&object["spec"], &mut sum);
        }
        "PersistentVolumeClaim" => {
            sum.insert("persistentvolumeclaims".into(), one);
            of_claim(object, &mut sum);
        }
        _ if PLAIN.contains(&&*resource.plural) => {
            sum.insert(resource.plural.to_string(), one);
        }
        _ => {}
    }
    sum
}

/// `count/deployments.apps`
fn count_of(resource: &Resource) -> String {
    if resource.group.is_empty() {
        format!("count/{}", resource.plural)
    } else {
        format!("count/{}.{}", resource.plural, resource.group)
    }
}

/// Whether an amount of this name may be about objects of this kind.
pub(super) fn concerns(resource: &Resource, name: &str) -> bool {
    if name.starts_with("count/") {
        return name == count_of(resource);
    }
    let storage = name == "requests.storage" || name.contains(CLASS);
    match &*resource.kind {
        "Pod" => is(resource, "", "Pod") && !storage && (name == "pods" || !PLAIN.contains(&name)),
        "PersistentVolumeClaim" => resource.group.is_empty() && (storage || name == "persistentvolumeclaims"),
        "Service" => resource.group.is_empty() && (name == "services" || name.starts_with("services.")),
        _ => resource.group.is_empty() && *resource.plural == *name,
    }
}

/// Whether a pod uses nothing any more.
fn is_over(pod: &Value) -> bool {
    matches!(pod["status"]["phase"].as_str(), Some("Failed" | "Succeeded"))
}

fn of_running(spec: &Value, sum: &mut Amounts) {
    for (name, amount) in of_pod(spec, "requests") {
        if BARE.contains(&name.as_str()) || name.starts_with("hugepages-") {
            add(sum, &name, &amount);
        }
        add(sum, &format!("requests.{name}"), &amount);
    }
    for (name, amount) in of_pod(spec, "limits") {
        add(sum, &format!("limits.{name}"), &amount);
    }
}

fn of_service(spec: &Value, sum: &mut Amounts) {
    let ports = spec["ports"].as_array().into_iter().flatten();
    let balanced = spec["type"] == "LoadBalancer";
    if balanced {
        sum.insert("services.loadbalancers".into(), Quantity::from_units(1));
    }
    let open = if spec["type"] == "NodePort" || (balanced && spec["allocateLoadBalancerNodePorts"] != false) {
        ports.count()
    } else if balanced {
        ports.filter(|port| port["nodePort"].as_u64().is_some_and(|port| port > 0)).count()
    } else {
        0
    };
    if open > 0 {
        sum.insert("services.nodeports".into(), Quantity::from_units(i64::try_from(open).unwrap_or(i64::MAX)));
    }
}

fn of_claim(claim: &Value, sum: &mut Amounts) {
    let size = amounts(&claim["spec"]["resources"]["requests"]).remove("storage");
    let class = claim["spec"]["storageClassName"].as_str().filter(|class| !class.is_empty());
    if let Some(size) = &size {
        sum.insert("requests.storage".into(), *size);
    }
    if let Some(class) = class {
        sum.insert(format!("{class}{CLASS}persistentvolumeclaims"), Quantity::from_units(1));
        if let Some(size) = size {
            sum.insert(format!("{class}{CLASS}requests.storage"), size);
        }
    }
}

/// What containers of a new pod leave open although the quota counts it: `limits.cpu for: main`.
pub(super) fn missing(resource: &Resource, pod: &Value, hard: &Amounts) -> Vec<String> {
    if !is(resource, "", "Pod") {
        return Vec::new();
    }
    let lacking = |name: &String| {
        let (field, amount) = match name.split_once('.') {
            Some(("requests", amount)) => ("requests", amount),
            Some(("limits", amount)) => ("limits", amount),
            _ => ("requests", name.as_str()),
        };
        if !matches!(amount, "cpu" | "memory") || !pod["spec"]["resources"][field][amount].is_null() {
            return None;
        }
        let without = containers(&pod["spec"]).filter(|container| container["resources"][field][amount].is_null());
        let names: Vec<&str> = without.map(|container| container["name"].as_str().unwrap_or_default()).collect();
        (!names.is_empty()).then(|| format!("{name} for: {}", names.join(",")))
    };
    hard.keys().filter_map(lacking).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;
    use shipway_schema::Registry;

    fn counted(api_version: &str, kind: &str, object: &Value) -> Vec<String> {
        let resource = Registry::builtin().of_kind(api_version, kind).unwrap();
        of(&resource, object).iter().map(|(name, amount)| format!("{name}={amount}")).collect()
    }

    #[test]
    fn objects_count_by_their_kind() {
        assert_eq!(counted("apps/v1", "Deployment", &json!({})), ["count/deployments.apps=1"]);
        assert_eq!(counted("v1", "ConfigMap", &json!({})), ["configmaps=1", "count/configmaps=1"]);
        let service = json!({"spec": {"type": "LoadBalancer", "ports": [{"port": 1}, {"port": 2}]}});
        let counts = ["count/services=1", "services=1", "services.loadbalancers=1", "services.nodeports=2"];
        assert_eq!(counted("v1", "Service", &service), counts);
    }

    #[test]
    fn a_pod_counts_until_it_is_over() {
        let mut pod = json!({"spec": {"containers": [{"name": "a", "resources": {
            "requests": {"cpu": "1", "example.com/gpu": "2"}, "limits": {"memory": "1Gi"}}}]}});
        let counts =
            ["count/pods=1", "cpu=1", "limits.memory=1Gi", "pods=1", "requests.cpu=1", "requests.example.com/gpu=2"];
        assert_eq!(counted("v1", "Pod", &pod), counts);
        pod["status"] = json!({"phase": "Succeeded"});
        assert_eq!(counted("v1", "Pod", &pod), ["count/pods=1"]);
    }

    #[test]
    fn what_a_quota_counts_has_to_be_said() {
        let registry = Registry::builtin();
        let pod =
            json!({"spec": {"containers": [{"name": "a", "resources": {"limits": {"cpu": "1"}}}, {"name": "b"}]}});
        let hard = amounts(&json!({"limits.cpu": "1", "pods": "1", "requests.memory": "1Gi"}));
        let resource = registry.of_kind("v1", "Pod").unwrap();
        assert_eq!(missing(&resource, &pod, &hard), ["limits.cpu for: b", "requests.memory for: a,b"]);
        assert!(concerns(&resource, "requests.memory") && !concerns(&resource, "services"));
        assert!(!concerns(&resource, "gold.storageclass.storage.k8s.io/requests.storage"));
    }
}
