//! Pods, and the pod templates of workloads, which share everything but the status.

mod container;
mod defaults;
mod env;
mod ephemeral;
mod probe;
mod quality;
mod resources;
mod scheduling;
mod spec;
mod update;
mod volume;

use serde_json::{Value, json};

pub(super) use defaults::fill_spec;
pub use ephemeral::validate_ephemeral_containers;
pub(super) use resources::nanos;
pub(super) use scheduling::{node_selector, tolerations};
pub(super) use spec::validate_template;

use super::metadata;
use super::{Generations, Strategy, checks, keep};
use crate::invalid::FieldError;
use crate::lookup;
use crate::path::Path;

/// `v1` `Pod`
pub(crate) struct Pod;

impl Strategy for Pod {
    fn default(&self, object: &mut Value) {
        if let Some(spec) = object.get_mut("spec") {
            fill_spec(spec);
        }
    }

    fn prepare_create(&self, object: &mut Value) {
        let quality = quality::class(&object["spec"]);
        lookup::set(object, "status", json!({ "phase": "Pending", "qosClass": quality }));
    }

    fn prepare_update(&self, object: &mut Value, old: &Value) {
        keep(object, old, "status");
    }

    fn validate(&self, object: &Value, old: Option<&Value>) -> Vec<FieldError> {
        let mut errors = Vec::new();
        metadata::validate(object, old, checks::dns_subdomain, &mut errors);
        let path = Path::Root.field("spec");
        match object.get("spec").filter(|spec| spec.is_object()) {
            Some(spec) => spec::validate(spec, &path, &mut errors),
            None => errors.push(FieldError::required(&path, "")),
        }
        if old.is_none() && !lookup::list(object, "spec.ephemeralContainers").is_empty() {
            errors.push(FieldError::forbidden(&path.field("ephemeralContainers"), "cannot be set on create"));
        }
        if let Some(old) = old {
            update::validate(&object["spec"], &old["spec"], &path, &mut errors);
        }
        errors
    }

    fn validate_below(&self, subresource: &str, object: &Value, old: &Value) -> Vec<FieldError> {
        match subresource {
            "ephemeralcontainers" => validate_ephemeral_containers(object, old),
            "resize" => resources::validate_resize(object, old),
            _ => super::status::conditions(object),
        }
    }

    fn generations(&self) -> Generations {
        Generations::Of(&["spec"])
    }

    fn graceful_deletion(&self, object: &Value, asked: Option<i64>) -> Option<i64> {
        let runs_nowhere = lookup::text(object, "spec.nodeName").is_empty();
        let ended = matches!(lookup::text(object, "status.phase"), "Succeeded" | "Failed");
        if runs_nowhere || ended {
            return Some(0);
        }
        let seconds = asked.or_else(|| lookup::integer(object, "spec.terminationGracePeriodSeconds")).unwrap_or(0);
        // A negative time is what old clients write for "as short as it goes without force".
        Some(if seconds < 0 { 1 } else { seconds })
    }
}

#[cfg(test)]
mod tests;
