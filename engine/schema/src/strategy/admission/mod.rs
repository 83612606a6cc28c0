//! Who looks at writes before they are stored: webhooks, and policies written as expressions.

mod policy;
mod webhook;

use serde_json::{Value, json};

pub(crate) use policy::{MUTATING_POLICY, MUTATING_POLICY_BINDING, VALIDATING_POLICY, VALIDATING_POLICY_BINDING};
pub(crate) use webhook::{MUTATING_WEBHOOKS, VALIDATING_WEBHOOKS};

use super::checks;
use super::rules::{Rule, at_most, check_at, distinct, one_of, required, selector, text, with};
use crate::invalid::FieldError;
use crate::lookup;
use crate::path::Path;

const OPERATIONS: &[&str] = &["*", "CONNECT", "CREATE", "DELETE", "UPDATE"];

/// Fills in which objects are meant: all, however their kind's versions are called.
fn fill_match(holder: &mut Value, rules: &str) {
    lookup::fill_zero(holder, "matchPolicy", "Equivalent");
    lookup::fill(holder, "namespaceSelector", json!({}));
    lookup::fill(holder, "objectSelector", json!({}));
    for list in [rules, "excludeResourceRules"] {
        for rule in lookup::list_mut(holder, list) {
            lookup::fill_zero(rule, "scope", "*");
        }
    }
}

/// What holds for everything that names writes.
const OF_WRITES: &[Rule] =
    &[one_of("matchPolicy", &["Equivalent", "Exact"]), selector("namespaceSelector"), selector("objectSelector")];

/// Checks rules that name writes.
fn of_writes(rules: &Value, path: &Path<'_>, errors: &mut Vec<FieldError>) {
    for (index, rule) in rules.as_array().into_iter().flatten().enumerate() {
        let path = path.index(index);
        let checks = [
            required("operations"),
            one_of("operations[]", OPERATIONS),
            required("apiGroups"),
            required("apiVersions"),
            required("resources"),
            one_of("scope", &["*", "Cluster", "Namespaced"]),
        ];
        check_at(&checks, rule, None, &path, errors);
        for list in ["operations", "apiGroups", "apiVersions"] {
            let all = lookup::list(rule, list);
            if all.len() > 1 && all.iter().any(|each| each == "*") {
                let detail = "if '*' is present, must not specify other values";
                errors.push(FieldError::invalid(&path.field(list), &rule[list], detail));
            }
        }
        let resources = path.field("resources");
        for (index, each) in lookup::list(rule, "resources").iter().enumerate() {
            if each.as_str().is_none_or(|each| each.is_empty() || each.matches('/').count() > 1) {
                let detail = "must be a resource, or a resource and a subresource: 'pods', 'pods/status', '*/*'";
                errors.push(FieldError::invalid(&resources.index(index), each, detail));
            }
        }
    }
}

/// Conditions that have to hold before anybody is asked.
const CONDITIONS: &[Rule] = &[
    at_most("matchConditions", 64),
    required("matchConditions[].name"),
    text("matchConditions[].name", checks::qualified_name),
    with("matchConditions[].expression", expression),
    required("matchConditions[].expression"),
    distinct("matchConditions", &["name"]),
];

/// An expression is more than space; whether it can be evaluated is found out where it is.
fn expression(value: &Value, path: &Path<'_>, errors: &mut Vec<FieldError>) {
    if value.as_str().is_some_and(|text| text.trim().is_empty()) {
        errors.push(FieldError::required(path, ""));
    }
}
