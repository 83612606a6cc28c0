//! Configurations of webhooks.

use std::collections::BTreeSet;

use serde_json::Value;

use super::super::checks;
use super::super::extension::client;
use super::super::rules::{Declared, Fill, Generations, between, check_at, distinct, one_of, required, text, with};
use super::{CONDITIONS, OF_WRITES, fill_match, of_writes};
use crate::invalid::FieldError;
use crate::lookup;
use crate::path::Path;

/// `admissionregistration.k8s.io/v1` `MutatingWebhookConfiguration`
pub(crate) static MUTATING_WEBHOOKS: Declared = Declared {
    fill: |object| {
        fill(object);
        for hook in lookup::list_mut(object, "webhooks") {
            lookup::fill_zero(hook, "reinvocationPolicy", "Never");
        }
    },
    rules: &[
        with("webhooks[]", webhook),
        one_of("webhooks[].reinvocationPolicy", &["IfNeeded", "Never"]),
        distinct("webhooks", &["name"]),
    ],
    ..WEBHOOKS
};

/// `admissionregistration.k8s.io/v1` `ValidatingWebhookConfiguration`
pub(crate) static VALIDATING_WEBHOOKS: Declared =
    Declared { rules: &[with("webhooks[]", webhook), distinct("webhooks", &["name"])], ..WEBHOOKS };

const WEBHOOKS: Declared = Declared {
    generations: Generations::Of(&["webhooks"]),
    defaults: &[
        ("webhooks[].failurePolicy", Fill::Text("Fail")),
        ("webhooks[].timeoutSeconds", Fill::Number(10)),
        ("webhooks[].clientConfig.service.port", Fill::Number(443)),
    ],
    fill,
    ..Declared::PLAIN
};

fn fill(object: &mut Value) {
    for hook in lookup::list_mut(object, "webhooks") {
        fill_match(hook, "rules");
    }
}

/// The versions of reviews that the server can send.
const REVIEWS: [&str; 2] = ["v1", "v1beta1"];

fn webhook(hook: &Value, path: &Path<'_>, errors: &mut Vec<FieldError>) {
    let rules = [
        required("name"),
        text("name", checks::qualified_domain),
        one_of("failurePolicy", &["Fail", "Ignore"]),
        required("sideEffects"),
        one_of("sideEffects", &["None", "NoneOnDryRun"]),
        between("timeoutSeconds", 1, 30),
        required("admissionReviewVersions"),
        distinct("admissionReviewVersions", &[]),
        with("rules", of_writes),
    ];
    check_at(&rules, hook, None, path, errors);
    check_at(OF_WRITES, hook, None, path, errors);
    check_at(CONDITIONS, hook, None, path, errors);
    client(&hook["clientConfig"], &path.field("clientConfig"), errors);
    let known: BTreeSet<&str> =
        lookup::list(hook, "admissionReviewVersions").iter().filter_map(Value::as_str).collect();
    if !known.is_empty() && !REVIEWS.iter().any(|version| known.contains(version)) {
        let detail = "must include at least one of v1, v1beta1";
        let path = path.field("admissionReviewVersions");
        errors.push(FieldError::invalid(&path, &hook["admissionReviewVersions"], detail));
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::strategy::testing::{errors, fields, valid};

    fn made(kind: &str, hook: &Value) -> Value {
        let mut whole = json!({
            "name": "a.example.com", "sideEffects": "None", "admissionReviewVersions": ["v1"],
            "clientConfig": { "service": { "name": "s", "namespace": "n" } },
        });
        for (name, value) in hook.as_object().into_iter().flatten() {
            whole[name] = value.clone();
        }
        json!({ "apiVersion": "admissionregistration.k8s.io/v1", "kind": kind, "metadata": { "name": "w" }, "webhooks": [whole] })
    }

    #[test]
    fn a_webhook_fails_shut_and_in_time() {
        let rule =
            json!([{ "operations": ["CREATE"], "apiGroups": [""], "apiVersions": ["v1"], "resources": ["pods"] }]);
        let hook = valid(made("MutatingWebhookConfiguration", &json!({ "rules": rule })))["webhooks"][0].clone();
        assert_eq!(
            (&hook["failurePolicy"], &hook["timeoutSeconds"], &hook["matchPolicy"]),
            (&json!("Fail"), &json!(10), &json!("Equivalent"))
        );
        assert_eq!((&hook["reinvocationPolicy"], &hook["namespaceSelector"]), (&json!("Never"), &json!({})));
        assert_eq!((&hook["rules"][0]["scope"], &hook["clientConfig"]["service"]["port"]), (&json!("*"), &json!(443)));
        let hook = valid(made("ValidatingWebhookConfiguration", &json!({})))["webhooks"][0].clone();
        assert!(hook.get("reinvocationPolicy").is_none());
    }

    #[test]
    fn what_is_wrong_with_a_webhook_is_named() {
        let wrong = json!({
            "name": "short", "sideEffects": "Some", "timeoutSeconds": 31, "admissionReviewVersions": ["v9"], "failurePolicy": "Shrug",
            "clientConfig": { "url": "https://x", "service": { "name": "s", "namespace": "n" } },
            "rules": [{ "operations": ["*", "CREATE"], "apiGroups": [""], "apiVersions": ["v1"], "resources": ["a/b/c"], "scope": "Here" }],
            "matchConditions": [{ "name": "a", "expression": " " }, { "name": "a", "expression": "true" }],
        });
        let places: Vec<String> = [
            "name",
            "failurePolicy",
            "sideEffects",
            "timeoutSeconds",
            "rules[0].scope",
            "rules[0].operations",
            "rules[0].resources[0]",
            "matchConditions[0].expression",
            "matchConditions[1].name",
            "clientConfig",
            "admissionReviewVersions",
        ]
        .iter()
        .map(|field| format!("webhooks[0].{field}"))
        .collect();
        assert_eq!(fields(&errors(made("ValidatingWebhookConfiguration", &wrong))), places);
    }
}
