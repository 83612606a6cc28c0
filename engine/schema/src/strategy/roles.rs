//! Roles and who has them: `rbac.authorization.k8s.io`.

use serde_json::Value;

use super::checks;
use super::rules::{Declared, Fill, one_of, required, required_as, selector, with};
use crate::invalid::FieldError;
use crate::lookup;
use crate::path::Path;

const GROUP: &str = "rbac.authorization.k8s.io";

/// `rbac.authorization.k8s.io/v1` `ClusterRole`
pub(crate) static CLUSTER_ROLE: Declared = Declared {
    name: checks::path_segment,
    rules: &[
        with("rules[]", |rule, path, errors| policy_rule(rule, false, path, errors)),
        required_as(
            "aggregationRule.clusterRoleSelectors",
            "at least one clusterRoleSelector required if aggregationRule is non-nil",
        ),
        selector("aggregationRule.clusterRoleSelectors[]"),
    ],
    ..Declared::PLAIN
};

/// `rbac.authorization.k8s.io/v1` `Role`
pub(crate) static ROLE: Declared = Declared {
    name: checks::path_segment,
    rules: &[with("rules[]", |rule, path, errors| policy_rule(rule, true, path, errors))],
    ..Declared::PLAIN
};

fn policy_rule(rule: &Value, namespaced: bool, path: &Path<'_>, errors: &mut Vec<FieldError>) {
    let given = |field: &str| !lookup::list(rule, field).is_empty();
    if !given("verbs") {
        errors.push(FieldError::required(&path.field("verbs"), "verbs must contain at least one value"));
    }
    if given("nonResourceURLs") {
        let path = path.field("nonResourceURLs");
        let urls = &rule["nonResourceURLs"];
        if namespaced {
            let detail = "namespaced rules cannot apply to non-resource URLs";
            errors.push(FieldError::invalid(&path, urls, detail));
        } else if ["apiGroups", "resources", "resourceNames"].into_iter().any(given) {
            let detail = "rules cannot apply to both regular resources and non-resource URLs";
            errors.push(FieldError::invalid(&path, urls, detail));
        }
        return;
    }
    for field in ["apiGroups", "resources"].into_iter().filter(|field| !given(field)) {
        let detail = format!(
            "resource rules must supply at least one {}",
            if field == "resources" { "resource" } else { "api group" }
        );
        errors.push(FieldError::required(&path.field(field), &detail));
    }
}

/// `rbac.authorization.k8s.io/v1` `ClusterRoleBinding`
pub(crate) static CLUSTER_ROLE_BINDING: Declared =
    Declared { more: |object, old, errors| role_of(object, old, &["ClusterRole"], errors), ..BINDING };

/// `rbac.authorization.k8s.io/v1` `RoleBinding`
pub(crate) static ROLE_BINDING: Declared =
    Declared { more: |object, old, errors| role_of(object, old, &["ClusterRole", "Role"], errors), ..BINDING };

const BINDING: Declared = Declared {
    name: checks::path_segment,
    defaults: &[("roleRef.apiGroup", Fill::Text(GROUP))],
    fill: |object| {
        for subject in lookup::list_mut(object, "subjects") {
            if matches!(lookup::text(subject, "kind"), "User" | "Group") {
                lookup::fill_zero(subject, "apiGroup", GROUP);
            }
        }
    },
    rules: &[
        required("subjects[].name"),
        required("subjects[].kind"),
        one_of("subjects[].kind", &["ServiceAccount", "User", "Group"]),
        with("subjects[]", subject),
    ],
    ..Declared::PLAIN
};

