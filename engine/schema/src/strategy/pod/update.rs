//! What may change about a pod once it is there: little, because its containers run already.

use serde_json::Value;

use crate::invalid::FieldError;
use crate::lookup;
use crate::path::Path;

const RULE: &str = "pod updates may not change fields other than \
                    `spec.containers[*].image`,`spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,\
                    `spec.tolerations` (only additions to existing tolerations),\
                    `spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)";

/// Compares two specifications. A pod that runs nowhere yet may be given a node, which is how a binding is written.
pub(super) fn validate(new: &Value, old: &Value, path: &Path<'_>, errors: &mut Vec<FieldError>) {
    if new == old {
        return;
    }
    for list in ["containers", "initContainers"] {
        if lookup::list(new, list).len() != lookup::list(old, list).len() {
            let detail = "pod updates may not add or remove containers";
            errors.push(FieldError::forbidden(&path.field(list), detail));
            return;
        }
    }
    deadline(new, old, path, errors);
    tolerations(new, old, path, errors);
    let mut munged = new.clone();
    images(&mut munged, old);
    take_over(&mut munged, old, "activeDeadlineSeconds");
    take_over(&mut munged, old, "tolerations");
    if lookup::text(old, "nodeName").is_empty() {
        take_over(&mut munged, old, "nodeName");
    }
    if !lookup::list(old, "schedulingGates").is_empty() {
        narrowed(&mut munged, old);
    }
    gates(&mut munged, old);
    if lookup::integer(old, "terminationGracePeriodSeconds").is_some_and(|seconds| seconds < 0)
        && lookup::integer(new, "terminationGracePeriodSeconds") == Some(1)
    {
        take_over(&mut munged, old, "terminationGracePeriodSeconds");
    }
    if munged != *old {
        errors.push(FieldError::forbidden(path, RULE));
    }
}

fn take_over(new: &mut Value, old: &Value, field: &str) {
    super::keep(new, old, field);
}

fn images(new: &mut Value, old: &Value) {
    for list in ["containers", "initContainers"] {
        for (new, old) in lookup::list_mut(new, list).iter_mut().zip(lookup::list(old, list)) {
            take_over(new, old, "image");
        }
    }
}

/// As long as a pod is held back, the choice of its nodes may be narrowed.
fn narrowed(new: &mut Value, old: &Value) {
    let keeps_all =
        lookup::entries(old, "nodeSelector").all(|(key, value)| new["nodeSelector"].get(key) == Some(value));
    if keeps_all {
        take_over(new, old, "nodeSelector");
    }
    let required = "affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution";
    let mut rest = new.get("affinity").cloned().unwrap_or_default();
    let before = old.get("affinity").cloned().unwrap_or_default();
    if lookup::at(old, required) == lookup::at(new, required) || lookup::at(old, required).is_none() {
        match before.get("nodeAffinity") {
            Some(nodes) => lookup::set(&mut rest, "nodeAffinity", nodes.clone()),
            None => drop(lookup::remove(&mut rest, "nodeAffinity")),
        }
    }
    let nothing = |affinity: &Value| affinity.as_object().is_none_or(serde_json::Map::is_empty);
    if rest == before || (nothing(&rest) && nothing(&before)) {
        take_over(new, old, "affinity");
    }
}

/// Gates may be lifted, never added.
fn gates(new: &mut Value, old: &Value) {
    let before = lookup::list(old, "schedulingGates");
    if lookup::list(new, "schedulingGates").iter().all(|gate| before.contains(gate)) {
        take_over(new, old, "schedulingGates");
    }
}

fn deadline(new: &Value, old: &Value, path: &Path<'_>, errors: &mut Vec<FieldError>) {
    let path = path.field("activeDeadlineSeconds");
    let Some(before) = lookup::integer(old, "activeDeadlineSeconds") else { return };
    match lookup::integer(new, "activeDeadlineSeconds") {
        Some(after) if after > before => {
            let detail = "must be less than or equal to previous value";
            errors.push(FieldError::invalid(&path, &after.into(), detail));
        }
        Some(_) => {}
        None => {
            errors.push(FieldError::invalid(
                &path,
                &Value::Null,
                "must not update from a positive integer to nil value",
            ));
        }
    }
}

/// How long a pod tolerates something may change; what it tolerates may only become more.
fn tolerations(new: &Value, old: &Value, path: &Path<'_>, errors: &mut Vec<FieldError>) {
    let what = |toleration: &Value| {
        let mut toleration = toleration.clone();
        lookup::remove(&mut toleration, "tolerationSeconds");
        toleration
    };
    let after: Vec<Value> = lookup::list(new, "tolerations").iter().map(what).collect();
    if !lookup::list(old, "tolerations").iter().all(|before| after.contains(&what(before))) {
        let detail = "existing toleration can not be modified except its tolerationSeconds";
        errors.push(FieldError::forbidden(&path.field("tolerations"), detail));
    }
}
