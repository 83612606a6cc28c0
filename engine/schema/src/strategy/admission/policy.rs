//! Policies written as expressions, and where they hold.

use serde_json::Value;

use super::super::checks;
use super::super::rules::{
    Declared, Fill, Generations, at_most, check_at, distinct, one_of, required, required_as, selector, text, with,
};
use super::{CONDITIONS, OF_WRITES, expression, fill_match, of_writes};
use crate::invalid::FieldError;
use crate::lookup;
use crate::path::Path;

/// `admissionregistration.k8s.io/v1` `ValidatingAdmissionPolicy`
pub(crate) static VALIDATING_POLICY: Declared = Declared {
    defaults: &[("spec.failurePolicy", Fill::Text("Fail")), ("spec.matchConstraints", Fill::Object)],
    fill: fill_policy,
    rules: &[
        required("spec"),
        with("spec", policy),
        with("spec", |spec, path, errors| {
            if ["validations", "auditAnnotations"].iter().all(|list| lookup::list(spec, list).is_empty()) {
                let detail = "validations or auditAnnotations must contain at least one item";
                errors.push(FieldError::required(&path.field("validations"), detail));
            }
        }),
        with("spec.validations[].expression", expression),
        required("spec.validations[].expression"),
        one_of("spec.validations[].reason", &["Forbidden", "Invalid", "RequestEntityTooLarge", "Unauthorized"]),
        at_most("spec.auditAnnotations", 20),
        required("spec.auditAnnotations[].key"),
        required("spec.auditAnnotations[].valueExpression"),
        distinct("spec.auditAnnotations", &["key"]),
    ],
    ..Declared::SPECIFIED
};

/// `admissionregistration.k8s.io/v1` `MutatingAdmissionPolicy`
pub(crate) static MUTATING_POLICY: Declared = Declared {
    generations: Generations::Of(&["spec"]),
    defaults: &[("spec.failurePolicy", Fill::Text("Fail")), ("spec.matchConstraints", Fill::Object)],
    fill: fill_policy,
    rules: &[
        required("spec"),
        with("spec", policy),
        required("spec.reinvocationPolicy"),
        one_of("spec.reinvocationPolicy", &["IfNeeded", "Never"]),
        required_as("spec.mutations", "mutations must contain at least one item"),
        with("spec.mutations[]", mutation),
    ],
    ..Declared::PLAIN
};

fn fill_policy(object: &mut Value) {
    if let Some(constraints) = lookup::at_mut(object, "spec.matchConstraints").filter(|each| each.is_object()) {
        fill_match(constraints, "resourceRules");
    }
}

/// What holds for policies of either sort.
fn policy(spec: &Value, path: &Path<'_>, errors: &mut Vec<FieldError>) {
    let rules = [
        one_of("failurePolicy", &["Fail", "Ignore"]),
        required("paramKind.apiVersion"),
        required("paramKind.kind"),
        required("matchConstraints.resourceRules"),
        with("matchConstraints", matches),
        required("variables[].name"),
        text("variables[].name", checks::identifier),
        with("variables[].expression", expression),
        required("variables[].expression"),
        distinct("variables", &["name"]),
    ];
    check_at(&rules, spec, None, path, errors);
    check_at(CONDITIONS, spec, None, path, errors);
}

fn matches(constraints: &Value, path: &Path<'_>, errors: &mut Vec<FieldError>) {
    check_at(OF_WRITES, constraints, None, path, errors);
    for list in ["resourceRules", "excludeResourceRules"] {
        of_writes(&constraints[list], &path.field(list), errors);
    }
}

fn mutation(change: &Value, path: &Path<'_>, errors: &mut Vec<FieldError>) {
    let kinds = [("ApplyConfiguration", "applyConfiguration"), ("JSONPatch", "jsonPatch")];
    let kind = lookup::text(change, "patchType");
    let at = path.field("patchType");
    let Some((_, field)) = kinds.iter().find(|(name, _)| *name == kind) else {
        errors.push(match kind {
            "" => FieldError::required(&at, ""),
            other => FieldError::not_supported(&at, &other.into(), &kinds.map(|(name, _)| name)),
        });
        return;
    };
    for (_, extra) in kinds.iter().filter(|(_, extra)| extra != field && lookup::at(change, extra).is_some()) {
        let detail = format!("must not be specified when patchType is {kind}");
        errors.push(FieldError::invalid(&path.field(extra), &change[*extra], &detail));
    }
    let place = path.field(field);
    match lookup::at(change, field) {
        None => errors.push(FieldError::required(&place, &format!("must be specified when patchType is {kind}"))),
        Some(body) => {
            let rules = [with("expression", expression), required("expression")];
            check_at(&rules, body, None, &place, errors);
        }
    }
}

/// `admissionregistration.k8s.io/v1` `ValidatingAdmissionPolicyBinding`
pub(crate) static VALIDATING_POLICY_BINDING: Declared = Declared {
    rules: &[
        required("spec"),
        with("spec", binding),
        required("spec.validationActions"),
        one_of("spec.validationActions[]", &["Audit", "Deny", "Warn"]),
        distinct("spec.validationActions", &[]),
        with("spec.validationActions", |actions, path, errors| {
            let named = |action: &str| actions.as_array().into_iter().flatten().any(|each| each == action);
            if named("Deny") && named("Warn") {
                let detail = "must not contain both Deny and Warn (repeating the same validation failure information in the \
                              API response and headers serves no purpose)";
                errors.push(FieldError::invalid(path, actions, detail));
            }
        }),
    ],
    ..BINDING
};

