//! Roles and their bindings: what may be done, and by whom.

use serde_json::Value;

use super::{Strategy, checks, metadata};
use crate::invalid::FieldError;
use crate::lookup;
use crate::path::Path;

const GROUP: &str = "rbac.authorization.k8s.io";

/// `rbac.authorization.k8s.io/v1` `Role` and `ClusterRole`
pub(super) struct Role;

impl Strategy for Role {
    fn validate(&self, object: &Value, old: Option<&Value>) -> Vec<FieldError> {
        let mut errors = Vec::new();
        metadata::validate(object, old, checks::path_segment, &mut errors);
        let namespaced = lookup::text(object, "kind") == "Role";
        let rules = Path::Root.field("rules");
        for (index, rule) in lookup::list(object, "rules").iter().enumerate() {
            check_rule(rule, &rules.index(index), namespaced, &mut errors);
        }
        errors
    }
}

fn check_rule(rule: &Value, path: &Path<'_>, namespaced: bool, errors: &mut Vec<FieldError>) {
    let given = |field: &str| !lookup::list(rule, field).is_empty();
    let mut need = |field: &str, what: &str| {
        if !given(field) {
            errors.push(FieldError::required(&path.field(field), what));
        }
    };
    need("verbs", "verbs must contain at least one value");
    if !given("nonResourceURLs") {
        need("apiGroups", "resource rules must supply at least one api group");
        need("resources", "resource rules must supply at least one resource");
    } else if namespaced {
        let urls = &rule["nonResourceURLs"];
        let text = "namespaced rules cannot apply to non-resource URLs";
        errors.push(FieldError::invalid(&path.field("nonResourceURLs"), urls, text));
    } else if given("apiGroups") || given("resources") || given("resourceNames") {
        let urls = &rule["nonResourceURLs"];
        let text = "rules cannot apply to both regular resources and non-resource URLs";
        errors.push(FieldError::invalid(&path.field("nonResourceURLs"), urls, text));
    }
}

/// `rbac.authorization.k8s.io/v1` `RoleBinding` and `ClusterRoleBinding`
pub(super) struct RoleBinding;

impl Strategy for RoleBinding {
    fn default(&self, object: &mut Value) {
        if let Some(reference) = object.get_mut("roleRef") {
            lookup::fill_zero(reference, "apiGroup", GROUP);
        }
        for subject in lookup::list_mut(object, "subjects") {
            let group = if lookup::text(subject, "kind") == "ServiceAccount" { "" } else { GROUP };
            if !group.is_empty() {
                lookup::fill_zero(subject, "apiGroup", group);
            }
        }
    }

    fn validate(&self, object: &Value, old: Option<&Value>) -> Vec<FieldError> {
        let mut errors = Vec::new();
        metadata::validate(object, old, checks::path_segment, &mut errors);
        check_reference(object, &Path::Root.field("roleRef"), &mut errors);
        let subjects = Path::Root.field("subjects");
        let namespaced = lookup::text(object, "kind") == "RoleBinding";
        for (index, subject) in lookup::list(object, "subjects").iter().enumerate() {
            check_subject(subject, &subjects.index(index), namespaced, &mut errors);
        }
        if old.is_some_and(|old| old["roleRef"] != object["roleRef"]) {
            errors.push(FieldError::invalid(&Path::Root.field("roleRef"), &object["roleRef"], "cannot change roleRef"));
        }
        errors
    }
}

fn check_reference(binding: &Value, path: &Path<'_>, errors: &mut Vec<FieldError>) {
    let reference = &binding["roleRef"];
    let kinds: &[&str] =
        if lookup::text(binding, "kind") == "RoleBinding" { &["Role", "ClusterRole"] } else { &["ClusterRole"] };
    if lookup::text(reference, "apiGroup") != GROUP {
        errors.push(FieldError::not_supported(&path.field("apiGroup"), &reference["apiGroup"], &[GROUP]));
    }
    if !kinds.contains(&lookup::text(reference, "kind")) {
        errors.push(FieldError::not_supported(&path.field("kind"), &reference["kind"], kinds));
    }
    named(reference, path, errors);
}

fn check_subject(subject: &Value, path: &Path<'_>, namespaced: bool, errors: &mut Vec<FieldError>) {
    named(subject, path, errors);
    let group = lookup::text(subject, "apiGroup");
    let (kind, expected) = match lookup::text(subject, "kind") {
        "ServiceAccount" => ("ServiceAccount", ""),
        "User" => ("User", GROUP),
        "Group" => ("Group", GROUP),
        _ => {
            let kinds = ["ServiceAccount", "User", "Group"];
            return errors.push(FieldError::not_supported(&path.field("kind"), &subject["kind"], &kinds));
        }
    };
    if group != expected {
        errors.push(FieldError::not_supported(&path.field("apiGroup"), &subject["apiGroup"], &[expected]));
    }
    if kind == "ServiceAccount" && !namespaced && lookup::text(subject, "namespace").is_empty() {
        errors.push(FieldError::required(&path.field("namespace"), ""));
    }
}

fn named(part: &Value, path: &Path<'_>, errors: &mut Vec<FieldError>) {
    let name = lookup::text(part, "name");
    if name.is_empty() {
        errors.push(FieldError::required(&path.field("name"), ""));
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use crate::strategy::testing::{admit, errors, valid};

    fn role(kind: &str, rule: &Value) -> Value {
        json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": kind, "metadata": {"name": "a:b", "namespace": "n"},
            "rules": [rule]})
    }

    fn binding(role: &str, subject: &Value) -> Value {
        json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding",
            "metadata": {"name": "b", "namespace": "n"},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": role}, "subjects": [subject]})
    }

    #[test]
    fn a_rule_is_about_resources_or_about_paths() {
        valid(role("Role", &json!({"verbs": ["get"], "apiGroups": [""], "resources": ["pods"]})));
        valid(role("ClusterRole", &json!({"verbs": ["get"], "nonResourceURLs": ["/metrics"]})));
        let wrong = errors(role("Role", &json!({"verbs": ["get"], "nonResourceURLs": ["/metrics"]})));
        assert!(wrong[0].contains("namespaced rules cannot apply to non-resource URLs"), "{wrong:?}");
        assert_eq!(errors(role("Role", &json!({"verbs": []}))).len(), 3);
    }

    #[test]
    fn a_binding_keeps_its_role() {
        let jane = json!({"kind": "User", "name": "jane"});
        let old = valid(binding("a", &jane));
        assert_eq!(old["subjects"][0]["apiGroup"], "rbac.authorization.k8s.io");
        let (_, wrong) = admit(binding("b", &jane), Some(&old));
        assert!(wrong[0].starts_with("roleRef: Invalid value") && wrong[0].ends_with("cannot change roleRef"));
        let wrong = errors(binding("a", &json!({"kind": "Robot", "name": "r"})));
        assert!(wrong[0].starts_with("subjects[0].kind: Unsupported value"), "{wrong:?}");
    }
}
