//! What requests and limits must satisfy.

use serde_json::Value;

use super::super::checks;
use crate::invalid::FieldError;
use crate::lookup;
use crate::path::Path;
use crate::quantity::Quantity;

pub(super) fn validate(resources: &Value, path: &Path<'_>, errors: &mut Vec<FieldError>) {
    for list in ["limits", "requests"] {
        let path = path.field(list);
        for (name, amount) in lookup::entries(resources, list) {
            let path = path.key(name);
            resource_name(name, &path, errors);
            if nanos(amount).is_some_and(|amount| amount < 0) {
                errors.push(FieldError::invalid(&path, amount, "must be greater than or equal to 0"));
            }
        }
    }
    let limits = |name: &str| resources.get("limits").and_then(|limits| limits.get(name));
    for (name, request) in lookup::entries(resources, "requests") {
        let Some(limit) = limits(name) else { continue };
        if nanos(request) > nanos(limit) {
            let limit = limit.as_str().map_or_else(|| limit.to_string(), str::to_owned);
            let detail = format!("must be less than or equal to {name} limit of {limit}");
            errors.push(FieldError::invalid(&path.field("requests"), request, &detail));
        }
    }
}

/// An amount in billionths, for comparing.
pub(in crate::strategy) fn nanos(amount: &Value) -> Option<i128> {
    Quantity::from_value(amount).ok().map(|amount| amount.to_nanos())
}

fn resource_name(name: &str, path: &Path<'_>, errors: &mut Vec<FieldError>) {
    let standard = matches!(name, "cpu" | "memory" | "ephemeral-storage") || name.starts_with("hugepages-");
    if standard {
        return;
    }
    let problem = match checks::qualified_name(name) {
        Err(problem) => problem,
        Ok(()) if !name.contains('/') => "must be a standard resource for containers".to_owned(),
        Ok(()) => return,
    };
    errors.push(FieldError::invalid(path, &name.into(), &problem));
}

/// Checks a write of the containers' resources.
pub(super) fn validate_resize(object: &Value, old: &Value) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let spec = Path::Root.field("spec");
    for list in ["containers", "initContainers"] {
        let list_path = spec.field(list);
        for (index, each) in lookup::list(&object["spec"], list).iter().enumerate() {
            let path = list_path.index(index);
            validate(&each["resources"], &path.field("resources"), &mut errors);
        }
    }
    let (before, after) = (super::quality::class(&old["spec"]), super::quality::class(&object["spec"]));
    if before != after {
        let detail = "Pod QOS Class may not change as a result of resizing";
        errors.push(FieldError::invalid(&spec, &after.into(), detail));
    }
    errors
}