/// `admissionregistration.k8s.io/v1` `MutatingAdmissionPolicyBinding`
pub(crate) static MUTATING_POLICY_BINDING: Declared =
    Declared { rules: &[required("spec"), with("spec", binding)], ..BINDING };

const BINDING: Declared = Declared {
    generations: Generations::Of(&["spec"]),
    fill: |object| {
        if let Some(matched) = lookup::at_mut(object, "spec.matchResources").filter(|each| each.is_object()) {
            fill_match(matched, "resourceRules");
        }
    },
    ..Declared::PLAIN
};

fn binding(spec: &Value, path: &Path<'_>, errors: &mut Vec<FieldError>) {
    let rules = [
        required("policyName"),
        text("policyName", checks::dns_subdomain),
        with("matchResources", matches),
        with("paramRef", parameters),
    ];
    check_at(&rules, spec, None, path, errors);
}

fn parameters(reference: &Value, path: &Path<'_>, errors: &mut Vec<FieldError>) {
    let (name, chosen) = (lookup::text(reference, "name"), lookup::at(reference, "selector"));
    match (name.is_empty(), chosen) {
        (false, Some(_)) => {
            let detail = "name and selector are mutually exclusive";
            errors.push(FieldError::forbidden(&path.field("name"), detail));
        }
        (true, None) => errors.push(FieldError::required(path, "one of name or selector must be specified")),
        _ => {}
    }
    let rules = [
        selector("selector"),
        required("parameterNotFoundAction"),
        one_of("parameterNotFoundAction", &["Allow", "Deny"]),
    ];
    check_at(&rules, reference, None, path, errors);
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::strategy::testing::{errors, fields, valid};

    fn made(kind: &str, spec: &Value) -> Value {
        json!({ "apiVersion": "admissionregistration.k8s.io/v1", "kind": kind, "metadata": { "name": "p" }, "spec": spec })
    }

    fn writes() -> Value {
        json!({ "resourceRules": [{ "operations": ["CREATE"], "apiGroups": ["apps"], "apiVersions": ["v1"], "resources": ["deployments"] }] })
    }

    #[test]
    fn a_policy_fails_shut() {
        let policy = valid(made(
            "ValidatingAdmissionPolicy",
            &json!({ "matchConstraints": writes(), "validations": [{ "expression": "true" }] }),
        ));
        assert_eq!(policy["spec"]["failurePolicy"], "Fail");
        assert_eq!(policy["spec"]["matchConstraints"]["matchPolicy"], "Equivalent");
        assert_eq!(policy["spec"]["matchConstraints"]["resourceRules"][0]["scope"], "*");
        assert_eq!(policy["status"], json!({}));
        valid(made(
            "MutatingAdmissionPolicy",
            &json!({
                "matchConstraints": writes(), "reinvocationPolicy": "Never",
                "mutations": [{ "patchType": "JSONPatch", "jsonPatch": { "expression": "[]" } }],
            }),
        ));
    }

    #[test]
    fn what_is_wrong_with_a_policy_is_named() {
        let wrong = json!({ "failurePolicy": "Shrug", "paramKind": { "kind": "K" }, "variables": [{ "name": "1", "expression": "" }] });
        assert_eq!(
            fields(&errors(made("ValidatingAdmissionPolicy", &wrong))),
            [
                "spec.failurePolicy",
                "spec.paramKind.apiVersion",
                "spec.matchConstraints.resourceRules",
                "spec.variables[0].name",
                "spec.variables[0].expression",
                "spec.validations",
            ]
        );
        let wrong = json!({ "matchConstraints": writes(), "mutations": [{ "patchType": "JSONPatch", "applyConfiguration": { "expression": "x" } }, {}] });
        assert_eq!(
            fields(&errors(made("MutatingAdmissionPolicy", &wrong))),
            [
                "spec.reinvocationPolicy",
                "spec.mutations[0].applyConfiguration",
                "spec.mutations[0].jsonPatch",
                "spec.mutations[1].patchType",
            ]
        );
    }

    #[test]
    fn a_binding_names_its_policy_and_parameters() {
        valid(made(
            "ValidatingAdmissionPolicyBinding",
            &json!({ "policyName": "p", "validationActions": ["Deny", "Audit"] }),
        ));
        let wrong = json!({ "policyName": "P", "validationActions": ["Deny", "Warn", "Shout"], "paramRef": { "name": "a", "selector": {} } });
        assert_eq!(
            fields(&errors(made("ValidatingAdmissionPolicyBinding", &wrong))),
            [
                "spec.policyName",
                "spec.paramRef.name",
                "spec.paramRef.parameterNotFoundAction",
                "spec.validationActions[2]",
                "spec.validationActions",
            ]
        );
        let wrong = json!({ "policyName": "p", "paramRef": { "parameterNotFoundAction": "Deny" } });
        assert_eq!(fields(&errors(made("MutatingAdmissionPolicyBinding", &wrong))), ["spec.paramRef"]);
    }
}
