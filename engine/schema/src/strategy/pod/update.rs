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

fn tolerations(new: &Value, old: &Value, path: &Path<'_>, errors: &mut Vec<FieldError>) {
    let after = lookup::list(new, "tolerations");
    if !lookup::list(old, "tolerations").iter().all(|before| after.contains(before)) {
        let detail = "existing toleration can not be modified except its tolerationSeconds";
        errors.push(FieldError::forbidden(&path.field("tolerations"), detail));
    }
}