/// Checks which role is given, and that it stays the same.
fn role_of(object: &Value, old: Option<&Value>, kinds: &[&str], errors: &mut Vec<FieldError>) {
    let path = Path::Root.field("roleRef");
    let role = &object["roleRef"];
    let (group, kind) = (lookup::text(role, "apiGroup"), lookup::text(role, "kind"));
    if group != GROUP {
        errors.push(FieldError::not_supported(&path.field("apiGroup"), &group.into(), &[GROUP]));
    }
    if !kinds.contains(&kind) {
        errors.push(FieldError::not_supported(&path.field("kind"), &kind.into(), kinds));
    }
    match lookup::text(role, "name") {
        "" => errors.push(FieldError::required(&path.field("name"), "")),
        name => super::metadata::text_rule(&path.field("name"), name, checks::path_segment, errors),
    }
    if old.is_some_and(|old| old.get("roleRef") != object.get("roleRef")) {
        errors.push(FieldError::invalid(&path, role, "cannot change roleRef"));
    }
}

fn subject(subject: &Value, path: &Path<'_>, errors: &mut Vec<FieldError>) {
    let group = lookup::text(subject, "apiGroup");
    match lookup::text(subject, "kind") {
        "ServiceAccount" => {
            if !group.is_empty() {
                errors.push(FieldError::not_supported(&path.field("apiGroup"), &group.into(), &[""]));
            }
            if lookup::text(subject, "namespace").is_empty() {
                errors.push(FieldError::required(&path.field("namespace"), ""));
            }
        }
        "User" | "Group" if group != GROUP => {
            errors.push(FieldError::not_supported(&path.field("apiGroup"), &group.into(), &[GROUP]));
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::strategy::testing::{admit, errors, fields, valid};

    fn made(kind: &str, rest: &Value) -> Value {
        let mut object =
            json!({ "apiVersion": "rbac.authorization.k8s.io/v1", "kind": kind, "metadata": { "name": "system:a" } });
        for (name, value) in rest.as_object().into_iter().flatten() {
            object[name] = value.clone();
        }
        object
    }

    #[test]
    fn a_rule_is_about_resources_or_paths() {
        valid(made("Role", &json!({ "rules": [{ "apiGroups": [""], "resources": ["pods"], "verbs": ["get"] }] })));
        valid(made("ClusterRole", &json!({ "rules": [{ "nonResourceURLs": ["/healthz"], "verbs": ["get"] }] })));
        let wrong = json!({ "rules": [{ "nonResourceURLs": ["/"], "verbs": ["get"] }, { "resources": ["pods"] }] });
        assert_eq!(
            fields(&errors(made("Role", &wrong))),
            ["rules[0].nonResourceURLs", "rules[1].verbs", "rules[1].apiGroups"]
        );
        let both = json!({ "rules": [{ "nonResourceURLs": ["/"], "resources": ["pods"], "verbs": ["get"] }], "aggregationRule": {} });
        assert_eq!(
            fields(&errors(made("ClusterRole", &both))),
            ["rules[0].nonResourceURLs", "aggregationRule.clusterRoleSelectors"]
        );
    }

    #[test]
    fn a_binding_keeps_its_role() {
        let old = valid(made(
            "RoleBinding",
            &json!({
                "roleRef": { "kind": "Role", "name": "a" },
                "subjects": [{ "kind": "User", "name": "u" }, { "kind": "ServiceAccount", "name": "s", "namespace": "n" }],
            }),
        ));
        assert_eq!(old["roleRef"]["apiGroup"], GROUP);
        assert_eq!(old["subjects"][0]["apiGroup"], GROUP);
        let mut new = old.clone();
        new["roleRef"]["name"] = json!("b");
        let found = admit(new, Some(&old)).1;
        assert!(found[0].starts_with("roleRef: Invalid value: ") && found[0].ends_with(": cannot change roleRef"));
        let wrong = made(
            "ClusterRoleBinding",
            &json!({
                "roleRef": { "kind": "Role", "name": "a/b" }, "subjects": [{ "kind": "ServiceAccount", "name": "s" }, { "kind": "Robot" }],
            }),
        );
        assert_eq!(
            fields(&errors(wrong)),
            ["subjects[1].name", "subjects[1].kind", "subjects[0].namespace", "roleRef.kind", "roleRef.name"]
        );
    }
}
