//! Which objects a quota with scopes is about.

use serde_json::Value;
use shipway_schema::Resource;

use super::super::resources::is_best_effort;
use crate::admission::is;

/// Whether a quota's scopes, all of them, take in an object. Scopes are about pods: without any everything is taken in,
/// with some nothing but pods is.
pub(super) fn matches(quota: &Value, resource: &Resource, object: &Value) -> bool {
    let scopes = quota["scopes"].as_array().into_iter().flatten();
    let selectors = quota["scopeSelector"]["matchExpressions"].as_array().into_iter().flatten();
    let (mut scopes, mut selectors) = (scopes.peekable(), selectors.peekable());
    if scopes.peek().is_none() && selectors.peek().is_none() {
        return true;
    }
    let spec = &object["spec"];
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    is(resource, "", "Pod")
        && scopes.all(|scope| in_scope(&text(scope), "Exists", &Value::Null, spec))
        && selectors.all(|one| in_scope(&text(&one["scopeName"]), &text(&one["operator"]), &one["values"], spec))
}

fn in_scope(scope: &str, operator: &str, values: &Value, spec: &Value) -> bool {
    match scope {
        "BestEffort" => is_best_effort(spec),
        "NotBestEffort" => !is_best_effort(spec),
        "Terminating" => ends(spec),
        "NotTerminating" => !ends(spec),
        "CrossNamespacePodAffinity" => crosses_namespaces(&spec["affinity"]),
        "PriorityClass" => {
            let class = spec["priorityClassName"].as_str().filter(|class| !class.is_empty());
            let named = || values.as_array().into_iter().flatten().any(|value| value.as_str() == class);
            match operator {
                "In" => class.is_some() && named(),
                "NotIn" => !(class.is_some() && named()),
                "DoesNotExist" => class.is_none(),
                _ => class.is_some(),
            }
        }
        _ => false,
    }
}

fn ends(spec: &Value) -> bool {
    spec["activeDeadlineSeconds"].as_i64().is_some_and(|seconds| seconds >= 0)
}

/// Whether a rule of affinity looks into other namespaces.
fn crosses_namespaces(affinity: &Value) -> bool {
    let terms = |kind: &str| {
        let rules = &affinity[kind];
        let required = rules["requiredDuringSchedulingIgnoredDuringExecution"].as_array().into_iter().flatten();
        let preferred = rules["preferredDuringSchedulingIgnoredDuringExecution"].as_array().into_iter().flatten();
        required.chain(preferred.map(|term| &term["podAffinityTerm"])).cloned().collect::<Vec<_>>()
    };
    let crosses = |term: &Value| {
        term["namespaces"].as_array().is_some_and(|names| !names.is_empty()) || !term["namespaceSelector"].is_null()
    };
    ["podAffinity", "podAntiAffinity"].iter().any(|kind| terms(kind).iter().any(crosses))
}

/// Whether an update that uses neither more nor less may move a pod from one scope to another.
pub(super) fn changes(resource: &Resource, old: &Value, new: &Value) -> bool {
    is(resource, "", "Pod") && old["spec"]["activeDeadlineSeconds"] != new["spec"]["activeDeadlineSeconds"]
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;
    use shipway_schema::Registry;

    #[test]
    fn scopes_take_in_the_pods_they_name() {
        let registry = Registry::builtin();
        let (pod, service) = (registry.of_kind("v1", "Pod").unwrap(), registry.of_kind("v1", "Service").unwrap());
        let idle = json!({"spec": {"containers": [{"name": "a"}], "priorityClassName": "high"}});
        let busy =
            json!({"spec": {"containers": [{"resources": {"limits": {"cpu": "1"}}}], "activeDeadlineSeconds": 5}});
        let table = [
            (json!({}), true, true),
            (json!({"scopes": ["BestEffort"]}), true, false),
            (json!({"scopes": ["NotBestEffort"]}), false, true),
            (json!({"scopes": ["Terminating"]}), false, true),
            (json!({"scopes": ["NotTerminating"]}), true, false),
            (json!({"scopes": ["BestEffort", "Terminating"]}), false, false),
        ];
        for (quota, takes_idle, takes_busy) in table {
            assert_eq!(
                (matches(&quota, &pod, &idle), matches(&quota, &pod, &busy)),
                (takes_idle, takes_busy),
                "{quota}"
            );
        }
        let by_class = |operator: &str, values: Value| json!({"scopeSelector": {"matchExpressions": [{"scopeName": "PriorityClass", "operator": operator, "values": values}]}});
        assert!(matches(&by_class("In", json!(["high"])), &pod, &idle));
        assert!(!matches(&by_class("In", json!(["high"])), &pod, &busy));
        assert!(matches(&by_class("NotIn", json!(["high"])), &pod, &busy));
        assert!(matches(&by_class("DoesNotExist", json!([])), &pod, &busy));
        assert!(
            matches(&json!({}), &service, &json!({}))
                && !matches(&json!({"scopes": ["BestEffort"]}), &service, &json!({}))
        );
    }
}
