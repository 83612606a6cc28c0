//! What a namespace may use: quotas and ranges.

use serde_json::{Map, Value};

use super::claim::amount;
use super::rules::{Declared, Generations, distinct, fixed, one_of, required, with};
use super::{checks, pod};
use crate::invalid::FieldError;
use crate::lookup;
use crate::path::Path;

const SCOPES: &[&str] = &[
    "BestEffort",
    "CrossNamespacePodAffinity",
    "NotBestEffort",
    "NotTerminating",
    "PriorityClass",
    "Terminating",
    "VolumeAttributesClass",
];

/// `v1` `ResourceQuota`
pub(crate) static QUOTA: Declared = Declared {
    generations: Generations::None,
    rules: &[
        with("spec.hard", resource_names),
        with("spec.hard{}", amount),
        one_of("spec.scopes[]", SCOPES),
        distinct("spec.scopes", &[]),
        required("spec.scopeSelector.matchExpressions[].scopeName"),
        one_of("spec.scopeSelector.matchExpressions[].scopeName", SCOPES),
        one_of("spec.scopeSelector.matchExpressions[].operator", &["In", "NotIn", "Exists", "DoesNotExist"]),
        with("spec.scopeSelector.matchExpressions[]", scope),
        fixed("spec.scopes"),
    ],
    status_rules: &[with("status.hard{}", amount), with("status.used{}", amount)],
    ..Declared::SPECIFIED
};

fn scope(term: &Value, path: &Path<'_>, errors: &mut Vec<FieldError>) {
    let values = lookup::list(term, "values").len();
    match lookup::text(term, "operator") {
        "In" | "NotIn" if values == 0 => {
            let detail = "must be at least one value when `operator` is 'In' or 'NotIn' for scope selector";
            errors.push(FieldError::required(&path.field("values"), detail));
        }
        "Exists" | "DoesNotExist" if values > 0 => {
            let detail = "must be no value when `operator` is 'Exist' or 'DoesNotExist' for scope selector";
            errors.push(FieldError::invalid(&path.field("values"), &term["values"], detail));
        }
        _ => {}
    }
}

/// What is counted has a name that says what it is.
fn resource_names(amounts: &Value, path: &Path<'_>, errors: &mut Vec<FieldError>) {
    for (name, _) in amounts.as_object().into_iter().flatten() {
        if let Err(problem) = checks::qualified_name(name.trim_start_matches("requests.").trim_start_matches("limits."))
        {
            errors.push(FieldError::invalid(&path.key(name), &name.as_str().into(), &problem));
        }
    }
}

/// `v1` `LimitRange`
pub(crate) static LIMIT_RANGE: Declared = Declared {
    fill: |object| {
        if let Some(spec) = object.get_mut("spec") {
            lookup::list_mut(spec, "limits").iter_mut().for_each(fill);
        }
    },
    rules: &[required("spec.limits[].type"), distinct("spec.limits", &["type"]), with("spec.limits[]", limit)],
    ..Declared::PLAIN
};

/// A container gets as much as it may have, and asks for as much as it gets.
fn fill(limit: &mut Value) {
    if lookup::text(limit, "type") != "Container" {
        return;
    }
    let amounts = |limit: &Value, field: &str| limit.get(field).and_then(Value::as_object).cloned().unwrap_or_default();
    let (most, least) = (amounts(limit, "max"), amounts(limit, "min"));
    let mut given = amounts(limit, "default");
    for (name, amount) in most {
        given.entry(name).or_insert(amount);
    }
    let mut asked = amounts(limit, "defaultRequest");
    for (name, amount) in given.iter().chain(&least) {
        asked.entry(name.clone()).or_insert_with(|| amount.clone());
    }
    for (field, amounts) in [("default", given), ("defaultRequest", asked)] {
        if !amounts.is_empty() {
            lookup::set(limit, field, amounts);
        }
    }
}

fn limit(limit: &Value, path: &Path<'_>, errors: &mut Vec<FieldError>) {
    let kind = lookup::text(limit, "type");
    if kind == "Pod" {
        for field in ["default", "defaultRequest"].into_iter().filter(|field| lookup::at(limit, field).is_some()) {
            let detail = "may not be specified when `type` is 'Pod'";
            errors.push(FieldError::forbidden(&path.field(field), detail));
        }
    }
    if kind == "PersistentVolumeClaim" && ["min", "max"].iter().all(|field| limit[*field].get("storage").is_none()) {
        let detail = "either minimum or maximum storage value is required, but neither was provided";
        errors.push(FieldError::required(&path.field("limits"), detail));
    }
    // Each of these is at most the next one.
    for (smaller, larger) in [
        ("min", "max"),
        ("min", "defaultRequest"),
        ("defaultRequest", "default"),
        ("defaultRequest", "max"),
        ("default", "max"),
        ("min", "default"),
    ] {
        let empty = Map::new();
        let bounds = limit.get(larger).and_then(Value::as_object).unwrap_or(&empty);
        for (name, amount) in lookup::entries(limit, smaller) {
            let Some(bound) = bounds.get(name).filter(|bound| pod::nanos(amount) > pod::nanos(bound)) else { continue };
            let of = |amount: &Value| amount.as_str().map_or_else(|| amount.to_string(), str::to_owned);
            let detail = format!("{smaller} value {} is greater than {larger} value {}", of(amount), of(bound));
            errors.push(FieldError::invalid(&path.field(smaller).key(name), amount, &detail));
        }
    }
    for (name, ratio) in lookup::entries(limit, "maxLimitRequestRatio") {
        if pod::nanos(ratio).is_some_and(|ratio| ratio < 1_000_000_000) {
            let list = path.field("maxLimitRequestRatio");
            errors.push(FieldError::invalid(&list.key(name), ratio, "ratio value is less than 1.0"));
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::strategy::testing::{admit, errors, fields, valid};

    fn made(kind: &str, spec: &Value) -> Value {
        json!({ "apiVersion": "v1", "kind": kind, "metadata": { "name": "q" }, "spec": spec })
    }

    #[test]
    fn a_range_fills_in_what_containers_get_and_ask() {
        let made_one = valid(made(
            "LimitRange",
            &json!({ "limits": [{ "type": "Container", "max": { "cpu": "2" }, "min": { "memory": "1Mi" } }] }),
        ));
        let limit = &made_one["spec"]["limits"][0];
        assert_eq!(limit["default"], json!({ "cpu": "2" }));
        assert_eq!(limit["defaultRequest"], json!({ "cpu": "2", "memory": "1Mi" }));
        let wrong = made(
            "LimitRange",
            &json!({ "limits": [
            { "type": "Pod", "min": { "cpu": "2" }, "max": { "cpu": "1" }, "default": { "cpu": "1" } },
            { "type": "Pod", "maxLimitRequestRatio": { "cpu": "500m" } }, { "type": "PersistentVolumeClaim" },
        ] }),
        );
        assert_eq!(
            fields(&errors(wrong)),
            [
                "spec.limits[1].type",
                "spec.limits[0].default",
                "spec.limits[0].min[cpu]",
                "spec.limits[0].min[cpu]",
                "spec.limits[1].maxLimitRequestRatio[cpu]",
                "spec.limits[2].limits",
            ]
        );
    }

    #[test]
    fn a_quotas_scope_stays() {
        let old = valid(made(
            "ResourceQuota",
            &json!({ "hard": { "requests.cpu": "1", "count/jobs.batch": "3" }, "scopes": ["BestEffort"] }),
        ));
        let mut new = old.clone();
        new["spec"]["scopes"] = json!(["NotBestEffort"]);
        new["spec"]["hard"]["pods"] = json!("-1");
        assert_eq!(fields(&admit(new, Some(&old)).1), ["spec.hard[pods]", "spec.scopes"]);
        let wrong = made(
            "ResourceQuota",
            &json!({ "hard": { "a b": "1" }, "scopeSelector": { "matchExpressions": [{ "scopeName": "x", "operator": "In" }] } }),
        );
        assert_eq!(
            fields(&errors(wrong)),
            [
                "spec.hard[a b]",
                "spec.scopeSelector.matchExpressions[0].scopeName",
                "spec.scopeSelector.matchExpressions[0].values"
            ]
        );
    }
}
